//! The directives that a strategic merge patch can hold beside values.
//!
//! Source: "Strategic Merge Patch" in the Kubernetes community's `contributors/devel/sig-api-machinery`.

use serde_json::{Map, Value};

use super::PatchError;
use crate::go_text;

/// In a map: `replace` it, `delete` it, or `merge` it. In an element of a list: the same for the element.
pub(super) const PATCH: &str = "$patch";
/// In a map: the keys that stay; all others go.
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
/// Before the name of a list of plain values: what is taken out of it.
pub(super) const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
/// Before the name of a list: the order of its elements afterwards.
pub(super) const ELEMENT_ORDER: &str = "$setElementOrder/";

/// What `$patch` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patch {
    /// Nothing: there is none.
    Absent,
    Replace,
    Delete,
    /// Only in lists, and there only to be refused.
    Merge,
}

/// What `$patch` of the map says.
pub(super) fn patch(map: &Map<String, Value>) -> Result<Patch, PatchError> {
    match map.get(PATCH) {
        None => Ok(Patch::Absent),
        Some(Value::String(word)) if word == "merge" => Ok(Patch::Merge),
        Some(Value::String(word)) if word == "replace" => Ok(Patch::Replace),
        Some(Value::String(word)) if word == "delete" => Ok(Patch::Delete),
        Some(_) => Err(unknown(map)),
    }
}

/// Source: `ErrBadPatchType` in `k8s.io/apimachinery/pkg/util/mergepatch`.
pub(super) fn unknown(map: &Map<String, Value>) -> PatchError {
    let word = map.get(PATCH).map(go_text::plain).unwrap_or_default();
    let map = go_text::plain(&Value::Object(map.clone()));
    PatchError::Senseless(format!("unknown patch type: {word} in map: {map}"))
}

fn is_directive(key: &str) -> bool {
    key == PATCH
        || key == RETAIN_KEYS
        || key.starts_with(DELETE_FROM)
        || key.starts_with(ELEMENT_ORDER)
}

/// A value of a patch as it enters an object that had none: without directives, and without the `null`s that would
/// have deleted something.
pub(super) fn strip(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(key, value)| !is_directive(key) && !value.is_null())
                .map(|(key, value)| (key.clone(), strip(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(
            list.iter()
                .filter(|v| v.get(PATCH).and_then(Value::as_str) != Some("delete"))
                .filter(|v| !is_bare_replace(v))
                .map(strip)
                .collect(),
        ),
        plain => plain.clone(),
    }
}

/// `{"$patch": "replace"}` alone in a list speaks of the list and is no element.
pub(super) fn is_bare_replace(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|m| m.len() == 1 && m.get(PATCH).and_then(Value::as_str) == Some("replace"))
}
