//! What the controllers must be told.

use std::time::Duration;

use ipnet::IpNet;

/// Settings of [`crate::run`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The range that all Pod addresses come from, `10.244.0.0/16` for example.
    pub cluster_cidr: IpNet,
    /// Prefix length of the part that each node gets. Kubernetes: 24 for IPv4, 64 for IPv6.
    pub node_cidr_mask: u8,
    /// Certificate of the API server's authority, PEM: every namespace gets it as the ConfigMap `kube-root-ca.crt`.
    pub root_ca: String,
    /// Whether Pods are given to nodes; else they wait for a scheduler that somebody else brings.
    pub scheduler: bool,
}

/// What rarely has to differ from its default, which is Kubernetes'.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// A node that is not heard of for this long is given up; `--node-monitor-grace-period`.
    pub node_grace: Duration,
    /// The Pods of a removed node stay this long, should it come back.
    pub removed_node_grace: Duration,
    /// How long a Job waits after its first failure; the pause doubles with each one in a row.
    pub job_backoff: Duration,
    /// How long an API server may go on giving out addresses of a ServiceCIDR that is to go.
    pub service_cidr_grace: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            node_grace: Duration::from_secs(40),
            removed_node_grace: Duration::from_secs(40),
            job_backoff: Duration::from_secs(10),
            service_cidr_grace: Duration::from_secs(10),
        }
    }
}
