//! Python exceptions as Couatl errors: with their traceback, and with themselves inside.

use couatl_core::{Error, ErrorKind, Subject};
use pyo3::prelude::*;

use crate::body::Body;

/// Longer tracebacks are shortened in their middle: an exception may carry anything.
const TRACEBACK_BYTES: usize = 16 * 1024;

/// The error for an exception of the user's code: `what` says whose (`read function 'users'`).
pub(crate) fn raised(py: Python<'_>, body: Option<&Body>, subject: &Subject, what: &str, exception: PyErr) -> Error {
    if is_misuse(py, &exception) {
        let message = format!("{subject}: {}", exception.value(py));
        return subject.mark(Error::type_mismatch(message)).with_source(exception);
    }
    let message = format!("{subject}: {what} raised {}", one_line(py, &exception));
    let traceback = match body {
        Some(body) => body.format(py, &exception),
        None => format_plain(py, &exception),
    };
    let error = subject.mark(Error::new(ErrorKind::PythonException, message)).with_source(exception);
    match traceback {
        Some(traceback) => error.with_traceback(shorten(&traceback, TRACEBACK_BYTES)),
        None => error,
    }
}

/// The error for what a check of ours raised: a refusal, which is of this class, is the user's to mend; all else is of
/// `what`.
pub(crate) fn refused(
    py: Python<'_>,
    refusal: PyResult<Bound<'_, PyAny>>,
    subject: &Subject,
    what: &str,
    exception: PyErr,
) -> Error {
    if refusal.is_ok_and(|class| exception.is_instance(py, &class)) {
        let message = format!("{subject}: {}", exception.value(py));
        return subject.mark(Error::invalid_definition(message));
    }
    raised(py, None, subject, what, exception)
}

/// The error for what went wrong in Python that is no user's.
pub(crate) fn internal(error: PyErr) -> Error {
    Error::internal(error.to_string())
}

/// Whether the SDK says what its user is to mend, in a sentence that says all.
fn is_misuse(py: Python<'_>, exception: &PyErr) -> bool {
    let class = exception.get_type(py);
    let is = |name, expected| class.getattr(name).is_ok_and(|found| found.eq(expected).unwrap_or(false));
    is("__name__", "Misuse") && is("__module__", "couatl._errors")
}

/// `ValueError: boom`, on one line.
fn one_line(py: Python<'_>, exception: &PyErr) -> String {
    let kind = exception.get_type(py).name().map_or_else(|_| "an exception".into(), |name| name.to_string());
    let text = exception.value(py).str().map_or_else(
        |_| "(its __str__ raised)".to_owned(),
        |text| text.to_string_lossy().lines().next().unwrap_or_default().to_owned(),
    );
    if text.is_empty() { kind } else { format!("{kind}: {}", shorten(&text, 500)) }
}

/// The exception object, which knows its traceback; that of a `PyErr` need not.
pub(crate) fn with_traceback<'py>(py: Python<'py>, exception: &PyErr) -> Bound<'py, PyAny> {
    exception.clone_ref(py).into_value(py).into_bound(py).into_any()
}

/// The traceback of an exception, from the first frame that is not the SDK's: its users know nothing of those.
fn format_plain(py: Python<'_>, exception: &PyErr) -> Option<String> {
    let value = with_traceback(py, exception);
    let mut frames = value.getattr("__traceback__").ok()?;
    while let Some(next) = frames.getattr_opt("tb_next").ok().flatten().filter(|next| !next.is_none()) {
        let module = frames.getattr("tb_frame").and_then(|frame| frame.getattr("f_globals")?.get_item("__name__"));
        let is_ours = |module: &str| module == "couatl" || module.starts_with("couatl.");
        if !module.and_then(|module| module.extract::<String>()).is_ok_and(|module| is_ours(&module)) {
            break;
        }
        frames = next;
    }
    let lines =
        py.import("traceback").ok()?.call_method1("format_exception", (value.get_type(), value, frames)).ok()?;
    let lines: Vec<String> = lines.extract().ok()?;
    Some(lines.concat().trim_end().to_owned())
}

/// At most about so many bytes of a text: its beginning and its end.
pub(crate) fn shorten(text: &str, bytes: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= bytes {
        return text.into();
    }
    let head = text.floor_char_boundary(bytes / 2);
    let tail = text.ceil_char_boundary(text.len() - bytes / 2);
    format!("{} … {}", &text[..head], &text[tail..]).into()
}
