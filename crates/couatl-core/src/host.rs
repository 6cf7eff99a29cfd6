//! Who turns definitions into streams that can be read and written.

use std::fmt::Debug;
use std::sync::Arc;

use crate::{Result, Sink, Source, StreamDefinition};

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
