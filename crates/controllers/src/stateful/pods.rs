//! What the Pods of a StatefulSet look like, and in what state each is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::model::Target;
use crate::claim::owner_reference;
use crate::object;
use crate::pod::{self, Availability};

/// Label: the revision that a Pod was made from.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";
/// Label: the Pod's own name, so that a Service can select one Pod.
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// Label: its ordinal.
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The labels that say who a Pod is.
fn identity(target: &Target, ordinal: usize) -> [(String, String); 2] {
    [
        (NAME_LABEL.to_owned(), name(target, ordinal)),
        (INDEX_LABEL.to_owned(), ordinal.to_string()),
    ]
}

fn name(target: &Target, ordinal: usize) -> String {
    format!("{}-{ordinal}", target.key.name)
}

/// The Pod of an ordinal, from the template of a revision. Its name is its hostname, under the Service's.
/// Source: `newStatefulSetPod`, `initIdentity`, `updateStorage`.
pub(crate) fn new_pod(
    target: &Target,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: usize,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.extend(identity(target, ordinal));
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let mut spec = template.spec.clone().unwrap_or_default();
    spec.hostname = Some(name(target, ordinal));
    spec.subdomain.clone_from(&target.service);
    if !target.claims.is_empty() {
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|volume| !target.claims.contains(&volume.name));
        volumes.extend(target.claims.iter().map(|claim| Volume {
            name: claim.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: format!("{claim}-{}", name(target, ordinal)),
                read_only: None,
            }),
            ..Volume::default()
        }));
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(name(target, ordinal)),
            generate_name: Some(format!("{}-", target.key.name)),
            namespace: Some(target.key.namespace.clone()),
            labels: Some(labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner_reference::<StatefulSet>(&target.meta)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// The labels of identity that a Pod lacks: one that was taken in.
pub(crate) fn missing_identity(
    target: &Target,
    pod: &Pod,
    ordinal: usize,
) -> BTreeMap<String, String> {
    let labels = object::labels_of(&pod.metadata);
    let mut wanted: BTreeMap<String, String> = identity(target, ordinal).into();
    wanted.retain(|key, value| labels.get(key) != Some(value));
    wanted
}

/// The revision that a Pod was made from; empty if nobody knows.
pub(crate) fn revision(pod: &Pod) -> &str {
    object::labels_of(&pod.metadata)
        .get(REVISION_LABEL)
        .map_or("", String::as_str)
}

/// Runs and is ready.
pub(crate) fn is_running_and_ready(pod: &Pod) -> bool {
    pod::phase(pod) == "Running" && pod::is_ready(pod)
}

/// Runs and is ready for long enough.
pub(crate) fn is_running_and_available(target: &Target, pod: &Pod, now: Timestamp) -> bool {
    pod::phase(pod) == "Running"
        && pod::availability(pod, target.min_ready_seconds, now) == Availability::Available
}

/// Not ready, or on its way out.
pub(crate) fn is_unhealthy(pod: &Pod) -> bool {
    !is_running_and_ready(pod) || object::is_deleting(&pod.metadata)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_has_its_name_its_hostname_and_its_claims() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "u" },
            "spec": { "serviceName": "nginx", "selector": { "matchLabels": { "app": "a" } },
                "volumeClaimTemplates": [{ "metadata": { "name": "data" } }],
                "template": { "metadata": { "labels": { "app": "a" } },
                    "spec": { "containers": [], "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "tmp", "emptyDir": {} }] } } },
        }))
        .unwrap();
        let target = Target::project(&set).unwrap();
        let pod = new_pod(&target, &target.template, "web-abc", 3);
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-3"));
        assert_eq!(
            (spec.hostname.as_deref(), spec.subdomain.as_deref()),
            (Some("web-3"), Some("nginx"))
        );
        assert_eq!(
            json!(pod.metadata.labels),
            json!({ "app": "a", "statefulset.kubernetes.io/pod-name": "web-3", "apps.kubernetes.io/pod-index": "3",
                "controller-revision-hash": "web-abc" })
        );
        assert_eq!(
            json!(spec.volumes),
            json!([{ "name": "tmp", "emptyDir": {} }, { "name": "data", "persistentVolumeClaim": { "claimName": "data-web-3" } }])
        );
        assert!(missing_identity(&target, &pod, 3).is_empty());
        assert_eq!(target.ordinal("web-3"), Some(3));
        for other in [
            "web-",
            "web-03",
            "web-+3",
            "web--3",
            "web3",
            "webx-3",
            "web-99999999999",
        ] {
            assert_eq!(target.ordinal(other), None, "{other}");
        }
    }
}
