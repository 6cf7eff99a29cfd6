//! Results on their way out: batches of rows become Flight messages.
//!
//! A batch leaves the moment it arrives. The schema is the first message, and comes even where no row follows; an error
//! after any number of rows ends the stream with its status.

use std::pin::Pin;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use couatl_core::{Error, ErrorKind, Result};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::Status;

use crate::status::status;
use crate::wire::{TARGET_BYTES, pieces, wire_batch};

/// The largest message that is sent or taken.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The body of a DoGet.
pub(crate) type FlightStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// Brings rows into their wire form, in batches that fit into messages. Belongs on the query runtime: it may convert.
pub(crate) fn prepare(
    rows: BoxStream<'static, Result<RecordBatch>>,
    schema: SchemaRef,
) -> BoxStream<'static, Result<RecordBatch>> {
    rows.map(move |batch| batch.and_then(|batch| wire_batch(&batch, &schema)))
        .map_ok(|batch| stream::iter(pieces(batch, TARGET_BYTES).into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

/// Encodes rows that are in their wire form.
pub(crate) fn encode(
    rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    schema: SchemaRef,
) -> FlightStream {
    let messages = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        // Batches come in pieces already, cut by a better measure than the encoder has.
        .with_max_flight_data_size(usize::MAX)
        .build(rows.map_err(|error| FlightError::Tonic(Box::new(status(&error)))));
    Box::pin(messages.map(|message| message.map_err(Status::from).and_then(checked)))
}

/// Refuses a message that clients could not take. Only a single row can be as large.
fn checked(message: FlightData) -> Result<FlightData, Status> {
    let bytes = message.encoded_len();
    if bytes <= MAX_MESSAGE_BYTES {
        return Ok(message);
    }
    let text = format!(
        "a row takes {bytes} bytes, and a message holds at most {MAX_MESSAGE_BYTES}: select fewer or shorter columns"
    );
    Err(status(&Error::new(ErrorKind::ResourcesExhausted, text)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow_flight::decode::FlightRecordBatchStream;
    use futures::future;

    use super::*;
    use crate::wire::wire_schema;

    fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(range)) as ArrayRef)]).unwrap()
    }

    fn sent(rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static, schema: &Schema) -> FlightStream {
        let schema = wire_schema(schema);
        encode(prepare(rows.boxed(), Arc::clone(&schema)), schema)
    }

    #[tokio::test]
    async fn no_rows_still_have_a_schema() {
        let schema = Schema::new(vec![Field::new("s", DataType::Utf8View, false)]);
        let messages: Vec<_> = sent(stream::empty(), &schema).collect().await;
        assert_eq!(messages.len(), 1);
        let mut read = FlightRecordBatchStream::new_from_flight_data(stream::iter(messages).map_err(Into::into));
        assert!(read.next().await.is_none());
        assert_eq!(read.schema().unwrap(), &wire_schema(&schema));
    }

    #[tokio::test]
    async fn a_batch_leaves_while_the_next_one_is_not_there() {
        let batch = numbers(0..1);
        let rows = stream::iter([Ok(batch.clone())]).chain(stream::pending());
        let mut messages = sent(rows, &batch.schema());
        assert!(messages.next().await.unwrap().is_ok());
        assert!(messages.next().await.unwrap().is_ok());
        assert!(futures::poll!(messages.next()).is_pending());
    }

    #[tokio::test]
    async fn an_error_after_rows_arrives_as_its_status() {
        let batch = numbers(0..3);
        let rows = stream::iter([Ok(batch.clone()), Err(Error::not_found("gone")), Ok(batch.clone())]);
        let messages: Vec<_> = sent(rows, &batch.schema()).collect().await;
        assert_eq!(messages.len(), 3);
        let error = messages[2].as_ref().unwrap_err();
        assert_eq!((error.code(), error.message()), (tonic::Code::NotFound, "gone"));
    }

    #[tokio::test]
    async fn a_large_batch_leaves_in_messages_of_the_target_size() {
        let batch = numbers(0..2_000_000);
        let messages: Vec<_> = sent(stream::iter([Ok(batch.clone())]), &batch.schema()).collect().await;
        let sizes: Vec<usize> = messages.iter().map(|m| m.as_ref().unwrap().encoded_len()).collect();
        assert!(sizes.len() > 8 && sizes.iter().all(|size| *size < TARGET_BYTES + 4096), "{sizes:?}");
        let read = FlightRecordBatchStream::new_from_flight_data(stream::iter(messages).map_err(Into::into));
        let rows: usize = read.try_fold(0, |sum, b| future::ready(Ok(sum + b.num_rows()))).await.unwrap();
        assert_eq!(rows, 2_000_000);
    }

    #[tokio::test]
    async fn a_row_that_no_message_holds_is_refused() {
        let wide = StringArray::from(vec!["x".repeat(MAX_MESSAGE_BYTES)]);
        let batch = RecordBatch::try_from_iter([("s", Arc::new(wide) as ArrayRef)]).unwrap();
        let messages: Vec<_> = sent(stream::iter([Ok(batch.clone())]), &batch.schema()).collect().await;
        let error = messages.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
        assert!(error.message().contains("select fewer or shorter columns"), "{error}");
    }
}
