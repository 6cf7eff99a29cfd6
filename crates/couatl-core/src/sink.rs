//! The writing side of a stream.
//!
//! ```text
//!   Sink::open(request) -> SinkWriter         once per execution; init runs before it resolves
//!     SinkWriter::write(batch) …              one after the other
//!     SinkWriter::commit() | abort()          once; resolves when user code has been cleaned up
//!   request.finish(outcome)                   exactly once, after the cleanup
//! ```

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::{Finish, Metrics, OpenContext, Result};

/// Something that can be written any number of times, also at once: each [`open`](Self::open) is independent.
#[async_trait]
pub trait Sink: Debug + Send + Sync {
    /// The name of the stream, for messages and thread names.
    fn name(&self) -> &str;

    /// The columns it takes, in this order.
    fn schema(&self) -> SchemaRef;

    /// Starts a write. Dropping the future cancels it, as dropping the writer does.
    ///
    /// # Errors
    /// Whatever the import of the body or its init function raises, or a write function that cannot be called with
    /// these columns; nothing is left to close then.
    async fn open(&self, request: WriteRequest) -> Result<Box<dyn SinkWriter>>;
}

/// What one write wants of a sink.
#[derive(Debug)]
pub struct WriteRequest {
    /// What its code is told.
    pub context: Arc<OpenContext>,
    /// Where the write counts its work.
    pub metrics: Arc<Metrics>,
    /// Told once that the write, cleanup included, is over.
    pub finish: Finish,
}

/// A sink that is open for one write. Dropping it without [`commit`](Self::commit) aborts in the background.
#[async_trait]
pub trait SinkWriter: Send {
    /// Hands over one batch with the columns of [`Sink::schema`]; resolves when it was accepted.
    ///
    /// # Errors
    /// What the user's function raised. The writer is over then: only [`abort`](Self::abort) may follow.
    async fn write(&mut self, batch: RecordBatch) -> Result<()>;

    /// Ends the write and cleans up. Gives the number of rows accepted.
    ///
    /// # Errors
    /// What the last writes or the cleanup raised.
    async fn commit(&mut self) -> Result<u64>;

    /// Interrupts what still runs, cleans up, and resolves when that is done.
    ///
    /// # Errors
    /// What the cleanup raised.
    async fn abort(&mut self) -> Result<()>;
}
