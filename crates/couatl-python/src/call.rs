//! Functions that give values: one thread for each use of one, which answers calls.
//!
//! ```text
//!   Calls::call ──> order ──> the function, with lists, arrays or row by row ──> values ──> an array
//!        '── blocks ── answer, or the cancel
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field};
use couatl_core::{
    ArgumentFormat, Call, CallRequest, Calls, Error, FunctionDefinition, Metrics, Result, Subject, ValueFunction,
    is_json, type_spelling,
};
use futures::executor::block_on;
use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use tokio::sync::{oneshot, watch};

use crate::body::Role;
use crate::convert::{Layout, Recast, Rows, describe, import};
use crate::exception::{self, internal};
use crate::function::support;
use crate::interpreter::waiting;
use crate::interrupt::Control;
use crate::program::{Opened, Program, cancelled, settle, spawn, user};
use crate::values::to_list;
use crate::write::to_pyarrow;

/// How many rows are converted before others may have the interpreter.
const CHUNK_ROWS: usize = 4096;

/// A function whose code was checked.
#[derive(Debug)]
pub(crate) struct PythonFunction {
    pub(crate) definition: Arc<FunctionDefinition>,
    pub(crate) program: Arc<Program>,
}

/// A call on its way, and who waits for its answer.
type Order = (Call, oneshot::Sender<Result<ArrayRef>>);

impl ValueFunction for PythonFunction {
    fn open(&self, request: CallRequest) -> Result<Arc<dyn Calls>> {
        let CallRequest { context, metrics, finish } = request;
        let (orders, inbox) = mpsc::channel::<Order>();
        let inbox = Mutex::new(inbox);
        let orders = Arc::new(Mutex::new(Some(orders)));
        let (gone, is_gone) = watch::channel(false);
        let control = Control::new({
            let orders = orders.clone();
            move || {
                drop(orders.lock().take());
                let _ = gone.send(true);
            }
        });
        let calls =
            PythonCalls { subject: self.program.definition.subject(), orders, control: control.clone(), is_gone };
        let (role, name) = (Role::of(&self.definition), self.definition.name.clone());
        let (definition, program) = (self.definition.clone(), self.program.clone());
        let job = {
            let (control, metrics) = (control.clone(), metrics.clone());
            move |py: Python<'_>| {
                let opened = Opened::open(py, &program, &context, &control);
                let failed = match opened {
                    Ok(thread) => {
                        let answering = Answering::new(py, &definition, &program, &control, &metrics, &thread);
                        match answering {
                            Ok(mut answering) => {
                                answering.run(&inbox);
                                return thread.close(py);
                            }
                            Err(error) => settle(Err(error), [thread.close(py)]),
                        }
                    }
                    Err(error) => Err(error),
                };
                // Whoever calls is told: the first as it is, the others what it says.
                let said = failed.as_ref().err().map(|error| (error.kind(), error.to_string()));
                let mut failed = Some(failed);
                while let (Ok((_, reply)), _) = waiting(py, &metrics, || inbox.lock().recv()) {
                    let again = || said.clone().map_or(Ok(()), |(kind, said)| Err(Error::new(kind, said)));
                    let _ = reply.send(failed.take().unwrap_or_else(again).map(|()| nothing()));
                }
                Ok(())
            }
        };
        let end = move |outcome: Result<()>| finish.report(outcome);
        spawn(role, &name, control, metrics, job, end)?;
        Ok(Arc::new(calls))
    }
}

/// The callers' end of one use.
struct PythonCalls {
    subject: Subject,
    orders: Arc<Mutex<Option<mpsc::Sender<Order>>>>,
    control: Arc<Control>,
    is_gone: watch::Receiver<bool>,
}

impl fmt::Debug for PythonCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonCalls").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl PythonCalls {
    /// Who waits for the answer hears of a cancel by the end of its channel.
    fn send(&self, call: Call) -> oneshot::Receiver<Result<ArrayRef>> {
        let (reply, answer) = oneshot::channel();
        if let Some(orders) = &*self.orders.lock() {
            let _ = orders.send((call, reply));
        }
        answer
    }
}

impl Calls for PythonCalls {
    fn call(&self, call: Call) -> Result<ArrayRef> {
        let answer = self.send(call);
        let mut is_gone = self.is_gone.clone();
        // What runs may not hear of a cancel for long; who waits does.
        block_on(tokio::task::unconstrained(async {
            tokio::select! {
                biased;
                answer = answer => answer.unwrap_or_else(|_| Err(cancelled(&self.subject))),
                _ = is_gone.wait_for(|gone| *gone) => Err(cancelled(&self.subject)),
            }
        }))
    }

    fn forget(&self, aggregation: u64) {
        drop(self.send(Call::Forget { aggregation }));
    }

    fn cancel(&self) {
        self.control.cancel();
    }
}

impl Drop for PythonCalls {
    fn drop(&mut self) {
        self.control.cancel();
    }
}

/// The thread's end: what answers calls.
struct Answering<'a, 'py> {
    py: Python<'py>,
    definition: &'a FunctionDefinition,
    program: &'a Program,
    control: &'a Control,
    metrics: &'a Metrics,
    /// Where results are converted, and what messages call them.
    layout: Arc<Layout>,
    /// The function, called with the number of rows and the columns; or the aggregations.
    target: Bound<'py, PyAny>,
    /// How many values it has given, for messages.
    given: u64,
}

impl<'a, 'py> Answering<'a, 'py> {
    fn new(
        py: Python<'py>,
        definition: &'a FunctionDefinition,
        program: &'a Program,
        control: &'a Control,
        metrics: &'a Metrics,
        thread: &Opened<'_>,
    ) -> Result<Self> {
        let code = &program.definition;
        let layout = Arc::new(Layout {
            subject: code.subject(),
            declared: code.schema.clone(),
            projection: vec![0],
            schema: code.schema.clone(),
            batch_rows: usize::MAX,
        });
        // Types that nothing can have are refused here, before user code runs.
        Rows::new(py, layout.clone(), 0)?;
        let arguments = if definition.is_aggregate { 0 } else { definition.parameters.len() };
        let thing = thread.function(py, Role::of(definition), arguments)?;
        let by_row = definition.format() == ArgumentFormat::Row;
        let target = user(py, control, || {
            let support = support(py)?;
            if !definition.is_aggregate {
                return support.call_method1("scalar", (thing, by_row));
            }
            let field = code.schema.field(0);
            let unwraps = !field.data_type().is_nested() && !is_json(field);
            support.call_method1("Aggregations", (thing, by_row, unwraps))
        });
        let target = target.map_err(|error| refused(py, program, control, error))?;
        Ok(Self { py, definition, program, control, metrics, layout, target, given: 0 })
    }

    /// Answers until there are no more calls.
    fn run(&mut self, inbox: &Mutex<mpsc::Receiver<Order>>) {
        while let (Ok((call, reply)), _) = waiting(self.py, self.metrics, || inbox.lock().recv()) {
            let answer = match self.control.is_cancelled() {
                true => Err(cancelled(&self.layout.subject)),
                false => self.answer(call),
            };
            let _ = reply.send(answer);
        }
    }

    fn answer(&mut self, call: Call) -> Result<ArrayRef> {
        let py = self.py;
        match call {
            Call::Rows { arguments, rows } => {
                let columns = self.columns(&arguments)?;
                let count = rows.into_bound_py_any(py).map_err(internal)?;
                let call = std::iter::once(count).chain(columns);
                let call = PyTuple::new(py, call.collect::<Vec<_>>()).map_err(internal)?;
                let values = self.user(|target| target.call1(call))?;
                self.array(&values, rows)
            }
            Call::Process { aggregation, arguments, groups, count } => {
                self.metrics.add_batch(groups.len());
                let rows = groups.len();
                let head = (aggregation, groups, count).into_pyobject(py).map_err(internal)?;
                let call = head.iter().chain(self.columns(&arguments)?).collect::<Vec<_>>();
                let call = PyTuple::new(py, call).map_err(internal)?;
                self.user(|target| target.call_method1(intern!(py, "process"), call))?;
                self.given += rows as u64;
                Ok(nothing())
            }
            Call::Merge { aggregation, states, groups, count } => {
                let states = to_list(py, &states, &Field::new("state", DataType::Binary, false)).map_err(internal)?;
                self.user(|target| target.call_method1(intern!(py, "merge"), (aggregation, groups, count, states)))?;
                Ok(nothing())
            }
            Call::States { aggregation, first } => {
                let states = self.user(|target| target.call_method1(intern!(py, "states"), (aggregation, first)))?;
                let states: Vec<Bound<'_, PyBytes>> = states.extract().map_err(internal)?;
                Ok(Arc::new(BinaryArray::from_iter_values(states.iter().map(|state| state.as_bytes()))))
            }
            Call::Values { aggregation, first, keeps } => {
                let values =
                    self.user(|target| target.call_method1(intern!(py, "values"), (aggregation, first, keeps)))?;
                self.given = 0;
                self.array(&values, first)
            }
            Call::Forget { aggregation } => {
                self.user(|target| target.call_method1(intern!(py, "forget"), (aggregation,)))?;
                Ok(nothing())
            }
        }
    }

    /// Calls user code.
    fn user(&self, call: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>) -> Result<Bound<'py, PyAny>> {
        let start = Instant::now();
        let called = user(self.py, self.control, || call(&self.target));
        self.metrics.add_python(start.elapsed());
        called.map_err(|error| refused(self.py, self.program, self.control, error))
    }

    /// The arguments as the function receives them.
    fn columns(&self, arguments: &[ArrayRef]) -> Result<Vec<Bound<'py, PyAny>>> {
        let start = Instant::now();
        let columns = arguments.iter().zip(self.definition.values());
        let columns = columns.map(|(array, field)| column(self.py, array, field, self.definition.format()));
        let columns = columns.collect::<Result<_>>();
        self.metrics.add_convert(start.elapsed());
        columns.map_err(|error| Error::new(error.kind(), format!("function '{}', {error}", self.definition.name)))
    }

    /// What the function gave, as an array of so many values.
    fn array(&mut self, values: &Bound<'py, PyAny>, rows: usize) -> Result<ArrayRef> {
        let start = Instant::now();
        let array = match values.cast::<PyList>() {
            Ok(list) => self.list(list, rows)?,
            Err(_) => self.arrow(values, rows)?,
        };
        self.metrics.add_convert(start.elapsed());
        if !self.definition.is_aggregate {
            self.metrics.add_batch(rows);
        }
        self.given += rows as u64;
        Ok(array)
    }

    fn list(&self, list: &Bound<'py, PyList>, rows: usize) -> Result<ArrayRef> {
        if list.len() != rows {
            return Err(self.wrong_length(list.len(), rows));
        }
        let mut builders = Rows::new(self.py, self.layout.clone(), rows)?;
        let mut arrays = Vec::new();
        let mut done = 0;
        while done < rows {
            let chunk = list.get_slice(done, rows.min(done + CHUNK_ROWS));
            let values: Vec<_> = chunk.iter().collect();
            let (fit, fits) = user(self.py, self.control, || builders.values(&values, self.given + done as u64 + 1));
            if self.control.is_cancelled() {
                return Err(cancelled(&self.layout.subject));
            }
            fits?;
            done += fit;
            if builders.is_full() {
                arrays.push(builders.finish()?.column(0).clone());
            }
        }
        arrays.push(builders.finish()?.column(0).clone());
        Ok(concat(&arrays.iter().map(|array| &**array).collect::<Vec<_>>())?)
    }

    fn arrow(&self, values: &Bound<'py, PyAny>, rows: usize) -> Result<ArrayRef> {
        let imported =
            user(self.py, self.control, || import(&support(self.py)?.call_method1("from_numpy", (values,))?));
        let imported = imported.map_err(|error| refused(self.py, self.program, self.control, error))?;
        let Some(batches) = imported else { return Err(self.wrong_shape(values, rows)) };
        let mut batches = batches?;
        let mut arrays = Vec::new();
        loop {
            let next =
                user(self.py, self.control, || batches.next(self.py, Some(self.layout.declared.field(0).name())));
            let next = next.map_err(|error| refused(self.py, self.program, self.control, error))?;
            let Some(batch) = next? else { break };
            let batch = self.named(batch)?;
            let before = self.given + arrays.iter().map(|array: &ArrayRef| array.len() as u64).sum::<u64>();
            arrays.push(Recast { layout: &self.layout }.batch(self.py, &batch, before)?.column(0).clone());
        }
        let found = arrays.iter().map(Array::len).sum();
        if found != rows {
            return Err(self.wrong_length(found, rows));
        }
        match &arrays[..] {
            [] => Ok(new_empty_array(self.layout.schema.field(0).data_type())),
            arrays => Ok(concat(&arrays.iter().map(|array| &**array).collect::<Vec<_>>())?),
        }
    }

    /// A batch of one column, whatever that is called.
    fn named(&self, batch: RecordBatch) -> Result<RecordBatch> {
        if batch.num_columns() != 1 {
            let message =
                format!("function '{}': expected one column, got {}", self.definition.name, batch.num_columns());
            return Err(Error::type_mismatch(message));
        }
        let field = batch.schema().field(0).clone().with_name(self.layout.declared.field(0).name());
        let schema = Arc::new(arrow::datatypes::Schema::new(vec![field]));
        Ok(RecordBatch::try_new(schema, batch.columns().to_vec())?)
    }

    fn wrong_length(&self, found: usize, rows: usize) -> Error {
        let (name, entry) = (&self.definition.name, self.definition.entry());
        Error::type_mismatch(format!(
            "function '{name}': expected '{entry}' to give {rows} value{}, one for each row, got {found}",
            if rows == 1 { "" } else { "s" }
        ))
    }

    fn wrong_shape(&self, values: &Bound<'_, PyAny>, rows: usize) -> Error {
        let (name, entry) = (&self.definition.name, self.definition.entry());
        let hint = match self.definition.format() {
            ArgumentFormat::List => "; OPTIONS (format 'row') calls it for each row, with one value of each column",
            _ => "",
        };
        Error::type_mismatch(format!(
            "function '{name}': expected '{entry}' to give a list or an Arrow array of {rows} value{}, one for each row, \
             got {}{hint}",
            if rows == 1 { "" } else { "s" },
            describe(values)
        ))
    }
}

/// A column as Python receives it.
pub(crate) fn column<'py>(
    py: Python<'py>,
    array: &ArrayRef,
    field: &Field,
    format: ArgumentFormat,
) -> Result<Bound<'py, PyAny>> {
    let converted = match format {
        ArgumentFormat::Row | ArgumentFormat::List => to_list(py, array, field).map(Bound::into_any),
        ArgumentFormat::Arrow => to_pyarrow(py, array, field),
        ArgumentFormat::Numpy => {
            to_pyarrow(py, array, field).and_then(|array| support(py)?.call_method1(intern!(py, "as_numpy"), (array,)))
        }
    };
    converted.map_err(|error| {
        let (name, data_type) = (field.name(), type_spelling(field));
        let text = error.value(py).to_string();
        Error::type_mismatch(format!("argument '{name}' ({data_type}): cannot give the values to Python: {text}"))
            .with_source(error)
    })
}

fn nothing() -> ArrayRef {
    new_empty_array(&DataType::Null)
}

/// The error for what a function raised: a refusal of ours, or its own.
pub(crate) fn refused(py: Python<'_>, program: &Program, control: &Control, error: PyErr) -> Error {
    if control.is_cancelled() {
        return cancelled(&program.definition.subject());
    }
    let refusal = support(py).and_then(|support| support.getattr("Refused"));
    if refusal.is_ok_and(|class| error.is_instance(py, &class)) {
        let name = &program.definition.name;
        return Error::type_mismatch(format!("function '{name}': {}", error.value(py)));
    }
    exception::raised(py, program.body(), &program.definition.subject(), &program.what(Role::Scalar), error)
}
