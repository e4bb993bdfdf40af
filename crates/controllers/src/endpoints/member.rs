//! One Pod as an endpoint of one Service: whether it counts, on which ports, and in what condition.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::service::{Family, Selecting};
use crate::object;
use crate::pod;

/// A resolved port: a number where the Service may have had a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    /// Name of the Service's port; empty for the only one.
    pub(crate) name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub(crate) protocol: String,
    /// Port of the Pod.
    pub(crate) number: i32,
    /// What is spoken on it.
    pub(crate) app_protocol: Option<String>,
}

/// A Pod behind a Service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    /// Its address.
    pub(crate) address: IpAddr,
    /// The ports it serves; Pods with different numbers for one name differ here.
    pub(crate) ports: Vec<Port>,
    /// Its `Ready` condition.
    pub(crate) serving: bool,
    /// It is being deleted.
    pub(crate) terminating: bool,
    /// Its node.
    pub(crate) node: Option<String>,
    /// Its own name under the Service's, if it has one.
    pub(crate) hostname: Option<String>,
    /// The Pod.
    pub(crate) target: ObjectReference,
}

impl Member {
    /// The Pod as an endpoint with an address of the family; `None` when it is none: it has no address, or it has
    /// ended for good.
    pub(crate) fn of(service: &Selecting, pod: &Pod, family: Family) -> Option<Self> {
        if pod::is_terminal(pod) {
            return None;
        }
        let address = pod::addresses(pod)
            .into_iter()
            .find(|address| Family::of(address) == family)?;
        Some(Self {
            address,
            ports: ports(service, pod),
            serving: pod::is_ready(pod),
            terminating: object::is_deleting(&pod.metadata),
            node: pod::node_name(pod).map(str::to_owned),
            hostname: hostname(service, pod),
            target: ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectReference::default()
            },
        })
    }
}

/// The Service's ports on this Pod; a name that none of its containers has is left out.
fn ports(service: &Selecting, pod: &Pod) -> Vec<Port> {
    let resolved = service.ports.iter().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: protocol(port).to_owned(),
            number: resolve(port, pod)?,
            app_protocol: port.app_protocol.clone(),
        })
    });
    let mut ports: Vec<Port> = resolved.collect();
    ports.sort();
    ports
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn resolve(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let mut declared = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let found = declared.find(|declared| {
        declared.name.as_deref() == Some(name)
            && declared.protocol.as_deref().unwrap_or("TCP") == protocol(port)
    });
    found.map(|declared| declared.container_port)
}

/// A Pod of the Service's subdomain answers to its own name. Source: API reference, `PodSpec.subdomain`.
fn hostname(service: &Selecting, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_deref().filter(|name| !name.is_empty())?;
    (spec.subdomain.as_deref() == Some(service.key.name.as_str())).then(|| hostname.to_owned())
}

/// What of a Pod the endpoint controllers look at; a change of anything else is no change to them.
pub(crate) fn relevant(pod: &Pod) -> impl PartialEq + use<'_> {
    let spec = pod.spec.as_ref();
    (
        (
            pod::addresses(pod),
            pod::is_terminal(pod),
            pod::is_ready(pod),
            object::is_deleting(&pod.metadata),
        ),
        (object::labels_of(&pod.metadata), pod::node_name(pod)),
        (
            spec.and_then(|spec| spec.hostname.as_deref()),
            spec.and_then(|spec| spec.subdomain.as_deref()),
        ),
    )
}

/// When the Pod last changed in a way that its Services feel.
pub(crate) fn changed_at(pod: &Pod) -> Option<Timestamp> {
    let ready = pod::condition(pod, "Ready")
        .and_then(|one| one.last_transition_time.as_ref())
        .map(|time| time.0);
    // The deletion timestamp lies in the future by the grace period.
    let deleted = pod.metadata.deletion_timestamp.as_ref().and_then(|time| {
        let grace =
            SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
        time.0.checked_sub(grace).ok()
    });
    ready.max(deleted)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    fn service(ports: serde_json::Value) -> Selecting {
        let object: Service = serde_json::from_value(json!({
            "metadata": { "namespace": "default", "name": "web" },
            "spec": { "selector": { "app": "web" }, "ports": ports },
        }))
        .unwrap();
        Selecting::of(&object).unwrap()
    }

    fn pod(spec: serde_json::Value, status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "namespace": "default", "name": "p", "uid": "u" }, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_target_port_is_a_number_a_name_or_the_port_itself() {
        let pod = pod(
            json!({ "containers": [{ "name": "c", "ports": [
                { "name": "http", "containerPort": 8080 },
                { "name": "dns", "containerPort": 5353, "protocol": "UDP" },
            ]}]}),
            json!({ "podIP": "10.0.0.1" }),
        );
        let table = [
            (json!({ "port": 80 }), Some(80)),
            (json!({ "port": 80, "targetPort": 0 }), Some(80)),
            (json!({ "port": 80, "targetPort": 81 }), Some(81)),
            (json!({ "port": 80, "targetPort": "http" }), Some(8080)),
            (json!({ "port": 80, "targetPort": "dns" }), None),
            (
                json!({ "port": 53, "targetPort": "dns", "protocol": "UDP" }),
                Some(5353),
            ),
            (json!({ "port": 80, "targetPort": "https" }), None),
        ];
        for (port, expected) in table {
            let member = Member::of(&service(json!([port.clone()])), &pod, Family::V4).unwrap();
            assert_eq!(
                member.ports.first().map(|port| port.number),
                expected,
                "{port}"
            );
        }
    }

    #[test]
    fn who_is_a_member() {
        let spec = json!({ "containers": [] });
        let table = [
            (json!({ "podIP": "10.0.0.1" }), true),
            (json!({}), false),
            (json!({ "podIP": "fd00::1" }), false),
            (json!({ "podIP": "not an address" }), false),
            (
                json!({ "podIP": "fd00::1", "podIPs": [{ "ip": "fd00::1" }, { "ip": "10.0.0.1" }] }),
                true,
            ),
            (json!({ "podIP": "10.0.0.1", "phase": "Succeeded" }), false),
            (json!({ "podIP": "10.0.0.1", "phase": "Failed" }), false),
        ];
        for (status, expected) in table {
            let found = Member::of(
                &service(json!([])),
                &pod(spec.clone(), status.clone()),
                Family::V4,
            );
            assert_eq!(found.is_some(), expected, "{status}");
        }
    }

    #[test]
    fn only_the_own_subdomain_gives_a_hostname() {
        for (subdomain, expected) in [("web", Some("a")), ("db", None)] {
            let pod = pod(
                json!({ "containers": [], "hostname": "a", "subdomain": subdomain }),
                json!({ "podIP": "10.0.0.1" }),
            );
            let member = Member::of(&service(json!([])), &pod, Family::V4).unwrap();
            assert_eq!(member.hostname.as_deref(), expected);
        }
    }
}
