//! How much there may be at once, and of one query: turns, memory, time, rows, bytes.
//!
//! A query waits for its turn before anything of it runs: first for that of its user, so that who has many queries keeps
//! nobody waiting but themselves, then for that of all. What its operators keep is counted against its own share, that of
//! its user, and the whole session's.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use couatl_core::{Error, ErrorKind, Result};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size,
};
use datafusion::execution::runtime_env::RuntimeEnv;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// What queries may take. The default is: as much as there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many queries run at once; those that only ask for the catalog, or for what runs, are not counted.
    pub queries: Option<usize>,
    /// How long a query waits for its turn.
    pub queue: Duration,
    /// What holds for each user, and for each of their queries; the latter also where nobody logs in.
    pub each: UserLimits,
    /// What holds for some users instead. What is not said of one of them is as for all.
    pub users: HashMap<Arc<str>, UserLimits>,
}

/// What a user may take, and each of their queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserLimits {
    /// How many of their queries run at once.
    pub queries: Option<usize>,
    /// How many bytes these keep, all together, in operators that gather rows.
    pub memory: Option<usize>,
    /// How many bytes one query keeps.
    pub query_memory: Option<usize>,
    /// How long a query runs.
    pub query_time: Option<Duration>,
    /// How many rows it gives.
    pub query_rows: Option<u64>,
    /// How many bytes these have.
    pub query_bytes: Option<u64>,
}

impl UserLimits {
    /// What is said here, else there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            queries: self.queries.or(other.queries),
            memory: self.memory.or(other.memory),
            query_memory: self.query_memory.or(other.query_memory),
            query_time: self.query_time.or(other.query_time),
            query_rows: self.query_rows.or(other.query_rows),
            query_bytes: self.query_bytes.or(other.query_bytes),
        }
    }
}

impl Limits {
    /// What holds for a user, and for their queries.
    pub(crate) fn of(&self, user: Option<&str>) -> UserLimits {
        user.and_then(|user| self.users.get(user)).map_or(self.each, |said| said.or(self.each))
    }
}

/// Where queries wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    limits: Limits,
    all: Option<Arc<Semaphore>>,
    users: Mutex<HashMap<Arc<str>, Share>>,
}

/// What the queries of one user have together.
#[derive(Debug, Clone)]
struct Share {
    turns: Option<Arc<Semaphore>>,
    memory: Option<Arc<Quota>>,
}

/// The turn of a query, for as long as it is held.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    _held: [Option<OwnedSemaphorePermit>; 2],
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        let all = limits.queries.map(turns);
        Self { limits, all, users: Mutex::default() }
    }

    /// What holds for a user's queries.
    pub(crate) fn limits(&self, user: Option<&str>) -> UserLimits {
        self.limits.of(user)
    }

    /// Waits for a user's turn.
    ///
    /// # Errors
    /// `resources-exhausted`, where it does not come in time.
    pub(crate) async fn turn(&self, user: Option<&Arc<str>>) -> Result<Turn> {
        let began = Instant::now();
        let own = match user.and_then(|user| Some((user, self.share(user).turns?))) {
            Some((user, turns)) => {
                let limit = self.limits.of(Some(user)).queries.unwrap_or_default();
                Some(self.wait(turns, began, || format!("user '{user}' has {limit} running")).await?)
            }
            None => None,
        };
        let all = match &self.all {
            Some(turns) => {
                let limit = self.limits.queries.unwrap_or_default();
                Some(self.wait(turns.clone(), began, || format!("{limit} are running")).await?)
            }
            None => None,
        };
        Ok(Turn { _held: [own, all] })
    }

    async fn wait(
        &self,
        turns: Arc<Semaphore>,
        began: Instant,
        why: impl FnOnce() -> String,
    ) -> Result<OwnedSemaphorePermit> {
        let left = self.limits.queue.saturating_sub(began.elapsed());
        if let Ok(Ok(turn)) = timeout(left, turns.acquire_owned()).await {
            return Ok(turn);
        }
        let (why, waited) = (why(), self.limits.queue);
        Err(Error::new(
            ErrorKind::ResourcesExhausted,
            format!("the query waited {waited:?} for its turn: {why}, and no more may at once; try again later"),
        ))
    }

    fn share(&self, user: &Arc<str>) -> Share {
        let mut users = self.users.lock();
        let share = users.entry(Arc::clone(user)).or_insert_with(|| {
            let UserLimits { queries, memory, .. } = self.limits.of(Some(user));
            let memory = memory.map(|limit| Quota::new(limit, format!("the queries of user '{user}'")));
            Share { turns: queries.map(turns), memory }
        });
        share.clone()
    }

    /// The runtime of one query, whose memory counts against its shares.
    pub(crate) fn runtime(&self, user: Option<&Arc<str>>, runtime: Arc<RuntimeEnv>) -> Arc<RuntimeEnv> {
        let query = self.limits.of(user.map(|user| &**user)).query_memory;
        let query = query.map(|limit| Quota::new(limit, "the query".to_owned()));
        let quotas: Vec<_> = query.into_iter().chain(user.and_then(|user| self.share(user).memory)).collect();
        if quotas.is_empty() {
            return runtime;
        }
        let memory_pool = Arc::new(QuotaPool { inner: Arc::clone(&runtime.memory_pool), quotas });
        Arc::new(RuntimeEnv { memory_pool, ..RuntimeEnv::clone(&runtime) })
    }
}

fn turns(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
}

/// A number of bytes that are used by somebody, and the most that may be.
#[derive(Debug)]
struct Quota {
    limit: usize,
    used: AtomicUsize,
    whose: String,
}

impl Quota {
    fn new(limit: usize, whose: String) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), whose })
    }

    fn try_grow(&self, bytes: usize) -> Result<(), DataFusionError> {
        let grown = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, grown).map(drop).map_err(|used| {
            let [used, limit, bytes] = [used, self.limit, bytes].map(human_readable_size);
            DataFusionError::ResourcesExhausted(format!(
                "{} may keep {limit}, keep {used}, and want {bytes} more",
                self.whose
            ))
        })
    }
}

/// A pool of which only so much may be had.
#[derive(Debug)]
struct QuotaPool {
    inner: Arc<dyn MemoryPool>,
    quotas: Vec<Arc<Quota>>,
}

impl QuotaPool {
    fn give_back(&self, quotas: usize, bytes: usize) {
        self.quotas.iter().take(quotas).for_each(|quota| {
            quota.used.fetch_sub(bytes, Relaxed);
        });
    }
}

impl fmt::Display for QuotaPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quota of {}", self.inner)
    }
}

impl MemoryPool for QuotaPool {
    fn name(&self) -> &str {
        "quota"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.quotas.iter().for_each(|quota| {
            quota.used.fetch_add(additional, Relaxed);
        });
        self.inner.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.give_back(self.quotas.len(), shrink);
        self.inner.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<(), DataFusionError> {
        for (taken, quota) in self.quotas.iter().enumerate() {
            quota.try_grow(additional).inspect_err(|_| self.give_back(taken, additional))?;
        }
        let grown = self.inner.try_grow(reservation, additional);
        grown.inspect_err(|_| self.give_back(self.quotas.len(), additional))
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        let least = self.quotas.iter().map(|quota| quota.limit).min().unwrap_or(usize::MAX);
        match self.inner.memory_limit() {
            MemoryLimit::Finite(limit) => MemoryLimit::Finite(limit.min(least)),
            _ => MemoryLimit::Finite(least),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    fn user(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_and_not_for_ever() {
        let each = UserLimits { queries: Some(1), ..UserLimits::default() };
        let ann = UserLimits { queries: Some(2), ..UserLimits::default() };
        let users = HashMap::from([(user("ann"), ann)]);
        let gate = Gate::new(Limits { queries: Some(3), queue: Duration::from_secs(5), each, users });
        let first = gate.turn(Some(&user("ann"))).await.unwrap();
        let _second = gate.turn(Some(&user("ann"))).await.unwrap();
        let error = gate.turn(Some(&user("ann"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourcesExhausted);
        assert_eq!(
            error.to_string(),
            "the query waited 5s for its turn: user 'ann' has 2 running, and no more may at once; try again later"
        );
        let _bob = gate.turn(Some(&user("bob"))).await.unwrap();
        let error = gate.turn(None).await.unwrap_err().to_string();
        assert!(error.contains("3 are running"), "{error}");
        let ann = user("ann");
        let mut waiting = Box::pin(gate.turn(Some(&ann)));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        waiting.await.unwrap();
    }

    #[test]
    fn memory_counts_against_the_query_and_the_user() {
        let each = UserLimits { memory: Some(100), query_memory: Some(60), ..UserLimits::default() };
        let gate = Gate::new(Limits { each, ..Limits::default() });
        let whole: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let base = Arc::new(RuntimeEnv { memory_pool: Arc::clone(&whole), ..RuntimeEnv::default() });
        let runtimes = [(); 2].map(|()| gate.runtime(Some(&user("ann")), Arc::clone(&base)));
        let reservations =
            runtimes.each_ref().map(|runtime| MemoryConsumer::new("sort").register(&runtime.memory_pool));
        reservations[0].try_grow(60).unwrap();
        let error = reservations[0].try_grow(1).unwrap_err().to_string();
        assert!(error.contains("the query may keep 60.0 B, keep 60.0 B, and want 1.0 B more"), "{error}");
        let error = reservations[1].try_grow(41).unwrap_err().to_string();
        assert!(error.contains("the queries of user 'ann' may keep 100.0 B"), "{error}");
        reservations[1].try_grow(40).unwrap();
        assert_eq!(whole.reserved(), 100);
        drop(reservations);
        assert_eq!(whole.reserved(), 0);
        let again = MemoryConsumer::new("sort").register(&runtimes[1].memory_pool);
        again.try_grow(60).unwrap();
    }
}
