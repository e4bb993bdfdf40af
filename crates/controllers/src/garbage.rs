//! Garbage collection: an object goes when its owners are gone, an owner may wait for its dependents or leave them
//! behind.
//!
//! Source of the rules: "Garbage Collection" in Kubernetes' documentation, API reference, `OwnerReference`, and
//! `pkg/controller/garbagecollector`.

mod controller;
mod decision;
mod graph;

pub(crate) use controller::Collector;
