//! What a Pod uses.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{Amounts, amounts, is_extended_for_quota};
use crate::quantity::Amount;
use crate::resources::{REQUESTS, is_extended};

const RESOURCES: [&str; 10] = [
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// A quota of one of these wants every container to say how much it needs: a mistake of old that is kept.
const WANTED: [&str; 6] = [
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

fn is_huge_pages(resource: &str) -> bool {
    resource.starts_with("hugepages-")
}

pub(super) fn uses(resource: &str) -> bool {
    RESOURCES.contains(&resource)
        || is_huge_pages(resource)
        || resource.strip_prefix(REQUESTS).is_some_and(is_huge_pages)
        || is_extended_for_quota(resource)
}

/// Adds what the Pod uses, unless it is over; when that will be, if it is on its way out (seconds since 1970).
pub(super) fn add_usage(pod: &Value, usage: &mut Amounts) -> Option<i64> {
    if matches!(
        pod["status"]["phase"].as_str(),
        Some("Failed" | "Succeeded")
    ) {
        return None;
    }
    usage.extend(compute(&total(pod, "requests"), &total(pod, "limits")));
    let metadata = &pod["metadata"];
    let deleted: Time = serde_json::from_value(metadata["deletionTimestamp"].clone()).ok()?;
    let grace = metadata["deletionGracePeriodSeconds"].as_i64()?;
    Some(deleted.0.as_second().saturating_add(grace))
}

/// Requests and limits under the names that quotas have for them.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::new();
    usage.insert("pods".to_owned(), Amount::whole(1));
    for (name, amount) in requests {
        let compute = COMPUTE.contains(&name.as_str()) || is_huge_pages(name);
        if compute {
            usage.insert(name.clone(), *amount);
        }
        if compute || is_extended(name) {
            usage.insert(format!("{REQUESTS}{name}"), *amount);
        }
    }
    for (name, amount) in limits
        .iter()
        .filter(|(name, _)| COMPUTE.contains(&name.as_str()))
    {
        usage.insert(format!("limits.{name}"), *amount);
    }
    usage
}

fn containers<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    pod["spec"][list].as_array().into_iter().flatten()
}

/// What all containers of a Pod need together: those that run at the same time are added, of those that run before
/// them the largest counts. `of` is `requests` or `limits`.
/// Source: `AggregateContainerRequests` in `k8s.io/component-helpers/resource`.
pub fn total(pod: &Value, of: &str) -> Amounts {
    let list = |container: &Value| amounts(&container["resources"][of]);
    let mut sum = Amounts::new();
    for container in containers(pod, "containers") {
        add(&mut sum, &list(container));
    }
    let (mut beside, mut before) = (Amounts::new(), Amounts::new());
    for container in containers(pod, "initContainers") {
        let mut own = list(container);
        if container["restartPolicy"] == "Always" {
            add(&mut sum, &own);
            add(&mut beside, &own);
            own = beside.clone();
        } else {
            add(&mut own, &beside);
        }
        raise(&mut before, &own);
    }
    raise(&mut sum, &before);
    sum.extend(amounts(&pod["spec"]["resources"][of]));
    for (name, amount) in amounts(&pod["spec"]["overhead"]) {
        match sum.get_mut(&name) {
            Some(sum) => *sum = *sum + amount,
            None if of == "requests" => {
                sum.insert(name, amount);
            }
            None => {}
        }
    }
    sum
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = *entry + *amount;
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = most.entry(name.clone()).or_insert(*amount);
        if *amount > *entry {
            *entry = *amount;
        }
    }
}

/// What containers of the Pod must say and do not: `limits.cpu for: a,b; memory for: a`. `limited` is what the quota
/// limits.
pub fn missing<'a>(pod: &Value, limited: impl Iterator<Item = &'a String>) -> Option<String> {
    let wanted: Vec<&str> = limited
        .map(String::as_str)
        .filter(|name| WANTED.contains(name))
        .collect();
    let of_pod = &pod["spec"]["resources"];
    let said = compute(&amounts(&of_pod["requests"]), &amounts(&of_pod["limits"]));
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in containers(pod, "containers").chain(containers(pod, "initContainers")) {
        let resources = &container["resources"];
        let own = compute(
            &amounts(&resources["requests"]),
            &amounts(&resources["limits"]),
        );
        for name in &wanted {
            if !own.contains_key(*name) && !said.contains_key(*name) {
                let of = container["name"].as_str().unwrap_or_default();
                missing.entry(name).or_default().insert(of);
            }
        }
    }
    let parts: Vec<String> = missing
        .into_iter()
        .map(|(name, of)| {
            format!(
                "{name} for: {}",
                of.into_iter().collect::<Vec<_>>().join(",")
            )
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}
