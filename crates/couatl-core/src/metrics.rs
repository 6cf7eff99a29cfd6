//! What a scan or a write counts about itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counters of one scan or write. Written by whoever does the work, read by anybody at any time.
#[derive(Debug, Default)]
pub struct Metrics {
    rows: AtomicU64,
    batches: AtomicU64,
    python_nanos: AtomicU64,
    convert_nanos: AtomicU64,
    gil_nanos: AtomicU64,
    blocked_nanos: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// Rows that user code gave or took.
    pub rows: u64,
    /// Batches delivered or handed over.
    pub batches: u64,
    /// Time inside user code.
    pub python: Duration,
    /// Time converting between Python and Arrow; an estimate from samples.
    pub convert: Duration,
    /// Time waiting for the interpreter lock.
    pub gil_wait: Duration,
    /// Time waiting for whoever is on the other side of the channel.
    pub blocked: Duration,
}

impl MetricsSnapshot {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            batches: self.batches + other.batches,
            python: self.python + other.python,
            convert: self.convert + other.convert,
            gil_wait: self.gil_wait + other.gil_wait,
            blocked: self.blocked + other.blocked,
        }
    }

    /// What has come to it since another one was taken of the same counters.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(before.rows),
            batches: self.batches.saturating_sub(before.batches),
            python: self.python.saturating_sub(before.python),
            convert: self.convert.saturating_sub(before.convert),
            gil_wait: self.gil_wait.saturating_sub(before.gil_wait),
            blocked: self.blocked.saturating_sub(before.blocked),
        }
    }
}

impl Metrics {
    /// Counts rows and the batch that they came in.
    pub fn add_batch(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Relaxed);
        self.batches.fetch_add(1, Relaxed);
    }

    /// Adds time spent inside user code.
    pub fn add_python(&self, time: Duration) {
        self.python_nanos.fetch_add(nanos(time), Relaxed);
    }

    /// Adds time spent converting.
    pub fn add_convert(&self, time: Duration) {
        self.convert_nanos.fetch_add(nanos(time), Relaxed);
    }

    /// Adds time spent waiting for the interpreter lock.
    pub fn add_gil_wait(&self, time: Duration) {
        self.gil_nanos.fetch_add(nanos(time), Relaxed);
    }

    /// Adds time spent waiting for the other side of the channel.
    pub fn add_blocked(&self, time: Duration) {
        self.blocked_nanos.fetch_add(nanos(time), Relaxed);
    }

    /// All counters, each as it is now.
    pub fn snapshot(&self) -> MetricsSnapshot {
        let time = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Relaxed));
        MetricsSnapshot {
            rows: self.rows.load(Relaxed),
            batches: self.batches.load(Relaxed),
            python: time(&self.python_nanos),
            convert: time(&self.convert_nanos),
            gil_wait: time(&self.gil_nanos),
            blocked: time(&self.blocked_nanos),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
