//! What the controllers must be told.

use std::time::Duration;

use ipnet::IpNet;

/// Settings of [`crate::run`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The range that all Pod addresses come from, `10.244.0.0/16` for example.
    pub cluster_cidr: IpNet,
    /// Prefix length of the part that each node gets; 24 for IPv4 and 64 for IPv6 if [`Config::new`] sets it.
    pub node_cidr_mask: u8,
    /// Certificate of the API server's authority, PEM: every namespace gets it as the ConfigMap `kube-root-ca.crt`.
    pub root_ca: String,
    /// A node that is not heard of for this long is given up. Kubernetes: `--node-monitor-grace-period`, 40 s.
    pub node_grace: Duration,
    /// The Pods of a removed node stay this long, should it come back. Kubernetes: 40 s.
    pub removed_node_grace: Duration,
}

impl Config {
    /// Kubernetes' own settings for everything else.
    pub fn new(cluster_cidr: IpNet, root_ca: String) -> Self {
        Self {
            cluster_cidr,
            node_cidr_mask: if cluster_cidr.max_prefix_len() == 32 {
                24
            } else {
                64
            },
            root_ca,
            node_grace: Duration::from_secs(40),
            removed_node_grace: Duration::from_secs(40),
        }
    }
}
