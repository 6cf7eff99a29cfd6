//! Reading: the threads that run the user's code, and the partitions that its rows arrive at.
//!
//! ```text
//!   first thread     open ── call ──┬─ next() … ── close() ──┬── deinit ──> outcome of the scan
//!   further threads                 ├─ next() … ── close() ──┤              one for each partition of a connector;
//!                                   '─ next() … ── close() ──'              those of a bounded one share a few
//!     each        rows ──> Delivery: slot, queue ──> PythonPartition::next_batch
//! ```

use std::sync::Arc;
use std::thread::available_parallelism;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use couatl_core::{Error, Finish, Metrics, Mode, Partition, Result, ScanRequest};
use futures::future::poll_fn;
use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use tokio::sync::oneshot;

use crate::body::Role;
use crate::clock::Clock;
use crate::connector::Reading;
use crate::convert::{Layout, Rows};
use crate::delivery::{Delivery, Linger};
use crate::function::TableCall;
use crate::interrupt::Control;
use crate::program::{Opened, Program, settle, spawn};
use crate::reader::{Reader, Returned};

/// The most threads of one scan.
const MOST_THREADS: usize = 1024;

/// What travels: rows that the consumer finishes into a batch, or a batch that came as one.
pub(crate) enum Parcel {
    Rows(Box<Rows>),
    Batch(RecordBatch),
}

impl From<Box<Rows>> for Parcel {
    fn from(rows: Box<Rows>) -> Self {
        Parcel::Rows(rows)
    }
}

impl Parcel {
    fn finish(self) -> Result<RecordBatch> {
        match self {
            Parcel::Rows(mut rows) => rows.finish(),
            Parcel::Batch(batch) => Ok(batch),
        }
    }
}

/// What all threads of a scan have.
struct Scan {
    program: Arc<Program>,
    layout: Arc<Layout>,
    fetch: Option<usize>,
    metrics: Arc<Metrics>,
}

/// What one thread and the consumer of its rows share.
#[derive(Clone)]
struct Lane {
    delivery: Arc<Delivery<Rows, Parcel>>,
    control: Arc<Control>,
    clock: Arc<Clock>,
}

impl Lane {
    /// `wake` is called once, when it is cancelled.
    fn new(scan: &Scan, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let delivery = Arc::new(Delivery::new());
        let control = Control::new({
            let delivery = delivery.clone();
            move || {
                delivery.close();
                wake();
            }
        });
        Self { delivery, control, clock: Arc::new(Clock::new(scan.metrics.clone())) }
    }

    /// Its consumer's end: dropping it cancels.
    fn partition(&self, scan: &Scan) -> PythonPartition {
        let Self { delivery, control, clock } = self.clone();
        let linger = Linger::new(scan.program.definition.linger);
        PythonPartition { delivery, control, linger, metrics: scan.metrics.clone(), clock }
    }

    fn reader<'a, 'py>(&'a self, py: Python<'py>, scan: &'a Scan) -> Result<Reader<'a, 'py>> {
        self.clock.restart();
        let Self { delivery, control, clock } = self;
        Reader::new(py, &scan.program, control, clock, delivery, scan.layout.clone(), scan.fetch)
    }
}

/// Starts a scan on a thread of its own; resolves when init has run, and it is known what there is to read.
pub(crate) async fn open(
    program: Arc<Program>,
    call: Option<Arc<TableCall>>,
    request: ScanRequest,
) -> Result<Vec<PythonPartition>> {
    let ScanRequest { projection, fetch, context, metrics, finish, input } = request;
    let definition = program.definition.clone();
    let schema = Arc::new(definition.schema.project(&projection)?);
    let layout = Arc::new(Layout {
        subject: definition.subject(),
        declared: definition.schema.clone(),
        projection,
        schema,
        batch_rows: definition.batch_rows.get(),
    });
    let scan = Arc::new(Scan { program, layout, fetch, metrics });
    let others = Arc::new(Others::default());
    let lane = Lane::new(&scan, {
        let others = others.clone();
        move || others.cancel()
    });
    // From here on, dropping this future drops the partition, and so cancels.
    let partition = lane.partition(&scan);
    let (opened, is_open) = oneshot::channel();
    let job = {
        let (scan, lane) = (scan.clone(), lane.clone());
        move |py: Python<'_>| {
            let mut reader = lane.reader(py, &scan)?;
            let thread = match Opened::open(py, &scan.program, &context, &lane.control) {
                Ok(thread) => thread,
                Err(error) => {
                    // Whoever waits for the opening is told there; where nobody does any more, nobody needs it.
                    let _ = opened.send(Err(error));
                    return Ok(());
                }
            };
            let returned = match call {
                Some(call) => reader.call_table(&thread, &call, input, &lane.control),
                None => reader.call(&thread),
            };
            let outcome = match returned {
                Ok(Returned::Connector(reading)) => read_all(py, &scan, &lane, &mut reader, &reading, &others, opened),
                returned => {
                    let _ = opened.send(Ok(Vec::new()));
                    let work = returned.and_then(|returned| match returned {
                        Returned::Rows(rows) => reader.run(&rows),
                        _ => Ok(()),
                    });
                    settle(work, [reader.close()])
                }
            };
            let outcome = settle(outcome, [thread.close(py)]);
            lane.clock.book();
            outcome
        }
    };
    let end = {
        let delivery = lane.delivery.clone();
        move |outcome: Result<()>| report(&delivery, finish, outcome)
    };
    spawn(Role::Read, &definition.name, lane.control, scan.metrics.clone(), job, end)?;
    match is_open.await {
        Ok(Ok(more)) => Ok(std::iter::once(partition).chain(more).collect()),
        Ok(Err(error)) => Err(error),
        // The thread ended without a word: its outcome says why.
        Err(_) => {
            let outcome = poll_fn(|cx| partition.delivery.poll_finished(cx)).await;
            Err(outcome.err().unwrap_or_else(|| Error::internal("a scan ended before it began")))
        }
    }
}

/// Reads the partitions of a connector: the first here, the others on threads of their own, and cleans up after all.
fn read_all(
    py: Python<'_>,
    scan: &Arc<Scan>,
    lane: &Lane,
    reader: &mut Reader<'_, '_>,
    reading: &Reading,
    others: &Arc<Others>,
    opened: oneshot::Sender<Result<Vec<PythonPartition>>>,
) -> Result<()> {
    let dealt = reading.partitions(py).map_err(|error| reader.raised(error)).and_then(|names| deal(scan, names));
    let work = match dealt {
        Err(error) => {
            let _ = opened.send(Ok(Vec::new()));
            Err(error)
        }
        Ok(mut hands) => {
            let own = hands.pop().unwrap_or_default();
            let partitions = hands.into_iter().map(|names| others.spawn(scan, reading.clone_ref(py), names));
            let partitions: Result<Vec<_>> = partitions.collect();
            let (partitions, spawned) = match partitions {
                Ok(partitions) => (partitions, Ok(())),
                Err(error) => (Vec::new(), Err(error)),
            };
            // A cancel may have come before they were there to be told.
            if lane.control.is_cancelled() {
                others.cancel();
            }
            let _ = opened.send(Ok(partitions));
            spawned.and_then(|()| reader.pull(reading, &own))
        }
    };
    if work.is_err() {
        others.cancel();
    }
    let left = lane.clock.wait(py, || others.wait());
    let closed = reading.close(py).map_err(|error| reader.raised(error));
    settle(work, [left, closed])
}

/// Which partitions each thread reads, those of the first at the end. Where rows may never end, all are read at once.
fn deal(scan: &Scan, names: Vec<String>) -> Result<Vec<Vec<String>>> {
    let definition = &scan.program.definition;
    let threads = match definition.mode {
        Mode::Batch => available_parallelism().map_or(1, usize::from).min(names.len()),
        _ => names.len(),
    };
    if threads > MOST_THREADS {
        return Err(Error::unsupported(format!(
            "stream '{}' has {threads} partitions, and at most {MOST_THREADS} are read at once: give fewer, or set \
             mode = 'batch' where they all end",
            definition.name
        )));
    }
    let mut hands = vec![Vec::new(); threads];
    for (index, name) in names.into_iter().enumerate() {
        hands[index % threads].push(name);
    }
    hands.reverse();
    Ok(hands)
}

/// The threads of a scan but its first.
#[derive(Default)]
struct Others {
    threads: Mutex<Threads>,
    gone: Condvar,
}

#[derive(Default)]
struct Threads {
    running: usize,
    controls: Vec<Arc<Control>>,
    /// What no consumer was told.
    untold: Vec<Result<()>>,
}

impl Others {
    /// Starts one, which reads these partitions.
    fn spawn(self: &Arc<Self>, scan: &Arc<Scan>, reading: Reading, names: Vec<String>) -> Result<PythonPartition> {
        let lane = Lane::new(scan, || {});
        let partition = lane.partition(scan);
        {
            let mut threads = self.threads.lock();
            threads.running += 1;
            threads.controls.push(lane.control.clone());
        }
        let job = {
            let (scan, lane) = (scan.clone(), lane.clone());
            move |py: Python<'_>| {
                let mut reader = lane.reader(py, &scan)?;
                let work = reader.pull(&reading, &names);
                lane.clock.book();
                work
            }
        };
        let others = self.clone();
        let end = {
            let delivery = lane.delivery.clone();
            move |outcome: Result<()>| {
                let untold = others.clone();
                let finish = Finish::new(move |outcome| untold.threads.lock().untold.push(outcome));
                report(&delivery, finish, outcome);
                others.threads.lock().running -= 1;
                others.gone.notify_all();
            }
        };
        let name = &scan.program.definition.name;
        let spawned = spawn(Role::Read, name, lane.control, scan.metrics.clone(), job, end);
        if spawned.is_err() {
            self.threads.lock().running -= 1;
        }
        spawned.map(|()| partition)
    }

    /// Asks all to end.
    fn cancel(&self) {
        let controls = self.threads.lock().controls.clone();
        controls.iter().for_each(Control::cancel);
    }

    /// Waits until all have ended; gives what went wrong with those that nobody has been told of.
    fn wait(&self) -> Result<()> {
        let mut threads = self.threads.lock();
        while threads.running > 0 {
            self.gone.wait(&mut threads);
        }
        settle(Ok(()), std::mem::take(&mut threads.untold))
    }
}

fn report(delivery: &Delivery<Rows, Parcel>, finish: Finish, outcome: Result<()>) {
    // A cancel is what its consumer asked for, and no news.
    let outcome = outcome.or_else(|error| match error.kind() {
        couatl_core::ErrorKind::Cancelled => Ok(()),
        _ => Err(error),
    });
    delivery.finish(outcome, finish);
}

/// The consumer's end of one thread's rows.
pub(crate) struct PythonPartition {
    delivery: Arc<Delivery<Rows, Parcel>>,
    control: Arc<Control>,
    linger: Linger,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
}

#[async_trait]
impl Partition for PythonPartition {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let parcel = poll_fn(|cx| self.linger.poll_next(&self.delivery, cx)).await;
        let Some(parcel) = parcel.transpose()? else { return Ok(None) };
        let batch = parcel.finish()?;
        self.metrics.add_batch(batch.num_rows());
        Ok(Some(batch))
    }

    async fn close(&mut self) -> Result<()> {
        self.control.cancel();
        self.delivery.close();
        poll_fn(|cx| self.delivery.poll_finished(cx)).await
    }
}

impl Drop for PythonPartition {
    fn drop(&mut self) {
        self.delivery.abandon();
        self.control.cancel();
        // Whoever asks for the metrics now does not wait for Python to end.
        self.clock.book();
    }
}
