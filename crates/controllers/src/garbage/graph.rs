//! Who owns whom, from the metadata of all objects. Tells which objects must be examined after a change.

use std::collections::{BTreeSet, HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::object::{self, ObjectKey};

/// Finalizer of an owner that waits for its dependents to go.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner that leaves its dependents behind.
pub(crate) const ORPHAN: &str = "orphan";

/// An object, as far as ownership goes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vertex {
    /// `apiVersion` of its kind.
    pub(crate) api_version: String,
    /// Its kind.
    pub(crate) kind: String,
    /// Namespace and name.
    pub(crate) key: ObjectKey,
    /// UID.
    pub(crate) uid: String,
    /// Its owners.
    pub(crate) owners: Vec<OwnerReference>,
    /// Its deletion has begun.
    pub(crate) deleting: bool,
    /// It has the finalizer [`FOREGROUND`].
    pub(crate) foreground: bool,
    /// It has the finalizer [`ORPHAN`].
    pub(crate) orphan: bool,
}

impl Vertex {
    /// Reads metadata.
    pub(crate) fn of(api_version: &str, kind: &str, meta: &ObjectMeta) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            key: ObjectKey::of(meta),
            uid: object::uid_of(meta).to_owned(),
            owners: object::owners_of(meta).to_vec(),
            deleting: object::is_deleting(meta),
            foreground: object::has_finalizer(meta, FOREGROUND),
            orphan: object::has_finalizer(meta, ORPHAN),
        }
    }

    /// Waits for its dependents to go.
    pub(crate) fn awaits_dependents(&self) -> bool {
        self.deleting && self.foreground
    }

    /// Is about to leave its dependents behind.
    pub(crate) fn leaves_dependents(&self) -> bool {
        self.deleting && self.orphan
    }

    /// Whether `owner` must wait for this object.
    pub(crate) fn blocks(&self, owner: &str) -> bool {
        self.owners
            .iter()
            .any(|one| one.uid == owner && one.block_owner_deletion == Some(true))
    }
}

/// All objects.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    objects: HashMap<String, Vertex>,
    /// UID of an owner, known or not → UIDs of its dependents.
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// One object.
    pub(crate) fn get(&self, uid: &str) -> Option<&Vertex> {
        self.objects.get(uid)
    }

    /// The objects that name this one as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Vertex> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.objects.get(uid))
    }

    /// An object is there, or has changed. The UIDs to examine.
    pub(crate) fn upsert(&mut self, vertex: Vertex) -> BTreeSet<String> {
        let mut examine = BTreeSet::new();
        let uid = vertex.uid.clone();
        let old = self.objects.get(&uid);
        if old == Some(&vertex) {
            return examine;
        }
        let owners_before: Vec<OwnerReference> =
            old.map(|old| old.owners.clone()).unwrap_or_default();
        let began_waiting =
            vertex.awaits_dependents() && !old.is_some_and(Vertex::awaits_dependents);
        if vertex.owners != owners_before
            || vertex.awaits_dependents()
            || vertex.leaves_dependents()
        {
            examine.insert(uid.clone());
        }
        if began_waiting {
            examine.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        }
        for owner in owners_before {
            // An owner that waits may be free now: of this dependent, or of its block.
            if !vertex.blocks(&owner.uid)
                && self
                    .objects
                    .get(&owner.uid)
                    .is_some_and(Vertex::awaits_dependents)
            {
                examine.insert(owner.uid.clone());
            }
            if !vertex.owners.iter().any(|one| one.uid == owner.uid) {
                self.unlink(&owner.uid, &uid);
            }
        }
        for owner in &vertex.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(uid.clone());
        }
        self.objects.insert(uid, vertex);
        examine
    }

    /// An object is gone. The UIDs to examine.
    pub(crate) fn remove(&mut self, uid: &str) -> BTreeSet<String> {
        let mut examine: BTreeSet<String> = self
            .dependents
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        if let Some(vertex) = self.objects.remove(uid) {
            for owner in &vertex.owners {
                self.unlink(&owner.uid, uid);
                if self
                    .objects
                    .get(&owner.uid)
                    .is_some_and(Vertex::awaits_dependents)
                {
                    examine.insert(owner.uid.clone());
                }
            }
        }
        examine.remove(uid);
        examine
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn vertex(uid: &str, owners: &[(&str, bool)]) -> Vertex {
        let owners = owners.iter().map(|(uid, block)| OwnerReference {
            api_version: "v1".into(),
            kind: "Thing".into(),
            name: (*uid).to_owned(),
            uid: (*uid).to_owned(),
            controller: None,
            block_owner_deletion: Some(*block),
        });
        Vertex {
            api_version: "v1".into(),
            kind: "Thing".into(),
            key: ObjectKey::new("default", uid),
            uid: uid.into(),
            owners: owners.collect(),
            deleting: false,
            foreground: false,
            orphan: false,
        }
    }

    fn set(uids: &[&str]) -> BTreeSet<String> {
        uids.iter().map(|&uid| uid.to_owned()).collect()
    }

    #[test]
    fn the_end_of_an_owner_concerns_its_dependents() {
        let mut graph = Graph::default();
        assert_eq!(graph.upsert(vertex("owner", &[])), set(&[]));
        assert_eq!(graph.upsert(vertex("a", &[("owner", true)])), set(&["a"]));
        assert_eq!(graph.upsert(vertex("b", &[("owner", true)])), set(&["b"]));
        assert_eq!(
            graph.upsert(vertex("a", &[("owner", true)])),
            set(&[]),
            "nothing changed"
        );
        assert_eq!(graph.remove("owner"), set(&["a", "b"]));
    }

    #[test]
    fn an_owner_that_waits_is_examined_when_a_dependent_goes_or_stops_blocking() {
        let mut graph = Graph::default();
        graph.upsert(vertex("a", &[("owner", true)]));
        graph.upsert(vertex("b", &[("owner", true)]));
        let waiting = Vertex {
            deleting: true,
            foreground: true,
            ..vertex("owner", &[])
        };
        assert_eq!(graph.upsert(waiting), set(&["a", "b", "owner"]));
        assert_eq!(
            graph.upsert(vertex("a", &[("owner", false)])),
            set(&["a", "owner"])
        );
        assert_eq!(graph.remove("b"), set(&["owner"]));
    }

    proptest! {
        #[test]
        fn dependents_are_those_that_name_the_owner(
            steps in prop::collection::vec((0u8..6, prop::collection::btree_set(0u8..6, 0..3), any::<bool>()), 0..60),
        ) {
            let mut graph = Graph::default();
            let mut model: HashMap<u8, BTreeSet<u8>> = HashMap::new();
            for (object, owners, present) in steps {
                let uid = object.to_string();
                if present {
                    let names: Vec<String> = owners.iter().map(u8::to_string).collect();
                    let references: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
                    graph.upsert(vertex(&uid, &references));
                    model.insert(object, owners);
                } else {
                    graph.remove(&uid);
                    model.remove(&object);
                }
                for owner in 0u8..6 {
                    let found: BTreeSet<String> = graph.dependents(&owner.to_string()).map(|one| one.uid.clone()).collect();
                    let expected: BTreeSet<String> =
                        model.iter().filter(|(_, owners)| owners.contains(&owner)).map(|(one, _)| one.to_string()).collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
