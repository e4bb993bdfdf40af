//! A kind that is served in more groups and versions than the one in which it is stored.
//!
//! A further version is a [`Version`] over the [`Rules`] of the stored one: its names, its schema, how its JSON becomes
//! that of the stored version and back, and what differs in defaults and validation. [`Served`] makes a [`Kind`] of it.
//! Everything but the shape of the objects (validation, status, tables, selectors) is that of the stored version, as
//! it is in Kubernetes, where all versions meet in one internal type.
//!
//! Source: Kubernetes API concepts, "API groups and versioning"; `APILifecycleDeprecated` and the like in
//! `k8s.io/apiserver/pkg/endpoints/deprecation` for the warnings.

use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::Metadata as _;
use schemars::{JsonSchema as _, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::field::{FieldError, FieldErrors};
use crate::kind::{Column, DecodeError, Kind, Names, Scale};
use crate::rules::{Rules, Typed};
use crate::{decode, managed, metadata, schema};

/// Since when a version is deprecated, in Kubernetes' own releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deprecation {
    /// The release that deprecated it: `1.19`.
    pub since: &'static str,
    /// The release that no longer serves it, if there is one.
    pub gone: Option<&'static str>,
    /// What to use in its place: `networking.k8s.io/v1 Ingress`.
    pub instead: Option<&'static str>,
}

impl Deprecation {
    /// What clients are told, in the words of `deprecation.WarningMessage`.
    pub fn warning(self, names: &Names) -> String {
        let mut text = format!(
            "{} {} is deprecated in v{}+",
            api_version(names),
            names.kind,
            self.since
        );
        if let Some(gone) = self.gone {
            text += &format!(", unavailable in v{gone}+");
        }
        if let Some(instead) = self.instead {
            text += &format!("; use {instead}");
        }
        text
    }
}

/// The Rust type of the stored version.
type Stored<V> = <<V as Version>::Stored as Rules>::Object;

/// A further version in which a kind is served.
pub trait Version: Send + Sync + 'static {
    /// The version in which the objects are stored.
    type Stored: Rules;

    /// Its names.
    const NAMES: Names;
    /// Since when it is deprecated, if it is.
    const DEPRECATED: Option<Deprecation> = None;

    /// Name of its schema, `io.k8s.api.extensions.v1beta1.Ingress` for example.
    fn schema_name() -> String;

    /// Adds its schemas to the generator and returns its own; see [`schema_like`].
    fn schema(generator: &mut SchemaGenerator) -> Schema;

    /// Turns an object of this version into the stored one. The type of the object is set already, and every field has
    /// the type that the schema gives it; fields that only the stored version has must not pass.
    fn make_stored(object: &mut Map<String, Value>);

    /// Turns a stored object into this version. The type of the object is set already.
    fn show_stored(object: &mut Map<String, Value>);

    /// Fills in what the client left out of an object of this version.
    fn default(_object: &mut Map<String, Value>) {}

    /// What is wrong with a new object, which is given in the stored version.
    fn validate(object: &Stored<Self>, written: &Value) -> FieldErrors {
        Self::Stored::validate_written(object, written)
    }

    /// As [`Version::validate`], for an object that replaces `old`.
    fn validate_against(object: &Stored<Self>, written: &Value, old: &Stored<Self>) -> FieldErrors {
        Self::Stored::validate_against(object, written, old)
    }

    /// What is wrong with the change.
    fn validate_update(new: &Stored<Self>, old: &Stored<Self>) -> FieldErrors {
        Self::Stored::validate_update(new, old)
    }

    /// An error of the stored version, with the names that the fields have here.
    fn error(error: FieldError) -> FieldError {
        error
    }

    /// What field selectors call a field here that they call `label` in the stored version; `None` if it has none.
    fn field_label(label: &'static str) -> Option<&'static str> {
        Some(label)
    }
}

/// The [`Kind`] that follows from the [`Version`] `V`.
#[derive(Debug)]
pub struct Served<V>(PhantomData<fn() -> V>);

impl<V: Version> Served<V> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }

    fn stored_kind() -> Typed<V::Stored> {
        Typed::new()
    }

    /// The object in the stored version.
    fn stored(&self, object: &Value) -> Value {
        let mut stored = object.clone();
        self.make_stored(&mut stored);
        stored
    }

    /// Changes the object in the stored version.
    fn change(&self, object: &mut Value, change: impl FnOnce(&mut Value)) {
        self.make_stored(object);
        change(object);
        self.show_stored(object);
    }

    fn validate_with(
        &self,
        object: &Value,
        rules: impl FnOnce(&Stored<V>, &Value) -> FieldErrors,
    ) -> FieldErrors {
        let stored = self.stored(object);
        let errors = Typed::<V::Stored>::check(&stored, |typed| {
            let mut errors = metadata::validate(
                typed.metadata(),
                V::NAMES.namespaced,
                <V::Stored as Rules>::NAME,
            );
            errors.extend(rules(typed, &stored));
            errors
        });
        named(errors, V::error)
    }
}

fn named(errors: FieldErrors, name: impl Fn(FieldError) -> FieldError) -> FieldErrors {
    errors.into_iter().map(name).collect()
}

fn api_version(names: &Names) -> String {
    if names.group.is_empty() {
        names.version.to_owned()
    } else {
        format!("{}/{}", names.group, names.version)
    }
}

/// Gives the object the type of `names` if it says one, and what `convert` makes of it.
fn retype(object: &mut Value, names: &Names, convert: impl FnOnce(&mut Map<String, Value>)) {
    let Value::Object(object) = object else {
        return;
    };
    object.insert("apiVersion".to_owned(), api_version(names).into());
    object.insert("kind".to_owned(), names.kind.into());
    convert(object);
}

impl<V: Version> Kind for Served<V> {
    fn names(&self) -> &'static Names {
        const { &V::NAMES }
    }

    fn schema_name(&self) -> String {
        V::schema_name()
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        V::schema(generator)
    }

    fn decode(&self, object: Value) -> Result<Value, DecodeError> {
        decode::check(self, &object)?;
        let mut object = Self::stored_kind().decode(self.stored(&object))?;
        self.show_stored(&mut object);
        Ok(object)
    }

    fn default(&self, object: &mut Value) {
        if let Value::Object(object) = object {
            V::default(object);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        self.change(object, |stored| Self::stored_kind().prepare_create(stored));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        let old = self.stored(old);
        self.change(object, |stored| {
            Self::stored_kind().prepare_update(stored, &old);
        });
    }

    fn prepare_status(&self, object: &mut Value, old: &Value) {
        let old = self.stored(old);
        self.change(object, |stored| {
            Self::stored_kind().prepare_status(stored, &old);
        });
    }

    fn validate(&self, object: &Value) -> FieldErrors {
        self.validate_with(object, V::validate)
    }

    fn validate_changed(&self, object: &Value, old: &Value) -> FieldErrors {
        let stored = Typed::<V::Stored>::read(&self.stored(old));
        let mut errors = self.validate_with(object, |new, written| match &stored {
            Ok(old) => V::validate_against(new, written, old),
            Err(_) => V::validate(new, written),
        });
        errors.extend(self.validate_update(object, old));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> FieldErrors {
        let errors = Typed::<V::Stored>::check(&self.stored(object), |new| {
            Typed::<V::Stored>::check(&self.stored(old), |old| {
                // Twice, as every kind: see `Typed`.
                let mut errors = metadata::validate_update(new.metadata(), old.metadata());
                errors.extend(errors.clone());
                errors.extend(V::validate_update(new, old));
                errors
            })
        });
        named(errors, V::error)
    }

    fn validate_status(&self, object: &Value, old: &Value) -> FieldErrors {
        let kind = Self::stored_kind();
        named(
            kind.validate_status(&self.stored(object), &self.stored(old)),
            V::error,
        )
    }

    fn columns(&self) -> Vec<Column> {
        Self::stored_kind().columns()
    }

    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        Self::stored_kind().cells(&self.stored(object), now)
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let stored = Typed::<V::Stored>::read(&self.stored(object));
        let fields = stored.map_or_else(|_| Vec::new(), |typed| V::Stored::fields(&typed));
        let here = |(label, value)| Some((V::field_label(label)?, value));
        fields.into_iter().filter_map(here).collect()
    }

    fn unknown_fields(&self, object: &Value) -> Vec<String> {
        schema::unknown_fields(self, object)
    }

    fn has_status(&self) -> bool {
        <V::Stored as Rules>::STATUS
    }

    fn scale(&self) -> Option<Scale> {
        <V::Stored as Rules>::SCALE
    }

    fn default_grace_seconds(&self, object: &Value) -> Option<i64> {
        Self::stored_kind().default_grace_seconds(&self.stored(object))
    }

    fn typed(&self) -> Arc<managed::Schema> {
        schema::definitions(self).typed()
    }

    fn unconditional_update(&self) -> bool {
        <V::Stored as Rules>::UNCONDITIONAL_UPDATE
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let old = old.map(|old| self.stored(old));
        Self::stored_kind().warnings(&self.stored(object), old.as_ref())
    }

    fn storage(&self) -> (&'static str, &'static str) {
        Self::stored_kind().storage()
    }

    fn stored_as_shown(&self) -> bool {
        false
    }

    fn show_stored(&self, object: &mut Value) {
        retype(object, &V::NAMES, V::show_stored);
    }

    fn make_stored(&self, object: &mut Value) {
        retype(object, &<V::Stored as Rules>::NAMES, V::make_stored);
    }

    fn deprecation(&self) -> Option<String> {
        V::DEPRECATED.map(|deprecated| deprecated.warning(&V::NAMES))
    }
}

/// The schemas of the stored version `R` under the names that they have in `package`
/// (`io.k8s.api.extensions.v1beta1`), after `edit` has changed what differs. Returns a reference to that of the kind.
pub fn schema_like<R: Rules>(
    generator: &mut SchemaGenerator,
    package: &str,
    edit: impl FnOnce(&mut Map<String, Value>),
) -> Schema {
    let mut own = generator.settings().clone().into_generator();
    own.subschema_for::<R::Object>();
    let root = R::Object::schema_name();
    let (from, kind) = root.rsplit_once('.').unwrap_or(("", &root));
    let names = Names {
        from: &format!("{from}."),
        to: &format!("{package}."),
        path: &format!("#{}/", generator.settings().definitions_path),
    };
    let mut schemas: Map<String, Value> = own
        .take_definitions(false)
        .into_iter()
        .map(|(name, mut schema)| {
            names.rename(&mut schema);
            (names.renamed(&name).unwrap_or(name), schema)
        })
        .collect();
    edit(&mut schemas);
    for (name, schema) in schemas {
        generator.definitions_mut().entry(name).or_insert(schema);
    }
    let reference = format!("{}{package}.{kind}", names.path);
    return json!({ "$ref": reference }).try_into().unwrap_or_default();

    /// From the names of one package to those of another.
    struct Names<'a> {
        from: &'a str,
        to: &'a str,
        path: &'a str,
    }

    impl Names<'_> {
        fn renamed(&self, name: &str) -> Option<String> {
            let rest = name.strip_prefix(self.from)?;
            Some(format!("{}{rest}", self.to))
        }

        fn rename(&self, schema: &mut Value) {
            match schema {
                Value::Object(map) => {
                    let target = map.get("$ref").and_then(Value::as_str);
                    let name = target.and_then(|target| target.strip_prefix(self.path));
                    if let Some(name) = name.and_then(|name| self.renamed(name)) {
                        map.insert("$ref".to_owned(), format!("{}{name}", self.path).into());
                    }
                    map.values_mut().for_each(|value| self.rename(value));
                }
                Value::Array(list) => list.iter_mut().for_each(|value| self.rename(value)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds;

    #[test]
    fn a_deprecation_is_worded_as_kubernetes_words_it() {
        let warning = |group: &str, version: &str, plural: &str| {
            let kind = kinds::find(group, version, plural).expect(plural);
            kind.deprecation()
        };
        for (group, version, plural, text) in [
            (
                "networking.k8s.io",
                "v1beta1",
                "ingresses",
                "networking.k8s.io/v1beta1 Ingress is deprecated in v1.19+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress",
            ),
            (
                "extensions",
                "v1beta1",
                "ingresses",
                "extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress",
            ),
            (
                "",
                "v1",
                "endpoints",
                "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
            ),
        ] {
            assert_eq!(warning(group, version, plural).as_deref(), Some(text));
        }
        assert_eq!(warning("networking.k8s.io", "v1", "ingresses"), None);
        assert_eq!(warning("", "v1", "pods"), None);
    }

    #[test]
    fn every_version_is_stored_as_a_kind_that_is_served() {
        for kind in kinds::registry() {
            let (group, plural) = kind.storage();
            let stored = kinds::registry().into_iter().find(|other| {
                let names = other.names();
                other.stored_as_shown() && (names.group, names.plural) == (group, plural)
            });
            let stored = stored.unwrap_or_else(|| panic!("{}", kind.schema_name()));
            assert_eq!(stored.names().kind, kind.names().kind);
            assert_eq!(stored.has_status(), kind.has_status());
        }
    }
}
