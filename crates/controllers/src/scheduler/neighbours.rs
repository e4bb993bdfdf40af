//! Rules about which Pods may be near which: required (anti-)affinity between Pods, and topology spread that must
//! hold. A domain is all nodes with the same value of a label.
//!
//! Source: API reference, `PodAffinityTerm` and `TopologySpreadConstraint`.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::PodAffinityTerm;

use super::demand::Demand;
use super::node::Offer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use seaway_objects::selector::LabelSelector;

/// A Pod that has its node, and that node's labels.
pub(crate) struct Neighbour<'a> {
    /// The Pod.
    pub(crate) demand: &'a Demand,
    /// Its node.
    pub(crate) node: &'a Offer,
}

/// The rules that one Pod brings, and those of its future neighbours that touch it, made ready for asking node by node.
pub(crate) struct Rules {
    /// Label and value of domains that are closed to it.
    closed: Vec<(String, String)>,
    /// Domains of which it must be in one, for each of its affinities.
    required: Vec<Vec<(String, String)>>,
    /// How many it would be in each domain, for each of its spread constraints.
    spread: Vec<Spread>,
    /// A rule that cannot be understood or is not supported; then no node will do.
    unclear: Option<String>,
}

struct Spread {
    topology_key: String,
    max_skew: usize,
    counts: HashMap<String, usize>,
    least: usize,
    counts_itself: bool,
}

/// Whether working out [`Rules`] is worth while: most Pods neither bring rules nor meet any.
pub(crate) fn has_rules(demand: &Demand) -> bool {
    !anti_affinity(demand).is_empty()
        || !affinity(demand).is_empty()
        || demand
            .spread
            .iter()
            .any(|one| one.when_unsatisfiable == "DoNotSchedule")
}

/// The affinities that must hold.
fn affinity(demand: &Demand) -> &[PodAffinityTerm] {
    let own = demand.affinity.pod_affinity.as_ref();
    own.and_then(|one| {
        one.required_during_scheduling_ignored_during_execution
            .as_deref()
    })
    .unwrap_or_default()
}

/// The anti-affinities that must hold.
fn anti_affinity(demand: &Demand) -> &[PodAffinityTerm] {
    let own = demand.affinity.pod_anti_affinity.as_ref();
    own.and_then(|one| {
        one.required_during_scheduling_ignored_during_execution
            .as_deref()
    })
    .unwrap_or_default()
}

impl Rules {
    /// Gathers what concerns `demand`. `nodes` are those that could take the Pod as far as its node rules go.
    pub(crate) fn gather(demand: &Demand, neighbours: &[Neighbour<'_>], nodes: &[&Offer]) -> Self {
        let mut rules = Self {
            closed: Vec::new(),
            required: Vec::new(),
            spread: Vec::new(),
            unclear: None,
        };
        if let Err(problem) = rules.add_all(demand, neighbours, nodes) {
            rules.unclear = Some(problem);
        }
        rules
    }

    fn add_all(
        &mut self,
        demand: &Demand,
        neighbours: &[Neighbour<'_>],
        nodes: &[&Offer],
    ) -> Result<(), String> {
        for term in anti_affinity(demand) {
            let reach = Reach::of(term, demand)?;
            self.closed.extend(domains(&reach, neighbours));
        }
        for neighbour in neighbours {
            for term in anti_affinity(neighbour.demand) {
                let reach = Reach::of(term, neighbour.demand)?;
                if reach.meets(demand) {
                    self.closed
                        .extend(domain(&term.topology_key, neighbour.node));
                }
            }
        }
        for term in affinity(demand) {
            let reach = Reach::of(term, demand)?;
            let mut found: Vec<_> = domains(&reach, neighbours).collect();
            if found.is_empty() && reach.meets(demand) {
                // The first of a group that wants to be together has nobody to join.
                found.extend(
                    nodes
                        .iter()
                        .filter_map(|node| domain(&term.topology_key, node)),
                );
            }
            self.required.push(found);
        }
        for constraint in demand
            .spread
            .iter()
            .filter(|one| one.when_unsatisfiable == "DoNotSchedule")
        {
            let selector = match &constraint.label_selector {
                Some(selector) => parse(selector)?,
                None => continue,
            };
            let mut counts: HashMap<String, usize> = HashMap::new();
            for (_, value) in nodes
                .iter()
                .filter_map(|node| domain(&constraint.topology_key, node))
            {
                counts.entry(value).or_default();
            }
            let same = neighbours.iter().filter(|one| {
                one.demand.namespace == demand.namespace && selector.matches(&one.demand.labels)
            });
            for (_, value) in same.filter_map(|one| domain(&constraint.topology_key, one.node)) {
                if let Some(count) = counts.get_mut(&value) {
                    *count += 1;
                }
            }
            let wanted_domains = constraint
                .min_domains
                .and_then(|number| usize::try_from(number).ok())
                .unwrap_or(1);
            let least = if counts.len() < wanted_domains {
                0
            } else {
                counts.values().copied().min().unwrap_or(0)
            };
            self.spread.push(Spread {
                topology_key: constraint.topology_key.clone(),
                max_skew: usize::try_from(constraint.max_skew).unwrap_or(1),
                counts,
                least,
                counts_itself: selector.matches(&demand.labels),
            });
        }
        Ok(())
    }

    /// Why the Pod may not be on this node, if it may not.
    pub(crate) fn objection(&self, node: &Offer) -> Option<String> {
        if let Some(problem) = &self.unclear {
            return Some(format!(
                "node(s) cannot be judged by the Pod's rules ({problem})"
            ));
        }
        let is_in = |(key, value): &(String, String)| node.labels.get(key) == Some(value);
        if self.closed.iter().any(is_in) {
            return Some("node(s) didn't match pod anti-affinity rules".to_owned());
        }
        if !self
            .required
            .iter()
            .all(|domains| domains.iter().any(is_in))
        {
            return Some("node(s) didn't match pod affinity rules".to_owned());
        }
        let skewed = self.spread.iter().any(|spread| {
            let Some(value) = node.labels.get(&spread.topology_key) else {
                return true;
            };
            let here =
                spread.counts.get(value).copied().unwrap_or(0) + usize::from(spread.counts_itself);
            here.saturating_sub(spread.least) > spread.max_skew
        });
        skewed.then(|| "node(s) didn't match pod topology spread constraints".to_owned())
    }
}

/// Which Pods a term speaks of.
struct Reach<'a> {
    selector: Option<LabelSelector>,
    namespaces: Namespaces<'a>,
    topology_key: &'a str,
}

enum Namespaces<'a> {
    All,
    Own(&'a str),
    Listed(&'a [String]),
}

impl<'a> Reach<'a> {
    fn of(term: &'a PodAffinityTerm, owner: &'a Demand) -> Result<Self, String> {
        if term
            .match_label_keys
            .as_ref()
            .is_some_and(|keys| !keys.is_empty())
            || term
                .mismatch_label_keys
                .as_ref()
                .is_some_and(|keys| !keys.is_empty())
        {
            return Err("matchLabelKeys is not supported".to_owned());
        }
        let listed = term.namespaces.as_deref().unwrap_or_default();
        let namespaces = match &term.namespace_selector {
            Some(selector) if parse(selector)?.is_everything() => Namespaces::All,
            Some(_) => {
                return Err("namespaceSelector with requirements is not supported".to_owned());
            }
            None if listed.is_empty() => Namespaces::Own(&owner.namespace),
            None => Namespaces::Listed(listed),
        };
        // Without a selector a term speaks of no Pod.
        let selector = term.label_selector.as_ref().map(parse).transpose()?;
        Ok(Self {
            selector,
            namespaces,
            topology_key: &term.topology_key,
        })
    }

    fn meets(&self, pod: &Demand) -> bool {
        let in_namespace = match self.namespaces {
            Namespaces::All => true,
            Namespaces::Own(namespace) => pod.namespace == namespace,
            Namespaces::Listed(list) => list.contains(&pod.namespace),
        };
        in_namespace
            && self
                .selector
                .as_ref()
                .is_some_and(|selector| selector.matches(&pod.labels))
    }
}

fn parse(selector: &meta::LabelSelector) -> Result<LabelSelector, String> {
    LabelSelector::from_object(Some(selector)).map_err(|error| error.to_string())
}

/// The domains in which the Pods spoken of are.
fn domains<'a>(
    reach: &'a Reach<'_>,
    neighbours: &'a [Neighbour<'_>],
) -> impl Iterator<Item = (String, String)> + 'a {
    let met = neighbours
        .iter()
        .filter(|neighbour| reach.meets(neighbour.demand));
    met.filter_map(|neighbour| domain(reach.topology_key, neighbour.node))
}

fn domain(key: &str, node: &Offer) -> Option<(String, String)> {
    let labels: &BTreeMap<String, String> = &node.labels;
    labels.get(key).map(|value| (key.to_owned(), value.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, zone: &str) -> Offer {
        Offer {
            name: name.into(),
            labels: [
                ("host".to_owned(), name.to_owned()),
                ("zone".to_owned(), zone.to_owned()),
            ]
            .into(),
            ..Offer::default()
        }
    }

    fn pod(app: &str, affinity: serde_json::Value, spread: serde_json::Value) -> Demand {
        Demand {
            namespace: "default".into(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            affinity: serde_json::from_value(affinity).unwrap(),
            spread: serde_json::from_value(spread).unwrap(),
            ..Demand::default()
        }
    }

    fn term(kind: &str, app: &str, key: &str) -> serde_json::Value {
        json!({ kind: { "requiredDuringSchedulingIgnoredDuringExecution": [
            { "labelSelector": { "matchLabels": { "app": app } }, "topologyKey": key },
        ]}})
    }

    fn allowed(demand: &Demand, placed: &[(&Demand, &Offer)], nodes: &[Offer]) -> Vec<String> {
        let neighbours: Vec<_> = placed
            .iter()
            .map(|(demand, node)| Neighbour { demand, node })
            .collect();
        let all: Vec<&Offer> = nodes.iter().collect();
        let rules = Rules::gather(demand, &neighbours, &all);
        nodes
            .iter()
            .filter(|node| rules.objection(node).is_none())
            .map(|node| node.name.clone())
            .collect()
    }

    #[test]
    fn anti_affinity_closes_domains_in_both_directions() {
        let nodes = [node("n1", "a"), node("n2", "a"), node("n3", "b")];
        let shy = pod("web", term("podAntiAffinity", "web", "zone"), json!([]));
        let plain = pod("web", json!({}), json!([]));
        assert_eq!(allowed(&shy, &[(&plain, &nodes[0])], &nodes), ["n3"]);
        assert_eq!(allowed(&plain, &[(&shy, &nodes[0])], &nodes), ["n3"]);
        assert_eq!(allowed(&plain, &[(&plain, &nodes[0])], &nodes).len(), 3);
    }

    #[test]
    fn affinity_joins_and_the_first_may_go_anywhere() {
        let nodes = [node("n1", "a"), node("n2", "a"), node("n3", "b")];
        let social = pod("web", term("podAffinity", "web", "zone"), json!([]));
        assert_eq!(allowed(&social, &[], &nodes).len(), 3);
        assert_eq!(allowed(&social, &[(&social, &nodes[2])], &nodes), ["n3"]);
        let follower = pod("cache", term("podAffinity", "web", "zone"), json!([]));
        assert!(allowed(&follower, &[], &nodes).is_empty());
    }

    #[test]
    fn spread_keeps_the_skew() {
        let nodes = [node("n1", "a"), node("n2", "a"), node("n3", "b")];
        let constraint = json!([{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": { "matchLabels": { "app": "web" } } }]);
        let web = pod("web", json!({}), constraint);
        assert_eq!(allowed(&web, &[(&web, &nodes[0])], &nodes), ["n3"]);
        assert_eq!(
            allowed(&web, &[(&web, &nodes[0]), (&web, &nodes[2])], &nodes).len(),
            3
        );
    }

    #[test]
    fn a_rule_that_is_not_understood_allows_nothing() {
        let nodes = [node("n1", "a")];
        let mut odd = term("podAntiAffinity", "web", "zone");
        odd["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["namespaceSelector"] =
            json!({ "matchLabels": { "team": "a" } });
        assert!(allowed(&pod("web", odd, json!([])), &[], &nodes).is_empty());
    }
}
