//! What a client is told when something fails: the table from error kinds to gRPC codes, and the message.
//!
//! Every refusal of this crate is a [`couatl_core::Error`] first, and becomes a status here and nowhere else.

use std::borrow::Cow;

use arrow_flight::error::FlightError;
use couatl_core::{Error, ErrorKind};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::stream::MAX_MESSAGE_BYTES;

/// The metadata entry that carries the error's kind, for clients that want more than a gRPC code.
pub(crate) const ERROR_KIND: &str = "x-couatl-error-kind";

/// How many bytes a message may take in the trailers. Clients allow as little as 8 KiB for all of them together.
const MESSAGE_BYTES: usize = 6 * 1024;

/// The gRPC code of a kind.
pub(crate) fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidSyntax
        | ErrorKind::InvalidDefinition
        | ErrorKind::InvalidSetting
        | ErrorKind::InvalidArgument
        | ErrorKind::TypeMismatch => Code::InvalidArgument,
        // What gRPC's own servers answer when the code that they serve raises.
        ErrorKind::PythonException => Code::Unknown,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::ResourcesExhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        // Kinds that this table does not know are ours to add: a test holds it against `ErrorKind::ALL`.
        _ => Code::Internal,
    }
}

/// The status that tells a client of an error.
pub(crate) fn status(error: &Error) -> Status {
    // A driver in C ends a text at its first NUL.
    let message = error.to_string().replace('\0', "\\0");
    let mut status = Status::new(code(error.kind()), shortened(&message, MESSAGE_BYTES));
    status.metadata_mut().insert(ERROR_KIND, MetadataValue::from_static(error.kind().as_str()));
    status
}

/// The status for an answer that could not be put together.
pub(crate) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Status {
    status(&Error::internal(error.to_string()).with_source(error))
}

/// The status of a message that could not be taken. Tonic says of what is too large that it is out of a range.
pub(crate) fn oversized(refused: Status) -> Status {
    if refused.code() != Code::OutOfRange {
        return refused;
    }
    let message = format!(
        "a message takes more than {MAX_MESSAGE_BYTES} bytes, which is the most that one may: send rows in smaller \
         batches, and long values as parameters"
    );
    status(&Error::new(ErrorKind::ResourcesExhausted, message))
}

/// The status for an upload that could not be read.
pub(crate) fn upload(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        error => status(&Error::invalid_argument(format!("cannot read the upload: {error}"))),
    }
}

/// The message, or, where it is too long, its head and its tail: a traceback says what was called first, and says what
/// went wrong last.
fn shortened(message: &str, limit: usize) -> Cow<'_, str> {
    let total: usize = message.bytes().map(encoded_bytes).sum();
    if total <= limit {
        return Cow::Borrowed(message);
    }
    let half = limit.saturating_sub(64) / 2;
    let head = taken(message.char_indices().map(|(at, c)| (at + c.len_utf8(), c)), half).unwrap_or(0);
    let tail = taken(message.char_indices().rev(), half).unwrap_or(message.len());
    let left_out = tail - head;
    Cow::Owned(format!("{}\n... ({left_out} bytes left out) ...\n{}", &message[..head], &message[tail..]))
}

/// The last of the positions whose characters fit into a number of encoded bytes.
fn taken(characters: impl Iterator<Item = (usize, char)>, limit: usize) -> Option<usize> {
    let mut used = 0;
    characters
        .take_while(|(_, c)| {
            used += c.encode_utf8(&mut [0; 4]).bytes().map(encoded_bytes).sum::<usize>();
            used <= limit
        })
        .last()
        .map(|(at, _)| at)
}

/// What a byte of a message takes in a header: tonic percent-encodes all that is not plain.
fn encoded_bytes(byte: u8) -> usize {
    match byte {
        b' ' | b'"' | b'#' | b'%' | b'<' | b'>' | b'`' | b'?' | b'{' | b'}' => 3,
        byte if byte.is_ascii() && !byte.is_ascii_control() => 1,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_code_of_its_own_meaning() {
        assert!(ErrorKind::ALL.len() > 10);
        for kind in ErrorKind::ALL {
            assert_eq!(code(*kind) == Code::Internal, *kind == ErrorKind::Internal, "{kind}");
        }
    }

    #[test]
    fn a_status_says_the_message_and_the_kind() {
        let status = status(&Error::not_found("no stream 'users'").with_context("stream", "users"));
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "no stream 'users'");
        assert_eq!(status.metadata().get(ERROR_KIND).unwrap(), "not-found");
    }

    #[test]
    fn what_tonic_does_not_take_for_its_size_has_a_kind() {
        let refused = oversized(Status::out_of_range("decoded message length too large"));
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("16777216 bytes"), "{refused}");
        assert_eq!(oversized(Status::cancelled("the client left")).code(), Code::Cancelled);
    }

    #[test]
    fn a_short_message_stays_as_it_is() {
        let traceback = "boom\n  File \"clock\", line 3\n    yield 1/0\nZeroDivisionError: division by zero";
        assert_eq!(status(&Error::internal(traceback)).message(), traceback);
    }

    #[test]
    fn a_long_message_keeps_its_head_and_its_tail_and_fits_a_header() {
        for filler in ["a line of a traceback\n", "é", "\u{1F40D}", "%", "x"] {
            let message = format!("stream 'clock': {}ValueError: the end", filler.repeat(20_000));
            let short = shortened(&message, MESSAGE_BYTES);
            assert!(short.starts_with("stream 'clock': "), "{filler}");
            assert!(short.ends_with("ValueError: the end"), "{filler}");
            assert!(short.contains("bytes left out"), "{filler}");
            let encoded: usize = short.bytes().map(encoded_bytes).sum();
            assert!(encoded <= MESSAGE_BYTES && encoded > MESSAGE_BYTES - 256, "{filler}: {encoded}");
        }
    }

    #[test]
    fn an_upload_that_failed_on_its_way_keeps_its_status() {
        let kept = upload(FlightError::Tonic(Box::new(Status::cancelled("the client left"))));
        assert_eq!(kept.code(), Code::Cancelled);
        assert_eq!(upload(FlightError::protocol("no schema")).code(), Code::InvalidArgument);
    }
}
