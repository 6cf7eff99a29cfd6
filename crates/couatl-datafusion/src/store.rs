//! What an INSERT gives, as what a column holds.
//!
//! SQL's values go into a column where they mean the same there: text becomes a date, a uuid or a number if it is the
//! text of one, a number goes into a wider or narrower type if it fits, decimals and times are brought to the column's
//! precision. What does not fit is told with the row that it stands in. (What Python yields is under stricter rules:
//! there an author has the type in hand.)

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, ListArray, MapArray, RecordBatch, StringArray, StructArray,
    new_null_array,
};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, kernels::cmp};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float32Type, Float64Type, Schema};
use couatl_core::{Error, Result, enum_codes, is_uuid, type_spelling, value_text};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use crate::into_datafusion;

/// A value that a column cannot hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// Its row in the array, from 0.
    pub(crate) row: usize,
    /// The value as SQL prints it; why it does not fit, where there is more to say.
    pub(crate) reason: String,
}

impl Misfit {
    /// The error of an INSERT that has had so many rows before those of the array.
    pub(crate) fn into_error(self, target: &str, rows_before: usize, field: &Field) -> Error {
        let (row, column, data_type) = (rows_before + self.row + 1, field.name(), type_spelling(field));
        Error::invalid_argument(format!(
            "{target}, row {row} of the INSERT, column '{column}' ({data_type}): cannot store {}",
            self.reason
        ))
    }
}

/// Refuses a type of which a column of the target holds no value.
pub(crate) fn storable(target: &str, from: &DataType, column: &Field) -> Result<()> {
    if can_store(from, column) {
        return Ok(());
    }
    let (name, to) = (column.name(), type_spelling(column));
    let from = type_spelling(&Field::new(name, from.clone(), true));
    Err(Error::invalid_argument(format!("{target}, column '{name}' ({to}): cannot store a value of {from}")))
}

/// Rows with the types of the columns that they go to, which an INSERT into a table would round to. A column that goes
/// nowhere stays as it is.
pub(crate) fn exactly(
    rows: SendableRecordBatchStream,
    target: String,
    columns: Vec<Option<FieldRef>>,
) -> Result<SendableRecordBatchStream> {
    let stored = |(field, column): (&FieldRef, &Option<FieldRef>)| {
        let Some(to) = column else { return Ok(field.as_ref().clone()) };
        storable(&target, field.data_type(), to)?;
        Ok(field.as_ref().clone().with_data_type(to.data_type().clone()).with_nullable(true))
    };
    let fields = rows.schema().fields().iter().zip(&columns).map(stored).collect::<Result<Vec<_>>>()?;
    let schema = Arc::new(Schema::new(fields));
    let into = Arc::clone(&schema);
    let mut before = 0;
    let rows = rows.map(move |batch| {
        let batch = batch?;
        let stored = batch.columns().iter().zip(&columns).map(|(column, field)| match field {
            Some(field) => {
                store(column, field).map_err(|misfit| into_datafusion(misfit.into_error(&target, before, field)))
            }
            None => Ok(Arc::clone(column)),
        });
        let stored = RecordBatch::try_new(Arc::clone(&into), stored.collect::<datafusion::error::Result<_>>()?)?;
        before += batch.num_rows();
        Ok(stored)
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
}

/// Whether there are values of the first type that the field can hold.
pub(crate) fn can_store(from: &DataType, field: &Field) -> bool {
    match (from, field.data_type()) {
        (DataType::Null, _) => true,
        (from, to) if from == to => true,
        (from, _) if is_uuid(field) => {
            is_text(from) || matches!(from, DataType::Binary | DataType::FixedSizeBinary(16))
        }
        (from, _) if enum_codes(field).is_some() => is_text(from),
        (from, DataType::List(to)) => item(from).is_some_and(|from| can_store(from.data_type(), to)),
        (DataType::Map(from, _), DataType::Map(to, _)) => can_store(from.data_type(), to),
        (DataType::Struct(from), DataType::Struct(to)) => members(from, to).is_some_and(|positions| {
            positions.iter().zip(to).all(|(position, to)| can_store(from[*position].data_type(), to))
        }),
        // What has no meaning there: 2 is not true, and 5 no day.
        (from, to) if is_kind_of_its_own(from) != is_kind_of_its_own(to) && (from.is_numeric() || to.is_numeric()) => {
            false
        }
        (from, to) => !from.is_nested() && !to.is_nested() && can_cast_types(from, to),
    }
}

fn is_kind_of_its_own(data_type: &DataType) -> bool {
    data_type.is_temporal() || *data_type == DataType::Boolean
}

/// The values as the field's type.
pub(crate) fn store(array: &ArrayRef, field: &Field) -> Result<ArrayRef, Misfit> {
    let (from, to) = (array.data_type(), field.data_type());
    if from.is_null() {
        return Ok(new_null_array(to, array.len()));
    }
    if is_uuid(field) {
        return uuids(array, to);
    }
    if let Some(codes) = enum_codes(field) {
        let names = plain_text(array)?;
        first(&names, |name| codes.iter().all(|(listed, _)| listed != name), "the type does not list it")?;
        return cast(&(Arc::new(names) as ArrayRef), to);
    }
    match to {
        _ if from == to && !to.is_nested() => Ok(array.clone()),
        DataType::List(item) => store_list(array, item),
        DataType::Map(entries, _) => store_map(array, entries, to),
        DataType::Struct(fields) => store_struct(array, fields),
        // There and back must be the same; a float is rounded to a narrower one, as each of them is.
        _ if (from.is_numeric() && to.is_integer()) || (from.is_integer() && to.is_floating()) => {
            let out = cast(array, to)?;
            let back = cast(&out, from)?;
            same(array, &back, if to.is_integer() { "it is no whole number" } else { "no float is exactly that" })?;
            Ok(out)
        }
        DataType::Float32 if *from == DataType::Float64 => {
            let out = cast(array, to)?;
            let (before, after) = (array.as_primitive::<Float64Type>(), out.as_primitive::<Float32Type>());
            let overflows =
                |row: &usize| after.is_valid(*row) && after.value(*row).is_infinite() && before.value(*row).is_finite();
            match (0..out.len()).find(overflows) {
                None => Ok(out),
                Some(row) => Err(misfit(array, row, "")),
            }
        }
        // A time without a zone is UTC, as it is where Python yields one.
        DataType::Timestamp(unit, Some(_)) if is_text(from) || matches!(from, DataType::Timestamp(_, None)) => {
            cast(&cast(array, &DataType::Timestamp(*unit, Some("+00:00".into())))?, to)
        }
        _ => cast(array, to),
    }
}

/// The cast, in which a value that has no equal is an error rather than NULL.
fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Misfit> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let out = cast_with_options(array, to, &options).map_err(|error| internal(&error))?;
    if out.logical_null_count() == array.logical_null_count() {
        return Ok(out);
    }
    let (before, after) = (array.logical_nulls(), out.logical_nulls());
    let lost = |row: &usize| {
        let null = |nulls: &Option<arrow::buffer::NullBuffer>| nulls.as_ref().is_some_and(|nulls| nulls.is_null(*row));
        null(&after) && !null(&before)
    };
    match (0..array.len()).find(lost) {
        None => Ok(out),
        Some(row) => Err(misfit(array, row, "")),
    }
}

fn same(before: &ArrayRef, after: &ArrayRef, otherwise: &str) -> Result<(), Misfit> {
    let differs = cmp::distinct(before, after).map_err(|error| internal(&error))?;
    match (0..differs.len()).find(|row| differs.value(*row)) {
        None => Ok(()),
        Some(row) => Err(misfit(before, row, otherwise)),
    }
}

fn uuids(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Misfit> {
    if !is_text(array.data_type()) {
        return cast(array, to);
    }
    let texts = plain_text(array)?;
    let parse = |text: &str| uuid::Uuid::parse_str(text).ok();
    first(&texts, |text| parse(text).is_none(), "it is not the text of a UUID")?;
    let values = texts.iter().map(|text| text.and_then(parse).map(uuid::Uuid::into_bytes));
    let out = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, 16).map_err(|error| internal(&error))?;
    Ok(Arc::new(out))
}

fn store_list(array: &ArrayRef, to: &Arc<Field>) -> Result<ArrayRef, Misfit> {
    let item = item(array.data_type()).ok_or_else(|| misfit(array, 0, "it is no list"))?;
    let list = cast(array, &DataType::List(item.clone()))?;
    let (_, offsets, values, nulls) = list.as_list::<i32>().clone().into_parts();
    let inside = |misfit: Misfit| Misfit { row: row_of(&offsets, misfit.row), ..misfit };
    let values = store(&values, to).and_then(|values| not_null(values, to)).map_err(inside)?;
    Ok(Arc::new(ListArray::try_new(to.clone(), offsets.clone(), values, nulls).map_err(|error| internal(&error))?))
}

fn store_map(array: &ArrayRef, entries: &Arc<Field>, to: &DataType) -> Result<ArrayRef, Misfit> {
    let (Some(map), DataType::Map(_, sorted)) = (array.as_map_opt(), to) else {
        return Err(misfit(array, 0, "it is no map"));
    };
    let (_, offsets, pairs, nulls, _) = map.clone().into_parts();
    let inside = |misfit: Misfit| Misfit { row: row_of(&offsets, misfit.row), ..misfit };
    let pairs = store(&(Arc::new(pairs) as ArrayRef), entries).map_err(inside)?;
    let map = MapArray::try_new(entries.clone(), offsets.clone(), pairs.as_struct().clone(), nulls, *sorted);
    Ok(Arc::new(map.map_err(|error| internal(&error))?))
}

fn store_struct(array: &ArrayRef, fields: &Fields) -> Result<ArrayRef, Misfit> {
    let DataType::Struct(from) = array.data_type() else { return Err(misfit(array, 0, "it is no struct")) };
    let positions = members(from, fields).ok_or_else(|| misfit(array, 0, "its members are others"))?;
    let records = array.as_struct();
    let columns = (positions.iter().zip(fields))
        .map(|(position, field)| store(records.column(*position), field))
        .collect::<Result<Vec<_>, _>>()?;
    let out = StructArray::try_new_with_length(fields.clone(), columns, records.nulls().cloned(), records.len());
    Ok(Arc::new(out.map_err(|error| internal(&error))?))
}

/// The array, which has a value in each row where the field is NOT NULL.
pub(crate) fn not_null(array: ArrayRef, field: &Field) -> Result<ArrayRef, Misfit> {
    match array.logical_nulls() {
        Some(nulls) if !field.is_nullable() => match (0..array.len()).find(|row| nulls.is_null(*row)) {
            Some(row) => Err(Misfit { row, reason: "NULL: the column is NOT NULL".into() }),
            None => Ok(array),
        },
        _ => Ok(array),
    }
}

/// Where each member of a struct comes from: by name where all the names are there, else by position, which is what
/// unnamed ones have (`struct(1, 'x')`).
fn members(from: &Fields, to: &Fields) -> Option<Vec<usize>> {
    if from.len() != to.len() {
        return None;
    }
    let by_name: Option<Vec<_>> =
        to.iter().map(|field| from.find(field.name()).map(|(position, _)| position)).collect();
    let named = |fields: &Fields, name: fn(usize) -> String| {
        fields.iter().enumerate().all(|(position, field)| *field.name() == name(position))
    };
    let unnamed = named(from, |position| format!("c{position}")) || named(to, |position| (position + 1).to_string());
    by_name.or_else(|| unnamed.then(|| (0..to.len()).collect()))
}

fn item(list: &DataType) -> Option<&Arc<Field>> {
    match list {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => Some(item),
        _ => None,
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}

fn plain_text(array: &ArrayRef) -> Result<StringArray, Misfit> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// Refuses the first text that is wrong.
fn first(texts: &StringArray, wrong: impl Fn(&str) -> bool, reason: &str) -> Result<(), Misfit> {
    match texts.iter().enumerate().find_map(|(row, text)| Some((row, text.filter(|text| wrong(text))?))) {
        None => Ok(()),
        Some((row, text)) => Err(Misfit { row, reason: format!("'{}': {reason}", shortened(text)) }),
    }
}

fn misfit(array: &ArrayRef, row: usize, reason: &str) -> Misfit {
    let value = value_text(array, row);
    let quote = if is_text(array.data_type()) { "'" } else { "" };
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let spelling = type_spelling(&Field::new("", array.data_type().clone(), true));
    Misfit { row, reason: format!("{quote}{}{quote} ({spelling}){reason}", shortened(&value)) }
}

fn internal(error: &arrow::error::ArrowError) -> Misfit {
    Misfit { row: 0, reason: error.to_string() }
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The row of a list whose values hold the position.
fn row_of(offsets: &[i32], position: usize) -> usize {
    offsets.partition_point(|offset| *offset as usize <= position).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(spelling: &str) -> Field {
        couatl_sql::parse_columns(&format!("c {spelling}")).unwrap().field(0).clone()
    }

    fn misfit_of(array: ArrayRef, spelling: &str) -> (usize, String) {
        let misfit = store(&array, &field(spelling)).unwrap_err();
        (misfit.row, misfit.reason)
    }

    #[test]
    fn a_misfit_names_its_row_and_value() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("1"), None, Some("abc")]));
        assert_eq!(misfit_of(texts.clone(), "int32"), (2, "'abc' (string)".into()));
        assert_eq!(misfit_of(texts.clone(), "uuid"), (0, "'1': it is not the text of a UUID".into()));
        assert_eq!(misfit_of(texts, "enum8('1' = 1)"), (2, "'abc': the type does not list it".into()));
        let floats: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![1.0, 1.5]));
        assert_eq!(misfit_of(floats.clone(), "int8"), (1, "1.5 (float64): it is no whole number".into()));
        let big: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![1.0, 1e300]));
        assert_eq!(misfit_of(big, "int8"), (1, "1e300 (float64)".into()));
    }

    #[test]
    fn a_misfit_inside_a_list_is_of_the_rows_list() {
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([2, 0, 1]);
        let values: ArrayRef = Arc::new(StringArray::from(vec!["1", "2", "x"]));
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        let lists: ArrayRef = Arc::new(ListArray::new(item, offsets, values, None));
        assert_eq!(misfit_of(lists, "array(int32)"), (2, "'x' (string)".into()));
    }
}
