//! A value of an Arrow array that does not fit its column: which one it is, and how that is said.
//!
//! It is told as the same value in a row would be, so the cold path makes a Python value of it.

use arrow::array::{Array, ArrayRef};
use arrow::compute;
use arrow::datatypes::{DataType, Field};
use couatl_core::{Error, Subject, value_text};
use pyo3::prelude::*;

use super::misfit::{Misfit, VALUE_BYTES, describe, place_of};
use crate::exception::shorten;
use crate::values::to_list;

/// A value that does not fit, and where it is.
#[derive(Debug)]
pub(super) struct Unfit {
    /// Its row; where it is inside of another value, that one's row.
    pub(super) row: usize,
    /// From the value outward.
    path: Vec<Place>,
    /// It alone.
    value: ArrayRef,
    reason: Option<String>,
}

/// A place inside of a value.
#[derive(Debug)]
pub(super) enum Place {
    Index(usize),
    Member(String),
    /// The key of a map, alone.
    Key(ArrayRef),
}

impl Unfit {
    /// The value in this row does not fit, and no more can be said.
    pub(super) fn plain(array: &dyn Array, row: usize) -> Self {
        Self { row, path: Vec::new(), value: array.slice(row, 1), reason: None }
    }

    /// The value in this row does not fit, for this reason.
    pub(super) fn because(array: &dyn Array, row: usize, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::plain(array, row) }
    }

    /// The value is inside of the one in this row: at this place.
    pub(super) fn inside(mut self, row: usize, place: Place) -> Self {
        self.row = row;
        self.path.push(place);
        self
    }

    /// The error for the user. `rows_before` is how many rows came before the array's, `of` says of what.
    pub(super) fn into_error(
        self,
        py: Python<'_>,
        subject: &Subject,
        rows_before: u64,
        of: &str,
        field: &Field,
    ) -> Error {
        let row = format!("{}{of}", rows_before + self.row as u64 + 1);
        let misfit = self.reason.map_or_else(Misfit::plain, Misfit::because);
        let misfit = self.path.iter().fold(misfit, |misfit, place| misfit.at(place.show(py)));
        misfit.worded(subject, &row, field, &show(py, &self.value))
    }
}

impl Place {
    fn show(&self, py: Python<'_>) -> String {
        match self {
            Place::Index(index) => format!("[{index}]"),
            Place::Member(name) => format!(".{name}"),
            Place::Key(key) => value(py, key).map_or_else(|| format!("[{}]", text(key)), |key| place_of(&key)),
        }
    }
}

fn show(py: Python<'_>, array: &ArrayRef) -> String {
    match value(py, array) {
        Some(value) => describe(&value),
        None => format!("{} (Arrow {})", text(array), array.data_type()),
    }
}

/// The Python value; `None` where its type has no such values, or it is none of them.
fn value<'py>(py: Python<'py>, array: &ArrayRef) -> Option<Bound<'py, PyAny>> {
    let plain = match array.data_type() {
        DataType::Utf8View | DataType::LargeUtf8 => compute::cast(array, &DataType::Utf8).ok()?,
        DataType::BinaryView | DataType::LargeBinary => compute::cast(array, &DataType::Binary).ok()?,
        _ => array.clone(),
    };
    let field = Field::new("", plain.data_type().clone(), true);
    to_list(py, &plain, &field).ok()?.get_item(0).ok()
}

fn text(array: &ArrayRef) -> String {
    shorten(&value_text(array, 0), VALUE_BYTES).into_owned()
}
