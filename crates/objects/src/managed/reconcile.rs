//! What a set becomes when its type changed since it was written: what was granular and is one value now is owned as
//! a whole by whoever owned a part. Source: `structured-merge-diff`, `typed/reconcile_schema.go`.

use super::element::Element;
use super::schema::{Relation, Schema, TypeRef};
use super::set::Set;

/// The set as the type is now; `None` if nothing changed.
pub(super) fn reconcile(schema: &Schema, set: &Set) -> Option<Set> {
    let mut changes = (Set::default(), false);
    walk(schema, schema.root(), set, &mut Vec::new(), &mut changes);
    changes
        .1
        .then(|| set.recursive_difference(&changes.0).union(&changes.0))
}

fn walk(schema: &Schema, of: TypeRef, set: &Set, path: &mut Vec<Element>, whole: &mut (Set, bool)) {
    let atom = schema.atom(of);
    let atomic = match (&atom.map, &atom.list) {
        (Some(map), _) if map.is_deduced() => return,
        (Some(map), _) => map.atomic,
        (None, Some(list)) => matches!(list.relation, Relation::Atomic),
        (None, None) => return,
    };
    if atomic {
        if !set.is_empty() && !path.is_empty() {
            whole.0.insert(path.clone());
            whole.1 = true;
        }
        return;
    }
    for (element, below) in &set.children {
        let inner = match (element, &atom.map, &atom.list) {
            (Element::Field(name), Some(map), _) => map.of(name),
            (_, None, Some(list)) => Some(list.element),
            _ => None,
        };
        if let Some(inner) = inner {
            path.push(element.clone());
            walk(schema, inner, below, path, whole);
            path.pop();
        }
    }
}
