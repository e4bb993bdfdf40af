//! What a lab is: chosen by the options of the first `up`, kept for every later one.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::port_range::PortRange;

/// More nodes than this do not fit the node range (a /24 with the host at .1 and room for load balancers).
pub const MAX_NODES: u32 = 100;
/// `sw-<name>` must be a valid interface name: 15 characters at most (`IFNAMSIZ`).
const MAX_NAME: usize = 12;

/// What a lab is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabSpec {
    /// Name of the lab.
    pub name: String,
    /// Number of nodes, 1 to [`MAX_NODES`].
    pub nodes: u32,
    /// Addresses of the nodes; the host has the first.
    pub node_cidr: Ipv4Net,
    /// Addresses of the Pods; each node gets a /24 of it.
    pub pod_cidr: Ipv4Net,
    /// Addresses of the Services.
    pub service_cidr: Ipv4Net,
    /// Port of the API server on 127.0.0.1.
    pub api_port: u16,
    /// May Pods and nodes reach beyond this machine?
    pub internet: bool,
    /// Admission plugins that are switched off.
    #[serde(default)]
    pub disabled_admission_plugins: Vec<String>,
    /// Pods wait for a scheduler that somebody else brings.
    #[serde(default)]
    pub without_scheduler: bool,
    /// Where node ports are given from.
    #[serde(default)]
    pub node_ports: PortRange,
}

/// Port of the API server on the fabric, where nodes and Pods find it.
pub const FABRIC_API_PORT: u16 = 6443;
/// Domain of the cluster's names.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

impl LabSpec {
    /// The host's own address on the fabric.
    pub fn host_address(&self) -> Ipv4Addr {
        nth(self.node_cidr, 1)
    }

    /// `node-1`, `node-2`, …
    pub fn node_name(&self, index: u32) -> String {
        format!("node-{}", index + 1)
    }

    /// Address of a node on the fabric: the second of the range for `node-1`, and so on.
    pub fn node_address(&self, index: u32) -> Ipv4Addr {
        nth(self.node_cidr, index + 2)
    }

    /// All nodes: name and address.
    pub fn node_list(&self) -> Vec<(String, Ipv4Addr)> {
        (0..self.nodes)
            .map(|index| (self.node_name(index), self.node_address(index)))
            .collect()
    }

    /// Address of the cluster DNS: the tenth of the Service range, by kubeadm's convention.
    pub fn dns_address(&self) -> Ipv4Addr {
        nth(self.service_cidr, 10)
    }

    /// Address of the `kubernetes` Service: the first of the Service range.
    pub fn kubernetes_address(&self) -> Ipv4Addr {
        nth(self.service_cidr, 1)
    }

    /// Where kubectl on this machine finds the API server.
    pub fn local_api(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.api_port).into()
    }

    /// Where nodes and Pods find the API server.
    pub fn fabric_api(&self) -> SocketAddr {
        (self.host_address(), FABRIC_API_PORT).into()
    }
}

fn nth(net: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()).wrapping_add(n))
}

/// Checks the name of a lab: an RFC 1123 label, short enough to name a link.
///
/// # Errors
/// [`Error::BadOption`] says which characters are allowed.
pub fn check_name(name: &str) -> Result<(), Error> {
    let valid = !name.is_empty()
        && name.len() <= MAX_NAME
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if valid {
        Ok(())
    } else {
        Err(Error::BadOption {
            option: "--name",
            value: name.to_owned(),
            hint: format!(
                "use 1 to {MAX_NAME} lower-case letters, digits and '-', not at either end"
            ),
        })
    }
}

/// Checks the number of nodes.
///
/// # Errors
/// [`Error::BadOption`] names the limits.
pub fn check_nodes(nodes: u32) -> Result<(), Error> {
    if (1..=MAX_NODES).contains(&nodes) {
        Ok(())
    } else {
        Err(Error::BadOption {
            option: "--nodes",
            value: nodes.to_string(),
            hint: format!("a lab has 1 to {MAX_NODES} nodes"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> LabSpec {
        LabSpec {
            name: "lab".into(),
            nodes: 3,
            node_cidr: "10.87.0.0/24".parse().unwrap(),
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/12".parse().unwrap(),
            api_port: 6443,
            internet: false,
            disabled_admission_plugins: Vec::new(),
            without_scheduler: false,
            node_ports: PortRange::NODE_PORTS,
        }
    }

    #[test]
    fn addresses_follow_from_the_ranges() {
        let spec = spec();
        assert_eq!(spec.host_address().to_string(), "10.87.0.1");
        assert_eq!(spec.node_address(0).to_string(), "10.87.0.2");
        assert_eq!(spec.dns_address().to_string(), "10.96.0.10");
        assert_eq!(spec.kubernetes_address().to_string(), "10.96.0.1");
        assert_eq!(spec.node_list()[2].0, "node-3");
    }

    #[test]
    fn a_name_must_be_able_to_name_a_link() {
        for good in ["lab", "a", "two-labs", "l2345678901x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "Lab",
            "a/b",
            "a b",
            "l2345678901xy",
            "lab.1",
            "läb",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lab_has_at_least_one_node() {
        assert!(check_nodes(0).is_err());
        assert!(check_nodes(1).is_ok());
        assert!(check_nodes(MAX_NODES).is_ok());
        assert!(check_nodes(MAX_NODES + 1).is_err());
    }
}
