//! Every Pod has a ServiceAccount; one that names none has `default`.
//! Source: the `ServiceAccount` admission plugin. Its tokens are not mounted yet.

use serde_json::Value;

use super::{Operation, Plugin, Request, Stage, Undo};
use crate::status::ApiError;

/// See the module.
pub(super) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn stage(&self) -> Stage {
        Stage::Admit
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError> {
        let pod = (request.kind.group, request.kind.plural) == ("", "pods");
        if !pod || request.operation != Operation::Create || !object["spec"].is_object() {
            return Ok(Undo::nothing());
        }
        let named = object["spec"]["serviceAccountName"]
            .as_str()
            .filter(|n| !n.is_empty())
            .unwrap_or("default")
            .to_owned();
        // Both names of the field, as Kubernetes shows them.
        object["spec"]["serviceAccount"] = named.as_str().into();
        object["spec"]["serviceAccountName"] = named.into();
        Ok(Undo::nothing())
    }

    fn committed(&self, _old: Option<&Value>, _new: Option<&Value>) {}
}
