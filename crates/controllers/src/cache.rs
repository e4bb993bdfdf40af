//! The shared picture of one kind of object: kept by one watch, read by every controller, with indexes so that
//! nobody has to look at all objects to find the few that matter.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use kube::Resource;
use kube::runtime::watcher;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::object::ObjectKey;

/// A way to find objects: each object is filed under the terms that `terms` gives for it.
pub(crate) struct Index<K> {
    /// What distinguishes it from the other indexes of the kind.
    pub(crate) name: &'static str,
    /// The terms under which an object is found.
    pub(crate) terms: fn(&K) -> Vec<String>,
}

/// What happened to one object.
pub(crate) enum Change<K> {
    /// It is new.
    Added(Arc<K>),
    /// It changed.
    Modified {
        /// As it was.
        old: Arc<K>,
        /// As it is.
        new: Arc<K>,
    },
    /// It is gone; this is how it was last.
    Removed(Arc<K>),
}

impl<K> Change<K> {
    /// As it was.
    pub(crate) fn before(&self) -> Option<&Arc<K>> {
        match self {
            Change::Added(_) => None,
            Change::Modified { old, .. } | Change::Removed(old) => Some(old),
        }
    }

    /// As it is.
    pub(crate) fn after(&self) -> Option<&Arc<K>> {
        match self {
            Change::Added(new) | Change::Modified { new, .. } => Some(new),
            Change::Removed(_) => None,
        }
    }

    /// The newest state that is known.
    pub(crate) fn latest(&self) -> &Arc<K> {
        match self {
            Change::Added(one) | Change::Modified { new: one, .. } | Change::Removed(one) => one,
        }
    }

    /// The states that the change concerns, newest first.
    pub(crate) fn states(&self) -> impl Iterator<Item = &Arc<K>> {
        self.after().into_iter().chain(self.before())
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// All objects of a kind as last seen.
pub(crate) struct Cache<K> {
    objects: RwLock<Objects<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

impl<K: Resource + 'static> Cache<K> {
    /// An empty cache that keeps the given indexes.
    pub(crate) fn new(indexes: Vec<Index<K>>) -> Arc<Self> {
        Arc::new(Self {
            objects: RwLock::new(Objects::new(indexes)),
            handlers: RwLock::new(Vec::new()),
            synced: watch::Sender::new(false),
        })
    }

    /// Calls `handler` on every change, in order, after the cache shows it. Handlers must be quick: they only
    /// decide which keys a change concerns.
    pub(crate) fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    /// One object.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects.read().by_key.get(key).cloned()
    }

    /// All objects.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.objects.read().by_key.values().cloned().collect()
    }

    /// The objects filed under a term.
    pub(crate) fn find(&self, index: &Index<K>, term: &str) -> Vec<Arc<K>> {
        self.objects.read().find(index.name, term)
    }

    /// How many objects are filed under a term.
    pub(crate) fn count(&self, index: &Index<K>, term: &str) -> usize {
        self.objects.read().count(index.name, term)
    }

    /// Waits until the first list is in.
    pub(crate) async fn wait_synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = synced.wait_for(|done| *done).await;
    }

    /// Keeps the cache up to date until `shutdown`. Errors of the watch are reported; the stream recovers by itself.
    pub(crate) async fn follow(
        &self,
        what: &str,
        events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
        shutdown: &CancellationToken,
    ) {
        let mut events = std::pin::pin!(events);
        let mut listed: HashSet<ObjectKey> = HashSet::new();
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                None => return,
                Some(Err(error)) => {
                    tracing::warn!(kind = what, %error, "watch interrupted, will be resumed")
                }
                Some(Ok(watcher::Event::Init)) => listed.clear(),
                Some(Ok(watcher::Event::InitApply(object))) => {
                    listed.insert(ObjectKey::of(object.meta()));
                    self.apply(object);
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    let gone = self.objects.read().keys_not_in(&listed);
                    for key in gone {
                        self.remove(&key);
                    }
                    listed = HashSet::new();
                    self.synced.send_replace(true);
                }
                Some(Ok(watcher::Event::Apply(object))) => self.apply(object),
                Some(Ok(watcher::Event::Delete(object))) => {
                    self.remove(&ObjectKey::of(object.meta()))
                }
            }
        }
    }

    /// Takes in the present state of an object.
    pub(crate) fn apply(&self, mut object: K) {
        // Nobody here reads who wrote which field, and it is often the larger half of an object.
        object.meta_mut().managed_fields = None;
        let change = self.objects.write().apply(object);
        for change in change {
            self.notify(&change);
        }
    }

    /// Forgets an object.
    pub(crate) fn remove(&self, key: &ObjectKey) {
        let change = self.objects.write().remove(key);
        if let Some(change) = change {
            self.notify(&change);
        }
    }

    fn notify(&self, change: &Change<K>) {
        for handler in self.handlers.read().iter() {
            handler(change);
        }
    }
}

/// Term → keys of the objects filed under it.
type Filed = HashMap<String, HashSet<ObjectKey>>;

/// The objects and their indexes.
struct Objects<K> {
    by_key: HashMap<ObjectKey, Arc<K>>,
    indexes: Vec<(Index<K>, Filed)>,
}

impl<K: Resource> Objects<K> {
    fn new(indexes: Vec<Index<K>>) -> Self {
        Self {
            by_key: HashMap::new(),
            indexes: indexes
                .into_iter()
                .map(|index| (index, HashMap::new()))
                .collect(),
        }
    }

    /// The changes: none when nothing changed (a repeated list), two when another object took the name.
    fn apply(&mut self, object: K) -> Vec<Change<K>> {
        let key = ObjectKey::of(object.meta());
        let mut changes = Vec::new();
        if let Some(old) = self.by_key.get(&key) {
            let (old, new) = (old.meta(), object.meta());
            if old.resource_version == new.resource_version && old.uid == new.uid {
                return changes;
            }
            // Deleted and made anew while the watch was away: to everybody else these are two objects.
            if old.uid != new.uid {
                changes.extend(self.remove(&key));
            }
        }
        let object = Arc::new(object);
        let old = self.by_key.insert(key.clone(), Arc::clone(&object));
        for (index, filed) in &mut self.indexes {
            if let Some(old) = &old {
                unfile(filed, &(index.terms)(old), &key);
            }
            for term in (index.terms)(&object) {
                filed.entry(term).or_default().insert(key.clone());
            }
        }
        changes.push(match old {
            Some(old) => Change::Modified { old, new: object },
            None => Change::Added(object),
        });
        changes
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Change<K>> {
        let old = self.by_key.remove(key)?;
        for (index, filed) in &mut self.indexes {
            unfile(filed, &(index.terms)(&old), key);
        }
        Some(Change::Removed(old))
    }

    fn keys_not_in(&self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        self.by_key
            .keys()
            .filter(|key| !listed.contains(*key))
            .cloned()
            .collect()
    }

    fn filed(&self, index: &str, term: &str) -> Option<&HashSet<ObjectKey>> {
        self.indexes
            .iter()
            .find(|(known, _)| known.name == index)?
            .1
            .get(term)
    }

    fn find(&self, index: &str, term: &str) -> Vec<Arc<K>> {
        let keys = self.filed(index, term).into_iter().flatten();
        keys.filter_map(|key| self.by_key.get(key).cloned())
            .collect()
    }

    fn count(&self, index: &str, term: &str) -> usize {
        self.filed(index, term).map_or(0, HashSet::len)
    }
}

fn unfile(filed: &mut Filed, terms: &[String], key: &ObjectKey) {
    for term in terms {
        if let Some(keys) = filed.get_mut(term) {
            keys.remove(key);
            if keys.is_empty() {
                filed.remove(term);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn object(name: &str, uid: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                uid: Some(uid.to_owned()),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    const BY_UID: Index<ConfigMap> = Index {
        name: "uid",
        terms: |object| object.metadata.uid.clone().into_iter().collect(),
    };

    #[test]
    fn an_index_follows_its_object() {
        let cache = Cache::new(vec![BY_UID]);
        cache.apply(object("a", "1", "10"));
        assert_eq!(cache.count(&BY_UID, "1"), 1);
        cache.apply(object("a", "2", "11"));
        assert_eq!(cache.count(&BY_UID, "1"), 0);
        assert_eq!(cache.find(&BY_UID, "2").len(), 1);
        cache.remove(&ObjectKey::cluster("a"));
        assert_eq!(cache.count(&BY_UID, "2"), 0);
        assert!(cache.all().is_empty());
    }

    #[test]
    fn a_repeated_object_is_no_change_and_a_successor_is_two() {
        let cache = Cache::new(vec![]);
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        cache.on_change(move |change: &Change<ConfigMap>| {
            log.lock()
                .push((change.before().is_some(), change.after().is_some()));
        });
        cache.apply(object("a", "1", "10"));
        cache.apply(object("a", "1", "10"));
        cache.apply(object("a", "1", "11"));
        cache.apply(object("a", "2", "12"));
        assert_eq!(
            *seen.lock(),
            [(false, true), (true, true), (true, false), (false, true)]
        );
    }

    #[tokio::test]
    async fn a_new_list_removes_what_it_does_not_name() {
        let cache = Cache::new(vec![]);
        let events = futures::stream::iter([
            Ok(watcher::Event::Init),
            Ok(watcher::Event::InitApply(object("a", "1", "1"))),
            Ok(watcher::Event::InitApply(object("b", "2", "2"))),
            Ok(watcher::Event::InitDone),
            Ok(watcher::Event::Init),
            Ok(watcher::Event::InitApply(object("b", "2", "2"))),
            Ok(watcher::Event::InitDone),
        ]);
        cache
            .follow("ConfigMap", events, &CancellationToken::new())
            .await;
        cache.wait_synced().await;
        assert!(cache.get(&ObjectKey::cluster("a")).is_none());
        assert!(cache.get(&ObjectKey::cluster("b")).is_some());
    }
}
