//! `EXPLAIN ANALYZE` of what may never end: a box of time around it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::Boundedness;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, stream};
use tokio::time::Instant;

use crate::query::Query;

/// Passes rows on until the time is over, then ends as if there were no more, when the scans below have cleaned up.
#[derive(Debug)]
pub(crate) struct TimeBoxExec {
    input: Arc<dyn ExecutionPlan>,
    time: Duration,
    properties: Arc<PlanProperties>,
    ended: Arc<AtomicBool>,
}

impl TimeBoxExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, time: Duration) -> Self {
        let mut properties = PlanProperties::clone(input.properties());
        properties.boundedness = Boundedness::Bounded;
        Self { input, time, properties: Arc::new(properties), ended: Arc::default() }
    }
}

impl DisplayAs for TimeBoxExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        match self.ended.load(Relaxed) {
            true => write!(f, "TimeBoxExec: the query was ended after {seconds} s and may have had more rows"),
            false => write!(f, "TimeBoxExec: at most {seconds} s"),
        }
    }
}

impl ExecutionPlan for TimeBoxExec {
    fn name(&self) -> &str {
        "TimeBoxExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(children.swap_remove(0), self.time)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let query = Query::of(&context);
        let ended = self.ended.clone();
        let input = self.input.execute(partition, context)?;
        let deadline = Instant::now() + self.time;
        let rows = stream::try_unfold(Some(input), move |input| {
            let (query, ended) = (query.clone(), ended.clone());
            async move {
                let Some(mut input) = input else { return Ok(None) };
                match tokio::time::timeout_at(deadline, input.next()).await {
                    Ok(Some(batch)) => Ok(Some((batch?, Some(input)))),
                    Ok(None) => Ok(None),
                    Err(_) => {
                        ended.store(true, Relaxed);
                        drop(input);
                        if let Some(query) = query {
                            query.settle().await.map_err(crate::into_datafusion)?;
                        }
                        Ok(None)
                    }
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
