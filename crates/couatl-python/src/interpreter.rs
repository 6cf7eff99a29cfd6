//! The embedded interpreter: starting it in the user's environment, and the one way to attach to it.
//!
//! Every `Python::attach` of the project is in [`attach`], so that no thread can reach an interpreter that has not been
//! started with the right environment, and so that a reader finds every place that waits for the GIL.
#![expect(unsafe_code, reason = "the interpreter is configured through its C API")]

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use couatl_core::{Error, ErrorKind, Metrics, Result};
use pyo3::ffi;
use pyo3::prelude::*;

/// The environment that the interpreter of this process was started in: `None` where the process is Python's own.
static STARTED: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();

/// Starts the interpreter unless it runs already.
///
/// The environment is the given one (a virtual environment's folder, or a Python executable), else that of
/// `VIRTUAL_ENV`, else the one that the linked library belongs to. In a process that is Python already (the wheel), the
/// environment is what it is, and asking for another one is an error, as it is when an earlier call chose another.
///
/// # Errors
/// `invalid-argument` where there is no Python at the path, or a different environment is in use.
pub(crate) fn start(environment: Option<&Path>) -> Result<()> {
    // SAFETY: may be called at any time.
    let runs = || unsafe { ffi::Py_IsInitialized() } != 0;
    let from_variable = || std::env::var_os("VIRTUAL_ENV").filter(|path| !path.is_empty()).map(PathBuf::from);
    let chosen = environment.map(Path::to_owned).or_else(from_variable);
    // A place without Python is told, and not remembered: the next call may name another.
    let executable = match &chosen {
        Some(path) if !runs() => Some(executable(path)?),
        _ => None,
    };
    let started = STARTED.get_or_init(|| {
        if runs() {
            return Ok(None);
        }
        initialize(executable.as_deref()).map(|()| chosen).map_err(|error| error.to_string())
    });
    match started {
        Err(message) => Err(Error::invalid_argument(message.clone())),
        Ok(running) if environment.is_some() && running.as_deref() != environment => {
            let running = match running {
                Some(path) => format!("'{}'", path.display()),
                None => "its own environment".to_owned(),
            };
            let wanted = environment.unwrap_or(Path::new("")).display();
            Err(Error::invalid_argument(format!(
                "this process already runs Python in {running}, and cannot run it in '{wanted}' as well; \
                 a process has one environment"
            )))
        }
        Ok(_) => Ok(()),
    }
}

/// The executable of an environment that is named by its folder or by the executable itself.
fn executable(environment: &Path) -> Result<PathBuf> {
    let candidates = [environment.join("bin/python3"), environment.join("bin/python"), environment.to_owned()];
    let found = candidates.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::invalid_argument(format!(
            "no Python environment at '{}': expected a folder with bin/python3, as `python3 -m venv` makes it, \
             or a Python executable",
            environment.display()
        ))
    })
}

fn initialize(executable: Option<&Path>) -> Result<()> {
    let failed = |status: ffi::PyStatus| {
        // SAFETY: the message is null or a static string of the interpreter's.
        let message = unsafe {
            if status.err_msg.is_null() {
                "no reason given".into()
            } else {
                std::ffi::CStr::from_ptr(status.err_msg).to_string_lossy()
            }
        };
        Error::new(ErrorKind::Internal, format!("the Python interpreter did not start: {message}"))
    };
    // SAFETY: the configuration is initialised before any field is set, cleared once after its use, and the
    // interpreter is started by this thread alone (`STARTED` admits one). The thread that starts the interpreter holds
    // the GIL and gives it up with `PyEval_SaveThread`, whose thread state stays for this thread to attach again.
    unsafe {
        let mut config = std::mem::zeroed::<ffi::PyConfig>();
        ffi::PyConfig_InitPythonConfig(&raw mut config);
        config.install_signal_handlers = 0;
        config.parse_argv = 0;
        let mut status = ffi::PyStatus_Ok();
        if let Some(path) = executable
            && let Ok(path) = CString::new(path.as_os_str().as_bytes())
        {
            let path: *const c_char = path.as_ptr();
            let config = &raw mut config;
            // The interpreter finds `pyvenv.cfg`, and with it the packages, beside its executable.
            status = ffi::PyConfig_SetBytesString(config, &raw mut (*config).executable, path);
            if ffi::PyStatus_Exception(status) == 0 {
                status = ffi::PyConfig_SetBytesString(config, &raw mut (*config).program_name, path);
            }
        }
        if ffi::PyStatus_Exception(status) == 0 {
            status = ffi::Py_InitializeFromConfig(&raw const config);
        }
        ffi::PyConfig_Clear(&raw mut config);
        if ffi::PyStatus_Exception(status) != 0 {
            return Err(failed(status));
        }
        ffi::PyEval_SaveThread();
    }
    Ok(())
}

/// Runs a closure attached to the interpreter, which is started first if need be. Waits for the GIL: never on an async
/// thread.
pub(crate) fn attach<R>(f: impl FnOnce(Python<'_>) -> R) -> R {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    Python::attach(f)
}

/// Gives up the GIL while the closure waits for something, and books both waits.
pub(crate) fn waiting<T: Send>(py: Python<'_>, metrics: &Metrics, wait: impl FnOnce() -> T + Send) -> (T, Duration) {
    let start = Instant::now();
    let (out, blocked, back) = py.detach(|| {
        let out = wait();
        (out, start.elapsed(), Instant::now())
    });
    let gil = back.elapsed();
    metrics.add_blocked(blocked);
    metrics.add_gil_wait(gil);
    (out, blocked + gil)
}
