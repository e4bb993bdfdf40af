//! The three ways in which a client can describe a change: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and
//! Kubernetes' strategic merge patch. Server-side apply is not a patch of the object and lives elsewhere.

mod directives;
mod json;
mod merge;
pub mod merge_keys;
mod order;
mod strategic;

pub use json::{MAX_OPERATIONS, json};
pub use merge::merge;
pub use strategic::strategic;

/// A patch that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself cannot be read, or is none of its kind.
    #[error("{0}")]
    Malformed(String),
    /// More operations than [`MAX_OPERATIONS`].
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}")]
    TooManyOperations {
        /// So many there are.
        count: usize,
    },
    /// The patch can be read but does not fit the object: a `test` that fails, a path that is not there.
    #[error("the server rejected our request due to an error in our request")]
    Inapplicable {
        /// What did not fit; Kubernetes does not tell its clients.
        detail: String,
    },
    /// The patch makes no sense for the types that it is about: an element of a list that is merged by key has no key,
    /// an order contradicts itself. To Kubernetes these are errors of the server.
    #[error("{0}")]
    Senseless(String),
}

impl PatchError {
    /// HTTP status and reason that the API server answers with.
    pub fn status(&self) -> (u16, &'static str) {
        match self {
            Self::Malformed(_) => (400, "BadRequest"),
            Self::Senseless(_) => (500, ""),
            Self::TooManyOperations { .. } => (413, "RequestEntityTooLarge"),
            Self::Inapplicable { .. } => (422, "Invalid"),
        }
    }
}
