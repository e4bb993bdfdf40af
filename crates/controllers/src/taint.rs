//! Taints and tolerations: the names that Kubernetes gives them, and which toleration bears which taint.
//!
//! Source: "Taints and Tolerations" in Kubernetes' documentation; API reference, `Taint` and `Toleration`.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Effect: no new Pods.
pub(crate) const NO_SCHEDULE: &str = "NoSchedule";
/// Effect: no new Pods, and those that are there must go.
pub(crate) const NO_EXECUTE: &str = "NoExecute";
/// Effect: new Pods if there is no better place.
pub(crate) const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";

/// The node takes no new Pods (`kubectl cordon`).
pub(crate) const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The node says that it is not ready.
pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The node says nothing.
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Whether the toleration bears the taint, for however long. An operator that is not known bears nothing.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => key.is_empty() || key == taint.key,
        None | Some("" | "Equal") => {
            key == taint.key
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_form_of_toleration() {
        let taint = Taint {
            key: "gpu".into(),
            value: Some("yes".into()),
            effect: "NoSchedule".into(),
            time_added: None,
        };
        let table = [
            (
                json!({ "key": "gpu", "value": "yes", "effect": "NoSchedule" }),
                true,
            ),
            (
                json!({ "key": "gpu", "operator": "Equal", "value": "yes" }),
                true,
            ),
            (json!({ "key": "gpu", "value": "no" }), false),
            (json!({ "key": "gpu", "operator": "Exists" }), true),
            (json!({ "operator": "Exists" }), true),
            (
                json!({ "operator": "Exists", "effect": "NoExecute" }),
                false,
            ),
            (json!({ "key": "gpu", "operator": "Maybe" }), false),
        ];
        for (toleration, expected) in table {
            assert_eq!(
                tolerates(&serde_json::from_value(toleration.clone()).unwrap(), &taint),
                expected,
                "{toleration}"
            );
        }
    }
}
