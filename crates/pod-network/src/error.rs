//! What can go wrong with the Pod network.

use std::io;
use std::path::PathBuf;

use ipnet::IpNet;

/// Why a Pod has no network, or a node no way to another.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node has no range to give addresses from.
    #[error(
        "node {node} has no Pod range yet (spec.podCIDR is empty); is a controller that assigns Pod ranges to nodes running?"
    )]
    NoPodCidr {
        /// The node.
        node: String,
    },
    /// Every address of the node's range is taken.
    #[error(
        "no address is left in {range} ({taken} Pods have one); delete Pods on this node or give it a larger range"
    )]
    Exhausted {
        /// The node's range.
        range: IpNet,
        /// How many addresses are taken.
        taken: usize,
    },
    /// The range cannot be used.
    #[error("Pod range {range}: {reason}")]
    BadRange {
        /// The range.
        range: IpNet,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file with the reservations could not be read or written.
    #[error("cannot {operation} {path}: {cause}")]
    File {
        /// Read, write, rename.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file with the reservations is not what was written.
    #[error(
        "{path} is damaged ({reason}): addresses that Pods still use could be given out again; remove the file only when no Pod runs on this node"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The node's own address is on none of its links.
    #[error("the node's address {address} is on none of its links; is it the right --node-ip?")]
    NodeAddressMissing {
        /// The address.
        address: std::net::IpAddr,
    },
    /// The kernel refused.
    #[error("{what}: {cause}")]
    Kernel {
        /// What was being done.
        what: String,
        /// What the kernel refused and why.
        cause: seaway_kernel::Error,
    },
    /// Several things at once; the rest was done.
    #[error("{}", joined(.0))]
    Several(Vec<Error>),
    /// A task of this crate ended before it was done.
    #[error("the program is ending")]
    Ending,
}

impl Error {
    /// A refusal of the kernel, with what it was for.
    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(seaway_kernel::Error) -> Self {
        let what = what.into();
        move |cause| Self::Kernel { what, cause }
    }

    /// All of them as one; nothing if there is none.
    pub(crate) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.pop() {
            None => Ok(()),
            Some(only) if errors.is_empty() => Err(only),
            Some(last) => {
                errors.push(last);
                Err(Self::Several(errors))
            }
        }
    }
}

fn joined(errors: &[Error]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
