//! The store against a model: a map and a list of events, over random writes and restarts.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use seaway_store::{Expectation, Limits, Options, Store, Write};

#[derive(Debug, Clone)]
enum Step {
    Put { key: u8, value: u8, expect: Expect },
    Delete { key: u8, expect: Expect },
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Any,
    Absent,
    Current,
    Stale,
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Any),
        Just(Expect::Absent),
        Just(Expect::Current),
        Just(Expect::Stale)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u8, any::<u8>(), expect()).prop_map(|(key, value, expect)| Step::Put { key, value, expect }),
        3 => (0..4u8, expect()).prop_map(|(key, expect)| Step::Delete { key, expect }),
        1 => Just(Step::Restart),
    ]
}

#[derive(Default)]
struct Model {
    records: BTreeMap<String, (u64, u8)>,
    revision: u64,
    /// Key and value (`None`: deleted) by revision.
    events: Vec<(u64, String, Option<u8>)>,
}

impl Model {
    fn expectation(&self, key: &str, expect: Expect) -> Expectation {
        let current = self.records.get(key).map(|(revision, _)| *revision);
        match expect {
            Expect::Any => Expectation::Any,
            Expect::Absent => Expectation::Absent,
            Expect::Current => Expectation::Revision(current.unwrap_or(self.revision)),
            Expect::Stale => Expectation::Revision(current.unwrap_or(0) + 1_000_000),
        }
    }

    fn write(&mut self, key: &str, expect: Expectation, value: Option<u8>) -> Option<u64> {
        let current = self.records.get(key).map(|(revision, _)| *revision);
        let meets = match expect {
            Expectation::Any => true,
            Expectation::Absent => current.is_none(),
            Expectation::Revision(revision) => current == Some(revision),
        };
        if !meets || (value.is_none() && current.is_none()) {
            return None;
        }
        self.revision += 1;
        match value {
            Some(value) => self.records.insert(key.to_owned(), (self.revision, value)),
            None => self.records.remove(key),
        };
        self.events.push((self.revision, key.to_owned(), value));
        Some(self.revision)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn it_does_what_the_model_does(steps in prop::collection::vec(step(), 1..40), kept in 0..50_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let options = Options { limits: Limits { events: kept, ..Limits::default() }, ..Options::default() };
        let mut store = Store::open_with(&path, &options).unwrap();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Restart => {
                    drop(store);
                    store = Store::open_with(&path, &options).unwrap();
                }
                Step::Put { key, value, expect } => {
                    let key = format!("k/{key}");
                    let expect = model.expectation(&key, expect);
                    let done = runtime.block_on(store.commit(&key, expect, Write::Put(vec![value].into())));
                    prop_assert_eq!(done.ok().map(|e| e.revision), model.write(&key, expect, Some(value)));
                }
                Step::Delete { key, expect } => {
                    let key = format!("k/{key}");
                    let expect = model.expectation(&key, expect);
                    let done = runtime.block_on(store.commit(&key, expect, Write::Delete));
                    prop_assert_eq!(done.ok().map(|e| e.revision), model.write(&key, expect, None));
                }
            }
            let (records, revision) = store.list("k/");
            prop_assert_eq!(revision, model.revision);
            let seen: BTreeMap<_, _> = records.iter().map(|r| (r.key.to_string(), (r.revision, r.value[0]))).collect();
            prop_assert_eq!(&seen, &model.records);
        }
        // From every revision that can be asked for, a watch tells exactly what happened since, and a list of then
        // with those events applied is the list of now.
        let oldest = model.revision.saturating_sub(kept as u64);
        prop_assert!(oldest == 0 || store.watch("k/", oldest - 1).is_err());
        for since in oldest..=model.revision {
            let mut watch = store.watch("k/", since).unwrap();
            let told: Vec<_> = watch
                .ready()
                .unwrap()
                .iter()
                .map(|e| (e.revision, e.key.to_string(), e.new.as_ref().map(|r| r.value[0])))
                .collect();
            let happened: Vec<_> = model.events.iter().filter(|e| e.0 > since).cloned().collect();
            prop_assert_eq!(&told, &happened);
            let mut then: BTreeMap<_, _> =
                store.list_at("k/", since).unwrap().iter().map(|r| (r.key.to_string(), r.value[0])).collect();
            for (_, key, value) in told {
                match value {
                    Some(value) => then.insert(key, value),
                    None => then.remove(&key),
                };
            }
            let now: BTreeMap<_, _> = model.records.iter().map(|(k, (_, v))| (k.clone(), *v)).collect();
            prop_assert_eq!(then, now);
            // Pages of any size together are the list, and what is behind them is counted.
            let whole = store.list_at("k/", since).unwrap();
            for size in 1..=4 {
                let (mut pages, mut from) = (Vec::new(), String::new());
                loop {
                    let page = store.page("k/", &from, Some(since), size, usize::MAX).unwrap();
                    let Some(last) = page.records.last() else { break };
                    from = format!("{}\0", last.key);
                    pages.extend(page.records);
                    prop_assert_eq!(page.remaining, whole.len() - pages.len());
                }
                prop_assert_eq!(&pages, &whole);
            }
        }
    }
}
