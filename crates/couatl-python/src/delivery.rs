//! The way of rows from a Python thread to an async consumer.
//!
//! ```text
//!   producer (a thread that holds the GIL)            consumer (async)
//!     push: a full parcel  ----> queue, bounded ---->   at once
//!     publish: the builders ---> slot           ---->   at once after an idle gap, else when the linger is over
//!     next() runs user code …
//!     take_back: the builders, unless the consumer has taken them
//!     finish: the outcome  ------------------------->   after everything else
//! ```
//!
//! Order holds because a parcel is pushed before the builders that follow it are published, and the consumer takes
//! from the slot only while it holds the queue's lock and has found the queue empty.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use couatl_core::{Finish, Result};
use futures::task::AtomicWaker;
use parking_lot::{Condvar, Mutex};
use tokio::time::Sleep;

use crate::slot::Slot;

/// Parcels that may wait in the queue: one for the consumer to come, one so that the producer can go on meanwhile.
const QUEUE_PARCELS: usize = 2;

/// What the consumer wants to be woken for.
const FULL: u8 = 0;
const ANY: u8 = 1;

/// Both ends of the way, which share it in an `Arc`: of builders that may become parcels, and of parcels.
pub(crate) struct Delivery<B, P> {
    slot: Slot<B>,
    wish: AtomicU8,
    queue: Mutex<Queue<P>>,
    room: Condvar,
    consumer: AtomicWaker,
}

struct Queue<P> {
    parcels: VecDeque<P>,
    /// Set once, by the producer, when it is over and cleaned up.
    outcome: Option<(Result<()>, Finish)>,
    finished: bool,
    /// Set when the consumer wants no more: pushing no longer waits.
    closed: bool,
    /// Set when there is no consumer any more to be told the outcome.
    abandoned: bool,
}

impl<P> Queue<P> {
    /// Tells the consumer the outcome; `Ok` if it has been told already.
    fn tell(&mut self) -> Result<()> {
        let Some((outcome, finish)) = self.outcome.take() else { return Ok(()) };
        finish.report(Ok(()));
        outcome
    }
}

impl<B, P: From<Box<B>>> Delivery<B, P> {
    pub(crate) fn new() -> Self {
        let queue = Queue { parcels: VecDeque::new(), outcome: None, finished: false, closed: false, abandoned: false };
        Self {
            slot: Slot::new(),
            wish: AtomicU8::new(FULL),
            queue: Mutex::new(queue),
            room: Condvar::new(),
            consumer: AtomicWaker::new(),
        }
    }

    /// Producer: leaves unfinished builders where the consumer may take them.
    #[inline]
    pub(crate) fn publish(&self, builders: Box<B>) {
        self.slot.put(builders);
        if self.wish.load(SeqCst) == ANY {
            self.wish.store(FULL, SeqCst);
            self.consumer.wake();
        }
    }

    /// Producer: takes the builders back; `None` if the consumer has them.
    #[inline]
    pub(crate) fn take_back(&self) -> Option<Box<B>> {
        self.slot.take()
    }

    /// Producer: hands over a parcel, or gives it back where there is no room. Parcels for a consumer that has closed
    /// are dropped.
    pub(crate) fn try_push(&self, parcel: P) -> Option<P> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return None;
        }
        if queue.parcels.len() >= QUEUE_PARCELS {
            return Some(parcel);
        }
        queue.parcels.push_back(parcel);
        drop(queue);
        self.consumer.wake();
        None
    }

    /// Producer: waits until there is room or the consumer has closed. The interpreter lock must not be held.
    pub(crate) fn wait_for_room(&self) {
        let mut queue = self.queue.lock();
        while queue.parcels.len() >= QUEUE_PARCELS && !queue.closed {
            self.room.wait(&mut queue);
        }
    }

    /// Producer: nothing more comes, and everything is cleaned up. What is still in the slot is delivered first. The
    /// outcome is told once: to the consumer, or, where that leaves before it was told, to `finish`.
    pub(crate) fn finish(&self, outcome: Result<()>, finish: Finish) {
        let mut queue = self.queue.lock();
        queue.finished = true;
        if queue.abandoned {
            drop(queue);
            return finish.report(outcome);
        }
        queue.outcome = Some((outcome, finish));
        drop(queue);
        self.consumer.wake();
    }

    /// Consumer: wants no more parcels. The outcome can still be awaited.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.parcels.clear();
        drop(queue);
        self.room.notify_all();
    }

    /// Consumer: is gone.
    pub(crate) fn abandon(&self) {
        let mut queue = self.queue.lock();
        queue.abandoned = true;
        let untold = queue.outcome.take();
        drop(queue);
        if let Some((outcome, finish)) = untold {
            finish.report(outcome);
        }
        self.close();
    }

    /// Consumer: the outcome, once the producer has finished; `Ok` if it has been told already.
    pub(crate) fn poll_finished(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.consumer.register(cx.waker());
        let mut queue = self.queue.lock();
        if queue.finished { Poll::Ready(queue.tell()) } else { Poll::Pending }
    }

    fn poll_parcel(&self, cx: &mut Context<'_>, due: bool) -> Poll<Option<Result<P>>> {
        self.consumer.register(cx.waker());
        // The wish comes before the look, so that what is published after the look wakes us.
        self.wish.store(if due { ANY } else { FULL }, SeqCst);
        let mut queue = self.queue.lock();
        if let Some(parcel) = queue.parcels.pop_front() {
            drop(queue);
            self.room.notify_one();
            return Poll::Ready(Some(Ok(parcel)));
        }
        if (due || queue.finished)
            && let Some(builders) = self.slot.take()
        {
            return Poll::Ready(Some(Ok(builders.into())));
        }
        if queue.finished {
            return Poll::Ready(queue.tell().err().map(Err));
        }
        Poll::Pending
    }
}

/// The consumer's clock: how soon after one delivery the next unfinished builders may leave.
pub(crate) struct Linger {
    time: Duration,
    /// Runs from each delivery; `None` while the next one may leave at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Linger {
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, timer: None }
    }

    /// The next parcel, the error, or the end.
    pub(crate) fn poll_next<B, P: From<Box<B>>>(
        &mut self,
        delivery: &Delivery<B, P>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<P>>> {
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            self.timer = None;
        }
        let next = delivery.poll_parcel(cx, self.timer.is_none());
        if let Poll::Ready(Some(Ok(_))) = next
            && !self.time.is_zero()
        {
            self.timer = Some(Box::pin(tokio::time::sleep(self.time)));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use couatl_core::Error;
    use futures::future::poll_fn;
    use tokio::time::Instant;

    use super::*;

    async fn next(delivery: &Delivery<u32, Box<u32>>, linger: &mut Linger) -> Option<Result<u32>> {
        let parcel = poll_fn(|cx| linger.poll_next(delivery, cx)).await;
        parcel.map(|parcel| parcel.map(|number| *number))
    }

    #[tokio::test(start_paused = true)]
    async fn published_rows_leave_at_once_after_a_gap_and_after_the_linger_else() {
        let delivery = Arc::new(Delivery::new());
        let mut linger = Linger::new(Duration::from_millis(5));
        let start = Instant::now();
        delivery.publish(Box::new(1));
        assert_eq!(next(&delivery, &mut linger).await.unwrap().unwrap(), 1);
        assert_eq!(start.elapsed(), Duration::ZERO);
        delivery.publish(Box::new(2));
        assert_eq!(next(&delivery, &mut linger).await.unwrap().unwrap(), 2);
        assert_eq!(start.elapsed(), Duration::from_millis(5));
        assert!(delivery.take_back().is_none(), "the consumer has it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_parcel_leaves_at_once_and_before_what_is_published_after_it() {
        let delivery = Delivery::new();
        let mut linger = Linger::new(Duration::from_secs(1));
        let start = Instant::now();
        assert!(delivery.try_push(Box::new(1)).is_none());
        assert!(delivery.try_push(Box::new(2)).is_none());
        assert_eq!(delivery.try_push(Box::new(3)).map(|parcel| *parcel), Some(3), "no room");
        delivery.publish(Box::new(4));
        assert_eq!(next(&delivery, &mut linger).await.unwrap().unwrap(), 1);
        assert_eq!(next(&delivery, &mut linger).await.unwrap().unwrap(), 2);
        assert_eq!(start.elapsed(), Duration::ZERO);
        delivery.finish(Err(Error::internal("boom")), Finish::ignore());
        assert_eq!(next(&delivery, &mut linger).await.unwrap().unwrap(), 4, "the slot comes before the outcome");
        assert!(next(&delivery, &mut linger).await.unwrap().is_err());
        assert!(next(&delivery, &mut linger).await.is_none());
    }

    #[test]
    fn every_row_arrives_once_and_in_order_whoever_wins() {
        const ROWS: u32 = 200_000;
        let delivery = Arc::new(Delivery::<Vec<u32>, Box<Vec<u32>>>::new());
        let producer = std::thread::spawn({
            let delivery = delivery.clone();
            move || {
                let mut rows: Box<Vec<u32>> = Box::default();
                for row in 0..ROWS {
                    rows = delivery.take_back().unwrap_or_default();
                    rows.push(row);
                    if rows.len() >= 100 {
                        while let Some(back) = delivery.try_push(rows) {
                            rows = back;
                            delivery.wait_for_room();
                        }
                        rows = Box::default();
                    }
                    if row + 1 < ROWS && !rows.is_empty() {
                        delivery.publish(rows);
                        rows = Box::default();
                    }
                }
                if !rows.is_empty() {
                    delivery.publish(rows);
                }
                delivery.finish(Ok(()), Finish::ignore());
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut seen = Vec::new();
        runtime.block_on(async {
            let mut linger = Linger::new(Duration::from_micros(50));
            while let Some(parcel) = poll_fn(|cx| linger.poll_next(&delivery, cx)).await {
                seen.extend(*parcel.unwrap());
            }
        });
        producer.join().unwrap();
        assert_eq!(seen, (0..ROWS).collect::<Vec<_>>());
    }
}
