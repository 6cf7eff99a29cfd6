//! The embedded interpreter as a [`Host`]: definitions become checked streams.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use couatl_core::{
    Columns, Error, Function, FunctionDefinition, Host, Mode, OpenContext, Partition, Registered, Result, ScanRequest,
    Sink, SinkWriter, Source, Stream, StreamDefinition, WriteRequest,
};
use pyo3::prelude::*;

use crate::body::{Body, Role, check_callable};
use crate::connector;
use crate::function::TableCall;
use crate::interpreter::{attach, start};
use crate::program::{Code, Program};
use crate::{function, scan, write};

/// The interpreter of this process, in the user's environment.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::datatypes::{DataType, Field, Schema};
/// use couatl_core::{Body, Host, StreamDefinition};
/// use couatl_python::PythonHost;
///
/// let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
/// let body = Body::new("def numbers():\n    return [1, 2, 3]");
/// let stream = PythonHost::new(None)?.stream(Arc::new(StreamDefinition::new("numbers", schema, body)))?;
/// assert_eq!(stream.source.name(), "numbers");
/// # Ok::<(), couatl_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PythonHost(());

impl PythonHost {
    /// Starts the interpreter, unless the process runs one already, in an environment: that of the path (a virtual
    /// environment's folder, or a Python executable), else that of `VIRTUAL_ENV`, else the linked library's own.
    ///
    /// # Errors
    /// `invalid-argument` where there is no Python at the path, or the process already runs another environment.
    pub fn new(environment: Option<&Path>) -> Result<Self> {
        start(environment)?;
        Ok(Self(()))
    }
}

impl Host for PythonHost {
    fn stream(&self, definition: Arc<StreamDefinition>) -> Result<Stream> {
        let code = match definition.connector.clone() {
            Some(connector) => {
                connector::check(&definition, &connector)?;
                Code::Connector(connector)
            }
            None => Code::Body(Arc::new(attach(|py| Body::check(py, definition.clone()))?)),
        };
        Ok(stream(definition, code))
    }

    fn function(&self, definition: Arc<FunctionDefinition>) -> Result<Function> {
        function::function(definition)
    }

    fn connectors(&self) -> Result<Vec<Registered>> {
        connector::listed()
    }

    fn columns(&self, definition: &StreamDefinition, context: &OpenContext) -> Result<Columns> {
        match &definition.connector {
            Some(connector) => connector::columns(definition, connector, context),
            None => Err(Error::internal("columns are asked of a class, and there is none")),
        }
    }
}

/// A Python callable, as a value that Rust can hold.
///
/// With `pyo3` at hand, any `Py<PyAny>` converts into one.
#[derive(Debug)]
pub struct Callable(pub(crate) Py<PyAny>);

impl Callable {
    /// The callable that an import path names: `"package.module:name"`, or `"module:Class.method"`.
    ///
    /// # Errors
    /// `not-found` where the module cannot be imported or has no such name.
    pub fn import(path: &str) -> Result<Self> {
        let not_found = |reason: String| {
            let message = format!("no Python callable '{path}' (expected 'package.module:name'): {reason}");
            couatl_core::Error::not_found(message)
        };
        let Some((module, name)) = path.split_once(':') else {
            return Err(not_found("it has no ':'".into()));
        };
        start(None)?;
        let found = attach(|py| {
            let module = py.import(module)?.into_any();
            name.split('.').try_fold(module, |object, name| object.getattr(name)).map(Bound::unbind)
        });
        found.map(Self).map_err(|error: PyErr| not_found(error.to_string()))
    }
}

impl From<Py<PyAny>> for Callable {
    fn from(object: Py<PyAny>) -> Self {
        Self(object)
    }
}

/// A stream over callables of this process: no body is run, and all its queries share the same objects.
///
/// The definition gives name, columns and settings; its body and function names are not used.
///
/// # Errors
/// `invalid-definition` where neither callable is given, one cannot be called as it must be, or the definition names an init or deinit function.
pub fn stream_of_callables(
    definition: Arc<StreamDefinition>,
    read: Option<Callable>,
    write: Option<Callable>,
) -> Result<Stream> {
    let name = &definition.name;
    if read.is_none() && write.is_none() {
        return Err(couatl_core::Error::invalid_definition(format!(
            "stream '{name}': expected a callable that reads, one that writes, or both"
        )));
    }
    if definition.functions.init.is_some() || definition.functions.deinit.is_some() {
        return Err(couatl_core::Error::invalid_definition(format!(
            "stream '{name}': init and deinit functions belong to a body; a callable sets itself up"
        )));
    }
    attach(|py| {
        let columns = definition.schema.fields().len();
        let sides = [(&read, Role::Read, 0), (&write, Role::Write, columns)];
        sides.into_iter().try_for_each(|(side, role, arguments)| match side {
            Some(callable) => check_callable(py, &definition.subject(), callable.0.bind(py), role, arguments),
            None => Ok(()),
        })
    })?;
    let code = Code::Callables { read: read.map(|read| read.0), write: write.map(|write| write.0) };
    Ok(stream(definition, code))
}

fn stream(definition: Arc<StreamDefinition>, code: Code) -> Stream {
    let program = Arc::new(Program { definition: definition.clone(), code });
    let source = Arc::new(PythonSource { program: program.clone(), call: None });
    let sink = Arc::new(PythonSink(program));
    Stream { definition, source, sink }
}

#[derive(Debug)]
pub(crate) struct PythonSource {
    pub(crate) program: Arc<Program>,
    /// What its function is called with, where it is one of SQL.
    pub(crate) call: Option<Arc<TableCall>>,
}

#[async_trait]
impl Source for PythonSource {
    fn name(&self) -> &str {
        &self.program.definition.name
    }

    fn schema(&self) -> SchemaRef {
        self.program.definition.schema.clone()
    }

    fn mode(&self) -> Mode {
        self.program.definition.mode
    }

    async fn open(&self, request: ScanRequest) -> Result<Vec<Box<dyn Partition>>> {
        let partitions = scan::open(self.program.clone(), self.call.clone(), request).await?;
        Ok(partitions.into_iter().map(|partition| Box::new(partition) as _).collect())
    }
}

#[derive(Debug)]
struct PythonSink(Arc<Program>);

#[async_trait]
impl Sink for PythonSink {
    fn name(&self) -> &str {
        &self.0.definition.name
    }

    fn schema(&self) -> SchemaRef {
        self.0.definition.schema.clone()
    }

    async fn open(&self, request: WriteRequest) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(write::open(self.0.clone(), request).await?))
    }
}
