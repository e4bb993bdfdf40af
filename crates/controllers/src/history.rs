//! The revisions of a DaemonSet or StatefulSet: each template that it ever had, as a ControllerRevision, which
//! `kubectl rollout history` and `undo` read.
//!
//! Source of the rules: `pkg/controller/history`, and `constructHistory` and `getStatefulSetRevisions` of the two
//! controllers.

mod store;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::deployment::hash;
use crate::object::{self, ObjectKey};

pub(crate) use store::{Kept, keep, prune};

/// Whose revisions they are.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    /// Namespace and name.
    pub(crate) key: ObjectKey,
    /// The reference that revisions carry.
    pub(crate) reference: OwnerReference,
    /// Its template now.
    pub(crate) template: PodTemplateSpec,
    /// How often two templates had the same hash.
    pub(crate) collisions: Option<i32>,
    /// Label on revisions that holds the hash.
    pub(crate) hash_label: &'static str,
    /// Annotations that new revisions get.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What must be done so that the present template is the newest revision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Current {
    /// It is.
    Present(Arc<ControllerRevision>),
    /// It was one before and becomes the newest: a rollback.
    Again(Arc<ControllerRevision>, i64),
    /// It never was.
    New(Box<ControllerRevision>),
}

/// Looks the present template up among the revisions, whatever their order.
pub(crate) fn current(owner: &Owner, revisions: &[Arc<ControllerRevision>]) -> Current {
    let data = data(&owner.template);
    let newest = revisions.iter().map(|one| one.revision).max().unwrap_or(0);
    let same = revisions
        .iter()
        .filter(|one| holds(one, &data))
        .max_by_key(|one| one.revision);
    match same {
        Some(one) if one.revision == newest => Current::Present(Arc::clone(one)),
        Some(one) => Current::Again(Arc::clone(one), newest.saturating_add(1)),
        None => Current::New(Box::new(new_revision(
            owner,
            data,
            newest.saturating_add(1),
        ))),
    }
}

fn new_revision(owner: &Owner, data: Value, revision: i64) -> ControllerRevision {
    let hash = hash::of(&owner.template, owner.collisions);
    let mut labels = owner
        .template
        .metadata
        .as_ref()
        .map(object::labels_of)
        .cloned()
        .unwrap_or_default();
    labels.insert(owner.hash_label.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.key.name)),
            namespace: Some(owner.key.namespace.clone()),
            labels: Some(labels),
            annotations: Some(owner.annotations.clone()).filter(|all| !all.is_empty()),
            owner_references: Some(vec![owner.reference.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}

/// A template as revisions hold it: a strategic merge patch that puts it back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

fn holds(revision: &ControllerRevision, data: &Value) -> bool {
    revision.data.as_ref().is_some_and(|raw| raw.0 == *data)
}

/// Whether the revision holds this template.
pub(crate) fn has_template(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    holds(revision, &data(template))
}

/// The template that a revision holds; `None` if it holds none.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The revisions beyond `limit` that nothing uses any more, the oldest first. `live` are the names in use.
pub(crate) fn superfluous(
    revisions: &[Arc<ControllerRevision>],
    live: &HashSet<String>,
    limit: usize,
) -> Vec<Arc<ControllerRevision>> {
    let name = |one: &ControllerRevision| one.metadata.name.clone().unwrap_or_default();
    let mut idle: Vec<_> = revisions
        .iter()
        .filter(|one| !live.contains(&name(one)))
        .cloned()
        .collect();
    idle.sort_by_key(|one| (one.revision, name(one)));
    idle.truncate(idle.len().saturating_sub(limit));
    idle
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "web", "image": image }] },
        }))
        .unwrap()
    }

    fn owner(image: &str) -> Owner {
        Owner {
            key: ObjectKey::new("default", "web"),
            reference: OwnerReference::default(),
            template: template(image),
            collisions: None,
            hash_label: "hash",
            annotations: BTreeMap::new(),
        }
    }

    fn made(image: &str, revision: i64) -> Arc<ControllerRevision> {
        Arc::new(new_revision(
            &owner(image),
            data(&template(image)),
            revision,
        ))
    }

    #[test]
    fn a_template_is_recorded_once_and_a_rollback_makes_it_the_newest() {
        let Current::New(first) = current(&owner("a"), &[]) else {
            panic!("a new one")
        };
        assert_eq!(first.revision, 1);
        let hash = first.metadata.labels.as_ref().unwrap()["hash"].clone();
        assert_eq!(first.metadata.name, Some(format!("web-{hash}")));
        let (a, b) = (made("a", 1), made("b", 2));
        let both = [Arc::clone(&b), Arc::clone(&a)];
        assert_eq!(current(&owner("b"), &both), Current::Present(b));
        assert_eq!(current(&owner("a"), &both), Current::Again(a, 3));
        assert!(matches!(current(&owner("c"), &both), Current::New(new) if new.revision == 3));
    }

    #[test]
    fn a_revision_gives_its_template_back() {
        let revision = made("a", 1);
        assert_eq!(super::template(&revision), Some(template("a")));
        assert!(
            has_template(&revision, &template("a")) && !has_template(&revision, &template("b"))
        );
    }

    #[test]
    fn the_oldest_revisions_that_nothing_uses_go() {
        let all = [made("c", 3), made("a", 1), made("d", 4), made("b", 2)];
        let live = HashSet::from([
            all[1].metadata.name.clone().unwrap(),
            all[2].metadata.name.clone().unwrap(),
        ]);
        let gone = |limit| {
            superfluous(&all, &live, limit)
                .iter()
                .map(|one| one.revision)
                .collect::<Vec<_>>()
        };
        assert_eq!(gone(2), [0i64; 0]);
        assert_eq!(gone(1), [2]);
        assert_eq!(gone(0), [2, 3]);
    }
}
