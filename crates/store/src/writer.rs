//! The thread that writes. It takes everything that waits, decides each write against what is stored and what the
//! writes before it in the same group do, puts the group on disk in one transaction, and only then lets anybody know.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::ErrorCode;
use tokio::sync::{mpsc, oneshot};

use crate::disk::Disk;
use crate::error::{Error, hint};
use crate::memory::{Forgotten, Shared};
use crate::record::{Event, Expectation, Record, Write};

/// Writes in one transaction.
const GROUP: usize = 1024;
/// Bytes of values after which no more writes join a transaction.
const GROUP_BYTES: usize = 8 << 20;

/// Writes that wait, all or none of which happen.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) changes: Vec<Change>,
    pub(crate) reply: oneshot::Sender<Result<Vec<Arc<Event>>, Error>>,
}

/// One of the writes of a job.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) key: Arc<str>,
    pub(crate) expect: Expectation,
    pub(crate) write: Write,
}

/// Writes until the store is dropped and nothing waits any more.
pub(crate) fn run(mut disk: Disk, shared: &Shared, mut queue: mpsc::Receiver<Job>) {
    let mut forgotten = Forgotten::default();
    while let Some(first) = queue.blocking_recv() {
        let mut bytes = size(&first);
        let mut group = vec![first];
        while group.len() < GROUP && bytes < GROUP_BYTES {
            let Ok(job) = queue.try_recv() else {
                break;
            };
            bytes += size(&job);
            group.push(job);
        }
        write(&mut disk, shared, group, &mut forgotten);
    }
}

/// `forgotten` is what the disk still has to remove; that waits for a write, whose transaction takes it along.
fn write(disk: &mut Disk, shared: &Shared, group: Vec<Job>, forgotten: &mut Forgotten) {
    shared.forgotten(forgotten);
    let answers = decide(shared, &group);
    let events: Vec<Arc<Event>> = answers
        .iter()
        .filter_map(|a| a.as_ref().ok())
        .flatten()
        .cloned()
        .collect();
    let mut applied = disk.apply(&events, forgotten);
    if let Err(error) = &applied
        && error.sqlite_error_code() == Some(ErrorCode::DiskFull)
    {
        // The past makes room for the present. Watches that are behind have to list again.
        tracing::warn!(path = %disk.path().display(), %error, "forgetting the history");
        shared.forget_history();
        shared.forgotten(forgotten);
        applied = disk.apply(&events, forgotten);
    }
    match applied {
        Ok(()) => {
            if !events.is_empty() {
                forgotten.rows.clear();
            }
            shared.publish(&events);
            for (job, answer) in group.into_iter().zip(answers) {
                // Whoever asked may have gone; the write stands.
                let _ = job.reply.send(answer);
            }
        }
        Err(source) if group.len() == 1 => {
            tracing::warn!(path = %disk.path().display(), %source, "a write failed");
            let source = Arc::new(source);
            for job in group {
                let path = disk.path().to_owned();
                let first = job.changes.first();
                let key = first.map_or_else(|| Arc::from(""), |first| Arc::clone(&first.key));
                let _ = job.reply.send(Err(Error::Write {
                    key,
                    path,
                    hint: hint(&source),
                    source: Arc::clone(&source),
                }));
            }
        }
        // One write that the disk refuses must not take the others with it.
        Err(_) => group
            .into_iter()
            .for_each(|job| write(disk, shared, vec![job], forgotten)),
    }
}

/// What each job of a group does, in order, if all of them reach the disk.
fn decide(shared: &Shared, group: &[Job]) -> Vec<Result<Vec<Arc<Event>>, Error>> {
    let memory = shared.read();
    let mut revision = memory.revision();
    let mut written: HashMap<&str, Option<Record>> = HashMap::new();
    let mut answers = Vec::with_capacity(group.len());
    for job in group {
        let mut staged: HashMap<&str, Option<Record>> = HashMap::new();
        let mut events = Vec::with_capacity(job.changes.len());
        let mut refused = None;
        for change in &job.changes {
            let key = &*change.key;
            let current = match staged.get(key).or_else(|| written.get(key)) {
                Some(record) => record.clone(),
                None => memory.record(key),
            };
            if !meets(change.expect, &change.write, current.as_ref()) {
                let key = Arc::clone(&change.key);
                refused = Some(Error::Conflict { key, current });
                break;
            }
            let value = match &change.write {
                Write::Put(value) => Some(value.clone()),
                Write::Delete => None,
            };
            let next = revision + 1 + events.len() as u64;
            let event = Arc::new(Event::new(next, Arc::clone(&change.key), current, value));
            staged.insert(key, event.new.clone());
            events.push(event);
        }
        answers.push(match refused {
            Some(error) => Err(error),
            None => {
                revision += events.len() as u64;
                written.extend(staged);
                Ok(events)
            }
        });
    }
    answers
}

fn meets(expect: Expectation, write: &Write, current: Option<&Record>) -> bool {
    if matches!(write, Write::Delete) && current.is_none() {
        return false;
    }
    match expect {
        Expectation::Absent => current.is_none(),
        Expectation::Revision(revision) => current.is_some_and(|r| r.revision == revision),
        Expectation::Any => true,
    }
}

fn size(job: &Job) -> usize {
    let sizes = job.changes.iter().map(|change| match &change.write {
        Write::Put(value) => value.len(),
        Write::Delete => 0,
    });
    sizes.sum()
}
