//! The reading side of a stream.
//!
//! ```text
//!   Source::open(request) -> [Partition]      once per execution; init runs before it resolves
//!     Partition::next_batch() … None | Err    pulled; waits without blocking the caller's thread
//!     Partition::close()                      once; resolves when user code has been cleaned up
//!   request.finish(outcome)                   exactly once, after the cleanup of the whole scan
//! ```

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::{Input, Metrics, Mode, OpenContext, Result};

/// Something that can be read any number of times, also at once: each [`open`](Self::open) is independent.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// The name of the stream, for messages and thread names.
    fn name(&self) -> &str;

    /// Every column it has, whether or not a scan asks for it.
    fn schema(&self) -> SchemaRef;

    /// Whether its rows end.
    fn mode(&self) -> Mode;

    /// Starts a scan and gives its partitions, each to be pulled by its own owner.
    ///
    /// Dropping the future cancels the scan: what has been started is interrupted and cleaned up in the background,
    /// and `request.finish` is called when that is done.
    ///
    /// # Errors
    /// Whatever the import of the body or its init function raises; nothing is left to close then.
    async fn open(&self, request: ScanRequest) -> Result<Vec<Box<dyn Partition>>>;
}

/// What one scan wants of a source.
#[derive(Debug)]
pub struct ScanRequest {
    /// The columns to deliver, as positions in [`Source::schema`], in the order wanted. May be empty: then batches have
    /// a row count and no columns.
    pub projection: Vec<usize>,
    /// Rows after which the scan may end by itself.
    pub fetch: Option<usize>,
    /// What its code is told.
    pub context: Arc<OpenContext>,
    /// Where the scan counts its work.
    pub metrics: Arc<Metrics>,
    /// Told once that the scan, cleanup included, is over.
    pub finish: Finish,
    /// What it reads itself, where the source is a call of a function that reads a table.
    pub input: Option<Input>,
}

/// One independently readable part of a source, open for one scan.
#[async_trait]
pub trait Partition: Send {
    /// The next rows, in the partition's order, as soon as there are any. `None` is the end; it is not called again
    /// after `None` or an error.
    ///
    /// Cancel-safe: dropping the future loses no rows.
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>>;

    /// Stops what still runs, cleans up, and resolves when that is done. Dropping a partition does the same in the
    /// background.
    ///
    /// # Errors
    /// What the cleanup raised.
    async fn close(&mut self) -> Result<()>;
}

/// Told exactly once, from any thread, that a scan or a write is over and cleaned up, and how the cleanup went.
pub struct Finish(Option<Box<dyn FnOnce(Result<()>) + Send>>);

impl Finish {
    /// Calls this.
    pub fn new(call: impl FnOnce(Result<()>) + Send + 'static) -> Self {
        Self(Some(Box::new(call)))
    }

    /// Nobody listens.
    pub fn ignore() -> Self {
        Self(None)
    }

    /// The work is over. An error is one that nobody else has been told.
    pub fn report(mut self, outcome: Result<()>) {
        if let Some(call) = self.0.take() {
            call(outcome);
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call(Ok(()));
        }
    }
}

impl Debug for Finish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Finish")
    }
}
