//! Opaque handles: what a client holds of a ticket or of a prepared statement.
//!
//! A handle is random, so that it cannot be guessed, and lives on the server only as long as somebody uses it. A client
//! that never closes what it opened costs no more than its share: where the store is full, whoever holds most of it makes
//! room, and among those who hold little, the entry that was not used for the longest time. Refusing instead would let
//! one client that leaks lock out all others.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use couatl_datafusion::Session;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

/// How often what has expired is let go.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How long lives what its client has left.
const LEFT_IDLE: Duration = Duration::from_secs(15);

/// How many handles a server keeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandleLimits {
    /// How many there may be at once.
    pub count: usize,
    /// How many bytes of statements and parameters they stand for, all together.
    pub bytes: usize,
    /// How long one lives after its last use.
    pub idle: Duration,
}

/// The values that clients hold handles of.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    limits: HandleLimits,
    entries: Mutex<HashMap<Uuid, Entry<T>>>,
}

/// What a handle stands for has a size.
pub(crate) trait Weigh {
    /// About how many bytes it holds; what all of them hold anyhow need not be counted.
    fn bytes(&self) -> usize;

    /// Whose it is.
    fn owner(&self) -> Owner;

    /// Whether its client has gone, and may come back by another connection, but soon.
    fn is_left(&self) -> bool {
        false
    }
}

/// Who holds handles: a user, or where nobody logs in, a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner(u64);

impl Owner {
    pub(crate) fn of(session: &Session) -> Self {
        let mut hasher = DefaultHasher::new();
        match session.caller().name() {
            Some(name) => name.hash(&mut hasher),
            None => session.context().session_id().hash(&mut hasher),
        }
        Self(hasher.finish())
    }
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    bytes: usize,
    owner: Owner,
    used: Instant,
}

impl<T: Weigh> Entry<T> {
    fn has_expired(&self, limits: &HandleLimits) -> bool {
        let idle = self.used.elapsed();
        idle > limits.idle || idle > LEFT_IDLE && self.value.is_left()
    }
}

fn total<T>(entries: &HashMap<Uuid, Entry<T>>) -> usize {
    entries.values().map(|entry| entry.bytes).sum()
}

impl<T: Clone + Weigh> Handles<T> {
    pub(crate) fn new(limits: HandleLimits) -> Self {
        Self { limits, entries: Mutex::default() }
    }

    /// Keeps a value, and gives the handle of it.
    pub(crate) fn insert(&self, value: T) -> Bytes {
        let (id, bytes, owner) = (Uuid::new_v4(), value.bytes(), value.owner());
        let mut entries = self.entries.lock();
        self.make_room(&mut entries, 1, bytes);
        entries.insert(id, Entry { value, bytes, owner, used: Instant::now() });
        Bytes::from(id.to_string())
    }

    /// The value of a handle, if it lives.
    pub(crate) fn get(&self, handle: &[u8]) -> Option<T> {
        self.update(handle, |value| value.clone())
    }

    /// Changes the value of a handle, if it lives.
    pub(crate) fn update<R>(&self, handle: &[u8], change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let id = Uuid::try_parse_ascii(handle).ok()?;
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&id)?;
        if entry.has_expired(&self.limits) {
            entries.remove(&id);
            return None;
        }
        entry.used = Instant::now();
        let changed = change(&mut entry.value);
        let before = std::mem::replace(&mut entry.bytes, entry.value.bytes());
        if entry.bytes > before {
            self.make_room(&mut entries, 0, 0);
        }
        Some(changed)
    }

    /// Forgets a handle, and gives its value, if it lived.
    pub(crate) fn remove(&self, handle: &[u8]) -> Option<T> {
        let id = Uuid::try_parse_ascii(handle).ok()?;
        self.entries.lock().remove(&id).map(|entry| entry.value)
    }

    /// How many live.
    pub(crate) fn count(&self) -> usize {
        self.sweep();
        self.entries.lock().len()
    }

    /// Drops what has expired, again and again.
    pub(crate) async fn sweep_often(&self) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            self.sweep();
        }
    }

    fn sweep(&self) {
        let expired: Vec<_> = self.entries.lock().extract_if(|_, entry| entry.has_expired(&self.limits)).collect();
        // Outside of the lock: a value may end a query.
        drop(expired);
    }

    /// Where so many more, of so many bytes, would be too much, drops what has expired, and then, an eighth at a time, what
    /// was not used for the longest time: a share, so that a full store does not look through all of itself for each new
    /// entry. Where somebody holds more than an eighth, it is of whoever holds most. What has just come, or grown, stays,
    /// alone if it must.
    fn make_room(&self, entries: &mut HashMap<Uuid, Entry<T>>, new: usize, bytes: usize) {
        let is_full = |entries: &HashMap<Uuid, Entry<T>>| {
            entries.len() + new > 1
                && (entries.len() + new > self.limits.count || total(entries).saturating_add(bytes) > self.limits.bytes)
        };
        if is_full(entries) {
            entries.retain(|_, entry| !entry.has_expired(&self.limits));
        }
        while is_full(entries) {
            let greedy = self.greedy(entries);
            let goes = |entry: &Entry<T>| greedy.is_none_or(|owner| entry.owner == owner);
            let mut uses: Vec<Instant> = entries.values().filter(|entry| goes(entry)).map(|entry| entry.used).collect();
            let eighth = uses.len() / 8;
            let (_, last_to_go, _) = uses.select_nth_unstable(eighth);
            let last_to_go = *last_to_go;
            entries.retain(|_, entry| !goes(entry) || entry.used > last_to_go);
        }
    }

    /// Who holds most of a store, if that is more than an eighth of it.
    fn greedy(&self, entries: &HashMap<Uuid, Entry<T>>) -> Option<Owner> {
        let mut shares: HashMap<Owner, (usize, usize)> = HashMap::new();
        for entry in entries.values() {
            let (count, bytes) = shares.entry(entry.owner).or_default();
            (*count, *bytes) = (*count + 1, *bytes + entry.bytes);
        }
        let part = |held: usize, limit: usize| held as f64 / limit.max(1) as f64;
        let shares = shares
            .into_iter()
            .map(|(owner, (count, bytes))| (owner, part(count, self.limits.count).max(part(bytes, self.limits.bytes))));
        let most = shares.max_by(|(_, one), (_, other)| one.total_cmp(other));
        most.filter(|(_, share)| *share > 0.125).map(|(owner, _)| owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for usize {
        fn bytes(&self) -> usize {
            *self
        }

        /// In the tests, those of a thousand belong together.
        fn owner(&self) -> Owner {
            Owner((*self / 1000) as u64)
        }
    }

    fn handles(count: usize) -> Handles<usize> {
        Handles::new(HandleLimits { count, bytes: 1000, idle: Duration::from_secs(600) })
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_large_makes_others_go() {
        let handles = handles(100);
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(handles.insert(300));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let kept: Vec<bool> = all.iter().map(|handle| handles.get(handle).is_some()).collect();
        assert_eq!(kept, [false, true, true, true]);
        let huge = handles.insert(5000);
        assert_eq!(handles.get(&huge), Some(5000), "one that is too large by itself is there alone");
        assert_eq!(handles.update(&huge, |size| *size += 1), Some(()));
        assert_eq!(handles.get(&huge), Some(5001), "and stays there, whether it is used or grows");
        assert!(all.iter().all(|handle| handles.get(handle).is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_fills_a_store_makes_room_in_it() {
        for (count, sizes) in [(16, 2000..2100), (1_000, 200_000..200_100)] {
            let handles = Handles::new(HandleLimits { count, bytes: 1_000_000, idle: Duration::from_secs(600) });
            let ones = handles.insert(1);
            tokio::time::advance(Duration::from_secs(1)).await;
            let mut last = None;
            for size in sizes {
                last = Some(handles.insert(size));
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            assert_eq!(handles.get(&ones), Some(1));
            assert!(handles.get(&last.unwrap()).is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handle_is_opaque_and_gives_its_value() {
        let handles = handles(10);
        let (one, two) = (handles.insert(1), handles.insert(2));
        assert_ne!(one, two);
        assert_eq!((handles.get(&one), handles.get(&two)), (Some(1), Some(2)));
        assert_eq!(handles.update(&one, |value| *value = 3), Some(()));
        assert_eq!(handles.get(&one), Some(3));
        assert_eq!((handles.remove(&one), handles.remove(&one)), (Some(3), None));
        assert_eq!(handles.get(&one), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_a_handle_finds_nothing() {
        let handles = handles(10);
        for garbage in [&b""[..], b"1", b"\xff\xfe", b"00000000-0000-4000-8000-000000000000"] {
            assert_eq!(handles.get(garbage), None);
            assert_eq!(handles.remove(garbage), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handle_expires_after_its_last_use() {
        let handles = handles(10);
        let handle = handles.insert(1);
        tokio::time::advance(Duration::from_secs(599)).await;
        assert_eq!(handles.get(&handle), Some(1));
        tokio::time::advance(Duration::from_secs(599)).await;
        assert_eq!(handles.get(&handle), Some(1));
        tokio::time::advance(Duration::from_secs(601)).await;
        assert_eq!(handles.get(&handle), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_expired_is_swept_and_the_rest_stays() {
        let handles = handles(10);
        handles.insert(1);
        tokio::time::advance(Duration::from_secs(500)).await;
        let young = handles.insert(2);
        tokio::time::advance(Duration::from_secs(101)).await;
        assert_eq!(handles.count(), 1);
        assert_eq!(handles.get(&young), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_drops_what_was_not_used_for_the_longest_time() {
        let handles = handles(16);
        let mut all = Vec::new();
        for value in 0..16 {
            all.push(handles.insert(value));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(handles.get(&all[0]), Some(0));
        tokio::time::advance(Duration::from_secs(1)).await;
        let new = handles.insert(16);
        let gone: Vec<usize> = (0..16).filter(|at| handles.get(&all[*at]).is_none()).collect();
        assert_eq!(gone, [1, 2, 3]);
        assert_eq!(handles.get(&new), Some(16));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_drops_what_has_expired_first() {
        let handles = handles(4);
        let old: Vec<Bytes> = (0..3).map(|value| handles.insert(value)).collect();
        tokio::time::advance(Duration::from_secs(601)).await;
        let young = handles.insert(3);
        let new = handles.insert(4);
        assert_eq!(handles.entries.lock().len(), 2);
        assert!(old.iter().all(|handle| handles.get(handle).is_none()));
        assert_eq!((handles.get(&young), handles.get(&new)), (Some(3), Some(4)));
    }
}
