//! The root of every plan of a session: where a query begins, is counted, and ends.
//!
//! ```text
//!   execute ── books it ──> Queries
//!   first poll ── turn, clock ──> the plan's rows ── counts, limits ──> …
//!   end, error, cancel ── what it executes is let go ── cleanup ──> the last message
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::RecordBatch;
use couatl_core::{Error, ErrorKind};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, stream};
use tokio_util::task::AbortOnDropHandle;

use crate::calling::Run;
use crate::limits::{Turn, UserLimits};
use crate::memory::Account;
use crate::planner::StatementText;
use crate::queries::{Entry, Queries};
use crate::size::size;
use crate::{departure, from_datafusion, into_datafusion};

/// The root of every plan of a session: it books the query, waits for its turn, counts its rows, hears its cancel, and
/// lets its last message leave only after the cleanup.
#[derive(Debug, Clone)]
pub(crate) struct QueryExec {
    input: Arc<dyn ExecutionPlan>,
    queries: Arc<Queries>,
    statement: Arc<StatementText>,
    /// Whether it takes no turn: it is about what there is, and what runs.
    is_metadata: bool,
    /// What its functions of Python are told by.
    run: Option<Arc<Run>>,
}

impl QueryExec {
    /// Each partition of `input` is a query of its own.
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        queries: Arc<Queries>,
        statement: Arc<StatementText>,
        is_metadata: bool,
        run: Option<Arc<Run>>,
    ) -> Self {
        Self { input, queries, statement, is_metadata, run }
    }

    /// The same query before its partitions are brought together.
    /// None where there is one, and where functions of Python would have to be called for several queries at once.
    pub(crate) fn uncoalesced(&self) -> Option<Arc<dyn ExecutionPlan>> {
        if self.run.is_some() {
            return None;
        }
        let input = Arc::clone(self.input.downcast_ref::<CoalescePartitionsExec>()?.input());
        Some(Arc::new(Self { input, ..self.clone() }))
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
        Ok(Arc::new(Self { input, ..Self::clone(&self) }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let entry = self.queries.register(&self.statement).map_err(into_datafusion)?;
        let query = Arc::clone(&entry.query);
        if let Some(run) = &self.run {
            run.begin(&query).map_err(into_datafusion)?;
        }
        let config = context.session_config().clone().with_extension(Arc::clone(&query));
        let context = Arc::new(TaskContext::new(
            context.task_id(),
            context.session_id(),
            config,
            context.scalar_functions().clone(),
            context.higher_order_functions().clone(),
            context.aggregate_functions().clone(),
            context.window_functions().clone(),
            self.queries.gate.runtime(query.caller().name(), context.runtime_env()),
        ));
        let (input, pool) = (Arc::clone(&self.input), Arc::clone(context.memory_pool()));
        let begin = move || input.execute(partition, context);
        // What Python asks for while its own query has a turn would wait for itself.
        let takes_turn = !self.is_metadata && query.caller().depth() == 0;
        let mut limits = self.queries.gate.limits(query.caller().name().map(|name| &**name));
        let mut kept = None;
        if self.statement.is_stored {
            (limits.query_rows, limits.query_bytes) = (None, None);
            kept = Some(Account::new(&pool));
        }
        let running = Running { entry, begin: Some(begin), takes_turn, limits, kept, rows: 0, bytes: 0 };
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
    /// The memory of the rows that stay here.
    kept: Option<Account>,
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
        let watch = departure::left().map(|left| {
            let query = Arc::clone(query);
            AbortOnDropHandle::new(tokio::spawn(async move {
                left.cancelled().await;
                query.cancel();
            }))
        });
        if clock.is_some() {
            // Else it could have to wait for this very thread, which computes.
            tokio::task::yield_now().await;
        }
        let rows = begin().map_err(from_datafusion)?;
        query.hold(rows, turn, [clock, watch]);
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
        if let Some(kept) = &mut self.kept {
            kept.grow(bytes).map_err(from_datafusion)?;
        }
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
