//! A stream for sessions of other programs, which know of an operator what they are told through a C interface, and of what
//! it requires nothing: a sink has to see to it itself that all rows come to it.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::TableType;
use datafusion::datasource::sink::DataSink;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::stream;

use crate::once::Once;
use crate::sink::StreamSink;
use crate::table::StreamTable;

/// The table of a stream, to be handed to a session of another program.
#[derive(Debug)]
pub struct ForeignTable(Arc<StreamTable>);

impl ForeignTable {
    /// That of this stream.
    pub fn new(table: Arc<StreamTable>) -> Self {
        Self(table)
    }
}

#[async_trait]
impl TableProvider for ForeignTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        self.0.table_type()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.scan(state, projection, filters, limit).await
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // It refuses what it does not take.
        let plan = self.0.insert_into(state, Arc::clone(&input), op).await?;
        let properties = Arc::clone(plan.properties());
        let order = input.output_ordering().cloned();
        Ok(Arc::new(WholeSinkExec { sink: Arc::new(self.0.sink()), input, order, properties }))
    }
}

/// A write that takes all partitions of its input, however many it is given. They are read where the write itself runs, and
/// not in tasks of ours: the other program's operators know their own runtime alone.
#[derive(Debug)]
struct WholeSinkExec {
    sink: Arc<StreamSink>,
    input: Arc<dyn ExecutionPlan>,
    /// In which the rows were to come: a sort that nobody seems to need has been taken out.
    order: Option<LexOrdering>,
    properties: Arc<PlanProperties>,
}

impl WholeSinkExec {
    /// Whether the rows come in an order by themselves.
    fn is_ordered(&self, order: &LexOrdering) -> Result<bool> {
        let is_one = self.input.output_partitioning().partition_count() == 1;
        Ok(is_one && self.input.equivalence_properties().ordering_satisfy(order.clone())?)
    }
}

impl DisplayAs for WholeSinkExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sink.fmt_as(format, f)
    }
}

impl ExecutionPlan for WholeSinkExec {
    fn name(&self) -> &'static str {
        "WholeSinkExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
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
        let (sink, properties) = (Arc::clone(&self.sink), Arc::clone(&self.properties));
        Ok(Arc::new(Self { sink, input: children.swap_remove(0), order: self.order.clone(), properties }))
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let partitions = 0..self.input.output_partitioning().partition_count();
        let partitions = partitions.map(|partition| self.input.execute(partition, Arc::clone(&context)));
        let rows = stream::select_all(partitions.collect::<Result<Vec<_>>>()?);
        let rows = Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), rows));
        let rows: SendableRecordBatchStream = match &self.order {
            Some(order) if !self.is_ordered(order)? => sorted(rows, order, &context)?,
            _ => rows,
        };
        let (sink, schema) = (Arc::clone(&self.sink), self.schema());
        let count = stream::once(async move {
            let count = sink.write_all(rows, &context).await?;
            Ok(RecordBatch::try_new(schema, vec![Arc::new(UInt64Array::from(vec![count]))])?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), count)))
    }
}

/// The rows in an order.
fn sorted(
    rows: SendableRecordBatchStream,
    order: &LexOrdering,
    context: &Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let schema = rows.schema();
    let rows = StreamingTableExec::try_new(schema, vec![Arc::new(Once::new(rows))], None, [], false, None)?;
    SortExec::new(order.clone(), Arc::new(rows)).execute(0, Arc::clone(context))
}
