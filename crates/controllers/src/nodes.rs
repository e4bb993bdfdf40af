//! Nodes: an address range for each, a watch over their heartbeats, and what becomes of the Pods of those that fall
//! silent or are removed.
//!
//! Source of the rules: "Nodes" and "Taints and Tolerations" in Kubernetes' documentation, `pkg/controller/nodelifecycle`,
//! `pkg/controller/tainteviction`, `pkg/controller/podgc`, `pkg/controller/nodeipam`.

mod eviction;
mod eviction_controller;
mod health;
mod lifecycle;
mod pod_gc;
mod range_controller;
mod ranges;
mod taints;

pub(crate) use eviction_controller::Evictions;
pub(crate) use lifecycle::Lifecycle;
pub(crate) use pod_gc::PodCollector;
pub(crate) use range_controller::Ranger;
pub(crate) use ranges::Ranges;
