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
use couatl_core::{Credentials, Error, ErrorKind, Finish, Metrics, OpenContext};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::future::poll_fn;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::access::Role;
use crate::caller::Caller;
use crate::limits::{Turn, UserLimits};
use crate::planner::StatementText;
use crate::queries::{Entry, QUEUED, Queries, QueryInfo};
use crate::statistics::Access;
use crate::{from_datafusion, into_datafusion};

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
    entry: OnceLock<Weak<Entry>>,
    queries: Weak<Queries>,
}

struct Told {
    context: Arc<OpenContext>,
    creators: Arc<[Arc<str>]>,
}

struct Held {
    rows: SendableRecordBatchStream,
    _turn: Turn,
    _clock: Option<AbortOnDropHandle<()>>,
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
        let open = counters.open(&stream, access, metrics);
        // Given back in this order: whoever is told that the work has ended finds it off the list.
        let held = (open, self.entry.get().and_then(Weak::upgrade), self.work.token());
        let finish = Finish::new(move |outcome| {
            if let Err(error) = outcome {
                counters.failed(&stream, access, error.kind());
                query.late.lock().get_or_insert(error);
            }
            drop(held);
        });
        Opening { context, finish: Some(finish) }
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
    fn hide(&self, error: Error) -> Error {
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
        // Whoever holds it looks for the cancel after letting it go.
        let held = self.held.try_lock().and_then(|mut held| held.take());
        if held.is_some() {
            self.ended(Some(self.reason.get().map_or(ErrorKind::Cancelled, Error::kind)));
        }
        drop(held);
        self.end_asked();
    }

    /// It has ended, of which its client may not have heard yet.
    fn ended(&self, how: Option<ErrorKind>) {
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

    /// Gives up what it executes, and its turn.
    fn let_go(&self) {
        let held = self.held.lock().take();
        drop(held);
        self.end_asked();
    }

    /// Ends it for a reason.
    fn end(&self, reason: Error) {
        let _ = self.reason.set(reason);
        self.cancel();
    }

    fn ending(&self) {
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
    async fn turn(&self, queries: &Queries) -> couatl_core::Result<Turn> {
        self.queued.store(true, Relaxed);
        let began = tokio::time::Instant::now();
        let turn = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(self.cancelled_error()),
            turn = queries.gate.turn(self.caller.name()) => turn,
        };
        self.queued.store(false, Relaxed);
        queries.counters.waited(began.elapsed());
        turn
    }

    /// Its next rows. They are taken from under a lock, so that a cancel can take what gives them away in between.
    async fn next(&self) -> Option<Result<RecordBatch>> {
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

/// The root of every plan of a session: it books the query, waits for its turn, counts its rows, hears its cancel, and
/// lets its last message leave only after the cleanup.
#[derive(Debug)]
pub(crate) struct QueryExec {
    input: Arc<dyn ExecutionPlan>,
    queries: Arc<Queries>,
    statement: Arc<StatementText>,
    /// Whether it takes no turn: it is about what there is, and what runs.
    is_metadata: bool,
}

impl QueryExec {
    /// Each partition of `input` is a query of its own.
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        queries: Arc<Queries>,
        statement: Arc<StatementText>,
        is_metadata: bool,
    ) -> Self {
        Self { input, queries, statement, is_metadata }
    }

    /// The same query before its partitions are brought together.
    pub(crate) fn uncoalesced(&self) -> Option<Arc<dyn ExecutionPlan>> {
        let input = Arc::clone(self.input.downcast_ref::<CoalescePartitionsExec>()?.input());
        Some(Arc::new(Self::new(input, self.queries.clone(), self.statement.clone(), self.is_metadata)))
    }
}
impl DisplayAs for QueryExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueryExec")
    }
}

impl ExecutionPlan for QueryExec {
    fn name(&self) -> &str {
        "QueryExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.swap_remove(0);
        Ok(Arc::new(Self::new(input, self.queries.clone(), self.statement.clone(), self.is_metadata)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let entry = self.queries.register(&self.statement).map_err(into_datafusion)?;
        let query = Arc::clone(&entry.query);
        let config = context.session_config().clone().with_extension(Arc::clone(&query));
        let context = Arc::new(TaskContext::new(
            context.task_id(),
            context.session_id(),
            config,
            context.scalar_functions().clone(),
            context.higher_order_functions().clone(),
            context.aggregate_functions().clone(),
            context.window_functions().clone(),
            self.queries.gate.runtime(query.caller.name(), context.runtime_env()),
        ));
        let input = Arc::clone(&self.input);
        let begin = move || input.execute(partition, context);
        // What Python asks for while its own query has a turn would wait for itself.
        let takes_turn = !self.is_metadata && query.caller.depth() == 0;
        let limits = self.queries.gate.limits(query.caller.name().map(|name| &**name));
        let running = Running { entry, begin: Some(begin), takes_turn, limits, rows: 0, bytes: 0 };
        let place = self.statement.place;
        let rows = run(running).map(move |batch| {
            batch.map_err(|error| match place {
                Some(place) if place.of > 1 => into_datafusion(place.mark(error)),
                _ => into_datafusion(error),
            })
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), rows)))
    }
}

/// A running query's stream, and its place in the list. Dropping it is how a client leaves.
struct Running<B> {
    entry: Arc<Entry>,
    /// Executes the plan; taken when the turn has come.
    begin: Option<B>,
    takes_turn: bool,
    limits: UserLimits,
    rows: u64,
    bytes: u64,
}

impl<B> Drop for Running<B> {
    fn drop(&mut self) {
        self.entry.query.ending();
        self.entry.query.let_go();
        self.entry.query.ended(Some(ErrorKind::Cancelled));
    }
}

impl<B: FnOnce() -> Result<SendableRecordBatchStream>> Running<B> {
    /// Waits for the turn, and executes the plan.
    async fn begin(&mut self) -> couatl_core::Result<()> {
        let Some(begin) = self.begin.take() else { return Ok(()) };
        let query = &self.entry.query;
        let turn = if self.takes_turn { query.turn(&self.entry.queries).await? } else { Turn::default() };
        let clock = self.limits.query_time.map(|time| {
            let query = Arc::clone(query);
            AbortOnDropHandle::new(tokio::spawn(async move {
                tokio::time::sleep(time).await;
                let text = format!("the query was ended after {time:?}, which is the longest that one may run");
                query.end(Error::new(ErrorKind::Timeout, text));
            }))
        });
        let rows = begin().map_err(from_datafusion)?;
        *query.held.lock() = Some(Held { rows, _turn: turn, _clock: clock });
        Ok(())
    }

    async fn next(&mut self) -> couatl_core::Result<Option<RecordBatch>> {
        self.begin().await?;
        let Some(batch) = self.entry.query.next().await.transpose().map_err(from_datafusion)? else { return Ok(None) };
        self.count(&batch)?;
        Ok(Some(batch))
    }

    /// Counts what leaves, and refuses what would be too much.
    fn count(&mut self, batch: &RecordBatch) -> couatl_core::Result<()> {
        let (rows, bytes) = (batch.num_rows() as u64, size(batch));
        self.rows += rows;
        self.bytes += bytes;
        let too_much = |limit: Option<u64>, made: u64| limit.filter(|limit| made > *limit);
        let over = match (too_much(self.limits.query_rows, self.rows), too_much(self.limits.query_bytes, self.bytes)) {
            (Some(rows), _) => format!("{rows} rows"),
            (None, Some(bytes)) => format!("{bytes} bytes"),
            (None, None) => {
                self.entry.query.count(batch.num_rows());
                let counters = &self.entry.queries.counters;
                counters.rows.fetch_add(rows, Relaxed);
                counters.bytes.fetch_add(bytes, Relaxed);
                return Ok(());
            }
        };
        Err(Error::new(
            ErrorKind::ResourcesExhausted,
            format!("the result has more than {over}, which is the most that one may have: use LIMIT, or select less"),
        ))
    }
}

/// The bytes of the rows in memory, whatever larger arrays they are part of.
fn size(batch: &RecordBatch) -> u64 {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    sizes.map(|size| size.map_or(0, |size| size as u64)).sum()
}

fn run<B>(running: Running<B>) -> impl futures::Stream<Item = couatl_core::Result<RecordBatch>> + Send
where
    B: FnOnce() -> Result<SendableRecordBatchStream> + Send,
{
    stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        let query = Arc::clone(&running.entry.query);
        let last = match running.next().await {
            Ok(Some(batch)) => return Some((Ok(batch), Some(running))),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        // Dropping the plan's streams cancels what still runs.
        query.let_go();
        let settled = query.settle().await;
        let last = last.and(settled).map_err(|error| query.hide(error));
        query.ended(last.as_ref().err().map(Error::kind));
        last.err().map(|error| (Err(error), None))
    })
}
