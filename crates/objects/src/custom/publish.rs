//! The schemas of custom resources as OpenAPI documents show them, for `kubectl explain` and for clients that check
//! objects themselves.
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder` and `openapi/v2/conversion.go`.

use serde_json::{Map, Value, json};

use super::schema::Schema;
use crate::kind::Names;
use crate::schema::REFERENCE;

/// Name of the schema: the domain of the group backwards, version, kind.
pub(super) fn name(names: &Names) -> String {
    let mut parts: Vec<&str> = names.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), names.version, names.kind)
}

/// The schema of the kind. `schema` is what the definition says, `read` the same as this code reads it.
pub(super) fn publish(
    names: &Names,
    schema: &Value,
    read: &Schema,
    v2: bool,
) -> Map<String, Value> {
    let mut shown = schema.clone();
    if v2 {
        simplify(&mut shown, read.preserves());
    } else {
        mark_int_or_string(&mut shown);
    }
    // A root that keeps everything has no fields in the older dialect, and clients take it as it is.
    if !shown.is_object() {
        shown = json!({"type": "object"});
    }
    let text = |text: &str| json!({"type": "string", "description": text});
    let fields = shown
        .as_object_mut()
        .map(|map| map.entry("properties").or_insert_with(|| json!({})));
    if let Some(Value::Object(fields)) = fields {
        let documented = crate::table::documented_type;
        fields.insert("apiVersion".to_owned(), text(documented("apiVersion")));
        fields.insert("kind".to_owned(), text(documented("kind")));
        let target = format!(
            "{REFERENCE}{}",
            <k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta as schemars::JsonSchema>::schema_name()
        );
        let description = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
        let metadata = if v2 {
            json!({"description": description, "$ref": target})
        } else {
            json!({"description": description, "allOf": [{"$ref": target}], "default": {}})
        };
        fields.insert("metadata".to_owned(), metadata);
    }
    shown["x-kubernetes-group-version-kind"] =
        json!([{"group": names.group, "version": names.version, "kind": names.kind}]);
    Map::from_iter([(name(names), shown)])
}

/// What the newer dialect says of values that are numbers or texts is said by the extension alone.
fn mark_int_or_string(schema: &mut Value) {
    each(schema, &mut |map| {
        if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            map.remove("type");
        }
    });
}

/// The older dialect has no junctors, no `nullable` and no schemas that are anything: such parts are left open, so that
/// a client does not refuse what the server takes.
fn simplify(schema: &mut Value, preserve: bool) {
    each(schema, &mut |map| {
        for junctor in ["oneOf", "anyOf", "not", "nullable", "default", "example"] {
            let was = map.remove(junctor);
            if junctor == "nullable" && was == Some(Value::Bool(true)) {
                map.remove("type");
                map.remove("items");
                map.remove("properties");
            }
        }
        let flag = |name: &str| map.get(name) == Some(&Value::Bool(true));
        let (keeps, either) = (
            flag("x-kubernetes-preserve-unknown-fields"),
            flag("x-kubernetes-int-or-string"),
        );
        if keeps {
            map.remove("items");
            map.remove("properties");
        }
        if either {
            map.remove("type");
        }
        map.remove("allOf");
    });
    if preserve && let Some(map) = schema.as_object_mut() {
        map.remove("properties");
    }
}

/// Every schema, itself last.
fn each(schema: &mut Value, change: &mut dyn FnMut(&mut Map<String, Value>)) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    for (key, value) in map.iter_mut() {
        match (key.as_str(), value) {
            ("properties", Value::Object(fields)) => {
                fields.values_mut().for_each(|field| each(field, change));
            }
            ("items" | "additionalProperties" | "not", value) => each(value, change),
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) => {
                list.iter_mut().for_each(|one| each(one, change));
            }
            _ => {}
        }
    }
    change(map);
}
