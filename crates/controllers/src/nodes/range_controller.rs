//! The loop that gives every node its Pod address range.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::Patch;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::ranges::Ranges;
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::events;
use crate::object::{self, ObjectKey};
use crate::queue::{Next, Queue};

const NAME: &str = "node-ipam-controller";

/// Gives nodes their ranges.
pub(crate) struct Ranger {
    cluster: Arc<Cluster>,
    queue: Queue<String>,
    ranges: Ranges,
    /// Node → UID and range: what was given and the cache does not show yet.
    given: Mutex<HashMap<String, (String, IpNet)>>,
}

impl Ranger {
    /// Listens to the caches; [`Ranger::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>, ranges: Ranges) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            ranges,
            given: Mutex::new(HashMap::new()),
        });
        let listener = Arc::clone(&this);
        cluster.nodes.on_change(move |change| {
            let name = change.latest().metadata.name.clone().unwrap_or_default();
            match change.after() {
                Some(node) if ranges_of(node).is_empty() => listener.queue.add(name),
                Some(_) => {
                    listener.given.lock().remove(&name);
                }
                None => {
                    listener.given.lock().remove(&name);
                    listener.retry_all();
                }
            }
        });
        this
    }

    /// Works until `shutdown`. One node at a time: two choices at once could choose the same.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.clone();
        queue
            .run(NAME, 1, shutdown, |name| {
                let this = Arc::clone(&self);
                async move { this.reconcile(&name).await }
            })
            .await;
    }

    /// A range came free: nodes that went without may have it.
    fn retry_all(&self) {
        for node in self
            .cluster
            .nodes
            .all()
            .iter()
            .filter(|node| ranges_of(node).is_empty())
        {
            self.queue
                .add(node.metadata.name.clone().unwrap_or_default());
        }
    }

    async fn reconcile(&self, name: &str) -> Result<Next, Error> {
        let Some(node) = self.cluster.nodes.get(&ObjectKey::cluster(name)) else {
            return Ok(Next::Done);
        };
        if !ranges_of(&node).is_empty() {
            return Ok(Next::Done);
        }
        let uid = object::uid_of(&node.metadata).to_owned();
        let Some(range) = self.choose(name, &uid) else {
            let message = "no Pod range is left in the cluster's range".to_owned();
            self.cluster.events.named(NAME).warning(
                events::reference::<Node>(&node.metadata),
                "CIDRNotAvailable",
                message,
            );
            return Err(Error::RangesExhausted {
                node: name.to_owned(),
                cluster_cidr: self.ranges.cluster(),
            });
        };
        // The version makes sure that nobody gave it another range meanwhile.
        let patch = json!({
            "metadata": { "uid": uid, "resourceVersion": node.metadata.resource_version },
            "spec": { "podCIDR": range, "podCIDRs": [range] },
        });
        let api: Api<Node> = Api::all(self.cluster.client.clone());
        let answer = api
            .patch(name, &cluster::patch(), &Patch::Merge(&patch))
            .await
            .during("give a Pod range to node", name);
        if matches!(&answer, Err(error) if error.is_conflict() || error.is_not_found()) {
            // Refused for certain. After any other failure the write may have happened, so the choice stands.
            self.given.lock().remove(name);
        }
        or_gone(answer)?;
        Ok(Next::Done)
    }

    fn choose(&self, name: &str, uid: &str) -> Option<IpNet> {
        let mut given = self.given.lock();
        if let Some((known, range)) = given.get(name)
            && known == uid
        {
            return Some(*range);
        }
        let mut taken: Vec<IpNet> = self
            .cluster
            .nodes
            .all()
            .iter()
            .flat_map(|node| ranges_of(node))
            .collect();
        taken.extend(given.values().map(|(_, range)| *range));
        let range = self.ranges.lowest_free(&taken)?;
        given.insert(name.to_owned(), (uid.to_owned(), range));
        Some(range)
    }
}

/// The ranges a node has.
fn ranges_of(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let all = spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.iter());
    all.filter_map(|text| text.parse().ok()).collect()
}
