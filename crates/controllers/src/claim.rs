//! Which dependents are whose: those of an owner that match it no more are let go, those without one that match are
//! taken in.
//!
//! Source: `PodControllerRefManager` and `BaseControllerRefManager` in `pkg/controller/controller_ref_manager.go`.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use kube::api::Patch;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::object::{self, ObjectKey};

/// Dependents, sorted.
#[derive(Debug)]
pub(crate) struct Claim<K> {
    /// Its own, those to be taken in among them, those to be let go not.
    pub(crate) owned: Vec<Arc<K>>,
    /// Have no controller and match: to take in.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Its own but match no more: to let go.
    pub(crate) release: Vec<Arc<K>>,
}

/// Sorts the candidates for `owner`. `matches` says who is meant, `adoptable` who of those without a controller may be
/// taken in.
pub(crate) fn sort<K: Resource>(
    owner: &ObjectMeta,
    candidates: Vec<Arc<K>>,
    matches: impl Fn(&K) -> bool,
    adoptable: impl Fn(&K) -> bool,
) -> Claim<K> {
    let (uid, going) = (object::uid_of(owner), object::is_deleting(owner));
    let mut claim = Claim {
        owned: Vec::new(),
        adopt: Vec::new(),
        release: Vec::new(),
    };
    for one in candidates {
        match object::controller_of(one.meta()) {
            Some(controller) if controller.uid != uid => {}
            Some(_) if matches(&one) || going => claim.owned.push(one),
            Some(_) => claim.release.push(one),
            None if going || object::is_deleting(one.meta()) => {}
            None if !matches(&one) || !adoptable(&one) => {}
            None => {
                claim.owned.push(Arc::clone(&one));
                claim.adopt.push(one);
            }
        }
    }
    claim
}

/// Takes in and lets go. Taken in are dependents only after the API server has said that the owner lives: the cache may
/// show one that is gone, and what is given to it would be collected as garbage. `finalizer` is put on what is taken
/// in and removed from what is let go.
pub(crate) async fn settle<O, K>(
    cluster: &Cluster,
    owner: &ObjectMeta,
    claim: &Claim<K>,
    finalizer: Option<&str>,
) -> Result<(), Error>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    if !claim.adopt.is_empty() {
        let key = ObjectKey::of(owner);
        let fresh = cluster
            .api::<O>(&key.namespace)
            .get_metadata(&key.name)
            .await;
        let fresh = fresh.during("read", &key)?;
        if fresh.metadata.uid != owner.uid || object::is_deleting(&fresh.metadata) {
            return Err(Error::Stale {
                object: key.to_string(),
            });
        }
    }
    for one in &claim.adopt {
        let mut owners = object::owners_of(one.meta()).to_vec();
        owners.push(owner_reference::<O>(owner));
        let mut finalizers = one.meta().finalizers.clone().unwrap_or_default();
        if let Some(finalizer) = finalizer.filter(|name| !object::has_finalizer(one.meta(), name)) {
            finalizers.push(finalizer.to_owned());
        }
        patch::<K>(cluster, one.meta(), &owners, &finalizers, "adopt").await?;
    }
    for one in &claim.release {
        let mut owners = object::owners_of(one.meta()).to_vec();
        owners.retain(|reference| Some(&reference.uid) != owner.uid.as_ref());
        let mut finalizers = one.meta().finalizers.clone().unwrap_or_default();
        finalizers.retain(|name| Some(name.as_str()) != finalizer);
        patch::<K>(cluster, one.meta(), &owners, &finalizers, "release").await?;
    }
    Ok(())
}

async fn patch<K>(
    cluster: &Cluster,
    meta: &ObjectMeta,
    owners: &[OwnerReference],
    finalizers: &[String],
    operation: &'static str,
) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let key = ObjectKey::of(meta);
    let patch = json!({ "metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "ownerReferences": owners,
        "finalizers": finalizers,
    }});
    let answer = cluster
        .api::<K>(&key.namespace)
        .patch(&key.name, &cluster::patch(), &Patch::Merge(&patch))
        .await;
    or_gone(answer.during(operation, &key))?;
    Ok(())
}

/// The reference that makes `owner` the controller of an object.
pub(crate) fn owner_reference<O: Resource<DynamicType = ()>>(owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(name: &str, app: &str, controller: Option<&str>) -> Arc<Pod> {
        let owners: Vec<_> = controller
            .iter()
            .map(|uid| json!({ "apiVersion": "apps/v1", "kind": "X", "name": "x", "uid": uid, "controller": true }))
            .collect();
        let object = json!({ "metadata": { "name": name, "labels": { "app": app }, "ownerReferences": owners } });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter()
            .map(|pod| pod.metadata.name.as_deref().unwrap())
            .collect()
    }

    #[test]
    fn orphans_are_taken_in_and_strays_let_go_unless_the_owner_goes_itself() {
        let pods = || {
            vec![
                pod("own", "web", Some("owner")),
                pod("stray", "db", Some("owner")),
                pod("orphan", "web", None),
                pod("foreign-orphan", "db", None),
                pod("not-adoptable", "web", None),
                pod("others", "web", Some("other")),
            ]
        };
        let matches = |pod: &Pod| object::labels_of(&pod.metadata)["app"] == "web";
        let adoptable = |pod: &Pod| pod.metadata.name.as_deref() != Some("not-adoptable");
        let mut owner = ObjectMeta {
            uid: Some("owner".to_owned()),
            ..ObjectMeta::default()
        };
        let claim = sort(&owner, pods(), matches, adoptable);
        assert_eq!(names(&claim.owned), ["own", "orphan"]);
        assert_eq!(names(&claim.adopt), ["orphan"]);
        assert_eq!(names(&claim.release), ["stray"]);
        owner.deletion_timestamp =
            Some(serde_json::from_value(json!("2030-01-01T00:00:00Z")).unwrap());
        let claim = sort(&owner, pods(), matches, adoptable);
        assert_eq!(names(&claim.owned), ["own", "stray"]);
        assert!(claim.adopt.is_empty() && claim.release.is_empty());
    }
}
