//! A Pod stays for five minutes on a node that is not ready or cannot be reached, unless it says otherwise.
//! Source: the `DefaultTolerationSeconds` admission plugin.

use serde_json::{Value, json};

use super::{Operation, Plugin, Request, Stage, Undo};
use crate::object::text;
use crate::status::ApiError;

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

/// See the module.
pub(super) struct DefaultTolerations;

impl Plugin for DefaultTolerations {
    fn stage(&self) -> Stage {
        Stage::Admit
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError> {
        let wanted = request.is_pod(Operation::Create) || request.is_pod(Operation::Update);
        if !wanted || !object["spec"].is_object() {
            return Ok(Undo::nothing());
        }
        let mut tolerations = object["spec"]["tolerations"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let missing: Vec<Value> = TAINTS
            .into_iter()
            .filter(|key| !tolerations.iter().any(|toleration| tolerates(toleration, key)))
            .map(|key| {
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS})
            })
            .collect();
        if !missing.is_empty() {
            tolerations.extend(missing);
            object["spec"]["tolerations"] = Value::Array(tolerations);
        }
        Ok(Undo::nothing())
    }
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let is = |field: &str, wanted: &str| {
        let given = text(toleration, field);
        given.is_empty() || given == wanted
    };
    is("/key", key) && is("/effect", "NoExecute")
}
