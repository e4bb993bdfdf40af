//! StatefulSets: Pods with names that stay, one after the other.
//!
//! Source of the rules: `pkg/controller/statefulset`; the API reference for `StatefulSetSpec`; KEP-961
//! (maxUnavailable), KEP-3335 (start ordinal).

mod controller;
mod model;
mod plan;
mod pods;
mod status;
mod update;

pub(crate) use controller::Stateful;
