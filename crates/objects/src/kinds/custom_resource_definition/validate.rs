//! What is wrong with a definition, in Kubernetes' words.
//!
//! Where all versions say the same, Kubernetes tells of it once and under the names that v1beta1 had:
//! `spec.validation`, `spec.subresources`, `spec.additionalPrinterColumns`.
//! Source: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation` and `v1/conversion.go`.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::custom::conditions::{self, Approval};
use crate::custom::definition::{
    Conversion, Definition, Names, PrinterColumn, SelectableField, Subresources, Validation,
};
use crate::custom::schema::Schema;
use crate::custom::structural;
use crate::field::{FieldError, FieldErrors, immutable};
use crate::names;

/// So many fields may be offered to selectors.
const SELECTABLE: usize = 8;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] = [
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
    "string",
];

/// The name says what it defines.
pub(super) fn check_name(object: &CustomResourceDefinition, errors: &mut FieldErrors) {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let wanted = format!("{}.{}", object.spec.names.plural, object.spec.group);
    if name != wanted && !name.is_empty() {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", name, why));
    }
}

/// What is wrong with `spec`; `written` is the same as JSON.
pub(super) fn spec(definition: &Definition, written: &Value) -> FieldErrors {
    let spec = &definition.spec;
    let mut errors = FieldErrors::new();
    if spec.group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else {
        let wrong = names::dns_subdomain(&spec.group);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(
                "spec.group",
                &spec.group,
                &wrong.join(","),
            ));
        } else if !spec.group.contains('.') {
            errors.push(FieldError::invalid(
                "spec.group",
                &spec.group,
                "should be a domain with at least one dot",
            ));
        }
    }
    one_of(
        "spec.scope",
        &spec.scope,
        &["Cluster", "Namespaced"],
        &mut errors,
    );
    let schemas = same(spec.versions.iter().map(|v| &v.schema));
    let subresources = same(spec.versions.iter().map(|v| &v.subresources));
    let columns = same(spec.versions.iter().map(|v| &v.additional_printer_columns));
    let selectable = same(spec.versions.iter().map(|v| &v.selectable_fields));
    let has_schema = |v: &Option<Validation>| v.as_ref().is_some_and(|v| v.schema.is_some());
    for (i, version) in spec.versions.iter().enumerate() {
        if !has_schema(&version.schema) {
            errors.push(FieldError::required(
                format!("spec.versions[{i}].schema.openAPIV3Schema"),
                "",
            ));
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    let mut unique = true;
    for (i, version) in spec.versions.iter().enumerate() {
        let at = format!("spec.versions[{i}]");
        unique &= !seen.contains(&version.name.as_str());
        seen.push(&version.name);
        dns_1035(&format!("{at}.name"), &version.name, &mut errors);
        deprecation(version, &at, &mut errors);
        let status = version.subresources.as_ref();
        let status = status.is_some_and(|s| s.status.is_some());
        if schemas.is_none() {
            check_schema(
                version.schema.as_ref(),
                status,
                &format!("{at}.schema"),
                &mut errors,
            );
        }
        if subresources.is_none() {
            let at = format!("{at}.subresources");
            check_subresources(version.subresources.as_ref(), &at, &mut errors);
        }
        if columns.is_none() {
            let at = format!("{at}.additionalPrinterColumns");
            check_columns(&version.additional_printer_columns, &at, &mut errors);
        }
        if selectable.is_none() {
            let at = format!("{at}.selectableFields");
            let schema = version.schema.as_ref();
            check_selectable(&version.selectable_fields, schema, &at, &mut errors);
        }
    }
    let versions = written.get("versions").unwrap_or(&Value::Null);
    if !unique {
        errors.push(FieldError::invalid(
            "spec.versions",
            versions,
            "must contain unique version names",
        ));
    }
    if spec.versions.iter().filter(|v| v.storage).count() != 1 {
        errors.push(FieldError::invalid(
            "spec.versions",
            versions,
            "must have exactly one version marked as storage version",
        ));
    }
    for (field, value) in [
        ("plural", &spec.names.plural),
        ("singular", &spec.names.singular),
        ("kind", &spec.names.kind),
        ("listKind", &spec.names.list_kind),
    ] {
        if value.is_empty() {
            errors.push(FieldError::required(format!("spec.names.{field}"), ""));
        }
    }
    check_names(&spec.names, "spec.names", &mut errors);
    if let Some(schema) = schemas {
        let any_status = spec.versions.iter().any(|v| {
            let subresources = v.subresources.as_ref();
            subresources.is_some_and(|s| s.status.is_some())
        });
        check_schema(schema.as_ref(), any_status, "spec.validation", &mut errors);
    }
    if let Some(shared) = subresources {
        check_subresources(shared.as_ref(), "spec.subresources", &mut errors);
    }
    if let Some(shared) = columns {
        check_columns(shared, "spec.additionalPrinterColumns", &mut errors);
    }
    if let Some(shared) = selectable {
        let schema = spec.versions.first().and_then(|v| v.schema.as_ref());
        check_selectable(shared, schema, "spec.selectableFields", &mut errors);
    }
    check_conversion(spec.conversion.as_ref(), &mut errors);
    errors
}

/// What all have in common; `None` if they differ, or there are none.
fn same<'a, T: PartialEq>(mut all: impl Iterator<Item = &'a T>) -> Option<&'a T> {
    let first = all.next()?;
    all.all(|one| one == first).then_some(first)
}

fn one_of(field: &str, value: &str, accepted: &[&str], errors: &mut FieldErrors) {
    if value.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if !accepted.contains(&value) {
        errors.push(FieldError::not_supported(field, value, accepted));
    }
}

fn dns_1035(field: &str, value: &str, errors: &mut FieldErrors) {
    let wrong = names::dns_1035_label(value);
    if !wrong.is_empty() {
        errors.push(FieldError::invalid(field, value, &wrong.join(",")));
    }
}

fn deprecation(version: &crate::custom::definition::Version, at: &str, errors: &mut FieldErrors) {
    let Some(warning) = version.deprecation_warning.as_deref() else {
        return;
    };
    let mut wrong = |why: &str| {
        errors.push(FieldError::invalid(
            format!("{at}.deprecationWarning"),
            warning,
            why,
        ));
    };
    if !version.deprecated {
        return wrong("can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        wrong("must be <= 256 characters long");
    }
    if warning.is_empty() {
        wrong("must not be an empty string");
    }
    if let Some((i, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        wrong(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {i}"
        ));
    }
}

fn check_names(names: &Names, at: &str, errors: &mut FieldErrors) {
    for (field, value) in [("plural", &names.plural), ("singular", &names.singular)] {
        if !value.is_empty() {
            dns_1035(&format!("{at}.{field}"), value, errors);
        }
    }
    for (field, value) in [("kind", &names.kind), ("listKind", &names.list_kind)] {
        let wrong = names::dns_1035_label(&value.to_lowercase());
        if !value.is_empty() && !wrong.is_empty() {
            let why = format!(
                "may have mixed case, but should otherwise match: {}",
                wrong.join(",")
            );
            errors.push(FieldError::invalid(format!("{at}.{field}"), value, &why));
        }
    }
    for (i, name) in names.short_names.iter().enumerate() {
        dns_1035(&format!("{at}.shortNames[{i}]"), name, errors);
    }
    if !names.kind.is_empty() && names.kind == names.list_kind {
        errors.push(FieldError::invalid(
            format!("{at}.listKind"),
            &names.list_kind,
            "kind and listKind may not be the same",
        ));
    }
    for (i, name) in names.categories.iter().enumerate() {
        dns_1035(&format!("{at}.categories[{i}]"), name, errors);
    }
}

fn check_schema(validation: Option<&Validation>, status: bool, at: &str, errors: &mut FieldErrors) {
    let Some(raw) = validation.and_then(|v| v.schema.as_ref()) else {
        return;
    };
    let at = format!("{at}.openAPIV3Schema");
    match Schema::read(raw) {
        Ok(schema) => errors.extend(structural::validate(&schema, &at, status)),
        Err(e) => errors.push(FieldError::invalid(at, "", &e)),
    }
}

fn simple_path(path: &str, field: &str, errors: &mut FieldErrors) -> bool {
    if path.starts_with('.') {
        return true;
    }
    errors.push(FieldError::invalid(
        field,
        path,
        "must be a simple json path starting with .",
    ));
    false
}

fn check_subresources(subresources: Option<&Subresources>, at: &str, errors: &mut FieldErrors) {
    let Some(scale) = subresources.and_then(|s| s.scale.as_ref()) else {
        return;
    };
    for (field, path, under) in [
        ("specReplicasPath", &scale.spec_replicas_path, ".spec"),
        ("statusReplicasPath", &scale.status_replicas_path, ".status"),
    ] {
        let field = format!("{at}.scale.{field}");
        if path.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if simple_path(path, &field, errors) && !path.starts_with(&format!("{under}.")) {
            let why = format!("should be a json path under {under}");
            errors.push(FieldError::invalid(field, path, &why));
        }
    }
    if let Some(path) = scale
        .label_selector_path
        .as_deref()
        .filter(|p| !p.is_empty())
    {
        let field = format!("{at}.scale.labelSelectorPath");
        let inside = path.starts_with(".spec.") || path.starts_with(".status.");
        if simple_path(path, &field, errors) && !inside {
            let why = "should be a json path under either .spec or .status";
            errors.push(FieldError::invalid(field, path, why));
        }
    }
}

fn check_columns(columns: &[PrinterColumn], at: &str, errors: &mut FieldErrors) {
    for (i, column) in columns.iter().enumerate() {
        let field = |name: &str| format!("{at}[{i}].{name}");
        if column.name.is_empty() {
            errors.push(FieldError::required(field("name"), ""));
        }
        let types = format!("must be one of {}", COLUMN_TYPES.join(","));
        if column.kind.is_empty() {
            errors.push(FieldError::required(field("type"), &types));
        } else if !COLUMN_TYPES.contains(&column.kind.as_str()) {
            errors.push(FieldError::invalid(field("type"), &column.kind, &types));
        }
        if !column.format.is_empty() && !COLUMN_FORMATS.contains(&column.format.as_str()) {
            let formats = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(FieldError::invalid(
                field("format"),
                &column.format,
                &formats,
            ));
        }
        if column.json_path.is_empty() {
            errors.push(FieldError::required(field("JSONPath"), ""));
        } else {
            simple_path(&column.json_path, &field("JSONPath"), errors);
        }
    }
}

fn check_selectable(
    fields: &[SelectableField],
    validation: Option<&Validation>,
    at: &str,
    errors: &mut FieldErrors,
) {
    if fields.is_empty() {
        return;
    }
    let schema = validation.and_then(|v| Schema::read(v.schema.as_ref()?).ok());
    let Some(schema) = schema else {
        errors.push(FieldError::invalid(
            at,
            "",
            "may only be set when `version.schema.openAPIV3Schema` is not included",
        ));
        return;
    };
    let mut seen: Vec<Vec<String>> = Vec::new();
    for (i, selectable) in fields.iter().enumerate() {
        let (field, path) = (format!("{at}[{i}].jsonPath"), &selectable.json_path);
        if path.is_empty() {
            errors.push(FieldError::required(field, ""));
            continue;
        }
        let followed = if path.contains('[') {
            Err("must not contain array notation".to_owned())
        } else {
            structural::follow(&schema, path)
        };
        match followed {
            Err(e) => {
                let why = format!("is an invalid path: {e}");
                errors.push(FieldError::invalid(field, path, &why));
            }
            Ok((names, found)) => {
                if names.first().is_some_and(|n| n == "metadata") {
                    let why = "must not point to fields in metadata";
                    errors.push(FieldError::invalid(field.clone(), path, why));
                }
                if !matches!(found.kind.as_str(), "string" | "boolean" | "integer") {
                    let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                    errors.push(FieldError::invalid(field.clone(), path, why));
                }
                if seen.contains(&names) {
                    errors.push(FieldError::duplicate(field, path));
                } else {
                    seen.push(names);
                }
            }
        }
    }
    if seen.len() > SELECTABLE {
        errors.push(FieldError::too_many(at, seen.len(), SELECTABLE));
    }
}

fn check_conversion(conversion: Option<&Conversion>, errors: &mut FieldErrors) {
    let Some(conversion) = conversion else {
        return;
    };
    let at = "spec.conversion";
    one_of(
        &format!("{at}.strategy"),
        &conversion.strategy,
        &["None", "Webhook"],
        errors,
    );
    match (conversion.strategy.as_str(), &conversion.webhook) {
        ("Webhook", webhook) => {
            let config = webhook.as_ref().and_then(|w| w.get("clientConfig"));
            if config.is_none() {
                errors.push(FieldError::required(
                    format!("{at}.webhookClientConfig"),
                    "required when strategy is set to Webhook",
                ));
            } else {
                // Storing it would mean to serve versions that are not what the webhook makes of them.
                errors.push(FieldError::forbidden(
                    format!("{at}.strategy"),
                    "conversion webhooks are not called by this server: use strategy None, or only one version",
                ));
            }
        }
        (_, Some(webhook)) => {
            let why = "should not be set when strategy is not set to Webhook";
            if webhook.get("clientConfig").is_some() {
                errors.push(FieldError::forbidden(
                    format!("{at}.webhookClientConfig"),
                    why,
                ));
            }
            let versions = webhook.get("conversionReviewVersions");
            if versions
                .and_then(Value::as_array)
                .is_some_and(|v| !v.is_empty())
            {
                errors.push(FieldError::forbidden(
                    format!("{at}.conversionReviewVersions"),
                    why,
                ));
            }
        }
        _ => {}
    }
}

/// What is wrong with `status`.
pub(super) fn status(definition: &Definition) -> FieldErrors {
    let mut errors = FieldErrors::new();
    check_names(
        &definition.status.accepted_names,
        "status.acceptedNames",
        &mut errors,
    );
    errors
}

/// Versions in which objects are stored stay until nothing is stored in them.
pub(super) fn stored_versions(definition: &Definition) -> FieldErrors {
    let (stored, at) = (&definition.status.stored_versions, "status.storedVersions");
    if stored.is_empty() {
        let why = "must have at least one stored version";
        return vec![FieldError::invalid(at, stored, why)];
    }
    let mut errors = FieldErrors::new();
    for version in definition.spec.versions.iter().filter(|v| v.storage) {
        if !stored.contains(&version.name) {
            let why = format!("must have the storage version {}", version.name);
            errors.push(FieldError::invalid(at, stored, &why));
        }
    }
    for (i, name) in stored.iter().enumerate() {
        if !definition.spec.versions.iter().any(|v| v.name == *name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(FieldError::invalid(format!("{at}[{i}]"), name, &why));
        }
    }
    errors
}

/// Keeping everything is for schemas to say.
pub(super) fn preserve_unknown_fields(definition: &Definition) -> FieldErrors {
    if !definition.spec.preserve_unknown_fields {
        return FieldErrors::new();
    }
    vec![FieldError::invalid(
        "spec.preserveUnknownFields",
        true,
        "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
    )]
}

/// Groups that belong to Kubernetes need somebody's approval. `old`: the annotations of the object that is changed.
pub(super) fn approval(
    definition: &Definition,
    old: Option<&BTreeMap<String, String>>,
) -> FieldErrors {
    if !conditions::is_protected(&definition.spec.group) {
        return FieldErrors::new();
    }
    let annotations = &definition.metadata.annotations;
    let (state, reason) = conditions::approval(annotations);
    if old.is_some_and(|old| conditions::approval(old).0 == state) {
        return FieldErrors::new();
    }
    let at = format!("metadata.annotations[{}]", conditions::APPROVED);
    match state {
        Approval::Missing => vec![FieldError::required(at, &reason)],
        Approval::Invalid => {
            let value = annotations.get(conditions::APPROVED);
            vec![FieldError::invalid(at, value, &reason)]
        }
        Approval::Approved | Approval::Bypassed => FieldErrors::new(),
    }
}

/// [`approval`] of a changed definition.
pub(super) fn approval_change(
    object: &CustomResourceDefinition,
    old: &CustomResourceDefinition,
) -> FieldErrors {
    let mut definition = Definition::default();
    definition.spec.group.clone_from(&object.spec.group);
    let annotations =
        |crd: &CustomResourceDefinition| crd.metadata.annotations.clone().unwrap_or_default();
    definition.metadata.annotations = annotations(object);
    let mut errors = approval(&definition, Some(&annotations(old)));
    // The name is the key of the store and of the paths.
    errors.extend(immutable(
        &object.metadata.name,
        &old.metadata.name,
        "metadata.name",
    ));
    errors.truncate(usize::from(!errors.is_empty()));
    errors
}

/// What whoever writes the definition is warned of.
pub(super) fn warnings(definition: &Definition) -> Vec<String> {
    let mut warnings: Vec<String> = Vec::new();
    for version in &definition.spec.versions {
        let raw = version.schema.as_ref().and_then(|s| s.schema.as_ref());
        if let Some(schema) = raw.and_then(|raw| Schema::read(raw).ok()) {
            for warning in structural::warnings(&schema) {
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
    }
    warnings
}
