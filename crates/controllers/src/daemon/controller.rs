//! The loop: from events of DaemonSets, Pods, nodes and revisions to keys, from plans to writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Patch;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::model::Target;
use super::plan::{self, Places, Plan};
use super::pods::HASH_LABEL;
use super::{placement, pods, status};
use crate::cache::Change;
use crate::claim;
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::events::{self, Recorder};
use crate::expectations::Expectations;
use crate::history::{self, Kept};
use crate::object::{self, ObjectKey};
use crate::pod;
use crate::pod_control::{PodControl, Words};
use crate::queue::{Next, Queue};

const NAME: &str = "daemonset-controller";
/// DaemonSets worked on at the same time.
const PARALLEL: usize = 4;
/// How often outstanding writes are looked at again, should their events never come.
const RECHECK: Duration = Duration::from_secs(60);
/// Pause before a Pod that ended is replaced; it doubles for each on the same node. Source: `failedPodsBackoff`.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Keeps the Pods of all DaemonSets.
pub(crate) struct Daemons {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
    expectations: Expectations<ObjectKey>,
    events: Recorder,
    control: PodControl,
    pauses: Mutex<HashMap<(String, String), Pause>>,
}

/// How long the next replacement on a node waits, and until when the last one did.
#[derive(Debug, Clone, Copy)]
struct Pause {
    length: Duration,
    until: Instant,
}

impl Daemons {
    /// Listens to the caches; [`Daemons::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let events = cluster.events.named(NAME);
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            expectations: Expectations::new(),
            control: PodControl::new(cluster, events.clone(), Words::Plain),
            events,
            pauses: Mutex::new(HashMap::new()),
        });
        let queue = this.queue.clone();
        cluster.daemon_sets.on_change(move |change| {
            queue.add(ObjectKey::of(&change.latest().metadata));
        });
        let listener = Arc::clone(&this);
        cluster
            .pods
            .on_change(move |change| listener.pod_changed(change));
        let listener = Arc::clone(&this);
        cluster
            .nodes
            .on_change(move |change| listener.node_changed(change));
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
            .daemon_sets
            .find(&cluster::by_namespace(), namespace)
        {
            let meant = Target::project(&set)
                .is_ok_and(|target| target.selector.matches(object::labels_of(&orphan.metadata)));
            if meant {
                self.queue.add(ObjectKey::of(&set.metadata));
            }
        }
    }

    /// A node's heartbeat is no change; what bears on where Pods can run is.
    fn node_changed(&self, change: &Change<Node>) {
        let relevant = |node: &Node| {
            let spec = node.spec.clone().unwrap_or_default();
            let conditions = node
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten());
            let ready = conditions
                .filter(|one| one.type_ == "Ready")
                .map(|one| one.status.clone())
                .next();
            (
                node.metadata.labels.clone(),
                spec.taints,
                spec.unschedulable,
                ready,
            )
        };
        if let Change::Modified { old, new } = change
            && relevant(old) == relevant(new)
        {
            return;
        }
        for set in self.cluster.daemon_sets.all() {
            self.queue.add(ObjectKey::of(&set.metadata));
        }
    }

    fn owner_key(&self, meta: &ObjectMeta) -> Option<ObjectKey> {
        let controller = object::controller_of(meta).filter(|owner| owner.kind == "DaemonSet")?;
        let key = ObjectKey::new(meta.namespace.as_deref()?, &controller.name);
        let set = self.cluster.daemon_sets.get(&key)?;
        (object::uid_of(&set.metadata) == controller.uid).then_some(key)
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(set) = self.cluster.daemon_sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Next::Done);
        };
        let target = match Target::project(&set) {
            Ok(target) => target,
            Err(problem) => {
                let about = events::reference::<DaemonSet>(&set.metadata);
                self.events.warning(about, "SelectingAll", problem);
                return Ok(Next::Done);
            }
        };
        // Asked before the Pods are read: what is fulfilled now is visible below.
        let caught_up = self.expectations.are_fulfilled(key);
        let (Some(hash), revisions) = self.revision(&target).await? else {
            return Err(Error::Stale {
                object: key.to_string(),
            });
        };
        let owned = self.claim(&target).await?;
        let unusable = |problem| Error::Object {
            object: format!("DaemonSet {key}"),
            problem,
        };
        let mut places = Places::new();
        for node in self.cluster.nodes.all() {
            let name = node.metadata.name.clone().unwrap_or_default();
            places.insert(name, placement::place(&target, &node).map_err(unusable)?);
        }
        let filed = plan::by_node(&owned);
        let now = Timestamp::now();
        let mut done = Ok(None);
        if caught_up {
            let plan = plan::plan(&target, &hash, &places, &filed, now).map_err(unusable)?;
            done = self.apply(&set, &target, &hash, plan).await;
        }
        self.write_status(
            &target,
            &status::status(&target, &hash, &places, &filed, now),
        )
        .await?;
        let pause = done?;
        if !object::is_deleting(&target.meta) {
            let live = owned.iter().filter_map(|pod| {
                let hash = object::labels_of(&pod.metadata).get(HASH_LABEL)?;
                Some(format!("{}-{hash}", key.name))
            });
            let live: HashSet<String> = live.chain([format!("{}-{hash}", key.name)]).collect();
            let gone = history::superfluous(&revisions, &live, target.revision_history_limit);
            history::prune(&self.cluster, &gone).await?;
        }
        let wake = pause
            .into_iter()
            .chain(status::wake(&target, &filed, now))
            .min();
        Ok(if caught_up {
            wake.into()
        } else {
            Next::After(wake.unwrap_or(RECHECK).min(RECHECK))
        })
    }

    /// The hash of the present template, recorded as the newest revision, and all revisions. No hash when another
    /// template has the same one: the count of collisions went up, and it is to be tried again.
    async fn revision(
        &self,
        target: &Target,
    ) -> Result<(Option<String>, Vec<Arc<ControllerRevision>>), Error> {
        let all = &self.cluster.controller_revisions;
        let mut candidates = all.find(&cluster::by_controller(), object::uid_of(&target.meta));
        candidates.extend(all.find(&cluster::orphans(), &target.key.namespace));
        let meant =
            |one: &ControllerRevision| target.selector.matches(object::labels_of(&one.metadata));
        let claim = claim::sort(&target.meta, candidates, meant, |_| true);
        claim::settle::<DaemonSet, _>(&self.cluster, &target.meta, &claim, None).await?;
        let revisions = claim.owned;
        let owner = history::Owner {
            key: target.key.clone(),
            reference: claim::owner_reference::<DaemonSet>(&target.meta),
            template: target.template.clone(),
            collisions: target.status.collision_count,
            hash_label: HASH_LABEL,
            annotations: target.meta.annotations.clone().unwrap_or_default(),
        };
        let hash = |revision: &ControllerRevision| {
            object::labels_of(&revision.metadata)
                .get(HASH_LABEL)
                .cloned()
                .unwrap_or_default()
        };
        let current = history::current(&owner, &revisions);
        if object::is_deleting(&target.meta) {
            // Nothing new is recorded of what goes.
            return Ok(match current {
                history::Current::Present(one) | history::Current::Again(one, _) => {
                    (Some(hash(&one)), revisions)
                }
                history::Current::New(one) => (Some(hash(&one)), revisions),
            });
        }
        match history::keep(&self.cluster, &owner, current).await? {
            Kept::Revision(one) => Ok((Some(hash(&one)), revisions)),
            Kept::Collision => {
                let mut status = target.status.clone();
                status.collision_count =
                    Some(status.collision_count.unwrap_or(0).saturating_add(1));
                self.write_status(target, &status).await?;
                Ok((None, revisions))
            }
        }
    }

    async fn claim(&self, target: &Target) -> Result<Vec<Arc<Pod>>, Error> {
        let all = &self.cluster.pods;
        let mut candidates = all.find(&cluster::by_controller(), object::uid_of(&target.meta));
        candidates.extend(all.find(&cluster::orphans(), &target.key.namespace));
        let meant = |pod: &Pod| target.selector.matches(object::labels_of(&pod.metadata));
        let claim = claim::sort(&target.meta, candidates, meant, pod::is_active);
        claim::settle::<DaemonSet, _>(&self.cluster, &target.meta, &claim, None).await?;
        Ok(claim.owned)
    }

    /// Carries the plan out. The answer is when a pause ends.
    async fn apply(
        &self,
        set: &DaemonSet,
        target: &Target,
        hash: &str,
        plan: Plan,
    ) -> Result<Option<Duration>, Error> {
        let (ended, pause) = self.after_their_pause(set, plan.ended);
        let mut delete = plan.delete;
        delete.extend(ended);
        let deleted = self
            .control
            .delete_all(set, &self.expectations, &delete)
            .await;
        let new: Vec<Pod> = plan
            .create
            .iter()
            .map(|node| pods::new_pod(target, hash, node))
            .collect();
        self.control
            .create_all(set, &self.expectations, &new)
            .await?;
        deleted?;
        Ok(pause)
    }

    /// Of the Pods that ended, those whose pause is over, and when the next one is.
    fn after_their_pause(
        &self,
        set: &DaemonSet,
        ended: Vec<(String, Arc<Pod>)>,
    ) -> (Vec<Arc<Pod>>, Option<Duration>) {
        let now = Instant::now();
        let mut pauses = self.pauses.lock();
        pauses.retain(|_, pause| now.duration_since(pause.until) < LAST_PAUSE * 2);
        let (mut due, mut next): (Vec<Arc<Pod>>, Option<Duration>) = (Vec::new(), None);
        for (node, pod) in ended {
            let key = (object::uid_of(&set.metadata).to_owned(), node.clone());
            if let Some(pause) = pauses.get(&key).filter(|pause| pause.until > now) {
                let left = pause.until - now;
                next = Some(next.map_or(left, |next| next.min(left)));
                continue;
            }
            let length = pauses
                .get(&key)
                .map_or(FIRST_PAUSE, |pause| (pause.length * 2).min(LAST_PAUSE));
            pauses.insert(
                key,
                Pause {
                    length,
                    until: now + length,
                },
            );
            let about = events::reference::<DaemonSet>(&set.metadata);
            let name = format!(
                "{}/{}",
                ObjectKey::of(&set.metadata).namespace,
                object_name(&pod)
            );
            if pod::phase(&pod) == "Failed" {
                let message =
                    format!("Found failed daemon pod {name} on node {node}, will try to kill it");
                self.events.warning(about, "FailedDaemonPod", message);
            } else {
                let message = format!(
                    "Found succeeded daemon pod {name} on node {node}, will try to delete it"
                );
                self.events.normal(about, "SucceededDaemonPod", message);
            }
            due.push(pod);
        }
        (due, next)
    }

    async fn write_status(
        &self,
        target: &Target,
        status: &k8s_openapi::api::apps::v1::DaemonSetStatus,
    ) -> Result<(), Error> {
        // As it is read back, absent and zero are the same.
        if json!(status) == json!(target.status) {
            return Ok(());
        }
        let patch = status::to_patch(target.meta.uid.as_deref(), status);
        let api = self.cluster.api::<DaemonSet>(&target.key.namespace);
        let answer = api
            .patch_status(&target.key.name, &cluster::patch(), &Patch::Merge(&patch))
            .await;
        or_gone(answer.during("write status of DaemonSet", &target.key))?;
        Ok(())
    }
}

fn object_name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}
