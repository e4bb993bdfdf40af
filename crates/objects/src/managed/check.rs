//! Whether a value is of its type. Source: `structured-merge-diff`, `typed/validate.go`.

use serde_json::{Map as JsonMap, Value};

use super::element::Element;
use super::errors::TypeErrors;
use super::items;
use super::schema::{Form, List, Map, Relation, Scalar, Schema, TypeRef};

/// Checks an object against its type: unknown fields, wrong types, elements of lists that are there twice.
///
/// # Errors
/// Everything that is wrong, in Kubernetes' words.
pub fn check(schema: &Schema, object: &Value) -> Result<(), TypeErrors> {
    let mut errors = TypeErrors::none();
    node(schema, schema.root(), object, &mut errors);
    errors.result()
}

fn node(schema: &Schema, of: TypeRef, value: &Value, errors: &mut TypeErrors) {
    let atom = schema.atom(of);
    match atom.form(Some(value)) {
        Some(Form::Map) => {
            if let Some(map) = &atom.map {
                fields(schema, map, value, errors);
            }
        }
        Some(Form::List) => {
            if let Some(list) = &atom.list {
                elements(schema, list, value, errors);
            }
        }
        Some(Form::Scalar) => errors.extend(
            atom.scalar
                .map_or_else(TypeErrors::none, |kind| scalar(kind, value, "")),
        ),
        None => errors.extend(TypeErrors::one("schema error: invalid atom: inlined")),
    }
}

fn fields(schema: &Schema, of: &Map, value: &Value, errors: &mut TypeErrors) {
    let map = match value {
        Value::Null => return,
        Value::Object(map) => map,
        other => {
            return errors.extend(TypeErrors::one(format!("expected map, got &{{{}}}", go(other))));
        }
    };
    for (key, value) in map {
        let at = Element::field(key);
        let Some(of) = of.of(key) else {
            errors.extend(TypeErrors::one("field not declared in schema").under(&at));
            return;
        };
        below(schema, of, value, &at, errors);
    }
}

fn elements(schema: &Schema, of: &List, value: &Value, errors: &mut TypeErrors) {
    let list = match value {
        Value::Null => return,
        Value::Array(list) => list,
        other => {
            return errors.extend(TypeErrors::one(format!("expected list, got &{{{}}}", go(other))));
        }
    };
    let mut seen = std::collections::BTreeSet::new();
    for (i, item) in list.iter().enumerate() {
        let at = if matches!(of.relation, Relation::Atomic) {
            Element::Index(i64::try_from(i).unwrap_or(i64::MAX))
        } else {
            match items::element(of, item) {
                Ok(at) => at,
                Err(why) => {
                    return errors.extend(TypeErrors::one(format!("element {i}: {why}")));
                }
            }
        };
        if !seen.insert(at.clone()) {
            errors.extend(TypeErrors::one(format!("duplicate entries for key {at}")));
        }
        below(schema, of.element, item, &at, errors);
    }
}

fn below(schema: &Schema, of: TypeRef, value: &Value, at: &Element, errors: &mut TypeErrors) {
    let mut found = TypeErrors::none();
    node(schema, of, value, &mut found);
    errors.extend(found.under(at));
}

/// What is wrong with a plain value. `prefix` is `lhs: ` or `rhs: ` where two are compared.
pub(super) fn scalar(of: Scalar, value: &Value, prefix: &str) -> TypeErrors {
    let message = match (of, value) {
        (_, Value::Null)
        | (Scalar::Numeric, Value::Number(_))
        | (Scalar::String, Value::String(_))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Untyped, Value::Number(_) | Value::String(_) | Value::Bool(_)) => {
            return TypeErrors::none();
        }
        (Scalar::Numeric, other) => {
            format!("expected numeric (int or float), got {}", go_type(other))
        }
        (Scalar::String, other) => {
            format!(
                "expected string, got &value.valueUnstructured{{Value:{}}}",
                go_syntax(other)
            )
        }
        (Scalar::Boolean, other) => format!("expected boolean, got &{{{}}}", go(other)),
        (Scalar::Untyped, other) => format!("expected any scalar, got &{{{}}}", go(other)),
    };
    TypeErrors::one(format!("{prefix}{message}"))
}

/// A value as Go's `%v` prints it.
pub(super) fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(go).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => format!("map[{}]", entries(map, " ", &|key, v| format!("{key}:{}", go(v)))),
        plain => plain.to_string(),
    }
}

/// A value as Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => format!(
            "map[string]interface {{}}{{{}}}",
            entries(map, ", ", &|key, v| format!("{key:?}:{}", go_syntax(v)))
        ),
        plain => plain.to_string(),
    }
}

fn entries(map: &JsonMap<String, Value>, separator: &str, entry: &dyn Fn(&str, &Value) -> String) -> String {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_unstable();
    let entries: Vec<String> = keys.into_iter().map(|key| entry(key, &map[key])).collect();
    entries.join(separator)
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
