//! Custom resources: kinds that are not written in Rust but come as CustomResourceDefinitions.
//!
//! - [`schema`]: the structural schema of a version
//! - [`structural`]: what a schema may not contain, checked when a definition is written
//! - [`prune`], [`defaults`], [`value`], [`lists`], [`embedded`]: what a schema does to an object: unknown fields go,
//!   missing ones are filled in, and what is wrong is told in Kubernetes' words
//! - [`rules`]: `x-kubernetes-validations`, in the Common Expression Language
//! - [`json_path`]: printer columns
//! - [`conditions`]: what is true of a definition
//! - [`definition`]: the definition as this code reads it; [`resource`]: the [`crate::kind::Kind`] that follows from it
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver` and `k8s.io/kube-openapi/pkg/validation`.

pub mod conditions;
pub mod defaults;
pub mod definition;
pub mod embedded;
mod formats;
pub mod json_path;
pub mod lists;
pub mod prune;
mod publish;
pub mod resource;
pub mod rules;
pub mod schema;
pub mod structural;
pub mod value;

/// Where a value is in an object, as field errors write it: `spec.ports[0].name`.
fn child(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}
