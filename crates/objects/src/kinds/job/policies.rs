//! The policies of a Job: which failures count, when enough has succeeded, when a Pod is replaced.
//!
//! Source: `validatePodFailurePolicy`, `validateSuccessPolicy` and `validatePodReplacementPolicy` in
//! `pkg/apis/batch/validation`.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicyRule,
};

use super::validate::is_indexed;
use crate::field::{FieldError, FieldErrors, Reason, not_negative};
use crate::go_value::Go;
use crate::indexes::Indexes;
use crate::names;

const MOST_RULES: usize = 20;
const MOST_PATTERNS: usize = 20;
const MOST_EXIT_CODES: usize = 255;
/// Length of `succeededIndexes`, in bytes.
const INDEXES_LENGTH: usize = 64 * 1024;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

pub(super) fn validate(spec: &JobSpec, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if let Some(policy) = &spec.pod_failure_policy {
        let at = format!("{at}.podFailurePolicy.rules");
        errors.extend(at_most(policy.rules.len(), MOST_RULES, &at));
        for (i, rule) in policy.rules.iter().enumerate() {
            errors.extend(failure_rule(spec, rule, &format!("{at}[{i}]")));
        }
    }
    errors.extend(success(spec, &format!("{at}.successPolicy")));
    errors.extend(replacement(spec, &format!("{at}.podReplacementPolicy")));
    errors
}

fn at_most(count: usize, most: usize, at: &str) -> FieldErrors {
    if count > most {
        vec![FieldError::too_many(at, count, most)]
    } else {
        FieldErrors::new()
    }
}

/// One of a closed set; without a value, the message names the set.
fn one_of(value: &str, supported: &[&str], at: &str) -> FieldErrors {
    if value.is_empty() {
        let quoted: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        return vec![FieldError::required(
            at,
            &format!("valid values: [{}]", quoted.join(" ")),
        )];
    }
    crate::field::one_of(value, supported, at)
}

/// An error about a value that the message does not show.
fn invalid(at: &str, words: &str) -> FieldError {
    FieldError {
        field: at.to_owned(),
        reason: Reason::Invalid,
        message: format!("Invalid value: {words}"),
    }
}

fn failure_rule(spec: &JobSpec, rule: &PodFailurePolicyRule, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let action_at = format!("{at}.action");
    if rule.action == "FailIndex" {
        if spec.backoff_limit_per_index.is_none() {
            errors.push(FieldError::invalid(
                action_at,
                &rule.action,
                "requires the backoffLimitPerIndex to be set",
            ));
        }
    } else {
        errors.extend(one_of(&rule.action, &ACTIONS, &action_at));
    }
    if let Some(codes) = &rule.on_exit_codes {
        errors.extend(exit_codes(spec, codes, &format!("{at}.onExitCodes")));
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    if !patterns.is_empty() {
        errors.extend(conditions(patterns, &format!("{at}.onPodConditions")));
    }
    match (rule.on_exit_codes.is_some(), patterns.is_empty()) {
        (true, false) => errors.push(invalid(
            at,
            "specifying both OnExitCodes and OnPodConditions is not supported",
        )),
        (false, true) => errors.push(invalid(
            at,
            "specifying one of OnExitCodes and OnPodConditions is required",
        )),
        _ => {}
    }
    errors
}

fn exit_codes(
    spec: &JobSpec,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    at: &str,
) -> FieldErrors {
    let mut errors = one_of(&codes.operator, &OPERATORS, &format!("{at}.operator"));
    let pod = spec.template.spec.as_ref();
    let init = pod
        .and_then(|pod| pod.init_containers.as_deref())
        .unwrap_or_default();
    let mut containers = pod.into_iter().flat_map(|pod| &pod.containers).chain(init);
    if let Some(name) = &codes.container_name
        && !containers.any(|container| container.name == *name)
    {
        errors.push(FieldError::invalid(
            format!("{at}.containerName"),
            name,
            "must be one of the container or initContainer names in the pod template",
        ));
    }
    let at = format!("{at}.values");
    if codes.values.is_empty() {
        errors.push(FieldError::invalid(
            at.clone(),
            &codes.values,
            "at least one value is required",
        ));
    }
    errors.extend(at_most(codes.values.len(), MOST_EXIT_CODES, &at));
    let mut seen = BTreeSet::new();
    for (i, code) in codes.values.iter().enumerate() {
        let at = format!("{at}[{i}]");
        if codes.operator == "In" && *code == 0 {
            errors.push(FieldError::invalid(
                at.clone(),
                code,
                "must not be 0 for the In operator",
            ));
        }
        if !seen.insert(code) {
            errors.push(FieldError::duplicate(at, code));
        }
    }
    if !codes.values.is_sorted() {
        errors.push(FieldError::invalid(at, &codes.values, "must be ordered"));
    }
    errors
}

fn conditions(patterns: &[PodFailurePolicyOnPodConditionsPattern], at: &str) -> FieldErrors {
    let mut errors = at_most(patterns.len(), MOST_PATTERNS, at);
    for (i, pattern) in patterns.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let kind = pattern.type_.as_str();
        errors.extend(crate::metadata::wrong(
            &format!("{at}.type"),
            kind,
            names::qualified_name(kind),
        ));
        let status = pattern.status.as_deref().unwrap_or_default();
        errors.extend(one_of(status, &STATUSES, &format!("{at}.status")));
    }
    errors
}

fn success(spec: &JobSpec, at: &str) -> FieldErrors {
    let Some(policy) = &spec.success_policy else {
        return FieldErrors::new();
    };
    if !is_indexed(spec) {
        let rules = policy.rules.iter().map(|rule| {
            let json = |value| Go::from(serde_json::to_value(value).unwrap_or_default());
            Go::fields([
                ("SucceededIndexes", Go::from(rule.succeeded_indexes.clone())),
                ("SucceededCount", json(rule.succeeded_count)),
            ])
        });
        let shown = Go::fields([("Rules", Go::List(rules.collect()))]);
        return vec![FieldError::invalid(
            at,
            shown,
            "requires indexed completion mode",
        )];
    }
    let at = format!("{at}.rules");
    let mut errors = FieldErrors::new();
    if policy.rules.is_empty() {
        errors.push(FieldError::required(
            at.clone(),
            "at least one rules must be specified when the successPolicy is specified",
        ));
    }
    errors.extend(at_most(policy.rules.len(), MOST_RULES, &at));
    // Said elsewhere when it is missing.
    let completions = spec.completions.unwrap_or(0);
    for (i, rule) in policy.rules.iter().enumerate() {
        errors.extend(success_rule(rule, completions, &format!("{at}[{i}]")));
    }
    errors
}

fn success_rule(rule: &SuccessPolicyRule, completions: i32, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        errors.push(FieldError::required(
            at,
            "at least one of succeededCount or succeededIndexes must be specified",
        ));
    }
    let mut total = 0;
    if let Some(indexes) = &rule.succeeded_indexes {
        let at = format!("{at}.succeededIndexes");
        if indexes.len() > INDEXES_LENGTH {
            errors.push(FieldError::too_long(at.clone(), INDEXES_LENGTH));
        }
        match Indexes::parse(indexes, completions) {
            Ok(set) => total = set.count(),
            Err(e) => errors.push(FieldError::invalid(
                at,
                indexes,
                &format!("error parsing succeededIndexes: {e}"),
            )),
        }
    }
    if let Some(count) = rule.succeeded_count {
        let at = format!("{at}.succeededCount");
        errors.extend(not_negative(count.into(), &at));
        if count > completions {
            errors.push(FieldError::invalid(
                at.clone(),
                count,
                &format!("must be less than or equal to {completions} (the number of specified completions)"),
            ));
        }
        if rule.succeeded_indexes.is_some() && count > total {
            errors.push(FieldError::invalid(
                at,
                count,
                &format!("must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"),
            ));
        }
    }
    errors
}

fn replacement(spec: &JobSpec, at: &str) -> FieldErrors {
    let Some(policy) = spec.pod_replacement_policy.as_deref() else {
        return FieldErrors::new();
    };
    let supported: &[&str] = match &spec.pod_failure_policy {
        Some(_) => &["Failed"],
        None => &["Failed", "TerminatingOrFailed"],
    };
    crate::field::one_of(policy, supported, at)
}
