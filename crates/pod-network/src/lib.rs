//! Pod addresses and the paths between Pods: IPAM, routed veth pairs, routes between nodes, masquerade.
//!
//! Every Pod has one address out of its node's range. Its `eth0` is one end of a veth pair; the other end is in the
//! node's network namespace, and the node *routes* between its Pods, itself and the other nodes: there is no
//! bridge, so no packet is seen by a Pod that it is not for. Nodes reach each other's Pods by a route to the
//! other's range, so nothing between Pods and nodes is translated (the rule of the Kubernetes network model).
//! Only what leaves the cluster takes the node's address.
//!
//! Two halves, which meet in [`PodNetwork`]:
//! - *attach and detach*, called for each Pod by whoever runs it: `ipam`, `reservations`, `veth`;
//! - *routes and masquerade*, which follow the Node objects by themselves: `model`, `plan`, `apply`, `controller`.

mod apply;
mod controller;
mod error;
pub mod ipam;
mod masquerade;
pub mod model;
mod network;
pub mod plan;
mod reservations;
mod veth;

pub use controller::run;
pub use error::Error;
pub use network::{Config, PodNetwork};

/// The protocol number of every route that this crate makes on a node (`ip route show proto 84`). It repairs and
/// removes only routes with this number; the lab's own have another.
pub const ROUTE_PROTOCOL: u8 = 84;
