//! Why an object could not be read, in the words of Go's `encoding/json`, which Kubernetes passes on to its clients.
//!
//! serde's own message names neither the path nor Go's types, so the object is compared with its schema until the
//! first place where the two disagree.

use serde_json::Value;

use crate::kind::{DecodeError, Kind};
use crate::schema::{self, Definitions, Shape};

/// Explains why `object` is none of `kind`; `cause` is what serde said, used when the schema finds nothing wrong
/// (a malformed time, for example).
pub fn explain(kind: &dyn Kind, object: &Value, cause: &serde_json::Error) -> DecodeError {
    check(kind, object).err().unwrap_or_else(|| DecodeError {
        message: cause.to_string(),
    })
}

/// Compares the object with the schema of the kind.
///
/// # Errors
/// The first place where the two disagree.
pub fn check(kind: &dyn Kind, object: &Value) -> Result<(), DecodeError> {
    let definitions = schema::definitions(kind);
    let place = Place {
        owner: "",
        path: String::new(),
    };
    match mismatch(&definitions, definitions.root(), object, &place) {
        Some(message) => Err(DecodeError { message }),
        None => Ok(()),
    }
}

/// Where in the object we are.
struct Place<'a> {
    /// Go name of the struct that has the field, empty at the top.
    owner: &'a str,
    /// `spec.ports.port`: fields only, no list indexes.
    path: String,
}

impl Place<'_> {
    fn error(&self, value: &Value, go_type: &str) -> String {
        let what = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(n) if go_type.starts_with("int") => format!("number {n}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        if self.owner.is_empty() {
            format!("json: cannot unmarshal {what} into Go value of type {go_type}")
        } else {
            format!(
                "json: cannot unmarshal {what} into Go struct field {}.{} of type {go_type}",
                self.owner, self.path
            )
        }
    }
}

fn mismatch(
    definitions: &Definitions,
    shape: Shape<'_>,
    value: &Value,
    place: &Place<'_>,
) -> Option<String> {
    match (shape, value) {
        (_, Value::Null) => None,
        (Shape::Struct { name, fields }, Value::Object(map)) => map.iter().find_map(|(key, v)| {
            let schema = fields.get(key)?;
            let path = if place.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", place.path)
            };
            let owner = last(name);
            mismatch(
                definitions,
                definitions.shape(schema),
                v,
                &Place { owner, path },
            )
        }),
        (Shape::List(items), Value::Array(list)) => list
            .iter()
            .find_map(|v| mismatch(definitions, definitions.shape(items), v, place)),
        (Shape::Map(values), Value::Object(map)) => map
            .values()
            .find_map(|v| mismatch(definitions, definitions.shape(values), v, place)),
        (Shape::Leaf { name, schema }, value) => leaf_mismatch(name, schema, value, place),
        (shape, value) => Some(place.error(value, &go_type(definitions, shape))),
    }
}

fn leaf_mismatch(
    name: Option<&str>,
    schema: &Value,
    value: &Value,
    place: &Place<'_>,
) -> Option<String> {
    let go = go_leaf(name, schema);
    let fits = match schema.get("type").and_then(Value::as_str) {
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => match go.as_str() {
            "int32" => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            _ => value.is_i64(),
        },
        Some("number") => value.is_number(),
        Some("object") => value.is_object(),
        _ => match go.as_str() {
            "intstr.IntOrString" => {
                value.is_string() || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
            }
            _ => true,
        },
    };
    (!fits).then(|| {
        // IntOrString reads numbers itself, as an int32.
        let go = if go == "intstr.IntOrString" {
            "int32"
        } else {
            &go
        };
        place.error(value, go)
    })
}

/// `v1.ServicePort` for `io.k8s.api.core.v1.ServicePort`.
fn qualified(name: &str) -> &str {
    let Some((package, _)) = name.rsplit_once('.') else {
        return name;
    };
    match package.rfind('.') {
        Some(dot) => &name[dot + 1..],
        None => name,
    }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn go_type(definitions: &Definitions, shape: Shape<'_>) -> String {
    match shape {
        Shape::Struct { name, .. } => qualified(name).to_owned(),
        Shape::List(items) => format!("[]{}", go_type(definitions, definitions.shape(items))),
        Shape::Map(values) => {
            format!(
                "map[string]{}",
                go_type(definitions, definitions.shape(values))
            )
        }
        Shape::Leaf { name, schema } => go_leaf(name, schema),
    }
}

fn go_leaf(name: Option<&str>, schema: &Value) -> String {
    if let Some(name) = name {
        return qualified(name).to_owned();
    }
    let format = schema.get("format").and_then(Value::as_str);
    match (schema.get("type").and_then(Value::as_str), format) {
        (Some("integer"), Some(format)) => format.to_owned(),
        (Some("integer"), None) => "int64".to_owned(),
        (Some("boolean"), _) => "bool".to_owned(),
        (Some("number"), _) => "float64".to_owned(),
        (Some("string"), Some("byte")) => "[]uint8".to_owned(),
        (Some("string"), _) => "string".to_owned(),
        _ => "interface {}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::{Value, json};

    fn refusal(group: &str, plural: &str, object: Value) -> String {
        let kind = kinds::find(group, "v1", plural).expect(plural);
        kind.decode(object).expect_err("must be refused").message
    }

    #[test]
    fn wrong_types_are_named_as_go_names_them() {
        let service = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "spec": spec});
        for (spec, message) in [
            (
                json!({"ports": [{"port": "eighty"}]}),
                "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32",
            ),
            (
                json!({"ports": "80"}),
                "json: cannot unmarshal string into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort",
            ),
            (
                json!({"selector": {"a": 1}}),
                "json: cannot unmarshal number into Go struct field ServiceSpec.spec.selector of type string",
            ),
            (
                json!({"ports": [{"port": 1.5}]}),
                "json: cannot unmarshal number 1.5 into Go struct field ServicePort.spec.ports.port of type int32",
            ),
            (
                json!([]),
                "json: cannot unmarshal array into Go struct field Service.spec of type v1.ServiceSpec",
            ),
        ] {
            assert_eq!(refusal("", "services", service(spec)), message);
        }
        assert_eq!(
            refusal("", "services", json!([])),
            "json: cannot unmarshal array into Go value of type v1.Service"
        );
    }

    #[test]
    fn what_the_schema_does_not_know_is_still_refused() {
        let message = refusal(
            "",
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"creationTimestamp": "yesterday"}}),
        );
        assert!(!message.is_empty());
    }
}
