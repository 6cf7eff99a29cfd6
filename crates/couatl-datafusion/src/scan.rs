//! The plan node that reads a stream.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use couatl_core::{Finish, Input, Metrics, Mode, Partition, ScanRequest, Source};
use datafusion::arrow::array::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{Count, Metric, MetricValue, MetricsSet, Time};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::order::Order;
use crate::query::{Opening, Query};
use crate::statistics::Access;

/// Reads a source: one lane, in which all its partitions run at once. Where rows are promised in an order, it is that
/// of the lane: partitions that run side by side keep it together, or the query fails.
#[derive(Debug)]
pub(crate) struct StreamScanExec {
    source: Arc<dyn Source>,
    projection: Vec<usize>,
    fetch: Option<usize>,
    /// The columns of the source by which its rows ascend, read or not.
    order_by: Vec<usize>,
    /// Who created the stream.
    owners: Arc<[Arc<str>]>,
    order: Order,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: Arc<Metrics>,
}

impl StreamScanExec {
    pub(crate) fn try_new(
        source: Arc<dyn Source>,
        projection: Vec<usize>,
        fetch: Option<usize>,
        order_by: Vec<usize>,
        owners: Arc<[Arc<str>]>,
    ) -> Result<Self> {
        let schema = Arc::new(source.schema().project(&projection)?);
        let boundedness = match (source.mode(), fetch) {
            (Mode::Streaming, None) => Boundedness::Unbounded { requires_infinite_memory: false },
            _ => Boundedness::Bounded,
        };
        let order = Order::projected(&order_by, &projection);
        let equivalence = order.properties(&schema);
        let partitioning = Partitioning::UnknownPartitioning(1);
        let properties = PlanProperties::new(equivalence, partitioning, EmissionType::Incremental, boundedness)
            .with_scheduling_type(SchedulingType::Cooperative);
        let metrics = Arc::new(Metrics::default());
        let properties = Arc::new(properties);
        Ok(Self { source, projection, fetch, order_by, owners, order, schema, properties, metrics })
    }

    /// The stream that it reads.
    pub(crate) fn stream_name(&self) -> &str {
        self.source.name()
    }

    /// Whether rows may come slowly, so that nothing above should wait for more of them.
    pub(crate) fn is_streaming(&self) -> bool {
        self.source.mode() != Mode::Batch
    }
}

impl DisplayAs for StreamScanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<_> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let (name, mode, columns) = (self.source.name(), self.source.mode().as_str(), columns.join(", "));
        match format {
            DisplayFormatType::TreeRender => write!(f, "stream={name}\nmode={mode}\ncolumns={columns}")?,
            _ => write!(f, "StreamScanExec: stream={name}, mode={mode}, columns=[{columns}]")?,
        }
        let between = if format == DisplayFormatType::TreeRender { "\n" } else { ", " };
        if !self.order.is_empty() {
            write!(f, "{between}order_by=[{}]", self.order.names(&self.schema))?;
        }
        self.fetch.map_or(Ok(()), |fetch| write!(f, "{between}fetch={fetch}"))
    }
}

impl ExecutionPlan for StreamScanExec {
    fn name(&self) -> &str {
        "StreamScanExec"
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

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let (source, projection) = (self.source.clone(), self.projection.clone());
        let scan = Self::try_new(source, projection, limit, self.order_by.clone(), self.owners.clone());
        Some(Arc::new(scan.ok()?))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(metrics_set(&self.metrics))
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (source, owners, metrics) = (self.source.clone(), self.owners.clone(), self.metrics.clone());
        let opened = Opened { source, access: Access::Read, owners, metrics };
        let batches = opened.rows(&context, self.projection.clone(), self.fetch, None);
        // Rows past the limit are nobody's, in order or not.
        let batches = self.order.clone().checked(self.source.name().to_owned(), limited(batches, self.fetch));
        Ok(make_cooperative(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))))
    }
}

/// What was counted, as `EXPLAIN ANALYZE` shows it.
pub(crate) fn metrics_set(metrics: &Metrics) -> MetricsSet {
    let now = metrics.snapshot();
    let mut set = MetricsSet::new();
    let rows = Count::new();
    rows.add(now.rows as usize);
    set.push(Arc::new(Metric::new(MetricValue::OutputRows(rows), Some(0))));
    let batches = Count::new();
    batches.add(now.batches as usize);
    set.push(Arc::new(Metric::new(MetricValue::OutputBatches(batches), Some(0))));
    let mut push_time = |name: &'static str, duration: Duration| {
        // Adding nothing to a `Time` adds a nanosecond, and so does summing it up: nothing is left out.
        if duration.is_zero() {
            return;
        }
        let time = Time::new();
        time.add_duration(duration);
        set.push(Arc::new(Metric::new(MetricValue::Time { name: name.into(), time }, Some(0))));
    };
    push_time("python_time", now.python);
    push_time("convert_time", now.convert);
    push_time("gil_wait_time", now.gil_wait);
    push_time("blocked_time", now.blocked);
    set
}

/// A source that a query opens: the query is over when it is, and hears of its errors.
pub(crate) struct Opened {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) access: Access,
    /// Who created it.
    pub(crate) owners: Arc<[Arc<str>]>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Opened {
    /// What all its partitions give, as it comes.
    pub(crate) fn rows(
        self,
        context: &TaskContext,
        projection: Vec<usize>,
        fetch: Option<usize>,
        input: Option<Input>,
    ) -> impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static {
        let Self { source, access, owners, metrics } = self;
        let query = Query::of(context);
        let name = source.name().to_owned();
        let open = |query: &Arc<Query>| query.open(&name, access, &metrics, &owners);
        let Opening { context, finish } = query.as_ref().map_or_else(Opening::default, open);
        let finish = finish.unwrap_or_else(Finish::ignore);
        let request = ScanRequest { projection, fetch, context, metrics, finish, input };
        stream::once(async move { source.open(request).await })
            .map_ok(|partitions| stream::select_all(partitions.into_iter().map(|partition| Box::pin(rows(partition)))))
            .try_flatten()
            .map_err(move |error| {
                if let Some(query) = &query {
                    query.failed(&name, access, error.kind());
                }
                Query::told(query.as_ref(), error, &owners)
            })
    }
}

/// What a partition gives, its cleanup before its end.
fn rows(partition: Box<dyn Partition>) -> impl futures::Stream<Item = couatl_core::Result<RecordBatch>> + Send {
    stream::try_unfold(partition, |mut partition| async move {
        match partition.next_batch().await {
            Ok(Some(batch)) => Ok(Some((batch, partition))),
            Ok(None) => partition.close().await.map(|()| None),
            Err(error) => {
                // What went wrong first is what is told.
                let _ = partition.close().await;
                Err(error)
            }
        }
    })
}

/// No more than so many rows; what gives them is dropped with the last.
pub(crate) fn limited(
    batches: impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static,
    fetch: Option<usize>,
) -> stream::BoxStream<'static, Result<RecordBatch>> {
    let Some(fetch) = fetch else { return batches.boxed() };
    let state = (batches.boxed(), fetch);
    stream::try_unfold(state, |(mut batches, left)| async move {
        match batches.try_next().await? {
            Some(batch) if batch.num_rows() < left => {
                let left = left - batch.num_rows();
                Ok(Some((batch, (batches, left))))
            }
            Some(batch) => Ok(Some((batch.slice(0, left), (stream::empty().boxed(), 0)))),
            None => Ok(None),
        }
    })
    .boxed()
}
