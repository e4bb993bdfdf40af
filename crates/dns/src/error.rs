//! What can go wrong while the server starts or runs. What is wrong with single queries is answered, not raised.

use std::net::SocketAddr;

/// The server cannot start or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster domain is not a domain name.
    #[error("cluster domain {domain:?} is not a domain name: {reason} (an example: cluster.local)")]
    Domain {
        /// As configured.
        domain: String,
        /// What the parser says.
        reason: String,
    },
    /// There is no address to listen on.
    #[error("no address to listen on: name at least one, 10.96.0.10:53 for example")]
    NoAddress,
    /// An upstream is one of the server's own addresses: queries would go round in circles.
    #[error("upstream {0} is this server itself: name a server outside the cluster")]
    UpstreamLoop(SocketAddr),
    /// An address cannot be bound.
    #[error(
        "cannot listen on {protocol} {address}: {source} (is another DNS server running there?)"
    )]
    Bind {
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// A socket that had been bound cannot be read any more.
    #[error("the {protocol} socket on {address} stopped working: {source}")]
    Socket {
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the kernel says.
        source: std::io::Error,
    },
}
