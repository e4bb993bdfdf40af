//! The quality-of-service class of a Pod, which follows from its requests and limits.
//!
//! Source: "Pod Quality of Service Classes" in the Kubernetes documentation.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// `Guaranteed` when every container limits cpu and memory to what it requests, `BestEffort` when none asks for
/// anything, else `Burstable`.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let init = spec.init_containers.iter().flatten();
    let (mut any, mut all) = (false, true);
    for container in spec.containers.iter().chain(init) {
        let (requests, limits) = (list(container, false), list(container, true));
        for resource in ["cpu", "memory"] {
            let limit = amount(limits, resource);
            let request = amount(requests, resource).or(limit);
            any |= request.is_some();
            all &= limit.is_some() && request == limit;
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn list(container: &Container, limits: bool) -> Option<&BTreeMap<String, Quantity>> {
    let resources = container.resources.as_ref()?;
    if limits {
        resources.limits.as_ref()
    } else {
        resources.requests.as_ref()
    }
}

/// What is asked for; zero counts as nothing.
fn amount(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<i128> {
    quantity::parse(&list?.get(resource)?.0).filter(|n| *n != 0)
}
