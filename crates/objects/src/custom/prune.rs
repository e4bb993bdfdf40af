//! Pruning: fields that the schema does not have go.
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning`.

use serde_json::Value;

use super::child;
use super::schema::Schema;

/// What every object has, whatever its schema says.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes what the schema does not have, and returns the paths of what was removed, sorted. `root` is true for whole
/// resources, whose type and metadata stay.
pub fn prune(value: &mut Value, schema: &Schema, root: bool) -> Vec<String> {
    let mut removed = Vec::new();
    Pruner {
        removed: &mut removed,
    }
    .walk(value, Some(schema), "", root, false);
    removed.sort();
    removed
}

struct Pruner<'a> {
    removed: &'a mut Vec<String>,
}

impl Pruner<'_> {
    /// `kept`: a list above keeps what its elements have, whatever they are.
    fn walk(
        &mut self,
        value: &mut Value,
        schema: Option<&Schema>,
        path: &str,
        root: bool,
        kept: bool,
    ) {
        let embedded = root || schema.is_some_and(|s| s.embedded_resource);
        let keeps = kept || schema.is_some_and(Schema::preserves);
        match value {
            Value::Object(map) => map.retain(|key, value| {
                if embedded && META.contains(&key.as_str()) {
                    return true;
                }
                let at = child(path, key);
                match schema {
                    Some(s) if s.properties.contains_key(key) => {
                        self.walk(value, s.properties.get(key), &at, false, false);
                        true
                    }
                    Some(s) if s.additional_properties.is_some() => {
                        // What `additionalProperties: true` lets through has no schema, and objects in it no fields.
                        self.walk(value, s.additional(), &at, false, false);
                        true
                    }
                    _ if keeps => true,
                    _ => {
                        if !path.is_empty() || !META.contains(&key.as_str()) {
                            self.removed.push(at);
                        }
                        false
                    }
                }
            }),
            Value::Array(list) => {
                for (i, value) in list.iter_mut().enumerate() {
                    let element = schema.and_then(Schema::element);
                    if keeps && element.is_none() {
                        continue;
                    }
                    self.walk(value, element, &format!("{path}[{i}]"), false, keeps);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pruned(schema: Value, mut value: Value) -> (Value, Vec<String>) {
        let removed = prune(&mut value, &Schema::read(&schema).unwrap(), true);
        (value, removed)
    }

    #[test]
    fn what_the_schema_does_not_have_goes() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a": {"type": "string"}, "list": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"strict": {"type": "object"}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"c": {"type": "string"}}}},
        }});
        let (value, removed) = pruned(
            schema,
            json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "n", "anything": 1}, "junk": 1,
                "spec": {"a": "x", "z": 1, "list": [{"b": "y", "q": 1}]},
                "free": {"any": {"thing": 1}, "strict": {"gone": 1}},
                "map": {"k": {"c": "d", "e": 1}}}),
        );
        assert_eq!(
            value,
            json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "n", "anything": 1},
                "spec": {"a": "x", "list": [{"b": "y"}]},
                "free": {"any": {"thing": 1}, "strict": {}},
                "map": {"k": {"c": "d"}}})
        );
        assert_eq!(
            removed,
            [
                "free.strict.gone",
                "junk",
                "map.k.e",
                "spec.list[0].q",
                "spec.z"
            ]
        );
    }

    #[test]
    fn an_embedded_object_keeps_its_type_and_metadata() {
        let schema = json!({"type": "object", "properties": {"template": {
            "type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}}});
        let (value, removed) = pruned(
            schema,
            json!({"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"x": 1}, "y": 1}}),
        );
        assert_eq!(
            value,
            json!({"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}}})
        );
        assert_eq!(removed, ["template.spec.x", "template.y"]);
    }
}
