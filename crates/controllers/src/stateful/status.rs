//! The status that the Pods amount to. Source: `updateStatus`, `completeRollingUpdate`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::model::{Strategy, Target};
use super::pods;
use crate::object;
use crate::pod::{self, Availability};

/// The figures, with the names of the revision that Pods had so far and of the one that they are to have.
pub(crate) fn status(
    target: &Target,
    current: &str,
    update: &str,
    owned: &[Arc<Pod>],
    now: Timestamp,
) -> StatefulSetStatus {
    let (mut replicas, mut ready, mut available) = (0, 0, 0);
    let (mut of_current, mut of_update) = (0, 0);
    for pod in owned {
        replicas += 1;
        ready += i32::from(pods::is_running_and_ready(pod));
        available += i32::from(pods::is_running_and_available(target, pod, now));
        if !object::is_deleting(&pod.metadata) {
            of_current += i32::from(pods::revision(pod) == current);
            of_update += i32::from(pods::revision(pod) == update);
        }
    }
    let wanted = i32::try_from(target.replicas).unwrap_or(i32::MAX);
    let rolling = matches!(target.strategy, Strategy::RollingUpdate { .. });
    let complete = rolling && of_update == wanted && ready == wanted && replicas == wanted;
    let (current, of_current) = if complete {
        (update, of_update)
    } else {
        (current, of_current)
    };
    let some = |number: i32| (number != 0).then_some(number);
    StatefulSetStatus {
        observed_generation: target.meta.generation,
        replicas,
        ready_replicas: some(ready),
        available_replicas: Some(available),
        current_replicas: some(of_current),
        updated_replicas: some(of_update),
        current_revision: Some(current.to_owned()),
        update_revision: Some(update.to_owned()),
        collision_count: Some(target.status.collision_count.unwrap_or(0)),
        conditions: target.status.conditions.clone(),
    }
}

/// As a merge patch; what is left out must be written as null, or the patch would leave the old figure.
pub(crate) fn to_patch(target: &Target, status: &StatefulSetStatus) -> Value {
    json!({
        "metadata": { "uid": target.meta.uid, "resourceVersion": target.meta.resource_version },
        "status": {
            "observedGeneration": status.observed_generation,
            "replicas": status.replicas,
            "readyReplicas": status.ready_replicas,
            "availableReplicas": status.available_replicas,
            "currentReplicas": status.current_replicas,
            "updatedReplicas": status.updated_replicas,
            "currentRevision": status.current_revision,
            "updateRevision": status.update_revision,
            "collisionCount": status.collision_count,
        },
    })
}

/// When the next Pod becomes available by mere passing of time.
pub(crate) fn wake(target: &Target, owned: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let times = owned.iter().filter_map(|pod| {
        match pod::availability(pod, target.min_ready_seconds, now) {
            Availability::From(at) => Some(at),
            Availability::Available | Availability::Unready => None,
        }
    });
    times
        .min()
        .map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::plan::tests::{NOW, pod, target};
    use super::*;

    #[test]
    fn an_update_is_complete_when_all_are_of_the_new_revision_and_ready() {
        let target = target(json!({}));
        let now = NOW.parse().unwrap();
        let half = [
            pod(0, "old", "ready"),
            pod(1, "new", "unready"),
            pod(2, "new", "ready"),
        ];
        let figures = status(&target, "old", "new", &half, now);
        assert_eq!(
            json!(figures),
            json!({ "observedGeneration": 3, "replicas": 3, "readyReplicas": 2, "availableReplicas": 2, "currentReplicas": 1,
                "updatedReplicas": 2, "currentRevision": "old", "updateRevision": "new", "collisionCount": 0 })
        );
        let done = [
            pod(0, "new", "ready"),
            pod(1, "new", "ready"),
            pod(2, "new", "ready"),
        ];
        let figures = status(&target, "old", "new", &done, now);
        assert_eq!(
            (
                figures.current_revision.as_deref(),
                figures.current_replicas
            ),
            (Some("new"), Some(3))
        );
    }
}
