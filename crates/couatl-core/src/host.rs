//! Who turns definitions into streams that can be read and written.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::{Error, Function, FunctionDefinition, OpenContext, Result, Sink, Source, StreamDefinition};

/// An implementation of the contracts: the embedded interpreter, a worker process, or a test's own.
pub trait Host: Debug + Send + Sync {
    /// Checks a definition without running its body, and gives the stream.
    ///
    /// Called once per `CREATE EXTERNAL STREAM`. It may wait for the interpreter: call it where blocking is allowed.
    ///
    /// # Errors
    /// `invalid-definition` where the body does not compile, where it does not bind the functions that the definition
    /// names, or where one of them cannot be called as it must be.
    fn stream(&self, definition: Arc<StreamDefinition>) -> Result<Stream>;

    /// Checks a function without running its body, and gives it. Called once per `CREATE FUNCTION`, like
    /// [`stream`](Self::stream).
    ///
    /// # Errors
    /// `invalid-definition` where the body does not compile, or does not bind what is to be called.
    fn function(&self, definition: Arc<FunctionDefinition>) -> Result<Function> {
        let name = &definition.name;
        Err(Error::unsupported(format!("function '{name}': this host knows no functions")))
    }

    /// The columns that the class of a connector gives, for a statement without any. Called like
    /// [`stream`](Self::stream), and before it.
    ///
    /// # Errors
    /// `invalid-definition` where the class cannot be had, does not take its options, or leaves its columns to the
    /// statement.
    fn columns(&self, definition: &StreamDefinition, context: &OpenContext) -> Result<Columns> {
        let _ = context;
        let name = &definition.name;
        Err(Error::unsupported(format!("stream '{name}': expected columns, as this host knows no connectors")))
    }

    /// The connectors that are installed. None of them is imported for that. Called like [`stream`](Self::stream).
    ///
    /// # Errors
    /// `internal`, where the host cannot look.
    fn connectors(&self) -> Result<Vec<Registered>> {
        Ok(Vec::new())
    }
}

/// A connector that an installed package brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// What statements call it.
    pub name: String,
    /// What it does: `source`, `sink`, `function` or `transform`.
    pub kind: String,
    /// The package, as it is installed.
    pub distribution: String,
    /// The package's version.
    pub version: String,
    /// `listed`, `loaded`, `failed: …` or `hidden: …`.
    pub state: String,
    /// Its options, with types and defaults, once it was loaded.
    pub options: String,
}

/// The columns that a connector says it has.
#[derive(Debug, Clone, PartialEq)]
pub enum Columns {
    /// As a statement has them between its parentheses.
    Text(String),
    /// As Arrow has them.
    Schema(SchemaRef),
}

/// A checked stream: its two sides, and what they were made from.
#[derive(Debug, Clone)]
pub struct Stream {
    /// What it was made from.
    pub definition: Arc<StreamDefinition>,
    /// Its reading side.
    pub source: Arc<dyn Source>,
    /// Its writing side.
    pub sink: Arc<dyn Sink>,
}
