//! The kinds that are served, by their place in the API, and where the store keeps their objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use seaway_objects::kind::{Kind, Names};

use crate::object;

/// A kind and what is derived from its names once.
pub(crate) struct Resource {
    pub(crate) kind: Arc<dyn Kind>,
    pub(crate) names: &'static Names,
    /// `apps/v1`
    pub(crate) api_version: String,
    /// Its type as JSON members, see [`object::render`].
    pub(crate) head: String,
    prefix: String,
}

impl Resource {
    fn new(kind: Arc<dyn Kind>) -> Self {
        let names = kind.names();
        let group = if names.group.is_empty() {
            "core"
        } else {
            names.group
        };
        Self {
            api_version: object::api_version(names),
            head: object::head(names),
            prefix: format!("{group}/{}/", names.plural),
            names,
            kind,
        }
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
}

/// All kinds.
pub(crate) struct Registry {
    groups: BTreeMap<&'static str, BTreeMap<&'static str, BTreeMap<&'static str, Arc<Resource>>>>,
}

impl Registry {
    pub(crate) fn new(kinds: &[Arc<dyn Kind>]) -> Self {
        let mut groups: BTreeMap<_, BTreeMap<_, BTreeMap<_, _>>> = BTreeMap::new();
        for kind in kinds {
            let names = kind.names();
            let resource = Arc::new(Resource::new(Arc::clone(kind)));
            groups
                .entry(names.group)
                .or_default()
                .entry(names.version)
                .or_default()
                .insert(names.plural, resource);
        }
        Self { groups }
    }

    /// The resource of that name.
    pub(crate) fn resource(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<&Arc<Resource>> {
        self.groups.get(group)?.get(version)?.get(plural)
    }

    /// The resources of a group and version, in the order of their names; `None` if there is no such version.
    pub(crate) fn version(&self, group: &str, version: &str) -> Option<Vec<&Arc<Resource>>> {
        Some(self.groups.get(group)?.get(version)?.values().collect())
    }

    /// Groups with their versions, in order; the core group is the empty one.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
        self.groups
            .iter()
            .map(|(group, versions)| (*group, versions.keys().copied().collect()))
    }

    /// Every resource.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.groups
            .values()
            .flat_map(BTreeMap::values)
            .flat_map(BTreeMap::values)
    }
}
