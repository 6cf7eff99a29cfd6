//! A column under construction: what it does with each value is decided when it is made.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::NullBufferBuilder;
use arrow::array::{
    Array, ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, DictionaryArray, FixedSizeBinaryBuilder, Int8Array,
    Int16Array, ListArray, MapArray, PrimitiveBuilder, StringArray, StringBuilder, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, Field, FieldRef, Fields, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::bit_util::get_bit;
use couatl_core::{Error, Result, enum_codes, is_json, is_uuid, type_spelling};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::dict::Members;
use super::misfit::{Appended, Misfit, place_of};
use super::scalar::{boolean, bytes, decimal, float32, float64, int64, json, narrow, type_name, uint64, utf8, uuid};
use super::time;

/// One column's builder, of the kind that its type needs.
pub(super) enum Column {
    Bool(BooleanBuilder),
    Int8(PrimitiveBuilder<Int8Type>),
    Int16(PrimitiveBuilder<Int16Type>),
    Int32(PrimitiveBuilder<Int32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    UInt8(PrimitiveBuilder<UInt8Type>),
    UInt16(PrimitiveBuilder<UInt16Type>),
    UInt32(PrimitiveBuilder<UInt32Type>),
    UInt64(PrimitiveBuilder<UInt64Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Decimal128(PrimitiveBuilder<Decimal128Type>, u8, i8),
    Decimal256(PrimitiveBuilder<Decimal256Type>, u8, i8),
    Text(StringBuilder),
    Json(StringBuilder),
    Binary(BinaryBuilder),
    Uuid(FixedSizeBinaryBuilder),
    Date(PrimitiveBuilder<Date32Type>),
    Time(PrimitiveBuilder<Time64MicrosecondType>),
    Interval(PrimitiveBuilder<IntervalMonthDayNanoType>),
    Seconds(PrimitiveBuilder<TimestampSecondType>),
    Millis(PrimitiveBuilder<TimestampMillisecondType>),
    Micros(PrimitiveBuilder<TimestampMicrosecondType>),
    Nanos(PrimitiveBuilder<TimestampNanosecondType>),
    Enum(EnumColumn),
    /// Written as its values' type, encoded when finished.
    Dictionary(Box<Column>, DataType),
    List(ListColumn),
    Map(MapColumn),
    Struct(StructColumn),
}

/// Codes are positions in the declared names, which every batch shares.
pub(super) struct EnumColumn {
    codes: Arc<EnumCodes>,
    keys: PrimitiveBuilder<Int16Type>,
    small: bool,
}

struct EnumCodes {
    names: ArrayRef,
    positions: HashMap<String, i16>,
}

pub(super) struct ListColumn {
    item: FieldRef,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    values: Box<Column>,
}

pub(super) struct MapColumn {
    entries: FieldRef,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    keys: Box<Column>,
    values: Box<Column>,
}

pub(super) struct StructColumn {
    fields: Fields,
    nulls: NullBufferBuilder,
    members: Vec<Column>,
}

impl Column {
    /// The builder for a field.
    ///
    /// # Errors
    /// `unsupported` where the field's type is none of the language's.
    pub(super) fn new(field: &Field) -> Result<Self> {
        fn primitive<T: ArrowPrimitiveType>(field: &Field) -> PrimitiveBuilder<T> {
            PrimitiveBuilder::new().with_data_type(field.data_type().clone())
        }
        Ok(match field.data_type() {
            DataType::Boolean => Column::Bool(BooleanBuilder::new()),
            DataType::Int8 => Column::Int8(primitive(field)),
            DataType::Int16 => Column::Int16(primitive(field)),
            DataType::Int32 => Column::Int32(primitive(field)),
            DataType::Int64 => Column::Int64(primitive(field)),
            DataType::UInt8 => Column::UInt8(primitive(field)),
            DataType::UInt16 => Column::UInt16(primitive(field)),
            DataType::UInt32 => Column::UInt32(primitive(field)),
            DataType::UInt64 => Column::UInt64(primitive(field)),
            DataType::Float32 => Column::Float32(primitive(field)),
            DataType::Float64 => Column::Float64(primitive(field)),
            DataType::Decimal128(p, s) => Column::Decimal128(primitive(field), *p, *s),
            DataType::Decimal256(p, s) => Column::Decimal256(primitive(field), *p, *s),
            DataType::Utf8 if is_json(field) => Column::Json(StringBuilder::new()),
            DataType::Utf8 => Column::Text(StringBuilder::new()),
            DataType::Binary => Column::Binary(BinaryBuilder::new()),
            DataType::FixedSizeBinary(16) if is_uuid(field) => Column::Uuid(FixedSizeBinaryBuilder::new(16)),
            DataType::Date32 => Column::Date(primitive(field)),
            DataType::Time64(TimeUnit::Microsecond) => Column::Time(primitive(field)),
            DataType::Interval(IntervalUnit::MonthDayNano) => Column::Interval(primitive(field)),
            DataType::Timestamp(TimeUnit::Second, _) => Column::Seconds(primitive(field)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Column::Millis(primitive(field)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Column::Micros(primitive(field)),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Column::Nanos(primitive(field)),
            DataType::Dictionary(key, value) => match enum_codes(field) {
                Some(codes) => Column::Enum(EnumColumn::new(&codes, **key == DataType::Int8)),
                None => {
                    let values = Field::new(field.name(), (**value).clone(), true);
                    Column::Dictionary(Box::new(Column::new(&values)?), field.data_type().clone())
                }
            },
            DataType::List(item) => Column::List(ListColumn {
                item: item.clone(),
                offsets: vec![0],
                nulls: NullBufferBuilder::new(0),
                values: Box::new(Column::new(item)?),
            }),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 => Column::Map(MapColumn {
                    entries: entries.clone(),
                    offsets: vec![0],
                    nulls: NullBufferBuilder::new(0),
                    keys: Box::new(Column::new(&fields[0])?),
                    values: Box::new(Column::new(&fields[1])?),
                }),
                _ => return Err(unsupported(field)),
            },
            DataType::Struct(fields) => Column::Struct(StructColumn {
                fields: fields.clone(),
                nulls: NullBufferBuilder::new(0),
                members: fields.iter().map(|field| Column::new(field)).collect::<Result<_>>()?,
            }),
            _ => return Err(unsupported(field)),
        })
    }

    /// Whether a list or tuple is a value of this type, and so not a row or a batch.
    pub(super) fn is_nested(field: &Field) -> bool {
        field.data_type().is_nested() || is_json(field)
    }

    /// Appends a value, or says why it does not fit; then the column may hold parts of it, which [`Self::finish`]
    /// cuts off.
    pub(super) fn append(&mut self, value: &Bound<'_, PyAny>) -> Appended {
        if value.is_none() {
            self.append_null();
            return Ok(());
        }
        match self {
            Column::Bool(out) => out.append_value(boolean(value)?),
            Column::Int8(out) => out.append_value(narrow(value)?),
            Column::Int16(out) => out.append_value(narrow(value)?),
            Column::Int32(out) => out.append_value(narrow(value)?),
            Column::Int64(out) => out.append_value(int64(value)?),
            Column::UInt8(out) => out.append_value(narrow(value)?),
            Column::UInt16(out) => out.append_value(narrow(value)?),
            Column::UInt32(out) => out.append_value(narrow(value)?),
            Column::UInt64(out) => out.append_value(uint64(value)?),
            Column::Float32(out) => out.append_value(float32(value)?),
            Column::Float64(out) => out.append_value(float64(value)?),
            Column::Decimal128(out, p, s) => match decimal(value, *p, *s)?.to_i128() {
                Some(value) => out.append_value(value),
                None => return Err(Misfit::plain()),
            },
            Column::Decimal256(out, p, s) => out.append_value(decimal(value, *p, *s)?),
            Column::Text(out) => {
                let text = utf8(value)?;
                room(out.values_slice().len(), text.len())?;
                out.append_value(text);
            }
            Column::Json(out) => json(value, |text| {
                room(out.values_slice().len(), text.len())?;
                out.append_value(text);
                Ok(())
            })?,
            Column::Binary(out) => bytes(value, |bytes| {
                room(out.values_slice().len(), bytes.len())?;
                out.append_value(bytes);
                Ok(())
            })?,
            Column::Uuid(out) => {
                out.append_value(uuid(value)?).map_err(|error| Misfit::because(error.to_string()))?;
            }
            Column::Date(out) => out.append_option(time::date(value)?),
            Column::Time(out) => out.append_value(time::time(value)?),
            Column::Interval(out) => out.append_option(time::interval(value)?),
            Column::Seconds(out) => out.append_option(time::timestamp(value, TimeUnit::Second)?),
            Column::Millis(out) => out.append_option(time::timestamp(value, TimeUnit::Millisecond)?),
            Column::Micros(out) => out.append_option(time::timestamp(value, TimeUnit::Microsecond)?),
            Column::Nanos(out) => out.append_option(time::timestamp(value, TimeUnit::Nanosecond)?),
            Column::Enum(out) => out.append(value)?,
            Column::Dictionary(values, _) => values.append(value)?,
            Column::List(out) => out.append(value)?,
            Column::Map(out) => out.append(value)?,
            Column::Struct(out) => out.append(value)?,
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Column::Bool(out) => out.append_null(),
            Column::Int8(out) => out.append_null(),
            Column::Int16(out) => out.append_null(),
            Column::Int32(out) => out.append_null(),
            Column::Int64(out) => out.append_null(),
            Column::UInt8(out) => out.append_null(),
            Column::UInt16(out) => out.append_null(),
            Column::UInt32(out) => out.append_null(),
            Column::UInt64(out) => out.append_null(),
            Column::Float32(out) => out.append_null(),
            Column::Float64(out) => out.append_null(),
            Column::Decimal128(out, ..) => out.append_null(),
            Column::Decimal256(out, ..) => out.append_null(),
            Column::Text(out) | Column::Json(out) => out.append_null(),
            Column::Binary(out) => out.append_null(),
            Column::Uuid(out) => out.append_null(),
            Column::Date(out) => out.append_null(),
            Column::Time(out) => out.append_null(),
            Column::Interval(out) => out.append_null(),
            Column::Seconds(out) => out.append_null(),
            Column::Millis(out) => out.append_null(),
            Column::Micros(out) => out.append_null(),
            Column::Nanos(out) => out.append_null(),
            Column::Enum(out) => out.keys.append_null(),
            Column::Dictionary(values, _) => values.append_null(),
            Column::List(out) => {
                out.offsets.push(*out.offsets.last().unwrap_or(&0));
                out.nulls.append_null();
            }
            Column::Map(out) => {
                out.offsets.push(*out.offsets.last().unwrap_or(&0));
                out.nulls.append_null();
            }
            Column::Struct(out) => {
                out.members.iter_mut().for_each(Column::append_null);
                out.nulls.append_null();
            }
        }
    }

    /// Whether the last value, which was no `None`, is a null nevertheless: a NaT is.
    fn ends_in_null(&self) -> bool {
        fn last<T: ArrowPrimitiveType>(out: &PrimitiveBuilder<T>) -> bool {
            out.validity_slice().is_some_and(|bits| !get_bit(bits, out.len() - 1))
        }
        match self {
            Column::Date(out) => last(out),
            Column::Interval(out) => last(out),
            Column::Seconds(out) => last(out),
            Column::Millis(out) => last(out),
            Column::Micros(out) => last(out),
            Column::Nanos(out) => last(out),
            Column::Dictionary(values, _) => values.ends_in_null(),
            _ => false,
        }
    }

    /// Whether values of this type have no length that is known beforehand.
    pub(super) fn is_variable(&self) -> bool {
        match self {
            Column::Text(_) | Column::Json(_) | Column::Binary(_) | Column::List(_) | Column::Map(_) => true,
            Column::Dictionary(values, _) => values.is_variable(),
            Column::Struct(out) => out.members.iter().any(Column::is_variable),
            _ => false,
        }
    }

    /// The bytes of variable length that wait in the builder.
    pub(super) fn variable_bytes(&self) -> usize {
        match self {
            Column::Text(out) | Column::Json(out) => out.values_slice().len(),
            Column::Binary(out) => out.values_slice().len(),
            Column::Dictionary(values, _) => values.variable_bytes(),
            Column::List(out) => out.values.variable_bytes() + out.offsets.last().map_or(0, |last| *last as usize),
            Column::Map(out) => {
                out.keys.variable_bytes()
                    + out.values.variable_bytes()
                    + out.offsets.last().map_or(0, |last| *last as usize)
            }
            Column::Struct(out) => out.members.iter().map(Column::variable_bytes).sum(),
            _ => 0,
        }
    }

    /// The first `rows` values as an array.
    pub(super) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        let array: ArrayRef = match self {
            Column::Bool(out) => Arc::new(out.finish()),
            Column::Int8(out) => Arc::new(out.finish()),
            Column::Int16(out) => Arc::new(out.finish()),
            Column::Int32(out) => Arc::new(out.finish()),
            Column::Int64(out) => Arc::new(out.finish()),
            Column::UInt8(out) => Arc::new(out.finish()),
            Column::UInt16(out) => Arc::new(out.finish()),
            Column::UInt32(out) => Arc::new(out.finish()),
            Column::UInt64(out) => Arc::new(out.finish()),
            Column::Float32(out) => Arc::new(out.finish()),
            Column::Float64(out) => Arc::new(out.finish()),
            Column::Decimal128(out, ..) => Arc::new(out.finish()),
            Column::Decimal256(out, ..) => Arc::new(out.finish()),
            Column::Text(out) | Column::Json(out) => Arc::new(out.finish()),
            Column::Binary(out) => Arc::new(out.finish()),
            Column::Uuid(out) => Arc::new(out.finish()),
            Column::Date(out) => Arc::new(out.finish()),
            Column::Time(out) => Arc::new(out.finish()),
            Column::Interval(out) => Arc::new(out.finish()),
            Column::Seconds(out) => Arc::new(out.finish()),
            Column::Millis(out) => Arc::new(out.finish()),
            Column::Micros(out) => Arc::new(out.finish()),
            Column::Nanos(out) => Arc::new(out.finish()),
            Column::Enum(out) => out.finish()?,
            Column::Dictionary(values, data_type) => {
                return Ok(arrow::compute::cast(&values.finish(rows)?, data_type)?);
            }
            Column::List(out) => {
                let (offsets, nulls, length) = finish_offsets(&mut out.offsets, &mut out.nulls, rows);
                let values = out.values.finish(length)?;
                Arc::new(ListArray::try_new(out.item.clone(), offsets, values, nulls)?)
            }
            Column::Map(out) => {
                let (offsets, nulls, length) = finish_offsets(&mut out.offsets, &mut out.nulls, rows);
                let members = vec![out.keys.finish(length)?, out.values.finish(length)?];
                let DataType::Struct(fields) = out.entries.data_type() else {
                    return Err(Error::internal("a map without entries"));
                };
                let entries = StructArray::try_new(fields.clone(), members, None)?;
                Arc::new(MapArray::try_new(out.entries.clone(), offsets, entries, nulls, false)?)
            }
            Column::Struct(out) => {
                let members = out.members.iter_mut().map(|member| member.finish(rows)).collect::<Result<Vec<_>>>()?;
                let nulls = out.nulls.finish().map(|nulls| nulls.slice(0, rows));
                Arc::new(StructArray::try_new_with_length(out.fields.clone(), members, nulls, rows)?)
            }
        };
        Ok(if array.len() > rows { array.slice(0, rows) } else { array })
    }
}

fn unsupported(field: &Field) -> Error {
    Error::unsupported(format!(
        "column '{}' has the type {}, which no stream can have",
        field.name(),
        type_spelling(field)
    ))
}

/// The first `rows` offsets with their nulls, and how many values they reach to.
fn finish_offsets(
    offsets: &mut Vec<i32>,
    nulls: &mut NullBufferBuilder,
    rows: usize,
) -> (OffsetBuffer<i32>, Option<NullBuffer>, usize) {
    let mut offsets = std::mem::replace(offsets, vec![0]);
    offsets.truncate(rows + 1);
    let length = offsets.last().map_or(0, |last| *last as usize);
    (OffsetBuffer::new(offsets.into()), nulls.finish().map(|nulls| nulls.slice(0, rows)), length)
}

impl EnumColumn {
    fn new(codes: &[(String, i16)], small: bool) -> Self {
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(codes.iter().map(|(name, _)| name)));
        let positions = codes.iter().zip(0i16..).map(|((name, _), position)| (name.clone(), position)).collect();
        Self { codes: Arc::new(EnumCodes { names, positions }), keys: PrimitiveBuilder::new(), small }
    }

    fn append(&mut self, value: &Bound<'_, PyAny>) -> Appended {
        let text = utf8(value)?;
        match self.codes.positions.get(text) {
            Some(position) => self.keys.append_value(*position),
            None => return Err(Misfit::because("it is not one of the names that the type lists")),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let keys: Int16Array = self.keys.finish();
        let names = self.codes.names.clone();
        if !self.small {
            return Ok(Arc::new(DictionaryArray::<Int16Type>::try_new(keys, names)?));
        }
        let narrowed: ScalarBuffer<i8> = keys.values().iter().map(|key| *key as i8).collect();
        let keys = Int8Array::new(narrowed, Array::nulls(&keys).cloned());
        Ok(Arc::new(DictionaryArray::<Int8Type>::try_new(keys, names)?))
    }
}

impl ListColumn {
    fn append(&mut self, value: &Bound<'_, PyAny>) -> Appended {
        let items = items(value)?;
        let start = *self.offsets.last().unwrap_or(&0);
        let mut count = 0;
        // By position: the list is the user's, and its values' own code may change it while we look.
        while count < items.len() {
            let item = items.get(count)?;
            self.values.append(&item).map_err(|misfit| misfit.inside(format!("[{count}]"), &item))?;
            count += 1;
        }
        self.offsets.push(end_of(start, count)?);
        self.nulls.append_non_null();
        Ok(())
    }
}

impl MapColumn {
    fn append(&mut self, value: &Bound<'_, PyAny>) -> Appended {
        let start = *self.offsets.last().unwrap_or(&0);
        let mut count = 0;
        let mut entry = |key: &Bound<'_, PyAny>, item: &Bound<'_, PyAny>| {
            if key.is_none() {
                return Err(Misfit::because("a key of a map cannot be None"));
            }
            self.keys.append(key).map_err(|misfit| misfit.inside(place_of(key), key))?;
            if self.keys.ends_in_null() {
                return Err(Misfit::because("a key of a map cannot be None"));
            }
            self.values.append(item).map_err(|misfit| misfit.inside(place_of(key), item))?;
            count += 1;
            Ok(())
        };
        if let Ok(dict) = value.cast::<PyDict>() {
            // A copy of the pairs: iterating a dict that its values' own code changes is an error of Python's.
            for pair in dict.items() {
                let (key, item) = pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
                entry(&key, &item)?;
            }
        } else {
            let pairs = items(value)?;
            let mut index = 0;
            while index < pairs.len() {
                let Ok((key, item)) = pairs.get(index)?.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() else {
                    return Err(Misfit::because("a map is a dict, or a list of pairs"));
                };
                entry(&key, &item)?;
                index += 1;
            }
        }
        self.offsets.push(end_of(start, count)?);
        self.nulls.append_non_null();
        Ok(())
    }
}

impl StructColumn {
    fn append(&mut self, value: &Bound<'_, PyAny>) -> Appended {
        if let Ok(dict) = value.cast::<PyDict>() {
            let mut found = Members::new(dict);
            for (field, member) in self.fields.iter().zip(&mut self.members) {
                let Some(item) = found.get(field.name())? else {
                    return Err(Misfit::because(format!("it has no '{}'", field.name())));
                };
                member.append(&item).map_err(|misfit| misfit.inside(format!(".{}", field.name()), &item))?;
            }
            if dict.len() != self.members.len() {
                return Err(wrong_count(dict.len(), self.members.len()));
            }
        } else if value.is_instance_of::<PyTuple>() || value.is_instance_of::<PyList>() {
            let items = items(value)?;
            if items.len() != self.members.len() {
                return Err(wrong_count(items.len(), self.members.len()));
            }
            for (index, (field, member)) in self.fields.iter().zip(&mut self.members).enumerate() {
                let item = items.get(index)?;
                member.append(&item).map_err(|misfit| misfit.inside(format!(".{}", field.name()), &item))?;
            }
        } else {
            return Err(Misfit::plain());
        }
        self.nulls.append_non_null();
        Ok(())
    }
}

fn wrong_count(found: usize, expected: usize) -> Misfit {
    let plural = if found == 1 { "" } else { "s" };
    Misfit::because(format!("it has {found} member{plural}, and the type has {expected}"))
}

/// The items of a value that is a sequence: a list or tuple itself, a list made of anything else with a length.
enum Items<'py> {
    List(Bound<'py, PyList>),
    Tuple(Bound<'py, PyTuple>),
}

impl<'py> Items<'py> {
    fn len(&self) -> usize {
        match self {
            Items::List(list) => list.len(),
            Items::Tuple(tuple) => tuple.len(),
        }
    }

    fn get(&self, index: usize) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Items::List(list) => list.get_item(index),
            Items::Tuple(tuple) => tuple.get_item(index),
        }
    }
}

fn items<'py>(value: &Bound<'py, PyAny>) -> std::result::Result<Items<'py>, Misfit> {
    if let Ok(list) = value.cast::<PyList>() {
        return Ok(Items::List(list.clone()));
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return Ok(Items::Tuple(tuple.clone()));
    }
    let py = value.py();
    let text = value.is_instance_of::<pyo3::types::PyString>()
        || value.is_instance_of::<pyo3::types::PyBytes>()
        || value.is_instance_of::<pyo3::types::PyByteArray>()
        || value.is_instance_of::<PyDict>();
    // Without a length it may be endless.
    if text || !value.hasattr(intern!(py, "__len__"))? || !value.hasattr(intern!(py, "__iter__"))? {
        return Err(Misfit::plain());
    }
    // numpy gives plain Python values this way, many at once.
    if type_name(value) == "numpy.ndarray" {
        let list = value.call_method0(intern!(py, "tolist"))?;
        return list.cast_into::<PyList>().map(Items::List).map_err(|_| Misfit::plain());
    }
    Ok(Items::List(py.get_type::<PyList>().call1((value,))?.cast_into::<PyList>().map_err(PyErr::from)?))
}

fn end_of(start: i32, count: usize) -> std::result::Result<i32, Misfit> {
    let end = i32::try_from(count).ok().and_then(|count| start.checked_add(count));
    end.ok_or_else(|| Misfit::because("one batch holds at most 2^31 items; yield fewer rows at once"))
}

fn room(waiting: usize, more: usize) -> Appended {
    if waiting + more > i32::MAX as usize {
        return Err(Misfit::because("a column of one batch holds at most 2 GiB; lower batch_size, or split the value"));
    }
    Ok(())
}
