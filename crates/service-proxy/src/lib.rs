//! The service proxy: Services and EndpointSlices become forwarding in the kernel of this node.
//!
//! [`run`] watches the Kubernetes API and keeps one nf_tables table (`ip seaway-proxy`) as the cluster says.
//! The way of a change, and where to find each step:
//!
//! | step | file | |
//! |---|---|---|
//! | objects as used here | `model.rs` | total conversions: what cannot be served is said, not dropped |
//! | all objects of now | `snapshot.rs` | which Services did an event touch? |
//! | what each Service needs | `plan.rs` | frontends, their backends and policies (pure) |
//! | who may answer | `choice.rs` | endpoints by readiness, place and hints (pure) |
//! | what changes | `diff.rs` | elements to take away and to add (pure) |
//! | the kernel's form | `table/` | chains, maps and rules; keys as bytes (pure) |
//! | into the kernel | `apply.rs` | one transaction; read-back and repair after a restart |
//! | the loop | `controller.rs` | watch, coalesce, call the others, retry |
//! | what is said of it | `health.rs` | health checks of Services and of the proxy |
//!
//! The ruleset is a fixed handful of chains; all that varies with the cluster is elements of maps, so a lookup
//! is O(1) in the number of Services, and a change costs what it touches. Packet marks and connection marks are
//! neither read nor written.

mod apply;
mod choice;
mod controller;
mod diff;
mod error;
mod health;
mod health_server;
mod model;
mod plan;
mod snapshot;
mod stale;
mod table;

pub use apply::{Applier, Outcome, cleanup};
pub use controller::{Config, NodePortAddresses, run};
pub use diff::{Contents, Delta, difference};
pub use error::Error;
pub use model::{
    Endpoint, IpFamily, NotServed, ObjectName, Problem, Projected, Protocol, Service, ServicePort,
    Slice, SlicePort, TrafficPolicy,
};
pub use plan::{
    Backend, Bound, Branch, Compiled, Forwarding, Frontend, FrontendEntry, FrontendKey, Node,
    Policy, RangeSet, Slot, compile,
};
pub use snapshot::Snapshot;
pub use table::TABLE;
