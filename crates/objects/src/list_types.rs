//! How the lists, maps and structs of the Kubernetes types belong together, which k8s-openapi's schemas do not say:
//! what server-side apply merges element by element and what it takes as one value.
//!
//! Source: `x-kubernetes-list-type`, `x-kubernetes-list-map-keys`, `x-kubernetes-map-type` and `default` in Kubernetes'
//! OpenAPI. Types are named without their package: no two packages disagree about the types listed here.

/// How the elements of a list belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// Each plain value is an element of its own.
    Set,
    /// Elements are told apart by these fields.
    Map(&'static [&'static str]),
}

use ListType::{Map, Set};

/// Type, field, and how the elements of the list in it belong together. All other lists are atomic.
const LISTS: &[(&str, &str, ListType)] = &[
    ("CSIDriverSpec", "volumeLifecycleModes", Set),
    ("CSINodeSpec", "drivers", Map(&["name"])),
    ("CSINodeStatus", "storageHealth", Map(&["name"])),
    (
        "CertificateSigningRequestStatus",
        "conditions",
        Map(&["type"]),
    ),
    ("ComponentStatus", "conditions", Map(&["type"])),
    ("Container", "env", Map(&["name"])),
    ("Container", "ports", Map(&["containerPort", "protocol"])),
    ("Container", "volumeDevices", Map(&["devicePath"])),
    ("Container", "volumeMounts", Map(&["mountPath"])),
    ("ContainerRestartRuleOnExitCodes", "values", Set),
    (
        "ContainerStatus",
        "allocatedResourcesStatus",
        Map(&["name"]),
    ),
    ("ContainerStatus", "volumeMounts", Map(&["mountPath"])),
    (
        "CustomResourceDefinitionStatus",
        "conditions",
        Map(&["type"]),
    ),
    ("DaemonSetStatus", "conditions", Map(&["type"])),
    ("DeploymentStatus", "conditions", Map(&["type"])),
    ("Endpoint", "addresses", Set),
    ("EphemeralContainer", "env", Map(&["name"])),
    (
        "EphemeralContainer",
        "ports",
        Map(&["containerPort", "protocol"]),
    ),
    ("EphemeralContainer", "volumeDevices", Map(&["devicePath"])),
    ("EphemeralContainer", "volumeMounts", Map(&["mountPath"])),
    (
        "HorizontalPodAutoscalerStatus",
        "conditions",
        Map(&["type"]),
    ),
    (
        "JSONSchemaProps",
        "x-kubernetes-validations",
        Map(&["rule"]),
    ),
    (
        "JobSchedulingConfiguration",
        "resourceClaims",
        Map(&["name"]),
    ),
    (
        "MutatingAdmissionPolicySpec",
        "matchConditions",
        Map(&["name"]),
    ),
    ("MutatingWebhook", "matchConditions", Map(&["name"])),
    ("MutatingWebhookConfiguration", "webhooks", Map(&["name"])),
    ("NamespaceStatus", "conditions", Map(&["type"])),
    ("NodeAllocatableResourceClaimStatus", "containers", Set),
    (
        "NodeAllocatableResourceClaimStatus",
        "mapping",
        Map(&["name"]),
    ),
    (
        "NodeAllocatableResourceClaimStatus",
        "overhead",
        Map(&["name"]),
    ),
    ("NodePodPreemptionPolicy", "disableResizePreemption", Set),
    ("NodeSpec", "podCIDRs", Set),
    ("NodeStatus", "addresses", Map(&["type"])),
    ("NodeStatus", "conditions", Map(&["type"])),
    ("ObjectMeta", "finalizers", Set),
    ("ObjectMeta", "ownerReferences", Map(&["uid"])),
    ("PersistentVolumeClaimStatus", "conditions", Map(&["type"])),
    ("PodCertificateRequestStatus", "conditions", Map(&["type"])),
    ("PodDisruptionBudgetStatus", "conditions", Map(&["type"])),
    ("PodFailurePolicyOnExitCodesRequirement", "values", Set),
    ("PodSpec", "containers", Map(&["name"])),
    ("PodSpec", "ephemeralContainers", Map(&["name"])),
    ("PodSpec", "evictionResponders", Map(&["name"])),
    ("PodSpec", "hostAliases", Map(&["ip"])),
    ("PodSpec", "imagePullSecrets", Map(&["name"])),
    ("PodSpec", "initContainers", Map(&["name"])),
    ("PodSpec", "resourceClaims", Map(&["name"])),
    ("PodSpec", "schedulingGates", Map(&["name"])),
    (
        "PodSpec",
        "topologySpreadConstraints",
        Map(&["topologyKey", "whenUnsatisfiable"]),
    ),
    ("PodSpec", "volumes", Map(&["name"])),
    ("PodStatus", "conditions", Map(&["type"])),
    (
        "PodStatus",
        "nodeAllocatableResourceClaimStatuses",
        Map(&["resourceClaimName"]),
    ),
    ("PodStatus", "podIPs", Map(&["ip"])),
    ("PodStatus", "resourceClaimStatuses", Map(&["name"])),
    ("PodStatus", "volumeHealth", Map(&["name"])),
    (
        "PodVolumeHealth",
        "healthConditions",
        Map(&["status", "reason"]),
    ),
    ("ReplicaSetStatus", "conditions", Map(&["type"])),
    ("ReplicationControllerStatus", "conditions", Map(&["type"])),
    ("ResourceRequirements", "claims", Map(&["name"])),
    ("ResourceStatus", "resources", Map(&["resourceID"])),
    ("ServiceAccount", "secrets", Map(&["name"])),
    ("ServiceCIDRStatus", "conditions", Map(&["type"])),
    ("ServiceSpec", "ports", Map(&["port", "protocol"])),
    ("ServiceStatus", "conditions", Map(&["type"])),
    ("StatefulSetStatus", "conditions", Map(&["type"])),
    ("UncountedTerminatedPods", "failed", Set),
    ("UncountedTerminatedPods", "succeeded", Set),
    (
        "ValidatingAdmissionPolicyBindingSpec",
        "validationActions",
        Set,
    ),
    (
        "ValidatingAdmissionPolicySpec",
        "matchConditions",
        Map(&["name"]),
    ),
    ("ValidatingAdmissionPolicySpec", "variables", Map(&["name"])),
    (
        "ValidatingAdmissionPolicyStatus",
        "conditions",
        Map(&["type"]),
    ),
    ("ValidatingWebhook", "matchConditions", Map(&["name"])),
    ("ValidatingWebhookConfiguration", "webhooks", Map(&["name"])),
    (
        "VolumeHealthStatus",
        "healthConditions",
        Map(&["status", "reason"]),
    ),
    ("VolumeMount", "bindMountOptions", Set),
];

/// Type and field of maps, and of references to structs, that are one value.
const ATOMIC_FIELDS: &[(&str, &str)] = &[
    ("PodSpec", "nodeSelector"),
    ("ReplicationControllerSpec", "selector"),
    ("Scheduling", "nodeSelector"),
    ("ServiceSpec", "selector"),
];

/// Type and field of references to an atomic struct that is not atomic there.
const GRANULAR_FIELDS: &[(&str, &str)] = &[("PersistentVolumeSpec", "claimRef")];

/// Structs that are one value.
const ATOMIC_TYPES: &[&str] = &[
    "ConfigMapKeySelector",
    "EndpointAddress",
    "EndpointPort",
    "EvictionResponder",
    "FileKeySelector",
    "LabelSelector",
    "LocalObjectReference",
    "MatchResources",
    "NamedRuleWithOperations",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "OwnerReference",
    "ParamKind",
    "ParamRef",
    "ResourceFieldSelector",
    "RoleRef",
    "ScopeSelector",
    "SecretKeySelector",
    "SecretReference",
    "ServiceBackendPort",
    "Subject",
    "TopologySelectorTerm",
    "TypedLocalObjectReference",
    "Variable",
];

/// Structs that are one value in one package only: the package with its version, and the type.
const ATOMIC_TYPES_OF: &[(&str, &str)] = &[("autoscaling.v1", "CrossVersionObjectReference")];

/// Type, field and value of the keys that have one when they are left out.
const KEY_DEFAULTS: &[(&str, &str, &str)] = &[
    ("ContainerPort", "protocol", "TCP"),
    ("ServicePort", "protocol", "TCP"),
];

/// Type, and its fields that are structs which Go always has, even when nobody wrote them (no pointers): they have the
/// default `{}`. `metadata` is one in every type that has it.
const NEVER_ABSENT: &[(&str, &[&str])] = &[
    ("APIService", &["spec", "status"]),
    ("CSIDriver", &["spec"]),
    ("CSINode", &["spec", "status"]),
    ("CertificateSigningRequest", &["spec", "status"]),
    ("ClusterRoleBinding", &["roleRef"]),
    ("ClusterTrustBundle", &["spec"]),
    ("Container", &["resources"]),
    ("ContainerResourceMetricSource", &["target"]),
    ("ContainerResourceMetricStatus", &["current"]),
    ("ContainerStatus", &["lastState", "state"]),
    ("CronJob", &["spec", "status"]),
    ("CronJobSpec", &["jobTemplate"]),
    ("CustomResourceDefinition", &["spec", "status"]),
    ("CustomResourceDefinitionSpec", &["names"]),
    ("CustomResourceDefinitionStatus", &["acceptedNames"]),
    ("DaemonSet", &["spec", "status"]),
    ("DaemonSetSpec", &["template", "updateStrategy"]),
    ("Deployment", &["spec", "status"]),
    ("DeploymentSpec", &["strategy", "template"]),
    ("Endpoint", &["conditions"]),
    ("EphemeralContainer", &["resources"]),
    (
        "Event",
        &["deprecatedSource", "involvedObject", "regarding", "source"],
    ),
    ("ExternalMetricSource", &["metric", "target"]),
    ("ExternalMetricStatus", &["current", "metric"]),
    ("HTTPIngressPath", &["backend"]),
    ("HorizontalPodAutoscaler", &["spec", "status"]),
    ("HorizontalPodAutoscalerSpec", &["scaleTargetRef"]),
    ("IPAddress", &["spec"]),
    ("Ingress", &["spec", "status"]),
    ("IngressClass", &["spec"]),
    ("IngressServiceBackend", &["port"]),
    ("IngressStatus", &["loadBalancer"]),
    ("Job", &["spec", "status"]),
    ("JobSpec", &["template"]),
    ("JobTemplateSpec", &["spec"]),
    ("Lease", &["spec"]),
    ("LimitRange", &["spec"]),
    ("MutatingAdmissionPolicy", &["spec"]),
    ("MutatingAdmissionPolicyBinding", &["spec"]),
    ("MutatingWebhook", &["clientConfig"]),
    ("Namespace", &["spec", "status"]),
    ("NetworkPolicy", &["spec"]),
    ("NetworkPolicySpec", &["podSelector"]),
    ("Node", &["spec", "status"]),
    ("NodeDaemonEndpoints", &["kubeletEndpoint"]),
    ("NodeStatus", &["daemonEndpoints", "nodeInfo"]),
    (
        "ObjectMetricSource",
        &["describedObject", "metric", "target"],
    ),
    (
        "ObjectMetricStatus",
        &["current", "describedObject", "metric"],
    ),
    ("PersistentVolume", &["spec", "status"]),
    ("PersistentVolumeClaim", &["spec", "status"]),
    ("PersistentVolumeClaimSpec", &["resources"]),
    ("PersistentVolumeClaimTemplate", &["spec"]),
    ("Pod", &["spec", "status"]),
    ("PodCertificateRequest", &["spec", "status"]),
    ("PodDisruptionBudget", &["spec", "status"]),
    ("PodTemplate", &["template"]),
    ("PodTemplateSpec", &["spec"]),
    ("PodsMetricSource", &["metric", "target"]),
    ("PodsMetricStatus", &["current", "metric"]),
    ("PreferredSchedulingTerm", &["preference"]),
    ("ReplicaSet", &["spec", "status"]),
    ("ReplicaSetSpec", &["template"]),
    ("ReplicationController", &["spec", "status"]),
    ("ResourceMetricSource", &["target"]),
    ("ResourceMetricStatus", &["current"]),
    ("ResourceQuota", &["spec", "status"]),
    ("RoleBinding", &["roleRef"]),
    ("Service", &["spec", "status"]),
    ("ServiceCIDR", &["spec", "status"]),
    ("ServiceStatus", &["loadBalancer"]),
    ("StatefulSet", &["spec", "status"]),
    ("StatefulSetSpec", &["template", "updateStrategy"]),
    ("ValidatingAdmissionPolicy", &["spec", "status"]),
    ("ValidatingAdmissionPolicyBinding", &["spec"]),
    ("ValidatingWebhook", &["clientConfig"]),
    ("VolumeAttachment", &["spec", "status"]),
    ("VolumeAttachmentSpec", &["source"]),
    ("WeightedPodAffinityTerm", &["podAffinityTerm"]),
];

fn last(schema: &str) -> &str {
    schema.rsplit('.').next().unwrap_or(schema)
}

/// How the elements of the list in the field belong together; `None`: the list is atomic. `schema` is the name of the
/// type with its package, `io.k8s.api.core.v1.PodSpec` for example.
pub fn list_type(schema: &str, field: &str) -> Option<ListType> {
    let name = last(schema);
    LISTS
        .iter()
        .find(|(of, its, _)| *of == name && *its == field)
        .map(|(_, _, list)| *list)
}

/// Whether the map or struct in the field is one value (`Some(true)`) or explicitly not (`Some(false)`).
pub fn atomic_field(schema: &str, field: &str) -> Option<bool> {
    let key = (last(schema), field);
    if ATOMIC_FIELDS.contains(&key) {
        Some(true)
    } else {
        GRANULAR_FIELDS.contains(&key).then_some(false)
    }
}

/// Whether the struct is one value.
pub fn is_atomic(schema: &str) -> bool {
    let name = last(schema);
    ATOMIC_TYPES.contains(&name)
        || ATOMIC_TYPES_OF
            .iter()
            .any(|(package, of)| *of == name && schema.ends_with(&format!("{package}.{name}")))
}

/// The value that the field has when it is left out.
pub fn key_default(schema: &str, field: &str) -> Option<&'static str> {
    let name = last(schema);
    KEY_DEFAULTS
        .iter()
        .find(|(of, its, _)| *of == name && *its == field)
        .map(|(_, _, value)| *value)
}

/// Whether Go always has the struct in the field.
pub fn is_never_absent(schema: &str, field: &str) -> bool {
    let name = last(schema);
    field == "metadata"
        || NEVER_ABSENT
            .iter()
            .any(|(of, fields)| *of == name && fields.contains(&field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_the_same_name_are_told_apart() {
        assert!(is_atomic(
            "io.k8s.api.autoscaling.v1.CrossVersionObjectReference"
        ));
        assert!(!is_atomic(
            "io.k8s.api.autoscaling.v2.CrossVersionObjectReference"
        ));
        assert!(is_atomic(
            "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"
        ));
        assert_eq!(
            list_type("io.k8s.api.core.v1.ServiceSpec", "ports"),
            Some(Map(&["port", "protocol"]))
        );
        assert_eq!(
            list_type("io.k8s.api.discovery.v1.EndpointSlice", "ports"),
            None
        );
    }
}
