//! The values of a dict by the names that they are to have: columns of a row, members of a tuple.
//!
//! A dict is mostly made in the declared order, so the next name is compared with the next key; only where that is
//! another one is the name looked up, which makes and hashes a Python string.

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::scalar::utf8;

/// A dict that is asked for one name after the other.
pub(super) struct Members<'a, 'py> {
    dict: &'a Bound<'py, PyDict>,
    /// Where CPython goes on in the dict.
    place: ffi::Py_ssize_t,
    in_order: bool,
}

impl<'a, 'py> Members<'a, 'py> {
    pub(super) fn new(dict: &'a Bound<'py, PyDict>) -> Self {
        Self { dict, place: 0, in_order: true }
    }

    /// The value under the next name; `None` if there is none.
    pub(super) fn get(&mut self, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.in_order {
            match self.next() {
                Some((key, value)) if utf8(&key).is_ok_and(|key| key == name) => return Ok(Some(value)),
                _ => self.in_order = false,
            }
        }
        self.dict.get_item(name)
    }

    fn next(&mut self) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let py = self.dict.py();
        let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: attached. The dict is read as it is now, whatever user code has done to it since the last call: the
        // place is an index, which CPython checks. Both references are borrowed from the dict, and made strong before
        // anything else can run.
        unsafe {
            if ffi::PyDict_Next(self.dict.as_ptr(), &raw mut self.place, &raw mut key, &raw mut value) == 0 {
                return None;
            }
            Some((Bound::from_borrowed_ptr(py, key), Bound::from_borrowed_ptr(py, value)))
        }
    }
}
