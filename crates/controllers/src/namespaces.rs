//! Namespaces: what each has from its beginning, and how one ends with everything in it.
//!
//! Source of the rules: "Namespaces" in Kubernetes' documentation and `pkg/controller/namespace`.

mod conditions;
mod defaults;
mod deletion;

pub(crate) use defaults::Defaults;
pub(crate) use deletion::Deletion;
