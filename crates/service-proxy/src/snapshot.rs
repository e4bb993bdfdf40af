//! All objects of now, projected, and which Services the events since the last look have touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use crate::choice::choose;
use crate::model::{IpFamily, NotServed, ObjectName, Problem, Projected, Service, Slice};
use crate::plan::{Compiled, Node, RangeSet, compile};

/// The cluster as the watches showed it so far.
#[derive(Debug, Default)]
pub struct Snapshot {
    services: HashMap<ObjectName, Service>,
    slices: HashMap<ObjectName, Slice>,
    /// Slices of each Service, in the order of their names.
    slices_of: HashMap<ObjectName, BTreeSet<ObjectName>>,
    problems: BTreeMap<ObjectName, Vec<Problem>>,
    touched: BTreeSet<ObjectName>,
    node: Node,
    ranges: BTreeMap<RangeSet, Vec<IpNet>>,
    /// The ranges that differ from those at the last look.
    ranges_changed: BTreeSet<RangeSet>,
}

impl Snapshot {
    /// A cluster without objects, seen from this node.
    pub fn new(node: Node) -> Self {
        Self {
            node,
            ..Self::default()
        }
    }

    /// A Service was seen. Returns what of it cannot be served, if that is news.
    pub fn service_seen(&mut self, object: &core::Service) -> Vec<Problem> {
        match Projected::<Service>::try_from(object) {
            Ok(Projected { value, problems }) => {
                let name = value.name.clone();
                if self.services.get(&name) != Some(&value) {
                    self.touched.insert(name.clone());
                    self.services.insert(name.clone(), value);
                }
                self.news(name, problems)
            }
            Err(reason) => {
                self.not_served("Service", &object.metadata, &reason);
                if let Some(name) = name_of(&object.metadata) {
                    self.service_gone(&name);
                }
                Vec::new()
            }
        }
    }

    /// A Service is gone.
    pub fn service_gone(&mut self, name: &ObjectName) {
        self.problems.remove(name);
        if self.services.remove(name).is_some() {
            self.touched.insert(name.clone());
        }
    }

    /// An EndpointSlice was seen. Returns what of it cannot be served.
    pub fn slice_seen(&mut self, object: &discovery::EndpointSlice) -> Vec<Problem> {
        match Projected::<Slice>::try_from(object) {
            Ok(Projected { value, problems }) => {
                if self.slices.get(&value.name) != Some(&value) {
                    // It may have moved to another Service: both are touched.
                    self.slice_gone(&value.name.clone());
                    self.touched.insert(value.service.clone());
                    self.slices_of
                        .entry(value.service.clone())
                        .or_default()
                        .insert(value.name.clone());
                    self.slices.insert(value.name.clone(), value);
                }
                problems
            }
            Err(reason) => {
                self.not_served("EndpointSlice", &object.metadata, &reason);
                if let Some(name) = name_of(&object.metadata) {
                    self.slice_gone(&name);
                }
                Vec::new()
            }
        }
    }

    /// An EndpointSlice is gone.
    pub fn slice_gone(&mut self, name: &ObjectName) {
        let Some(slice) = self.slices.remove(name) else {
            return;
        };
        if let Some(others) = self.slices_of.get_mut(&slice.service) {
            others.remove(name);
            if others.is_empty() {
                self.slices_of.remove(&slice.service);
            }
        }
        self.touched.insert(slice.service);
    }

    /// The node is in this zone now. Where endpoints have hints, all Services may be served by others.
    pub fn zone_seen(&mut self, zone: Option<String>) {
        if self.node.zone != zone {
            self.node.zone = zone;
            self.touched.extend(self.services.keys().cloned());
        }
    }

    /// These ranges are in the set now.
    pub fn ranges_seen(&mut self, set: RangeSet, ranges: Vec<IpNet>) {
        if self.ranges.get(&set) != Some(&ranges) {
            self.ranges.insert(set, ranges);
            self.ranges_changed.insert(set);
        }
    }

    /// The Service of this name, if it is served.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// How many endpoints of the Service are ready on this node; the most of any of its ports and families.
    pub fn local_endpoints(&self, name: &ObjectName) -> usize {
        let Some(service) = self.services.get(name) else {
            return 0;
        };
        let of_family = |family| {
            let slices: Vec<&Slice> = self
                .slices_of(name)
                .filter(|s| s.family == family)
                .collect();
            let here = |port| choose(&slices, port, &self.node).local;
            let addresses: BTreeSet<IpAddr> = service
                .ports
                .iter()
                .flat_map(here)
                .map(|candidate| candidate.endpoint.address)
                .collect();
            addresses.len()
        };
        of_family(IpFamily::V4).max(of_family(IpFamily::V6))
    }

    /// The names of all Services.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.keys()
    }

    /// The names of all EndpointSlices.
    pub fn slices(&self) -> impl Iterator<Item = &ObjectName> {
        self.slices.keys()
    }

    /// Whether anything is different from the last look.
    pub fn is_touched(&self) -> bool {
        !self.touched.is_empty() || !self.ranges_changed.is_empty()
    }

    /// The Services that were touched since the last look, and the ranges that changed.
    pub fn take_touched(&mut self) -> (BTreeSet<ObjectName>, BTreeMap<RangeSet, Vec<IpNet>>) {
        let changed = std::mem::take(&mut self.ranges_changed);
        let ranges = changed
            .into_iter()
            .map(|set| (set, self.ranges.get(&set).cloned().unwrap_or_default()))
            .collect();
        (std::mem::take(&mut self.touched), ranges)
    }

    /// What a Service needs in one family on this node; `None` if it is not served.
    pub fn compile(&self, name: &ObjectName, family: IpFamily) -> Option<Compiled> {
        let service = self.services.get(name)?;
        Some(compile(service, self.slices_of(name), &self.node, family))
    }

    fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Slice> {
        self.slices_of
            .get(service)
            .into_iter()
            .flatten()
            .filter_map(|name| self.slices.get(name))
    }

    /// Remembers the problems of a Service; returns them if they are others than before.
    fn news(&mut self, name: ObjectName, problems: Vec<Problem>) -> Vec<Problem> {
        if self.problems.get(&name).map_or(&[][..], Vec::as_slice) == problems {
            return Vec::new();
        }
        if problems.is_empty() {
            self.problems.remove(&name);
        } else {
            self.problems.insert(name, problems.clone());
        }
        problems
    }

    fn not_served(
        &self,
        kind: &str,
        metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
        reason: &NotServed,
    ) {
        tracing::debug!(
            "{kind} {}/{} is not served: {reason}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        );
    }
}

/// The name of an object of a watch; `None` for one without name or namespace, which no watch shows.
pub(crate) fn name_of(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> Option<ObjectName> {
    Some(ObjectName::new(
        metadata.namespace.as_deref()?,
        metadata.name.as_deref()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, spec: serde_json::Value) -> core::Service {
        serde_json::from_value(
            json!({"metadata": {"namespace": "default", "name": name}, "spec": spec}),
        )
        .unwrap()
    }

    fn slice(name: &str, of: &str, address: &str) -> discovery::EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": of}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": [address]}],
        }))
        .unwrap()
    }

    fn touched(snapshot: &mut Snapshot) -> Vec<String> {
        snapshot
            .take_touched()
            .0
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn an_event_that_changes_nothing_touches_nothing() {
        let mut snapshot = Snapshot::new(Node::default());
        let web = service(
            "web",
            json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
        );
        snapshot.service_seen(&web);
        snapshot.slice_seen(&slice("web-1", "web", "10.244.0.1"));
        assert_eq!(touched(&mut snapshot), ["default/web"]);
        snapshot.service_seen(&web);
        snapshot.slice_seen(&slice("web-1", "web", "10.244.0.1"));
        assert!(!snapshot.is_touched());
    }

    #[test]
    fn a_slice_that_moves_touches_both_services() {
        let mut snapshot = Snapshot::new(Node::default());
        snapshot.slice_seen(&slice("s", "a", "10.244.0.1"));
        touched(&mut snapshot);
        snapshot.slice_seen(&slice("s", "b", "10.244.0.1"));
        assert_eq!(touched(&mut snapshot), ["default/a", "default/b"]);
    }

    #[test]
    fn a_service_that_becomes_headless_is_no_longer_served() {
        let mut snapshot = Snapshot::new(Node::default());
        snapshot.service_seen(&service(
            "web",
            json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
        ));
        touched(&mut snapshot);
        snapshot.service_seen(&service(
            "web",
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        ));
        assert_eq!(touched(&mut snapshot), ["default/web"]);
        assert_eq!(
            snapshot.compile(&ObjectName::new("default", "web"), IpFamily::V4),
            None
        );
    }

    #[test]
    fn problems_are_told_once() {
        let mut snapshot = Snapshot::new(Node::default());
        let bad = service(
            "web",
            json!({"clusterIP": "10.96.0.1", "ports": [{"port": 0}]}),
        );
        assert_eq!(snapshot.service_seen(&bad).len(), 1);
        assert_eq!(snapshot.service_seen(&bad).len(), 0);
    }
}
