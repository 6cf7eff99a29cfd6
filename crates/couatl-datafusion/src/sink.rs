//! The DataFusion sink of a stream.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use couatl_core::{Error, Finish, Metrics, Sink, SinkWriter, WriteRequest};
use datafusion::datasource::sink::DataSink;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::StreamExt;

use crate::from_datafusion;
use crate::query::{Opening, Query};
use crate::statistics::Access;
use crate::store::{Misfit, not_null, store};

/// Hands the rows of an INSERT to a sink, at most so many at once.
#[derive(Debug)]
pub(crate) struct StreamSink {
    sink: Arc<dyn Sink>,
    batch_rows: usize,
    /// Who created the stream.
    owners: Arc<[Arc<str>]>,
    /// The sink's columns, all of them nullable: NOT NULL is checked here, where the message can say what to do.
    schema: SchemaRef,
}

impl StreamSink {
    pub(crate) fn new(sink: Arc<dyn Sink>, batch_rows: usize, owners: Arc<[Arc<str>]>) -> Self {
        let nullable = |field: &Arc<Field>| Field::clone(field).with_nullable(true);
        let schema = Arc::new(Schema::new(sink.schema().fields().iter().map(nullable).collect::<Vec<_>>()));
        Self { sink, batch_rows, owners, schema }
    }

    /// The batch as the sink's columns hold it. `rows_before` is how many rows the INSERT has had, for messages.
    fn conform(&self, batch: &RecordBatch, rows_before: usize) -> couatl_core::Result<RecordBatch> {
        let schema = self.sink.schema();
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            let refused =
                |misfit: Misfit| misfit.into_error(&format!("stream '{}'", self.sink.name()), rows_before, field);
            columns.push(store(column, field).and_then(|column| not_null(column, field)).map_err(refused)?);
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    async fn write(
        &self,
        writer: &mut dyn SinkWriter,
        data: &mut SendableRecordBatchStream,
        query: Option<&Query>,
    ) -> couatl_core::Result<()> {
        let mut accepted = 0;
        while let Some(batch) = data.next().await {
            let batch = batch.map_err(from_datafusion).and_then(|batch| self.conform(&batch, accepted));
            // What the writer says of itself has this note already.
            let batch = batch.map_err(|error| error.with_accepted(accepted as u64))?;
            accepted += batch.num_rows();
            for start in (0..batch.num_rows()).step_by(self.batch_rows) {
                let rows = self.batch_rows.min(batch.num_rows() - start);
                writer.write(batch.slice(start, rows)).await?;
                query.inspect(|query| query.count(rows));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl DataSink for StreamSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(&self, mut data: SendableRecordBatchStream, context: &Arc<TaskContext>) -> Result<u64> {
        let query = Query::of(context);
        let metrics = Arc::new(Metrics::default());
        let opening = query
            .as_ref()
            .map_or_else(Opening::default, |query| query.open(self.sink.name(), Access::Write, &metrics, &self.owners));
        let finish = opening.finish.unwrap_or_else(Finish::ignore);
        let request = WriteRequest { context: opening.context, metrics, finish };
        let failed = |error: &Error| {
            if let Some(query) = &query {
                query.failed(self.sink.name(), Access::Write, error.kind());
            }
        };
        let told = |error| Query::told(query.as_ref(), error, &self.owners);
        let mut writer = self.sink.open(request).await.inspect_err(failed).map_err(told)?;
        let written = match self.write(&mut *writer, &mut data, query.as_deref()).await {
            Ok(()) => writer.commit().await,
            Err(error) => Err(match writer.abort().await {
                Ok(()) => error,
                Err(cleanup) => error.with_cleanup(&cleanup),
            }),
        };
        written.inspect_err(failed).map_err(told)
    }
}

impl DisplayAs for StreamSink {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamSink: stream={}", self.sink.name())
    }
}
