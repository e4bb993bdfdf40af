//! A durable, revisioned key-value store with watch.
//!
//! Every write gets the next revision, for good: a revision is never used twice, over deletions and restarts alike.
//! Reads and watches are served from memory; a write is acknowledged, and seen by readers and watchers, only after
//! the transaction that holds it is on disk. So whoever has seen a revision will find it again after a crash.
//!
//! - [`Store`]: what the outside uses.
//! - `memory`: records, recent history and who waits for what, behind one lock that is held for lookups only.
//! - `writer`: the thread that groups writes into transactions.
//! - `disk`: the SQLite file.
//! - [`Watch`]: a reader of the history that is never in the way of the writer.

mod disk;
mod error;
mod memory;
mod record;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

pub use error::Error;
pub use memory::Limits;
pub use record::{Event, Expectation, Page, Record, Write};
pub use watch::Watch;

use disk::Disk;
use memory::Shared;
use writer::{Change, Job};

/// Writes that may wait for the writer; more have to wait to be queued.
const QUEUE: usize = 4096;

/// How a store is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How much history is kept for watches and for reading older revisions.
    pub limits: Limits,
    /// Largest size of the database file in bytes; `None` for what the file system has. Writes beyond it are
    /// refused as on a full disk.
    pub max_bytes: Option<u64>,
}

/// A durable, revisioned key-value store. Share it in an [`Arc`]; dropping the last one waits for the writer.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    shared: Arc<Shared>,
    /// `None` only while being dropped.
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Store {
    /// Opens the store in the file at `path`, which is made if there is none. The file is locked for as long as the
    /// store is open.
    ///
    /// # Errors
    /// [`Error::Open`] with a hint: no such directory, used by another process, not a store.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, &Options::default())
    }

    /// [`Store::open`] with limits of one's own.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(path: &Path, options: &Options) -> Result<Self, Error> {
        let (disk, contents) = Disk::open(path, options.max_bytes)?;
        let shared = Arc::new(Shared::new(contents, options.limits));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || writer::run(disk, &shared, queue)
            })
            .map_err(|source| Error::Thread {
                path: path.to_owned(),
                source: Arc::new(source),
            })?;
        Ok(Self {
            path: path.to_owned(),
            shared,
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }

    /// Where the store is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The latest revision.
    pub fn revision(&self) -> u64 {
        self.shared.read().revision()
    }

    /// What is stored under `key`.
    pub fn get(&self, key: &str) -> Option<Record> {
        self.shared.read().record(key)
    }

    /// All records within `prefix` in the order of their keys, and the revision at which this is what there is.
    /// A prefix that ends in `/` means what is below it, the empty one everything, any other the one key.
    pub fn list(&self, prefix: &str) -> (Vec<Record>, u64) {
        let memory = self.shared.read();
        (memory.list(prefix), memory.revision())
    }

    /// As [`Store::list`], at an earlier revision.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the history does not reach so far back, [`Error::Future`] if there is no such
    /// revision yet.
    pub fn list_at(&self, prefix: &str, revision: u64) -> Result<Vec<Record>, Error> {
        Ok(self
            .page(prefix, "", Some(revision), usize::MAX, 0)?
            .records)
    }

    /// At most `most` records within `prefix` (as in [`Store::list`]), from the key `from` on, at a revision or as they
    /// are now. Those behind them are counted up to `count`.
    ///
    /// # Errors
    /// As [`Store::list_at`].
    pub fn page(
        &self,
        prefix: &str,
        from: &str,
        revision: Option<u64>,
        most: usize,
        count: usize,
    ) -> Result<Page, Error> {
        let memory = self.shared.read();
        let revision = revision.unwrap_or_else(|| memory.revision());
        memory.page(prefix, from, revision, most, count)
    }

    /// Writes if what is stored meets the expectation, and returns what changed. When it returns, the change is
    /// durable. If the future is dropped the write may still happen.
    ///
    /// # Errors
    /// [`Error::Conflict`] with what is there instead; [`Error::Write`] when the disk refuses (full, broken):
    /// nothing was stored then, and later writes may well succeed.
    pub async fn commit(
        &self,
        key: &str,
        expect: Expectation,
        write: Write,
    ) -> Result<Arc<Event>, Error> {
        let change = (key.to_owned(), expect, write);
        let mut events = self.commit_all(vec![change]).await?;
        events.pop().ok_or(Error::Closed)
    }

    /// Several writes, of which all happen or none, whatever happens to the machine. They are decided in order, each
    /// against what those before it do, and get consecutive revisions. What changed, in order.
    ///
    /// # Errors
    /// As [`Store::commit`]; the conflict is that of the first write that cannot be.
    pub async fn commit_all(
        &self,
        changes: Vec<(String, Expectation, Write)>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let (reply, answer) = oneshot::channel();
        let changes = changes
            .into_iter()
            .map(|(key, expect, write)| Change {
                key: Arc::from(key),
                expect,
                write,
            })
            .collect();
        let jobs = self.jobs.as_ref().ok_or(Error::Closed)?;
        let job = Job { changes, reply };
        jobs.send(job).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Stores a value under a key, whatever is there.
    ///
    /// # Errors
    /// As [`Store::commit`], without the conflict.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<Arc<Event>, Error> {
        self.commit(key, Expectation::Any, Write::Put(value.into()))
            .await
    }

    /// All changes within `prefix` (as in [`Store::list`]) after `revision`: first those that happened already, then
    /// each as it happens.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the history does not reach so far back, [`Error::Future`] if there is no such
    /// revision yet.
    pub fn watch(&self, prefix: &str, revision: u64) -> Result<Watch, Error> {
        Watch::new(&self.shared, prefix, revision)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the store's writer panicked");
        }
    }
}
