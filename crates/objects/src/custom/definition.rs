//! A CustomResourceDefinition as this code reads it.
//! Source: API reference, `CustomResourceDefinition` (apiextensions.k8s.io/v1).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The definition.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Definition {
    /// Its own metadata.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: Spec,
    /// What there is.
    pub status: Status,
}

/// The part of the metadata that matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// `<plural>.<group>`
    pub name: String,
    /// When it was made.
    pub creation_timestamp: String,
    /// When it was deleted, if it was.
    pub deletion_timestamp: Option<String>,
    /// Who has something to do before it goes.
    pub finalizers: Vec<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// API group.
    pub group: String,
    /// Names that are asked for.
    pub names: Names,
    /// `Namespaced` or `Cluster`.
    pub scope: String,
    /// Versions in the order of the definition.
    pub versions: Vec<Version>,
    /// How versions become one another.
    pub conversion: Option<Conversion>,
    /// Not allowed to be true.
    pub preserve_unknown_fields: bool,
}

/// Names of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Names {
    /// As in paths.
    pub plural: String,
    /// For one object.
    pub singular: String,
    /// For kubectl.
    pub short_names: Vec<String>,
    /// As in `kind`.
    pub kind: String,
    /// As in `kind` of lists.
    pub list_kind: String,
    /// Groups of kinds, `all` for example.
    pub categories: Vec<String>,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Version {
    /// `v1`
    pub name: String,
    /// Whether clients can use it.
    pub served: bool,
    /// Whether objects are stored in it.
    pub storage: bool,
    /// Whether clients are told not to use it.
    pub deprecated: bool,
    /// In which words.
    pub deprecation_warning: Option<String>,
    /// What objects look like.
    pub schema: Option<Validation>,
    /// Beside the object itself.
    pub subresources: Option<Subresources>,
    /// What `kubectl get` prints.
    pub additional_printer_columns: Vec<PrinterColumn>,
    /// What field selectors can ask for.
    pub selectable_fields: Vec<SelectableField>,
}

/// Where the schema is.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Validation {
    /// The schema, read by [`super::schema::Schema::read`].
    #[serde(rename = "openAPIV3Schema")]
    pub schema: Option<Value>,
}

/// Subresources.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Subresources {
    /// There if the status is one.
    pub status: Option<Value>,
    /// There if the number of replicas is one.
    pub scale: Option<ScalePaths>,
}

/// Where the `scale` subresource finds its figures, as simple JSON paths.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ScalePaths {
    /// Under `.spec`.
    pub spec_replicas_path: String,
    /// Under `.status`.
    pub status_replicas_path: String,
    /// Under either; a selector as text.
    pub label_selector_path: Option<String>,
}

/// A printed column.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PrinterColumn {
    /// Header.
    pub name: String,
    /// OpenAPI type.
    #[serde(rename = "type")]
    pub kind: String,
    /// OpenAPI format.
    pub format: String,
    /// What it tells.
    pub description: String,
    /// 0 is always printed.
    pub priority: i32,
    /// Where the value is.
    pub json_path: String,
}

/// A field for selectors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SelectableField {
    /// Where the value is.
    pub json_path: String,
}

/// How versions become one another.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Conversion {
    /// `None` or `Webhook`.
    pub strategy: String,
    /// Whom to ask.
    pub webhook: Option<Value>,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// What is true of it.
    pub conditions: Vec<Condition>,
    /// The names under which it is served.
    pub accepted_names: Names,
    /// Versions in which objects may be stored.
    pub stored_versions: Vec<String>,
}

/// Something that is true or not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    /// `Established`…
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Definition {
    /// Reads a definition.
    ///
    /// # Errors
    /// What is none.
    pub fn read(object: &Value) -> Result<Self, String> {
        let mut object = object.clone();
        // The type writes what is empty as null.
        drop_nulls(&mut object);
        serde_json::from_value(object).map_err(|e| e.to_string())
    }

    /// Whether a condition is true.
    pub fn is(&self, condition: &str) -> bool {
        let mut conditions = self.status.conditions.iter();
        conditions.any(|c| c.kind == condition && c.status == "True")
    }

    /// Whether objects live in namespaces.
    pub fn is_namespaced(&self) -> bool {
        self.spec.scope == "Namespaced"
    }

    /// The version in which objects are stored.
    pub fn storage(&self) -> Option<&Version> {
        self.spec.versions.iter().find(|v| v.storage)
    }
}

/// Lists and maps that were never set; a default of `null` is as good as none.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| !value.is_null() || key == "enum");
            map.iter_mut()
                .filter(|(key, _)| !matches!(key.as_str(), "default" | "enum" | "example"))
                .for_each(|(_, value)| drop_nulls(value));
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
