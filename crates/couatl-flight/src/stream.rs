//! Results on their way out: batches of rows become Flight messages.
//!
//! A batch leaves the moment it arrives. The schema is the first message, and comes even where no row follows; an error
//! after any number of rows ends the stream with its status.
//!
//! The values of a batch are not copied into its message: a message is a list of parts, and the large ones are the
//! batch's own buffers. What tonic generates knows messages of one piece only, so that the response which it makes gets
//! its body from here, by way of its extensions.

use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use arrow_flight::{FlightData, SchemaAsIpc};
use bytes::{BufMut, Bytes, BytesMut};
use couatl_core::{Error, ErrorKind, Result};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use parking_lot::Mutex;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::body::Body;
use tonic::{Response, Status};

use crate::status::{internal, status};
use crate::wire::{TARGET_BYTES, pieces, wire_batch};

/// The largest message that is sent or taken.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Where the fields of a FlightData are, in its protobuf message.
const HEADER_FIELD: u32 = 2;
const BODY_FIELD: u32 = 1000;

/// Parts of less are copied together: HTTP/2 sends each part in a frame of its own.
const OWN_PART_BYTES: usize = 16 * 1024;

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

/// The response to a DoGet, whose body is [`put_in`] once tonic has made the rest of it.
pub(crate) fn respond<T: Send + 'static>(
    rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    schema: SchemaRef,
) -> Result<Response<BoxStream<'static, T>>, Status> {
    let mut response = Response::new(stream::empty().boxed());
    let body = Body::new(StreamBody::new(frames(messages(rows, schema)?)));
    response.extensions_mut().insert(OwnBody(Arc::new(Mutex::new(Some(body)))));
    Ok(response)
}

/// The rows, and where none come for so long, an empty batch: what is between a client and a server may take a
/// connection for dead on which nothing moves.
pub(crate) fn with_heartbeat(
    rows: BoxStream<'static, Result<RecordBatch>>,
    schema: SchemaRef,
    heartbeat: Option<Duration>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let Some(heartbeat) = heartbeat else { return rows };
    stream::unfold((rows, schema), move |(mut rows, schema)| async move {
        let next = tokio::time::timeout(heartbeat, rows.next()).await;
        let item = next.unwrap_or_else(|_| Some(Ok(RecordBatch::new_empty(Arc::clone(&schema)))))?;
        Some((item, (rows, schema)))
    })
    .boxed()
}

/// A body among the extensions of its response, which must be `Clone` and `Sync`.
#[derive(Clone)]
struct OwnBody(Arc<Mutex<Option<Body>>>);

/// Puts the body that a response brings along in its place.
pub(crate) fn put_in(mut response: http::Response<Body>) -> http::Response<Body> {
    if let Some(body) = response.extensions_mut().remove::<OwnBody>().and_then(|own| own.0.lock().take()) {
        *response.body_mut() = body;
    }
    response
}

/// A message as gRPC sends it, in its parts.
type Parts = Vec<Bytes>;

/// The body with these messages: the frames of their parts, and the status in the last one.
fn frames(
    messages: impl Stream<Item = Result<Parts, Status>> + Send + 'static,
) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + Send {
    let parts = messages.map_ok(|parts| stream::iter(parts.into_iter().map(Ok))).try_flatten().boxed();
    stream::unfold(Some(parts), async |parts| {
        let mut parts = parts?;
        let last = match parts.next().await {
            Some(Ok(part)) => return Some((Ok(Frame::data(part)), Some(parts))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        let mut trailers = HeaderMap::new();
        Some((last.add_header(&mut trailers).map(|()| Frame::trailers(trailers)), None))
    })
}

/// The messages with the rows, which are in their wire form, and before them the one with their schema.
fn messages(
    rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    schema: SchemaRef,
) -> Result<impl Stream<Item = Result<Parts, Status>> + Send, Status> {
    let first = FlightData::from(SchemaAsIpc::new(&schema, &IpcWriteOptions::default()));
    let mut encoder = StreamEncoder::try_new(&schema).map_err(internal)?;
    let mut own_schema = 1;
    let batches = rows.map(move |batch| match batch {
        // Before the first batch, the encoder writes the schema as well.
        Ok(batch) => Ok(encoded(encoder.encode(&batch).map_err(internal)?)?.into_iter().skip(take(&mut own_schema))),
        Err(error) => Err(status(&error)),
    });
    let batches = batches.map_ok(|messages| stream::iter(messages.map(Ok))).try_flatten();
    Ok(stream::once(future::ok(vec![framed(&first)])).chain(batches))
}

/// A message of gRPC in one piece.
fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    put_prefix(&mut bytes, message.encoded_len());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// What precedes each message of gRPC: whether it is compressed, and its length.
fn put_prefix(bytes: &mut BytesMut, length: usize) {
    bytes.put_u8(0);
    // Messages are of 16 MiB at most.
    bytes.put_u32(length as u32);
}

/// The messages with an encoded batch, those of its dictionaries first.
fn encoded(encoded: Vec<Buffer>) -> Result<Vec<Parts>, Status> {
    let encoded: Vec<_> = encoded.into_iter().filter(|buffer| !buffer.is_empty()).collect();
    let (mut buffers, mut messages) = (encoded.into_iter(), Vec::new());
    while !buffers.as_slice().is_empty() {
        messages.push(message(&mut buffers)?);
    }
    Ok(messages)
}

/// The next of encoded messages, each of which is as Arrow's streaming format has it: a mark of 4 bytes, the length of the
/// metadata in 4 more, the metadata, and the values.
fn message(buffers: &mut std::vec::IntoIter<Buffer>) -> Result<Parts, Status> {
    let cut_short = || internal(ArrowError::IpcError("an encoded batch is cut short".to_owned()));
    let mut metadata = Vec::new();
    let start: [u8; 8] = buffers.next().and_then(|start| start.as_slice().try_into().ok()).ok_or_else(cut_short)?;
    let [.., a, b, c, d] = start;
    while metadata.len() < u32::from_le_bytes([a, b, c, d]) as usize {
        metadata.extend_from_slice(&buffers.next().ok_or_else(cut_short)?);
    }
    let described = arrow::ipc::root_as_message(&metadata).map_err(|_| cut_short())?;
    let values = usize::try_from(described.bodyLength()).map_err(|_| cut_short())?;
    let length = field_len(HEADER_FIELD, metadata.len()) + field_len(BODY_FIELD, values);
    if length > MAX_MESSAGE_BYTES {
        return Err(too_large(length));
    }

    let (mut parts, mut joined) = (Parts::new(), BytesMut::new());
    put_prefix(&mut joined, length);
    put_key(&mut joined, HEADER_FIELD, metadata.len());
    joined.extend_from_slice(&metadata);
    put_key(&mut joined, BODY_FIELD, values);
    let mut missing = values;
    while missing > 0 {
        let buffer = buffers.next().ok_or_else(cut_short)?;
        missing = missing.checked_sub(buffer.len()).ok_or_else(cut_short)?;
        if buffer.len() < OWN_PART_BYTES {
            joined.extend_from_slice(&buffer);
        } else {
            parts.extend([joined.split().freeze(), Bytes::from_owner(Part(buffer))]);
        }
    }
    parts.push(joined.freeze());
    parts.retain(|part| !part.is_empty());
    Ok(parts)
}

/// A buffer of an array as a part of a message.
struct Part(Buffer);

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What a field of bytes takes in a message.
fn field_len(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

/// Begins a field of bytes.
fn put_key(message: &mut BytesMut, field: u32, length: usize) {
    encode_key(field, WireType::LengthDelimited, message);
    encode_varint(length as u64, message);
}

/// Only a single row can be.
fn too_large(bytes: usize) -> Status {
    let text = format!(
        "a row takes {bytes} bytes, and a message holds at most {MAX_MESSAGE_BYTES}: select fewer or shorter columns"
    );
    status(&Error::new(ErrorKind::ResourcesExhausted, text))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, BooleanArray, Int64Array, ListArray, StringArray};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use arrow_flight::decode::FlightRecordBatchStream;

    use super::*;
    use crate::wire::wire_schema;

    fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(range)) as ArrayRef)]).unwrap()
    }

    fn sent(
        rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
        schema: &Schema,
    ) -> BoxStream<'static, Result<Parts, Status>> {
        let schema = wire_schema(schema);
        messages(prepare(rows.boxed(), Arc::clone(&schema)), schema).unwrap().boxed()
    }

    /// What a client makes of a message.
    fn received(parts: &Parts) -> FlightData {
        let bytes = parts.concat();
        let (prefix, message) = bytes.split_at(5);
        assert_eq!(prefix[0], 0);
        assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, message.len());
        FlightData::decode(message).unwrap()
    }

    async fn read(messages: Vec<Result<Parts, Status>>) -> (SchemaRef, Vec<RecordBatch>) {
        let messages = messages.into_iter().map(|parts| Ok(received(&parts.unwrap())));
        let mut read = FlightRecordBatchStream::new_from_flight_data(stream::iter(messages));
        let batches = read.by_ref().try_collect().await.unwrap();
        (Arc::clone(read.schema().unwrap()), batches)
    }

    #[tokio::test]
    async fn no_rows_still_have_a_schema() {
        let schema = Schema::new(vec![Field::new("s", DataType::Utf8View, false)]);
        let messages: Vec<_> = sent(stream::empty(), &schema).collect().await;
        assert_eq!(messages.len(), 1);
        assert_eq!(read(messages).await, (wire_schema(&schema), vec![]));
    }

    #[tokio::test]
    async fn rows_arrive_as_they_were() {
        let texts = StringArray::from_iter((0..5000).map(|n| (n % 3 > 0).then(|| format!("text {n}"))));
        let flags = BooleanArray::from_iter((0..5000).map(|n| (n % 5 > 0).then_some(n % 2 == 0)));
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>((0..5000).map(|n| Some([Some(n), None])));
        let columns: [(&str, ArrayRef, bool); 3] =
            [("t", Arc::new(texts), true), ("f", Arc::new(flags), true), ("l", Arc::new(lists), true)];
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let bare = RecordBatch::new_empty(Arc::new(Schema::empty()));
        for batch in [batch.clone(), batch.slice(1003, 2001), batch.slice(7, 1), batch.slice(0, 0), bare] {
            let messages = sent(stream::iter([Ok(batch.clone())]), &batch.schema()).collect().await;
            assert_eq!(read(messages).await, (batch.schema(), vec![batch]));
        }
    }

    #[tokio::test]
    async fn the_values_of_large_batches_are_not_copied() {
        let batch = numbers(0..8192);
        let values = batch.column(0).to_data().buffers()[0].as_ptr();
        let messages: Vec<_> = sent(stream::iter([Ok(batch.clone())]), &batch.schema()).collect().await;
        let parts = messages[1].as_ref().unwrap();
        assert!(parts.iter().any(|part| part.as_ptr() == values));
        let messages: Vec<_> = sent(stream::iter([Ok(batch.slice(0, 8))]), &batch.schema()).collect().await;
        assert_eq!(messages[1].as_ref().unwrap().len(), 1, "what is small is in one part");
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

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_has_an_empty_batch_now_and_then() {
        let batch = numbers(0..1);
        let rows = stream::iter([Ok(batch.clone())]).chain(stream::pending()).boxed();
        let mut rows = with_heartbeat(rows, batch.schema(), Some(Duration::from_secs(15)));
        let started = tokio::time::Instant::now();
        for (expected, seconds) in [(1, 0), (0, 15), (0, 30)] {
            assert_eq!(rows.next().await.unwrap().unwrap().num_rows(), expected);
            assert_eq!(started.elapsed().as_secs(), seconds);
        }
        let ended =
            with_heartbeat(stream::iter([Ok(batch)]).boxed(), numbers(0..0).schema(), Some(Duration::from_secs(15)));
        assert_eq!(ended.count().await, 1);
    }

    #[tokio::test]
    async fn an_error_after_rows_is_the_last_frame() {
        let batch = numbers(0..3);
        let rows = stream::iter([Ok(batch.clone()), Err(Error::not_found("gone")), Ok(batch.clone())]);
        let frames: Vec<_> = frames(sent(rows, &batch.schema())).try_collect().await.unwrap();
        assert_eq!(frames.len(), 3);
        let status = Status::from_header_map(frames[2].trailers_ref().unwrap()).unwrap();
        assert_eq!((status.code(), status.message()), (tonic::Code::NotFound, "gone"));
    }

    #[tokio::test]
    async fn an_end_in_order_is_said() {
        let batch = numbers(0..3);
        let frames: Vec<_> = frames(sent(stream::empty(), &batch.schema())).try_collect().await.unwrap();
        assert_eq!(frames.len(), 2);
        let status = Status::from_header_map(frames[1].trailers_ref().unwrap()).unwrap();
        assert_eq!(status.code(), tonic::Code::Ok);
    }

    #[tokio::test]
    async fn a_large_batch_leaves_in_messages_of_the_target_size() {
        let batch = numbers(0..2_000_000);
        let messages: Vec<_> = sent(stream::iter([Ok(batch.clone())]), &batch.schema()).collect().await;
        let sizes: Vec<usize> = messages.iter().map(|parts| parts.as_ref().unwrap().concat().len()).collect();
        assert!(sizes.len() > 8 && sizes.iter().all(|size| *size < TARGET_BYTES + 4096), "{sizes:?}");
        let (schema, batches) = read(messages).await;
        assert_eq!(arrow::compute::concat_batches(&schema, &batches).unwrap(), batch);
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
