//! The work queue of a controller: a key waits at most once, is never worked on twice at the same time, and comes
//! back with growing pauses when its work fails.
//!
//! Source of the rules: `client-go/util/workqueue`.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// What a reconciliation asks for when it has succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: the next change of an object will bring the key back.
    Done,
    /// Come back after this time though nothing changes.
    After(Duration),
}

impl From<Option<Duration>> for Next {
    fn from(after: Option<Duration>) -> Self {
        after.map_or(Next::Done, Next::After)
    }
}

/// First pause after a failure; it doubles each time.
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// Longest pause between two attempts.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Keys that need work. Clones share one queue.
pub(crate) struct Queue<K> {
    lines: Arc<Mutex<Lines<K>>>,
    wake: Arc<Notify>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self {
            lines: Arc::clone(&self.lines),
            wake: Arc::clone(&self.wake),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord + Debug> Queue<K> {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        Self {
            lines: Arc::new(Mutex::new(Lines::new())),
            wake: Arc::new(Notify::new()),
        }
    }

    /// This key needs work.
    pub(crate) fn add(&self, key: K) {
        self.lines.lock().add(key);
        self.wake.notify_one();
    }

    /// Works on the keys, up to `parallel` at a time, until `shutdown`.
    pub(crate) async fn run<F, W>(
        self,
        name: &'static str,
        parallel: usize,
        shutdown: CancellationToken,
        work: F,
    ) where
        F: Fn(K) -> W,
        W: Future<Output = Result<Next, Error>>,
    {
        let mut active = FuturesUnordered::new();
        loop {
            let wake_at = loop {
                if active.len() >= parallel {
                    break None;
                }
                let mut lines = self.lines.lock();
                let Some(key) = lines.take(Instant::now()) else {
                    break lines.next_due();
                };
                drop(lines);
                // A defect met on one object must not stop the work on all others.
                let attempt = AssertUnwindSafe(work(key.clone())).catch_unwind();
                active.push(async move { (key, attempt.await) });
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.wake.notified() => {}
                () = sleep_until(wake_at) => {}
                Some((key, outcome)) = active.next(), if !active.is_empty() => self.finish(name, key, outcome),
            }
        }
    }

    fn finish(
        &self,
        name: &'static str,
        key: K,
        outcome: std::thread::Result<Result<Next, Error>>,
    ) {
        let mut lines = self.lines.lock();
        match outcome {
            Ok(Ok(next)) => {
                lines.succeeded(&key);
                if let Next::After(pause) = next {
                    lines.add_at(key.clone(), Instant::now() + pause);
                }
            }
            Ok(Err(error)) => {
                let pause = lines.failed(&key);
                if error.is_conflict() || matches!(error, Error::Stale { .. }) {
                    tracing::debug!(controller = name, ?key, %error, ?pause, "will try again");
                } else {
                    tracing::warn!(controller = name, ?key, %error, ?pause, "failed, will try again");
                }
                lines.add_at(key.clone(), Instant::now() + pause);
            }
            Err(_) => {
                let pause = lines.failed(&key);
                tracing::error!(controller = name, ?key, ?pause, "panicked, will try again");
                lines.add_at(key.clone(), Instant::now() + pause);
            }
        }
        lines.finish(&key);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The queue without its clock and its waking.
struct Lines<K> {
    /// Waiting for a worker, in order of arrival.
    ready: VecDeque<K>,
    /// In need of work: those in `ready`, and those in `active` that changed meanwhile.
    dirty: HashSet<K>,
    /// Being worked on.
    active: HashSet<K>,
    /// Due later; each key once, at its earliest time.
    due: BTreeMap<(Instant, K), ()>,
    due_of: HashMap<K, Instant>,
    /// Failures in a row.
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash + Ord> Lines<K> {
    fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            active: HashSet::new(),
            due: BTreeMap::new(),
            due_of: HashMap::new(),
            failures: HashMap::new(),
        }
    }

    fn add(&mut self, key: K) {
        if !self.dirty.insert(key.clone()) {
            return;
        }
        if !self.active.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        if let Some(&known) = self.due_of.get(&key) {
            if known <= at {
                return;
            }
            self.due.remove(&(known, key.clone()));
        }
        self.due_of.insert(key.clone(), at);
        self.due.insert((at, key), ());
    }

    fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), ())| *at)
    }

    fn take(&mut self, now: Instant) -> Option<K> {
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((_, key), ()) = entry.remove_entry();
            self.due_of.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.active.insert(key.clone());
        Some(key)
    }

    fn finish(&mut self, key: &K) {
        self.active.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    fn succeeded(&mut self, key: &K) {
        self.failures.remove(key);
    }

    fn failed(&mut self, key: &K) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        *failures = failures.saturating_add(1);
        FIRST_RETRY
            .saturating_mul(1u32 << (*failures - 1).min(20))
            .min(LAST_RETRY)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_key_waits_once_and_is_worked_on_once_at_a_time() {
        let now = Instant::now();
        let mut lines = Lines::new();
        lines.add("a");
        lines.add("a");
        assert_eq!(lines.take(now), Some("a"));
        assert_eq!(lines.take(now), None);
        lines.add("a");
        assert_eq!(lines.take(now), None, "still being worked on");
        lines.finish(&"a");
        assert_eq!(lines.take(now), Some("a"), "changed meanwhile");
        lines.finish(&"a");
        assert_eq!(lines.take(now), None);
    }

    #[test]
    fn the_earliest_of_several_times_counts() {
        let now = Instant::now();
        let mut lines = Lines::new();
        lines.add_at("a", now + Duration::from_secs(5));
        lines.add_at("a", now + Duration::from_secs(2));
        lines.add_at("a", now + Duration::from_secs(9));
        assert_eq!(lines.next_due(), Some(now + Duration::from_secs(2)));
        assert_eq!(lines.take(now + Duration::from_secs(1)), None);
        assert_eq!(lines.take(now + Duration::from_secs(2)), Some("a"));
        assert_eq!(lines.next_due(), None);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_forgotten_on_success() {
        let mut lines = Lines::new();
        assert_eq!(lines.failed(&"a"), Duration::from_millis(5));
        assert_eq!(lines.failed(&"a"), Duration::from_millis(10));
        for _ in 0..100 {
            lines.failed(&"a");
        }
        assert_eq!(lines.failed(&"a"), LAST_RETRY);
        lines.succeeded(&"a");
        assert_eq!(lines.failed(&"a"), Duration::from_millis(5));
    }

    #[tokio::test]
    async fn failed_and_panicked_work_is_done_again() {
        let queue = Queue::new();
        let attempts = Arc::new(AtomicUsize::new(0));
        let shutdown = CancellationToken::new();
        queue.add("a");
        let (count, stop) = (Arc::clone(&attempts), shutdown.clone());
        queue
            .run("test", 2, shutdown, move |key: &str| {
                let attempt = count.fetch_add(1, Ordering::SeqCst);
                let stop = stop.clone();
                let object = key.to_owned();
                async move {
                    match attempt {
                        0 => Err(Error::Stale { object }),
                        1 => panic!("a defect"),
                        2 => Ok(Next::After(Duration::from_millis(1))),
                        _ => {
                            stop.cancel();
                            Ok(Next::Done)
                        }
                    }
                }
            })
            .await;
        assert_eq!(attempts.load(Ordering::SeqCst), 4);
    }
}
