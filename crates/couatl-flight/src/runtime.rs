//! The way to the query runtime and back.
//!
//! Queries do not run where sockets are served: whatever blocks a poll there (a Python function, a large sort) stalls
//! other queries, but never the server. A task on the query runtime lives as long as somebody waits for what it gives:
//! dropping the future or the stream that this module returns aborts the task, and the task drops the query; where that
//! computes at the moment, it is told.

use couatl_core::{Error, Result, hidden};
use couatl_datafusion::waited_for;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

/// How many items of a stream may wait for the client. A client that stops reading stops the query.
const CHANNEL_ITEMS: usize = 4;

const CANCELLED: &str = "the query was cancelled by its client";
const OVER: &str = "the query was ended: the server is shutting down";

/// Where queries run.
#[derive(Debug, Clone)]
pub(crate) struct QueryRuntime {
    handle: Handle,
    over: CancellationToken,
}

impl QueryRuntime {
    /// A way to a runtime. Once `over` is cancelled, streams whose clients do not read are ended.
    pub(crate) fn new(handle: Handle, over: CancellationToken) -> Self {
        Self { handle, over }
    }

    /// Runs a future there to its end.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let left = CancellationToken::new();
        let _leaving = left.clone().drop_guard();
        let task = AbortOnDropHandle::new(self.handle.spawn(waited_for(future, left)));
        task.await.unwrap_or_else(|error| Err(lost(error)))
    }

    /// Pulls a stream there. Items arrive as soon as they are made; an error is the last of them, and `cancelled` makes
    /// one.
    pub(crate) fn stream<T: Send + 'static>(
        &self,
        items: BoxStream<'static, Result<T>>,
        cancelled: CancellationToken,
    ) -> BoxStream<'static, Result<T>> {
        let (sender, receiver) = mpsc::channel(CHANNEL_ITEMS);
        let left = cancelled.child_token();
        let leaving = left.clone().drop_guard();
        let pulling = pull(items, sender, self.over.clone(), cancelled);
        let task = AbortOnDropHandle::new(self.handle.spawn(waited_for(pulling, left)));
        // The channel closes when the task ends, however it ends. Only the task knows whether it was in order.
        let end = stream::once(task).filter_map(async |end| end.err().map(|error| Err(lost(error))));
        let items = ReceiverStream::new(receiver).chain(end);
        items
            .map(move |item| {
                let _ = &leaving;
                item
            })
            .boxed()
    }
}

async fn pull<T>(
    mut items: BoxStream<'static, Result<T>>,
    sender: mpsc::Sender<Result<T>>,
    over: CancellationToken,
    cancelled: CancellationToken,
) {
    let reason = loop {
        let item = tokio::select! {
            biased;
            () = cancelled.cancelled() => break CANCELLED,
            item = items.next() => item,
        };
        let Some(item) = item else { return };
        if let Err(error) = &item {
            // Escaped: what users write into messages must not look like lines of the log.
            warn!(kind = %error.kind(), error = ?hidden(&error.to_string()), "a query failed");
            drop(items);
            let _ = sender.send(item).await;
            return;
        }
        tokio::select! {
            biased;
            sent = sender.send(item) => if sent.is_err() {
                debug!("a client left");
                return;
            },
            () = cancelled.cancelled() => break CANCELLED,
            () = over.cancelled() => break OVER,
        }
    };
    // First the query, which may hold what the shutdown waits for; then, if the client reads on, why.
    drop(items);
    let _ = sender.send(Err(Error::cancelled(reason))).await;
}

/// The error for a task that gave no answer.
fn lost(error: JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Error::internal(format!("a query panicked: {message}"))
        }
        Err(_) => Error::cancelled(OVER),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use couatl_core::ErrorKind;

    use super::*;

    fn runtime() -> (QueryRuntime, CancellationToken) {
        let over = CancellationToken::new();
        (QueryRuntime::new(Handle::current(), over.clone()), over)
    }

    fn stream_of<T: Send + 'static>(
        runtime: &QueryRuntime,
        items: impl futures::Stream<Item = Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        runtime.stream(items.boxed(), CancellationToken::new())
    }

    /// A future or a stream holds it, and the test sees when it is gone.
    fn held() -> (Arc<()>, impl Fn() -> bool) {
        let held = Arc::new(());
        let seen = Arc::downgrade(&held);
        (held, move || seen.strong_count() == 0)
    }

    async fn until(condition: impl Fn() -> bool) {
        for _ in 0..1000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("it never happened");
    }

    #[tokio::test]
    async fn an_answer_comes_back() {
        let (runtime, _over) = runtime();
        assert_eq!(runtime.run(async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(runtime.run::<()>(async { Err(Error::not_found("no")) }).await.unwrap_err().to_string(), "no");
        let items: Vec<i32> = stream_of(&runtime, stream::iter([Ok(1), Ok(2)])).map(Result::unwrap).collect().await;
        assert_eq!(items, [1, 2]);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_never_an_end() {
        let (runtime, _over) = runtime();
        let error = runtime.run::<()>(async { panic!("boom") }).await.unwrap_err();
        assert_eq!(error.to_string(), "a query panicked: boom");
        let items = stream::iter([1, 0]).map(|n| if n == 0 { panic!("at {n}") } else { Ok(n) });
        let items: Vec<Result<i32>> = stream_of(&runtime, items).collect().await;
        assert_eq!(items[0].as_ref().unwrap(), &1);
        assert_eq!(items[1].as_ref().unwrap_err().to_string(), "a query panicked: at 0");
        assert_eq!(items.len(), 2);
    }

    #[tokio::test]
    async fn an_error_is_the_last_item() {
        let (runtime, _over) = runtime();
        let items = stream::iter([Ok(1), Err(Error::cancelled("killed")), Ok(2)]);
        let items: Vec<Result<i32>> = stream_of(&runtime, items).collect().await;
        assert_eq!(items.len(), 2);
        assert_eq!(items[1].as_ref().unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[tokio::test]
    async fn dropping_the_answer_drops_the_work() {
        let (runtime, _over) = runtime();
        let (held, gone) = held();
        let mut run = Box::pin(runtime.run(async move {
            let _held = held;
            std::future::pending::<Result<()>>().await
        }));
        assert!(futures::poll!(&mut run).is_pending());
        tokio::task::yield_now().await;
        assert!(!gone());
        drop(run);
        until(gone).await;
    }

    #[tokio::test]
    async fn dropping_the_stream_drops_the_work_even_when_it_is_idle() {
        let (runtime, _over) = runtime();
        let (held, gone) = held();
        let items = stream::once(async { Ok(1) }).chain(stream::pending()).map(move |item| {
            let _held = &held;
            item
        });
        let mut items = stream_of(&runtime, items);
        assert_eq!(items.next().await.unwrap().unwrap(), 1);
        assert!(!gone());
        drop(items);
        until(gone).await;
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_stops_the_query_and_does_not_outlive_the_server() {
        let (runtime, over) = runtime();
        let (held, gone) = held();
        let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let items = stream::repeat_with(move || {
            let _held = &held;
            Ok(count.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        });
        let items = stream_of(&runtime, items);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(made.load(std::sync::atomic::Ordering::Relaxed), CHANNEL_ITEMS + 1);
        over.cancel();
        until(gone).await;
        let rest: Vec<Result<usize>> = items.collect().await;
        assert_eq!(rest.last().unwrap().as_ref().unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[tokio::test]
    async fn a_cancelled_stream_ends_with_the_reason_whatever_it_waits_for() {
        let (runtime, _over) = runtime();
        let (held, gone) = held();
        let cancelled = CancellationToken::new();
        let items = stream::once(async { Ok(1) }).chain(stream::pending()).map(move |item| {
            let _held = &held;
            item
        });
        let mut items = runtime.stream(items.boxed(), cancelled.clone());
        assert_eq!(items.next().await.unwrap().unwrap(), 1);
        cancelled.cancel();
        assert_eq!(items.next().await.unwrap().unwrap_err().to_string(), CANCELLED);
        assert!(items.next().await.is_none());
        assert!(gone());
    }
}
