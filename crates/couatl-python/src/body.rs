//! The body of a stream: compiled and checked once, run in a fresh module for each scan or write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use couatl_core::{Credentials, Error, FunctionDefinition, Init, Result, Returns, StreamDefinition, Subject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule};
use pyo3::{ffi::c_str, intern};

use crate::exception::{self, raised, with_traceback};

/// A function of the body, and how it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Read,
    Write,
    Init,
    Deinit,
    /// Those of SQL.
    Scalar,
    Aggregate,
    Table,
}

impl Role {
    /// That of what a function of SQL calls.
    pub(crate) fn of(definition: &FunctionDefinition) -> Self {
        match definition.returns {
            Returns::Table(_) => Self::Table,
            Returns::Value(_) if definition.is_aggregate => Self::Aggregate,
            Returns::Value(_) => Self::Scalar,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Write => "write",
            Role::Init => "init",
            Role::Deinit => "deinit",
            Role::Scalar => "scalar",
            Role::Aggregate => "aggregate",
            Role::Table => "table",
        }
    }
}

/// A compiled, checked body.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) definition: Arc<StreamDefinition>,
    /// The `Body` object of `body.py`.
    object: Py<PyAny>,
}

impl Body {
    /// Compiles the body and checks the functions that the definition names, without running any of it.
    pub(crate) fn check(py: Python<'_>, definition: Arc<StreamDefinition>) -> Result<Self> {
        let refused = |error: PyErr| refused(py, &definition.subject(), error);
        let object = compiled(py, "stream", &definition)?;
        let functions = &definition.functions;
        let columns = definition.schema.fields().len();
        let mut roles = vec![
            (Role::Read.as_str(), definition.read_function(), 0, functions.read.is_some()),
            (Role::Write.as_str(), definition.write_function(), columns, functions.write.is_some()),
        ];
        if let Some(init) = &functions.init {
            roles.push((Role::Init.as_str(), &init.function, init_arguments(init), true));
        }
        if let Some(deinit) = &functions.deinit {
            roles.push((Role::Deinit.as_str(), deinit, 0, true));
        }
        object.call_method1("check_functions", (roles,)).map_err(refused)?;
        Ok(Self { object: object.unbind(), definition })
    }

    /// The same for the body of a function.
    pub(crate) fn check_function(
        py: Python<'_>,
        program: Arc<StreamDefinition>,
        definition: &FunctionDefinition,
    ) -> Result<Self> {
        let object = compiled(py, "function", &program)?;
        let check = (Role::of(definition).as_str(), definition.entry(), definition.parameters.len());
        object.call_method1("check_function", check).map_err(|error| refused(py, &program.subject(), error))?;
        Ok(Self { object: object.unbind(), definition: program })
    }

    /// The traceback of an exception, with the body's lines.
    pub(crate) fn format(&self, py: Python<'_>, exception: &PyErr) -> Option<String> {
        let text = self.object.bind(py).call_method1(intern!(py, "format"), (with_traceback(py, exception),)).ok()?;
        Some(text.str().ok()?.to_string_lossy().into_owned())
    }
}

fn compiled<'py>(py: Python<'py>, kind: &str, definition: &StreamDefinition) -> Result<Bound<'py, PyAny>> {
    let text = (kind, &definition.name, &*definition.body.text, definition.body.first_line);
    support(py)
        .and_then(|support| support.getattr("Body")?.call1(text))
        .map_err(|error| refused(py, &definition.subject(), error))
}

fn init_arguments(init: &Init) -> usize {
    usize::from(init.parameters.as_deref().is_some_and(|parameters| !parameters.is_empty()))
}

/// A body that has been run: the module of one scan or write.
pub(crate) struct Module {
    body: Arc<Body>,
    name: String,
    module: Py<PyModule>,
}

impl Module {
    /// An empty module for the body, known to `sys.modules`.
    pub(crate) fn new(py: Python<'_>, body: Arc<Body>) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let module = body.object.bind(py).call_method1(intern!(py, "load"), (NEXT.fetch_add(1, Relaxed),));
        let named = module.and_then(|module| {
            let module = module.cast_into::<PyModule>()?;
            Ok((module.name()?.to_string(), module.unbind()))
        });
        match named {
            Ok((name, module)) => Ok(Self { body, name, module }),
            Err(error) => Err(raised(py, Some(&body), &body.definition.subject(), "the interpreter", error)),
        }
    }

    /// Gives the body the names of those who may ask the server from within it: ours, and those that Timeplus has.
    pub(crate) fn tell(&self, py: Python<'_>, credentials: &Credentials) -> Result<()> {
        let globals = self.module.bind(py).dict();
        let told = ["couatl", "timeplus"].into_iter().try_for_each(|system| {
            globals.set_item(format!("__{system}_local_api_user"), &credentials.user)?;
            globals.set_item(format!("__{system}_local_api_password"), &credentials.password)
        });
        told.map_err(|error| raised(py, Some(&self.body), &self.body.definition.subject(), "the interpreter", error))
    }

    /// Runs the body. User code.
    pub(crate) fn run(&self, py: Python<'_>) -> PyResult<()> {
        let object = self.body.object.bind(py);
        let code = object.getattr(intern!(py, "code"))?;
        if object.getattr(intern!(py, "is_program"))?.is_truthy()? {
            let run = py.import("couatl.compat.ekuiper")?.getattr("run_body")?;
            return run.call1((code, self.module.bind(py))).map(drop);
        }
        let globals: Bound<'_, PyDict> = self.module.bind(py).dict();
        let builtins = py.import(intern!(py, "builtins"))?;
        builtins.getattr(intern!(py, "exec"))?.call1((code, globals))?;
        Ok(())
    }

    /// A function of the body that can be called with so many arguments.
    pub(crate) fn function<'py>(
        &self,
        py: Python<'py>,
        role: Role,
        name: &str,
        arguments: usize,
    ) -> Result<Bound<'py, PyAny>> {
        let entry = (self.module.bind(py), name, role.as_str(), arguments);
        support(py)
            .and_then(|support| support.getattr(intern!(py, "entry_point"))?.call1(entry))
            .map_err(|error| refused(py, &self.body.definition.subject(), error))
    }

    /// The init function with its arguments, if the definition has one.
    pub(crate) fn init<'py>(&self, py: Python<'py>) -> Result<Option<(Bound<'py, PyAny>, Option<&str>)>> {
        let Some(init) = &self.body.definition.functions.init else { return Ok(None) };
        let arguments = init_arguments(init);
        let function = self.function(py, Role::Init, &init.function, arguments)?;
        Ok(Some((function, init.parameters.as_deref().filter(|_| arguments == 1))))
    }

    /// Forgets the module.
    pub(crate) fn unload(&self, py: Python<'_>) {
        let _ = support(py).and_then(|support| support.call_method1(intern!(py, "unload"), (&self.name,)));
    }
}

/// A callable that is no body's, checked like one.
pub(crate) fn check_callable<'py>(
    py: Python<'py>,
    subject: &Subject,
    function: &Bound<'py, PyAny>,
    role: Role,
    arguments: usize,
) -> Result<()> {
    let name = function.getattr(intern!(py, "__name__")).map_or_else(|_| "?".to_owned(), |name| name.to_string());
    support(py)
        .and_then(|support| support.call_method1("usable", (function, name, role.as_str(), arguments)))
        .map_err(|error| refused(py, subject, error))?;
    Ok(())
}

/// The module of `body.py`.
pub(crate) fn support(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static SUPPORT: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = SUPPORT.get_or_try_init(py, || {
        let text = c_str!(include_str!("body.py"));
        PyModule::from_code(py, text, c_str!("couatl/body.py"), c_str!("couatl_body")).map(Bound::unbind)
    })?;
    Ok(module.bind(py))
}

/// The error for what `body.py` raised.
fn refused(py: Python<'_>, subject: &Subject, error: PyErr) -> Error {
    let refusal = support(py).and_then(|support| support.getattr("Refused"));
    exception::refused(py, refusal, subject, "the check of the body", error)
}
