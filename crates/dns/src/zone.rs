//! What a name means: walks the tree of names that "Kubernetes DNS-Based Service Discovery" 1.1.0 describes.
//!
//! The answer tells apart what RFC 2308 and RFC 8020 tell apart: a name with records, a name that exists only
//! because others are below it, and a name that does not exist, which means that nothing below it does either.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use domain::base::Name;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::{Label, Protocol};
use crate::name::{self, FoldedName};
use crate::table::{EndpointRecords, ServiceRecords, Table};
use crate::{Config, Error};

/// Names that end so hold IPv4 addresses in reverse (RFC 1035 §3.5).
const REVERSE_V4: &str = "in-addr.arpa.";
/// Names that end so hold IPv6 addresses in reverse (RFC 3596 §2.5).
const REVERSE_V6: &str = "ip6.arpa.";
/// The longest that can stand left of the domain in a name that the server makes:
/// `<hostname>.<service>.<namespace>.svc.`
const LONGEST_FRONT: usize = 3 * 64 + 4;

/// What the server is configured to answer for.
#[derive(Debug, Clone)]
pub struct Zone {
    /// `<domain>`, in lower case.
    pub domain: Name<Vec<u8>>,
    /// `svc.<domain>`
    pub services: Name<Vec<u8>>,
    /// `ns.dns.<domain>`, the name of the server itself.
    pub name_server: Name<Vec<u8>>,
    /// `hostmaster.<domain>`, who is responsible for the zone.
    pub hostmaster: Name<Vec<u8>>,
    /// Addresses of the server itself.
    pub advertised: Vec<IpAddr>,
    /// How long an answer may be kept, in seconds.
    pub ttl_seconds: u32,
    /// Whether names that are neither of the cluster nor in its ranges can be asked for elsewhere.
    pub forwards: bool,
    old_form: bool,
    ranges: Vec<IpNet>,
    reverse_v4: Name<Vec<u8>>,
    reverse_v6: Name<Vec<u8>>,
    root: Name<Vec<u8>>,
    folded_domain: FoldedName,
    folded_reverse_v4: FoldedName,
    folded_reverse_v6: FoldedName,
}

/// The zone at whose top the SOA record of a negative answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apex {
    /// `<domain>`
    Cluster,
    /// `in-addr.arpa`
    ReverseV4,
    /// `ip6.arpa`
    ReverseV6,
    /// The root: there is no world outside, and the server says so itself.
    Root,
}

/// What a name means.
#[derive(Debug)]
pub enum Meaning<'t> {
    /// The domain itself.
    Domain,
    /// `dns-version.<domain>`
    Version,
    /// `ns.dns.<domain>`
    NameServer,
    /// `<service>.<namespace>.svc.<domain>`
    Service(&'t Arc<ServiceRecords>),
    /// `_<port>._<protocol>.<service>.<namespace>.svc.<domain>`, and there is such a port.
    Port {
        /// Whose port.
        service: &'t Arc<ServiceRecords>,
        /// `_<port>` in wire form.
        label: Label,
        /// Its protocol.
        protocol: Protocol,
    },
    /// `<hostname>.<service>.<namespace>.svc.<domain>`
    Endpoint {
        /// Whose endpoint.
        service: &'t Arc<ServiceRecords>,
        /// Its records.
        endpoint: &'t EndpointRecords,
    },
    /// `<address with dashes>.<namespace>.pod.<domain>`
    Pod(IpAddr),
    /// An address in reverse that leads somewhere.
    Address(IpAddr),
    /// It exists, for there are names below it, but has no records (RFC 8020, "empty non-terminal").
    Empty(Apex),
    /// It does not exist.
    Missing(Apex),
    /// It is not the cluster's business.
    Outside,
    /// It is the cluster's business, but not everything about the cluster is known yet.
    Unknown,
}

impl Zone {
    /// What `config` says.
    ///
    /// # Errors
    /// When the cluster domain is not a domain name, or so long that names of Services would not fit.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Domain {
            domain: config.cluster_domain.clone(),
            reason,
        };
        let text = config.cluster_domain.to_ascii_lowercase();
        let domain = Name::vec_from_str(&text).map_err(|error| refuse(error.to_string()))?;
        if domain.is_root() {
            return Err(refuse("it is empty".to_owned()));
        }
        if domain.len() + LONGEST_FRONT > 255 {
            return Err(refuse(
                "it is longer than 59 octets, so that names of Services may not fit".to_owned(),
            ));
        }
        let below = |labels: &[u8]| {
            name::join(labels, &domain).ok_or_else(|| refuse("it is too long".to_owned()))
        };
        let constant =
            |text: &str| Name::vec_from_str(text).map_err(|error| refuse(error.to_string()));
        let (reverse_v4, reverse_v6) = (constant(REVERSE_V4)?, constant(REVERSE_V6)?);
        Ok(Zone {
            services: below(b"\x03svc")?,
            name_server: below(b"\x02ns\x03dns")?,
            hostmaster: below(b"\x0ahostmaster")?,
            advertised: match config.advertised.is_empty() {
                true => config
                    .listen
                    .iter()
                    .map(|address| address.ip())
                    .filter(|ip| !ip.is_unspecified())
                    .collect(),
                false => config.advertised.clone(),
            },
            ttl_seconds: config.ttl_seconds,
            forwards: !config.upstreams.is_empty(),
            old_form: config.old_form,
            ranges: config
                .service_cidrs
                .iter()
                .chain(&config.pod_cidrs)
                .copied()
                .collect(),
            folded_domain: FoldedName::new(&domain),
            folded_reverse_v4: FoldedName::new(&reverse_v4),
            folded_reverse_v6: FoldedName::new(&reverse_v6),
            reverse_v4,
            reverse_v6,
            root: Name::root_vec(),
            domain,
        })
    }

    /// The name at the top of a zone.
    pub fn apex(&self, apex: Apex) -> &Name<Vec<u8>> {
        match apex {
            Apex::Cluster => &self.domain,
            Apex::ReverseV4 => &self.reverse_v4,
            Apex::ReverseV6 => &self.reverse_v6,
            Apex::Root => &self.root,
        }
    }

    /// What `name` means in `table`.
    pub fn meaning<'t>(&self, name: &FoldedName, table: &'t Table) -> Meaning<'t> {
        if let Some(left) = name.below(&self.folded_domain) {
            return match table.complete {
                true => self.in_cluster(name, left, table),
                false => Meaning::Unknown,
            };
        }
        let (apex, range) = match (
            name.below(&self.folded_reverse_v4),
            name.below(&self.folded_reverse_v6),
        ) {
            (Some(left), _) => (Apex::ReverseV4, reverse_v4(name, left)),
            (None, Some(left)) => (Apex::ReverseV6, reverse_v6(name, left)),
            (None, None) => return self.outside(),
        };
        match range {
            Some(range) => self.in_reverse(range, apex, table),
            None => self.outside(),
        }
    }

    fn outside<'t>(&self) -> Meaning<'t> {
        match self.forwards {
            true => Meaning::Outside,
            false => Meaning::Missing(Apex::Root),
        }
    }

    /// `left` labels of `name` are left of the domain.
    fn in_cluster<'t>(&self, name: &FoldedName, left: usize, table: &'t Table) -> Meaning<'t> {
        let missing = Meaning::Missing(Apex::Cluster);
        let Some(last) = left.checked_sub(1) else {
            return Meaning::Domain;
        };
        match (name.label(last), last) {
            (b"svc", _) => in_services(name, last, table),
            (b"pod", _) => in_pods(name, last, table),
            (b"dns", 0) => Meaning::Empty(Apex::Cluster),
            (b"dns", 1) if name.label(0) == b"ns" => Meaning::NameServer,
            (b"dns-version", 0) => Meaning::Version,
            (b"dns" | b"dns-version", _) => missing,
            _ if self.old_form => in_services(name, left, table),
            _ => missing,
        }
    }

    fn in_reverse<'t>(&self, range: IpNet, apex: Apex, table: &'t Table) -> Meaning<'t> {
        let own = self.ranges.iter().any(|own| own.contains(&range));
        let single = range.prefix_len() == range.max_prefix_len();
        if table.has_pointer_within(range) {
            return match single {
                true => Meaning::Address(range.addr()),
                false => Meaning::Empty(apex),
            };
        }
        match own {
            true if !table.complete => Meaning::Unknown,
            true => Meaning::Missing(apex),
            false if self.ranges.iter().any(|own| range.contains(own)) => Meaning::Empty(apex),
            false => self.outside(),
        }
    }
}

/// Labels 0 to `end` of `name` are left of `svc.<domain>`.
fn in_services<'t>(name: &FoldedName, end: usize, table: &'t Table) -> Meaning<'t> {
    let missing = Meaning::Missing(Apex::Cluster);
    let empty = Meaning::Empty(Apex::Cluster);
    if end < 2 {
        return match end == 0 || table.has_namespace(name.range(end - 1, end)) {
            true => empty,
            false => missing,
        };
    }
    let Some(service) = table.service(name.range(end - 2, end)) else {
        return missing;
    };
    match end {
        // A headless Service without endpoints has no record, nor has any name below it.
        2 if matches!(service.kind, crate::table::RecordsKind::Headless)
            && service.endpoints.is_empty() =>
        {
            missing
        }
        2 => Meaning::Service(service),
        3 => match Protocol::from_label(name.label(0)) {
            Some(protocol) if service.has_named_port(protocol) => empty,
            Some(_) => missing,
            None => match service.endpoint(name.label(0)) {
                Some(endpoint) => Meaning::Endpoint { service, endpoint },
                None => missing,
            },
        },
        4 => {
            let label = name.range(0, 1);
            let Some(protocol) = Protocol::from_label(name.label(1)) else {
                return missing;
            };
            let is_asked = |port: &crate::model::Port| {
                port.protocol == protocol && port.service_label.as_deref() == Some(label)
            };
            match service.ports.iter().any(is_asked) {
                true => Meaning::Port {
                    service,
                    label: label.into(),
                    protocol,
                },
                false => missing,
            }
        }
        _ => missing,
    }
}

/// Labels 0 to `end` of `name` are left of `pod.<domain>`. Every address that a name spells has that record,
/// whether there is such a Pod or not (CoreDNS calls this `pods insecure`), as long as the namespace exists.
fn in_pods<'t>(name: &FoldedName, end: usize, table: &'t Table) -> Meaning<'t> {
    let missing = Meaning::Missing(Apex::Cluster);
    if end == 0 {
        return Meaning::Empty(Apex::Cluster);
    }
    if !table.has_namespace(name.range(end - 1, end)) {
        return missing;
    }
    match end {
        1 => Meaning::Empty(Apex::Cluster),
        2 => dashed_address(name.label(0)).map_or(missing, Meaning::Pod),
        _ => missing,
    }
}

/// The address that a label spells with dashes.
fn dashed_address(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label)
        .ok()
        .filter(|text| !text.contains(['.', ':']))?;
    let v4 = text.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| text.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6))
        .ok()
}

/// The range of addresses at and below a reverse name, `left` labels of which are left of `in-addr.arpa`.
fn reverse_v4(name: &FoldedName, left: usize) -> Option<IpNet> {
    let mut octets = [0; 4];
    let bits = 8 * u8::try_from(left).ok()?;
    for (place, index) in octets.get_mut(..left)?.iter_mut().zip((0..left).rev()) {
        let text = std::str::from_utf8(name.label(index)).ok()?;
        // Only the plain form: no sign, no leading zero.
        if text.is_empty()
            || (text.len() > 1 && text.starts_with('0'))
            || !text.bytes().all(|c| c.is_ascii_digit())
        {
            return None;
        }
        *place = text.parse().ok()?;
    }
    Ipv4Net::new(octets.into(), bits).ok().map(IpNet::V4)
}

/// The range of addresses at and below a reverse name, `left` labels of which are left of `ip6.arpa`.
fn reverse_v6(name: &FoldedName, left: usize) -> Option<IpNet> {
    let mut address: u128 = 0;
    let bits = 4 * u8::try_from(left).ok().filter(|left| *left <= 32)?;
    for index in 0..left {
        let &[digit] = name.label(index) else {
            return None;
        };
        let digit = (digit as char).to_digit(16)?;
        address |= u128::from(digit) << (4 * (32 - left + index));
    }
    Ipv6Net::new(address.into(), bits).ok().map(IpNet::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> FoldedName {
        FoldedName::new(&Name::vec_from_str(text).unwrap())
    }

    #[test]
    fn a_label_with_dashes_spells_an_address_or_none() {
        for (label, address) in [
            ("10-244-1-10", Some("10.244.1.10")),
            ("fd00-3--1", Some("fd00:3::1")),
            ("--1", Some("::1")),
            ("1-2-3", None),
            ("1-2-3-4-5", None),
            ("010-1-1-1", None),
            ("256-1-1-1", None),
            ("10.1.1.1", None),
            ("fd00::1", None),
            ("web", None),
            ("", None),
        ] {
            assert_eq!(
                dashed_address(label.as_bytes()),
                address.map(|text| text.parse().unwrap()),
                "{label}"
            );
        }
        assert_eq!(dashed_address(b"\xff"), None);
    }

    #[test]
    fn a_reverse_name_is_a_range_of_addresses() {
        for (name, range) in [
            ("1.0.96.10.in-addr.arpa.", Some("10.96.0.1/32")),
            ("96.10.in-addr.arpa.", Some("10.96.0.0/16")),
            ("in-addr.arpa.", Some("0.0.0.0/0")),
            ("01.0.96.10.in-addr.arpa.", None),
            ("256.0.96.10.in-addr.arpa.", None),
            ("+1.0.96.10.in-addr.arpa.", None),
            ("9.1.0.96.10.in-addr.arpa.", None),
            ("x.96.10.in-addr.arpa.", None),
        ] {
            let name = folded(name);
            let left = name.labels() - 2;
            assert_eq!(
                reverse_v4(&name, left),
                range.map(|text| text.parse().unwrap())
            );
        }
        let digits = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.0.0.D.F.ip6.arpa.";
        assert_eq!(
            reverse_v6(&folded(digits), 32),
            Some("fd00:3::1/128".parse().unwrap())
        );
        assert_eq!(
            reverse_v6(&folded("0.0.d.f.ip6.arpa."), 4),
            Some("fd00::/16".parse().unwrap())
        );
        assert_eq!(reverse_v6(&folded("10.d.f.ip6.arpa."), 3), None);
        assert_eq!(reverse_v6(&folded("g.ip6.arpa."), 1), None);
        assert_eq!(reverse_v6(&folded(&format!("0.{digits}")), 33), None);
    }

    #[test]
    fn a_domain_must_leave_room_for_names() {
        let config = |domain: &str| Config {
            cluster_domain: domain.to_owned(),
            ..Config::new(vec![])
        };
        assert!(Zone::new(&config("Cluster.Local")).is_ok());
        assert!(Zone::new(&config("cluster.local.")).is_ok());
        let longest = format!("{}.{}", "a".repeat(28), "b".repeat(28));
        assert!(Zone::new(&config(&longest)).is_ok());
        for bad in ["", ".", "a..b", &format!("c{longest}"), &"a".repeat(64)] {
            let error = Zone::new(&config(bad)).expect_err(bad).to_string();
            assert!(
                error.contains("cluster domain") && error.contains("cluster.local"),
                "{error}"
            );
        }
    }
}
