//! What admission reads of the store.

use std::sync::Arc;

use serde_json::Value;

use seaway_store::{Record, Store};

/// The store, by the names of kinds.
#[derive(Clone)]
pub(super) struct Stored(pub(super) Arc<Store>);

/// What the keys of a kind's objects in a namespace begin with. The core group is the empty one.
pub(super) fn prefix(group: &str, plural: &str, namespace: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    if namespace.is_empty() {
        format!("{group}/{plural}/")
    } else {
        format!("{group}/{plural}/{namespace}/")
    }
}

/// The object in a record, without its type.
pub(super) fn read(record: &Record) -> Option<Value> {
    serde_json::from_slice(&record.value).ok()
}

impl Stored {
    /// An object of the core group; `namespace` is empty for kinds without.
    pub(super) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = format!("{}{name}", prefix("", plural, namespace));
        self.0.get(&key).as_ref().and_then(read)
    }

    /// All objects of a kind of the core group in a namespace, by name.
    pub(super) fn list(&self, plural: &str, namespace: &str) -> Vec<Value> {
        let (records, _) = self.0.list(&prefix("", plural, namespace));
        records.iter().filter_map(read).collect()
    }
}
