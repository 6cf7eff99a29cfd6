//! Queries that run: who they are, how they are cancelled, and when they are really over.
//!
//! ```text
//!   QueryExec (the root) ── registers ──> Queries ── kill ──> cancelled
//!     └─ StreamScanExec … ── work() ──> a token that the scan gives back after its cleanup
//!   the last message leaves when every token is back, or the grace is over
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use arrow::array::RecordBatch;
use couatl_core::{Error, ErrorKind, Finish};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Role, User};
use crate::planner::StatementText;
use crate::{from_datafusion, into_datafusion};

/// How long a query waits for its scans and writes to clean up. Then it ends all the same, and what has not ended is
/// listed as `stuck`.
const CLEANUP_GRACE: Duration = Duration::from_secs(5);

/// The queries of a session that run, or whose cleanup does.
#[derive(Debug, Default)]
pub struct Queries {
    running: Mutex<BTreeMap<String, Arc<Query>>>,
    ended: Notify,
    closed: AtomicBool,
}

/// One query, at one moment.
#[derive(Debug, Clone)]
pub struct QueryInfo {
    /// What `KILL QUERY` takes.
    pub query_id: String,
    /// The statement.
    pub sql: String,
    /// Whose it is, where the server knows users.
    pub user: Option<Arc<str>>,
    /// `running`, `cancelling`, or `stuck` where user code does not end.
    pub state: &'static str,
    /// Rows given to the client, or by an INSERT to its stream, so far.
    pub rows: u64,
    /// When it began.
    pub started: SystemTime,
    /// How long ago that is.
    pub elapsed: Duration,
}

impl Queries {
    /// All of them, in the order of their ids.
    pub fn list(&self) -> Vec<QueryInfo> {
        self.shown_to(None)
    }

    /// Those that a user may see: their own; for an admin, and without a user, all.
    pub(crate) fn shown_to(&self, user: Option<&User>) -> Vec<QueryInfo> {
        self.running.lock().values().filter(|query| query.is_shown_to(user)).map(|query| query.info()).collect()
    }

    /// Asks a query to end. Gives whether there is one of that id that the user may see.
    pub(crate) fn kill(&self, query_id: &str, user: Option<&User>) -> bool {
        let query = self.running.lock().get(query_id).filter(|query| query.is_shown_to(user)).cloned();
        query.map(|query| query.cancel()).is_some()
    }

    /// Refuses new queries, waits for those that run, then cancels the rest and waits for their cleanup: all of it
    /// within the grace, where that is 10 s or more; a shorter one is followed by at most 5 s of cleanup.
    pub(crate) async fn shutdown(&self, grace: Duration) {
        self.closed.store(true, Relaxed);
        // The end of a long grace is for the cleanup, so that all is over when it is.
        let patience = if grace >= 2 * CLEANUP_GRACE { grace - CLEANUP_GRACE } else { grace };
        if tokio::time::timeout(patience, self.empty()).await.is_err() {
            self.running.lock().values().for_each(|query| query.cancel());
            let _ = tokio::time::timeout(CLEANUP_GRACE, self.empty()).await;
        }
    }

    async fn empty(&self) {
        loop {
            let ended = self.ended.notified();
            if self.running.lock().is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn register(self: &Arc<Self>, statement: &StatementText) -> Result<Arc<Entry>> {
        if self.closed.load(Relaxed) {
            let message = "the server is shutting down and takes no new queries";
            return Err(into_datafusion(Error::new(ErrorKind::Unavailable, message)));
        }
        let query = Arc::new(Query {
            // Ids sort by time, so that lists do.
            id: uuid::Uuid::new_v4().to_string(),
            sql: statement.text.clone(),
            user: statement.user.clone(),
            started: (SystemTime::now(), Instant::now()),
            rows: AtomicU64::new(0),
            cancelled: CancellationToken::new(),
            ending: OnceLock::new(),
            work: TaskTracker::new(),
            patience: OnceLock::new(),
            late: Mutex::new(None),
            entry: OnceLock::new(),
        });
        let entry = Arc::new(Entry { queries: self.clone(), query: query.clone() });
        // The scans hold the entry through the query's weak reference to it.
        let _ = query.entry.set(Arc::downgrade(&entry));
        self.running.lock().insert(query.id.clone(), query);
        Ok(entry)
    }
}

/// A place in the list: held by the query's stream and by all its work, given up with the last of them.
struct Entry {
    queries: Arc<Queries>,
    query: Arc<Query>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.queries.running.lock().remove(&self.query.id);
        self.queries.ended.notify_waiters();
    }
}

/// One query, for those who work for it.
pub(crate) struct Query {
    id: String,
    sql: String,
    /// Whose it is.
    user: Option<User>,
    started: (SystemTime, Instant),
    rows: AtomicU64,
    cancelled: CancellationToken,
    /// When its stream ended or was dropped, or it was cancelled.
    ending: OnceLock<Instant>,
    work: TaskTracker,
    /// Until when its cleanup is waited for.
    patience: OnceLock<tokio::time::Instant>,
    /// A failure that came after the last row.
    late: Mutex<Option<Error>>,
    entry: OnceLock<std::sync::Weak<Entry>>,
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("id", &self.id).field("sql", &self.sql).finish_non_exhaustive()
    }
}

impl Query {
    /// The query that a task belongs to; none in a session without our planner.
    pub(crate) fn of(context: &TaskContext) -> Option<Arc<Query>> {
        context.session_config().get_extension::<Query>()
    }

    pub(crate) fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    fn is_shown_to(&self, user: Option<&User>) -> bool {
        let Some(user) = user else { return true };
        user.role == Role::Admin || self.user.as_ref().is_some_and(|own| own.name == user.name)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Rows have gone where they are to go.
    pub(crate) fn count(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Relaxed);
    }

    /// A piece of work begins; the query is over only when this has been told that it ended.
    pub(crate) fn work(self: &Arc<Self>) -> Finish {
        let query = self.clone();
        // Given back in this order: whoever is told that the work has ended finds it off the list.
        let held = (self.entry.get().and_then(std::sync::Weak::upgrade), self.work.token());
        Finish::new(move |outcome| {
            if let Err(error) = outcome {
                query.late.lock().get_or_insert(error);
            }
            drop(held);
        })
    }

    /// Waits for all work to end, as long as the grace: what failed meanwhile. Who asks again waits for the rest of it.
    pub(crate) async fn settle(&self) -> couatl_core::Result<()> {
        self.ending();
        self.work.close();
        let deadline = *self.patience.get_or_init(|| tokio::time::Instant::now() + CLEANUP_GRACE);
        if tokio::time::timeout_at(deadline, self.work.wait()).await.is_err() {
            tracing::warn!(query = self.id, sql = self.sql, "user code does not end; its thread is abandoned");
        }
        self.late.lock().take().map_or(Ok(()), Err)
    }

    fn cancel(&self) {
        self.ending();
        self.cancelled.cancel();
    }

    fn ending(&self) {
        self.ending.get_or_init(Instant::now);
    }

    fn info(&self) -> QueryInfo {
        let state = match self.ending.get() {
            None => "running",
            Some(since) if since.elapsed() <= CLEANUP_GRACE => "cancelling",
            Some(_) => "stuck",
        };
        QueryInfo {
            query_id: self.id.clone(),
            sql: self.sql.clone(),
            user: self.user.as_ref().map(|user| Arc::clone(&user.name)),
            state,
            rows: self.rows.load(Relaxed),
            started: self.started.0,
            elapsed: self.started.1.elapsed(),
        }
    }
}

/// The root of every plan of a session: it books the query, counts its rows, hears its cancel, and lets its last
/// message leave only after the cleanup.
#[derive(Debug)]
pub(crate) struct QueryExec {
    input: Arc<dyn ExecutionPlan>,
    queries: Arc<Queries>,
    statement: Arc<StatementText>,
}

impl QueryExec {
    /// `input` must have a single partition.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, queries: Arc<Queries>, statement: Arc<StatementText>) -> Self {
        Self { input, queries, statement }
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
        Ok(Arc::new(Self::new(children.swap_remove(0), self.queries.clone(), self.statement.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let entry = self.queries.register(&self.statement)?;
        let config = context.session_config().clone().with_extension(entry.query.clone());
        let context = Arc::new(TaskContext::new(
            context.task_id(),
            context.session_id(),
            config,
            context.scalar_functions().clone(),
            context.higher_order_functions().clone(),
            context.aggregate_functions().clone(),
            context.window_functions().clone(),
            context.runtime_env(),
        ));
        let input = self.input.execute(partition, context)?;
        let place = self.statement.place;
        let rows = run(Running { input: Some(input), entry }).map_err(move |error| match place {
            Some(place) if place.of > 1 => into_datafusion(place.mark(from_datafusion(error))),
            _ => error,
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), rows)))
    }
}

/// A running query's stream, and its place in the list. Dropping it is how a client leaves.
struct Running {
    input: Option<SendableRecordBatchStream>,
    entry: Arc<Entry>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.entry.query.ending();
    }
}

fn run(running: Running) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    stream::unfold(running, |mut running| async move {
        let query = running.entry.query.clone();
        let input = running.input.as_mut()?;
        let next = tokio::select! {
            biased;
            () = query.cancelled.cancelled() => {
                let message = format!("query {} was cancelled", query.id);
                Some(Err(into_datafusion(Error::cancelled(message).with_context("query", &query.id))))
            }
            next = input.next() => next,
        };
        match next {
            Some(Ok(batch)) => {
                query.count(batch.num_rows());
                Some((Ok(batch), running))
            }
            last => {
                // Dropping the plan's streams cancels what still runs.
                drop(running.input.take());
                let settled = query.settle().await.map_err(into_datafusion);
                let last = match (last, settled) {
                    (Some(error), Ok(()) | Err(_)) => Some(error),
                    (None, Ok(())) => None,
                    (None, Err(error)) => Some(Err(error)),
                };
                last.map(|last| (last, running))
            }
        }
    })
}
