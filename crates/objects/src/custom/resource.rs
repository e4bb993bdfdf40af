//! The kind that follows from a definition.
//! Source: `k8s.io/apiextensions-apiserver/pkg/registry/customresource` and `pkg/apiserver/customresource_handler.go`.

use std::sync::{Arc, OnceLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::definition::{Definition, PrinterColumn, ScalePaths, Version};
use super::json_path::JsonPath;
use super::rules::Rules;
use super::schema::Schema;
use super::{defaults, embedded, lists, prune, publish, value};
use crate::field::{FieldError, FieldErrors, Reason};
use crate::kind::{Column, DecodeError, Kind, Names, Scale};
use crate::names::NameRule;
use crate::{decode, go_json, intern, kinds, managed, metadata, schema, table};

/// As discovery lists them.
const VERBS: &[&str] = &[
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];
/// While everything is being deleted.
const TERMINATING_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "watch"];

/// A version of a custom resource.
pub struct CustomKind {
    names: &'static Names,
    list_kind: String,
    schema: Arc<Schema>,
    rules: Option<Rules>,
    /// The schema of the version in which objects are stored, if it is another one.
    storage: Option<Arc<Schema>>,
    raw: Value,
    status: bool,
    scale: Option<(Scale, ScalePaths)>,
    columns: Vec<(Column, Option<JsonPath>)>,
    fields: Vec<(&'static str, JsonPath)>,
    deprecation: Option<String>,
    terminating: bool,
    typed: OnceLock<Arc<managed::Schema>>,
}

/// The kinds of all served versions of a definition, under the names that were accepted.
pub fn kinds_of(definition: &Definition) -> Vec<Arc<dyn Kind>> {
    let schema = |version: &Version| -> Arc<Schema> {
        let raw = version.schema.as_ref().and_then(|s| s.schema.as_ref());
        // It was read when the definition was written; a version without schema keeps nothing.
        Arc::new(
            raw.and_then(|raw| Schema::read(raw).ok())
                .unwrap_or_default(),
        )
    };
    let storage = definition.storage().map(|v| (v.name.as_str(), schema(v)));
    let served = definition.spec.versions.iter().filter(|v| v.served);
    served
        .map(|version| {
            let other = storage.as_ref().filter(|(name, _)| *name != version.name);
            let storage = other.map(|(_, schema)| Arc::clone(schema));
            let kind = CustomKind::new(definition, version, schema(version), storage);
            Arc::new(kind) as Arc<dyn Kind>
        })
        .collect()
}

/// The kind of the version in which objects are stored, served or not.
pub fn storage_kind(definition: &Definition) -> Option<Arc<dyn Kind>> {
    let mut only = definition.clone();
    only.spec.versions.retain(|version| version.storage);
    only.spec.versions.iter_mut().for_each(|v| v.served = true);
    kinds_of(&only).into_iter().next()
}

impl CustomKind {
    fn new(
        definition: &Definition,
        version: &Version,
        schema: Arc<Schema>,
        storage: Option<Arc<Schema>>,
    ) -> Self {
        let accepted = &definition.status.accepted_names;
        let asked = &definition.spec.names;
        let names = if accepted.plural.is_empty() {
            asked
        } else {
            accepted
        };
        let own = intern::names(Names {
            group: intern::text(&definition.spec.group),
            version: intern::text(&version.name),
            kind: intern::text(&names.kind),
            plural: intern::text(&names.plural),
            singular: intern::text(&names.singular),
            short_names: intern::texts(&names.short_names),
            categories: intern::texts(&names.categories),
            namespaced: definition.is_namespaced(),
        });
        let subresources = version.subresources.as_ref();
        let scale = subresources.and_then(|s| s.scale.clone()).map(|paths| {
            let selector = paths.label_selector_path.as_deref().unwrap_or_default();
            let scale = Scale {
                replicas: pointer(&paths.spec_replicas_path),
                observed: pointer(&paths.status_replicas_path),
                selector: pointer(selector),
            };
            (scale, paths)
        });
        let fields = version.selectable_fields.iter().filter_map(|field| {
            let label = field.json_path.trim_start_matches('.');
            Some((intern::text(label), JsonPath::parse(&field.json_path).ok()?))
        });
        let (group, kind) = (own.group, own.kind);
        let deprecation = version.deprecated.then(|| {
            version
                .deprecation_warning
                .clone()
                .unwrap_or_else(|| format!("{group}/{} {kind} is deprecated", version.name))
        });
        Self {
            names: own,
            list_kind: names.list_kind.clone(),
            rules: Rules::of(&schema),
            schema,
            storage,
            raw: version
                .schema
                .as_ref()
                .and_then(|s| s.schema.clone())
                .unwrap_or_else(|| json!({"type": "object"})),
            status: subresources.is_some_and(|s| s.status.is_some()),
            scale,
            columns: columns(&version.additional_printer_columns),
            fields: fields.collect(),
            deprecation,
            terminating: definition.is("Terminating"),
            typed: OnceLock::new(),
        }
    }

    fn meta(object: &Value) -> Result<ObjectMeta, FieldError> {
        let meta = object.get("metadata").unwrap_or(&Value::Null);
        if meta.is_null() {
            return Ok(ObjectMeta::default());
        }
        ObjectMeta::deserialize(meta)
            .map_err(|e| FieldError::invalid("metadata", meta, &e.to_string()))
    }

    fn check_meta(&self, object: &Value) -> FieldErrors {
        match Self::meta(object) {
            Ok(meta) => metadata::validate(&meta, self.names.namespaced, NameRule::Subdomain),
            Err(e) => vec![e],
        }
    }

    fn check_meta_change(object: &Value, old: &Value) -> FieldErrors {
        match (Self::meta(object), Self::meta(old)) {
            (Ok(new), Ok(old)) => metadata::validate_update(&new, &old),
            (Err(e), _) | (_, Err(e)) => vec![e],
        }
    }

    fn check_scale_spec(&self, object: &Value, errors: &mut FieldErrors) {
        if let Some((_, paths)) = &self.scale {
            check_count(object, &paths.spec_replicas_path, errors);
        }
    }

    fn check_scale_status(&self, object: &Value, errors: &mut FieldErrors) {
        let Some((_, paths)) = &self.scale else {
            return;
        };
        check_count(object, &paths.status_replicas_path, errors);
        if let Some(path) = paths
            .label_selector_path
            .as_deref()
            .filter(|p| !p.is_empty())
            && let Some(value) = object.pointer(pointer(path))
            && !value.is_string()
        {
            let why = accessor_error(path, value, "string");
            errors.push(FieldError::invalid(path, "", &why));
        }
    }

    /// Rules run only on objects that are what their types say.
    fn check_rules(&self, object: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let Some(rules) = &self.rules else {
            return;
        };
        if errors.iter().any(is_blocking) {
            errors.push(FieldError::invalid(
                "<nil>",
                Value::Null,
                "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ));
        } else {
            errors.extend(rules.validate(object, &self.schema, old));
        }
    }
}

/// `/spec/replicas` for `.spec.replicas`
fn pointer(path: &str) -> &'static str {
    intern::text(&path.replace('.', "/"))
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn accessor_error(path: &str, value: &Value, wanted: &str) -> String {
    let shown = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    format!(
        "{path} accessor error: {shown} is of the type {}, expected {wanted}",
        go_type(value)
    )
}

fn check_count(object: &Value, path: &str, errors: &mut FieldErrors) {
    let Some(value) = object.pointer(pointer(path)) else {
        return;
    };
    match value.as_i64() {
        None => {
            let why = accessor_error(path, value, "int64");
            errors.push(FieldError::invalid(path, 0, &why));
        }
        Some(n) if n < 0 => {
            errors.push(FieldError::invalid(
                path,
                n,
                "should be a non-negative integer",
            ));
        }
        Some(n) if n > i64::from(i32::MAX) => {
            let why = format!("should be less than or equal to {}", i32::MAX);
            errors.push(FieldError::invalid(path, n, &why));
        }
        Some(_) => {}
    }
}

fn columns(wanted: &[PrinterColumn]) -> Vec<(Column, Option<JsonPath>)> {
    let mut columns = vec![(table::name_column(), None)];
    if wanted.is_empty() {
        let age = Column {
            kind: "date".into(),
            ..table::age_column()
        };
        columns.push((age, JsonPath::parse(".metadata.creationTimestamp").ok()));
    }
    for column in wanted {
        let Ok(path) = JsonPath::parse(&column.json_path) else {
            continue;
        };
        let description = if column.description.is_empty() {
            format!(
                "Custom resource definition column (in JSONPath format): {}",
                column.json_path
            )
        } else {
            column.description.clone()
        };
        let column = Column {
            name: column.name.clone().into(),
            kind: column.kind.clone().into(),
            format: column.format.clone().into(),
            description: description.into(),
            priority: column.priority,
        };
        columns.push((column, Some(path)));
    }
    columns
}

fn cell(kind: &str, value: &Value, now: i64) -> Value {
    match (kind, value) {
        (_, Value::Null) => Value::Null,
        ("integer", Value::Number(n)) => match n.as_i64() {
            Some(n) => n.into(),
            // As Go converts it: towards zero.
            None => n.as_f64().map_or(Value::Null, |f| (f as i64).into()),
        },
        ("number", Value::Number(_))
        | ("boolean", Value::Bool(_))
        | ("string", Value::String(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(time) => table::human_duration(now - time.as_second()).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

impl Kind for CustomKind {
    fn names(&self) -> &'static Names {
        self.names
    }

    fn schema_name(&self) -> String {
        publish::name(self.names)
    }

    fn schema(&self, _generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::Schema::default()
    }

    fn decode(&self, mut object: Value) -> Result<Value, DecodeError> {
        if let Some(meta) = object.get_mut("metadata").filter(|m| !m.is_null()) {
            match ObjectMeta::deserialize(&*meta) {
                Ok(read) => {
                    *meta = go_json::to_value("ObjectMeta", &read).map_err(|e| DecodeError {
                        message: e.to_string(),
                    })?;
                }
                Err(e) => {
                    // Metadata is the same for every kind, and its errors too.
                    let only = json!({"metadata": meta});
                    return Err(match kinds::find("", "v1", "configmaps") {
                        Some(kind) => decode::explain(&*kind, &only, &e),
                        None => DecodeError {
                            message: e.to_string(),
                        },
                    });
                }
            }
        }
        prune::prune(&mut object, &self.schema, true);
        embedded::coerce(&mut object, &self.schema);
        Ok(object)
    }

    fn default(&self, object: &mut Value) {
        defaults::default(object, &self.schema);
    }

    fn prepare_create(&self, object: &mut Value) {
        let Some(fields) = object.as_object_mut() else {
            return;
        };
        if self.status {
            fields.remove("status");
        }
        if let Some(Value::Object(meta)) = fields.get_mut("metadata") {
            meta.insert("generation".to_owned(), 1.into());
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        let Some(fields) = object.as_object_mut() else {
            return;
        };
        if self.status {
            match old.get("status") {
                Some(status) => fields.insert("status".to_owned(), status.clone()),
                None => fields.remove("status"),
            };
        }
        let without_meta = |object: &Map<String, Value>| {
            let rest = object.iter().filter(|(key, _)| *key != "metadata");
            rest.map(|(k, v)| (k.clone(), v.clone()))
                .collect::<Map<_, _>>()
        };
        let changed = old
            .as_object()
            .is_none_or(|old| without_meta(old) != without_meta(fields));
        let before = old
            .pointer("/metadata/generation")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        if let Some(Value::Object(meta)) = fields.get_mut("metadata") {
            let generation = before + i64::from(changed);
            meta.insert("generation".to_owned(), generation.into());
        }
    }

    fn prepare_status(&self, object: &mut Value, old: &Value) {
        let mut kept = old.clone();
        let written = std::mem::take(object);
        if let Some(fields) = kept.as_object_mut() {
            match written.get("status") {
                Some(status) => fields.insert("status".to_owned(), status.clone()),
                None => fields.remove("status"),
            };
        }
        // Optimistic concurrency and field ownership are about this write, not about the old object.
        if let (Some(Value::Object(meta)), Some(written)) =
            (kept.get_mut("metadata"), written.get("metadata"))
        {
            for field in ["resourceVersion", "managedFields"] {
                if let Some(value) = written.get(field) {
                    meta.insert(field.to_owned(), value.clone());
                }
            }
        }
        *object = kept;
        defaults::default(object, &self.schema);
    }

    fn validate(&self, object: &Value) -> FieldErrors {
        let mut errors = self.check_meta(object);
        errors.extend(value::validate(object, &self.schema, None, ""));
        self.check_scale_spec(object, &mut errors);
        self.check_scale_status(object, &mut errors);
        errors.extend(embedded::validate(object, &self.schema, ""));
        errors.extend(lists::validate(object, &self.schema, ""));
        self.check_rules(object, None, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> FieldErrors {
        Self::check_meta_change(object, old)
    }

    fn validate_changed(&self, object: &Value, old: &Value) -> FieldErrors {
        let mut errors = self.check_meta(object);
        errors.extend(Self::check_meta_change(object, old));
        errors.extend(value::validate(object, &self.schema, Some(old), ""));
        self.check_scale_spec(object, &mut errors);
        self.check_scale_status(object, &mut errors);
        errors.extend(embedded::validate(object, &self.schema, ""));
        if lists::validate(old, &self.schema, "").is_empty() {
            errors.extend(lists::validate(object, &self.schema, ""));
        }
        self.check_rules(object, Some(old), &mut errors);
        errors
    }

    fn validate_status(&self, object: &Value, old: &Value) -> FieldErrors {
        let mut errors = Self::check_meta_change(object, old);
        if let (Some(status), Some(schema)) =
            (object.get("status"), self.schema.properties.get("status"))
        {
            let old = old.get("status");
            // What did not change at all is not looked at again.
            if old != Some(status) {
                errors.extend(value::validate(status, schema, old, "status"));
            }
        }
        self.check_scale_status(object, &mut errors);
        if lists::validate(old, &self.schema, "").is_empty() {
            errors.extend(lists::validate(object, &self.schema, ""));
        }
        self.check_rules(object, Some(old), &mut errors);
        errors
    }

    fn columns(&self) -> Vec<Column> {
        self.columns.iter().map(|(c, _)| c.clone()).collect()
    }

    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let cells = self.columns.iter().map(|(column, path)| match path {
            None => object
                .pointer("/metadata/name")
                .cloned()
                .unwrap_or_else(|| "".into()),
            Some(path) => path
                .first(object)
                .map_or(Value::Null, |value| cell(&column.kind, value, now)),
        });
        cells.collect()
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let fields = self.fields.iter();
        fields
            .map(|(label, path)| (*label, path.first(object).map(text).unwrap_or_default()))
            .collect()
    }

    fn has_status(&self) -> bool {
        self.status
    }

    fn scale(&self) -> Option<Scale> {
        self.scale.as_ref().map(|(scale, _)| scale.clone())
    }

    fn default_grace_seconds(&self, _object: &Value) -> Option<i64> {
        None
    }

    fn unknown_fields(&self, object: &Value) -> Vec<String> {
        let mut copy = object.clone();
        let mut unknown = unknown_metadata(object);
        unknown.extend(prune::prune(&mut copy, &self.schema, true));
        let unknown = unknown.into_iter();
        unknown
            .map(|at| format!("unknown field \"{at}\""))
            .collect()
    }

    fn list_kind(&self) -> String {
        self.list_kind.clone()
    }

    fn stored_as_shown(&self) -> bool {
        false
    }

    fn show_stored(&self, object: &mut Value) {
        let stored = self.storage.as_ref().unwrap_or(&self.schema);
        prune::prune(object, stored, true);
        defaults::default(object, stored);
        if self.storage.is_some() {
            prune::prune(object, &self.schema, true);
        }
    }

    fn make_stored(&self, object: &mut Value) {
        // Another version is the same object under another name; what it does not have goes.
        if let Some(storage) = &self.storage {
            prune::prune(object, storage, true);
        }
    }

    fn items_are_typed(&self) -> bool {
        true
    }

    fn strategic_merge(&self) -> bool {
        false
    }

    fn verbs(&self) -> Option<&'static [&'static str]> {
        Some(if self.terminating {
            TERMINATING_VERBS
        } else {
            VERBS
        })
    }

    fn deprecation(&self) -> Option<String> {
        self.deprecation.clone()
    }

    fn typed(&self) -> Arc<managed::Schema> {
        let make = || {
            let Some(any) = kinds::find("", "v1", "configmaps") else {
                return managed::Schema::deduced();
            };
            // Metadata is the same for every kind.
            let definitions = schema::definitions(&*any);
            let name = <ObjectMeta as schemars::JsonSchema>::schema_name();
            let meta = json!({"$ref": format!("{}{name}", schema::REFERENCE)});
            let resolve = |name: &str| definitions.schemas().get(name);
            let typed = managed::Schema::from_openapi(&self.raw, Some(&meta), &resolve);
            Arc::new(typed)
        };
        Arc::clone(self.typed.get_or_init(make))
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn published_schemas(&self, v2: bool) -> Option<Map<String, Value>> {
        Some(publish::publish(self.names, &self.raw, &self.schema, v2))
    }
}

/// What stands in the metadata and is none.
fn unknown_metadata(object: &Value) -> Vec<String> {
    let Some(kind) = kinds::find("", "v1", "configmaps") else {
        return Vec::new();
    };
    let Some(meta) = object.get("metadata") else {
        return Vec::new();
    };
    kind.unknown_fields(&json!({"metadata": meta}))
        .iter()
        .filter_map(|text| {
            let at = text.strip_prefix("unknown field \"")?.strip_suffix('"')?;
            Some(at.to_owned())
        })
        .collect()
}

/// Whether an error says that an object is not what its types say, so that rules about it would make no sense.
pub(super) fn is_blocking(error: &FieldError) -> bool {
    matches!(
        error.reason,
        Reason::NotSupported
            | Reason::Required
            | Reason::TooLong
            | Reason::TooMany
            | Reason::TypeInvalid
    )
}
