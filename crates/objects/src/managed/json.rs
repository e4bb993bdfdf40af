//! Sets of paths as `fieldsV1` has them.
//! Source: `structured-merge-diff`, `fieldpath/serialize.go`.

use serde_json::{Map, Value};

use super::element::{BadElement, Element};
use super::set::Set;

/// Deeper than this no `fieldsV1` of an object goes; clients can send any.
const DEPTH: usize = 128;

/// The set as `fieldsV1`.
pub fn to_value(set: &Set) -> Value {
    let mut map = Map::new();
    write(set, &mut map);
    Value::Object(map)
}

fn write(set: &Set, map: &mut Map<String, Value>) {
    for member in &set.members {
        map.insert(member.serialized(), Value::Object(Map::new()));
    }
    for (element, below) in &set.children {
        let mut inner = Map::new();
        if set.has_member(element) && !(below.members.is_empty() && below.children.is_empty()) {
            inner.insert(".".to_owned(), Value::Object(Map::new()));
        }
        write(below, &mut inner);
        map.insert(element.serialized(), Value::Object(inner));
    }
}

/// The set that `fieldsV1` describes.
///
/// # Errors
/// Why it describes none.
pub fn from_value(value: &Value) -> Result<Set, String> {
    read(value, 0).map(|(set, _)| set.unwrap_or_default())
}

/// What is below, and whether the place itself is in the set.
fn read(value: &Value, depth: usize) -> Result<(Option<Set>, bool), String> {
    let map = match value {
        Value::Null => return Ok((None, true)),
        Value::Object(map) => map,
        _ => return Err("ReadMapCB: expect { or n".to_owned()),
    };
    if depth > DEPTH {
        return Err("exceeded max depth".to_owned());
    }
    let mut is_member = false;
    let mut children: Option<Set> = None;
    for (key, value) in map {
        if key == "." {
            is_member = true;
            continue;
        }
        let element = match Element::parse(key) {
            Ok(element) => element,
            Err(BadElement::Unknown) => continue,
            Err(BadElement::Malformed(why)) => {
                return Err(format!("parsing key as path element: {why}"));
            }
        };
        let (below, member) = read(value, depth + 1)?;
        if member {
            children.get_or_insert_default().add_member(element.clone());
        }
        if let Some(below) = below {
            children.get_or_insert_default().add_child(element, below);
        }
    }
    let is_member = is_member || children.is_none();
    Ok((children, is_member))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_set_comes_back_as_it_was_written() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
                "f:selector": {},
                "f:finalizers": {"v:\"a/b\"": {}},
            },
        });
        assert_eq!(to_value(&from_value(&fields).expect("a set")), fields);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for fields in [
            json!([]),
            json!({"spec": {}}),
            json!({"f:a": 1}),
            json!({"k:x": {}}),
        ] {
            from_value(&fields).expect_err("no set");
        }
        let mut deep = json!({});
        for _ in 0..200 {
            deep = json!({"f:a": deep});
        }
        from_value(&deep).expect_err("too deep");
    }
}
