//! Any Python values, through the public interface of the Python host: no panic, no error of ours, valid arrays, the
//! rows before a misfit delivered, and what fits given back by a sink as it was.
//!
//! ```text
//!   bytes --values.py--> Case: columns, read, write --source--> batches, checked --sink--> Case: seen, checked
//! ```
#![no_main]

use std::cell::LazyCell;
use std::ffi::CString;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use couatl_core::{
    Body, Error, ErrorKind, Finish, Metrics, Result, ScanRequest, Stream, StreamDefinition, WriteFormat, WriteRequest,
};
use couatl_python::{Callable, PythonHost, stream_of_callables};
use couatl_sql::parse_columns;
use libfuzzer_sys::{Corpus, fuzz_target};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::runtime::Runtime;

thread_local! {
    static RUNTIME: LazyCell<Runtime> =
        LazyCell::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());
    static VALUES: LazyCell<Py<PyModule>> = LazyCell::new(values);
}

/// `values.py`, as it is at the time of the run.
fn values() -> Py<PyModule> {
    PythonHost::new(None).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("values.py");
    let text = CString::new(std::fs::read_to_string(&path).unwrap()).unwrap();
    let path = CString::new(path.to_str().unwrap()).unwrap();
    Python::attach(|py| PyModule::from_code(py, &text, &path, c"values").map(Bound::unbind)).unwrap()
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    // The interpreter starts with it.
    VALUES.with(|values| _ = LazyCell::force(values));
    let Some(case) = Python::attach(|py| Case::make(py, bytes)) else { return Corpus::Reject };
    RUNTIME.with(|runtime| runtime.block_on(case.run()));
    Python::attach(|_| drop(case));
    Corpus::Keep
});

/// What `values.py` makes of the bytes.
struct Case {
    object: Py<PyAny>,
    read: Stream,
    write: Stream,
    projection: Vec<usize>,
    /// The rows that must arrive.
    rows: usize,
    /// Whether they are all.
    is_foreseen: bool,
}

impl Case {
    /// `None` where the bytes make none.
    fn make(py: Python<'_>, bytes: &[u8]) -> Option<Self> {
        let module = VALUES.with(|module| module.clone_ref(py));
        let object = module.bind(py).call_method1("case", (PyBytes::new(py, bytes),)).map_err(shown(py)).unwrap();
        if object.is_none() {
            return None;
        }
        let get = |name| object.getattr(name).unwrap();
        let columns: String = get("columns").extract().unwrap();
        let schema = Arc::new(parse_columns(&columns).unwrap());
        let projection: Vec<usize> = get("projection").extract().unwrap();
        let projected = Arc::new(schema.project(&projection).unwrap());
        let define = |schema: &SchemaRef| {
            let mut definition = StreamDefinition::new("fuzzed", schema.clone(), Body::new(""));
            definition.batch_rows = NonZeroUsize::new(get("batch_rows").extract().unwrap()).unwrap();
            if !get("lingers").extract::<bool>().unwrap() {
                definition.linger = Duration::ZERO;
            }
            if get("is_arrow").extract().unwrap() {
                definition.write_format = WriteFormat::Arrow;
            }
            Arc::new(definition)
        };
        let callable = |name| Some(Callable::from(get(name).unbind()));
        Some(Self {
            read: stream_of_callables(define(&schema), callable("read"), None).unwrap(),
            write: stream_of_callables(define(&projected), None, callable("write")).unwrap(),
            projection,
            rows: get("rows").len().unwrap(),
            is_foreseen: get("is_foreseen").extract().unwrap(),
            object: object.unbind(),
        })
    }

    async fn run(&self) {
        let (batches, outcome) = self.scan().await;
        for batch in &batches {
            for column in batch.columns() {
                column.to_data().validate_full().unwrap();
            }
        }
        let found: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert!(found >= self.rows, "{found} of {} rows arrived: {outcome:?}", self.rows);
        if self.is_foreseen {
            outcome.as_ref().unwrap();
            assert_eq!(found, self.rows);
        }
        outcome.unwrap_or_else(|error| assert_users(&error));

        if self.projection.is_empty() {
            return;
        }
        self.give_back(first(&batches, self.rows)).await.unwrap();
        Python::attach(|py| self.object.call_method0(py, "check").map_err(shown(py)).unwrap());
        // What was odd may have no value in Python.
        self.give_back(batches).await.unwrap_or_else(|error| assert_users(&error));
    }

    /// What the source gives, and how that ends.
    async fn scan(&self) -> (Vec<RecordBatch>, Result<()>) {
        let (projection, metrics, finish) = (self.projection.clone(), Arc::new(Metrics::default()), Finish::ignore());
        let request = ScanRequest { projection, fetch: None, context: Arc::default(), metrics, finish };
        let mut partition = match self.read.source.open(request).await {
            Ok(mut partitions) => partitions.remove(0),
            Err(error) => return (Vec::new(), Err(error)),
        };
        let mut batches = Vec::new();
        let outcome = loop {
            match partition.next_batch().await {
                Ok(Some(batch)) => batches.push(batch),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        partition.close().await.unwrap_or_else(|error| assert_users(&error));
        (batches, outcome)
    }

    async fn give_back(&self, batches: Vec<RecordBatch>) -> Result<()> {
        let request = WriteRequest { context: Arc::default(), metrics: Arc::new(Metrics::default()), finish: Finish::ignore() };
        let mut writer = self.write.sink.open(request).await?;
        for batch in batches {
            if let Err(error) = writer.write(batch).await {
                writer.abort().await?;
                return Err(error);
            }
        }
        writer.commit().await.map(drop)
    }
}

/// The first rows of the batches.
fn first(batches: &[RecordBatch], mut rows: usize) -> Vec<RecordBatch> {
    let slice = |batch: &RecordBatch| {
        let slice = batch.slice(0, batch.num_rows().min(rows));
        rows -= slice.num_rows();
        slice
    };
    batches.iter().map(slice).filter(|batch| batch.num_rows() > 0).collect()
}

/// The error is one that user code or its values make.
fn assert_users(error: &Error) {
    let users = [ErrorKind::TypeMismatch, ErrorKind::PythonException];
    assert!(users.contains(&error.kind()), "{error:?}");
}

/// An exception of `values.py`, with its traceback.
fn shown(py: Python<'_>) -> impl Fn(PyErr) -> PyErr {
    move |error| {
        error.print(py);
        error
    }
}
