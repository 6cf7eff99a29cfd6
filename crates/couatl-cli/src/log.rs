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
    // DataFusion writes locations of tables down, with the passwords that may stand in them.
    let quiet = std::env::var_os("COUATL_LOG").is_none().then(|| "datafusion=error".parse().ok()).flatten();
    let filter = quiet.into_iter().fold(filter, EnvFilter::add_directive);
    // The process may have a subscriber already: then that is where the log goes.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
    Ok(())
}
