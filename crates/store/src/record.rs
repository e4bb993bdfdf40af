//! What is stored, what is asked to be written, and what changed.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

/// A value and the revision at which it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it is stored.
    pub key: Arc<str>,
    /// The revision of the write that stored it.
    pub revision: u64,
    /// The value.
    pub value: Bytes,
}

/// A part of what is stored within a prefix, at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records in the order of their keys.
    pub records: Vec<Record>,
    /// The revision at which this is what there is.
    pub revision: u64,
    /// How many records are behind these, as far as they were counted.
    pub remaining: usize,
}

/// What must be stored under the key for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing.
    Absent,
    /// What was written at this revision.
    Revision(u64),
    /// Anything or nothing (deleting nothing is still a conflict: there would be no event).
    Any,
}

/// A change to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Store this value.
    Put(Bytes),
    /// Remove what is stored.
    Delete,
}

/// One change that happened.
#[derive(Debug)]
pub struct Event {
    /// The revision that the store has through it.
    pub revision: u64,
    /// What changed.
    pub key: Arc<str>,
    /// What was stored before.
    pub old: Option<Record>,
    /// What is stored now; `None` when it was deleted.
    pub new: Option<Record>,
    memo: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Event {
    pub(crate) fn new(
        revision: u64,
        key: Arc<str>,
        old: Option<Record>,
        value: Option<Bytes>,
    ) -> Self {
        let new = value.map(|value| Record {
            key: Arc::clone(&key),
            revision,
            value,
        });
        Self {
            revision,
            key,
            old,
            new,
            memo: OnceLock::new(),
        }
    }

    /// What `derive` makes of this event, computed by the first of many watchers that asks and shared with the
    /// others. One event keeps one such thing: all watchers of a key must ask for the same type. It lives as long as
    /// the event is history, so it should be small.
    pub fn memo<T: Send + Sync + 'static>(&self, derive: impl Fn(&Self) -> T) -> Arc<T> {
        let kept = self.memo.get_or_init(|| Arc::new(derive(self)));
        Arc::downcast(Arc::clone(kept)).unwrap_or_else(|_| Arc::new(derive(self)))
    }
}
