//! The rules for the status of a Job, which whoever runs the Job must keep.
//!
//! Source: `validateJobStatus` and `ValidateJobStatusUpdate` in `pkg/apis/batch/validation`, as strict as for a Job
//! that was made by this version.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobStatus};

use super::has_condition;
use super::validate::is_indexed;
use crate::field::{FieldError, FieldErrors, Reason, not_negative};
use crate::indexes::Indexes;

pub(super) fn validate(new: &Job, old: &Job) -> FieldErrors {
    let status = new.status.clone().unwrap_or_default();
    let mut errors = figures(&status);
    errors.extend(uncounted(&status));
    errors.extend(ending(new, &status));
    errors.extend(indexes(new, &status));
    errors.extend(more_figures(new, &status));
    errors.extend(change(new, &status, old));
    errors
}

fn figures(status: &JobStatus) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (field, value) in [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ] {
        errors.extend(not_negative(
            value.unwrap_or(0).into(),
            &format!("status.{field}"),
        ));
    }
    errors
}

fn uncounted(status: &JobStatus) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (field, list) in [
        ("succeeded", uncounted.succeeded),
        ("failed", uncounted.failed),
    ] {
        for (i, uid) in list.into_iter().flatten().enumerate() {
            let at = format!("status.uncountedTerminatedPods.{field}[{i}]");
            if uid.is_empty() {
                errors.push(FieldError::invalid(at, uid, "must not be empty"));
            } else if !seen.insert(uid.clone()) {
                errors.push(FieldError::duplicate(at, uid));
            }
        }
    }
    errors
}

fn conditions(words: &str) -> FieldError {
    FieldError {
        field: "status.conditions".to_owned(),
        reason: Reason::Invalid,
        message: format!("Invalid value: {words}"),
    }
}

fn ending(job: &Job, status: &JobStatus) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (complete, failed) = (has_condition(job, "Complete"), has_condition(job, "Failed"));
    let (to_fail, met) = (
        has_condition(job, "FailureTarget"),
        has_condition(job, "SuccessCriteriaMet"),
    );
    let at = "status.completionTime";
    if complete && failed {
        errors.push(conditions(
            "cannot set Complete=True and Failed=true conditions",
        ));
    }
    if complete && to_fail {
        errors.push(conditions(
            "cannot set Complete=True and FailureTarget=true conditions",
        ));
    }
    match &status.completion_time {
        Some(time) if !complete => errors.push(FieldError::invalid(
            at,
            time,
            "cannot set completionTime when there is no Complete=True condition",
        )),
        None if complete => errors.push(FieldError::required(
            at,
            "completionTime is required for Complete jobs",
        )),
        _ => {}
    }
    if let (Some(start), Some(end)) = (&status.start_time, &status.completion_time)
        && end.0 < start.0
    {
        errors.push(FieldError::invalid(
            at,
            end,
            "completionTime cannot be set before startTime",
        ));
    }
    if failed && !to_fail {
        errors.push(conditions(
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ));
    }
    if complete && !met {
        errors.push(conditions(
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ));
    }
    if complete || failed {
        errors.extend(finished(status));
    }
    if met && failed {
        errors.push(conditions(
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        ));
    }
    if met && to_fail {
        errors.push(conditions(
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ));
    }
    errors
}

fn finished(status: &JobStatus) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if let Some(active) = status.active.filter(|count| *count > 0) {
        errors.push(FieldError::invalid(
            "status.active",
            active,
            "active>0 is invalid for finished job",
        ));
    }
    if status.start_time.is_none() {
        errors.push(FieldError::required(
            "status.startTime",
            "startTime is required for finished job",
        ));
    }
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    if uncounted
        .failed
        .iter()
        .chain(&uncounted.succeeded)
        .any(|list| !list.is_empty())
    {
        errors.push(FieldError::invalid(
            "status.uncountedTerminatedPods",
            &uncounted,
            "uncountedTerminatedPods needs to be empty for finished job",
        ));
    }
    if let Some(terminating) = status.terminating.filter(|count| *count > 0) {
        errors.push(FieldError::invalid(
            "status.terminating",
            terminating,
            "terminating>0 is invalid for finished job",
        ));
    }
    errors
}

fn indexes(job: &Job, status: &JobStatus) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let spec = job.spec.clone().unwrap_or_default();
    let completed = status.completed_indexes.clone().unwrap_or_default();
    let failed = status.failed_indexes.as_deref();
    let completions = spec.completions.unwrap_or(0);
    let mut parsed = |field: &str, text: &str| match Indexes::parse(text, completions) {
        Ok(set) => Some(set),
        Err(e) => {
            errors.push(FieldError::invalid(
                format!("status.{field}"),
                text,
                &format!("error parsing {field}: {e}"),
            ));
            None
        }
    };
    let has_completions = spec.completions.is_some();
    let done = has_completions
        .then(|| parsed("completedIndexes", &completed))
        .flatten();
    let lost = failed
        .filter(|_| has_completions && spec.backoff_limit_per_index.is_some())
        .and_then(|text| parsed("failedIndexes", text));
    if !completed.is_empty() && !is_indexed(&spec) {
        errors.push(FieldError::invalid(
            "status.completedIndexes",
            &completed,
            "cannot set non-empty completedIndexes when non-indexed completion mode",
        ));
    }
    if let Some(text) = failed.filter(|_| spec.backoff_limit_per_index.is_none()) {
        errors.push(FieldError::invalid(
            "status.failedIndexes",
            text,
            "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        ));
    }
    if let (Some(done), Some(lost)) = (done, lost)
        && let Some(index) = done.overlap(&lost)
    {
        errors.push(FieldError::invalid(
            "status.failedIndexes",
            failed.unwrap_or_default(),
            &format!("failedIndexes and completedIndexes overlap at index: {index}"),
        ));
    }
    errors
}

fn more_figures(job: &Job, status: &JobStatus) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if let Some(ready) = status
        .ready
        .filter(|ready| *ready > status.active.unwrap_or(0))
    {
        errors.push(FieldError::invalid(
            "status.ready",
            ready,
            "cannot set more ready pods than active",
        ));
    }
    let policy = job
        .spec
        .as_ref()
        .is_some_and(|spec| spec.success_policy.is_some());
    if policy && has_condition(job, "Complete") && !has_condition(job, "SuccessCriteriaMet") {
        errors.push(conditions(
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ));
    }
    errors
}

fn change(new_job: &Job, new: &JobStatus, old_job: &Job) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let old = old_job.status.clone().unwrap_or_default();
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if has_condition(old_job, kind) && !has_condition(new_job, kind) {
            errors.push(conditions(&format!(
                "cannot disable the terminal {kind}=True condition"
            )));
        }
    }
    for (field, new, old) in [
        ("failed", new.failed, old.failed),
        ("succeeded", new.succeeded, old.succeeded),
    ] {
        let new = new.unwrap_or(0);
        // An Indexed Job that shrinks loses the successes of the indexes that are gone.
        let shrinks = field == "succeeded" && new_job.spec.as_ref().is_some_and(is_indexed);
        if new < old.unwrap_or(0) && !shrinks {
            errors.push(FieldError::invalid(
                format!("status.{field}"),
                new,
                &format!("cannot decrease the {field} counter"),
            ));
        }
    }
    if let (Some(now), Some(before)) = (&new.completion_time, &old.completion_time)
        && now != before
    {
        errors.push(FieldError::invalid(
            "status.completionTime",
            now,
            "completionTime cannot be mutated",
        ));
    }
    let suspended = new_job
        .spec
        .as_ref()
        .is_some_and(|spec| spec.suspend == Some(true));
    if old.start_time.is_some() && new.start_time.is_none() && !suspended {
        errors.push(FieldError::required(
            "status.startTime",
            "startTime cannot be removed for unsuspended job",
        ));
    }
    if has_condition(old_job, "SuccessCriteriaMet") && !has_condition(new_job, "SuccessCriteriaMet")
    {
        errors.push(conditions(
            "cannot disable the SuccessCriteriaMet=True condition",
        ));
    }
    errors
}
