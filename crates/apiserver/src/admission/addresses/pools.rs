//! What there is to give, and what is given: addresses of all ranges that are ready, and node ports.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::bands::Bands;
use super::claims::Claims;

/// Something that a Service has of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Share {
    /// A cluster address.
    Ip(IpAddr),
    /// A node port.
    Port(i64),
}

/// Why something cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is in no range.
    OutOfRange,
    /// Somebody else has it.
    Taken,
    /// There is none left.
    Full,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Of an address.
    pub(crate) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As objects write it; `None` for what is no family.
    pub(super) fn read(text: &str) -> Option<Self> {
        [Self::V4, Self::V6]
            .into_iter()
            .find(|family| family.text() == text)
    }

    /// As objects write it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pools {
    /// What the server was started with; the first is the default.
    families: Vec<Family>,
    /// The ranges of ServiceCIDRs, by name, and the revision that they are of: news may come late.
    cidrs: BTreeMap<String, (u64, Vec<IpNet>)>,
    /// Those of them that addresses are given out of.
    ranges: Vec<Range>,
    ips: Claims<IpAddr>,
    node_ports: RangeInclusive<u16>,
    port_order: Bands,
    ports: Claims<i64>,
    /// Claims that no Service has, and how often they were found so.
    suspects: HashMap<(Share, String), u32>,
    /// Whether the store is still being read.
    pub(super) learning: bool,
}

/// So often a claim must be found without its Service before it is taken back: a Service may be on its way.
/// Source: `numRepairsBeforeLeakCleanup`.
const SIGHTINGS: u32 = 3;

#[derive(Debug)]
struct Range {
    net: IpNet,
    order: Bands,
}

impl Range {
    /// Neither the network's own address nor, in IPv4, that of all hosts is given out; nothing of an IPv6 range that
    /// is larger than /64. Source: `NewIPAllocator`.
    fn new(net: IpNet) -> Self {
        let size = match net {
            IpNet::V4(v4) => 1_u128 << (32 - v4.prefix_len()),
            IpNet::V6(v6) if v6.prefix_len() < 64 => 0,
            IpNet::V6(v6) => 1_u128 << (128 - v6.prefix_len()),
        };
        let reserved = if matches!(net, IpNet::V4(_)) { 2 } else { 1 };
        let usable = u64::try_from(size.saturating_sub(reserved)).unwrap_or(u64::MAX);
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        Self {
            net,
            order: Bands::new(usable, static_band(size, 16, 256)),
        }
    }

    fn address(&self, number: u64) -> IpAddr {
        match self.net {
            IpNet::V4(v4) => {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                let base = u32::from(v4.network());
                IpAddr::V4(Ipv4Addr::from(
                    base.saturating_add(1).saturating_add(number),
                ))
            }
            IpNet::V6(v6) => {
                let base = u128::from(v6.network());
                IpAddr::V6(Ipv6Addr::from(base.saturating_add(1 + u128::from(number))))
            }
        }
    }

    fn number(&self, ip: IpAddr) -> Option<u64> {
        let distance = match (self.net, ip) {
            (IpNet::V4(net), IpAddr::V4(ip)) => {
                u128::from(u32::from(ip).checked_sub(u32::from(net.network()))?)
            }
            (IpNet::V6(net), IpAddr::V6(ip)) => {
                u128::from(ip).checked_sub(u128::from(net.network()))?
            }
            _ => return None,
        };
        u64::try_from(distance.checked_sub(1)?).ok()
    }
}

/// Whether a Service can have the address of this range. Source: `PrefixContainsIP` in `pkg/api/servicecidr`.
pub(crate) fn is_usable(net: &IpNet, ip: IpAddr) -> bool {
    let broadcast = matches!(net, IpNet::V4(v4) if IpAddr::V4(v4.broadcast()) == ip);
    net.contains(&ip) && ip != net.network() && !broadcast
}

/// How much of a range is kept for those who ask by name: a share of it, at least 16, nothing of a tiny range.
/// Source: `calculateRangeOffset`.
fn static_band(size: u64, share: u64, most: u64) -> u64 {
    const LEAST: u64 = 16;
    if size <= LEAST {
        return 0;
    }
    (size / share).clamp(LEAST, most)
}

impl Pools {
    pub(super) fn new(services: &[IpNet], node_ports: RangeInclusive<u16>) -> Self {
        let count = u64::try_from(node_ports.len()).unwrap_or(0);
        let mut families = Vec::new();
        for family in services.iter().map(|net| Family::of(net.addr())) {
            if !families.contains(&family) {
                families.push(family);
            }
        }
        Self {
            families,
            cidrs: BTreeMap::new(),
            ranges: Vec::new(),
            ips: Claims::new(),
            node_ports,
            port_order: Bands::new(count, static_band(count, 32, 128)),
            ports: Claims::new(),
            suspects: HashMap::new(),
            learning: true,
        }
    }

    /// The families that Services can have; the first is what they get.
    pub(super) fn families(&self) -> &[Family] {
        &self.families
    }

    /// A ServiceCIDR gives out addresses of these ranges; of none if it is gone or not ready.
    pub(super) fn set_ranges(&mut self, name: &str, revision: u64, nets: Vec<IpNet>) {
        let known = self.cidrs.get(name);
        if known.is_some_and(|(known, _)| *known > revision) {
            return;
        }
        self.cidrs.insert(name.to_owned(), (revision, nets));
        let all = self.cidrs.values().flat_map(|(_, nets)| nets);
        let wanted: Vec<IpNet> = all.copied().collect();
        self.ranges.retain(|range| wanted.contains(&range.net));
        for net in wanted {
            if !self.ranges.iter().any(|range| range.net == net) {
                self.ranges.push(Range::new(net));
            }
        }
    }

    /// Gives this share to the owner.
    pub(super) fn claim(&mut self, share: Share, owner: &str) -> Result<(), Refusal> {
        let (fits, claimed) = match share {
            Share::Ip(ip) => {
                let fits = self.ranges.iter().any(|range| is_usable(&range.net, ip));
                (fits, fits && self.ips.claim(ip, owner))
            }
            Share::Port(port) => {
                let fits = u16::try_from(port).is_ok_and(|port| self.node_ports.contains(&port));
                (fits, fits && self.ports.claim(port, owner))
            }
        };
        match (fits, claimed) {
            (false, _) => Err(Refusal::OutOfRange),
            (true, false) => Err(Refusal::Taken),
            (true, true) => Ok(()),
        }
    }

    /// Gives the owner what it has already, in range or not; `false` if somebody else has it.
    pub(super) fn learn(&mut self, share: Share, owner: &str) -> bool {
        match share {
            Share::Ip(ip) => self.ips.claim(ip, owner),
            Share::Port(port) => self.ports.claim(port, owner),
        }
    }

    /// Who has it.
    pub(super) fn owner(&self, share: Share) -> Option<&str> {
        match share {
            Share::Ip(ip) => self.ips.owner(ip),
            Share::Port(port) => self.ports.owner(port),
        }
    }

    /// The owner lets it go.
    pub(super) fn release(&mut self, share: Share, owner: &str) {
        let free = match share {
            Share::Ip(ip) => self.ips.release(ip, owner),
            Share::Port(port) => self.ports.release(port, owner),
        };
        if free {
            self.give_back(share);
        }
    }

    fn give_back(&mut self, share: Share) {
        match share {
            Share::Ip(ip) => {
                for range in &mut self.ranges {
                    if let Some(number) = range.number(ip) {
                        range.order.give_back(number);
                    }
                }
            }
            Share::Port(port) => {
                let first = i64::from(*self.node_ports.start());
                if let Ok(number) = u64::try_from(port - first) {
                    self.port_order.give_back(number);
                }
            }
        }
    }

    /// Gives the owner any free address of the family.
    pub(super) fn pick_ip(&mut self, family: Family, owner: &str) -> Result<IpAddr, Refusal> {
        for range in &mut self.ranges {
            if Family::of(range.net.addr()) != family {
                continue;
            }
            while let Some(number) = range.order.next() {
                let ip = range.address(number);
                if self.ips.owner(ip).is_none() && self.ips.claim(ip, owner) {
                    return Ok(ip);
                }
            }
        }
        Err(Refusal::Full)
    }

    /// Gives the owner any free node port.
    pub(super) fn pick_port(&mut self, owner: &str) -> Result<i64, Refusal> {
        while let Some(number) = self.port_order.next() {
            let port = i64::from(*self.node_ports.start()) + i64::try_from(number).unwrap_or(0);
            if self.ports.owner(port).is_none() && self.ports.claim(port, owner) {
                return Ok(port);
            }
        }
        Err(Refusal::Full)
    }

    /// Takes back what no Service has although it is claimed, when it was found so several times. `has` tells what the
    /// stored Services have. Returns what was taken back.
    pub(super) fn take_back_leaks(
        &mut self,
        has: impl Fn(Share, &str) -> bool,
    ) -> Vec<(Share, String)> {
        let ips = self.ips.all().map(|(ip, owner)| (Share::Ip(ip), owner));
        let ports = self.ports.all().map(|(p, owner)| (Share::Port(p), owner));
        let found: Vec<(Share, String)> = ips
            .chain(ports)
            .filter(|(share, owner)| !has(*share, owner))
            .map(|(share, owner)| (share, owner.to_owned()))
            .collect();
        self.suspects.retain(|suspect, _| found.contains(suspect));
        let mut leaks = Vec::new();
        for suspect in found {
            let sightings = self.suspects.entry(suspect.clone()).or_default();
            *sightings += 1;
            if *sightings >= SIGHTINGS {
                leaks.push(suspect);
            }
        }
        for (share, owner) in &leaks {
            self.suspects.remove(&(*share, owner.clone()));
            self.forfeit(*share, owner);
        }
        leaks
    }

    /// Takes a share from its owner, however often it was claimed; nothing happens if it is somebody else's.
    pub(super) fn forfeit(&mut self, share: Share, owner: &str) {
        let theirs = match share {
            Share::Ip(ip) => self.ips.forfeit(ip, owner),
            Share::Port(port) => self.ports.forfeit(port, owner),
        };
        if theirs {
            self.give_back(share);
        }
    }

    /// Why a share cannot be had, as Kubernetes words it. Source: `pkg/registry/core/service`, `ipallocator` and
    /// `portallocator`.
    pub(super) fn words(&self, share: Share, refusal: Refusal) -> String {
        match (refusal, share) {
            (Refusal::Full, _) => "range is full".to_owned(),
            (Refusal::Taken, Share::Ip(_)) => "provided IP is already allocated".to_owned(),
            (Refusal::Taken, Share::Port(_)) => "provided port is already allocated".to_owned(),
            (Refusal::OutOfRange, Share::Ip(_)) => {
                "the provided network does not match the current range".to_owned()
            }
            (Refusal::OutOfRange, Share::Port(_)) => format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.node_ports.start(),
                self.node_ports.end()
            ),
        }
    }

    /// The range of node ports.
    pub(super) fn node_ports(&self) -> &RangeInclusive<u16> {
        &self.node_ports
    }
}
