//! One Python value as the value of a scalar type: what is taken for it, and what is refused.
//!
//! Times are in `time.rs`: there are as many of them again.

use arrow::datatypes::i256;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};
use pyo3::{ffi, intern};

use super::decimal;
use super::inside;
use super::misfit::{Appended, Misfit};

/// The name that a type has in C: with its module for types of extension modules, without for classes.
pub(super) fn type_name<'a>(value: &'a Bound<'_, PyAny>) -> &'a str {
    // SAFETY: the type lives as long as its value; `tp_name` is a C string that lives as long as the type.
    unsafe { std::ffi::CStr::from_ptr((*ffi::Py_TYPE(value.as_ptr())).tp_name) }.to_str().unwrap_or_default()
}

pub(super) fn boolean(value: &Bound<'_, PyAny>) -> std::result::Result<bool, Misfit> {
    if let Ok(value) = value.cast::<pyo3::types::PyBool>() {
        return Ok(value.is_true());
    }
    match type_name(value) {
        "numpy.bool" | "numpy.bool_" => Ok(value.is_truthy()?),
        _ => Err(Misfit::plain()),
    }
}

pub(super) fn narrow<T: TryFrom<i64>>(value: &Bound<'_, PyAny>) -> std::result::Result<T, Misfit> {
    T::try_from(int64(value)?).map_err(|_| Misfit::plain())
}

/// The value of an int that fits.
#[inline(always)]
pub(super) fn small_int(value: &Bound<'_, PyAny>) -> Option<i64> {
    let object = value.as_ptr();
    let mut overflow = 0;
    // SAFETY: attached; the object is an int, which is checked first.
    let out = unsafe {
        if ffi::PyLong_Check(object) == 0 {
            return None;
        }
        if let Some(short) = inside::short_int(object) {
            return Some(short);
        }
        ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow)
    };
    (overflow == 0).then_some(out)
}

#[inline(always)]
pub(super) fn int64(value: &Bound<'_, PyAny>) -> std::result::Result<i64, Misfit> {
    // Apart, so that what is left is short enough to be part of its callers.
    #[cold]
    fn of_other(value: &Bound<'_, PyAny>) -> std::result::Result<i64, Misfit> {
        small_int(&index(value)?).ok_or_else(Misfit::plain)
    }
    match small_int(value) {
        Some(out) => Ok(out),
        None => of_other(value),
    }
}

#[inline]
pub(super) fn uint64(value: &Bound<'_, PyAny>) -> std::result::Result<u64, Misfit> {
    #[cold]
    fn of_other(value: &Bound<'_, PyAny>) -> std::result::Result<u64, Misfit> {
        uint64(&index(value)?)
    }
    let object = value.as_ptr();
    // SAFETY: attached; the object is an int, which is checked first.
    let out = unsafe {
        if ffi::PyLong_Check(object) == 0 {
            return of_other(value);
        }
        if let Some(short) = inside::short_int(object) {
            return u64::try_from(short).map_err(|_| Misfit::plain());
        }
        ffi::PyLong_AsUnsignedLongLong(object)
    };
    if out == u64::MAX
        && let Some(error) = PyErr::take(value.py())
    {
        // Negative or too large: the message about the column says it better.
        drop(error);
        return Err(Misfit::plain());
    }
    Ok(out)
}

/// What counts as an int without being one: numpy's ints, and whatever else has `__index__`.
#[cold]
fn index<'py>(value: &Bound<'py, PyAny>) -> std::result::Result<Bound<'py, PyAny>, Misfit> {
    // SAFETY: attached; `PyNumber_Index` gives a new reference to an int, or null with an exception set.
    unsafe {
        if ffi::PyIndex_Check(value.as_ptr()) == 0 {
            return Err(Misfit::plain());
        }
        Ok(Bound::from_owned_ptr_or_err(value.py(), ffi::PyNumber_Index(value.as_ptr()))?)
    }
}

/// The value of a float.
#[inline(always)]
pub(super) fn plain_float(value: &Bound<'_, PyAny>) -> Option<f64> {
    // SAFETY: attached; the macro takes what the check before it admits.
    unsafe { (ffi::PyFloat_Check(value.as_ptr()) != 0).then(|| ffi::PyFloat_AS_DOUBLE(value.as_ptr())) }
}

#[inline(always)]
pub(super) fn float64(value: &Bound<'_, PyAny>) -> std::result::Result<f64, Misfit> {
    match plain_float(value) {
        Some(out) => Ok(out),
        None => float_of_other(value),
    }
}

#[cold]
fn float_of_other(value: &Bound<'_, PyAny>) -> std::result::Result<f64, Misfit> {
    // SAFETY: attached; the check takes any object.
    unsafe {
        if matches!(type_name(value), "numpy.float32" | "numpy.float16") {
            return Ok(value.extract::<f64>()?);
        }
        if ffi::PyLong_Check(value.as_ptr()) == 0 {
            return float64(&index(value)?);
        }
    }
    let inexact = || Misfit::because("no float is exactly that");
    let py = value.py();
    // SAFETY: attached, and an int; what is too large for a float is -1 with an exception set.
    let float = unsafe { ffi::PyLong_AsDouble(value.as_ptr()) };
    if let Some(error) = PyErr::take(py) {
        drop(error);
        return Err(inexact());
    }
    // SAFETY: attached, and the float is finite: a new int, or null with an exception set.
    let back = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromDouble(float))? };
    if back.eq(value)? { Ok(float) } else { Err(inexact()) }
}

pub(super) fn float32(value: &Bound<'_, PyAny>) -> std::result::Result<f32, Misfit> {
    let wide = float64(value)?;
    let narrow = wide as f32;
    if narrow.is_infinite() && wide.is_finite() {
        return Err(Misfit::plain());
    }
    // A float is rounded, as every float32 is; an int is exact or refused.
    if f64::from(narrow) != wide && !value.is_instance_of::<pyo3::types::PyFloat>() && wide.fract() == 0.0 {
        return Err(Misfit::because("no float is exactly that"));
    }
    Ok(narrow)
}

/// The text of a `str`, but where it holds a lone surrogate.
#[inline(always)]
pub(super) fn plain_text<'a>(value: &'a Bound<'_, PyAny>) -> Option<&'a str> {
    let mut length = 0;
    // SAFETY: attached; the object is a str, which is checked first. Its UTF-8 is cached in it and lives as long, and
    // CPython gives valid UTF-8 or none.
    unsafe {
        if ffi::PyUnicode_Check(value.as_ptr()) == 0 {
            return None;
        }
        if let Some(ascii) = inside::ascii(value.as_ptr()) {
            return Some(ascii);
        }
        let data = ffi::PyUnicode_AsUTF8AndSize(value.as_ptr(), &raw mut length);
        if data.is_null() {
            drop(PyErr::take(value.py()));
            return None;
        }
        Some(std::str::from_utf8_unchecked(std::slice::from_raw_parts(data.cast(), length as usize)))
    }
}

#[inline(always)]
pub(super) fn utf8<'a>(value: &'a Bound<'_, PyAny>) -> std::result::Result<&'a str, Misfit> {
    plain_text(value).ok_or_else(|| match value.is_instance_of::<pyo3::types::PyString>() {
        true => Misfit::because("it holds a lone surrogate, which UTF-8 cannot store"),
        false => Misfit::plain(),
    })
}

pub(super) fn bytes(value: &Bound<'_, PyAny>, append: impl FnOnce(&[u8]) -> Appended) -> Appended {
    let object = value.as_ptr();
    // SAFETY: attached; a bytes object, which is checked first, has as many bytes as its size says, and lives as long.
    unsafe {
        if ffi::PyBytes_Check(object) != 0 {
            let data = ffi::PyBytes_AS_STRING(object).cast();
            return append(std::slice::from_raw_parts(data, ffi::Py_SIZE(object) as usize));
        }
    }
    if !value.is_instance_of::<pyo3::types::PyByteArray>() && !value.is_instance_of::<pyo3::types::PyMemoryView>() {
        return Err(Misfit::plain());
    }
    let bytes = value.py().get_type::<pyo3::types::PyBytes>().call1((value,))?;
    append(bytes.cast::<pyo3::types::PyBytes>().map_err(PyErr::from)?.as_bytes())
}

fn class<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    module: &str,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    Ok(cell.get_or_try_init(py, || py.import(module)?.getattr(name).map(Bound::unbind))?.bind(py))
}

pub(super) fn decimal(value: &Bound<'_, PyAny>, precision: u8, scale: i8) -> std::result::Result<i256, Misfit> {
    static DECIMAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    let text = if value.is_instance(class(py, &DECIMAL, "decimal", "Decimal")?)? {
        value.str()?
    } else if value.is_instance_of::<pyo3::types::PyFloat>() {
        return Err(Misfit::because("a float is no exact decimal; yield decimal.Decimal(str(value))"));
    } else if value.is_instance_of::<pyo3::types::PyInt>() {
        // `int.__str__` refuses thousands of digits, which fit no column either.
        value.str().map_err(|_| Misfit::plain())?
    } else {
        index(value)?.str().map_err(|_| Misfit::plain())?
    };
    // A bool is an int that prints as a word.
    let text = match text.to_str()? {
        "True" => "1",
        "False" => "0",
        text => text,
    };
    decimal::parse(text, precision, scale).map_err(Misfit::because)
}

pub(super) fn uuid(value: &Bound<'_, PyAny>) -> std::result::Result<[u8; 16], Misfit> {
    static UUID: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    let class = class(py, &UUID, "uuid", "UUID")?;
    if value.get_type().is(class) {
        // What its `bytes` are made of, each time in Python.
        return Ok(value.getattr(intern!(py, "int"))?.extract::<u128>()?.to_be_bytes());
    }
    if value.is_instance(class)? {
        return Ok(value.getattr(intern!(py, "bytes"))?.extract()?);
    }
    if let Ok(bytes) = value.cast::<pyo3::types::PyBytes>() {
        return bytes.as_bytes().try_into().map_err(|_| Misfit::because("a UUID has 16 bytes"));
    }
    let parsed = uuid::Uuid::parse_str(utf8(value)?);
    parsed.map(uuid::Uuid::into_bytes).map_err(|_| Misfit::because("it is not the text of a UUID"))
}

pub(super) fn json(value: &Bound<'_, PyAny>, append: impl FnOnce(&str) -> Appended) -> Appended {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    if value.is_instance_of::<pyo3::types::PyString>() {
        let text = utf8(value)?;
        serde_json::from_str::<serde::de::IgnoredAny>(text)
            .map_err(|error| Misfit::because(format!("it is not valid JSON ({error})")))?;
        return append(text);
    }
    if !value.is_instance_of::<PyDict>() && !value.is_instance_of::<PyList>() {
        return Err(Misfit::because("a json column takes a dict, a list, or valid JSON text"));
    }
    let dumps = DUMPS.get_or_try_init(py, || {
        let options = PyDict::new(py);
        options.set_item("ensure_ascii", false)?;
        options.set_item("allow_nan", false)?;
        options.set_item("separators", (",", ":"))?;
        let encoder = py.import("json")?.getattr("JSONEncoder")?.call((), Some(&options))?;
        encoder.getattr("encode").map(Bound::unbind)
    })?;
    append(utf8(&dumps.bind(py).call1((value,))?)?)
}
