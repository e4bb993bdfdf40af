//! What a Pod asks of a node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Container, Pod, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::object;
use seaway_objects::quantity::{self, UNIT};

/// Amounts by resource name, in the parts of [`UNIT`].
pub(crate) type Amounts = BTreeMap<String, i128>;

/// A port of the node that a Pod takes for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostPort {
    /// Address of the node; empty for all of them.
    pub(crate) address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub(crate) protocol: String,
    /// Port number.
    pub(crate) port: i32,
}

impl HostPort {
    /// Whether two Pods cannot have both.
    pub(crate) fn conflicts_with(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address
                || self.address.is_empty()
                || other.address.is_empty())
    }
}

/// Everything about a Pod that bears on where it can run, and on where others can beside it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Demand {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Requested amounts; one of `pods` is always among them.
    pub(crate) requests: Amounts,
    /// Ports of the node.
    pub(crate) host_ports: Vec<HostPort>,
    /// Labels that the node must have.
    pub(crate) node_selector: BTreeMap<String, String>,
    /// Affinities to nodes and to other Pods.
    pub(crate) affinity: Affinity,
    /// Taints that it bears.
    pub(crate) tolerations: Vec<Toleration>,
    /// How it is to be spread over domains.
    pub(crate) spread: Vec<TopologySpreadConstraint>,
    /// Pods of the same group spread over the nodes: those of one controller, or of the same labels.
    pub(crate) group: String,
}

impl Demand {
    /// Reads a Pod. The error names an amount that is not one.
    pub(crate) fn of(pod: &Pod) -> Result<Self, String> {
        let Some(spec) = &pod.spec else {
            return Err("spec is missing".to_owned());
        };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let labels = object::labels_of(&pod.metadata).clone();
        let group = match object::controller_of(&pod.metadata) {
            Some(controller) => controller.uid.clone(),
            None => format!("{namespace}/{labels:?}"),
        };
        let mut requests = requests(pod)?;
        requests.insert("pods".to_owned(), UNIT);
        Ok(Self {
            group,
            requests,
            host_ports: host_ports(pod),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            affinity: spec.affinity.clone().unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            spread: spec.topology_spread_constraints.clone().unwrap_or_default(),
            namespace,
            labels,
        })
    }
}

/// The sum over the containers, or what the greediest init container needs if that is more; sidecars count with both.
/// Source: KEP-753, "resources calculation for scheduling".
fn requests(pod: &Pod) -> Result<Amounts, String> {
    let mut sum = Amounts::new();
    let mut peak = Amounts::new();
    let mut sidecars = Amounts::new();
    let Some(spec) = &pod.spec else {
        return Ok(sum);
    };
    for container in &spec.containers {
        add(&mut sum, &of_container(container)?);
    }
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container)?;
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut together = sidecars.clone();
            add(&mut together, &own);
            raise(&mut peak, &together);
        }
    }
    add(&mut sum, &sidecars);
    raise(&mut sum, &peak);
    // What is said for the Pod as a whole overrides what its containers say.
    if let Some(whole) = &spec.resources {
        sum.extend(of_resources(whole)?);
    }
    add(&mut sum, &amounts(spec.overhead.as_ref())?);
    Ok(sum)
}

fn of_container(container: &Container) -> Result<Amounts, String> {
    container
        .resources
        .as_ref()
        .map_or_else(|| Ok(Amounts::new()), of_resources)
}

/// A limit without a request is also the request.
fn of_resources(resources: &ResourceRequirements) -> Result<Amounts, String> {
    let mut all = amounts(resources.limits.as_ref())?;
    all.extend(amounts(resources.requests.as_ref())?);
    Ok(all)
}

/// Reads a resource list.
pub(crate) fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> Result<Amounts, String> {
    let read = |(name, amount): (&String, &Quantity)| match quantity::parse(&amount.0) {
        Some(nanos) => Ok((name.clone(), nanos)),
        None => Err(format!("{name}: {:?} is not an amount", amount.0)),
    };
    list.into_iter().flatten().map(read).collect()
}

/// Adds up.
pub(crate) fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = to.entry(name.clone()).or_insert(0);
        *entry = entry.saturating_add(*amount);
    }
}

fn raise(to: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let entry = to.entry(name.clone()).or_insert(0);
        *entry = (*entry).max(*amount);
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let host_network = spec.host_network.unwrap_or_default();
    let taken = ports.filter_map(|port| {
        // On the host's network every declared port is a port of the node.
        let number = port
            .host_port
            .or(host_network.then_some(port.container_port))
            .filter(|number| *number > 0)?;
        Some(HostPort {
            address: port
                .host_ip
                .clone()
                .filter(|ip| ip != "0.0.0.0" && ip != "::")
                .unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: number,
        })
    });
    taken.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn demand(spec: serde_json::Value) -> Result<Demand, String> {
        Demand::of(
            &serde_json::from_value(
                json!({ "metadata": { "namespace": "default" }, "spec": spec }),
            )
            .unwrap(),
        )
    }

    #[test]
    fn init_containers_run_before_and_sidecars_beside() {
        let cpu = |amount: &str| json!({ "requests": { "cpu": amount } });
        let demand = demand(json!({
            "containers": [{ "name": "a", "resources": cpu("100m") }, { "name": "b", "resources": cpu("200m") }],
            "initContainers": [
                { "name": "side", "restartPolicy": "Always", "resources": cpu("50m") },
                { "name": "once", "resources": cpu("400m") },
            ],
        }))
        .unwrap();
        assert_eq!(demand.requests["cpu"], UNIT * 45 / 100);
        assert_eq!(demand.requests["pods"], UNIT);
    }

    #[test]
    fn a_limit_alone_is_a_request() {
        let demand =
            demand(json!({ "containers": [{ "name": "a", "resources": { "limits": { "memory": "1Ki" } } }] })).unwrap();
        assert_eq!(demand.requests["memory"], 1024 * UNIT);
    }

    #[test]
    fn an_amount_that_is_none_is_an_error() {
        let bad = json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": "lots" } } }] });
        assert!(demand(bad).unwrap_err().contains("lots"));
    }

    #[test]
    fn host_ports_conflict_across_addresses() {
        let port = |address: &str, protocol: &str| HostPort {
            address: address.into(),
            protocol: protocol.into(),
            port: 80,
        };
        assert!(port("", "TCP").conflicts_with(&port("10.0.0.1", "TCP")));
        assert!(!port("10.0.0.2", "TCP").conflicts_with(&port("10.0.0.1", "TCP")));
        assert!(!port("", "UDP").conflicts_with(&port("", "TCP")));
    }
}
