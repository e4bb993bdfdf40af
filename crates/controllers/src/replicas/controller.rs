//! The loop: from events of Pods and owners to keys, from plans to writes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::Patch;
use tokio_util::sync::CancellationToken;

use super::model::{Owner, Workload};
use super::plan::{self, Scale};
use super::rank;
use crate::cache::{Cache, Change};
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::expectations::Expectations;
use crate::object::{self, ObjectKey};
use crate::pod_control::{PodControl, Words};
use crate::queue::{Next, Queue};

/// Owners worked on at the same time.
const PARALLEL: usize = 16;
/// How often outstanding writes are looked at again, should their events never come.
const RECHECK: Duration = Duration::from_secs(60);

/// Keeps the Pods of one workload kind.
pub(crate) struct Replicas<K> {
    cluster: Arc<Cluster>,
    owners: Arc<Cache<K>>,
    queue: Queue<ObjectKey>,
    expectations: Expectations<ObjectKey>,
    control: PodControl,
}

impl<K: Workload> Replicas<K> {
    /// Listens to the caches; [`Replicas::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>, owners: &Arc<Cache<K>>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            owners: Arc::clone(owners),
            queue: Queue::new(),
            expectations: Expectations::new(),
            control: PodControl::new(cluster, cluster.events.named(K::COMPONENT), Words::Plain),
        });
        let queue = this.queue.clone();
        owners.on_change(move |change| {
            queue.add(ObjectKey::of(change.latest().meta()));
        });
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
            .run(K::COMPONENT, PARALLEL, shutdown, |key| {
                let this = Arc::clone(&self);
                async move { this.reconcile(&key).await }
            })
            .await;
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        for pod in change.states() {
            let Some(key) = self.owner_key(&pod.metadata) else {
                continue;
            };
            let uid = object::uid_of(&pod.metadata);
            if matches!(change, Change::Added(_)) {
                self.expectations.creation_observed(&key);
            }
            if change
                .after()
                .is_none_or(|new| object::is_deleting(&new.metadata))
            {
                self.expectations.deletion_observed(&key, uid);
            }
            self.queue.add(key);
        }
        let Some(pod) = change.after() else { return };
        if object::controller_of(&pod.metadata).is_some() {
            return;
        }
        let unchanged = change.before().is_some_and(|old| {
            object::controller_of(&old.metadata).is_none()
                && old.metadata.labels == pod.metadata.labels
        });
        if unchanged {
            return;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for owner in self.owners.find(&cluster::by_namespace(), namespace) {
            if owner
                .selector()
                .is_some_and(|selector| selector.matches(object::labels_of(&pod.metadata)))
            {
                self.queue.add(ObjectKey::of(owner.meta()));
            }
        }
    }

    /// The owner of this kind that manages the object.
    fn owner_key(&self, meta: &ObjectMeta) -> Option<ObjectKey> {
        let controller = object::controller_of(meta)?;
        if controller.kind != K::kind(&()) {
            return None;
        }
        let key = ObjectKey::new(meta.namespace.as_deref()?, &controller.name);
        let owner = self.owners.get(&key)?;
        (object::uid_of(owner.meta()) == controller.uid).then_some(key)
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(object) = self.owners.get(key) else {
            self.expectations.forget(key);
            return Ok(Next::Done);
        };
        let owner = match object.project() {
            Ok(owner) => owner,
            Err(problem) => {
                tracing::warn!(kind = %K::kind(&()), %key, problem, "ignored until it is changed");
                return Ok(Next::Done);
            }
        };
        // Asked before the Pods are read: what is fulfilled now is visible below.
        let caught_up = self.expectations.are_fulfilled(key);
        let mut candidates = self
            .cluster
            .pods
            .find(&cluster::by_controller(), &owner.uid);
        candidates.extend(self.cluster.pods.find(&cluster::orphans(), &key.namespace));
        let claim = plan::claim(&owner, candidates);
        if !claim.adopt.is_empty() {
            self.confirm_owner(&owner).await?;
        }
        for pod in &claim.adopt {
            self.adopt(&owner, pod).await?;
        }
        for pod in &claim.release {
            self.release(&owner, pod).await?;
        }

        let (mut failure, mut failed) = (None, Ok(()));
        if caught_up {
            match plan::scale(&owner, &claim.owned) {
                Scale::Keep => {}
                Scale::Create(count) => {
                    let new = vec![new_pod::<K>(&owner); count];
                    let created = self
                        .control
                        .create_all(object.as_ref(), &self.expectations, &new)
                        .await;
                    if let Err(error) = created {
                        failure = Some(("FailedCreate", error.told()));
                        failed = Err(error);
                    }
                }
                Scale::Delete(count) => {
                    if let Err(error) = self.delete(object.as_ref(), &claim.owned, count).await {
                        failure = Some(("FailedDelete", error.told()));
                        failed = Err(error);
                    }
                }
            }
        }
        let now = Timestamp::now();
        let status = plan::status(&owner, &claim.owned, failure, now);
        if status != owner.status {
            let api = self.cluster.api::<K>(&key.namespace);
            let patch = Patch::Merge(status.to_patch(&owner.uid));
            or_gone(
                api.patch_status(&key.name, &cluster::patch(), &patch)
                    .await
                    .during("write status of", key),
            )?;
        }
        failed?;
        let wake = plan::wake(&owner, &claim.owned, now);
        Ok(if caught_up {
            wake.into()
        } else {
            Next::After(wake.unwrap_or(RECHECK).min(RECHECK))
        })
    }

    /// Makes sure by asking the API server that the owner lives, before it takes in a Pod: the cache may show an
    /// owner that is gone, and a Pod given to it would be collected as garbage.
    async fn confirm_owner(&self, owner: &Owner) -> Result<(), Error> {
        let api = self.cluster.api::<K>(&owner.key.namespace);
        let fresh = api
            .get_metadata(&owner.key.name)
            .await
            .during("read", &owner.key)?;
        if object::uid_of(&fresh.metadata) != owner.uid || object::is_deleting(&fresh.metadata) {
            return Err(Error::Stale {
                object: owner.key.to_string(),
            });
        }
        Ok(())
    }

    async fn adopt(&self, owner: &Owner, pod: &Pod) -> Result<(), Error> {
        let mut owners = object::owners_of(&pod.metadata).to_vec();
        owners.push(owner_reference::<K>(&owner.key.name, &owner.uid));
        self.patch_owners(pod, owners, "adopt Pod").await
    }

    async fn release(&self, owner: &Owner, pod: &Pod) -> Result<(), Error> {
        let mut owners = object::owners_of(&pod.metadata).to_vec();
        owners.retain(|one| one.uid != owner.uid);
        self.patch_owners(pod, owners, "release Pod").await
    }

    async fn patch_owners(
        &self,
        pod: &Pod,
        owners: Vec<OwnerReference>,
        operation: &'static str,
    ) -> Result<(), Error> {
        let key = ObjectKey::of(&pod.metadata);
        let patch = serde_json::json!({ "metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
            "ownerReferences": owners,
        }});
        let api = self.cluster.api::<Pod>(&key.namespace);
        or_gone(
            api.patch(&key.name, &cluster::patch(), &Patch::Merge(&patch))
                .await
                .during(operation, &key),
        )?;
        Ok(())
    }

    async fn delete(&self, object: &K, owned: &[Arc<Pod>], count: usize) -> Result<(), Error> {
        let mut pods: Vec<Arc<Pod>> = owned
            .iter()
            .filter(|pod| crate::pod::is_active(pod))
            .cloned()
            .collect();
        rank::by_deletion_order(&mut pods, &self.related(object, owned), Timestamp::now());
        pods.truncate(count);
        self.control
            .delete_all(object, &self.expectations, &pods)
            .await
    }

    /// The Pods that should stay spread together: those of all siblings under the same Deployment.
    fn related(&self, object: &K, owned: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(parent) = object::controller_of(object.meta()) else {
            return owned.to_vec();
        };
        let siblings = self
            .cluster
            .replica_sets
            .find(&cluster::by_controller(), &parent.uid);
        let pods = siblings.iter().flat_map(|sibling| {
            self.cluster
                .pods
                .find(&cluster::by_controller(), object::uid_of(&sibling.metadata))
        });
        pods.collect()
    }
}

fn owner_reference<K: Workload>(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A Pod of the owner's template; the API server completes the name.
fn new_pod<K: Workload>(owner: &Owner) -> Pod {
    let template = owner.template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.key.name)),
            namespace: Some(owner.key.namespace.clone()),
            labels: template.labels,
            annotations: template.annotations,
            finalizers: template.finalizers,
            owner_references: Some(vec![owner_reference::<K>(&owner.key.name, &owner.uid)]),
            ..ObjectMeta::default()
        },
        spec: owner.template.spec.clone(),
        status: None,
    }
}
