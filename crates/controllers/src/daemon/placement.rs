//! Which nodes have a daemon. Source: `NodeShouldRunDaemonPod`.

use k8s_openapi::api::core::v1::{Node, Taint};

use super::model::Target;
use super::pods;
use crate::scheduler::{Demand, Offer, matches_node};
use crate::taint::{self, NO_EXECUTE, NO_SCHEDULE};

/// What a node is to a DaemonSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A Pod belongs there.
    Run,
    /// None is started, but one that is there stays: the node refuses only new ones.
    Stay,
    /// None belongs there.
    Not,
}

/// What the node is to the DaemonSet. The error names an amount of the node or the template that is none.
pub(crate) fn place(target: &Target, node: &Node) -> Result<Place, String> {
    let offer = Offer::of(node)?;
    let pod = pods::new_pod(target, "", &offer.name);
    let mut demand = Demand::of(&pod)?;
    // The template's own affinity counts here, not the one to this node.
    let affinity = target
        .template
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.clone());
    demand.affinity = affinity.unwrap_or_default();
    let named = target
        .template
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref());
    let elsewhere = named.is_some_and(|name| !name.is_empty() && name != offer.name);
    if elsewhere || !matches_node(&demand, &offer) {
        return Ok(Place::Not);
    }
    let borne = |taint: &Taint| {
        demand
            .tolerations
            .iter()
            .any(|one| taint::tolerates(one, taint))
    };
    let mut refused = offer
        .taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), NO_SCHEDULE | NO_EXECUTE) && !borne(taint))
        .peekable();
    Ok(if refused.peek().is_none() {
        Place::Run
    } else if refused.any(|taint| taint.effect == NO_EXECUTE) {
        Place::Not
    } else {
        Place::Stay
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::DaemonSet;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_has_a_daemon_unless_labels_or_taints_forbid_it() {
        let cases = [
            (json!({}), json!({}), Place::Run),
            (
                json!({ "nodeSelector": { "disk": "fast" } }),
                json!({}),
                Place::Not,
            ),
            (
                json!({ "nodeSelector": { "disk": "fast" } }),
                json!({ "labels": { "disk": "fast" } }),
                Place::Run,
            ),
            (json!({ "nodeName": "other" }), json!({}), Place::Not),
            (
                json!({}),
                json!({ "taints": [{ "key": "a", "effect": "NoSchedule" }] }),
                Place::Stay,
            ),
            (
                json!({}),
                json!({ "taints": [{ "key": "a", "effect": "NoExecute" }] }),
                Place::Not,
            ),
            (
                json!({}),
                json!({ "taints": [{ "key": "a", "effect": "PreferNoSchedule" }] }),
                Place::Run,
            ),
            (json!({}), json!({ "unschedulable": true }), Place::Run),
            (
                json!({ "tolerations": [{ "operator": "Exists" }] }),
                json!({ "taints": [{ "key": "a", "effect": "NoExecute" }] }),
                Place::Run,
            ),
            (
                json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "disk", "operator": "Exists" }] }] } } } }),
                json!({}),
                Place::Not,
            ),
        ];
        for (pod, node, expected) in cases {
            let mut spec = pod.clone();
            spec["containers"] = json!([]);
            let set: DaemonSet = serde_json::from_value(json!({
                "metadata": { "name": "d", "namespace": "default" },
                "spec": { "selector": { "matchLabels": { "app": "d" } }, "template": { "spec": spec } },
            }))
            .unwrap();
            let labels = node.get("labels").cloned().unwrap_or(Value::Null);
            let node: Node = serde_json::from_value(json!({
                "metadata": { "name": "n1", "labels": labels },
                "spec": node,
                "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
            }))
            .unwrap();
            assert_eq!(
                place(&Target::project(&set).unwrap(), &node),
                Ok(expected),
                "{pod} {node:?}"
            );
        }
    }
}
