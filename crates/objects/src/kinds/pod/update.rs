//! What may change in a Pod once it is there: very little.
//!
//! Source: `ValidatePodUpdate` in `pkg/apis/core/validation`.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Toleration};

use crate::field::{FieldError, FieldErrors};

const WORDS: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(new: &Pod, old: &Pod) -> FieldErrors {
    let new = new.spec.clone().unwrap_or_default();
    let old = old.spec.clone().unwrap_or_default();
    let mut errors = FieldErrors::new();
    let init = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    for (field, new, old) in [
        ("spec.containers", &new.containers, &old.containers),
        ("spec.initContainers", &init(&new), &init(&old)),
    ] {
        if new.len() != old.len() {
            errors.push(FieldError::forbidden(
                field,
                "pod updates may not add or remove containers",
            ));
            return errors;
        }
    }
    errors.extend(deadline(&new, &old));
    errors.extend(tolerations(&new, &old));
    if with_the_same(new.clone(), &old) != old {
        errors.push(FieldError::forbidden("spec", WORDS));
    }
    errors
}

/// The new spec with all that may change as it was.
fn with_the_same(mut spec: PodSpec, old: &PodSpec) -> PodSpec {
    fn images(new: &mut [Container], old: &[Container]) {
        for (new, old) in std::iter::zip(new, old) {
            new.image.clone_from(&old.image);
        }
    }
    images(&mut spec.containers, &old.containers);
    if let (Some(new), Some(old)) = (&mut spec.init_containers, &old.init_containers) {
        images(new, old);
    }
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.tolerations.clone_from(&old.tolerations);
    let was_negative = old.termination_grace_period_seconds.is_some_and(|s| s < 0);
    if was_negative && spec.termination_grace_period_seconds == Some(1) {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    spec
}

fn deadline(new: &PodSpec, old: &PodSpec) -> FieldErrors {
    let at = "spec.activeDeadlineSeconds";
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if new < 0 || new > i64::from(i32::MAX) => vec![FieldError::invalid(
            at,
            new,
            "must be between 0 and 2147483647, inclusive",
        )],
        (Some(new), Some(old)) if new > old => vec![FieldError::invalid(
            at,
            new,
            "must be less than or equal to previous value",
        )],
        (None, Some(_)) => vec![FieldError::invalid(
            at,
            None::<i64>,
            "must not update from a positive integer to nil value",
        )],
        _ => FieldErrors::new(),
    }
}

fn tolerations(new: &PodSpec, old: &PodSpec) -> FieldErrors {
    // How long it is tolerated may change; what is tolerated may not.
    let without_seconds = |t: &Toleration| Toleration {
        toleration_seconds: None,
        ..t.clone()
    };
    let new: Vec<Toleration> = new
        .tolerations
        .iter()
        .flatten()
        .map(without_seconds)
        .collect();
    let kept = old
        .tolerations
        .iter()
        .flatten()
        .map(without_seconds)
        .all(|t| new.contains(&t));
    if kept {
        FieldErrors::new()
    } else {
        vec![FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        )]
    }
}
