//! Refuses what could never answer, in one sentence.
//!
//! DataFusion has a check of its own, whose message prints the whole plan. This one comes just before it.

use std::sync::Arc;

use couatl_core::Error;
use datafusion::common::JoinType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SymmetricHashJoinExec};
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::band::is_banded;
use crate::into_datafusion;
use crate::order::way_out;
use crate::scan::StreamScanExec;

/// The rule. It changes no plan.
#[derive(Debug)]
pub(crate) struct RefuseEndless;

impl PhysicalOptimizerRule for RefuseEndless {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        // From the root down, so that the last one found is the lowest: it is the reason, the others follow from it.
        let mut culprit = None;
        plan.apply(|node| {
            if never_answers(node) {
                culprit = Some(node.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        match culprit {
            None => Ok(plan),
            Some(node) => Err(into_datafusion(refusal(&node)?)),
        }
    }

    fn name(&self) -> &str {
        "refuse_endless"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn never_answers(node: &Arc<dyn ExecutionPlan>) -> bool {
    // It would grow for ever; and some joins speak of their left rows only when the right ones are over, whatever they
    // say of themselves.
    if let Some(join) = node.downcast_ref::<SymmetricHashJoinExec>() {
        return !is_banded(join);
    }
    let hash = node.downcast_ref::<HashJoinExec>().map(|join| (join.join_type(), join.right()));
    let join = hash.or_else(|| node.downcast_ref::<NestedLoopJoinExec>().map(|join| (join.join_type(), join.right())));
    if let Some((JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark, right)) = join
        && right.boundedness().is_unbounded()
    {
        return true;
    }
    // It gives a row when each of its inputs has one: a stream that has none for a while would hold all others up.
    if node.downcast_ref::<SortPreservingMergeExec>().is_some_and(|merge| {
        node.boundedness().is_unbounded() && merge.input().output_partitioning().partition_count() > 1
    }) {
        return true;
    }
    match node.boundedness() {
        Boundedness::Bounded => false,
        Boundedness::Unbounded { requires_infinite_memory } => {
            requires_infinite_memory || node.pipeline_behavior() == EmissionType::Final
        }
    }
}

fn refusal(node: &Arc<dyn ExecutionPlan>) -> Result<Error> {
    let mut streams = Vec::new();
    node.apply(|below| {
        if let Some(scan) = below.downcast_ref::<StreamScanExec>()
            && below.boundedness().is_unbounded()
        {
            streams.push(format!("'{}'", scan.stream_name()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let operator = match node.name() {
        "AggregateExec" => "an aggregate",
        "SortPreservingMergeExec" => "merging in order",
        name if name.starts_with("Sort") && !name.contains("Join") => "ORDER BY",
        "WindowAggExec" | "BoundedWindowAggExec" => "a window function",
        "HashJoinExec" | "NestedLoopJoinExec" | "SortMergeJoinExec" | "CrossJoinExec" | "SymmetricHashJoinExec" => {
            "this join"
        }
        "DataSinkExec" => "this write",
        other => other,
    };
    let verb = if streams.len() == 1 { "has" } else { "have" };
    let plural = if streams.len() == 1 { "stream" } else { "streams" };
    Ok(Error::invalid_argument(format!(
        "{operator} would never answer: it needs all rows, and the {plural} {} {verb} no end (mode 'streaming'); \
         {}; or bound the rows with LIMIT in a subquery, or create the stream with mode 'auto' or 'batch' if its rows end",
        streams.join(", "),
        way_out(operator)
    )))
}
