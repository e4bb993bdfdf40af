//! What the endpoint controllers know of a Service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort};

use crate::object::{self, ObjectKey};
use seaway_objects::selector::LabelSelector;

/// Label on what belongs to a headless Service.
pub(crate) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// An address family; a slice has addresses of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub(crate) fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// As `addressType` writes it.
    pub(crate) fn address_type(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// What endpoints say of whom they are for. Source: KEP-4444, KEP-3015; `k8s.io/endpointslice/trafficdist`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hints {
    /// Nothing.
    None,
    /// For clients in their zone.
    Zone,
    /// For clients on their node, and in their zone.
    Node,
}

impl Hints {
    fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        // The older way, by annotation, goes before the field.
        let mode = object::annotation(&service.metadata, "service.kubernetes.io/topology-mode");
        if matches!(mode, Some("Auto" | "auto")) {
            return Hints::None;
        }
        match spec.and_then(|spec| spec.traffic_distribution.as_deref()) {
            Some("PreferClose" | "PreferSameZone") => Hints::Zone,
            Some("PreferSameNode") => Hints::Node,
            _ => Hints::None,
        }
    }
}

/// A Service whose endpoints are the Pods it selects.
#[derive(Debug, Clone)]
pub(crate) struct Selecting {
    /// Namespace and name.
    pub(crate) key: ObjectKey,
    /// UID.
    pub(crate) uid: String,
    /// Which Pods are meant.
    pub(crate) selector: LabelSelector,
    /// Its ports.
    pub(crate) ports: Vec<ServicePort>,
    /// Has no address of its own.
    pub(crate) headless: bool,
    /// Whether endpoints say which zones and nodes they are for.
    pub(crate) hints: Hints,
    /// Counts Pods before they are ready, and while they end.
    pub(crate) publish_not_ready: bool,
    /// The families of its addresses.
    pub(crate) families: Vec<Family>,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// When it was made.
    pub(crate) created: Option<Timestamp>,
}

impl Selecting {
    /// The view of a Service that selects Pods; `None` for one that has no selector or is another name for something
    /// outside: those are left alone.
    pub(crate) fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let selector = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        Some(Self {
            key: ObjectKey::of(&service.metadata),
            uid: object::uid_of(&service.metadata).to_owned(),
            selector: LabelSelector::from_map(selector),
            ports: spec.ports.clone().unwrap_or_default(),
            headless: spec.cluster_ip.as_deref() == Some("None"),
            hints: Hints::of(service),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            families: families(service),
            labels: object::labels_of(&service.metadata).clone(),
            created: service
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0),
        })
    }
}

/// Whether a Service has no selector, so that its endpoints are made by hand.
pub(crate) fn is_selectorless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.selector.as_ref().is_none_or(BTreeMap::is_empty))
}

fn families(service: &Service) -> Vec<Family> {
    let Some(spec) = &service.spec else {
        return vec![Family::V4];
    };
    let named = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        });
    let mut found: Vec<Family> = named.collect();
    if found.is_empty() {
        // An API server that does not fill in the families leaves the address to tell.
        let address = spec
            .cluster_ip
            .as_deref()
            .and_then(|text| text.parse::<IpAddr>().ok());
        found.push(address.as_ref().map_or(Family::V4, Family::of));
    }
    found
}
