//! SIGINT and SIGTERM: the first asks, the second ends the process at once.

use std::future;
use std::process;

use couatl_core::{Error, Result};

/// A request to end, with the exit code that tells of it: 128 and the signal's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) name: &'static str,
    pub(crate) exit_code: u8,
}

const INTERRUPT: Signal = Signal { name: "SIGINT", exit_code: 130 };

/// The signals of this process, from [`Signals::install`] on.
#[derive(Debug)]
pub(crate) struct Signals(Option<Handlers>);

impl Signals {
    /// Installs the handlers; within a runtime.
    pub(crate) fn install() -> Result<Self> {
        let handlers = Handlers::install()
            .map_err(|error| Error::internal(format!("cannot handle signals: {error}")).with_source(error))?;
        Ok(Self(Some(handlers)))
    }

    /// Waits for the first signal. It comes once: from then on a second one ends the process, whatever it is doing.
    ///
    /// May be dropped and called again.
    pub(crate) async fn first(&mut self) -> Signal {
        let Some(handlers) = &mut self.0 else { return future::pending().await };
        let signal = handlers.next().await;
        if let Some(mut handlers) = self.0.take() {
            tokio::spawn(async move { process::exit(handlers.next().await.exit_code.into()) });
        }
        signal
    }
}

#[cfg(unix)]
mod handlers {
    use std::io;

    use tokio::signal::unix::{self, SignalKind};

    use super::{INTERRUPT, Signal};

    const TERMINATE: Signal = Signal { name: "SIGTERM", exit_code: 143 };

    #[derive(Debug)]
    pub(super) struct Handlers {
        interrupt: unix::Signal,
        terminate: unix::Signal,
    }

    impl Handlers {
        pub(super) fn install() -> io::Result<Self> {
            let interrupt = unix::signal(SignalKind::interrupt())?;
            Ok(Self { interrupt, terminate: unix::signal(SignalKind::terminate())? })
        }

        pub(super) async fn next(&mut self) -> Signal {
            tokio::select! {
                _ = self.interrupt.recv() => INTERRUPT,
                _ = self.terminate.recv() => TERMINATE,
            }
        }
    }
}

#[cfg(not(unix))]
mod handlers {
    use std::io;

    use super::{INTERRUPT, Signal};

    #[derive(Debug)]
    pub(super) struct Handlers;

    impl Handlers {
        pub(super) fn install() -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) async fn next(&mut self) -> Signal {
            // Where there is no console there is no Ctrl-C either.
            match tokio::signal::ctrl_c().await {
                Ok(()) => INTERRUPT,
                Err(_) => std::future::pending().await,
            }
        }
    }
}

use handlers::Handlers;
