//! What the kernel holds, and what changes of it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::plan::{Backend, Bound, Branch, Frontend, FrontendEntry, FrontendKey, Slot};

/// All that varies with the cluster, as the kernel holds it for one IP family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// The sets that have rules of their own.
    pub branches: BTreeSet<Branch>,
    /// Where clients connect.
    pub frontends: HashMap<FrontendKey, FrontendEntry>,
    /// Who answers.
    pub backends: HashMap<Slot, Backend>,
    /// From where restricted frontends take connections.
    pub sources: HashSet<(FrontendKey, IpNet)>,
    /// Endpoints on this node.
    pub hairpin: HashSet<IpAddr>,
    /// Ranges of addresses.
    pub ranges: BTreeSet<Bound>,
}

/// What to take away and what to add, to be done in one transaction. An entry that changes is in both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Delta {
    /// If branches come or go: those before and those after.
    pub branches: Option<(BTreeSet<Branch>, BTreeSet<Branch>)>,
    /// Frontends that come, go or change: as they were and as they are.
    pub frontends: Vec<(FrontendKey, Option<FrontendEntry>, Option<FrontendEntry>)>,
    /// Backends to add.
    pub backends_added: Vec<(Slot, Backend)>,
    /// Backends to take away, as they were.
    pub backends_removed: Vec<(Slot, Backend)>,
    /// Sources to let in.
    pub sources_added: Vec<(FrontendKey, IpNet)>,
    /// Sources to let in no more.
    pub sources_removed: Vec<(FrontendKey, IpNet)>,
    /// Endpoints that are new on this node.
    pub hairpin_added: Vec<IpAddr>,
    /// Endpoints that are no more on this node.
    pub hairpin_removed: Vec<IpAddr>,
    /// Ends of ranges to add.
    pub ranges_added: Vec<Bound>,
    /// Ends of ranges to take away.
    pub ranges_removed: Vec<Bound>,
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many entries change.
    pub fn len(&self) -> usize {
        self.frontends.len()
            + self.backends_added.len()
            + self.backends_removed.len()
            + self.sources_added.len()
            + self.sources_removed.len()
            + self.hairpin_added.len()
            + self.hairpin_removed.len()
            + self.ranges_added.len()
            + self.ranges_removed.len()
    }

    /// The same with other ranges, as [`crate::Forwarding::set_ranges`] says.
    pub fn with_ranges(mut self, other: Self) -> Self {
        self.ranges_added.extend(other.ranges_added);
        self.ranges_removed.extend(other.ranges_removed);
        self
    }

    /// The branches that nothing uses any more.
    pub(crate) fn branches_gone(&self) -> impl Iterator<Item = &Branch> {
        self.branches
            .iter()
            .flat_map(|(before, after)| before.difference(after))
    }

    /// The frontends that lose a backend, or affinity, or begin to have backends: what was remembered of their
    /// clients may be wrong.
    pub fn frontends_to_review(&self) -> BTreeSet<FrontendKey> {
        let changed = self.frontends.iter().filter(|(_, old, new)| {
            let affinity = |entry: &Option<FrontendEntry>| entry.as_ref().and_then(|e| e.affinity);
            let answered = old.as_ref().is_some_and(|old| !old.refuses());
            let answers = new.as_ref().is_some_and(|new| !new.refuses());
            affinity(old) != affinity(new) || answered != answers
        });
        changed
            .map(|(key, ..)| *key)
            .chain(self.backends_removed.iter().map(|(slot, _)| slot.frontend))
            .collect()
    }

    /// Adds what changes when a frontend is this instead of that.
    pub(crate) fn frontend_changed(
        &mut self,
        key: FrontendKey,
        old: Option<&Frontend>,
        new: Option<&Frontend>,
    ) {
        let (old_entry, new_entry) = (old.map(FrontendEntry::of), new.map(FrontendEntry::of));
        if old_entry != new_entry {
            self.frontends.push((key, old_entry, new_entry));
        }
        let slots = |frontend: Option<&Frontend>| -> BTreeMap<Slot, Backend> {
            frontend.into_iter().flat_map(Frontend::slots).collect()
        };
        let (old_slots, new_slots) = (slots(old), slots(new));
        for (slot, backend) in &old_slots {
            if new_slots.get(slot) != Some(backend) {
                self.backends_removed.push((*slot, *backend));
            }
        }
        for (slot, backend) in new_slots {
            if old_slots.get(&slot) != Some(&backend) {
                self.backends_added.push((slot, backend));
            }
        }
        let sources = |frontend: Option<&Frontend>| -> BTreeSet<(FrontendKey, IpNet)> {
            frontend.into_iter().flat_map(Frontend::allowed).collect()
        };
        let (old, new) = (sources(old), sources(new));
        self.sources_removed.extend(old.difference(&new));
        self.sources_added.extend(new.difference(&old));
    }
}

/// What makes `new` out of `old`. For what was read back from the kernel; changes of Services come from
/// [`crate::Forwarding::update`], which looks at nothing else.
pub fn difference(old: &Contents, new: &Contents) -> Delta {
    let mut delta = Delta {
        branches: (old.branches != new.branches)
            .then(|| (old.branches.clone(), new.branches.clone())),
        sources_added: sorted(new.sources.difference(&old.sources).copied()),
        sources_removed: sorted(old.sources.difference(&new.sources).copied()),
        hairpin_added: sorted(new.hairpin.difference(&old.hairpin).copied()),
        hairpin_removed: sorted(old.hairpin.difference(&new.hairpin).copied()),
        ranges_added: new.ranges.difference(&old.ranges).copied().collect(),
        ranges_removed: old.ranges.difference(&new.ranges).copied().collect(),
        ..Delta::default()
    };
    let (removed, added) = entries(&old.frontends, &new.frontends);
    let keys: BTreeSet<FrontendKey> = removed.into_keys().chain(added.into_keys()).collect();
    delta.frontends = keys
        .into_iter()
        .map(|key| {
            (
                key,
                old.frontends.get(&key).cloned(),
                new.frontends.get(&key).cloned(),
            )
        })
        .collect();
    let (removed, added) = entries(&old.backends, &new.backends);
    delta.backends_removed = removed.into_iter().collect();
    delta.backends_added = added.into_iter().collect();
    delta
}

/// The entries that go or change, and those that come or change.
fn entries<K: Copy + Ord + std::hash::Hash, V: Clone + PartialEq>(
    old: &HashMap<K, V>,
    new: &HashMap<K, V>,
) -> (BTreeMap<K, V>, BTreeMap<K, V>) {
    let missing = |these: &HashMap<K, V>, in_those: &HashMap<K, V>| {
        these
            .iter()
            .filter(|(key, value)| in_those.get(*key) != Some(*value))
            .map(|(key, value)| (*key, value.clone()))
            .collect()
    };
    (missing(old, new), missing(new, old))
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items
}

/// Carries a change out on what the kernel is thought to hold, as strictly as the kernel does: what is added must
/// not be there, what is removed must be.
#[cfg(test)]
impl Contents {
    pub(crate) fn apply(&mut self, delta: &Delta) {
        for (key, old, new) in &delta.frontends {
            assert_eq!(
                self.frontends.remove(key),
                *old,
                "{key:?} was not what was thought"
            );
            self.frontends
                .extend(new.clone().map(|entry| (*key, entry)));
        }
        for (slot, backend) in &delta.backends_removed {
            assert_eq!(self.backends.remove(slot), Some(*backend), "{slot:?}");
        }
        for (slot, backend) in &delta.backends_added {
            assert!(
                self.backends.insert(*slot, *backend).is_none(),
                "{slot:?} is added twice"
            );
        }
        for source in &delta.sources_removed {
            assert!(self.sources.remove(source), "{source:?}");
        }
        for source in &delta.sources_added {
            assert!(self.sources.insert(*source), "{source:?}");
        }
        for ip in &delta.hairpin_removed {
            assert!(self.hairpin.remove(ip));
        }
        for ip in &delta.hairpin_added {
            assert!(self.hairpin.insert(*ip));
        }
        if let Some((old, new)) = &delta.branches {
            assert_eq!(self.branches, *old);
            assert_ne!(old, new);
            self.branches = new.clone();
        }
        for bound in &delta.ranges_removed {
            assert!(self.ranges.remove(bound));
        }
        for bound in &delta.ranges_added {
            assert!(self.ranges.insert(*bound));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use std::sync::Arc;

    use crate::model::{IpFamily, ObjectName, Protocol};
    use crate::plan::{Compiled, Forwarding, Policy};

    /// A few names, addresses and ports only, so that Services collide and endpoints move between them.
    fn compiled() -> impl Strategy<Value = Compiled> {
        let key = prop_oneof![
            (
                1..4u8,
                80..82u16,
                prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
            )
                .prop_map(|(last, port, protocol)| FrontendKey::Address {
                    ip: [10, 96, 0, last].into(),
                    protocol,
                    port
                }),
            (30000..30002u16).prop_map(|port| FrontendKey::NodePort {
                protocol: Protocol::Tcp,
                port
            }),
        ];
        let backends = proptest::collection::btree_set(
            (1..6u8).prop_map(|last| Backend::new([10, 244, 0, last].into(), 8080)),
            0..4,
        );
        let frontends = proptest::collection::btree_map(
            key,
            ("[ab]", backends.clone(), policy(backends)),
            0..4,
        );
        let local = proptest::collection::btree_set(
            (1..4u8).prop_map(|last| IpAddr::from([10, 244, 0, last])),
            0..3,
        );
        (frontends, local).prop_map(|(frontends, local)| Compiled {
            frontends: frontends
                .into_iter()
                .map(|(key, (label, backends, policy))| Frontend {
                    key,
                    label: label.into(),
                    backends: backends.into_iter().collect(),
                    policy,
                })
                .collect(),
            local: local.into_iter().collect(),
        })
    }

    fn policy(backends: impl Strategy<Value = BTreeSet<Backend>>) -> impl Strategy<Value = Policy> {
        let inside = backends.prop_map(|inside| {
            let inside: Arc<[Backend]> = inside.into_iter().collect();
            (!inside.is_empty()).then_some(inside)
        });
        let range = (1..4u8).prop_map(|third| {
            let range: IpNet = format!("192.0.{third}.0/24").parse().unwrap();
            Arc::from(vec![range])
        });
        let sources = proptest::option::of(range);
        let affinity = proptest::option::of(10..12u32);
        let policy = (inside, any::<bool>(), any::<bool>(), affinity, sources).prop_map(
            |(inside, drops, keeps_source, affinity, sources)| Policy {
                inside,
                drops,
                keeps_source,
                affinity,
                sources,
            },
        );
        prop_oneof![Just(Policy::default()), policy]
    }

    fn updates() -> impl Strategy<Value = Vec<Vec<(ObjectName, Option<Compiled>)>>> {
        let change = ("[pqrs]", proptest::option::weighted(0.8, compiled()))
            .prop_map(|(name, compiled)| (ObjectName::new("default", &name), compiled));
        proptest::collection::vec(proptest::collection::vec(change, 1..4), 1..12)
    }

    /// A frontend, for clients from outside or from this node.
    type Reach = BTreeMap<(FrontendKey, bool), Vec<Backend>>;

    /// What the clients of a frontend should reach, worked out the slow and obvious way.
    fn obvious(services: &BTreeMap<ObjectName, Compiled>) -> Reach {
        let mut reachable = BTreeMap::new();
        for compiled in services.values() {
            for frontend in &compiled.frontends {
                for inside in [false, true] {
                    reachable.entry((frontend.key, inside)).or_insert_with(|| {
                        match &frontend.policy.inside {
                            Some(others) if inside => others.to_vec(),
                            Some(_) | None => frontend.backends.to_vec(),
                        }
                    });
                }
            }
        }
        reachable
    }

    /// What the kernel would do with each number that `numgen` may draw.
    fn looked_up(contents: &Contents) -> Reach {
        let mut reach = BTreeMap::new();
        for (key, entry) in &contents.frontends {
            for branch in entry.branches(key) {
                assert!(
                    contents.branches.contains(&branch),
                    "no rule for {branch:?}"
                );
            }
            for client_is_inside in [false, true] {
                let inside = client_is_inside && entry.inside > 0;
                let count = if inside { entry.inside } else { entry.count };
                let slot = |index| Slot {
                    frontend: *key,
                    inside,
                    index,
                };
                let found = (0..count)
                    .map(|index| contents.backends[&slot(index)])
                    .collect();
                reach.insert((*key, client_is_inside), found);
            }
        }
        reach
    }

    proptest! {
        #[test]
        fn step_by_step_is_the_same_as_from_scratch(updates in updates()) {
            let mut services = BTreeMap::new();
            let mut forwarding = Forwarding::new(IpFamily::V4, &[]);
            let mut kernel = Contents::default();
            for update in updates {
                for (name, compiled) in &update {
                    match compiled {
                        Some(compiled) => services.insert(name.clone(), compiled.clone()),
                        None => services.remove(name),
                    };
                }
                kernel.apply(&forwarding.update(update));
                let mut scratch = Forwarding::new(IpFamily::V4, &[]);
                let all = scratch.update(services.iter().map(|(name, c)| (name.clone(), Some(c.clone()))));
                prop_assert_eq!(&kernel, &scratch.contents());
                prop_assert_eq!(&kernel, &forwarding.contents());
                let mut empty = Contents::default();
                empty.apply(&all);
                prop_assert_eq!(&kernel, &empty);
                prop_assert_eq!(looked_up(&kernel), obvious(&services));
                // Nothing is left over either.
                let needed: u32 = kernel.frontends.values().map(|entry| entry.count + entry.inside).sum();
                prop_assert_eq!(kernel.backends.len(), needed as usize);
                let branches: BTreeSet<Branch> =
                    kernel.frontends.iter().flat_map(|(key, entry)| entry.branches(key)).collect();
                prop_assert_eq!(&kernel.branches, &branches);
            }
        }

        #[test]
        fn the_difference_of_any_two_contents_leads_from_one_to_the_other(a in updates(), b in updates()) {
            let contents = |updates: Vec<Vec<(ObjectName, Option<Compiled>)>>| {
                let mut forwarding = Forwarding::new(IpFamily::V4, &[]);
                for update in updates {
                    let _ = forwarding.update(update);
                }
                forwarding.contents()
            };
            let (mut a, b) = (contents(a), contents(b));
            a.apply(&difference(&a.clone(), &b));
            prop_assert_eq!(&a, &b);
            prop_assert!(difference(&a, &b).is_empty());
        }
    }

    #[test]
    fn a_changed_endpoint_costs_two_elements_however_many_services_there_are() {
        let one = |backend: u8| Compiled {
            frontends: vec![Frontend {
                key: FrontendKey::Address {
                    ip: [10, 96, 0, 1].into(),
                    protocol: Protocol::Tcp,
                    port: 80,
                },
                label: "default/web:http".into(),
                backends: [
                    Backend::new([10, 244, 0, 1].into(), 80),
                    Backend::new([10, 244, 0, backend].into(), 80),
                ]
                .into(),
                policy: Policy::default(),
            }],
            local: vec![],
        };
        let mut forwarding = Forwarding::new(IpFamily::V4, &[]);
        let name = ObjectName::new("default", "web");
        let others = (0..1000u32).map(|n| {
            let mut compiled = one(9);
            let [_, _, c, d] = (n + 256).to_be_bytes();
            compiled.frontends[0].key = FrontendKey::Address {
                ip: [10, 97, c, d].into(),
                protocol: Protocol::Tcp,
                port: 80,
            };
            (
                ObjectName::new("default", &format!("other-{n}")),
                Some(compiled),
            )
        });
        let _ = forwarding.update(others);
        let _ = forwarding.update([(name.clone(), Some(one(2)))]);
        let delta = forwarding.update([(name, Some(one(3)))]);
        assert_eq!(
            (
                delta.len(),
                delta.backends_removed.len(),
                delta.backends_added.len()
            ),
            (2, 1, 1)
        );
    }
}
