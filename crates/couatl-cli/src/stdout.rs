//! Standard output, kept for what the command itself says.
//!
//! The code of bodies, and the processes that it starts, write to file descriptor 1 as well, in the midst of rows. So
//! whoever starts the command may point that elsewhere, once [`keep_stdout`] has made a duplicate for the rows.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

static KEPT: OnceLock<File> = OnceLock::new();

/// Keeps standard output for [`run`](crate::run), so that its file descriptor can be given to others. Gives whether it
/// is kept: it may be closed, and only Unix has such file descriptors.
///
/// ```
/// // Closed or not, what it answers stays true.
/// assert_eq!(couatl_cli::keep_stdout(), couatl_cli::keep_stdout());
/// ```
pub fn keep_stdout() -> bool {
    if KEPT.get().is_none()
        && let Some(stdout) = duplicate()
    {
        let _ = KEPT.set(stdout);
    }
    KEPT.get().is_some()
}

/// A duplicate that no process started later inherits.
#[cfg(unix)]
fn duplicate() -> Option<File> {
    use std::os::fd::AsFd;

    io::stdout().as_fd().try_clone_to_owned().ok().map(File::from)
}

#[cfg(not(unix))]
fn duplicate() -> Option<File> {
    None
}

/// Where the command's own output goes.
#[derive(Debug)]
pub(crate) enum Stdout {
    Kept(&'static File),
    Plain(io::Stdout),
}

impl Stdout {
    pub(crate) fn new() -> Self {
        KEPT.get().map_or_else(|| Self::Plain(io::stdout()), Self::Kept)
    }

    pub(crate) fn is_terminal(&self) -> bool {
        match self {
            Self::Kept(file) => file.is_terminal(),
            Self::Plain(stdout) => stdout.is_terminal(),
        }
    }

    #[cfg(unix)]
    pub(crate) fn is_pipe(&self) -> bool {
        use std::os::unix::fs::FileTypeExt;

        let metadata = match self {
            Self::Kept(file) => file.metadata(),
            Self::Plain(_) => duplicate().map_or_else(|| Err(io::ErrorKind::NotFound.into()), |file| file.metadata()),
        };
        metadata.is_ok_and(|metadata| metadata.file_type().is_fifo() || metadata.file_type().is_socket())
    }

    #[cfg(not(unix))]
    pub(crate) fn is_pipe(&self) -> bool {
        true
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Kept(file) => file.write(bytes),
            Self::Plain(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Kept(file) => file.flush(),
            Self::Plain(stdout) => stdout.flush(),
        }
    }
}
