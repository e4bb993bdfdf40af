//! Which routes a node has for the Pods of all nodes, and which addresses are nodes': pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::model::{NodeNetwork, PodCidr};

/// Where packets for a range of Pods go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// To the node that has the range.
    Node(Ipv4Addr),
    /// Nowhere. For the node's own range: its Pods have routes of their own, and what is for none of them must not
    /// leave the node by its default route.
    Nowhere,
}

/// All that follows from the Node objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The range of the own node, once it is assigned.
    pub own_range: Option<Ipv4Net>,
    /// The routes to have.
    pub routes: BTreeMap<Ipv4Net, Target>,
    /// The addresses of all nodes: what Pods send there is not masqueraded.
    pub node_addresses: BTreeSet<Ipv4Addr>,
    /// What cannot be done, and why.
    pub problems: Vec<String>,
}

/// A step from one set of routes to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Make this route, or lead it elsewhere.
    Set(Ipv4Net, Target),
    /// Take this route away.
    Remove(Ipv4Net, Target),
}

/// Plans the routes of the node `own_name`. Of two nodes whose ranges overlap, the own node has it, then the one
/// whose name comes first, and the other is a problem: a packet cannot go to both.
pub fn plan<'a>(own_name: &str, nodes: impl IntoIterator<Item = &'a NodeNetwork>) -> Plan {
    let mut nodes: Vec<&NodeNetwork> = nodes.into_iter().collect();
    nodes.sort_by_key(|node| (node.name != own_name, &node.name));
    let mut plan = Plan::default();
    let mut holders: Vec<(Ipv4Net, &str)> = Vec::new();
    for node in nodes {
        plan.node_addresses.extend(&node.addresses);
        let range = match &node.pod_cidr {
            PodCidr::Assigned(range) => *range,
            PodCidr::None => continue,
            PodCidr::Unsupported(text) => {
                plan.problems.push(format!(
                    "node {}: its Pod range {text} is IPv6, which is not supported yet",
                    node.name
                ));
                continue;
            }
        };
        if let Some((other, holder)) = holders.iter().find(|(other, _)| overlap(*other, range)) {
            plan.problems.push(format!(
                "node {}: its Pod range {range} overlaps {other} of node {holder}; its Pods cannot be reached",
                node.name
            ));
            continue;
        }
        let target = if node.name == own_name {
            plan.own_range = Some(range);
            Target::Nowhere
        } else if let Some(address) = node.addresses.first() {
            Target::Node(*address)
        } else {
            // Its agent will report an address when it starts; until then there are no Pods on it either.
            continue;
        };
        holders.push((range, &node.name));
        plan.routes.insert(range, target);
    }
    plan
}

/// The steps from the routes that are there to those to have: removals first, so that nothing is in the way.
pub fn diff(there: &BTreeMap<Ipv4Net, Target>, wanted: &BTreeMap<Ipv4Net, Target>) -> Vec<Change> {
    let removed = there
        .iter()
        .filter(|(range, _)| !wanted.contains_key(range));
    let set = wanted
        .iter()
        .filter(|(range, target)| there.get(range) != Some(target));
    removed
        .map(|(range, target)| Change::Remove(*range, *target))
        .chain(set.map(|(range, target)| Change::Set(*range, *target)))
        .collect()
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str, address: &str, range: &str) -> NodeNetwork {
        NodeNetwork {
            name: name.to_owned(),
            addresses: address.parse().into_iter().collect(),
            pod_cidr: range.parse().map_or(PodCidr::None, PodCidr::Assigned),
        }
    }

    fn shown(plan: &Plan) -> Vec<String> {
        plan.routes
            .iter()
            .map(|(range, target)| format!("{range} {target:?}"))
            .collect()
    }

    #[test]
    fn the_others_are_routed_to_and_the_own_range_ends_here() {
        let nodes = [
            node("node-1", "10.87.0.2", "10.244.0.0/24"),
            node("node-2", "10.87.0.3", "10.244.1.0/24"),
            node("node-3", "10.87.0.4", "10.244.2.0/24"),
        ];
        let plan = plan("node-2", &nodes);
        assert_eq!(
            shown(&plan),
            [
                "10.244.0.0/24 Node(10.87.0.2)",
                "10.244.1.0/24 Nowhere",
                "10.244.2.0/24 Node(10.87.0.4)"
            ]
        );
        assert_eq!(plan.own_range, Some("10.244.1.0/24".parse().unwrap()));
        assert_eq!(plan.node_addresses.len(), 3);
        assert_eq!(plan.problems, [""; 0]);
    }

    #[test]
    fn a_node_without_range_or_address_is_left_out_until_it_has_them() {
        let nodes = [node("a", "10.87.0.2", ""), node("b", "", "10.244.1.0/24")];
        let plan = plan("own", &nodes);
        assert_eq!(shown(&plan), [""; 0]);
        assert_eq!(plan.problems, [""; 0]);
    }

    #[test]
    fn of_overlapping_ranges_the_own_one_counts_and_the_other_is_a_problem() {
        let nodes = [
            node("a", "10.87.0.2", "10.244.0.0/16"),
            node("own", "10.87.0.3", "10.244.1.0/24"),
        ];
        let plan = plan("own", &nodes);
        assert_eq!(shown(&plan), ["10.244.1.0/24 Nowhere"]);
        assert_eq!(
            plan.problems,
            [
                "node a: its Pod range 10.244.0.0/16 overlaps 10.244.1.0/24 of node own; its Pods cannot be reached"
            ]
        );
    }

    /// Any routes: four ranges, each with one of three targets or none.
    fn routes() -> impl Strategy<Value = BTreeMap<Ipv4Net, Target>> {
        let target = prop_oneof![
            Just(Target::Nowhere),
            Just(Target::Node(Ipv4Addr::new(10, 87, 0, 2))),
            Just(Target::Node(Ipv4Addr::new(10, 87, 0, 3))),
        ];
        proptest::collection::btree_map(
            (0u8..4).prop_map(|n| format!("10.244.{n}.0/24").parse().unwrap()),
            target,
            0..4,
        )
    }

    proptest! {
        #[test]
        fn the_steps_lead_from_any_state_to_the_wanted_one_and_none_is_idle(there in routes(), wanted in routes()) {
            let mut state = there.clone();
            for change in diff(&there, &wanted) {
                match change {
                    Change::Set(range, target) => prop_assert_ne!(state.insert(range, target), Some(target)),
                    Change::Remove(range, target) => prop_assert_eq!(state.remove(&range), Some(target)),
                }
            }
            prop_assert_eq!(&state, &wanted);
            prop_assert_eq!(diff(&state, &wanted), []);
        }
    }
}
