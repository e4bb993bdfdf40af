//! The scheduler: gives every Pod that has none a node, so that replicas spread and nothing is promised twice.
//!
//! Source of the rules: the API reference for `PodSpec` (nodeSelector, affinity, tolerations, topology spread) and
//! Kubernetes' `pkg/scheduler/framework/plugins`, whose words the messages use.

mod controller;
mod demand;
mod filter;
mod neighbours;
mod node;
mod score;
mod state;

pub(crate) use controller::Scheduler;
pub(crate) use demand::Demand;
pub(crate) use filter::matches_node;
pub(crate) use node::Offer;
