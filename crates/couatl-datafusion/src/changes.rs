//! UPDATE and DELETE: a table is handed the conditions of the rows to change, which DataFusion gathers from the filters
//! of the optimized plan.
//!
//! It finds none where the plan has come to read no rows, or reads them through more than filters, and a table that is
//! handed no condition changes every row. So such plans do not get there. And a table in memory changes its rows while
//! it is planned: here that waits for the execution, so that EXPLAIN changes nothing, and a query that is refused its
//! turn has not run.
//!
//! ```text
//!   Dml ── checked ──> Change (a node without inputs) ── planned ──> ChangeExec ── executed ──> the table's own plan
//! ```

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::UInt64Type;
use async_trait::async_trait;
use couatl_core::{Error, type_spelling};
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    DmlStatement, EmptyRelation, Expr, ExprSchemable, Extension, Filter, LogicalPlan, LogicalPlanBuilder, Projection,
    TableScan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, WriteOp, lit,
};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, collect};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, TryStreamExt, stream};

use crate::memory::{Account, are_same_rows, has_subquery, held, not_cancelled, rows_of, with_schema};
use crate::query::Query;
use crate::table::StreamTable;
use crate::{calling, into_datafusion};

/// How many rows are changed before a cancel is looked for.
const CHANGED_ROWS: usize = 32_768;

/// The plan, in which each UPDATE and DELETE changes the rows that it names, and no others.
///
/// # Errors
/// `unsupported` for one whose rows are found through other tables, subqueries or a LIMIT.
pub(crate) fn checked(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_down(|node| {
        let LogicalPlan::Dml(dml) = &node else { return Ok(Transformed::no(node)) };
        let Some(what) = word(&dml.op) else { return Ok(Transformed::no(node)) };
        // It says itself that it takes neither.
        if source_as_provider(&dml.target).is_ok_and(|table| table.is::<StreamTable>()) {
            return Ok(Transformed::no(node));
        }
        match rows(dml) {
            Rows::Filtered => {
                let input = dml.input.as_ref().clone().transform_up(whole_expressions)?.data;
                let input = with_types_of(input, dml)?;
                let change = Change(DmlStatement { input: Arc::new(input), ..dml.clone() });
                Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(change) })))
            }
            Rows::None => {
                let none = LogicalPlanBuilder::empty(true).project([lit(0_u64).alias("count")])?.build()?;
                Ok(Transformed::yes(none))
            }
            Rows::Found => Err(into_datafusion(Error::unsupported(format!(
                "{what} takes conditions and values from the columns of '{}' alone: no other tables, subqueries or LIMIT",
                dml.table_name
            )))),
        }
    })
    .map(|checked| checked.data)
}

fn word(op: &WriteOp) -> Option<&'static str> {
    match op {
        WriteOp::Update => Some("UPDATE"),
        WriteOp::Delete => Some("DELETE"),
        _ => None,
    }
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
    let mut filters = Vec::new();
    let mut names = vec![dml.table_name.clone()];
    loop {
        node = match &**node {
            LogicalPlan::Projection(projection) if !projection.expr.iter().any(has_subquery) => &projection.input,
            LogicalPlan::SubqueryAlias(alias) => {
                names.push(alias.alias.clone());
                &alias.input
            }
            LogicalPlan::Filter(filter) => {
                filters.push(filter);
                &filter.input
            }
            LogicalPlan::TableScan(scan)
                if scan.table_name.resolved_eq(&dml.table_name)
                    && scan.fetch.is_none()
                    && filters.iter().all(|filter| is_about(&names, filter)) =>
            {
                return Rows::Filtered;
            }
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, .. }) => return Rows::None,
            _ => return Rows::Found,
        };
    }
}

/// Whether a filter is on columns of the table alone, by one of its names; DataFusion leaves out the others.
fn is_about(names: &[TableReference], filter: &Filter) -> bool {
    let is_own = |relation: &TableReference| names.iter().any(|name| name.resolved_eq(relation));
    !has_subquery(&filter.predicate)
        && !filter.predicate.contains_outer()
        && filter.predicate.column_refs().iter().all(|column| column.relation.as_ref().is_none_or(is_own))
}

/// The plan whose values have the types of their columns: how wide an expression is, is known once its parts have been
/// brought to one type, which is after DataFusion has decided whether to cast it.
fn with_types_of(plan: LogicalPlan, dml: &DmlStatement) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(Projection { expr, input, .. }) = plan else { return Ok(plan) };
    let target = dml.target.schema();
    let expr = expr.into_iter().map(|expr| {
        let name = expr.qualified_name().1;
        match target.field_with_name(&name) {
            // A value that stands there alone must fit as it is.
            Ok(field)
                if expr.get_type(input.schema())? != *field.data_type()
                    && !matches!(expr.clone().unalias(), Expr::Literal(..)) =>
            {
                let from = expr.get_type(input.schema())?;
                if from.is_floating() && field.data_type().is_integer() {
                    return Err(into_datafusion(Error::invalid_argument(format!(
                        "column '{name}' ({}) takes whole numbers, and what it is set to is {from}: say with CAST or round \
                         which they become",
                        type_spelling(field)
                    ))));
                }
                Ok(expr.unalias().cast_to(field.data_type(), input.schema())?.alias(name))
            }
            _ => Ok(expr),
        }
    });
    let expr = expr.collect::<Result<_>>()?;
    Ok(LogicalPlan::Projection(Projection::try_new(expr, input)?))
}

/// The node without the columns that the optimizer has made below it, for expressions that stand in it twice: a table
/// knows its own alone.
fn whole_expressions(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let whole = match node {
        LogicalPlan::Filter(filter) => {
            let Some(below) = computed(&filter.input) else { return Ok(Transformed::no(LogicalPlan::Filter(filter))) };
            let predicate = with_expressions_of(&below, filter.predicate)?;
            let filter = LogicalPlan::Filter(Filter::try_new(predicate, below.input)?);
            Projection::try_new_with_schema(below.expr, Arc::new(filter), below.schema)?
        }
        LogicalPlan::Projection(above) => {
            let Some(below) = computed(&above.input) else {
                return Ok(Transformed::no(LogicalPlan::Projection(above)));
            };
            let names = NamePreserver::new_for_projection();
            let expr = above.expr.into_iter().map(|expr| {
                let name = names.save(&expr);
                Ok(name.restore(with_expressions_of(&below, expr)?))
            });
            let expr = expr.collect::<Result<_>>()?;
            Projection::try_new_with_schema(expr, below.input, above.schema)?
        }
        other => return Ok(Transformed::no(other)),
    };
    Ok(Transformed::yes(LogicalPlan::Projection(whole)))
}

/// A projection that gives more than columns of its input.
fn computed(plan: &LogicalPlan) -> Option<Projection> {
    let LogicalPlan::Projection(projection) = plan else { return None };
    projection.expr.iter().any(|expr| !matches!(expr, Expr::Column(_))).then(|| projection.clone())
}

/// An expression with what a projection computes in the place of its columns.
fn with_expressions_of(below: &Projection, expr: Expr) -> Result<Expr> {
    let replaced = expr.transform(|expr| match &expr {
        Expr::Column(column) => match below.schema.maybe_index_of_column(column) {
            Some(index) => Ok(Transformed::yes(below.expr[index].clone().unalias())),
            None => Ok(Transformed::no(expr)),
        },
        _ => Ok(Transformed::no(expr)),
    });
    Ok(replaced?.data)
}

/// An UPDATE or a DELETE that is planned when it runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
struct Change(DmlStatement);

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", word(&self.0.op).unwrap_or_default(), self.0.table_name)
    }
}

impl UserDefinedLogicalNodeCore for Change {
    fn name(&self) -> &'static str {
        "Change"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.0.output_schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Change: {self}")
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, _inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(self.clone())
    }
}

/// Plans [`Change`]s.
#[derive(Debug)]
pub(crate) struct ChangePlanner;

#[async_trait]
impl ExtensionPlanner for ChangePlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        _physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let change = node.as_any().downcast_ref::<Change>();
        let state = session.as_any().downcast_ref::<SessionState>();
        let Some((change, state)) = change.zip(state) else { return Ok(None) };
        let schema = Arc::clone(change.0.output_schema.inner());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Some(Arc::new(ChangeExec {
            change: change.clone(),
            state: state.clone(),
            properties: Arc::new(properties),
        })))
    }
}

/// Changes the rows; gives how many they were. A table in memory cannot be interrupted: a copy of it is changed, which
/// takes its place unless the query was cancelled meanwhile. Others read and write the table as long as that takes; where
/// one of them has written, it is done again, and they wait.
async fn changed(dml: DmlStatement, state: &SessionState, context: Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
    let table = source_as_provider(&dml.target)?;
    let Some(table) = table.downcast_ref::<MemTable>() else { return run(dml, state, context).await };
    let seen = rows_of(table).await;
    let (mut rows, mut count) = changed_rows(&dml, table, seen.clone(), state, &context).await?;
    let mut locked = held(table).await;
    if !are_same_rows(&locked, &seen) {
        // Python may ask for the table itself, which is locked now.
        if calling::calls(&LogicalPlan::Dml(dml.clone()))? {
            return Err(into_datafusion(Error::already_exists(format!(
                "'{}' was written to meanwhile: nothing has been changed; run the statement again",
                dml.table_name
            ))));
        }
        let now = locked.iter().map(|batches| batches.to_vec()).collect();
        (rows, count) = changed_rows(&dml, table, now, state, &context).await?;
    }
    not_cancelled(&context).await?;
    for (rows, changed) in locked.iter_mut().zip(rows) {
        **rows = changed;
    }
    let schema = Arc::clone(dml.output_schema.inner());
    Ok(vec![RecordBatch::try_new(schema, vec![Arc::new(UInt64Array::from(vec![count]))])?])
}

/// What becomes of the rows of a table, by partition, and how many are changed. Each row is changed by itself: a few are at
/// a time, and a cancel is heard in between.
async fn changed_rows(
    dml: &DmlStatement,
    table: &MemTable,
    rows: Vec<Vec<RecordBatch>>,
    state: &SessionState,
    context: &Arc<TaskContext>,
) -> Result<(Vec<Vec<RecordBatch>>, u64)> {
    let (mut changed, mut count) = (Vec::new(), 0);
    let mut kept = Account::new(context.memory_pool());
    for partition in rows {
        let mut of_partition = Vec::new();
        // Of no rows, it is known whether the statement can be run.
        for some in slices(partition) {
            not_cancelled(context).await?;
            let copy = copied(table, vec![some.clone()])?;
            for counted in run(over(dml, &copy)?, state, Arc::clone(context)).await? {
                count += counted.column(0).as_primitive::<UInt64Type>().values().iter().sum::<u64>();
            }
            let mut rows = copy.batches[0].write().await;
            kept.replace(&some, &rows)?;
            of_partition.append(&mut rows);
        }
        changed.push(of_partition);
    }
    Ok((changed, count))
}

/// The batches, in runs of so many rows; one run, where there are none.
fn slices(batches: Vec<RecordBatch>) -> Vec<Vec<RecordBatch>> {
    let (mut slices, mut rows) = (vec![Vec::new()], 0);
    for batch in batches {
        let mut from = 0;
        while from < batch.num_rows() {
            let length = (CHANGED_ROWS - rows).min(batch.num_rows() - from);
            if let Some(last) = slices.last_mut() {
                last.push(batch.slice(from, length));
            }
            (from, rows) = (from + length, rows + length);
            if rows == CHANGED_ROWS {
                slices.push(Vec::new());
                rows = 0;
            }
        }
    }
    if slices.len() > 1 && rows == 0 {
        slices.pop();
    }
    slices
}

/// A table of these rows, which are some of another's.
fn copied(table: &MemTable, batches: Vec<Vec<RecordBatch>>) -> Result<Arc<MemTable>> {
    let schema = table.schema();
    // Rows that were inserted say of themselves what their query knew.
    let as_stored = |batches: Vec<RecordBatch>| batches.into_iter().map(|batch| with_schema(batch, &schema)).collect();
    let batches = batches.into_iter().map(as_stored).collect::<Result<_>>()?;
    Ok(Arc::new(MemTable::try_new(schema.clone(), batches)?))
}

/// The statement, about a copy of its table: what is planned reads it as well.
fn over(dml: &DmlStatement, copy: &Arc<MemTable>) -> Result<DmlStatement> {
    let target = provider_as_source(Arc::clone(copy) as _);
    let input = dml.input.as_ref().clone().transform_up(|node| match node {
        LogicalPlan::TableScan(scan) => {
            Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source: Arc::clone(&target), ..scan })))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(DmlStatement { input: Arc::new(input?.data), target, ..dml.clone() })
}

async fn run(dml: DmlStatement, state: &SessionState, context: Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
    let (plan, run) = calling::bound(LogicalPlan::Dml(dml))?;
    if let Some((run, query)) = run.zip(Query::of(&context)) {
        run.begin(&query).map_err(into_datafusion)?;
    }
    let plan = DefaultPhysicalPlanner::default().create_physical_plan(&plan, state).await?;
    collect(plan, context).await
}

/// Changes rows when it is executed; gives how many they were.
struct ChangeExec {
    change: Change,
    state: SessionState,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for ChangeExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeExec").field("change", &self.change).finish_non_exhaustive()
    }
}

impl DisplayAs for ChangeExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeExec: {}", self.change)
    }
}

impl ExecutionPlan for ChangeExec {
    fn name(&self) -> &'static str {
        "ChangeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (dml, state) = (self.change.0.clone(), self.state.clone());
        let counts = stream::once(async move {
            let counts = changed(dml, &state, context).await;
            counts.map(|counts| stream::iter(counts).map(Ok))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), counts.try_flatten())))
    }
}
