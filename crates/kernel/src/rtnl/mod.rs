//! Links, addresses, routes and neighbours of one network namespace, over rtnetlink (RFC 3549).
//!
//! A [`RouteSocket`] belongs to the namespace in which it was opened, whatever thread uses it later, so one task
//! can work on many namespaces at once. Every operation is one request and one answer of the kernel; those whose
//! name says what the world shall be like (`ensure_…`, `remove_…`) succeed if it is so already.

mod address;
mod link;
mod loopback;
mod neighbour;
mod route;

use std::io;

use crate::error::{Error, Result};
use crate::netns::NetNs;

pub use address::Address;
pub use link::{Bridge, Link, Mac, Veth, VethPeer};
pub(crate) use loopback::raise_loopback;
pub use neighbour::Neighbour;
pub use route::{MAIN_TABLE, Route, RouteKind};

/// A rtnetlink socket in one network namespace. Clones share it.
#[derive(Debug, Clone)]
pub struct RouteSocket {
    handle: rtnetlink::Handle,
}

impl RouteSocket {
    /// Opens a socket in `netns`. Must be called within a tokio runtime, which then serves the socket for as
    /// long as a clone of it is left.
    pub fn open(netns: &NetNs) -> Result<Self> {
        const OPERATION: &str = "open";
        const OBJECT: &str = "a rtnetlink socket";
        let runtime = tokio::runtime::Handle::try_current().map_err(|outside| Error::Invalid {
            operation: OPERATION,
            object: OBJECT.to_owned(),
            reason: outside.to_string(),
        })?;
        let (connection, handle, _unsolicited) = netns
            .run(|| {
                let _within = runtime.enter();
                rtnetlink::new_connection()
            })?
            .map_err(|cause| Error::refused(OPERATION, OBJECT, cause))?;
        runtime.spawn(connection);
        Ok(Self { handle })
    }
}

/// The kernel's answer to a request, as this crate's error.
fn answer(operation: &'static str, object: impl Into<String>, error: rtnetlink::Error) -> Error {
    let cause = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    };
    Error::refused(operation, object, cause)
}
