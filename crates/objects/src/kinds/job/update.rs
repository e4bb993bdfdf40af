//! What may change in a Job once it is there.
//!
//! Source: `ValidateJobSpecUpdate` in `pkg/apis/batch/validation`.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::validate::is_indexed;
use crate::field::{FieldError, FieldErrors, immutable};
use crate::kinds::pod;

pub(super) fn validate(new_job: &Job, old_job: &Job) -> FieldErrors {
    let new = new_job.spec.clone().unwrap_or_default();
    let old = old_job.spec.clone().unwrap_or_default();
    let mut errors = completions(&new, &old);
    errors.extend(immutable(&new.selector, &old.selector, "spec.selector"));
    let started = old_job
        .status
        .as_ref()
        .is_some_and(|status| status.start_time.is_some());
    let waits = old.suspend == Some(true) && !started;
    errors.extend(template(&new.template, &old.template, waits));
    errors.extend(immutable(
        &new.completion_mode,
        &old.completion_mode,
        "spec.completionMode",
    ));
    errors.extend(immutable(
        &new.pod_failure_policy,
        &old.pod_failure_policy,
        "spec.podFailurePolicy",
    ));
    errors.extend(immutable(
        &new.backoff_limit_per_index,
        &old.backoff_limit_per_index,
        "spec.backoffLimitPerIndex",
    ));
    errors.extend(immutable(
        &new.managed_by,
        &old.managed_by,
        "spec.managedBy",
    ));
    errors.extend(immutable(
        &new.success_policy,
        &old.success_policy,
        "spec.successPolicy",
    ));
    errors
}

/// Indexed Jobs may grow and shrink, if as many run at a time as there are. Source: KEP-3715.
fn completions(new: &JobSpec, old: &JobSpec) -> FieldErrors {
    let at = "spec.completions";
    if !is_indexed(new) {
        return immutable(&new.completions, &old.completions, at);
    }
    match new.completions {
        Some(count) if new.completions != old.completions && new.parallelism != Some(count) => {
            vec![FieldError::invalid(
                at,
                count,
                "can only be modified in tandem with spec.parallelism",
            )]
        }
        _ => FieldErrors::new(),
    }
}

/// While a Job waits for its start, it may still be decided where its Pods go. Source: KEP-2926.
fn template(new: &PodTemplateSpec, old: &PodTemplateSpec, waits: bool) -> FieldErrors {
    let mut allowed = old.clone();
    if waits {
        let (from, to) = (
            new.metadata.clone().unwrap_or_default(),
            &mut allowed.metadata,
        );
        let to = to.get_or_insert_default();
        (to.labels, to.annotations) = (from.labels, from.annotations);
        if let (Some(from), Some(to)) = (&new.spec, &mut allowed.spec) {
            to.node_selector.clone_from(&from.node_selector);
            to.tolerations.clone_from(&from.tolerations);
            to.scheduling_gates.clone_from(&from.scheduling_gates);
            let node_affinity = from
                .affinity
                .as_ref()
                .and_then(|all| all.node_affinity.clone());
            let affinity = to.affinity.get_or_insert_default();
            affinity.node_affinity = node_affinity;
            if *affinity == Default::default() && from.affinity.is_none() {
                to.affinity = None;
            }
            for (from, to) in std::iter::zip(&from.containers, &mut to.containers) {
                to.resources.clone_from(&from.resources);
            }
        }
    }
    let same = new.spec == allowed.spec
        && new.metadata.clone().unwrap_or_default() == allowed.metadata.clone().unwrap_or_default();
    if same {
        FieldErrors::new()
    } else {
        let shown = pod::internal::template(new);
        vec![FieldError::invalid(
            "spec.template",
            shown,
            "field is immutable",
        )]
    }
}
