//! What the kernel holds, and what changes of it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use crate::plan::{Backend, Bound, Frontend, FrontendEntry, FrontendKey, Pick};

/// All that varies with the cluster, as the kernel holds it for one IP family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// The chains that choose one of so many backends.
    pub picks: BTreeSet<Pick>,
    /// Where clients connect.
    pub frontends: HashMap<FrontendKey, FrontendEntry>,
    /// Who answers, numbered from 0 for each frontend.
    pub backends: HashMap<(FrontendKey, u32), Backend>,
    /// Endpoints on this node.
    pub hairpin: HashSet<IpAddr>,
    /// Sources that keep their address.
    pub pod_ranges: BTreeSet<Bound>,
    /// Destinations that are refused if no Service has them.
    pub service_ranges: BTreeSet<Bound>,
}

/// What to take away and what to add, to be done in one transaction. An entry that changes is in both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Delta {
    /// If picks come or go: those before and those after.
    pub picks: Option<(BTreeSet<Pick>, BTreeSet<Pick>)>,
    /// Frontends that come, go or change: as they were and as they are.
    pub frontends: Vec<(FrontendKey, Option<FrontendEntry>, Option<FrontendEntry>)>,
    /// Backends to add.
    pub backends_added: Vec<(FrontendKey, u32, Backend)>,
    /// Backends to take away.
    pub backends_removed: Vec<(FrontendKey, u32)>,
    /// Endpoints that are new on this node.
    pub hairpin_added: Vec<IpAddr>,
    /// Endpoints that are no more on this node.
    pub hairpin_removed: Vec<IpAddr>,
    /// Ends of Pod ranges to add.
    pub pod_ranges_added: Vec<Bound>,
    /// Ends of Pod ranges to take away.
    pub pod_ranges_removed: Vec<Bound>,
    /// Ends of Service ranges to add.
    pub service_ranges_added: Vec<Bound>,
    /// Ends of Service ranges to take away.
    pub service_ranges_removed: Vec<Bound>,
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
            + self.hairpin_added.len()
            + self.hairpin_removed.len()
            + self.pod_ranges_added.len()
            + self.pod_ranges_removed.len()
            + self.service_ranges_added.len()
            + self.service_ranges_removed.len()
    }

    /// The same with other Pod ranges, as [`crate::Forwarding::set_pod_ranges`] says.
    pub fn with_pod_ranges(self, other: Self) -> Self {
        Self {
            pod_ranges_added: other.pod_ranges_added,
            pod_ranges_removed: other.pod_ranges_removed,
            ..self
        }
    }

    /// The picks that nothing uses any more.
    pub(crate) fn picks_gone(&self) -> impl Iterator<Item = &Pick> {
        self.picks
            .iter()
            .flat_map(|(before, after)| before.difference(after))
    }

    /// Adds what changes when a frontend is this instead of that.
    pub(crate) fn frontend_changed(
        &mut self,
        key: FrontendKey,
        old: Option<&Frontend>,
        new: Option<&Frontend>,
    ) {
        let entry = |frontend: &Frontend| FrontendEntry {
            count: frontend.backends.len() as u32,
            label: frontend.label.clone(),
        };
        let (old_entry, new_entry) = (old.map(entry), new.map(entry));
        if old_entry != new_entry {
            self.frontends.push((key, old_entry, new_entry));
        }
        let old = old.map_or(&[][..], |frontend| &frontend.backends);
        let new = new.map_or(&[][..], |frontend| &frontend.backends);
        for index in 0..old.len().max(new.len()) {
            let (was, is) = (old.get(index), new.get(index));
            if was != is {
                if was.is_some() {
                    self.backends_removed.push((key, index as u32));
                }
                self.backends_added
                    .extend(is.map(|backend| (key, index as u32, *backend)));
            }
        }
    }
}

/// What makes `new` out of `old`. For what was read back from the kernel; changes of Services come from
/// [`crate::Forwarding::update`], which looks at nothing else.
pub fn difference(old: &Contents, new: &Contents) -> Delta {
    let mut delta = Delta {
        picks: (old.picks != new.picks).then(|| (old.picks.clone(), new.picks.clone())),
        hairpin_added: sorted(new.hairpin.difference(&old.hairpin).copied()),
        hairpin_removed: sorted(old.hairpin.difference(&new.hairpin).copied()),
        pod_ranges_added: new
            .pod_ranges
            .difference(&old.pod_ranges)
            .copied()
            .collect(),
        pod_ranges_removed: old
            .pod_ranges
            .difference(&new.pod_ranges)
            .copied()
            .collect(),
        service_ranges_added: new
            .service_ranges
            .difference(&old.service_ranges)
            .copied()
            .collect(),
        service_ranges_removed: old
            .service_ranges
            .difference(&new.service_ranges)
            .copied()
            .collect(),
        ..Delta::default()
    };
    let (removed, added) = entries(&old.frontends, &new.frontends);
    let keys: BTreeSet<FrontendKey> = removed.into_iter().chain(added.into_keys()).collect();
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
    delta.backends_removed = removed;
    delta.backends_added = added
        .into_iter()
        .map(|((key, index), backend)| (key, index, backend))
        .collect();
    delta
}

/// The keys whose entries go or change, sorted, and the entries that come or change.
fn entries<K: Copy + Ord + std::hash::Hash, V: Clone + PartialEq>(
    old: &HashMap<K, V>,
    new: &HashMap<K, V>,
) -> (Vec<K>, BTreeMap<K, V>) {
    let removed = old
        .iter()
        .filter(|(key, value)| new.get(*key) != Some(*value))
        .map(|(key, _)| *key);
    let added = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(*value))
        .map(|(key, value)| (*key, value.clone()));
    (sorted(removed), added.collect())
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
        for (key, index) in &delta.backends_removed {
            assert!(
                self.backends.remove(&(*key, *index)).is_some(),
                "{key:?} {index} is removed but not there"
            );
        }
        for (key, index, backend) in &delta.backends_added {
            assert!(
                self.backends.insert((*key, *index), *backend).is_none(),
                "{key:?} {index} is added twice"
            );
        }
        for ip in &delta.hairpin_removed {
            assert!(self.hairpin.remove(ip));
        }
        for ip in &delta.hairpin_added {
            assert!(self.hairpin.insert(*ip));
        }
        if let Some((old, new)) = &delta.picks {
            assert_eq!(self.picks, *old);
            assert_ne!(old, new);
            self.picks = new.clone();
        }
        for bound in &delta.pod_ranges_removed {
            assert!(self.pod_ranges.remove(bound));
        }
        for bound in &delta.pod_ranges_added {
            assert!(self.pod_ranges.insert(*bound));
        }
        for bound in &delta.service_ranges_removed {
            assert!(self.service_ranges.remove(bound));
        }
        for bound in &delta.service_ranges_added {
            assert!(self.service_ranges.insert(*bound));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{IpFamily, ObjectName, Protocol};
    use crate::plan::{Compiled, Forwarding};

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
        let frontends = proptest::collection::btree_map(key, ("[ab]", backends), 0..4);
        let local = proptest::collection::btree_set(
            (1..4u8).prop_map(|last| IpAddr::from([10, 244, 0, last])),
            0..3,
        );
        (frontends, local).prop_map(|(frontends, local)| Compiled {
            frontends: frontends
                .into_iter()
                .map(|(key, (label, backends))| Frontend {
                    key,
                    label: label.into(),
                    backends: backends.into_iter().collect(),
                })
                .collect(),
            local: local.into_iter().collect(),
        })
    }

    fn updates() -> impl Strategy<Value = Vec<Vec<(ObjectName, Option<Compiled>)>>> {
        let change = ("[pqrs]", proptest::option::weighted(0.8, compiled()))
            .prop_map(|(name, compiled)| (ObjectName::new("default", &name), compiled));
        proptest::collection::vec(proptest::collection::vec(change, 1..4), 1..12)
    }

    /// What the clients of a frontend should reach, worked out the slow and obvious way.
    fn obvious(services: &BTreeMap<ObjectName, Compiled>) -> BTreeMap<FrontendKey, Vec<Backend>> {
        let mut reachable = BTreeMap::new();
        for compiled in services.values() {
            for frontend in &compiled.frontends {
                reachable
                    .entry(frontend.key)
                    .or_insert_with(|| frontend.backends.to_vec());
            }
        }
        reachable
    }

    /// What the kernel would do with each number that `numgen` may draw.
    fn looked_up(contents: &Contents) -> BTreeMap<FrontendKey, Vec<Backend>> {
        contents
            .frontends
            .iter()
            .map(|(key, entry)| {
                let node_port = matches!(key, FrontendKey::NodePort { .. });
                if entry.count > 0 {
                    assert!(
                        contents.picks.contains(&Pick {
                            node_port,
                            count: entry.count
                        }),
                        "no chain to go to"
                    );
                }
                let found = (0..entry.count)
                    .map(|index| contents.backends[&(*key, index)])
                    .collect();
                (*key, found)
            })
            .collect()
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
                prop_assert_eq!(kernel.backends.len(), looked_up(&kernel).values().map(Vec::len).sum::<usize>());
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
