//! From a DaemonSet, the nodes and its Pods to what must be done: where a Pod is missing, and which must go.
//!
//! Source: `podsShouldBeOnNode` and `manage`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::model::{Strategy, Target};
use super::placement::Place;
use super::{pods, rolling};
use crate::object;
use crate::pod::{self, Availability};

/// At most so many Pods are created and deleted before the cache must have caught up. Source: `BurstReplicas`.
const BURST: usize = 250;

/// The nodes, each with what it is to the DaemonSet.
pub(crate) type Places = BTreeMap<String, Place>;

/// Its Pods by the node they are on or for, the oldest first.
pub(crate) type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

/// What must be done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Nodes that get a Pod.
    pub(crate) create: Vec<String>,
    /// Pods that go.
    pub(crate) delete: Vec<Arc<Pod>>,
    /// Pods that ended, which must not be: they go as well, after a pause that grows for each node.
    pub(crate) ended: Vec<(String, Arc<Pod>)>,
}

/// Files the Pods by node.
pub(crate) fn by_node(owned: &[Arc<Pod>]) -> ByNode {
    let mut filed = ByNode::new();
    for pod in owned {
        if let Some(node) = pods::node_of(pod) {
            filed
                .entry(node.to_owned())
                .or_default()
                .push(Arc::clone(pod));
        }
    }
    for pods in filed.values_mut() {
        pods.sort_by_key(|pod| {
            let waits = pod::node_name(pod).is_none();
            (
                waits,
                pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
                pod.metadata.name.clone(),
            )
        });
    }
    filed
}

/// Makes the plan. A DaemonSet that is being deleted needs nothing: the garbage collector sees to its Pods.
///
/// # Errors
/// An amount of the update strategy is none.
pub(crate) fn plan(
    target: &Target,
    hash: &str,
    places: &Places,
    filed: &ByNode,
    now: Timestamp,
) -> Result<Plan, String> {
    let mut plan = Plan::default();
    if object::is_deleting(&target.meta) {
        return Ok(plan);
    }
    for (node, place) in places {
        let there = filed.get(node).map(Vec::as_slice).unwrap_or_default();
        match place {
            Place::Run if there.is_empty() => plan.create.push(node.clone()),
            Place::Run | Place::Stay => keep_one(target, hash, node, there, now, &mut plan),
            Place::Not => plan.delete.extend(living(there).cloned()),
        }
    }
    // Those that wait for a node that is gone.
    for (_, there) in filed.iter().filter(|(node, _)| !places.contains_key(*node)) {
        plan.delete.extend(
            living(there)
                .filter(|pod| pod::node_name(pod).is_none())
                .cloned(),
        );
    }
    let settled = plan.create.is_empty() && plan.delete.is_empty() && plan.ended.is_empty();
    if settled && matches!(target.strategy, Strategy::RollingUpdate { .. }) {
        rolling::replace(target, hash, places, filed, now, &mut plan)?;
    }
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    Ok(plan)
}

fn living(pods: &[Arc<Pod>]) -> impl Iterator<Item = &Arc<Pod>> {
    pods.iter()
        .filter(|pod| !object::is_deleting(&pod.metadata))
}

/// Of several on a node, the oldest stays; with surge, the oldest of the old template and of the new one, until the
/// new one is available.
fn keep_one(
    target: &Target,
    hash: &str,
    node: &str,
    there: &[Arc<Pod>],
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut running = Vec::new();
    for pod in living(there) {
        if pod::is_terminal(pod) {
            plan.ended.push((node.to_owned(), Arc::clone(pod)));
        } else {
            running.push(Arc::clone(pod));
        }
    }
    if running.len() <= 1 {
        return;
    }
    if !target.surges() {
        plan.delete.extend(running.drain(1..));
        return;
    }
    let (mut new, mut old) = (None, None);
    for pod in running {
        let first = if pods::is_current(&pod, hash) {
            &mut new
        } else {
            &mut old
        };
        match first {
            None => *first = Some(pod),
            Some(_) => plan.delete.push(pod),
        }
    }
    if let (Some(new), Some(old)) = (new, old)
        && (!pod::is_ready(&old) || is_available(target, &new, now))
    {
        plan.delete.push(old);
    }
}

/// Whether the Pod counts as available.
pub(crate) fn is_available(target: &Target, pod: &Pod, now: Timestamp) -> bool {
    pod::availability(pod, target.min_ready_seconds, now) == Availability::Available
}

/// The nodes where a Pod belongs.
pub(crate) fn wanted(places: &Places) -> BTreeSet<&str> {
    let run = places.iter().filter(|(_, place)| **place == Place::Run);
    run.map(|(node, _)| node.as_str()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::api::apps::v1::DaemonSet;
    use serde_json::{Value, json};

    use super::*;

    pub(crate) const NOW: &str = "2030-01-01T01:00:00Z";

    pub(crate) fn target(strategy: Value) -> Target {
        let set: DaemonSet = serde_json::from_value(json!({
            "metadata": { "name": "d", "namespace": "default", "uid": "u", "generation": 2 },
            "spec": { "selector": { "matchLabels": { "app": "d" } }, "updateStrategy": strategy,
                "template": { "metadata": { "labels": { "app": "d" } }, "spec": { "containers": [] } } },
        }))
        .unwrap();
        Target::project(&set).unwrap()
    }

    pub(crate) fn pod(name: &str, node: &str, hash: &str, state: &str) -> Arc<Pod> {
        let deleted = (state == "going").then_some("2030-01-01T00:59:00Z");
        let phase = match state {
            "failed" => "Failed",
            "pending" => "Pending",
            _ => "Running",
        };
        let ready = if state == "ready" { "True" } else { "False" };
        let object = json!({
            "metadata": { "name": name, "uid": name, "labels": { "app": "d", "controller-revision-hash": hash },
                "creationTimestamp": format!("2030-01-01T00:00:0{}Z", name.len() % 10), "deletionTimestamp": deleted },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "phase": phase, "conditions": [
                { "type": "Ready", "status": ready, "lastTransitionTime": "2030-01-01T00:00:00Z" }] },
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    pub(crate) fn places(all: &[(&str, Place)]) -> Places {
        all.iter()
            .map(|(node, place)| ((*node).to_owned(), *place))
            .collect()
    }

    pub(crate) fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter()
            .map(|pod| pod.metadata.name.as_deref().unwrap())
            .collect()
    }

    #[test]
    fn every_node_has_one_and_no_other_has_any() {
        let nodes = places(&[
            ("n1", Place::Run),
            ("n2", Place::Run),
            ("n3", Place::Stay),
            ("n4", Place::Not),
        ]);
        let pods = by_node(&[
            pod("a", "n2", "h", "ready"),
            pod("bb", "n2", "h", "ready"),
            pod("c", "n3", "h", "ready"),
            pod("d", "n4", "h", "ready"),
            pod("e", "n4", "h", "going"),
        ]);
        let plan = plan(&target(json!({})), "h", &nodes, &pods, NOW.parse().unwrap()).unwrap();
        assert_eq!(plan.create, ["n1"]);
        assert_eq!(names(&plan.delete), ["bb", "d"]);
    }

    #[test]
    fn one_that_ended_is_removed_and_one_that_goes_is_waited_for() {
        let nodes = places(&[("n1", Place::Run), ("n2", Place::Run)]);
        let pods = by_node(&[pod("a", "n1", "h", "failed"), pod("b", "n2", "h", "going")]);
        let plan = plan(&target(json!({})), "h", &nodes, &pods, NOW.parse().unwrap()).unwrap();
        assert!(plan.create.is_empty() && plan.delete.is_empty());
        assert_eq!(plan.ended.len(), 1);
        assert_eq!(plan.ended[0].0, "n1");
    }

    #[test]
    fn a_set_that_goes_does_nothing() {
        let mut target = target(json!({}));
        target.meta.deletion_timestamp = Some(serde_json::from_value(json!(NOW)).unwrap());
        let nodes = places(&[("n1", Place::Run)]);
        let plan = plan(&target, "h", &nodes, &ByNode::new(), NOW.parse().unwrap()).unwrap();
        assert!(plan.create.is_empty());
    }

    #[test]
    fn with_surge_the_old_one_stays_until_the_new_one_is_available() {
        let target = target(json!({ "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } }));
        let nodes = places(&[("n1", Place::Run)]);
        for (new, deleted) in [("pending", vec![]), ("ready", vec!["old"])] {
            let pods = by_node(&[pod("old", "n1", "o", "ready"), pod("newer", "n1", "h", new)]);
            let plan = plan(&target, "h", &nodes, &pods, NOW.parse().unwrap()).unwrap();
            assert_eq!(names(&plan.delete), deleted, "{new}");
        }
    }
}
