//! Bringing up the loopback link of a namespace that was just made, without an async runtime.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

use crate::error::{Error, Result};

/// The loopback link is the first of every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// Sets the loopback link of the calling thread's network namespace up, which gives it 127.0.0.1 and ::1.
pub(crate) fn raise_loopback() -> Result<()> {
    let refused = |cause: io::Error| Error::refused("set up", "link lo", cause);
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(refused)?;
    socket.bind_auto().map_err(refused)?;

    let mut link = LinkMessage::default();
    link.header.index = LOOPBACK_INDEX;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::SetLink(link));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket
        .send_to(&bytes, &SocketAddr::new(0, 0), 0)
        .map_err(refused)?;

    let (bytes, _) = socket.recv_from_full().map_err(refused)?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).map_err(|error| {
        refused(io::Error::new(
            io::ErrorKind::InvalidData,
            error.to_string(),
        ))
    })?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(refused(error.to_io())),
        NetlinkPayload::Error(_) => Ok(()),
        other => {
            let text = format!("expected an acknowledgement, got {other:?}");
            Err(refused(io::Error::new(io::ErrorKind::InvalidData, text)))
        }
    }
}
