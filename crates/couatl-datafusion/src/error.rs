//! Between DataFusion's errors and ours.

use couatl_core::{Error, ErrorKind};
use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

/// Our error on its way through DataFusion.
pub fn into_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The Couatl error that travels inside a DataFusion error, else one of the kind that fits.
pub fn from_datafusion(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(inner) => from_datafusion(*inner),
                Err(inner) => Error::internal(inner.to_string()).with_source(inner),
            },
        },
        DataFusionError::ArrowError(inner, backtrace) => match *inner {
            ArrowError::ExternalError(inner) => from_datafusion(DataFusionError::External(inner)),
            inner => foreign(DataFusionError::ArrowError(Box::new(inner), backtrace)),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => from_datafusion(*inner),
        DataFusionError::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
            Ok(inner) => from_datafusion(inner),
            Err(shared) => Error::new(kind(&shared), message(&shared)),
        },
        DataFusionError::Collection(mut errors) if !errors.is_empty() => from_datafusion(errors.swap_remove(0)),
        error => foreign(error),
    }
}

fn foreign(error: DataFusionError) -> Error {
    Error::new(kind(&error), message(&error)).with_source(error)
}

/// DataFusion's words, without its label and its backtrace.
fn message(error: &DataFusionError) -> String {
    if let Some(inner) = ours(error) {
        return inner.to_string();
    }
    if let DataFusionError::SQL(parser, _) = error.find_root() {
        // Its own words, without the names of its variants.
        return match &**parser {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
            ParserError::RecursionLimitExceeded => "the statement is nested too deeply".into(),
        };
    }
    let text = error.message();
    let text = text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default().trim_end();
    // What it takes for a mistake of its own is most often one of the statement.
    let text = text.split(".\nThis issue was likely caused by a bug in DataFusion's code").next().unwrap_or_default();
    let text = text.strip_prefix("Internal error: ").unwrap_or(text);
    let trees = [
        "Unsupported ast node in sqltorel: ",
        "Unsupported ast node ",
        "Unsupported expr ",
        "Unsupported value ",
        "SET variant not implemented yet: ",
    ];
    if let Some(tree) = trees.iter().find_map(|label| text.strip_prefix(label)) {
        // What it calls the piece, without all that is below it in the parser's tree.
        let piece = tree.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        return format!("'{piece}' (in the parser's words) is not offered here");
    }
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => {
            // What others keep is not told.
            let text = text.split(" with top memory consumers").next().unwrap_or_default();
            format!("the memory limit is reached: raise it, or let the query keep fewer rows at once ({text})")
        }
        _ => text.to_owned(),
    }
}

fn ours(error: &DataFusionError) -> Option<&Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours);
        }
        next = error.source();
    }
    None
}

/// What sort of failure it is.
pub(crate) fn kind(error: &DataFusionError) -> ErrorKind {
    if let Some(inner) = ours(error) {
        return inner.kind();
    }
    match error.find_root() {
        DataFusionError::SQL(..) => ErrorKind::InvalidSyntax,
        DataFusionError::NotImplemented(_) => ErrorKind::Unsupported,
        DataFusionError::ResourcesExhausted(_) => ErrorKind::ResourcesExhausted,
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => ErrorKind::NotFound,
        DataFusionError::Plan(text) if text.contains("not found") => ErrorKind::NotFound,
        DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Configuration(_)
        | DataFusionError::ArrowError(..)
        | DataFusionError::ParquetError(_) => ErrorKind::InvalidArgument,
        // "Table 'x' already exists" comes as one of these.
        DataFusionError::Execution(text) if text.contains("already exists") => ErrorKind::AlreadyExists,
        DataFusionError::Execution(text) if text.ends_with("doesn't exist.") => ErrorKind::NotFound,
        DataFusionError::Execution(_) => ErrorKind::InvalidArgument,
        _ => ErrorKind::Internal,
    }
}
