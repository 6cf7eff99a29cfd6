//! The runtimes of the command.
//!
//! Queries never share one with the network or with the waiting for signals: a Python function inside a poll may take
//! its thread for as long as it likes, and the server still answers, and a cancel still arrives.
//!
//! Each is lent to a closure and then left behind with whatever still blocks on it: dropping it would wait, for ever if
//! need be.

use std::num::NonZeroUsize;
use std::time::Duration;

use couatl_core::{Error, Result};
use tokio::runtime::{Builder, Runtime};

/// How long threads may take to notice that everything is over.
const LINGER: Duration = Duration::from_millis(200);

/// What a thread has for plans that are deep. It is memory only where it is used.
const QUERY_STACK_BYTES: usize = 8 << 20;

/// Lends the runtime on which queries run. There are more threads than cores: an operator may compute for seconds before
/// it gives its thread to others, and the system shares out the cores meanwhile.
pub(crate) fn queries<T>(run: impl FnOnce(&Runtime) -> Result<T>) -> Result<T> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut builder = Builder::new_multi_thread();
    builder.thread_name("couatl-query").thread_stack_size(QUERY_STACK_BYTES).worker_threads((4 * cores).max(32));
    // What is new must not wait for sixty turns of those that compute.
    builder.global_queue_interval(8);
    lend(&mut builder, run)
}

/// Lends the runtime on which the server speaks to its clients.
pub(crate) fn network<T>(run: impl FnOnce(&Runtime) -> Result<T>) -> Result<T> {
    lend(Builder::new_multi_thread().thread_name("couatl-net"), run)
}

/// Lends a runtime of the calling thread, to wait for signals, for rows and for time to pass; what prints blocks a
/// thread beside it.
pub(crate) fn control<T>(run: impl FnOnce(&Runtime) -> Result<T>) -> Result<T> {
    lend(Builder::new_current_thread().thread_name("couatl-print"), run)
}

fn lend<T>(builder: &mut Builder, run: impl FnOnce(&Runtime) -> Result<T>) -> Result<T> {
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Error::internal(format!("cannot start threads: {error}")).with_source(error))?;
    let result = run(&runtime);
    runtime.shutdown_timeout(LINGER);
    result
}
