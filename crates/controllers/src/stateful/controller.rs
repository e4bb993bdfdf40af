//! The loop: from events of StatefulSets, Pods and revisions to keys, from plans to writes.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Patch;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::model::Target;
use super::plan::{self, Action, Revision, Revisions};
use super::{pods, status};
use crate::cache::Change;
use crate::claim;
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::events::{self, Recorder};
use crate::history::{self, Kept};
use crate::object::{self, ObjectKey};
use crate::pod;
use crate::pod_control::{PodControl, Words};
use crate::queue::{Next, Queue};

const NAME: &str = "statefulset-controller";
/// StatefulSets worked on at the same time.
const PARALLEL: usize = 8;
/// Label on revisions: the hash of their template.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// Keeps the Pods of all StatefulSets.
///
/// What it wrote and does not see yet needs no memory: a name is created once, and a Pod is deleted by its UID.
pub(crate) struct Stateful {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
    events: Recorder,
    control: PodControl,
}

impl Stateful {
    /// Listens to the caches; [`Stateful::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let events = cluster.events.named(NAME);
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            control: PodControl::new(cluster, events.clone(), Words::StatefulSet),
            events,
        });
        let queue = this.queue.clone();
        cluster.stateful_sets.on_change(move |change| {
            queue.add(ObjectKey::of(&change.latest().metadata));
        });
        let listener = Arc::clone(&this);
        cluster
            .pods
            .on_change(move |change| listener.pod_changed(change));
        let listener = Arc::clone(&this);
        cluster.controller_revisions.on_change(move |change| {
            for revision in change.states() {
                if let Some(key) = listener.owner_key(&revision.metadata) {
                    listener.queue.add(key);
                }
            }
        });
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

    fn pod_changed(&self, change: &Change<Pod>) {
        for pod in change.states() {
            if let Some(key) = self.owner_key(&pod.metadata) {
                self.queue.add(key);
            }
        }
        let Some(orphan) = change
            .after()
            .filter(|pod| object::controller_of(&pod.metadata).is_none())
        else {
            return;
        };
        let unchanged = change
            .before()
            .is_some_and(|old| old.metadata.labels == orphan.metadata.labels);
        if unchanged {
            return;
        }
        let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
        for set in self
            .cluster
            .stateful_sets
            .find(&cluster::by_namespace(), namespace)
        {
            if Target::project(&set).is_ok_and(|target| is_meant(&target, orphan)) {
                self.queue.add(ObjectKey::of(&set.metadata));
            }
        }
    }

    fn owner_key(&self, meta: &ObjectMeta) -> Option<ObjectKey> {
        let controller = object::controller_of(meta).filter(|owner| owner.kind == "StatefulSet")?;
        Some(ObjectKey::new(meta.namespace.as_deref()?, &controller.name))
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(set) = self.cluster.stateful_sets.get(key) else {
            return Ok(Next::Done);
        };
        let target = match Target::project(&set) {
            Ok(target) => target,
            Err(problem) => {
                tracing::warn!(%key, problem, "StatefulSet is ignored until it is changed");
                return Ok(Next::Done);
            }
        };
        let recorded = self.revisions(&target).await?;
        let Some((update, all)) = self.newest(&target, recorded).await? else {
            return Err(Error::Stale {
                object: key.to_string(),
            });
        };
        let name = |one: &ControllerRevision| one.metadata.name.clone().unwrap_or_default();
        let update_name = name(&update);
        let before = target.status.current_revision.clone().unwrap_or_default();
        let current = all
            .iter()
            .find(|one| name(one) == before)
            .unwrap_or(&update);
        let current_name = name(current);
        let current_template: PodTemplateSpec =
            history::template(current).unwrap_or_else(|| target.template.clone());
        let owned = self.claim(&target).await?;
        let revisions = Revisions {
            current: Revision {
                name: &current_name,
                template: &current_template,
            },
            update: Revision {
                name: &update_name,
                template: &target.template,
            },
        };
        let now = Timestamp::now();
        let actions = plan::plan(&target, &revisions, &owned, now);
        let mut outcome = Ok(());
        for action in actions {
            // What comes next must not overtake what failed.
            if let Err(error) = self.act(&set, action).await {
                outcome = Err(error);
                break;
            }
        }
        let figures = status::status(&target, &current_name, &update_name, &owned, now);
        self.write_status(&target, &figures).await?;
        outcome?;
        if !object::is_deleting(&target.meta) {
            let live = owned.iter().map(|pod| pods::revision(pod).to_owned());
            let live: HashSet<String> = live.chain([current_name, update_name]).collect();
            let gone = history::superfluous(&all, &live, target.revision_history_limit);
            history::prune(&self.cluster, &gone).await?;
        }
        Ok(status::wake(&target, &owned, now).into())
    }

    async fn revisions(&self, target: &Target) -> Result<Vec<Arc<ControllerRevision>>, Error> {
        let all = &self.cluster.controller_revisions;
        let mut candidates = all.find(&cluster::by_controller(), object::uid_of(&target.meta));
        candidates.extend(all.find(&cluster::orphans(), &target.key.namespace));
        let meant =
            |one: &ControllerRevision| target.selector.matches(object::labels_of(&one.metadata));
        let claim = claim::sort(&target.meta, candidates, meant, |_| true);
        claim::settle::<StatefulSet, _>(&self.cluster, &target.meta, &claim, None).await?;
        Ok(claim.owned)
    }

    /// The revision of the present template, which is the newest, and all. `None` when another template has the same
    /// hash: the count of collisions went up, and it is to be tried again.
    async fn newest(
        &self,
        target: &Target,
        mut all: Vec<Arc<ControllerRevision>>,
    ) -> Result<Option<(Arc<ControllerRevision>, Vec<Arc<ControllerRevision>>)>, Error> {
        let owner = history::Owner {
            key: target.key.clone(),
            reference: claim::owner_reference::<StatefulSet>(&target.meta),
            template: target.template.clone(),
            collisions: Some(target.status.collision_count.unwrap_or(0)),
            hash_label: HASH_LABEL,
            annotations: std::collections::BTreeMap::new(),
        };
        let current = history::current(&owner, &all);
        if object::is_deleting(&target.meta) {
            // Nothing new is recorded of what goes.
            let newest = match current {
                history::Current::Present(one) | history::Current::Again(one, _) => one,
                history::Current::New(one) => Arc::new(*one),
            };
            return Ok(Some((newest, all)));
        }
        match history::keep(&self.cluster, &owner, current).await? {
            Kept::Revision(newest) => {
                if !all
                    .iter()
                    .any(|one| one.metadata.uid == newest.metadata.uid)
                {
                    all.push(Arc::clone(&newest));
                }
                Ok(Some((newest, all)))
            }
            Kept::Collision => {
                let mut status = target.status.clone();
                status.collision_count =
                    Some(status.collision_count.unwrap_or(0).saturating_add(1));
                self.write_status(target, &status).await?;
                Ok(None)
            }
        }
    }

    async fn claim(&self, target: &Target) -> Result<Vec<Arc<Pod>>, Error> {
        let all = &self.cluster.pods;
        let mut candidates = all.find(&cluster::by_controller(), object::uid_of(&target.meta));
        candidates.extend(all.find(&cluster::orphans(), &target.key.namespace));
        let claim = claim::sort(
            &target.meta,
            candidates,
            |pod| is_meant(target, pod),
            pod::is_active,
        );
        claim::settle::<StatefulSet, _>(&self.cluster, &target.meta, &claim, None).await?;
        Ok(claim.owned)
    }

    async fn act(&self, set: &StatefulSet, action: Action) -> Result<(), Error> {
        match action {
            Action::Create(pod) => match self.control.create(set, &pod).await {
                Ok(_) => Ok(()),
                // Made in an earlier round that the cache does not show yet, or somebody else's: the next round sees.
                Err(error) if error.is_already_exists() => Err(Error::Stale {
                    object: ObjectKey::of(&pod.metadata).to_string(),
                }),
                Err(error) => Err(error),
            },
            Action::Delete(pod) => self.control.delete(set, &pod).await,
            Action::Remake(pod) => {
                let key = ObjectKey::of(&set.metadata);
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let message = format!("StatefulSet {key} is recreating terminated Pod {name}");
                let about = events::reference::<StatefulSet>(&set.metadata);
                self.events
                    .normal(about, "RecreatingTerminatedPod", message);
                self.control.delete(set, &pod).await
            }
            Action::Label(pod, labels) => {
                let key = ObjectKey::of(&pod.metadata);
                let patch = json!({ "metadata": { "uid": pod.metadata.uid, "labels": labels } });
                let api = self.cluster.api::<Pod>(&key.namespace);
                let answer = api
                    .patch(&key.name, &cluster::patch(), &Patch::Merge(&patch))
                    .await;
                or_gone(answer.during("label Pod", &key))?;
                Ok(())
            }
        }
    }

    async fn write_status(
        &self,
        target: &Target,
        figures: &StatefulSetStatus,
    ) -> Result<(), Error> {
        if json!(figures) == json!(target.status) {
            return Ok(());
        }
        let patch = status::to_patch(target, figures);
        let api = self.cluster.api::<StatefulSet>(&target.key.namespace);
        let answer = api
            .patch_status(&target.key.name, &cluster::patch(), &Patch::Merge(&patch))
            .await;
        or_gone(answer.during("write status of StatefulSet", &target.key))?;
        Ok(())
    }
}

/// Whether the Pod is meant: by its labels and by its name.
fn is_meant(target: &Target, pod: &Pod) -> bool {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    target.selector.matches(object::labels_of(&pod.metadata)) && target.ordinal(name).is_some()
}
