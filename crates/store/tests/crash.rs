//! What was acknowledged is there after `kill -9`. The test runs itself as the process that is killed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use seaway_store::{Expectation, Store, Write};

const STORE: &str = "SEAWAY_CRASH_TEST_STORE";
const KILLS: u32 = 20;
/// Writers at a time, so that transactions hold several writes.
const WRITERS: u64 = 8;

#[test]
fn no_acknowledged_write_is_lost_to_kill_9() {
    if let Some(path) = std::env::var_os(STORE) {
        write_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut last = 0;
    for round in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "no_acknowledged_write_is_lost_to_kill_9",
                "--nocapture",
            ])
            .env(STORE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Another number of writes each time, so that the kill hits another moment.
        let enough = 20 + (round as usize * 37) % 200;
        let mut seen = 0;
        let mut told = |line: String| {
            let mut words = line.split(' ');
            let ("ack", Some(key), Some(revision)) =
                (words.next().unwrap_or_default(), words.next(), words.next())
            else {
                return false;
            };
            // The last line may have been cut off by the kill.
            let Ok(revision) = revision.parse::<u64>() else {
                return false;
            };
            acknowledged.insert(key.to_owned(), revision);
            true
        };
        for line in lines.by_ref() {
            seen += usize::from(told(line.unwrap()));
            if seen >= enough {
                break;
            }
        }
        assert!(seen >= enough, "the writer ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            told(line);
        }
        let store = Store::open(&path).unwrap();
        assert!(store.revision() >= last, "revisions went back");
        last = store.revision();
        for (key, revision) in &acknowledged {
            let record = store.get(key).unwrap_or_else(|| {
                panic!("{key} was acknowledged in some round up to {round} and is gone")
            });
            assert!(
                record.revision >= *revision,
                "{key} went back from {revision} to {}",
                record.revision
            );
            assert!(record.revision <= last);
        }
    }
    assert!(
        acknowledged.len() > 500,
        "too few writes to mean anything: {}",
        acknowledged.len()
    );
}

/// The process that is killed: writes new keys and old ones, and tells each write when it is acknowledged.
fn write_until_killed(path: &Path) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let store = Arc::new(Store::open(path).unwrap());
    let begin = store.revision();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        runtime.spawn(async move {
            for n in 0.. {
                let key = if n % 4 == 0 {
                    format!("shared/{writer}")
                } else {
                    format!("new/{begin}-{writer}-{n}")
                };
                let event = store
                    .commit(&key, Expectation::Any, Write::Put("v".repeat(300).into()))
                    .await
                    .unwrap();
                // One write call for each line: lines of the writers must not mix.
                let line = format!("ack {key} {}\n", event.revision);
                std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                std::io::stdout().flush().unwrap();
            }
        });
    }
    loop {
        std::thread::park();
    }
}
