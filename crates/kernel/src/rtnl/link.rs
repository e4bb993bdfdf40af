//! Links: veth pairs, bridges, and what can be set on any link.

use std::fmt;
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};

use super::{RouteSocket, answer};
use crate::error::{Error, Result};
use crate::netns::NetNs;

/// The longest link name in bytes (IFNAMSIZ without its NUL).
const NAME_LIMIT: usize = 15;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number within its network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What kind of virtual link it is (`veth`, `bridge`); `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// The largest packet that it takes, in bytes.
    pub mtu: u32,
    /// Whether it is set up (by an administrator; its carrier may be missing).
    pub up: bool,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// For one end of a veth pair, the index of the other end in that end's namespace.
    pub peer: Option<u32>,
}

/// One end of a veth pair to make, in the socket's own namespace.
#[derive(Debug, Clone)]
pub struct Veth<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its Ethernet address; the kernel picks a random one if `None`.
    pub mac: Option<Mac>,
    /// The largest packet in bytes, for both ends; 1500 if `None`.
    pub mtu: Option<u32>,
    /// The index of the bridge that it becomes a port of.
    pub master: Option<u32>,
    /// The other end.
    pub peer: VethPeer<'a>,
}

/// The other end of a veth pair to make.
#[derive(Debug, Clone)]
pub struct VethPeer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its Ethernet address; the kernel picks a random one if `None`.
    pub mac: Option<Mac>,
    /// The namespace in which it is made; the socket's own if `None`.
    pub netns: Option<&'a NetNs>,
}

/// A bridge to make.
#[derive(Debug, Clone)]
pub struct Bridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its Ethernet address. If `None`, it takes the lowest of its ports' and changes as they come and go.
    pub mac: Option<Mac>,
    /// The largest packet in bytes; that of its ports if `None`.
    pub mtu: Option<u32>,
}

impl RouteSocket {
    /// All links of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| answer("list", "links", error))?;
        Ok(messages.iter().map(link_from).collect())
    }

    /// The link with this name, if there is one.
    pub async fn find_link(&self, name: &str) -> Result<Option<Link>> {
        check_name("find link", name)?;
        let mut found = Box::pin(self.handle.link().get().match_name(name).execute());
        match found.try_next().await {
            Ok(message) => Ok(message.as_ref().map(link_from)),
            Err(error) => {
                let error = answer("find link", name, error);
                if error.is_not_found() {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
        }
    }

    /// The link with this name; an error if there is none.
    pub async fn link(&self, name: &str) -> Result<Link> {
        self.find_link(name).await?.ok_or_else(|| Error::NotFound {
            operation: "find link",
            object: name.to_owned(),
        })
    }

    /// Makes a veth pair, the peer in its own namespace from the first moment on. The own end is set up; the peer
    /// is not (the kernel does not allow it in the same step): its side does that, once it has its address.
    pub async fn add_veth(&self, veth: &Veth<'_>) -> Result<()> {
        check_name("add link", veth.name)?;
        check_name("add link", veth.peer.name)?;
        let mut peer = end(
            LinkMessageBuilder::<LinkUnspec>::new(),
            veth.peer.name,
            veth.peer.mac,
            veth.mtu,
        );
        if let Some(netns) = veth.peer.netns {
            peer = peer.setns_by_fd(netns.as_raw_fd());
        }
        let own = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth);
        let mut own = end(own, veth.name, veth.mac, veth.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
            .up();
        if let Some(master) = veth.master {
            own = own.controller(master);
        }
        self.handle
            .link()
            .add(own.build())
            .execute()
            .await
            .map_err(|error| answer("add link", format!("{} (veth)", veth.name), error))
    }

    /// Makes a bridge and sets it up.
    pub async fn add_bridge(&self, bridge: &Bridge<'_>) -> Result<()> {
        check_name("add link", bridge.name)?;
        let mut message = LinkBridge::new(bridge.name);
        if let Some(Mac(bytes)) = bridge.mac {
            message = message.address(bytes.to_vec());
        }
        if let Some(mtu) = bridge.mtu {
            message = message.mtu(mtu);
        }
        self.handle
            .link()
            .add(message.build())
            .execute()
            .await
            .map_err(|error| answer("add link", format!("{} (bridge)", bridge.name), error))
    }

    /// Sets a link up.
    pub async fn set_up(&self, index: u32) -> Result<()> {
        self.change_link("set up", index, LinkUnspec::new_with_index(index).up())
            .await
    }

    /// Sets a link down.
    pub async fn set_down(&self, index: u32) -> Result<()> {
        self.change_link("set down", index, LinkUnspec::new_with_index(index).down())
            .await
    }

    /// Gives a link another name.
    pub async fn rename(&self, index: u32, name: &str) -> Result<()> {
        check_name("rename", name)?;
        self.change_link(
            "rename",
            index,
            LinkUnspec::new_with_index(index).name(name),
        )
        .await
    }

    /// Makes a link a port of the bridge `master`, or of none.
    pub async fn set_master(&self, index: u32, master: Option<u32>) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).controller(master.unwrap_or(0));
        self.change_link("set bridge of", index, message).await
    }

    /// Sets the largest packet that a link takes, in bytes.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.change_link(
            "set MTU of",
            index,
            LinkUnspec::new_with_index(index).mtu(mtu),
        )
        .await
    }

    /// Sets a link's Ethernet address.
    pub async fn set_mac(&self, index: u32, mac: Mac) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).address(mac.0.to_vec());
        self.change_link("set MAC address of", index, message).await
    }

    /// Moves a link into another namespace. There it is down and without addresses.
    pub async fn move_link(&self, index: u32, netns: &NetNs) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).setns_by_fd(netns.as_raw_fd());
        self.change_link("move", index, message).await
    }

    /// Deletes the link with this name, and with one end of a veth pair the other. Returns whether there was one.
    pub async fn remove_link(&self, name: &str) -> Result<bool> {
        check_name("delete link", name)?;
        // By name, so that lookup and deletion are one step.
        let message = LinkUnspec::new_with_name(name).build();
        let deleted = self.handle.link().del_with_message(message).execute().await;
        match deleted {
            Ok(()) => Ok(true),
            Err(error) => {
                let error = answer("delete link", name, error);
                if error.is_not_found() {
                    Ok(false)
                } else {
                    Err(error)
                }
            }
        }
    }

    async fn change_link(
        &self,
        operation: &'static str,
        index: u32,
        message: LinkMessageBuilder<LinkUnspec>,
    ) -> Result<()> {
        self.handle
            .link()
            .change(message.build())
            .execute()
            .await
            .map_err(|error| answer(operation, format!("link number {index}"), error))
    }
}

/// What both ends of a veth pair have in common.
fn end(
    builder: LinkMessageBuilder<LinkUnspec>,
    name: &str,
    mac: Option<Mac>,
    mtu: Option<u32>,
) -> LinkMessageBuilder<LinkUnspec> {
    let mut builder = builder.name(name);
    if let Some(Mac(bytes)) = mac {
        builder = builder.address(bytes.to_vec());
    }
    if let Some(mtu) = mtu {
        builder = builder.mtu(mtu);
    }
    builder
}

/// The kernel would cut off or misread some names; say so instead (dev_valid_name in net/core/dev.c).
fn check_name(operation: &'static str, name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "a link needs a name"
    } else if name.len() > NAME_LIMIT {
        "a link name has at most 15 bytes"
    } else if name == "."
        || name == ".."
        || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
    {
        "a link name has no slash, colon or space"
    } else {
        return Ok(());
    };
    Err(Error::Invalid {
        operation,
        object: name.to_owned(),
        reason: reason.to_owned(),
    })
}

fn link_from(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        master: None,
        peer: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_misread_are_rejected() {
        for name in ["", "a/b", "a:b", "a b", ".", "..", "sixteen-bytes-xx"] {
            assert!(
                check_name("add link", name).is_err(),
                "{name:?} was accepted"
            );
        }
        for name in ["eth0", "sw-0123456789ab", "br.12"] {
            assert!(
                check_name("add link", name).is_ok(),
                "{name:?} was rejected"
            );
        }
    }
}
