//! How a kind is written: [`Rules`] over its Rust type, with defaults for what most kinds do not need, and
//! [`Typed`], which makes a [`Kind`] of it that the generic machinery can use.

use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::field::{FieldError, FieldErrors};
use crate::kind::{Column, DecodeError, Kind, Names, Scale};
use crate::names::NameRule;
use crate::version::Deprecation;
use crate::{decode, go_json, managed, metadata, schema, table};

/// What makes one kind different from the others. Only `Object` and `NAMES` must be given.
pub trait Rules: Send + Sync + 'static {
    /// Its Rust type.
    type Object: Resource
        + Metadata<Ty = ObjectMeta>
        + DeserializeOwned
        + Serialize
        + schemars::JsonSchema
        + Send
        + Sync;

    /// Its names.
    const NAMES: Names;
    /// What its objects may be called.
    const NAME: NameRule = NameRule::Subdomain;
    /// Whether it has the `status` subresource.
    const STATUS: bool = false;
    /// Whether a client may set the status on creation: nodes register themselves with it.
    const STATUS_ON_CREATE: bool = false;
    /// Whether whoever writes the status may set annotations with it.
    const STATUS_ANNOTATIONS: bool = false;
    /// Whether its objects count the changes of what is wanted in `metadata.generation`.
    const GENERATION: bool = false;
    /// The `scale` subresource, if it has one.
    const SCALE: Option<Scale> = None;
    /// Whether an object may be replaced without saying which state of it is meant.
    /// Source: `AllowUnconditionalUpdate` of the strategies in `k8s.io/kubernetes/pkg/registry`.
    const UNCONDITIONAL_UPDATE: bool = true;

    /// Since when this version is deprecated, if it is.
    const DEPRECATED: Option<Deprecation> = None;

    /// Fills in what the client left out.
    fn default(_object: &mut Self::Object) {}

    /// Sets what only the server may set when an object is created. The status was dropped already, if the kind has
    /// the subresource.
    fn prepare_create(_object: &mut Self::Object) {}

    /// Carries over what a client may leave out of an update.
    fn prepare_update(_object: &mut Self::Object, _old: &Self::Object) {}

    /// Whether an update changes what is wanted, so that `metadata.generation` goes up.
    fn wants_change(new: &Value, old: &Value) -> bool {
        new.get("spec") != old.get("spec")
    }

    /// What is wrong with the object, beyond its metadata.
    fn validate(_object: &Self::Object) -> FieldErrors {
        FieldErrors::new()
    }

    /// As [`Rules::validate`], for the few kinds where a field that was left out differs from an empty one in a way
    /// that the Rust type cannot show.
    fn validate_written(object: &Self::Object, _written: &Value) -> FieldErrors {
        Self::validate(object)
    }

    /// What is wrong with a new object, beyond what would be wrong with any. `written` is the object as JSON.
    fn validate_new(_object: &Self::Object, _written: &Value) -> FieldErrors {
        FieldErrors::new()
    }

    /// What whoever writes the object is warned of. `written` is the object as JSON, `old` what it replaces, and its JSON.
    fn warnings(
        _object: &Self::Object,
        _written: &Value,
        _old: Option<(&Self::Object, &Value)>,
    ) -> Vec<String> {
        Vec::new()
    }

    /// Changes an object that is being deleted for the first time: adds whom to wait for.
    fn prepare_delete(_object: &mut Self::Object) {}

    /// As [`Rules::validate_written`], for an object that replaces `old`: where Kubernetes lets stand what was stored
    /// before a rule was made stricter.
    fn validate_against(
        object: &Self::Object,
        written: &Value,
        _old: &Self::Object,
    ) -> FieldErrors {
        Self::validate_written(object, written)
    }

    /// What is wrong with the change, beyond its metadata.
    fn validate_update(_object: &Self::Object, _old: &Self::Object) -> FieldErrors {
        FieldErrors::new()
    }

    /// Replaces [`Rules::validate`] and [`Rules::validate_update`] on an update, for kinds where Kubernetes judges the
    /// change before the object, or forgives an object what it had before. `None`: the object first, then the change.
    fn judge_change(_object: &Self::Object, _old: &Self::Object) -> Option<Judged> {
        None
    }

    /// What is wrong with a status write.
    fn validate_status(_object: &Self::Object, _old: &Self::Object) -> FieldErrors {
        FieldErrors::new()
    }

    /// Columns of the table form.
    fn columns() -> Vec<Column> {
        table::name_and_created()
    }

    /// One cell for each column.
    fn cells(object: &Self::Object, _now: i64) -> Vec<Value> {
        table::name_and_created_cells(object.metadata())
    }

    /// What field selectors can ask for beyond name and namespace. Every label, whatever the object holds.
    fn fields(_object: &Self::Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The grace that a deletion gives when the client names none; only Pods have one.
    fn default_grace_seconds(_object: &Self::Object) -> Option<i64> {
        None
    }

    /// Paths of structs that Go holds as pointers and k8s-openapi as values: absent and empty stay different.
    const POINTERS: &'static [&'static str] = &[];

    /// Paths of lists and times that Go writes as `null` when they are absent.
    const NULLS: &'static [&'static str] = &[];

    /// Whether its objects are questions, which are answered and never stored.
    const REVIEW: bool = false;
}

/// What is wrong with a changed object, beyond its metadata; see [`Rules::judge_change`].
#[derive(Debug, Default)]
pub struct Judged {
    /// What may not change. Told first.
    pub of_change: FieldErrors,
    /// What is wrong with the object as it would be. Told after what is wrong with its metadata.
    pub of_object: FieldErrors,
}

/// The [`Kind`] that follows from the [`Rules`] `R`.
#[derive(Debug)]
pub struct Typed<R>(PhantomData<fn() -> R>);

impl<R: Rules> Typed<R> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }

    pub(crate) fn read(object: &Value) -> Result<R::Object, serde_json::Error> {
        R::Object::deserialize(object)
    }

    fn write(object: &R::Object, like: &Value) -> Result<Value, serde_json::Error> {
        let mut value = go_json::to_value(R::NAMES.kind, object)?;
        for path in R::POINTERS {
            let absent = like.pointer(path).is_none_or(Value::is_null);
            if let (true, Some((parent, field))) = (absent, path.rsplit_once('/'))
                && let Some(Value::Object(parent)) = value.pointer_mut(parent)
                && parent.get(field) == Some(&Value::Object(serde_json::Map::new()))
            {
                parent.remove(field);
            }
        }
        for path in R::NULLS {
            if let Some((parent, field)) = path.rsplit_once('/')
                && let Some(Value::Object(parent)) = value.pointer_mut(parent)
            {
                parent.entry(field).or_insert(Value::Null);
            }
        }
        Ok(value)
    }

    /// Changes the object through its type. Callers decoded it before; one that cannot be read is left as it is and
    /// refused by `validate`.
    fn change(object: &mut Value, change: impl FnOnce(&mut R::Object)) {
        let Ok(mut typed) = Self::read(object) else {
            return;
        };
        change(&mut typed);
        if let Ok(changed) = Self::write(&typed, object) {
            *object = changed;
        }
    }

    /// Runs a check; an object that cannot be read fails it.
    pub(crate) fn check(
        object: &Value,
        check: impl FnOnce(&R::Object) -> FieldErrors,
    ) -> FieldErrors {
        match Self::read(object) {
            Ok(typed) => check(&typed),
            Err(e) => vec![FieldError::invalid("", "", &e.to_string())],
        }
    }
}

use serde::Deserialize as _;

impl<R: Rules> Kind for Typed<R> {
    fn names(&self) -> &'static Names {
        const { &R::NAMES }
    }

    fn schema_name(&self) -> String {
        <R::Object as schemars::JsonSchema>::schema_name().into_owned()
    }

    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        generator.subschema_for::<R::Object>()
    }

    fn decode(&self, object: Value) -> Result<Value, DecodeError> {
        match Self::read(&object).and_then(|typed| Self::write(&typed, &object)) {
            Ok(value) => Ok(value),
            Err(e) => Err(decode::explain(self, &object, &e)),
        }
    }

    fn default(&self, object: &mut Value) {
        Self::change(object, R::default);
    }

    fn prepare_create(&self, object: &mut Value) {
        if let Some(fields) = object.as_object_mut()
            && R::STATUS
            && !R::STATUS_ON_CREATE
        {
            fields.remove("status");
        }
        Self::change(object, |typed| {
            typed.metadata_mut().generation = R::GENERATION.then_some(1);
            R::prepare_create(typed);
        });
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        if R::STATUS {
            copy_field(object, old, "status");
        }
        if let Ok(old_typed) = Self::read(old) {
            Self::change(object, |typed| R::prepare_update(typed, &old_typed));
        }
        let generation = if R::GENERATION {
            let before = old
                .pointer("/metadata/generation")
                .and_then(Value::as_i64)
                .unwrap_or(0);
            let raised = i64::from(before == 0 || R::wants_change(object, old));
            Value::from(before + raised)
        } else {
            Value::Null
        };
        if let Some(Value::Object(meta)) = object.get_mut("metadata") {
            if generation.is_null() {
                meta.remove("generation");
            } else {
                meta.insert("generation".to_owned(), generation);
            }
        }
    }

    fn prepare_status(&self, object: &mut Value, old: &Value) {
        let mut kept = old.clone();
        copy_field(&mut kept, object, "status");
        // Optimistic concurrency and field ownership are about this write, not about the old object.
        if let (Some(meta), Some(written)) = (kept.get_mut("metadata"), object.get("metadata")) {
            for field in ["resourceVersion", "managedFields"] {
                if written.get(field).is_some() {
                    copy_field(meta, written, field);
                }
            }
            if R::STATUS_ANNOTATIONS {
                copy_field(meta, written, "annotations");
            }
        }
        *object = kept;
    }

    fn validate(&self, object: &Value) -> FieldErrors {
        Self::check(object, |typed| {
            let mut errors = if R::REVIEW {
                FieldErrors::new()
            } else {
                metadata::validate(typed.metadata(), R::NAMES.namespaced, R::NAME)
            };
            errors.extend(R::validate_written(typed, object));
            errors
        })
    }

    fn deprecation(&self) -> Option<String> {
        R::DEPRECATED.map(|deprecated| deprecated.warning(&R::NAMES))
    }

    fn validate_update(&self, object: &Value, old: &Value) -> FieldErrors {
        Self::check(object, |new| {
            Self::check(old, |old| {
                let mut errors = changed_metadata(new.metadata(), old.metadata());
                errors.extend(R::validate_update(new, old));
                errors
            })
        })
    }

    fn validate_changed(&self, object: &Value, old: &Value) -> FieldErrors {
        let judged = match (Self::read(object), Self::read(old)) {
            (Ok(new), Ok(old)) => R::judge_change(&new, &old).map(|judged| (new, old, judged)),
            _ => None,
        };
        let Some((new, old_typed, judged)) = judged else {
            let mut errors = Self::check(object, |typed| {
                let mut errors = metadata::validate(typed.metadata(), R::NAMES.namespaced, R::NAME);
                errors.extend(match Self::read(old) {
                    Ok(old) => R::validate_against(typed, object, &old),
                    Err(_) => R::validate_written(typed, object),
                });
                errors
            });
            errors.extend(self.validate_update(object, old));
            return errors;
        };
        let mut errors = metadata::validate_update(new.metadata(), old_typed.metadata());
        errors.extend(judged.of_change);
        errors.extend(metadata::validate(
            new.metadata(),
            R::NAMES.namespaced,
            R::NAME,
        ));
        errors.extend(judged.of_object);
        errors
    }

    fn validate_status(&self, object: &Value, old: &Value) -> FieldErrors {
        Self::check(object, |new| {
            Self::check(old, |old| {
                let mut errors = changed_metadata(new.metadata(), old.metadata());
                errors.extend(R::validate_status(new, old));
                errors
            })
        })
    }

    fn verbs(&self) -> Option<&'static [&'static str]> {
        R::REVIEW.then_some(&["create"])
    }

    fn is_review(&self) -> bool {
        R::REVIEW
    }

    fn columns(&self) -> Vec<Column> {
        R::columns()
    }

    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        match Self::read(object) {
            Ok(typed) => R::cells(&typed, now),
            Err(_) => {
                // A stored object was decoded before it was stored; show the name rather than nothing.
                let name = object.pointer("/metadata/name").cloned();
                let cell = |column: &Column| match &name {
                    Some(name) if column.format == "name" => name.clone(),
                    _ => Value::from("<unreadable>"),
                };
                R::columns().iter().map(cell).collect()
            }
        }
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        Self::read(object).map_or_else(|_| Vec::new(), |typed| R::fields(&typed))
    }

    fn validate_created(&self, object: &Value) -> FieldErrors {
        let mut errors = self.validate(object);
        errors.extend(Self::check(object, |typed| R::validate_new(typed, object)));
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let old = old.and_then(|old| Some((Self::read(old).ok()?, old)));
        let old = old.as_ref().map(|(typed, written)| (typed, *written));
        Self::read(object).map_or_else(|_| Vec::new(), |new| R::warnings(&new, object, old))
    }

    fn prepare_delete(&self, object: &mut Value) {
        Self::change(object, R::prepare_delete);
    }

    fn unknown_fields(&self, object: &Value) -> Vec<String> {
        schema::unknown_fields(self, object)
    }

    fn has_status(&self) -> bool {
        R::STATUS
    }

    fn scale(&self) -> Option<Scale> {
        R::SCALE
    }

    fn typed(&self) -> Arc<managed::Schema> {
        schema::definitions(self).typed()
    }

    fn unconditional_update(&self) -> bool {
        R::UNCONDITIONAL_UPDATE
    }

    fn default_grace_seconds(&self, object: &Value) -> Option<i64> {
        Self::read(object)
            .ok()
            .and_then(|typed| R::default_grace_seconds(&typed))
    }
}

/// What may not change in `metadata`. Every error is there twice, as in Kubernetes: `BeforeUpdate` finds it for all kinds,
/// and the strategy of each kind once more.
fn changed_metadata(new: &ObjectMeta, old: &ObjectMeta) -> FieldErrors {
    let mut errors = metadata::validate_update(new, old);
    errors.extend(errors.clone());
    errors
}

/// Makes `field` of `to` what it is in `from`, absent included.
fn copy_field(to: &mut Value, from: &Value, field: &str) {
    if let Some(to) = to.as_object_mut() {
        match from.get(field) {
            Some(value) => {
                to.insert(field.to_owned(), value.clone());
            }
            None => {
                to.remove(field);
            }
        }
    }
}
