//! What the Pod network needs to know of a Node object, converted once.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::Node;

/// A node as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeNetwork {
    /// Its name.
    pub name: String,
    /// Where the others find it: its `InternalIP`s. Empty until its agent has reported them.
    pub addresses: Vec<Ipv4Addr>,
    /// The range of its Pods, or why there is none to use.
    pub pod_cidr: PodCidr,
}

/// `spec.podCIDRs`, of which the IPv4 one counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodCidr {
    /// The node's IPv4 range.
    Assigned(Ipv4Net),
    /// None has been assigned yet.
    None,
    /// Ranges are there, but none that this crate can route: IPv6 only.
    Unsupported(String),
}

/// A Node object that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Node {name}: {field} {value:?} is not {expected}")]
pub struct InvalidNode {
    /// The node.
    pub name: String,
    /// The field in question.
    pub field: &'static str,
    /// What it holds.
    pub value: String,
    /// What it should hold.
    pub expected: &'static str,
}

impl TryFrom<&Node> for NodeNetwork {
    type Error = InvalidNode;

    fn try_from(node: &Node) -> Result<Self, InvalidNode> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let invalid = |field, value: &str, expected| InvalidNode {
            name: name.clone(),
            field,
            value: value.to_owned(),
            expected,
        };
        if name.is_empty() {
            return Err(invalid("metadata.name", "", "a name"));
        }
        let mut addresses = Vec::new();
        for address in node
            .status
            .iter()
            .flat_map(|status| status.addresses.iter().flatten())
        {
            if address.type_ != "InternalIP" {
                continue;
            }
            match address.address.parse::<IpAddr>() {
                Ok(IpAddr::V4(v4)) => addresses.push(v4),
                // A dual-stack node has one as well; there are no IPv6 Pods to route to.
                Ok(IpAddr::V6(_)) => {}
                Err(_) => {
                    return Err(invalid(
                        "status.addresses",
                        &address.address,
                        "an IP address",
                    ));
                }
            }
        }
        let spec = node.spec.as_ref();
        let several = spec
            .and_then(|spec| spec.pod_cidrs.as_ref())
            .into_iter()
            .flatten();
        let one = spec.and_then(|spec| spec.pod_cidr.as_ref());
        let mut pod_cidr = PodCidr::None;
        for text in several.chain(one).filter(|text| !text.is_empty()) {
            match text.parse::<IpNet>() {
                Ok(IpNet::V4(v4)) => {
                    pod_cidr = PodCidr::Assigned(v4.trunc());
                    break;
                }
                Ok(IpNet::V6(_)) => pod_cidr = PodCidr::Unsupported(text.clone()),
                Err(_) => return Err(invalid("spec.podCIDRs", text, "a range of addresses")),
            }
        }
        Ok(Self {
            name,
            addresses,
            pod_cidr,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(yaml: serde_json::Value) -> Result<NodeNetwork, InvalidNode> {
        NodeNetwork::try_from(&serde_json::from_value::<Node>(yaml).unwrap())
    }

    #[test]
    fn address_and_range_are_taken_from_where_kubernetes_puts_them() {
        let read = node(serde_json::json!({
            "metadata": {"name": "node-2"},
            "spec": {"podCIDR": "fd00:1::/64", "podCIDRs": ["fd00:1::/64", "10.244.1.0/24"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "node-2"},
                {"type": "InternalIP", "address": "fd00::3"},
                {"type": "InternalIP", "address": "10.87.0.3"},
                {"type": "ExternalIP", "address": "192.0.2.1"},
            ]},
        }));
        let expected = NodeNetwork {
            name: "node-2".to_owned(),
            addresses: vec!["10.87.0.3".parse().unwrap()],
            pod_cidr: PodCidr::Assigned("10.244.1.0/24".parse().unwrap()),
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn a_node_that_just_registered_has_nothing_yet() {
        let read = node(serde_json::json!({"metadata": {"name": "new"}})).unwrap();
        assert_eq!((read.addresses, read.pod_cidr), (vec![], PodCidr::None));
    }

    #[test]
    fn an_ipv6_range_is_named_and_not_taken_for_none() {
        let read = node(
            serde_json::json!({"metadata": {"name": "six"}, "spec": {"podCIDR": "fd00::/64"}}),
        )
        .unwrap();
        assert_eq!(read.pod_cidr, PodCidr::Unsupported("fd00::/64".to_owned()));
    }

    #[test]
    fn what_is_no_address_is_an_error() {
        let bad_range =
            node(serde_json::json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.1.0"}}));
        assert_eq!(
            bad_range.unwrap_err().to_string(),
            r#"Node n: spec.podCIDRs "10.244.1.0" is not a range of addresses"#
        );
        let bad_address = node(serde_json::json!({
            "metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "here"}]},
        }));
        assert!(bad_address.is_err());
    }
}
