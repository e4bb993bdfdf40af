//! How the lists of the Kubernetes types are merged by a strategic merge patch. k8s-openapi's schemas do not have
//! these facts, so here they are, for all types that Pods, Services and workloads are made of.
//!
//! Source: `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key` in Kubernetes' OpenAPI.

/// How a field is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeFacts {
    /// `merge`, `retainKeys` or `merge,retainKeys`.
    pub strategy: &'static str,
    /// Field that tells the elements of a list apart; `None` for lists of plain values and for structs.
    pub key: Option<&'static str>,
}

impl MergeFacts {
    /// Whether the list is merged element by element rather than replaced.
    pub fn merges(self) -> bool {
        self.strategy.starts_with("merge")
    }
}

/// Type (without package), field, strategy, key (empty for none).
const FACTS: &[(&str, &str, &str, &str)] = &[
    ("CSINodeSpec", "drivers", "merge", "name"),
    ("Container", "env", "merge", "name"),
    ("Container", "ports", "merge", "containerPort"),
    ("Container", "volumeDevices", "merge", "devicePath"),
    ("Container", "volumeMounts", "merge", "mountPath"),
    ("DaemonSetStatus", "conditions", "merge", "type"),
    ("DeploymentSpec", "strategy", "retainKeys", ""),
    ("DeploymentStatus", "conditions", "merge", "type"),
    ("EphemeralContainer", "env", "merge", "name"),
    ("EphemeralContainer", "ports", "merge", "containerPort"),
    ("EphemeralContainer", "volumeDevices", "merge", "devicePath"),
    ("EphemeralContainer", "volumeMounts", "merge", "mountPath"),
    ("JobStatus", "conditions", "merge", "type"),
    ("NamespaceStatus", "conditions", "merge", "type"),
    ("NodeSpec", "podCIDRs", "merge", ""),
    ("NodeStatus", "addresses", "merge", "type"),
    ("NodeStatus", "conditions", "merge", "type"),
    ("ObjectMeta", "finalizers", "merge", ""),
    ("ObjectMeta", "ownerReferences", "merge", "uid"),
    ("PersistentVolumeClaimStatus", "conditions", "merge", "type"),
    ("PodDisruptionBudgetStatus", "conditions", "merge", "type"),
    ("PodSpec", "containers", "merge", "name"),
    ("PodSpec", "ephemeralContainers", "merge", "name"),
    ("PodSpec", "hostAliases", "merge", "ip"),
    ("PodSpec", "imagePullSecrets", "merge", "name"),
    ("PodSpec", "initContainers", "merge", "name"),
    ("PodSpec", "resourceClaims", "merge,retainKeys", "name"),
    ("PodSpec", "schedulingGates", "merge", "name"),
    (
        "PodSpec",
        "topologySpreadConstraints",
        "merge",
        "topologyKey",
    ),
    ("PodSpec", "volumes", "merge,retainKeys", "name"),
    ("PodStatus", "conditions", "merge", "type"),
    ("PodStatus", "hostIPs", "merge", "ip"),
    ("PodStatus", "podIPs", "merge", "ip"),
    (
        "PodStatus",
        "resourceClaimStatuses",
        "merge,retainKeys",
        "name",
    ),
    ("ReplicaSetStatus", "conditions", "merge", "type"),
    ("ReplicationControllerStatus", "conditions", "merge", "type"),
    ("ServiceAccount", "secrets", "merge", "name"),
    ("ServiceSpec", "ports", "merge", "port"),
    ("ServiceStatus", "conditions", "merge", "type"),
    ("StatefulSetStatus", "conditions", "merge", "type"),
];

/// How the field of the schema `io.k8s.api.core.v1.PodSpec` (for example) is merged; `None`: it is replaced.
pub fn of(schema: &str, field: &str) -> Option<MergeFacts> {
    let name = schema.rsplit('.').next()?;
    FACTS
        .iter()
        .find(|(of, its, _, _)| *of == name && *its == field)
        .map(|(_, _, strategy, key)| MergeFacts {
            strategy,
            key: (!key.is_empty()).then_some(*key),
        })
}
