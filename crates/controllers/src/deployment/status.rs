//! The status of a Deployment: figures, and the conditions that `kubectl rollout status` and `kubectl wait` read.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::model::{Set, Target};

/// Reasons of the `Progressing` condition. Source: `deploymentutil`.
pub(crate) const NEW_REPLICA_SET: &str = "NewReplicaSetCreated";
/// A ReplicaSet of this template was there already.
pub(crate) const FOUND_NEW_REPLICA_SET: &str = "FoundNewReplicaSet";
const REPLICA_SET_UPDATED: &str = "ReplicaSetUpdated";
const NEW_REPLICA_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

/// The figures and the `Available` condition.
pub(crate) fn figures(
    target: &Target,
    all: &[&Set],
    new: Option<&Set>,
    conditions: Vec<DeploymentCondition>,
    now: Timestamp,
) -> DeploymentStatus {
    let total: i32 = all.iter().map(|set| set.actual).sum();
    let available: i32 = all.iter().map(|set| set.available).sum();
    let nonzero = |number: i32| (number != 0).then_some(number);
    let mut conditions = conditions;
    let enough = available >= target.replicas - target.max_unavailable();
    let (status, reason, message) = if enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    set(
        &mut conditions,
        condition("Available", status, reason, message.to_owned(), now),
    );
    DeploymentStatus {
        observed_generation: Some(target.generation),
        replicas: nonzero(total),
        updated_replicas: nonzero(new.map_or(0, |set| set.actual)),
        ready_replicas: nonzero(all.iter().map(|set| set.ready).sum()),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((total - available).max(0)),
        collision_count: target.status.collision_count,
        conditions: Some(conditions),
        // Not known as long as one of them does not say.
        terminating_replicas: all.iter().map(|set| set.terminating).sum(),
    }
}

/// Adds what the rollout itself has come to: progressing, complete, timed out, failing.
/// Source: `syncRolloutStatus`.
pub(crate) fn progress(
    target: &Target,
    all: &[&Set],
    new: Option<&Set>,
    mut status: DeploymentStatus,
    now: Timestamp,
) -> DeploymentStatus {
    let mut conditions = status.conditions.take().unwrap_or_default();
    let current = find(&conditions, "Progressing").cloned();
    if target.progress_deadline.is_none() {
        conditions.retain(|one| one.type_ != "Progressing");
    } else {
        let subject = new.map_or_else(
            || format!("Deployment \"{}\"", target.key.name),
            |set| format!("ReplicaSet \"{}\"", set.name()),
        );
        let settled = current
            .as_ref()
            .is_some_and(|one| one.reason.as_deref() == Some(NEW_REPLICA_SET_AVAILABLE))
            && status.replicas == status.updated_replicas;
        if !settled && is_complete(target, &status) {
            let message = format!("{subject} has successfully progressed.");
            set(
                &mut conditions,
                condition(
                    "Progressing",
                    "True",
                    NEW_REPLICA_SET_AVAILABLE,
                    message,
                    now,
                ),
            );
        } else if !settled && has_progressed(&target.status, &status) {
            let mut one = condition(
                "Progressing",
                "True",
                REPLICA_SET_UPDATED,
                format!("{subject} is progressing."),
                now,
            );
            if let Some(current) = current.filter(|current| current.status == "True") {
                one.last_transition_time = current.last_transition_time;
            }
            // Written anew even if nothing but the time changes: the deadline counts from there.
            conditions.retain(|one| one.type_ != "Progressing");
            conditions.push(one);
        } else if !settled && has_timed_out(target, current.as_ref(), now) {
            let message = format!("{subject} has timed out progressing.");
            set(
                &mut conditions,
                condition("Progressing", "False", TIMED_OUT, message, now),
            );
        }
    }
    match all.iter().find_map(|set| failure(set)) {
        Some(failure) => set(&mut conditions, failure),
        None => conditions.retain(|one| one.type_ != "ReplicaFailure"),
    }
    status.conditions = Some(conditions);
    status
}

/// The conditions after the Deployment was paused or resumed; progress is not judged in between.
/// Source: `checkPausedConditions`.
pub(crate) fn with_pause(
    target: &Target,
    mut conditions: Vec<DeploymentCondition>,
    now: Timestamp,
) -> Vec<DeploymentCondition> {
    if target.progress_deadline.is_none() {
        return conditions;
    }
    let reason = find(&conditions, "Progressing").and_then(|one| one.reason.as_deref());
    if reason == Some(TIMED_OUT) {
        return conditions;
    }
    let was_paused = reason == Some(PAUSED);
    if target.paused && !was_paused {
        let message = "Deployment is paused".to_owned();
        set(
            &mut conditions,
            condition("Progressing", "Unknown", PAUSED, message, now),
        );
    } else if !target.paused && was_paused {
        let message = "Deployment is resumed".to_owned();
        set(
            &mut conditions,
            condition("Progressing", "Unknown", RESUMED, message, now),
        );
    }
    conditions
}

/// All wanted Pods are of the current template and available, and no other is left. Source: `DeploymentComplete`.
pub(crate) fn is_complete(target: &Target, status: &DeploymentStatus) -> bool {
    let wanted = (target.replicas != 0).then_some(target.replicas);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation.unwrap_or(0) >= target.generation
}

fn has_progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let number = |value: Option<i32>| value.unwrap_or(0);
    let old = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(after.updated_replicas) > number(before.updated_replicas)
        || old(after) < old(before)
        || number(after.ready_replicas) > number(before.ready_replicas)
        || number(after.available_replicas) > number(before.available_replicas)
}

fn has_timed_out(target: &Target, current: Option<&DeploymentCondition>, now: Timestamp) -> bool {
    let Some(current) = current else { return false };
    match current.reason.as_deref() {
        Some(NEW_REPLICA_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => deadline(target, current).is_some_and(|deadline| deadline < now),
    }
}

fn deadline(target: &Target, current: &DeploymentCondition) -> Option<Timestamp> {
    let since = current.last_update_time.as_ref()?.0;
    since
        .checked_add(SignedDuration::from_secs(target.progress_deadline?.into()))
        .ok()
}

/// When the deadline of a rollout that stands still passes. Source: `requeueStuckDeployment`.
pub(crate) fn wake(target: &Target, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let current = find(
        status.conditions.as_deref().unwrap_or_default(),
        "Progressing",
    )?;
    let over = matches!(
        current.reason.as_deref(),
        Some(NEW_REPLICA_SET_AVAILABLE | TIMED_OUT | PAUSED)
    );
    if over || is_complete(target, status) {
        return None;
    }
    let left =
        Duration::try_from(deadline(target, current)?.duration_since(now)).unwrap_or_default();
    // A little later than the deadline: timestamps have whole seconds.
    Some(left + Duration::from_secs(1))
}

fn failure(set: &Set) -> Option<DeploymentCondition> {
    let conditions = set.object.status.as_ref()?.conditions.as_ref()?;
    let found = conditions
        .iter()
        .find(|one| one.type_ == "ReplicaFailure")?;
    Some(DeploymentCondition {
        type_: "ReplicaFailure".to_owned(),
        status: found.status.clone(),
        reason: found.reason.clone(),
        message: found.message.clone(),
        last_transition_time: found.last_transition_time.clone(),
        last_update_time: found.last_transition_time.clone(),
    })
}

/// A new condition.
pub(crate) fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Puts a condition in place. One that says nothing new changes nothing; one of the same status keeps the time of
/// the transition. Source: `SetDeploymentCondition`.
pub(crate) fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition) {
    if let Some(current) = find(conditions, &new.type_) {
        if current.status == new.status && current.reason == new.reason {
            return;
        }
        if current.status == new.status {
            new.last_transition_time = current.last_transition_time.clone();
        }
    }
    conditions.retain(|one| one.type_ != new.type_);
    conditions.push(new);
}

/// A condition by its type.
pub(crate) fn find<'a>(
    conditions: &'a [DeploymentCondition],
    type_: &str,
) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|one| one.type_ == type_)
}
