//! The loop that listens for heartbeats, says which nodes are silent, taints them, and marks their Pods.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::Patch;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::health::{self, Verdict, condition_status};
use super::taints;
use crate::cache::Change;
use crate::cluster::{self, Cluster, PODS_BY_NODE};
use crate::error::{Context, Error, or_gone};
use crate::events::{self, Recorder};
use crate::object::ObjectKey;
use crate::pod;
use crate::queue::{Next, Queue};

const NAME: &str = "node-controller";
/// Where the nodes' Leases are.
const LEASES: &str = "kube-node-lease";
/// Nodes worked on at the same time.
const PARALLEL: usize = 8;

/// Watches over the nodes.
pub(crate) struct Lifecycle {
    cluster: Arc<Cluster>,
    queue: Queue<String>,
    grace: Duration,
    /// When each node was last heard of, by this process' clock: the nodes' clocks may be wrong.
    heard: Mutex<HashMap<String, Instant>>,
    events: Recorder,
}

impl Lifecycle {
    /// Listens to the caches; [`Lifecycle::run`] does the work. A node is silent after `grace`.
    pub(crate) fn new(cluster: &Arc<Cluster>, grace: Duration) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            grace,
            heard: Mutex::new(HashMap::new()),
            events: cluster.events.named(NAME),
        });
        let listener = Arc::clone(&this);
        cluster
            .nodes
            .on_change(move |change| listener.node_changed(change));
        let listener = Arc::clone(&this);
        cluster
            .leases
            .on_change(move |change| listener.lease_changed(change));
        this
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.clone();
        queue
            .run(NAME, PARALLEL, shutdown, |name| {
                let this = Arc::clone(&self);
                async move { this.reconcile(&name).await }
            })
            .await;
    }

    fn node_changed(&self, change: &Change<Node>) {
        let name = change.latest().metadata.name.clone().unwrap_or_default();
        let about = events::reference::<Node>(&change.latest().metadata);
        let Some(node) = change.after() else {
            self.heard.lock().remove(&name);
            let message = format!("Node {name} event: Removing Node {name} from Controller");
            self.events.normal(about, "RemovingNode", message);
            return;
        };
        if change.before().is_none() {
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            self.events.normal(about.clone(), "RegisteredNode", message);
        }
        if change
            .before()
            .is_none_or(|old| heartbeat(old) != heartbeat(node))
        {
            self.heard.lock().insert(name.clone(), Instant::now());
        }
        if let Some(old) = change.before()
            && condition_status(old, "Ready") == Some("True")
            && matches!(condition_status(node, "Ready"), Some("False" | "Unknown"))
        {
            let message = format!("Node {name} status is now: NodeNotReady");
            self.events.normal(about, "NodeNotReady", message);
        }
        self.queue.add(name);
    }

    fn lease_changed(&self, change: &Change<Lease>) {
        let Some(lease) = change
            .after()
            .filter(|lease| lease.metadata.namespace.as_deref() == Some(LEASES))
        else {
            return;
        };
        let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        if change
            .before()
            .is_some_and(|old| renewed(old) == renewed(lease))
        {
            return;
        }
        let name = lease.metadata.name.clone().unwrap_or_default();
        // Only a node that was given up needs a look now; the others are looked at when their grace is over.
        self.heard.lock().insert(name, Instant::now());
    }

    async fn reconcile(&self, name: &str) -> Result<Next, Error> {
        let Some(node) = self.cluster.nodes.get(&ObjectKey::cluster(name)) else {
            return Ok(Next::Done);
        };
        let now = Timestamp::now();
        let heard = *self
            .heard
            .lock()
            .entry(name.to_owned())
            .or_insert_with(Instant::now);
        let wake = match health::judge(&node, heard.elapsed(), self.grace, now) {
            Verdict::Alive(left) => Next::After(left),
            Verdict::Silent(conditions) => {
                // The event of this write brings the node back for its taints.
                self.write_conditions(&node, name, conditions).await?;
                return Ok(Next::Done);
            }
            Verdict::KnownSilent => Next::Done,
        };
        if let Some(taints) = taints::plan(&node, now) {
            let patch = json!({
                "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
                "spec": { "taints": taints },
            });
            or_gone(
                self.api()
                    .patch(name, &cluster::patch(), &Patch::Merge(&patch))
                    .await
                    .during("taint node", name),
            )?;
        }
        if condition_status(&node, "Ready") == Some("Unknown") {
            self.mark_pods(name, now).await?;
        }
        Ok(wake)
    }

    async fn write_conditions(
        &self,
        node: &Node,
        name: &str,
        conditions: Vec<NodeCondition>,
    ) -> Result<(), Error> {
        // The version matters: if the node spoke meanwhile, its word stands.
        let patch = json!({
            "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
            "status": { "conditions": conditions },
        });
        let answer = self
            .api()
            .patch_status(name, &cluster::patch(), &Patch::Strategic(&patch))
            .await;
        or_gone(answer.during("mark as silent the node", name))?;
        Ok(())
    }

    /// Nobody answers for the Pods of a silent node, so no Service should count on them.
    async fn mark_pods(&self, node: &str, now: Timestamp) -> Result<(), Error> {
        for pod in self
            .cluster
            .pods
            .find(&PODS_BY_NODE, node)
            .iter()
            .filter(|pod| pod::is_ready(pod))
        {
            let key = ObjectKey::of(&pod.metadata);
            let patch = json!({
                "metadata": { "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version },
                "status": { "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": Time(now) }] },
            });
            let api = self.cluster.api::<Pod>(&key.namespace);
            let answer = api
                .patch_status(&key.name, &cluster::patch(), &Patch::Strategic(&patch))
                .await;
            if or_gone(answer.during("mark as not ready the Pod", &key))?.is_some() {
                let about = events::reference::<Pod>(&pod.metadata);
                self.events
                    .warning(about, "NodeNotReady", "Node is not ready".to_owned());
            }
        }
        Ok(())
    }

    fn api(&self) -> Api<Node> {
        Api::all(self.cluster.client.clone())
    }
}

/// The time that the node's own status last gave.
fn heartbeat(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .filter_map(|one| one.last_heartbeat_time.as_ref())
        .map(|time| time.0)
        .max()
}
