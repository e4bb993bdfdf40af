//! Readiness, liveness and startup probes: what to ask (`spec`), how (`ask`), and what the answers mean (`judge`).
//! Source: "Configure Liveness, Readiness and Startup Probes"; the kubelet's `pkg/kubelet/prober/worker.go`.

mod ask;
mod judge;
mod schedule;
mod spec;

pub use ask::{Answer, Asker, http_get};
pub use schedule::{ProbeReport, Probing};
pub use spec::{HttpTarget, ProbeAction, ProbeKind, ProbeSpec, action_of_hook};
