//! The records of the cluster, as an immutable structure made for lookups.
//!
//! A new version shares with the one before all that did not change (persistent maps), so a change among 10,000
//! Services costs a handful of tree nodes, and a lookup holds a version without holding up anybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;
use std::sync::Arc;

use domain::base::Name;
use ipnet::IpNet;
use rpds::{HashTrieMapSync, HashTrieSetSync, RedBlackTreeSetSync};

use crate::model::{Label, Port, Protocol, ServiceKey};

/// Addresses behind one name, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// For A records, in ascending order.
    pub v4: Box<[Ipv4Addr]>,
    /// For AAAA records, in ascending order.
    pub v6: Box<[Ipv6Addr]>,
}

impl Addresses {
    /// Whether there is none of either family.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.iter().copied().map(IpAddr::V4);
        v4.chain(self.v6.iter().copied().map(IpAddr::V6))
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address {
                IpAddr::V4(address) => v4.push(address),
                IpAddr::V6(address) => v6.push(address),
            }
        }
        v4.sort_unstable();
        v4.dedup();
        v6.sort_unstable();
        v6.dedup();
        Addresses {
            v4: v4.into(),
            v6: v6.into(),
        }
    }
}

/// What stands under `<label>.<service>.<namespace>.svc.<domain>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRecords {
    /// Its hostname, or one made from its address: `10-244-1-5`.
    pub label: Label,
    /// Of all endpoints with this label.
    pub addresses: Addresses,
    /// What they listen on, each once.
    pub ports: Arc<[Port]>,
}

/// How the records of a Service come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordsKind {
    /// Records with the Service's own addresses and ports.
    ClusterIp,
    /// Records with those of the endpoints.
    Headless,
    /// A CNAME record.
    ExternalName(Name<Vec<u8>>),
}

/// All records of one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRecords {
    /// Its name and namespace.
    pub key: ServiceKey,
    /// Where they come from.
    pub kind: RecordsKind,
    /// Behind the Service's own name.
    pub addresses: Addresses,
    /// All ports that SRV records can be asked for.
    pub ports: Box<[Port]>,
    /// In ascending order of their labels.
    pub endpoints: Box<[EndpointRecords]>,
}

impl ServiceRecords {
    /// The endpoint of that name (text of the label, in lower case).
    pub fn endpoint(&self, label: &[u8]) -> Option<&EndpointRecords> {
        let found = self
            .endpoints
            .binary_search_by(|endpoint| endpoint.label[1..].cmp(label));
        found.ok().and_then(|index| self.endpoints.get(index))
    }

    /// Whether a port of that protocol has a name, so that there are names below `_<protocol>`.
    pub fn has_named_port(&self, protocol: Protocol) -> bool {
        self.ports
            .iter()
            .any(|port| port.protocol == protocol && port.service_label.is_some())
    }

    /// What reverse lookups of its addresses lead to, in no order.
    pub fn pointers(&self) -> impl Iterator<Item = Pointer> {
        let own = match self.kind {
            RecordsKind::ClusterIp => Some(self.addresses.iter()),
            RecordsKind::Headless | RecordsKind::ExternalName(_) => None,
        };
        let own = own.into_iter().flatten().map(|address| Pointer {
            address,
            target: self.key.wire().into(),
        });
        let endpoints = self.endpoints.iter().flat_map(|endpoint| {
            endpoint.addresses.iter().map(|address| Pointer {
                address,
                target: [&endpoint.label, self.key.wire()].concat().into(),
            })
        });
        own.chain(endpoints)
    }
}

/// The data of a PTR record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pointer {
    /// The address that it stands for.
    pub address: IpAddr,
    /// The labels left of `svc.<domain>`, in wire form.
    pub target: Box<[u8]>,
}

/// The records of a cluster at one moment.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub(crate) services: HashTrieMapSync<ServiceKey, Arc<ServiceRecords>>,
    pub(crate) namespaces: HashTrieSetSync<Label>,
    pub(crate) pointers: RedBlackTreeSetSync<Pointer>,
    /// Whether everything has been listed, so that absence from the table means absence from the cluster.
    pub complete: bool,
    /// The zone's serial number (RFC 1035 §3.3.13): when it last changed, in seconds since 1970.
    pub serial: u32,
}

impl Table {
    /// The records of the Service whose labels `<name>.<namespace>` are these (wire form, lower case).
    pub fn service(&self, labels: &[u8]) -> Option<&Arc<ServiceRecords>> {
        self.services.get(labels)
    }

    /// Whether there is a namespace of that name (wire form, lower case).
    pub fn has_namespace(&self, label: &[u8]) -> bool {
        self.namespaces.contains(label)
    }

    /// Where reverse lookups of `address` lead to.
    pub fn pointers(&self, address: IpAddr) -> impl Iterator<Item = &Pointer> {
        self.pointers_within(address, address)
    }

    /// Whether any address in `range` leads somewhere.
    pub fn has_pointer_within(&self, range: IpNet) -> bool {
        self.pointers_within(range.network(), range.broadcast())
            .next()
            .is_some()
    }

    fn pointers_within(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = &Pointer> {
        let from = Pointer {
            address: first,
            target: Box::default(),
        };
        self.pointers
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |pointer| pointer.address <= last)
    }

    /// How many Services have records.
    pub fn services(&self) -> usize {
        self.services.size()
    }
}
