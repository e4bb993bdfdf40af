//! The SQLite file: what survives. Memory is filled from it at start; after that it is only written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::error::{Error, hint};
use crate::memory::Contents;
use crate::record::{Event, Record};

/// Says that an SQLite file is a store of ours (`application_id`): "SeaW".
const APPLICATION: i32 = 0x5365_6157;
/// Layout of the tables (`user_version`).
const LAYOUT: i32 = 1;

/// The file, open and locked.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    connection: Connection,
}

impl Disk {
    pub(crate) fn open(path: &Path, max_bytes: Option<u64>) -> Result<(Self, Contents), Error> {
        let failed = |source: rusqlite::Error| Error::Open {
            path: path.to_owned(),
            hint: hint(&source),
            source: Arc::new(source),
        };
        let mut connection = Connection::open(path).map_err(failed)?;
        prepare(&mut connection, max_bytes).map_err(failed)?;
        let contents = read(&connection).map_err(failed)?;
        Ok((
            Self {
                path: path.to_owned(),
                connection,
            },
            contents,
        ))
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Stores the events, all or none. When it returns they are on disk.
    pub(crate) fn apply(&mut self, events: &[Arc<Event>]) -> Result<(), rusqlite::Error> {
        let Some(last) = events.last() else {
            return Ok(());
        };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT OR REPLACE INTO records (key, revision, value) VALUES (?1, ?2, ?3)",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM records WHERE key = ?1")?;
            for event in events {
                match &event.new {
                    Some(new) => {
                        put.execute(params![&*event.key, signed(new.revision)?, &*new.value])?
                    }
                    None => delete.execute(params![&*event.key])?,
                };
            }
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO counters (name, value) VALUES ('revision', ?1)",
                )?
                .execute(params![signed(last.revision)?])?;
        }
        transaction.commit()
    }
}

fn prepare(connection: &mut Connection, max_bytes: Option<u64>) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(Duration::from_millis(200))?;
    // One process owns the file; this also keeps the index of the log in memory instead of in a shared file.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The log is cut back to this size (bytes) after a checkpoint.
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    if let Some(max) = max_bytes {
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(max).unwrap_or(i64::MAX) / page;
        connection.pragma_update(None, "max_page_count", pages)?;
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let application: i32 =
        transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let layout: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        transaction.execute_batch(
            "CREATE TABLE records (key TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL);
             CREATE TABLE counters (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID;",
        )?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
    } else if application != APPLICATION || layout != LAYOUT {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB),
            Some(format!(
                "an SQLite database, but not a store of layout {LAYOUT}"
            )),
        ));
    }
    transaction.commit()
}

fn read(connection: &Connection) -> Result<Contents, rusqlite::Error> {
    let revision: Option<i64> = connection
        .query_row(
            "SELECT value FROM counters WHERE name = 'revision'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    let mut statement = connection.prepare("SELECT key, revision, value FROM records")?;
    let records = statement
        .query_map([], |row| {
            Ok(Record {
                key: Arc::from(row.get_ref(0)?.as_str()?),
                revision: unsigned(row.get(1)?)?,
                value: Bytes::copy_from_slice(row.get_ref(2)?.as_blob()?),
            })
        })?
        .collect::<Result<Vec<Record>, rusqlite::Error>>()?;
    Ok(Contents {
        records,
        revision: unsigned(revision.unwrap_or(0))?,
    })
}

/// SQLite has signed integers only; revisions never come near the limit.
fn signed(revision: u64) -> Result<i64, rusqlite::Error> {
    i64::try_from(revision).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn unsigned(revision: i64) -> Result<u64, rusqlite::Error> {
    u64::try_from(revision).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(1, revision))
}
