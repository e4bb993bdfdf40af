//! Validation of what all objects have: `metadata`, and of labels and selectors wherever they appear.
//!
//! Source: `k8s.io/apimachinery/pkg/api/validation` (objectmeta.go) and `apis/meta/v1/validation`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

use crate::field::{FieldError, FieldErrors, immutable};
use crate::names::{self, NameRule, Wrong};

/// All annotations of an object together, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Finalizers that Kubernetes itself uses without a domain.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Turns what is wrong with one value into errors of its field.
pub fn wrong(field: &str, value: impl serde::Serialize + Copy, wrong: Wrong) -> FieldErrors {
    wrong
        .iter()
        .map(|w| FieldError::invalid(field, value, w))
        .collect()
}

/// Keys and values of labels.
pub fn validate_labels(labels: Option<&BTreeMap<String, String>>, path: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (key, value) in labels.into_iter().flatten() {
        errors.extend(wrong(path, key.as_str(), names::qualified_name(key)));
        errors.extend(wrong(path, value.as_str(), names::label_value(value)));
    }
    errors
}

/// Keys of annotations, and their size together.
pub fn validate_annotations(
    annotations: Option<&BTreeMap<String, String>>,
    path: &str,
) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        let lower = key.to_lowercase();
        errors.extend(wrong(path, key.as_str(), names::qualified_name(&lower)));
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
    errors
}

/// A LabelSelector by itself: operators that exist, values where they are needed, keys and values that can be.
pub fn validate_label_selector(selector: &LabelSelector, path: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let at = format!("{path}.matchExpressions[{i}]");
        let values = requirement.values.as_deref().unwrap_or_default();
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                format!("{at}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                format!("{at}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                format!("{at}.operator"),
                other,
                "not a valid selector operator",
            )),
        }
        errors.extend(wrong(
            &format!("{at}.key"),
            requirement.key.as_str(),
            names::qualified_name(&requirement.key),
        ));
        for (j, value) in values.iter().enumerate() {
            errors.extend(wrong(
                &format!("{at}.values[{j}]"),
                value.as_str(),
                names::label_value(value),
            ));
        }
    }
    errors.extend(validate_labels(
        selector.match_labels.as_ref(),
        &format!("{path}.matchLabels"),
    ));
    errors
}

/// `metadata` of a new or changed object.
pub fn validate(meta: &ObjectMeta, namespaced: bool, rule: NameRule) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if let Some(prefix) = meta.generate_name.as_deref().filter(|p| !p.is_empty()) {
        // A prefix may end with what a name may not: a hyphen, because more follows.
        let as_name = match prefix.strip_suffix('-') {
            Some(start) if !start.is_empty() => format!("{start}a"),
            _ => prefix.to_owned(),
        };
        errors.extend(wrong("metadata.generateName", prefix, rule.check(&as_name)));
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        )),
        name => errors.extend(wrong("metadata.name", name, rule.check(name))),
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    match (namespaced, namespace) {
        (true, "") => errors.push(FieldError::required("metadata.namespace", "")),
        (true, ns) => errors.extend(wrong("metadata.namespace", ns, names::dns_label(ns))),
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden(
            "metadata.namespace",
            "not allowed on this type",
        )),
    }
    if let Some(generation) = meta.generation {
        errors.extend(crate::field::not_negative(
            generation,
            "metadata.generation",
        ));
    }
    errors.extend(validate_labels(meta.labels.as_ref(), "metadata.labels"));
    errors.extend(validate_annotations(
        meta.annotations.as_ref(),
        "metadata.annotations",
    ));
    errors.extend(validate_owners(
        meta.owner_references.as_deref().unwrap_or_default(),
    ));
    for (i, finalizer) in meta.finalizers.iter().flatten().enumerate() {
        errors.extend(validate_finalizer(
            finalizer,
            &format!("metadata.finalizers[{i}]"),
        ));
    }
    errors
}

/// The name of a finalizer: with a domain, unless it is one of Kubernetes' own.
pub fn validate_finalizer(finalizer: &str, at: &str) -> FieldErrors {
    let mut errors = wrong(at, finalizer, names::qualified_name(finalizer));
    if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
        errors.push(FieldError::invalid(
            at,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        ));
    }
    errors
}

fn validate_owners(owners: &[OwnerReference]) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut controller: Option<&OwnerReference> = None;
    for (i, owner) in owners.iter().enumerate() {
        let at = format!("metadata.ownerReferences[{i}]");
        for (field, value, words) in [
            (
                "apiVersion",
                &owner.api_version,
                "version must not be empty",
            ),
            ("kind", &owner.kind, "must not be empty"),
            ("name", &owner.name, "must not be empty"),
            ("uid", &owner.uid, "must not be empty"),
        ] {
            if value.is_empty() {
                errors.push(FieldError::invalid(format!("{at}.{field}"), value, words));
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            errors.push(FieldError::invalid(
                at.clone(),
                "/v1, Kind=Event",
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.controller == Some(true) {
            if let Some(first) = controller {
                errors.push(FieldError::invalid(
                    "metadata.ownerReferences",
                    owners,
                    &format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                        first.name, owner.name
                    ),
                ));
            }
            controller = controller.or(Some(owner));
        }
    }
    errors
}

/// What may not change in `metadata`.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta) -> FieldErrors {
    let mut errors = FieldErrors::new();
    errors.extend(immutable(&new.name, &old.name, "metadata.name"));
    errors.extend(immutable(
        &new.namespace,
        &old.namespace,
        "metadata.namespace",
    ));
    errors.extend(immutable(&new.uid, &old.uid, "metadata.uid"));
    errors.extend(immutable(
        &new.creation_timestamp,
        &old.creation_timestamp,
        "metadata.creationTimestamp",
    ));
    errors.extend(immutable(
        &new.deletion_timestamp,
        &old.deletion_timestamp,
        "metadata.deletionTimestamp",
    ));
    errors.extend(immutable(
        &new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
        "metadata.deletionGracePeriodSeconds",
    ));
    if old.deletion_timestamp.is_some() {
        let had = old.finalizers.as_deref().unwrap_or_default();
        let fresh: Vec<String> = new
            .finalizers
            .iter()
            .flatten()
            .filter(|f| !had.contains(f))
            .map(|f| format!("\"{f}\""))
            .collect();
        if !fresh.is_empty() {
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    fresh.join(", ")
                ),
            ));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn named(name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        }
    }

    fn texts(errors: FieldErrors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_plain_object_has_nothing_wrong() {
        assert_eq!(validate(&named("a.b"), true, NameRule::Subdomain), vec![]);
    }

    #[test]
    fn an_object_without_a_name_is_refused() {
        let errors = validate(&named(""), true, NameRule::Label);
        assert_eq!(
            texts(errors),
            ["metadata.name: Required value: name or generateName is required"]
        );
    }

    #[test]
    fn a_finalizer_has_a_domain() {
        let mut meta = named("a");
        meta.finalizers = Some(vec![
            "nodomain".into(),
            "example.com/x".into(),
            "orphan".into(),
        ]);
        assert_eq!(
            texts(validate(&meta, true, NameRule::Label)),
            [
                "metadata.finalizers[0]: Invalid value: \"nodomain\": name is neither a standard finalizer name nor is it fully qualified"
            ]
        );
    }

    #[test]
    fn annotations_have_a_size_limit() {
        let mut meta = named("a");
        meta.annotations = Some([("k".to_owned(), "v".repeat(ANNOTATIONS_MAX))].into());
        assert_eq!(
            texts(validate(&meta, true, NameRule::Label)),
            ["metadata.annotations: Too long: may not be more than 262144 bytes"]
        );
    }

    #[test]
    fn a_selector_operator_that_does_not_exist_is_refused() {
        let selector = LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "a".into(),
                operator: "Like".into(),
                values: None,
            }]),
            match_labels: None,
        };
        assert_eq!(
            texts(validate_label_selector(&selector, "spec.selector")),
            [
                "spec.selector.matchExpressions[0].operator: Invalid value: \"Like\": not a valid selector operator"
            ]
        );
    }

    #[test]
    fn no_finalizer_is_added_to_what_is_going_away() {
        let mut old = named("a");
        old.deletion_timestamp = Some(
            serde_json::from_value(serde_json::json!("2026-01-01T00:00:00Z")).expect("a time"),
        );
        let mut new = old.clone();
        new.finalizers = Some(vec!["example.com/more".into()]);
        assert_eq!(
            texts(validate_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.com/more\"}"
            ]
        );
    }
}
