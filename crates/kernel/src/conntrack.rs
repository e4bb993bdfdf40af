//! The kernel's table of connections: what it remembers of each flow, read and forgotten over netlink.
//!
//! Connections that end say so, but a flow of datagrams does not: the kernel goes on translating it as it did with its
//! first datagram, to an endpoint that may be long gone. So whoever takes an endpoint away makes the kernel forget.
//!
//! Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`, `net/netfilter/nf_conntrack_netlink.c`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::error::{Error, Result};
use crate::nft::Family;
use crate::wire::{Attr, Attrs, DONE, ERROR, F_ACK, F_DUMP, Malformed, Messages, Raw, Writer};

/// `NFNL_SUBSYS_CTNETLINK`, as the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;

/// More than the longest message of a dump (32 KiB).
const RECEIVE: usize = 256 * 1024;

/// Where packets of a flow come from and go to, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Direction {
    /// From here.
    pub source: SocketAddr,
    /// To here.
    pub destination: SocketAddr,
}

/// A flow between two ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The transport protocol's number (IANA).
    pub protocol: u8,
    /// As its client sends.
    pub original: Direction,
    /// As the answers come, before they are translated back. Its source is who answers.
    pub reply: Direction,
    /// Identifies it among flows that look the same.
    id: Option<u32>,
    zone: Option<u16>,
}

/// A netlink socket to the connections of the network namespace in which it was opened, for good.
#[derive(Debug)]
pub struct Socket {
    socket: netlink_sys::Socket,
    received: Vec<u8>,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel has no netlink for connections.
    pub fn open() -> Result<Self> {
        let refused = |cause: io::Error| Error::refused("open", "conntrack netlink socket", cause);
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(refused)?;
        socket.bind_auto().map_err(refused)?;
        socket
            .connect(&netlink_sys::SocketAddr::new(0, 0))
            .map_err(refused)?;
        Ok(Self {
            socket,
            received: vec![0; RECEIVE],
            sequence: 0,
        })
    }

    /// The flows of this family and protocol that have ports. It costs what the table holds, of all protocols.
    ///
    /// # Errors
    /// `EPERM`: CAP_NET_ADMIN is missing.
    pub fn flows(&mut self, family: Family, protocol: u8) -> Result<Vec<Flow>> {
        let mut w = Writer::default();
        let mark = w.begin(GET, F_DUMP, self.next(), family.number(), 0);
        w.end(mark);
        let mut flows = Vec::new();
        self.ask("read", "connections", &w.bytes, |raw| {
            // What is no flow between ports (ICMP), or not of IP, is none of ours.
            if let Ok(flow) = Flow::decode(raw)
                && flow.protocol == protocol
            {
                flows.push(flow);
            }
        })?;
        Ok(flows)
    }

    /// Forgets a flow: its next packet is treated as the first of a new one. Succeeds if it is gone already.
    ///
    /// # Errors
    /// `EPERM`: CAP_NET_ADMIN is missing.
    pub fn forget(&mut self, flow: &Flow) -> Result<()> {
        let family = match flow.original.source {
            SocketAddr::V4(_) => Family::Ip,
            SocketAddr::V6(_) => Family::Ip6,
        };
        let mut w = Writer::default();
        let mark = w.begin(DELETE, F_ACK, self.next(), family.number(), 0);
        flow.encode(&mut w);
        w.end(mark);
        match self.ask("forget", "a connection", &w.bytes, |_| {}) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a request and reads until the kernel says that it is done.
    fn ask(
        &mut self,
        operation: &'static str,
        object: &str,
        request: &[u8],
        mut take: impl FnMut(Raw<'_>),
    ) -> Result<()> {
        let refused = |errno: Errno| Error::refused(operation, object, errno);
        send(self.socket.as_raw_fd(), request, MsgFlags::empty()).map_err(refused)?;
        loop {
            let length = loop {
                match recv(
                    self.socket.as_raw_fd(),
                    &mut self.received,
                    MsgFlags::empty(),
                ) {
                    Err(Errno::EINTR) => {}
                    Ok(0) => return Err(refused(Errno::EBADMSG)),
                    other => break other.map_err(refused)?,
                }
            };
            for raw in Messages::new(&self.received[..length]) {
                match raw.kind {
                    // Left over from a request that failed half-way.
                    _ if raw.sequence != self.sequence => {}
                    DONE => return Ok(()),
                    ERROR => {
                        let number = raw.payload.first_chunk().map(|b| i32::from_ne_bytes(*b));
                        return match number {
                            Some(0) => Ok(()),
                            Some(number) => Err(refused(Errno::from_raw(number.wrapping_neg()))),
                            None => Err(refused(Errno::EBADMSG)),
                        };
                    }
                    NEW => take(raw),
                    _ => {}
                }
            }
        }
    }
}

impl Flow {
    fn encode(&self, w: &mut Writer) {
        w.nest(TUPLE_ORIGINAL, |w| {
            w.nest(TUPLE_IP, |w| {
                put_address(w, IP_V4_SOURCE, IP_V6_SOURCE, self.original.source.ip());
                put_address(
                    w,
                    IP_V4_DESTINATION,
                    IP_V6_DESTINATION,
                    self.original.destination.ip(),
                );
            });
            w.nest(TUPLE_PROTO, |w| {
                w.put_u8(PROTO_NUMBER, self.protocol);
                let port = |address: SocketAddr| address.port().to_be_bytes();
                w.put(PROTO_SOURCE_PORT, &port(self.original.source));
                w.put(PROTO_DESTINATION_PORT, &port(self.original.destination));
            });
        });
        if let Some(zone) = self.zone {
            w.put(ZONE, &zone.to_be_bytes());
        }
        if let Some(id) = self.id {
            w.put_u32(ID, id);
        }
    }

    fn decode(raw: Raw<'_>) -> std::result::Result<Self, Malformed> {
        let (_, attributes) = raw.netfilter()?;
        let (protocol, original) = direction(attributes.need(TUPLE_ORIGINAL, "original tuple")?)?;
        let (_, reply) = direction(attributes.need(TUPLE_REPLY, "reply tuple")?)?;
        Ok(Self {
            protocol,
            original,
            reply,
            id: attributes.find(ID).map(|a| a.u32()).transpose()?,
            zone: attributes.find(ZONE).and_then(|a| port(a).ok()),
        })
    }

    /// Whether packets of it are sent elsewhere than their sender wants.
    pub fn is_redirected(&self) -> bool {
        self.reply.source != self.original.destination
    }
}

fn put_address(w: &mut Writer, v4: u16, v6: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => w.put(v4, &address.octets()),
        IpAddr::V6(address) => w.put(v6, &address.octets()),
    }
}

fn direction(tuple: Attr<'_>) -> std::result::Result<(u8, Direction), Malformed> {
    let inside = tuple.nested();
    let addresses = inside.need(TUPLE_IP, "addresses of a flow")?.nested();
    let protocol = inside.need(TUPLE_PROTO, "protocol of a flow")?.nested();
    let address = |v4, v6| address(addresses, v4, v6);
    let number = |kind| port(protocol.need(kind, "port of a flow")?);
    Ok((
        protocol.need(PROTO_NUMBER, "protocol of a flow")?.u8()?,
        Direction {
            source: SocketAddr::new(
                address(IP_V4_SOURCE, IP_V6_SOURCE)?,
                number(PROTO_SOURCE_PORT)?,
            ),
            destination: SocketAddr::new(
                address(IP_V4_DESTINATION, IP_V6_DESTINATION)?,
                number(PROTO_DESTINATION_PORT)?,
            ),
        },
    ))
}

fn address(addresses: Attrs<'_>, v4: u16, v6: u16) -> std::result::Result<IpAddr, Malformed> {
    let malformed = Malformed("address of a flow");
    if let Some(attribute) = addresses.find(v4) {
        let octets: &[u8; 4] = attribute.value.first_chunk().ok_or(malformed)?;
        return Ok(Ipv4Addr::from(*octets).into());
    }
    let attribute = addresses.find(v6).ok_or(malformed)?;
    let octets: &[u8; 16] = attribute.value.first_chunk().ok_or(malformed)?;
    Ok(Ipv6Addr::from(*octets).into())
}

fn port(attribute: Attr<'_>) -> std::result::Result<u16, Malformed> {
    attribute
        .value
        .first_chunk()
        .map(|bytes| u16::from_be_bytes(*bytes))
        .ok_or(Malformed("port of a flow"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Vec<Flow> {
        Messages::new(bytes)
            .filter_map(|raw| Flow::decode(raw).ok())
            .collect()
    }

    #[test]
    fn a_flow_comes_back_as_it_was_written() {
        for (client, service) in [
            ("10.244.0.2:40000", "10.96.0.10:53"),
            ("[fd00::2]:40000", "[fd01::10]:53"),
        ] {
            let original = Direction {
                source: client.parse().unwrap(),
                destination: service.parse().unwrap(),
            };
            let flow = Flow {
                protocol: 17,
                original,
                reply: original,
                id: Some(7),
                zone: Some(3),
            };
            let mut w = Writer::default();
            let mark = w.begin(NEW, 0, 1, 2, 0);
            flow.encode(&mut w);
            // The reply tuple is written as the original one.
            let tuple = w.bytes.clone();
            let (_, attributes) = Messages::new(&tuple).next().map_or_else(
                || (0, Attrs::new(&tuple[20..])),
                |raw| raw.netfilter().unwrap(),
            );
            let original = attributes.find(TUPLE_ORIGINAL).unwrap().value.to_vec();
            w.nest(TUPLE_REPLY, |w| w.bytes.extend_from_slice(&original));
            w.end(mark);
            assert_eq!(read(&w.bytes), std::slice::from_ref(&flow));
            let answered = Direction {
                source: flow.original.destination,
                destination: flow.original.source,
            };
            assert!(flow.is_redirected());
            assert!(
                !Flow {
                    reply: answered,
                    ..flow
                }
                .is_redirected()
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes);
        }
    }
}
