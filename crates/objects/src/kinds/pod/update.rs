//! What may change in a Pod once it is there: very little.
//!
//! Source: `ValidatePodUpdate` in `pkg/apis/core/validation`.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Toleration};

use serde::Serialize as _;

use super::internal;
use crate::field::{FieldError, FieldErrors, escape_html};
use crate::go_value::Go;
use crate::text_diff;

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
    match deadline(&new, &old) {
        Ok(wrong) => errors.extend(wrong),
        Err(wrong) => {
            errors.push(wrong);
            return errors;
        }
    }
    errors.extend(tolerations(&new, &old));
    errors.extend(scheduling_gates(&new, &old));
    let mut kept = with_the_same(new, &old);
    if gates(&old).next().is_some() {
        errors.extend(node_selector(&kept, &old));
        kept.node_selector.clone_from(&old.node_selector);
        if let (Some(kept), Some(old)) = (&mut kept.affinity, &old.affinity) {
            kept.node_affinity.clone_from(&old.node_affinity);
        }
    }
    if kept != old {
        let text = |spec: &PodSpec| indented(&internal::spec(spec));
        let difference = text_diff::unified(&text(&old), &text(&kept));
        errors.push(FieldError::forbidden(
            "spec",
            &format!("{WORDS}\n{difference}"),
        ));
    }
    errors
}

/// JSON as Go's `MarshalIndent` writes it with one space for each level.
fn indented(value: &Go) -> String {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, format);
    match value.serialize(&mut writer) {
        Ok(()) => escape_html(String::from_utf8_lossy(&text).into_owned()),
        Err(_) => String::new(),
    }
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
    spec.scheduling_gates.clone_from(&old.scheduling_gates);
    let was_negative = old.termination_grace_period_seconds.is_some_and(|s| s < 0);
    if was_negative && spec.termination_grace_period_seconds == Some(1) {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    spec
}

fn gates(spec: &PodSpec) -> impl Iterator<Item = &str> {
    spec.scheduling_gates
        .iter()
        .flatten()
        .map(|gate| gate.name.as_str())
}

/// Gates are only taken away.
fn scheduling_gates(new: &PodSpec, old: &PodSpec) -> FieldErrors {
    gates(new)
        .filter(|gate| !gates(old).any(|known| known == *gate))
        .map(|gate| {
            FieldError::forbidden(
                "spec.schedulingGates",
                &format!("only deletion is allowed, but found new scheduling gate '{gate}'"),
            )
        })
        .collect()
}

/// Of a Pod that is not scheduled yet, the choice of nodes may become narrower.
fn node_selector(new: &PodSpec, old: &PodSpec) -> FieldErrors {
    let new = new.node_selector.clone().unwrap_or_default();
    let kept = old
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| new.get(key) == Some(value));
    if kept {
        return FieldErrors::new();
    }
    vec![FieldError::invalid(
        "spec.nodeSelector",
        new,
        "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
    )]
}

/// What is wrong with the change of the deadline; an error when nothing else is worth saying.
fn deadline(new: &PodSpec, old: &PodSpec) -> Result<FieldErrors, FieldError> {
    let at = "spec.activeDeadlineSeconds";
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if new < 0 || new > i64::from(i32::MAX) => Err(FieldError::invalid(
            at,
            new,
            "must be between 0 and 2147483647, inclusive",
        )),
        (Some(new), Some(old)) if new > old => Err(FieldError::invalid(
            at,
            new,
            "must be less than or equal to previous value",
        )),
        (None, Some(_)) => Ok(vec![FieldError::invalid(
            at,
            None::<i64>,
            "must not update from a positive integer to nil value",
        )]),
        _ => Ok(FieldErrors::new()),
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
