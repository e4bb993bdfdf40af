//! The conditions of a Job.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// It has succeeded.
pub(crate) const COMPLETE: &str = "Complete";
/// It has failed.
pub(crate) const FAILED: &str = "Failed";
/// It will have succeeded when its last Pods are gone.
pub(crate) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// It will have failed when its last Pods are gone.
pub(crate) const FAILURE_TARGET: &str = "FailureTarget";
/// It waits.
pub(crate) const SUSPENDED: &str = "Suspended";

/// A condition that is true.
pub(crate) fn find<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let conditions = status.conditions.iter().flatten();
    conditions
        .into_iter()
        .find(|one| one.type_ == kind && one.status == "True")
}

/// The condition that says that a Job is over.
pub(crate) fn end(status: &JobStatus) -> Option<&JobCondition> {
    find(status, COMPLETE).or_else(|| find(status, FAILED))
}

/// Sets a condition; whether that changed whether it holds. One that never held is not written down as not holding.
pub(crate) fn set(
    status: &mut JobStatus,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let word = if holds { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().position(|one| one.type_ == kind);
    let new = JobCondition {
        type_: kind.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let changed = match known {
        Some(at) if conditions[at].status == word => false,
        Some(at) => {
            conditions[at] = new;
            true
        }
        None if holds => {
            conditions.push(new);
            true
        }
        None => false,
    };
    if conditions.is_empty() {
        status.conditions = None;
    }
    changed
}
