//! The loop that deletes Pods from nodes whose taints they bear no longer.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::{DeleteParams, Preconditions};
use tokio_util::sync::CancellationToken;

use super::eviction;
use crate::cache::Change;
use crate::cluster::{Cluster, PODS_BY_NODE};
use crate::error::{Context, Error, or_gone};
use crate::events::{self, Recorder};
use crate::object::{self, ObjectKey};
use crate::pod;
use crate::queue::{Next, Queue};
use crate::taint::NO_EXECUTE;

const NAME: &str = "taint-eviction-controller";
/// Pods worked on at the same time.
const PARALLEL: usize = 8;

/// Evicts Pods.
pub(crate) struct Evictions {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
    events: Recorder,
}

impl Evictions {
    /// Listens to the caches; [`Evictions::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            events: cluster.events.named(NAME),
        });
        let listener = Arc::clone(&this);
        cluster
            .nodes
            .on_change(move |change| listener.node_changed(change));
        let listener = Arc::clone(&this);
        cluster.pods.on_change(move |change| {
            if let Some(pod) = change.after()
                && !evicting(&listener.taints_of(pod)).is_empty()
            {
                listener.queue.add(ObjectKey::of(&pod.metadata));
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

    fn node_changed(&self, change: &Change<Node>) {
        let taints =
            |node: Option<&Arc<Node>>| node.map(|node| evicting(&taints(node))).unwrap_or_default();
        let Some(node) = change.after() else { return };
        if taints(change.before()) == taints(change.after()) {
            return;
        }
        for pod in self.cluster.pods.find(
            &PODS_BY_NODE,
            node.metadata.name.as_deref().unwrap_or_default(),
        ) {
            self.queue.add(ObjectKey::of(&pod.metadata));
        }
    }

    fn taints_of(&self, pod: &Pod) -> Vec<Taint> {
        let node =
            pod::node_name(pod).and_then(|name| self.cluster.nodes.get(&ObjectKey::cluster(name)));
        node.map(|node| taints(&node)).unwrap_or_default()
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(pod) = self
            .cluster
            .pods
            .get(key)
            .filter(|pod| !object::is_deleting(&pod.metadata))
        else {
            return Ok(Next::Done);
        };
        let now = Timestamp::now();
        let Some(deadline) = eviction::deadline(&pod, &self.taints_of(&pod), now) else {
            return Ok(Next::Done);
        };
        if let Ok(left) = Duration::try_from(deadline.duration_since(now))
            && !left.is_zero()
        {
            return Ok(Next::After(left));
        }
        let message = format!("Marking for deletion Pod {key}");
        self.events.normal(
            events::reference::<Pod>(&pod.metadata),
            "TaintManagerEviction",
            message,
        );
        let preconditions = Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let api = self.cluster.api::<Pod>(&key.namespace);
        or_gone(
            api.delete(&key.name, &parameters)
                .await
                .during("evict Pod", key),
        )?;
        Ok(Next::Done)
    }
}

fn taints(node: &Node) -> Vec<Taint> {
    node.spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default()
}

fn evicting(taints: &[Taint]) -> Vec<Taint> {
    taints
        .iter()
        .filter(|taint| taint.effect == NO_EXECUTE)
        .cloned()
        .collect()
}
