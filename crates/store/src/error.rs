//! What can go wrong with a store, and what to do about it.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::record::Record;

/// What can go wrong with a store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened as a store.
    #[error("cannot open the store {path}: {source}: {hint}", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: Arc<rusqlite::Error>,
        /// What may help.
        hint: &'static str,
    },
    /// The writer's thread cannot be started.
    #[error("cannot start a thread for the store {path}: {source}: is there a limit on processes?", path = path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// What is stored is not what the write expects.
    #[error("{key} is not what the write expects{}", match current { Some(r) => format!(": it is at revision {}", r.revision), None => ": there is nothing".to_owned() })]
    Conflict {
        /// The key.
        key: Arc<str>,
        /// What is stored.
        current: Option<Record>,
    },
    /// The disk refused the write; nothing of it was stored.
    #[error("cannot write {key} to the store {path}: {source}: {hint}", path = path.display())]
    Write {
        /// The key.
        key: Arc<str>,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: Arc<rusqlite::Error>,
        /// What may help.
        hint: &'static str,
    },
    /// The history that is kept does not reach so far back: list, and watch from there.
    #[error("revision {asked} is no longer in the history, which begins after revision {oldest}")]
    Compacted {
        /// The revision asked for.
        asked: u64,
        /// The oldest revision that can be asked for.
        oldest: u64,
    },
    /// There is no such revision yet.
    #[error("revision {asked} is not there yet, the store is at revision {current}")]
    Future {
        /// The revision asked for.
        asked: u64,
        /// The latest revision.
        current: u64,
    },
    /// The store is being closed, or its writer died.
    #[error("the store is closed: see the log for why")]
    Closed,
}

/// What may help against an error of SQLite.
pub(crate) fn hint(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full: make space and try again",
        Some(ErrorCode::SystemIoFailure) => "the disk fails or is full: see the kernel's log",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process uses it: is the same lab running already?"
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "it is damaged or not a store: move it away to begin with an empty one"
        }
        Some(ErrorCode::CannotOpen) => "does its directory exist, and may this user write there?",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => "may this user write there?",
        _ => "see the message before this hint",
    }
}
