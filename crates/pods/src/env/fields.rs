//! What a container can be told about its own Pod: `fieldRef` and `resourceFieldRef` of the downward API.
//! Source: "Downward API" in the Kubernetes documentation; `pkg/fieldpath`, `pkg/api/v1/resource/helpers.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::quantity::Amount;

/// What is known of a Pod only on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// `status.podIP`; for the host network that of the node.
    pub pod_ip: IpAddr,
    /// `status.hostIP`
    pub host_ip: IpAddr,
    /// `spec.nodeName`
    pub node_name: String,
    /// CPUs of the node, which stand for a limit that is not set.
    pub node_cpu: Amount,
    /// Bytes of memory of the node, which stand for a limit that is not set.
    pub node_memory: Amount,
}

/// A reference that gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// No such field.
    #[error("unsupported fieldPath: {path}")]
    Path {
        /// As given.
        path: String,
    },
    /// No such resource.
    #[error("unsupported container resource : {resource}")]
    Resource {
        /// As given.
        resource: String,
    },
    /// The named container is not in the Pod.
    #[error("container {name} not found")]
    Container {
        /// As given.
        name: String,
    },
    /// The quantity in the Pod is not one.
    #[error(transparent)]
    Quantity(#[from] crate::quantity::InvalidQuantity),
}

/// The value of a `fieldPath`.
pub fn field(pod: &Pod, facts: &PodFacts, path: &str) -> Result<String, FieldError> {
    let meta = &pod.metadata;
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(entry(meta.labels.as_ref(), key));
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(entry(meta.annotations.as_ref(), key));
    }
    let value = match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => quoted_lines(meta.labels.as_ref()),
        "metadata.annotations" => quoted_lines(meta.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_default(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.to_string(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_string(),
        _ => {
            return Err(FieldError::Path {
                path: path.to_owned(),
            });
        }
    };
    Ok(value)
}

/// `metadata.labels['key']` → `key`
fn subscript<'a>(path: &'a str, of: &str) -> Option<&'a str> {
    path.strip_prefix(of)?
        .strip_prefix("['")?
        .strip_suffix("']")
}

fn entry(map: Option<&BTreeMap<String, String>>, key: &str) -> String {
    map.and_then(|map| map.get(key))
        .cloned()
        .unwrap_or_default()
}

/// `key="value"` lines, with the value quoted as in Go source.
fn quoted_lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

/// The value of a `resourceFieldRef` of `container`, or of the container that it names.
pub fn resource(
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
    selector: &ResourceFieldSelector,
) -> Result<String, FieldError> {
    let container = match selector
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        None => container,
        Some(name) => {
            let spec = pod.spec.as_ref();
            spec.into_iter()
                .flat_map(|spec| {
                    spec.containers
                        .iter()
                        .chain(spec.init_containers.iter().flatten())
                })
                .find(|candidate| candidate.name == name)
                .ok_or_else(|| FieldError::Container {
                    name: name.to_owned(),
                })?
        }
    };
    let resources = container.resources.clone().unwrap_or_default();
    let (set, which) = match selector.resource.split_once('.') {
        Some(("limits", which)) => (resources.limits, which),
        Some(("requests", which)) => (resources.requests, which),
        _ => {
            return Err(FieldError::Resource {
                resource: selector.resource.clone(),
            });
        }
    };
    let stated = match set.unwrap_or_default().get(which) {
        Some(quantity) => Some(Amount::parse(&quantity.0)?),
        None => None,
    };
    // Without a limit a container may use what the node has; without a request it asked for nothing.
    let limit = selector.resource.starts_with("limits.");
    let amount = match (which, stated) {
        ("cpu" | "memory" | "ephemeral-storage", Some(amount)) => amount,
        ("cpu", None) if limit => facts.node_cpu,
        ("memory", None) if limit => facts.node_memory,
        ("cpu" | "memory" | "ephemeral-storage", None) => Amount::default(),
        (name, Some(amount)) if name.starts_with("hugepages-") => amount,
        (name, None) if name.starts_with("hugepages-") => Amount::default(),
        _ => {
            return Err(FieldError::Resource {
                resource: selector.resource.clone(),
            });
        }
    };
    let divisor = match selector.divisor.as_ref().map(|divisor| divisor.0.as_str()) {
        None | Some("" | "0") => Amount::ONE,
        Some(text) => Amount::parse(text)?,
    };
    Ok(amount.divided_by(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn facts() -> PodFacts {
        PodFacts {
            pod_ip: "10.244.1.5".parse().unwrap(),
            host_ip: "10.87.0.2".parse().unwrap(),
            node_name: "node-1".into(),
            node_cpu: Amount::whole(4),
            node_memory: Amount::parse("8Gi").unwrap(),
        }
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "u1",
                "labels": {"app": "web", "tier": "a \"b\""}, "annotations": {"example.org/x": "1"}},
            "spec": {"serviceAccountName": "default", "containers": [
                {"name": "main", "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}},
                {"name": "other", "resources": {"limits": {"cpu": "1500m"}}},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn fields_of_the_pod() {
        for (path, value) in [
            ("metadata.name", "web-0"),
            ("metadata.namespace", "shop"),
            ("metadata.uid", "u1"),
            ("metadata.labels['app']", "web"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['example.org/x']", "1"),
            ("metadata.labels", "app=\"web\"\ntier=\"a \\\"b\\\"\""),
            ("spec.nodeName", "node-1"),
            ("spec.serviceAccountName", "default"),
            ("status.podIP", "10.244.1.5"),
            ("status.podIPs", "10.244.1.5"),
            ("status.hostIP", "10.87.0.2"),
        ] {
            assert_eq!(
                field(&pod(), &facts(), path).as_deref(),
                Ok(value),
                "{path}"
            );
        }
        assert!(field(&pod(), &facts(), "spec.hostname").is_err());
        assert!(field(&pod(), &facts(), "metadata.labels[app]").is_err());
    }

    #[test]
    fn resources_of_the_container_or_of_the_node() {
        for (selector, value) in [
            (json!({"resource": "limits.memory"}), "67108864"),
            (json!({"resource": "limits.memory", "divisor": "1Mi"}), "64"),
            (json!({"resource": "limits.cpu"}), "4"),
            (json!({"resource": "requests.cpu"}), "1"),
            (json!({"resource": "requests.cpu", "divisor": "1m"}), "250"),
            (json!({"resource": "requests.memory"}), "0"),
            (
                json!({"resource": "limits.cpu", "containerName": "other", "divisor": "0"}),
                "2",
            ),
        ] {
            let parsed: ResourceFieldSelector = serde_json::from_value(selector.clone()).unwrap();
            let pod = pod();
            let main = &pod.spec.as_ref().unwrap().containers[0];
            assert_eq!(
                resource(&pod, main, &facts(), &parsed).as_deref(),
                Ok(value),
                "{selector}"
            );
        }
    }
}
