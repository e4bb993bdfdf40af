//! Which Pods a quota is about.

use serde_json::Value;

use crate::kinds::pod::qos_class;

/// What of a Pod scopes look at.
#[derive(Debug, Clone)]
pub(super) struct Traits {
    terminating: bool,
    best_effort: bool,
    priority_class: Option<String>,
    crosses_namespaces: bool,
}

impl Traits {
    pub(super) fn of(pod: &Value) -> Self {
        let spec = &pod["spec"];
        let quality = match pod["status"]["qosClass"].as_str() {
            Some(known) => known.to_owned(),
            None => serde_json::from_value(spec.clone())
                .map(|spec| qos_class(&spec).to_owned())
                .unwrap_or_default(),
        };
        let class = spec["priorityClassName"].as_str();
        Self {
            terminating: spec["activeDeadlineSeconds"]
                .as_i64()
                .is_some_and(|s| s >= 0),
            best_effort: quality == "BestEffort",
            priority_class: class.filter(|c| !c.is_empty()).map(str::to_owned),
            crosses_namespaces: crosses_namespaces(&spec["affinity"]),
        }
    }
}

fn crosses_namespaces(affinity: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let kind = &affinity[kind];
        let list = |field: &str| kind[field].as_array().into_iter().flatten();
        let required = list("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = list("preferredDuringSchedulingIgnoredDuringExecution");
        required
            .chain(preferred.map(|term| &term["podAffinityTerm"]))
            .any(|term| {
                let named = term["namespaces"].as_array().is_some_and(|n| !n.is_empty());
                named || term.get("namespaceSelector").is_some_and(|s| !s.is_null())
            })
    })
}

/// One condition that a quota sets.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

/// All conditions of a quota's spec.
pub(super) fn read(spec: &Value) -> Vec<Scope> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let plain = list(&spec["scopes"]).into_iter().map(|scope| Scope {
        name: text(&scope),
        operator: "Exists".to_owned(),
        values: Vec::new(),
    });
    let chosen = list(&spec["scopeSelector"]["matchExpressions"])
        .into_iter()
        .map(|requirement| Scope {
            name: text(&requirement["scopeName"]),
            operator: text(&requirement["operator"]),
            values: list(&requirement["values"]).iter().map(text).collect(),
        });
    plain.chain(chosen).collect()
}

impl Scope {
    /// Whether it means a Pod with these traits.
    pub(super) fn means(&self, pod: &Traits) -> bool {
        match self.name.as_str() {
            "Terminating" => pod.terminating,
            "NotTerminating" => !pod.terminating,
            "BestEffort" => pod.best_effort,
            "NotBestEffort" => !pod.best_effort,
            "CrossNamespacePodAffinity" => pod.crosses_namespaces,
            "PriorityClass" => {
                let class = pod.priority_class.as_ref();
                let listed = class.is_some_and(|class| self.values.contains(class));
                match self.operator.as_str() {
                    "Exists" => class.is_some(),
                    "DoesNotExist" => class.is_none(),
                    "In" => listed,
                    "NotIn" => !listed,
                    _ => false,
                }
            }
            // Of claims, or of a later Kubernetes.
            _ => false,
        }
    }
}
