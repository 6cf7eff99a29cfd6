//! UPDATE and DELETE: a table is handed the conditions of the rows to change, which DataFusion gathers from the filters
//! of the optimized plan.
//!
//! It finds none where the plan has come to read no rows, or reads them through more than filters, and a table that is
//! handed no condition changes every row. So such plans do not get there.

use couatl_core::Error;
use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::{DmlStatement, EmptyRelation, Filter, LogicalPlan, LogicalPlanBuilder, WriteOp, lit};

use crate::into_datafusion;
use crate::table::StreamTable;

/// The plan, in which each UPDATE and DELETE changes the rows that it names, and no others.
///
/// # Errors
/// `unsupported` for one whose rows are found through other tables, subqueries or a LIMIT.
pub(crate) fn checked(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_down(|node| {
        let LogicalPlan::Dml(dml) = &node else { return Ok(Transformed::no(node)) };
        let what = match dml.op {
            WriteOp::Update => "UPDATE",
            WriteOp::Delete => "DELETE",
            _ => return Ok(Transformed::no(node)),
        };
        // It says itself that it takes neither.
        if source_as_provider(&dml.target).is_ok_and(|table| table.is::<StreamTable>()) {
            return Ok(Transformed::no(node));
        }
        match rows(dml) {
            Rows::Filtered => Ok(Transformed::no(node)),
            Rows::None => {
                let none = LogicalPlanBuilder::empty(true).project([lit(0_u64).alias("count")])?.build()?;
                Ok(Transformed::yes(none))
            }
            Rows::Found => Err(into_datafusion(Error::unsupported(format!(
                "{what} finds its rows by a condition on the columns of '{}' alone: no other tables, subqueries or LIMIT",
                dml.table_name
            )))),
        }
    })
    .map(|checked| checked.data)
}

/// The rows that a statement changes.
enum Rows {
    /// None at all.
    None,
    /// Those of its table that its filters leave.
    Filtered,
    /// What some other plan finds.
    Found,
}

fn rows(dml: &DmlStatement) -> Rows {
    let mut node = &dml.input;
    loop {
        node = match &**node {
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Filter(filter) if is_about(&dml.table_name, filter) => &filter.input,
            LogicalPlan::TableScan(scan) if scan.table_name.resolved_eq(&dml.table_name) && scan.fetch.is_none() => {
                return Rows::Filtered;
            }
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, .. }) => return Rows::None,
            _ => return Rows::Found,
        };
    }
}

/// Whether a filter is on columns of the table alone; DataFusion leaves out the others.
fn is_about(table: &TableReference, filter: &Filter) -> bool {
    let columns = filter.predicate.column_refs();
    !filter.predicate.contains_outer()
        && columns.iter().all(|column| column.relation.as_ref().is_none_or(|relation| relation.resolved_eq(table)))
}
