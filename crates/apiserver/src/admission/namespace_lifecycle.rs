//! Namespaces as the place of other objects: they must exist, and take nothing new while they are being deleted. Three
//! of them are never deleted.
//! Source: the `NamespaceLifecycle` admission plugin.

use serde_json::Value;

use super::stored::Stored;
use super::{Operation, Plugin, Request, Stage, Undo};
use crate::metadata;
use crate::status::{ApiError, Cause, Details};

/// Namespaces without which a cluster is none.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// See the module.
pub(super) struct NamespaceLifecycle {
    pub(super) stored: Stored,
}

impl Plugin for NamespaceLifecycle {
    fn stage(&self) -> Stage {
        Stage::Admit
    }

    fn admit(&self, request: &Request<'_>, _object: &mut Value) -> Result<Undo, ApiError> {
        let of_namespaces = request.is("", "namespaces");
        match request.operation {
            Operation::Delete if of_namespaces && IMMORTAL.contains(&request.name) => {
                Err(ApiError::forbidden(
                    request.kind,
                    request.name,
                    "this namespace may not be deleted",
                ))
            }
            Operation::Create if !request.namespace.is_empty() => self.must_take(request),
            _ => Ok(Undo::nothing()),
        }
    }
}

impl NamespaceLifecycle {
    fn must_take(&self, request: &Request<'_>) -> Result<Undo, ApiError> {
        let name = request.namespace;
        let Some(namespace) = self.stored.get("namespaces", "", name) else {
            return Err(not_found(name));
        };
        if !metadata::is_terminating(&namespace) {
            return Ok(Undo::nothing());
        }
        let why = format!(
            "unable to create new content in namespace {name} because it is being terminated"
        );
        let cause = format!("namespace {name} is being terminated");
        let refusal = ApiError::forbidden(request.kind, request.name, &why);
        Err(refusal.with_cause("NamespaceTerminating", &cause, "metadata.namespace"))
    }
}

fn not_found(name: &str) -> ApiError {
    let mut refusal = ApiError::new(404, "NotFound", format!("namespaces \"{name}\" not found"));
    refusal.details = Some(Box::new(Details {
        name: name.to_owned(),
        kind: "namespaces".to_owned(),
        causes: Vec::<Cause>::new(),
        ..Details::default()
    }));
    refusal
}
