//! From a Service and its Pods to the older Endpoints object.
//!
//! Source of the rules: Kubernetes' `pkg/controller/endpoint` and API reference, `Endpoints`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::member::{self, Member, Port};
use super::packing::TRIGGER_TIME;
use super::service::{Family, HEADLESS_LABEL, Selecting};

/// Label: who writes the object.
pub(crate) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
pub(crate) const MANAGER: &str = "endpoint-controller";
/// Annotation: there are more addresses than the object can have.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses in an object. Source: `maxCapacity`.
const CAPACITY: usize = 1000;

/// What must be done.
#[derive(Debug)]
pub(crate) enum Action {
    /// It is as it should be.
    Keep,
    /// There is none.
    Create(Box<Endpoints>),
    /// It differs.
    Update(Box<Endpoints>),
}

/// Compares the object with what it should be.
pub(crate) fn plan(service: &Selecting, pods: &[Arc<Pod>], present: Option<&Endpoints>) -> Action {
    let (subsets, truncated) = truncated(subsets(service, pods));
    let mut labels = service.labels.clone();
    labels.remove(HEADLESS_LABEL);
    if service.headless {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let Some(present) = present else {
        return Action::Create(Box::new(Endpoints {
            metadata: ObjectMeta {
                name: Some(service.key.name.clone()),
                namespace: Some(service.key.namespace.clone()),
                labels: Some(labels),
                annotations: Some(annotations(
                    BTreeMap::new(),
                    truncated,
                    trigger(service, pods),
                )),
                ..ObjectMeta::default()
            },
            subsets: Some(subsets),
        }));
    };
    let old = present.metadata.annotations.clone().unwrap_or_default();
    let same = present.subsets.as_deref().unwrap_or_default() == subsets
        && present.metadata.labels.as_ref() == Some(&labels)
        && old.contains_key(OVER_CAPACITY) == truncated;
    if same {
        return Action::Keep;
    }
    let mut new = present.clone();
    new.metadata.labels = Some(labels);
    new.metadata.annotations = Some(annotations(old, truncated, trigger(service, pods)));
    new.subsets = Some(subsets);
    Action::Update(Box::new(new))
}

fn trigger(service: &Selecting, pods: &[Arc<Pod>]) -> Option<Timestamp> {
    pods.iter()
        .filter_map(|pod| member::changed_at(pod))
        .chain(service.created)
        .max()
}

fn annotations(
    mut present: BTreeMap<String, String>,
    truncated: bool,
    trigger: Option<Timestamp>,
) -> BTreeMap<String, String> {
    if truncated {
        present.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        present.remove(OVER_CAPACITY);
    }
    match trigger {
        Some(trigger) => present.insert(TRIGGER_TIME.to_owned(), trigger.to_string()),
        None => present.remove(TRIGGER_TIME),
    };
    present
}

#[derive(Default)]
struct Addresses {
    ready: BTreeMap<IpAddr, EndpointAddress>,
    not_ready: BTreeMap<IpAddr, EndpointAddress>,
}

/// One subset for each set of ports; addresses in order, ready and not ready apart. Pods that are being deleted are
/// out, unless the Service counts all.
fn subsets(service: &Selecting, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let family = service.families.first().copied().unwrap_or(Family::V4);
    let mut by_ports: BTreeMap<Vec<Port>, Addresses> = BTreeMap::new();
    for pod in pods {
        let Some(member) = Member::of(service, pod, family) else {
            continue;
        };
        if member.terminating && !service.publish_not_ready {
            continue;
        }
        // Without a port there is nothing to reach, save where the Service names none and only answers by name.
        if member.ports.is_empty() && !(service.headless && service.ports.is_empty()) {
            continue;
        }
        let address = EndpointAddress {
            ip: member.address.to_string(),
            hostname: member.hostname,
            node_name: member.node,
            target_ref: Some(member.target),
        };
        let addresses = by_ports.entry(member.ports).or_default();
        if service.publish_not_ready || member.serving {
            addresses.ready.insert(member.address, address);
        } else {
            addresses.not_ready.insert(member.address, address);
        }
    }
    by_ports
        .into_iter()
        .map(|(ports, addresses)| subset(&ports, addresses))
        .collect()
}

fn subset(ports: &[Port], addresses: Addresses) -> EndpointSubset {
    let some = |addresses: BTreeMap<IpAddr, EndpointAddress>| {
        (!addresses.is_empty()).then(|| addresses.into_values().collect::<Vec<_>>())
    };
    let ports: Vec<EndpointPort> = ports
        .iter()
        .map(|port| EndpointPort {
            name: Some(port.name.clone()).filter(|name| !name.is_empty()),
            port: port.number,
            protocol: Some(port.protocol.clone()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    EndpointSubset {
        addresses: some(addresses.ready),
        not_ready_addresses: some(addresses.not_ready),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

/// Leaves out what is above the capacity: first addresses that are not ready.
fn truncated(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let count = |pick: fn(&EndpointSubset) -> &Option<Vec<EndpointAddress>>,
                 subsets: &[EndpointSubset]|
     -> usize {
        subsets
            .iter()
            .map(|subset| pick(subset).as_ref().map_or(0, Vec::len))
            .sum()
    };
    let ready = count(|subset| &subset.addresses, &subsets);
    if ready + count(|subset| &subset.not_ready_addresses, &subsets) <= CAPACITY {
        return (subsets, false);
    }
    let (mut ready_left, mut not_ready_left) = (CAPACITY, CAPACITY.saturating_sub(ready));
    for subset in &mut subsets {
        cut(&mut subset.addresses, &mut ready_left);
        cut(&mut subset.not_ready_addresses, &mut not_ready_left);
    }
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (subsets, true)
}

fn cut(addresses: &mut Option<Vec<EndpointAddress>>, left: &mut usize) {
    if let Some(all) = addresses {
        all.truncate(*left);
        *left -= all.len();
        if all.is_empty() {
            *addresses = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    fn service(extra: serde_json::Value) -> Selecting {
        let mut object = json!({
            "metadata": { "namespace": "default", "name": "web", "uid": "s" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] },
        });
        for (key, value) in extra.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        Selecting::of(&serde_json::from_value::<Service>(object).unwrap()).unwrap()
    }

    fn pod(number: usize, ready: bool, port: i32) -> Arc<Pod> {
        let object = json!({
            "metadata": { "namespace": "default", "name": format!("p{number}"), "uid": format!("p{number}") },
            "spec": { "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": port }] }] },
            "status": { "podIP": format!("10.0.{}.{}", number / 256, number % 256),
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn made(action: Action) -> Endpoints {
        match action {
            Action::Create(new) | Action::Update(new) => *new,
            Action::Keep => panic!("nothing was made"),
        }
    }

    #[test]
    fn ready_and_not_ready_are_apart_and_ports_make_subsets() {
        let pods = [pod(1, true, 80), pod(2, false, 80), pod(3, true, 8080)];
        let made = made(plan(&service(json!({})), &pods, None));
        let shape: Vec<_> = made
            .subsets
            .unwrap()
            .iter()
            .map(|subset| {
                let ips = |all: &Option<Vec<EndpointAddress>>| -> Vec<String> {
                    all.iter()
                        .flatten()
                        .map(|address| address.ip.clone())
                        .collect()
                };
                (
                    subset.ports.as_ref().unwrap()[0].port,
                    ips(&subset.addresses),
                    ips(&subset.not_ready_addresses),
                )
            })
            .collect();
        assert_eq!(
            shape,
            [
                (80, vec!["10.0.0.1".to_owned()], vec!["10.0.0.2".to_owned()]),
                (8080, vec!["10.0.0.3".to_owned()], vec![]),
            ]
        );
    }

    #[test]
    fn an_object_that_is_right_is_kept() {
        let (service, pods) = (service(json!({})), [pod(1, true, 80)]);
        let present = made(plan(&service, &pods, None));
        assert!(matches!(
            plan(&service, &pods, Some(&present)),
            Action::Keep
        ));
        assert!(matches!(
            plan(&service, &[], Some(&present)),
            Action::Update(_)
        ));
    }

    #[test]
    fn too_many_addresses_are_cut_and_said_to_be() {
        let pods: Vec<_> = (0..1010)
            .map(|number| pod(number, number % 2 == 0 || number > 20, 80))
            .collect();
        let made = made(plan(&service(json!({})), &pods, None));
        let subset = &made.subsets.unwrap()[0];
        let ready = subset.addresses.as_ref().unwrap().len();
        assert_eq!(
            ready + subset.not_ready_addresses.as_ref().map_or(0, Vec::len),
            CAPACITY
        );
        assert_eq!(ready, 1000);
        assert_eq!(
            made.metadata.annotations.unwrap()[OVER_CAPACITY],
            "truncated"
        );
    }

    #[test]
    fn a_headless_service_without_ports_has_addresses_only() {
        let headless = service(json!({ "clusterIP": "None", "ports": [] }));
        let made = made(plan(&headless, &[pod(1, true, 80)], None));
        let subset = &made.subsets.unwrap()[0];
        assert!(subset.ports.is_none());
        assert_eq!(subset.addresses.as_ref().unwrap().len(), 1);
    }
}
