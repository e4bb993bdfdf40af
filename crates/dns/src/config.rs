//! What an operator chooses about the server.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// How the server listens and what it answers for.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen, on UDP and TCP alike; port 0 takes a free one. Name single addresses, not `0.0.0.0`:
    /// a reply must leave from the address that was asked. An address need not be on the machine yet.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain, `cluster.local` by custom.
    pub cluster_domain: String,
    /// Servers for all other names, tried in this order. Empty: there is nothing outside, such names are NXDOMAIN.
    pub upstreams: Vec<SocketAddr>,
    /// Whether `<service>.<namespace>.<domain>` means the same as `<service>.<namespace>.svc.<domain>`, as in
    /// Kubernetes' first years. The names under `svc`, `pod`, `dns` and `dns-version` keep their meaning.
    pub old_form: bool,
    /// Ranges of ClusterIPs: reverse names in them that point to nothing are NXDOMAIN here and not asked upstream.
    pub service_cidrs: Vec<IpNet>,
    /// Ranges of Pod addresses; for reverse names, as `service_cidrs`.
    pub pod_cidrs: Vec<IpNet>,
    /// How long an answer may be kept, in seconds; negative answers too (RFC 2308).
    pub ttl_seconds: u32,
    /// The addresses of `ns.dns.<domain>`, the zone's name server. Empty: those in `listen`.
    pub advertised: Vec<IpAddr>,
}

impl Config {
    /// Listening on `listen`, all else as in a cluster that nobody configured: domain `cluster.local`, no upstream,
    /// TTL 5 s, only the present form of names.
    pub fn new(listen: Vec<SocketAddr>) -> Self {
        Config {
            listen,
            cluster_domain: "cluster.local".to_owned(),
            upstreams: Vec::new(),
            old_form: false,
            service_cidrs: Vec::new(),
            pod_cidrs: Vec::new(),
            ttl_seconds: 5,
            advertised: Vec::new(),
        }
    }
}
