//! The rules for the figures in the status of a workload: none is negative, and a part is not more than its whole.
//!
//! Source: `ValidateDeploymentStatus`, `ValidateReplicaSetStatus`, `ValidateStatefulSetStatus` and
//! `validateDaemonSetStatus` in `pkg/apis/apps/validation`.

use crate::field::{FieldError, FieldErrors, not_negative};

/// None of the figures, named by their fields in `status`, is negative.
pub(super) fn not_below_zero(figures: &[(&str, i64)]) -> FieldErrors {
    let each = figures
        .iter()
        .flat_map(|(field, value)| not_negative(*value, &format!("status.{field}")));
    each.collect()
}

/// Each of the parts is at most `whole`. `name` is what the message calls the whole.
pub(super) fn at_most(parts: &[(&str, i32)], whole: i32, name: &str) -> FieldErrors {
    let over = parts
        .iter()
        .filter(|(_, value)| *value > whole)
        .map(|(field, value)| {
            FieldError::invalid(
                format!("status.{field}"),
                value,
                &format!("cannot be greater than {name}"),
            )
        });
    over.collect()
}

/// The count of hash collisions never goes back: a name could be given twice.
pub(super) fn collisions(new: Option<i32>, old: Option<i32>) -> FieldErrors {
    let lower = match (new, old) {
        (None, Some(_)) => true,
        (Some(new), Some(old)) => new < old,
        _ => false,
    };
    if lower {
        vec![FieldError::invalid(
            "status.collisionCount",
            new.unwrap_or(0),
            "cannot be decremented",
        )]
    } else {
        FieldErrors::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &FieldErrors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn figures_fit_together() {
        assert_eq!(
            texts(&not_below_zero(&[("replicas", 1), ("readyReplicas", -1)])),
            ["status.readyReplicas: Invalid value: -1: must be greater than or equal to 0"]
        );
        assert_eq!(
            texts(&at_most(&[("readyReplicas", 3)], 2, "status.replicas")),
            ["status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas"]
        );
        assert_eq!(
            texts(&collisions(None, Some(1))),
            ["status.collisionCount: Invalid value: 0: cannot be decremented"]
        );
        assert!(collisions(Some(2), Some(1)).is_empty() && collisions(None, None).is_empty());
    }
}
