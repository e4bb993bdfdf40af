//! The loop: Pods without a node are decided on one by one and bound several at a time.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::Patch;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::demand::Demand;
use super::node::Offer;
use super::state::State;
use crate::cache::Change;
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::events::{self, Recorder};
use crate::object::{self, ObjectKey};
use crate::pod;
use crate::queue::{Next, Queue};

/// Pods that name no other scheduler are ours.
const NAME: &str = "default-scheduler";
/// Bindings under way at the same time.
const PARALLEL: usize = 32;

/// Gives Pods their nodes.
pub(crate) struct Scheduler {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
    state: Mutex<State>,
    /// Pods for which no node will do at present.
    waiting: Mutex<HashSet<ObjectKey>>,
    events: Recorder,
}

impl Scheduler {
    /// Listens to the caches; [`Scheduler::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            state: Mutex::new(State::default()),
            waiting: Mutex::new(HashSet::new()),
            events: cluster.events.named(NAME),
        });
        let listener = Arc::clone(&this);
        cluster
            .nodes
            .on_change(move |change| listener.node_changed(change));
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

    fn node_changed(&self, change: &Change<Node>) {
        let name = change.latest().metadata.name.as_deref().unwrap_or_default();
        let Some(node) = change.after() else {
            self.state.lock().withdraw(name);
            return;
        };
        match Offer::of(node) {
            Ok(offer) => {
                if self.state.lock().offer(offer) {
                    self.try_waiting();
                }
            }
            Err(problem) => {
                tracing::warn!(
                    node = name,
                    problem,
                    "node takes no Pods until this is mended"
                );
                self.state.lock().withdraw(name);
            }
        }
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.latest();
        let uid = object::uid_of(&pod.metadata);
        let key = ObjectKey::of(&pod.metadata);
        if change.after().is_none() || pod::is_terminal(pod) {
            self.waiting.lock().remove(&key);
            if self.state.lock().remove(uid) {
                self.try_waiting();
            }
            return;
        }
        if let Some(node) = pod::node_name(pod) {
            self.waiting.lock().remove(&key);
            // A Pod that cannot be read holds nothing; it got its node from somebody else.
            let demand = Demand::of(pod).unwrap_or_default();
            self.state.lock().place(uid, node, Arc::new(demand));
        } else if is_ours(pod) {
            self.queue.add(key);
        }
    }

    /// Something was freed or added: those that wait may have a chance.
    fn try_waiting(&self) {
        let waiting: Vec<ObjectKey> = self.waiting.lock().drain().collect();
        for key in waiting {
            self.queue.add(key);
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(pod) = self.cluster.pods.get(key).filter(|pod| is_ours(pod)) else {
            return Ok(Next::Done);
        };
        let uid = object::uid_of(&pod.metadata);
        let decision = match Demand::of(&pod) {
            Ok(demand) => self.decide(key, uid, demand),
            Err(problem) => Err(problem),
        };
        match decision {
            Ok(node) => {
                if let Err(error) = self.bind(key, uid, &node).await {
                    // An answer may be lost though the binding was made; then the cache knows better.
                    let bound = self
                        .cluster
                        .pods
                        .get(key)
                        .is_some_and(|pod| pod::node_name(&pod).is_some());
                    if !bound {
                        self.state.lock().remove(uid);
                    }
                    return or_gone(Err(error)).map(|_: Option<()>| Next::Done);
                }
                let message = format!("Successfully assigned {key} to {node}");
                self.events.normal(
                    events::reference::<Pod>(&pod.metadata),
                    "Scheduled",
                    message,
                );
            }
            Err(problem) => self.refuse(&pod, key, problem).await?,
        }
        Ok(Next::Done)
    }

    /// Decides and counts the Pod at once. One that finds no node waits; it is noted under the same lock, so that a
    /// change that comes between cannot be missed.
    fn decide(&self, key: &ObjectKey, uid: &str, demand: Demand) -> Result<String, String> {
        let mut state = self.state.lock();
        match state.decide(&demand) {
            Ok(node) => {
                state.place(uid, &node, Arc::new(demand));
                Ok(node)
            }
            Err(unfit) => {
                self.waiting.lock().insert(key.clone());
                Err(unfit.to_string())
            }
        }
    }

    async fn bind(&self, key: &ObjectKey, uid: &str, node: &str) -> Result<(), Error> {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                uid: Some(uid.to_owned()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let api = self.cluster.api::<Pod>(&key.namespace);
        let answer: Result<serde_json::Value, _> = api
            .create_subresource("binding", &key.name, &cluster::post(), &binding)
            .await;
        answer.during("bind Pod", key)?;
        Ok(())
    }

    /// Says on the Pod why it has no node.
    async fn refuse(&self, pod: &Pod, key: &ObjectKey, problem: String) -> Result<(), Error> {
        let present = pod::condition(pod, "PodScheduled");
        if present
            .is_some_and(|one| one.status == "False" && one.message.as_deref() == Some(&problem))
        {
            return Ok(());
        }
        self.events.warning(
            events::reference::<Pod>(&pod.metadata),
            "FailedScheduling",
            problem.clone(),
        );
        let since = present
            .filter(|one| one.status == "False")
            .and_then(|one| one.last_transition_time.clone());
        let patch = json!({
            "metadata": { "uid": pod.metadata.uid },
            "status": { "conditions": [{
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": problem,
                "lastTransitionTime": since.unwrap_or_else(|| Time(Timestamp::now())),
            }]},
        });
        let api = self.cluster.api::<Pod>(&key.namespace);
        or_gone(
            api.patch_status(&key.name, &cluster::patch(), &Patch::Strategic(&patch))
                .await
                .during("mark Pod", key),
        )?;
        Ok(())
    }
}

/// Whether this scheduler has to find the Pod a node now.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    pod::node_name(pod).is_none()
        && pod::is_active(pod)
        && spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}
