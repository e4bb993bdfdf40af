//! What objects use of a namespace's quotas. Pure: the API server asks it before it stores an object, the controllers
//! when they count what is there.
//!
//! Source: `pkg/quota/v1/evaluator/core` in Kubernetes, `k8s.io/apiserver/pkg/quota/v1`.

mod pod;
mod scope;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Amount;
use crate::resources::{COUNT, REQUESTS, is_native};

use scope::{Scope, Traits};

pub use pod::{missing, total};

/// Amounts by the name of what they are amounts of.
pub type Amounts = BTreeMap<String, Amount>;

/// Kinds of the core group whose objects are also counted under their plural alone.
const COUNTED_BY_NAME: [&str; 5] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
];

/// A kind of objects as quotas name it: its group (empty for the core group) and plural.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted<'a> {
    /// Group, empty for the core group.
    pub group: &'a str,
    /// Plural.
    pub plural: &'a str,
}

impl Counted<'_> {
    /// The name under which a quota counts its objects: `count/deployments.apps`.
    pub fn name(&self) -> String {
        if self.group.is_empty() {
            format!("{COUNT}{}", self.plural)
        } else {
            format!("{COUNT}{}.{}", self.plural, self.group)
        }
    }

    /// Whether no quota ever counts its objects. Source: `DefaultIgnoredResources`.
    pub fn is_ignored(&self) -> bool {
        self.plural == "events"
    }

    fn is_core(&self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }

    /// Whether its objects can use the resource.
    pub fn uses(&self, resource: &str) -> bool {
        if self.is_ignored() {
            return false;
        }
        if resource == self.name() {
            return true;
        }
        if self.is_core("pods") {
            return pod::uses(resource);
        }
        if self.is_core("services") {
            return matches!(
                resource,
                "services" | "services.nodeports" | "services.loadbalancers"
            );
        }
        self.group.is_empty() && resource == self.plural && COUNTED_BY_NAME.contains(&resource)
    }

    /// Whether a change of an object may need more than it has.
    pub fn is_charged_on_update(&self) -> bool {
        self.is_core("services")
    }
}

/// What one object uses, and what decides which quotas it counts against.
#[derive(Debug, Clone)]
pub struct Facts {
    usage: Amounts,
    /// For a Pod on its way out: from when on it only counts as an object, in seconds since 1970.
    ends: Option<i64>,
    traits: Option<Traits>,
}

impl Facts {
    /// Reads them off an object of the kind.
    pub fn of(kind: Counted<'_>, object: &Value) -> Self {
        let mut usage = Amounts::new();
        let one = Amount::whole(1);
        usage.insert(kind.name(), one);
        if kind.is_core("pods") {
            let ends = pod::add_usage(object, &mut usage);
            let traits = Some(Traits::of(object));
            return Self {
                usage,
                ends,
                traits,
            };
        }
        if kind.is_core("services") {
            add_service(object, &mut usage);
        } else if kind.uses(kind.plural) {
            usage.insert(kind.plural.to_owned(), one);
        }
        Self {
            usage,
            ends: None,
            traits: None,
        }
    }

    /// What is used at a time (seconds since 1970).
    pub fn usage(&self, now: i64) -> impl Iterator<Item = (&String, Amount)> {
        let ended = self.ends.is_some_and(|ends| now > ends);
        self.usage
            .iter()
            .filter(move |(name, _)| !ended || name.starts_with(COUNT))
            .map(|(name, amount)| (name, *amount))
    }
}

/// Node ports are counted by what is wanted, as they are not given yet.
fn add_service(object: &Value, usage: &mut Amounts) {
    let spec = &object["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let asked = ports
        .iter()
        .filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0)
        .count();
    let (node_ports, balancers) = match spec["type"].as_str() {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == Value::Bool(false) => {
            (asked, 1)
        }
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    let count = |n: usize| Amount::whole(i64::try_from(n).unwrap_or(i64::MAX));
    usage.insert("services".to_owned(), count(1));
    usage.insert("services.nodeports".to_owned(), count(node_ports));
    usage.insert("services.loadbalancers".to_owned(), count(balancers));
}

/// A ResourceQuota.
#[derive(Debug, Clone)]
pub struct Quota {
    /// Its name.
    pub name: String,
    /// What there may be.
    pub hard: Amounts,
    scopes: Vec<Scope>,
}

impl Quota {
    /// Reads the object; amounts that are none do not count, and validation let none through.
    pub fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        Self {
            name: object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            hard: amounts(&spec["hard"]),
            scopes: scope::read(spec),
        }
    }

    /// The resources that the quota limits and objects of the kind can use.
    pub fn limits(&self, kind: Counted<'_>) -> impl Iterator<Item = &String> {
        self.hard.keys().filter(move |name| kind.uses(name))
    }

    /// Whether the object counts: the scopes, all of them, mean it.
    pub fn covers(&self, facts: &Facts) -> bool {
        self.scopes.iter().all(|scope| {
            facts
                .traits
                .as_ref()
                .is_some_and(|traits| scope.means(traits))
        })
    }

    /// What objects of a kind use together of what this quota limits for that kind.
    pub fn used<'a>(
        &self,
        kind: Counted<'_>,
        objects: impl Iterator<Item = &'a Facts>,
        now: i64,
    ) -> Amounts {
        let mut used: Amounts = self
            .limits(kind)
            .map(|name| (name.clone(), Amount::default()))
            .collect();
        for facts in objects.filter(|facts| self.covers(facts)) {
            for (name, amount) in facts.usage(now) {
                if let Some(sum) = used.get_mut(name) {
                    *sum = *sum + amount;
                }
            }
        }
        used
    }
}

/// A resource list as amounts.
pub fn amounts(list: &Value) -> Amounts {
    list.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, text)| Some((name.clone(), Amount::parse(text.as_str()?)?)))
        .collect()
}

/// `pods=1,requests.cpu=500m`
pub fn shown(amounts: &Amounts) -> String {
    let parts: Vec<String> = amounts
        .iter()
        .map(|(name, amount)| format!("{name}={amount}"))
        .collect();
    parts.join(",")
}

/// Whether a quota can limit requests for the resource of a node under this name.
fn is_extended_for_quota(resource: &str) -> bool {
    !is_native(resource) && resource.starts_with(REQUESTS)
}

#[cfg(test)]
mod tests;
