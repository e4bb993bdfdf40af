//! JSON Patch (RFC 6902), as Kubernetes does it.
//!
//! Where its library differs from the RFC, clients have come to rely on the library: `replace` of a field that is not
//! there adds it, an index below zero counts from the end, and `test` finds `null` where nothing is.
//! Source: `evanphx/json-patch` version 4, and `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

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
        return Err(PatchError::Malformed(
            "error decoding patch: a JSON patch is a list of operations".to_owned(),
        ));
    };
    if list.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations { count: list.len() });
    }
    let mut patched = original.clone();
    let mut copied = 0;
    for operation in list {
        apply(&mut patched, operation, &mut copied)
            .map_err(|detail| PatchError::Inapplicable { detail })?;
    }
    Ok(patched)
}

fn apply(document: &mut Value, operation: &Value, copied: &mut usize) -> Result<(), String> {
    let text = |field: &str| {
        let value = operation.get(field).and_then(Value::as_str);
        value.ok_or_else(|| format!("operation without {field}"))
    };
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match operation.get("op").and_then(Value::as_str) {
        Some("add") => {
            let (place, key) = find(document, text("path")?)?;
            add(place, &key, value())
        }
        Some("remove") => {
            let (place, key) = find(document, text("path")?)?;
            remove(place, &key).map(drop)
        }
        Some("replace") => {
            let path = text("path")?;
            if path.is_empty() {
                let whole = value();
                if !whole.is_object() && !whole.is_array() {
                    return Err("replace operation value must be object or array".to_owned());
                }
                *document = whole;
                return Ok(());
            }
            let (place, key) = find(document, path)?;
            match place {
                Value::Array(list) => {
                    let at = index(&key, list.len())?;
                    list[at] = value();
                }
                other => add(other, &key, value())?,
            }
            Ok(())
        }
        Some("move") => {
            let (place, key) = find(document, text("from")?)?;
            let moved = remove(place, &key)?;
            let (place, key) = find(document, text("path")?)?;
            add(place, &key, moved)
        }
        Some("copy") => {
            let (place, key) = find(document, text("from")?)?;
            let copy = get(place, &key)?.cloned().unwrap_or(Value::Null);
            *copied += copy.to_string().len();
            if *copied > MAX_COPIED {
                return Err(format!("copies add more than {MAX_COPIED} bytes"));
            }
            let (place, key) = find(document, text("path")?)?;
            add(place, &key, copy)
        }
        Some("test") => {
            let path = text("path")?;
            let wanted = value();
            let fits = if path.is_empty() {
                same(document, &wanted)
            } else {
                let (place, key) = find(document, path)?;
                same(get(place, &key)?.unwrap_or(&Value::Null), &wanted)
            };
            if fits {
                Ok(())
            } else {
                Err(format!("testing value {path} failed"))
            }
        }
        _ => Err("unexpected kind of operation".to_owned()),
    }
}

/// Numbers are the same when their values are.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, x)| y.get(k).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

/// What holds the end of the path, and the path's last step.
fn find<'v>(document: &'v mut Value, path: &str) -> Result<(&'v mut Value, String), String> {
    let missing = || format!("doc is missing path: {path:?}");
    let mut steps: Vec<String> = path
        .split('/')
        .map(|step| step.replace("~1", "/").replace("~0", "~"))
        .collect();
    if steps.len() < 2 {
        return Err(missing());
    }
    let last = steps.pop().unwrap_or_default();
    let mut at = document;
    for step in steps.into_iter().skip(1) {
        at = match at {
            Value::Object(map) => map.get_mut(&step).ok_or_else(missing)?,
            Value::Array(list) => {
                let index = index(&step, list.len())?;
                &mut list[index]
            }
            _ => return Err(missing()),
        };
    }
    if at.is_object() || at.is_array() {
        Ok((at, last))
    } else {
        Err(missing())
    }
}

/// A place in a list of `len` elements; below zero it counts from the end.
fn index(text: &str, len: usize) -> Result<usize, String> {
    let wrong = || format!("unable to access invalid index: {text}");
    let number: i64 = text.parse().map_err(|_| wrong())?;
    let len = i64::try_from(len).map_err(|_| wrong())?;
    let at = if number < 0 { number + len } else { number };
    usize::try_from(at)
        .ok()
        .filter(|_| at < len)
        .ok_or_else(wrong)
}

fn get<'v>(place: &'v Value, key: &str) -> Result<Option<&'v Value>, String> {
    match place {
        Value::Object(map) => Ok(map.get(key)),
        Value::Array(list) => index(key, list.len()).map(|at| list.get(at)),
        _ => Err("not a container".to_owned()),
    }
}

fn add(place: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match place {
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
            Ok(())
        }
        Value::Array(list) if key == "-" => {
            list.push(value);
            Ok(())
        }
        Value::Array(list) => {
            let at = index(key, list.len() + 1)?;
            list.insert(at, value);
            Ok(())
        }
        _ => Err("not a container".to_owned()),
    }
}

fn remove(place: &mut Value, key: &str) -> Result<Value, String> {
    match place {
        Value::Object(map) => map
            .remove(key)
            .ok_or_else(|| format!("unable to remove nonexistent key: {key}")),
        Value::Array(list) => index(key, list.len()).map(|at| list.remove(at)),
        _ => Err("not a container".to_owned()),
    }
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
            value!([{"op": "replace", "path": "/no/where", "value": 1}]),
            value!([{"op": "move", "from": "/nothing", "path": "/b"}]),
            value!([{"op": "add", "path": "", "value": {}}]),
            value!([{"op": "add", "path": "/a/b", "value": 1}]),
            value!([{"path": "/a"}]),
            value!(["add"]),
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
    fn the_library_of_kubernetes_is_followed_where_it_leaves_the_rfc() {
        for (original, patch, result) in [
            (
                value!({}),
                value!([{"op": "replace", "path": "/a", "value": 1}]),
                value!({"a": 1}),
            ),
            (
                value!({"a": [1, 2]}),
                value!([{"op": "remove", "path": "/a/-1"}]),
                value!({"a": [1]}),
            ),
            (
                value!({"a": [1, 2]}),
                value!([{"op": "add", "path": "/a/-1", "value": 3}]),
                value!({"a": [1, 2, 3]}),
            ),
            (
                value!({}),
                value!([{"op": "test", "path": "/a", "value": null}]),
                value!({}),
            ),
            (
                value!({}),
                value!([{"op": "copy", "from": "/a", "path": "/b"}]),
                value!({"b": null}),
            ),
            (
                value!({"a": 1}),
                value!([{"op": "replace", "path": "", "value": {"b": 2}}]),
                value!({"b": 2}),
            ),
            (
                value!({"a/b": {"~": 1}}),
                value!([{"op": "remove", "path": "/a~1b/~0"}]),
                value!({"a/b": {}}),
            ),
        ] {
            assert_eq!(json(&original, &patch), Ok(result), "{patch}");
        }
    }

    #[test]
    fn a_patch_is_a_list() {
        json(&value!({}), &value!({"not": "a list"})).expect_err("no list");
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
