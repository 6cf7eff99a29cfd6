//! The extension module of the wheel: the command, sessions, and the end of what runs when the interpreter ends.
//!
//! It is the edge between Python and the engine, and holds no logic: arguments in, exit codes out.

mod session;
mod table;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use mimalloc::MiMalloc;
use pyo3::prelude::*;

/// What the system gives back to itself as soon as batches are dropped, this keeps for the next ones.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Runs the `couatl` command with its arguments, the first of which is its own name; gives the exit code.
#[pyfunction]
fn run(py: Python<'_>, args: Vec<OsString>) -> u8 {
    py.detach(|| couatl_cli::run(args))
}

/// Keeps standard output for the command, so that file descriptor 1 can be pointed elsewhere; gives whether it is kept.
#[pyfunction]
fn keep_stdout() -> bool {
    couatl_cli::keep_stdout()
}

/// Cancels every scan and write of this process and waits for their threads, and for who waits for their rows, at most
/// for so many seconds. Gives how
/// many have not ended.
#[pyfunction]
fn cancel_all(py: Python<'_>, grace: f64) -> PyResult<usize> {
    let grace = Duration::try_from_secs_f64(grace)
        .map_err(|error| pyo3::exceptions::PyValueError::new_err(format!("grace: {error}")))?;
    Ok(py.detach(|| {
        let began = Instant::now();
        let left = couatl::cancel_all(grace);
        session::wait_for_calls(grace.saturating_sub(began.elapsed()));
        left
    }))
}

/// A text for the log, without the secrets and passwords that open code has been told.
#[pyfunction]
fn hidden(text: &str) -> String {
    couatl::hidden(text)
}

#[pymodule]
fn _couatl(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(run, module)?)?;
    module.add_function(wrap_pyfunction!(keep_stdout, module)?)?;
    module.add_function(wrap_pyfunction!(cancel_all, module)?)?;
    module.add_function(wrap_pyfunction!(hidden, module)?)?;
    module.add_class::<session::Session>()?;
    module.add_class::<session::Rows>()?;
    module.add_class::<session::Batch>()?;
    module.add_class::<table::PythonTable>()
}
