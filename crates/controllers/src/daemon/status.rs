//! The status that the Pods amount to. Source: `updateDaemonSetStatus`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSetStatus;
use serde_json::{Value, json};

use super::model::Target;
use super::placement::Place;
use super::plan::{ByNode, Places, is_available};
use super::pods;
use crate::pod::{self, Availability};

/// The figures for the present template, whose Pods have the hash.
pub(crate) fn status(
    target: &Target,
    hash: &str,
    places: &Places,
    filed: &ByNode,
    now: Timestamp,
) -> DaemonSetStatus {
    let (mut desired, mut current, mut misplaced) = (0, 0, 0);
    let (mut ready, mut available, mut updated) = (0, 0, 0);
    for (node, place) in places {
        let there = filed.get(node).map(Vec::as_slice).unwrap_or_default();
        if *place != Place::Run {
            misplaced += i32::from(!there.is_empty());
            continue;
        }
        desired += 1;
        let Some(first) = there.first() else { continue };
        current += 1;
        ready += i32::from(there.iter().any(|pod| pod::is_ready(pod)));
        available += i32::from(there.iter().any(|pod| is_available(target, pod, now)));
        updated += i32::from(pods::is_current(there.last().unwrap_or(first), hash));
    }
    DaemonSetStatus {
        observed_generation: target.meta.generation,
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misplaced,
        number_ready: ready,
        number_available: some(available),
        number_unavailable: some(desired - available),
        updated_number_scheduled: some(updated),
        collision_count: target.status.collision_count,
        conditions: target.status.conditions.clone(),
    }
}

/// Zero is left out, as Kubernetes shows it.
fn some(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

/// As a merge patch; what is left out must be written as null, or the patch would leave the old figure.
pub(crate) fn to_patch(uid: Option<&str>, status: &DaemonSetStatus) -> Value {
    json!({
        "metadata": { "uid": uid },
        "status": {
            "observedGeneration": status.observed_generation,
            "desiredNumberScheduled": status.desired_number_scheduled,
            "currentNumberScheduled": status.current_number_scheduled,
            "numberMisscheduled": status.number_misscheduled,
            "numberReady": status.number_ready,
            "numberAvailable": status.number_available,
            "numberUnavailable": status.number_unavailable,
            "updatedNumberScheduled": status.updated_number_scheduled,
            "collisionCount": status.collision_count,
        },
    })
}

/// When the next Pod becomes available by mere passing of time.
pub(crate) fn wake(target: &Target, filed: &ByNode, now: Timestamp) -> Option<Duration> {
    let times = filed.values().flatten().filter_map(|pod| {
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

    use super::super::plan::by_node;
    use super::super::plan::tests::{NOW, places, pod, target};
    use super::*;

    #[test]
    fn nodes_are_counted_and_not_pods() {
        let nodes = places(&[
            ("n1", Place::Run),
            ("n2", Place::Run),
            ("n3", Place::Run),
            ("n4", Place::Not),
        ]);
        let pods = by_node(&[
            pod("a", "n1", "h", "ready"),
            pod("b", "n2", "old", "pending"),
            pod("c", "n4", "h", "ready"),
        ]);
        let status = status(&target(json!({})), "h", &nodes, &pods, NOW.parse().unwrap());
        assert_eq!(
            serde_json::to_value(&status).unwrap(),
            json!({ "observedGeneration": 2, "desiredNumberScheduled": 3, "currentNumberScheduled": 2,
                "numberMisscheduled": 1, "numberReady": 1, "numberAvailable": 1, "numberUnavailable": 2,
                "updatedNumberScheduled": 1 })
        );
    }
}
