//! The store as its users see it: conditional writes, history, watches, and what is there after a restart.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use seaway_store::{Error, Expectation, Limits, Options, Store, Write};
use tempfile::TempDir;

fn open(directory: &TempDir) -> Store {
    Store::open(&directory.path().join("store.db")).unwrap()
}

fn open_with(directory: &TempDir, options: &Options) -> Store {
    Store::open_with(&directory.path().join("store.db"), options).unwrap()
}

fn values(records: &[seaway_store::Record]) -> Vec<(String, String)> {
    records
        .iter()
        .map(|r| {
            (
                r.key.to_string(),
                String::from_utf8_lossy(&r.value).into_owned(),
            )
        })
        .collect()
}

async fn put(store: &Store, key: &str, value: &str) -> u64 {
    store.put(key, value.to_owned()).await.unwrap().revision
}

#[tokio::test]
async fn a_write_happens_only_if_what_is_stored_is_what_it_expects() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let first = store
        .commit("a", Expectation::Absent, Write::Put("1".into()))
        .await
        .unwrap();
    let again = store
        .commit("a", Expectation::Absent, Write::Put("2".into()))
        .await
        .unwrap_err();
    assert!(
        matches!(&again, Error::Conflict { current: Some(r), .. } if r.revision == first.revision)
    );

    let stale = Expectation::Revision(first.revision + 7);
    assert!(
        store
            .commit("a", stale, Write::Put("2".into()))
            .await
            .is_err()
    );
    let right = Expectation::Revision(first.revision);
    let second = store
        .commit("a", right, Write::Put("2".into()))
        .await
        .unwrap();
    assert_eq!(second.old.as_ref().unwrap().revision, first.revision);
    assert_eq!(store.get("a").unwrap().value, "2");

    store
        .commit("a", Expectation::Any, Write::Delete)
        .await
        .unwrap();
    let nothing = store
        .commit("a", Expectation::Any, Write::Delete)
        .await
        .unwrap_err();
    assert!(matches!(nothing, Error::Conflict { current: None, .. }));
    assert_eq!(store.get("a"), None);
}

#[tokio::test]
async fn a_prefix_is_what_is_below_it_or_the_one_key() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    for key in ["p/a/x", "p/a-b/x", "p/a/y", "p/ab", "q/a"] {
        put(&store, key, key).await;
    }
    let keys = |prefix: &str| {
        store
            .list(prefix)
            .0
            .iter()
            .map(|r| r.key.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys("p/a/"), ["p/a/x", "p/a/y"]);
    assert_eq!(keys("p/ab"), ["p/ab"]);
    assert_eq!(keys("p/a"), [""; 0]);
    assert_eq!(keys("").len(), 5);
}

#[tokio::test]
async fn revisions_go_on_after_a_restart_even_when_the_last_write_was_a_deletion() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    put(&store, "a", "1").await;
    let kept = put(&store, "b", "2").await;
    let last = store
        .commit("a", Expectation::Any, Write::Delete)
        .await
        .unwrap()
        .revision;
    drop(store);

    let store = open(&directory);
    assert_eq!(store.revision(), last);
    assert_eq!(store.get("b").unwrap().revision, kept);
    assert!(put(&store, "c", "3").await > last);
    // A watch that was cut off goes on where it was.
    let told = store.watch("", kept).unwrap().next().await.unwrap();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].old.as_ref().unwrap().value, "1");
    assert!(told[0].new.is_none() && told[1].old.is_none());
    assert_eq!(values(&store.list_at("", kept).unwrap()).len(), 2);
}

#[tokio::test]
async fn what_is_forgotten_leaves_the_disk_with_later_writes() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        limits: Limits {
            events: 10,
            ..Limits::default()
        },
        ..Options::default()
    };
    let store = open_with(&directory, &options);
    for n in 0..100 {
        put(&store, "changed", &n.to_string()).await;
        put(&store, "gone", "x").await;
        store
            .commit("gone", Expectation::Any, Write::Delete)
            .await
            .unwrap();
    }
    let last = store.revision();
    drop(store);
    let file = rusqlite::Connection::open(directory.path().join("store.db")).unwrap();
    let rows: i64 = file
        .query_row("SELECT count(*) FROM events", [], |row| row.get(0))
        .unwrap();
    drop(file);
    // Ten events, what they replaced, and what was forgotten with the last write.
    assert!((11..=24).contains(&rows), "{rows} rows");
    let store = open_with(&directory, &options);
    assert_eq!(store.revision(), last);
    assert_eq!(values(&store.list("").0), [("changed".into(), "99".into())]);
    assert!(store.watch("", last - 10).is_ok());
    assert!(matches!(
        store.watch("", last - 11),
        Err(Error::Compacted { .. })
    ));
}

#[tokio::test]
async fn a_file_of_the_layout_without_history_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let file = rusqlite::Connection::open(directory.path().join("store.db")).unwrap();
    file.execute_batch(
        "CREATE TABLE records (key TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL);
         CREATE TABLE counters (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID;
         INSERT INTO records VALUES ('a', 7, x'31'), ('b', 3, x'32');
         INSERT INTO counters VALUES ('revision', 9);
         PRAGMA application_id = 1399152983; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(file);
    let store = open(&directory);
    assert_eq!(store.revision(), 9);
    assert_eq!(
        values(&store.list("").0),
        [("a".into(), "1".into()), ("b".into(), "2".into())]
    );
    assert!(store.watch("", 8).is_err());
    assert_eq!(put(&store, "a", "3").await, 10);
    drop(store);
    assert_eq!(open(&directory).list_at("", 9).unwrap()[0].revision, 7);
}

#[tokio::test]
async fn a_watch_tells_what_happened_since_and_then_what_happens() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&directory));
    let since = put(&store, "p/a", "1").await;
    put(&store, "q/a", "other").await;
    put(&store, "p/a", "2").await;
    let mut watch = store.watch("p/", since).unwrap();
    let replayed = watch.next().await.unwrap();
    assert_eq!(replayed.len(), 1);
    assert_eq!(replayed[0].old.as_ref().unwrap().value, "1");
    assert_eq!(replayed[0].new.as_ref().unwrap().value, "2");

    let writer = Arc::clone(&store);
    let waiting = tokio::spawn(async move { watch.next().await.unwrap() });
    writer
        .commit("p/a", Expectation::Any, Write::Delete)
        .await
        .unwrap();
    let live = tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap();
    assert!(live[0].new.is_none());
    assert!(matches!(
        store.watch("p/", store.revision() + 1),
        Err(Error::Future { .. })
    ));
}

#[tokio::test]
async fn a_watch_that_is_too_slow_is_told_so_and_holds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        events: 10,
        ..Limits::default()
    };
    let store = open_with(
        &directory,
        &Options {
            limits,
            ..Options::default()
        },
    );
    let since = put(&store, "p/a", "0").await;
    let mut slow = store.watch("p/", since).unwrap();
    let mut quiet = store.watch("q/", since).unwrap();
    for i in 0..50 {
        put(&store, "p/a", &i.to_string()).await;
    }
    assert!(matches!(slow.next().await, Err(Error::Compacted { .. })));
    // Nothing happened to it, so however much happened elsewhere it has lost nothing.
    assert!(quiet.ready().unwrap().is_empty());
    let seen = put(&store, "q/a", "x").await;
    assert_eq!(quiet.next().await.unwrap()[0].revision, seen);
}

#[tokio::test]
async fn history_is_bounded_in_bytes_too() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        bytes: 100_000,
        ..Limits::default()
    };
    let store = open_with(
        &directory,
        &Options {
            limits,
            ..Options::default()
        },
    );
    let since = put(&store, "a", "").await;
    for _ in 0..20 {
        put(&store, "a", &"x".repeat(10_000)).await;
    }
    assert!(matches!(
        store.watch("a", since),
        Err(Error::Compacted { .. })
    ));
}

#[tokio::test]
async fn an_earlier_revision_can_be_listed_while_history_lasts() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    put(&store, "p/a", "1").await;
    put(&store, "p/b", "1").await;
    let then = store.revision();
    put(&store, "p/a", "2").await;
    put(&store, "p/c", "1").await;
    store
        .commit("p/b", Expectation::Any, Write::Delete)
        .await
        .unwrap();
    let earlier = values(&store.list_at("p/", then).unwrap());
    assert_eq!(
        earlier,
        [
            ("p/a".to_owned(), "1".to_owned()),
            ("p/b".to_owned(), "1".to_owned())
        ]
    );
}

#[tokio::test]
async fn writes_that_come_together_are_decided_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&directory));
    let claims = (0..64).map(|i| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store
                .commit(
                    "one",
                    Expectation::Absent,
                    Write::Put(format!("{i}").into()),
                )
                .await
                .is_ok()
        })
    });
    let mut won = 0;
    for claim in claims {
        won += u32::from(claim.await.unwrap());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_takes_them_again_when_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_with(
        &directory,
        &Options {
            max_bytes: Some(256 << 10),
            ..Options::default()
        },
    );
    let mut stored = Vec::new();
    let error = loop {
        let key = format!("k{}", stored.len());
        match store.put(&key, "x".repeat(16 << 10)).await {
            Ok(event) => stored.push((key, event.revision)),
            Err(error) => break error,
        }
        assert!(stored.len() < 100, "the limit does not hold");
    };
    assert!(
        error.to_string().contains("the disk is full: make space"),
        "{error}"
    );
    assert!(error.to_string().contains("store.db"), "{error}");
    // Nothing of the refused write is seen, everything acknowledged still is.
    let (records, revision) = store.list("");
    assert_eq!(records.len(), stored.len());
    assert_eq!(revision, stored.last().unwrap().1);
    let (freed, _) = stored.pop().unwrap();
    store
        .commit(&freed, Expectation::Any, Write::Delete)
        .await
        .unwrap();
    store.put("again", "x".repeat(16 << 10)).await.unwrap();
    drop(store);
    let store = open(&directory);
    assert!(
        stored
            .iter()
            .all(|(key, revision)| store.get(key).unwrap().revision == *revision)
    );
    assert!(store.get("again").is_some());
}

#[tokio::test]
async fn one_refused_write_does_not_take_others_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open_with(
        &directory,
        &Options {
            max_bytes: Some(256 << 10),
            ..Options::default()
        },
    ));
    let writes = (0..40).map(|i| {
        let store = Arc::clone(&store);
        let size = if i == 20 { 1 << 20 } else { 16 };
        tokio::spawn(async move { store.put(&format!("k{i}"), "x".repeat(size)).await.is_ok() })
    });
    let mut stored = 0;
    for write in writes {
        stored += u32::from(write.await.unwrap());
    }
    assert_eq!(stored, 39);
}

#[test]
fn a_store_belongs_to_one_process_and_a_file_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let _store = Store::open(&path).unwrap();
    let second = Store::open(&path).unwrap_err().to_string();
    assert!(second.contains("another process uses it"), "{second}");

    let other = directory.path().join("other.db");
    std::fs::write(
        &other,
        "certainly no database, and longer than one of its headers would be".repeat(30),
    )
    .unwrap();
    let error = Store::open(&other).unwrap_err().to_string();
    assert!(error.contains("damaged or not a store"), "{error}");
    let error = Store::open(&directory.path().join("missing/store.db"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("does its directory exist"), "{error}");
}
