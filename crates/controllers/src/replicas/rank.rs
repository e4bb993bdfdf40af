//! Which Pods go first when there are too many.
//!
//! Source of the order: `ActivePodsWithRanks` in Kubernetes' `pkg/controller/controller_utils.go`; KEP-2185 (ages are
//! compared by order of magnitude), KEP-2255 (`pod-deletion-cost`).

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::object;
use crate::pod;

/// Lower is deleted first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts so that the Pods to delete first come first. `related` are the Pods that should stay spread over the nodes:
/// those of all ReplicaSets of the same Deployment, or of the owner itself.
pub(crate) fn by_deletion_order(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pod::is_active(pod)) {
        if let Some(node) = pod::node_name(pod) {
            *on_node.entry(node).or_default() += 1;
        }
    }
    let crowd = |pod: &Pod| {
        pod::node_name(pod)
            .and_then(|node| on_node.get(node))
            .copied()
            .unwrap_or(0)
    };
    pods.sort_by(|a, b| compare(a, b, crowd(a), crowd(b), now));
}

fn compare(a: &Pod, b: &Pod, crowd_a: usize, crowd_b: usize, now: Timestamp) -> Ordering {
    let by_standing = |pod: &Pod, crowd: usize| {
        (
            pod::node_name(pod).is_some(),
            phase_rank(pod),
            pod::is_ready(pod),
            cost(pod),
            Reverse(crowd),
        )
    };
    by_standing(a, crowd_a)
        .cmp(&by_standing(b, crowd_b))
        .then_with(|| by_youth(pod::ready_since(a), pod::ready_since(b), now))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| by_youth(created(a), created(b), now))
        .then_with(|| object::uid_of(&a.metadata).cmp(object::uid_of(&b.metadata)))
}

fn phase_rank(pod: &Pod) -> u8 {
    match pod::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn cost(pod: &Pod) -> i32 {
    object::annotation(&pod.metadata, DELETION_COST)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    statuses
        .into_iter()
        .flatten()
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The younger first; ages of the same power of two are equal, so that among many of about the same age chance (the
/// UID) decides and not the order in which the nodes were filled.
fn by_youth(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |since: Timestamp| {
        let nanoseconds = now
            .as_nanosecond()
            .saturating_sub(since.as_nanosecond())
            .max(0);
        nanoseconds.checked_ilog2().map_or(-1, i64::from)
    };
    match (a, b) {
        (Some(a), Some(b)) => magnitude(a).cmp(&magnitude(b)),
        // One without a time is the newest.
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, mut fields: serde_json::Value) -> Arc<Pod> {
        fields["metadata"]["name"] = json!(name);
        fields["metadata"]["uid"] = json!(name);
        Arc::new(serde_json::from_value(fields).unwrap())
    }

    fn running(name: &str, node: &str, ready_since: &str) -> Arc<Pod> {
        pod(
            name,
            json!({
                "metadata": {},
                "spec": { "nodeName": node, "containers": [] },
                "status": {
                    "phase": "Running",
                    "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": ready_since }],
                },
            }),
        )
    }

    fn order(mut pods: Vec<Arc<Pod>>) -> Vec<String> {
        let related = pods.clone();
        by_deletion_order(&mut pods, &related, "2030-01-01T01:00:00Z".parse().unwrap());
        pods.iter()
            .map(|pod| pod.metadata.name.clone().unwrap())
            .collect()
    }

    #[test]
    fn those_that_serve_least_go_first() {
        let unassigned = pod(
            "unassigned",
            json!({ "metadata": {}, "spec": { "containers": [] } }),
        );
        let pending = pod(
            "pending",
            json!({ "metadata": {}, "spec": { "nodeName": "n1", "containers": [] }, "status": { "phase": "Pending" } }),
        );
        let unready = pod(
            "unready",
            json!({ "metadata": {}, "spec": { "nodeName": "n1", "containers": [] }, "status": { "phase": "Running" } }),
        );
        let ready = running("ready", "n2", "2030-01-01T00:00:00Z");
        assert_eq!(
            order(vec![ready, unready, pending, unassigned]),
            ["unassigned", "pending", "unready", "ready"]
        );
    }

    #[test]
    fn the_fullest_node_is_relieved_before_the_young_go() {
        let a = running("a", "n1", "2030-01-01T00:00:00Z");
        let b = running("b", "n1", "2030-01-01T00:00:00Z");
        let young = running("young", "n2", "2030-01-01T00:59:59Z");
        assert_eq!(order(vec![young, a, b]), ["a", "b", "young"]);
    }

    #[test]
    fn on_equal_nodes_the_younger_goes() {
        let old = running("a-old", "n1", "2030-01-01T00:00:00Z");
        let young = running("b-young", "n2", "2030-01-01T00:59:59Z");
        assert_eq!(order(vec![old, young]), ["b-young", "a-old"]);
    }

    #[test]
    fn a_cheap_pod_goes_before_a_dear_one() {
        let dear = running("a", "n1", "2030-01-01T00:00:00Z");
        let mut cheap = running("b", "n2", "2030-01-01T00:00:00Z");
        Arc::make_mut(&mut cheap).metadata.annotations =
            Some([(DELETION_COST.to_owned(), "-5".to_owned())].into());
        assert_eq!(order(vec![dear, cheap]), ["b", "a"]);
    }
}
