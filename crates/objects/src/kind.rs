//! What the API server must know of a kind of object. The machinery knows kinds only through [`Kind`];
//! a new kind is one file in `kinds/` that implements [`Rules`] for its type, and a line in the registry.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::field::FieldErrors;
use crate::managed;

/// The names of a kind in the API, as discovery lists them.
/// Source: Kubernetes API reference, `APIResource`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    pub name: Cow<'static, str>,
    /// OpenAPI type: `string`, `integer`, `date`…
    pub kind: Cow<'static, str>,
    /// OpenAPI format; `name` marks the identifier.
    pub format: Cow<'static, str>,
    /// What the column tells.
    pub description: Cow<'static, str>,
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
/// on update: `decode` → `default` → `prepare_update` → `validate_changed`;
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
    /// Fields of the object that the kind does not have, in Kubernetes' words: `unknown field "spec.foo"`.
    fn unknown_fields(&self, object: &Value) -> Vec<String>;

    /// The kind of a list of its objects.
    fn list_kind(&self) -> String {
        format!("{}List", self.names().kind)
    }

    /// Field errors of a new object.
    fn validate_created(&self, object: &Value) -> FieldErrors {
        self.validate(object)
    }

    /// What whoever wrote the object is warned of; `old` is what it replaces.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Changes an object that is being deleted for the first time: adds whom to wait for.
    fn prepare_delete(&self, _object: &mut Value) {}

    /// Field errors of a changed object: by itself, and of the change.
    fn validate_changed(&self, object: &Value, old: &Value) -> FieldErrors {
        let mut errors = self.validate(object);
        errors.extend(self.validate_update(object, old));
        errors
    }

    /// Group and plural under which its objects are stored. Kinds that are served in several groups or versions share
    /// one place, and each turns what is there into its own version.
    fn storage(&self) -> (&'static str, &'static str) {
        let names = self.names();
        (names.group, names.plural)
    }

    /// Whether its objects are stored exactly as they are shown, so that nothing has to be read on the way out.
    fn stored_as_shown(&self) -> bool {
        true
    }

    /// Turns the stored form into this version. Only where [`Kind::stored_as_shown`] is false.
    fn show_stored(&self, _object: &mut Value) {}

    /// Turns an object of this version into the stored form.
    fn make_stored(&self, _object: &mut Value) {}

    /// Whether the items of a list say what they are, as those of custom resources do.
    fn items_are_typed(&self) -> bool {
        false
    }

    /// Whether strategic merge patches are understood; custom resources have no schema for it.
    fn strategic_merge(&self) -> bool {
        true
    }

    /// The verbs, where they differ from those of other kinds, in the order of discovery.
    fn verbs(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// Whether its objects are questions, which are answered and never stored: they can only be created.
    fn is_review(&self) -> bool {
        false
    }

    /// What whoever uses this version is warned of, `extensions/v1beta1 Ingress is deprecated …` for example.
    fn deprecation(&self) -> Option<String> {
        None
    }

    /// The schemas that OpenAPI documents show, by name, where they do not come from [`Kind::schema`]. `v2` asks for the
    /// older dialect. References point to names; the reader turns them into the document's own.
    fn published_schemas(&self, _v2: bool) -> Option<Map<String, Value>> {
        None
    }

    /// The type of its objects as server-side apply needs it. Without one, maps merge by their keys and lists are one
    /// value.
    fn typed(&self) -> Arc<managed::Schema> {
        managed::Schema::deduced()
    }

    /// Whether an object may be replaced without saying which state of it is meant.
    fn unconditional_update(&self) -> bool {
        true
    }
}

/// The object is not what its type says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// As kube-apiserver words it: `json: cannot unmarshal string into Go struct field …`.
    pub message: String,
}
