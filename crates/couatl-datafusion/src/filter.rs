//! A filter that keeps no row back.
//!
//! DataFusion's own gathers what passes into full batches and does not let go of it while its input is idle: behind a
//! slow stream its first row may come hours late.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::Boundedness;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, stream};

/// A [`FilterExec`] in what it computes and what it says of itself; each batch leaves as soon as it is filtered.
#[derive(Debug)]
pub(crate) struct PromptFilterExec {
    filter: FilterExec,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PromptFilterExec {
    pub(crate) fn new(filter: &FilterExec) -> Self {
        let mut properties = filter.properties().clone();
        if filter.fetch().is_some() {
            // It does end: what is above may need all of its rows.
            Arc::make_mut(&mut properties).boundedness = Boundedness::Bounded;
        }
        Self { filter: filter.clone(), properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for PromptFilterExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if format != DisplayFormatType::TreeRender {
            f.write_str("Prompt")?;
        }
        self.filter.fmt_as(format, f)
    }
}

impl ExecutionPlan for PromptFilterExec {
    fn name(&self) -> &str {
        "PromptFilterExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.filter.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.filter.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let filter = FilterExecBuilder::from(&self.filter).with_input(children.swap_remove(0)).build()?;
        Ok(Arc::new(Self::new(&filter)))
    }

    fn fetch(&self) -> Option<usize> {
        self.filter.fetch()
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.filter.input().execute(partition, context)?;
        let work = Filtering {
            predicate: self.filter.predicate().clone(),
            projection: self.filter.projection().as_ref().map(|projection| projection.to_vec()),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        let left = self.filter.fetch().unwrap_or(usize::MAX);
        let rows = stream::try_unfold((input, work, left), |(mut input, work, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            while let Some(batch) = input.next().await {
                let batch = work.apply(&batch?)?;
                let batch = batch.slice(0, batch.num_rows().min(left)).record_output(&work.metrics);
                if batch.num_rows() > 0 {
                    let left = left - batch.num_rows();
                    return Ok(Some((batch, (input, work, left))));
                }
                // Where nothing passes, nothing comes up by which the query would notice that it was cancelled.
                tokio::task::yield_now().await;
            }
            Ok(None)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

struct Filtering {
    predicate: Arc<dyn PhysicalExpr>,
    projection: Option<Vec<usize>>,
    metrics: BaselineMetrics,
}

impl Filtering {
    fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let _timer = self.metrics.elapsed_compute().timer();
        let passes = self.predicate.evaluate(batch)?.into_array(batch.num_rows())?;
        let Some(passes) = passes.as_boolean_opt() else {
            return Err(DataFusionError::Internal("a filter's predicate is not boolean".into()));
        };
        let batch = match &self.projection {
            Some(projection) => &batch.project(projection)?,
            None => batch,
        };
        Ok(filter_record_batch(batch, passes)?)
    }
}
