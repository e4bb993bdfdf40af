//! JSON Patch (RFC 6902), with the limits of Kubernetes.

use json_patch::PatchOperation;
use serde_json::Value;

use super::PatchError;

/// So many operations a patch may have.
pub const MAX_OPERATIONS: usize = 10_000;
/// So many bytes `copy` operations may add together; without a limit thirty of them make a gigabyte.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Applies a JSON Patch.
///
/// # Errors
/// `patch` is no list of operations, there are too many, or one does not fit the object.
pub fn json(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(list) = patch else {
        let what = match patch {
            Value::Object(_) => "object",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            _ => "null",
        };
        return Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {what} into Go value of type []handlers.jsonPatchOp"
        )));
    };
    if list.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations { count: list.len() });
    }
    let operations: Vec<PatchOperation> = list
        .iter()
        .map(|operation| {
            serde_json::from_value(operation.clone()).map_err(|e| PatchError::Inapplicable {
                detail: e.to_string(),
            })
        })
        .collect::<Result<_, _>>()?;
    let mut patched = original.clone();
    let mut copied = 0;
    for operation in operations {
        if let PatchOperation::Copy(copy) = &operation {
            let source = patched.pointer(copy.from.as_str());
            copied += source.map_or(0, |v| v.to_string().len());
            if copied > MAX_COPIED {
                return Err(PatchError::Inapplicable {
                    detail: format!("copies add more than {MAX_COPIED} bytes"),
                });
            }
        }
        json_patch::patch(&mut patched, &[operation]).map_err(|e| PatchError::Inapplicable {
            detail: e.to_string(),
        })?;
    }
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as value;

    #[test]
    fn operations_are_applied_in_order() {
        let patched = json(
            &value!({"a": [1, 2]}),
            &value!([{"op": "add", "path": "/a/-", "value": 3}, {"op": "remove", "path": "/a/0"},
                {"op": "move", "from": "/a", "path": "/b"}, {"op": "test", "path": "/b/1", "value": 3}]),
        );
        assert_eq!(patched, Ok(value!({"b": [2, 3]})));
    }

    #[test]
    fn what_does_not_fit_is_refused_without_a_reason_as_kubernetes_does() {
        for patch in [
            value!([{"op": "test", "path": "/a", "value": 2}]),
            value!([{"op": "remove", "path": "/nothing"}]),
            value!([{"op": "replace", "path": "/nothing", "value": 1}]),
            value!([{"op": "add", "path": "/no/where", "value": 1}]),
            value!([{"op": "frobnicate", "path": "/a"}]),
        ] {
            let error = json(&value!({"a": 1}), &patch).expect_err("does not fit");
            assert_eq!(error.status(), (422, "Invalid"));
            assert_eq!(
                error.to_string(),
                "the server rejected our request due to an error in our request"
            );
        }
    }

    #[test]
    fn a_patch_is_a_list() {
        let error = json(&value!({}), &value!({"not": "a list"})).expect_err("no list");
        assert_eq!(
            error.to_string(),
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        );
    }

    #[test]
    fn neither_many_operations_nor_copies_of_copies_get_through() {
        let many = vec![value!({"op": "test", "path": "", "value": {}}); MAX_OPERATIONS + 1];
        let error = json(&value!({}), &Value::Array(many)).expect_err("too many");
        assert_eq!(error.status().0, 413);
        let doubling = [
            value!({"op": "copy", "from": "", "path": "/a"}),
            value!({"op": "copy", "from": "", "path": "/b"}),
        ];
        let doubling: Vec<Value> = doubling.iter().cycle().take(60).cloned().collect();
        let start = value!({"x": "y".repeat(1000)});
        json(&start, &Value::Array(doubling)).expect_err("copies grow without end");
    }
}
