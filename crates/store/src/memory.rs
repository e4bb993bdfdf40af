//! Everything that is stored, the recent history, and who waits for what: the part of the store that readers see.
//!
//! History is one ring of events with consecutive revisions. For each prefix that somebody watches there is a
//! `Topic`: the revisions of its events, in order. A watch is a cursor into its topic, so it costs nothing while
//! nothing happens to its prefix, finds what is new without searching, and a slow one keeps nothing alive: when the
//! ring has moved past its cursor it learns that it lost events.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use crate::error::Error;
use crate::record::{Event, Page, Record};

/// How much history is kept. When either is exceeded the oldest events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Events.
    pub events: usize,
    /// Bytes that only the history holds: superseded values and a fixed share for each event.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            events: 100_000,
            bytes: 64 << 20,
        }
    }
}

/// Bytes that an event takes beside its old value: itself, its place in the ring and in its topics.
const EVENT_OVERHEAD: usize = 256;

/// What a store begins with.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    records: BTreeMap<Arc<str>, Stored>,
    history: VecDeque<Arc<Event>>,
    revision: u64,
}

impl Contents {
    /// Nothing yet, at this revision.
    pub(crate) fn at(revision: u64) -> Self {
        Self {
            revision,
            ..Self::default()
        }
    }

    /// Adds what happened, in order. `complete`: everything since the event before is there, so it is history.
    pub(crate) fn add(&mut self, revision: u64, key: &str, value: Option<Bytes>, complete: bool) {
        let key = match self.records.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(key),
        };
        let old = match &value {
            Some(value) => self.records.insert(
                Arc::clone(&key),
                Stored {
                    revision,
                    value: value.clone(),
                },
            ),
            None => self.records.remove(&key),
        };
        if complete && revision == self.revision + 1 {
            let old = old.map(|old| old.record(&key));
            self.history
                .push_back(Arc::new(Event::new(revision, key, old, value)));
        } else {
            self.history.clear();
        }
        self.revision = self.revision.max(revision);
    }
}

/// What the history does not hold any more, for the disk to remove.
#[derive(Debug, Default)]
pub(crate) struct Forgotten {
    /// Revisions of the writes that nothing refers to any more.
    pub(crate) rows: Vec<u64>,
    /// The last event that was forgotten.
    pub(crate) floor: u64,
}

/// Memory behind its lock.
#[derive(Debug)]
pub(crate) struct Shared(RwLock<Memory>);

impl Shared {
    pub(crate) fn new(contents: Contents, limits: Limits) -> Self {
        Self(RwLock::new(Memory::new(contents, limits)))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.0.read()
    }

    /// Makes events visible that are on disk, all at once, and wakes who waits for them.
    pub(crate) fn publish(&self, events: &[Arc<Event>]) {
        let wake = self.0.write().publish(events);
        for topic in wake {
            topic.send_replace(());
        }
    }

    /// Forgets all of the history.
    pub(crate) fn forget_history(&self) {
        let mut memory = self.0.write();
        while !memory.history.is_empty() {
            memory.forget_oldest();
        }
    }

    /// Adds to what was forgotten since this was asked last.
    pub(crate) fn forgotten(&self, since: &mut Forgotten) {
        let mut now = std::mem::take(&mut self.0.write().forgotten);
        since.rows.append(&mut now.rows);
        since.floor = since.floor.max(now.floor);
    }

    /// Registers a watch of a prefix.
    pub(crate) fn subscribe(
        &self,
        prefix: &str,
        cursor: u64,
    ) -> Result<watch::Receiver<()>, Error> {
        self.0.write().subscribe(prefix, cursor)
    }

    /// The watch of a prefix has ended.
    pub(crate) fn unsubscribe(&self, prefix: &str) {
        self.0.write().unsubscribe(prefix);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Memory {
    records: BTreeMap<Arc<str>, Stored>,
    revision: u64,
    history: VecDeque<Arc<Event>>,
    history_bytes: usize,
    limits: Limits,
    topics: HashMap<Box<str>, Topic>,
    forgotten: Forgotten,
}

#[derive(Debug)]
struct Stored {
    revision: u64,
    value: Bytes,
}

#[derive(Debug)]
struct Topic {
    /// Revisions of the events of this prefix that are still in the history.
    revisions: VecDeque<u64>,
    /// Nothing up to here is in `revisions` any more, or was ever.
    floor: u64,
    wake: Arc<watch::Sender<()>>,
    watches: usize,
}

impl Memory {
    fn new(contents: Contents, limits: Limits) -> Self {
        let mut memory = Self {
            records: contents.records,
            revision: contents.revision,
            history_bytes: contents.history.iter().map(|event| weight(event)).sum(),
            history: contents.history,
            limits,
            topics: HashMap::new(),
            forgotten: Forgotten::default(),
        };
        memory.keep_limits();
        memory
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn record(&self, key: &str) -> Option<Record> {
        let (key, stored) = self.records.get_key_value(key)?;
        Some(stored.record(key))
    }

    pub(crate) fn list(&self, prefix: &str) -> Vec<Record> {
        self.stored_from(prefix, "")
            .map(|(key, stored)| stored.record(key))
            .collect()
    }

    /// At most `most` records within `prefix`, from the key `from` on, as they were at `revision`, and up to `count` how
    /// many are left. Costs what it returns and counts, and what happened since that revision.
    pub(crate) fn page(
        &self,
        prefix: &str,
        from: &str,
        revision: u64,
        most: usize,
        count: usize,
    ) -> Result<Page, Error> {
        self.reaches(revision)?;
        // What changed since, as it was before: the oldest change counts, so newest first.
        let mut before: BTreeMap<&str, Option<&Record>> = BTreeMap::new();
        for event in self
            .history
            .iter()
            .rev()
            .take_while(|e| e.revision > revision)
        {
            if within(prefix, &event.key) && &*event.key >= from {
                before.insert(&event.key, event.old.as_ref());
            }
        }
        let mut now = self.stored_from(prefix, from).peekable();
        let mut before = before.into_iter().peekable();
        let mut records = Vec::new();
        let mut remaining = 0;
        while remaining < count || records.len() < most {
            let (now_key, before_key) = (
                now.peek().map(|(key, _)| &***key),
                before.peek().map(|(key, _)| *key),
            );
            let unchanged = match (now_key, before_key) {
                (None, None) => break,
                (Some(now), Some(before)) => now < before,
                (now, _) => now.is_some(),
            };
            if unchanged {
                let Some((key, stored)) = now.next() else {
                    break;
                };
                if records.len() < most {
                    records.push(stored.record(key));
                } else {
                    remaining += 1;
                }
                continue;
            }
            if now_key == before_key {
                now.next();
            }
            if let Some((_, Some(old))) = before.next() {
                if records.len() < most {
                    records.push(old.clone());
                } else {
                    remaining += 1;
                }
            }
        }
        Ok(Page {
            records,
            revision,
            remaining,
        })
    }

    fn stored_from<'a>(
        &'a self,
        prefix: &'a str,
        from: &str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Stored)> {
        let begin = if from > prefix { from } else { prefix };
        self.records
            .range::<str, _>((Bound::Included(begin), Bound::Unbounded))
            .take_while(move |(key, _)| within(prefix, key))
    }

    /// The events of a prefix after `cursor`, at most `most`, and the cursor behind them. Without events the cursor
    /// moves to the latest revision: there is nothing in between.
    pub(crate) fn after(
        &self,
        prefix: &str,
        cursor: u64,
        most: usize,
    ) -> Result<(Vec<Arc<Event>>, u64), Error> {
        let Some(topic) = self.topics.get(prefix) else {
            return Err(Error::Closed);
        };
        if cursor < topic.floor {
            return Err(Error::Compacted {
                asked: cursor,
                oldest: self.oldest(),
            });
        }
        let begin = topic.revisions.partition_point(|&r| r <= cursor);
        let events: Vec<Arc<Event>> = topic
            .revisions
            .range(begin..)
            .take(most)
            .filter_map(|&r| self.event(r))
            .cloned()
            .collect();
        let cursor = events.last().map_or(self.revision, |e| e.revision);
        Ok((events, cursor))
    }

    fn publish(&mut self, events: &[Arc<Event>]) -> Vec<Arc<watch::Sender<()>>> {
        let mut wake: Vec<Arc<watch::Sender<()>>> = Vec::new();
        for event in events {
            match &event.new {
                Some(new) => {
                    let stored = Stored {
                        revision: new.revision,
                        value: new.value.clone(),
                    };
                    self.records.insert(Arc::clone(&event.key), stored);
                }
                None => {
                    self.records.remove(&event.key);
                }
            }
            for prefix in prefixes(&event.key) {
                if let Some(topic) = self.topics.get_mut(prefix) {
                    topic.revisions.push_back(event.revision);
                    if !wake.iter().any(|w| Arc::ptr_eq(w, &topic.wake)) {
                        wake.push(Arc::clone(&topic.wake));
                    }
                }
            }
            self.revision = event.revision;
            self.history_bytes += weight(event);
            self.history.push_back(Arc::clone(event));
        }
        self.keep_limits();
        wake
    }

    fn keep_limits(&mut self) {
        while self.history.len() > self.limits.events || self.history_bytes > self.limits.bytes {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(event) = self.history.pop_front() else {
            return;
        };
        self.history_bytes -= weight(&event);
        self.forgotten
            .rows
            .extend(event.old.as_ref().map(|old| old.revision));
        if event.new.is_none() {
            self.forgotten.rows.push(event.revision);
        }
        self.forgotten.floor = event.revision;
        for prefix in prefixes(&event.key) {
            if let Some(topic) = self.topics.get_mut(prefix)
                && topic.revisions.front() == Some(&event.revision)
            {
                topic.revisions.pop_front();
                topic.floor = event.revision;
            }
        }
    }

    fn subscribe(&mut self, prefix: &str, cursor: u64) -> Result<watch::Receiver<()>, Error> {
        self.reaches(cursor)?;
        let oldest = self.oldest();
        let history = &self.history;
        let topic = self.topics.entry(prefix.into()).or_insert_with(|| Topic {
            revisions: history
                .iter()
                .filter(|e| within(prefix, &e.key))
                .map(|e| e.revision)
                .collect(),
            floor: oldest,
            wake: Arc::new(watch::Sender::new(())),
            watches: 0,
        });
        topic.watches += 1;
        Ok(topic.wake.subscribe())
    }

    fn unsubscribe(&mut self, prefix: &str) {
        if let Some(topic) = self.topics.get_mut(prefix) {
            topic.watches -= 1;
            if topic.watches == 0 {
                self.topics.remove(prefix);
            }
        }
    }

    /// The oldest revision that watches and lists can begin at.
    fn oldest(&self) -> u64 {
        self.revision - self.history.len() as u64
    }

    fn reaches(&self, revision: u64) -> Result<(), Error> {
        if revision > self.revision {
            return Err(Error::Future {
                asked: revision,
                current: self.revision,
            });
        }
        if revision < self.oldest() {
            return Err(Error::Compacted {
                asked: revision,
                oldest: self.oldest(),
            });
        }
        Ok(())
    }

    fn event(&self, revision: u64) -> Option<&Arc<Event>> {
        let index = revision.checked_sub(self.oldest() + 1)?;
        self.history.get(usize::try_from(index).ok()?)
    }
}

impl Stored {
    fn record(&self, key: &Arc<str>) -> Record {
        Record {
            key: Arc::clone(key),
            revision: self.revision,
            value: self.value.clone(),
        }
    }
}

/// What only the history holds of an event: its new value is either stored still, or the old value of a later event.
fn weight(event: &Event) -> usize {
    EVENT_OVERHEAD + event.old.as_ref().map_or(0, |old| old.value.len())
}

fn is_range(prefix: &str) -> bool {
    prefix.is_empty() || prefix.ends_with('/')
}

fn within(prefix: &str, key: &str) -> bool {
    if is_range(prefix) {
        key.starts_with(prefix)
    } else {
        key == prefix
    }
}

/// Every prefix that a key is within: the empty one, one for each `/`, and the key itself.
fn prefixes(key: &str) -> impl Iterator<Item = &str> {
    let whole = (!key.ends_with('/')).then_some(key);
    std::iter::once("")
        .chain(key.match_indices('/').map(|(at, _)| &key[..=at]))
        .chain(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_within_each_of_its_prefixes() {
        let all: Vec<&str> = prefixes("core/pods/default/web").collect();
        assert_eq!(
            all,
            [
                "",
                "core/",
                "core/pods/",
                "core/pods/default/",
                "core/pods/default/web"
            ]
        );
        assert!(
            all.iter()
                .all(|prefix| within(prefix, "core/pods/default/web"))
        );
        assert!(!within("core/pods/default/we", "core/pods/default/web"));
    }

    #[test]
    fn a_topic_that_nobody_watches_is_forgotten() {
        let mut memory = Memory::new(Contents::default(), Limits::default());
        memory.subscribe("a/", 0).unwrap();
        memory.subscribe("a/", 0).unwrap();
        memory.unsubscribe("a/");
        assert_eq!(memory.topics.len(), 1);
        memory.unsubscribe("a/");
        assert!(memory.topics.is_empty());
    }
}
