//! What can go wrong with the Pods of a node as a whole.

use std::path::PathBuf;

use crate::images::ImageError;
use crate::model::ModelError;
use crate::runtime::RuntimeError;

/// The agent cannot run Pods.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The image store.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// A Pod that is none.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file of the node.
    #[error("cannot {operation} {path}: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The kubelet API's address.
    #[error("cannot listen on {address}: {source}; is another agent running?")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The kubelet API's credentials.
    #[error("the kubelet API's {what} in {path} cannot be used: {problem}")]
    Credentials {
        /// `certificate`, `private key`, `client CA`
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A task broke off.
    #[error("{what} broke off: {source}")]
    Task {
        /// Whose.
        what: &'static str,
        /// How.
        source: tokio::task::JoinError,
    },
}

impl Error {
    /// For `map_err`.
    pub(crate) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File {
            operation,
            path,
            source,
        }
    }
}
