//! Writing revisions.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::{DeleteParams, Patch, Preconditions};
use serde_json::json;

use super::{Current, Owner};
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::object::{self, ObjectKey};

/// What became of the wish to have the present template as the newest revision.
#[derive(Debug)]
pub(crate) enum Kept {
    /// It is this one.
    Revision(Arc<ControllerRevision>),
    /// Another template has the same hash: the owner's count of collisions must go up.
    Collision,
}

/// Makes the present template the newest revision.
pub(crate) async fn keep(
    cluster: &Cluster,
    owner: &Owner,
    current: Current,
) -> Result<Kept, Error> {
    let api = cluster.api::<ControllerRevision>(&owner.key.namespace);
    match current {
        Current::Present(revision) => Ok(Kept::Revision(revision)),
        Current::Again(revision, number) => {
            let key = ObjectKey::of(&revision.metadata);
            let patch = json!({
                "metadata": { "uid": revision.metadata.uid, "resourceVersion": revision.metadata.resource_version },
                "revision": number,
            });
            let answer = api
                .patch(&key.name, &cluster::patch(), &Patch::Merge(&patch))
                .await;
            let fresh = answer.during("renumber ControllerRevision", &key)?;
            Ok(Kept::Revision(Arc::new(fresh)))
        }
        Current::New(revision) => {
            let key = ObjectKey::of(&revision.metadata);
            let answer = api.create(&cluster::post(), &revision).await;
            match answer.during("create ControllerRevision", &key) {
                Ok(fresh) => Ok(Kept::Revision(Arc::new(fresh))),
                Err(error) if error.is_already_exists() => {
                    let present = or_gone(
                        api.get(&key.name)
                            .await
                            .during("read ControllerRevision", &key),
                    )?;
                    let ours = present.filter(|present| {
                        let controller = object::controller_of(&present.metadata);
                        super::has_template(present, &owner.template)
                            && controller.is_some_and(|one| one.uid == owner.reference.uid)
                    });
                    // One of ours that the cache does not show yet; with another template it is in the way for good.
                    Ok(ours.map_or(Kept::Collision, |present| Kept::Revision(Arc::new(present))))
                }
                Err(error) => Err(error),
            }
        }
    }
}

/// Deletes revisions that are kept no longer.
pub(crate) async fn prune(
    cluster: &Cluster,
    revisions: &[Arc<ControllerRevision>],
) -> Result<(), Error> {
    for revision in revisions {
        let key = ObjectKey::of(&revision.metadata);
        let parameters = DeleteParams::default().preconditions(Preconditions {
            uid: revision.metadata.uid.clone(),
            resource_version: None,
        });
        let answer = cluster
            .api::<ControllerRevision>(&key.namespace)
            .delete(&key.name, &parameters)
            .await;
        or_gone(answer.during("delete ControllerRevision", &key))?;
    }
    Ok(())
}
