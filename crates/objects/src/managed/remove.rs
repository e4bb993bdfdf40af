//! Taking fields and elements out of an object. Source: `structured-merge-diff`, `typed/remove.go`.

use serde_json::{Map as JsonMap, Value};

use super::element::Element;
use super::items;
use super::schema::{Form, Relation, Schema, TypeRef};
use super::set::Set;

/// The object without what is in the set.
pub(super) fn remove(schema: &Schema, object: &Value, gone: &Set) -> Value {
    node(schema, schema.root(), object, gone)
}

fn node(schema: &Schema, of: TypeRef, value: &Value, gone: &Set) -> Value {
    let atom = schema.atom(of);
    match atom.form(Some(value)) {
        Some(Form::List) => match (&atom.list, value) {
            (Some(of), Value::Array(list))
                if !list.is_empty() && !matches!(of.relation, Relation::Atomic) =>
            {
                let mut out = Vec::with_capacity(list.len());
                for item in list {
                    let Ok(element) = items::element(of, item) else {
                        out.push(item.clone());
                        continue;
                    };
                    if gone.has_member(&element) {
                        continue;
                    }
                    out.push(match gone.child(&element).filter(|set| !set.is_empty()) {
                        Some(below) => node(schema, of.element, item, below),
                        None => item.clone(),
                    });
                }
                if out.is_empty() {
                    Value::Null
                } else {
                    Value::Array(out)
                }
            }
            _ => Value::Null,
        },
        Some(Form::Map) => match (&atom.map, value) {
            (Some(of), Value::Object(map)) if !map.is_empty() && !of.atomic => {
                let mut out = JsonMap::new();
                for (key, value) in map {
                    let element = Element::field(key);
                    if gone.has_member(&element) {
                        continue;
                    }
                    let kept = match (gone.child(&element).filter(|s| !s.is_empty()), of.of(key)) {
                        (Some(below), Some(inner)) => node(schema, inner, value, below),
                        _ => value.clone(),
                    };
                    out.insert(key.clone(), kept);
                }
                if out.is_empty() {
                    Value::Null
                } else {
                    Value::Object(out)
                }
            }
            _ => Value::Null,
        },
        _ => value.clone(),
    }
}
