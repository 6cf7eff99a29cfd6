//! Which joins of two endless streams hold no more than a band of their rows.
//!
//! A row of one stream waits for rows of the other that may still come. Where both are ordered, and the condition has
//! a lower and an upper bound, as in `a.ts BETWEEN b.ts - x AND b.ts + y`, the other stream's progress tells when the
//! wait is over:
//!
//! ```text
//!   lower   f(left) >= g(right)     a left row is over once g(the right stream's last row) is greater than its f
//!   upper   f(left) <= g(right)     a right row is over once f(the left stream's last row) is greater than its g
//! ```
//!
//! Each bound lets go of the rows of one side: a join with only one of them would keep the other side for ever.

mod join;
mod side;
mod state;

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinSide, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr, split_conjunction};
use datafusion::physical_plan::joins::SymmetricHashJoinExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use self::join::BandJoinExec;
use crate::prompt::{EachNode, Rewritten};

/// The rule: joins within a band are done by a node that keeps no row back. DataFusion's own reads its inputs in turns,
/// so that a stream which is silent for a while keeps the other one from being read.
pub(crate) const BAND_JOINS: EachNode = EachNode { name: "band_joins", rewrite: band_join };

fn band_join(node: Arc<dyn ExecutionPlan>) -> Rewritten {
    let Some(join) = node.downcast_ref::<SymmetricHashJoinExec>() else { return Ok(Transformed::no(node)) };
    match Band::of(join)? {
        Some(band) => Ok(Transformed::yes(Arc::new(BandJoinExec::new(join, band)))),
        None => Ok(Transformed::no(node)),
    }
}

/// A bound of the band: an ascending expression over the rows of each side.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) left: Arc<dyn PhysicalExpr>,
    pub(crate) right: Arc<dyn PhysicalExpr>,
}

/// Both bounds of a join.
#[derive(Debug, Clone)]
pub(crate) struct Band {
    /// Left rows are at or above it.
    pub(crate) lower: Bound,
    /// Left rows are at or below it.
    pub(crate) upper: Bound,
}

impl Band {
    /// The band of a join, if what it keeps is bounded on both sides.
    pub(crate) fn of(join: &SymmetricHashJoinExec) -> Result<Option<Self>> {
        let one_lane = |side: &Arc<dyn ExecutionPlan>| side.output_partitioning().partition_count() == 1;
        if matches!(join.join_type(), JoinType::LeftMark | JoinType::RightMark)
            || !(one_lane(join.left()) && one_lane(join.right()))
        {
            return Ok(None);
        }
        let mut comparisons: Vec<_> =
            join.on().iter().map(|(left, right)| (left.clone(), Operator::Eq, right.clone())).collect();
        if let Some(filter) = join.filter() {
            for condition in split_conjunction(filter.expression()) {
                comparisons.extend(comparison(condition, filter, &join.left().schema(), &join.right().schema())?);
            }
        }
        let (mut lower, mut upper) = (None, None);
        for (left, operator, right) in comparisons {
            let same_type = left.data_type(&join.left().schema())? == right.data_type(&join.right().schema())?;
            if !(same_type && ascends(join.left(), &left)? && ascends(join.right(), &right)?) {
                continue;
            }
            let bound = Bound { left, right };
            if matches!(operator, Operator::Gt | Operator::GtEq | Operator::Eq) {
                lower = lower.or_else(|| Some(bound.clone()));
            }
            if matches!(operator, Operator::Lt | Operator::LtEq | Operator::Eq) {
                upper = upper.or(Some(bound));
            }
        }
        Ok(lower.zip(upper).map(|(lower, upper)| Self { lower, upper }))
    }
}

/// Whether rows come in the order of the expression, NULLs last.
///
/// Of a column more or less a constant, DataFusion says no: a sum might wrap around. Those of times and dates fail
/// instead, and those of signed numbers wrap at the ends of their type alone; unsigned ones do so at zero, which is where
/// they begin, and times of day at midnight.
fn ascends(side: &Arc<dyn ExecutionPlan>, expr: &Arc<dyn PhysicalExpr>) -> Result<bool> {
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        let data_type = expr.data_type(&side.schema())?;
        let wraps = data_type.is_unsigned_integer() || matches!(data_type, DataType::Time32(_) | DataType::Time64(_));
        let column = match (binary.left().is::<Literal>(), binary.op(), binary.right().is::<Literal>()) {
            (false, Operator::Plus | Operator::Minus, true) => binary.left(),
            (true, Operator::Plus, false) => binary.right(),
            _ => return Ok(false),
        };
        return Ok(!wraps && ascends(side, column)?);
    }
    let options = SortOptions { descending: false, nulls_first: false };
    side.equivalence_properties().ordering_satisfy([PhysicalSortExpr::new(expr.clone(), options)])
}

type Comparison = (Arc<dyn PhysicalExpr>, Operator, Arc<dyn PhysicalExpr>);

/// A comparison of the left side with the right side, over their own columns.
fn comparison(
    condition: &Arc<dyn PhysicalExpr>,
    filter: &JoinFilter,
    left: &SchemaRef,
    right: &SchemaRef,
) -> Result<Option<Comparison>> {
    let Some(binary) = condition.downcast_ref::<BinaryExpr>() else { return Ok(None) };
    let (first, second) = (binary.left(), binary.right());
    let (left_expr, operator, right_expr) = match (side(first, filter)?, side(second, filter)?) {
        (Some(JoinSide::Left), Some(JoinSide::Right)) => (first, Some(*binary.op()), second),
        (Some(JoinSide::Right), Some(JoinSide::Left)) => (second, binary.op().swap(), first),
        _ => return Ok(None),
    };
    let Some(operator) = operator else { return Ok(None) };
    Ok(Some((over(left_expr, filter, left)?, operator, over(right_expr, filter, right)?)))
}

/// The side of which all columns of an expression are.
fn side(expr: &Arc<dyn PhysicalExpr>, filter: &JoinFilter) -> Result<Option<JoinSide>> {
    let mut sides = Vec::new();
    expr.apply(|node| {
        if let Some(column) = node.downcast_ref::<Column>() {
            sides.push(filter.column_indices().get(column.index()).map_or(JoinSide::None, |index| index.side));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(sides.first().copied().filter(|first| sides.iter().all(|side| side == first)))
}

/// The expression with the columns of a side instead of those of the filter.
fn over(expr: &Arc<dyn PhysicalExpr>, filter: &JoinFilter, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
    let replaced = expr.clone().transform_up(|node| {
        let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
        let index = filter.column_indices()[column.index()].index;
        Ok(Transformed::yes(Arc::new(Column::new(schema.field(index).name(), index)) as _))
    })?;
    Ok(replaced.data)
}
