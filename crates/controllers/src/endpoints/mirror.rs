//! From hand-made Endpoints to slices, so that what reads slices serves Services without a selector too.
//!
//! Source of the rules: KEP-1412 / KEP-752, "EndpointSlice mirroring", and `pkg/controller/endpointslicemirroring`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::member::Port;
use super::packing::{Group, MANAGED_BY, SERVICE_LABEL, TRIGGER_TIME, Wrapper};
use super::service::Family;
use crate::object::{self, ObjectKey};

/// Value of the `managed-by` label of mirrored slices.
pub(crate) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label of Endpoints that must not be mirrored: their writer makes the slices as well.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that are a lock and no addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses of a subset that are mirrored. Source: `--mirroring-max-endpoints-per-subset`.
const PER_SUBSET: usize = 1000;

/// Whether the object asks to be mirrored, as far as it says itself.
pub(crate) fn is_mirrorable(endpoints: &Endpoints) -> bool {
    let skipped = object::labels_of(&endpoints.metadata)
        .get(SKIP)
        .is_some_and(|value| value == "true");
    !skipped
        && !object::is_deleting(&endpoints.metadata)
        && object::annotation(&endpoints.metadata, LEADER).is_none()
}

/// Addresses that are not mirrored.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// They are none.
    pub(crate) invalid: usize,
    /// There are too many in a subset.
    pub(crate) too_many: usize,
}

impl Skipped {
    /// What to tell of it: reason and message.
    pub(crate) fn complaints(self) -> Vec<(&'static str, String)> {
        let mut complaints = Vec::new();
        if self.invalid > 0 {
            complaints.push((
                "InvalidIPAddress",
                format!(
                    "Skipped {} invalid IP addresses when mirroring to EndpointSlices",
                    self.invalid
                ),
            ));
        }
        if self.too_many > 0 {
            let all = self.invalid + self.too_many;
            complaints.push((
                "TooManyAddressesToMirror",
                format!(
                    "A max of {PER_SUBSET} addresses can be mirrored to EndpointSlices per Endpoints subset. {all} addresses were skipped"
                ),
            ));
        }
        complaints
    }
}

/// The endpoints, by family and ports, and what is left out.
pub(crate) fn groups(endpoints: &Endpoints) -> (Vec<Group>, Skipped) {
    let mut groups = Vec::new();
    let mut skipped = Skipped::default();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        let ready = subset
            .addresses
            .iter()
            .flatten()
            .map(|address| (address, true));
        let not_ready = subset
            .not_ready_addresses
            .iter()
            .flatten()
            .map(|address| (address, false));
        let mut room = PER_SUBSET;
        for (address, ready) in ready.chain(not_ready) {
            if room == 0 {
                skipped.too_many += 1;
                continue;
            }
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                skipped.invalid += 1;
                continue;
            };
            room -= 1;
            groups.push(Group {
                family: Family::of(&ip),
                ports: ports.clone(),
                endpoints: vec![endpoint(address, ready)],
            });
        }
    }
    (groups, skipped)
}

fn ports(subset: &EndpointSubset) -> Vec<Port> {
    let ports = subset.ports.iter().flatten().map(|port| Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        number: port.port,
        app_protocol: port.app_protocol.clone(),
    });
    let mut ports: Vec<Port> = ports.collect();
    ports.sort();
    ports
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

/// What the mirrored slices have in common: they go when the Endpoints go.
pub(crate) fn wrapper(endpoints: &Endpoints) -> Wrapper {
    let meta = &endpoints.metadata;
    let mut labels = object::labels_of(meta).clone();
    labels.remove(SKIP);
    labels.insert(
        SERVICE_LABEL.to_owned(),
        meta.name.clone().unwrap_or_default(),
    );
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    let trigger = annotations
        .remove(TRIGGER_TIME)
        .and_then(|text| text.parse().ok());
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    Wrapper {
        service: ObjectKey::of(meta),
        owner: OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Endpoints".to_owned(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
        labels,
        annotations,
        trigger,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::endpoints::packing;

    fn endpoints(metadata: serde_json::Value, subsets: serde_json::Value) -> Endpoints {
        serde_json::from_value(json!({ "metadata": metadata, "subsets": subsets })).unwrap()
    }

    #[test]
    fn families_and_ports_are_slices_of_their_own() {
        let made = endpoints(
            json!({ "name": "db", "namespace": "default", "uid": "e" }),
            json!([{
                "addresses": [{ "ip": "192.0.2.1" }, { "ip": "2001:db8::1" }],
                "notReadyAddresses": [{ "ip": "192.0.2.2" }],
                "ports": [{ "name": "sql", "port": 5432 }],
            }, {
                "addresses": [{ "ip": "192.0.2.3" }],
                "ports": [{ "name": "sql", "port": 5433 }],
            }]),
        );
        let changes = packing::pack(&wrapper(&made), groups(&made).0, &[], &[]);
        let mut shape: Vec<_> = changes
            .create
            .iter()
            .map(|slice| {
                let ready = slice.endpoints.iter().flatten().map(|one| {
                    (
                        one.addresses[0].clone(),
                        one.conditions
                            .as_ref()
                            .and_then(|conditions| conditions.ready),
                    )
                });
                (
                    slice.address_type.clone(),
                    slice.ports.as_ref().unwrap()[0].port,
                    ready.collect::<Vec<_>>(),
                )
            })
            .collect();
        shape.sort();
        assert_eq!(
            shape,
            [
                (
                    "IPv4".to_owned(),
                    Some(5432),
                    vec![
                        ("192.0.2.1".to_owned(), Some(true)),
                        ("192.0.2.2".to_owned(), Some(false))
                    ]
                ),
                (
                    "IPv4".to_owned(),
                    Some(5433),
                    vec![("192.0.2.3".to_owned(), Some(true))]
                ),
                (
                    "IPv6".to_owned(),
                    Some(5432),
                    vec![("2001:db8::1".to_owned(), Some(true))]
                ),
            ]
        );
    }

    #[test]
    fn what_is_left_out_is_told() {
        let addresses: Vec<_> = (0..PER_SUBSET + 2)
            .map(|n| json!({ "ip": format!("10.1.{}.{}", n / 256, n % 256) }))
            .chain([])
            .collect();
        let made = endpoints(
            json!({ "name": "db", "namespace": "default" }),
            json!([{ "addresses": addresses }, { "addresses": [{ "ip": "nonsense" }] }]),
        );
        let (groups, skipped) = groups(&made);
        assert_eq!(groups.len(), PER_SUBSET);
        assert_eq!(
            skipped,
            Skipped {
                invalid: 1,
                too_many: 2
            }
        );
        let reasons: Vec<_> = skipped.complaints().into_iter().map(|one| one.0).collect();
        assert_eq!(reasons, ["InvalidIPAddress", "TooManyAddressesToMirror"]);
    }

    #[test]
    fn what_says_so_is_not_mirrored() {
        assert!(is_mirrorable(&endpoints(json!({}), json!([]))));
        assert!(!is_mirrorable(&endpoints(
            json!({ "labels": { (SKIP): "true" } }),
            json!([])
        )));
        assert!(!is_mirrorable(&endpoints(
            json!({ "annotations": { (LEADER): "{}" } }),
            json!([])
        )));
    }
}
