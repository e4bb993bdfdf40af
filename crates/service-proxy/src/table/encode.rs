//! A change of the cluster as a transaction of the kernel.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use seaway_kernel::nft::{Batch, Element, Rule};

use super::Layout;
use super::names::*;
use crate::diff::Delta;
use crate::plan::{Backend, Bound, Branch, FrontendEntry, FrontendKey, Slot};

impl Layout {
    /// Adds the table with nothing of the cluster in it.
    pub(crate) fn encode_skeleton(self, batch: &mut Batch) {
        let skeleton = self.skeleton();
        batch.add_table(&skeleton.table);
        skeleton
            .chains
            .iter()
            .for_each(|chain| batch.add_chain(chain));
        skeleton.sets.iter().for_each(|set| batch.add_set(set));
        skeleton.rules.iter().for_each(|rule| batch.add_rule(rule));
    }

    /// Adds the sets and rules of branches that a change uses for the first time. Returns whether there are any; then
    /// they must be in the kernel before the change.
    ///
    /// The kernel lets a packet finish with the rules that it began with, but shows it new elements at once. So
    /// the rules for elements must be there one transaction before the elements.
    pub(crate) fn encode_new_branches(self, batch: &mut Batch, delta: &Delta) -> bool {
        let new = delta
            .branches
            .iter()
            .flat_map(|(before, after)| after.difference(before));
        for &branch in new {
            batch.add_set(&self.branch_set(branch));
            // Only these, at the end: for each rule that uses a map, the kernel walks the whole map once.
            for rule in self.branch_rules(branch) {
                batch.add_rule(&rule);
            }
        }
        !batch.is_empty()
    }

    /// The kernel's numbers of the rules of branches, which it takes to remove them.
    pub(crate) fn branch_handles(self, rules: &[Rule]) -> HashMap<Branch, Vec<u64>> {
        let mut handles: HashMap<Branch, Vec<u64>> = HashMap::new();
        for rule in rules {
            if let (Some(branch), Some(handle)) = (super::read::rule_branch(rule), rule.handle) {
                handles.entry(branch).or_default().push(handle);
            }
        }
        handles
    }

    /// Adds a change, whose new branches are there already: what others need first, what needs others last.
    /// `handles` are those of the branches that go.
    pub(crate) fn encode(
        self,
        batch: &mut Batch,
        delta: &Delta,
        handles: &HashMap<Branch, Vec<u64>>,
    ) {
        let family = self.family();
        let moves = Moves::of(delta);
        for (set, keys) in &moves.removed {
            batch.delete_elements(
                family,
                TABLE,
                set,
                keys.iter().map(|key| Element::key(frontend_key(key))),
            );
        }
        for (node_port, inside) in LISTS {
            let slots = in_list(&delta.backends_removed, node_port, inside);
            let elements = slots.map(|(slot, _)| Element::key(slot_key(slot)));
            batch.delete_elements(family, TABLE, backends(node_port, inside), elements);
        }
        let sources = delta.sources_removed.iter().map(source_element);
        batch.delete_elements(family, TABLE, ALLOWED_SOURCES, sources);
        for (set, bounds) in by_set(&delta.ranges_removed) {
            batch.delete_elements(family, TABLE, set, bounds.into_iter().map(bound_element));
        }
        let sources = delta.sources_added.iter().map(source_element);
        batch.create_elements(family, TABLE, ALLOWED_SOURCES, sources);
        for (set, entries) in &moves.added {
            let elements = entries.iter().map(|(key, label)| {
                let element = Element::key(frontend_key(key));
                match label {
                    Some(label) => element.with_comment(*label),
                    None => element,
                }
            });
            batch.create_elements(family, TABLE, set, elements);
        }
        for (node_port, inside) in LISTS {
            let slots = in_list(&delta.backends_added, node_port, inside);
            let elements =
                slots.map(|(slot, backend)| Element::value(slot_key(slot), backend_value(backend)));
            batch.create_elements(family, TABLE, backends(node_port, inside), elements);
        }
        let added = delta
            .hairpin_added
            .iter()
            .map(|ip| Element::key(hairpin_key(*ip)));
        batch.create_elements(family, TABLE, HAIRPIN, added);
        for (set, bounds) in by_set(&delta.ranges_added) {
            batch.create_elements(family, TABLE, set, bounds.into_iter().map(bound_element));
        }
        for &branch in delta.branches_gone() {
            for handle in handles.get(&branch).into_iter().flatten() {
                batch.delete_rule(family, TABLE, branch_chain(branch), *handle);
            }
            batch.delete_set(family, TABLE, &branch_set_name(branch));
        }
    }

    /// Adds what of a change must come after it: a connection that was sent to an endpoint just before it was taken
    /// away still needs to be masqueraded, a little later on the packet's way. Returns whether there is anything.
    pub(crate) fn encode_afterwards(self, batch: &mut Batch, delta: &Delta) -> bool {
        let removed = delta
            .hairpin_removed
            .iter()
            .map(|ip| Element::key(hairpin_key(*ip)));
        batch.delete_elements(self.family(), TABLE, HAIRPIN, removed);
        !delta.hairpin_removed.is_empty()
    }
}

/// Node port or not, inside or not: the four maps of backends.
const LISTS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn in_list(
    slots: &[(Slot, Backend)],
    node_port: bool,
    inside: bool,
) -> impl Iterator<Item = &(Slot, Backend)> {
    slots
        .iter()
        .filter(move |(slot, _)| is_node_port(&slot.frontend) == node_port && slot.inside == inside)
}

fn by_set(bounds: &[Bound]) -> BTreeMap<&'static str, Vec<&Bound>> {
    let mut sets: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for bound in bounds {
        sets.entry(range_set(bound.set)).or_default().push(bound);
    }
    sets
}

/// From which sets frontends go and to which they come, with their labels, where the set has labels.
#[derive(Default)]
struct Moves<'a> {
    removed: BTreeMap<String, Vec<FrontendKey>>,
    added: BTreeMap<String, Vec<(FrontendKey, Option<&'a str>)>>,
}

impl<'a> Moves<'a> {
    fn of(delta: &'a Delta) -> Self {
        let mut moves = Self::default();
        for (key, old, new) in &delta.frontends {
            let places = |entry: &'a Option<FrontendEntry>| -> Vec<_> {
                entry
                    .iter()
                    .flat_map(|entry| {
                        sets_of(key, entry)
                            .into_iter()
                            .map(|(set, labelled)| (set, labelled.then_some(&*entry.label)))
                    })
                    .collect()
            };
            let (was, is) = (places(old), places(new));
            for (set, label) in &was {
                if !is.contains(&(set.clone(), *label)) {
                    push(&mut moves.removed, set, *key);
                }
            }
            for (set, label) in &is {
                if !was.contains(&(set.clone(), *label)) {
                    push(&mut moves.added, set, (*key, *label));
                }
            }
        }
        moves
    }
}

fn push<T>(sets: &mut BTreeMap<String, Vec<T>>, set: &str, item: T) {
    match sets.get_mut(set) {
        Some(items) => items.push(item),
        None => {
            sets.insert(set.to_owned(), vec![item]);
        }
    }
}

fn put_address(key: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => key.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => key.extend_from_slice(&ip.octets()),
    }
}

/// Each field takes a multiple of four bytes.
fn frontend_key(key: &FrontendKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(44);
    let (protocol, port) = match *key {
        FrontendKey::Address { ip, protocol, port } => {
            put_address(&mut bytes, ip);
            (protocol, port)
        }
        FrontendKey::NodePort { protocol, port } => (protocol, port),
    };
    let [high, low] = port.to_be_bytes();
    bytes.extend_from_slice(&[protocol.number(), 0, 0, 0, high, low, 0, 0]);
    bytes
}

fn slot_key(slot: &Slot) -> Vec<u8> {
    let mut bytes = frontend_key(&slot.frontend);
    // In host byte order, as `numgen` yields it.
    bytes.extend_from_slice(&slot.index.to_ne_bytes());
    bytes
}

fn backend_value(backend: &SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20);
    put_address(&mut bytes, backend.ip());
    let [high, low] = backend.port().to_be_bytes();
    bytes.extend_from_slice(&[high, low, 0, 0]);
    bytes
}

fn source_element((key, range): &(FrontendKey, IpNet)) -> Element<'static> {
    let end = |address| {
        let mut bytes = frontend_key(key);
        put_address(&mut bytes, address);
        bytes
    };
    Element {
        key_end: Some(end(range.broadcast()).into()),
        ..Element::key(end(range.network()))
    }
}

fn hairpin_key(ip: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    put_address(&mut bytes, ip);
    put_address(&mut bytes, ip);
    bytes
}

fn bound_element(bound: &Bound) -> Element<'static> {
    let mut key = Vec::with_capacity(16);
    put_address(&mut key, bound.at);
    if bound.ends {
        Element::range_end(key)
    } else {
        Element::key(key)
    }
}
