//! The loop: from events of Jobs and Pods to keys, from plans to writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, Preconditions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::backoff::Tempo;
use super::conditions;
use super::model::{TRACKING, Target};
use super::plan::{self, Seen};
use crate::cache::Change;
use crate::claim;
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::events::{self, Recorder};
use crate::expectations::Expectations;
use crate::object::{self, ObjectKey};
use crate::pod;
use crate::pod_control::{PodControl, Words};
use crate::queue::{Next, Queue};

const NAME: &str = "job-controller";
/// Jobs worked on at the same time.
const PARALLEL: usize = 8;
/// How often outstanding writes are looked at again, should their events never come.
const RECHECK: Duration = Duration::from_secs(60);

/// Runs all Jobs.
pub(crate) struct Jobs {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
    /// Pods with the finalizer of a Job that is no more.
    strays: Queue<ObjectKey>,
    expectations: Expectations<ObjectKey>,
    events: Recorder,
    control: PodControl,
    /// By Job, the Pods whose finalizer was removed though the cache may show it still.
    released: Mutex<HashMap<ObjectKey, HashSet<String>>>,
    tempo: Tempo,
}

impl Jobs {
    /// Listens to the caches; [`Jobs::run`] does the work. `first_pause` is the one after the first failure.
    pub(crate) fn new(cluster: &Arc<Cluster>, first_pause: Duration) -> Arc<Self> {
        let events = cluster.events.named(NAME);
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            strays: Queue::new(),
            expectations: Expectations::new(),
            control: PodControl::new(cluster, events.clone(), Words::Plain),
            events,
            released: Mutex::new(HashMap::new()),
            tempo: Tempo(first_pause),
        });
        let listener = Arc::clone(&this);
        cluster
            .jobs
            .on_change(move |change| listener.job_changed(change));
        let listener = Arc::clone(&this);
        cluster
            .pods
            .on_change(move |change| listener.pod_changed(change));
        this
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let jobs = self
            .queue
            .clone()
            .run(NAME, PARALLEL, shutdown.clone(), |key| {
                let this = Arc::clone(&self);
                async move { this.reconcile(&key).await }
            });
        let strays = self.strays.clone().run(NAME, PARALLEL, shutdown, |key| {
            let this = Arc::clone(&self);
            async move { this.free_stray(&key).await }
        });
        tokio::join!(jobs, strays);
    }

    fn job_changed(&self, change: &Change<Job>) {
        self.queue.add(ObjectKey::of(&change.latest().metadata));
        if let Change::Removed(job) = change {
            let uid = object::uid_of(&job.metadata);
            for pod in self.cluster.pods.find(&cluster::by_controller(), uid) {
                self.strays.add(ObjectKey::of(&pod.metadata));
            }
        }
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        for pod in change.states() {
            let Some(key) = self.owner_key(&pod.metadata) else {
                continue;
            };
            if matches!(change, Change::Added(_)) {
                self.expectations.creation_observed(&key);
            }
            if change
                .after()
                .is_none_or(|new| object::is_deleting(&new.metadata))
            {
                self.expectations
                    .deletion_observed(&key, object::uid_of(&pod.metadata));
            }
            self.queue.add(key);
        }
        let Some(pod) = change.after() else { return };
        if object::has_finalizer(&pod.metadata, TRACKING) && self.owner_key(&pod.metadata).is_none()
        {
            self.strays.add(ObjectKey::of(&pod.metadata));
        }
        let relabelled = change.before().is_none_or(|old| {
            object::controller_of(&old.metadata).is_some()
                || old.metadata.labels != pod.metadata.labels
        });
        if object::controller_of(&pod.metadata).is_some() || !relabelled {
            return;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for job in self.cluster.jobs.find(&cluster::by_namespace(), namespace) {
            let target = Target::project(&job).ok().flatten();
            if target
                .is_some_and(|target| target.selector.matches(object::labels_of(&pod.metadata)))
            {
                self.queue.add(ObjectKey::of(&job.metadata));
            }
        }
    }

    /// The Job that manages the object, if it is there.
    fn owner_key(&self, meta: &ObjectMeta) -> Option<ObjectKey> {
        let controller = object::controller_of(meta).filter(|owner| owner.kind == "Job")?;
        let key = ObjectKey::new(meta.namespace.as_deref()?, &controller.name);
        let job = self.cluster.jobs.get(&key)?;
        (object::uid_of(&job.metadata) == controller.uid).then_some(key)
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(job) = self.cluster.jobs.get(key) else {
            self.expectations.forget(key);
            self.released.lock().remove(key);
            return Ok(Next::Done);
        };
        let target = match Target::project(&job) {
            Ok(Some(target)) => target,
            Ok(None) => return Ok(Next::Done),
            Err(problem) => {
                tracing::warn!(%key, problem, "Job is ignored until it is changed");
                return Ok(Next::Done);
            }
        };
        // Asked before the Pods are read: what is fulfilled now is visible below.
        let caught_up = self.expectations.are_fulfilled(key);
        let owned = self.claim(&target).await?;
        let released = self.still_shown(key, &owned);
        if let Some(end) = conditions::end(&target.status) {
            let tracked = owned.iter().filter(|pod| {
                object::has_finalizer(&pod.metadata, TRACKING)
                    && !released.contains(object::uid_of(&pod.metadata))
            });
            self.release(key, &tracked.cloned().collect::<Vec<_>>())
                .await?;
            let ended = end.last_transition_time.as_ref().map(|time| time.0);
            return self.expire(&target, ended).await;
        }
        let seen = Seen {
            pods: &owned,
            released: &released,
            caught_up,
            now: Timestamp::now(),
            tempo: self.tempo,
        };
        let plan = plan::plan(&target, &seen);
        let deleted = self
            .control
            .delete_all(job.as_ref(), &self.expectations, &plan.delete)
            .await;
        let created = self
            .control
            .create_all(job.as_ref(), &self.expectations, &plan.create)
            .await;
        self.write_status(&target, &plan.status).await?;
        for tell in plan.tell {
            let about = events::reference::<Job>(&job.metadata);
            if tell.warning {
                self.events.warning(about, tell.reason, tell.message);
            } else {
                self.events.normal(about, tell.reason, tell.message);
            }
        }
        self.release(key, &plan.release).await?;
        deleted.and(created)?;
        Ok(if caught_up {
            plan.wake.into()
        } else {
            Next::After(plan.wake.unwrap_or(RECHECK).min(RECHECK))
        })
    }

    async fn claim(&self, target: &Target) -> Result<Vec<Arc<Pod>>, Error> {
        let all = &self.cluster.pods;
        let mut candidates = all.find(&cluster::by_controller(), object::uid_of(&target.meta));
        candidates.extend(all.find(&cluster::orphans(), &target.key.namespace));
        let meant = |pod: &Pod| target.selector.matches(object::labels_of(&pod.metadata));
        let claim = claim::sort(&target.meta, candidates, meant, pod::is_active);
        claim::settle::<Job, _>(&self.cluster, &target.meta, &claim, Some(TRACKING)).await?;
        Ok(claim.owned)
    }

    /// Of the Pods whose finalizer was removed, those that the cache still shows with it; the others are forgotten.
    fn still_shown(&self, key: &ObjectKey, owned: &[Arc<Pod>]) -> HashSet<String> {
        let mut all = self.released.lock();
        let Some(released) = all.get_mut(key) else {
            return HashSet::new();
        };
        released.retain(|uid| {
            owned.iter().any(|pod| {
                object::uid_of(&pod.metadata) == uid
                    && object::has_finalizer(&pod.metadata, TRACKING)
            })
        });
        let shown = released.clone();
        if shown.is_empty() {
            all.remove(key);
        }
        shown
    }

    async fn release(&self, key: &ObjectKey, pods: &[Arc<Pod>]) -> Result<(), Error> {
        for pod in pods {
            self.remove_finalizer(pod).await?;
            let uid = object::uid_of(&pod.metadata).to_owned();
            self.released
                .lock()
                .entry(key.clone())
                .or_default()
                .insert(uid);
        }
        Ok(())
    }

    async fn remove_finalizer(&self, pod: &Pod) -> Result<(), Error> {
        let key = ObjectKey::of(&pod.metadata);
        let patch = json!({ "metadata": {
            "uid": pod.metadata.uid,
            "$deleteFromPrimitiveList/finalizers": [TRACKING],
        }});
        let api = self.cluster.api::<Pod>(&key.namespace);
        let answer = api
            .patch(&key.name, &cluster::patch(), &Patch::Strategic(&patch))
            .await;
        match or_gone(answer.during("remove the finalizer of Pod", &key)) {
            // Another Pod has the name now, so this one is gone.
            Err(error) if error.is_conflict() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// A Pod whose Job is no more is counted by nobody.
    async fn free_stray(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(pod) = self.cluster.pods.get(key) else {
            return Ok(Next::Done);
        };
        let tracked = object::has_finalizer(&pod.metadata, TRACKING);
        if tracked && self.owner_key(&pod.metadata).is_none() {
            self.remove_finalizer(&pod).await?;
        }
        Ok(Next::Done)
    }

    /// Deletes a Job whose time after its end is over, or says when it will be.
    async fn expire(&self, target: &Target, ended: Option<Timestamp>) -> Result<Next, Error> {
        let (Some(ttl), Some(ended)) = (target.ttl, ended) else {
            return Ok(Next::Done);
        };
        if object::is_deleting(&target.meta) {
            return Ok(Next::Done);
        }
        let since = Duration::try_from(Timestamp::now().duration_since(ended)).unwrap_or_default();
        if let Some(left) = ttl.checked_sub(since).filter(|left| !left.is_zero()) {
            return Ok(Next::After(left));
        }
        let parameters = DeleteParams::foreground().preconditions(Preconditions {
            uid: target.meta.uid.clone(),
            resource_version: target.meta.resource_version.clone(),
        });
        let api = self.cluster.api::<Job>(&target.key.namespace);
        let answer = api.delete(&target.key.name, &parameters).await;
        or_gone(answer.during("delete Job", &target.key))?;
        Ok(Next::Done)
    }

    async fn write_status(&self, target: &Target, status: &JobStatus) -> Result<(), Error> {
        if json!(status) == json!(target.status) {
            return Ok(());
        }
        let patch = to_patch(target, status);
        let api = self.cluster.api::<Job>(&target.key.namespace);
        let answer = api
            .patch_status(&target.key.name, &cluster::patch(), &Patch::Merge(&patch))
            .await;
        or_gone(answer.during("write status of Job", &target.key))?;
        Ok(())
    }
}

/// As a merge patch on the Job as it was seen, because the figures were made from that; what is left out must be
/// written as null, or the patch would leave the old figure.
fn to_patch(target: &Target, status: &JobStatus) -> Value {
    let notes = status.uncounted_terminated_pods.clone().unwrap_or_default();
    json!({
        "metadata": { "uid": target.meta.uid, "resourceVersion": target.meta.resource_version },
        "status": {
            "active": status.active,
            "ready": status.ready,
            "terminating": status.terminating,
            "succeeded": status.succeeded,
            "failed": status.failed,
            "completedIndexes": status.completed_indexes,
            "failedIndexes": status.failed_indexes,
            "startTime": status.start_time,
            "completionTime": status.completion_time,
            "conditions": status.conditions,
            "uncountedTerminatedPods": { "succeeded": notes.succeeded, "failed": notes.failed },
        },
    })
}
