//! The user's code of one stream, and one opening of it on one thread.
//!
//! ```text
//!   Program --open--> import, init --function--> calls … --close--> deinit, unload
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use couatl_core::{Connector, Error, Metrics, OpenContext, Purpose, Result, StreamDefinition, Subject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::body::{Body, Module, Role, check_callable};
use crate::connector;
use crate::exception::raised;
use crate::interpreter::attach;
use crate::interrupt::Control;

/// The stack of a Python thread: as large as that of a main thread, which CPython's recursion limit is made for.
const STACK_BYTES: usize = 16 << 20;

/// Checked code, and what is known of the stream that it serves.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) definition: Arc<StreamDefinition>,
    pub(crate) code: Code,
}

/// Where functions come from.
#[derive(Debug)]
pub(crate) enum Code {
    /// A body, run in a fresh module each time.
    Body(Arc<Body>),
    /// A class of a package.
    Connector(Connector),
    /// Objects of this process, shared by all who use them.
    Callables { read: Option<Py<PyAny>>, write: Option<Py<PyAny>> },
}

impl Program {
    pub(crate) fn body(&self) -> Option<&Body> {
        match &self.code {
            Code::Body(body) => Some(body),
            Code::Connector(_) | Code::Callables { .. } => None,
        }
    }

    /// The error for what a function raised; a cancelled thread's is the cancel.
    pub(crate) fn raised(&self, py: Python<'_>, control: &Control, what: &str, exception: PyErr) -> Error {
        if control.is_cancelled() {
            return cancelled(&self.definition.subject());
        }
        raised(py, self.body(), &self.definition.subject(), what, exception)
    }

    /// The name of the function in a role.
    pub(crate) fn function_name(&self, role: Role) -> &str {
        match role {
            Role::Read => self.definition.read_function(),
            Role::Write => self.definition.write_function(),
            Role::Init => self.definition.functions.init.as_ref().map_or("", |init| &init.function),
            Role::Deinit => self.definition.functions.deinit.as_deref().unwrap_or(""),
            Role::Scalar | Role::Aggregate | Role::Table => self.definition.read_function(),
        }
    }

    /// `read function 'users'`
    pub(crate) fn what(&self, role: Role) -> String {
        if let Code::Connector(connector) = &self.code {
            let kind = if connector.is_registered() { "connector" } else { "class" };
            return format!("{kind} '{}'", connector.class);
        }
        match self.definition.purpose {
            Purpose::Stream => format!("{} function '{}'", role.as_str(), self.function_name(role)),
            Purpose::Function { .. } => format!("'{}'", self.function_name(role)),
        }
    }
}

pub(crate) fn cancelled(subject: &Subject) -> Error {
    subject.mark(Error::cancelled(format!("{subject}: cancelled")))
}

/// Runs user code: interrupts may come while the closure runs, and only then.
pub(crate) fn user<R>(py: Python<'_>, control: &Control, call: impl FnOnce() -> R) -> R {
    control.enter(py);
    let out = call();
    control.leave(py);
    out
}

/// A program that has been imported and initialised on this thread.
pub(crate) struct Opened<'a> {
    program: &'a Program,
    control: &'a Control,
    module: Option<Module>,
    /// What a connector's class is made with.
    options: Option<Py<PyDict>>,
}

/// Refuses a Python whose ints are made otherwise than the conversion reads them: with 15 bits in a digit, which one has
/// to ask for when CPython is configured.
fn known_ints(py: Python<'_>) -> Result<()> {
    static DIGIT_BITS: PyOnceLock<u8> = PyOnceLock::new();
    let bits =
        DIGIT_BITS.get_or_try_init(py, || py.import("sys")?.getattr("int_info")?.getattr("bits_per_digit")?.extract());
    match bits {
        Ok(30) => Ok(()),
        _ => Err(Error::unsupported("this Python was configured with --enable-big-digits=15; use one that was not")),
    }
}

impl<'a> Opened<'a> {
    /// Imports the body and runs its init function. After an error nothing is left to close.
    pub(crate) fn open(
        py: Python<'_>,
        program: &'a Program,
        context: &OpenContext,
        control: &'a Control,
    ) -> Result<Self> {
        known_ints(py)?;
        let module = match &program.code {
            Code::Body(body) => Some(Module::new(py, body.clone())?),
            Code::Connector(_) | Code::Callables { .. } => None,
        };
        let connector = match (&program.code, &program.definition.program) {
            (Code::Connector(connector), _) => Some(connector.clone()),
            (_, options) => options.clone().map(|options| Connector { class: String::new(), options }),
        };
        let options = match connector {
            Some(connector) => Some(connector::options(py, &connector::resolved(&connector, context)?)?.unbind()),
            None => None,
        };
        let opened = Self { program, control, module, options };
        let outcome = opened.import_and_init(py, context);
        if outcome.is_err() {
            opened.unload(py);
        }
        outcome.map(|()| opened)
    }

    fn import_and_init(&self, py: Python<'_>, context: &OpenContext) -> Result<()> {
        let Some(module) = &self.module else { return Ok(()) };
        if let Some(credentials) = context.credentials() {
            module.tell(py, credentials)?;
        }
        user(py, self.control, || module.run(py))
            .map_err(|error| self.program.raised(py, self.control, "importing the body", error))?;
        if self.control.is_cancelled() {
            return Err(cancelled(&self.program.definition.subject()));
        }
        if let Some((init, parameters)) = module.init(py)? {
            let parameters = parameters.map(|parameters| context.init_parameters(parameters)).transpose()?;
            let call = || match parameters {
                Some(parameters) => init.call1((parameters,)),
                None => init.call0(),
            };
            user(py, self.control, call)
                .map_err(|error| self.program.raised(py, self.control, &self.program.what(Role::Init), error))?;
        }
        Ok(())
    }

    /// The function that reads or writes, checked to take so many arguments.
    pub(crate) fn function<'py>(&self, py: Python<'py>, role: Role, arguments: usize) -> Result<Bound<'py, PyAny>> {
        let name = self.program.function_name(role);
        match (&self.program.code, &self.module) {
            (_, Some(module)) => module.function(py, role, name, arguments),
            (Code::Connector(connector), _) => user(py, self.control, || connector::class(py, connector, role))
                .map_err(|error| self.program.raised(py, self.control, &self.program.what(role), error)),
            (Code::Callables { read, write }, _) => {
                let function = if role == Role::Write { write } else { read };
                let subject = &self.program.definition.subject();
                let Some(function) = function else {
                    return Err(Error::unsupported(format!("{subject} has no {} function", role.as_str())));
                };
                let function = function.bind(py);
                check_callable(py, subject, function, role, arguments)?;
                Ok(function.clone())
            }
            (Code::Body(_), None) => Err(Error::internal("a body without a module")),
        }
    }

    /// What a connector's class is made with, where there is one.
    pub(crate) fn options<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyDict>> {
        self.options.as_ref().map(|options| options.bind(py))
    }

    /// Runs the deinit function and forgets the module. No interrupts come here.
    pub(crate) fn close(self, py: Python<'_>) -> Result<()> {
        let outcome = match (&self.program.definition.functions.deinit, &self.module) {
            (Some(name), Some(module)) => module.function(py, Role::Deinit, name, 0).and_then(|deinit| {
                let what = self.program.what(Role::Deinit);
                let subject = &self.program.definition.subject();
                deinit.call0().map(drop).map_err(|error| raised(py, self.program.body(), subject, &what, error))
            }),
            _ => Ok(()),
        };
        self.unload(py);
        outcome
    }

    fn unload(&self, py: Python<'_>) {
        if let Some(module) = &self.module {
            module.unload(py);
        }
    }
}

/// What the work and the cleanup after it came to: the first failure, with the later ones told in its message. A cancel
/// is no failure, but one of the cleanup's after it is.
pub(crate) fn settle(work: Result<()>, cleanup: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    cleanup.into_iter().fold(work, |sofar, next| match (sofar, next) {
        (sofar, Ok(())) => sofar,
        (Ok(()), Err(error)) => Err(error),
        (Err(sofar), Err(error)) if sofar.kind() == couatl_core::ErrorKind::Cancelled => Err(error),
        (Err(sofar), Err(error)) => Err(sofar.with_cleanup(&error)),
    })
}

/// Starts the thread of one scan or write: named after the stream, attached once for its whole life, and booked with
/// its control until it ends. What the job returns goes to `end`, detached, after everything else.
pub(crate) fn spawn(
    role: Role,
    stream: &str,
    control: Arc<Control>,
    metrics: Arc<Metrics>,
    job: impl FnOnce(Python<'_>) -> Result<()> + Send + 'static,
    end: impl FnOnce(Result<()>) + Send + 'static,
) -> Result<()> {
    let builder = std::thread::Builder::new().name(format!("couatl-{}:{stream}", role.as_str()));
    let booked = control.clone();
    let spawned = builder.stack_size(STACK_BYTES).spawn(move || {
        let start = Instant::now();
        let work = || {
            attach(|py| {
                metrics.add_gil_wait(start.elapsed());
                control.attached(py).map_err(|error| Error::internal(error.to_string()))?;
                job(py)
            })
        };
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(Error::internal(format!("a Python thread panicked: {}", text.unwrap_or("no message"))))
        });
        control.done();
        end(outcome);
    });
    spawned.map(drop).map_err(|error| {
        booked.done();
        Error::new(couatl_core::ErrorKind::ResourcesExhausted, format!("no thread for stream '{stream}': {error}"))
    })
}
