//! Parameters of prepared statements: from what a client uploads to the values of one execution.
//!
//! They are bound by position. Names are not looked at: ADBC calls them `0`, `1`, …, others `$1` or `?`. Nor are types
//! checked here, since drivers send what they inferred from the values; the session casts them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UnionArray, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::{CompressionType, root_as_message};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use couatl_core::{Error, ErrorKind, Result};
use couatl_datafusion::{into_datafusion, row_values, sliced_bytes};
use datafusion::common::ParamValues;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, future, stream};
use tonic::{Code, Status};

use crate::column::undescribed;
use crate::status;
use crate::wire::{flat_bytes, wire_batch, wire_schema};

/// How many bytes of parameters a statement may keep. Those of an update are not kept: it runs as they arrive.
const BOUND_BYTES: usize = 64 * 1024 * 1024;

/// How many bytes the rows of a message may take as plain values, as tables hold them.
const FLAT_BYTES: u64 = 256 * 1024 * 1024;

/// How many bytes a message of an upload may take once it is decompressed: a few of them can stand for any number.
const UNPACKED_BYTES: u64 = 64 * 1024 * 1024;

/// The rows of parameters that a statement is to be run with.
#[derive(Debug, Clone, Default)]
pub(crate) enum Parameters {
    /// None were given: one execution, without values.
    #[default]
    None,
    /// One execution for each row.
    Rows(Arc<[RecordBatch]>),
}

impl Parameters {
    /// What their arrays hold.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Parameters::None => 0,
            Parameters::Rows(batches) => batches.iter().map(held_bytes).sum(),
        }
    }

    /// The values of each execution, in order.
    pub(crate) fn executions(&self) -> impl Iterator<Item = Result<Option<ParamValues>>> + Send + use<> {
        let (once, batches) = match self {
            Parameters::None => (Some(Ok(None)), Arc::from([])),
            Parameters::Rows(batches) => (None, Arc::clone(batches)),
        };
        let rows = (0..batches.len()).flat_map(move |at| {
            let batch = batches[at].clone();
            (0..batch.num_rows()).map(move |row| row_values(&batch, row).map(Some))
        });
        once.into_iter().chain(rows)
    }
}

/// The uploaded rows as they arrive, in batches without dictionaries and views.
///
/// Drivers that have no parameters to send send a message without data, or a batch without columns, or nothing. In all
/// these cases [`Upload::next`] ends at once and [`Upload::is_empty`] holds.
pub(crate) struct Upload(FlightRecordBatchStream);

impl Upload {
    pub(crate) fn new(messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static) -> Self {
        let messages = messages
            .map_err(status::oversized)
            .and_then(|message| future::ready(check(&message).map(|()| message)))
            .map_err(Into::into)
            .try_filter(|message| future::ready(!message.data_header.is_empty()));
        Self(FlightRecordBatchStream::new_from_flight_data(messages))
    }

    /// The next batch of at least one column. An error is the last that it gives.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, Status> {
        // Arrow's decoder panics where lengths do not fit each other.
        let decoded = AssertUnwindSafe(self.decoded()).catch_unwind().await;
        decoded.unwrap_or_else(|_| Err(misdescribed()))
    }

    async fn decoded(&mut self) -> Result<Option<RecordBatch>, Status> {
        while let Some(batch) = self.0.next().await {
            let batch = batch.map_err(status::upload)?;
            if batch.num_columns() > 0 {
                let bytes =
                    batch.columns().iter().map(|column| flat_bytes(column.as_ref())).fold(0, u64::saturating_add);
                check_bytes(bytes, FLAT_BYTES, "as plain values")?;
                let batch = without_unions(&batch).map_err(|error| status::status(&error))?;
                let schema = plain_schema(&batch.schema());
                return wire_batch(&batch, &schema).map(Some).map_err(|error| status::status(&error));
            }
        }
        Ok(None)
    }

    /// Whether no parameters were given. Rows of them may be none all the same. Known at the end.
    fn is_empty(&self) -> bool {
        self.0.schema().is_none_or(|schema| schema.fields().is_empty())
    }

    /// All rows as they arrive, if it has any columns.
    pub(crate) async fn rows(mut self) -> Result<Option<SendableRecordBatchStream>, Status> {
        // A schema is known for certain when the first batch is here, or the end.
        let first = self.next().await?;
        let Some(schema) = self.0.schema().filter(|schema| !schema.fields().is_empty()) else { return Ok(None) };
        let schema = first.as_ref().map_or_else(|| plain_schema(schema), RecordBatch::schema);
        let rest = stream::try_unfold(self, |mut upload| async move {
            let failed = |status: Status| {
                let kind = match status.code() {
                    Code::ResourceExhausted => ErrorKind::ResourcesExhausted,
                    _ => ErrorKind::InvalidArgument,
                };
                into_datafusion(Error::new(kind, status.message()))
            };
            Ok(upload.next().await.map_err(failed)?.map(|batch| (batch, upload)))
        });
        let rows = stream::iter(first).map(Ok).chain(rest);
        Ok(Some(Box::pin(RecordBatchStreamAdapter::new(schema, rows))))
    }

    /// All of it.
    pub(crate) async fn collect(mut self) -> Result<Parameters, Status> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        while let Some(batch) = self.next().await? {
            bytes += held_bytes(&batch);
            if bytes > BOUND_BYTES {
                let message = format!("parameters take more than {BOUND_BYTES} bytes: bind fewer rows at a time");
                return Err(status::status(&Error::new(ErrorKind::ResourcesExhausted, message)));
            }
            batches.push(batch);
        }
        Ok(if self.is_empty() { Parameters::None } else { Parameters::Rows(batches.into()) })
    }
}

/// What the columns of a batch hold, which may lie in one buffer.
fn held_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(sliced_bytes).sum()
}

/// Refuses a message that holds too much before its memory is taken, or less than its header says.
fn check(message: &FlightData) -> Result<(), Status> {
    let Ok(header) = root_as_message(&message.data_header) else { return Ok(()) };
    let Some(batch) = header.header_as_record_batch().or_else(|| header.header_as_dictionary_batch()?.data()) else {
        return Ok(());
    };
    let is_lz4 = batch.compression().is_some_and(|by| by.codec() == CompressionType::LZ4_FRAME);
    let mut bytes = 0_u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let start = usize::try_from(buffer.offset()).ok();
        let end = start.and_then(|start| start.checked_add(usize::try_from(buffer.length()).ok()?));
        let buffer = start.zip(end).and_then(|(start, end)| message.data_body.get(start..end));
        // Its length stands before a compressed buffer, or -1 where it is as it is.
        let buffer = buffer.ok_or_else(misdescribed)?;
        if let Some((length, frame)) = buffer.split_first_chunk::<8>()
            && let Ok(length) = u64::try_from(i64::from_le_bytes(*length))
        {
            bytes = bytes.saturating_add(length);
            // What a frame of LZ4 says of its length is not what its decoder goes by. Its last block may not be full.
            if is_lz4 && lz4_bytes(frame) > length.saturating_add(UNPACKED_BYTES) {
                return Err(misdescribed());
            }
        }
    }
    if batch.compression().is_none() {
        return Ok(());
    }
    check_bytes(bytes, UNPACKED_BYTES, "once it is decompressed")
}

/// What a frame of LZ4 can hold at most, by its blocks.
fn lz4_bytes(frame: &[u8]) -> u64 {
    const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
    /// A byte of a block stands for so many at most.
    const RATIO: u64 = 255;
    let unknown = (frame.len() as u64).saturating_mul(RATIO);
    let Some([flags, sizes, ..]) = frame.strip_prefix(&MAGIC) else { return unknown };
    let block = match (sizes >> 4) & 7 {
        code @ 4..=7 => 1_u64 << (8 + 2 * u32::from(code)),
        _ => return unknown,
    };
    let has = |bit: u8| flags & bit != 0;
    // The magic, flags, sizes and checksum, and what the flags say is between them.
    let mut at = 7 + if has(8) { 8 } else { 0 } + if has(1) { 4 } else { 0 };
    let mut most = 0_u64;
    while let Some(size) = frame.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let size = u32::from_le_bytes(*size);
        let taken = size & 0x7FFF_FFFF;
        if taken == 0 {
            break;
        }
        most = most.saturating_add(block.min(u64::from(taken) * RATIO));
        at = at.saturating_add(4 + taken as usize + if has(16) { 4 } else { 0 });
    }
    // Another frame may follow.
    most.saturating_add((frame.len().saturating_sub(at + 8) as u64).saturating_mul(RATIO))
}

fn misdescribed() -> Status {
    let message = "cannot read the upload: the header of a message does not describe its body";
    status::status(&Error::invalid_argument(message))
}

fn check_bytes(bytes: u64, most: u64, when: &str) -> Result<(), Status> {
    if bytes <= most {
        return Ok(());
    }
    let message = format!(
        "a message of the upload takes {bytes} bytes {when}, and may take {most}: send the rows in smaller \
         batches"
    );
    Err(status::status(&Error::new(ErrorKind::ResourcesExhausted, message)))
}

/// A schema without dictionaries, views, and what the server has said of its columns itself.
fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(undescribed).collect();
    wire_schema(&Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The batch with plain columns: some drivers send each value in a union of all types that they have.
fn without_unions(batch: &RecordBatch) -> Result<RecordBatch> {
    if !batch.schema().fields().iter().any(|field| matches!(field.data_type(), DataType::Union(_, _))) {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter().enumerate().map(|(position, column)| match column.as_union_opt() {
        Some(union) => without_union(union, position),
        None => Ok(Arc::clone(column)),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let fields = batch.schema_ref().fields().iter().zip(&columns);
    let fields: Vec<_> =
        fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The values of a union that are of one type, and NULL.
fn without_union(union: &UnionArray, position: usize) -> Result<ArrayRef> {
    let values = (0..union.len()).map(|row| union.value(row)).collect::<Vec<_>>();
    let mut types = values.iter().filter(|value| value.is_valid(0)).map(|value| value.data_type());
    let Some(first) = types.next() else { return Ok(new_null_array(&DataType::Null, union.len())) };
    if let Some(other) = types.find(|other| *other != first) {
        return Err(Error::invalid_argument(format!(
            "parameter {} has values of {first} and of {other}: send those of one type at a time",
            position + 1
        )));
    }
    let (of_type, null) = (first.clone(), new_null_array(first, 1));
    let parts: Vec<&dyn Array> =
        values.iter().map(|value| if *value.data_type() == of_type { &**value } else { &*null }).collect();
    Ok(concat(&parts)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Float64Array, Int64Array, RecordBatchOptions, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow_flight::FlightDescriptor;
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use datafusion::common::ScalarValue;
    use futures::stream;

    use super::*;

    fn adbc_rows() -> RecordBatch {
        let columns: [(&str, ArrayRef); 2] = [
            ("0", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
            ("1", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    async fn encoded(batch: RecordBatch, options: IpcWriteOptions) -> Vec<FlightData> {
        let encoder = FlightDataEncoderBuilder::new().with_options(options).with_max_flight_data_size(usize::MAX);
        encoder.build(stream::iter([Ok(batch)])).try_collect().await.unwrap()
    }

    async fn sent(schema: &Schema, batches: Vec<RecordBatch>) -> Upload {
        let messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
            .with_schema(Arc::new(schema.clone()))
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd("command")))
            .build(stream::iter(batches.into_iter().map(Ok)))
            .try_collect()
            .await
            .unwrap();
        Upload::new(stream::iter(messages.into_iter().map(Ok)))
    }

    fn scalars(values: Option<ParamValues>) -> Vec<ScalarValue> {
        match values {
            Some(ParamValues::List(values)) => values.into_iter().map(|value| value.value).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn executed(parameters: &Parameters) -> Vec<Vec<ScalarValue>> {
        parameters.executions().map(|values| scalars(values.unwrap())).collect()
    }

    #[tokio::test]
    async fn each_row_is_an_execution_by_position() {
        let batch = adbc_rows();
        let upload = sent(&batch.schema(), vec![batch.slice(0, 2), batch.slice(2, 1)]).await;
        let rows = executed(&upload.collect().await.unwrap());
        let expected = [
            [ScalarValue::Int64(Some(1)), ScalarValue::from("a")],
            [ScalarValue::Int64(None), ScalarValue::from("b")],
            [ScalarValue::Int64(Some(3)), ScalarValue::from("c")],
        ];
        assert_eq!(rows, expected);
    }

    #[tokio::test]
    async fn dictionaries_and_views_become_plain_values() {
        let words: DictionaryArray<Int32Type> = ["on"].into_iter().collect();
        let columns: [(&str, ArrayRef); 3] = [
            ("a", Arc::new(words)),
            ("b", Arc::new(StringViewArray::from(vec!["a text that is too long to be inlined"]))),
            ("c", Arc::new(Float64Array::from(vec![0.5]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        // A client sends dictionaries as such.
        let messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
            .with_dictionary_handling(arrow_flight::encode::DictionaryHandling::Resend)
            .build(stream::iter([Ok(batch)]))
            .try_collect()
            .await
            .unwrap();
        let upload = Upload::new(stream::iter(messages.into_iter().map(Ok)));
        let rows = executed(&upload.collect().await.unwrap());
        let text = ScalarValue::from("a text that is too long to be inlined");
        assert_eq!(rows, [[ScalarValue::from("on"), text, ScalarValue::Float64(Some(0.5))]]);
    }

    #[tokio::test]
    async fn nothing_to_bind_is_one_execution_without_values() {
        let no_columns = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            vec![],
            &RecordBatchOptions::new().with_row_count(Some(0)),
        )
        .unwrap();
        let descriptor_alone = FlightData::new().with_descriptor(FlightDescriptor::new_cmd("command"));
        for upload in [
            sent(&Schema::empty(), vec![]).await,
            sent(&Schema::empty(), vec![no_columns]).await,
            Upload::new(stream::iter([Ok(descriptor_alone)])),
            Upload::new(stream::empty()),
        ] {
            let parameters = upload.collect().await.unwrap();
            let executions: Vec<_> = parameters.executions().map(Result::unwrap).collect();
            assert!(matches!(executions.as_slice(), [None]), "{executions:?}");
        }
    }

    #[tokio::test]
    async fn no_rows_are_no_execution() {
        let schema = Schema::new(vec![Field::new("0", DataType::Int64, true)]);
        for batches in [vec![], vec![RecordBatch::new_empty(Arc::new(schema.clone()))]] {
            let parameters = sent(&schema, batches).await.collect().await.unwrap();
            assert_eq!(parameters.executions().count(), 0);
        }
    }

    #[tokio::test]
    async fn garbage_is_refused() {
        let garbage = FlightData::new().with_data_header(vec![1, 2, 3, 4]);
        let refused = Upload::new(stream::iter([Ok(garbage)])).collect().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }

    #[tokio::test]
    async fn a_body_that_is_cut_short_is_refused() {
        for length in [0, 8] {
            let mut messages = encoded(adbc_rows(), IpcWriteOptions::default()).await;
            for message in &mut messages {
                message.data_body.truncate(length);
            }
            let refused = Upload::new(stream::iter(messages.into_iter().map(Ok))).collect().await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().starts_with("cannot read the upload: "), "{refused}");
        }
    }

    #[tokio::test]
    async fn rows_of_which_nothing_is_sent_are_counted() {
        let rows: i64 = 123_456_789;
        let nulls = RecordBatch::try_from_iter([("0", new_null_array(&DataType::Null, rows as usize))]).unwrap();
        let messages = encoded(nulls, IpcWriteOptions::default()).await;
        for claimed in [rows, 1 << 62, -1] {
            let mut messages = messages.clone();
            let mut header = messages[1].data_header.to_vec();
            // The length of the batch, and that of its column.
            while let Some(at) = header.windows(8).position(|bytes| bytes == rows.to_le_bytes() && claimed != rows) {
                header[at..at + 8].copy_from_slice(&claimed.to_le_bytes());
            }
            messages[1].data_header = header.into();
            let refused = Upload::new(stream::iter(messages.into_iter().map(Ok))).collect().await.unwrap_err();
            assert_eq!(refused.code(), Code::ResourceExhausted, "{claimed}: {refused}");
        }
    }

    #[tokio::test]
    async fn a_frame_of_lz4_is_measured_by_its_blocks() {
        let (rows, bytes) = (1_000_000, 8_000_000);
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap();
        let numbers = Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef;
        let zeros = Arc::new(Int64Array::from_value(0, rows as usize)) as ArrayRef;
        let mut frames = Vec::new();
        for column in [numbers, zeros] {
            let messages = encoded(RecordBatch::try_from_iter([("0", column)]).unwrap(), options.clone()).await;
            let start =
                messages[1].data_body.windows(4).position(|word| word == 0x184D_2204_u32.to_le_bytes()).unwrap();
            frames.push(messages[1].data_body[start..].to_vec());
        }
        for frame in &frames {
            let most = lz4_bytes(frame);
            assert!((bytes..bytes + (4 << 20) + 64 * 255).contains(&most), "{most}");
        }
        assert!(lz4_bytes(&frames.concat()) > bytes * 2, "one frame after the other");
        assert_eq!(lz4_bytes(&[0; 100]), 100 * 255, "what is none");
        assert_eq!(lz4_bytes(&[]), 0);
    }

    #[tokio::test]
    async fn what_is_large_once_it_is_decompressed_is_refused_before_it_is() {
        for codec in [CompressionType::ZSTD, CompressionType::LZ4_FRAME] {
            for (rows, is_taken) in [(1_000_000, true), (9_000_000, false)] {
                let zeros = Arc::new(Int64Array::from(vec![0; rows])) as ArrayRef;
                let batch = RecordBatch::try_from_iter([("0", zeros)]).unwrap();
                let options = IpcWriteOptions::default().try_with_compression(Some(codec)).unwrap();
                let messages = encoded(batch, options).await;
                assert!(messages.iter().map(|message| message.data_body.len()).sum::<usize>() < 1_000_000);
                let collected = Upload::new(stream::iter(messages.into_iter().map(Ok))).collect().await;
                assert_eq!(collected.is_ok(), is_taken);
                let refused = collected.err();
                let message = refused.as_ref().map(Status::message).unwrap_or_default();
                assert!(is_taken || message.contains("bytes once it is decompressed"), "{message}");
            }
        }
    }

    #[tokio::test]
    async fn too_much_is_refused() {
        let numbers = Arc::new(Int64Array::from_iter_values(0..5_000_000)) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("0", numbers)]).unwrap();
        let upload = sent(&batch.schema(), vec![batch.clone(), batch]).await;
        assert_eq!(upload.collect().await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}
