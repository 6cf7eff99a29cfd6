//! Session options: what SetSessionOptions, GetSessionOptions and CloseSession say, and what it does to a session.
//!
//! The messages are Flight's own; arrow-flight does not have them.

use std::collections::HashMap;

use couatl_core::ErrorKind;
use couatl_datafusion::Session;
use tracing::debug;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Truth(bool),
    #[prost(sfixed64, tag = "3")]
    Integer(i64),
    #[prost(double, tag = "4")]
    Number(f64),
    #[prost(message, tag = "5")]
    Texts(Texts),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

/// SetSessionOptionsRequest, and GetSessionOptionsResult.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Options {
    #[prost(map = "string, message", tag = "1")]
    options: HashMap<String, OptionValue>,
}

/// SetSessionOptionsResult: the options that were not set.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SetResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OptionError {
    #[prost(enumeration = "Misfit", tag = "1")]
    value: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
enum Misfit {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

/// CloseSessionResult.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CloseResult {
    #[prost(enumeration = "CloseStatus", tag = "1")]
    status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
enum CloseStatus {
    Unspecified = 0,
    Closed = 1,
    Closing = 2,
    NotCloseable = 3,
}

impl CloseResult {
    /// The session is closed.
    pub(crate) fn closed() -> Self {
        Self { status: CloseStatus::Closed.into() }
    }
}

impl OptionValue {
    /// As a setting is written; None is a value that was taken away.
    fn text(&self) -> Option<String> {
        Some(match self.value.as_ref()? {
            Value::Text(text) => text.clone(),
            Value::Truth(truth) => truth.to_string(),
            Value::Integer(integer) => integer.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Texts(texts) => texts.values.join(","),
        })
    }
}

/// Sets what can be set, in the order of the names, and says what cannot.
pub(crate) fn set(session: &Session, request: &Options) -> SetResult {
    let mut names: Vec<&String> = request.options.keys().collect();
    names.sort();
    let refused = names.into_iter().filter_map(|name| {
        let error = session.set_option(name, request.options[name].text().as_deref()).err()?;
        debug!(name, %error, "a session option was refused");
        let value = match error.kind() {
            ErrorKind::NotFound => Misfit::InvalidName,
            ErrorKind::InvalidSetting => Misfit::InvalidValue,
            _ => Misfit::Error,
        };
        Some((name.clone(), OptionError { value: value.into() }))
    });
    SetResult { errors: refused.collect() }
}

/// The options that have a value.
pub(crate) fn get(session: &Session) -> Options {
    let set = session.options().into_iter().filter_map(|(name, value)| Some((name, value?)));
    Options { options: set.map(|(name, value)| (name, OptionValue { value: Some(Value::Text(value)) })).collect() }
}
