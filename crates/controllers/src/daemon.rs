//! DaemonSets: one Pod on every node that can take it.
//!
//! Source of the rules: `pkg/controller/daemon`; the API reference for `DaemonSetSpec`.

mod controller;
mod model;
mod placement;
mod plan;
mod pods;
mod rolling;
mod status;

pub(crate) use controller::Daemons;
