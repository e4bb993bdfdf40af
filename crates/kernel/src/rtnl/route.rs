//! Routes.
//!
//! Every route carries the number of who made it (its *protocol*, as in `ip route show proto 83`). That is how
//! a component finds its own routes again after a restart and leaves those of others alone.

use std::fmt;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};

use super::{RouteSocket, answer};
use crate::error::Result;

/// The number of the table that packets are routed by unless a rule says otherwise.
pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// What happens to packets that a route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// They go on, to the gateway or out of the device.
    Unicast,
    /// They are for this machine.
    Local,
    /// They are dropped and the sender gets an ICMP "host unreachable" (`EHOSTUNREACH` here).
    Unreachable,
    /// They are dropped silently (`EINVAL` here).
    Blackhole,
    /// They are dropped and the sender gets an ICMP "administratively prohibited" (`EACCES` here).
    Prohibit,
    /// Another kind, by its number in `linux/rtnetlink.h` (`RTN_*`). Only ever read, never made here.
    Other(u8),
}

/// A route, both as one to make and as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The addresses that it is for; `0.0.0.0/0` or `::/0` is the default route.
    pub destination: IpNet,
    /// What happens to their packets.
    pub kind: RouteKind,
    /// The next hop; `None` if the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The index of the link they leave by.
    pub device: Option<u32>,
    /// The gateway is on the link although no address of the link says so.
    pub on_link: bool,
    /// The source address that this machine takes for packets of its own.
    pub source: Option<IpAddr>,
    /// Of several routes for one destination, the lowest metric wins. 0 is the lowest; IPv6 reads 0 as 1024.
    pub metric: u32,
    /// Who made it (`RTPROT_*`; 2 is the kernel itself, 4 an administrator).
    pub protocol: u8,
    /// The table it is in.
    pub table: u32,
}

impl Route {
    /// A route of `kind` to `destination` in the main table, made by `protocol`. What it lacks, the other
    /// methods add.
    pub fn new(destination: IpNet, kind: RouteKind, protocol: u8) -> Self {
        Self {
            destination: destination.trunc(),
            kind,
            gateway: None,
            device: None,
            on_link: false,
            source: None,
            metric: 0,
            protocol,
            table: MAIN_TABLE,
        }
    }

    /// By way of the next hop `gateway`.
    pub fn via(self, gateway: IpAddr) -> Self {
        Self {
            gateway: Some(gateway),
            ..self
        }
    }

    /// Out of the link with index `device`.
    pub fn dev(self, device: u32) -> Self {
        Self {
            device: Some(device),
            ..self
        }
    }

    /// With the gateway taken to be on the link.
    pub fn on_link(self) -> Self {
        Self {
            on_link: true,
            ..self
        }
    }

    /// With this source address for packets of the machine's own.
    pub fn src(self, source: IpAddr) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }

    /// With this metric.
    pub fn metric(self, metric: u32) -> Self {
        Self { metric, ..self }
    }
}

impl fmt::Display for Route {
    /// Much as `ip route` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Unicast => {}
            RouteKind::Local => write!(f, "local ")?,
            RouteKind::Unreachable => write!(f, "unreachable ")?,
            RouteKind::Blackhole => write!(f, "blackhole ")?,
            RouteKind::Prohibit => write!(f, "prohibit ")?,
            RouteKind::Other(number) => write!(f, "kind {number} ")?,
        }
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(device) = self.device {
            write!(f, " dev #{device}")?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        if self.on_link {
            write!(f, " onlink")?;
        }
        Ok(())
    }
}

impl RouteSocket {
    /// All routes of the namespace, IPv4 and IPv6, in all tables.
    pub async fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let messages: Vec<RouteMessage> = self
                .handle
                .route()
                .get(request)
                .execute()
                .try_collect()
                .await
                .map_err(|error| answer("list", "routes", error))?;
            routes.extend(messages.iter().filter_map(route_from));
        }
        Ok(routes)
    }

    /// Sees to it that this route is there. It takes the place of one with the same destination and metric in
    /// the same table, whoever made that.
    pub async fn ensure_route(&self, route: &Route) -> Result<()> {
        self.handle
            .route()
            .add(message_from(route))
            .replace()
            .execute()
            .await
            .map_err(|error| answer("set route", route.to_string(), error))
    }

    /// Deletes this route. Returns whether it was there.
    pub async fn remove_route(&self, route: &Route) -> Result<bool> {
        match self.handle.route().del(message_from(route)).execute().await {
            Ok(()) => Ok(true),
            Err(error) => {
                let error = answer("delete route", route.to_string(), error);
                if error.is_not_found() {
                    Ok(false)
                } else {
                    Err(error)
                }
            }
        }
    }
}

fn message_from(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = match route.destination {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Local => RouteType::Local,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Prohibit => RouteType::Prohibit,
        RouteKind::Other(number) => RouteType::Other(number),
    };
    // As iproute2 chooses it; the kernel rejects a gateway on a route whose scope is the link itself.
    message.header.scope = match (route.kind, route.gateway) {
        (RouteKind::Unicast, None) => RouteScope::Link,
        (RouteKind::Local, _) => RouteScope::Host,
        _ => RouteScope::Universe,
    };
    if route.on_link {
        message.header.flags.insert(RouteFlags::Onlink);
    }
    // The header's field has one byte; the attribute stands for it where the number is larger.
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes.push(RouteAttribute::Table(route.table));
    if route.destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(wire(
            route.destination.network(),
        )));
    }
    if let Some(gateway) = route.gateway {
        message
            .attributes
            .push(RouteAttribute::Gateway(wire(gateway)));
    }
    if let Some(device) = route.device {
        message.attributes.push(RouteAttribute::Oif(device));
    }
    if let Some(source) = route.source {
        message
            .attributes
            .push(RouteAttribute::PrefSource(wire(source)));
    }
    if route.metric != 0 {
        message
            .attributes
            .push(RouteAttribute::Priority(route.metric));
    }
    message
}

/// `None` for what is not a route of the tables: entries of the IPv6 cache, multicast routing, MPLS.
fn route_from(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let everywhere: IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut destination = everywhere;
    let mut route = Route::new(
        IpNet::from(everywhere),
        kind_from(header.kind),
        header.protocol.into(),
    );
    route.table = u32::from(header.table);
    route.on_link = header.flags.contains(RouteFlags::Onlink);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Oif(index) => route.device = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(table) => route.table = *table,
            _ => {}
        }
    }
    route.destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    Some(route)
}

fn kind_from(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Prohibit => RouteKind::Prohibit,
        other => RouteKind::Other(other.into()),
    }
}

fn wire(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_route_survives_the_way_to_the_wire_and_back() {
        let routes = [
            Route::new(net("10.244.1.0/24"), RouteKind::Unicast, 83)
                .via(ip("10.87.0.3"))
                .dev(2),
            Route::new(net("0.0.0.0/0"), RouteKind::Unicast, 83)
                .via(ip("169.254.1.1"))
                .dev(2)
                .on_link(),
            Route::new(net("10.96.0.0/12"), RouteKind::Unreachable, 84).metric(4_000_000_000),
            Route::new(net("10.96.0.0/12"), RouteKind::Unicast, 84)
                .dev(3)
                .src(ip("10.87.0.2")),
            Route::new(net("fd00::/64"), RouteKind::Blackhole, 84).metric(10),
        ];
        for route in routes {
            assert_eq!(route_from(&message_from(&route)), Some(route));
        }
    }

    #[test]
    fn a_route_reads_as_ip_route_writes_it() {
        let route = Route::new(net("10.244.1.7/24"), RouteKind::Unicast, 83)
            .via(ip("10.87.0.3"))
            .dev(2)
            .metric(7);
        assert_eq!(
            route.to_string(),
            "10.244.1.0/24 via 10.87.0.3 dev #2 metric 7"
        );
        let wall = Route::new(net("10.96.0.0/12"), RouteKind::Unreachable, 84);
        assert_eq!(wall.to_string(), "unreachable 10.96.0.0/12");
    }
}
