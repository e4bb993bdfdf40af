//! What an agent is told about its node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// The node, its directories and its cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the Node object; Pods with it in `spec.nodeName` run here.
    pub node_name: String,
    /// Where the node is reached, and where the kubelet API listens.
    pub node_ip: IpAddr,
    /// Name of the lab, for cgroups and messages.
    pub lab: String,
    /// Directory of the Pods' sandboxes, containers, volumes and logs; on a tmpfs.
    pub state_dir: PathBuf,
    /// The image store, shared by the nodes of a machine.
    pub images_dir: PathBuf,
    /// The seaway binary, which is re-executed for every container.
    pub exe: PathBuf,
    /// cgroup under which Pods get theirs, relative to each hierarchy's mount.
    pub cgroup_parent: String,
    /// Address of the cluster's DNS server.
    pub cluster_dns: IpAddr,
    /// `cluster.local`
    pub cluster_domain: String,
    /// Credentials of the kubelet API.
    pub tls: Tls,
    /// Port of the kubelet API.
    pub kubelet_port: u16,
    /// Labels that the Node gets beside those that every node has.
    pub labels: BTreeMap<String, String>,
}

/// The port of the kubelet API where nothing else is said.
pub const KUBELET_PORT: u16 = 10250;

/// PEM files of the kubelet API.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Certificate chain of the node.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs the clients that may use the API.
    pub client_ca: PathBuf,
}
