//! Connectors: objects and classes that the SDK makes readable and writable, in Python, and how it is called. Nothing
//! here knows a model.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use arrow::datatypes::Field;
use couatl_core::{
    Columns, Connector, Error, ErrorKind, OpenContext, OptionValue, Registered, Result, StreamDefinition, Subject,
    type_spelling,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::body::{Role, check_callable, support};
use crate::convert::{declared, import_schema};
use crate::exception::{self, raised};
use crate::interrupt::Control;
use crate::program::{spawn, user};

/// How long the import of a package, and what its class says of itself, may take.
const IMPORT_TIME: Duration = Duration::from_secs(60);

/// Whether the SDK makes something of an object in a role; all else is a function, or rows.
pub(crate) fn is_connector(thing: &Bound<'_, PyAny>, role: Role) -> PyResult<bool> {
    let py = thing.py();
    support(py)?.call_method1(intern!(py, "is_connector"), (thing, role.as_str()))?.extract()
}

/// The class that a definition names.
pub(crate) fn class<'py>(py: Python<'py>, connector: &Connector, role: Role) -> PyResult<Bound<'py, PyAny>> {
    let (module, role) = match role {
        Role::Scalar | Role::Aggregate => ("couatl._functions", "function"),
        Role::Table => ("couatl._functions", "transform"),
        Role::Write => ("couatl._connectors", "sink"),
        _ => ("couatl._connectors", "source"),
    };
    py.import(module)?.call_method1("required", (&connector.class, role))
}

/// The connectors that are installed.
pub(crate) fn listed() -> Result<Vec<Registered>> {
    on_a_thread("connectors", "the list", |py, _| {
        let listed = || py.import("couatl._connectors")?.call_method0("listed")?.extract::<Vec<[String; 6]>>();
        let listed = listed().map_err(|error| raised(py, None, &Subject::stream("connectors"), "the list", error))?;
        let registered = |[name, kind, distribution, version, state, options]: [String; 6]| Registered {
            name,
            kind,
            distribution,
            version,
            state,
            options,
        };
        Ok(listed.into_iter().map(registered).collect())
    })
}

/// A connector with the values of the secrets that its options name.
pub(crate) fn resolved(connector: &Connector, context: &OpenContext) -> Result<Connector> {
    let mut resolved = connector.clone();
    for (_, option) in &mut resolved.options {
        if let OptionValue::Text(text) = option {
            *text = context.resolve(text)?.into_owned();
        }
    }
    Ok(resolved)
}

/// What a class is made with.
pub(crate) fn options<'py>(py: Python<'py>, connector: &Connector) -> Result<Bound<'py, PyDict>> {
    let options = PyDict::new(py);
    for (name, option) in &connector.options {
        let set = match option {
            OptionValue::Text(text) => options.set_item(name, text),
            OptionValue::Bool(value) => options.set_item(name, value),
            // What is written is kept beside its value: an option may be a decimal, or a text.
            OptionValue::Number(number) => {
                let number = py.import("couatl._options").and_then(|module| module.call_method1("number", (number,)));
                number.and_then(|number| options.set_item(name, number))
            }
        };
        set.map_err(|error| Error::internal(error.to_string()))?;
    }
    Ok(options)
}

/// Imports the class of a definition, and sees whether it takes its options.
pub(crate) fn check(definition: &Arc<StreamDefinition>, connector: &Connector) -> Result<()> {
    let (definition, connector) = (definition.clone(), connector.clone());
    on_a_thread(&definition.name.clone(), &import_of(&connector), move |py, control| {
        let options = options(py, &connector)?;
        let check = || py.import("couatl._connectors")?.call_method1("check", (&connector.class, options));
        user(py, control, check).map(drop).map_err(|error| refused(py, &definition.subject(), error))
    })
}

/// Checks that there is what a function of SQL names in a package, and that it can be called with so many arguments.
pub(crate) fn check_function(
    program: &Arc<StreamDefinition>,
    connector: &Connector,
    role: Role,
    arguments: usize,
) -> Result<()> {
    let (subject, connector) = (program.subject(), connector.clone());
    on_a_thread(&program.name, &import_of(&connector), move |py, control| {
        let found = user(py, control, || class(py, &connector, role)).map_err(|error| refused(py, &subject, error))?;
        check_callable(py, &subject, &found, role, arguments)
    })
}

/// The columns of the class of a definition.
pub(crate) fn columns(definition: &StreamDefinition, connector: &Connector, context: &OpenContext) -> Result<Columns> {
    // Secrets are read here, where the context is.
    let (subject, connector) = (definition.subject(), resolved(connector, context)?);
    let what = format!("{}, its __init__ or its schema()", import_of(&connector));
    let columns = on_a_thread(&definition.name, &what, move |py, control| {
        let options = options(py, &connector)?;
        let ask = || {
            let columns = py.import("couatl._connectors")?.call_method1("columns", (&connector.class, options))?;
            match columns.extract::<String>() {
                Ok(text) => PyResult::Ok(Some(Ok(Columns::Text(text)))),
                Err(_) => Ok(import_schema(&columns)?.map(|schema| -> Result<Columns> {
                    let of = |reason: &str| format!("{subject}: the columns of '{}': {reason}", connector.class);
                    let schema = schema.map_err(|error| {
                        let expected = "expected an Arrow schema, or text such as 'a int64, b string'";
                        Error::invalid_definition(of(&format!("{expected}; {error}")))
                    })?;
                    let names: Vec<_> = schema.fields().iter().map(|field| field.name()).collect();
                    if let Some((_, twice)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
                        return Err(Error::invalid_definition(of(&format!("two columns are named '{twice}'"))));
                    }
                    let schema = declared(&schema).map_err(|column| no_type(&subject, &connector, &column))?;
                    Ok(Columns::Schema(Arc::new(schema)))
                })),
            }
        };
        let columns = user(py, control, ask).map_err(|error| refused(py, &subject, error))?;
        columns.unwrap_or_else(|| Err(Error::internal("columns that are neither text nor Arrow's")))
    });
    columns.map_err(|error| context.hide(error))
}

/// What is waited for, as a message has it.
fn import_of(connector: &Connector) -> String {
    format!("the import of connector '{}'", connector.class)
}

/// The error for a column that a class gives, of a type that streams do not have.
fn no_type(subject: &Subject, connector: &Connector, column: &Field) -> Error {
    Error::invalid_definition(format!(
        "{subject}: the columns of '{}': column '{}' has the Arrow type {}, which no stream can have",
        connector.class,
        column.name(),
        column.data_type()
    ))
}

/// The error for what the SDK or the package raised while a definition was checked.
fn refused(py: Python<'_>, subject: &Subject, error: PyErr) -> Error {
    let refusal = py.import("couatl._connectors").and_then(|module| module.getattr("Refused"));
    exception::refused(py, refusal, subject, "its connector", error)
}

/// Runs user code at the definition of a stream: on a thread of its own, for so long. `what` it is, for messages.
fn on_a_thread<T: Send + 'static>(
    stream: &str,
    what: &str,
    job: impl FnOnce(Python<'_>, &Control) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (send, receive) = sync_channel(1);
    let control = Control::new(|| {});
    let job = {
        let control = control.clone();
        move |py: Python<'_>| {
            let _ = send.send(job(py, &control));
            Ok(())
        }
    };
    spawn(Role::Read, stream, control.clone(), Arc::default(), job, drop)?;
    match receive.recv_timeout(IMPORT_TIME) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => {
            control.cancel();
            let message = format!("stream '{stream}': {what} did not end within {IMPORT_TIME:?}");
            Err(Error::new(ErrorKind::Timeout, message))
        }
        Err(RecvTimeoutError::Disconnected) => Err(Error::internal("the check of a connector ended without a word")),
    }
}

/// What the SDK makes of a connector, for the columns of a stream.
fn made(
    thing: &Bound<'_, PyAny>,
    definition: &StreamDefinition,
    options: Option<&Bound<'_, PyDict>>,
    module: &str,
    function: &str,
) -> PyResult<Py<PyAny>> {
    let py = thing.py();
    let fields = definition.schema.fields();
    let names: Vec<_> = fields.iter().map(|field| field.name()).collect();
    let types: Vec<_> = fields.iter().map(|field| type_spelling(field)).collect();
    let columns = py.import("couatl._columns")?.call_method1("Columns", (names, types))?;
    let options = match (&definition.connector, options) {
        (Some(connector), Some(options)) => {
            py.import("couatl._connectors")?.call_method1("options_for", (&connector.class, thing, options))?
        }
        (None, Some(options)) => options.clone().into_any(),
        _ => PyDict::new(py).into_any(),
    };
    let mode = definition.mode.as_str();
    py.import(module)?.call_method1(function, (thing, options, columns, mode)).map(Bound::unbind)
}

/// A source that the SDK reads. Where it is used says on which thread: made, asked for its partitions and closed on the
/// first, each partition opened on its own.
#[derive(Debug)]
pub(crate) struct Reading(Py<PyAny>);

impl Reading {
    pub(crate) fn new(
        thing: &Bound<'_, PyAny>,
        definition: &StreamDefinition,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        made(thing, definition, options, "couatl._reading", "reading").map(Self)
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    /// The names of its partitions.
    pub(crate) fn partitions(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.0.bind(py).getattr(intern!(py, "partitions"))?.extract()
    }

    /// Opens one.
    pub(crate) fn open<'py>(&self, py: Python<'py>, partition: &str) -> PyResult<Pull<'py>> {
        let pull = self.0.bind(py).call_method1(intern!(py, "open"), (partition,))?;
        Ok(Pull(pull))
    }

    /// Cleans up, after all partitions.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.0.bind(py).call_method0(intern!(py, "close")).map(drop)
    }
}

/// An open partition: something to iterate over, and to close.
pub(crate) struct Pull<'py>(pub(crate) Bound<'py, PyAny>);

impl Pull<'_> {
    /// What ends its waits from any thread, without blocking.
    pub(crate) fn cancel(&self) -> PyResult<Py<PyAny>> {
        self.0.getattr(intern!(self.0.py(), "cancel")).map(Bound::unbind)
    }
}

/// A sink that the SDK writes to: opened, then written to, then flushed and committed, or aborted; and closed.
pub(crate) struct Writing<'py>(Bound<'py, PyAny>);

impl<'py> Writing<'py> {
    /// Makes it.
    pub(crate) fn new(
        thing: &Bound<'py, PyAny>,
        definition: &StreamDefinition,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        made(thing, definition, options, "couatl._writing", "writing").map(|made| Self(made.into_bound(thing.py())))
    }

    /// What ends its waits from any thread, without blocking.
    pub(crate) fn cancel(&self) -> PyResult<Py<PyAny>> {
        self.0.getattr("cancel").map(Bound::unbind)
    }

    /// Opens it. After an error nothing is left to close.
    pub(crate) fn open(&self) -> PyResult<()> {
        self.0.call_method0("open").map(drop)
    }

    /// What takes a batch, one argument for each column.
    pub(crate) fn write(&self) -> PyResult<Bound<'py, PyAny>> {
        self.0.getattr("write")
    }

    pub(crate) fn commit(&self) -> PyResult<()> {
        self.0.call_method0("flush")?;
        self.0.call_method0("commit").map(drop)
    }

    pub(crate) fn abort(&self) -> PyResult<()> {
        self.0.call_method0("abort").map(drop)
    }

    pub(crate) fn close(&self) -> PyResult<()> {
        self.0.call_method0("close").map(drop)
    }
}
