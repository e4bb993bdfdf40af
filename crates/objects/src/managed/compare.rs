//! What changes from one object to another, field by field. Source: `structured-merge-diff`, `typed/compare.go`.

use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value};

use super::check;
use super::element::{Element, equal};
use super::errors::TypeErrors;
use super::items;
use super::schema::{Field, Form, List, Map, Relation, Schema, TypeRef, Zero};
use super::set::Set;

/// What changes from one object to another; no path is in two of the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

/// What becomes of a place itself.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    added: bool,
    modified: bool,
    removed: bool,
    /// The place was compared as one value: its parents say nothing of their own.
    leaf: bool,
}

/// Compares two objects of the same type.
///
/// # Errors
/// A list has elements that cannot be told apart from others.
pub(super) fn compare(schema: &Schema, old: &Value, new: &Value) -> Result<Comparison, TypeErrors> {
    let mut found = Comparison::default();
    node(schema, schema.root(), Some(old), Some(new), &mut found)?;
    Ok(found)
}

static EMPTY: std::sync::LazyLock<Value> =
    std::sync::LazyLock::new(|| Value::Object(JsonMap::new()));
static NULL: Value = Value::Null;

/// Adds what changes below to `found`, and returns what becomes of the place itself.
fn node(
    schema: &Schema,
    of: TypeRef,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Comparison,
) -> Result<Change, TypeErrors> {
    let atom = schema.atom(of);
    let (from, to) = (atom.form(old), atom.form(new));
    let mut change = Change::default();
    let forms = match (old, new) {
        (_, None) => [from, None],
        (None, _) => [to, None],
        _ if from == to => [to, None],
        _ => [from, to],
    };
    for form in forms.into_iter().flatten() {
        change.leaf = false;
        match form {
            Form::Scalar => {
                if let Some(kind) = atom.scalar {
                    let wrong = |v: Option<&Value>, prefix: &str| {
                        v.map_or_else(TypeErrors::none, |v| check::scalar(kind, v, prefix))
                    };
                    let (mut left, right) = (wrong(old, "lhs: "), wrong(new, "rhs: "));
                    if left.clone().result().is_err() && right.clone().result().is_err() {
                        left.extend(right);
                        return Err(left);
                    }
                }
                leaf(old, new, &mut change);
            }
            Form::List => {
                if let Some(of) = &atom.list {
                    list(schema, of, old, new, found, &mut change)?;
                }
            }
            Form::Map => {
                if let Some(of) = &atom.map {
                    map(schema, of, old, new, found, &mut change)?;
                }
            }
        }
    }
    if !change.leaf {
        change.added |= old.is_none();
        change.removed |= new.is_none() && old.is_some();
    }
    Ok(change)
}

fn leaf(old: Option<&Value>, new: Option<&Value>, change: &mut Change) {
    change.leaf = true;
    match (old, new) {
        (None, _) => change.added = true,
        (_, None) => change.removed = true,
        (Some(old), Some(new)) => change.modified |= !equal(old, new),
    }
}

fn map(
    schema: &Schema,
    of: &Map,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Comparison,
    change: &mut Change,
) -> Result<(), TypeErrors> {
    let before = old.and_then(Value::as_object);
    let after = new.and_then(Value::as_object);
    let is_empty = |m: Option<&JsonMap<String, Value>>| m.is_none_or(JsonMap::is_empty);
    let has_zeros = (before.is_some() || after.is_some()) && of.never_absent().next().is_some();
    if of.atomic || (is_empty(before) && is_empty(after) && !has_zeros) {
        leaf(old, new, change);
        return Ok(());
    }
    for (key, value) in after.into_iter().flatten() {
        let field = of.field(key);
        let was = before.and_then(|b| b.get(key).or_else(|| zero(field)));
        entry(schema, of, field, key, was, Some(value), found)?;
    }
    for (key, value) in before.into_iter().flatten() {
        if after.is_none_or(|a| !a.contains_key(key)) {
            let field = of.field(key);
            let is = after.and_then(|_| zero(field));
            entry(schema, of, field, key, Some(value), is, found)?;
        }
    }
    // What Go has in a struct although nobody wrote it comes and goes with the struct.
    if before.is_none() != after.is_none() {
        let there = before.or(after);
        for field in of.never_absent() {
            if there.is_some_and(|m| !m.contains_key(&*field.name)) {
                let (was, is) = (
                    before.and_then(|_| zero(Some(field))),
                    after.and_then(|_| zero(Some(field))),
                );
                entry(schema, of, Some(field), &field.name, was, is, found)?;
            }
        }
    }
    Ok(())
}

fn zero(field: Option<&Field>) -> Option<&'static Value> {
    match field?.zero {
        Zero::Absent => None,
        Zero::Struct => Some(&EMPTY),
        Zero::Null => Some(&NULL),
    }
}

fn entry(
    schema: &Schema,
    of: &Map,
    field: Option<&Field>,
    key: &str,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Comparison,
) -> Result<(), TypeErrors> {
    let Some(inner) = field.map(|f| f.of).or(of.values) else {
        // Nothing is known of it, so nobody can own it.
        return Ok(());
    };
    step(schema, inner, old, new, found, &|| {
        Element::Field(field.map_or_else(|| key.into(), |f| f.name.clone()))
    })
}

fn step(
    schema: &Schema,
    of: TypeRef,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Comparison,
    element: &dyn Fn() -> Element,
) -> Result<(), TypeErrors> {
    let mut below = Comparison::default();
    let change = node(schema, of, old, new, &mut below).map_err(|e| e.under(&element()))?;
    for (set, below, is_member) in [
        (&mut found.added, below.added, change.added),
        (&mut found.modified, below.modified, change.modified),
        (&mut found.removed, below.removed, change.removed),
    ] {
        if !below.is_empty() {
            set.add_child(element(), below);
        }
        if is_member {
            set.add_member(element());
        }
    }
    Ok(())
}

fn list(
    schema: &Schema,
    of: &List,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Comparison,
    change: &mut Change,
) -> Result<(), TypeErrors> {
    let before = old.and_then(Value::as_array);
    let after = new.and_then(Value::as_array);
    let is_empty = |l: Option<&Vec<Value>>| l.is_none_or(Vec::is_empty);
    if matches!(of.relation, Relation::Atomic) || (is_empty(before) && is_empty(after)) {
        leaf(old, new, change);
        return Ok(());
    }
    let mut both: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    let index = |list: Option<&Vec<Value>>| -> Result<Vec<Element>, TypeErrors> {
        list.into_iter()
            .flatten()
            .enumerate()
            .map(|(i, item)| {
                items::element(of, item).map_err(|e| TypeErrors::one(format!("element {i}: {e}")))
            })
            .collect()
    };
    for (element, item) in index(before)?.into_iter().zip(before.into_iter().flatten()) {
        both.entry(element).or_default().0.push(item);
    }
    for (element, item) in index(after)?.into_iter().zip(after.into_iter().flatten()) {
        both.entry(element).or_default().1.push(item);
    }
    for (element, (was, is)) in both {
        let compare_one = |old: Option<&Value>, new: Option<&Value>, found: &mut Comparison| {
            step(schema, of.element, old, new, found, &|| element.clone())
        };
        match (was.as_slice(), is.as_slice()) {
            ([] | [_], [] | [_]) => {
                compare_one(was.first().copied(), is.first().copied(), found)?;
            }
            // Elements that are there more than once are one value together.
            ([_, _, ..], [_, _, ..]) => {
                if was.len() != is.len() || !was.iter().zip(&is).all(|(a, b)| equal(a, b)) {
                    found.modified.add_member(element);
                }
            }
            ([_, _, ..], _) => {
                if let Some(item) = is.first() {
                    compare_one(None, Some(item), found)?;
                }
                found.removed.add_member(element);
            }
            (_, [_, _, ..]) => {
                if let Some(item) = was.first() {
                    compare_one(Some(item), None, found)?;
                }
                found.added.add_member(element);
            }
        }
    }
    Ok(())
}
