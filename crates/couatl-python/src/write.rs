//! Writing: one thread that hands batches to the user's function.
//!
//! ```text
//!   SinkWriter::write ──> batch ──> one call, one argument per column ──> accepted
//!   SinkWriter::commit ─> (a connector's flush, commit, close) ─> deinit ─> the number of rows accepted
//!   SinkWriter::abort ──> interrupt ─> (a connector's abort, close) ─> deinit
//! ```

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::Field;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use async_trait::async_trait;
use couatl_core::{Error, Metrics, Result, SinkWriter, Subject, WriteFormat, WriteRequest};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use tokio::sync::oneshot;

use crate::body::Role;
use crate::connector::{Writing, is_connector};
use crate::convert::check_json;
use crate::interpreter::waiting;
use crate::interrupt::Control;
use crate::program::{Opened, Program, cancelled, settle, spawn, user};
use crate::values::to_list;

/// A batch on its way, and who waits for its acceptance. No more batches is the end.
type Order = (RecordBatch, oneshot::Sender<Result<()>>);

/// How many rows of its last batch an exception says to have been taken.
const ACCEPTED: &str = "accepted_rows";

/// Starts a write on a thread of its own; resolves when init has run and the function is known to fit.
pub(crate) async fn open(program: Arc<Program>, request: WriteRequest) -> Result<PythonWriter> {
    let WriteRequest { context, metrics, finish } = request;
    let (orders, inbox) = mpsc::channel::<Order>();
    let orders = Arc::new(Mutex::new(Some(orders)));
    let control = Control::new({
        let orders = orders.clone();
        move || drop(orders.lock().take())
    });
    let (ended, is_over) = oneshot::channel();
    let stream = program.definition.name.clone();
    // From here on, dropping this future drops the writer, and so cancels.
    let mut writer =
        PythonWriter { orders, control: control.clone(), is_over: Some(is_over), stream, failed: false, rows: 0 };
    let (opened, is_open) = oneshot::channel();
    let job = {
        let (control, metrics, program) = (control.clone(), metrics.clone(), program.clone());
        move |py: Python<'_>| {
            let thread = match Opened::open(py, &program, &context, &control) {
                Ok(thread) => thread,
                Err(error) => {
                    // Whoever waits for the opening is told there; where nobody does any more, nobody needs it.
                    let _ = opened.send(Err(error));
                    return Ok(());
                }
            };
            match Target::open(py, &program, &control, &thread) {
                Ok(Target::Function(function)) => {
                    let _ = opened.send(Ok(()));
                    write_all(py, &program, &control, &metrics, &function, inbox);
                    thread.close(py)
                }
                Ok(Target::Connector(writing, write)) => {
                    let _ = opened.send(Ok(()));
                    let is_whole = write_all(py, &program, &control, &metrics, &write, inbox);
                    let ended = end_connector(py, &program, &control, &writing, is_whole);
                    settle(ended, [thread.close(py)])
                }
                Err(error) => {
                    let _ = opened.send(settle(Err(error), [thread.close(py)]));
                    Ok(())
                }
            }
        }
    };
    // The owner is told first; what it does not want to hear goes to the query.
    let end = move |outcome: Result<()>| finish.report(ended.send(outcome).err().unwrap_or(Ok(())));
    spawn(Role::Write, &writer.stream, control, metrics, job, end)?;
    match is_open.await {
        Ok(Ok(())) => Ok(writer),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let outcome = writer.over().await;
            Err(outcome.err().unwrap_or_else(|| Error::internal("a write ended before it began")))
        }
    }
}

/// The owner's end of a write.
pub(crate) struct PythonWriter {
    orders: Arc<Mutex<Option<mpsc::Sender<Order>>>>,
    control: Arc<Control>,
    is_over: Option<oneshot::Receiver<Result<()>>>,
    stream: String,
    failed: bool,
    rows: u64,
}

impl PythonWriter {
    /// Waits until everything is cleaned up.
    async fn over(&mut self) -> Result<()> {
        match self.is_over.take() {
            Some(is_over) => is_over.await.unwrap_or_else(|_| Err(Error::internal("a write ended without an outcome"))),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl SinkWriter for PythonWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let rows = batch.num_rows() as u64;
        let (reply, accepted) = oneshot::channel();
        let sent = self.orders.lock().as_ref().is_some_and(|orders| orders.send((batch, reply)).is_ok());
        let outcome = match sent {
            true => accepted.await.ok(),
            false => None,
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            // The thread is gone, and may have said why.
            None => Err(self.over().await.err().unwrap_or_else(|| cancelled(&Subject::stream(&self.stream)))),
        };
        match outcome {
            Ok(()) => {
                self.rows += rows;
                Ok(())
            }
            Err(error) => {
                self.failed = true;
                let within = error.context().find(|(key, _)| *key == ACCEPTED).and_then(|(_, rows)| rows.parse().ok());
                Err(error.with_accepted(self.rows + within.unwrap_or(0)))
            }
        }
    }

    async fn commit(&mut self) -> Result<u64> {
        if self.failed {
            return Err(Error::internal("a write that failed cannot be committed"));
        }
        drop(self.orders.lock().take());
        match self.over().await {
            Ok(()) => Ok(self.rows),
            Err(error) => Err(error.with_accepted(self.rows)),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.control.cancel();
        self.over().await
    }
}

impl Drop for PythonWriter {
    fn drop(&mut self) {
        // Nobody is left to be told: the receiver goes first.
        drop(self.is_over.take());
        self.control.cancel();
    }
}

/// What batches are handed to.
enum Target<'py> {
    Function(Bound<'py, PyAny>),
    /// A connector, and what writes to it.
    Connector(Writing<'py>, Bound<'py, PyAny>),
}

impl<'py> Target<'py> {
    /// The write function; where it is a connector, opened.
    fn open(py: Python<'py>, program: &Program, control: &Control, thread: &Opened<'_>) -> Result<Self> {
        let function = thread.function(py, Role::Write, program.definition.schema.fields().len())?;
        let opened = user(py, control, || {
            if !is_connector(&function, Role::Write)? {
                return Ok(None);
            }
            let writing = Writing::new(&function, &program.definition, thread.options(py))?;
            control.released_by(Some(writing.cancel()?));
            writing.open()?;
            let write = writing.write()?;
            PyResult::Ok(Some((writing, write)))
        });
        match opened {
            Ok(Some((writing, write))) => Ok(Self::Connector(writing, write)),
            Ok(None) => Ok(Self::Function(function)),
            Err(error) => Err(program.raised(py, control, &program.what(Role::Write), error)),
        }
    }
}

/// Commits what was written where it is all that was to be; aborts it where it is not, or the commit fails.
fn end_connector(
    py: Python<'_>,
    program: &Program,
    control: &Control,
    writing: &Writing<'_>,
    is_whole: bool,
) -> Result<()> {
    let raised = |error| program.raised(py, control, &program.what(Role::Write), error);
    // Cleaning up is not what was cancelled.
    let cleanup = |done: PyResult<()>| {
        let what = format!("closing {}", program.what(Role::Write));
        let subject = program.definition.subject();
        done.map_err(|error| crate::exception::raised(py, program.body(), &subject, &what, error))
    };
    let committed = match is_whole && !control.is_cancelled() {
        true => user(py, control, || writing.commit()).map_err(raised).map(|()| true),
        false => Ok(false),
    };
    control.released_by(None);
    let aborted = match committed {
        Ok(true) => Ok(()),
        _ => cleanup(writing.abort()),
    };
    settle(committed.map(drop), [aborted, cleanup(writing.close())])
}

/// Hands over batches until there are no more, or one is refused; gives whether none was.
fn write_all(
    py: Python<'_>,
    program: &Program,
    control: &Control,
    metrics: &Metrics,
    function: &Bound<'_, PyAny>,
    inbox: mpsc::Receiver<Order>,
) -> bool {
    let inbox = Mutex::new(inbox);
    let mut rows = 0;
    while let (Ok((batch, reply)), _) = waiting(py, metrics, || inbox.lock().recv()) {
        let outcome = write_batch(py, program, control, metrics, function, &batch, rows);
        let failed = outcome.is_err();
        rows += batch.num_rows() as u64;
        // An owner that has left has cancelled, too.
        if reply.send(outcome).is_err() || failed {
            return false;
        }
    }
    true
}

/// Calls the function with a batch. `rows_before` is how many rows it has had, for messages.
fn write_batch(
    py: Python<'_>,
    program: &Program,
    control: &Control,
    metrics: &Metrics,
    function: &Bound<'_, PyAny>,
    batch: &RecordBatch,
    rows_before: u64,
) -> Result<()> {
    if control.is_cancelled() {
        return Err(cancelled(&program.definition.subject()));
    }
    let start = Instant::now();
    let mut arguments = Vec::with_capacity(batch.num_columns());
    for (array, field) in batch.columns().iter().zip(program.definition.schema.fields()) {
        check_json(py, &program.definition.subject(), array, field, rows_before)?;
        let converted = match program.definition.write_format {
            WriteFormat::List => to_list(py, array, field).map(Bound::into_any),
            WriteFormat::Arrow => to_pyarrow(py, array, field),
        };
        arguments.push(converted.map_err(|error| {
            let (stream, column) = (&program.definition.name, field.name());
            let text = error.value(py).to_string();
            Error::type_mismatch(format!(
                "stream '{stream}', column '{column}': cannot give the values to Python: {text}"
            ))
            .with_source(error)
        })?);
    }
    let arguments = PyTuple::new(py, arguments).map_err(|error| Error::internal(error.to_string()))?;
    metrics.add_convert(start.elapsed());
    let start = Instant::now();
    let called = user(py, control, || function.call1(arguments));
    metrics.add_python(start.elapsed());
    let returned = called.map_err(|error| {
        // What takes one row after the other may have taken some of the batch.
        let taken = error.value(py).getattr(ACCEPTED).and_then(|rows| rows.extract::<u64>());
        let error = program.raised(py, control, &program.what(Role::Write), error);
        match taken {
            Ok(rows) => error.with_context(ACCEPTED, rows.to_string()),
            Err(_) => error,
        }
    })?;
    if returned.hasattr("__await__").unwrap_or(false) {
        let what = program.what(Role::Write);
        return Err(Error::type_mismatch(format!(
            "stream '{}': {what} returned a coroutine, which nobody awaits: nothing was written; run it with asyncio.run",
            program.definition.name
        )));
    }
    metrics.add_batch(batch.num_rows());
    Ok(())
}

/// A column for Python libraries, over the same memory.
#[pyclass(frozen, name = "ArrowColumn", module = "couatl")]
struct ArrowColumn {
    array: ArrayRef,
    field: Field,
}

#[pymethods]
impl ArrowColumn {
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        // A request is a wish that may be left unmet, says the interface.
        drop(requested_schema);
        let invalid = |error: arrow::error::ArrowError| pyo3::exceptions::PyValueError::new_err(error.to_string());
        let schema = FFI_ArrowSchema::try_from(&self.field).map_err(invalid)?;
        let array = FFI_ArrowArray::new(&self.array.to_data());
        let schema = PyCapsule::new_with_value(py, schema, c"arrow_schema")?;
        let array = PyCapsule::new_with_value(py, array, c"arrow_array")?;
        PyTuple::new(py, [schema, array])
    }
}

pub(crate) fn to_pyarrow<'py>(py: Python<'py>, array: &ArrayRef, field: &Field) -> PyResult<Bound<'py, PyAny>> {
    let column = ArrowColumn { array: array.clone(), field: field.clone() };
    py.import("pyarrow")?.getattr("array")?.call1((Bound::new(py, column)?,))
}
