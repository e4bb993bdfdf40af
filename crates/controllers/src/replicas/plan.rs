//! From an owner and the Pods around it to what must be done: whom to take in, whom to let go, how many to create,
//! whom to delete, and the status that results.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::model::{Failure, Owner, Status};
use crate::object;
use crate::pod::{self, Availability};

/// At most so many Pods are created or deleted before the cache must have caught up. Source: `BurstReplicas`.
const BURST: usize = 500;

/// Which Pods are whose.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// Its own, the adopted among them, those let go not.
    pub(crate) owned: Vec<Arc<Pod>>,
    /// Have no controller and match: to take in.
    pub(crate) adopt: Vec<Arc<Pod>>,
    /// Its own but match no more: to let go.
    pub(crate) release: Vec<Arc<Pod>>,
}

/// Sorts the candidates. Source: `PodControllerRefManager.ClaimPods`.
pub(crate) fn claim(owner: &Owner, candidates: Vec<Arc<Pod>>) -> Claim {
    let mut claim = Claim::default();
    for pod in candidates {
        let matches = owner.selector.matches(object::labels_of(&pod.metadata));
        match object::controller_of(&pod.metadata) {
            Some(controller) if controller.uid != owner.uid => {}
            Some(_) if matches => claim.owned.push(pod),
            Some(_) if owner.deleting => {}
            Some(_) => claim.release.push(pod),
            None if owner.deleting || !matches || !pod::is_active(&pod) => {}
            None => {
                claim.owned.push(Arc::clone(&pod));
                claim.adopt.push(pod);
            }
        }
    }
    claim
}

/// How the number of Pods must change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// It is right.
    Keep,
    /// So many more.
    Create(usize),
    /// So many fewer; [`super::rank`] says which.
    Delete(usize),
}

/// Compares what is there with what is asked for. An owner that is being deleted creates and deletes nothing: the
/// garbage collector sees to its Pods.
pub(crate) fn scale(owner: &Owner, owned: &[Arc<Pod>]) -> Scale {
    if owner.deleting {
        return Scale::Keep;
    }
    let active = owned.iter().filter(|pod| pod::is_active(pod)).count();
    match active.cmp(&owner.replicas) {
        std::cmp::Ordering::Equal => Scale::Keep,
        std::cmp::Ordering::Less => Scale::Create((owner.replicas - active).min(BURST)),
        std::cmp::Ordering::Greater => Scale::Delete((active - owner.replicas).min(BURST)),
    }
}

/// The status that the Pods amount to. `failure` is the reason and message of what failed in this round.
pub(crate) fn status(
    owner: &Owner,
    owned: &[Arc<Pod>],
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> Status {
    let template_labels = owner.template.metadata.as_ref().map(object::labels_of);
    let terminating = owned
        .iter()
        .filter(|pod| object::is_deleting(&pod.metadata) && !pod::is_terminal(pod))
        .count();
    let mut status = Status {
        observed_generation: owner.generation,
        terminating: owner
            .counts_terminating
            .then(|| i32::try_from(terminating).unwrap_or(i32::MAX)),
        ..Status::default()
    };
    for pod in owned.iter().filter(|pod| pod::is_active(pod)) {
        status.replicas += 1;
        let labels = object::labels_of(&pod.metadata);
        if template_labels.is_none_or(|wanted| {
            wanted
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        }) {
            status.fully_labeled += 1;
        }
        if pod::is_ready(pod) {
            status.ready += 1;
        }
        if pod::availability(pod, owner.min_ready_seconds, now) == Availability::Available {
            status.available += 1;
        }
    }
    status.failure = failure.map(|(reason, message)| match &owner.status.failure {
        // The condition is there already: its time and words stay, or the status would change with every attempt.
        Some(known) if known.reason == reason => known.clone(),
        _ => Failure {
            reason: reason.to_owned(),
            message,
            since: Some(now),
        },
    });
    status
}

/// When the next Pod becomes available by mere passing of time.
pub(crate) fn wake(owner: &Owner, owned: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let available_at = owned
        .iter()
        .filter(|pod| pod::is_active(pod))
        .filter_map(
            |pod| match pod::availability(pod, owner.min_ready_seconds, now) {
                Availability::From(at) => Some(at),
                Availability::Available | Availability::Unready => None,
            },
        );
    available_at
        .min()
        .map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodTemplateSpec;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::object::ObjectKey;
    use seaway_objects::selector::LabelSelector;

    fn owner(replicas: usize) -> Owner {
        Owner {
            key: ObjectKey::new("default", "web"),
            uid: "owner".into(),
            generation: 3,
            deleting: false,
            replicas,
            min_ready_seconds: 10,
            selector: LabelSelector::from_map(&[("app".to_owned(), "web".to_owned())].into()),
            template: PodTemplateSpec::default(),
            counts_terminating: true,
            status: Status::default(),
        }
    }

    fn pod(
        name: &str,
        app: &str,
        controller: Option<&str>,
        phase: &str,
        ready_since: Option<&str>,
    ) -> Arc<Pod> {
        let owners: Vec<_> = controller
            .iter()
            .map(|uid| json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid, "controller": true }))
            .collect();
        let conditions: Vec<_> = ready_since
            .iter()
            .map(|since| json!({ "type": "Ready", "status": "True", "lastTransitionTime": since }))
            .collect();
        let object = json!({
            "metadata": { "name": name, "uid": name, "labels": { "app": app }, "ownerReferences": owners },
            "status": { "phase": phase, "conditions": conditions },
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter()
            .map(|pod| pod.metadata.name.as_deref().unwrap())
            .collect()
    }

    #[test]
    fn orphans_are_taken_in_and_strays_let_go() {
        let pods = vec![
            pod("own", "web", Some("owner"), "Running", None),
            pod("stray", "db", Some("owner"), "Running", None),
            pod("orphan", "web", None, "Running", None),
            pod("ended-orphan", "web", None, "Failed", None),
            pod("foreign-orphan", "db", None, "Running", None),
            pod("others", "web", Some("other"), "Running", None),
        ];
        let claim = claim(&owner(1), pods);
        assert_eq!(names(&claim.owned), ["own", "orphan"]);
        assert_eq!(names(&claim.adopt), ["orphan"]);
        assert_eq!(names(&claim.release), ["stray"]);
    }

    #[test]
    fn an_owner_that_is_going_takes_and_changes_nothing() {
        let mut owner = owner(5);
        owner.deleting = true;
        let claim = claim(&owner, vec![pod("orphan", "web", None, "Running", None)]);
        assert!(claim.owned.is_empty() && claim.adopt.is_empty());
        assert_eq!(scale(&owner, &claim.owned), Scale::Keep);
    }

    #[test]
    fn available_is_ready_for_long_enough() {
        let now = "2030-01-01T00:00:15Z".parse().unwrap();
        let pods = vec![
            pod(
                "old",
                "web",
                Some("owner"),
                "Running",
                Some("2030-01-01T00:00:00Z"),
            ),
            pod(
                "new",
                "web",
                Some("owner"),
                "Running",
                Some("2030-01-01T00:00:12Z"),
            ),
            pod("unready", "web", Some("owner"), "Running", None),
            pod(
                "ended",
                "web",
                Some("owner"),
                "Succeeded",
                Some("2030-01-01T00:00:00Z"),
            ),
        ];
        let status = status(&owner(3), &pods, None, now);
        assert_eq!((status.replicas, status.ready, status.available), (3, 2, 1));
        assert_eq!(status.observed_generation, 3);
        assert_eq!(status.terminating, Some(0));
        assert_eq!(wake(&owner(3), &pods, now), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_lasting_failure_keeps_its_condition() {
        let now: Timestamp = "2030-01-01T00:00:15Z".parse().unwrap();
        let mut owner = owner(1);
        let first = status(&owner, &[], Some(("FailedCreate", "no".into())), now);
        owner.status = first.clone();
        let later = now + Duration::from_secs(5);
        assert_eq!(
            status(
                &owner,
                &[],
                Some(("FailedCreate", "no, again".into())),
                later
            ),
            first
        );
        assert_eq!(status(&owner, &[], None, later).failure, None);
    }

    proptest! {
        #[test]
        fn scaling_always_leads_to_the_number_asked_for(active in 0usize..600, ended in 0usize..20, wanted in 0usize..600) {
            let mut pods: Vec<_> = (0..active).map(|n| pod(&n.to_string(), "web", Some("owner"), "Running", None)).collect();
            pods.extend((0..ended).map(|n| pod(&format!("e{n}"), "web", Some("owner"), "Failed", None)));
            let mut have = active;
            for _ in 0..2 {
                match scale(&owner(wanted), &pods) {
                    Scale::Keep => {}
                    Scale::Create(more) => {
                        prop_assert!(more <= BURST && have + more <= wanted);
                        pods.extend((0..more).map(|n| pod(&format!("n{n}"), "web", Some("owner"), "Pending", None)));
                        have += more;
                    }
                    Scale::Delete(fewer) => {
                        prop_assert!(fewer <= BURST && have - fewer >= wanted);
                        pods.drain(..fewer);
                        have -= fewer;
                    }
                }
            }
            prop_assert_eq!(have, wanted);
        }
    }
}
