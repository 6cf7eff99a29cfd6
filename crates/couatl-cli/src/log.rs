//! The log of the process, on standard error.

use std::io::{self, IsTerminal};

use couatl_core::{Error, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Sends the log to standard error: what `COUATL_LOG` asks for, else everything from a level on.
pub(crate) fn install(level: LevelFilter) -> Result<()> {
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var("COUATL_LOG")
        .from_env()
        .map_err(|error| Error::invalid_argument(format!("COUATL_LOG: {error}")).with_source(error))?;
    // The process may have a subscriber already: then that is where the log goes.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
    Ok(())
}
