//! The loop: examines objects one by one, asks the API server before it believes that an owner is gone, and acts.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, Preconditions};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::decision::{self, Decision, Owner, Propagation};
use super::graph::{FOREGROUND, Graph, ORPHAN, Vertex};
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::inventory::{Inventory, Known, Metadata, Sighting};
use crate::object;
use crate::queue::{Next, Queue};

const NAME: &str = "garbage-collector";
/// Objects examined at the same time.
const PARALLEL: usize = 20;

/// Collects garbage.
pub(crate) struct Collector {
    cluster: Arc<Cluster>,
    inventory: Arc<Inventory>,
    graph: Mutex<Graph>,
    queue: Queue<String>,
}

impl Collector {
    /// Listens to the inventory; [`Collector::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>, inventory: &Arc<Inventory>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            inventory: Arc::clone(inventory),
            graph: Mutex::new(Graph::default()),
            queue: Queue::new(),
        });
        let listener = Arc::clone(&this);
        inventory.on_object(move |sighting| listener.seen(sighting));
        this
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        // Before every kind is listed, the dependents of an owner are not all known.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.inventory.wait_synced() => {}
        }
        let queue = self.queue.clone();
        queue
            .run(NAME, PARALLEL, shutdown, |uid| {
                let this = Arc::clone(&self);
                async move { this.examine(&uid).await }
            })
            .await;
    }

    fn seen(&self, sighting: &Sighting<'_>) {
        let examine = match (sighting.old, sighting.new) {
            (_, Some(meta)) => {
                let vertex = Vertex::of(
                    &sighting.resource.api_version,
                    &sighting.resource.kind,
                    meta,
                );
                self.graph.lock().upsert(vertex)
            }
            (Some(meta), None) => self.graph.lock().remove(object::uid_of(meta)),
            (None, None) => return,
        };
        for uid in examine {
            self.queue.add(uid);
        }
    }

    async fn examine(&self, uid: &str) -> Result<Next, Error> {
        let (object, dependents) = {
            let graph = self.graph.lock();
            let Some(object) = graph.get(uid).cloned() else {
                return Ok(Next::Done);
            };
            let dependents: Vec<Vertex> = graph.dependents(uid).cloned().collect();
            (object, dependents)
        };
        let mut owners = Vec::new();
        for owner in &object.owners {
            owners.push(self.owner_state(&object, owner).await?);
        }
        let dependents: Vec<&Vertex> = dependents.iter().collect();
        match decision::decide(&object, &owners, &dependents) {
            Decision::Keep => {}
            Decision::ReleaseForeground => self.remove_finalizer(&object, FOREGROUND).await?,
            Decision::OrphanDependents => {
                for dependent in &dependents {
                    self.patch_owners(dependent, |owners| {
                        owners.retain(|owner| owner.uid != object.uid)
                    })
                    .await?;
                }
                self.remove_finalizer(&object, ORPHAN).await?;
            }
            Decision::DropOwners(gone) => {
                self.patch_owners(&object, |owners| {
                    owners.retain(|owner| !gone.contains(&owner.uid))
                })
                .await?;
            }
            Decision::Delete {
                propagation,
                unblock,
            } => {
                if unblock {
                    let free = |owners: &mut Vec<OwnerReference>| {
                        owners
                            .iter_mut()
                            .for_each(|owner| owner.block_owner_deletion = Some(false));
                    };
                    self.patch_owners(&object, free).await?;
                }
                self.delete(&object, propagation).await?;
            }
        }
        Ok(Next::Done)
    }

    /// What an owner is up to. One that is known under the same name is believed; of any other the API server is asked.
    async fn owner_state(&self, object: &Vertex, owner: &OwnerReference) -> Result<Owner, Error> {
        let group = |api_version: &str| {
            api_version
                .rsplit_once('/')
                .map_or(String::new(), |(group, _)| group.to_owned())
        };
        {
            let graph = self.graph.lock();
            let known = graph.get(&owner.uid).filter(|known| {
                known.kind == owner.kind
                    && group(&known.api_version) == group(&owner.api_version)
                    && known.key.name == owner.name
                    && (known.key.namespace.is_empty()
                        || known.key.namespace == object.key.namespace)
            });
            if let Some(known) = known {
                return Ok(if known.awaits_dependents() {
                    Owner::Waiting
                } else {
                    Owner::Alive
                });
            }
        }
        let kind = self.kind(&owner.api_version, &owner.kind)?;
        if kind.is_namespaced() && object.key.namespace.is_empty() {
            // The API forbids it, and where the owner would be cannot be known: never a reason to delete.
            return Err(Error::Object {
                object: format!("{} {}", object.kind, object.key),
                problem: format!(
                    "is cluster-wide, but its owner {} {} is not",
                    owner.kind, owner.name
                ),
            });
        }
        let api = kind.api(&self.cluster, &object.key.namespace);
        let found = api
            .get_opt(&owner.name)
            .await
            .during("read the owner of", &object.key)?;
        Ok(match found {
            Some(found) if object::uid_of(&found.metadata) == owner.uid => {
                let fresh = Vertex::of(&owner.api_version, &owner.kind, &found.metadata);
                if fresh.awaits_dependents() {
                    Owner::Waiting
                } else {
                    Owner::Alive
                }
            }
            Some(_) | None => Owner::Absent,
        })
    }

    fn kind(&self, api_version: &str, kind: &str) -> Result<Known, Error> {
        self.inventory
            .kind(api_version, kind)
            .ok_or_else(|| Error::Object {
                object: format!("{kind} of {api_version}"),
                problem: "the API server has no such kind".to_owned(),
            })
    }

    async fn delete(&self, object: &Vertex, propagation: Propagation) -> Result<(), Error> {
        let Some((kind, fresh)) = self.fresh(object).await? else {
            return Ok(());
        };
        if object::is_deleting(&fresh.metadata)
            || object::owners_of(&fresh.metadata) != object.owners
        {
            // It changed since it was examined; its event brings it back.
            return Ok(());
        }
        let parameters = match propagation {
            Propagation::Background => DeleteParams::background(),
            Propagation::Foreground => DeleteParams::foreground(),
            Propagation::Orphan => DeleteParams::orphan(),
        };
        let preconditions = Preconditions {
            uid: Some(object.uid.clone()),
            resource_version: fresh.metadata.resource_version.clone(),
        };
        let api = kind.api(&self.cluster, &object.key.namespace);
        let answer = api
            .delete(&object.key.name, &parameters.preconditions(preconditions))
            .await;
        or_gone(answer.during("delete the dependent", &object.key))?;
        tracing::debug!(kind = object.kind, object = %object.key, ?propagation, "garbage collected");
        Ok(())
    }

    async fn remove_finalizer(&self, object: &Vertex, finalizer: &str) -> Result<(), Error> {
        let Some((kind, fresh)) = self.fresh(object).await? else {
            return Ok(());
        };
        let mut finalizers = fresh.metadata.finalizers.clone().unwrap_or_default();
        let before = finalizers.len();
        finalizers.retain(|one| one != finalizer);
        if finalizers.len() == before {
            return Ok(());
        }
        let patch = json!({ "metadata": {
            "uid": object.uid,
            "resourceVersion": fresh.metadata.resource_version,
            "finalizers": finalizers,
        }});
        self.patch(&kind, object, &patch, "remove the finalizer of")
            .await
    }

    async fn patch_owners(
        &self,
        object: &Vertex,
        change: impl FnOnce(&mut Vec<OwnerReference>),
    ) -> Result<(), Error> {
        let Some((kind, fresh)) = self.fresh(object).await? else {
            return Ok(());
        };
        let before = object::owners_of(&fresh.metadata);
        let mut owners = before.to_vec();
        change(&mut owners);
        if owners == before {
            return Ok(());
        }
        let patch = json!({ "metadata": {
            "uid": object.uid,
            "resourceVersion": fresh.metadata.resource_version,
            "ownerReferences": owners,
        }});
        self.patch(&kind, object, &patch, "change the owners of")
            .await
    }

    /// The object as the API server has it now; `None` when it is gone or another took its name.
    async fn fresh(&self, object: &Vertex) -> Result<Option<(Known, Metadata)>, Error> {
        let kind = self.kind(&object.api_version, &object.kind)?;
        let api = kind.api(&self.cluster, &object.key.namespace);
        let fresh = api
            .get_opt(&object.key.name)
            .await
            .during("read", &object.key)?;
        Ok(fresh
            .filter(|fresh| object::uid_of(&fresh.metadata) == object.uid)
            .map(|fresh| (kind, fresh)))
    }

    async fn patch(
        &self,
        kind: &Known,
        object: &Vertex,
        patch: &serde_json::Value,
        operation: &'static str,
    ) -> Result<(), Error> {
        let api = kind.api(&self.cluster, &object.key.namespace);
        let answer = api
            .patch(&object.key.name, &cluster::patch(), &Patch::Merge(patch))
            .await;
        or_gone(answer.during(operation, &object.key))?;
        Ok(())
    }
}
