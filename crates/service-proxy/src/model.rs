//! The objects as the proxy uses them, and the only place where Kubernetes' own types are read.
//!
//! Conversions are total. An object that the proxy must not serve is an explicit [`NotServed`]; a piece of an
//! object that cannot be served is a [`Problem`] beside the rest, so that one bad port does not take a Service
//! away and nothing vanishes silently.
//!
//! Source: Kubernetes API reference, `Service` v1 and `EndpointSlice` discovery.k8s.io/v1; the labels are those
//! that every proxy implementation respects (`kubernetes.io/docs/reference/labels-annotations-taints`).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

/// Names another proxy that shall serve the Service.
const LABEL_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// On EndpointSlices (and Endpoints) of headless Services.
const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
/// The Service that an EndpointSlice belongs to.
const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name of an object, written `namespace/name`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// The name of an object in a namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    fn of(
        metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    ) -> Result<Self, NotServed> {
        match (metadata.namespace.as_deref(), metadata.name.as_deref()) {
            (Some(namespace), Some(name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(NotServed::Unnamed),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl IpFamily {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The transport protocols of Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// Its number in IP headers (IANA protocol numbers).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this number in IP headers.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// As in `spec.ports[].protocol`; left out, it is TCP.
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// Why an object is none of the proxy's business.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// Name or namespace is missing.
    #[error("it has no name or no namespace")]
    Unnamed,
    /// `clusterIP: None`: clients talk to the endpoints themselves.
    #[error("it is headless")]
    Headless,
    /// `type: ExternalName`: a matter of DNS.
    #[error("it is of type ExternalName")]
    ExternalName,
    /// Another proxy serves it.
    #[error("the proxy `{0}` serves it")]
    OtherProxy(String),
    /// No address was given to it yet.
    #[error("it has no address yet")]
    NoAddress,
    /// An EndpointSlice without the label that names its Service.
    #[error("it has no label kubernetes.io/service-name")]
    NoService,
    /// An EndpointSlice whose addresses are not IP addresses.
    #[error("its addressType is {0}")]
    AddressType(String),
}

/// A piece of an object that the proxy cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Problem {
    /// Not an IP address.
    #[error("{field}: `{value}` is not an IP address")]
    Address {
        /// Where in the object.
        field: String,
        /// What stands there.
        value: String,
    },
    /// An address of the other family than the EndpointSlice's.
    #[error("{field}: `{value}` is not of the slice's addressType")]
    WrongFamily {
        /// Where in the object.
        field: String,
        /// What stands there.
        value: IpAddr,
    },
    /// Not a transport protocol that Services know.
    #[error("{field}: `{value}` is not TCP, UDP or SCTP")]
    Protocol {
        /// Where in the object.
        field: String,
        /// What stands there.
        value: String,
    },
    /// Not a port number.
    #[error("{field}: {value} is not a port (1-65535)")]
    Port {
        /// Where in the object.
        field: String,
        /// What stands there.
        value: i32,
    },
    /// A slice's port without a number means all ports, which no Service port can mean.
    #[error("{field}: a port without number cannot be forwarded to")]
    AllPorts {
        /// Where in the object.
        field: String,
    },
    /// An endpoint without an address.
    #[error("{field}: an endpoint without address")]
    NoEndpointAddress {
        /// Where in the object.
        field: String,
    },
    /// Not a value that the field can have.
    #[error("{field}: `{value}` is not {expected}")]
    Value {
        /// Where in the object.
        field: String,
        /// What stands there.
        value: String,
        /// What could stand there.
        expected: &'static str,
    },
}

/// A projection and what of its object could not be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projected<T> {
    /// What can be served.
    pub value: T,
    /// What cannot.
    pub problems: Vec<Problem>,
}

/// A Service with addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// Cluster IPs, in their order.
    pub cluster_ips: Vec<IpAddr>,
    /// External IPs, in their order.
    pub external_ips: Vec<IpAddr>,
    /// Addresses that a load balancer gave it and that this proxy answers at, in their order.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Who may answer at its cluster IPs. Source: KEP-2086.
    pub internal: TrafficPolicy,
    /// Who may answer at all its other addresses and node ports.
    pub external: TrafficPolicy,
    /// How long a client comes back to the same endpoint, in seconds; `None`: not at all.
    pub affinity: Option<u32>,
    /// From where connections to the load balancer's addresses are taken; `None`: from everywhere. An empty list lets
    /// nobody in: it is what remains when no range that was given can be read.
    pub source_ranges: Option<Vec<IpNet>>,
    /// Where load balancers ask whether this node has endpoints.
    pub health_check_port: Option<u16>,
}

/// Whose endpoints may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum TrafficPolicy {
    /// Those of all nodes.
    #[default]
    Cluster,
    /// Those of the node that the connection came to.
    Local,
}

impl TrafficPolicy {
    /// The API server lets only these two in; another one that only a strange server would send fails closed: what
    /// is kept on the node cannot reach too far.
    fn parse(text: Option<&str>, field: &str, problems: &mut Vec<Problem>) -> Self {
        match text {
            None | Some("" | "Cluster") => Self::Cluster,
            Some("Local") => Self::Local,
            Some(other) => {
                problems.push(Problem::Value {
                    field: field.to_owned(),
                    value: other.to_owned(),
                    expected: "Cluster or Local",
                });
                Self::Local
            }
        }
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// By which endpoints' ports are found; empty if the Service has but one port.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// At the Service's addresses.
    pub port: u16,
    /// At each node's addresses.
    pub node_port: Option<u16>,
}

impl TryFrom<&core::Service> for Projected<Service> {
    type Error = NotServed;

    fn try_from(object: &core::Service) -> Result<Self, NotServed> {
        let name = ObjectName::of(&object.metadata)?;
        let label = |key: &str| {
            object
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(key))
        };
        if let Some(proxy) = label(LABEL_PROXY_NAME) {
            return Err(NotServed::OtherProxy(proxy.clone()));
        }
        let spec = object.spec.as_ref().ok_or(NotServed::NoAddress)?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return Err(NotServed::ExternalName);
        }
        if label(LABEL_HEADLESS).is_some() || spec.cluster_ip.as_deref() == Some("None") {
            return Err(NotServed::Headless);
        }
        let mut problems = Vec::new();
        let addresses = ServiceAddresses::of(object, spec, &mut problems);
        if addresses.is_empty() && problems.is_empty() {
            return Err(NotServed::NoAddress);
        }
        let ports = spec.ports.as_deref().unwrap_or_default();
        let ports = ports
            .iter()
            .enumerate()
            .filter_map(|(n, port)| service_port(n, port, &mut problems))
            .collect();
        let service = Service {
            name,
            cluster_ips: addresses.cluster,
            external_ips: addresses.external,
            load_balancer_ips: addresses.load_balancer,
            ports,
            internal: TrafficPolicy::parse(
                spec.internal_traffic_policy.as_deref(),
                "spec.internalTrafficPolicy",
                &mut problems,
            ),
            external: TrafficPolicy::parse(
                spec.external_traffic_policy.as_deref(),
                "spec.externalTrafficPolicy",
                &mut problems,
            ),
            affinity: affinity(spec, &mut problems),
            source_ranges: source_ranges(spec, &mut problems),
            health_check_port: match spec.health_check_node_port {
                None | Some(0) => None,
                Some(port) => port_number(
                    port,
                    || "spec.healthCheckNodePort".to_owned(),
                    &mut problems,
                ),
            },
        };
        Ok(Self {
            value: service,
            problems,
        })
    }
}

/// The addresses of a Service, by where they come from.
#[derive(Default)]
struct ServiceAddresses {
    cluster: Vec<IpAddr>,
    external: Vec<IpAddr>,
    load_balancer: Vec<IpAddr>,
}

impl ServiceAddresses {
    fn of(object: &core::Service, spec: &core::ServiceSpec, problems: &mut Vec<Problem>) -> Self {
        let mut read = |field: String, text: &str| match text.parse::<IpAddr>() {
            Ok(address) => Some(address),
            Err(_) if text.is_empty() => None,
            Err(_) => {
                problems.push(Problem::Address {
                    field,
                    value: text.to_owned(),
                });
                None
            }
        };
        let several = spec.cluster_ips.as_deref().unwrap_or_default();
        let cluster = if several.is_empty() {
            let only = spec.cluster_ip.as_deref().unwrap_or_default();
            read("spec.clusterIP".to_owned(), only)
                .into_iter()
                .collect()
        } else {
            (0..)
                .zip(several)
                .filter_map(|(n, ip): (u32, _)| read(format!("spec.clusterIPs[{n}]"), ip))
                .collect()
        };
        let external = spec.external_ips.iter().flatten().enumerate();
        let external = external
            .filter_map(|(n, ip)| read(format!("spec.externalIPs[{n}]"), ip))
            .collect();
        let ingress = object
            .status
            .iter()
            .filter_map(|status| status.load_balancer.as_ref())
            .flat_map(|lb| &lb.ingress);
        let load_balancer = ingress
            .flatten()
            .enumerate()
            // KEP-1860: in mode Proxy the load balancer wants the traffic itself, even from inside the cluster.
            .filter(|(_, point)| point.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|(n, point)| {
                let ip = point.ip.as_deref().unwrap_or_default();
                read(format!("status.loadBalancer.ingress[{n}].ip"), ip)
            })
            .collect();
        Self {
            cluster,
            external,
            load_balancer,
        }
    }

    fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.external.is_empty() && self.load_balancer.is_empty()
    }
}

/// How long a client stays with its endpoint. Source: API reference, `ClientIPConfig`: 1 to 86400 s, 10800 if none
/// is named.
fn affinity(spec: &core::ServiceSpec, problems: &mut Vec<Problem>) -> Option<u32> {
    const DEFAULT: i32 = 10_800;
    const LONGEST: u32 = 86_400;
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            problems.push(Problem::Value {
                field: "spec.sessionAffinity".to_owned(),
                value: other.to_owned(),
                expected: "ClientIP or None",
            });
            return None;
        }
    }
    let named = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    let seconds = u32::try_from(named.unwrap_or(DEFAULT))
        .ok()
        .filter(|seconds| (1..=LONGEST).contains(seconds));
    if seconds.is_none() {
        problems.push(Problem::Value {
            field: "spec.sessionAffinityConfig.clientIP.timeoutSeconds".to_owned(),
            value: named.unwrap_or_default().to_string(),
            expected: "a number of seconds from 1 to 86400",
        });
    }
    seconds
}

fn source_ranges(spec: &core::ServiceSpec, problems: &mut Vec<Problem>) -> Option<Vec<IpNet>> {
    let given = spec.load_balancer_source_ranges.as_deref()?;
    if given.is_empty() {
        return None;
    }
    let read = |(n, text): (usize, &String)| match text.trim().parse::<IpNet>() {
        Ok(range) => Some(range),
        Err(_) => {
            problems.push(Problem::Value {
                field: format!("spec.loadBalancerSourceRanges[{n}]"),
                value: text.clone(),
                expected: "a range of addresses (192.0.2.0/24)",
            });
            None
        }
    };
    Some(given.iter().enumerate().filter_map(read).collect())
}

fn service_port(
    n: usize,
    port: &core::ServicePort,
    problems: &mut Vec<Problem>,
) -> Option<ServicePort> {
    let field = |part: &str| format!("spec.ports[{n}].{part}");
    let protocol = protocol(port.protocol.as_deref(), || field("protocol"), problems)?;
    let number = port_number(port.port, || field("port"), problems)?;
    let node_port = match port.node_port {
        None | Some(0) => None,
        Some(value) => port_number(value, || field("nodePort"), problems),
    };
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: number,
        node_port,
    })
}

/// An EndpointSlice: some of the endpoints of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub name: ObjectName,
    /// The Service that it belongs to.
    pub service: ObjectName,
    /// The family of all its addresses.
    pub family: IpFamily,
    /// The ports of each of its endpoints.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of all endpoints of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The Service port that it is for, by name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address: the first of the object's, the others are not to be used.
    pub address: IpAddr,
    /// New connections may go there.
    pub ready: bool,
    /// It answers, whether or not it is on its way out.
    pub serving: bool,
    /// It is on its way out.
    pub terminating: bool,
    /// The node that it is on, where that is known.
    pub node: Option<String>,
    /// The nodes whose clients should come to it. Source: KEP-3015, `hints.forNodes`.
    pub for_nodes: Vec<String>,
    /// The zones whose clients should come to it. Source: KEP-2433, `hints.forZones`.
    pub for_zones: Vec<String>,
}

impl TryFrom<&discovery::EndpointSlice> for Projected<Slice> {
    type Error = NotServed;

    fn try_from(object: &discovery::EndpointSlice) -> Result<Self, NotServed> {
        let name = ObjectName::of(&object.metadata)?;
        let label = |key: &str| {
            object
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(key))
        };
        if let Some(proxy) = label(LABEL_PROXY_NAME) {
            return Err(NotServed::OtherProxy(proxy.clone()));
        }
        if label(LABEL_HEADLESS).is_some() {
            return Err(NotServed::Headless);
        }
        let service = label(LABEL_SERVICE_NAME)
            .filter(|name| !name.is_empty())
            .ok_or(NotServed::NoService)?;
        let service = ObjectName::new(
            object.metadata.namespace.as_deref().unwrap_or_default(),
            service,
        );
        let family = match object.address_type.as_str() {
            "IPv4" => IpFamily::V4,
            "IPv6" => IpFamily::V6,
            other => return Err(NotServed::AddressType(other.to_owned())),
        };
        let mut problems = Vec::new();
        let ports = object.ports.iter().flatten().enumerate();
        let ports = ports
            .filter_map(|(n, port)| slice_port(n, port, &mut problems))
            .collect();
        let endpoints = object.endpoints.iter().flatten().enumerate();
        let endpoints = endpoints
            .filter_map(|(n, one)| endpoint(n, one, family, &mut problems))
            .collect();
        Ok(Self {
            value: Slice {
                name,
                service,
                family,
                ports,
                endpoints,
            },
            problems,
        })
    }
}

fn slice_port(
    n: usize,
    port: &discovery::EndpointPort,
    problems: &mut Vec<Problem>,
) -> Option<SlicePort> {
    let field = |part: &str| format!("ports[{n}].{part}");
    let protocol = protocol(port.protocol.as_deref(), || field("protocol"), problems)?;
    let Some(number) = port.port else {
        problems.push(Problem::AllPorts {
            field: field("port"),
        });
        return None;
    };
    let port_number = port_number(number, || field("port"), problems)?;
    Some(SlicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: port_number,
    })
}

fn endpoint(
    n: usize,
    one: &discovery::Endpoint,
    family: IpFamily,
    problems: &mut Vec<Problem>,
) -> Option<Endpoint> {
    let field = || format!("endpoints[{n}].addresses[0]");
    let Some(text) = one.addresses.first() else {
        problems.push(Problem::NoEndpointAddress {
            field: format!("endpoints[{n}]"),
        });
        return None;
    };
    let address = match text.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => {
            problems.push(Problem::Address {
                field: field(),
                value: text.clone(),
            });
            return None;
        }
    };
    if IpFamily::of(address) != family {
        problems.push(Problem::WrongFamily {
            field: field(),
            value: address,
        });
        return None;
    }
    let conditions = one.conditions.as_ref();
    let hints = one.hints.as_ref();
    // The API reference: unknown readiness counts as ready, unknown serving as readiness.
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    Some(Endpoint {
        address,
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        node: one.node_name.clone(),
        for_nodes: hints
            .and_then(|hints| hints.for_nodes.as_ref())
            .into_iter()
            .flatten()
            .map(|node| node.name.clone())
            .collect(),
        for_zones: hints
            .and_then(|hints| hints.for_zones.as_ref())
            .into_iter()
            .flatten()
            .map(|zone| zone.name.clone())
            .collect(),
    })
}

fn protocol(
    text: Option<&str>,
    field: impl Fn() -> String,
    problems: &mut Vec<Problem>,
) -> Option<Protocol> {
    let protocol = Protocol::parse(text);
    if protocol.is_none() {
        problems.push(Problem::Protocol {
            field: field(),
            value: text.unwrap_or_default().to_owned(),
        });
    }
    protocol
}

fn port_number(value: i32, field: impl Fn() -> String, problems: &mut Vec<Problem>) -> Option<u16> {
    let number = u16::try_from(value).ok().filter(|number| *number != 0);
    if number.is_none() {
        problems.push(Problem::Port {
            field: field(),
            value,
        });
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(value: serde_json::Value) -> Result<Projected<Service>, NotServed> {
        let object: core::Service = serde_json::from_value(value).unwrap();
        Projected::try_from(&object)
    }

    fn slice(value: serde_json::Value) -> Result<Projected<Slice>, NotServed> {
        let object: discovery::EndpointSlice = serde_json::from_value(value).unwrap();
        Projected::try_from(&object)
    }

    fn named() -> serde_json::Value {
        json!({"namespace": "default", "name": "web"})
    }

    #[test]
    fn all_addresses_of_a_service_are_frontends_but_those_of_a_proxying_load_balancer() {
        let projected = service(json!({
            "metadata": named(),
            "spec": {
                "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "type": "LoadBalancer",
                "externalIPs": ["192.0.2.1", "10.96.0.7"],
                "ports": [{"port": 80, "nodePort": 30080}],
            },
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.2"}, {"ip": "192.0.2.3", "ipMode": "Proxy"}, {"hostname": "lb.example"},
            ]}},
        }))
        .unwrap();
        let text = |addresses: &[IpAddr]| -> Vec<String> {
            addresses.iter().map(ToString::to_string).collect()
        };
        assert_eq!(text(&projected.value.cluster_ips), ["10.96.0.7", "fd00::7"]);
        assert_eq!(
            text(&projected.value.external_ips),
            ["192.0.2.1", "10.96.0.7"]
        );
        assert_eq!(text(&projected.value.load_balancer_ips), ["192.0.2.2"]);
        assert_eq!(projected.value.ports[0].node_port, Some(30080));
        assert_eq!(projected.problems, vec![]);
    }

    #[test]
    fn services_that_are_not_ours_say_why() {
        let with = |spec: serde_json::Value| {
            service(json!({"metadata": named(), "spec": spec})).unwrap_err()
        };
        assert_eq!(with(json!({"clusterIP": "None"})), NotServed::Headless);
        assert_eq!(
            with(json!({"type": "ExternalName", "externalName": "x"})),
            NotServed::ExternalName
        );
        assert_eq!(with(json!({"clusterIP": ""})), NotServed::NoAddress);
        let other = service(json!({
            "metadata": {"namespace": "a", "name": "b", "labels": {LABEL_PROXY_NAME: "mesh"}},
            "spec": {"clusterIP": "10.96.0.7"},
        }));
        assert_eq!(other, Err(NotServed::OtherProxy("mesh".to_owned())));
        assert_eq!(
            service(json!({"metadata": {"name": "x"}})),
            Err(NotServed::Unnamed)
        );
    }

    #[test]
    fn a_bad_piece_is_a_problem_and_the_rest_is_served() {
        let projected = service(json!({
            "metadata": named(),
            "spec": {"clusterIP": "10.96.0.7", "externalIPs": ["10.0.0.300"], "sessionAffinity": "Often", "ports": [
                {"name": "a", "port": 80}, {"name": "b", "port": 0}, {"name": "c", "port": 70000},
                {"name": "d", "port": 1, "protocol": "ICMP"}, {"name": "e", "port": 2, "nodePort": -1},
            ]},
        }))
        .unwrap();
        let names: Vec<&str> = projected
            .value
            .ports
            .iter()
            .map(|port| port.name.as_str())
            .collect();
        assert_eq!(names, ["a", "e"]);
        let problems: Vec<String> = projected.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                "spec.externalIPs[0]: `10.0.0.300` is not an IP address",
                "spec.ports[1].port: 0 is not a port (1-65535)",
                "spec.ports[2].port: 70000 is not a port (1-65535)",
                "spec.ports[3].protocol: `ICMP` is not TCP, UDP or SCTP",
                "spec.ports[4].nodePort: -1 is not a port (1-65535)",
                "spec.sessionAffinity: `Often` is not ClientIP or None",
            ]
        );
    }

    #[test]
    fn policies_are_read_and_strange_ones_fail_closed() {
        let with = |spec: serde_json::Value| {
            let mut all = json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]});
            all.as_object_mut()
                .unwrap()
                .extend(spec.as_object().unwrap().clone());
            service(json!({"metadata": named(), "spec": all})).unwrap()
        };
        let plain = with(json!({})).value;
        assert_eq!(plain.internal, TrafficPolicy::Cluster);
        assert_eq!(plain.external, TrafficPolicy::Cluster);
        assert_eq!(
            (plain.affinity, plain.source_ranges, plain.health_check_port),
            (None, None, None)
        );
        let all = with(json!({
            "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
            "loadBalancerSourceRanges": [" 192.0.2.0/24", "fd00::/8"], "healthCheckNodePort": 31000,
        }));
        assert_eq!(all.problems, []);
        assert_eq!(all.value.internal, TrafficPolicy::Local);
        assert_eq!(all.value.external, TrafficPolicy::Local);
        assert_eq!(all.value.affinity, Some(10_800));
        assert_eq!(all.value.source_ranges.map(|ranges| ranges.len()), Some(2));
        assert_eq!(all.value.health_check_port, Some(31000));
        let strange = with(json!({
            "externalTrafficPolicy": "Nearby", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}, "loadBalancerSourceRanges": ["all"],
        }));
        assert_eq!(strange.value.external, TrafficPolicy::Local);
        assert_eq!(strange.value.affinity, None);
        // Nobody, and not everybody.
        assert_eq!(strange.value.source_ranges, Some(Vec::new()));
        assert_eq!(strange.problems.len(), 3);
    }

    #[test]
    fn unknown_readiness_is_ready_and_only_the_first_address_counts() {
        let projected = slice(json!({
            "metadata": {"namespace": "default", "name": "web-x", "labels": {LABEL_SERVICE_NAME: "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "all"}],
            "endpoints": [
                {"addresses": ["10.244.0.2", "10.244.0.3"], "nodeName": "n1"},
                {"addresses": ["10.244.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": []}, {"addresses": ["fd00::1"]}, {"addresses": ["name"]},
            ],
        }))
        .unwrap();
        let endpoints = &projected.value.endpoints;
        assert_eq!(endpoints.len(), 2);
        assert!(endpoints[0].ready && endpoints[0].serving && !endpoints[0].terminating);
        assert!(!endpoints[1].ready && endpoints[1].serving && endpoints[1].terminating);
        assert_eq!(projected.value.service, ObjectName::new("default", "web"));
        assert_eq!(projected.problems.len(), 4);
    }

    #[test]
    fn slices_that_are_not_ours_say_why() {
        let with = |labels: serde_json::Value, kind: &str| {
            let metadata = json!({"namespace": "default", "name": "x", "labels": labels});
            slice(json!({"metadata": metadata, "addressType": kind, "endpoints": []})).unwrap_err()
        };
        assert_eq!(with(json!({}), "IPv4"), NotServed::NoService);
        assert_eq!(
            with(json!({LABEL_SERVICE_NAME: "a", LABEL_HEADLESS: ""}), "IPv4"),
            NotServed::Headless
        );
        assert_eq!(
            with(json!({LABEL_SERVICE_NAME: "a"}), "FQDN"),
            NotServed::AddressType("FQDN".to_owned())
        );
    }
}
