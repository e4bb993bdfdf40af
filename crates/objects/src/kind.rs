//! What the API server must know of a kind of object. The machinery knows kinds only through [`Kind`];
//! a new kind is one file in `kinds/` that implements [`Rules`] for its type, and a line in the registry.

use serde_json::Value;

use crate::field::FieldErrors;

/// The names of a kind in the API, as discovery lists them.
/// Source: Kubernetes API reference, `APIResource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version, `v1` for example.
    pub version: &'static str,
    /// The kind, `Service` for example.
    pub kind: &'static str,
    /// Lower-case plural, as in paths.
    pub plural: &'static str,
    /// Lower-case singular.
    pub singular: &'static str,
    /// What kubectl accepts beside the names, `svc` for example.
    pub short_names: &'static [&'static str],
    /// Groups of kinds, `all` for example.
    pub categories: &'static [&'static str],
    /// Whether objects of this kind live in a namespace.
    pub namespaced: bool,
}

/// A printed column of `kubectl get`. Source: `TableColumnDefinition`, meta/v1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Header as printed.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`…
    pub kind: &'static str,
    /// OpenAPI format; `name` marks the identifier.
    pub format: &'static str,
    /// What the column tells.
    pub description: &'static str,
    /// 0 is always printed, 1 with `-o wide`.
    pub priority: i32,
}

/// Where the `scale` subresource finds its figures (JSON pointers into the object).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// `/spec/replicas`
    pub replicas: &'static str,
    /// `/status/replicas`
    pub observed: &'static str,
    /// `/spec/selector`: a map (ReplicationController) or a LabelSelector.
    pub selector: &'static str,
}

/// One kind as the generic machinery sees it; objects are JSON.
///
/// Order on create: `decode` → `default` → `prepare_create` → `validate`;
/// on update: `decode` → `default` → `prepare_update` → `validate` + `validate_update`;
/// on a status write: `decode` → `prepare_status` (keeps all but the status of `old`) → `validate_status`.
pub trait Kind: Send + Sync {
    /// Its names.
    fn names(&self) -> &'static Names;
    /// Name of its schema, `io.k8s.api.core.v1.Service` for example.
    fn schema_name(&self) -> String;
    /// Adds the schemas of this kind to the generator and returns its own.
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema;
    /// Reads the object through its Rust type: wrong types are refused in Kubernetes' words, unknown fields dropped.
    fn decode(&self, object: Value) -> Result<Value, DecodeError>;
    /// Fills in the defaults.
    fn default(&self, object: &mut Value);
    /// Drops what a client may not set on creation (status), sets the generation where the kind has one.
    fn prepare_create(&self, object: &mut Value);
    /// Keeps what a client may not change with an update; raises the generation when the spec changed.
    fn prepare_update(&self, object: &mut Value, old: &Value);
    /// Keeps everything of `old` but the status.
    fn prepare_status(&self, object: &mut Value, old: &Value);
    /// Field errors of the object by itself.
    fn validate(&self, object: &Value) -> FieldErrors;
    /// Field errors of the change (immutable fields).
    fn validate_update(&self, object: &Value, old: &Value) -> FieldErrors;
    /// Field errors of a status write.
    fn validate_status(&self, object: &Value, old: &Value) -> FieldErrors;
    /// Columns of the table form.
    fn columns(&self) -> Vec<Column>;
    /// One cell for each column. `now` is the time that ages are counted from, in seconds since 1970.
    fn cells(&self, object: &Value, now: i64) -> Vec<Value>;
    /// What a field selector can ask for beyond `metadata.name` and `metadata.namespace`; label → value.
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)>;
    /// Whether the kind has the `status` subresource.
    fn has_status(&self) -> bool;
    /// The `scale` subresource, if it has one.
    fn scale(&self) -> Option<Scale>;
    /// Whether `metadata.deletionGracePeriodSeconds` means anything: only Pods; the value is the default grace.
    fn default_grace_seconds(&self, object: &Value) -> Option<i64>;
}

/// The object is not what its type says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// As kube-apiserver words it: `json: cannot unmarshal string into Go struct field …`.
    pub message: String,
}
