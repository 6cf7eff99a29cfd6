//! Where the time of a scan goes: into Python, conversion, or waiting.
//!
//! What is neither conversion nor a wait is Python's. It is booked by the thread when it ends, and by the consumer when
//! it has had enough: a `next()` that still runs then has taken its time, too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use couatl_core::Metrics;
use parking_lot::Mutex;
use pyo3::Python;

use crate::interpreter::waiting;

/// After so many rows, each of which has the time of its conversion measured, one in so many has.
const SAMPLE_EVERY: u64 = 64;

/// The time of one scan; shared by its thread and its consumer.
pub(crate) struct Clock {
    metrics: Arc<Metrics>,
    spent: Mutex<Spent>,
}

struct Spent {
    start: Instant,
    /// What was not Python's: conversion, and waits that are over.
    aside: Duration,
    waiting: Option<Instant>,
    /// What has been booked as Python's.
    booked: Duration,
}

impl Clock {
    /// A clock that runs.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let spent = Spent { start: Instant::now(), aside: Duration::ZERO, waiting: None, booked: Duration::ZERO };
        Self { metrics, spent: Mutex::new(spent) }
    }

    /// From here on, time is Python's.
    pub(crate) fn restart(&self) {
        self.spent.lock().start = Instant::now();
    }

    /// Books time spent on conversion.
    pub(crate) fn converted(&self, time: Duration) {
        self.metrics.add_convert(time);
        self.spent.lock().aside += time;
    }

    /// Gives up the GIL while the closure waits for something, and books the wait.
    pub(crate) fn wait<T: Send>(&self, py: Python<'_>, wait: impl FnOnce() -> T + Send) -> T {
        self.spent.lock().waiting = Some(Instant::now());
        let (out, waited) = waiting(py, &self.metrics, wait);
        let mut spent = self.spent.lock();
        spent.waiting = None;
        spent.aside += waited;
        out
    }

    /// Books what Python has had so far.
    pub(crate) fn book(&self) {
        let mut spent = self.spent.lock();
        let waiting = spent.waiting.map_or(Duration::ZERO, |since| since.elapsed());
        let python = spent.start.elapsed().saturating_sub(spent.aside + waiting);
        self.metrics.add_python(python.saturating_sub(spent.booked));
        spent.booked = spent.booked.max(python);
    }
}

/// Estimates the time of conversion from that of a few rows.
#[derive(Default)]
pub(crate) struct Samples {
    last: Duration,
}

impl Samples {
    /// Whether the row of this number, counted from 1, is to be measured.
    #[inline]
    pub(crate) fn wants(number: u64) -> bool {
        number.is_multiple_of(SAMPLE_EVERY) || number < SAMPLE_EVERY
    }

    /// What the row of this number took, and those since the sample before it. A row whose thread lost its core, or
    /// whose memory was cold, speaks for itself alone: the others took what the quicker one of two samples did.
    pub(crate) fn add(&mut self, number: u64, took: Duration) -> Duration {
        let quicker = took.min(std::mem::replace(&mut self.last, took));
        if number <= SAMPLE_EVERY { took } else { took + quicker * (SAMPLE_EVERY as u32 - 1) }
    }

    /// What the rows after the last sample took, of so many.
    pub(crate) fn rest(&self, rows: u64) -> Duration {
        if rows < SAMPLE_EVERY { Duration::ZERO } else { self.last * (rows % SAMPLE_EVERY) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The estimate for rows of which each takes so long.
    fn estimate(rows: u64, took: impl Fn(u64) -> Duration) -> Duration {
        let mut samples = Samples::default();
        let measured = (1..=rows).filter(|number| Samples::wants(*number)).collect::<Vec<_>>();
        let sum: Duration = measured.into_iter().map(|number| samples.add(number, took(number))).sum();
        sum + samples.rest(rows)
    }

    #[test]
    fn rows_that_take_the_same_are_estimated_exactly() {
        for rows in [0, 1, 63, 64, 65, 127, 128, 1000] {
            assert_eq!(estimate(rows, |_| Duration::from_micros(1)), Duration::from_micros(rows), "{rows} rows");
        }
    }

    #[test]
    fn one_slow_sample_is_not_extrapolated() {
        for slow in [1, 64, 128, 640] {
            let took = |number| Duration::from_micros(if number == slow { 10_000 } else { 1 });
            assert_eq!(estimate(1000, took), Duration::from_micros(10_999), "row {slow} is slow");
        }
    }

    #[test]
    fn what_python_takes_is_booked_while_it_runs_and_once() {
        let metrics = Arc::new(Metrics::default());
        let clock = Clock::new(metrics.clone());
        std::thread::sleep(Duration::from_millis(20));
        clock.book();
        let first = metrics.snapshot().python;
        assert!(first >= Duration::from_millis(20), "{first:?}");
        clock.converted(Duration::from_millis(15));
        clock.book();
        let snapshot = metrics.snapshot();
        assert!(snapshot.python < first + Duration::from_millis(10), "{snapshot:?}");
        assert_eq!(snapshot.convert, Duration::from_millis(15));
    }
}
