//! Arrow batches to the columns of a stream: matched by name, untouched where the types are equal, else cast exactly or
//! refused.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int64Array, ListArray, MapArray, RecordBatch, RecordBatchOptions,
    StringArray, StructArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, kernels::cmp};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use couatl_core::{Error, Result, enum_codes, is_json, is_uuid, type_spelling};

use super::rows::{Layout, null_error};

/// Brings batches into the layout of a scan.
pub(crate) struct Recast<'a> {
    pub(crate) layout: &'a Layout,
}

impl Recast<'_> {
    /// The batch with the scan's columns. `rows_before` is how many rows the scan has had, for messages.
    pub(crate) fn batch(&self, batch: &RecordBatch, rows_before: u64) -> Result<RecordBatch> {
        let Layout { stream, declared, projection, schema, .. } = self.layout;
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
                "stream '{stream}': expected an Arrow object with the columns {}{}{}",
                expected.join(", "),
                list("missing:", &missing),
                list("unknown:", &extra)
            )));
        }
        let mut arrays = Vec::with_capacity(projection.len());
        for (&position, field) in projection.iter().zip(schema.fields()) {
            let array = batch.column(found.index_of(declared.field(position).name())?);
            let array = recast(array, field).map_err(|reason| {
                Error::type_mismatch(format!(
                    "stream '{stream}', column '{}' ({}): cannot store Arrow {}: {reason}",
                    field.name(),
                    type_spelling(field),
                    array.data_type()
                ))
            })?;
            if !field.is_nullable()
                && let Some(nulls) = array.logical_nulls()
                && let Some(row) = (0..array.len()).find(|row| nulls.is_null(*row))
            {
                return Err(null_error(stream, rows_before + row as u64 + 1, field));
            }
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
    }
}

type Recasted = std::result::Result<ArrayRef, String>;

fn recast(array: &ArrayRef, field: &Field) -> Recasted {
    let (from, to) = (array.data_type(), field.data_type());
    if let Some(codes) = enum_codes(field) {
        return to_enum(array, &codes, to);
    }
    if from == to {
        if is_json(field) {
            check_json(array.as_string::<i32>())?;
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
        }
        // Numbers: there and back must be the same.
        _ if (from.is_integer() && to.is_numeric())
            || (from.is_floating() && to.is_floating())
            || (is_decimal(from) && is_decimal(to)) =>
        {
            let out = cast(array, to)?;
            // A float is rounded to a narrower one, as every float32 is.
            if !from.is_floating() {
                same(array, &cast(&out, from)?)?;
            }
            Ok(out)
        }
        (DataType::Date64 | DataType::Date32, DataType::Date32) => {
            let out = cast(array, to)?;
            same(array, &cast(&out, from)?)?;
            Ok(out)
        }
        (DataType::Timestamp(unit, _), DataType::Timestamp(to_unit, zone)) => {
            let instants = rescale(&retype(array, &DataType::Int64)?, *unit, *to_unit)?;
            retype(&instants, &DataType::Timestamp(*to_unit, zone.clone()))
        }
        (DataType::Time32(unit) | DataType::Time64(unit), DataType::Time64(to_unit)) => {
            let wide =
                cast(array, &if matches!(from, DataType::Time32(_)) { DataType::Int32 } else { DataType::Int64 })?;
            let wide = cast(&wide, &DataType::Int64)?;
            retype(&rescale(&wide, *unit, *to_unit)?, to)
        }
        (DataType::Duration(_), DataType::Interval(_)) => cast(array, to),
        (
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::ListView(_),
            DataType::List(item),
        ) => {
            let inner = match from {
                DataType::List(from)
                | DataType::LargeList(from)
                | DataType::FixedSizeList(from, _)
                | DataType::ListView(from) => from,
                _ => return Err(refused()),
            };
            let list = cast(array, &DataType::List(inner.clone()))?;
            let (_, offsets, values, nulls) = list.as_list::<i32>().clone().into_parts();
            let values = recast(&values, item)?;
            Ok(Arc::new(ListArray::try_new(item.clone(), offsets, values, nulls).map_err(|error| error.to_string())?))
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let (_, offsets, pairs, nulls, _) = array.as_map().clone().into_parts();
            let DataType::Struct(fields) = entries.data_type() else { return Err(refused()) };
            let members = (pairs.columns().iter().zip(fields))
                .map(|(member, field)| recast(member, field))
                .collect::<std::result::Result<Vec<_>, _>>()?;
            let pairs = StructArray::try_new(fields.clone(), members, None).map_err(|error| error.to_string())?;
            let map = MapArray::try_new(entries.clone(), offsets, pairs, nulls, *sorted);
            Ok(Arc::new(map.map_err(|error| error.to_string())?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let records = array.as_struct();
            if records.columns().len() != fields.len() {
                return Err(refused());
            }
            let members = fields
                .iter()
                .map(|field| {
                    let member = records.column_by_name(field.name());
                    recast(member.ok_or_else(|| format!("it has no member '{}'", field.name()))?, field)
                })
                .collect::<std::result::Result<Vec<_>, _>>()?;
            let out =
                StructArray::try_new_with_length(fields.clone(), members, records.nulls().cloned(), records.len());
            Ok(Arc::new(out.map_err(|error| error.to_string())?))
        }
        _ => Err(refused()),
    }
}

fn refused() -> String {
    "no exact conversion; cast it before it is yielded, or declare the column with that type".into()
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

fn cast(array: &ArrayRef, to: &DataType) -> Recasted {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options).map_err(|error| error.to_string())
}

/// The same eight bytes a value, under another type.
fn retype(array: &ArrayRef, to: &DataType) -> Recasted {
    let data = array.to_data().into_builder().data_type(to.clone()).build();
    data.map(arrow::array::make_array).map_err(|error| error.to_string())
}

fn same(before: &ArrayRef, after: &ArrayRef) -> std::result::Result<(), String> {
    let differs = cmp::distinct(before, after).map_err(|error| error.to_string())?;
    match (0..differs.len()).find(|row| differs.value(*row)) {
        None => Ok(()),
        Some(row) => {
            let value = arrow::util::display::array_value_to_string(before, row).unwrap_or_default();
            Err(format!("its value {value} has no exact equal there"))
        }
    }
}

/// Units since the epoch into other units: finer ones are floored.
fn rescale(array: &ArrayRef, from: TimeUnit, to: TimeUnit) -> Recasted {
    let per_second = |unit| match unit {
        TimeUnit::Second => 1i64,
        TimeUnit::Millisecond => 1000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let (from, to) = (per_second(from), per_second(to));
    let values = array.as_primitive::<Int64Type>();
    let out: std::result::Result<Int64Array, String> = if from >= to {
        Ok(values.unary(|value| value.div_euclid(from / to)))
    } else {
        let scaled = |value: i64| {
            value
                .checked_mul(to / from)
                .ok_or_else(|| arrow::error::ArrowError::CastError("a time is out of range".into()))
        };
        values.try_unary(scaled).map_err(|error| error.to_string())
    };
    Ok(Arc::new(out?))
}

fn to_uuid(array: &ArrayRef) -> Recasted {
    let values = array.as_string::<i32>().iter().map(|text| {
        let parsed = text.map(uuid::Uuid::parse_str).transpose();
        parsed
            .map(|uuid| uuid.map(uuid::Uuid::into_bytes))
            .map_err(|_| format!("'{}' is not the text of a UUID", text.unwrap_or_default()))
    });
    let values = values.collect::<std::result::Result<Vec<_>, _>>()?;
    let out = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16);
    Ok(Arc::new(out.map_err(|error| error.to_string())?))
}

fn to_enum(array: &ArrayRef, codes: &[(String, i16)], to: &DataType) -> Recasted {
    let plain = cast(array, &DataType::Utf8).map_err(|_| refused())?;
    if !matches!(
        array.data_type(),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Dictionary(..)
    ) {
        return Err(refused());
    }
    let names = StringArray::from_iter_values(codes.iter().map(|(name, _)| name));
    let position = |text: &str| {
        let found = codes.iter().position(|(name, _)| name == text);
        found
            .map(|position| position as i16)
            .ok_or_else(|| format!("'{text}' is not one of the names that the type lists"))
    };
    let keys = plain.as_string::<i32>().iter().map(|text| text.map(position).transpose());
    let keys = keys.collect::<std::result::Result<arrow::array::Int16Array, _>>()?;
    let wide = arrow::array::DictionaryArray::<arrow::datatypes::Int16Type>::try_new(keys, Arc::new(names));
    let wide: ArrayRef = Arc::new(wide.map_err(|error| error.to_string())?);
    cast(&wide, to)
}

fn check_json(texts: &StringArray) -> std::result::Result<(), String> {
    for text in texts.iter().flatten() {
        serde_json::from_str::<serde::de::IgnoredAny>(text)
            .map_err(|error| format!("it is not valid JSON ({error})"))?;
    }
    Ok(())
}
