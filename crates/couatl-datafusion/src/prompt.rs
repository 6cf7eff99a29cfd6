//! The rules that put prompt operators in the place of those that would keep rows of a stream back.

use std::sync::Arc;

use couatl_core::Error;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec, StreamJoinPartitionMode, SymmetricHashJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::partial_sort::PartialSortExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::windows::BoundedWindowAggExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, InputOrderMode};

use crate::band::Band;
use crate::endless::endless_streams;
use crate::filter::PromptFilterExec;
use crate::into_datafusion;
use crate::join::{JoinDefinition, PromptJoinExec};
use crate::probe::stream_side;
use crate::scan::StreamScanExec;

/// Whether rows of a stream come through the node.
pub(crate) fn is_above_stream(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        if node.downcast_ref::<StreamScanExec>().is_some_and(StreamScanExec::is_streaming) {
            found = true;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// What a rule makes of a node.
pub(crate) type Rewritten = Result<Transformed<Arc<dyn ExecutionPlan>>>;

/// A rule that looks at each node of a plan, from the leaves up.
#[derive(Debug)]
pub(crate) struct EachNode {
    pub(crate) name: &'static str,
    pub(crate) rewrite: fn(Arc<dyn ExecutionPlan>) -> Rewritten,
}

impl PhysicalOptimizerRule for EachNode {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(plan.transform_up(self.rewrite)?.data)
    }

    fn name(&self) -> &str {
        self.name
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Replaces the filters above streams.
pub(crate) const PROMPT_FILTERS: EachNode = EachNode { name: "prompt_filters", rewrite: prompt_filter };

fn prompt_filter(node: Arc<dyn ExecutionPlan>) -> Rewritten {
    let Some(filter) = node.downcast_ref::<FilterExec>() else { return Ok(Transformed::no(node)) };
    if !is_above_stream(&node)? {
        return Ok(Transformed::no(node));
    }
    Ok(Transformed::yes(Arc::new(PromptFilterExec::new(filter))))
}

/// Replaces the joins of streams with what is at rest. It leaves the others alone, but for those that would collect a
/// stream when they could probe it.
pub(crate) const PROMPT_JOINS: EachNode = EachNode { name: "prompt_joins", rewrite: prompt_join };

fn prompt_join(node: Arc<dyn ExecutionPlan>) -> Rewritten {
    refuse_not_in(&node)?;
    if let Some(band) = within_band(&node)? {
        return Ok(Transformed::yes(band));
    }
    match prompt(&node)? {
        Some(prompt) => Ok(Transformed::yes(prompt)),
        None => swapped(node),
    }
}

/// NOT IN of two endless streams, which would be planned as a join that takes no notice of NULLs.
fn refuse_not_in(node: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let Some(join) = node.downcast_ref::<HashJoinExec>().filter(|join| join.null_aware) else { return Ok(()) };
    if !(join.left().boundedness().is_unbounded() && join.right().boundedness().is_unbounded()) {
        return Ok(());
    }
    let streams = endless_streams(node)?.join(", ");
    Err(into_datafusion(Error::invalid_argument(format!(
        "this NOT IN would never answer: a NULL among all rows of its subquery decides, and the streams {streams} have no \
         end (mode 'streaming'); use NOT EXISTS, which takes no notice of NULLs, or create the stream with mode 'auto' or \
         'batch' if its rows end"
    ))))
}

/// A join of two streams that may end, which DataFusion would let one of wait for the other's end, as that of two that do
/// not, where it is within a band.
fn within_band(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(None) };
    let (left, right) = (join.left(), join.right());
    if join.null_aware || join.fetch().is_some() || !(is_above_stream(left)? && is_above_stream(right)?) {
        return Ok(None);
    }
    let symmetric = SymmetricHashJoinExec::try_new(
        left.clone(),
        right.clone(),
        join.on().to_vec(),
        join.filter().cloned(),
        join.join_type(),
        join.null_equality(),
        left.output_ordering().cloned(),
        right.output_ordering().cloned(),
        StreamJoinPartitionMode::SinglePartition,
    )?;
    if Band::of(&symmetric)?.is_none() {
        return Ok(None);
    }
    let all = symmetric.schema();
    let symmetric: Arc<dyn ExecutionPlan> = Arc::new(symmetric);
    let Some(projection) = &join.projection else { return Ok(Some(symmetric)) };
    let columns = projection.iter().map(|&index| {
        let name = all.field(index).name();
        (Arc::new(Column::new(name, index)) as Arc<dyn PhysicalExpr>, name.clone())
    });
    Ok(Some(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), symmetric)?)))
}

fn prompt(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some((definition, projection)) = defined(node) else { return Ok(None) };
    let [left, right] = node.children()[..] else { return Ok(None) };
    let Some(stream) = stream_side(definition.join_type, left, right) else { return Ok(None) };
    let join = PromptJoinExec::try_new(left.clone(), right.clone(), stream, definition, projection, node.fetch())?;
    Ok(Some(Arc::new(join)))
}

/// What a join of DataFusion's computes, and which of its columns it gives.
fn defined(node: &Arc<dyn ExecutionPlan>) -> Option<(JoinDefinition, Option<Vec<usize>>)> {
    let all = NullEquality::NullEqualsNothing;
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let definition = JoinDefinition {
            join_type: *join.join_type(),
            on: join.on().to_vec(),
            filter: join.filter().cloned(),
            null_equality: join.null_equality(),
            null_aware: join.null_aware,
        };
        return Some((definition, join.projection.as_ref().map(|projection| projection.to_vec())));
    }
    if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
        let definition = JoinDefinition {
            join_type: join.join_type(),
            on: join.on().to_vec(),
            filter: join.filter().clone(),
            null_equality: join.null_equality(),
            null_aware: false,
        };
        return Some((definition, None));
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let (join_type, filter) = (*join.join_type(), join.filter().cloned());
        let definition = JoinDefinition { join_type, on: Vec::new(), filter, null_equality: all, null_aware: false };
        return Some((definition, join.projection().as_ref().map(|projection| projection.to_vec())));
    }
    node.downcast_ref::<CrossJoinExec>()?;
    let join_type = JoinType::Inner;
    Some((JoinDefinition { join_type, on: Vec::new(), filter: None, null_equality: all, null_aware: false }, None))
}

/// A join that DataFusion answers: it collects its left side, and gives what matches of the right one as it comes.
fn swapped(node: Arc<dyn ExecutionPlan>) -> Rewritten {
    let collects_stream = match node.children()[..] {
        [left, right] => is_above_stream(left)? && !is_above_stream(right)?,
        _ => false,
    };
    if !collects_stream {
        return Ok(Transformed::no(node));
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>()
        && join.join_type().supports_swap()
        && !join.null_aware
    {
        return Ok(Transformed::yes(join.swap_inputs(*join.partition_mode())?));
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>()
        && join.join_type().supports_swap()
    {
        return Ok(Transformed::yes(join.swap_inputs()?));
    }
    Ok(Transformed::no(node))
}

/// Lets windows over the parts of a stream take its rows in their order, each part's among the others': DataFusion would
/// sort a stream that may end by its parts first.
pub(crate) const PROMPT_WINDOWS: EachNode = EachNode { name: "prompt_windows", rewrite: prompt_window };

fn prompt_window(node: Arc<dyn ExecutionPlan>) -> Rewritten {
    let Some(window) = node.downcast_ref::<BoundedWindowAggExec>() else { return Ok(Transformed::no(node)) };
    let (exprs, input) = (window.window_expr(), window.input());
    let Some(first) = exprs.first().filter(|first| !first.partition_by().is_empty()) else {
        return Ok(Transformed::no(node));
    };
    let in_order = input.equivalence_properties().ordering_satisfy(first.order_by().to_vec())?;
    if window.input_order_mode != InputOrderMode::Sorted || !in_order || !is_above_stream(input)? {
        return Ok(Transformed::no(node));
    }
    let linear = BoundedWindowAggExec::try_new(exprs.to_vec(), input.clone(), InputOrderMode::Linear, false)?;
    Ok(Transformed::yes(Arc::new(linear)))
}

/// Sorts by more than the order of a stream, in which the stream's own order is kept, are done for each of its values:
/// DataFusion would wait for the end of a stream that may have one.
pub(crate) const PARTIAL_SORTS: EachNode = EachNode { name: "partial_sorts", rewrite: partial_sort };

fn partial_sort(node: Arc<dyn ExecutionPlan>) -> Rewritten {
    let Some(sort) = node.downcast_ref::<SortExec>() else { return Ok(Transformed::no(node)) };
    let (input, order) = (sort.input(), sort.expr());
    let (prefix, _) = input.equivalence_properties().extract_common_sort_prefix(order.clone())?;
    if prefix.is_empty() || input.output_partitioning().partition_count() > 1 || !is_above_stream(input)? {
        return Ok(Transformed::no(node));
    }
    let sort = PartialSortExec::new(order.clone(), input.clone(), prefix.len());
    Ok(Transformed::yes(Arc::new(sort.with_fetch(node.fetch()))))
}

/// Groups of several grouping sets do not come in the order of the rows, since a batch is looked at once for each set, and
/// some sets have NULL in the place of a column; DataFusion takes them for ordered all the same. A union with nothing has
/// no order, and so they are closed at the end, and sorted where that is wanted.
pub(crate) const WHOLE_GROUPING_SETS: EachNode = EachNode { name: "whole_grouping_sets", rewrite: whole_grouping_set };

fn whole_grouping_set(node: Arc<dyn ExecutionPlan>) -> Rewritten {
    let Some(aggregate) = node.downcast_ref::<AggregateExec>() else { return Ok(Transformed::no(node)) };
    let input = aggregate.input();
    if aggregate.group_expr().groups().len() < 2 || input.output_ordering().is_none() {
        return Ok(Transformed::no(node));
    }
    let nothing = Arc::new(EmptyExec::new(input.schema()));
    let whole = AggregateExec::try_new(
        *aggregate.mode(),
        Arc::new(aggregate.group_expr().clone()),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        UnionExec::try_new(vec![input.clone(), nothing])?,
        aggregate.input_schema(),
    )?;
    Ok(Transformed::yes(Arc::new(whole)))
}

/// A LIMIT bounds what is below it; DataFusion's operators that took one in do not say so.
pub(crate) const BOUND_LIMITS: EachNode = EachNode { name: "bound_limits", rewrite: bound_limit };

fn bound_limit(node: Arc<dyn ExecutionPlan>) -> Rewritten {
    let Some(fetch) = node.fetch().filter(|_| node.boundedness().is_unbounded()) else {
        return Ok(Transformed::no(node));
    };
    Ok(Transformed::yes(match node.output_partitioning().partition_count() {
        1 => Arc::new(GlobalLimitExec::new(node, 0, Some(fetch))),
        _ => Arc::new(LocalLimitExec::new(node, fetch)),
    }))
}
