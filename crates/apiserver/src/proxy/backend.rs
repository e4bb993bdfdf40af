//! Who is behind a path through the proxy: an address, found in objects.

use std::net::IpAddr;

use rand::seq::SliceRandom as _;
use serde_json::Value;

use crate::api::Api;
use crate::node::Place;
use crate::object::text;
use crate::status::ApiError;

use super::door::{Door, Id, Kind};

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Backend {
    /// A server in a Pod, or on a node.
    Server {
        https: bool,
        address: IpAddr,
        port: u16,
    },
    /// The agent of a node.
    Node(Place),
}

impl Backend {
    /// Finds who answers.
    pub(super) fn find(api: &Api, door: &Door) -> Result<Self, ApiError> {
        let what = match door.kind {
            Kind::Pods => "pod",
            Kind::Services => "service",
            Kind::Nodes => "node",
        };
        let id = door.id().ok_or_else(|| {
            ApiError::bad_request(format!("invalid {what} request {:?}", door.id))
        })?;
        match door.kind {
            Kind::Pods => pod(api, &door.namespace, &id),
            Kind::Services => service(api, door, &id),
            Kind::Nodes => node(api, &id),
        }
    }

    /// `address:port`
    pub(super) fn host(&self) -> String {
        match self {
            Backend::Server { address, port, .. } => {
                std::net::SocketAddr::new(*address, *port).to_string()
            }
            Backend::Node(place) => place.to_string(),
        }
    }
}

fn stored(api: &Api, plural: &str, namespace: &str, name: &str) -> Result<Value, ApiError> {
    let resource = api.core(plural)?;
    api.object(&resource, namespace, name)?
        .ok_or_else(|| ApiError::not_found(resource.names, name))
}

fn pod(api: &Api, namespace: &str, id: &Id<'_>) -> Result<Backend, ApiError> {
    let pod = stored(api, "pods", namespace, id.name)?;
    let port = pod_port(&pod, id.port)?;
    let address = text(&pod, "/status/podIP")
        .parse()
        .ok()
        .filter(is_global)
        .ok_or_else(|| ApiError::bad_request("address not allowed"))?;
    Ok(Backend::Server {
        https: id.https,
        address,
        port: port.unwrap_or(default_port(id.https)),
    })
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// The port that is meant: by number, by the name that a container gives it, or the first that there is.
fn pod_port(pod: &Value, asked: &str) -> Result<Option<u16>, ApiError> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let mut ports = containers
        .into_iter()
        .flatten()
        .filter_map(|container| container.get("ports")?.as_array())
        .flatten();
    let number = |port: &Value| {
        let number = port.get("containerPort")?.as_u64()?;
        u16::try_from(number).ok()
    };
    if asked.is_empty() {
        return Ok(ports.next().and_then(number));
    }
    if let Ok(port) = asked.parse() {
        return Ok(Some(port));
    }
    let named = ports.find(|port| text(port, "/name") == asked);
    let unknown = || {
        let why = format!("error trying to reach service: unknown port {asked:?}");
        ApiError::service_unavailable(why)
    };
    named.and_then(number).map(Some).ok_or_else(unknown)
}

/// Whether an address belongs to one machine and not to this one. Source: Go's `net.IP.IsGlobalUnicast`.
fn is_global(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !link_local
}

fn service(api: &Api, door: &Door, id: &Id<'_>) -> Result<Backend, ApiError> {
    let namespace = &door.namespace;
    let none = |of: &str| {
        ApiError::service_unavailable(format!("no endpoints available for service {of:?}"))
    };
    // Endpoints know ports by the Service's names for them.
    let name = match id.port.parse::<i64>() {
        Ok(number) => {
            let service = stored(api, "services", namespace, id.name)?;
            port_name(&service, number).ok_or_else(|| {
                let why = format!("no service port {number} found for service {:?}", id.name);
                ApiError::service_unavailable(why)
            })?
        }
        Err(_) => id.port.to_owned(),
    };
    let endpoints = stored(api, "endpoints", namespace, id.name)?;
    let list = |value: &Value, name: &str| {
        let list = value.get(name).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let mut subsets = list(&endpoints, "subsets");
    if subsets.is_empty() {
        return Err(none(id.name));
    }
    let mut random = rand::rng();
    subsets.shuffle(&mut random);
    for subset in &subsets {
        let port = list(subset, "ports").into_iter().find_map(|port| {
            let same = text(&port, "/name") == name;
            let number = port.get("port").filter(|_| same)?.as_u64()?;
            u16::try_from(number).ok()
        });
        let Some(port) = port else { continue };
        let mut addresses = list(subset, "addresses");
        addresses.shuffle(&mut random);
        for address in &addresses {
            if let Some(address) = address_of_pod(api, namespace, address)? {
                return Ok(Backend::Server {
                    https: id.https,
                    address,
                    port,
                });
            }
        }
    }
    Err(none(&door.id))
}

fn port_name(service: &Value, number: i64) -> Option<String> {
    let ports = service.pointer("/spec/ports")?.as_array()?;
    let port = ports
        .iter()
        .find(|port| port.get("port").and_then(Value::as_i64) == Some(number))?;
    Some(text(port, "/name").to_owned())
}

/// The address if it is that of a Pod of the namespace: whoever may write Endpoints could reach everything that the
/// API server reaches otherwise. Source: `isValidAddress`, `k8s.io/kubernetes/pkg/registry/core/service/storage`.
fn address_of_pod(
    api: &Api,
    namespace: &str,
    endpoint: &Value,
) -> Result<Option<IpAddr>, ApiError> {
    let address = text(endpoint, "/ip");
    if text(endpoint, "/targetRef/namespace") != namespace
        || !matches!(text(endpoint, "/targetRef/kind"), "" | "Pod")
    {
        return Ok(None);
    }
    let name = text(endpoint, "/targetRef/name");
    let pods = api.core("pods")?;
    let Some(pod) = api.object(&pods, namespace, name)? else {
        return Ok(None);
    };
    let own = pod.pointer("/status/podIPs").and_then(Value::as_array);
    let is_own = own
        .into_iter()
        .flatten()
        .any(|own| text(own, "/ip") == address);
    Ok(address.parse().ok().filter(|_| is_own))
}

fn node(api: &Api, id: &Id<'_>) -> Result<Backend, ApiError> {
    let place = Place::of(api, id.name)?;
    if id.port.is_empty() || id.port == place.port.to_string() {
        return Ok(Backend::Node(place));
    }
    let port = id.port.parse().map_err(|_| {
        ApiError::bad_request(format!("invalid port {:?} of node {:?}", id.port, id.name))
    })?;
    Ok(Backend::Server {
        https: id.https,
        address: place.address,
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_port_of_a_pod_is_a_number_a_name_or_the_first() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [
            {"containerPort": 8080}, {"name": "admin", "containerPort": 9000}]}]}});
        assert_eq!(pod_port(&pod, ""), Ok(Some(8080)));
        assert_eq!(pod_port(&pod, "81"), Ok(Some(81)));
        assert_eq!(pod_port(&pod, "admin"), Ok(Some(9000)));
        assert_eq!(pod_port(&pod, "other").unwrap_err().code, 503);
        assert_eq!(pod_port(&json!({"spec": {}}), ""), Ok(None));
    }

    #[test]
    fn only_addresses_of_other_machines_are_reached() {
        for address in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "fe80::1",
            "255.255.255.255",
        ] {
            assert!(!is_global(&address.parse().unwrap()), "{address}");
        }
        assert!(is_global(&"10.244.0.5".parse().unwrap()));
        assert!(is_global(&"fd00::5".parse().unwrap()));
    }

    #[test]
    fn a_port_of_a_service_has_a_name_for_its_endpoints() {
        let service = json!({"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443}]}});
        assert_eq!(port_name(&service, 80).as_deref(), Some("http"));
        assert_eq!(port_name(&service, 443).as_deref(), Some(""));
        assert_eq!(port_name(&service, 81), None);
    }
}
