//! Addresses of links.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};

use super::{RouteSocket, answer};
use crate::error::Result;

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The index of the link.
    pub link: u32,
    /// The address, with the prefix length of the network that is directly reachable.
    pub address: IpNet,
}

impl RouteSocket {
    /// All addresses in the namespace.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let messages: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| answer("list", "addresses", error))?;
        Ok(messages.iter().filter_map(address_from).collect())
    }

    /// Sees to it that a link has this address.
    pub async fn ensure_address(&self, link: u32, address: IpNet) -> Result<()> {
        self.ensure_address_of(AddressScope::Universe, link, address)
            .await
    }

    /// Sees to it that a link has this address for this machine only (scope `host`, as 127.0.0.1): it can be listened
    /// on and asked from here, but the kernel never chooses it as the source of a packet for somebody else.
    pub async fn ensure_host_address(&self, link: u32, address: IpNet) -> Result<()> {
        self.ensure_address_of(AddressScope::Host, link, address)
            .await
    }

    async fn ensure_address_of(
        &self,
        scope: AddressScope,
        link: u32,
        address: IpNet,
    ) -> Result<()> {
        let mut request = self
            .handle
            .address()
            .add(link, address.addr(), address.prefix_len());
        request.message_mut().header.scope = scope;
        let added = request.execute().await.map_err(|error| {
            answer(
                "add address",
                format!("{address} to link number {link}"),
                error,
            )
        });
        match added {
            Err(error) if error.is_already_there() => Ok(()),
            other => other,
        }
    }

    /// Takes an address from a link. Returns whether it was there.
    pub async fn remove_address(&self, link: u32, address: IpNet) -> Result<bool> {
        let mut request = self
            .handle
            .address()
            .add(link, address.addr(), address.prefix_len());
        let message = request.message_mut().clone();
        match self.handle.address().del(message).execute().await {
            Ok(()) => Ok(true),
            Err(error) => {
                let error = answer(
                    "remove address",
                    format!("{address} of link number {link}"),
                    error,
                );
                let absent =
                    error.is_not_found() || error.errno() == Some(nix::libc::EADDRNOTAVAIL);
                if absent { Ok(false) } else { Err(error) }
            }
        }
    }
}

/// `None` for what has no address of its own (IPv6 multicast and anycast memberships).
fn address_from(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    // On a point-to-point link, IFA_ADDRESS is the other end's; the own one is IFA_LOCAL. IPv6 has only the former.
    let own: IpAddr = local.or(address)?;
    let address = IpNet::new(own, message.header.prefix_len).ok()?;
    Some(Address {
        link: message.header.index,
        address,
    })
}
