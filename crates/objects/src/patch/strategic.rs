//! Kubernetes' strategic merge patch: like a JSON merge patch, but lists are merged by key where the type says so,
//! and directives delete, replace and order.
//!
//! Source: `k8s.io/apimachinery/pkg/util/strategicpatch` (KEP-less; documented in the Kubernetes community repository).

use serde_json::{Map, Value};

use super::PatchError;
use super::directives::{self, DELETE_FROM, ELEMENT_ORDER, PATCH, Patch, RETAIN_KEYS};
use super::merge_keys::{self, MergeFacts};
use super::order::{arrange, identity};
use crate::go_text;
use crate::kind::Kind;
use crate::schema::{self, Definitions, Shape};

/// Applies a strategic merge patch to an object of the kind.
///
/// # Errors
/// The patch is no JSON object, holds a directive that makes no sense, or leaves out a merge key.
pub fn strategic(kind: &dyn Kind, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::Malformed("Invalid JSON document".to_owned()));
    };
    let definitions = schema::definitions(kind);
    let merger = Merger {
        definitions: &definitions,
    };
    merger
        .map(original, patch, Some(definitions.root()))
        .map(Value::Object)
}

struct Merger<'a> {
    definitions: &'a Definitions,
}

/// What is known of a field: how lists in it are merged, and what it holds.
struct Field<'a> {
    facts: Option<MergeFacts>,
    shape: Option<Shape<'a>>,
}

impl<'a> Merger<'a> {
    fn field(&self, of: Option<Shape<'a>>, name: &str) -> Field<'a> {
        match of {
            Some(Shape::Struct { name: of, fields }) => Field {
                facts: merge_keys::of(of, name),
                shape: fields
                    .get(name)
                    .map(|schema| self.definitions.shape(schema)),
            },
            Some(Shape::Map(values)) => Field {
                facts: None,
                shape: Some(self.definitions.shape(values)),
            },
            _ => Field {
                facts: None,
                shape: None,
            },
        }
    }

    fn element(&self, of: Option<Shape<'a>>) -> Option<Shape<'a>> {
        match of {
            Some(Shape::List(items)) => Some(self.definitions.shape(items)),
            _ => None,
        }
    }

    fn map(
        &self,
        original: &Map<String, Value>,
        patch: &Map<String, Value>,
        shape: Option<Shape<'a>>,
    ) -> Result<Map<String, Value>, PatchError> {
        match directives::patch(patch)? {
            Patch::Replace => {
                let mut whole = patch.clone();
                whole.remove(PATCH);
                return Ok(match directives::strip(&Value::Object(whole)) {
                    Value::Object(map) => map,
                    _ => Map::new(),
                });
            }
            Patch::Delete => return Ok(Map::new()),
            Patch::Merge => return Err(directives::unknown(patch)),
            Patch::Absent => {}
        }
        let mut merged = original.clone();
        retain_keys(&mut merged, patch)?;
        for (key, value) in patch {
            if let Some(name) = key.strip_prefix(DELETE_FROM) {
                delete_from(&mut merged, name, value);
            } else if key.starts_with(DELETE_FROM.trim_end_matches('/')) {
                let why = "invalid patch format of primitive list";
                return Err(PatchError::Malformed(why.to_owned()));
            } else if key.starts_with(ELEMENT_ORDER.trim_end_matches('/'))
                && !key.starts_with(ELEMENT_ORDER)
            {
                let why = "invalid patch format of setElementOrder list";
                return Err(PatchError::Malformed(why.to_owned()));
            }
        }
        for (key, order) in patch {
            if let Some(name) = key.strip_prefix(ELEMENT_ORDER) {
                self.ordered_list(&mut merged, patch, name, order, shape)?;
            }
        }
        for (key, value) in patch {
            let ordered = patch.contains_key(&format!("{ELEMENT_ORDER}{key}")) && value.is_array();
            if key.starts_with(DELETE_FROM)
                || key.starts_with(ELEMENT_ORDER)
                || key == RETAIN_KEYS
                || key == PATCH
                || ordered
            {
                continue;
            }
            if value.is_null() {
                merged.remove(key);
                continue;
            }
            let field = self.field(shape, key);
            match (merged.get(key), value) {
                (Some(Value::Object(old)), Value::Object(new)) => {
                    // What is deleted is empty afterwards, not gone.
                    let result = self.map(old, new, field.shape)?;
                    merged.insert(key.clone(), Value::Object(result));
                }
                (Some(Value::Array(old)), Value::Array(new)) => {
                    let result = self.list(old, new, &field)?;
                    merged.insert(key.clone(), Value::Array(result));
                }
                (_, Value::Object(new)) if new.contains_key(PATCH) => {
                    merged.remove(key);
                }
                _ => {
                    merged.insert(key.clone(), directives::strip(value));
                }
            }
        }
        Ok(merged)
    }

    /// A list with `$setElementOrder`: merged if the patch has it, and then put in that order.
    fn ordered_list(
        &self,
        merged: &mut Map<String, Value>,
        patch: &Map<String, Value>,
        name: &str,
        order: &Value,
        shape: Option<Shape<'a>>,
    ) -> Result<(), PatchError> {
        let Value::Array(order) = order else {
            return Err(PatchError::Senseless(format!(
                "expected a []interface {{}}, but received a {}",
                go_text::type_name(order)
            )));
        };
        let field = self.field(shape, name);
        let Some(facts) = field.facts.filter(|f| f.merges()) else {
            // A list that is replaced as a whole has the order of its replacement.
            if let Some(Value::Array(new)) = patch.get(name) {
                merged.insert(
                    name.to_owned(),
                    directives::strip(&Value::Array(new.clone())),
                );
            }
            return Ok(());
        };
        let server: Vec<Value> = match merged.get(name) {
            Some(Value::Array(list)) => list.clone(),
            _ => Vec::new(),
        };
        let list = match patch.get(name) {
            Some(Value::Array(new)) => {
                check_order(new, order, facts.key)?;
                self.list(&server, new, &field)?
            }
            Some(Value::Null) => {
                merged.remove(name);
                return Ok(());
            }
            _ if server.is_empty() => return Ok(()),
            _ => server.clone(),
        };
        merged.insert(
            name.to_owned(),
            Value::Array(arrange(list, order, &server, facts.key)),
        );
        Ok(())
    }

    fn list(
        &self,
        original: &[Value],
        patch: &[Value],
        field: &Field<'a>,
    ) -> Result<Vec<Value>, PatchError> {
        let Some(facts) = field.facts.filter(|f| f.merges()) else {
            return Ok(match directives::strip(&Value::Array(patch.to_vec())) {
                Value::Array(list) => list,
                _ => Vec::new(),
            });
        };
        match facts.key {
            Some(key) => self.list_by_key(original, patch, key, self.element(field.shape)),
            None => {
                let mut merged: Vec<Value> = original.to_vec();
                for value in patch {
                    if !merged.contains(value) {
                        merged.push(value.clone());
                    }
                }
                Ok(arrange(merged, patch, original, None))
            }
        }
    }

    fn list_by_key(
        &self,
        original: &[Value],
        patch: &[Value],
        key: &str,
        element: Option<Shape<'a>>,
    ) -> Result<Vec<Value>, PatchError> {
        let mut merged: Vec<Value> = original.to_vec();
        let mut plain: Vec<&Map<String, Value>> = Vec::new();
        let mut replace = false;
        for value in patch {
            let Value::Object(map) = value else {
                return Err(PatchError::Senseless(format!(
                    "list element types are not identical: [map {}]",
                    go_text::type_name(value)
                )));
            };
            if !map.contains_key(PATCH) {
                plain.push(map);
                continue;
            }
            match directives::patch(map)? {
                Patch::Delete => {
                    let gone = merge_key(value, key)?;
                    merged.retain(|e| e.get(key) != Some(gone));
                }
                Patch::Replace => replace = true,
                Patch::Merge => {
                    return Err(PatchError::Senseless(
                        "merging lists cannot yet be specified in the patch".to_owned(),
                    ));
                }
                Patch::Absent => plain.push(map),
            }
        }
        if replace {
            return Ok(plain
                .into_iter()
                .map(|map| directives::strip(&Value::Object(map.clone())))
                .collect());
        }
        let mut order = Vec::with_capacity(plain.len());
        for map in plain {
            let value = Value::Object(map.clone());
            let identity = merge_key(&value, key)?;
            match merged.iter_mut().find(|e| e.get(key) == Some(identity)) {
                Some(Value::Object(old)) => *old = self.map(old, map, element)?,
                _ => merged.push(directives::strip(&value)),
            }
            order.push(value);
        }
        Ok(arrange(merged, &order, original, Some(key)))
    }
}

/// Source: `ErrNoMergeKey` in `k8s.io/apimachinery/pkg/util/mergepatch`.
fn merge_key<'v>(element: &'v Value, key: &str) -> Result<&'v Value, PatchError> {
    element.get(key).ok_or_else(|| {
        PatchError::Senseless(format!(
            "map: {} does not contain declared merge key: {key}",
            go_text::plain(element)
        ))
    })
}

/// `$retainKeys`: every key of the patch must be among them; what the object has beyond them goes.
fn retain_keys(
    merged: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    let Some(retain) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let malformed = || PatchError::Malformed("invalid patch format of retainKeys".to_owned());
    let keep: Vec<&str> = retain
        .as_array()
        .ok_or_else(malformed)?
        .iter()
        .map(|v| v.as_str().ok_or_else(malformed))
        .collect::<Result<_, _>>()?;
    let strays = patch.iter().any(|(key, value)| {
        !key.starts_with('$') && !value.is_null() && !keep.contains(&key.as_str())
    });
    if strays {
        return Err(malformed());
    }
    merged.retain(|key, _| keep.contains(&key.as_str()));
    Ok(())
}

/// `$deleteFromPrimitiveList/<name>`; what is no list deletes nothing.
fn delete_from(merged: &mut Map<String, Value>, name: &str, gone: &Value) {
    if let (Some(Value::Array(list)), Value::Array(gone)) = (merged.get_mut(name), gone) {
        list.retain(|value| !gone.contains(value));
    }
}

/// The elements of the patch must stand in the order that the patch itself asks for.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut rest = order.iter();
    for element in patch.iter().filter(|e| e.get(PATCH).is_none()) {
        let wanted = identity(element, key);
        if wanted.is_none() || !rest.any(|o| identity(o, key) == wanted) {
            return Err(PatchError::Senseless(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go_text::plain(&Value::Array(patch.to_vec())),
                go_text::plain(&Value::Array(order.to_vec())),
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod(containers: Value) -> Value {
        json!({"spec": {"containers": containers}})
    }

    fn patched(original: &Value, patch: &Value) -> Result<Value, PatchError> {
        let kind = kinds::find("", "v1", "pods").expect("pods");
        strategic(kind.as_ref(), original, patch)
    }

    fn service(original: &Value, patch: &Value) -> Value {
        let kind = kinds::find("", "v1", "services").expect("services");
        strategic(kind.as_ref(), original, patch).expect("applies")
    }

    #[test]
    fn lists_are_merged_by_key_and_new_elements_come_first() {
        let original =
            pod(json!([{"name": "c", "image": "x:1", "env": [{"name": "A", "value": "1"}]}]));
        for (patch, result) in [
            (
                json!([{"name": "side", "image": "y"}]),
                json!([{"name": "side", "image": "y"}, {"name": "c", "image": "x:1", "env": [{"name": "A", "value": "1"}]}]),
            ),
            (
                json!([{"name": "c", "image": "x:2"}]),
                json!([{"name": "c", "image": "x:2", "env": [{"name": "A", "value": "1"}]}]),
            ),
            (
                json!([{"name": "c", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]}]),
                json!([{"name": "c", "image": "x:1", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]}]),
            ),
            (json!([{"name": "c", "$patch": "delete"}]), json!([])),
            (
                json!([{"$patch": "replace"}, {"name": "z"}]),
                json!([{"name": "z"}]),
            ),
            (
                json!([{"name": "c", "env": null}]),
                json!([{"name": "c", "image": "x:1"}]),
            ),
        ] {
            assert_eq!(
                patched(&original, &pod(patch.clone())),
                Ok(pod(result)),
                "{patch}"
            );
        }
    }

    #[test]
    fn lists_without_a_key_are_replaced() {
        let original = json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "c", "args": ["1", "2"]}]}});
        let patch = json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "c", "args": ["3"]}]}});
        assert_eq!(patched(&original, &patch), Ok(patch));
    }

    #[test]
    fn lists_of_plain_values_are_joined_and_cut() {
        let original = json!({"metadata": {"finalizers": ["a/a", "b/b"]}});
        let joined = patched(
            &original,
            &json!({"metadata": {"finalizers": ["b/b", "c/c"]}}),
        );
        assert_eq!(
            joined,
            Ok(json!({"metadata": {"finalizers": ["a/a", "b/b", "c/c"]}}))
        );
        let cut = patched(
            &original,
            &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"], "$setElementOrder/finalizers": ["b/b"]}}),
        );
        assert_eq!(cut, Ok(json!({"metadata": {"finalizers": ["b/b"]}})));
    }

    #[test]
    fn the_order_is_the_one_that_was_asked_for() {
        let original = pod(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]));
        let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "new"}, {"name": "a"}],
            "containers": [{"name": "new", "image": "n"}]}});
        let names = |v: &Value| -> Vec<String> {
            let list = v["spec"]["containers"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            list.iter()
                .map(|c| c["name"].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        let result = patched(&original, &patch).expect("applies");
        // `b` is the server's own: it stays before `c`, as it was.
        assert_eq!(names(&result), ["b", "c", "new", "a"]);
        let only_order = json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}});
        assert_eq!(
            names(&patched(&original, &only_order).expect("applies")),
            ["c", "b", "a"]
        );
        let wrong = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "b"}, {"name": "a"}]}});
        assert_eq!(
            patched(&original, &wrong)
                .expect_err("contradicts itself")
                .status()
                .0,
            500
        );
    }

    #[test]
    fn a_map_can_be_replaced_deleted_and_kept_in_part() {
        let original = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeSelector": {"x": "y"}}});
        let replaced = patched(
            &original,
            &json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
        );
        assert_eq!(
            replaced.expect("applies")["metadata"]["labels"],
            json!({"c": "3"})
        );
        let deleted = patched(
            &original,
            &json!({"spec": {"nodeSelector": {"$patch": "delete"}}}),
        );
        assert_eq!(
            deleted.expect("applies")["spec"],
            json!({"nodeSelector": {}})
        );
        let volume = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let retained = json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "m"}, "$retainKeys": ["name", "configMap"]}]}});
        assert_eq!(
            patched(&volume, &retained),
            Ok(json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "m"}}]}}))
        );
    }

    #[test]
    fn ports_of_a_service_are_told_apart_by_their_number() {
        let original =
            json!({"spec": {"ports": [{"name": "x", "port": 80}, {"name": "y", "port": 81}]}});
        assert_eq!(
            service(
                &original,
                &json!({"spec": {"ports": [{"name": "z", "port": 81}]}})
            ),
            json!({"spec": {"ports": [{"name": "x", "port": 80}, {"name": "z", "port": 81}]}})
        );
        assert_eq!(
            service(
                &original,
                &json!({"spec": {"ports": [{"$patch": "delete", "port": 80}]}})
            ),
            json!({"spec": {"ports": [{"name": "y", "port": 81}]}})
        );
    }

    #[test]
    fn directives_never_reach_the_object() {
        let patch = json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"$retainKeys": ["containers"], "$setElementOrder/containers": [{"name": "c"}],
                "containers": [{"name": "c", "$setElementOrder/env": [{"name": "E"}], "env": [{"name": "E"}, {"name": "F", "$patch": "delete"}]}]}});
        assert_eq!(
            patched(&json!({}), &patch),
            Ok(
                json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "env": [{"name": "E"}]}]}})
            )
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let original = pod(json!([{"name": "c"}]));
        for (patch, code, message) in [
            (json!([]), 400, "Invalid JSON document"),
            (
                pod(json!([{"image": "x"}])),
                500,
                "map: map[image:x] does not contain declared merge key: name",
            ),
            (
                pod(json!([{"$patch": "delete"}])),
                500,
                "map: map[$patch:delete] does not contain declared merge key: name",
            ),
            (
                pod(json!([{"$patch": "merge", "name": "c"}])),
                500,
                "merging lists cannot yet be specified in the patch",
            ),
            (
                json!({"spec": {"$patch": "explode"}}),
                500,
                "unknown patch type: explode in map: map[$patch:explode]",
            ),
            (
                json!({"spec": {"$retainKeys": ["a"], "hostname": "h"}}),
                400,
                "invalid patch format of retainKeys",
            ),
            (
                json!({"spec": {"$setElementOrder/containers": "c"}}),
                500,
                "expected a []interface {}, but received a string",
            ),
            (
                json!({"spec": {"$deleteFromPrimitiveList": []}}),
                400,
                "invalid patch format of primitive list",
            ),
        ] {
            let error = patched(&original, &patch).expect_err("refused");
            assert_eq!(
                (error.status().0, error.to_string().as_str()),
                (code, message),
                "{patch}"
            );
        }
        assert_eq!(
            patched(&pod(json!(["c"])), &pod(json!(["c"])))
                .expect_err("no maps")
                .status()
                .0,
            500
        );
    }

    fn containers() -> impl Strategy<Value = Value> {
        let container =
            ("[a-d]", "[xyz]").prop_map(|(name, image)| (name, json!({"image": image})));
        proptest::collection::vec(container, 0..5).prop_map(|list| {
            let unique: std::collections::BTreeMap<String, Value> = list.into_iter().collect();
            unique
                .into_iter()
                .map(|(name, mut container)| {
                    container["name"] = Value::from(name);
                    container
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn the_empty_patch_changes_nothing(list in containers()) {
            let original = pod(list);
            prop_assert_eq!(patched(&original, &json!({})), Ok(original));
        }

        #[test]
        fn a_patch_applied_twice_is_applied_once(list in containers(), change in containers()) {
            let once = patched(&pod(list), &pod(change.clone())).expect("applies");
            prop_assert_eq!(patched(&once, &pod(change)), Ok(once));
        }

        #[test]
        fn every_element_of_the_patch_is_in_the_result_and_none_is_lost(list in containers(), change in containers()) {
            let result = patched(&pod(list.clone()), &pod(change.clone())).expect("applies");
            let result = result["spec"]["containers"].as_array().cloned().unwrap_or_default();
            for wanted in change.as_array().into_iter().flatten() {
                prop_assert!(result.contains(wanted));
            }
            for kept in list.as_array().into_iter().flatten() {
                prop_assert_eq!(result.iter().filter(|c| c["name"] == kept["name"]).count(), 1);
            }
        }
    }
}
