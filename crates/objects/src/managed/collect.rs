//! The set of everything that an object says. Source: `structured-merge-diff`, `typed/tofieldset.go`.

use serde_json::Value;

use super::element::Element;
use super::items;
use super::schema::{Form, List, Map, Relation, Schema, TypeRef};
use super::set::Set;

/// Every field and element that the object has a value for.
pub(super) fn collect(schema: &Schema, object: &Value) -> Set {
    node(schema, schema.root(), object).1
}

/// Whether the value itself is in the set, and what is below it.
fn node(schema: &Schema, of: TypeRef, value: &Value) -> (bool, Set) {
    let atom = schema.atom(of);
    match atom.form(Some(value)) {
        Some(Form::Scalar) | None => (true, Set::default()),
        Some(Form::List) => match (&atom.list, value) {
            (Some(list), Value::Array(elements)) if !matches!(list.relation, Relation::Atomic) => {
                (false, from_list(schema, list, elements))
            }
            (Some(list), _) => (matches!(list.relation, Relation::Atomic), Set::default()),
            (None, _) => (false, Set::default()),
        },
        Some(Form::Map) => match (&atom.map, value) {
            (Some(map), Value::Object(_)) if !map.atomic => (false, from_map(schema, map, value)),
            (Some(map), _) => (map.atomic, Set::default()),
            (None, _) => (false, Set::default()),
        },
    }
}

fn from_list(schema: &Schema, of: &List, list: &[Value]) -> Set {
    let mut set = Set::default();
    let found: Vec<(Element, &Value)> = list
        .iter()
        .filter_map(|item| Some((items::element(of, item).ok()?, item)))
        .collect();
    for (element, item) in &found {
        // One that is there twice is one value.
        if found.iter().filter(|(other, _)| other == element).count() == 1 {
            let (_, below) = node(schema, of.element, item);
            if !below.is_empty() {
                set.add_child(element.clone(), below);
            }
        }
        set.add_member(element.clone());
    }
    set
}

fn from_map(schema: &Schema, of: &Map, value: &Value) -> Set {
    let mut set = Set::default();
    for (key, value) in value.as_object().into_iter().flatten() {
        let field = of.field(key);
        let Some(inner) = field.map(|f| f.of).or(of.values) else {
            continue;
        };
        let element = Element::Field(field.map_or_else(|| key.as_str().into(), |f| f.name.clone()));
        let (own, below) = node(schema, inner, value);
        let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
        if !below.is_empty() {
            set.add_child(element.clone(), below);
        }
        if own || empty || field.is_none() {
            set.add_member(element);
        }
    }
    set
}
