//! Sorts stay above limits.
//!
//! A LIMIT takes the first rows as they come, and what sorts these comes after it. DataFusion 55 moves a sort below a
//! limit whose rows have no order: there it reads all rows, of a stream without end too, gives the smallest of all, and
//! forgets rows that an OFFSET takes. So each part of a plan, from one limit to the next, is given its sorts on its own.
//!
//! ```text
//!   Sort ── Limit ── Filter ── Scan      Limit ── Filter ── Scan    first
//!                                        Sort ── Held               then, where Held is that
//! ```

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Statistics, internal_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// A rule that is asked about each part of a plan.
#[derive(Debug)]
pub(crate) struct BetweenLimits(pub(crate) Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for BetweenLimits {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let above = plan.map_children(|child| {
            child.transform_down(|node| match node.is::<GlobalLimitExec>() || node.is::<LocalLimitExec>() {
                true => {
                    Ok(Transformed::new(Arc::new(Held(self.optimize(node, config)?)), true, TreeNodeRecursion::Jump))
                }
                false => Ok(Transformed::no(node)),
            })
        })?;
        let whole = self.0.optimize(above.data, config)?.transform_down(|node| match node.downcast_ref::<Held>() {
            Some(Held(part)) => Ok(Transformed::new(Arc::clone(part), true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(node)),
        })?;
        Ok(whole.data)
    }
}

/// A part that is done, in the plan of those above it.
#[derive(Debug)]
struct Held(Arc<dyn ExecutionPlan>);

impl DisplayAs for Held {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

impl ExecutionPlan for Held {
    fn name(&self) -> &str {
        "Held"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.properties()
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

    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], asked: &StatisticsArgs) -> Result<Arc<Statistics>> {
        StatisticsContext::new().compute(&*self.0, asked)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        internal_err!("a part of a plan is executed before the plan is whole")
    }
}
