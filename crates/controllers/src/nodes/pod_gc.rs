//! The loop that removes Pods which no kubelet will ever answer for: those of nodes that were removed, and those that
//! were deleted before they had a node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, PODS_BY_NODE};
use crate::error::{Context, Error, or_gone};
use crate::object::{self, ObjectKey};
use crate::pod;
use crate::queue::{Next, Queue};

const NAME: &str = "pod-garbage-collector";
/// Pods worked on at the same time.
const PARALLEL: usize = 8;

/// Removes abandoned Pods.
pub(crate) struct PodCollector {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
    /// How long a node must be missing: one that is removed and comes back at once keeps its Pods.
    quarantine: Duration,
    missing: Mutex<HashMap<String, Instant>>,
}

impl PodCollector {
    /// Listens to the caches; [`PodCollector::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>, quarantine: Duration) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            quarantine,
            missing: Mutex::new(HashMap::new()),
        });
        let listener = Arc::clone(&this);
        cluster.nodes.on_change(move |change| {
            let name = change.latest().metadata.name.clone().unwrap_or_default();
            if change.after().is_some() {
                listener.missing.lock().remove(&name);
                return;
            }
            for pod in listener.cluster.pods.find(&PODS_BY_NODE, &name) {
                listener.queue.add(ObjectKey::of(&pod.metadata));
            }
            listener.missing.lock().insert(name, Instant::now());
        });
        let queue = this.queue.clone();
        let nodes = Arc::clone(&cluster.nodes);
        cluster.pods.on_change(move |change| {
            let Some(pod) = change.after() else { return };
            let abandoned = match pod::node_name(pod) {
                Some(node) => nodes.get(&ObjectKey::cluster(node)).is_none(),
                None => object::is_deleting(&pod.metadata),
            };
            if abandoned {
                queue.add(ObjectKey::of(&pod.metadata));
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

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(pod) = self.cluster.pods.get(key) else {
            return Ok(Next::Done);
        };
        match pod::node_name(&pod) {
            None if object::is_deleting(&pod.metadata) => {}
            None => return Ok(Next::Done),
            Some(node) if self.cluster.nodes.get(&ObjectKey::cluster(node)).is_some() => {
                return Ok(Next::Done);
            }
            Some(node) => {
                let since = *self
                    .missing
                    .lock()
                    .entry(node.to_owned())
                    .or_insert_with(Instant::now);
                let left = self.quarantine.saturating_sub(since.elapsed());
                if !left.is_zero() {
                    return Ok(Next::After(left));
                }
                let api: Api<Node> = Api::all(self.cluster.client.clone());
                if api.get_opt(node).await.during("read node", node)?.is_some() {
                    return Err(Error::Stale {
                        object: format!("Node {node}"),
                    });
                }
            }
        }
        let preconditions = Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        };
        let parameters = DeleteParams::default()
            .grace_period(0)
            .preconditions(preconditions);
        let api = self.cluster.api::<Pod>(&key.namespace);
        or_gone(
            api.delete(&key.name, &parameters)
                .await
                .during("remove the abandoned Pod", key),
        )?;
        Ok(Next::Done)
    }
}
