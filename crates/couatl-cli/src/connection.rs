//! Where statements run: the contract that an engine in this process and a server elsewhere have in common.

use std::future::Future;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use couatl_core::Result;
use futures::stream::BoxStream;

/// Something that runs statements, one at a time.
pub(crate) trait Connection {
    /// Runs one statement. Dropping the future, or the rows that it gave, cancels the statement.
    fn run(&mut self, statement: &str) -> impl Future<Output = Result<Answer>>;

    /// Waits, for a bounded time, until what was cancelled has cleaned up.
    fn close(self) -> impl Future<Output = ()>;
}

/// What a statement gives.
pub(crate) enum Answer {
    /// Rows, as they come.
    Rows(SchemaRef, BoxStream<'static, Result<RecordBatch>>),
    /// Done; the number of rows written where the statement counts them.
    Updated(Option<u64>),
}
