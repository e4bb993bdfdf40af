//! JSON Merge Patch (RFC 7386).

use serde_json::Value;

use super::PatchError;

/// Applies a JSON Merge Patch to an object. As in Kubernetes, a `null` in a new object is nothing, in lists as well.
///
/// # Errors
/// `patch` is no JSON object: it would replace the whole object with something that is none.
pub fn merge(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("Invalid JSON Patch".to_owned()));
    }
    let mut patched = original.clone();
    merge_into(&mut patched, patch);
    Ok(patched)
}

fn merge_into(original: &mut Value, patch: &Value) {
    let (Value::Object(old), Value::Object(changes)) = (&mut *original, patch) else {
        *original = without_nulls(patch);
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            old.remove(key);
        } else {
            match old.get_mut(key) {
                Some(value) => merge_into(value, change),
                None => {
                    old.insert(key.clone(), without_nulls(change));
                }
            }
        }
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_the_rfc() {
        for (original, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            assert_eq!(merge(&original, &patch), Ok(result));
        }
        merge(&json!({}), &json!([])).expect_err("no object");
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from)
        ];
        let inner = leaf.prop_recursive(3, 16, 4, |inner| {
            proptest::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect()))
        });
        proptest::collection::btree_map("[a-d]", inner, 0..4)
            .prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn the_empty_patch_changes_nothing(object in tree()) {
            prop_assert_eq!(merge(&object, &json!({})), Ok(object));
        }

        #[test]
        fn a_patch_applied_twice_is_applied_once(object in tree(), patch in tree()) {
            let once = merge(&object, &patch).expect("an object");
            prop_assert_eq!(merge(&once, &patch), Ok(once));
        }
    }
}
