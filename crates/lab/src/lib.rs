//! A whole cluster on this machine: nodes as network namespaces, and what `seaway up` starts in each.
//!
//! `up`, `down` and `status` are what the command line calls; `supervisor`, `control_plane` and `agent` are the
//! processes of a lab; `fabric` is its network and `cleanup` takes away what a killed lab leaves.

pub mod agent;
pub mod cleanup;
pub mod client;
pub mod control_plane;
pub mod down;
pub mod error;
pub mod fabric;
mod gateway;
mod host_routes;
pub mod lock;
mod name_servers;
pub mod paths;
mod port_range;
pub mod progress;
pub mod ranges;
pub mod readiness;
pub mod running;
pub mod spec;
pub mod status;
pub mod supervisor;
pub mod up;

pub use port_range::PortRange;
