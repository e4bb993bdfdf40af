//! The kinds that are served, by their place in the API, and where the store keeps their objects.
//!
//! Kinds come and go with CustomResourceDefinitions. What is served at one time is a [`Kinds`], which never changes;
//! [`Registry`] holds the latest, and a request takes it without waiting for anybody.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use seaway_objects::group;
use seaway_objects::kind::{Kind, Names};
use seaway_store::Record;

use crate::discovery::Discovery;
use crate::object;
use crate::openapi::OpenApi;
use crate::status::ApiError;

/// A kind and what is derived from its names once.
pub(crate) struct Resource {
    pub(crate) kind: Arc<dyn Kind>,
    pub(crate) names: &'static Names,
    /// Those of the version in which its objects are stored, which are what refusals, admission and `storageVersionHash`
    /// are about.
    pub(crate) stored: &'static Names,
    /// `apps/v1`
    pub(crate) api_version: String,
    /// Its type as JSON members, see [`object::render`].
    pub(crate) head: String,
    /// Cancelled when this is not served any more, or otherwise than before.
    pub(crate) retired: CancellationToken,
    prefix: String,
}

impl Resource {
    /// `all` are the kinds among which the stored version of this one is.
    pub(crate) fn new(kind: Arc<dyn Kind>, all: &[&Arc<dyn Kind>]) -> Self {
        let names = kind.names();
        let (group, plural) = kind.storage();
        let stored = if kind.stored_as_shown() {
            names
        } else {
            let mut others = all.iter();
            let stored =
                others.find(|other| other.stored_as_shown() && other.storage() == (group, plural));
            stored.map_or(names, |stored| stored.names())
        };
        let group = if group.is_empty() { "core" } else { group };
        Self {
            api_version: object::api_version(names),
            head: object::head(names),
            retired: CancellationToken::new(),
            prefix: format!("{group}/{plural}/"),
            names,
            stored,
            kind,
        }
    }

    /// The type of an object in Kubernetes' source, which some refusals name.
    pub(crate) fn go_type(&self) -> String {
        let package = self.names.group.split('.').next().unwrap_or_default();
        let package = if package.is_empty() { "core" } else { package };
        format!("*{package}.{}", self.names.kind)
    }

    /// What the keys of all objects of a namespace begin with; of all namespaces if it is empty.
    pub(crate) fn prefix(&self, namespace: &str) -> String {
        if namespace.is_empty() {
            self.prefix.clone()
        } else {
            format!("{}{namespace}/", self.prefix)
        }
    }

    /// The key of an object; `namespace` is empty for kinds without.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        format!("{}{name}", self.prefix(namespace))
    }

    /// The object that is stored in a record, in the version of this resource.
    pub(crate) fn decode(&self, record: &Record) -> Result<Value, ApiError> {
        let mut object = object::decode(self.names, record)?;
        if !self.kind.stored_as_shown() {
            self.kind.show_stored(&mut object);
        }
        Ok(object)
    }

    /// The stored form of an object of this resource.
    pub(crate) fn encode(&self, object: &Value) -> Result<Bytes, ApiError> {
        if self.kind.stored_as_shown() {
            return object::encode(object);
        }
        let mut stored = object.clone();
        self.kind.make_stored(&mut stored);
        object::encode(&stored)
    }

    /// Writes a stored object as JSON, with its type.
    pub(crate) fn render(
        &self,
        out: &mut Vec<u8>,
        record: &Record,
        revision: u64,
    ) -> Result<(), ApiError> {
        self.write(out, record, revision, true)
    }

    /// Writes a stored object as an item of a list, where the list says the type for most kinds.
    pub(crate) fn render_item(
        &self,
        out: &mut Vec<u8>,
        record: &Record,
        revision: u64,
    ) -> Result<(), ApiError> {
        self.write(out, record, revision, self.kind.items_are_typed())
    }

    fn write(
        &self,
        out: &mut Vec<u8>,
        record: &Record,
        revision: u64,
        typed: bool,
    ) -> Result<(), ApiError> {
        if self.kind.stored_as_shown() {
            let head = if typed { self.head.as_str() } else { "" };
            object::render(out, head, &record.value, revision);
            return Ok(());
        }
        let record = Record {
            revision,
            ..record.clone()
        };
        let mut shown = self.decode(&record)?;
        if let (false, Some(map)) = (typed, shown.as_object_mut()) {
            map.remove("apiVersion");
            map.remove("kind");
        }
        serde_json::to_writer(out, &shown).map_err(ApiError::internal)
    }

    /// An object as an item of a list.
    pub(crate) fn item(&self, mut object: Value) -> Value {
        if let (false, Some(map)) = (self.kind.items_are_typed(), object.as_object_mut()) {
            map.remove("apiVersion");
            map.remove("kind");
        }
        object
    }
}

/// The kinds that are served at one time, and the documents that tell of them.
pub(crate) struct Kinds {
    groups: BTreeMap<&'static str, BTreeMap<Version, BTreeMap<&'static str, Arc<Resource>>>>,
    discovery: OnceLock<Discovery>,
    openapi: OpenApi,
    /// Where clients reach the server.
    address: String,
}

/// A version, in the order of preference: `v2`, `v1`, `v1beta1`, `v1alpha1`, then others by name.
/// Source: `k8s.io/apimachinery/pkg/version`, `CompareKubeAwareVersionStrings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    rank: Rank,
    name: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Maturity (0: generally available, 1: beta, 2: alpha), major and minor number.
    Known(u8, Reverse<u64>, Reverse<u64>),
    Other,
}

impl Rank {
    fn of(version: &str) -> Self {
        let number = |text: &str| {
            let plain = !text.is_empty() && !text.starts_with('0');
            let digits = plain && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| digits)
        };
        let known = || {
            let rest = version.strip_prefix('v')?;
            for (maturity, word) in [(1, "beta"), (2, "alpha")] {
                if let Some((major, minor)) = rest.split_once(word) {
                    let (major, minor) = (number(major)?, number(minor)?);
                    return Some(Self::Known(maturity, Reverse(major), Reverse(minor)));
                }
            }
            Some(Self::Known(0, Reverse(number(rest)?), Reverse(0)))
        };
        known().unwrap_or(Self::Other)
    }
}

impl Version {
    fn new(name: &'static str) -> Self {
        Self {
            rank: Rank::of(name),
            name,
        }
    }
}

impl Kinds {
    /// These kinds. What `before` has of the same kinds is taken over; of two kinds in one place the first is served.
    fn new<'a>(
        kinds: impl Iterator<Item = &'a Arc<dyn Kind>>,
        before: Option<&Self>,
        address: &str,
    ) -> Self {
        let mut groups: BTreeMap<_, BTreeMap<_, BTreeMap<_, _>>> = BTreeMap::new();
        let mut served = Vec::new();
        let kinds: Vec<&'a Arc<dyn Kind>> = kinds.collect();
        for &kind in &kinds {
            let names = kind.names();
            let place = groups
                .entry(names.group)
                .or_default()
                .entry(Version::new(names.version))
                .or_default();
            if place.contains_key(names.plural) {
                continue;
            }
            let known = before
                .and_then(|b| b.resource(names.group, names.version, names.plural))
                .filter(|known| Arc::ptr_eq(&known.kind, kind));
            let resource = known.map_or_else(
                || Arc::new(Resource::new(Arc::clone(kind), &kinds)),
                Arc::clone,
            );
            place.insert(names.plural, resource);
            served.push(Arc::clone(kind));
        }
        Self {
            groups,
            discovery: OnceLock::new(),
            openapi: OpenApi::new(&served, before.map(|b| &b.openapi)),
            address: address.to_owned(),
        }
    }

    /// The resource of that name.
    pub(crate) fn resource(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<&Arc<Resource>> {
        self.in_version(group, version)?.get(plural)
    }

    fn in_version(
        &self,
        group: &str,
        version: &str,
    ) -> Option<&BTreeMap<&'static str, Arc<Resource>>> {
        let versions = self.groups.get(group)?.iter();
        let mut found = versions.filter(|(known, _)| known.name == version);
        found.next().map(|(_, resources)| resources)
    }

    /// The resources of a group and version, in the order of their names; `None` if there is no such version.
    pub(crate) fn version(&self, group: &str, version: &str) -> Option<Vec<&Arc<Resource>>> {
        Some(self.in_version(group, version)?.values().collect())
    }

    /// Groups in the order in which clients should look into them, with their versions, the preferred one first; the
    /// core group is the empty one.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(group, _)| group::order(group));
        groups
            .into_iter()
            .map(|(group, versions)| (*group, versions.keys().map(|v| v.name).collect()))
    }

    /// Every resource.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.groups
            .values()
            .flat_map(BTreeMap::values)
            .flat_map(BTreeMap::values)
    }

    /// What discovery says, made when it is first asked for.
    pub(crate) fn discovery(&self) -> &Discovery {
        self.discovery
            .get_or_init(|| Discovery::new(self, &self.address))
    }

    /// What OpenAPI says.
    pub(crate) fn openapi(&self) -> &OpenApi {
        &self.openapi
    }
}

/// The kinds that are served now.
pub(crate) struct Registry {
    builtin: Vec<Arc<dyn Kind>>,
    current: ArcSwap<Kinds>,
    changing: Mutex<()>,
}

impl Registry {
    /// The kinds that are always served. `address` is where clients reach the server.
    pub(crate) fn new(builtin: Vec<Arc<dyn Kind>>, address: &str) -> Self {
        let kinds = Kinds::new(builtin.iter(), None, address);
        Self {
            builtin,
            current: ArcSwap::from_pointee(kinds),
            changing: Mutex::new(()),
        }
    }

    /// What is served now; it stays as it is for whoever holds it.
    pub(crate) fn kinds(&self) -> Arc<Kinds> {
        self.current.load_full()
    }

    /// The resource of that name.
    pub(crate) fn resource(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<Arc<Resource>> {
        let kinds = self.current.load();
        kinds.resource(group, version, plural).cloned()
    }

    /// Serves these kinds beside the built-in ones, instead of those that were served before. Kinds that are the same
    /// `Arc` as before stay untouched; watches of all others end.
    pub(crate) fn serve(&self, custom: &[Arc<dyn Kind>]) {
        let _changing = self.changing.lock();
        let before = self.current.load_full();
        let kinds = self.builtin.iter().chain(custom);
        let after = Kinds::new(kinds, Some(&before), &before.address);
        let after = Arc::new(after);
        self.current.store(Arc::clone(&after));
        for old in before.resources() {
            let names = old.names;
            let remains = after
                .resource(names.group, names.version, names.plural)
                .is_some_and(|new| Arc::ptr_eq(new, old));
            if !remains {
                old.retired.cancel();
            }
        }
    }

    /// The kinds that are always served.
    pub(crate) fn builtin(&self) -> &[Arc<dyn Kind>] {
        &self.builtin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_kubernetes_prefers_them() {
        let mut versions = [
            "foo1", "v1alpha1", "v2beta1", "v10", "v1", "v2", "v1beta2", "v1beta1", "v01", "bar",
        ]
        .map(Version::new);
        versions.sort_unstable();
        assert_eq!(
            versions.map(|v| v.name),
            [
                "v10", "v2", "v1", "v2beta1", "v1beta2", "v1beta1", "v1alpha1", "bar", "foo1",
                "v01"
            ]
        );
    }

    #[test]
    fn what_stays_the_same_is_not_disturbed() {
        let all = seaway_objects::kinds::registry();
        let (builtin, custom) = all.split_at(1);
        let registry = Registry::new(builtin.to_vec(), "127.0.0.1:1");
        registry.serve(custom);
        let find = |kind: &Arc<dyn Kind>| {
            let names = kind.names();
            registry.resource(names.group, names.version, names.plural)
        };
        let (stays, goes) = (find(&custom[0]).unwrap(), find(&custom[1]).unwrap());
        registry.serve(&custom[..1]);
        assert!(Arc::ptr_eq(&stays, &find(&custom[0]).unwrap()));
        assert!(!stays.retired.is_cancelled());
        assert!(goes.retired.is_cancelled());
        assert!(find(&custom[1]).is_none());
        assert!(find(&builtin[0]).is_some());
    }
}
