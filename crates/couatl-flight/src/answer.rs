//! An answer on its way: the call that it answers goes on until it has left, which a shutdown waits for.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The body of an answer, and its call.
pub(crate) struct Answer<B> {
    body: B,
    _call: TaskTrackerToken,
}

impl<B> Answer<B> {
    pub(crate) fn new(body: B, call: TaskTrackerToken) -> Self {
        Self { body, _call: call }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
