//! What all controllers of Pods share: the Pod template and the selector that must find its Pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as SelectorObject, ObjectMeta};
use serde_json::Value;

use super::pod;
use crate::field::{FieldError, FieldErrors};
use crate::metadata::{validate_annotations, validate_label_selector, validate_labels};
use crate::selector::LabelSelector;
use crate::table;

/// Labels of the template; empty if it has none.
pub(super) fn labels(template: Option<&PodTemplateSpec>) -> BTreeMap<String, String> {
    template
        .and_then(|t| t.metadata.as_ref())
        .and_then(|m: &ObjectMeta| m.labels.clone())
        .unwrap_or_default()
}

/// Fills in the defaults of the Pods to come.
pub(super) fn default(template: &mut PodTemplateSpec) {
    if let Some(spec) = &mut template.spec {
        pod::defaults::default_spec(spec);
    }
}

/// The template by itself, whatever it is for. `at` is its path. Source: `ValidatePodTemplateSpec`.
pub(super) fn validate_spec(template: &PodTemplateSpec, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let meta = template.metadata.as_ref();
    errors.extend(validate_labels(
        meta.and_then(|m| m.labels.as_ref()),
        &format!("{at}.labels"),
    ));
    errors.extend(validate_annotations(
        meta.and_then(|m| m.annotations.as_ref()),
        &format!("{at}.annotations"),
    ));
    let spec = template.spec.clone().unwrap_or_default();
    errors.extend(pod::validate::validate_spec(&spec, &format!("{at}.spec")));
    if spec
        .ephemeral_containers
        .is_some_and(|list| !list.is_empty())
    {
        errors.push(FieldError::forbidden(
            format!("{at}.spec.ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
    errors
}

/// The Pods of the template must run for ever, as those of all controllers but the Job. `of` is the controller's kind
/// in the message.
pub(super) fn runs_for_ever(template: &PodTemplateSpec, at: &str, of: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let spec = template.spec.as_ref();
    let restart = spec
        .and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or("Always");
    if restart != "Always" {
        errors.push(FieldError::not_supported(
            format!("{at}.spec.restartPolicy"),
            restart,
            &["Always"],
        ));
    }
    if spec.is_some_and(|spec| spec.active_deadline_seconds.is_some()) {
        errors.push(FieldError::forbidden(
            format!("{at}.spec.activeDeadlineSeconds"),
            &format!("activeDeadlineSeconds in {of} is not Supported"),
        ));
    }
    errors
}

/// The template of Pods that run for ever: [`validate_spec`] and [`runs_for_ever`].
pub(super) fn validate(template: &PodTemplateSpec, at: &str, of: &str) -> FieldErrors {
    let mut errors = validate_spec(template, at);
    errors.extend(runs_for_ever(template, at, of));
    errors
}

/// The template must make Pods that the selector finds. A selector of everything is complained about elsewhere.
pub(super) fn validate_match(
    selector: &LabelSelector,
    template: Option<&PodTemplateSpec>,
    at: &str,
) -> FieldErrors {
    if selector.is_everything() {
        return FieldErrors::new();
    }
    validate_match_strictly(selector, template, at)
}

/// As [`validate_match`].
pub(super) fn validate_match_strictly(
    selector: &LabelSelector,
    template: Option<&PodTemplateSpec>,
    at: &str,
) -> FieldErrors {
    let meta = template.and_then(|template| template.metadata.as_ref());
    let labels = meta.and_then(|meta| meta.labels.clone());
    if selector.matches(&labels.clone().unwrap_or_default()) {
        FieldErrors::new()
    } else {
        vec![FieldError::invalid(
            format!("{at}.metadata.labels"),
            labels,
            "`selector` does not match template `labels`",
        )]
    }
}

/// The selector of a ReplicaSet or Deployment (`of`), and that it finds the template's Pods. `written` is the object
/// as the client wrote it: a selector that was left out is worded differently from an empty one.
pub(super) fn validate_selector(
    selector: &SelectorObject,
    template: Option<&PodTemplateSpec>,
    written: &Value,
    of: &str,
) -> FieldErrors {
    let absent = written.pointer("/spec/selector").is_none_or(Value::is_null);
    if absent {
        let mut errors = vec![FieldError::required("spec.selector", "")];
        errors.extend(validate_match(
            &LabelSelector::nothing(),
            template,
            "spec.template",
        ));
        return errors;
    }
    let mut errors = validate_label_selector(selector, "spec.selector");
    match LabelSelector::from_object(Some(selector)) {
        Ok(wanted) if wanted.is_everything() => errors.push(FieldError::invalid(
            "spec.selector",
            selector,
            &format!("empty selector is invalid for {of}"),
        )),
        Ok(wanted) => errors.extend(validate_match(&wanted, template, "spec.template")),
        // What is wrong with it was said above.
        Err(_) if !errors.is_empty() => {}
        Err(e) => errors.push(FieldError::invalid(
            "spec.selector",
            selector,
            &e.to_string(),
        )),
    }
    errors
}

/// Names and images of the template's containers, as cells.
pub(super) fn container_cells(template: Option<&PodTemplateSpec>) -> [Value; 2] {
    let spec = template.and_then(|t| t.spec.as_ref());
    let (names, images) = table::containers(spec.map_or(&[], |s| &s.containers));
    [Value::from(names), Value::from(images)]
}

/// A selector object as a cell.
pub(super) fn selector_cell(selector: &SelectorObject) -> Value {
    Value::from(match LabelSelector::from_object(Some(selector)) {
        Ok(selector) => table::or_none(selector.to_string()),
        Err(_) => "<error>".to_owned(),
    })
}
