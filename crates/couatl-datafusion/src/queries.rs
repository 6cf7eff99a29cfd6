//! The queries of a session that run, and what they share: turns, secrets, numbers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use couatl_core::{Error, ErrorKind, Result, Secrets};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::access::User;
use crate::caller::{Caller, MAX_ASKED, MAX_DEPTH};
use crate::limits::{Gate, Limits};
use crate::planner::StatementText;
use crate::query::{CLEANUP_GRACE, Query};
use crate::statistics::{Counters, Statistics};

/// The queries of a session that run, or whose cleanup does.
#[derive(Debug, Default)]
pub struct Queries {
    running: Mutex<BTreeMap<String, Arc<Query>>>,
    ended: Notify,
    closed: AtomicBool,
    pub(crate) gate: Gate,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) counters: Arc<Counters>,
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
    /// `queued`, `running`, `cancelling`, or `stuck` where user code does not end.
    pub state: &'static str,
    /// Rows given to the client, or by an INSERT to its stream, so far.
    pub rows: u64,
    /// When it began.
    pub started: SystemTime,
    /// How long ago that is.
    pub elapsed: Duration,
}

impl Queries {
    pub(crate) fn new(limits: Limits, secrets: Secrets) -> Self {
        Self { gate: Gate::new(limits), secrets: Arc::new(secrets), ..Self::default() }
    }

    /// All of them, in the order of their ids.
    pub fn list(&self) -> Vec<QueryInfo> {
        self.shown_to(&Caller::default())
    }

    /// What they have done so far.
    pub fn statistics(&self) -> Statistics {
        let list = self.list();
        let queued = list.iter().filter(|query| query.state == QUEUED).count() as u64;
        Statistics { running: list.len() as u64 - queued, queued, ..self.counters.read() }
    }

    /// Whose Python it is that shows these credentials: that of a query that runs. None where there is no such query, or
    /// one of the users that it needs, who are looked up by name, is no more.
    pub fn caller(&self, user: &str, password: &str, find: impl Fn(&str) -> Option<User>) -> Option<Caller> {
        let query = self.running.lock().get(user).filter(|query| !query.is_cancelled()).cloned()?;
        let creators = query.creators_of(password)?;
        query.caller().python(user, &creators, find)
    }

    /// Those that somebody may see: their own; for an admin, and without a user, all.
    pub(crate) fn shown_to(&self, caller: &Caller) -> Vec<QueryInfo> {
        let running = self.running.lock();
        running
            .values()
            .filter(|query| query.is_shown_to(caller) && !query.is_over())
            .map(|query| query.info())
            .collect()
    }

    /// Asks a query to end. Gives whether there is one of that id that the caller may see.
    pub(crate) fn kill(&self, query_id: &str, caller: &Caller) -> bool {
        let query = self.running.lock().get(query_id).filter(|query| query.is_shown_to(caller)).cloned();
        query.map(|query| query.cancel()).is_some()
    }

    /// Ends what the Python of a query has asked for: nobody waits for it any more.
    pub(crate) fn end_asked_by(&self, query_id: &str) {
        let asked = |query: &&Arc<Query>| query.caller().origin().is_some_and(|origin| origin.query_id == query_id);
        let asked: Vec<_> = self.running.lock().values().filter(asked).cloned().collect();
        asked.iter().for_each(|query| query.cancel());
    }

    /// Refuses what would go on for ever, or be too much.
    fn check_depth(&self, caller: &Caller) -> Result<()> {
        let Some(origin) = caller.origin() else { return Ok(()) };
        let refused = |text: String| Err(Error::new(ErrorKind::ResourcesExhausted, text));
        if caller.depth() > MAX_DEPTH {
            return refused(format!(
                "{MAX_DEPTH} queries run inside each other, each made by the Python of a stream that the one before \
                 reads: does a stream ask for itself?"
            ));
        }
        let of_root = |query: &&Arc<Query>| query.caller().origin().is_some_and(|other| other.root == origin.root);
        if self.running.lock().values().filter(of_root).count() >= MAX_ASKED {
            return refused(format!(
                "{MAX_ASKED} queries run that Python has asked for, all for one query: let it ask for fewer at once"
            ));
        }
        Ok(())
    }

    /// Refuses new queries, waits for those that run for as long as the grace, then cancels the rest and waits for their
    /// cleanup, for at most 5 s.
    pub(crate) async fn shutdown(&self, grace: Duration) {
        self.closed.store(true, Relaxed);
        if tokio::time::timeout(grace, self.empty()).await.is_err() {
            let running: Vec<_> = self.running.lock().values().cloned().collect();
            running.iter().for_each(|query| {
                query.end(Error::cancelled("the query was ended: the server is shutting down"));
            });
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

    /// Books a query. One that a query's Python makes runs on while the server shuts down: what it is for does.
    pub(crate) fn register(self: &Arc<Self>, statement: &StatementText) -> Result<Arc<Entry>> {
        // What has been done already only says so.
        let is_done = statement.text.is_empty();
        if self.closed.load(Relaxed) && statement.caller.depth() == 0 && !is_done {
            let message = "the server is shutting down and takes no new queries";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        self.check_depth(&statement.caller)?;
        let query = Arc::new(Query::new(self, statement));
        let entry = Arc::new(Entry { queries: Arc::clone(self), query: Arc::clone(&query) });
        query.entered(&entry);
        self.counters.started.fetch_add(1, Relaxed);
        self.running.lock().insert(query.id().to_owned(), query);
        Ok(entry)
    }
}

/// What a query is that waits for its turn.
pub(crate) const QUEUED: &str = "queued";

/// A place in the list: held by the query's stream and by all its work, given up with the last of them.
pub(crate) struct Entry {
    pub(crate) queries: Arc<Queries>,
    pub(crate) query: Arc<Query>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.queries.running.lock().remove(self.query.id());
        self.queries.ended.notify_waiters();
    }
}
