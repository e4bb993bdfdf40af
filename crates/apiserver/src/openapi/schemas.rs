//! The schemas in the two dialects of OpenAPI, and those that requests and lists need beside the kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    DeleteOptions, ListMeta, ObjectMeta, Status, WatchEvent,
};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use seaway_objects::kind::Kind;
use seaway_objects::schema::{self, REFERENCE};
use serde_json::{Map, Value, json};

/// Name of the schema of patches: any object.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// A version of OpenAPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// Where schemas are in a document.
    pub(super) fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }
}

/// Name of the schema of a list of the kind.
pub(super) fn list_name(kind: &dyn Kind) -> String {
    let list = kind.list_kind();
    match kind.schema_name().rsplit_once('.') {
        Some((package, _)) => format!("{package}.{list}"),
        None => list,
    }
}

/// Name of the schema of a type.
pub(super) fn name_of<T: JsonSchema>() -> String {
    T::schema_name().into_owned()
}

/// All schemas that the kinds, their lists and their requests need.
pub(super) fn schemas(kinds: &[&Arc<dyn Kind>], dialect: Dialect) -> Map<String, Value> {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    let settings = SchemaSettings::draft07().with(|s| s.definitions_path = "/$defs".into());
    let mut generator = settings.into_generator();
    for add in [
        SchemaGenerator::subschema_for::<DeleteOptions>,
        SchemaGenerator::subschema_for::<ListMeta>,
        SchemaGenerator::subschema_for::<Status>,
        SchemaGenerator::subschema_for::<WatchEvent<RawExtension>>,
        SchemaGenerator::subschema_for::<Scale>,
    ] {
        add(&mut generator);
    }
    all.extend(generator.take_definitions(false));
    if let Some(scale) = all.get_mut(&name_of::<Scale>()) {
        scale["x-kubernetes-group-version-kind"] =
            json!([{"group": "autoscaling", "kind": "Scale", "version": "v1"}]);
    }
    let patch =
        "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.";
    all.insert(
        PATCH.to_owned(),
        json!({"description": patch, "type": "object"}),
    );
    let mut ready = Map::new();
    for kind in kinds {
        all.insert(list_name(kind.as_ref()), list_schema(kind.as_ref()));
        if let Some(published) = kind.published_schemas(dialect == Dialect::V2) {
            ready.extend(published.into_iter().map(|(name, schema)| {
                let schema = refer(schema, dialect);
                (name, schema)
            }));
            for one in schema::definitions_of::<ObjectMeta>() {
                all.entry(one.0).or_insert(one.1);
            }
            continue;
        }
        let definitions = schema::definitions(kind.as_ref());
        all.extend(
            definitions
                .schemas()
                .iter()
                .map(|(k, v)| (k.clone(), v.clone())),
        );
    }
    let all = all.into_iter().map(|(name, schema)| {
        let schema = translate(&schema, dialect, &name);
        (name, schema)
    });
    all.chain(ready).collect()
}

fn list_schema(kind: &dyn Kind) -> Value {
    let names = kind.names();
    json!({
        "description": format!("{} is a list of {}", kind.list_kind(), names.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": format!("{REFERENCE}{}", name_of::<ListMeta>())},
            "items": {"type": "array", "items": {"$ref": format!("{REFERENCE}{}", kind.schema_name())}},
        },
        "x-kubernetes-group-version-kind": [
            {"group": names.group, "kind": kind.list_kind(), "version": names.version},
        ],
    })
}

/// A schema of k8s-openapi in the dialect.
fn translate(schema: &Value, dialect: Dialect, name: &str) -> Value {
    match schema {
        Value::Object(map) => {
            if let Some(target) = schema::reference(schema) {
                return translate_reference(map, target, dialect);
            }
            let mut out: Map<String, Value> = map
                .iter()
                .filter(|(key, _)| *key != "x-kubernetes-int-or-string")
                .map(|(key, value)| (key.clone(), translate(value, dialect, "")))
                .collect();
            if map.contains_key("x-kubernetes-int-or-string") {
                // A number and a text, in the words that Kubernetes' own documents have for these two types.
                let quantity = name.ends_with(".Quantity");
                match dialect {
                    Dialect::V2 => {
                        out.insert("type".to_owned(), json!("string"));
                    }
                    Dialect::V3 if quantity => {
                        out.insert(
                            "oneOf".to_owned(),
                            json!([{"type": "string"}, {"type": "number"}]),
                        );
                    }
                    Dialect::V3 => {
                        out.insert(
                            "oneOf".to_owned(),
                            json!([{"type": "integer"}, {"type": "string"}]),
                        );
                    }
                }
                if !quantity {
                    out.insert("format".to_owned(), json!("int-or-string"));
                }
            }
            Value::Object(out)
        }
        Value::Array(list) => list.iter().map(|v| translate(v, dialect, "")).collect(),
        plain => plain.clone(),
    }
}

/// OpenAPI v3 ignores what stands beside a reference, so there the reference goes into an `allOf`.
fn translate_reference(map: &Map<String, Value>, target: &str, dialect: Dialect) -> Value {
    let beside = map.iter().filter(|(key, _)| *key != "$ref");
    let mut out: Map<String, Value> = beside.map(|(k, v)| (k.clone(), v.clone())).collect();
    let reference = dialect.reference(target);
    match (dialect, reference) {
        (Dialect::V2, Value::Object(reference)) => out.extend(reference),
        (_, reference) => {
            out.insert("allOf".to_owned(), json!([reference]));
            out.insert("default".to_owned(), json!({}));
        }
    }
    Value::Object(out)
}

/// A schema that is in the dialect already, but for where its references point to.
fn refer(schema: Value, dialect: Dialect) -> Value {
    match schema {
        Value::Object(mut map) => {
            if let Some(target) = map.get("$ref").and_then(Value::as_str)
                && let Some(name) = target.strip_prefix(REFERENCE)
                && let Value::Object(reference) = dialect.reference(name)
            {
                map.extend(reference);
            }
            let refer = |(key, value)| (key, refer(value, dialect));
            Value::Object(map.into_iter().map(refer).collect())
        }
        Value::Array(list) => list.into_iter().map(|v| refer(v, dialect)).collect(),
        plain => plain,
    }
}
