//! Nodes and what is promised on them: kept up to date Pod by Pod, so that a decision looks at nodes only. A Pod
//! counts from the moment of the decision, long before the watch shows it bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::demand::{self, Amounts, Demand, HostPort};
use super::filter;
use super::neighbours::{self, Neighbour, Rules};
use super::node::Offer;
use super::score;

/// What is promised on a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load {
    /// Sums of requests.
    pub(crate) used: Amounts,
    /// Ports of the node that are taken, and how often.
    pub(crate) host_ports: HashMap<HostPort, usize>,
    /// Pods of each group.
    pub(crate) groups: HashMap<String, usize>,
    /// Pods.
    pub(crate) pods: usize,
}

#[derive(Debug, Default)]
struct Place {
    /// `None` while only Pods speak of the node.
    offer: Option<Offer>,
    load: Load,
}

/// Where every Pod is and what every node has left.
#[derive(Debug, Default)]
pub(crate) struct State {
    nodes: BTreeMap<String, Place>,
    /// UID → node and demand.
    placed: HashMap<String, (String, Arc<Demand>)>,
    /// How many of the placed Pods bring rules about their neighbours.
    with_rules: usize,
}

/// Why no node will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    nodes: usize,
    /// Reason → number of nodes.
    reasons: BTreeMap<String, usize>,
}

impl std::fmt::Display for Unfit {
    /// `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut reasons: Vec<String> = self
            .reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        reasons.sort();
        write!(
            f,
            "0/{} nodes are available: {}.",
            self.nodes,
            reasons.join(", ")
        )
    }
}

impl State {
    /// A node is there or has changed. Whether that matters for scheduling.
    pub(crate) fn offer(&mut self, offer: Offer) -> bool {
        let place = self.nodes.entry(offer.name.clone()).or_default();
        let changed = place.offer.as_ref() != Some(&offer);
        place.offer = Some(offer);
        changed
    }

    /// A node is gone; its Pods are remembered until they are gone too.
    pub(crate) fn withdraw(&mut self, name: &str) {
        if let Some(place) = self.nodes.get_mut(name) {
            place.offer = None;
            if place.load.pods == 0 {
                self.nodes.remove(name);
            }
        }
    }

    /// A Pod is on a node, or is meant to be.
    pub(crate) fn place(&mut self, uid: &str, node: &str, demand: Arc<Demand>) {
        if self
            .placed
            .get(uid)
            .is_some_and(|(known, same)| known == node && **same == *demand)
        {
            return;
        }
        self.remove(uid);
        let load = &mut self.nodes.entry(node.to_owned()).or_default().load;
        demand::add(&mut load.used, &demand.requests);
        for port in &demand.host_ports {
            *load.host_ports.entry(port.clone()).or_default() += 1;
        }
        *load.groups.entry(demand.group.clone()).or_default() += 1;
        load.pods += 1;
        self.with_rules += usize::from(neighbours::has_rules(&demand));
        self.placed
            .insert(uid.to_owned(), (node.to_owned(), demand));
    }

    /// A Pod uses nothing any more. Whether it did.
    pub(crate) fn remove(&mut self, uid: &str) -> bool {
        let Some((node, demand)) = self.placed.remove(uid) else {
            return false;
        };
        self.with_rules -= usize::from(neighbours::has_rules(&demand));
        let Some(place) = self.nodes.get_mut(&node) else {
            return true;
        };
        let load = &mut place.load;
        for (name, amount) in &demand.requests {
            if let Some(used) = load.used.get_mut(name) {
                *used -= amount;
            }
        }
        load.used.retain(|_, amount| *amount != 0);
        for port in &demand.host_ports {
            decrease(&mut load.host_ports, port);
        }
        decrease(&mut load.groups, &demand.group);
        load.pods -= 1;
        if load.pods == 0 && place.offer.is_none() {
            self.nodes.remove(&node);
        }
        true
    }

    /// The node that a Pod should run on.
    pub(crate) fn decide(&self, demand: &Demand) -> Result<String, Unfit> {
        let offers = || {
            self.nodes
                .values()
                .filter_map(|place| place.offer.as_ref().map(|offer| (offer, &place.load)))
        };
        let mut unfit = Unfit {
            nodes: offers().count(),
            reasons: BTreeMap::new(),
        };
        let mut fitting: Vec<(&Offer, &Load)> = Vec::new();
        for (offer, load) in offers() {
            let reasons = filter::reasons(demand, offer, load);
            if reasons.is_empty() {
                fitting.push((offer, load));
            }
            for reason in reasons {
                *unfit.reasons.entry(reason).or_default() += 1;
            }
        }
        if self.with_rules > 0 || neighbours::has_rules(demand) {
            let neighbours: Vec<Neighbour<'_>> = self.neighbours().collect();
            let nodes: Vec<&Offer> = fitting.iter().map(|(offer, _)| *offer).collect();
            let rules = Rules::gather(demand, &neighbours, &nodes);
            fitting.retain(|(offer, _)| match rules.objection(offer) {
                None => true,
                Some(reason) => {
                    *unfit.reasons.entry(reason).or_default() += 1;
                    false
                }
            });
        }
        let best = fitting
            .into_iter()
            .min_by_key(|(offer, load)| score::rank(demand, offer, load));
        best.map(|(offer, _)| offer.name.clone()).ok_or(unfit)
    }

    fn neighbours(&self) -> impl Iterator<Item = Neighbour<'_>> {
        self.placed.values().filter_map(|(node, demand)| {
            let node = self.nodes.get(node)?.offer.as_ref()?;
            Some(Neighbour { demand, node })
        })
    }
}

fn decrease<T: std::hash::Hash + Eq>(counts: &mut HashMap<T, usize>, key: &T) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use seaway_objects::quantity::UNIT;

    fn node(number: usize, cpu: i128) -> Offer {
        Offer {
            name: format!("node-{number}"),
            allocatable: [
                ("cpu".to_owned(), cpu * UNIT),
                ("pods".to_owned(), 1000 * UNIT),
            ]
            .into(),
            ..Offer::default()
        }
    }

    fn demand(group: &str, cpu: i128) -> Arc<Demand> {
        Arc::new(Demand {
            group: group.to_owned(),
            requests: [("cpu".to_owned(), cpu * UNIT), ("pods".to_owned(), UNIT)].into(),
            ..Demand::default()
        })
    }

    #[test]
    fn without_nodes_there_is_nothing_to_choose() {
        let unfit = State::default().decide(&demand("a", 1)).unwrap_err();
        assert_eq!(unfit.to_string(), "no nodes available to schedule pods");
    }

    #[test]
    fn the_message_counts_nodes_by_reason() {
        let mut state = State::default();
        state.offer(node(1, 1));
        state.offer(node(2, 1));
        let mut cordoned = node(3, 9);
        cordoned.taints = vec![k8s_openapi::api::core::v1::Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Default::default()
        }];
        state.offer(cordoned);
        assert_eq!(
            state.decide(&demand("a", 2)).unwrap_err().to_string(),
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
    }

    #[test]
    fn only_what_bears_on_scheduling_is_a_change() {
        let mut state = State::default();
        assert!(state.offer(node(1, 1)));
        assert!(!state.offer(node(1, 1)));
        assert!(state.offer(node(1, 2)));
    }

    proptest! {
        #[test]
        fn replicas_of_one_owner_spread_evenly(nodes in 1usize..9, replicas in 0usize..60, others in 0usize..20) {
            let mut state = State::default();
            for number in 0..nodes {
                state.offer(node(number, 1_000_000));
            }
            for number in 0..others {
                state.place(&format!("other-{number}"), "node-0", demand("other", 1));
            }
            let mut on_node: BTreeMap<String, usize> = (0..nodes).map(|n| (format!("node-{n}"), 0)).collect();
            for number in 0..replicas {
                let chosen = state.decide(&demand("web", 1)).unwrap();
                state.place(&number.to_string(), &chosen, demand("web", 1));
                *on_node.get_mut(&chosen).unwrap() += 1;
            }
            let (least, most) = (on_node.values().min().unwrap(), on_node.values().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", on_node);
        }

        #[test]
        fn nothing_is_promised_twice(
            capacity in prop::collection::vec(0i128..10, 1..5),
            steps in prop::collection::vec((0usize..12, 1i128..5, any::<bool>()), 0..60),
        ) {
            let mut state = State::default();
            for (number, cpu) in capacity.iter().enumerate() {
                state.offer(node(number, *cpu));
            }
            let mut model: HashMap<usize, (String, i128)> = HashMap::new();
            for (pod, cpu, arrives) in steps {
                if arrives && !model.contains_key(&pod) {
                    if let Ok(chosen) = state.decide(&demand("web", cpu)) {
                        state.place(&pod.to_string(), &chosen, demand("web", cpu));
                        model.insert(pod, (chosen, cpu));
                    }
                } else {
                    prop_assert_eq!(state.remove(&pod.to_string()), model.remove(&pod).is_some());
                }
                for (number, cpu) in capacity.iter().enumerate() {
                    let name = format!("node-{number}");
                    let used: i128 = model.values().filter(|(node, _)| *node == name).map(|(_, cpu)| cpu).sum();
                    prop_assert!(used <= *cpu);
                    prop_assert_eq!(state.nodes[&name].load.used.get("cpu").copied().unwrap_or(0), used * UNIT);
                }
            }
        }
    }
}
