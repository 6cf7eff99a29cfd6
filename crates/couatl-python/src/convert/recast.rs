//! Arrow batches to the columns of a stream: matched by name, untouched where the types are equal, else cast exactly or
//! refused.
//!
//! What is refused is a value, never a type: where an array of a type that has no exact conversion holds nothing but
//! nulls, or nothing at all, there is nothing to lose. So the cuts between batches decide nothing, and each refusal has
//! a row to name.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Int16Array, Int64Array, ListArray,
    MapArray, RecordBatch, RecordBatchOptions, StringArray, StructArray, UInt64Array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{self, kernels::cmp};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int16Type, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use couatl_core::{Error, Result, Subject, enum_codes, is_json, is_uuid};
use pyo3::prelude::*;

use super::rows::{Layout, null_error};
use super::unfit::{Place, Unfit};

/// Brings batches into the layout of a scan.
pub(crate) struct Recast<'a> {
    pub(crate) layout: &'a Layout,
}

impl Recast<'_> {
    /// The batch with the scan's columns. `rows_before` is how many rows the scan has had, for messages.
    pub(crate) fn batch(&self, py: Python<'_>, batch: &RecordBatch, rows_before: u64) -> Result<RecordBatch> {
        let Layout { subject, declared, projection, schema, .. } = self.layout;
        let found = batch.schema();
        let missing: Vec<_> = declared
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .filter(|name| found.index_of(name).is_err())
            .collect();
        let extra: Vec<_> = found
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .filter(|name| declared.index_of(name).is_err())
            .collect();
        if !missing.is_empty() || !extra.is_empty() {
            let list = |what: &str, names: &[&str]| {
                if names.is_empty() { String::new() } else { format!(", {what} {}", names.join(", ")) }
            };
            let expected: Vec<_> = declared.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(Error::type_mismatch(format!(
                "{subject}: expected an Arrow object with the columns {}{}{}",
                expected.join(", "),
                list("missing:", &missing),
                list("unknown:", &extra)
            )));
        }
        let mut arrays = Vec::with_capacity(projection.len());
        for (&position, field) in projection.iter().zip(schema.fields()) {
            let array = batch.column(found.index_of(declared.field(position).name())?);
            let array = recast(array, field).map_err(|unfit| unfit.into_error(py, subject, rows_before, "", field))?;
            if !field.is_nullable()
                && let Some(nulls) = array.logical_nulls()
                && let Some(row) = (0..array.len()).find(|row| nulls.is_null(*row))
            {
                return Err(null_error(subject, rows_before + row as u64 + 1, field));
            }
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
    }
}

/// Checks the JSON in a column that has its declared type: what comes from SQL is any text. `rows_before` is how many
/// rows came before, for messages.
pub(crate) fn check_json(
    py: Python<'_>,
    subject: &Subject,
    array: &ArrayRef,
    field: &Field,
    rows_before: u64,
) -> Result<()> {
    if !holds_json(field) {
        return Ok(());
    }
    let told = |unfit: Unfit| unfit.into_error(py, subject, rows_before, " of the INSERT", field);
    recast(array, field).map(drop).map_err(told)
}

fn holds_json(field: &Field) -> bool {
    is_json(field)
        || match field.data_type() {
            DataType::List(inner) | DataType::Map(inner, _) => holds_json(inner),
            DataType::Struct(fields) => fields.iter().any(|field| holds_json(field)),
            _ => false,
        }
}

type Recasted = std::result::Result<ArrayRef, Unfit>;

fn recast(array: &ArrayRef, field: &Field) -> Recasted {
    let (from, to) = (array.data_type(), field.data_type());
    if let Some(codes) = enum_codes(field) {
        return to_enum(array, &codes, to);
    }
    // Inside of a nested value there may be JSON to look at.
    if from == to && !to.is_nested() {
        if is_json(field) {
            check_texts(array)?;
        }
        return Ok(array.clone());
    }
    match (from, to) {
        (DataType::Null, _) => Ok(new_null_array(to, array.len())),
        // Encodings of the same values.
        (DataType::Dictionary(_, values), _) if !matches!(to, DataType::Dictionary(..)) => {
            recast(&cast(array, values)?, field)
        }
        (DataType::RunEndEncoded(_, values), _) => recast(&cast(array, values.data_type())?, field),
        (DataType::Utf8View | DataType::LargeUtf8, DataType::Utf8) => recast(&cast(array, &DataType::Utf8)?, field),
        (DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_), DataType::Binary) => {
            cast(array, to)
        }
        (_, DataType::Dictionary(_, values)) => {
            let plain = match from {
                DataType::Dictionary(_, values) => cast(array, values)?,
                _ => array.clone(),
            };
            let plain = recast(&plain, &Field::new(field.name(), (**values).clone(), true))?;
            cast(&plain, to)
        }
        (DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8, DataType::FixedSizeBinary(16))
            if is_uuid(field) =>
        {
            to_uuid(&cast(array, &DataType::Utf8)?)
        }
        (DataType::Binary | DataType::BinaryView | DataType::LargeBinary, DataType::FixedSizeBinary(16)) => {
            cast(&cast(array, &DataType::Binary)?, to)
                .map_err(|unfit| Unfit::because(array, unfit.row, "a UUID has 16 bytes"))
        }
        // Numbers: there and back must be the same. A float is rounded to a narrower one, as every float32 is.
        _ if (from.is_integer() && to.is_numeric())
            || (is_decimal(from) && is_decimal(to))
            || matches!((from, to), (DataType::Date64 | DataType::Date32, DataType::Date32)) =>
        {
            exact(array, cast(array, to)?)
        }
        _ if from.is_floating() && to.is_floating() => finite(array, cast(array, to)?),
        (DataType::Timestamp(unit, _), DataType::Timestamp(to_unit, zone)) => {
            let instants = rescale(array, &retype(array, &DataType::Int64)?, *unit, *to_unit)?;
            retype(&instants, &DataType::Timestamp(*to_unit, zone.clone()))
        }
        (DataType::Time32(unit) | DataType::Time64(unit), DataType::Time64(to_unit)) => {
            let wide =
                cast(array, &if matches!(from, DataType::Time32(_)) { DataType::Int32 } else { DataType::Int64 })?;
            let wide = cast(&wide, &DataType::Int64)?;
            retype(&rescale(array, &wide, *unit, *to_unit)?, to)
        }
        (DataType::Duration(_), DataType::Interval(_)) => cast(array, to),
        (DataType::List(_), DataType::List(item)) => {
            let (_, offsets, values, nulls) = shown(array)?.as_list::<i32>().clone().into_parts();
            let (offsets, values) = trimmed(&offsets, &values);
            let values = recast(&values, item).map_err(|unfit| {
                let row = owner(&offsets, unfit.row);
                let index = unfit.row - offsets[row] as usize;
                unfit.inside(row, Place::Index(index))
            })?;
            built(array, ListArray::try_new(item.clone(), offsets, values, nulls))
        }
        (
            DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) | DataType::ListView(inner),
            DataType::List(_),
        ) => recast(&cast(array, &DataType::List(inner.clone()))?, field),
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let DataType::Struct(fields) = entries.data_type() else { return refused(array, to) };
            let (_, offsets, pairs, nulls, _) = shown(array)?.as_map().clone().into_parts();
            let pairs: ArrayRef = Arc::new(pairs);
            let (offsets, pairs) = trimmed(&offsets, &pairs);
            let pairs = recast_pairs(pairs.as_struct(), fields).map_err(|(unfit, key)| {
                let row = owner(&offsets, unfit.row);
                match key {
                    Some(key) => unfit.inside(row, Place::Key(key)),
                    None => Unfit::because(array, row, "a key of a map cannot be None"),
                }
            })?;
            built(array, MapArray::try_new(entries.clone(), offsets, pairs, nulls, *sorted))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let records = array.as_struct();
            let found = records.columns().len();
            if found != fields.len() {
                let plural = if found == 1 { "" } else { "s" };
                return nothing_but_nulls(array, to, || {
                    format!("it has {found} member{plural}, and the type has {}", fields.len())
                });
            }
            let mut members = Vec::with_capacity(fields.len());
            for field in fields {
                let Some(member) = records.column_by_name(field.name()) else {
                    return nothing_but_nulls(array, to, || format!("it has no '{}'", field.name()));
                };
                let member = under(records.nulls(), member).map_err(|error| failed(array, &error))?;
                members.push(recast(&member, field).map_err(|unfit| {
                    let row = unfit.row;
                    unfit.inside(row, Place::Member(field.name().clone()))
                })?);
            }
            let nulls = records.nulls().cloned();
            built(array, StructArray::try_new_with_length(fields.clone(), members, nulls, records.len()))
        }
        _ => refused(array, to),
    }
}

/// The members of a map's entries. What does not fit comes with its key; without one where that is null.
fn recast_pairs(pairs: &StructArray, fields: &Fields) -> std::result::Result<StructArray, (Unfit, Option<ArrayRef>)> {
    let (keys, values) = (pairs.column(0), pairs.column(1));
    let at = |unfit: Unfit| {
        let key = keys.slice(unfit.row, 1);
        (unfit, Some(key))
    };
    if let Some(row) = keys.logical_nulls().and_then(|nulls| (0..keys.len()).find(|row| nulls.is_null(*row))) {
        return Err((Unfit::plain(keys, row), None));
    }
    let members = vec![recast(keys, &fields[0]).map_err(at)?, recast(values, &fields[1]).map_err(at)?];
    StructArray::try_new_with_length(fields.clone(), members, None, pairs.len())
        .map_err(|error| at(failed(keys, &error)))
}

/// Lists, or maps, without the items of those that are null: nobody sees these, and they need not fit.
fn shown(array: &ArrayRef) -> Recasted {
    let offsets = match array.data_type() {
        DataType::Map(..) => array.as_map().offsets(),
        _ => array.as_list::<i32>().offsets(),
    };
    match array.nulls() {
        Some(nulls) if (0..array.len()).any(|row| nulls.is_null(row) && offsets[row] != offsets[row + 1]) => {
            let rows = UInt64Array::new((0..array.len() as u64).collect(), Some(nulls.clone()));
            compute::take(array, &rows, None).map_err(|error| failed(array, &error))
        }
        _ => Ok(array.clone()),
    }
}

/// The items that the offsets reach, and the offsets from the first of them: an array may be a slice.
fn trimmed(offsets: &OffsetBuffer<i32>, values: &ArrayRef) -> (OffsetBuffer<i32>, ArrayRef) {
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    let values = values.slice(first as usize, (last - first) as usize);
    if first == 0 {
        return (offsets.clone(), values);
    }
    (OffsetBuffer::new(offsets.iter().map(|offset| offset - first).collect()), values)
}

/// The row whose items this one is among.
fn owner(offsets: &OffsetBuffer<i32>, item: usize) -> usize {
    offsets.partition_point(|offset| *offset as usize <= item) - 1
}

/// A member of records, null where the record is.
pub(crate) fn under(nulls: Option<&NullBuffer>, member: &ArrayRef) -> std::result::Result<ArrayRef, ArrowError> {
    match nulls {
        Some(nulls) if nulls.null_count() > 0 => compute::nullif(member, &BooleanArray::new(!nulls.inner(), None)),
        _ => Ok(member.clone()),
    }
}

fn refused(array: &ArrayRef, to: &DataType) -> Recasted {
    nothing_but_nulls(array, to, || {
        format!(
            "no exact conversion from Arrow {}; cast it before it is yielded, or declare the column with that type",
            array.data_type()
        )
    })
}

/// Nulls of the type, where there are no values to lose.
fn nothing_but_nulls(array: &ArrayRef, to: &DataType, reason: impl FnOnce() -> String) -> Recasted {
    let nulls = array.logical_nulls();
    match (0..array.len()).find(|row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row))) {
        Some(row) => Err(Unfit::because(array, row, reason())),
        None => Ok(new_null_array(to, array.len())),
    }
}

fn built<A: Array + 'static>(array: &ArrayRef, made: std::result::Result<A, ArrowError>) -> Recasted {
    made.map(|made| Arc::new(made) as ArrayRef).map_err(|error| failed(array, &error))
}

/// What arrow says of a whole array, which has a row: an empty one fails nowhere.
fn failed(array: &dyn Array, error: &ArrowError) -> Unfit {
    Unfit::because(array, 0, error.to_string())
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

/// The values under another type; one that has no place there does not fit.
fn cast(array: &ArrayRef, to: &DataType) -> Recasted {
    // Arrow gives a null for what it cannot cast, which tells the row; its error would not.
    let Ok(out) = compute::cast(array, to) else { return refused(array, to) };
    match (array.logical_nulls(), out.logical_nulls()) {
        (_, None) => Ok(out),
        (before, Some(after)) => {
            let lost = |row: &usize| after.is_null(*row) && before.as_ref().is_none_or(|nulls| nulls.is_valid(*row));
            (0..array.len()).find(lost).map_or(Ok(out), |row| Err(Unfit::plain(array, row)))
        }
    }
}

/// The same eight bytes a value, under another type.
fn retype(array: &ArrayRef, to: &DataType) -> Recasted {
    let data = array.to_data().into_builder().data_type(to.clone()).build();
    data.map(arrow::array::make_array).map_err(|error| failed(array, &error))
}

/// What was cast, where casting it back gives what it was.
fn exact(array: &ArrayRef, out: ArrayRef) -> Recasted {
    let back = compute::cast(&out, array.data_type()).map_err(|error| failed(array, &error))?;
    let differs = cmp::distinct(array, &back).map_err(|error| failed(array, &error))?;
    match (0..differs.len()).find(|row| differs.value(*row)) {
        None => Ok(out),
        Some(row) => Err(Unfit::because(array, row, "the column's type has no value that is exactly this")),
    }
}

/// What was cast to floats, where none of them has become infinite.
fn finite(array: &ArrayRef, out: ArrayRef) -> Recasted {
    let (before, after) = (cast(array, &DataType::Float64)?, cast(&out, &DataType::Float64)?);
    let (before, after) = (before.as_primitive::<Float64Type>(), after.as_primitive::<Float64Type>());
    let overflow =
        |row: &usize| after.is_valid(*row) && after.value(*row).is_infinite() && before.value(*row).is_finite();
    (0..array.len()).find(overflow).map_or(Ok(out), |row| Err(Unfit::plain(array, row)))
}

/// Units since the epoch, of the times in `array`, into other units: finer ones are floored.
fn rescale(array: &ArrayRef, units: &ArrayRef, from: TimeUnit, to: TimeUnit) -> Recasted {
    let per_second = |unit| match unit {
        TimeUnit::Second => 1i64,
        TimeUnit::Millisecond => 1000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let (from, to) = (per_second(from), per_second(to));
    let units = units.as_primitive::<Int64Type>();
    if from >= to {
        return Ok(Arc::new(units.unary::<_, Int64Type>(|value| value.div_euclid(from / to))));
    }
    let out: Int64Array = units.unary_opt(|value| value.checked_mul(to / from));
    match (0..out.len()).find(|row| out.is_null(*row) && units.is_valid(*row)) {
        None => Ok(Arc::new(out)),
        Some(row) => Err(Unfit::because(array, row, "it is out of the column's range; use a lower precision")),
    }
}

fn to_uuid(array: &ArrayRef) -> Recasted {
    let texts = array.as_string::<i32>();
    let mut values = Vec::with_capacity(texts.len());
    for (row, text) in texts.iter().enumerate() {
        let parsed = text.map(uuid::Uuid::parse_str).transpose();
        let parsed = parsed.map_err(|_| Unfit::because(array, row, "it is not the text of a UUID"))?;
        values.push(parsed.map(uuid::Uuid::into_bytes));
    }
    built(array, FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16))
}

fn to_enum(array: &ArrayRef, codes: &[(String, i16)], to: &DataType) -> Recasted {
    let values = match array.data_type() {
        DataType::Dictionary(_, values) => values,
        other => other,
    };
    if !matches!(values, DataType::Null | DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8) {
        return refused(array, to);
    }
    let plain = cast(array, &DataType::Utf8)?;
    let mut keys = Vec::with_capacity(plain.len());
    for (row, text) in plain.as_string::<i32>().iter().enumerate() {
        let position = |text| codes.iter().position(|(name, _)| name == text).map(|position| position as i16);
        match text.map(position) {
            Some(None) => return Err(Unfit::because(&plain, row, "it is not one of the names that the type lists")),
            Some(found) => keys.push(found),
            None => keys.push(None),
        }
    }
    let names = StringArray::from_iter_values(codes.iter().map(|(name, _)| name));
    let wide = built(array, DictionaryArray::<Int16Type>::try_new(Int16Array::from(keys), Arc::new(names)))?;
    cast(&wide, to)
}

fn check_texts(array: &ArrayRef) -> std::result::Result<(), Unfit> {
    for (row, text) in array.as_string::<i32>().iter().enumerate() {
        if let Some(Err(error)) = text.map(serde_json::from_str::<serde::de::IgnoredAny>) {
            return Err(Unfit::because(array, row, format!("it is not valid JSON ({error})")));
        }
    }
    Ok(())
}
