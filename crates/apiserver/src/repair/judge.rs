//! What is wrong with addresses and node ports, and what is to be done about it. Pure.
//!
//! A Service and the IPAddresses that refer to it must say the same in both directions; one address or node port belongs
//! to one Service.
//!
//! Source: `ipallocator/controller/repairip.go` and `portallocator/controller/repair.go` in `pkg/registry/core/service`;
//! the words are theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::Value;

use crate::admission::addresses::ip_address;
use crate::admission::addresses::pools::{Family, Share, is_usable};
use crate::admission::addresses::{ips, owner, shares};
use crate::object::text;

/// What a user is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Complaint {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

fn complaint(reason: &'static str, message: String) -> Complaint {
    Complaint { reason, message }
}

/// What is to be done about one address of a Service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// All is well.
    Nothing,
    /// Only its owner can do something.
    Tell(Complaint),
    /// Write the IPAddress as it should be.
    Write(Option<Complaint>),
}

/// Judges one address of a Service. `ranges` are those of all ServiceCIDRs, `object` is the IPAddress, and `other` the
/// Service that the IPAddress refers to if that is another one.
pub(super) fn address(
    service: &Value,
    ip: IpAddr,
    ranges: &[IpNet],
    object: Option<&Value>,
    other: impl FnOnce(&str, &str) -> Option<Value>,
) -> Remedy {
    let family = Family::of(ip).text();
    if !ranges.iter().any(|range| is_usable(range, ip)) {
        return Remedy::Tell(complaint(
            "ClusterIPOutOfRange",
            format!(
                "Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service"
            ),
        ));
    }
    let Some(object) = object else {
        return Remedy::Write(Some(complaint(
            "ClusterIPNotAllocated",
            format!("Cluster IP [{family}]: {ip} is not allocated; repairing"),
        )));
    };
    let namespace = text(service, "/metadata/namespace");
    let name = text(service, "/metadata/name");
    let wrong = || {
        Remedy::Write(Some(complaint(
            "ClusterIPNotAllocated",
            format!(
                "the ClusterIP [{family}]: {ip} for Service {namespace}/{name} has a wrong reference; repairing"
            ),
        )))
    };
    match ip_address::service(object) {
        None => wrong(),
        Some((ns, n)) if (ns, n) != (namespace, name) => match other(ns, n) {
            Some(other) if ips(&other).contains(&ip) => Remedy::Tell(complaint(
                "ClusterIPAlreadyAllocated",
                format!(
                    "Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service"
                ),
            )),
            _ => wrong(),
        },
        Some(_) if !ip_address::is_labelled(object) => Remedy::Write(None),
        Some(_) => Remedy::Nothing,
    }
}

/// What is to be done about an IPAddress.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays.
    Stays,
    /// It has no Service yet; look again when it is old enough.
    Young,
    /// It goes.
    Goes(Complaint),
}

/// Judges an IPAddress that was made for a Service, which is given if it is there. Others are left alone.
pub(super) fn ip_object(object: &Value, service: Option<&Value>, is_old: bool) -> Verdict {
    if !ip_address::is_managed(object) {
        return Verdict::Stays;
    }
    let name = text(object, "/metadata/name");
    let Some((namespace, of)) = ip_address::service(object) else {
        let parent = &object["spec"]["parentRef"];
        return Verdict::Goes(complaint(
            "IPAddressNotAllocated",
            format!(
                "IPAddress {name} appears to have been modified, not referencing a Service {parent}: cleaning up"
            ),
        ));
    };
    match service {
        None if is_old => Verdict::Goes(complaint(
            "IPAddressNotAllocated",
            format!(
                "IPAddress: {name} for Service {namespace}/{of} appears to have leaked: cleaning up"
            ),
        )),
        None => Verdict::Young,
        Some(service) => {
            let has = ip_address::address(object).is_some_and(|ip| ips(service).contains(&ip));
            if has {
                Verdict::Stays
            } else {
                Verdict::Goes(complaint(
                    "IPAddressWrongReference",
                    format!(
                        "IPAddress: {name} for Service {namespace}/{of} has a wrong reference; cleaning up"
                    ),
                ))
            }
        }
    }
}

/// Node ports that several Services have, or that are not in the range: who has to be told what. Of several Services
/// the first by name keeps the port in peace.
pub(super) fn ports<'a>(
    services: impl IntoIterator<Item = &'a Value>,
    range: &RangeInclusive<u16>,
) -> Vec<(&'a Value, Complaint)> {
    let mut taken: BTreeMap<i64, String> = BTreeMap::new();
    let mut found = Vec::new();
    for service in services {
        let owner = owner(service);
        for port in node_ports(service) {
            if !u16::try_from(port).is_ok_and(|port| range.contains(&port)) {
                let (first, last) = (range.start(), range.end());
                found.push((
                    service,
                    complaint(
                        "PortOutOfRange",
                        format!(
                            "Port {port} is not within the port range {first}-{last}; please recreate service"
                        ),
                    ),
                ));
            } else if taken.entry(port).or_insert_with(|| owner.clone()) != &owner {
                found.push((
                    service,
                    complaint(
                        "PortAlreadyAllocated",
                        format!(
                            "Port {port} was assigned to multiple services; please recreate service"
                        ),
                    ),
                ));
            }
        }
    }
    found
}

/// A port that is a Service's and is not known to be taken.
pub(super) fn unknown_port(port: i64) -> Complaint {
    complaint(
        "PortNotAllocated",
        format!("Port {port} is not allocated; repairing"),
    )
}

fn node_ports(service: &Value) -> BTreeSet<i64> {
    let all = shares(service).into_iter();
    all.filter_map(|share| match share {
        Share::Port(port) => Some(port),
        Share::Ip(_) => None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, ip: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "d"},
            "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]}})
    }

    fn judged(object: Option<&Value>, other: Option<Value>) -> Remedy {
        let ip: IpAddr = "10.96.0.9".parse().unwrap();
        let ranges = ["10.96.0.0/24".parse().unwrap()];
        address(&service("a", "10.96.0.9"), ip, &ranges, object, |_, _| {
            other
        })
    }

    fn reason(remedy: &Remedy) -> &'static str {
        match remedy {
            Remedy::Nothing => "",
            Remedy::Write(None) => "silently",
            Remedy::Tell(one) | Remedy::Write(Some(one)) => one.reason,
        }
    }

    #[test]
    fn a_service_and_its_ip_address_say_the_same() {
        let ip: IpAddr = "10.96.0.9".parse().unwrap();
        let right = ip_address::of(ip, "d", "a");
        assert_eq!(judged(Some(&right), None), Remedy::Nothing);
        assert_eq!(reason(&judged(None, None)), "ClusterIPNotAllocated");

        let theirs = ip_address::of(ip, "d", "b");
        let gone = judged(Some(&theirs), None);
        assert!(matches!(gone, Remedy::Write(Some(_))), "{gone:?}");
        let both = judged(Some(&theirs), Some(service("b", "10.96.0.9")));
        assert!(matches!(both, Remedy::Tell(_)), "{both:?}");
        assert_eq!(reason(&both), "ClusterIPAlreadyAllocated");
        let elsewhere = judged(Some(&theirs), Some(service("b", "10.96.0.8")));
        assert!(matches!(elsewhere, Remedy::Write(Some(_))), "{elsewhere:?}");

        let mut gateway = right.clone();
        gateway["spec"]["parentRef"]["resource"] = json!("gateways");
        assert_eq!(
            reason(&judged(Some(&gateway), None)),
            "ClusterIPNotAllocated"
        );
        let mut unlabelled = right;
        unlabelled["metadata"]["labels"] = json!({});
        assert_eq!(reason(&judged(Some(&unlabelled), None)), "silently");
    }

    #[test]
    fn an_address_outside_of_all_ranges_is_only_told_of() {
        let ip: IpAddr = "10.97.0.9".parse().unwrap();
        let remedy = address(&service("a", "10.97.0.9"), ip, &[], None, |_, _| None);
        assert_eq!(reason(&remedy), "ClusterIPOutOfRange");
        assert!(matches!(remedy, Remedy::Tell(_)));
    }

    #[test]
    fn an_ip_address_without_its_service_goes_when_it_is_old_enough() {
        let object = ip_address::of("10.96.0.9".parse().unwrap(), "d", "a");
        let has = service("a", "10.96.0.9");
        assert_eq!(ip_object(&object, Some(&has), true), Verdict::Stays);
        assert_eq!(ip_object(&object, None, false), Verdict::Young);
        assert!(matches!(ip_object(&object, None, true), Verdict::Goes(_)));
        let moved = service("a", "10.96.0.8");
        assert!(matches!(
            ip_object(&object, Some(&moved), false),
            Verdict::Goes(_)
        ));
        let mut by_hand = object;
        by_hand["metadata"]["labels"] = json!({});
        assert_eq!(ip_object(&by_hand, None, true), Verdict::Stays);
    }

    #[test]
    fn a_node_port_is_one_services_and_in_the_range() {
        let of = |name: &str, port: i64| {
            let mut service = service(name, "10.96.0.9");
            service["spec"]["type"] = json!("NodePort");
            service["spec"]["ports"] = json!([
                {"port": 1, "protocol": "TCP", "nodePort": port},
                {"port": 1, "protocol": "UDP", "nodePort": port},
            ]);
            service
        };
        let services = [of("a", 30001), of("b", 30001), of("c", 80), of("d", 30002)];
        let found: Vec<(String, String)> = ports(&services, &(30000..=30099))
            .into_iter()
            .map(|(service, one)| (owner(service), one.message))
            .collect();
        assert_eq!(
            found,
            [
                (
                    "d/b".to_owned(),
                    "Port 30001 was assigned to multiple services; please recreate service"
                        .to_owned()
                ),
                (
                    "d/c".to_owned(),
                    "Port 80 is not within the port range 30000-30099; please recreate service"
                        .to_owned()
                ),
            ]
        );
    }
}
