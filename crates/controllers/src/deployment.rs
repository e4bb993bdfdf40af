//! Deployments: one ReplicaSet for each template, and the way from the old one to the new one.
//!
//! Source of the rules: Kubernetes' `pkg/controller/deployment`, in the words of the API reference for
//! `DeploymentStrategy` and `DeploymentCondition`.

mod controller;
pub(crate) mod hash;
mod model;
mod plan;
mod revision;
mod rolling;
mod status;

pub(crate) use controller::Deployments;
pub(crate) use model::{Round, resolve};
