//! Follows the Node objects: the own node's range, the routes to the others', and who is a node.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::model::NodeNetwork;
use crate::network::PodNetwork;
use crate::plan::{Plan, plan};

/// How often the kernel's state is read back and repaired although no Node has changed.
const REPAIR: Duration = Duration::from_secs(60);
/// How long to wait before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The Nodes as the API server has them.
#[derive(Debug, Default)]
struct Nodes {
    /// By name.
    known: BTreeMap<String, NodeNetwork>,
    /// What a watch that has begun anew has listed so far.
    listed: BTreeMap<String, NodeNetwork>,
}

/// Keeps routes and masquerade of this node as the Nodes want them, until `shutdown`. What it made stays, so
/// that Pods keep their network while the agent restarts.
///
/// # Errors
/// Only when it cannot begin. Later failures are logged and tried again.
pub async fn run(
    client: Client,
    network: PodNetwork,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut applied = network.applied()?;
    let mut nodes = Nodes::default();
    let mut planned: Option<Plan> = None;
    let mut next_try = Instant::now() + REPAIR;
    let stream =
        watcher::watcher(Api::<Node>::all(client), watcher::Config::default()).default_backoff();
    futures::pin_mut!(stream);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(next_try) => applied.doubt(),
            event = stream.try_next() => match event {
                Ok(Some(event)) => {
                    if !nodes.take(event) {
                        continue;
                    }
                    let new = plan(&network.config().node_name, nodes.known.values());
                    // Most events are heartbeats.
                    if planned.as_ref() == Some(&new) {
                        continue;
                    }
                    for problem in &new.problems {
                        tracing::warn!("{problem}");
                    }
                    planned = Some(new);
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "watching Nodes");
                    continue;
                }
            },
        }
        let Some(plan) = &planned else {
            next_try = Instant::now() + REPAIR;
            continue;
        };
        let result = match plan.own_range {
            Some(range) => network.set_pod_cidr(range.into()),
            None => Ok(()),
        };
        next_try = Instant::now()
            + match result.and(applied.apply(plan).await) {
                Ok(()) => REPAIR,
                Err(error) => {
                    tracing::warn!(%error, "routes between Pods; trying again");
                    RETRY
                }
            };
    }
}

impl Nodes {
    /// Takes an event in; returns whether the Nodes are complete now.
    fn take(&mut self, event: Event<Node>) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                return false;
            }
            Event::InitApply(node) => {
                add(&mut self.listed, &node);
                return false;
            }
            Event::InitDone => self.known = std::mem::take(&mut self.listed),
            Event::Apply(node) => add(&mut self.known, &node),
            Event::Delete(node) => drop(self.known.remove(&node.name_any())),
        }
        true
    }
}

fn add(nodes: &mut BTreeMap<String, NodeNetwork>, node: &Node) {
    match NodeNetwork::try_from(node) {
        Ok(network) => drop(nodes.insert(network.name.clone(), network)),
        // What it was before it became invalid says nothing about what it is now.
        Err(error) => {
            tracing::warn!("{error}");
            nodes.remove(&node.name_any());
        }
    }
}
