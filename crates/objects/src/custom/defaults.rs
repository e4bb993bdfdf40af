//! Defaulting: what is missing and has a default gets it, on the way in and on the way out.
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting`.

use serde_json::Value;

use super::schema::Schema;

/// Fills in defaults. A `null` where none may be is as good as nothing: it goes, or becomes the default.
pub fn default(value: &mut Value, schema: &Schema) {
    drop_nulls(value, Some(schema));
    fill(value, schema);
}

fn is_out_of_place(value: &Value, schema: &Schema) -> bool {
    value.is_null() && !schema.nullable
}

fn drop_nulls(value: &mut Value, schema: Option<&Schema>) {
    match value {
        Value::Object(map) => map.retain(|key, value| {
            let schema = schema.and_then(|s| s.field(key));
            if schema.is_some_and(|s| is_out_of_place(value, s) && s.default.is_none()) {
                return false;
            }
            drop_nulls(value, schema);
            true
        }),
        Value::Array(list) => {
            for value in list {
                drop_nulls(value, schema.and_then(Schema::element));
            }
        }
        _ => {}
    }
}

fn fill(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            for (key, field) in &schema.properties {
                let missing = map.get(key).is_none_or(|v| is_out_of_place(v, field));
                if let (true, Some(default)) = (missing, &field.default) {
                    map.insert(key.clone(), default.clone());
                }
            }
            for (key, value) in map.iter_mut() {
                if let Some(field) = schema.field(key) {
                    fill_place(value, field);
                }
            }
        }
        Value::Array(list) => {
            if let Some(element) = schema.element() {
                for value in list {
                    fill_place(value, element);
                }
            }
        }
        _ => {}
    }
}

fn fill_place(value: &mut Value, schema: &Schema) {
    if is_out_of_place(value, schema)
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
    fill(value, schema);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_gets_its_default_and_what_is_null_too() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
            "replicas": {"type": "integer", "default": 1},
            "nullable": {"type": "string", "nullable": true, "default": "x"},
            "plain": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"port": {"type": "integer", "default": 80}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string", "default": "b"}}}},
        }}}});
        let schema = Schema::read(&schema).unwrap();
        let mut empty = json!({});
        default(&mut empty, &schema);
        assert_eq!(empty, json!({"spec": {"replicas": 1, "nullable": "x"}}));
        let mut nulls = json!({"spec": {"replicas": null, "nullable": null, "plain": null, "list": [{}, {"port": 1}], "map": {"k": {}}}});
        default(&mut nulls, &schema);
        assert_eq!(
            nulls,
            json!({"spec": {"replicas": 1, "nullable": null, "list": [{"port": 80}, {"port": 1}], "map": {"k": {"a": "b"}}}})
        );
    }
}
