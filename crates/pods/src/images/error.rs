//! What can go wrong with images.

use std::io;
use std::path::{Path, PathBuf};

/// A failed operation of the image store.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not a reference.
    #[error("invalid image name {name:?}: {problem}")]
    InvalidName {
        /// As given.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Not here, and the policy is `Never`.
    #[error("container image {name:?} is not present with pull policy of Never")]
    NeverPull {
        /// As given.
        name: String,
    },
    /// Not here.
    #[error("image {name:?} not found; `seaway image list` shows what is here")]
    NotFound {
        /// As given.
        name: String,
    },
    /// The registry did not give it.
    #[error("failed to pull image {name:?}: {problem}")]
    Pull {
        /// As given.
        name: String,
        /// Why: unreachable, not found, not allowed, broken.
        problem: String,
    },
    /// The archive, layout or layer is not what it should be.
    #[error("{what}: {problem}")]
    Format {
        /// Which part.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// Built-in names are always there.
    #[error("{name:?} is built in and cannot be {operation}")]
    BuiltIn {
        /// The name.
        name: String,
        /// `removed`, `replaced`
        operation: &'static str,
    },
    /// A task of this process was cut off.
    #[error("interrupted: the agent is shutting down")]
    Interrupted,
    /// A file of the store or of an import.
    #[error("cannot {operation} {path}: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl ImageError {
    /// The reason that a kubelet gives in the container's waiting state.
    pub fn reason(&self) -> &'static str {
        match self {
            ImageError::InvalidName { .. } => "InvalidImageName",
            ImageError::NeverPull { .. } => "ErrImageNeverPull",
            _ => "ErrImagePull",
        }
    }
}

/// Turns an I/O error into one that names what was tried on which file.
pub(super) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::File {
        operation,
        path,
        source,
    }
}
