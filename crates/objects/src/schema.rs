//! The OpenAPI schemas of the kinds, from k8s-openapi: what fields there are, for strict validation, error texts,
//! patches and `kubectl explain`.
//!
//! The schemas of one kind are some hundred kilobytes, so they are made when first asked for and then kept: starting
//! up costs nothing.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::list_types::{self, ListType};
use crate::managed;
use crate::patch::merge_keys;

/// Where references in [`Definitions`] point to: this, then the name of the schema.
pub const REFERENCE: &str = "#/$defs/";

/// All schemas that a kind consists of, by name.
#[derive(Debug)]
pub struct Definitions {
    root: String,
    schemas: Map<String, Value>,
    typed: OnceLock<Arc<managed::Schema>>,
}

/// What a schema describes.
#[derive(Debug, Clone, Copy)]
pub enum Shape<'a> {
    /// A struct with its name and fields.
    Struct {
        /// `io.k8s.api.core.v1.PodSpec`
        name: &'a str,
        /// Field → schema.
        fields: &'a Map<String, Value>,
    },
    /// A list; the schema of its elements.
    List(&'a Value),
    /// A map from strings; the schema of its values.
    Map(&'a Value),
    /// Text, number, boolean, or one of the types with their own JSON form.
    Leaf {
        /// Name, if the type has one: `io.k8s.apimachinery.pkg.api.resource.Quantity`.
        name: Option<&'a str>,
        /// The schema itself.
        schema: &'a Value,
    },
}

impl Definitions {
    /// All schemas by name; references between them start with [`REFERENCE`].
    pub fn schemas(&self) -> &Map<String, Value> {
        &self.schemas
    }

    /// The type of the kind as server-side apply needs it, made on first use.
    pub fn typed(&self) -> Arc<managed::Schema> {
        let make = || {
            let root = self.schemas.get(&self.root).unwrap_or(&Value::Null);
            let resolve = |name: &str| self.schemas.get(name);
            Arc::new(managed::Schema::from_openapi(root, None, &resolve))
        };
        Arc::clone(self.typed.get_or_init(make))
    }

    /// What the kind itself is.
    pub fn root(&self) -> Shape<'_> {
        self.named(&self.root)
    }

    /// What the schema describes, references followed.
    pub fn shape<'a>(&'a self, schema: &'a Value) -> Shape<'a> {
        if let Some(name) = reference(schema) {
            return self.named(name);
        }
        Self::anonymous(None, schema)
    }

    fn named<'a>(&'a self, name: &'a str) -> Shape<'a> {
        match self.schemas.get(name) {
            Some(schema) => match schema.get("properties").and_then(Value::as_object) {
                Some(fields) => Shape::Struct { name, fields },
                None => Self::anonymous(Some(name), schema),
            },
            None => Shape::Leaf {
                name: Some(name),
                schema: &Value::Null,
            },
        }
    }

    fn anonymous<'a>(name: Option<&'a str>, schema: &'a Value) -> Shape<'a> {
        if let Some(items) = schema.get("items") {
            Shape::List(items)
        } else if let Some(values) = schema.get("additionalProperties") {
            Shape::Map(values)
        } else {
            Shape::Leaf { name, schema }
        }
    }
}

/// The name that the schema refers to, if it is a reference.
pub fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix(REFERENCE)
}

/// The schemas of the kind, made on first use, with the extensions that clients look for:
/// `x-kubernetes-group-version-kind`, those of strategic merge patches ([`merge_keys`]) and those of server-side apply
/// ([`list_types`]).
pub fn definitions(kind: &dyn Kind) -> Arc<Definitions> {
    static MADE: LazyLock<Mutex<HashMap<String, Arc<Definitions>>>> = LazyLock::new(Mutex::default);
    let name = kind.schema_name();
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(
        made.entry(name.clone())
            .or_insert_with(|| Arc::new(generate(kind, name))),
    )
}

fn generate(kind: &dyn Kind, root: String) -> Definitions {
    let settings = SchemaSettings::draft07().with(|s| s.definitions_path = "/$defs".into());
    let mut generator = settings.into_generator();
    kind.schema(&mut generator);
    let mut schemas = generator.take_definitions(false);
    for (name, schema) in &mut schemas {
        extend_with_merge_keys(name, schema);
        extend_with_list_types(name, schema);
    }
    let names = kind.names();
    if let Some(schema) = schemas.get_mut(&root).and_then(Value::as_object_mut) {
        let gvk = json!([{"group": names.group, "kind": names.kind, "version": names.version}]);
        schema.insert("x-kubernetes-group-version-kind".to_owned(), gvk);
    }
    Definitions {
        root,
        schemas,
        typed: OnceLock::new(),
    }
}

fn extend_with_merge_keys(name: &str, schema: &mut Value) {
    let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (field, schema) in fields {
        if let (Some(facts), Some(schema)) = (merge_keys::of(name, field), schema.as_object_mut()) {
            schema.insert(
                "x-kubernetes-patch-strategy".to_owned(),
                facts.strategy.into(),
            );
            if let Some(key) = facts.key {
                schema.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
            }
        }
    }
}

/// The schema of a type and of all types that it refers to, by name.
pub fn definitions_of<T: schemars::JsonSchema>() -> Map<String, Value> {
    let settings = SchemaSettings::draft07().with(|s| s.definitions_path = "/$defs".into());
    let mut generator = settings.into_generator();
    generator.subschema_for::<T>();
    generator.take_definitions(false)
}

fn extend_with_list_types(name: &str, schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    if list_types::is_atomic(name) {
        schema.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (field, schema) in fields.into_iter().flatten() {
        let Some(schema) = schema.as_object_mut() else {
            continue;
        };
        if schema.contains_key("items") {
            let (sort, keys) = match list_types::list_type(name, field) {
                None => ("atomic", None),
                Some(ListType::Set) => ("set", None),
                Some(ListType::Map(keys)) => ("map", Some(keys)),
            };
            schema.insert("x-kubernetes-list-type".to_owned(), sort.into());
            if let Some(keys) = keys {
                schema.insert("x-kubernetes-list-map-keys".to_owned(), keys.into());
            }
        }
        match list_types::atomic_field(name, field) {
            Some(true) => {
                schema.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
            }
            Some(false) => {
                schema.insert("x-kubernetes-map-type".to_owned(), "granular".into());
            }
            None => {}
        }
        if let Some(default) = list_types::key_default(name, field) {
            schema.insert("default".to_owned(), default.into());
        }
        if schema.contains_key("$ref") && list_types::is_never_absent(name, field) {
            schema.insert("default".to_owned(), json!({}));
        }
    }
}

/// Fields of the object that its kind does not have, in Kubernetes' words (`unknown field "spec.foo"`), in the order
/// in which they stand there.
pub fn unknown_fields(kind: &dyn Kind, object: &Value) -> Vec<String> {
    let definitions = definitions(kind);
    let mut found = Vec::new();
    collect_unknown(&definitions, definitions.root(), object, "", &mut found);
    found
}

fn collect_unknown(
    definitions: &Definitions,
    shape: Shape<'_>,
    value: &Value,
    path: &str,
    found: &mut Vec<String>,
) {
    match (shape, value) {
        (Shape::Struct { fields, .. }, Value::Object(map)) => {
            for (key, value) in map {
                let at = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match fields.get(key) {
                    Some(schema) => {
                        collect_unknown(definitions, definitions.shape(schema), value, &at, found);
                    }
                    None => found.push(format!("unknown field \"{at}\"")),
                }
            }
        }
        (Shape::List(items), Value::Array(list)) => {
            for (i, value) in list.iter().enumerate() {
                let at = format!("{path}[{i}]");
                collect_unknown(definitions, definitions.shape(items), value, &at, found);
            }
        }
        (Shape::Map(values), Value::Object(map)) => {
            for (key, value) in map {
                let at = format!("{path}.{key}");
                collect_unknown(definitions, definitions.shape(values), value, &at, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    #[test]
    fn every_reference_leads_to_a_schema() {
        fn walk(definitions: &Definitions, value: &Value) {
            if let Some(name) = reference(value) {
                assert!(definitions.schemas.contains_key(name), "{name}");
            }
            match value {
                Value::Object(map) => map.values().for_each(|v| walk(definitions, v)),
                Value::Array(list) => list.iter().for_each(|v| walk(definitions, v)),
                _ => {}
            }
        }
        for kind in kinds::registry() {
            let definitions = definitions(kind.as_ref());
            assert!(
                matches!(definitions.root(), Shape::Struct { .. }),
                "{}",
                kind.schema_name()
            );
            definitions
                .schemas
                .values()
                .for_each(|s| walk(&definitions, s));
        }
    }

    #[test]
    fn unknown_fields_are_named_with_their_path() {
        let pods = kinds::find("", "v1", "pods").expect("pods");
        let object = json!({"apiVersion": "v1", "kind": "Pod", "flavour": 1, "metadata": {"labels": {"any": "x"}},
            "spec": {"foo": {"bar": 1}, "containers": [{"name": "c"}, {"imag": "x"}]}});
        let found = unknown_fields(pods.as_ref(), &object);
        assert_eq!(
            found,
            [
                "unknown field \"flavour\"",
                "unknown field \"spec.containers[1].imag\"",
                "unknown field \"spec.foo\"",
            ]
        );
    }

    #[test]
    fn merge_keys_are_in_the_schema() {
        let pods = kinds::find("", "v1", "pods").expect("pods");
        let definitions = definitions(pods.as_ref());
        let containers =
            &definitions.schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    }
}
