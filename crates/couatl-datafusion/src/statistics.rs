//! What the queries of a session have done so far, in numbers that only grow, and how many there are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use couatl_core::{ErrorKind, Metrics, MetricsSnapshot};
use parking_lot::Mutex;

/// The numbers at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// Queries that have begun.
    pub started: u64,
    /// Queries that run, or whose cleanup does.
    pub running: u64,
    /// Queries that wait for their turn.
    pub queued: u64,
    /// How long queries have waited for it, all together.
    pub queue_time: Duration,
    /// Queries that have ended, by how: `None` is in good order.
    pub ended: BTreeMap<Option<ErrorKind>, u64>,
    /// Rows that they have given.
    pub rows: u64,
    /// Bytes that these have in memory.
    pub bytes: u64,
    /// What was read from and written to each stream. Streams of one name in several schemas are counted together.
    pub streams: BTreeMap<(Arc<str>, Access), Usage>,
}

/// How a stream, or a function, is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// A query reads it.
    Read,
    /// An INSERT writes it.
    Write,
    /// A query calls it: it is a function.
    Call,
}

/// What was read from a stream, or written to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// How often it was opened.
    pub opened: u64,
    /// How often it is open.
    pub open: u64,
    /// Rows, batches, and where the time went.
    pub metrics: MetricsSnapshot,
    /// What went wrong, and how often.
    pub errors: BTreeMap<ErrorKind, u64>,
}

/// Of how many streams numbers are kept; beyond, those that are not open begin anew.
const MOST_STREAMS: usize = 20_000;

/// Where they are counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) started: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
    queue_nanos: AtomicU64,
    ended: Mutex<BTreeMap<Option<ErrorKind>, u64>>,
    streams: Mutex<BTreeMap<(Arc<str>, Access), Stream>>,
}

#[derive(Debug, Default)]
struct Stream {
    /// Of those that are over.
    done: Usage,
    /// What those that are not have counted, and had before.
    open: Vec<(Arc<Metrics>, MetricsSnapshot)>,
}

impl Counters {
    pub(crate) fn waited(&self, time: Duration) {
        self.queue_nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn ended(&self, how: Option<ErrorKind>) {
        *self.ended.lock().entry(how).or_default() += 1;
    }

    /// A stream has been opened; it is open until what this gives is dropped.
    pub(crate) fn open(self: &Arc<Self>, stream: &str, access: Access, metrics: &Arc<Metrics>) -> Open {
        let key = (Arc::from(stream), access);
        let mut streams = self.streams.lock();
        // Streams may come and go under ever new names.
        if streams.len() >= MOST_STREAMS && !streams.contains_key(&key) {
            streams.retain(|_, stream| !stream.open.is_empty());
        }
        let found = streams.entry(key.clone()).or_default();
        found.done.opened += 1;
        found.open.push((Arc::clone(metrics), metrics.snapshot()));
        Open { counters: Arc::clone(self), key, metrics: Arc::clone(metrics) }
    }

    pub(crate) fn failed(&self, stream: &str, access: Access, kind: ErrorKind) {
        let mut streams = self.streams.lock();
        *streams.entry((Arc::from(stream), access)).or_default().done.errors.entry(kind).or_default() += 1;
    }

    /// The numbers, but for how many there are.
    pub(crate) fn read(&self) -> Statistics {
        let streams = self.streams.lock();
        let usage = |stream: &Stream| {
            let mut usage = stream.done.clone();
            usage.open = stream.open.len() as u64;
            for (metrics, before) in &stream.open {
                usage.metrics = usage.metrics.plus(metrics.snapshot().since(*before));
            }
            usage
        };
        Statistics {
            started: self.started.load(Relaxed),
            queue_time: Duration::from_nanos(self.queue_nanos.load(Relaxed)),
            ended: self.ended.lock().clone(),
            rows: self.rows.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            streams: streams.iter().map(|(key, stream)| (key.clone(), usage(stream))).collect(),
            ..Statistics::default()
        }
    }
}

/// A stream that is open.
#[derive(Debug)]
pub(crate) struct Open {
    counters: Arc<Counters>,
    key: (Arc<str>, Access),
    metrics: Arc<Metrics>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut streams = self.counters.streams.lock();
        let stream = streams.entry(self.key.clone()).or_default();
        if let Some(at) = stream.open.iter().position(|(metrics, _)| Arc::ptr_eq(metrics, &self.metrics)) {
            let (metrics, before) = stream.open.swap_remove(at);
            stream.done.metrics = stream.done.metrics.plus(metrics.snapshot().since(before));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_counts_and_goes_on_counting_when_it_is_over() {
        let counters = Arc::new(Counters::default());
        let metrics = Arc::new(Metrics::default());
        metrics.add_batch(100);
        let open = counters.open("clock", Access::Read, &metrics);
        metrics.add_batch(5);
        counters.failed("clock", Access::Read, ErrorKind::PythonException);
        let usage = || counters.read().streams[&(Arc::from("clock"), Access::Read)].clone();
        assert_eq!((usage().opened, usage().open, usage().metrics.rows), (1, 1, 5));
        drop(open);
        metrics.add_batch(1000);
        assert_eq!((usage().opened, usage().open, usage().metrics.rows), (1, 0, 5));
        assert_eq!(usage().errors, BTreeMap::from([(ErrorKind::PythonException, 1)]));
    }
}
