//! Lists that are sets or maps: what is in them twice.
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::child;
use super::schema::Schema;
use crate::field::{FieldError, FieldErrors};

/// Elements that a set or a map among the lists has twice.
pub fn validate(value: &Value, schema: &Schema, path: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    walk(value, schema, path, &mut errors);
    errors
}

fn walk(value: &Value, schema: &Schema, path: &str, errors: &mut FieldErrors) {
    match value {
        Value::Array(list) => {
            match schema.list_type.as_deref() {
                Some("set") => {
                    for i in repeated(list.iter().map(Some)) {
                        errors.push(FieldError::duplicate(format!("{path}[{i}]"), &list[i]));
                    }
                }
                Some("map") => check_map(list, schema, path, errors),
                _ => {}
            }
            if let Some(element) = schema.element() {
                for (i, value) in list.iter().enumerate() {
                    walk(value, element, &format!("{path}[{i}]"), errors);
                }
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(field) = schema.properties.get(key) {
                    walk(value, field, &child(path, key), errors);
                }
                if let Some(additional) = schema.additional() {
                    walk(value, additional, &format!("{path}[{key}]"), errors);
                }
            }
        }
        _ => {}
    }
}

fn check_map(list: &[Value], schema: &Schema, path: &str, errors: &mut FieldErrors) {
    for (i, value) in list.iter().enumerate() {
        if !value.is_object() && !value.is_null() {
            let why = "must be an object for an array of list-type map";
            errors.push(FieldError::invalid(format!("{path}[{i}]"), value, why));
            return;
        }
    }
    let keys: Vec<Value> = list.iter().map(|v| key_of(v, schema)).collect();
    for i in repeated(keys.iter().map(Some)) {
        errors.push(FieldError::duplicate(format!("{path}[{i}]"), &keys[i]));
    }
}

/// The key of an element of a list of type map, as an object of its key fields.
pub fn key_of(element: &Value, schema: &Schema) -> Value {
    let fields = schema.list_map_keys.iter();
    let key: Map<String, Value> = fields
        .filter_map(|field| Some((field.clone(), element.get(field)?.clone())))
        .collect();
    Value::Object(key)
}

/// Where each value that is there more than once is there the second time.
fn repeated<'a>(values: impl Iterator<Item = Option<&'a Value>>) -> Vec<usize> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut second = Vec::new();
    for (i, value) in values.enumerate() {
        let times = seen
            .entry(value.map_or_else(String::new, ToString::to_string))
            .or_default();
        *times += 1;
        if *times == 2 {
            second.push(i);
        }
    }
    second
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_twice_in_a_set_or_a_map_is_named_once() {
        let schema = Schema::read(&json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
            "two": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object"}},
        }}))
        .unwrap();
        let value = json!({"set": ["a", "b", "a", "a"], "map": [{"name": "x", "v": 1}, {"name": "x", "v": 2}],
            "two": [{"port": 1, "protocol": "TCP"}, {"port": 1, "protocol": "UDP"}, {"port": 1, "protocol": "TCP"}]});
        let errors: Vec<String> = validate(&value, &schema, "")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            errors,
            [
                r#"map[1]: Duplicate value: {"name":"x"}"#,
                r#"set[2]: Duplicate value: "a""#,
                r#"two[2]: Duplicate value: {"port":1,"protocol":"TCP"}"#,
            ]
        );
    }
}
