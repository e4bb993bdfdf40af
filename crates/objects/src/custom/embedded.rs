//! Objects within objects: whole resources, with type and metadata of their own.
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::child;
use super::schema::Schema;
use crate::field::{FieldError, FieldErrors};
use crate::names::{self, NameRule};
use crate::{go_json, metadata};

/// Reads the metadata of embedded resources through its type: what is no metadata goes.
pub fn coerce(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            if schema.embedded_resource
                && let Some(meta) = map.get_mut("metadata")
                && let Ok(read) = ObjectMeta::deserialize(&*meta)
                && let Ok(written) = go_json::to_value("ObjectMeta", &read)
            {
                *meta = written;
            }
            for (key, value) in map.iter_mut() {
                if let Some(field) = schema.field(key) {
                    coerce(value, field);
                }
            }
        }
        Value::Array(list) => {
            if let Some(element) = schema.element() {
                list.iter_mut().for_each(|value| coerce(value, element));
            }
        }
        _ => {}
    }
}

/// What is wrong with embedded resources.
pub fn validate(value: &Value, schema: &Schema, path: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    walk(value, schema, path, &mut errors);
    errors
}

fn walk(value: &Value, schema: &Schema, path: &str, errors: &mut FieldErrors) {
    match value {
        Value::Object(map) => {
            if schema.embedded_resource {
                resource(value, path, errors);
            }
            for (key, value) in map {
                if let Some(field) = schema.properties.get(key) {
                    walk(value, field, &child(path, key), errors);
                } else if let Some(additional) = schema.additional() {
                    walk(value, additional, &format!("{path}[{key}]"), errors);
                }
            }
        }
        Value::Array(list) => {
            if let Some(element) = schema.element() {
                for (i, value) in list.iter().enumerate() {
                    walk(value, element, &format!("{path}[{i}]"), errors);
                }
            }
        }
        _ => {}
    }
}

fn resource(value: &Value, path: &str, errors: &mut FieldErrors) {
    for name in ["apiVersion", "kind"] {
        let at = child(path, name);
        match value.get(name) {
            None => errors.push(FieldError::required(at, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(at, text, "must not be empty"));
            }
            Some(Value::String(text)) if name == "kind" => {
                let wrong = names::dns_1035_label(&text.to_lowercase());
                if !wrong.is_empty() {
                    let why = format!(
                        "may have mixed case, but should otherwise match: {}",
                        wrong.join(",")
                    );
                    errors.push(FieldError::invalid(at, text, &why));
                }
            }
            Some(Value::String(text)) => {
                if text.matches('/').count() > 1 {
                    let why = format!("unexpected GroupVersion string: {text}");
                    errors.push(FieldError::invalid(at, text, &why));
                }
            }
            Some(other) => errors.push(FieldError::invalid(at, other, "must be a string")),
        }
    }
    let Some(meta) = value.get("metadata") else {
        return;
    };
    let at = child(path, "metadata");
    match ObjectMeta::deserialize(meta) {
        Ok(mut read) => {
            // An embedded resource need not have a name.
            if read.name.as_deref().unwrap_or_default().is_empty() {
                read.name = Some("fakename".to_owned());
            }
            let namespaced = !read.namespace.as_deref().unwrap_or_default().is_empty();
            for mut error in metadata::validate(&read, namespaced, NameRule::Subdomain) {
                error.field = child(path, &error.field);
                errors.push(error);
            }
        }
        Err(e) => errors.push(FieldError::invalid(at, meta, &e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_embedded_resource_says_what_it_is_and_has_good_metadata() {
        let schema = Schema::read(&json!({"type": "object", "properties": {"template": {"type": "object",
            "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}))
        .unwrap();
        let mut value = json!({"template": {"apiVersion": "v1", "metadata": {"labels": {"a b": "c"}, "junk": 1}}});
        coerce(&mut value, &schema);
        assert_eq!(value["template"]["metadata"].get("junk"), None);
        let errors: Vec<String> = validate(&value, &schema, "")
            .iter()
            .map(|e| e.field.clone())
            .collect();
        assert_eq!(errors, ["template.kind", "template.metadata.labels"]);
    }
}
