//! Linux as typed Rust: nf_tables, rtnetlink, namespaces, processes. The only crate with unsafe code.
//!
//! Everything that Seaway asks of the kernel goes through here, as typed requests whose errors name the
//! operation, its object and a hint. Nothing here knows Kubernetes.

pub mod cgroup;
pub mod conntrack;
pub mod error;
pub mod mount;
pub mod netns;
pub mod nft;
pub mod pidfd;
pub mod process;
pub mod reaper;
pub mod rtnl;
pub mod sysctl;
mod wire;

pub use error::{Error, Result};
pub use netns::NetNs;
