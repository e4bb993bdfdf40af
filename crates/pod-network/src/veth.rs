//! A Pod's link: a veth pair between the Pod's network namespace and the node's.
//!
//! In the Pod: `eth0` with the address as a /32, so that no other address seems to be on the link, and a default
//! route to 169.254.1.1, which is nobody's address. In the node: a link named after the Pod's UID, without an
//! address, and a /32 route to the Pod. Each side has a *permanent neighbour* entry for the other, so there is
//! no ARP on the link: nothing to wait for at the first packet, to expire, or for a Pod to forge. Strict
//! reverse-path filtering on the node's side drops what a Pod sends with an address that is not its own.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use seaway_kernel::rtnl::{Link, Mac, Route, RouteKind, RouteSocket, Veth, VethPeer};
use seaway_kernel::{NetNs, Result, sysctl};

use crate::ROUTE_PROTOCOL;

/// What names of node-side links begin with.
const PREFIX: &str = "sw";
/// Hexadecimal digits behind it: with the prefix one less than a link name may have.
const DIGITS: usize = 12;
/// The Pod's link in its own namespace.
const POD_LINK: &str = "eth0";
/// The Pod's next hop to everywhere. Link-local (RFC 3927), so it is never in use beyond the link.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// The node's end of every pair. The same everywhere, as no two of them are on one link.
const NODE_MAC: Mac = Mac([0xee; 6]);

/// A Pod's link to make.
pub(crate) struct PodLink<'a> {
    pub(crate) uid: &'a str,
    pub(crate) address: Ipv4Addr,
    pub(crate) pod_netns: &'a NetNs,
    pub(crate) node_netns: &'a NetNs,
    pub(crate) node: &'a RouteSocket,
    /// What the node's own packets to the Pod have as their source.
    pub(crate) node_ip: IpAddr,
    /// In bytes: that of the link to the other nodes, as nothing is wrapped around the Pod's packets.
    pub(crate) mtu: u32,
}

impl PodLink<'_> {
    /// Sees to it that the link is there and works. Whatever of it is there already stays.
    pub(crate) async fn ensure(&self) -> Result<()> {
        let name = link_name(self.uid);
        let pod = RouteSocket::open(self.pod_netns)?;
        let (node_end, pod_end) = self.ends(&pod, &name).await?;
        self.set_up_pod(&pod, &pod_end).await?;
        self.set_up_node(&name, &node_end).await
    }

    /// Both ends of the pair, made if it is not there.
    async fn ends(&self, pod: &RouteSocket, name: &str) -> Result<(Link, Link)> {
        if let Some(node_end) = self.node.find_link(name).await?
            && let Some(pod_end) = pod.find_link(POD_LINK).await?
            && node_end.peer == Some(pod_end.index)
            && pod_end.peer == Some(node_end.index)
        {
            return Ok((node_end, pod_end));
        }
        // The Pod's namespace is another one than last time, or only half was made.
        self.node.remove_link(name).await?;
        pod.remove_link(POD_LINK).await?;
        let peer = VethPeer {
            name: POD_LINK,
            mac: Some(pod_mac(self.address)),
            netns: Some(self.pod_netns),
        };
        let veth = Veth {
            name,
            mac: Some(NODE_MAC),
            mtu: Some(self.mtu),
            master: None,
            peer,
        };
        self.node.add_veth(&veth).await?;
        Ok((self.node.link(name).await?, pod.link(POD_LINK).await?))
    }

    async fn set_up_pod(&self, pod: &RouteSocket, eth0: &Link) -> Result<()> {
        let loopback = pod.link("lo").await?;
        if !loopback.up {
            pod.set_up(loopback.index).await?;
        }
        pod.ensure_address(eth0.index, host_route(self.address))
            .await?;
        pod.set_up(eth0.index).await?;
        pod.ensure_neighbour(eth0.index, GATEWAY, NODE_MAC).await?;
        let everywhere = IpNet::V4(Ipv4Net::default());
        let default = Route::new(everywhere, RouteKind::Unicast, ROUTE_PROTOCOL)
            .via(GATEWAY)
            .dev(eth0.index)
            .on_link();
        pod.ensure_route(&default).await
    }

    async fn set_up_node(&self, name: &str, link: &Link) -> Result<()> {
        let path = |key: &str| format!("ipv4/conf/{name}/{key}");
        sysctl::set(
            self.node_netns,
            &[
                (&path("rp_filter"), "1"),
                // The Pod's next hop is right for every destination: never tell it of a better one.
                (&path("send_redirects"), "0"),
                (&path("accept_redirects"), "0"),
            ],
        )?;
        self.node
            .ensure_neighbour(link.index, self.address.into(), pod_mac(self.address))
            .await?;
        let to_pod = Route::new(host_route(self.address), RouteKind::Unicast, ROUTE_PROTOCOL);
        self.node
            .ensure_route(&to_pod.dev(link.index).src(self.node_ip))
            .await
    }
}

/// Takes a Pod's link away, and with it the Pod's `eth0` and all routes over them.
pub(crate) async fn remove(node: &RouteSocket, uid: &str) -> Result<()> {
    node.remove_link(&link_name(uid)).await?;
    Ok(())
}

/// Takes away the links of all Pods but the live ones. Links that others made stay.
pub(crate) async fn remove_others(
    node: &RouteSocket,
    live: impl Iterator<Item = &str>,
) -> Result<()> {
    let keep: std::collections::BTreeSet<String> = live.map(link_name).collect();
    for link in node.links().await? {
        if is_ours(&link) && !keep.contains(&link.name) {
            node.remove_link(&link.name).await?;
        }
    }
    Ok(())
}

fn is_ours(link: &Link) -> bool {
    let digits = link.name.strip_prefix(PREFIX);
    link.mac == Some(NODE_MAC)
        && link.kind.as_deref() == Some("veth")
        && digits.is_some_and(|d| d.len() == DIGITS && d.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The name of a Pod's link in the node: from a hash, as a link name has room for less than half of a UID.
///
/// FNV-1a with 64 bits, of which 48 are taken: two of a thousand Pods on a node share a name once in half a
/// billion nodes.
pub(crate) fn link_name(uid: &str) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = uid.bytes().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    format!("{PREFIX}{:0DIGITS$x}", hash >> 16)
}

/// A Pod's Ethernet address: locally administered, and the same whenever it has this address.
fn pod_mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x0a, 0x58, a, b, c, d])
}

fn host_route(address: Ipv4Addr) -> IpNet {
    IpNet::from(IpAddr::V4(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_name_fits_and_depends_on_the_whole_uid() {
        let name = link_name("6c84fb90-12c4-11e1-840d-7b25c5ee775a");
        assert_eq!(name.len(), 14);
        assert!(name.starts_with("sw"));
        assert_ne!(name, link_name("6c84fb90-12c4-11e1-840d-7b25c5ee775b"));
        assert_ne!(name, link_name("7c84fb90-12c4-11e1-840d-7b25c5ee775a"));
        // Kept over versions: a new agent must find the links of the old one.
        assert_eq!(link_name(""), "swcbf29ce48422");
    }
}
