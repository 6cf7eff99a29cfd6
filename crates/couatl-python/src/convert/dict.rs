//! The values of a dict by the names that they are to have: columns of a row, members of a tuple.
//!
//! A dict is mostly made in the declared order, so the next name is compared with the next key; only where that is
//! another one is the name looked up, which makes and hashes a Python string.

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::scalar::utf8;

/// The pairs of a dict, as CPython steps through it. It is read as it is at each step, whatever its values' own code has
/// done to it since the last: a pair may be missed then, or come twice.
pub(super) struct Pairs<'a, 'py> {
    dict: &'a Bound<'py, PyDict>,
    /// Where CPython goes on in the dict.
    place: ffi::Py_ssize_t,
}

impl<'a, 'py> Pairs<'a, 'py> {
    pub(super) fn new(dict: &'a Bound<'py, PyDict>) -> Self {
        Self { dict, place: 0 }
    }
}

impl<'py> Iterator for Pairs<'_, 'py> {
    type Item = (Bound<'py, PyAny>, Bound<'py, PyAny>);

    fn next(&mut self) -> Option<Self::Item> {
        let py = self.dict.py();
        let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: attached. The place is an index, which CPython checks. Both references are borrowed from the dict, and
        // made strong before anything else can run.
        unsafe {
            if ffi::PyDict_Next(self.dict.as_ptr(), &raw mut self.place, &raw mut key, &raw mut value) == 0 {
                return None;
            }
            Some((Bound::from_borrowed_ptr(py, key), Bound::from_borrowed_ptr(py, value)))
        }
    }
}

/// A dict that is asked for one name after the other.
pub(super) struct Members<'a, 'py> {
    pairs: Pairs<'a, 'py>,
    in_order: bool,
}

impl<'a, 'py> Members<'a, 'py> {
    pub(super) fn new(dict: &'a Bound<'py, PyDict>) -> Self {
        Self { pairs: Pairs::new(dict), in_order: true }
    }

    /// The value under the next name; `None` if there is none.
    pub(super) fn get(&mut self, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.in_order {
            match self.pairs.next() {
                Some((key, value)) if utf8(&key).is_ok_and(|key| key == name) => return Ok(Some(value)),
                _ => self.in_order = false,
            }
        }
        self.pairs.dict.get_item(name)
    }
}
