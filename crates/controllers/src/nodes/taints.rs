//! The taints that follow from a node's state: what keeps new Pods away, and what drives present ones out.
//!
//! Source: "Taint based Evictions" and "Taint Nodes by Condition" in Kubernetes' documentation.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::health::condition_status;
use crate::taint::{NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE, UNSCHEDULABLE};

/// Condition (when true) → taint.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];

/// All taints that the node should have, if they are not those it has. Taints that others set stay.
pub(crate) fn plan(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let present = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    let wanted = wanted(node);
    let mut taints: Vec<Taint> = present
        .iter()
        .filter(|taint| {
            !is_ours(taint) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str()))
        })
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !taints
            .iter()
            .any(|taint| taint.key == key && taint.effect == effect)
        {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    (taints != present).then_some(taints)
}

fn wanted(node: &Node) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    // A node that has not reported yet has no taint: the scheduler passes over it as it is.
    match condition_status(node, "Ready") {
        Some("False") => wanted.extend([(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]),
        Some("Unknown") => wanted.extend([(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]),
        _ => {}
    }
    for (condition, taint) in PRESSURES {
        if condition_status(node, condition) == Some("True") {
            wanted.push((taint, NO_SCHEDULE));
        }
    }
    if node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or_default()
    {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    wanted
}

fn is_ours(taint: &Taint) -> bool {
    let (key, effect) = (taint.key.as_str(), taint.effect.as_str());
    let condition = PRESSURES.iter().any(|(_, ours)| *ours == key)
        || matches!(key, NOT_READY | UNREACHABLE | UNSCHEDULABLE);
    (condition && effect == NO_SCHEDULE)
        || (matches!(key, NOT_READY | UNREACHABLE) && effect == NO_EXECUTE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(ready: Option<&str>, unschedulable: bool, taints: serde_json::Value) -> Node {
        let conditions: Vec<_> = ready
            .iter()
            .map(|status| json!({ "type": "Ready", "status": status }))
            .collect();
        serde_json::from_value(json!({
            "spec": { "unschedulable": unschedulable, "taints": taints }, "status": { "conditions": conditions },
        }))
        .unwrap()
    }

    fn planned(node: &Node) -> Option<Vec<(String, String)>> {
        let taints = plan(node, Timestamp::UNIX_EPOCH)?;
        Some(
            taints
                .into_iter()
                .map(|taint| (taint.key, taint.effect))
                .collect(),
        )
    }

    fn pair(key: &str, effect: &str) -> (String, String) {
        (key.to_owned(), effect.to_owned())
    }

    #[test]
    fn each_state_has_its_taints() {
        let table = [
            (Some("True"), false, None),
            (None, false, None),
            (
                Some("False"),
                false,
                Some(vec![
                    pair(NOT_READY, NO_SCHEDULE),
                    pair(NOT_READY, NO_EXECUTE),
                ]),
            ),
            (
                Some("Unknown"),
                false,
                Some(vec![
                    pair(UNREACHABLE, NO_SCHEDULE),
                    pair(UNREACHABLE, NO_EXECUTE),
                ]),
            ),
            (
                Some("True"),
                true,
                Some(vec![pair(UNSCHEDULABLE, NO_SCHEDULE)]),
            ),
        ];
        for (ready, unschedulable, expected) in table {
            assert_eq!(
                planned(&node(ready, unschedulable, json!([]))),
                expected,
                "{ready:?} {unschedulable}"
            );
        }
    }

    #[test]
    fn foreign_taints_stay_and_ours_go_with_their_reason() {
        let taints = json!([
            { "key": "gpu", "effect": "NoSchedule" },
            { "key": NOT_READY, "effect": "NoExecute", "timeAdded": "2030-01-01T00:00:00Z" },
        ]);
        assert_eq!(
            planned(&node(Some("True"), false, taints.clone())),
            Some(vec![pair("gpu", "NoSchedule")])
        );
        let still = plan(&node(Some("False"), false, taints), Timestamp::UNIX_EPOCH).unwrap();
        let kept = still
            .iter()
            .find(|taint| taint.effect == NO_EXECUTE)
            .unwrap();
        assert_eq!(
            kept.time_added,
            Some(Time("2030-01-01T00:00:00Z".parse().unwrap())),
            "the time is when it began"
        );
    }
}
