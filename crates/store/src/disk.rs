//! The SQLite file: what survives. Memory is filled from it at start; after that it is only written.
//!
//! It is one table of events, in the order in which they happened: a write adds a row at the end and touches nothing
//! else. What an event replaced stays until memory forgets that event, so that a watch that was cut off goes on where it
//! was after a restart, too. Up to the `floor` only what is still stored is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::error::{Error, hint};
use crate::memory::{Contents, Forgotten};
use crate::record::Event;

/// Says that an SQLite file is a store of ours (`application_id`): "SeaW".
const APPLICATION: i32 = 0x5365_6157;
/// Layout of the tables (`user_version`).
const LAYOUT: i32 = 2;
/// The layout before: one row for each key, no history.
const WITHOUT_HISTORY: i32 = 1;

/// The file, open and locked.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    connection: Connection,
    /// The floor that is on disk.
    floor: u64,
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
        let (contents, floor) = read(&connection).map_err(failed)?;
        Ok((
            Self {
                path: path.to_owned(),
                connection,
                floor,
            },
            contents,
        ))
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Stores the events and removes what is forgotten, all or none. When it returns they are on disk.
    pub(crate) fn apply(
        &mut self,
        events: &[Arc<Event>],
        forgotten: &Forgotten,
    ) -> Result<(), rusqlite::Error> {
        if events.is_empty() {
            return Ok(());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            // First, so that its space can be used.
            if !forgotten.rows.is_empty() {
                let mut delete =
                    transaction.prepare_cached("DELETE FROM events WHERE revision = ?1")?;
                for revision in &forgotten.rows {
                    delete.execute(params![signed(*revision)?])?;
                }
            }
            let mut put = transaction
                .prepare_cached("INSERT INTO events (revision, key, value) VALUES (?1, ?2, ?3)")?;
            for event in events {
                let value = event.new.as_ref().map(|new| &*new.value);
                put.execute(params![signed(event.revision)?, &*event.key, value])?;
            }
            if forgotten.floor > self.floor {
                set_floor(&transaction, forgotten.floor)?;
            }
        }
        transaction.commit()?;
        self.floor = self.floor.max(forgotten.floor);
        Ok(())
    }
}

fn set_floor(connection: &Connection, floor: u64) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO counters (name, value) VALUES ('floor', ?1)")?
        .execute(params![signed(floor)?])
        .map(|_| ())
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
        transaction.execute_batch(TABLES)?;
        transaction.execute_batch(
            "CREATE TABLE counters (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID;",
        )?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
    } else if application == APPLICATION && layout == WITHOUT_HISTORY {
        transaction.execute_batch(TABLES)?;
        transaction.execute_batch(
            "INSERT INTO events (revision, key, value) SELECT revision, key, value FROM records ORDER BY revision;
             UPDATE counters SET name = 'floor' WHERE name = 'revision';
             DROP TABLE records;",
        )?;
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

/// `value` is NULL for a deletion.
const TABLES: &str =
    "CREATE TABLE events (revision INTEGER PRIMARY KEY NOT NULL, key TEXT NOT NULL, value BLOB);";

fn read(connection: &Connection) -> Result<(Contents, u64), rusqlite::Error> {
    let floor: Option<i64> = connection
        .query_row(
            "SELECT value FROM counters WHERE name = 'floor'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    let floor = unsigned(floor.unwrap_or(0))?;
    let mut contents = Contents::at(floor);
    let mut statement =
        connection.prepare("SELECT revision, key, value FROM events ORDER BY revision")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let revision = unsigned(row.get(0)?)?;
        let key = row.get_ref(1)?.as_str()?;
        let value = row
            .get_ref(2)?
            .as_blob_or_null()?
            .map(Bytes::copy_from_slice);
        contents.add(revision, key, value, revision > floor);
    }
    Ok((contents, floor))
}

/// SQLite has signed integers only; revisions never come near the limit.
fn signed(revision: u64) -> Result<i64, rusqlite::Error> {
    i64::try_from(revision).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn unsigned(revision: i64) -> Result<u64, rusqlite::Error> {
    u64::try_from(revision).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(1, revision))
}
