//! From Arrow columns to lists of Python values: what a write function receives.
//!
//! | column | value |
//! | --- | --- |
//! | numbers, bool, string, binary | `int`, `float`, `bool`, `str`, `bytes` |
//! | decimal | `decimal.Decimal` |
//! | date, time | `datetime.date`, `datetime.time` |
//! | timestamp without, with a zone | naive, aware `datetime.datetime`; nanoseconds are floored to microseconds |
//! | interval | `datetime.timedelta`; one with months has no such value and is an error |
//! | uuid, json | `uuid.UUID`; the `dict`, `list` … that the JSON says |
//! | array, map, tuple | `list`, `dict`, `tuple` |
//! | enum, low_cardinality | the value itself |
//!
//! NULL is `None` everywhere. What no stream declares, and a file or a function of SQL has, is like what it resembles: views
//! and large strings, lists of a fixed size, durations.
#![expect(unsafe_code, reason = "lists are filled through CPython's C API")]

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, Field, FieldRef, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use couatl_core::{is_json, is_uuid};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDate, PyDateTime, PyDelta, PyDict, PyList, PyString, PyTime, PyTzInfo};
use pyo3::{ffi, intern};

use crate::convert::{EPOCH_DAYS, under};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A column as a list.
///
/// # Errors
/// A Python exception where a value has no Python counterpart: a time beyond the year 9999, an interval with months.
pub(crate) fn to_list<'py>(py: Python<'py>, array: &ArrayRef, field: &Field) -> PyResult<Bound<'py, PyList>> {
    match array.data_type() {
        DataType::Null => list(py, array, |_| Ok(py.None().into_bound(py))),
        DataType::Boolean => {
            let values = array.as_boolean();
            list(py, array, |row| Ok(PyBool::new(py, values.value(row)).to_owned().into_any()))
        }
        DataType::Int8 => ints::<Int8Type>(py, array),
        DataType::Int16 => ints::<Int16Type>(py, array),
        DataType::Int32 => ints::<Int32Type>(py, array),
        DataType::Int64 => ints::<Int64Type>(py, array),
        DataType::UInt8 => ints::<UInt8Type>(py, array),
        DataType::UInt16 => ints::<UInt16Type>(py, array),
        DataType::UInt32 => ints::<UInt32Type>(py, array),
        DataType::UInt64 => {
            let values = array.as_primitive::<UInt64Type>().values();
            // SAFETY: attached.
            objects(py, array, |row| unsafe { ffi::PyLong_FromUnsignedLongLong(values[row]) })
        }
        DataType::Float32 => floats::<Float32Type>(py, array),
        DataType::Float64 => floats::<Float64Type>(py, array),
        DataType::Decimal128(..) => {
            let class = py.import("decimal")?.getattr("Decimal")?;
            let values = array.as_primitive::<Decimal128Type>();
            list(py, array, |row| class.call1((values.value_as_string(row),)))
        }
        DataType::Decimal256(..) => {
            let class = py.import("decimal")?.getattr("Decimal")?;
            let values = array.as_primitive::<Decimal256Type>();
            list(py, array, |row| class.call1((values.value_as_string(row),)))
        }
        DataType::Utf8 if is_json(field) => {
            let loads = py.import("json")?.getattr("loads")?;
            let values = array.as_string::<i32>();
            list(py, array, |row| loads.call1((values.value(row),)))
        }
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            if !values.is_ascii() {
                return objects(py, array, |row| {
                    let text = values.value(row);
                    // SAFETY: attached; the text is as long as it says.
                    unsafe { ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as isize) }
                });
            }
            objects(py, array, |row| {
                let text = values.value(row);
                // SAFETY: attached. A new str whose characters are below 128 has a byte for each of them, and nobody else
                // sees it before they are written.
                unsafe {
                    let new = ffi::PyUnicode_New(text.len() as isize, 127);
                    if !new.is_null() && !text.is_empty() {
                        ffi::PyUnicode_1BYTE_DATA(new).copy_from_nonoverlapping(text.as_ptr(), text.len());
                    }
                    new
                }
            })
        }
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            objects(py, array, |row| {
                let bytes = values.value(row);
                // SAFETY: attached; they are as many as they say.
                unsafe { ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as isize) }
            })
        }
        DataType::FixedSizeBinary(16) if is_uuid(field) => {
            let values = array.as_fixed_size_binary();
            let uuids = Uuids::new(py)?;
            list(py, array, |row| uuids.make(values.value(row)))
        }
        DataType::FixedSizeBinary(_) => {
            let values = array.as_fixed_size_binary();
            list(py, array, |row| Ok(PyBytes::new(py, values.value(row)).into_any()))
        }
        DataType::Date32 => {
            let values = array.as_primitive::<Date32Type>();
            list(py, array, |row| {
                let (year, month, day) = civil_from_days(values.value(row).into())?;
                Ok(PyDate::new(py, year, month, day)?.into_any())
            })
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let values = array.as_primitive::<Time64MicrosecondType>();
            list(py, array, |row| {
                let (hour, minute, second, micro) = clock(values.value(row));
                Ok(PyTime::new(py, hour, minute, second, micro, None)?.into_any())
            })
        }
        DataType::Timestamp(TimeUnit::Second, zone) => {
            times::<TimestampSecondType>(py, array, zone.as_deref(), |seconds| seconds.checked_mul(1_000_000))
        }
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            times::<TimestampMillisecondType>(py, array, zone.as_deref(), |millis| millis.checked_mul(1000))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            times::<TimestampMicrosecondType>(py, array, zone.as_deref(), Some)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            times::<TimestampNanosecondType>(py, array, zone.as_deref(), |nanos| Some(nanos.div_euclid(1000)))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>();
            list(py, array, |row| timedelta(py, values.value(row)))
        }
        DataType::Dictionary(_, value_type) => {
            let dictionary = array.as_any_dictionary();
            let inner = Field::new(field.name(), (**value_type).clone(), true);
            // Each distinct value is made once and shared.
            let values = to_list(py, dictionary.values(), &inner)?;
            if values.is_empty() {
                // All is null, or hidden by a null that it is in.
                return list(py, array, |_| Ok(py.None().into_bound(py)));
            }
            let keys = dictionary.normalized_keys();
            list(py, array, |row| values.get_item(keys[row]))
        }
        DataType::List(item) => {
            let lists = array.as_list::<i32>();
            let reached = Reached::new(lists.value_offsets());
            let values = to_list(py, &reached.part_of(lists.values()), item)?;
            let _uncollected = Uncollected::begin(py);
            objects(py, array, |row| {
                let items = reached.by(row);
                // SAFETY: attached. The new list has a place for each item, which is set once, with a reference that it
                // takes over; the items are some of the values.
                unsafe {
                    let list = ffi::PyList_New(items.len() as isize);
                    for (place, item) in items.enumerate().take_while(|_| !list.is_null()) {
                        let value = ffi::PyList_GET_ITEM(values.as_ptr(), item as isize);
                        ffi::PyList_SET_ITEM(list, place as isize, ffi::Py_NewRef(value));
                    }
                    list
                }
            })
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else { return Err(no_value(array)) };
            let maps = array.as_map();
            let reached = Reached::new(maps.value_offsets());
            let keys = to_list(py, &reached.part_of(maps.keys()), &fields[0])?;
            let values = to_list(py, &reached.part_of(maps.values()), &fields[1])?;
            list(py, array, |row| {
                let dict = PyDict::new(py);
                for entry in reached.by(row) {
                    dict.set_item(keys.get_item(entry)?, values.get_item(entry)?)?;
                }
                Ok(dict.into_any())
            })
        }
        DataType::Struct(fields) => {
            let records = array.as_struct();
            let member = |(column, field): (&ArrayRef, &FieldRef)| {
                // What a null record hides may be anything, and have no Python value.
                let column = under(records.nulls(), column).map_err(|error| PyTypeError::new_err(error.to_string()))?;
                to_list(py, &column, field)
            };
            let members = records.columns().iter().zip(fields).map(member).collect::<PyResult<Vec<_>>>()?;
            let _uncollected = Uncollected::begin(py);
            objects(py, array, |row| {
                // SAFETY: attached. The new tuple has a place for each member, which is set once, with a reference that it
                // takes over; members have as many values as the record has rows.
                unsafe {
                    let tuple = ffi::PyTuple_New(members.len() as isize);
                    for (place, member) in members.iter().enumerate().take_while(|_| !tuple.is_null()) {
                        let value = ffi::PyList_GET_ITEM(member.as_ptr(), row as isize);
                        ffi::PyTuple_SET_ITEM(tuple, place as isize, ffi::Py_NewRef(value));
                    }
                    tuple
                }
            })
        }
        DataType::Date64 if !has_whole_days(array.as_primitive()) => Err(no_value(array)),
        other => {
            let same = same_values(other).ok_or_else(|| no_value(array))?;
            let exact = CastOptions { safe: false, ..CastOptions::default() };
            let array =
                cast_with_options(array, &same, &exact).map_err(|error| PyTypeError::new_err(error.to_string()))?;
            to_list(py, &array, field)
        }
    }
}

/// Milliseconds that are days and no more, as the type says.
fn has_whole_days(dates: &PrimitiveArray<Date64Type>) -> bool {
    dates.iter().flatten().all(|millis| millis % 86_400_000 == 0)
}

/// The type that has the same Python values as one that streams do not declare, and that files and functions of SQL have.
pub(crate) fn same_values(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(item.clone()),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(TimeUnit::Nanosecond) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Duration(_) | DataType::Interval(IntervalUnit::DayTime | IntervalUnit::YearMonth) => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        DataType::RunEndEncoded(_, values) => values.data_type().clone(),
        _ => return None,
    })
}

/// Makes `uuid.UUID`s as these are copied and unpickled: the constructor, which is Python, takes ten times as long.
struct Uuids<'py> {
    class: Bound<'py, PyAny>,
    new: Bound<'py, PyAny>,
    unknown: Bound<'py, PyAny>,
}

impl<'py> Uuids<'py> {
    fn new(py: Python<'py>) -> PyResult<Self> {
        let module = py.import("uuid")?;
        let class = module.getattr("UUID")?;
        let new = class.getattr("__new__")?;
        Ok(Self { new, class, unknown: module.getattr("SafeUUID")?.getattr("unknown")? })
    }

    fn make(&self, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let py = self.class.py();
        let number = bytes.try_into().map(u128::from_be_bytes).map_err(PyErr::from)?;
        let uuid = self.new.call1((&self.class,))?;
        let set = |name: &Bound<'py, PyString>, value: &Bound<'py, PyAny>| {
            // SAFETY: attached, and all three are objects. It is `object.__setattr__`: a UUID's own one refuses.
            match unsafe { ffi::PyObject_GenericSetAttr(uuid.as_ptr(), name.as_ptr(), value.as_ptr()) } {
                0 => Ok(()),
                _ => Err(PyErr::fetch(py)),
            }
        };
        set(intern!(py, "int"), &number.into_bound_py_any(py)?)?;
        set(intern!(py, "is_safe"), &self.unknown)?;
        Ok(uuid)
    }
}

/// The items that lists, or maps, reach: of a sliced array, they are a part.
struct Reached<'a> {
    offsets: &'a [i32],
    first: usize,
}

impl<'a> Reached<'a> {
    fn new(offsets: &'a [i32]) -> Self {
        Self { offsets, first: offsets[0] as usize }
    }

    fn part_of(&self, items: &ArrayRef) -> ArrayRef {
        items.slice(self.first, self.offsets[self.offsets.len() - 1] as usize - self.first)
    }

    /// Those of one row, as positions in the part.
    fn by(&self, row: usize) -> Range<usize> {
        self.offsets[row] as usize - self.first..self.offsets[row + 1] as usize - self.first
    }
}

/// A time without garbage collection, which begins anew with every 700 lists or tuples, and finds none among ours. What
/// happens meanwhile must run no code but the C API's, so that nobody sees or changes that collection is off.
struct Uncollected<'py> {
    _attached: Python<'py>,
    was_on: bool,
}

impl<'py> Uncollected<'py> {
    fn begin(py: Python<'py>) -> Self {
        // SAFETY: attached.
        Self { _attached: py, was_on: unsafe { ffi::PyGC_Disable() } != 0 }
    }
}

impl Drop for Uncollected<'_> {
    fn drop(&mut self) {
        if self.was_on {
            // SAFETY: attached.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}

fn no_value(array: &ArrayRef) -> PyErr {
    PyTypeError::new_err(format!("a column of Arrow {} has no Python values", array.data_type()))
}

/// A list of as many values as the array has rows; the closure makes those that are not null.
fn list<'py>(
    py: Python<'py>,
    array: &dyn Array,
    value: impl Fn(usize) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    objects(py, array, |row| match value(row) {
        Ok(value) => value.into_ptr(),
        Err(error) => {
            error.restore(py);
            std::ptr::null_mut()
        }
    })
}

/// The same for what the C API makes: the closure gives a reference of its own, or null with an exception set.
#[inline(always)]
fn objects<'py>(
    py: Python<'py>,
    array: &dyn Array,
    make: impl Fn(usize) -> *mut ffi::PyObject,
) -> PyResult<Bound<'py, PyList>> {
    let nulls = array.logical_nulls();
    let length = array.len();
    // SAFETY: attached. The new list has `length` empty places; each is set once, with a reference that it takes over,
    // and nobody else sees the list before all are: the collector, which shows what it tracks, learns of it at the end
    // (a list that is dropped early has nulls in it, which CPython expects of a list that is being filled).
    unsafe {
        let list = Bound::from_owned_ptr_or_err(py, ffi::PyList_New(length as isize))?;
        ffi::PyObject_GC_UnTrack(list.as_ptr().cast());
        for row in 0..length {
            let item = match &nulls {
                Some(nulls) if nulls.is_null(row) => py.None().into_ptr(),
                _ => make(row),
            };
            if item.is_null() {
                return Err(PyErr::fetch(py));
            }
            ffi::PyList_SET_ITEM(list.as_ptr(), row as isize, item);
        }
        ffi::PyObject_GC_Track(list.as_ptr().cast());
        Ok(list.cast_into_unchecked())
    }
}

fn ints<'py, T: ArrowPrimitiveType<Native: Into<i64>>>(
    py: Python<'py>,
    array: &ArrayRef,
) -> PyResult<Bound<'py, PyList>> {
    let values = array.as_primitive::<T>().values();
    // SAFETY: attached.
    objects(py, array, |row| unsafe { ffi::PyLong_FromLongLong(values[row].into()) })
}

fn floats<'py, T: ArrowPrimitiveType<Native: Into<f64>>>(
    py: Python<'py>,
    array: &ArrayRef,
) -> PyResult<Bound<'py, PyList>> {
    let values = array.as_primitive::<T>().values();
    // SAFETY: attached.
    objects(py, array, |row| unsafe { ffi::PyFloat_FromDouble(values[row].into()) })
}

fn times<'py, T: ArrowPrimitiveType<Native = i64>>(
    py: Python<'py>,
    array: &ArrayRef,
    zone: Option<&str>,
    to_micros: impl Fn(i64) -> Option<i64>,
) -> PyResult<Bound<'py, PyList>> {
    let values: &PrimitiveArray<T> = array.as_primitive();
    let utc = PyTzInfo::utc(py)?.to_owned();
    let zone = zone.map(|zone| if zone == "UTC" { Ok(None) } else { time_zone(py, zone).map(Some) }).transpose()?;
    list(py, array, |row| {
        let out_of_range = || PyOverflowError::new_err("a timestamp is beyond the years 1 to 9999");
        let micros = to_micros(values.value(row)).ok_or_else(out_of_range)?;
        let (year, month, day) = civil_from_days(micros.div_euclid(MICROS_PER_DAY))?;
        let (hour, minute, second, micro) = clock(micros.rem_euclid(MICROS_PER_DAY));
        let naive = zone.is_none();
        let aware = (!naive).then_some(&utc);
        let value = PyDateTime::new(py, year, month, day, hour, minute, second, micro, aware)?.into_any();
        match &zone {
            Some(Some(zone)) => value.call_method1("astimezone", (zone,)),
            _ => Ok(value),
        }
    })
}

/// The `tzinfo` of a zone: a name of the time zone database, or an offset like `+02:00`.
fn time_zone<'py>(py: Python<'py>, zone: &str) -> PyResult<Bound<'py, PyAny>> {
    let offset = zone.strip_prefix('+').map(|rest| (1, rest)).or_else(|| zone.strip_prefix('-').map(|rest| (-1, rest)));
    if let Some((sign, rest)) = offset {
        let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
        let number = |range: std::ops::Range<usize>| digits.get(range).and_then(|part| part.parse::<i32>().ok());
        let minutes = number(0..2).unwrap_or(0) * 60 + number(2..4).unwrap_or(0);
        let delta = PyDelta::new(py, 0, sign * minutes * 60, 0, true)?;
        return py.import("datetime")?.getattr("timezone")?.call1((delta,));
    }
    py.import("zoneinfo")?.getattr("ZoneInfo")?.call1((zone,))
}

fn timedelta<'py>(py: Python<'py>, value: IntervalMonthDayNano) -> PyResult<Bound<'py, PyAny>> {
    if value.months != 0 {
        return Err(PyTypeError::new_err(format!(
            "an interval of {} months has no timedelta; take an interval of days, or Arrow arrays: write_format = 'arrow' \
             of a stream, OPTIONS (format 'arrow') of a function",
            value.months
        )));
    }
    let micros = value.nanoseconds.div_euclid(1000);
    let days = i64::from(value.days) + micros.div_euclid(MICROS_PER_DAY);
    let rest = micros.rem_euclid(MICROS_PER_DAY);
    let days = i32::try_from(days).map_err(|_| PyOverflowError::new_err("an interval is too long for a timedelta"))?;
    Ok(PyDelta::new(py, days, (rest / 1_000_000) as i32, (rest % 1_000_000) as i32, false)?.into_any())
}

/// Hour, minute, second and microsecond of a time of day.
fn clock(micros: i64) -> (u8, u8, u8, u32) {
    let seconds = micros / 1_000_000;
    ((seconds / 3600) as u8, (seconds / 60 % 60) as u8, (seconds % 60) as u8, (micros % 1_000_000) as u32)
}

/// The date so many days after 1970-01-01.
fn civil_from_days(days: i64) -> PyResult<(i32, u8, u8)> {
    if !(1 - EPOCH_DAYS..=2_932_896).contains(&days) {
        return Err(PyOverflowError::new_err("a date is beyond the years 1 to 9999"));
    }
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Ok((year as i32, month as u8, day as u8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::days_from_civil;

    #[test]
    fn dates_there_and_back() {
        for days in (1 - EPOCH_DAYS..=2_932_896).step_by(17) {
            let (year, month, day) = civil_from_days(days).unwrap();
            assert_eq!(days_from_civil(year.into(), month.into(), day.into()), days);
        }
        assert_eq!(civil_from_days(0).unwrap(), (1970, 1, 1));
    }
}
