//! `couatl sql`: statements in order, their results as they come.
//!
//! Three things happen at once, and each may stall without the others: rows arrive, text is written (a pager may stop
//! reading), and the user may have had enough. So rows come from elsewhere (a [`Connection`]), writing is done by a
//! thread that may block, and this task waits for either and for a signal.

use std::io::{self, Write};
use std::time::Duration;

use couatl_core::{Error, Result};
use futures::TryStreamExt;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};
use tracing_subscriber::filter::LevelFilter;

use crate::args::SqlArgs;
use crate::client::{Client, Server};
use crate::connection::{Answer, Connection};
use crate::engine::LocalEngine;
use crate::progress::{Progress, TICK};
use crate::render::Renderer;
use crate::signals::{Signal, Signals};
use crate::stdout::Stdout;
use crate::{log, runtime};

/// How long the last rows may take to be written once nobody waits for more.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs the statements, and gives the exit code.
pub(crate) fn run(args: &SqlArgs) -> Result<u8> {
    log::install(LevelFilter::WARN)?;
    let statements = couatl_datafusion::parse(&args.text()?)?;
    let texts: Vec<_> = statements.iter().map(|statement| &*statement.text).collect();
    if texts.is_empty() {
        return Ok(0);
    }
    let stopped = match Server::of(args)? {
        Some(server) => runtime::control(|control| {
            control.block_on(async {
                let mut screen = Screen::new(args)?;
                match screen.wait(Client::connect(&server)).await {
                    Ok(client) => Ok(screen.run(client, &texts).await),
                    Err(stop) => Ok(Err(stop)),
                }
            })
        }),
        None => runtime::queries(|queries| {
            let engine = LocalEngine::new(queries.handle().clone())?;
            runtime::control(|control| control.block_on(async { Ok(Screen::new(args)?.run(engine, &texts).await) }))
        }),
    };
    match stopped? {
        // Whoever reads the output has seen enough: `head`, or a pager that was quit.
        Ok(()) | Err(Stop::Closed) => Ok(0),
        Err(Stop::Signal(signal)) => {
            let _ = writeln!(io::stderr(), "cancelled");
            Ok(signal.exit_code)
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Why the statements did not all come to their end.
#[derive(Debug)]
enum Stop {
    Failed(Error),
    Signal(Signal),
    /// Nobody reads standard output any more.
    Closed,
}

impl Stop {
    /// The same, with the number of the statement where there are several.
    fn at(self, number: usize, of: usize) -> Self {
        match self {
            Self::Failed(error) if of > 1 => {
                let message = format!("statement {number} of {of}: {error}");
                Self::Failed(Error::new(error.kind(), message).with_source(error))
            }
            stop => stop,
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Error::internal(format!("cannot write to standard output: {error}")).with_source(error).into(),
        }
    }
}

/// The user's side: what is shown, and the signals.
struct Screen {
    signals: Signals,
    ticker: Interval,
    progress: Progress,
    output: Output,
}

impl Screen {
    fn new(args: &SqlArgs) -> Result<Self> {
        let mut ticker = tokio::time::interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let output = Output::Idle(Printer { renderer: Renderer::new(args.format), stdout: Stdout::new() });
        Ok(Self { signals: Signals::install()?, ticker, progress: Progress::new(), output })
    }

    /// Runs the statements until one does not come to its end.
    async fn run(mut self, mut connection: impl Connection, statements: &[&str]) -> Result<(), Stop> {
        let mut ended = Ok(());
        for (i, statement) in statements.iter().enumerate() {
            let stopped = self.statement(&mut connection, statement).await;
            ended = stopped.map_err(|stop| stop.at(i + 1, statements.len()));
            if ended.is_err() {
                break;
            }
        }
        self.progress.clear();
        connection.close().await;
        ended
    }

    async fn statement(&mut self, connection: &mut impl Connection, statement: &str) -> Result<(), Stop> {
        self.progress.restart();
        let answer = self.wait(connection.run(statement)).await;
        self.progress.clear();
        let (schema, mut batches) = match answer? {
            Answer::Rows(schema, batches) => (schema, batches),
            Answer::Updated(written) => {
                return self.print(move |renderer, out| Ok(renderer.updated(written, out))).await;
            }
        };
        self.print(move |renderer, _| {
            renderer.begin(schema);
            Ok(None)
        })
        .await?;
        let ended = loop {
            match self.wait(batches.try_next()).await {
                Ok(Some(batch)) => {
                    let rows = batch.num_rows() as u64;
                    if let Err(stop) = self.print(move |renderer, out| renderer.rows(&batch, out).map(|()| None)).await
                    {
                        break Err(stop);
                    }
                    self.progress.add(rows);
                }
                Ok(None) => break Ok(()),
                Err(stop) => break Err(stop),
            }
        };
        // Cancels what still runs, before the last words take their time.
        drop(batches);
        self.progress.clear();
        let whole = ended.is_ok();
        let last_words = self.print(move |renderer, out| renderer.end(whole, out).map(|()| None));
        match (ended, tokio::time::timeout(LAST_WORDS, last_words).await) {
            (Ok(()), Ok(printed)) => printed,
            (ended, _) => ended,
        }
    }

    /// Waits for work, and shows the progress meanwhile.
    async fn wait<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T, Stop> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                signal = self.signals.first() => return Err(Stop::Signal(signal)),
                _ = self.ticker.tick() => self.progress.tick(),
                done = &mut work => return Ok(done?),
            }
        }
    }

    /// Prints, and waits until it is written.
    async fn print(&mut self, text: impl Print) -> Result<(), Stop> {
        self.progress.make_way();
        tokio::select! {
            biased;
            signal = self.signals.first() => Err(Stop::Signal(signal)),
            written = self.output.print(text) => written,
        }
    }
}

/// Writes to the buffer what belongs on standard output, and returns what belongs on standard error.
trait Print: FnOnce(&mut Renderer, &mut Vec<u8>) -> Result<Option<String>> + Send + 'static {}

impl<F: FnOnce(&mut Renderer, &mut Vec<u8>) -> Result<Option<String>> + Send + 'static> Print for F {}

/// Standard output, behind a thread of its own while it is written to.
///
/// A write that was given up waiting for goes on, and the next one waits for it: rows are never torn.
enum Output {
    Idle(Printer),
    Busy(JoinHandle<(Printer, Result<(), Stop>)>),
    Lost,
}

impl Output {
    async fn print(&mut self, text: impl Print) -> Result<(), Stop> {
        self.settle().await?;
        if let Self::Idle(mut printer) = std::mem::replace(self, Self::Lost) {
            *self = Self::Busy(tokio::task::spawn_blocking(move || {
                let written = printer.print(text);
                (printer, written)
            }));
        }
        self.settle().await
    }

    /// Waits for the write that is under way; may be dropped and called again.
    async fn settle(&mut self) -> Result<(), Stop> {
        match self {
            Self::Idle(_) => return Ok(()),
            Self::Lost => {}
            Self::Busy(writing) => {
                if let Ok((printer, written)) = writing.await {
                    *self = Self::Idle(printer);
                    return written;
                }
                *self = Self::Lost;
            }
        }
        Err(Error::internal("the thread that prints rows has ended").into())
    }
}

struct Printer {
    renderer: Renderer,
    stdout: Stdout,
}

impl Printer {
    fn print(&mut self, text: impl Print) -> Result<(), Stop> {
        let mut out = Vec::new();
        let rest = text(&mut self.renderer, &mut out)?;
        self.stdout.write_all(&out)?;
        self.stdout.flush()?;
        if let Some(rest) = rest {
            let _ = io::stderr().write_all(rest.as_bytes());
        }
        Ok(())
    }
}
