//! What the kernel holds, read back into what it means.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use seaway_kernel::nft::{Data, DumpedTable, Element, Expr, Rule};

use super::Layout;
use super::names::*;
use crate::diff::Contents;
use crate::model::{IpFamily, Protocol};
use crate::plan::{Backend, Bound, Branch, FrontendEntry, FrontendKey, RangeSet, Slot};

/// Elements of sets, by the sets' names.
pub(crate) type Elements = HashMap<String, Vec<Element<'static>>>;

impl Layout {
    /// The map in which the kernel remembers clients.
    pub(crate) const fn remembered(self, node_port: bool) -> &'static str {
        affinity(node_port)
    }

    /// Whether the elements of this set are the kernel's own, and not to be read as part of the cluster.
    pub(crate) fn is_remembered(self, set: &str) -> bool {
        [false, true].map(affinity).contains(&set)
    }

    /// Reads the cluster's part out of what the kernel holds, where `elements` are those of all sets. `None` if
    /// the rest is not exactly what this version makes, so that the table has to be made anew.
    pub(crate) fn read(self, dumped: DumpedTable, elements: &Elements) -> Option<Contents> {
        let branches = self.read_branches(dumped)?;
        let of = |set: &str| elements.get(set).map_or(&[][..], Vec::as_slice);
        let mut contents = Contents {
            frontends: self.read_frontends(&branches, elements)?,
            branches,
            ..Contents::default()
        };
        for (node_port, inside) in [(false, false), (false, true), (true, false), (true, true)] {
            for element in of(backends(node_port, inside)) {
                let (key, index) = element.key.split_last_chunk()?;
                let slot = Slot {
                    frontend: self.read_frontend_key(node_port, key)?,
                    inside,
                    index: u32::from_ne_bytes(*index),
                };
                contents
                    .backends
                    .insert(slot, self.read_backend(value(element)?)?);
            }
        }
        for element in of(ALLOWED_SOURCES) {
            contents.sources.insert(self.read_source(element)?);
        }
        for element in of(HAIRPIN) {
            let (ip, again) = self.read_address(&element.key)?;
            if self.read_address(again)?.0 != ip {
                return None;
            }
            contents.hairpin.insert(ip);
        }
        for set in [RangeSet::Pods, RangeSet::Services, RangeSet::NodePorts] {
            for element in of(range_set(set)) {
                contents.ranges.insert(Bound {
                    set,
                    at: self.read_address(&element.key)?.0,
                    ends: element.ends_range,
                });
            }
        }
        Some(contents)
    }

    /// What each frontend is, from the sets that it is in; `None` if that makes no sense.
    fn read_frontends(
        self,
        branches: &BTreeSet<Branch>,
        elements: &Elements,
    ) -> Option<HashMap<FrontendKey, FrontendEntry>> {
        let mut places: HashMap<FrontendKey, Places> = HashMap::new();
        for node_port in [false, true] {
            let classes = Class::ALL.map(|class| (class.set(node_port).to_owned(), Some(class)));
            let of_branches = branches
                .iter()
                .filter(|branch| branch_is_for_node_ports(**branch) == node_port)
                .map(|branch| (branch_set_name(*branch), None));
            for (set, class) in classes.into_iter().chain(of_branches) {
                for element in elements.get(&set).into_iter().flatten() {
                    let key = self.read_frontend_key(node_port, &element.key)?;
                    let places = places.entry(key).or_default();
                    if class.is_some_and(Class::is_labelled) {
                        let label = element.comment.as_deref().unwrap_or_default();
                        places.label = Some(label.into());
                    }
                    places.sets.insert(set.clone());
                }
            }
        }
        places
            .into_iter()
            .map(|(key, places)| {
                let entry = places.entry(&key)?;
                let expected: BTreeSet<String> = sets_of(&key, &entry)
                    .into_iter()
                    .map(|(set, _)| set.into_owned())
                    .collect();
                (expected == places.sets).then_some((key, entry))
            })
            .collect()
    }

    /// The branches that have a set, if all chains, sets and rules are as they should be.
    fn read_branches(self, mut dumped: DumpedTable) -> Option<BTreeSet<Branch>> {
        let mut expected = self.skeleton();
        let fixed: BTreeSet<&str> = expected.sets.iter().map(|set| set.name.as_str()).collect();
        let branches: BTreeSet<Branch> = dumped
            .sets
            .iter()
            .filter(|set| !fixed.contains(set.name.as_str()))
            .filter_map(|set| read_branch(&set.name))
            .collect();
        expected
            .sets
            .extend(branches.iter().map(|branch| self.branch_set(*branch)));
        expected.rules.extend(
            branches
                .iter()
                .flat_map(|branch| self.branch_rules(*branch)),
        );
        for skeleton_chains in [&mut expected.chains, &mut dumped.chains] {
            skeleton_chains.sort_by(|a, b| a.name.cmp(&b.name));
        }
        for sets in [&mut expected.sets, &mut dumped.sets] {
            sets.sort_by(|a, b| a.name.cmp(&b.name));
        }
        dumped.rules.iter_mut().for_each(|rule| rule.handle = None);
        // Stable, so the order within each chain stays; but that of the branches does not matter.
        for rules in [&mut expected.rules, &mut dumped.rules] {
            rules.sort_by(|a, b| (&a.chain, rule_branch(a)).cmp(&(&b.chain, rule_branch(b))));
        }
        let same = dumped.table == expected.table
            && dumped.chains == expected.chains
            && dumped.sets == expected.sets
            && dumped.rules == expected.rules;
        same.then_some(branches)
    }

    /// What `affinity` remembers: of which frontend, and which backend. The client does not matter.
    pub(crate) fn read_remembered(
        self,
        node_port: bool,
        element: &Element<'_>,
    ) -> Option<(FrontendKey, Backend)> {
        let (_, key) = self.read_address(&element.key)?;
        let frontend = self.read_frontend_key(node_port, key)?;
        Some((frontend, self.read_backend(value(element)?)?))
    }

    fn read_address(self, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
        match self.family {
            IpFamily::V4 => bytes
                .split_first_chunk::<4>()
                .map(|(ip, rest)| (IpAddr::from(*ip), rest)),
            IpFamily::V6 => bytes
                .split_first_chunk::<16>()
                .map(|(ip, rest)| (IpAddr::from(*ip), rest)),
        }
    }

    fn read_frontend_key(self, node_port: bool, bytes: &[u8]) -> Option<FrontendKey> {
        let (ip, rest) = if node_port {
            (None, bytes)
        } else {
            self.read_address(bytes).map(|(ip, r)| (Some(ip), r))?
        };
        let &[protocol, 0, 0, 0, high, low, 0, 0] = rest else {
            return None;
        };
        let protocol = Protocol::from_number(protocol)?;
        let port = u16::from_be_bytes([high, low]);
        Some(match ip {
            Some(ip) => FrontendKey::Address { ip, protocol, port },
            None => FrontendKey::NodePort { protocol, port },
        })
    }

    fn read_backend(self, bytes: &[u8]) -> Option<Backend> {
        let (ip, rest) = self.read_address(bytes)?;
        Some(SocketAddr::new(
            ip,
            u16::from_be_bytes(*rest.first_chunk()?),
        ))
    }

    fn read_source(self, element: &Element<'_>) -> Option<(FrontendKey, IpNet)> {
        let split = |bytes: &[u8]| {
            let (key, address) = bytes.split_at_checked(bytes.len() - self.address_length())?;
            let key = self.read_frontend_key(false, key)?;
            Some((key, self.read_address(address)?.0))
        };
        let (key, from) = split(&element.key)?;
        let (also, to) = split(element.key_end.as_deref().unwrap_or(&element.key))?;
        let longest = if from.is_ipv4() { 32 } else { 128 };
        let range = (0..=longest)
            .filter_map(|length| IpNet::new(from, length).ok())
            .find(|range| range.network() == from && range.broadcast() == to)?;
        (key == also).then_some((key, range))
    }
}

/// Where a frontend is found.
#[derive(Default)]
struct Places {
    sets: BTreeSet<String>,
    label: Option<std::sync::Arc<str>>,
}

impl Places {
    fn entry(&self, key: &FrontendKey) -> Option<FrontendEntry> {
        let node_port = is_node_port(key);
        let is = |class: Class| self.sets.contains(class.set(node_port));
        let mut entry = FrontendEntry {
            count: 0,
            inside: 0,
            drops: is(Class::Dropped),
            keeps_source: is(Class::KeepSource),
            affinity: None,
            restricted: is(Class::Restricted),
            label: self.label.clone()?,
        };
        for branch in self.sets.iter().filter_map(|set| read_branch(set)) {
            match branch {
                Branch::Pick {
                    inside: false,
                    count,
                    ..
                } => entry.count = count,
                Branch::Pick {
                    inside: true,
                    count,
                    ..
                } => entry.inside = count,
                Branch::Remember { seconds, .. } => entry.affinity = Some(seconds),
            }
        }
        Some(entry)
    }
}

/// The branch that a rule is for, if it is in a chain of such.
pub(super) fn rule_branch(rule: &Rule) -> Option<Branch> {
    let branch = rule
        .expressions
        .iter()
        .find_map(|expression| match expression {
            Expr::Lookup { set, .. } => read_branch(set),
            _ => None,
        })?;
    (branch_chain(branch) == rule.chain).then_some(branch)
}

const fn branch_is_for_node_ports(branch: Branch) -> bool {
    match branch {
        Branch::Pick { node_port, .. } | Branch::Remember { node_port, .. } => node_port,
    }
}

fn value<'e>(element: &'e Element<'_>) -> Option<&'e [u8]> {
    match element.data.as_ref()? {
        Data::Value(value) => Some(value),
        Data::Verdict(_) => None,
    }
}
