//! Merging what is applied into what is there. Source: `structured-merge-diff`, `typed/merge.go`.

use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value};

use super::element::Element;
use super::errors::TypeErrors;
use super::items;
use super::schema::{Form, List, Map, Relation, Schema, TypeRef};

/// The object with everything that `config` says; nothing is taken away.
///
/// # Errors
/// A list has elements that cannot be told apart from others.
pub(super) fn merge(schema: &Schema, live: &Value, config: &Value) -> Result<Value, TypeErrors> {
    node(schema, schema.root(), Some(live), Some(config))
        .map(|merged| merged.unwrap_or(Value::Null))
}

fn node(
    schema: &Schema,
    of: TypeRef,
    live: Option<&Value>,
    config: Option<&Value>,
) -> Result<Option<Value>, TypeErrors> {
    let atom = schema.atom(of);
    let form = if config.is_some() {
        atom.form(config)
    } else {
        atom.form(live)
    };
    match form {
        Some(Form::Map) => match &atom.map {
            Some(of) => map(schema, of, live, config),
            None => Ok(None),
        },
        Some(Form::List) => match &atom.list {
            Some(of) => list(schema, of, live, config),
            None => Ok(None),
        },
        _ => Ok(leaf(live, config)),
    }
}

fn leaf(live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    config.or(live).cloned()
}

fn map(
    schema: &Schema,
    of: &Map,
    live: Option<&Value>,
    config: Option<&Value>,
) -> Result<Option<Value>, TypeErrors> {
    let (left, right) = (
        live.and_then(Value::as_object),
        config.and_then(Value::as_object),
    );
    let is_empty = |m: Option<&JsonMap<String, Value>>| m.is_none_or(JsonMap::is_empty);
    if of.atomic || (is_empty(left) && is_empty(right)) {
        return Ok(leaf(live, config));
    }
    let mut out = JsonMap::new();
    for (key, value) in left.into_iter().flatten() {
        let applied = right.and_then(|r| r.get(key));
        let merged = match of.of(key) {
            Some(inner) => node(schema, inner, Some(value), applied)
                .map_err(|e| e.under(&Element::field(key)))?,
            None => leaf(Some(value), applied),
        };
        out.extend(merged.map(|v| (key.clone(), v)));
    }
    for (key, value) in right.into_iter().flatten() {
        if left.is_some_and(|l| l.contains_key(key)) {
            continue;
        }
        let merged = match of.of(key) {
            Some(inner) => {
                node(schema, inner, None, Some(value)).map_err(|e| e.under(&Element::field(key)))?
            }
            None => Some(value.clone()),
        };
        out.extend(merged.map(|v| (key.clone(), v)));
    }
    Ok((!out.is_empty()).then_some(Value::Object(out)))
}

fn list(
    schema: &Schema,
    of: &List,
    live: Option<&Value>,
    config: Option<&Value>,
) -> Result<Option<Value>, TypeErrors> {
    let (left, right) = (
        live.and_then(Value::as_array),
        config.and_then(Value::as_array),
    );
    let is_empty = |l: Option<&Vec<Value>>| l.is_none_or(Vec::is_empty);
    if matches!(of.relation, Relation::Atomic) || (is_empty(left) && is_empty(right)) {
        return Ok(leaf(live, config));
    }
    let empty = Vec::new();
    let out = elements(schema, of, left.unwrap_or(&empty), right.unwrap_or(&empty))?;
    Ok((!out.is_empty()).then_some(Value::Array(out)))
}

/// Elements by what tells them apart; those that are there twice have no value.
type Index<'v> = (Vec<Element>, BTreeMap<Element, Option<&'v Value>>);

fn index<'v>(of: &List, list: &'v [Value], duplicates: bool) -> Result<Index<'v>, TypeErrors> {
    let mut errors = TypeErrors::none();
    let mut order = Vec::with_capacity(list.len());
    let mut values: BTreeMap<Element, Option<&Value>> = BTreeMap::new();
    for (i, item) in list.iter().enumerate() {
        match items::element(of, item) {
            Err(why) => errors.extend(TypeErrors::one(format!("element {i}: {why}"))),
            Ok(element) if !values.contains_key(&element) => {
                values.insert(element.clone(), Some(item));
                order.push(element);
            }
            Ok(element) if duplicates => {
                values.insert(element.clone(), None);
                order.push(element);
            }
            Ok(element) => {
                errors.extend(TypeErrors::one(format!(
                    "duplicate entries for key {element}"
                )));
            }
        }
    }
    errors.result().map(|()| (order, values))
}

/// Elements of both, in the order of what is applied as far as that names them; others stay where they were.
fn elements(
    schema: &Schema,
    of: &List,
    left: &[Value],
    right: &[Value],
) -> Result<Vec<Value>, TypeErrors> {
    let (right_order, right_values) = index(of, right, false)?;
    let (left_order, left_values) = index(of, left, true)?;
    let merged = |element: &Element, live: Option<&Value>| {
        let live = live.or_else(|| {
            // One that was there twice counts as null.
            left_values.get(element).map(|v| v.unwrap_or(&Value::Null))
        });
        let applied = right_values.get(element).copied().flatten();
        node(schema, of.element, live, applied).map_err(|e| e.under(element))
    };
    let mut shared = right_order
        .iter()
        .filter(|e| left_values.contains_key(e))
        .peekable();
    let mut done: std::collections::BTreeSet<&Element> = std::collections::BTreeSet::new();
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let (mut l, mut r) = (0, 0);
    while l < left_order.len() || r < right_order.len() {
        if let (Some(from_left), Some(from_right)) = (left_order.get(l), right_order.get(r)) {
            if from_left == from_right {
                done.insert(from_right);
                out.extend(merged(from_right, None)?);
                l += 1;
                r += 1;
                shared.next();
                continue;
            }
            if right_values.contains_key(from_left)
                && shared.peek().is_some_and(|next| *next != from_left)
            {
                // In both, but its turn comes later.
                l += 1;
                continue;
            }
        }
        if let Some(from_left) = left_order.get(l) {
            if !right_values.contains_key(from_left) {
                out.extend(merged(from_left, left.get(l))?);
                l += 1;
                continue;
            }
            if done.contains(from_left) {
                l += 1;
            }
        }
        if let Some(from_right) = right_order.get(r) {
            done.insert(from_right);
            out.extend(merged(from_right, None)?);
            r += 1;
            if shared.peek().is_some_and(|next| *next == from_right) {
                shared.next();
            }
        }
    }
    Ok(out)
}
