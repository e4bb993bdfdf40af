//! Can this Pod run on this node at all? If not, the reason in Kubernetes' words.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint};

use super::demand::Demand;
use super::node::Offer;
use super::state::Load;
use crate::taint::{self, NO_EXECUTE, NO_SCHEDULE, UNSCHEDULABLE};

/// Every reason why the node is out of the question; none when the Pod can run there.
pub(crate) fn reasons(demand: &Demand, offer: &Offer, load: &Load) -> Vec<String> {
    if let Some(taint) = untolerated(demand, offer) {
        return vec![if taint.key == UNSCHEDULABLE {
            "node(s) were unschedulable".to_owned()
        } else {
            format!(
                "node(s) had untolerated taint {{{}: {}}}",
                taint.key,
                taint.value.as_deref().unwrap_or_default()
            )
        }];
    }
    if !matches_node(demand, offer) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    if demand.host_ports.iter().any(|port| {
        load.host_ports
            .keys()
            .any(|taken| port.conflicts_with(taken))
    }) {
        return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
    }
    insufficient(demand, offer, load)
}

fn untolerated<'a>(demand: &Demand, offer: &'a Offer) -> Option<&'a Taint> {
    offer.taints.iter().find(|taint| {
        matches!(taint.effect.as_str(), NO_SCHEDULE | NO_EXECUTE)
            && !demand
                .tolerations
                .iter()
                .any(|toleration| taint::tolerates(toleration, taint))
    })
}

/// Whether the Pod's node selector and required node affinity allow the node.
pub(crate) fn matches_node(demand: &Demand, offer: &Offer) -> bool {
    if !demand
        .node_selector
        .iter()
        .all(|(key, value)| offer.labels.get(key) == Some(value))
    {
        return false;
    }
    let affinity = demand.affinity.node_affinity.as_ref();
    match affinity.and_then(|affinity| {
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    }) {
        Some(required) => required
            .node_selector_terms
            .iter()
            .any(|term| matches_term(term, offer)),
        None => true,
    }
}

/// A term is the conjunction of its requirements; one without any matches nothing. Source: API reference,
/// `NodeSelectorTerm`.
pub(crate) fn matches_term(term: &NodeSelectorTerm, offer: &Offer) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let of_fields = BTreeMap::from([("metadata.name".to_owned(), offer.name.clone())]);
    expressions
        .iter()
        .all(|requirement| meets(requirement, &offer.labels))
        && fields
            .iter()
            .all(|requirement| meets(requirement, &of_fields))
}

fn meets(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let present = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let compare = |holds: fn(i64, i64) -> bool| {
        let numbers = present
            .and_then(|text| text.parse().ok())
            .zip(values.first().and_then(|text| text.parse().ok()));
        numbers.is_some_and(|(present, bound)| holds(present, bound))
    };
    match requirement.operator.as_str() {
        "In" => present.is_some_and(|value| values.contains(value)),
        "NotIn" => present.is_none_or(|value| !values.contains(value)),
        "Exists" => present.is_some(),
        "DoesNotExist" => present.is_none(),
        "Gt" => compare(|present, bound| present > bound),
        "Lt" => compare(|present, bound| present < bound),
        // An operator that is not known allows nothing.
        _ => false,
    }
}

fn insufficient(demand: &Demand, offer: &Offer, load: &Load) -> Vec<String> {
    let lacking = demand.requests.iter().filter(|(name, amount)| {
        let Some(most) = offer.allocatable.get(*name) else {
            // A node that does not count its Pods takes any number; of all else it has none.
            return name.as_str() != "pods" && **amount > 0;
        };
        **amount > 0
            && load
                .used
                .get(*name)
                .copied()
                .unwrap_or(0)
                .saturating_add(**amount)
                > *most
    });
    let say = |name: &String| {
        if name == "pods" {
            "Too many pods".to_owned()
        } else {
            format!("Insufficient {name}")
        }
    };
    lacking.map(|(name, _)| say(name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scheduler::demand::HostPort;
    use seaway_objects::quantity::UNIT;

    fn offer() -> Offer {
        Offer {
            name: "node-1".into(),
            labels: [
                ("zone".to_owned(), "a".to_owned()),
                ("cores".to_owned(), "8".to_owned()),
            ]
            .into(),
            allocatable: [("cpu".to_owned(), 2 * UNIT), ("pods".to_owned(), 10 * UNIT)].into(),
            taints: vec![],
        }
    }

    fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        serde_json::from_value(json!({ "key": key, "operator": operator, "values": values }))
            .unwrap()
    }

    #[test]
    fn each_operator_of_node_affinity() {
        let table = [
            (requirement("zone", "In", &["a", "b"]), true),
            (requirement("zone", "In", &["b"]), false),
            (requirement("zone", "NotIn", &["b"]), true),
            (requirement("rack", "NotIn", &["b"]), true),
            (requirement("zone", "Exists", &[]), true),
            (requirement("rack", "Exists", &[]), false),
            (requirement("rack", "DoesNotExist", &[]), true),
            (requirement("cores", "Gt", &["4"]), true),
            (requirement("cores", "Lt", &["4"]), false),
            (requirement("zone", "Gt", &["4"]), false),
            (requirement("zone", "Near", &["a"]), false),
        ];
        for (requirement, expected) in table {
            assert_eq!(
                meets(&requirement, &offer().labels),
                expected,
                "{requirement:?}"
            );
        }
        assert!(
            !matches_term(&NodeSelectorTerm::default(), &offer()),
            "an empty term matches nothing"
        );
    }

    #[test]
    fn what_does_not_fit_says_what_is_lacking() {
        let mut load = Load::default();
        load.used.insert("cpu".into(), UNIT);
        let mut demand = Demand::default();
        demand.requests.insert("cpu".into(), UNIT);
        assert!(reasons(&demand, &offer(), &load).is_empty());
        demand.requests.insert("cpu".into(), UNIT + 1);
        demand.requests.insert("memory".into(), 1);
        assert_eq!(
            reasons(&demand, &offer(), &load),
            ["Insufficient cpu", "Insufficient memory"]
        );
    }

    #[test]
    fn a_port_of_the_node_is_given_once() {
        let port = HostPort {
            address: String::new(),
            protocol: "TCP".into(),
            port: 80,
        };
        let demand = Demand {
            host_ports: vec![port.clone()],
            ..Demand::default()
        };
        let mut load = Load::default();
        assert!(reasons(&demand, &offer(), &load).is_empty());
        load.host_ports.insert(port, 1);
        assert_eq!(reasons(&demand, &offer(), &load).len(), 1);
    }
}
