//! What is wrong with a Job by itself.
//!
//! Source: `ValidateJob` and `validateJobSpec` in `pkg/apis/batch/validation`.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{NAME_LABELS, UID_LABELS, policies};
use crate::field::{FieldError, FieldErrors, not_negative};
use crate::kinds::pod_template;
use crate::metadata::validate_label_selector;
use crate::names;
use crate::selector::LabelSelector;

/// An Indexed Job has at most so many Pods at a time, and so many indexes may fail.
const MOST_INDEXED: i32 = 100_000;
/// With more completions than this, an Indexed Job with a limit for each index has stricter bounds.
const MANY_COMPLETIONS: i32 = 100_000;
const MOST_OF_MANY: i32 = 10_000;
/// Length of `managedBy`, in bytes.
const MANAGED_BY_LENGTH: usize = 63;

pub(super) fn validate(job: &Job) -> FieldErrors {
    let spec = job.spec.clone().unwrap_or_default();
    let mut errors = generated_selector(&job.metadata, &spec);
    errors.extend(validate_spec(&spec, "spec"));
    errors.extend(selector(&spec));
    let name = job.metadata.name.as_deref().unwrap_or_default();
    if let Some(completions) = spec
        .completions
        .filter(|count| is_indexed(&spec) && *count > 0)
    {
        // The index is appended to the hostname of a Pod.
        let longest = format!("{name}-{}", completions - 1);
        if !names::dns_label(&longest).is_empty() {
            errors.push(FieldError::invalid(
                "metadata.name",
                name,
                &format!("will not able to create pod with invalid DNS label: {longest}"),
            ));
        }
    }
    errors
}

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// The selector and the labels that the server makes must be as it makes them.
fn generated_selector(meta: &ObjectMeta, spec: &JobSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let Some(selector) = spec
        .selector
        .as_ref()
        .filter(|_| spec.manual_selector != Some(true))
    else {
        return errors;
    };
    let (name, uid) = (
        meta.name.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default(),
    );
    if uid.is_empty() {
        errors.push(FieldError::required("metadata.uid", ""));
    }
    let labels = pod_template::labels(Some(&spec.template));
    let expected = [
        (UID_LABELS[0], uid),
        (NAME_LABELS[0], name),
        (UID_LABELS[1], uid),
        (NAME_LABELS[1], name),
    ];
    for (key, value) in expected {
        let at = format!("spec.template.metadata.labels[{key}]");
        let must = format!("must be '{value}'");
        match labels.get(key) {
            None => errors.push(FieldError::required(at, &must)),
            Some(other) if other != value => errors.push(FieldError::invalid(at, &labels, &must)),
            Some(_) => {}
        }
    }
    let expected = expected
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    if LabelSelector::from_object(Some(selector)).is_ok_and(|wanted| !wanted.matches(&expected)) {
        errors.push(FieldError::invalid(
            "spec.selector",
            selector,
            "`selector` not auto-generated",
        ));
    }
    errors
}

fn selector(spec: &JobSpec) -> FieldErrors {
    let Some(selector) = &spec.selector else {
        let mut errors = vec![FieldError::required("spec.selector", "")];
        errors.extend(pod_template::validate_match(
            &LabelSelector::nothing(),
            Some(&spec.template),
            "spec.template",
        ));
        return errors;
    };
    let mut errors = validate_label_selector(selector, "spec.selector");
    if let Ok(wanted) = LabelSelector::from_object(Some(selector)) {
        errors.extend(pod_template::validate_match_strictly(
            &wanted,
            Some(&spec.template),
            "spec.template",
        ));
    }
    errors
}

/// The spec but for its selector, which a template of Jobs does not have.
pub(in crate::kinds) fn validate_spec(spec: &JobSpec, at: &str) -> FieldErrors {
    let mut errors = figures(spec, at);
    errors.extend(managed_by(spec, at));
    errors.extend(completion_mode(spec, at));
    errors.extend(policies::validate(spec, at));
    errors.extend(pod_template::validate_spec(
        &spec.template,
        &format!("{at}.template"),
    ));
    let restart = spec
        .template
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref());
    let restart_at = format!("{at}.template.spec.restartPolicy");
    match restart.unwrap_or_default() {
        "" | "Always" => errors.push(FieldError::required(
            restart_at,
            "valid values: \"OnFailure\", \"Never\"",
        )),
        "Never" => {}
        "OnFailure" if spec.pod_failure_policy.is_some() => errors.push(FieldError::invalid(
            restart_at,
            "OnFailure",
            "only \"Never\" is supported when podFailurePolicy is specified",
        )),
        "OnFailure" => {}
        other => errors.push(FieldError::not_supported(
            restart_at,
            other,
            &["OnFailure", "Never"],
        )),
    }
    errors
}

fn figures(spec: &JobSpec, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (field, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        (
            "ttlSecondsAfterFinished",
            spec.ttl_seconds_after_finished.map(i64::from),
        ),
        (
            "backoffLimitPerIndex",
            spec.backoff_limit_per_index.map(i64::from),
        ),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        if let Some(value) = value {
            errors.extend(not_negative(value, &format!("{at}.{field}")));
        }
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.push(FieldError::required(
            format!("{at}.backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        ));
    }
    errors
}

fn managed_by(spec: &JobSpec, at: &str) -> FieldErrors {
    let Some(manager) = &spec.managed_by else {
        return FieldErrors::new();
    };
    let at = format!("{at}.managedBy");
    let mut errors = FieldErrors::new();
    let parts = manager
        .split_once('/')
        .filter(|(domain, path)| !domain.is_empty() && !path.is_empty());
    match parts {
        None if manager.is_empty() => errors.push(FieldError::required(at.clone(), "")),
        None => errors.push(FieldError::invalid(
            at.clone(),
            manager,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        )),
        Some((domain, _)) => {
            for wrong in names::dns_subdomain(domain) {
                errors.push(FieldError::invalid(at.clone(), domain, &wrong));
            }
        }
    }
    if manager.len() > MANAGED_BY_LENGTH {
        errors.push(FieldError::too_long(at, MANAGED_BY_LENGTH));
    }
    errors
}

fn completion_mode(spec: &JobSpec, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    match spec.completion_mode.as_deref() {
        None | Some("NonIndexed") => {
            for (field, value) in [
                ("backoffLimitPerIndex", spec.backoff_limit_per_index),
                ("maxFailedIndexes", spec.max_failed_indexes),
            ] {
                if let Some(value) = value {
                    errors.push(FieldError::invalid(
                        format!("{at}.{field}"),
                        value,
                        "requires indexed completion mode",
                    ));
                }
            }
        }
        Some("Indexed") => errors.extend(indexed(spec, at)),
        Some(other) => errors.push(FieldError::not_supported(
            format!("{at}.completionMode"),
            other,
            &["NonIndexed", "Indexed"],
        )),
    }
    errors
}

fn indexed(spec: &JobSpec, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut at_most = |field: &str, value: Option<i32>, most: i32, words: &str| {
        if let Some(value) = value.filter(|value| *value > most) {
            errors.push(FieldError::invalid(format!("{at}.{field}"), value, words));
        }
    };
    let failed = spec.max_failed_indexes;
    at_most(
        "parallelism",
        spec.parallelism,
        MOST_INDEXED,
        "must be less than or equal to 100000 when completion mode is Indexed",
    );
    if let Some(completions) = spec.completions {
        at_most(
            "maxFailedIndexes",
            failed,
            completions,
            "must be less than or equal to completions",
        );
    }
    at_most(
        "maxFailedIndexes",
        failed,
        MOST_INDEXED,
        "must be less than or equal to 100000",
    );
    let many = spec
        .completions
        .is_some_and(|count| count > MANY_COMPLETIONS);
    let stricter = many && spec.backoff_limit_per_index.is_some();
    if stricter {
        let words = "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index";
        at_most("parallelism", spec.parallelism, MOST_OF_MANY, words);
        at_most("maxFailedIndexes", failed, MOST_OF_MANY, words);
    }
    if stricter && failed.is_none() {
        errors.insert(
            0,
            FieldError::required(
                format!("{at}.maxFailedIndexes"),
                "must be specified when completions is above 100000",
            ),
        );
    }
    if spec.completions.is_none() {
        errors.insert(
            0,
            FieldError::required(
                format!("{at}.completions"),
                "when completion mode is Indexed",
            ),
        );
    }
    errors
}
