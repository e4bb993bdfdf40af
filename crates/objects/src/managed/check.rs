//! Whether a value is of its type. Source: `structured-merge-diff`, `typed/validate.go`.

use serde_json::Value;

use crate::go_text;

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
            return errors.extend(TypeErrors::one(format!(
                "expected map, got &{{{}}}",
                go_text::plain(other)
            )));
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
            return errors.extend(TypeErrors::one(format!(
                "expected list, got &{{{}}}",
                go_text::plain(other)
            )));
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
            format!(
                "expected numeric (int or float), got {}",
                go_text::type_name(other)
            )
        }
        (Scalar::String, other) => {
            format!(
                "expected string, got &value.valueUnstructured{{Value:{}}}",
                go_text::syntax(other)
            )
        }
        (Scalar::Boolean, other) => format!("expected boolean, got &{{{}}}", go_text::plain(other)),
        (Scalar::Untyped, other) => {
            format!("expected any scalar, got &{{{}}}", go_text::plain(other))
        }
    };
    TypeErrors::one(format!("{prefix}{message}"))
}
