//! The one error type.
//!
//! A kind is for programs, a message for people. Kinds are translated at the two edges (gRPC codes, Python exceptions)
//! by exhaustive tables; between the edges nobody looks at more than the kind.

use std::fmt;
use std::ops::Range;

/// A `Result` with Couatl's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What sort of failure an [`Error`] is. The strings are stable; new kinds may come.
        #[non_exhaustive]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorKind { $($(#[$doc])* $name,)* }

        impl ErrorKind {
            /// Every kind, for tables that must cover them all.
            pub const ALL: &[ErrorKind] = &[$(ErrorKind::$name,)*];

            /// The stable kebab-case name.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorKind::$name => $text,)* }
            }
        }
    };
}

kinds! {
    /// The text is not a statement of the language.
    InvalidSyntax = "invalid-syntax",
    /// A stream's columns, body or functions do not hold together.
    InvalidDefinition = "invalid-definition",
    /// A setting that is unknown, malformed, missing or at odds with another.
    InvalidSetting = "invalid-setting",
    /// A statement that asks for something wrong: a bad argument, a constraint that rows violate.
    InvalidArgument = "invalid-argument",
    /// A value that does not fit its column, or a shape that does not fit the mode.
    TypeMismatch = "type-mismatch",
    /// The user's code raised.
    PythonException = "python-exception",
    /// Ended on request.
    Cancelled = "cancelled",
    /// Not ended within its time.
    Timeout = "timeout",
    /// Nobody knows who the caller is.
    Unauthenticated = "unauthenticated",
    /// The caller may not do this.
    PermissionDenied = "permission-denied",
    /// No such stream, table, query, handle.
    NotFound = "not-found",
    /// The name is taken.
    AlreadyExists = "already-exists",
    /// Understood, and not offered.
    Unsupported = "unsupported",
    /// Memory, disk or another limited thing is used up.
    ResourcesExhausted = "resources-exhausted",
    /// Not now: the server is ending, or is not ready.
    Unavailable = "unavailable",
    /// A defect of Couatl or of what it is built on.
    Internal = "internal",
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong: a [kind](ErrorKind), a message, and what it was about.
///
/// Its `Display` is the message alone: what was expected, what was found, what to do, in lower case and without a full
/// stop. Context is for logs and programs.
///
/// ```
/// use couatl_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::NotFound, "no stream 'users'").with_context("stream", "users");
/// assert_eq!(error.to_string(), "no stream 'users'");
/// assert_eq!(error.kind().as_str(), "not-found");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    /// Where in the message tracebacks stand.
    tracebacks: Vec<Range<usize>>,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of a kind, with its message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let tracebacks = Vec::new();
        Self(Box::new(Inner { kind, message: message.into(), tracebacks, context: Vec::new(), source: None }))
    }

    /// The same error, with one more thing that it is about.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.0.context.push((key, value.into()));
        self
    }

    /// The same error, with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, with its message continued.
    #[must_use]
    pub fn with_note(mut self, note: impl AsRef<str>) -> Self {
        self.0.message.push_str(note.as_ref());
        self
    }

    /// The same error, with the traceback of user code on the next lines of its message.
    #[must_use]
    pub fn with_traceback(mut self, traceback: impl AsRef<str>) -> Self {
        let start = self.0.message.len();
        self.0.message.push('\n');
        self.0.message.push_str(traceback.as_ref());
        self.0.tracebacks.push(start..self.0.message.len());
        self
    }

    /// The same error, with what went wrong after it: in cleaning up.
    #[must_use]
    pub fn with_cleanup(mut self, error: &Self) -> Self {
        self.0.message.push_str("\nand then, cleaning up: ");
        let start = self.0.message.len();
        self.0.message.push_str(&error.0.message);
        self.0.tracebacks.extend(error.0.tracebacks.iter().map(|range| range.start + start..range.end + start));
        self
    }

    /// The same error for those who may not see the code that it comes from; None where it shows none.
    pub fn without_tracebacks(&self) -> Option<Self> {
        let last = self.0.tracebacks.last()?;
        let mut message = String::new();
        let mut from = 0;
        for range in &self.0.tracebacks {
            message.push_str(&self.0.message[from..range.start]);
            from = range.end;
        }
        message.push_str(&self.0.message[last.end..]);
        let context = self.0.context.clone();
        Some(Self(Box::new(Inner { kind: self.0.kind, message, tracebacks: Vec::new(), context, source: None })))
    }

    /// The same error, of a write that had handed over rows before it failed: they are not taken back.
    #[must_use]
    pub fn with_accepted(self, rows: u64) -> Self {
        let plural = if rows == 1 { "" } else { "s" };
        self.with_note(format!("\nthe write function had accepted {rows} row{plural} before"))
    }

    /// The same error in other words. What caused it is left out then: it would say what it says still.
    #[must_use]
    pub(crate) fn map_texts(mut self, change: impl Fn(String) -> String) -> Self {
        let message = change(self.0.message.clone());
        if message != self.0.message {
            self.0.message = message;
            self.0.tracebacks.clear();
            self.0.source = None;
        }
        for (_, value) in &mut self.0.context {
            *value = change(std::mem::take(value));
        }
        self
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What it is about, in the order in which it was said.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(key, value)| (*key, value.as_str()))
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident,)*) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Self::new(ErrorKind::$kind, message) })*
        }
    };
}

constructors! {
    /// An error of kind [`ErrorKind::InvalidSyntax`].
    invalid_syntax => InvalidSyntax,
    /// An error of kind [`ErrorKind::InvalidDefinition`].
    invalid_definition => InvalidDefinition,
    /// An error of kind [`ErrorKind::InvalidSetting`].
    invalid_setting => InvalidSetting,
    /// An error of kind [`ErrorKind::InvalidArgument`].
    invalid_argument => InvalidArgument,
    /// An error of kind [`ErrorKind::TypeMismatch`].
    type_mismatch => TypeMismatch,
    /// An error of kind [`ErrorKind::Cancelled`].
    cancelled => Cancelled,
    /// An error of kind [`ErrorKind::NotFound`].
    not_found => NotFound,
    /// An error of kind [`ErrorKind::AlreadyExists`].
    already_exists => AlreadyExists,
    /// An error of kind [`ErrorKind::Unsupported`].
    unsupported => Unsupported,
    /// An error of kind [`ErrorKind::Internal`].
    internal => Internal,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.0.message);
        for (key, value) in &self.0.context {
            out.field(key, value);
        }
        out.field("source", &self.0.source).finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::internal(error.to_string()).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracebacks_are_taken_out_of_whatever_is_said_around_them() {
        let cleanup = Error::internal("no close").with_traceback("Traceback: close");
        let error = Error::internal("boom").with_traceback("Traceback: read").with_cleanup(&cleanup).with_note("; so");
        let whole = "boom\nTraceback: read\nand then, cleaning up: no close\nTraceback: close; so";
        assert_eq!(error.to_string(), whole);
        assert_eq!(error.without_tracebacks().unwrap().to_string(), "boom\nand then, cleaning up: no close; so");
        assert!(Error::internal("boom").without_tracebacks().is_none());
    }
}
