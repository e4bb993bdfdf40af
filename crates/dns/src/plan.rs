//! From objects to records: keeps the Services and EndpointSlices that belong together, and makes of each change
//! the next version of the [`Table`]. Pure; a change costs what the Service it belongs to has of endpoints, however
//! many other Services there are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{EndpointSlice, Label, Port, Service, ServiceKey, ServiceKind, SliceId};
use crate::table::{Addresses, EndpointRecords, Pointer, RecordsKind, ServiceRecords, Table};

/// Everything known of the cluster, and the table that follows from it.
#[derive(Debug, Default)]
pub struct Inventory {
    services: HashMap<ServiceKey, Parts>,
    /// Whose endpoints a slice had when last seen: the label on a slice may change.
    owners: HashMap<SliceId, ServiceKey>,
    table: Table,
}

/// What makes up one Service's records. Slices may come before their Service, or stay after it.
#[derive(Debug, Default)]
struct Parts {
    service: Option<Service>,
    slices: BTreeMap<SliceId, EndpointSlice>,
}

impl Inventory {
    /// The table of what is known now.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Marks the table as complete, that is, all there was has been listed.
    pub fn set_complete(&mut self) {
        self.table.complete = true;
    }

    /// Notes when the table changed, in seconds since 1970.
    pub fn set_serial(&mut self, serial: u32) {
        self.table.serial = serial;
    }

    /// Adds a namespace, by its label.
    pub fn add_namespace(&mut self, namespace: Label) {
        if !self.table.namespaces.contains(&namespace) {
            self.table.namespaces.insert_mut(namespace);
        }
    }

    /// Removes a namespace.
    pub fn remove_namespace(&mut self, namespace: &[u8]) {
        self.table.namespaces.remove_mut(namespace);
    }

    /// Removes all namespaces but those in `kept`.
    pub fn retain_namespaces(&mut self, kept: &HashSet<Label>) {
        let gone: Vec<Label> = self
            .table
            .namespaces
            .iter()
            .filter(|name| !kept.contains(*name))
            .cloned()
            .collect();
        gone.iter()
            .for_each(|namespace| self.remove_namespace(namespace));
    }

    /// Adds a Service or takes over what changed of it.
    pub fn put_service(&mut self, service: Service) {
        let key = service.key.clone();
        self.services.entry(key.clone()).or_default().service = Some(service);
        self.refresh(&key);
    }

    /// Removes a Service.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        if let Some(parts) = self.services.get_mut(key) {
            parts.service = None;
            self.refresh(key);
        }
    }

    /// Removes all Services but those in `kept`.
    pub fn retain_services(&mut self, kept: &HashSet<ServiceKey>) {
        let present = self
            .services
            .iter()
            .filter(|(_, parts)| parts.service.is_some());
        let gone: Vec<ServiceKey> = present
            .map(|(key, _)| key)
            .filter(|key| !kept.contains(*key))
            .cloned()
            .collect();
        gone.iter().for_each(|key| self.remove_service(key));
    }

    /// Adds a slice or takes over what changed of it.
    pub fn put_slice(&mut self, slice: EndpointSlice) {
        let owner = slice.service.clone();
        match self.owners.get(&slice.id) {
            Some(before) if *before != owner => self.remove_slice(&slice.id.clone()),
            _ => {}
        }
        self.owners.insert(slice.id.clone(), owner.clone());
        self.services
            .entry(owner.clone())
            .or_default()
            .slices
            .insert(slice.id.clone(), slice);
        self.refresh(&owner);
    }

    /// Removes a slice.
    pub fn remove_slice(&mut self, id: &SliceId) {
        if let Some(owner) = self.owners.remove(id) {
            if let Some(parts) = self.services.get_mut(&owner) {
                parts.slices.remove(id);
            }
            self.refresh(&owner);
        }
    }

    /// Removes all slices but those in `kept`.
    pub fn retain_slices(&mut self, kept: &HashSet<SliceId>) {
        let gone: Vec<SliceId> = self
            .owners
            .keys()
            .filter(|id| !kept.contains(*id))
            .cloned()
            .collect();
        gone.iter().for_each(|id| self.remove_slice(id));
    }

    /// Brings the table up to date with one Service.
    fn refresh(&mut self, key: &ServiceKey) {
        let after = match self.services.get(key) {
            Some(Parts {
                service: None,
                slices,
            }) if slices.is_empty() => {
                self.services.remove(key);
                None
            }
            Some(Parts {
                service: Some(service),
                slices,
            }) => Some(records(service, slices)),
            Some(Parts { service: None, .. }) | None => None,
        };
        let before = self.table.services.get(key).cloned();
        if before.as_deref() == after.as_ref() {
            return;
        }
        let pointers = |records: Option<&ServiceRecords>| -> HashSet<Pointer> {
            records
                .into_iter()
                .flat_map(ServiceRecords::pointers)
                .collect()
        };
        let (gone, come) = (pointers(before.as_deref()), pointers(after.as_ref()));
        for pointer in gone.difference(&come) {
            self.table.pointers.remove_mut(pointer);
        }
        for pointer in &come {
            if !gone.contains(pointer) {
                self.table.pointers.insert_mut(pointer.clone());
            }
        }
        match after {
            Some(records) => self
                .table
                .services
                .insert_mut(key.clone(), Arc::new(records)),
            None => {
                self.table.services.remove_mut(key);
            }
        }
    }
}

/// All records of one Service.
fn records(service: &Service, slices: &BTreeMap<SliceId, EndpointSlice>) -> ServiceRecords {
    let endpoints = endpoints(service, slices);
    let (kind, addresses, ports) = match &service.kind {
        ServiceKind::ClusterIp(addresses) => (
            RecordsKind::ClusterIp,
            addresses.iter().copied().collect(),
            service.ports.clone().into(),
        ),
        ServiceKind::Headless => {
            let addresses = endpoints
                .iter()
                .flat_map(|endpoint| endpoint.addresses.iter())
                .collect();
            let ports: BTreeSet<Port> = endpoints
                .iter()
                .flat_map(|endpoint| endpoint.ports.iter().cloned())
                .collect();
            (
                RecordsKind::Headless,
                addresses,
                ports.into_iter().collect(),
            )
        }
        // The name leads elsewhere; nothing can stand below it or beside it (RFC 1034 §3.6.2).
        ServiceKind::ExternalName(target) => {
            let kind = RecordsKind::ExternalName(target.clone());
            let nothing = Addresses::default();
            return ServiceRecords {
                key: service.key.clone(),
                kind,
                addresses: nothing,
                ports: Box::default(),
                endpoints: Box::default(),
            };
        }
    };
    ServiceRecords {
        key: service.key.clone(),
        kind,
        addresses,
        ports,
        endpoints,
    }
}

/// The endpoints that have records, those with the same label taken together, sorted by label.
fn endpoints(
    service: &Service,
    slices: &BTreeMap<SliceId, EndpointSlice>,
) -> Box<[EndpointRecords]> {
    let mut by_label: BTreeMap<Label, (Vec<IpAddr>, Arc<[Port]>)> = BTreeMap::new();
    for slice in slices.values() {
        let published = slice
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.ready || service.publish_not_ready);
        for endpoint in published {
            for address in &endpoint.addresses {
                let label = endpoint
                    .hostname
                    .clone()
                    .unwrap_or_else(|| address_label(*address));
                let (addresses, ports) = by_label
                    .entry(label)
                    .or_insert_with(|| (Vec::new(), slice.ports.clone()));
                addresses.push(*address);
                if !Arc::ptr_eq(ports, &slice.ports) && *ports != slice.ports {
                    let both: BTreeSet<&Port> = ports.iter().chain(slice.ports.iter()).collect();
                    *ports = both.into_iter().cloned().collect();
                }
            }
        }
    }
    // A slice orders by length octet first; a lookup has only the text.
    let mut endpoints: Vec<EndpointRecords> = by_label
        .into_iter()
        .map(|(label, (addresses, ports))| EndpointRecords {
            label,
            addresses: addresses.into_iter().collect(),
            ports,
        })
        .collect();
    endpoints.sort_unstable_by(|one, other| one.label[1..].cmp(&other.label[1..]));
    endpoints.into()
}

/// The label of an endpoint without name: its address with dashes, as CoreDNS makes it.
fn address_label(address: IpAddr) -> Label {
    let text = address.to_string().replace(['.', ':'], "-");
    // 2 to 45 characters, so it is a label.
    [&[text.len() as u8], text.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Endpoint, Protocol};
    use crate::name;

    fn key(text: &str) -> ServiceKey {
        let (service, namespace) = text.split_once('.').unwrap();
        ServiceKey::new(namespace, service).unwrap()
    }

    fn port(text: &str, number: u16) -> Port {
        Port {
            service_label: name::label(&format!("_{text}")),
            protocol: Protocol::Tcp,
            number,
        }
    }

    fn headless(text: &str) -> Service {
        Service {
            key: key(text),
            kind: ServiceKind::Headless,
            publish_not_ready: false,
            ports: vec![],
        }
    }

    fn cluster_ip(text: &str, address: &str) -> Service {
        let kind = ServiceKind::ClusterIp(vec![address.parse().unwrap()]);
        Service {
            kind,
            ports: vec![port("http", 80)],
            ..headless(text)
        }
    }

    fn slice_id(text: &str) -> SliceId {
        SliceId::of(
            &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(text.to_owned()),
                ..Default::default()
            },
        )
    }

    fn slice(id: &str, service: &str, endpoints: &[(&str, Option<&str>, bool)]) -> EndpointSlice {
        let endpoint = |(address, hostname, ready): &(&str, Option<&str>, bool)| Endpoint {
            addresses: vec![address.parse().unwrap()],
            hostname: hostname.map(|text| name::label(text).unwrap()),
            ready: *ready,
        };
        EndpointSlice {
            id: slice_id(id),
            service: key(service),
            endpoints: endpoints.iter().map(endpoint).collect(),
            ports: [port("pg", 5432)].into(),
        }
    }

    fn addresses(inventory: &Inventory, service: &str) -> Vec<String> {
        let found = inventory.table().service(key(service).wire());
        found
            .map(|records| {
                records
                    .addresses
                    .iter()
                    .map(|address| address.to_string())
                    .collect()
            })
            .unwrap_or_default()
    }

    fn pointers(inventory: &Inventory, address: &str) -> usize {
        inventory.table().pointers(address.parse().unwrap()).count()
    }

    #[test]
    fn a_slice_may_come_before_its_service_and_stay_after_it() {
        let mut inventory = Inventory::default();
        inventory.put_slice(slice("db-1", "db.prod", &[("10.1.0.1", None, true)]));
        assert!(inventory.table().service(key("db.prod").wire()).is_none());
        inventory.put_service(headless("db.prod"));
        assert_eq!(addresses(&inventory, "db.prod"), ["10.1.0.1"]);
        inventory.remove_service(&key("db.prod"));
        assert!(inventory.table().service(key("db.prod").wire()).is_none());
        assert_eq!(pointers(&inventory, "10.1.0.1"), 0);
        inventory.put_service(headless("db.prod"));
        assert_eq!(addresses(&inventory, "db.prod"), ["10.1.0.1"]);
    }

    #[test]
    fn a_slice_that_changes_its_service_leaves_the_first() {
        let mut inventory = Inventory::default();
        inventory.put_service(headless("a.prod"));
        inventory.put_service(headless("b.prod"));
        inventory.put_slice(slice("s", "a.prod", &[("10.1.0.1", None, true)]));
        inventory.put_slice(slice("s", "b.prod", &[("10.1.0.1", None, true)]));
        assert_eq!(addresses(&inventory, "a.prod"), [""; 0]);
        assert_eq!(addresses(&inventory, "b.prod"), ["10.1.0.1"]);
        assert_eq!(pointers(&inventory, "10.1.0.1"), 1);
    }

    #[test]
    fn endpoints_that_are_not_ready_wait_unless_the_service_publishes_them() {
        let mut inventory = Inventory::default();
        inventory.put_slice(slice(
            "s",
            "a.prod",
            &[("10.1.0.1", None, false), ("10.1.0.2", None, true)],
        ));
        inventory.put_service(headless("a.prod"));
        assert_eq!(addresses(&inventory, "a.prod"), ["10.1.0.2"]);
        inventory.put_service(Service {
            publish_not_ready: true,
            ..headless("a.prod")
        });
        assert_eq!(addresses(&inventory, "a.prod"), ["10.1.0.1", "10.1.0.2"]);
    }

    #[test]
    fn endpoints_with_one_hostname_share_its_name_and_addresses_count_once() {
        let mut inventory = Inventory::default();
        inventory.put_service(headless("a.prod"));
        inventory.put_slice(slice(
            "s",
            "a.prod",
            &[("10.1.0.2", Some("x"), true), ("10.1.0.1", Some("x"), true)],
        ));
        inventory.put_slice(slice(
            "t",
            "a.prod",
            &[("10.1.0.2", Some("x"), true), ("fd00::1", Some("x"), true)],
        ));
        let records = inventory.table().service(key("a.prod").wire()).unwrap();
        assert_eq!(records.endpoints.len(), 1);
        let endpoint = records.endpoint(b"x").unwrap();
        assert_eq!(endpoint.addresses.v4.len(), 2);
        assert_eq!(endpoint.addresses.v6.len(), 1);
        assert_eq!(endpoint.ports.len(), 1);
        assert_eq!(
            addresses(&inventory, "a.prod"),
            ["10.1.0.1", "10.1.0.2", "fd00::1"]
        );
    }

    #[test]
    fn endpoints_are_found_whatever_the_length_of_their_labels() {
        let mut inventory = Inventory::default();
        inventory.put_service(headless("a.prod"));
        let hosts = [
            ("10.1.0.1", Some("zz"), true),
            ("10.1.0.2", Some("long"), true),
            ("10.1.0.3", Some("a"), true),
        ];
        inventory.put_slice(slice("s", "a.prod", &hosts));
        let records = inventory.table().service(key("a.prod").wire()).unwrap();
        for label in [&b"zz"[..], b"long", b"a"] {
            assert!(records.endpoint(label).is_some(), "{label:?}");
        }
        assert!(records.endpoint(b"b").is_none());
    }

    #[test]
    fn what_a_list_no_longer_has_is_gone() {
        let mut inventory = Inventory::default();
        inventory.put_service(cluster_ip("a.prod", "10.96.0.1"));
        inventory.put_service(cluster_ip("b.prod", "10.96.0.2"));
        inventory.put_slice(slice("s", "a.prod", &[("10.1.0.1", None, true)]));
        inventory.add_namespace(name::label("prod").unwrap());
        inventory.retain_services(&[key("b.prod")].into());
        inventory.retain_slices(&HashSet::new());
        inventory.retain_namespaces(&HashSet::new());
        assert_eq!(inventory.table().services(), 1);
        assert!(!inventory.table().has_namespace(b"\x04prod"));
        assert_eq!(pointers(&inventory, "10.96.0.1"), 0);
        assert_eq!(pointers(&inventory, "10.1.0.1"), 0);
        assert_eq!(pointers(&inventory, "10.96.0.2"), 1);
        assert!(
            inventory.services.len() == 1 && inventory.owners.is_empty(),
            "nothing is kept of what is gone"
        );
    }

    #[test]
    fn an_address_moves_from_one_service_to_another_in_either_order() {
        let mut inventory = Inventory::default();
        inventory.put_service(cluster_ip("a.prod", "10.96.0.1"));
        inventory.put_service(cluster_ip("b.prod", "10.96.0.1"));
        assert_eq!(pointers(&inventory, "10.96.0.1"), 2);
        inventory.put_service(cluster_ip("a.prod", "10.96.0.2"));
        assert_eq!(pointers(&inventory, "10.96.0.1"), 1);
        assert_eq!(pointers(&inventory, "10.96.0.2"), 1);
    }

    #[test]
    fn a_version_of_the_table_stays_as_it_was() {
        let mut inventory = Inventory::default();
        inventory.put_service(cluster_ip("a.prod", "10.96.0.1"));
        let before = inventory.table().clone();
        inventory.put_service(cluster_ip("a.prod", "10.96.0.2"));
        inventory.put_service(cluster_ip("b.prod", "10.96.0.3"));
        assert_eq!(before.services(), 1);
        assert_eq!(before.pointers("10.96.0.1".parse().unwrap()).count(), 1);
        assert_eq!(before.pointers("10.96.0.3".parse().unwrap()).count(), 0);
    }

    #[test]
    fn a_change_of_one_service_leaves_the_records_of_the_others_in_place() {
        let mut inventory = Inventory::default();
        for number in 0..10_000 {
            inventory.put_service(cluster_ip(
                &format!("s{number}.prod"),
                &format!("10.96.{}.{}", number / 250, number % 250),
            ));
        }
        let before = inventory.table().clone();
        inventory.put_service(cluster_ip("s17.prod", "10.97.0.1"));
        let after = inventory.table();
        let moved = (0..10_000).filter(|number| {
            let key = key(&format!("s{number}.prod"));
            !Arc::ptr_eq(
                before.service(key.wire()).unwrap(),
                after.service(key.wire()).unwrap(),
            )
        });
        assert_eq!(moved.collect::<Vec<_>>(), [17]);
    }
}
