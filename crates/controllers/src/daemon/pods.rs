//! What the Pods of a DaemonSet look like, and which node each is for.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::model::Target;
use crate::claim::owner_reference;
use crate::pod;
use crate::taint::{NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE, UNSCHEDULABLE};

/// Label: the hash of the template that a Pod was made from.
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";
/// Label: how often the template had changed by then.
const GENERATION_LABEL: &str = "pod-template-generation";
/// The field of a node that names it, in a node affinity.
const NODE_NAME_FIELD: &str = "metadata.name";

/// A Pod of the present template for one node. The scheduler binds it: it has an affinity to that node only.
/// Source: `CreatePodTemplate`, `ReplaceDaemonSetPodNodeNameNodeAffinity`, `AddOrUpdateDaemonPodTolerations`.
pub(crate) fn new_pod(target: &Target, hash: &str, node: &str) -> Pod {
    let template = target.template.metadata.clone().unwrap_or_default();
    let mut labels = template.labels.unwrap_or_default();
    if let Some(generation) = &target.template_generation {
        labels.insert(GENERATION_LABEL.to_owned(), generation.clone());
    }
    if !hash.is_empty() {
        labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    }
    let mut spec = target.template.spec.clone().unwrap_or_default();
    tolerate(&mut spec);
    go_to(&mut spec, node);
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", target.key.name)),
            namespace: Some(target.key.namespace.clone()),
            labels: Some(labels),
            annotations: template.annotations,
            finalizers: template.finalizers,
            owner_references: Some(vec![owner_reference::<DaemonSet>(&target.meta)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// A daemon runs on nodes in distress too.
fn tolerate(spec: &mut PodSpec) {
    let mut wanted = vec![
        (NOT_READY, NO_EXECUTE),
        (UNREACHABLE, NO_EXECUTE),
        ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
        ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
        ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
        (UNSCHEDULABLE, NO_SCHEDULE),
    ];
    if spec.host_network == Some(true) {
        wanted.push(("node.kubernetes.io/network-unavailable", NO_SCHEDULE));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in wanted {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        // One for the same taint gives way: a daemon tolerates for ever.
        tolerations.retain(|one| {
            one.key != toleration.key
                || one.effect != toleration.effect
                || one.operator != toleration.operator
        });
        tolerations.push(toleration);
    }
}

fn go_to(spec: &mut PodSpec, node: &str) {
    let this_node = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NODE_NAME_FIELD.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    let affinity = spec.affinity.get_or_insert_default();
    let affinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![this_node],
    });
}

/// The node that a Pod is on, or is meant for. Source: `GetTargetNodeName`.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    if let Some(node) = pod::node_name(pod) {
        return Some(node);
    }
    let affinity = pod
        .spec
        .as_ref()?
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let mut fields = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten());
    let named = fields.find(|field| field.key == NODE_NAME_FIELD && field.operator == "In")?;
    named.values.as_ref()?.first().map(String::as_str)
}

/// Whether a Pod is of the template with this hash.
pub(crate) fn is_current(pod: &Pod, hash: &str) -> bool {
    crate::object::labels_of(&pod.metadata)
        .get(HASH_LABEL)
        .map(String::as_str)
        == Some(hash)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_daemon_is_for_one_node_and_stays_there_through_distress() {
        let set: DaemonSet = serde_json::from_value(json!({
            "metadata": { "name": "d", "namespace": "default", "uid": "u",
                "annotations": { "deprecated.daemonset.template.generation": "3" } },
            "spec": { "selector": { "matchLabels": { "app": "d" } }, "template": {
                "metadata": { "labels": { "app": "d" } },
                "spec": { "containers": [], "tolerations": [
                    { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 }] } } },
        }))
        .unwrap();
        let target = Target::project(&set).unwrap();
        let pod = new_pod(&target, "h", "n1");
        assert_eq!(node_of(&pod), Some("n1"));
        assert!(is_current(&pod, "h") && !is_current(&pod, "other"));
        assert_eq!(
            pod.metadata.labels.as_ref().unwrap()["pod-template-generation"],
            "3"
        );
        let tolerations = pod.spec.unwrap().tolerations.unwrap();
        assert_eq!(tolerations.len(), 6);
        assert!(
            tolerations
                .iter()
                .all(|one| one.toleration_seconds.is_none())
        );
    }
}
