//! Which side of a join a stream is on: always the one that is probed.
//!
//! DataFusion collects a join's left side before it looks at the right. It moves what is unbounded to the right; an
//! `auto` stream says that it is bounded, and may be endless all the same.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};

use crate::planner::is_above_stream;

/// The rule: swaps the inputs of joins that would collect a stream.
#[derive(Debug)]
pub(crate) struct ProbeStreams;

impl PhysicalOptimizerRule for ProbeStreams {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(plan.transform_up(swapped)?.data)
    }

    fn name(&self) -> &str {
        "probe_streams"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn swapped(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
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
    if let Some(join) = node.downcast_ref::<CrossJoinExec>() {
        return Ok(Transformed::yes(join.swap_inputs()?));
    }
    Ok(Transformed::no(node))
}
