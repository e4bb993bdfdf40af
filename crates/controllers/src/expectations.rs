//! What a controller wrote and its cache does not show yet. Work on a key waits until it does, so that a watch that
//! lags never makes a controller create a Pod twice or delete one too many.
//!
//! Source of the rules: `ControllerExpectations` and `UIDTrackingControllerExpectations` of Kubernetes'
//! `pkg/controller/controller_utils.go`.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A write whose event never comes (created and deleted again between two lists) stops a key no longer than this.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The outstanding writes of each key. Announce a write before sending it; take it back when it fails.
pub(crate) struct Expectations<K> {
    pending: Mutex<HashMap<K, Pending>>,
}

#[derive(Debug)]
struct Pending {
    creations: i64,
    deletions: HashSet<String>,
    /// UID → the resource version that the write replaces.
    updates: HashMap<String, String>,
    since: Instant,
}

impl Pending {
    fn is_fulfilled(&self) -> bool {
        self.creations <= 0 && self.deletions.is_empty() && self.updates.is_empty()
    }
}

impl<K: Clone + Eq + Hash> Expectations<K> {
    /// Nothing outstanding.
    pub(crate) fn new() -> Self {
        Self {
            pending: Mutex::new(HashMap::new()),
        }
    }

    /// Whether the cache shows everything that was written for the key.
    pub(crate) fn are_fulfilled(&self, key: &K) -> bool {
        self.are_fulfilled_at(key, Instant::now())
    }

    fn are_fulfilled_at(&self, key: &K, now: Instant) -> bool {
        let mut pending = self.pending.lock();
        match pending.get(key) {
            None => true,
            Some(entry) if entry.is_fulfilled() || now.duration_since(entry.since) > TIMEOUT => {
                pending.remove(key);
                true
            }
            Some(_) => false,
        }
    }

    /// `count` objects are about to be created.
    pub(crate) fn expect_creations(&self, key: &K, count: usize) {
        self.change(key, |pending| {
            pending.creations += i64::try_from(count).unwrap_or(i64::MAX)
        });
    }

    /// An object is about to be deleted.
    pub(crate) fn expect_deletion(&self, key: &K, uid: &str) {
        self.change(key, |pending| {
            pending.deletions.insert(uid.to_owned());
        });
    }

    /// An object is about to be changed, and is known at this resource version.
    pub(crate) fn expect_update(&self, key: &K, uid: &str, version: &str) {
        self.change(key, |pending| {
            pending.updates.insert(uid.to_owned(), version.to_owned());
        });
    }

    /// An object of the key appeared, or its creation failed.
    pub(crate) fn creation_observed(&self, key: &K) {
        self.settle(key, |pending| pending.creations -= 1);
    }

    /// `count` creations will not be tried after all.
    pub(crate) fn creations_given_up(&self, key: &K, count: usize) {
        self.settle(key, |pending| {
            pending.creations -= i64::try_from(count).unwrap_or(i64::MAX)
        });
    }

    /// An object of the key is going or gone, or its deletion failed.
    pub(crate) fn deletion_observed(&self, key: &K, uid: &str) {
        self.settle(key, |pending| {
            pending.deletions.remove(uid);
            pending.updates.remove(uid);
        });
    }

    /// An object of the key is at this resource version now.
    pub(crate) fn update_observed(&self, key: &K, uid: &str, version: &str) {
        self.settle(key, |pending| {
            if pending
                .updates
                .get(uid)
                .is_some_and(|replaced| replaced != version)
            {
                pending.updates.remove(uid);
            }
        });
    }

    /// The change of an object failed.
    pub(crate) fn update_given_up(&self, key: &K, uid: &str) {
        self.settle(key, |pending| {
            pending.updates.remove(uid);
        });
    }

    /// The key is no more.
    pub(crate) fn forget(&self, key: &K) {
        self.pending.lock().remove(key);
    }

    fn change(&self, key: &K, change: impl FnOnce(&mut Pending)) {
        let mut pending = self.pending.lock();
        let entry = pending.entry(key.clone()).or_insert_with(|| Pending {
            creations: 0,
            deletions: HashSet::new(),
            updates: HashMap::new(),
            since: Instant::now(),
        });
        entry.since = Instant::now();
        change(entry);
    }

    fn settle(&self, key: &K, change: impl FnOnce(&mut Pending)) {
        // An entry with nothing left stays until the key is next looked at: a count may go below zero for a moment
        // when an event overtakes the answer to the write that caused it.
        if let Some(entry) = self.pending.lock().get_mut(key) {
            change(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creations_are_counted() {
        let expectations = Expectations::new();
        expectations.expect_creations(&"a", 2);
        assert!(!expectations.are_fulfilled(&"a"));
        assert!(expectations.are_fulfilled(&"b"));
        expectations.creation_observed(&"a");
        assert!(!expectations.are_fulfilled(&"a"));
        expectations.creation_observed(&"a");
        assert!(expectations.are_fulfilled(&"a"));
    }

    #[test]
    fn a_deletion_counts_once_however_often_it_is_seen() {
        let expectations = Expectations::new();
        expectations.expect_deletion(&"a", "1");
        expectations.expect_deletion(&"a", "2");
        expectations.deletion_observed(&"a", "1");
        expectations.deletion_observed(&"a", "1");
        assert!(!expectations.are_fulfilled(&"a"));
        expectations.deletion_observed(&"a", "2");
        assert!(expectations.are_fulfilled(&"a"));
    }

    #[test]
    fn an_update_is_seen_when_the_version_moves() {
        let expectations = Expectations::new();
        expectations.expect_update(&"a", "1", "7");
        expectations.update_observed(&"a", "1", "7");
        assert!(!expectations.are_fulfilled(&"a"));
        expectations.update_observed(&"a", "1", "8");
        assert!(expectations.are_fulfilled(&"a"));
    }

    #[test]
    fn an_event_that_never_comes_does_not_stop_a_key_for_ever() {
        let expectations = Expectations::new();
        expectations.expect_creations(&"a", 1);
        let now = Instant::now();
        assert!(!expectations.are_fulfilled_at(&"a", now + TIMEOUT / 2));
        assert!(expectations.are_fulfilled_at(&"a", now + TIMEOUT * 2));
    }
}
