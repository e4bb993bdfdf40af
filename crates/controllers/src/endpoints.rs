//! Endpoints: which addresses stand behind a Service. As EndpointSlices, as the older Endpoints objects, and from
//! hand-made Endpoints to slices.
//!
//! Source of the rules: KEP-752 (EndpointSlice), KEP-1672 (terminating endpoints), and the API reference of both kinds.

mod legacy;
mod legacy_controller;
mod member;
mod mirror;
mod mirror_controller;
mod packing;
mod service;
mod slice_controller;
mod slice_writer;

pub(crate) use legacy_controller::LegacyEndpoints;
pub(crate) use mirror_controller::Mirrors;
pub(crate) use slice_controller::Slices;
