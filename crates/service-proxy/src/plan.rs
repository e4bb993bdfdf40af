//! What each Service needs, and what all of them together do. Pure: no I/O, no clock.
//!
//! [`compile`] turns one Service and its slices into frontends: a place where clients connect, with the backends
//! that answer there. Each frontend has its own list, so that policies which differ by frontend (local traffic
//! only, for instance) need nothing new behind it.
//!
//! [`Forwarding`] holds the compiled Services of one IP family, and turns new ones into the difference of
//! elements. It looks only at the Services that it is given and at the frontends that they have or had.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::choice::{Candidate, choose};
use crate::diff::{Contents, Delta};
use crate::model::{IpFamily, ObjectName, Protocol, Service, ServicePort, Slice, TrafficPolicy};

/// The longest label in bytes: longer comments `nft -f` would not take back.
const LONGEST_LABEL: usize = seaway_kernel::nft::Element::LONGEST_COMMENT;

/// Where clients connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKey {
    /// At an address of the Service.
    Address {
        /// The address.
        ip: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// At every address of the node.
    NodePort {
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
}

impl FrontendKey {
    /// Its protocol.
    pub const fn protocol(&self) -> Protocol {
        match self {
            Self::Address { protocol, .. } | Self::NodePort { protocol, .. } => *protocol,
        }
    }
}

/// Who answers: address and port of an endpoint.
pub type Backend = SocketAddr;

/// The node that the proxy runs on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// As its Node object is named.
    pub name: String,
    /// Its label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

/// A set with a rule of its own, which is there while some frontend needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Branch {
    /// Sends connections to one of so many backends. One set and one rule for all frontends with as many.
    Pick {
        /// Whether it is for node ports: the keys of their backends have no address.
        node_port: bool,
        /// Whether it is for clients on this node, where they go elsewhere than others.
        inside: bool,
        /// Out of how many backends, at least 1.
        count: u32,
    },
    /// Remembers for so long who answered a client.
    Remember {
        /// Whether it is for node ports.
        node_port: bool,
        /// For how long.
        seconds: u32,
    },
}

/// A place where clients connect, with those who answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// Where.
    pub key: FrontendKey,
    /// For people: `namespace/name:port`.
    pub label: Arc<str>,
    /// Who; sorted, without duplicates. Empty: see `drops`.
    pub backends: Arc<[Backend]>,
    /// What is special about it; most have nothing.
    pub policy: Policy,
}

/// What is special about a frontend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Who answers clients on this node, if not `backends`: what comes from outside must be answered here, but what
    /// comes from here need not. Not empty.
    pub inside: Option<Arc<[Backend]>>,
    /// Connections without backend are dropped instead of refused: there are some on other nodes, and the client,
    /// or the load balancer before it, shall try again there.
    pub drops: bool,
    /// The backends see the client's own address, wherever it is.
    pub keeps_source: bool,
    /// For how many seconds a client comes back to the same backend.
    pub affinity: Option<u32>,
    /// From where connections are taken, in this family; `None`: from everywhere.
    pub sources: Option<Arc<[IpNet]>>,
}

/// What the kernel knows of a frontend beside its backends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendEntry {
    /// How many backends it has.
    pub count: u32,
    /// How many it has for clients on this node, if those are others.
    pub inside: u32,
    /// See [`Policy::drops`].
    pub drops: bool,
    /// See [`Policy::keeps_source`].
    pub keeps_source: bool,
    /// See [`Policy::affinity`].
    pub affinity: Option<u32>,
    /// Whether connections are taken from some sources only.
    pub restricted: bool,
    /// For people: `namespace/name:port`.
    pub label: Arc<str>,
}

impl FrontendEntry {
    pub(crate) fn of(frontend: &Frontend) -> Self {
        let policy = &frontend.policy;
        Self {
            count: frontend.backends.len() as u32,
            inside: policy
                .inside
                .as_ref()
                .map_or(0, |inside| inside.len() as u32),
            drops: policy.drops && frontend.backends.is_empty(),
            keeps_source: policy.keeps_source,
            affinity: policy.affinity,
            restricted: policy.sources.is_some(),
            label: frontend.label.clone(),
        }
    }

    /// Whether everybody's connections are refused.
    pub(crate) fn refuses(&self) -> bool {
        self.count == 0 && self.inside == 0 && !self.drops
    }

    /// Whether the shortest way through the rules does for it.
    pub(crate) fn is_plain(&self) -> bool {
        self.count > 0
            && self.inside == 0
            && !self.keeps_source
            && self.affinity.is_none()
            && !self.restricted
    }

    /// The branches that it needs at this key.
    pub(crate) fn branches(&self, key: &FrontendKey) -> impl Iterator<Item = Branch> {
        let node_port = matches!(key, FrontendKey::NodePort { .. });
        let pick = |inside, count| {
            (count > 0).then_some(Branch::Pick {
                node_port,
                inside,
                count,
            })
        };
        let remember = self
            .affinity
            .filter(|_| !self.refuses())
            .map(|seconds| Branch::Remember { node_port, seconds });
        [pick(false, self.count), pick(true, self.inside), remember]
            .into_iter()
            .flatten()
    }
}

/// A place in the list of a frontend's backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Of which frontend.
    pub frontend: FrontendKey,
    /// Of the list for clients on this node.
    pub inside: bool,
    /// Counted from 0.
    pub index: u32,
}

/// Which ranges of addresses the rules know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RangeSet {
    /// Pods of this node: they keep their address, and are on this node for policies.
    Pods,
    /// Services: connections to addresses in them that no Service has are refused.
    Services,
    /// The addresses of this node at which node ports answer.
    NodePorts,
}

/// One end of a range of addresses: the first in it, or the first behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bound {
    /// Of which set.
    pub set: RangeSet,
    /// The address.
    pub at: IpAddr,
    /// Whether the range ends before it.
    pub ends: bool,
}

/// What one Service needs in one IP family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compiled {
    /// Sorted by key, no key twice.
    pub frontends: Vec<Frontend>,
    /// The endpoints that may be on this node: one may reach itself through the Service. Sorted.
    pub local: Vec<IpAddr>,
}

/// Works out what a Service needs in one IP family, on this node.
pub fn compile<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a Slice>,
    node: &Node,
    family: IpFamily,
) -> Compiled {
    let slices: Vec<&Slice> = slices
        .into_iter()
        .filter(|slice| slice.family == family)
        .collect();
    let sources: Option<Arc<[IpNet]>> = service.source_ranges.as_ref().map(|ranges| {
        let of_family = ranges
            .iter()
            .filter(|range| IpFamily::of(range.addr()) == family)
            .map(IpNet::trunc)
            .collect();
        let mut ranges = IpNet::aggregate(&of_family);
        ranges.sort_unstable();
        ranges.into()
    });
    let mut frontends = BTreeMap::new();
    let mut local = BTreeSet::new();
    for port in &service.ports {
        let choice = choose(&slices, port, node);
        local.extend(
            choice
                .cluster
                .iter()
                .chain(&choice.local)
                .map(|candidate| candidate.endpoint)
                // Hand-made slices need not say where an endpoint is.
                .filter(|endpoint| endpoint.node.as_ref().is_none_or(|name| *name == node.name))
                .map(|endpoint| endpoint.address),
        );
        let backends = |candidates: &[Candidate<'_>]| -> Arc<[Backend]> {
            let sorted: BTreeSet<Backend> = candidates.iter().map(Candidate::backend).collect();
            sorted.into_iter().collect()
        };
        let (everywhere, here) = (backends(&choice.cluster), backends(&choice.local));
        let label = label(&service.name, port);
        // Internal traffic: Local means this node's endpoints for everybody.
        let internal = match service.internal {
            TrafficPolicy::Cluster => (everywhere.clone(), Policy::default()),
            TrafficPolicy::Local => {
                let drops = here.is_empty() && !everywhere.is_empty();
                let policy = Policy {
                    drops,
                    ..Policy::default()
                };
                (here.clone(), policy)
            }
        };
        // External traffic: Local means this node's endpoints for those who come from outside; the node and its Pods
        // may use all, as if they had used the cluster IP.
        let external = match service.external {
            TrafficPolicy::Cluster => (everywhere, Policy::default()),
            TrafficPolicy::Local => {
                let inside = (here != everywhere && !everywhere.is_empty()).then_some(everywhere);
                let policy = Policy {
                    drops: here.is_empty() && inside.is_some(),
                    keeps_source: !here.is_empty() || inside.is_some(),
                    inside,
                    ..Policy::default()
                };
                (here, policy)
            }
        };
        let mut add = |key, (backends, policy): &(Arc<[Backend]>, Policy), sources| {
            let refuses = backends.is_empty() && policy.inside.is_none() && !policy.drops;
            let frontend = Frontend {
                key,
                label: label.clone(),
                backends: backends.clone(),
                policy: if refuses {
                    Policy::default()
                } else {
                    Policy {
                        affinity: service.affinity,
                        sources,
                        ..policy.clone()
                    }
                },
            };
            // The API server lets no Service have a port twice; if one has, the first counts on every node.
            frontends.entry(key).or_insert(frontend);
        };
        let protocol = port.protocol;
        let at = |ip: &IpAddr| FrontendKey::Address {
            ip: *ip,
            protocol,
            port: port.port,
        };
        let of_family = |ip: &&IpAddr| IpFamily::of(**ip) == family;
        for ip in service.cluster_ips.iter().filter(of_family) {
            add(at(ip), &internal, None);
        }
        for ip in service.external_ips.iter().filter(of_family) {
            add(at(ip), &external, None);
        }
        for ip in service.load_balancer_ips.iter().filter(of_family) {
            add(at(ip), &external, sources.clone());
        }
        if let Some(port) = port.node_port {
            add(FrontendKey::NodePort { protocol, port }, &external, None);
        }
    }
    Compiled {
        frontends: frontends.into_values().collect(),
        local: local.into_iter().collect(),
    }
}

/// `namespace/name:port`, the port by name if it has one.
fn label(service: &ObjectName, port: &ServicePort) -> Arc<str> {
    let mut label = if port.name.is_empty() {
        format!("{service}:{}", port.port)
    } else {
        format!("{service}:{}", port.name)
    };
    // Names of Kubernetes objects are ASCII, but nothing here depends on it.
    let mut end = label.len().min(LONGEST_LABEL);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    label.truncate(end);
    label.into()
}

/// The forwarding of all Services in one IP family.
#[derive(Debug)]
pub struct Forwarding {
    services: HashMap<ObjectName, Keys>,
    /// Who wants a frontend, the first by name first. Two Services may claim the same external address and port;
    /// then the first has it, on every node alike.
    claims: HashMap<FrontendKey, Vec<(ObjectName, Frontend)>>,
    /// How many frontends use a branch.
    branches: HashMap<Branch, u32>,
    /// How many Services have an endpoint on this node at this address.
    local: HashMap<IpAddr, u32>,
    ranges: BTreeSet<Bound>,
    family: IpFamily,
}

/// What a Service put into the other tables.
#[derive(Debug, Default)]
struct Keys {
    frontends: Vec<FrontendKey>,
    local: Vec<IpAddr>,
}

impl Forwarding {
    /// No Services. `service_ranges` are those that Services get their addresses from: connections to addresses
    /// in them that no Service has are refused.
    pub fn new(family: IpFamily, service_ranges: &[IpNet]) -> Self {
        Self {
            services: HashMap::new(),
            claims: HashMap::new(),
            branches: HashMap::new(),
            local: HashMap::new(),
            ranges: bounds(RangeSet::Services, service_ranges, family),
            family,
        }
    }

    /// The IP family.
    pub fn family(&self) -> IpFamily {
        self.family
    }

    /// These ranges are in the set now, and no others.
    pub fn set_ranges(&mut self, set: RangeSet, ranges: &[IpNet]) -> Delta {
        let new = bounds(set, ranges, self.family);
        let old: BTreeSet<Bound> = self
            .ranges
            .iter()
            .filter(|bound| bound.set == set)
            .copied()
            .collect();
        let delta = Delta {
            ranges_removed: old.difference(&new).copied().collect(),
            ranges_added: new.difference(&old).copied().collect(),
            ..Delta::default()
        };
        self.ranges.retain(|bound| bound.set != set);
        self.ranges.extend(new);
        delta
    }

    /// These Services need this now; `None` is a Service that is gone. Returns what changes by it.
    pub fn update(
        &mut self,
        changes: impl IntoIterator<Item = (ObjectName, Option<Compiled>)>,
    ) -> Delta {
        // What was in force, of all that is touched: several Services of one update may pass a frontend on.
        let mut before: BTreeMap<FrontendKey, Option<Frontend>> = BTreeMap::new();
        let mut local_before: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for (name, compiled) in changes {
            let old = self.services.remove(&name).unwrap_or_default();
            for key in &old.frontends {
                before
                    .entry(*key)
                    .or_insert_with(|| in_force(&self.claims, key).cloned());
                if let Some(claims) = self.claims.get_mut(key) {
                    claims.retain(|(claimant, _)| *claimant != name);
                    if claims.is_empty() {
                        self.claims.remove(key);
                    }
                }
            }
            for ip in &old.local {
                local_before
                    .entry(*ip)
                    .or_insert_with(|| self.local.contains_key(ip));
                release(&mut self.local, ip);
            }
            let Some(compiled) = compiled else { continue };
            let mut keys = Keys {
                frontends: Vec::with_capacity(compiled.frontends.len()),
                local: compiled.local,
            };
            for ip in &keys.local {
                local_before
                    .entry(*ip)
                    .or_insert_with(|| self.local.contains_key(ip));
                *self.local.entry(*ip).or_default() += 1;
            }
            for frontend in compiled.frontends {
                let key = frontend.key;
                before
                    .entry(key)
                    .or_insert_with(|| in_force(&self.claims, &key).cloned());
                let claims = self.claims.entry(key).or_default();
                let place = claims.partition_point(|(claimant, _)| *claimant < name);
                claims.insert(place, (name.clone(), frontend));
                keys.frontends.push(key);
            }
            self.services.insert(name, keys);
        }
        self.delta(before, local_before)
    }

    fn delta(
        &mut self,
        before: BTreeMap<FrontendKey, Option<Frontend>>,
        local_before: BTreeMap<IpAddr, bool>,
    ) -> Delta {
        let mut delta = Delta::default();
        let mut branches_before: BTreeMap<Branch, bool> = BTreeMap::new();
        for (key, old) in before {
            let new = in_force(&self.claims, &key);
            let branches = |frontend: Option<&Frontend>| -> Vec<Branch> {
                frontend
                    .map(FrontendEntry::of)
                    .into_iter()
                    .flat_map(|entry| entry.branches(&key).collect::<Vec<_>>())
                    .collect()
            };
            for branch in branches(old.as_ref()) {
                branches_before
                    .entry(branch)
                    .or_insert_with(|| self.branches.contains_key(&branch));
                release(&mut self.branches, &branch);
            }
            for branch in branches(new) {
                branches_before
                    .entry(branch)
                    .or_insert_with(|| self.branches.contains_key(&branch));
                *self.branches.entry(branch).or_default() += 1;
            }
            delta.frontend_changed(key, old.as_ref(), new);
        }
        delta.branches = self.branches_changed(branches_before);
        for (ip, was) in local_before {
            match (was, self.local.contains_key(&ip)) {
                (false, true) => delta.hairpin_added.push(ip),
                (true, false) => delta.hairpin_removed.push(ip),
                (true, true) | (false, false) => {}
            }
        }
        delta
    }

    /// The branches before and after, if any of these came or went. There are few at all times: one for each
    /// number of backends, and one for each time of affinity, that some frontend has.
    fn branches_changed(
        &self,
        before: BTreeMap<Branch, bool>,
    ) -> Option<(BTreeSet<Branch>, BTreeSet<Branch>)> {
        let now: BTreeSet<Branch> = self.branches.keys().copied().collect();
        let mut old = now.clone();
        for (branch, was) in before {
            if was {
                old.insert(branch);
            } else {
                old.remove(&branch);
            }
        }
        (old != now).then_some((old, now))
    }

    /// All that the kernel should hold.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents {
            hairpin: self.local.keys().copied().collect(),
            branches: self.branches.keys().copied().collect(),
            ranges: self.ranges.clone(),
            ..Contents::default()
        };
        for claims in self.claims.values() {
            let Some((_, frontend)) = claims.first() else {
                continue;
            };
            let entry = FrontendEntry::of(frontend);
            contents.frontends.insert(frontend.key, entry);
            contents.backends.extend(frontend.slots());
            contents.sources.extend(frontend.allowed());
        }
        contents
    }

    /// Whether it is in a range that Services get their addresses from.
    pub fn is_service_address(&self, address: IpAddr) -> bool {
        self.is_in(RangeSet::Services, address)
    }

    /// Whether node ports answer there, if the node has it.
    pub fn is_node_port_address(&self, address: IpAddr) -> bool {
        self.is_in(RangeSet::NodePorts, address)
    }

    fn is_in(&self, set: RangeSet, address: IpAddr) -> bool {
        let last = Bound {
            set,
            at: address,
            ends: true,
        };
        // Of two ends at the same address only one is kept, so the last one up to here tells.
        self.ranges
            .range(..=last)
            .next_back()
            .is_some_and(|bound| bound.set == set && !bound.ends)
    }

    /// The frontend at this key, as it is in force.
    pub fn frontend(&self, key: &FrontendKey) -> Option<&Frontend> {
        in_force(&self.claims, key)
    }
}

impl Frontend {
    /// Its backends, each in its place.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (Slot, Backend)> {
        let list = |inside, backends: &[Backend]| {
            let frontend = self.key;
            (0..).zip(backends.to_vec()).map(move |(index, backend)| {
                let slot = Slot {
                    frontend,
                    inside,
                    index,
                };
                (slot, backend)
            })
        };
        let inside = self.policy.inside.as_deref().unwrap_or_default();
        list(false, &self.backends).chain(list(true, inside))
    }

    /// Whether this backend is one of its own, for anybody.
    pub fn has(&self, backend: &Backend) -> bool {
        let inside = self.policy.inside.as_deref().unwrap_or_default();
        self.backends.contains(backend) || inside.contains(backend)
    }

    /// From where it takes connections, if not from everywhere.
    pub(crate) fn allowed(&self) -> impl Iterator<Item = (FrontendKey, IpNet)> {
        let sources = self.policy.sources.as_deref().unwrap_or_default();
        sources.iter().map(|range| (self.key, *range))
    }
}

fn in_force<'a>(
    claims: &'a HashMap<FrontendKey, Vec<(ObjectName, Frontend)>>,
    key: &FrontendKey,
) -> Option<&'a Frontend> {
    claims.get(key)?.first().map(|(_, frontend)| frontend)
}

/// One user less; with the last one the entry goes.
fn release<K: std::hash::Hash + Eq>(users: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = users.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            users.remove(key);
        }
    }
}

/// The ends of ranges, after overlapping and neighbouring ones were joined.
fn bounds(set: RangeSet, ranges: &[IpNet], family: IpFamily) -> BTreeSet<Bound> {
    let of_family = ranges
        .iter()
        .filter(|range| IpFamily::of(range.addr()) == family)
        .copied()
        .collect();
    let mut bounds = BTreeSet::new();
    for range in IpNet::aggregate(&of_family) {
        bounds.insert(Bound {
            set,
            at: range.network(),
            ends: false,
        });
        // A range up to the very last address has no end.
        if let Some(at) = successor(range.broadcast()) {
            bounds.insert(Bound {
                set,
                at,
                ends: true,
            });
        }
    }
    // Neighbours that make up no common network: where one ends, the next begins.
    let joints: Vec<IpAddr> = bounds
        .iter()
        .filter(|bound| {
            bound.ends
                && bounds.contains(&Bound {
                    ends: false,
                    ..**bound
                })
        })
        .map(|bound| bound.at)
        .collect();
    for at in joints {
        for ends in [true, false] {
            bounds.remove(&Bound { set, at, ends });
        }
    }
    bounds
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address)
            .checked_add(1)
            .map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(address) => u128::from(address)
            .checked_add(1)
            .map(|next| IpAddr::V6(next.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Endpoint, SlicePort};

    fn service(ports: &[(&str, u16, Option<u16>)]) -> Service {
        let port = |&(name, port, node_port): &(&str, u16, Option<u16>)| ServicePort {
            name: name.to_owned(),
            protocol: Protocol::Tcp,
            port,
            node_port,
        };
        Service {
            name: ObjectName::new("default", "web"),
            cluster_ips: vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            ports: ports.iter().map(port).collect(),
            internal: TrafficPolicy::Cluster,
            external: TrafficPolicy::Cluster,
            affinity: None,
            source_ranges: None,
            health_check_port: None,
        }
    }

    fn slice(name: &str, ports: &[(&str, u16)], endpoints: &[(&str, &str, Option<&str>)]) -> Slice {
        Slice {
            name: ObjectName::new("default", name),
            service: ObjectName::new("default", "web"),
            family: IpFamily::V4,
            ports: ports
                .iter()
                .map(|&(name, port)| SlicePort {
                    name: name.to_owned(),
                    protocol: Protocol::Tcp,
                    port,
                })
                .collect(),
            endpoints: endpoints
                .iter()
                .map(|&(address, state, node)| Endpoint {
                    address: address.parse().unwrap(),
                    ready: state == "ready",
                    serving: state != "down",
                    terminating: state == "terminating",
                    node: node.map(str::to_owned),
                    for_nodes: Vec::new(),
                    for_zones: Vec::new(),
                })
                .collect(),
        }
    }

    fn n1() -> Node {
        Node {
            name: "n1".to_owned(),
            zone: None,
        }
    }

    fn backends(compiled: &Compiled, n: usize) -> Vec<String> {
        compiled.frontends[n]
            .backends
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn ports_are_found_by_name_and_slices_are_joined_without_duplicates() {
        let compiled = compile(
            &service(&[("http", 80, Some(30080)), ("metrics", 9100, None)]),
            &[
                slice(
                    "a",
                    &[("http", 8080), ("metrics", 9100)],
                    &[("10.244.0.2", "ready", Some("n1"))],
                ),
                slice(
                    "b",
                    &[("http", 8081)],
                    &[("10.244.1.2", "ready", Some("n2"))],
                ),
                slice(
                    "c",
                    &[("http", 8080)],
                    &[("10.244.0.2", "ready", Some("n1"))],
                ),
            ],
            &n1(),
            IpFamily::V4,
        );
        let keys: Vec<_> = compiled
            .frontends
            .iter()
            .map(|frontend| (frontend.key, &*frontend.label))
            .collect();
        let (ip, protocol) = ("10.96.0.1".parse().unwrap(), Protocol::Tcp);
        assert_eq!(
            keys,
            [
                (
                    FrontendKey::Address {
                        ip,
                        protocol,
                        port: 80
                    },
                    "default/web:http"
                ),
                (
                    FrontendKey::Address {
                        ip,
                        protocol,
                        port: 9100
                    },
                    "default/web:metrics"
                ),
                (
                    FrontendKey::NodePort {
                        protocol,
                        port: 30080
                    },
                    "default/web:http"
                ),
            ]
        );
        assert_eq!(
            backends(&compiled, 0),
            ["10.244.0.2:8080", "10.244.1.2:8081"]
        );
        assert_eq!(backends(&compiled, 1), ["10.244.0.2:9100"]);
        assert_eq!(backends(&compiled, 2), backends(&compiled, 0));
        assert_eq!(compiled.local, ["10.244.0.2".parse::<IpAddr>().unwrap()]);
    }

    /// A Service with an address of each sort, on a node with one of its two endpoints, unless `here` is false.
    fn with_policies(here: bool, change: impl FnOnce(&mut Service)) -> Compiled {
        let mut service = service(&[("", 80, Some(30080))]);
        service.external_ips = vec!["192.0.2.1".parse().unwrap()];
        service.load_balancer_ips = vec!["192.0.2.2".parse().unwrap()];
        change(&mut service);
        let own = (
            "10.244.0.2",
            if here { "ready" } else { "down" },
            Some("n1"),
        );
        let other = ("10.244.1.2", "ready", Some("n2"));
        let slices = [slice("a", &[("", 8080)], &[own, other])];
        compile(&service, &slices, &n1(), IpFamily::V4)
    }

    #[test]
    fn local_traffic_stays_and_what_is_inside_may_leave() {
        let compiled = with_policies(true, |service| service.external = TrafficPolicy::Local);
        let [cluster_ip, external, balancer, node_port] = &compiled.frontends[..] else {
            panic!("{compiled:?}");
        };
        assert_eq!(cluster_ip.backends.len(), 2);
        assert_eq!(cluster_ip.policy, Policy::default());
        for outside in [external, balancer, node_port] {
            assert_eq!(&outside.backends[..], ["10.244.0.2:8080".parse().unwrap()]);
            assert_eq!(outside.policy.inside.as_ref(), Some(&cluster_ip.backends));
            assert!(outside.policy.keeps_source && !outside.policy.drops);
        }
        let compiled = with_policies(true, |service| service.internal = TrafficPolicy::Local);
        assert_eq!(compiled.frontends[0].backends.len(), 1);
        assert_eq!(compiled.frontends[1].backends.len(), 2);
        assert_eq!(compiled.frontends[0].policy, Policy::default());
    }

    #[test]
    fn without_a_local_endpoint_local_traffic_is_dropped_and_without_any_refused() {
        let compiled = with_policies(false, |service| service.external = TrafficPolicy::Local);
        let balancer = &compiled.frontends[2];
        assert!(balancer.backends.is_empty() && balancer.policy.drops);
        assert_eq!(
            balancer.policy.inside.as_ref().map(|inside| inside.len()),
            Some(1)
        );
        let compiled = with_policies(false, |service| service.internal = TrafficPolicy::Local);
        assert!(compiled.frontends[0].policy.drops);
        let mut service = service(&[("", 80, Some(30080))]);
        service.internal = TrafficPolicy::Local;
        service.external = TrafficPolicy::Local;
        service.affinity = Some(10);
        for frontend in compile(&service, &[], &n1(), IpFamily::V4).frontends {
            assert!(FrontendEntry::of(&frontend).refuses(), "{frontend:?}");
            assert_eq!(frontend.policy, Policy::default());
        }
    }

    #[test]
    fn source_ranges_are_for_the_load_balancers_addresses_only_and_of_one_family() {
        let compiled = with_policies(true, |service| {
            let ranges = ["192.0.2.128/25", "192.0.2.7/25", "fd00::/8"];
            service.source_ranges = Some(ranges.map(|range| range.parse().unwrap()).to_vec());
        });
        let sources = |n: usize| compiled.frontends[n].policy.sources.as_deref();
        assert_eq!(sources(2), Some(&["192.0.2.0/24".parse().unwrap()][..]));
        assert_eq!((sources(0), sources(1), sources(3)), (None, None, None));
        // Ranges of the other family only: nobody.
        let compiled = with_policies(true, |service| {
            service.source_ranges = Some(vec!["fd00::/8".parse().unwrap()]);
        });
        assert_eq!(
            compiled.frontends[2].policy.sources.as_deref(),
            Some(&[][..])
        );
    }

    #[test]
    fn a_service_without_endpoints_still_has_its_frontends() {
        let compiled = compile(&service(&[("", 80, None)]), &[], &n1(), IpFamily::V4);
        assert_eq!(compiled.frontends.len(), 1);
        assert_eq!(backends(&compiled, 0), [""; 0]);
        assert_eq!(&*compiled.frontends[0].label, "default/web:80");
    }

    #[test]
    fn an_address_that_two_services_claim_goes_to_the_first_by_name_and_on_to_the_second() {
        let mut forwarding = Forwarding::new(IpFamily::V4, &[]);
        let compiled = |backend: &str| {
            let slices = [slice(
                "a",
                &[("", 8080)],
                &[(backend, "ready", Some("other"))],
            )];
            Some(compile(
                &service(&[("", 80, None)]),
                &slices,
                &n1(),
                IpFamily::V4,
            ))
        };
        let (a, b) = (
            ObjectName::new("default", "a"),
            ObjectName::new("default", "b"),
        );
        let _ = forwarding.update([(b.clone(), compiled("10.244.0.2"))]);
        let has = |forwarding: &Forwarding| {
            forwarding
                .contents()
                .backends
                .values()
                .map(ToString::to_string)
                .collect()
        };
        let first: Vec<String> = has(&forwarding);
        assert_eq!(first, ["10.244.0.2:8080"]);
        let delta = forwarding.update([(a.clone(), compiled("10.244.0.1"))]);
        assert_eq!(delta.backends_added.len(), 1);
        assert_eq!(delta.branches, None);
        let both: Vec<String> = has(&forwarding);
        assert_eq!(both, ["10.244.0.1:8080"]);
        let _ = forwarding.update([(a, None)]);
        let second: Vec<String> = has(&forwarding);
        assert_eq!(second, ["10.244.0.2:8080"]);
    }

    #[test]
    fn ranges_are_joined_and_the_last_one_has_no_end() {
        let of = |ranges: &[&str]| {
            let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
            bounds(RangeSet::Pods, &ranges, IpFamily::V4)
                .into_iter()
                .map(|bound| format!("{}{}", if bound.ends { "<" } else { "" }, bound.at))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(&["10.0.0.0/24", "10.0.0.0/25", "fd00::/8"]),
            ["10.0.0.0", "<10.0.1.0"]
        );
        assert_eq!(
            of(&["10.0.0.0/24", "10.0.1.0/24"]),
            ["10.0.0.0", "<10.0.2.0"]
        );
        assert_eq!(
            of(&["10.0.1.0/24", "10.0.2.0/24"]),
            ["10.0.1.0", "<10.0.3.0"]
        );
        assert_eq!(of(&["240.0.0.0/4"]), ["240.0.0.0"]);
        assert_eq!(of(&["10.244.3.7/24"]), ["10.244.3.0", "<10.244.4.0"]);
    }
}
