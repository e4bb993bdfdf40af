//! Which endpoints of a Service port may answer, on this node. Pure.
//!
//! Source: `CategorizeEndpoints` and `topologyModeFromHints` in `k8s.io/kubernetes/pkg/proxy/topology.go`; KEP-1669
//! (terminating endpoints), KEP-2086 (internal traffic policy), KEP-2433 and KEP-4444 (zones), KEP-3015 (nodes).

use std::net::SocketAddr;

use crate::model::{Endpoint, ServicePort, Slice};
use crate::plan::{Backend, Node};

/// The endpoints of a Service port, as they are for clients on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Choice<'a> {
    /// For traffic that may go to any node: the ready ones, near ones only if the hints say so; those that still
    /// serve while they end, if none is ready.
    pub(crate) cluster: Vec<Candidate<'a>>,
    /// For traffic that stays on this node: likewise, of this node's endpoints.
    pub(crate) local: Vec<Candidate<'a>>,
}

/// An endpoint with the number of the port in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate<'a> {
    pub(crate) endpoint: &'a Endpoint,
    port: u16,
}

impl Candidate<'_> {
    pub(crate) fn backend(&self) -> Backend {
        SocketAddr::new(self.endpoint.address, self.port)
    }
}

/// What the hints of the endpoints ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nearness {
    Anywhere,
    SameZone,
    SameNode,
}

/// Chooses among the endpoints in these slices.
pub(crate) fn choose<'a>(slices: &[&'a Slice], port: &ServicePort, here: &Node) -> Choice<'a> {
    let all: Vec<Candidate<'a>> = slices
        .iter()
        .flat_map(|slice| {
            let ports = slice
                .ports
                .iter()
                .filter(|p| p.name == port.name && p.protocol == port.protocol);
            ports.flat_map(|p| {
                slice.endpoints.iter().map(|endpoint| Candidate {
                    endpoint,
                    port: p.port,
                })
            })
        })
        .collect();
    let nearness = nearness(&all, here);
    let near = |endpoint: &Endpoint| match nearness {
        Nearness::Anywhere => true,
        Nearness::SameNode => endpoint.for_nodes.contains(&here.name),
        Nearness::SameZone => here
            .zone
            .as_ref()
            .is_some_and(|zone| endpoint.for_zones.contains(zone)),
    };
    let mut cluster = those(&all, |endpoint| endpoint.ready && near(endpoint));
    if cluster.is_empty() {
        cluster = those(&all, |endpoint| endpoint.serving && endpoint.terminating);
    }
    let local: Vec<Candidate<'a>> = all
        .into_iter()
        .filter(|candidate| candidate.endpoint.node.as_ref() == Some(&here.name))
        .collect();
    let mut chosen = those(&local, |endpoint| endpoint.ready);
    if chosen.is_empty() {
        chosen = those(&local, |endpoint| endpoint.serving && endpoint.terminating);
    }
    Choice {
        cluster,
        local: chosen,
    }
}

fn those<'a>(
    candidates: &[Candidate<'a>],
    wanted: impl Fn(&Endpoint) -> bool,
) -> Vec<Candidate<'a>> {
    candidates
        .iter()
        .filter(|candidate| wanted(candidate.endpoint))
        .copied()
        .collect()
}

/// Hints count only if every ready endpoint has them, and if they lead from here to at least one. So a Service
/// whose hints are being written, or that nobody thought of here, is served from anywhere.
fn nearness(candidates: &[Candidate<'_>], here: &Node) -> Nearness {
    let ready = || {
        candidates
            .iter()
            .map(|candidate| candidate.endpoint)
            .filter(|endpoint| endpoint.ready)
    };
    if ready().all(|endpoint| !endpoint.for_nodes.is_empty())
        && ready().any(|endpoint| endpoint.for_nodes.contains(&here.name))
    {
        return Nearness::SameNode;
    }
    let Some(zone) = &here.zone else {
        return Nearness::Anywhere;
    };
    if ready().all(|endpoint| !endpoint.for_zones.is_empty())
        && ready().any(|endpoint| endpoint.for_zones.contains(zone))
    {
        return Nearness::SameZone;
    }
    Nearness::Anywhere
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{IpFamily, ObjectName, Protocol, SlicePort};

    /// `address state node zones nodes`, where `-` is nothing and state one of `ready`, `ending`, `down`.
    fn slice(endpoints: &[&str]) -> Slice {
        let list = |text: &str| match text {
            "-" => Vec::new(),
            some => some.split(',').map(str::to_owned).collect(),
        };
        let endpoint = |text: &&str| {
            let [address, state, node, zones, nodes] =
                text.split(' ').collect::<Vec<_>>().try_into().unwrap();
            Endpoint {
                address: format!("10.244.0.{address}").parse().unwrap(),
                ready: state == "ready",
                serving: state != "down",
                terminating: state == "ending",
                node: (node != "-").then(|| node.to_owned()),
                for_nodes: list(nodes),
                for_zones: list(zones),
            }
        };
        Slice {
            name: ObjectName::new("default", "web-1"),
            service: ObjectName::new("default", "web"),
            family: IpFamily::V4,
            ports: vec![SlicePort {
                name: String::new(),
                protocol: Protocol::Tcp,
                port: 8080,
            }],
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    /// The last bytes of the addresses chosen on node `n1` in zone `z1`: for the cluster, for the node.
    fn chosen(endpoints: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let port = ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        };
        let here = Node {
            name: "n1".to_owned(),
            zone: Some("z1".to_owned()),
        };
        let slice = slice(endpoints);
        let choice = choose(&[&slice], &port, &here);
        let last = |candidates: Vec<Candidate<'_>>| {
            candidates
                .iter()
                .map(|candidate| match candidate.endpoint.address {
                    std::net::IpAddr::V4(ip) => ip.octets()[3],
                    std::net::IpAddr::V6(_) => 0,
                })
                .collect()
        };
        (last(choice.cluster), last(choice.local))
    }

    #[test]
    fn endpoints_that_end_serve_only_where_none_is_ready() {
        assert_eq!(
            chosen(&["1 ready n1 - -", "2 ending n1 - -", "3 ready n2 - -"]),
            (vec![1, 3], vec![1])
        );
        // None ready on this node: for local traffic its ending one, for other traffic the ready one.
        assert_eq!(
            chosen(&["2 ending n1 - -", "3 ready n2 - -", "4 down n1 - -"]),
            (vec![3], vec![2])
        );
        assert_eq!(
            chosen(&["2 ending n1 - -", "3 ending n2 - -", "4 down n1 - -"]),
            (vec![2, 3], vec![2])
        );
        assert_eq!(chosen(&["4 down n1 - -"]), (vec![], vec![]));
    }

    #[test]
    fn an_endpoint_whose_node_is_unknown_is_not_local() {
        assert_eq!(chosen(&["1 ready - - -"]), (vec![1], vec![]));
    }

    #[test]
    fn hints_keep_traffic_in_the_zone_if_all_have_them_and_one_leads_here() {
        let (near, far) = ("1 ready n1 z1 -", "2 ready n2 z2 -");
        assert_eq!(chosen(&[near, far]).0, [1]);
        assert_eq!(chosen(&[near, far, "3 ready n3 - -"]).0, [1, 2, 3]);
        assert_eq!(chosen(&[far, "3 ready n3 z3 -"]).0, [2, 3]);
        // What is not ready needs no hint.
        assert_eq!(chosen(&[near, far, "3 down n3 - -"]).0, [1]);
    }

    #[test]
    fn hints_for_nodes_come_before_those_for_zones() {
        let (here, near) = ("1 ready n1 z1 n1", "2 ready n2 z1 n2");
        assert_eq!(chosen(&[here, near]).0, [1]);
        // None for this node: then the zone counts.
        assert_eq!(chosen(&["1 ready n3 z1 n3", "2 ready n2 z2 n2"]).0, [1]);
    }

    #[test]
    fn hints_do_not_change_what_is_local() {
        assert_eq!(
            chosen(&["1 ready n1 z2 n2", "2 ready n2 z1 n1"]),
            (vec![2], vec![1])
        );
    }
}
