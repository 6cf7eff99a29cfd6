//! The join of two endless, ordered streams within a band.
//!
//! ```text
//!   a batch of one side ──> pairs with the rows that the other side keeps ──> out
//!           |               what its last row shows to be over leaves the other side ──> unmatched rows out
//!           '────────────> kept, until the other side shows that it is over
//! ```
//!
//! Both inputs are read as they come, but a side is not read further while the other has no row left that it could
//! match: what it would deliver could only be kept. So no more is kept than the rows of the band, however far one
//! stream is ahead of the other.

use std::fmt;
use std::sync::Arc;

use datafusion::common::JoinSide;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::joins::SymmetricHashJoinExec;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, TryStreamExt, stream};

use super::Band;
use super::state::Joining;

/// A [`SymmetricHashJoinExec`] in what it computes and what it says of itself, for joins that have a band.
#[derive(Debug)]
pub(crate) struct BandJoinExec {
    join: SymmetricHashJoinExec,
    band: Band,
    metrics: ExecutionPlanMetricsSet,
}

impl BandJoinExec {
    pub(crate) fn new(join: &SymmetricHashJoinExec, band: Band) -> Self {
        Self { join: join.clone(), band, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for BandJoinExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<_> = self.join.on().iter().map(|(left, right)| format!("({left}, {right})")).collect();
        let (kind, on) = (self.join.join_type(), on.join(", "));
        let Band { lower, upper } = &self.band;
        let band = format!(
            "left({}) >= right({}) AND left({}) <= right({})",
            lower.left, lower.right, upper.left, upper.right
        );
        match format {
            DisplayFormatType::TreeRender => write!(f, "join_type={kind:?}\non={on}\nband={band}"),
            _ => write!(f, "BandJoinExec: join_type={kind:?}, on=[{on}], band=[{band}]"),
        }
    }
}

impl ExecutionPlan for BandJoinExec {
    fn name(&self) -> &str {
        "BandJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.join.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.join.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.join.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let right = children.swap_remove(1);
        let join = SymmetricHashJoinExec::try_new(
            children.swap_remove(0),
            right,
            self.join.on().to_vec(),
            self.join.filter().cloned(),
            self.join.join_type(),
            self.join.null_equality(),
            self.join.left_sort_exprs().cloned(),
            self.join.right_sort_exprs().cloned(),
            self.join.partition_mode(),
        )?;
        Ok(Arc::new(Self::new(&join, self.band.clone())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let left = self.join.left().execute(partition, context.clone())?;
        let right = self.join.right().execute(partition, context.clone())?;
        let joining = Joining::try_new(&self.join, &self.band)?;
        let reservation = MemoryConsumer::new("BandJoinExec").register(context.memory_pool());
        let kept = MetricBuilder::new(&self.metrics).gauge("kept_rows", partition);
        let output = BaselineMetrics::new(&self.metrics, partition);
        let state = (left, right, joining);
        let rows = stream::try_unfold(state, move |(mut left, mut right, mut joining)| {
            let (kept, output) = (kept.clone(), output.clone());
            // Sized by what is kept: nothing else lasts.
            let sized = reservation.try_resize(joining.size_bytes());
            async move {
                sized?;
                let (side, batch) = match (joining.reads(JoinSide::Left), joining.reads(JoinSide::Right)) {
                    (false, false) => return Ok::<_, DataFusionError>(None),
                    (reads_left, reads_right) => tokio::select! {
                        batch = left.next(), if reads_left => (JoinSide::Left, batch),
                        batch = right.next(), if reads_right => (JoinSide::Right, batch),
                    },
                };
                let timer = output.elapsed_compute().timer();
                let batches = match batch {
                    Some(batch) => joining.arrived(side, &batch?)?,
                    None => joining.ended(side)?,
                };
                kept.set(joining.kept_rows());
                timer.done();
                let batches = batches.into_iter().map(move |batch| Ok(batch.record_output(&output)));
                Ok(Some((stream::iter(batches), (left, right, joining))))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows.try_flatten())))
    }
}
