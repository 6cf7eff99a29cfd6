//! A column under construction: what it does with each value is decided when it is made.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, DictionaryArray, Int8Array, StringArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, Field, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use couatl_core::{Error, enum_codes, is_json, is_uuid, type_spelling};
use pyo3::prelude::*;

use super::builders::{Fixed, Uuids, Variable};
use super::misfit::{Appended, Misfit};
use super::nested::{ListColumn, MapColumn, StructColumn};
use super::scalar::{
    boolean, bytes, decimal, float32, float64, int64, json, narrow, plain_float, plain_text, small_int, uint64, utf8,
    uuid,
};
use super::time;

/// One column's builder, of the kind that its type needs.
pub(super) enum Column {
    Bool(BooleanBuilder),
    Int8(Fixed<Int8Type>),
    Int16(Fixed<Int16Type>),
    Int32(Fixed<Int32Type>),
    Int64(Fixed<Int64Type>),
    UInt8(Fixed<UInt8Type>),
    UInt16(Fixed<UInt16Type>),
    UInt32(Fixed<UInt32Type>),
    UInt64(Fixed<UInt64Type>),
    Float32(Fixed<Float32Type>),
    Float64(Fixed<Float64Type>),
    Decimal128(Fixed<Decimal128Type>, u8, i8),
    Decimal256(Fixed<Decimal256Type>, u8, i8),
    Text(Variable),
    Json(Variable),
    Binary(Variable),
    Uuid(Uuids),
    Date(Fixed<Date32Type>),
    Time(Fixed<Time64MicrosecondType>),
    Interval(Fixed<IntervalMonthDayNanoType>),
    Seconds(Fixed<TimestampSecondType>),
    Millis(Fixed<TimestampMillisecondType>),
    Micros(Fixed<TimestampMicrosecondType>),
    Nanos(Fixed<TimestampNanosecondType>),
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
    keys: Fixed<Int16Type>,
    small: bool,
}

struct EnumCodes {
    names: ArrayRef,
    positions: HashMap<String, i16>,
}

impl Column {
    /// The builder for a field, with room for so many values.
    ///
    /// # Errors
    /// `unsupported` where the field's type is none of the language's.
    pub(super) fn new(field: &Field, rows: usize) -> couatl_core::Result<Self> {
        fn primitive<T: ArrowPrimitiveType>(field: &Field, rows: usize) -> Fixed<T> {
            Fixed::new(field.data_type().clone(), rows)
        }
        Ok(match field.data_type() {
            DataType::Boolean => Column::Bool(BooleanBuilder::with_capacity(rows)),
            DataType::Int8 => Column::Int8(primitive(field, rows)),
            DataType::Int16 => Column::Int16(primitive(field, rows)),
            DataType::Int32 => Column::Int32(primitive(field, rows)),
            DataType::Int64 => Column::Int64(primitive(field, rows)),
            DataType::UInt8 => Column::UInt8(primitive(field, rows)),
            DataType::UInt16 => Column::UInt16(primitive(field, rows)),
            DataType::UInt32 => Column::UInt32(primitive(field, rows)),
            DataType::UInt64 => Column::UInt64(primitive(field, rows)),
            DataType::Float32 => Column::Float32(primitive(field, rows)),
            DataType::Float64 => Column::Float64(primitive(field, rows)),
            DataType::Decimal128(p, s) => Column::Decimal128(primitive(field, rows), *p, *s),
            DataType::Decimal256(p, s) => Column::Decimal256(primitive(field, rows), *p, *s),
            DataType::Utf8 if is_json(field) => Column::Json(Variable::new(rows)),
            DataType::Utf8 => Column::Text(Variable::new(rows)),
            DataType::Binary => Column::Binary(Variable::new(rows)),
            DataType::FixedSizeBinary(16) if is_uuid(field) => Column::Uuid(Uuids::new(rows)),
            DataType::Date32 => Column::Date(primitive(field, rows)),
            DataType::Time64(TimeUnit::Microsecond) => Column::Time(primitive(field, rows)),
            DataType::Interval(IntervalUnit::MonthDayNano) => Column::Interval(primitive(field, rows)),
            DataType::Timestamp(TimeUnit::Second, _) => Column::Seconds(primitive(field, rows)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Column::Millis(primitive(field, rows)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Column::Micros(primitive(field, rows)),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Column::Nanos(primitive(field, rows)),
            DataType::Dictionary(key, value) => match enum_codes(field) {
                Some(codes) => Column::Enum(EnumColumn::new(&codes, **key == DataType::Int8, rows)),
                None => {
                    let values = Field::new(field.name(), (**value).clone(), true);
                    Column::Dictionary(Box::new(Column::new(&values, rows)?), field.data_type().clone())
                }
            },
            DataType::List(item) => Column::List(ListColumn::new(item, rows)?),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 => Column::Map(MapColumn::new(entries, fields, rows)?),
                _ => return Err(unsupported(field)),
            },
            DataType::Struct(fields) => Column::Struct(StructColumn::new(fields, rows)?),
            _ => return Err(unsupported(field)),
        })
    }

    /// Whether a list or tuple is a value of this type, and so not a row or a batch.
    pub(super) fn is_nested(field: &Field) -> bool {
        field.data_type().is_nested() || is_json(field)
    }

    /// Appends values, where `None` is a null, up to the first that does not fit, or that makes the column full: hold
    /// `most` bytes of variable length. Gives whether it is full.
    ///
    /// After a misfit the column may hold parts of the value, which [`Self::finish`] cuts off.
    pub(super) fn extend<'py, V: Borrow<Bound<'py, PyAny>>>(
        &mut self,
        values: impl Iterator<Item = Option<V>>,
        nullable: bool,
        most: usize,
    ) -> Result<bool, Misfit> {
        let each = Each { values, nullable };
        match self {
            Column::Bool(out) => each.put(boolean, |value| out.append_option(value)),
            Column::Int8(out) => each.put(narrow, |value| out.push(value)),
            Column::Int16(out) => each.put(narrow, |value| out.push(value)),
            Column::Int32(out) => each.put(narrow, |value| out.push(value)),
            Column::Int64(out) => each.put(int64, |value| out.push(value)),
            Column::UInt8(out) => each.put(narrow, |value| out.push(value)),
            Column::UInt16(out) => each.put(narrow, |value| out.push(value)),
            Column::UInt32(out) => each.put(narrow, |value| out.push(value)),
            Column::UInt64(out) => each.put(uint64, |value| out.push(value)),
            Column::Float32(out) => each.put(float32, |value| out.push(value)),
            Column::Float64(out) => each.put(float64, |value| out.push(value)),
            Column::Decimal128(out, p, s) => {
                let narrow = |value: &_| decimal(value, *p, *s)?.to_i128().ok_or_else(Misfit::plain);
                each.put(narrow, |value| out.push(value))
            }
            Column::Decimal256(out, p, s) => each.put(|value| decimal(value, *p, *s), |value| out.push(value)),
            Column::Text(out) => each.fill(most, |value| {
                match value {
                    Some(value) => out.push(utf8(value)?.as_bytes())?,
                    None => out.push_null(),
                }
                Ok(out.bytes())
            }),
            Column::Json(out) => each.fill(most, |value| {
                match value {
                    Some(value) => json(value, |text| out.push(text.as_bytes()))?,
                    None => out.push_null(),
                }
                Ok(out.bytes())
            }),
            Column::Binary(out) => each.fill(most, |value| {
                match value {
                    Some(value) => bytes(value, |bytes| out.push(bytes))?,
                    None => out.push_null(),
                }
                Ok(out.bytes())
            }),
            Column::Uuid(out) => each.put(uuid, |value| out.push(value)),
            Column::Date(out) => each.put_time(time::date, |value| out.push(value)),
            Column::Time(out) => each.put(time::time, |value| out.push(value)),
            Column::Interval(out) => each.put_time(time::interval, |value| out.push(value)),
            Column::Seconds(out) => {
                each.put_time(|value| time::timestamp(value, TimeUnit::Second), |value| out.push(value))
            }
            Column::Millis(out) => {
                each.put_time(|value| time::timestamp(value, TimeUnit::Millisecond), |value| out.push(value))
            }
            Column::Micros(out) => {
                each.put_time(|value| time::timestamp(value, TimeUnit::Microsecond), |value| out.push(value))
            }
            Column::Nanos(out) => {
                each.put_time(|value| time::timestamp(value, TimeUnit::Nanosecond), |value| out.push(value))
            }
            Column::Enum(EnumColumn { codes, keys, .. }) => {
                each.put(|value| codes.position(value), |value| keys.push(value))
            }
            Column::Dictionary(values, _) => values.extend(each.values, nullable, most),
            Column::List(out) => each.fill(most, |value| {
                out.append(value)?;
                Ok(if most == usize::MAX { 0 } else { out.bytes() })
            }),
            Column::Map(out) => each.fill(most, |value| {
                out.append(value)?;
                Ok(if most == usize::MAX { 0 } else { out.bytes() })
            }),
            Column::Struct(out) => each.fill(most, |value| {
                out.append(value)?;
                Ok(if most == usize::MAX { 0 } else { out.bytes() })
            }),
        }
    }

    /// Appends a value of the kind that most are, and that needs few instructions; gives whether the column is full then.
    /// `None` if it is none of them, and nothing has happened.
    #[inline(always)]
    pub(super) fn push(&mut self, value: &Bound<'_, PyAny>, most: usize) -> Option<bool> {
        match self {
            Column::Int64(out) => out.push(Some(small_int(value)?)),
            Column::Float64(out) => out.push(Some(plain_float(value)?)),
            Column::Text(out) => {
                out.push(plain_text(value)?.as_bytes()).ok()?;
                return Some(out.bytes() >= most);
            }
            _ => return None,
        }
        Some(false)
    }

    /// Appends one value inside of another.
    pub(super) fn append(&mut self, value: Option<&Bound<'_, PyAny>>) -> Appended {
        if value.is_some_and(|value| self.push(value, usize::MAX).is_some()) {
            return Ok(());
        }
        let value = value.filter(|value| !value.is_none());
        self.extend(std::iter::once(value), true, usize::MAX).map(drop)
    }

    /// Whether the last value, which was no `None`, is a null nevertheless: a NaT is.
    pub(super) fn ends_in_null(&self) -> bool {
        match self {
            Column::Date(out) => out.ends_in_null(),
            Column::Interval(out) => out.ends_in_null(),
            Column::Seconds(out) => out.ends_in_null(),
            Column::Millis(out) => out.ends_in_null(),
            Column::Micros(out) => out.ends_in_null(),
            Column::Nanos(out) => out.ends_in_null(),
            Column::Dictionary(values, _) => values.ends_in_null(),
            _ => false,
        }
    }

    /// Whether values of this type have no length that is known beforehand.
    pub(super) fn is_variable(&self) -> bool {
        match self {
            Column::Text(_) | Column::Json(_) | Column::Binary(_) | Column::List(_) | Column::Map(_) => true,
            Column::Dictionary(values, _) => values.is_variable(),
            Column::Struct(out) => out.is_variable(),
            _ => false,
        }
    }

    /// The bytes of variable length that wait in the builder.
    pub(super) fn variable_bytes(&self) -> usize {
        match self {
            Column::Text(out) | Column::Json(out) | Column::Binary(out) => out.bytes(),
            Column::Dictionary(values, _) => values.variable_bytes(),
            Column::List(out) => out.bytes(),
            Column::Map(out) => out.bytes(),
            Column::Struct(out) => out.bytes(),
            _ => 0,
        }
    }

    /// The first `rows` values as an array.
    pub(super) fn finish(&mut self, rows: usize) -> couatl_core::Result<ArrayRef> {
        let array: ArrayRef = match self {
            Column::Bool(out) => Arc::new(out.finish()),
            Column::Int8(out) => out.finish(),
            Column::Int16(out) => out.finish(),
            Column::Int32(out) => out.finish(),
            Column::Int64(out) => out.finish(),
            Column::UInt8(out) => out.finish(),
            Column::UInt16(out) => out.finish(),
            Column::UInt32(out) => out.finish(),
            Column::UInt64(out) => out.finish(),
            Column::Float32(out) => out.finish(),
            Column::Float64(out) => out.finish(),
            Column::Decimal128(out, ..) => out.finish(),
            Column::Decimal256(out, ..) => out.finish(),
            // SAFETY: `extend` pushes nothing into them but `str`.
            Column::Text(out) | Column::Json(out) => unsafe { out.finish_text() },
            Column::Binary(out) => out.finish_binary(),
            Column::Uuid(out) => out.finish()?,
            Column::Date(out) => out.finish(),
            Column::Time(out) => out.finish(),
            Column::Interval(out) => out.finish(),
            Column::Seconds(out) => out.finish(),
            Column::Millis(out) => out.finish(),
            Column::Micros(out) => out.finish(),
            Column::Nanos(out) => out.finish(),
            Column::Enum(out) => out.finish()?,
            Column::Dictionary(values, data_type) => {
                return Ok(arrow::compute::cast(&values.finish(rows)?, data_type)?);
            }
            Column::List(out) => out.finish(rows)?,
            Column::Map(out) => out.finish(rows)?,
            Column::Struct(out) => out.finish(rows)?,
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

impl EnumCodes {
    fn position(&self, value: &Bound<'_, PyAny>) -> Result<i16, Misfit> {
        let unknown = || Misfit::because("it is not one of the names that the type lists");
        self.positions.get(utf8(value)?).copied().ok_or_else(unknown)
    }
}

impl EnumColumn {
    fn new(codes: &[(String, i16)], small: bool, rows: usize) -> Self {
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(codes.iter().map(|(name, _)| name)));
        let positions = codes.iter().zip(0i16..).map(|((name, _), position)| (name.clone(), position)).collect();
        Self { codes: Arc::new(EnumCodes { names, positions }), keys: Fixed::new(DataType::Int16, rows), small }
    }

    fn finish(&mut self) -> couatl_core::Result<ArrayRef> {
        let keys = self.keys.finish();
        let keys = keys.as_primitive::<Int16Type>();
        let names = self.codes.names.clone();
        if !self.small {
            return Ok(Arc::new(DictionaryArray::<Int16Type>::try_new(keys.clone(), names)?));
        }
        let narrowed: ScalarBuffer<i8> = keys.values().iter().map(|key| *key as i8).collect();
        let keys = Int8Array::new(narrowed, Array::nulls(keys).cloned());
        Ok(Arc::new(DictionaryArray::<Int8Type>::try_new(keys, names)?))
    }
}

/// The values that a column is to take.
struct Each<I> {
    values: I,
    nullable: bool,
}

impl<'py, V: Borrow<Bound<'py, PyAny>>, I: Iterator<Item = Option<V>>> Each<I> {
    /// Each value, until one does not fit; such a column is never full.
    #[inline(always)]
    fn put<T>(
        self,
        convert: impl Fn(&Bound<'py, PyAny>) -> Result<T, Misfit>,
        mut push: impl FnMut(Option<T>),
    ) -> Result<bool, Misfit> {
        self.fill(usize::MAX, |value| {
            push(value.map(&convert).transpose()?);
            Ok(0)
        })
    }

    /// Each time, until one does not fit. A NaT is a null that does not look like one.
    #[inline(always)]
    fn put_time<T>(
        self,
        convert: impl Fn(&Bound<'py, PyAny>) -> Result<Option<T>, Misfit>,
        mut push: impl FnMut(Option<T>),
    ) -> Result<bool, Misfit> {
        let nullable = self.nullable;
        let convert = |value: &_| match convert(value)? {
            None if !nullable => Err(Misfit::because("it is a null, and the column is NOT NULL")),
            time => Ok(time),
        };
        self.put(convert, |time| push(time.flatten()))
    }

    /// Each value, until one does not fit, or the bytes that are there then reach `most`.
    #[inline(always)]
    fn fill(
        self,
        most: usize,
        mut append: impl FnMut(Option<&Bound<'py, PyAny>>) -> Result<usize, Misfit>,
    ) -> Result<bool, Misfit> {
        for value in self.values {
            if value.is_none() && !self.nullable {
                return Err(Misfit::null());
            }
            if append(value.as_ref().map(Borrow::borrow))? >= most {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
