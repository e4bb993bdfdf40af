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

use crate::diff::{Contents, Delta};
use crate::model::{Endpoint, IpFamily, ObjectName, Protocol, Service, ServicePort, Slice};

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

/// Who answers: address and port of an endpoint.
pub type Backend = SocketAddr;

/// How a connection to a frontend finds its backend. One set and one rule for all frontends with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pick {
    /// Whether it is for node ports: the keys of their backends have no address.
    pub node_port: bool,
    /// Out of how many backends, at least 1.
    pub count: u32,
}

impl Pick {
    /// What `key` needs for `count` backends; `None` for none.
    pub(crate) fn of(key: &FrontendKey, count: u32) -> Option<Self> {
        let node_port = matches!(key, FrontendKey::NodePort { .. });
        (count > 0).then_some(Self { node_port, count })
    }
}

/// A place where clients connect, with those who answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// Where.
    pub key: FrontendKey,
    /// For people: `namespace/name:port`.
    pub label: Arc<str>,
    /// Who; sorted, without duplicates. Empty: connections are refused.
    pub backends: Arc<[Backend]>,
}

/// What the kernel knows of a frontend beside its backends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendEntry {
    /// How many backends it has.
    pub count: u32,
    /// For people: `namespace/name:port`.
    pub label: Arc<str>,
}

/// One end of a range of addresses: the first in it, or the first behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bound {
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

/// Works out what a Service needs in one IP family, on the node of this name.
pub fn compile<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a Slice>,
    node: &str,
    family: IpFamily,
) -> Compiled {
    let slices: Vec<&Slice> = slices
        .into_iter()
        .filter(|slice| slice.family == family)
        .collect();
    let mut frontends = BTreeMap::new();
    let mut local = BTreeSet::new();
    for port in &service.ports {
        let chosen = chosen_endpoints(&slices, port);
        local.extend(
            chosen
                .iter()
                // Hand-made slices need not say where an endpoint is.
                .filter(|(_, endpoint)| endpoint.node.as_deref().is_none_or(|name| name == node))
                .map(|(_, endpoint)| endpoint.address),
        );
        let backends: BTreeSet<Backend> = chosen
            .iter()
            .map(|(port, endpoint)| SocketAddr::new(endpoint.address, *port))
            .collect();
        let backends: Arc<[Backend]> = backends.into_iter().collect();
        let label = label(&service.name, port);
        let mut add = |key| {
            let frontend = Frontend {
                key,
                label: label.clone(),
                backends: backends.clone(),
            };
            // The API server lets no Service have a port twice; if one has, the first counts on every node.
            frontends.entry(key).or_insert(frontend);
        };
        let (protocol, number) = (port.protocol, port.port);
        for &ip in service
            .addresses
            .iter()
            .filter(|ip| IpFamily::of(**ip) == family)
        {
            add(FrontendKey::Address {
                ip,
                protocol,
                port: number,
            });
        }
        if let Some(port) = port.node_port {
            add(FrontendKey::NodePort { protocol, port });
        }
    }
    Compiled {
        frontends: frontends.into_values().collect(),
        local: local.into_iter().collect(),
    }
}

/// The endpoints of a Service port, each with its port's number: those that are ready; if none is, those that
/// still serve while they end (KEP-1669).
fn chosen_endpoints<'a>(slices: &[&'a Slice], port: &ServicePort) -> Vec<(u16, &'a Endpoint)> {
    let candidates = || {
        slices.iter().flat_map(|slice| {
            let ports = slice
                .ports
                .iter()
                .filter(|p| p.name == port.name && p.protocol == port.protocol);
            ports.flat_map(|p| slice.endpoints.iter().map(|endpoint| (p.port, endpoint)))
        })
    };
    let ready: Vec<_> = candidates()
        .filter(|(_, endpoint)| endpoint.ready)
        .collect();
    if !ready.is_empty() {
        return ready;
    }
    candidates()
        .filter(|(_, endpoint)| endpoint.serving && endpoint.terminating)
        .collect()
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
    /// How many frontends use a pick.
    picks: HashMap<Pick, u32>,
    /// How many Services have an endpoint on this node at this address.
    local: HashMap<IpAddr, u32>,
    pod_ranges: BTreeSet<Bound>,
    service_ranges: BTreeSet<Bound>,
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
            picks: HashMap::new(),
            local: HashMap::new(),
            pod_ranges: BTreeSet::new(),
            service_ranges: bounds(service_ranges, family),
            family,
        }
    }

    /// The IP family.
    pub fn family(&self) -> IpFamily {
        self.family
    }

    /// The Pod ranges of this node are these now: sources in them keep their addresses.
    pub fn set_pod_ranges(&mut self, ranges: &[IpNet]) -> Delta {
        let new = bounds(ranges, self.family);
        let delta = Delta {
            pod_ranges_removed: self.pod_ranges.difference(&new).copied().collect(),
            pod_ranges_added: new.difference(&self.pod_ranges).copied().collect(),
            ..Delta::default()
        };
        self.pod_ranges = new;
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
        let mut picks_before: BTreeMap<Pick, bool> = BTreeMap::new();
        for (key, old) in before {
            let new = in_force(&self.claims, &key);
            let pick = |frontend: &Frontend| Pick::of(&key, frontend.backends.len() as u32);
            if let Some(pick) = old.as_ref().and_then(pick) {
                picks_before
                    .entry(pick)
                    .or_insert_with(|| self.picks.contains_key(&pick));
                release(&mut self.picks, &pick);
            }
            if let Some(pick) = new.and_then(pick) {
                picks_before
                    .entry(pick)
                    .or_insert_with(|| self.picks.contains_key(&pick));
                *self.picks.entry(pick).or_default() += 1;
            }
            delta.frontend_changed(key, old.as_ref(), new);
        }
        delta.picks = self.picks_changed(picks_before);
        for (ip, was) in local_before {
            match (was, self.local.contains_key(&ip)) {
                (false, true) => delta.hairpin_added.push(ip),
                (true, false) => delta.hairpin_removed.push(ip),
                (true, true) | (false, false) => {}
            }
        }
        delta
    }

    /// The picks before and after, if any of these came or went. There are few at all times: one for each
    /// number of backends that some frontend has.
    fn picks_changed(
        &self,
        before: BTreeMap<Pick, bool>,
    ) -> Option<(BTreeSet<Pick>, BTreeSet<Pick>)> {
        let now: BTreeSet<Pick> = self.picks.keys().copied().collect();
        let mut old = now.clone();
        for (pick, was) in before {
            if was {
                old.insert(pick);
            } else {
                old.remove(&pick);
            }
        }
        (old != now).then_some((old, now))
    }

    /// All that the kernel should hold.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents {
            hairpin: self.local.keys().copied().collect(),
            picks: self.picks.keys().copied().collect(),
            pod_ranges: self.pod_ranges.clone(),
            service_ranges: self.service_ranges.clone(),
            ..Contents::default()
        };
        for claims in self.claims.values() {
            let Some((_, frontend)) = claims.first() else {
                continue;
            };
            let count = frontend.backends.len() as u32;
            contents.frontends.insert(
                frontend.key,
                FrontendEntry {
                    count,
                    label: frontend.label.clone(),
                },
            );
            for (index, backend) in (0..).zip(frontend.backends.iter()) {
                contents.backends.insert((frontend.key, index), *backend);
            }
        }
        contents
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
fn bounds(ranges: &[IpNet], family: IpFamily) -> BTreeSet<Bound> {
    let of_family = ranges
        .iter()
        .filter(|range| IpFamily::of(range.addr()) == family)
        .copied()
        .collect();
    let mut bounds = BTreeSet::new();
    for range in IpNet::aggregate(&of_family) {
        bounds.insert(Bound {
            at: range.network(),
            ends: false,
        });
        // A range up to the very last address has no end.
        if let Some(at) = successor(range.broadcast()) {
            bounds.insert(Bound { at, ends: true });
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
        bounds.remove(&Bound { at, ends: true });
        bounds.remove(&Bound { at, ends: false });
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
    use crate::model::SlicePort;

    fn service(ports: &[(&str, u16, Option<u16>)]) -> Service {
        let port = |&(name, port, node_port): &(&str, u16, Option<u16>)| ServicePort {
            name: name.to_owned(),
            protocol: Protocol::Tcp,
            port,
            node_port,
        };
        Service {
            name: ObjectName::new("default", "web"),
            addresses: vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            ports: ports.iter().map(port).collect(),
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
                })
                .collect(),
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
            "n1",
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

    #[test]
    fn terminating_endpoints_serve_only_when_none_is_ready() {
        let with = |endpoints: &[(&str, &str, Option<&str>)]| {
            let slices = [slice("a", &[("", 8080)], endpoints)];
            backends(
                &compile(&service(&[("", 80, None)]), &slices, "n1", IpFamily::V4),
                0,
            )
        };
        let ending = ("10.244.0.3", "terminating", None);
        assert_eq!(
            with(&[("10.244.0.2", "ready", None), ending]),
            ["10.244.0.2:8080"]
        );
        assert_eq!(
            with(&[("10.244.0.2", "unready", None), ending]),
            ["10.244.0.3:8080"]
        );
        assert_eq!(
            with(&[
                ("10.244.0.2", "unready", None),
                ("10.244.0.4", "down", None)
            ]),
            [""; 0]
        );
    }

    #[test]
    fn a_service_without_endpoints_still_has_its_frontends() {
        let compiled = compile(&service(&[("", 80, None)]), &[], "n1", IpFamily::V4);
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
                "n1",
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
        assert_eq!(delta.picks, None);
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
            bounds(&ranges, IpFamily::V4)
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
