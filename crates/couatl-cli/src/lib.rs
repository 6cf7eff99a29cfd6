//! The `couatl` command.
//!
//! A library without a binary: the wheel's entry point calls [`run`], so that the command lives in the user's own
//! environment, with every package that the bodies of their streams want. Nothing here knows Python, and only this
//! crate installs signal handlers.
//!
//! ```text
//!   run --> args --> serve: the engine's session behind a listener, until a signal
//!                |-> user:  the file of those who may log in
//!                '-> sql:   statement --> Connection --------> Renderer --> stdout
//!                                         engine | client      Progress --> stderr
//! ```

mod args;
mod client;
mod config;
mod connection;
mod engine;
mod limit;
mod log;
mod new;
mod progress;
mod render;
mod runtime;
mod serve;
mod signals;
mod sql;
mod stdout;
mod table;
mod user;

use std::ffi::OsString;
use std::io::{self, Write};

use crate::args::Command;
use crate::stdout::Stdout;
pub use crate::stdout::keep_stdout;

fn help(text: &clap::builder::StyledStr) -> io::Result<()> {
    let mut stdout = Stdout::new();
    if stdout.is_terminal() { write!(stdout, "{}", text.ansi()) } else { write!(stdout, "{text}") }
}

/// Runs the command with its arguments, the first of which is its own name, and gives the exit code of the process.
///
/// It takes the thread until the command is over: a caller from Python has released the interpreter and given SIGINT
/// back its default action, since the handlers installed here call those that were there before. A second SIGINT or
/// SIGTERM ends the process without returning.
///
/// ```
/// assert_eq!(couatl_cli::run(["couatl".into(), "--version".into()]), 0);
/// ```
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args = match config::parse(args.into_iter().collect()) {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to tell where not even this can be printed.
            let _ = if error.use_stderr() { error.print() } else { help(&error.render()) };
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let ended = match args.command {
        Command::Serve(args) => serve::run(&args),
        Command::Sql(args) => sql::run(&args),
        Command::User(command) => user::run(&command),
        Command::New(command) => new::run(&command),
    };
    ended.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {error}");
        1
    })
}
