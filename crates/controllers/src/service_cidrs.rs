//! ServiceCIDRs: made ready, and kept until no Service has an address that only they have.
//!
//! Source of the rules: KEP-1880 and Kubernetes' `pkg/controller/servicecidrs`.

mod controller;
mod plan;

pub(crate) use controller::ServiceCidrs;
