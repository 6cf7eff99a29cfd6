//! Conversion beside pyarrow's, for each type: from rows of Python values to Arrow and back, nanoseconds a value.
//!
//! ```text
//!   Case.read ──source──> batches         beside   pa.array(column, type) of the same values
//!   Case.write <──sink─── the batches     beside   array.to_pylist() of the same values
//! ```
//!
//! Both run in one process and in turns, the former through the public interface, thread and channels included.
//! Criterion reports the former, and how it differs from the run before; the table at the end has the fastest run of
//! each, which the machine's other work disturbs least, and their ratio.

use std::cell::{Cell, LazyCell};
use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use couatl_core::{Body, Finish, Metrics, ScanRequest, Stream, StreamDefinition, WriteRequest};
use couatl_python::{Callable, PythonHost, stream_of_callables};
use couatl_sql::parse_columns;
use criterion::Criterion;
use pyo3::prelude::*;
use tokio::runtime::Runtime;

/// As the wheel has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many times faster than `to_pylist` a sink is to be, of any type.
const SINK_TARGET: f64 = 4.0;

thread_local! {
    static RUNTIME: LazyCell<Runtime> =
        LazyCell::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());
}

fn main() {
    PythonHost::new(None).unwrap();
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400));
    // Criterion's filter, as far as it is about a type: making values that it leaves out takes long.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let filter = filter.trim_start_matches("source ").trim_start_matches("sink ");
    let values = Python::attach(values);
    let all: Vec<(Py<PyAny>, bool, usize)> =
        Python::attach(|py| values.bind(py).call_method0("cases").unwrap().extract()).unwrap();
    let mut lines = Vec::new();
    for (kind, nulls, columns) in all {
        let name: String = Python::attach(|py| kind.getattr(py, "sql").unwrap().extract(py)).unwrap();
        if name.contains(filter) {
            let case = Python::attach(|py| Case::make(values.bind(py), kind.bind(py), nulls, columns));
            lines.push(case.measure(&mut criterion));
        }
    }
    criterion.final_summary();
    print(&lines);
}

fn values(py: Python<'_>) -> Py<PyModule> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("values.py");
    let text = CString::new(std::fs::read_to_string(&path).unwrap()).unwrap();
    PyModule::from_code(py, &text, c"values.py", c"values").unwrap().unbind()
}

/// The values of one type.
struct Case {
    name: String,
    /// How many values are read, and how many are written.
    values: [f64; 2],
    sink_rows: usize,
    target: f64,
    object: Py<PyAny>,
    stream: Stream,
}

/// One line of the table: nanoseconds a value.
struct Line {
    name: String,
    target: f64,
    source: [f64; 2],
    sink: [f64; 2],
}

impl Case {
    fn make(values: &Bound<'_, PyModule>, kind: &Bound<'_, PyAny>, nulls: bool, columns: usize) -> Self {
        let object = values.getattr("Case").unwrap().call1((kind, nulls, columns)).unwrap();
        let get = |name| object.getattr(name).unwrap();
        let sql: String = get("sql").extract().unwrap();
        let text: Vec<_> = (0..columns).map(|column| format!("c{column} {sql}")).collect();
        let schema = Arc::new(parse_columns(&text.join(", ")).unwrap());
        let definition = Arc::new(StreamDefinition::new("bench", schema, Body::new("")));
        let callable = |name| Some(Callable::from(get(name).unbind()));
        Self {
            name: get("name").extract().unwrap(),
            values: ["rows", "sink_rows"].map(|rows| (get(rows).extract::<usize>().unwrap() * columns) as f64),
            sink_rows: get("sink_rows").extract().unwrap(),
            target: get("target").extract().unwrap(),
            stream: stream_of_callables(definition, callable("read"), callable("write")).unwrap(),
            object: object.unbind(),
        }
    }

    fn measure(&self, criterion: &mut Criterion) -> Line {
        let (mut batches, mut values, mut left) = (Vec::new(), 0, self.sink_rows);
        self.scan(|batch| {
            values += batch.num_rows() * batch.num_columns();
            batches.push(batch.slice(0, left.min(batch.num_rows())));
            left -= left.min(batch.num_rows());
        });
        batches.retain(|batch| batch.num_rows() > 0);
        assert_eq!(values as f64, self.values[0]);
        let mut measure = |way: &str, values: f64, couatl: &dyn Fn(), pyarrow: &str| {
            let call = || Python::attach(|py| drop(self.object.call_method0(py, pyarrow).unwrap()));
            let fastest = [Cell::new(Duration::MAX), Cell::new(Duration::MAX)];
            let timed = |run: &dyn Fn(), fastest: &Cell<Duration>| {
                let start = Instant::now();
                run();
                let took = start.elapsed();
                fastest.set(fastest.get().min(took));
                took
            };
            criterion.bench_function(&format!("{way} {}", self.name), |bencher| {
                bencher.iter_custom(|times| {
                    let turn = |_| {
                        timed(&call, &fastest[1]);
                        timed(couatl, &fastest[0])
                    };
                    (0..times).map(turn).sum()
                });
            });
            // Infinite where criterion was told to leave it out.
            let is_measured = |time: &Duration| *time < Duration::MAX;
            let nanos =
                |time: Duration| Some(time).filter(is_measured).map_or(f64::INFINITY, |time| time.as_nanos() as f64);
            fastest.map(|time| nanos(time.get()) / values)
        };
        let source = measure("source", self.values[0], &|| self.scan(drop), "to_arrow");
        let sink = measure("sink", self.values[1], &|| self.write(&batches), "to_lists");
        Line { name: self.name.clone(), target: self.target, source, sink }
    }

    fn scan(&self, mut each: impl FnMut(RecordBatch)) {
        let projection = (0..self.stream.definition.schema.fields().len()).collect();
        let metrics = Arc::new(Metrics::default());
        let request = ScanRequest { projection, fetch: None, context: Arc::default(), metrics, finish: Finish::ignore() };
        RUNTIME.with(|runtime| {
            runtime.block_on(async {
                let mut partition = self.stream.source.open(request).await.unwrap().remove(0);
                while let Some(batch) = partition.next_batch().await.unwrap() {
                    each(batch);
                }
            });
        });
    }

    fn write(&self, batches: &[RecordBatch]) {
        let request = WriteRequest { context: Arc::default(), metrics: Arc::new(Metrics::default()), finish: Finish::ignore() };
        RUNTIME.with(|runtime| {
            runtime.block_on(async {
                let mut writer = self.stream.sink.open(request).await.unwrap();
                for batch in batches {
                    writer.write(batch.clone()).await.unwrap();
                }
                writer.commit().await.unwrap();
            });
        });
    }
}

/// The table, on standard output and in the file that `CONVERSION_TABLE` names.
fn print(lines: &[Line]) {
    let mut table = format!("{:34}{:^40}{:^40}\n", "ns a value", "source", "sink");
    let columns = format!("{:>9}{:>9}{:>8}{:>7}       ", "couatl", "pyarrow", "ratio", "target");
    table += &format!("{:34}{columns}{columns}\n", "");
    let side = |[couatl, pyarrow]: [f64; 2], target: f64| {
        if couatl.is_infinite() {
            return format!("{:40}", "  not measured");
        }
        let ratio = pyarrow / couatl;
        let mark = if ratio < target { "below" } else { "" };
        let target = if target > 0.0 { format!("{target:.0}") } else { "-".to_owned() };
        format!("{couatl:9.1}{pyarrow:9.1}{ratio:8.2}{target:>7}{mark:>7}")
    };
    for Line { name, target, source, sink } in lines {
        let line = format!("{name:34}{}{}", side(*source, *target), side(*sink, SINK_TARGET));
        table += line.trim_end();
        table += "\n";
    }
    println!("\n{table}");
    if let Ok(path) = std::env::var("CONVERSION_TABLE") {
        std::fs::write(path, table).unwrap();
    }
}
