//! The engine in a Python program: statements in, rows out. What is nice about it is `couatl/session.py`; here is what only
//! Rust can do.
//!
//! Queries run on a runtime of this process, which is never dropped: a program may end while one runs. Who waits here has
//! given up the interpreter, and looks for Ctrl-C.

use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::SchemaRef;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use couatl::{Callable, Engine, Error, Mode, Outcome, PythonFunction, PythonTable};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How often who waits looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);

/// The runtime of this process's queries.
pub(crate) fn runtime() -> PyResult<&'static Runtime> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.thread_name("couatl-query").thread_stack_size(8 << 20).enable_all();
        builder.build().map_err(|error| error.to_string())
    });
    made.as_ref().map_err(|error| PyRuntimeError::new_err(error.clone()))
}

/// A call of Python's that waits here. The interpreter must not end meanwhile: it would end the thread from within our code.
struct Call;

/// How many there are now, and how many have begun.
static CALLS: Mutex<usize> = Mutex::new(0);
static BEGUN: AtomicU64 = AtomicU64::new(0);

impl Call {
    fn begin() -> Self {
        *CALLS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        BEGUN.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        *CALLS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

/// Waits until no call waits here any more, at most for so long: who has been woken up may call again at once.
pub(crate) fn wait_for_calls(patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut begun = BEGUN.load(Relaxed);
    while begun > 0 && Instant::now() < deadline {
        std::thread::sleep(LOOK);
        let (before, now) = (begun, BEGUN.load(Relaxed));
        if before == now && *CALLS.lock().unwrap_or_else(PoisonError::into_inner) == 0 {
            return;
        }
        begun = now;
    }
}

/// What a future gives, run where queries do. Ctrl-C, and whatever else a signal raises, drops it.
fn wait<T: Send + 'static>(
    py: Python<'_>,
    future: impl Future<Output = couatl::Result<T>> + Send + 'static,
    left: &CancellationToken,
) -> PyResult<T> {
    let _call = Call::begin();
    let (send, receive) = sync_channel(1);
    let sent = async move { send.send(future.await).map_err(drop) };
    let task = runtime()?.spawn(couatl::waited_for(sent, left.clone()));
    let _task = AbortOnDropHandle::new(task);
    let receive = Mutex::new(receive);
    loop {
        let next = py.detach(|| receive.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LOOK));
        match next {
            Ok(outcome) => return outcome.map_err(|error| raised(py, &error)),
            // What computes cannot be dropped, and is told.
            Err(RecvTimeoutError::Timeout) => py.check_signals().inspect_err(|_| left.cancel())?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err("the query ended without a word"));
            }
        }
    }
}

/// The exception for an error: what user code raised, as itself; else the one of its kind.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    if let Some(own) = error.source().and_then(|source| source.downcast_ref::<PyErr>()) {
        return own.clone_ref(py);
    }
    let made = || py.import("couatl.exceptions")?.call_method1("of_kind", (error.kind().as_str(), error.to_string()));
    made().map_or_else(|failed| failed, PyErr::from_value)
}

/// A table that reads and writes by calling these.
pub(crate) fn between(
    py: Python<'_>,
    mut table: PythonTable,
    read: Option<Py<PyAny>>,
    write: Option<Py<PyAny>>,
) -> PythonTable {
    if let Some(read) = read {
        table = table.read_function(name_of(py, &read)).reading_with(Callable::from(read));
    }
    if let Some(write) = write {
        table = table.write_function(name_of(py, &write)).writing_with(Callable::from(write));
    }
    table
}

/// What messages call a callable.
pub(crate) fn name_of(py: Python<'_>, callable: &Py<PyAny>) -> String {
    let name = callable.getattr(py, "__name__").and_then(|name| name.extract(py));
    name.unwrap_or_else(|_| "table".to_owned())
}

/// The mode of this name.
pub(crate) fn known_mode(py: Python<'_>, mode: &str) -> PyResult<Mode> {
    let modes = [Mode::Auto, Mode::Streaming, Mode::Batch];
    modes.into_iter().find(|known| known.as_str() == mode).ok_or_else(|| {
        let message = format!("mode must be 'auto' or 'streaming' or 'batch', found '{mode}'");
        raised(py, &Error::new(couatl::ErrorKind::InvalidSetting, message))
    })
}

/// An engine with streams, tables and settings of its own.
#[pyclass(frozen, module = "couatl._couatl")]
pub(crate) struct Session(Engine);

#[pymethods]
impl Session {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let engine = py.detach(|| {
            let _guard = runtime()?.enter();
            Ok::<_, PyErr>(Engine::builder().build())
        })?;
        engine.map(Self).map_err(|error| raised(py, &error))
    }

    /// Runs statements, the last of which may give rows; gives those, or how many were written.
    fn execute(&self, py: Python<'_>, text: String) -> PyResult<(Option<Rows>, Option<u64>)> {
        let (session, left) = (self.0.session().clone(), CancellationToken::new());
        let run = async move {
            let prepared = session.prepare(&text).await?;
            let prepared = session.run_leading(prepared).await?;
            session.execute(&prepared, None).await
        };
        let outcome = wait(py, run, &left)?;
        Ok(match outcome {
            Outcome::Updated(count) => (None, count),
            Outcome::Rows(rows) => (Some(Rows { schema: rows.schema(), rows: Mutex::new(Some(rows)), left }), None),
        })
    }

    /// Makes a stream of callables, in the place of what has the name.
    fn register(
        &self,
        py: Python<'_>,
        name: &str,
        columns: &str,
        mode: &str,
        read: Option<Py<PyAny>>,
        write: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let failed = |error: Error| raised(py, &error);
        let table = PythonTable::from_source(name, columns, "").map_err(failed)?.mode(known_mode(py, mode)?);
        let table = between(py, table, read, write).build().map_err(failed)?;
        let (session, name) = (self.0.session().clone(), name.to_owned());
        wait(py, async move { session.register(&name, Arc::new(table)).await }, &CancellationToken::new())
    }

    /// Makes a function of a callable, as a statement describes it.
    fn register_function(&self, py: Python<'_>, statement: &str, function: Py<PyAny>) -> PyResult<()> {
        let function = PythonFunction::from_callable(statement, Callable::from(function));
        function.and_then(|function| function.register(self.0.session())).map_err(|error| raised(py, &error))
    }
}

/// The rows of a query, as they come. Who lets go of it cancels the query.
#[pyclass(frozen, module = "couatl._couatl")]
pub(crate) struct Rows {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
    /// Nobody waits for them any more.
    left: CancellationToken,
}

#[pymethods]
impl Rows {
    /// The next batch; None at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut rows) = rows else { return Ok(None) };
        let next = async move {
            let batch = rows.next().await.transpose().map_err(couatl::from_datafusion)?;
            Ok((rows, batch))
        };
        let (rows, batch) = wait(py, next, &self.left)?;
        if batch.is_some() {
            *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
        }
        Ok(batch.map(Batch))
    }

    /// Lets go of what has not been fetched.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        let runtime = runtime()?;
        let _call = Call::begin();
        py.detach(|| {
            let _guard = runtime.enter();
            drop(rows);
        });
        Ok(())
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.schema.as_ref()).map_err(invalid)?;
        PyCapsule::new_with_value(py, schema, c"arrow_schema")
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        let rows = self.rows.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(rows), Ok(runtime)) = (rows, runtime()) {
            // Not here: Python may be what drops it.
            runtime.spawn(async move { drop(rows) });
        }
    }
}

/// Some rows, for Python libraries, over the same memory.
#[pyclass(frozen, module = "couatl._couatl")]
pub(crate) struct Batch(RecordBatch);

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.0.num_rows()
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        // A request is a wish that may be left unmet, says the interface.
        drop(requested_schema);
        let schema = FFI_ArrowSchema::try_from(self.0.schema().as_ref()).map_err(invalid)?;
        let array = FFI_ArrowArray::new(&StructArray::from(self.0.clone()).to_data());
        let schema = PyCapsule::new_with_value(py, schema, c"arrow_schema")?;
        let array = PyCapsule::new_with_value(py, array, c"arrow_array")?;
        PyTuple::new(py, [schema, array])
    }
}

fn invalid(error: arrow::error::ArrowError) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}
