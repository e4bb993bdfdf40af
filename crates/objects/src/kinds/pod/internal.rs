//! A Pod spec as Kubernetes' API server holds it in memory: messages about a whole spec show it like this.
//!
//! Source: the fields of `PodSpec` and what it is made of in `pkg/apis/core/types.go`. Volume sources that no cluster
//! without a cloud has are taken over as they are in JSON.

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use serde_json::Value;

use crate::go_json;
use crate::go_value::{Go, Structs, read};

/// The spec in Go's eyes.
pub(in crate::kinds) fn spec(spec: &PodSpec) -> Go {
    let mut json = go_json::to_value("Pod", spec).unwrap_or_default();
    host_fields(&mut json);
    read(STRUCTS, "PodSpec", Some(&json))
}

/// A template in Go's eyes: its metadata is embedded and keeps its JSON names.
pub(in crate::kinds) fn template(template: &PodTemplateSpec) -> Go {
    let meta = template
        .metadata
        .as_ref()
        .and_then(|meta| go_json::to_value("Pod", meta).ok());
    // The order in which `ObjectMeta` declares them.
    let order = [
        "name",
        "generateName",
        "namespace",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
    ];
    let mut fields: Vec<(String, Go)> = Vec::new();
    for name in order {
        if let Some(value) = meta.as_ref().and_then(|meta| meta.get(name)) {
            fields.push((name.to_owned(), Go::Plain(value.clone())));
        }
    }
    let inner = template.spec.clone().unwrap_or_default();
    fields.push(("Spec".to_owned(), spec(&inner)));
    Go::Struct(fields)
}

/// Kubernetes keeps what a Pod shares with its host with the security context.
fn host_fields(spec: &mut Value) {
    for field in [
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "shareProcessNamespace",
        "hostUsers",
    ] {
        if let Some(value) = spec.get(field).cloned()
            && let Some(Value::Object(context)) = spec.get_mut("securityContext")
        {
            context.insert(field.to_owned(), value);
        }
    }
}

const STRUCTS: Structs = &[
    (
        "PodSpec",
        &[
            ("Volumes", "[]Volume"),
            ("InitContainers", "[]Container"),
            ("Containers", "[]Container"),
            ("EphemeralContainers", "[]EphemeralContainer"),
            ("RestartPolicy", "string"),
            ("TerminationGracePeriodSeconds", "*int"),
            ("ActiveDeadlineSeconds", "*int"),
            ("DNSPolicy", "string"),
            ("NodeSelector", "map"),
            ("ServiceAccountName", "string"),
            ("AutomountServiceAccountToken", "*bool"),
            ("NodeName", "string"),
            ("SecurityContext", "*PodSecurityContext"),
            ("ImagePullSecrets", "[]LocalObjectReference"),
            ("Hostname", "string"),
            ("Subdomain", "string"),
            ("SetHostnameAsFQDN", "*bool"),
            ("Affinity", "*Affinity"),
            ("SchedulerName", "string"),
            ("Tolerations", "[]Toleration"),
            ("HostAliases", "[]HostAlias"),
            ("PriorityClassName", "string"),
            ("Priority", "*int"),
            ("PreemptionPolicy", "*string"),
            ("DNSConfig", "*PodDNSConfig"),
            ("ReadinessGates", "[]PodReadinessGate"),
            ("RuntimeClassName", "*string"),
            ("Overhead", "map"),
            ("EnableServiceLinks", "*bool"),
            ("TopologySpreadConstraints", "[]TopologySpreadConstraint"),
            ("OS", "*PodOS"),
            ("SchedulingGates", "[]PodSchedulingGate"),
            ("ResourceClaims", "[]PodResourceClaim"),
            ("Resources", "*ResourceRequirements"),
            ("HostnameOverride", "*string"),
            ("SchedulingGroup", "*PodSchedulingGroup"),
        ],
    ),
    (
        "Container",
        &[
            ("Name", "string"),
            ("Image", "string"),
            ("Command", "[]string"),
            ("Args", "[]string"),
            ("WorkingDir", "string"),
            ("Ports", "[]ContainerPort"),
            ("EnvFrom", "[]EnvFromSource"),
            ("Env", "[]EnvVar"),
            ("Resources", "ResourceRequirements"),
            ("ResizePolicy", "[]ContainerResizePolicy"),
            ("RestartPolicy", "*string"),
            ("RestartPolicyRules", "[]ContainerRestartRule"),
            ("VolumeMounts", "[]VolumeMount"),
            ("VolumeDevices", "[]VolumeDevice"),
            ("LivenessProbe", "*Probe"),
            ("ReadinessProbe", "*Probe"),
            ("StartupProbe", "*Probe"),
            ("Lifecycle", "*Lifecycle"),
            ("TerminationMessagePath", "string"),
            ("TerminationMessagePolicy", "string"),
            ("ImagePullPolicy", "string"),
            ("SecurityContext", "*SecurityContext"),
            ("Stdin", "bool"),
            ("StdinOnce", "bool"),
            ("TTY", "bool"),
        ],
    ),
    (
        "EphemeralContainer",
        &[("", "Container"), ("TargetContainerName", "string")],
    ),
    (
        "ContainerPort",
        &[
            ("Name", "string"),
            ("HostPort", "int"),
            ("ContainerPort", "int"),
            ("Protocol", "string"),
            ("HostIP", "string"),
        ],
    ),
    (
        "EnvFromSource",
        &[
            ("Prefix", "string"),
            ("ConfigMapRef", "*OptionalReference"),
            ("SecretRef", "*OptionalReference"),
        ],
    ),
    (
        "OptionalReference",
        &[("Name", "string"), ("Optional", "*bool")],
    ),
    (
        "EnvVar",
        &[
            ("Name", "string"),
            ("Value", "string"),
            ("ValueFrom", "*EnvVarSource"),
        ],
    ),
    (
        "EnvVarSource",
        &[
            ("FieldRef", "*ObjectFieldSelector"),
            ("ResourceFieldRef", "*ResourceFieldSelector"),
            ("ConfigMapKeyRef", "*KeySelector"),
            ("SecretKeyRef", "*KeySelector"),
            ("FileKeyRef", "*FileKeySelector"),
        ],
    ),
    (
        "ObjectFieldSelector",
        &[("APIVersion", "string"), ("FieldPath", "string")],
    ),
    (
        "ResourceFieldSelector",
        &[
            ("ContainerName", "string"),
            ("Resource", "string"),
            ("Divisor", "quantity"),
        ],
    ),
    (
        "KeySelector",
        &[("Name", "string"), ("Key", "string"), ("Optional", "*bool")],
    ),
    (
        "FileKeySelector",
        &[
            ("VolumeName", "string"),
            ("Path", "string"),
            ("Key", "string"),
            ("Optional", "*bool"),
        ],
    ),
    (
        "ResourceRequirements",
        &[
            ("Limits", "map"),
            ("Requests", "map"),
            ("Claims", "[]ResourceClaim"),
        ],
    ),
    (
        "ResourceClaim",
        &[("Name", "string"), ("Request", "string")],
    ),
    (
        "ContainerResizePolicy",
        &[("ResourceName", "string"), ("RestartPolicy", "string")],
    ),
    (
        "ContainerRestartRule",
        &[
            ("Action", "string"),
            ("ExitCodes", "*ContainerRestartRuleOnExitCodes"),
        ],
    ),
    (
        "ContainerRestartRuleOnExitCodes",
        &[("Operator", "string"), ("Values", "[]int")],
    ),
    (
        "VolumeMount",
        &[
            ("Name", "string"),
            ("ReadOnly", "bool"),
            ("RecursiveReadOnly", "*string"),
            ("MountPath", "string"),
            ("SubPath", "string"),
            ("MountPropagation", "*string"),
            ("SubPathExpr", "string"),
        ],
    ),
    (
        "VolumeDevice",
        &[("Name", "string"), ("DevicePath", "string")],
    ),
    (
        "Probe",
        &[
            ("Exec", "*ExecAction"),
            ("HTTPGet", "*HTTPGetAction"),
            ("TCPSocket", "*TCPSocketAction"),
            ("GRPC", "*GRPCAction"),
            ("InitialDelaySeconds", "int"),
            ("TimeoutSeconds", "int"),
            ("PeriodSeconds", "int"),
            ("SuccessThreshold", "int"),
            ("FailureThreshold", "int"),
            ("TerminationGracePeriodSeconds", "*int"),
        ],
    ),
    ("ExecAction", &[("Command", "[]string")]),
    (
        "HTTPGetAction",
        &[
            ("Path", "string"),
            ("Port", "intstr"),
            ("Host", "string"),
            ("Scheme", "string"),
            ("HTTPHeaders", "[]HTTPHeader"),
        ],
    ),
    ("HTTPHeader", &[("Name", "string"), ("Value", "string")]),
    ("TCPSocketAction", &[("Port", "intstr"), ("Host", "string")]),
    ("GRPCAction", &[("Port", "int"), ("Service", "*string")]),
    (
        "Lifecycle",
        &[
            ("PostStart", "*LifecycleHandler"),
            ("PreStop", "*LifecycleHandler"),
            ("StopSignal", "*string"),
        ],
    ),
    (
        "LifecycleHandler",
        &[
            ("Exec", "*ExecAction"),
            ("HTTPGet", "*HTTPGetAction"),
            ("TCPSocket", "*TCPSocketAction"),
            ("Sleep", "*SleepAction"),
        ],
    ),
    ("SleepAction", &[("Seconds", "int")]),
    (
        "SecurityContext",
        &[
            ("Capabilities", "*Capabilities"),
            ("Privileged", "*bool"),
            ("SELinuxOptions", "*SELinuxOptions"),
            ("WindowsOptions", "*WindowsSecurityContextOptions"),
            ("RunAsUser", "*int"),
            ("RunAsGroup", "*int"),
            ("RunAsNonRoot", "*bool"),
            ("ReadOnlyRootFilesystem", "*bool"),
            ("AllowPrivilegeEscalation", "*bool"),
            ("ProcMount", "*string"),
            ("SeccompProfile", "*LocalhostOrNamedProfile"),
            ("AppArmorProfile", "*LocalhostOrNamedProfile"),
        ],
    ),
    ("Capabilities", &[("Add", "[]string"), ("Drop", "[]string")]),
    (
        "SELinuxOptions",
        &[
            ("User", "string"),
            ("Role", "string"),
            ("Type", "string"),
            ("Level", "string"),
        ],
    ),
    (
        "WindowsSecurityContextOptions",
        &[
            ("GMSACredentialSpecName", "*string"),
            ("GMSACredentialSpec", "*string"),
            ("RunAsUserName", "*string"),
            ("HostProcess", "*bool"),
        ],
    ),
    (
        "LocalhostOrNamedProfile",
        &[("Type", "string"), ("LocalhostProfile", "*string")],
    ),
    (
        "PodSecurityContext",
        &[
            ("HostNetwork", "bool"),
            ("HostPID", "bool"),
            ("HostIPC", "bool"),
            ("ShareProcessNamespace", "*bool"),
            ("HostUsers", "*bool"),
            ("SELinuxOptions", "*SELinuxOptions"),
            ("WindowsOptions", "*WindowsSecurityContextOptions"),
            ("RunAsUser", "*int"),
            ("RunAsGroup", "*int"),
            ("RunAsNonRoot", "*bool"),
            ("SupplementalGroups", "[]int"),
            ("SupplementalGroupsPolicy", "*string"),
            ("FSGroup", "*int"),
            ("FSGroupChangePolicy", "*string"),
            ("Sysctls", "[]Sysctl"),
            ("SeccompProfile", "*LocalhostOrNamedProfile"),
            ("AppArmorProfile", "*LocalhostOrNamedProfile"),
            ("SELinuxChangePolicy", "*string"),
        ],
    ),
    ("Sysctl", &[("Name", "string"), ("Value", "string")]),
    ("LocalObjectReference", &[("Name", "string")]),
    (
        "Affinity",
        &[
            ("NodeAffinity", "*NodeAffinity"),
            ("PodAffinity", "*PodAffinity"),
            ("PodAntiAffinity", "*PodAffinity"),
        ],
    ),
    (
        "NodeAffinity",
        &[
            (
                "RequiredDuringSchedulingIgnoredDuringExecution",
                "*NodeSelector",
            ),
            (
                "PreferredDuringSchedulingIgnoredDuringExecution",
                "[]PreferredSchedulingTerm",
            ),
        ],
    ),
    (
        "NodeSelector",
        &[("NodeSelectorTerms", "[]NodeSelectorTerm")],
    ),
    (
        "NodeSelectorTerm",
        &[
            ("MatchExpressions", "[]NodeSelectorRequirement"),
            ("MatchFields", "[]NodeSelectorRequirement"),
        ],
    ),
    (
        "NodeSelectorRequirement",
        &[
            ("Key", "string"),
            ("Operator", "string"),
            ("Values", "[]string"),
        ],
    ),
    (
        "PreferredSchedulingTerm",
        &[("Weight", "int"), ("Preference", "NodeSelectorTerm")],
    ),
    (
        "PodAffinity",
        &[
            (
                "RequiredDuringSchedulingIgnoredDuringExecution",
                "[]PodAffinityTerm",
            ),
            (
                "PreferredDuringSchedulingIgnoredDuringExecution",
                "[]WeightedPodAffinityTerm",
            ),
        ],
    ),
    (
        "WeightedPodAffinityTerm",
        &[("Weight", "int"), ("PodAffinityTerm", "PodAffinityTerm")],
    ),
    (
        "PodAffinityTerm",
        &[
            ("LabelSelector", "any"),
            ("Namespaces", "[]string"),
            ("TopologyKey", "string"),
            ("NamespaceSelector", "any"),
            ("MatchLabelKeys", "[]string"),
            ("MismatchLabelKeys", "[]string"),
        ],
    ),
    (
        "Toleration",
        &[
            ("Key", "string"),
            ("Operator", "string"),
            ("Value", "string"),
            ("Effect", "string"),
            ("TolerationSeconds", "*int"),
        ],
    ),
    ("HostAlias", &[("IP", "string"), ("Hostnames", "[]string")]),
    (
        "PodDNSConfig",
        &[
            ("Nameservers", "[]string"),
            ("Searches", "[]string"),
            ("Options", "[]PodDNSConfigOption"),
        ],
    ),
    (
        "PodDNSConfigOption",
        &[("Name", "string"), ("Value", "*string")],
    ),
    ("PodReadinessGate", &[("ConditionType", "string")]),
    (
        "TopologySpreadConstraint",
        &[
            ("MaxSkew", "int"),
            ("TopologyKey", "string"),
            ("WhenUnsatisfiable", "string"),
            ("LabelSelector", "any"),
            ("MinDomains", "*int"),
            ("NodeAffinityPolicy", "*string"),
            ("NodeTaintsPolicy", "*string"),
            ("MatchLabelKeys", "[]string"),
        ],
    ),
    ("PodOS", &[("Name", "string")]),
    ("PodSchedulingGate", &[("Name", "string")]),
    (
        "PodResourceClaim",
        &[
            ("Name", "string"),
            ("ResourceClaimName", "*string"),
            ("ResourceClaimTemplateName", "*string"),
        ],
    ),
    ("PodSchedulingGroup", &[("PodGroupName", "*string")]),
    ("Volume", &[("Name", "string"), ("", "VolumeSource")]),
    (
        "VolumeSource",
        &[
            ("HostPath", "*HostPathVolumeSource"),
            ("EmptyDir", "*EmptyDirVolumeSource"),
            ("GCEPersistentDisk", "any"),
            ("AWSElasticBlockStore", "any"),
            ("GitRepo", "any"),
            ("Secret", "*SecretVolumeSource"),
            ("NFS", "*NFSVolumeSource"),
            ("ISCSI", "any"),
            ("Glusterfs", "any"),
            (
                "PersistentVolumeClaim",
                "*PersistentVolumeClaimVolumeSource",
            ),
            ("RBD", "any"),
            ("Quobyte", "any"),
            ("FlexVolume", "any"),
            ("Cinder", "any"),
            ("CephFS", "any"),
            ("Flocker", "any"),
            ("DownwardAPI", "*DownwardAPIVolumeSource"),
            ("FC", "any"),
            ("AzureFile", "any"),
            ("ConfigMap", "*ConfigMapVolumeSource"),
            ("VsphereVolume", "any"),
            ("AzureDisk", "any"),
            ("PhotonPersistentDisk", "any"),
            ("Projected", "*ProjectedVolumeSource"),
            ("PortworxVolume", "any"),
            ("ScaleIO", "any"),
            ("StorageOS", "any"),
            ("CSI", "any"),
            ("Ephemeral", "any"),
            ("Image", "*ImageVolumeSource"),
        ],
    ),
    (
        "HostPathVolumeSource",
        &[("Path", "string"), ("Type", "*string")],
    ),
    (
        "EmptyDirVolumeSource",
        &[("Medium", "string"), ("SizeLimit", "any")],
    ),
    (
        "NFSVolumeSource",
        &[
            ("Server", "string"),
            ("Path", "string"),
            ("ReadOnly", "bool"),
        ],
    ),
    (
        "PersistentVolumeClaimVolumeSource",
        &[("ClaimName", "string"), ("ReadOnly", "bool")],
    ),
    (
        "ImageVolumeSource",
        &[("Reference", "string"), ("PullPolicy", "string")],
    ),
    (
        "SecretVolumeSource",
        &[
            ("SecretName", "string"),
            ("Items", "[]KeyToPath"),
            ("DefaultMode", "*int"),
            ("Optional", "*bool"),
        ],
    ),
    (
        "ConfigMapVolumeSource",
        &[
            ("Name", "string"),
            ("Items", "[]KeyToPath"),
            ("DefaultMode", "*int"),
            ("Optional", "*bool"),
        ],
    ),
    (
        "KeyToPath",
        &[("Key", "string"), ("Path", "string"), ("Mode", "*int")],
    ),
    (
        "DownwardAPIVolumeSource",
        &[
            ("Items", "[]DownwardAPIVolumeFile"),
            ("DefaultMode", "*int"),
        ],
    ),
    (
        "DownwardAPIVolumeFile",
        &[
            ("Path", "string"),
            ("FieldRef", "*ObjectFieldSelector"),
            ("ResourceFieldRef", "*ResourceFieldSelector"),
            ("Mode", "*int"),
        ],
    ),
    (
        "ProjectedVolumeSource",
        &[("Sources", "[]VolumeProjection"), ("DefaultMode", "*int")],
    ),
    (
        "VolumeProjection",
        &[
            ("Secret", "*ObjectProjection"),
            ("DownwardAPI", "*DownwardAPIProjection"),
            ("ConfigMap", "*ObjectProjection"),
            ("ServiceAccountToken", "*ServiceAccountTokenProjection"),
            ("ClusterTrustBundle", "any"),
            ("PodCertificate", "any"),
        ],
    ),
    (
        "ObjectProjection",
        &[
            ("Name", "string"),
            ("Items", "[]KeyToPath"),
            ("Optional", "*bool"),
        ],
    ),
    (
        "DownwardAPIProjection",
        &[("Items", "[]DownwardAPIVolumeFile")],
    ),
    (
        "ServiceAccountTokenProjection",
        &[
            ("Audience", "string"),
            ("ExpirationSeconds", "int"),
            ("Path", "string"),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_type_in_the_table_is_described() {
        let known: BTreeSet<&str> = STRUCTS.iter().map(|(name, _)| *name).collect();
        let plain = ["string", "bool", "int", "any", "quantity", "intstr", "map"];
        assert_eq!(known.len(), STRUCTS.len(), "described twice");
        for (name, fields) in STRUCTS {
            for (field, kind) in *fields {
                let kind = kind.trim_start_matches(['*', '[', ']']);
                assert!(
                    known.contains(kind) || plain.contains(&kind),
                    "{name}.{field}: {kind}"
                );
            }
        }
    }

    #[test]
    fn what_a_pod_shares_with_its_host_stands_in_its_security_context() {
        let shared: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [], "hostNetwork": true, "securityContext": {}
        }))
        .expect("a spec");
        let text = serde_json::to_string(&spec(&shared)).expect("JSON");
        assert!(
            text.contains(r#""SecurityContext":{"HostNetwork":true,"HostPID":false,"#),
            "{text}"
        );
        assert!(
            text.starts_with(r#"{"Volumes":null,"InitContainers":null,"Containers":[],"#),
            "{text}"
        );
    }
}
