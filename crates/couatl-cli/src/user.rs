//! `couatl user`: the file of those who may log in.

use std::io::{self, BufRead, IsTerminal, Write};

use couatl_core::{Error, Result};
use couatl_flight::Users;

use crate::args::UserCommand;
use crate::stdout::Stdout;

/// Changes or lists the file.
pub(crate) fn run(command: &UserCommand) -> Result<u8> {
    match command {
        UserCommand::Add { name, role, users: path } => {
            // Somebody types it, while others may change the file.
            let password = password()?;
            Users::change(path, |users| users.add(name, *role, &password))?;
        }
        UserCommand::Remove { name, users: path } => {
            Users::change(path, |users| match users.remove(name) {
                true => Ok(()),
                false => Err(Error::not_found(format!("there is no user '{name}' in '{}'", path.display()))),
            })?;
        }
        UserCommand::List { users: path } => {
            let mut stdout = Stdout::new();
            for user in Users::read(path)?.list() {
                let _ = writeln!(stdout, "{:9} {}", user.role, user.name);
            }
            let _ = stdout.flush();
        }
    }
    Ok(0)
}

/// A password: asked for at a terminal, where it is not shown; else the first line of standard input.
fn password() -> Result<String> {
    let unread =
        |error: io::Error| Error::invalid_argument(format!("cannot read the password: {error}")).with_source(error);
    if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("password: ").map_err(unread)?;
        if rpassword::prompt_password("once more: ").map_err(unread)? != password {
            return Err(Error::invalid_argument("the passwords are not the same"));
        }
        return Ok(password);
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(unread)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
