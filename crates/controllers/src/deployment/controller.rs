//! The loop: from events of Deployments, ReplicaSets and Pods to keys, from plans to writes.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, Preconditions};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::model::{Set, Target};
use super::plan::{self, Plan, Update};
use crate::cache::Change;
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::events::{self, Recorder};
use crate::object::{self, ObjectKey};
use crate::pod;
use crate::queue::{Next, Queue};
use seaway_objects::selector::LabelSelector;

const NAME: &str = "deployment-controller";
/// Deployments worked on at the same time.
const PARALLEL: usize = 8;

/// Keeps the ReplicaSets of all Deployments.
pub(crate) struct Deployments {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
    events: Recorder,
}

impl Deployments {
    /// Listens to the caches; [`Deployments::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            events: cluster.events.named(NAME),
        });
        let queue = this.queue.clone();
        cluster.deployments.on_change(move |change| {
            queue.add(ObjectKey::of(&change.latest().metadata));
        });
        let listener = Arc::clone(&this);
        cluster
            .replica_sets
            .on_change(move |change| listener.set_changed(change));
        let listener = Arc::clone(&this);
        cluster
            .pods
            .on_change(move |change| listener.pod_changed(change));
        this
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.clone();
        queue
            .run(NAME, PARALLEL, shutdown, |key| {
                let this = Arc::clone(&self);
                async move { this.reconcile(&key).await }
            })
            .await;
    }

    fn set_changed(&self, change: &Change<ReplicaSet>) {
        for set in change.states() {
            if let Some(key) = owner_key(set) {
                self.queue.add(key);
            }
        }
        let Some(orphan) = change
            .after()
            .filter(|set| object::controller_of(&set.metadata).is_none())
        else {
            return;
        };
        let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
        for deployment in self
            .cluster
            .deployments
            .find(&cluster::by_namespace(), namespace)
        {
            let selector = deployment
                .spec
                .as_ref()
                .and_then(|spec| LabelSelector::from_object(Some(&spec.selector)).ok());
            if selector.is_some_and(|selector| matches(&selector, orphan)) {
                self.queue.add(ObjectKey::of(&deployment.metadata));
            }
        }
    }

    /// A Deployment that recreates waits for the last old Pod to end.
    fn pod_changed(&self, change: &Change<Pod>) {
        let ended = change.after().is_none_or(|pod| pod::is_terminal(pod));
        if !ended {
            return;
        }
        let pod = change.latest();
        let Some(controller) =
            object::controller_of(&pod.metadata).filter(|one| one.kind == "ReplicaSet")
        else {
            return;
        };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let set = self
            .cluster
            .replica_sets
            .get(&ObjectKey::new(namespace, &controller.name));
        if let Some(key) = set.and_then(|set| owner_key(&set)) {
            self.queue.add(key);
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(deployment) = self.cluster.deployments.get(key) else {
            return Ok(Next::Done);
        };
        let target = match Target::project(&deployment) {
            Ok(target) => target,
            Err(problem) => {
                let about = events::reference::<Deployment>(&deployment.metadata);
                self.events.warning(about, "InvalidSpec", problem);
                return Ok(Next::Done);
            }
        };
        let sets = self.claim(&target).await?;
        let with_pods = self.sets_with_pods(&sets);
        let plan = plan::plan(&target, &sets, &with_pods, Timestamp::now());
        self.apply(&deployment, &target, plan).await
    }

    /// The Deployment's ReplicaSets; those without a controller that match are taken in, those that match no more
    /// are let go.
    async fn claim(&self, target: &Target) -> Result<Vec<Set>, Error> {
        let selector =
            LabelSelector::from_object(Some(&target.selector)).map_err(|error| Error::Object {
                object: format!("Deployment {}", target.key),
                problem: error.to_string(),
            })?;
        let mut sets = Vec::new();
        for set in self
            .cluster
            .replica_sets
            .find(&cluster::by_controller(), &target.uid)
        {
            if matches(&selector, &set) || target.deleting {
                sets.push(Set::project(&set));
            } else {
                let mut owners = object::owners_of(&set.metadata).to_vec();
                owners.retain(|owner| owner.uid != target.uid);
                self.patch_set(
                    &set,
                    json!({ "metadata": { "ownerReferences": owners } }),
                    "release",
                )
                .await?;
            }
        }
        if target.deleting {
            return Ok(sets);
        }
        for set in self
            .cluster
            .replica_sets
            .find(&cluster::orphans(), &target.key.namespace)
        {
            if !matches(&selector, &set) || object::is_deleting(&set.metadata) {
                continue;
            }
            let api = self.cluster.api::<Deployment>(&target.key.namespace);
            let fresh = api
                .get_metadata(&target.key.name)
                .await
                .during("read Deployment", &target.key)?;
            if object::uid_of(&fresh.metadata) != target.uid || object::is_deleting(&fresh.metadata)
            {
                return Err(Error::Stale {
                    object: target.key.to_string(),
                });
            }
            let mut owners = object::owners_of(&set.metadata).to_vec();
            owners.push(plan::owner_reference(target));
            let adopted = self
                .patch_set(
                    &set,
                    json!({ "metadata": { "ownerReferences": owners } }),
                    "adopt",
                )
                .await?;
            sets.extend(adopted.map(|set| Set::project(&Arc::new(set))));
        }
        Ok(sets)
    }

    fn sets_with_pods(&self, sets: &[Set]) -> HashSet<String> {
        let pods_of = |set: &&Set| self.cluster.pods.find(&cluster::by_controller(), set.uid());
        let inhabited = sets
            .iter()
            .filter(|set| pods_of(set).iter().any(|pod| !pod::is_terminal(pod)));
        inhabited.map(|set| set.uid().to_owned()).collect()
    }

    async fn apply(
        &self,
        deployment: &Deployment,
        target: &Target,
        plan: Plan,
    ) -> Result<Next, Error> {
        let mut status = plan.status;
        if let Some(set) = &plan.create {
            self.create(deployment, target, set, &mut status).await?;
        }
        for update in &plan.updates {
            self.update(deployment, update).await?;
        }
        for set in &plan.delete {
            let key = ObjectKey::of(&set.metadata);
            let preconditions = Preconditions {
                uid: set.metadata.uid.clone(),
                resource_version: set.metadata.resource_version.clone(),
            };
            let parameters = DeleteParams::default().preconditions(preconditions);
            let api = self.cluster.api::<ReplicaSet>(&key.namespace);
            or_gone(
                api.delete(&key.name, &parameters)
                    .await
                    .during("delete ReplicaSet", &key),
            )?;
        }
        let mut version = deployment.metadata.resource_version.clone();
        if let Some(revision) = plan.revision {
            let patch = json!({ "metadata": {
                "uid": target.uid,
                "resourceVersion": version,
                "annotations": { super::revision::REVISION: revision },
            }});
            let api = self.cluster.api::<Deployment>(&target.key.namespace);
            // With the status, so that it is no change of what is wanted.
            let answer = api
                .patch_status(&target.key.name, &cluster::patch(), &Patch::Merge(&patch))
                .await;
            match or_gone(answer.during("annotate Deployment", &target.key))? {
                Some(fresh) => version = fresh.metadata.resource_version,
                None => return Ok(Next::Done),
            }
        }
        self.write_status(target, &status, version).await?;
        Ok(plan.wake.into())
    }

    async fn create(
        &self,
        deployment: &Deployment,
        target: &Target,
        set: &ReplicaSet,
        status: &mut DeploymentStatus,
    ) -> Result<(), Error> {
        let key = ObjectKey::of(&set.metadata);
        let api = self.cluster.api::<ReplicaSet>(&key.namespace);
        match api
            .create(&cluster::post(), set)
            .await
            .during("create ReplicaSet", &key)
        {
            Ok(_) => {
                let size = set
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.replicas)
                    .unwrap_or(0);
                self.tell_scaled(deployment, &key.name, 0, size);
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                let present = or_gone(api.get(&key.name).await.during("read ReplicaSet", &key))?;
                let ours = present.is_some_and(|present| {
                    object::controller_of(&present.metadata)
                        .is_some_and(|owner| owner.uid == target.uid)
                        && Set::project(&Arc::new(present)).has_template(&target.template)
                });
                if !ours {
                    // Another template with this hash: the count makes the next hash another one.
                    status.collision_count =
                        Some(status.collision_count.unwrap_or(0).saturating_add(1));
                    let version = deployment.metadata.resource_version.clone();
                    self.write_status(target, status, version).await?;
                }
                Err(Error::Stale {
                    object: key.to_string(),
                })
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let about = events::reference::<Deployment>(&deployment.metadata);
                let message = format!(
                    "Failed to create new replica set \"{}\": {}",
                    key.name,
                    error.told()
                );
                self.events.warning(about, "ReplicaSetCreateError", message);
                Err(error)
            }
        }
    }

    async fn update(&self, deployment: &Deployment, update: &Update) -> Result<(), Error> {
        let mut patch = json!({ "metadata": { "annotations": update.annotations } });
        if let Some((_, size)) = update.replicas {
            patch["spec"]["replicas"] = json!(size);
        }
        if let Some(seconds) = update.min_ready_seconds {
            patch["spec"]["minReadySeconds"] = json!(seconds);
        }
        self.patch_set(&update.set, patch, "update").await?;
        if let Some((from, to)) = update.replicas {
            self.tell_scaled(
                deployment,
                update.set.metadata.name.as_deref().unwrap_or_default(),
                from,
                to,
            );
        }
        Ok(())
    }

    /// Patches a ReplicaSet, provided that it is still as it was seen.
    async fn patch_set(
        &self,
        set: &ReplicaSet,
        mut patch: serde_json::Value,
        what: &'static str,
    ) -> Result<Option<ReplicaSet>, Error> {
        let key = ObjectKey::of(&set.metadata);
        patch["metadata"]["uid"] = json!(set.metadata.uid);
        patch["metadata"]["resourceVersion"] = json!(set.metadata.resource_version);
        let operation = match what {
            "adopt" => "adopt ReplicaSet",
            "release" => "release ReplicaSet",
            _ => "update ReplicaSet",
        };
        let api = self.cluster.api::<ReplicaSet>(&key.namespace);
        or_gone(
            api.patch(&key.name, &cluster::patch(), &Patch::Merge(&patch))
                .await
                .during(operation, &key),
        )
    }

    fn tell_scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        if from == to {
            return;
        }
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.events.normal(
            events::reference::<Deployment>(&deployment.metadata),
            "ScalingReplicaSet",
            message,
        );
    }

    async fn write_status(
        &self,
        target: &Target,
        status: &DeploymentStatus,
        version: Option<String>,
    ) -> Result<(), Error> {
        if *status == target.status {
            return Ok(());
        }
        // A figure that is absent must be written as null, or the patch would leave the old one.
        let patch = json!({
            "metadata": { "uid": target.uid, "resourceVersion": version },
            "status": {
                "observedGeneration": status.observed_generation,
                "replicas": status.replicas,
                "updatedReplicas": status.updated_replicas,
                "readyReplicas": status.ready_replicas,
                "availableReplicas": status.available_replicas,
                "unavailableReplicas": status.unavailable_replicas,
                "terminatingReplicas": status.terminating_replicas,
                "collisionCount": status.collision_count,
                "conditions": status.conditions,
            },
        });
        let api = self.cluster.api::<Deployment>(&target.key.namespace);
        let answer = api
            .patch_status(&target.key.name, &cluster::patch(), &Patch::Merge(&patch))
            .await;
        or_gone(answer.during("write status of Deployment", &target.key))?;
        Ok(())
    }
}

fn matches(selector: &LabelSelector, set: &ReplicaSet) -> bool {
    selector.matches(object::labels_of(&set.metadata))
}

fn owner_key(set: &ReplicaSet) -> Option<ObjectKey> {
    let controller =
        object::controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
    Some(ObjectKey::new(
        set.metadata.namespace.as_deref()?,
        &controller.name,
    ))
}
