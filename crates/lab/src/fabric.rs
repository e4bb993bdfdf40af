//! The network of a lab: a bridge in a namespace of its own that nodes and host are plugged into, a namespace for
//! each node, and on the host the routes into the lab with a floor of `unreachable` routes below them.
//!
//! Everything but those routes lives in namespaces that only the supervisor holds, so it goes with the supervisor.

use std::net::{IpAddr, Ipv4Addr};

use futures::future::try_join_all;
use ipnet::{IpNet, Ipv4Net};

use seaway_kernel::netns::NetNs;
use seaway_kernel::rtnl::{Bridge, Route, RouteKind, RouteSocket, Veth, VethPeer};
use seaway_kernel::sysctl;

use crate::error::Error;
use crate::gateway;
use crate::ranges::{Ranges, Wanted, choose};
use crate::spec::LabSpec;

/// Marks routes as ours (`ip route show proto 83`): the *S* of Seaway, free in `rt_protos`.
pub const ROUTE_PROTOCOL: u8 = 83;
/// Metric of the floor: whatever else there is wins, and nothing that the lab has given up gets past it.
const FLOOR_METRIC: u32 = 1_000_000_000;
/// Metric of the host's way to all Pods, by the first node: the direct way to each node's own Pods wins.
const DETOUR_METRIC: u32 = 1_000;
/// A node's link to the fabric.
const NODE_LINK: &str = "eth0";

/// The network of a running lab. Dropping it closes its namespaces; [`Fabric::remove`] also takes the host's routes.
#[derive(Debug)]
pub struct Fabric {
    spec: LabSpec,
    nodes: Vec<NetNs>,
    _bridge: NetNs,
}

/// Name of the host's link into a lab.
pub fn host_link(lab: &str) -> String {
    format!("sw-{lab}")
}

fn ranges_of(spec: &LabSpec) -> [Ipv4Net; 3] {
    [spec.node_cidr, spec.pod_cidr, spec.service_cidr]
}

fn floor(range: Ipv4Net) -> Route {
    Route::new(range.into(), RouteKind::Unreachable, ROUTE_PROTOCOL).metric(FLOOR_METRIC)
}

impl Fabric {
    /// Makes the network of a lab; the host is the namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel refused. What was made until then is gone when the process ends; the host's routes are
    /// removed by [`crate::cleanup::network`].
    pub async fn create(spec: &LabSpec) -> Result<Self, Error> {
        let failed = |error: seaway_kernel::Error| Error::step("making the lab's network", error);
        let host = NetNs::current().map_err(failed)?;
        let bridge = NetNs::new().map_err(failed)?;
        let nodes = (0..spec.nodes)
            .map(|_| node_namespace())
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let fabric = Self {
            spec: spec.clone(),
            nodes,
            _bridge: bridge.clone(),
        };
        fabric.connect(&host, &bridge).await.map_err(failed)?;
        if spec.internet {
            gateway::open(spec, &host)?;
        }
        Ok(fabric)
    }

    /// The namespace of a node, counted from 0. `None` when there is no such node.
    pub fn node_netns(&self, index: usize) -> Option<&NetNs> {
        self.nodes.get(index)
    }

    async fn connect(&self, host: &NetNs, bridge: &NetNs) -> Result<(), seaway_kernel::Error> {
        let spec = &self.spec;
        let on_host = RouteSocket::open(host)?;
        // First the floor: from here on no packet for the lab can leave the machine.
        for range in ranges_of(spec) {
            on_host.ensure_route(&floor(range)).await?;
        }
        let on_bridge = RouteSocket::open(bridge)?;
        on_bridge
            .add_bridge(&Bridge {
                name: "fabric",
                mac: None,
                mtu: None,
            })
            .await?;
        let master = on_bridge.link("fabric").await?.index;
        on_bridge.set_up(master).await?;
        let plug = async |port: &str, peer: &str, netns: &NetNs| {
            on_bridge
                .add_veth(&Veth {
                    name: port,
                    mac: None,
                    mtu: None,
                    master: Some(master),
                    peer: VethPeer {
                        name: peer,
                        mac: None,
                        netns: Some(netns),
                    },
                })
                .await
        };
        plug("host", &host_link(&spec.name), host).await?;
        let nodes = spec.node_list();
        try_join_all(
            self.nodes
                .iter()
                .zip(&nodes)
                .map(async |(netns, (name, address))| {
                    plug(name, NODE_LINK, netns).await?;
                    connect_node(spec, netns, *address).await
                }),
        )
        .await?;

        let link = on_host.link(&host_link(&spec.name)).await?.index;
        on_host
            .ensure_address(link, subnet(spec, spec.host_address()))
            .await?;
        on_host.set_up(link).await?;
        let first = IpAddr::V4(spec.node_address(0));
        for (range, metric) in [(spec.service_cidr, 0), (spec.pod_cidr, DETOUR_METRIC)] {
            let route = Route::new(range.into(), RouteKind::Unicast, ROUTE_PROTOCOL);
            on_host
                .ensure_route(&route.via(first).dev(link).metric(metric))
                .await?;
        }
        Ok(())
    }

    /// Takes the network away: the lab's links first, the floor last.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove(self) -> Result<(), Error> {
        let spec = self.spec.clone();
        drop(self);
        remove_from_host(&spec).await
    }
}

/// A node's namespace before it has any link: what is set here its links take over.
fn node_namespace() -> Result<NetNs, seaway_kernel::Error> {
    let netns = NetNs::new()?;
    sysctl::enable_forwarding(&netns)?;
    sysctl::set(
        &netns,
        &[
            // A reply may leave by another link than the one its request came in by.
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            // Nodes pass packets on along the link they came by; telling the sender of a shorter way would
            // lead it past the node's address translation.
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
            ("ipv4/conf/all/accept_redirects", "0"),
            ("ipv4/conf/default/accept_redirects", "0"),
        ],
    )?;
    Ok(netns)
}

async fn connect_node(
    spec: &LabSpec,
    netns: &NetNs,
    address: Ipv4Addr,
) -> Result<(), seaway_kernel::Error> {
    let node = RouteSocket::open(netns)?;
    let link = node.link(NODE_LINK).await?.index;
    node.ensure_address(link, subnet(spec, address)).await?;
    node.set_up(link).await?;
    // What the node itself sends to a Service must find some route, or it never gets to where its destination is
    // translated.
    let services = Route::new(spec.service_cidr.into(), RouteKind::Unicast, ROUTE_PROTOCOL);
    node.ensure_route(&services.dev(link).src(address.into()))
        .await?;
    // A Pod that is gone must not be looked for beyond the lab.
    node.ensure_route(&floor(spec.pod_cidr)).await?;
    if spec.internet {
        let default = Route::new(
            Ipv4Net::default().into(),
            RouteKind::Unicast,
            ROUTE_PROTOCOL,
        );
        node.ensure_route(&default.via(spec.host_address().into()).dev(link))
            .await?;
    }
    Ok(())
}

/// An address with the prefix length of the node range.
fn subnet(spec: &LabSpec, address: Ipv4Addr) -> IpNet {
    Ipv4Net::new(address, spec.node_cidr.prefix_len())
        .map_or_else(|_| IpNet::from(IpAddr::V4(address)), IpNet::V4)
}

/// Takes everything that the host has of a lab away. There may be none of it, or only some.
pub(crate) async fn remove_from_host(spec: &LabSpec) -> Result<(), Error> {
    let failed = |error: seaway_kernel::Error| Error::step("removing the lab's network", error);
    let host = NetNs::current().map_err(failed)?;
    gateway::close(spec, &host)?;
    let routes = RouteSocket::open(&host).map_err(failed)?;
    // The routes by the link go with it.
    routes
        .remove_link(&host_link(&spec.name))
        .await
        .map_err(failed)?;
    for range in ranges_of(spec) {
        routes.remove_route(&floor(range)).await.map_err(failed)?;
    }
    Ok(())
}

/// Chooses ranges that neither this machine's routes nor other labs use.
///
/// # Errors
/// [`Error::BadOption`] names the option to use.
pub async fn choose_ranges(wanted: &Wanted, others: &[LabSpec]) -> Result<Ranges, Error> {
    let failed =
        |error: seaway_kernel::Error| Error::step("looking at this machine's routes", error);
    let socket = NetNs::current()
        .and_then(|host| RouteSocket::open(&host))
        .map_err(failed)?;
    let routes = socket.routes().await.map_err(failed)?;
    let mut taken: Vec<Ipv4Net> = routes
        .iter()
        .filter_map(|route| match route.destination {
            IpNet::V4(range) if range.prefix_len() > 0 => Some(range),
            IpNet::V4(_) | IpNet::V6(_) => None,
        })
        .collect();
    taken.extend(others.iter().flat_map(ranges_of));
    choose(wanted, &taken)
}
