//! Functions: checked, and handed to what calls them, or reads their rows.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use couatl_core::{
    ArgumentFormat, Error, Function, FunctionDefinition, Input, InputEvent, Parameter, Result, Returns, Source,
    TableFunction,
};
use futures::StreamExt;
use futures::executor::block_on;
use parking_lot::Mutex;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::ffi::c_str;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyModule, PyTuple};

use crate::body::{Body, Role};
use crate::call::{PythonFunction, column};
use crate::connector;
use crate::exception::internal;
use crate::host::{Callable, PythonSource};
use crate::interpreter::attach;
use crate::interrupt::Control;
use crate::program::{Code, Program};

/// Checks a function, without running its body.
pub(crate) fn function(definition: Arc<FunctionDefinition>) -> Result<Function> {
    let program = Arc::new(definition.program());
    let code = match &definition.connector {
        Some(connector) => {
            let role = Role::of(&definition);
            let arguments = if role == Role::Aggregate { 0 } else { definition.parameters.len() };
            connector::check_function(&program, connector, role, arguments)?;
            Code::Connector(connector.clone())
        }
        None => Code::Body(Arc::new(attach(|py| Body::check_function(py, program.clone(), &definition))?)),
    };
    Ok(of(definition, Arc::new(Program { definition: program, code })))
}

/// A function over a callable of this process: no body is run, and all its queries share the same object.
///
/// The definition gives name, parameters and settings; its body is not used.
///
/// # Errors
/// None yet: what does not fit is told by the first call.
pub fn function_of_callable(definition: Arc<FunctionDefinition>, callable: Callable) -> Result<Function> {
    let code = Code::Callables { read: Some(callable.0), write: None };
    let program = Arc::new(Program { definition: Arc::new(definition.program()), code });
    Ok(of(definition, program))
}

fn of(definition: Arc<FunctionDefinition>, program: Arc<Program>) -> Function {
    match definition.returns {
        Returns::Value(_) => Function::Value(Arc::new(PythonFunction { definition, program })),
        Returns::Table(_) => Function::Table(Arc::new(PythonTableFunction { definition, program })),
    }
}

#[derive(Debug)]
struct PythonTableFunction {
    definition: Arc<FunctionDefinition>,
    program: Arc<Program>,
}

impl TableFunction for PythonTableFunction {
    fn source(&self, values: Vec<ArrayRef>) -> Arc<dyn Source> {
        let call = TableCall { definition: self.definition.clone(), values };
        Arc::new(PythonSource { program: self.program.clone(), call: Some(Arc::new(call)) })
    }
}

/// A call of a table function.
#[derive(Debug)]
pub(crate) struct TableCall {
    pub(crate) definition: Arc<FunctionDefinition>,
    values: Vec<ArrayRef>,
}

impl TableCall {
    /// What its function is called with.
    pub(crate) fn arguments<'py>(
        &self,
        py: Python<'py>,
        input: Option<Input>,
        control: &Arc<Control>,
    ) -> Result<Vec<Bound<'py, PyAny>>> {
        let mut values = self.values.iter();
        let mut input = input;
        let argument = |parameter: &Parameter| match parameter {
            Parameter::Value(field) => {
                let missing = || Error::internal("a call of a function with too few values");
                let list = column(py, values.next().ok_or_else(missing)?, field, ArgumentFormat::List)?;
                list.get_item(0).map_err(internal)
            }
            Parameter::Rows { .. } => {
                let missing = || Error::internal("a call of a function without its table");
                rows(py, input.take().ok_or_else(missing)?, self.definition.format(), control.clone()).map_err(internal)
            }
        };
        let arguments = self.definition.parameters.iter().map(argument).collect::<Result<Vec<_>>>();
        arguments.map_err(|error| Error::new(error.kind(), format!("function '{}': {error}", self.definition.name)))
    }
}

/// What a function iterates over to read its table.
fn rows(py: Python<'_>, input: Input, format: ArgumentFormat, control: Arc<Control>) -> PyResult<Bound<'_, PyAny>> {
    let names: Vec<_> = input.schema.fields().iter().map(|field| field.name().clone()).collect();
    let Input { schema, events } = input;
    let feed = Bound::new(py, Feed { schema, format, control, events: Mutex::new(Some(events)) })?;
    let support = support(py)?;
    match format {
        ArgumentFormat::Row => support.call_method1("rows_of", (feed, names)),
        ArgumentFormat::Arrow => support.call_method1("batches_of", (feed, names)),
        ArgumentFormat::List | ArgumentFormat::Numpy => support.call_method1("columns_of", (feed,)),
    }
}

/// The batches of a table as Python comes to them: how many rows, and the columns.
#[pyclass(frozen, module = "couatl")]
struct Feed {
    schema: SchemaRef,
    format: ArgumentFormat,
    control: Arc<Control>,
    /// None after the end.
    events: Mutex<Option<futures::channel::mpsc::Receiver<InputEvent>>>,
}

#[pymethods]
impl Feed {
    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<(usize, Bound<'py, PyTuple>)>> {
        let event = py.detach(|| {
            let mut events = self.events.lock();
            let event = events.as_mut().map(|events| block_on(events.next()));
            if !matches!(event, Some(Some(InputEvent::Batch(_)))) {
                *events = None;
            }
            event
        });
        match event {
            None | Some(Some(InputEvent::End)) => Ok(None),
            Some(Some(InputEvent::Failed)) => {
                self.control.about_to_raise(py);
                Err(PyRuntimeError::new_err("the rows to read could not be had"))
            }
            Some(None) => {
                // Nobody wants to know what this thread raises now.
                self.control.cancel();
                self.control.about_to_raise(py);
                Err(PyKeyboardInterrupt::new_err("the query was cancelled"))
            }
            Some(Some(InputEvent::Batch(batch))) => {
                let columns = batch.columns().iter().zip(self.schema.fields());
                let columns = columns.map(|(array, field)| {
                    column(py, array, field, self.format).map_err(|error| PyRuntimeError::new_err(error.to_string()))
                });
                let columns = columns.collect::<PyResult<Vec<_>>>()?;
                Ok(Some((batch.num_rows(), PyTuple::new(py, columns)?)))
            }
        }
    }
}

/// The module of `function.py`.
pub(crate) fn support(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static SUPPORT: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = SUPPORT.get_or_try_init(py, || {
        let text = c_str!(include_str!("function.py"));
        PyModule::from_code(py, text, c_str!("couatl/function.py"), c_str!("couatl_function")).map(Bound::unbind)
    })?;
    Ok(module.bind(py))
}
