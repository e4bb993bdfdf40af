//! What DNS needs to know of a Service and of an EndpointSlice, and nothing else of them.
//!
//! Conversion is total: an object is either understood completely or refused with a reason, never half.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use domain::base::Name;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::name;

/// The label on an EndpointSlice that names its Service (discovery.k8s.io/v1).
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// A label of a domain name in wire form: length octet, then text in lower case.
pub type Label = Box<[u8]>;

/// A Service's labels `<name>.<namespace>` in lower-case wire form, which is also how a query spells them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey(Arc<[u8]>);

impl ServiceKey {
    /// The key of a Service; `None` when the names cannot be labels of a domain name.
    pub fn new(namespace: &str, service: &str) -> Option<Self> {
        Some(ServiceKey(name::labels(&[service, namespace])?.into()))
    }

    /// The two labels in wire form.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for ServiceKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// `namespace/name` of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SliceId(Arc<str>);

impl SliceId {
    /// The identity in an object's metadata; absent parts count as empty.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        SliceId(format!("{}/{}", part(&metadata.namespace), part(&metadata.name)).into())
    }
}

/// A transport protocol as DNS names it in SRV records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// `_tcp`
    Tcp,
    /// `_udp`
    Udp,
    /// `_sctp`
    Sctp,
}

impl Protocol {
    /// The protocol that a label of a query names, `_tcp` for example.
    pub fn from_label(label: &[u8]) -> Option<Self> {
        match label {
            b"_tcp" => Some(Protocol::Tcp),
            b"_udp" => Some(Protocol::Udp),
            b"_sctp" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// Absent means TCP (API reference, ServicePort).
    fn from_api(protocol: Option<&str>) -> Result<Self, ModelError> {
        match protocol {
            None | Some("TCP") => Ok(Protocol::Tcp),
            Some("UDP") => Ok(Protocol::Udp),
            Some("SCTP") => Ok(Protocol::Sctp),
            Some(other) => Err(ModelError::Protocol(other.to_owned())),
        }
    }
}

/// A port of a Service or of the endpoints in a slice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// `_<name>` as a label. `None` for a port without name, or with one of 63 octets, which with the underscore
    /// is too long for a label and so cannot be asked for.
    pub service_label: Option<Label>,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

impl Port {
    fn new(name: Option<&str>, protocol: Option<&str>, number: i32) -> Result<Self, ModelError> {
        Ok(Port {
            service_label: name
                .filter(|name| !name.is_empty())
                .and_then(|name| name::label(&format!("_{name}"))),
            protocol: Protocol::from_api(protocol)?,
            number: u16::try_from(number)
                .ok()
                .filter(|number| *number != 0)
                .ok_or(ModelError::Port(number))?,
        })
    }
}

/// How a Service is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceKind {
    /// By addresses of its own, one or one of each family.
    ClusterIp(Vec<IpAddr>),
    /// `clusterIP: None`: by the addresses of its endpoints.
    Headless,
    /// Under another name.
    ExternalName(Name<Vec<u8>>),
}

/// A Service, as far as DNS is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name and namespace.
    pub key: ServiceKey,
    /// How it is found.
    pub kind: ServiceKind,
    /// Whether endpoints that are not ready have records too.
    pub publish_not_ready: bool,
    /// Its ports; those of the endpoints matter for a headless Service.
    pub ports: Vec<Port>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// All its addresses are alike; consumers may use any of them.
    pub addresses: Vec<IpAddr>,
    /// Its label below the Service's name, if it has a name.
    pub hostname: Option<Label>,
    /// Whether it takes traffic.
    pub ready: bool,
}

/// Some of a Service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Which slice.
    pub id: SliceId,
    /// Whose endpoints.
    pub service: ServiceKey,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// What each of them listens on.
    pub ports: Arc<[Port]>,
}

/// Why an object cannot have records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Name or namespace is missing or too long.
    #[error("{namespace:?}/{name:?} cannot be labels of a domain name")]
    Name {
        /// As in the metadata.
        namespace: String,
        /// As in the metadata or the label.
        name: String,
    },
    /// A Service without `spec`.
    #[error("it has no spec")]
    NoSpec,
    /// `spec.type` is none of the four.
    #[error("type {0:?} is not supported (ClusterIP, NodePort, LoadBalancer, ExternalName)")]
    Type(String),
    /// `spec.clusterIP` is not set yet.
    #[error("no cluster IP is assigned yet")]
    Unassigned,
    /// An address is none.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// `spec.externalName` is not a domain name.
    #[error("external name {name:?} is not a domain name: {reason}")]
    ExternalName {
        /// As in the object.
        name: String,
        /// What the parser says.
        reason: String,
    },
    /// A protocol is none of TCP, UDP, SCTP.
    #[error("protocol {0:?} is not supported (TCP, UDP, SCTP)")]
    Protocol(String),
    /// A port number is out of range.
    #[error("port {0} is not between 1 and 65535")]
    Port(i32),
    /// A slice without the label that names its Service.
    #[error("it has no label {SERVICE_NAME_LABEL}")]
    NoService,
    /// `addressType` is neither IPv4 nor IPv6.
    #[error("address type {0:?} has no meaning in DNS (IPv4, IPv6)")]
    AddressType(String),
    /// A hostname that cannot be a label.
    #[error("hostname {0:?} cannot be a label of a domain name")]
    Hostname(String),
}

/// The key in an object's metadata.
///
/// # Errors
/// When name or namespace are not labels.
pub fn service_key(metadata: &ObjectMeta, name: Option<&str>) -> Result<ServiceKey, ModelError> {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = name.or(metadata.name.as_deref()).unwrap_or_default();
    ServiceKey::new(namespace, name).ok_or_else(|| ModelError::Name {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn address(text: &str) -> Result<IpAddr, ModelError> {
    text.parse()
        .map_err(|_| ModelError::Address(text.to_owned()))
}

impl TryFrom<&core::Service> for Service {
    type Error = ModelError;

    fn try_from(service: &core::Service) -> Result<Self, ModelError> {
        let spec = service.spec.as_ref().ok_or(ModelError::NoSpec)?;
        let kind = match spec.type_.as_deref() {
            Some("ExternalName") => {
                ServiceKind::ExternalName(external_name(spec.external_name.as_deref())?)
            }
            None | Some("ClusterIP" | "NodePort" | "LoadBalancer") => {
                match spec.cluster_ip.as_deref() {
                    Some("None") => ServiceKind::Headless,
                    None | Some("") => return Err(ModelError::Unassigned),
                    Some(first) => {
                        // `clusterIPs` has the first one too; objects from before dual stack have only `clusterIP`.
                        let all = spec.cluster_ips.as_deref().filter(|all| !all.is_empty());
                        let one = [first.to_owned()];
                        let all = all.unwrap_or(&one).iter().map(|text| address(text));
                        ServiceKind::ClusterIp(all.collect::<Result<_, _>>()?)
                    }
                }
            }
            Some(other) => return Err(ModelError::Type(other.to_owned())),
        };
        let ports = spec.ports.iter().flatten();
        let ports =
            ports.map(|port| Port::new(port.name.as_deref(), port.protocol.as_deref(), port.port));
        Ok(Service {
            key: service_key(&service.metadata, None)?,
            kind,
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
            ports: ports.collect::<Result<_, _>>()?,
        })
    }
}

/// Digits and dots are a name here, not an address (API reference, `externalName`).
fn external_name(text: Option<&str>) -> Result<Name<Vec<u8>>, ModelError> {
    let text = text.unwrap_or_default();
    let refuse = |reason: String| ModelError::ExternalName {
        name: text.to_owned(),
        reason,
    };
    if text.is_empty() || text == "." {
        return Err(refuse("it is empty".to_owned()));
    }
    // The API allows letters, digits, `-`, `_`, `.` only; a backslash must not start an escape sequence.
    if let Some(odd) = text
        .chars()
        .find(|letter| !letter.is_ascii_alphanumeric() && !"-_.".contains(*letter))
    {
        return Err(refuse(format!("it has {odd:?} in it")));
    }
    Name::vec_from_str(&text.to_ascii_lowercase()).map_err(|error| refuse(error.to_string()))
}

impl TryFrom<&discovery::EndpointSlice> for EndpointSlice {
    type Error = ModelError;

    fn try_from(slice: &discovery::EndpointSlice) -> Result<Self, ModelError> {
        let none = BTreeMap::new();
        let labels = slice.metadata.labels.as_ref().unwrap_or(&none);
        let service = labels
            .get(SERVICE_NAME_LABEL)
            .ok_or(ModelError::NoService)?;
        if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
            return Err(ModelError::AddressType(slice.address_type.clone()));
        }
        let endpoints = slice.endpoints.iter().flatten().map(Endpoint::try_from);
        // A port without number means all ports: there is nothing to say about it in an SRV record.
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some(Port::new(
                port.name.as_deref(),
                port.protocol.as_deref(),
                port.port?,
            ))
        });
        Ok(EndpointSlice {
            id: SliceId::of(&slice.metadata),
            service: service_key(&slice.metadata, Some(service))?,
            endpoints: endpoints.collect::<Result<_, _>>()?,
            ports: ports.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<&discovery::Endpoint> for Endpoint {
    type Error = ModelError;

    fn try_from(endpoint: &discovery::Endpoint) -> Result<Self, ModelError> {
        let hostname = endpoint
            .hostname
            .as_deref()
            .filter(|hostname| !hostname.is_empty());
        let hostname = hostname
            .map(|text| name::label(text).ok_or_else(|| ModelError::Hostname(text.to_owned())));
        Ok(Endpoint {
            addresses: endpoint
                .addresses
                .iter()
                .map(|text| address(text))
                .collect::<Result<_, _>>()?,
            hostname: hostname.transpose()?,
            // "A nil value should be interpreted as true" (API reference, EndpointConditions).
            ready: endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

    fn service(spec: ServiceSpec) -> Result<Service, ModelError> {
        let metadata = ObjectMeta {
            name: Some("web".to_owned()),
            namespace: Some("prod".to_owned()),
            ..ObjectMeta::default()
        };
        Service::try_from(&core::Service {
            metadata,
            spec: Some(spec),
            status: None,
        })
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn cluster_ip(address: &str) -> ServiceSpec {
        ServiceSpec {
            cluster_ip: text(address),
            ..ServiceSpec::default()
        }
    }

    fn external(name: &str) -> ServiceSpec {
        ServiceSpec {
            type_: text("ExternalName"),
            external_name: text(name),
            ..ServiceSpec::default()
        }
    }

    fn slice(
        address_type: &str,
        endpoint: discovery::Endpoint,
    ) -> Result<EndpointSlice, ModelError> {
        let metadata = ObjectMeta {
            name: text("web-1"),
            namespace: text("prod"),
            labels: Some([(SERVICE_NAME_LABEL.to_owned(), "web".to_owned())].into()),
            ..ObjectMeta::default()
        };
        EndpointSlice::try_from(&discovery::EndpointSlice {
            address_type: address_type.to_owned(),
            endpoints: Some(vec![endpoint]),
            metadata,
            ports: None,
        })
    }

    #[test]
    fn every_type_of_service_is_understood_and_nothing_else() {
        let addresses = |texts: &[&str]| {
            ServiceKind::ClusterIp(texts.iter().map(|text| text.parse().unwrap()).collect())
        };
        assert_eq!(
            service(cluster_ip("10.96.0.1")).unwrap().kind,
            addresses(&["10.96.0.1"])
        );
        let dual = ServiceSpec {
            type_: text("NodePort"),
            cluster_ips: Some(vec!["10.96.0.1".to_owned(), "fd00::1".to_owned()]),
            ..cluster_ip("10.96.0.1")
        };
        assert_eq!(
            service(dual).unwrap().kind,
            addresses(&["10.96.0.1", "fd00::1"])
        );
        assert_eq!(
            service(cluster_ip("None")).unwrap().kind,
            ServiceKind::Headless
        );
        assert_eq!(service(cluster_ip("")), Err(ModelError::Unassigned));
        assert_eq!(
            service(cluster_ip("10.96")),
            Err(ModelError::Address("10.96".to_owned()))
        );
        let odd = ServiceSpec {
            type_: text("Odd"),
            ..cluster_ip("10.96.0.1")
        };
        assert_eq!(service(odd), Err(ModelError::Type("Odd".to_owned())));
    }

    #[test]
    fn an_external_name_is_a_name_whatever_it_looks_like() {
        let kind = |name| service(external(name)).map(|service| service.kind);
        let named = |name| Ok(ServiceKind::ExternalName(Name::vec_from_str(name).unwrap()));
        assert_eq!(kind("My.Example.COM"), named("my.example.com."));
        assert_eq!(kind("my.example.com."), named("my.example.com."));
        assert_eq!(kind("10.1.2.3"), named("10.1.2.3."));
        for bad in [
            "",
            ".",
            "a..b",
            "a b",
            "\\065.com",
            "café.example",
            &"x".repeat(64),
        ] {
            assert!(
                matches!(kind(bad), Err(ModelError::ExternalName { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_port_may_have_a_name_too_long_to_be_asked_for() {
        let port = |name: Option<String>, protocol: Option<&str>, number| {
            let port = ServicePort {
                name,
                protocol: protocol.map(str::to_owned),
                port: number,
                ..ServicePort::default()
            };
            let spec = ServiceSpec {
                ports: Some(vec![port]),
                ..cluster_ip("10.96.0.1")
            };
            service(spec).map(|service| service.ports[0].clone())
        };
        assert_eq!(
            port(text("http"), None, 80).unwrap().service_label,
            name::label("_http")
        );
        assert_eq!(
            port(Some("x".repeat(62)), None, 80)
                .unwrap()
                .service_label
                .unwrap()
                .len(),
            64
        );
        assert_eq!(
            port(Some("x".repeat(63)), None, 80).unwrap().service_label,
            None
        );
        assert_eq!(
            port(None, Some("SCTP"), 80).unwrap().protocol,
            Protocol::Sctp
        );
        assert_eq!(
            port(None, Some("tcp"), 80),
            Err(ModelError::Protocol("tcp".to_owned()))
        );
        for number in [0, -1, 65536] {
            assert_eq!(port(None, None, number), Err(ModelError::Port(number)));
        }
    }

    #[test]
    fn an_endpoint_of_unknown_readiness_is_ready_and_a_bad_one_spoils_its_slice() {
        let endpoint = |address: &str| discovery::Endpoint {
            addresses: vec![address.to_owned()],
            ..discovery::Endpoint::default()
        };
        assert!(slice("IPv4", endpoint("10.1.0.1")).unwrap().endpoints[0].ready);
        assert_eq!(
            slice("IPv4", endpoint("x")),
            Err(ModelError::Address("x".to_owned()))
        );
        assert_eq!(
            slice("FQDN", endpoint("a.b")),
            Err(ModelError::AddressType("FQDN".to_owned()))
        );
        let long = discovery::Endpoint {
            hostname: Some("x".repeat(64)),
            ..endpoint("10.1.0.1")
        };
        assert!(matches!(slice("IPv4", long), Err(ModelError::Hostname(_))));
    }
}
