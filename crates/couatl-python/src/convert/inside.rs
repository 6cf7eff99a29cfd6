//! The values inside of ints and texts, where CPython keeps them: what its own macros do, and its functions cost a call
//! for. Of other values, and of versions whose objects are not known here, these functions know nothing.

use pyo3::ffi;

/// An int up to 3.11, as `Include/cpython/longintrepr.h` has it: its sign and number of digits, and the digits.
#[cfg(not(Py_3_12))]
#[repr(C)]
struct Int {
    head: ffi::PyVarObject,
    digits: [u32; 2],
}

/// An int since 3.12: its number of digits in all bits but the three lowest, of which two have the sign.
#[cfg(Py_3_12)]
#[repr(C)]
struct Int {
    head: ffi::PyObject,
    tag: usize,
    digits: [u32; 2],
}

/// The digits' number, which is 0 for a zero up to 3.11, and the sign: -1, 0 or 1.
///
/// # Safety
/// It must be an int.
#[inline(always)]
unsafe fn digits_and_sign(int: *const Int) -> (usize, i64) {
    // SAFETY: all ints have these fields.
    #[cfg(not(Py_3_12))]
    unsafe {
        let size = (*int).head.ob_size;
        (size.unsigned_abs(), size.signum() as i64)
    }
    // SAFETY: all ints have these fields.
    #[cfg(Py_3_12)]
    unsafe {
        let tag = (*int).tag;
        (tag >> 3, 1 - (tag & 3) as i64)
    }
}

/// The value of an int of one digit or two, which are 60 bits.
///
/// # Safety
/// It must be an int, or of a class that derives from it.
#[inline(always)]
pub(super) unsafe fn short_int(object: *mut ffi::PyObject) -> Option<i64> {
    if cfg!(any(PyPy, GraalPy, Py_3_15, not(target_pointer_width = "64"))) {
        return None;
    }
    let int: *const Int = object.cast();
    // SAFETY: an int as above, and only digits that it has are read. They have 30 bits: no program is opened elsewhere.
    unsafe {
        match digits_and_sign(int) {
            (1, sign) => Some(sign * i64::from((*int).digits[0])),
            (2, sign) => Some(sign * (i64::from((*int).digits[0]) | i64::from((*int).digits[1]) << 30)),
            _ => None,
        }
    }
}

/// The text of a `str` that is ASCII, and in one piece, as all are that have not been made in ways long deprecated.
///
/// # Safety
/// It must be a `str`, or of a class that derives from it. The text lives as long.
#[inline(always)]
pub(super) unsafe fn ascii<'a>(object: *mut ffi::PyObject) -> Option<&'a str> {
    #[cfg(not(any(PyPy, GraalPy, Py_3_14)))]
    // SAFETY: a str; one that is compact and ASCII has its bytes behind its head, as many as its length says.
    unsafe {
        if ffi::PyUnicode_IS_COMPACT_ASCII(object) != 0 {
            let head: *const ffi::PyASCIIObject = object.cast();
            let bytes = std::slice::from_raw_parts(head.add(1).cast(), (*head).length as usize);
            return Some(std::str::from_utf8_unchecked(bytes));
        }
    }
    None
}
