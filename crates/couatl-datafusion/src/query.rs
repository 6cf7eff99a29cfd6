//! One query that runs: how it waits for its turn, is cancelled, is counted, and when it is really over.
//!
//! ```text
//!   QueryExec (the root) ── registers ──> Queries ── kill ──> cancelled
//!     └─ StreamScanExec … ── open() ──> a token that the scan gives back after its cleanup
//!   the last message leaves when every token is back, or the grace is over
//! ```

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::RecordBatch;
use couatl_core::{CallRequest, Calls, Credentials, Error, ErrorKind, Finish, Function, Metrics, OpenContext};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::StreamExt;
use futures::future::poll_fn;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::access::Role;
use crate::caller::Caller;
use crate::calling::Defined;
use crate::into_datafusion;
use crate::limits::Turn;
use crate::planner::StatementText;
use crate::queries::{Entry, QUEUED, Queries, QueryInfo};
use crate::statistics::Access;

/// How long a query waits for its scans and writes to clean up. Then it ends all the same, and what has not ended is
/// listed as `stuck`.
pub(crate) const CLEANUP_GRACE: Duration = Duration::from_secs(5);

/// One query, for those who work for it.
pub(crate) struct Query {
    id: String,
    sql: String,
    /// Who asks.
    caller: Caller,
    started: (SystemTime, Instant),
    rows: AtomicU64,
    queued: AtomicBool,
    /// Whether its end was.
    counted: AtomicBool,
    cancelled: CancellationToken,
    /// Why it was, where nobody asked for it.
    reason: OnceLock<Error>,
    /// What it executes, and its turn. Whoever cancels it takes them away: its client may never ask for a row again.
    held: Mutex<Option<Held>>,
    /// When its stream ended or was dropped, or it was cancelled.
    ending: OnceLock<Instant>,
    work: TaskTracker,
    /// Until when its cleanup is waited for.
    patience: OnceLock<tokio::time::Instant>,
    /// A failure that came after the last row.
    late: Mutex<Option<Error>>,
    /// What its streams were told, and who created them.
    told: Mutex<Vec<Told>>,
    /// The functions that it calls, while it does.
    functions: Mutex<Option<Vec<InUse>>>,
    entry: OnceLock<Weak<Entry>>,
    queries: Weak<Queries>,
}

/// A function, and this query's use of it.
type InUse = (Arc<Defined>, Arc<dyn Calls>);

struct Told {
    context: Arc<OpenContext>,
    creators: Arc<[Arc<str>]>,
}

struct Held {
    rows: SendableRecordBatchStream,
    _turn: Turn,
    _watches: [Option<AbortOnDropHandle<()>>; 2],
}

/// What the opening of a stream is given.
#[derive(Default)]
pub(crate) struct Opening {
    pub(crate) context: Arc<OpenContext>,
    pub(crate) finish: Option<Finish>,
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("id", &self.id).field("sql", &self.sql).finish_non_exhaustive()
    }
}

impl Query {
    /// One that has not been listed yet.
    pub(crate) fn new(queries: &Arc<Queries>, statement: &StatementText) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            sql: statement.text.clone(),
            caller: statement.caller.clone(),
            started: (SystemTime::now(), Instant::now()),
            rows: AtomicU64::new(0),
            queued: AtomicBool::new(false),
            counted: AtomicBool::new(false),
            cancelled: CancellationToken::new(),
            reason: OnceLock::new(),
            held: Mutex::new(None),
            ending: OnceLock::new(),
            work: TaskTracker::new(),
            patience: OnceLock::new(),
            late: Mutex::new(None),
            told: Mutex::default(),
            functions: Mutex::new(Some(Vec::new())),
            entry: OnceLock::new(),
            queries: Arc::downgrade(queries),
        }
    }

    /// It is listed. The scans hold the entry through this.
    pub(crate) fn entered(&self, entry: &Arc<Entry>) {
        let _ = self.entry.set(Arc::downgrade(entry));
    }

    /// The query that a task belongs to; none in a session without our planner.
    pub(crate) fn of(context: &TaskContext) -> Option<Arc<Query>> {
        context.session_config().get_extension::<Query>()
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(crate) fn is_shown_to(&self, caller: &Caller) -> bool {
        caller.principals().all(|user| user.role == Role::Admin || self.caller.name() == Some(&user.name))
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Whether nothing of it runs any more, and only its client has not heard of its end.
    pub(crate) fn is_over(&self) -> bool {
        self.cancelled.is_cancelled() && self.work.is_empty() && self.held.try_lock().is_some_and(|held| held.is_none())
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Rows have gone where they are to go.
    pub(crate) fn count(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Relaxed);
    }

    /// A stream is opened, which somebody created; the query is over only when it has been told that this ended.
    pub(crate) fn open(
        self: &Arc<Self>,
        stream: &str,
        access: Access,
        metrics: &Arc<Metrics>,
        creators: &Arc<[Arc<str>]>,
    ) -> Opening {
        let Some(queries) = self.queries.upgrade() else { return Opening::default() };
        let password = [(); 2].map(|()| uuid::Uuid::new_v4().simple().to_string()).concat();
        let credentials = Credentials { user: self.id.clone(), password };
        let context = Arc::new(OpenContext::new(Arc::clone(&queries.secrets), Some(credentials)));
        self.told.lock().push(Told { context: Arc::clone(&context), creators: Arc::clone(creators) });

        let (query, counters, stream) = (Arc::clone(self), Arc::clone(&queries.counters), stream.to_owned());
        let creators = Arc::clone(creators);
        let open = counters.open(&stream, access, metrics);
        // Given back in this order: whoever is told that the work has ended finds it off the list.
        let held = (open, self.entry.get().and_then(Weak::upgrade), self.work.token());
        let finish = Finish::new(move |outcome| {
            if let Err(error) = outcome {
                counters.failed(&stream, access, error.kind());
                let error = query.disclosed(error, &creators);
                query.late.lock().get_or_insert(error);
            }
            drop(held);
        });
        Opening { context, finish: Some(finish) }
    }

    /// Its use of a function, which begins with the first call.
    pub(crate) fn calls(self: &Arc<Self>, defined: &Arc<Defined>) -> couatl_core::Result<Arc<dyn Calls>> {
        let Function::Value(function) = &defined.function else {
            return Err(Error::internal("a function that gives rows is called for a value"));
        };
        let mut functions = self.functions.lock();
        let Some(open) = functions.as_mut() else { return Err(self.cancelled_error()) };
        if let Some((_, calls)) = open.iter().find(|(known, _)| Arc::ptr_eq(known, defined)) {
            return Ok(Arc::clone(calls));
        }
        let metrics = Arc::new(Metrics::default());
        let opening = self.open(&defined.definition.name, Access::Call, &metrics, &defined.owners);
        let finish = opening.finish.unwrap_or_else(Finish::ignore);
        let calls = function.open(CallRequest { context: opening.context, metrics, finish })?;
        open.push((Arc::clone(defined), Arc::clone(&calls)));
        Ok(calls)
    }

    /// Whether functions are in use.
    pub(crate) fn calls_functions(&self) -> bool {
        self.functions.lock().as_ref().is_some_and(|functions| !functions.is_empty())
    }

    /// Ends its uses of functions; none begins after it.
    fn end_functions(&self) {
        let functions = self.functions.lock().take();
        functions.into_iter().flatten().for_each(|(_, calls)| calls.cancel());
    }

    /// An error on its way to whoever asks, as [`disclosed`](Self::disclosed) to them where there is a query.
    pub(crate) fn told(query: Option<&Arc<Self>>, error: Error, creators: &[Arc<str>]) -> DataFusionError {
        into_datafusion(match query {
            Some(query) => query.disclosed(error, creators),
            None => error,
        })
    }

    /// An error as its caller may see it, of the code of a stream that these have created: a traceback shows its lines.
    fn disclosed(&self, error: Error, creators: &[Arc<str>]) -> Error {
        let sees = |creators: &[Arc<str>]| self.caller.principals().all(|user| user.sees_code_of(creators));
        if sees(creators) {
            return error;
        }
        let without_parameters = |error| {
            let error = self.hide(error);
            let told = self.told.lock();
            let others = told.iter().filter(|told| !sees(&told.creators));
            others.fold(error, |error, told| told.context.hide_parameters(error))
        };
        let Some(disclosed) = error.without_tracebacks() else { return without_parameters(error) };
        let error = without_parameters(error).to_string();
        // Escaped: what users write into messages must not look like lines of the log.
        tracing::warn!(query = self.id, ?error, "a traceback that its caller does not see");
        without_parameters(disclosed)
    }

    /// An error came of a stream.
    pub(crate) fn failed(&self, stream: &str, access: Access, kind: ErrorKind) {
        if let Some(queries) = self.queries.upgrade() {
            queries.counters.failed(stream, access, kind);
        }
    }

    /// Who created the stream whose Python was told this password.
    pub(crate) fn creators_of(&self, password: &str) -> Option<Arc<[Arc<str>]>> {
        let told = self.told.lock();
        let is_it = |context: &OpenContext| {
            let known = context.credentials().map_or("", |credentials| &credentials.password).as_bytes();
            // In a time that does not tell how much of it is right.
            let differs = known.iter().zip(password.as_bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
            known.len() == password.len() && differs == 0
        };
        told.iter().find(|told| is_it(&told.context)).map(|told| Arc::clone(&told.creators))
    }

    /// An error, without what the streams were told.
    pub(crate) fn hide(&self, error: Error) -> Error {
        self.told.lock().iter().fold(error, |error, told| told.context.hide(error))
    }

    /// Waits for all work to end, as long as the grace: what failed meanwhile. Who asks again waits for the rest of it.
    pub(crate) async fn settle(&self) -> couatl_core::Result<()> {
        self.ending();
        self.work.close();
        let deadline = *self.patience.get_or_init(|| tokio::time::Instant::now() + CLEANUP_GRACE);
        if tokio::time::timeout_at(deadline, self.work.wait()).await.is_err() {
            tracing::warn!(query = self.id, "user code does not end; its thread is abandoned");
        }
        self.late.lock().take().map_or(Ok(()), Err)
    }

    /// Ends it, whether or not its client asks for rows.
    pub(crate) fn cancel(&self) {
        self.ending();
        self.cancelled.cancel();
        self.end_functions();
        // Whoever holds it looks for the cancel after letting it go.
        let held = self.held.try_lock().and_then(|mut held| held.take());
        if held.is_some() {
            self.ended(Some(self.reason.get().map_or(ErrorKind::Cancelled, Error::kind)));
        }
        drop(held);
        self.end_asked();
    }

    /// It has ended, of which its client may not have heard yet.
    pub(crate) fn ended(&self, how: Option<ErrorKind>) {
        if !self.counted.swap(true, Relaxed)
            && let Some(queries) = self.queries.upgrade()
        {
            queries.counters.ended(how);
        }
    }

    /// Ends what its Python has asked for.
    fn end_asked(&self) {
        if let Some(queries) = self.queries.upgrade() {
            queries.end_asked_by(&self.id);
        }
    }

    /// It has begun: what it executes, its turn, and what ends it: its time, and that nobody waits for it.
    pub(crate) fn hold(
        &self,
        rows: SendableRecordBatchStream,
        turn: Turn,
        watches: [Option<AbortOnDropHandle<()>>; 2],
    ) {
        *self.held.lock() = Some(Held { rows, _turn: turn, _watches: watches });
    }

    /// Gives up what it executes, and its turn.
    pub(crate) fn let_go(&self) {
        self.end_functions();
        let held = self.held.lock().take();
        drop(held);
        self.end_asked();
    }

    /// Ends it for a reason.
    pub(crate) fn end(&self, reason: Error) {
        let _ = self.reason.set(reason);
        self.cancel();
    }

    pub(crate) fn ending(&self) {
        self.ending.get_or_init(Instant::now);
    }

    /// What a client hears of the cancel.
    fn cancelled_error(&self) -> Error {
        match self.reason.get() {
            Some(reason) => Error::new(reason.kind(), reason.to_string()),
            None => Error::cancelled(format!("query {} was cancelled", self.id)),
        }
        .with_context("query", &self.id)
    }

    /// What a client hears of a cancel before the query has begun.
    fn turned_away(&self) -> Error {
        match self.reason.get() {
            // The server ends: another one may take it.
            Some(reason) if reason.kind() == ErrorKind::Cancelled => {
                Error::new(ErrorKind::Unavailable, "the server is shutting down, and the query has not begun")
            }
            _ => self.cancelled_error(),
        }
    }

    pub(crate) fn info(&self) -> QueryInfo {
        let state = match self.ending.get() {
            None if self.queued.load(Relaxed) => QUEUED,
            None => "running",
            Some(since) if since.elapsed() <= CLEANUP_GRACE => "cancelling",
            Some(_) => "stuck",
        };
        QueryInfo {
            query_id: self.id.clone(),
            sql: self.sql.clone(),
            user: self.caller.name().cloned(),
            state,
            rows: self.rows.load(Relaxed),
            started: self.started.0,
            elapsed: self.started.1.elapsed(),
        }
    }

    /// Waits for its turn; a query that was cancelled meanwhile has none.
    pub(crate) async fn turn(&self, queries: &Queries) -> couatl_core::Result<Turn> {
        self.queued.store(true, Relaxed);
        let began = tokio::time::Instant::now();
        let turn = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(self.turned_away()),
            turn = queries.gate.turn(self.caller.name()) => turn,
        };
        self.queued.store(false, Relaxed);
        queries.counters.waited(began.elapsed());
        turn
    }

    /// Its next rows. They are taken from under a lock, so that a cancel can take what gives them away in between.
    pub(crate) async fn next(&self) -> Option<Result<RecordBatch>> {
        let next = poll_fn(|cx| {
            let mut held = self.held.lock();
            held.as_mut().map_or(Poll::Ready(None), |held| held.rows.poll_next_unpin(cx))
        });
        let next = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => None,
            next = next => next,
        };
        if self.cancelled.is_cancelled() {
            self.let_go();
            return Some(Err(into_datafusion(self.cancelled_error())));
        }
        next
    }
}
