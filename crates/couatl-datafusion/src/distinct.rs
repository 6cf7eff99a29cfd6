//! `count(DISTINCT …)` of a group over a stream, when the group is over.
//!
//! DataFusion computes it as two aggregates, one below the other: the lower one makes values distinct and gives those of
//! a group when the next group opens, so that the upper one sees that opening one group late. Over a stream they stay
//! one aggregate.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::planner::reads_streams;

/// The rules, of which the one that makes two aggregates leaves streams alone.
pub(crate) fn prompt(rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let wrapped = |rule: Arc<dyn OptimizerRule + Send + Sync>| match rule.name() {
        "single_distinct_aggregation_to_group_by" => Arc::new(UnlessStreaming(rule)) as _,
        _ => rule,
    };
    rules.into_iter().map(wrapped).collect()
}

#[derive(Debug)]
struct UnlessStreaming(Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for UnlessStreaming {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if matches!(plan, LogicalPlan::Aggregate(_)) && reads_streams(&plan)? {
            return Ok(Transformed::no(plan));
        }
        self.0.rewrite(plan, config)
    }
}
