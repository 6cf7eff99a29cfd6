//! The form in which rows go over the wire, decided once: the schema that prepare, FlightInfo and GetSchema announce is
//! the schema that DoGet sends.
//!
//! View types become plain ones (JDBC reads no views), dictionaries and runs become their values and large lists become
//! lists, at any depth. arrow-flight's encoder flattens dictionaries and large lists on its own, and a schema that announced
//! them would not be the one that it sends; sending dictionaries as they are would cost a dictionary message per batch
//! and shuts out clients that know none, so that a client has to ask for it. Names, nullability and metadata (`ARROW:extension:name` among it) stay.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, RecordBatch, RecordBatchOptions, RunArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowNativeType, DataType, Field, FieldRef, Int16Type, Int32Type, Int64Type, RunEndIndexType, Schema, SchemaRef,
};
use couatl_core::{Error, Result};
use couatl_datafusion::{Session, sliced_bytes};

/// How large a message becomes, where rows are small enough: large enough that what a message costs is little beside
/// its rows, and well below what clients take, which is 4 MiB where they were not told otherwise.
pub(crate) const TARGET_BYTES: usize = 2 * 1024 * 1024;

/// A schema as clients see it.
pub(crate) fn wire_schema(schema: &Schema) -> SchemaRef {
    schema_with(schema, Dictionaries::Flat)
}

/// What is sent of dictionaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dictionaries {
    /// Their values, which every client reads.
    Flat,
    /// Themselves.
    Kept,
}

impl Dictionaries {
    /// What the client of a session wants.
    pub(crate) fn of(session: &Session) -> Self {
        if session.wire_options().keep_dictionaries { Self::Kept } else { Self::Flat }
    }
}

/// A schema as a client sees it who has said what it wants of dictionaries.
pub(crate) fn schema_with(schema: &Schema, dictionaries: Dictionaries) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(|field| wire_field(field, dictionaries)).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn wire_field(field: &FieldRef, dictionaries: Dictionaries) -> FieldRef {
    let data_type = wire_type(field.data_type(), dictionaries);
    if let DataType::Union(fields, mode) = data_type {
        // The encoder announces unions so.
        let (ids, fields): (Vec<i8>, Vec<FieldRef>) = fields.iter().map(|(id, field)| (id, Arc::clone(field))).unzip();
        return Arc::new(Field::new_union(field.name(), ids, fields, mode));
    }
    if data_type == *field.data_type() {
        return Arc::clone(field);
    }
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone()))
}

fn wire_type(data_type: &DataType, dictionaries: Dictionaries) -> DataType {
    let wire_field = |field: &FieldRef| wire_field(field, dictionaries);
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) if dictionaries == Dictionaries::Flat => wire_type(values, dictionaries),
        DataType::Dictionary(keys, values) => {
            DataType::Dictionary(keys.clone(), Box::new(wire_type(values, dictionaries)))
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            DataType::List(wire_field(item))
        }
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(wire_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(wire_field(entries), *sorted),
        DataType::Union(fields, mode) => {
            DataType::Union(fields.iter().map(|(id, field)| (id, wire_field(field))).collect(), *mode)
        }
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type(), dictionaries),
        other => other.clone(),
    }
}

/// The rows of a batch under a schema that [`wire_schema`] made for it. Columns that need no change are not copied.
///
/// # Errors
/// Where a value does not fit its wire type: text of more than 2 GiB in one batch.
pub(crate) fn wire_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.num_columns() != schema.fields().len() {
        let (found, expected) = (batch.num_columns(), schema.fields().len());
        return Err(Error::internal(format!("a batch of {found} columns in a result of {expected} columns")));
    }
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| wire_column(column, field.data_type()))
        .collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn wire_column(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if column.data_type() == data_type {
        return Ok(Arc::clone(column));
    }
    // A cast that is "safe" writes NULL for what does not fit.
    Ok(cast_with_options(column, data_type, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// Cuts a batch into slices of about a size. A row is never cut.
///
/// The encoder can cut too, but measures whole buffers: slices of one large array, which is what DataFusion hands out,
/// would leave in a great many small messages.
pub(crate) fn pieces(batch: RecordBatch, target_bytes: usize) -> Vec<RecordBatch> {
    let mut done = Vec::new();
    let mut todo = vec![batch];
    while let Some(batch) = todo.pop() {
        let rows = batch.num_rows();
        if rows <= 1 || batch.columns().iter().map(sliced_bytes).sum::<usize>() <= target_bytes {
            done.push(batch);
        } else {
            todo.push(batch.slice(rows / 2, rows - rows / 2));
            todo.push(batch.slice(0, rows / 2));
        }
    }
    done
}

/// What each value takes in a plain array that took nothing on its way: a NULL without a type, a struct without columns.
const LEAST_BYTES: u64 = 8;

/// What each value of a union takes while it becomes one of a plain array.
const UNION_BYTES: u64 = 128;

/// The bytes that an array takes at least once it holds plain values alone: a dictionary, or a list of views, may stand
/// for any number of them.
pub(crate) fn flat_bytes(array: &dyn Array) -> u64 {
    let of_each = |bytes: u64| (array.len() as u64).saturating_mul(bytes);
    let many = |rows: usize, values: &dyn Array| {
        let each = flat_bytes(values) / values.len().max(1) as u64;
        (rows as u64).saturating_mul(each)
    };
    match array.data_type() {
        DataType::Dictionary(_, values) => {
            let dictionary = array.as_any_dictionary();
            let keys = || dictionary.normalized_keys().into_iter();
            match &**values {
                _ if dictionary.values().is_empty() => 0,
                // All keys may stand for the longest of them.
                DataType::Utf8 => lengths(keys(), dictionary.values().as_string::<i32>().value_offsets()),
                DataType::LargeUtf8 => lengths(keys(), dictionary.values().as_string::<i64>().value_offsets()),
                DataType::Binary => lengths(keys(), dictionary.values().as_binary::<i32>().value_offsets()),
                DataType::LargeBinary => lengths(keys(), dictionary.values().as_binary::<i64>().value_offsets()),
                _ => many(dictionary.len(), dictionary.values().as_ref()),
            }
        }
        DataType::ListView(_) => {
            let list = array.as_list_view::<i32>();
            many(list.sizes().iter().map(|size| usize::try_from(*size).unwrap_or(0)).sum(), list.values().as_ref())
        }
        DataType::LargeListView(_) => {
            let list = array.as_list_view::<i64>();
            many(list.sizes().iter().map(|size| usize::try_from(*size).unwrap_or(0)).sum(), list.values().as_ref())
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => repeated::<Int16Type>(array),
            DataType::Int32 => repeated::<Int32Type>(array),
            _ => repeated::<Int64Type>(array),
        },
        DataType::Union(_, _) => of_each(UNION_BYTES),
        DataType::Null | DataType::FixedSizeBinary(0) | DataType::FixedSizeList(_, 0) => of_each(LEAST_BYTES),
        DataType::Struct(fields) if fields.is_empty() => of_each(LEAST_BYTES),
        DataType::Struct(_) => {
            let columns = array.as_struct().columns().iter();
            columns.map(|column| flat_bytes(column.as_ref())).fold(0, u64::saturating_add)
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            within(list.value_offsets(), list.values())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            within(list.value_offsets(), list.values())
        }
        DataType::FixedSizeList(_, _) => flat_bytes(array.as_fixed_size_list().values().as_ref()),
        DataType::Map(_, _) => {
            let map = array.as_map();
            within(map.value_offsets(), map.entries())
        }
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()) as u64,
    }
}

/// What the values of lists with these offsets take.
fn within<O: OffsetSizeTrait>(offsets: &[O], values: &dyn Array) -> u64 {
    let [first, .., last] = offsets else { return 0 };
    flat_bytes(values.slice(first.as_usize(), (*last - *first).as_usize()).as_ref())
}

/// What the runs of values take, each of them written out.
fn repeated<R: RunEndIndexType>(array: &dyn Array) -> u64 {
    let Some(runs) = array.as_any().downcast_ref::<RunArray<R>>() else { return u64::MAX };
    let mut before = 0;
    let each = runs.run_ends().values().iter().enumerate().map(|(index, end)| {
        let end = end.as_usize();
        let count = end.saturating_sub(std::mem::replace(&mut before, end)) as u64;
        count.saturating_mul(flat_bytes(runs.values().slice(index, 1).as_ref()))
    });
    each.fold(0, u64::saturating_add)
}

fn lengths<O: OffsetSizeTrait>(keys: impl Iterator<Item = usize>, offsets: &[O]) -> u64 {
    keys.map(|key| (offsets[key + 1] - offsets[key]).as_usize() as u64).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::{
        DictionaryArray, FixedSizeListArray, Int32Array, Int64Array, LargeListArray, ListArray, MapBuilder, NullArray,
        StringArray, StringBuilder, StringViewArray, StructArray,
    };
    use arrow::datatypes::{Int8Type, Int32Type, Int64Type, UnionMode};
    use arrow_flight::encode::FlightDataEncoderBuilder;

    use super::*;

    fn extension(name: &str) -> HashMap<String, String> {
        HashMap::from([("ARROW:extension:name".to_owned(), name.to_owned())])
    }

    fn enumeration() -> DataType {
        DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8))
    }

    fn item(data_type: DataType) -> FieldRef {
        Arc::new(Field::new("item", data_type, true).with_metadata(extension("item")))
    }

    /// A schema with everything in it that does not go over the wire.
    fn motley() -> Schema {
        let entries = DataType::Struct(
            vec![Field::new("key", DataType::Utf8View, false), Field::new("value", enumeration(), true)].into(),
        );
        let union = Field::new_union(
            "union",
            [0, 1],
            [Field::new("a", DataType::Utf8View, true), Field::new("b", DataType::Int8, true)],
            UnionMode::Dense,
        );
        let ends = Arc::new(Field::new("run_ends", DataType::Int32, false));
        Schema::new_with_metadata(
            vec![
                Field::new("text", DataType::Utf8View, false).with_metadata(extension("arrow.json")),
                Field::new("bytes", DataType::BinaryView, true),
                Field::new("uuid", DataType::FixedSizeBinary(16), true).with_metadata(extension("arrow.uuid")),
                Field::new("enum", enumeration(), true).with_metadata(extension("couatl.enum")),
                Field::new("large", DataType::LargeList(item(DataType::LargeUtf8)), true)
                    .with_metadata(extension("large")),
                Field::new("view", DataType::ListView(item(enumeration())), true),
                Field::new("fixed", DataType::FixedSizeList(item(DataType::Utf8View), 2), true),
                Field::new("map", DataType::Map(Arc::new(Field::new("entries", entries, false)), false), true),
                Field::new("runs", DataType::RunEndEncoded(ends, item(enumeration())), true),
                Field::new("plain", DataType::Int64, false),
                union,
            ],
            extension("schema"),
        )
    }

    #[test]
    fn what_is_announced_is_what_the_encoder_sends() {
        let wire = wire_schema(&motley());
        let encoder = FlightDataEncoderBuilder::new().with_schema(Arc::clone(&wire)).build(futures::stream::empty());
        assert_eq!(encoder.known_schema(), Some(Arc::clone(&wire)));
        assert_eq!(wire_schema(&wire), wire);
    }

    #[test]
    fn names_nullability_and_metadata_stay() {
        let (motley, wire) = (motley(), wire_schema(&motley()));
        assert_eq!(wire.metadata(), motley.metadata());
        for (before, after) in motley.fields().iter().zip(wire.fields()) {
            assert_eq!(after.name(), before.name());
            assert_eq!(after.metadata(), before.metadata(), "{}", before.name());
            if !matches!(before.data_type(), DataType::Union(_, _)) {
                assert_eq!(after.is_nullable(), before.is_nullable(), "{}", before.name());
            }
        }
    }

    #[test]
    fn no_view_and_no_dictionary_is_left_at_any_depth() {
        let text = format!("{:?}", wire_schema(&motley()));
        assert!(text.contains("Utf8") && text.contains("LargeUtf8"), "{text}");
        for gone in ["View", "Dictionary(", "LargeList(", "RunEndEncoded"] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
    }

    #[test]
    fn rows_follow_their_schema() {
        let words: DictionaryArray<Int8Type> = ["on", "off", "on"].into_iter().collect();
        let large = LargeListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)]), None, Some([None])]);
        let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for _ in 0..3 {
            map.keys().append_value("k");
            map.values().append_value("v");
            map.append(true).unwrap();
        }
        let inner: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("c")]));
        let nested = StructArray::from(vec![(Arc::new(Field::new("s", DataType::Utf8View, true)), inner)]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("word", Arc::new(words)),
            ("large", Arc::new(large)),
            ("map", Arc::new(map.finish())),
            ("nested", Arc::new(nested)),
            ("plain", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
        let wire = wire_schema(&batch.schema());
        let sent = wire_batch(&batch, &wire).unwrap();
        assert_eq!(sent.schema(), wire);
        assert_eq!(sent.column(0).as_string::<i32>(), &StringArray::from(vec!["on", "off", "on"]));
        let expected = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)]), None, Some([None])]);
        assert_eq!(sent.column(1).as_list::<i32>(), &expected);
        let strings = StringArray::from(vec![Some("a"), None, Some("c")]);
        assert_eq!(sent.column(3).as_struct().column(0).as_string::<i32>(), &strings);
        assert_eq!(sent.column(4), batch.column(4));
    }

    #[test]
    fn a_batch_that_does_not_fit_its_schema_is_refused() {
        let batch = RecordBatch::try_from_iter([("a", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]).unwrap();
        let error = wire_batch(&batch, &Arc::new(Schema::empty())).unwrap_err();
        assert_eq!(error.to_string(), "a batch of 1 columns in a result of 0 columns");
    }

    fn joined(pieces: &[RecordBatch]) -> RecordBatch {
        arrow::compute::concat_batches(&pieces[0].schema(), pieces).unwrap()
    }

    #[test]
    fn pieces_are_small_and_keep_all_rows_in_order() {
        let numbers = Int64Array::from_iter_values(0..100_000);
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>((0..100_000).map(|n| Some([Some(n), None])));
        let columns: [(&str, ArrayRef); 2] = [("n", Arc::new(numbers)), ("l", Arc::new(lists))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let cut = pieces(batch.clone(), 100_000);
        assert!((20..64).contains(&cut.len()), "{}", cut.len());
        assert_eq!(joined(&cut), batch);
    }

    #[test]
    fn a_slice_of_a_large_array_is_measured_as_what_it_is() {
        let batch =
            RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..1_000_000)) as ArrayRef)])
                .unwrap();
        assert_eq!(pieces(batch.slice(500_000, 8192), TARGET_BYTES).len(), 1);
    }

    #[test]
    fn a_row_is_never_cut_and_no_rows_are_one_piece() {
        let wide = StringArray::from(vec!["x".repeat(1000), "y".repeat(1000), "z".repeat(1000)]);
        let batch = RecordBatch::try_from_iter([("s", Arc::new(wide) as ArrayRef)]).unwrap();
        assert_eq!(pieces(batch.clone(), 10).len(), 3);
        assert_eq!(pieces(batch.slice(0, 0), 10).len(), 1);
    }

    #[test]
    fn what_dictionaries_stand_for_is_counted() {
        let words = StringArray::from(vec![String::new(), "0123456789".repeat(10)]);
        let dictionary = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![1, 1, 0, 1]), Arc::new(words));
        assert_eq!(flat_bytes(&dictionary), 300);
        let nothing = DictionaryArray::<Int32Type>::new(
            Int32Array::from(vec![None]),
            Arc::new(StringArray::from(Vec::<&str>::new())),
        );
        assert_eq!(flat_bytes(&nothing), 0);
        let rows = StructArray::from(vec![(
            Arc::new(Field::new("d", dictionary.data_type().clone(), true)),
            Arc::new(dictionary) as ArrayRef,
        )]);
        assert_eq!(flat_bytes(&rows), 300);
    }

    #[test]
    fn what_takes_nothing_on_its_way_is_counted() {
        let many = 1 << 40;
        let nulls = NullArray::new(many);
        assert_eq!(flat_bytes(&nulls), LEAST_BYTES << 40);
        assert_eq!(flat_bytes(&StructArray::new_empty_fields(many, None)), LEAST_BYTES << 40);
        let nested = Arc::new(Field::new("item", DataType::Null, true));
        let list = FixedSizeListArray::new(nested, 1 << 30, Arc::new(NullArray::new(1 << 31)), None);
        assert_eq!(flat_bytes(&list), LEAST_BYTES << 31);
        let ends = Int32Array::from(vec![2, i32::MAX]);
        let runs = RunArray::try_new(&ends, &StringArray::from(vec!["", "0123456789"])).unwrap();
        assert!(flat_bytes(&runs) > 10 * (i32::MAX as u64 - 2));
    }
}
