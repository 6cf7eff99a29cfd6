//! Who waits for a query, and leaves.
//!
//! Whoever drops a query's stream has left, and the query ends. What computes at that moment cannot be dropped, though: the
//! query hears of it here, and lets the Python that it waits for know.

use tokio_util::sync::CancellationToken;

tokio::task_local! {
    static LEFT: CancellationToken;
}

/// Runs a future for somebody: the queries that begin in it are cancelled when the token is.
pub async fn waited_for<F: Future>(future: F, left: CancellationToken) -> F::Output {
    LEFT.scope(left, future).await
}

/// What says that whoever waits for this task has left.
pub(crate) fn left() -> Option<CancellationToken> {
    LEFT.try_with(Clone::clone).ok()
}
