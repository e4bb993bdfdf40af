//! The Kubernetes HTTP API over a store.

pub mod admission;
pub mod status;
