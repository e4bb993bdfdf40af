//! Permanent neighbours: which Ethernet address an IP address has, told instead of asked (ARP, NDP).

use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use super::{Mac, RouteSocket, answer};
use crate::error::Result;

/// An entry of a link's neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The index of the link.
    pub link: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its Ethernet address; `None` while it is being asked for.
    pub mac: Option<Mac>,
    /// Whether it was told and never expires.
    pub permanent: bool,
}

impl RouteSocket {
    /// All neighbours in the namespace.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>> {
        let messages: Vec<NeighbourMessage> = self
            .handle
            .neighbours()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| answer("list", "neighbours", error))?;
        Ok(messages.iter().filter_map(neighbour_from).collect())
    }

    /// Sees to it that `address` has the Ethernet address `mac` on a link, for good.
    pub async fn ensure_neighbour(&self, link: u32, address: IpAddr, mac: Mac) -> Result<()> {
        self.handle
            .neighbours()
            .add(link, address)
            .link_layer_address(&mac.0)
            .replace()
            .execute()
            .await
            .map_err(|error| {
                answer(
                    "set neighbour",
                    format!("{address} at {mac} on link number {link}"),
                    error,
                )
            })
    }
}

/// `None` for entries that are about no IP address, as a bridge's forwarding table has.
fn neighbour_from(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::V4(*ip))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::V6(*ip))
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            _ => {}
        }
    }
    Some(Neighbour {
        link: message.header.ifindex,
        address: address?,
        mac,
        permanent: message.header.state == NeighbourState::Permanent,
    })
}
