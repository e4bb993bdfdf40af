//! Why the API server does not start.

use std::net::SocketAddr;

use crate::pki;
use crate::status::ApiError;

/// Why the API server does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] seaway_store::Error),
    /// Credentials cannot be used.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// TLS cannot be set up.
    #[error("cannot use {what}: {reason}: remove the credentials to get new ones")]
    Tls {
        /// What cannot be used.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}: does something else listen there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// An object that every cluster has cannot be made.
    #[error("cannot make {what}: {source}")]
    Bootstrap {
        /// The object.
        what: String,
        /// Why.
        source: Box<ApiError>,
    },
    /// A task of the server died.
    #[error("a part of the API server died: {0}")]
    Task(#[from] tokio::task::JoinError),
}
