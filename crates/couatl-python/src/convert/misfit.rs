//! Why a value does not fit its column, and how that is said.

use std::fmt::Write;

use arrow::datatypes::Field;
use couatl_core::{Error, Subject, type_spelling};
use pyo3::prelude::*;

use crate::exception::shorten;

/// The longest rendering of a value in a message, in bytes.
pub(super) const VALUE_BYTES: usize = 80;

/// What appending a value comes to.
pub(super) type Appended = std::result::Result<(), Misfit>;

/// A value that does not fit. Its absence is what is handed around on the hot path, so it is one pointer; worded on the
/// cold one.
#[derive(Debug)]
pub(crate) struct Misfit(Box<Detail>);

#[derive(Debug)]
struct Detail {
    /// From the column inward, outermost last: `[3]`, `.name`.
    path: Vec<String>,
    /// The value itself, where it is not the whole column's value.
    value: Option<Py<PyAny>>,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    /// The type or the size says it all.
    Plain,
    /// `None` where there must be a value.
    Null,
    /// A sentence of its own.
    Because(String),
    /// The value's own code raised.
    Raised(PyErr),
}

impl Misfit {
    /// The value does not fit, and no more can be said.
    pub(crate) fn plain() -> Self {
        Reason::Plain.into()
    }

    /// A null where there must be a value.
    pub(crate) fn null() -> Self {
        Reason::Null.into()
    }

    /// The value does not fit, for this reason.
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Reason::Because(reason.into()).into()
    }

    /// The misfit is inside: at this place, of this value.
    pub(crate) fn inside(mut self, place: String, value: &Bound<'_, PyAny>) -> Self {
        self.0.value.get_or_insert_with(|| value.clone().unbind());
        self.at(place)
    }

    /// The misfit is at this place.
    pub(crate) fn at(mut self, place: String) -> Self {
        self.0.path.push(place);
        self
    }

    /// The error for the user. `value` is what the row holds for the column.
    pub(crate) fn into_error(self, subject: &Subject, row: u64, field: &Field, value: &Bound<'_, PyAny>) -> Error {
        let shown = describe(self.0.value.as_ref().map_or(value, |inner| inner.bind(value.py())));
        self.worded(subject, &row.to_string(), field, &shown)
    }

    /// The error for the user, of a value that is no Python object.
    pub(crate) fn worded(self, subject: &Subject, row: &str, field: &Field, shown: &str) -> Error {
        let path: String = self.0.path.iter().rev().map(String::as_str).collect();
        let mut message = format!("{subject}, row {row}, column '{}{path}' ({}): ", field.name(), type_spelling(field));
        let _ = match &self.0.reason {
            Reason::Plain => write!(message, "cannot store {shown}"),
            Reason::Null => write!(message, "cannot store None: the column is NOT NULL"),
            Reason::Because(reason) => write!(message, "cannot store {shown}: {reason}"),
            Reason::Raised(error) => write!(message, "cannot store {shown}: {error}"),
        };
        let error = subject.mark(Error::type_mismatch(message)).with_context("column", field.name());
        match self.0.reason {
            Reason::Raised(source) => error.with_source(source),
            _ => error,
        }
    }
}

impl From<Reason> for Misfit {
    fn from(reason: Reason) -> Self {
        Self(Box::new(Detail { path: Vec::new(), value: None, reason }))
    }
}

impl From<PyErr> for Misfit {
    fn from(error: PyErr) -> Self {
        Reason::Raised(error).into()
    }
}

/// `'abc' (str)`, shortened; never fails, whatever the value's `__repr__` does.
pub(crate) fn describe(value: &Bound<'_, PyAny>) -> String {
    if value.is_none() {
        return "None".to_owned();
    }
    match render(value) {
        Some(text) => format!("{text} ({})", class_of(value)),
        None => format!("a {}", class_of(value)),
    }
}

/// `['k']`, the place of a key's value in a map.
pub(crate) fn place_of(key: &Bound<'_, PyAny>) -> String {
    format!("[{}]", render(key).unwrap_or_else(|| format!("a {}", class_of(key))))
}

fn class_of(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}

fn render(value: &Bound<'_, PyAny>) -> Option<String> {
    // A huge value is not rendered whole only to be cut.
    let huge = value.len().is_ok_and(|length| length > 1000);
    let text = if huge { head(value) } else { value.repr().ok().map(|text| text.to_string_lossy().into_owned()) };
    text.map(|text| shorten(&text, VALUE_BYTES).into_owned())
}

fn head(value: &Bound<'_, PyAny>) -> Option<String> {
    let slice = pyo3::types::PySlice::new(value.py(), 0, 40, 1);
    let text = value.get_item(slice).ok()?.repr().ok()?;
    let length = value.len().ok()?;
    Some(format!("{}… (length {length})", text.to_string_lossy()))
}
