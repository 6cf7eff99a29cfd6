//! What reading rows costs through CPython's own structures, and through its limited API: why there is a wheel for each
//! version of Python, and no `abi3` one for all. Nanoseconds a row of an int, a float and a str, in a list of tuples.

use std::hint::black_box;
use std::time::Instant;

use pyo3::ffi::*;
use pyo3::prelude::*;

const ROWS: isize = 8192;
const ROUNDS: usize = 2000;

/// Reads the row at a position: through macros.
///
/// # Safety
/// Attached; the list has the row, which is a tuple of an int, a float and a str.
unsafe fn by_structure(list: *mut PyObject, row: isize) -> f64 {
    unsafe {
        let row = PyList_GET_ITEM(list, row);
        assert!(PyTuple_Check(row) != 0 && PyTuple_GET_SIZE(row) == 3);
        let [a, b, c] = [0, 1, 2].map(|place| PyTuple_GET_ITEM(row, place));
        assert!(PyLong_Check(a) != 0 && PyFloat_Check(b) != 0 && PyUnicode_Check(c) != 0);
        sum(a, PyFloat_AS_DOUBLE(b), c)
    }
}

/// The same, with what the limited API has: calls.
///
/// # Safety
/// As above.
unsafe fn by_call(list: *mut PyObject, row: isize) -> f64 {
    unsafe {
        let is = |object, flag| PyType_GetFlags(Py_TYPE(object)) & flag != 0;
        let row = PyList_GetItem(list, row);
        assert!(is(row, Py_TPFLAGS_TUPLE_SUBCLASS) && PyTuple_Size(row) == 3);
        let [a, b, c] = [0, 1, 2].map(|place| PyTuple_GetItem(row, place));
        assert!(is(a, Py_TPFLAGS_LONG_SUBCLASS) && PyFloat_Check(b) != 0 && is(c, Py_TPFLAGS_UNICODE_SUBCLASS));
        sum(a, PyFloat_AsDouble(b), c)
    }
}

/// # Safety
/// Attached; an int and a str.
unsafe fn sum(a: *mut PyObject, b: f64, c: *mut PyObject) -> f64 {
    let (mut overflow, mut length) = (0, 0);
    unsafe {
        let text = PyUnicode_AsUTF8AndSize(c, &raw mut length);
        PyLong_AsLongLongAndOverflow(a, &raw mut overflow) as f64 + b + length as f64 + f64::from(*text)
    }
}

fn best(list: *mut PyObject, read: unsafe fn(*mut PyObject, isize) -> f64) -> f64 {
    let round = |_| {
        let start = Instant::now();
        // SAFETY: attached, by `main`, which made the list.
        black_box((0..ROWS).map(|row| unsafe { read(list, row) }).sum::<f64>());
        start.elapsed().as_nanos() as f64 / ROWS as f64
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn main() {
    Python::initialize();
    Python::attach(|py| {
        let list = py.eval(c"[(n, n * 0.5, 'eight ch') for n in range(8192)]", None, None).unwrap();
        let (structure, call) = (best(list.as_ptr(), by_structure), best(list.as_ptr(), by_call));
        println!("own structures {structure:.1} ns, limited API {call:.1} ns: {:.1} times as long", call / structure);
    });
}
