//! Every Pod has a priority: that of the class it names, else zero.
//! Source: the `Priority` admission plugin. Classes are not served; the two that every cluster has are known.

use serde_json::Value;

use super::{Operation, Plugin, Request, Stage, Undo};
use crate::object::text;
use crate::status::ApiError;

/// Source: `SystemPriorityClasses` in `pkg/apis/scheduling`.
const CLASSES: [(&str, i64); 2] = [
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];
const POLICY: &str = "PreemptLowerPriority";

/// See the module.
pub(super) struct Priority;

impl Plugin for Priority {
    fn stage(&self) -> Stage {
        Stage::Admit
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError> {
        if !request.is_pod(Operation::Create) || !object["spec"].is_object() {
            return Ok(Undo::nothing());
        }
        let class = text(object, "/spec/priorityClassName");
        let priority = match CLASSES.iter().find(|(name, _)| *name == class) {
            Some((_, priority)) => *priority,
            None if class.is_empty() => 0,
            None => {
                let why = format!("no PriorityClass with name {class} was found");
                return Err(request.forbidden(object, &why));
            }
        };
        let spec = &object["spec"];
        if let Some(given) = spec["priority"].as_i64().filter(|given| *given != priority) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
            );
            return Err(request.forbidden(object, &why));
        }
        if let Some(given) = spec["preemptionPolicy"]
            .as_str()
            .filter(|given| *given != POLICY)
        {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {POLICY} from the given PriorityClass name"
            );
            return Err(request.forbidden(object, &why));
        }
        object["spec"]["priority"] = priority.into();
        object["spec"]["preemptionPolicy"] = POLICY.into();
        Ok(Undo::nothing())
    }
}
