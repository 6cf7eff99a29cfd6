//! Python's dates, times and durations as Arrow's numbers.

use std::ffi::c_int;

use arrow::datatypes::{IntervalMonthDayNano, TimeUnit};
use pyo3::prelude::*;
use pyo3::{ffi, intern};

use super::misfit::Misfit;
use super::scalar::type_name;

/// The days from 0001-01-01, day 1 of Python's calendar, to 1970-01-01.
pub(crate) const EPOCH_DAYS: i64 = 719_163;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The days from 1970-01-01 to a date of the proleptic Gregorian calendar.
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Gets `PyDateTimeAPI` ready. Once per thread that converts; cheap when done.
pub(crate) fn import_datetime(_py: Python<'_>) {
    // SAFETY: attached, as the token proves.
    unsafe { ffi::PyDateTime_IMPORT() };
}

fn days(value: &Bound<'_, PyAny>) -> i64 {
    // SAFETY: the caller has checked that the value is a date or a datetime, whose fields these macros read.
    unsafe {
        days_from_civil(
            i64::from(ffi::PyDateTime_GET_YEAR(value.as_ptr())),
            i64::from(ffi::PyDateTime_GET_MONTH(value.as_ptr())),
            i64::from(ffi::PyDateTime_GET_DAY(value.as_ptr())),
        )
    }
}

fn micros(hour: c_int, minute: c_int, second: c_int, micro: c_int) -> i64 {
    ((i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second)) * 1_000_000 + i64::from(micro)
}

/// A `datetime.date`, in days since the epoch; `None` for a null of its kind.
pub(super) fn date(value: &Bound<'_, PyAny>) -> Result<Option<i32>, Misfit> {
    // SAFETY: attached, and `import_datetime` has run; the check takes any object.
    if unsafe { ffi::PyDate_CheckExact(value.as_ptr()) } != 0 {
        return Ok(Some(days(value) as i32));
    }
    date_of_other(value)
}

#[cold]
fn date_of_other(value: &Bound<'_, PyAny>) -> Result<Option<i32>, Misfit> {
    // SAFETY: attached, and `import_datetime` has run; the checks take any object.
    let (date, datetime) = unsafe { (ffi::PyDate_Check(value.as_ptr()), ffi::PyDateTime_Check(value.as_ptr())) };
    if datetime != 0 {
        if is_nat(value) {
            return Ok(None);
        }
        return Err(Misfit::because("it has a time of day; yield value.date()"));
    }
    if date != 0 {
        return Ok(Some(days(value) as i32));
    }
    match numpy_time(value, "datetime64")? {
        Some(None) => Ok(None),
        Some(Some(nanos)) if nanos % (MICROS_PER_DAY as i128 * 1000) != 0 => {
            Err(Misfit::because("it has a time of day; yield value.astype('datetime64[D]')"))
        }
        Some(Some(nanos)) => {
            i32::try_from(nanos.div_euclid(MICROS_PER_DAY as i128 * 1000)).map(Some).map_err(|_| Misfit::plain())
        }
        None => Err(Misfit::plain()),
    }
}

/// A naive `datetime.time`, in microseconds since midnight.
pub(super) fn time(value: &Bound<'_, PyAny>) -> Result<i64, Misfit> {
    // SAFETY: attached, and `import_datetime` has run; the fields are read only of a time.
    unsafe {
        let value = value.as_ptr();
        if ffi::PyTime_Check(value) == 0 {
            return Err(Misfit::plain());
        }
        if ffi::PyDateTime_TIME_GET_TZINFO(value) != ffi::Py_None() {
            return Err(Misfit::because("a time column has no zone; yield value.replace(tzinfo=None)"));
        }
        Ok(micros(
            ffi::PyDateTime_TIME_GET_HOUR(value),
            ffi::PyDateTime_TIME_GET_MINUTE(value),
            ffi::PyDateTime_TIME_GET_SECOND(value),
            ffi::PyDateTime_TIME_GET_MICROSECOND(value),
        ))
    }
}

/// A `datetime.datetime`, in units since the epoch: an aware one is its instant, a naive one is UTC.
pub(super) fn timestamp(value: &Bound<'_, PyAny>, unit: TimeUnit) -> Result<Option<i64>, Misfit> {
    let object = value.as_ptr();
    // SAFETY: attached, and `import_datetime` has run; the fields are read only of a datetime.
    let (micros, zone, exact) = unsafe {
        if ffi::PyDateTime_Check(object) == 0 {
            return timestamp_of_other(value, unit);
        }
        let micros = days(value) * MICROS_PER_DAY
            + micros(
                ffi::PyDateTime_DATE_GET_HOUR(object),
                ffi::PyDateTime_DATE_GET_MINUTE(object),
                ffi::PyDateTime_DATE_GET_SECOND(object),
                ffi::PyDateTime_DATE_GET_MICROSECOND(object),
            );
        (micros, ffi::PyDateTime_DATE_GET_TZINFO(object), ffi::PyDateTime_CheckExact(object) != 0)
    };
    // SAFETY: both are borrowed singletons.
    let utc = unsafe { zone == ffi::Py_None() || zone == ffi::PyDateTime_TimeZone_UTC() };
    if exact && utc {
        return in_unit(i128::from(micros) * 1000, unit).map(Some);
    }
    if is_nat(value) {
        return Ok(None);
    }
    let py = value.py();
    let mut nanos = i128::from(micros) * 1000;
    if !utc {
        let offset = value.call_method0(intern!(py, "utcoffset"))?;
        if !offset.is_none() {
            nanos -= delta_nanos(&offset)?;
        }
    }
    // pandas.Timestamp is a datetime with nanoseconds of its own.
    if !exact && type_name(value) == "Timestamp" {
        nanos += value.getattr(intern!(py, "nanosecond"))?.extract::<i128>()?;
    }
    in_unit(nanos, unit).map(Some)
}

#[cold]
fn timestamp_of_other(value: &Bound<'_, PyAny>, unit: TimeUnit) -> Result<Option<i64>, Misfit> {
    match numpy_time(value, "datetime64")? {
        Some(Some(nanos)) => in_unit(nanos, unit).map(Some),
        Some(None) => Ok(None),
        // SAFETY: attached, and `import_datetime` has run.
        None if unsafe { ffi::PyDate_Check(value.as_ptr()) } != 0 => {
            Err(Misfit::because("it has no time of day; yield datetime.combine(value, time())"))
        }
        None => Err(Misfit::plain()),
    }
}

/// A `datetime.timedelta`, or three integers: months, days, nanoseconds.
pub(super) fn interval(value: &Bound<'_, PyAny>) -> Result<Option<IntervalMonthDayNano>, Misfit> {
    let object = value.as_ptr();
    // SAFETY: attached, and `import_datetime` has run; the fields are read only of a timedelta.
    unsafe {
        if ffi::PyDelta_Check(object) != 0 {
            if is_nat(value) {
                return Ok(None);
            }
            let days = ffi::PyDateTime_DELTA_GET_DAYS(object);
            let seconds = i64::from(ffi::PyDateTime_DELTA_GET_SECONDS(object));
            let micros = i64::from(ffi::PyDateTime_DELTA_GET_MICROSECONDS(object));
            let mut nanos = seconds * 1_000_000_000 + micros * 1000;
            if ffi::PyDelta_CheckExact(object) == 0 && type_name(value) == "Timedelta" {
                nanos += value.getattr(intern!(value.py(), "nanoseconds"))?.extract::<i64>()?;
            }
            return Ok(Some(IntervalMonthDayNano::new(0, days, nanos)));
        }
    }
    if let Some(months) = numpy_months(value)? {
        return Ok(Some(IntervalMonthDayNano::new(months, 0, 0)));
    }
    match numpy_time(value, "timedelta64")? {
        Some(None) => return Ok(None),
        Some(Some(nanos)) => {
            let day = MICROS_PER_DAY as i128 * 1000;
            let days = i32::try_from(nanos.div_euclid(day)).map_err(|_| Misfit::plain())?;
            return Ok(Some(IntervalMonthDayNano::new(0, days, nanos.rem_euclid(day) as i64)));
        }
        None => {}
    }
    let Ok((months, days, nanos)) = value.extract::<(i32, i32, i64)>() else { return Err(Misfit::plain()) };
    Ok(Some(IntervalMonthDayNano::new(months, days, nanos)))
}

fn delta_nanos(delta: &Bound<'_, PyAny>) -> Result<i128, Misfit> {
    // SAFETY: attached, and `import_datetime` has run; the fields are read only of a timedelta.
    unsafe {
        let delta = delta.as_ptr();
        if ffi::PyDelta_Check(delta) == 0 {
            return Err(Misfit::because("its utcoffset() is no timedelta"));
        }
        let days = i128::from(ffi::PyDateTime_DELTA_GET_DAYS(delta));
        let seconds = i128::from(ffi::PyDateTime_DELTA_GET_SECONDS(delta));
        let micros = i128::from(ffi::PyDateTime_DELTA_GET_MICROSECONDS(delta));
        Ok(((days * 86_400 + seconds) * 1_000_000 + micros) * 1000)
    }
}

/// What is finer than the unit is floored.
fn in_unit(nanos: i128, unit: TimeUnit) -> Result<i64, Misfit> {
    let (per_unit, reach) = match unit {
        TimeUnit::Second => (1_000_000_000, "of seconds reaches 292 billion years from 1970"),
        TimeUnit::Millisecond => (1_000_000, "of milliseconds reaches from the year -292275055 to 292278994"),
        TimeUnit::Microsecond => (1000, "of microseconds reaches from the year -290308 to 294247"),
        TimeUnit::Nanosecond => (1, "of nanoseconds reaches from 1677-09-21 to 2262-04-11"),
    };
    let way_out = if unit == TimeUnit::Second { "" } else { "; use a lower precision" };
    i64::try_from(nanos.div_euclid(per_unit)).map_err(|_| Misfit::because(format!("a column {reach}{way_out}")))
}

/// `pandas.NaT`: it passes for a datetime and for a timedelta, and is a null.
fn is_nat(value: &Bound<'_, PyAny>) -> bool {
    type_name(value) == "NaTType"
}

/// A numpy scalar of this kind: how many of its unit it is, and the unit; the number is none for NaT.
fn numpy_parts(value: &Bound<'_, PyAny>, kind: &str) -> Result<Option<(Option<i128>, String)>, Misfit> {
    if type_name(value).strip_prefix("numpy.") != Some(kind) {
        return Ok(None);
    }
    let (unit, count): (String, i128) =
        value.py().import("numpy")?.getattr("datetime_data")?.call1((value.getattr("dtype")?,))?.extract()?;
    let number: i64 = value.call_method1("astype", ("int64",))?.extract()?;
    Ok(Some(((number != i64::MIN).then(|| i128::from(number) * count), unit)))
}

/// The months of a `numpy.timedelta64` of months or years, which have no length in days; `None` if it is something else.
fn numpy_months(value: &Bound<'_, PyAny>) -> Result<Option<i32>, Misfit> {
    let months = match numpy_parts(value, "timedelta64")? {
        Some((Some(number), unit)) if unit == "M" => number,
        Some((Some(number), unit)) if unit == "Y" => number * 12,
        _ => return Ok(None),
    };
    i32::try_from(months).map(Some).map_err(|_| Misfit::plain())
}

/// The nanoseconds of a numpy scalar of this kind: `Some(None)` if it is NaT, `None` if it is something else.
fn numpy_time(value: &Bound<'_, PyAny>, kind: &str) -> Result<Option<Option<i128>>, Misfit> {
    let Some((number, unit)) = numpy_parts(value, kind)? else {
        return if is_nat(value) { Ok(Some(None)) } else { Ok(None) };
    };
    let Some(number) = number else { return Ok(Some(None)) };
    let (numerator, denominator): (i128, i128) = match unit.as_str() {
        "W" => (7 * 86_400_000_000_000, 1),
        "D" => (86_400_000_000_000, 1),
        "h" => (3_600_000_000_000, 1),
        "m" => (60_000_000_000, 1),
        "s" => (1_000_000_000, 1),
        "ms" => (1_000_000, 1),
        "us" => (1000, 1),
        "ns" => (1, 1),
        "ps" => (1, 1000),
        "fs" => (1, 1_000_000),
        "as" => (1, 1_000_000_000),
        // A month or a year of the calendar is its first day.
        "M" | "Y" if kind == "datetime64" => {
            let months = if unit == "M" { number } else { number * 12 };
            let year = i64::try_from(months.div_euclid(12) + 1970).map_err(|_| Misfit::plain())?;
            if year.unsigned_abs() > 1 << 50 {
                return Err(Misfit::plain());
            }
            let day = days_from_civil(year, months.rem_euclid(12) as i64 + 1, 1);
            return Ok(Some(Some(i128::from(day) * 86_400_000_000_000)));
        }
        _ => return Err(Misfit::because("it has no unit; say one: numpy.timedelta64(5, 'D')")),
    };
    Ok(Some(Some((number * numerator).div_euclid(denominator))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_agree_with_the_calendar() {
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        assert_eq!(days_from_civil(1, 1, 1), 1 - EPOCH_DAYS);
        assert_eq!(days_from_civil(2000, 2, 29), 11_016);
        assert_eq!(days_from_civil(9999, 12, 31), 2_932_896);
    }

    #[test]
    fn finer_times_are_floored() {
        assert_eq!(in_unit(-1, TimeUnit::Second).unwrap(), -1);
        assert_eq!(in_unit(1_999_999_999, TimeUnit::Second).unwrap(), 1);
    }
}
