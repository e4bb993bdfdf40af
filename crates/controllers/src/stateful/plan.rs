//! From a StatefulSet and its Pods to what must be done now.
//!
//! Without `Parallel` it is at most one thing, and only when everything before it is done: Pods come in the order of
//! their ordinals, each when those before it are available; they go in reverse order, and are replaced in reverse
//! order. Source: `updateStatefulSet`, `processReplica`, `processCondemned` in `stateful_set_control.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};

use super::model::{Strategy, Target};
use super::{pods, update};
use crate::object;
use crate::pod;

/// A template with the name of its revision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revision<'a> {
    /// Name of the ControllerRevision.
    pub(crate) name: &'a str,
    /// What it holds.
    pub(crate) template: &'a PodTemplateSpec,
}

/// The template that Pods had so far, and the one that they are to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revisions<'a> {
    /// So far.
    pub(crate) current: Revision<'a>,
    /// To come.
    pub(crate) update: Revision<'a>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Create this Pod.
    Create(Box<Pod>),
    /// Delete this one.
    Delete(Arc<Pod>),
    /// Delete this one, which ended: it will be made again.
    Remake(Arc<Pod>),
    /// Give this one the labels of its identity.
    Label(Arc<Pod>, BTreeMap<String, String>),
}

/// The Pods by what they are to the set.
pub(crate) struct Ranks {
    /// One place for each wanted Pod, in order.
    pub(crate) replicas: Vec<Option<Arc<Pod>>>,
    /// Those with an ordinal that is not wanted, the highest first.
    pub(crate) condemned: Vec<Arc<Pod>>,
}

/// Sorts the Pods; one whose name is not the set's is neither.
pub(crate) fn ranks(target: &Target, owned: &[Arc<Pod>]) -> Ranks {
    let mut replicas = vec![None; target.replicas];
    let mut condemned = Vec::new();
    for pod in owned {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(ordinal) = target.ordinal(name) else {
            continue;
        };
        match ordinal
            .checked_sub(target.start)
            .and_then(|place| replicas.get_mut(place))
        {
            Some(place) => *place = Some(Arc::clone(pod)),
            None => condemned.push((ordinal, Arc::clone(pod))),
        }
    }
    condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    Ranks {
        replicas,
        condemned: condemned.into_iter().map(|(_, pod)| pod).collect(),
    }
}

/// Makes the plan. A set that is being deleted needs nothing: the garbage collector sees to its Pods.
pub(crate) fn plan(
    target: &Target,
    revisions: &Revisions<'_>,
    owned: &[Arc<Pod>],
    now: Timestamp,
) -> Vec<Action> {
    if object::is_deleting(&target.meta) {
        return Vec::new();
    }
    let ranks = ranks(target, owned);
    let mut actions = Vec::new();
    for (place, pod) in ranks.replicas.iter().enumerate() {
        let settled = replica(
            target,
            revisions,
            target.start + place,
            pod.as_ref(),
            now,
            &mut actions,
        );
        if !settled && !target.parallel {
            return actions;
        }
    }
    // The lowest ordinal that is not well: it may go though it is not the last.
    let sick = ranks
        .replicas
        .iter()
        .flatten()
        .chain(ranks.condemned.iter().rev())
        .find(|pod| pods::is_unhealthy(pod));
    for pod in &ranks.condemned {
        let going = object::is_deleting(&pod.metadata);
        let well = pods::is_running_and_available(target, pod, now);
        let first_sick = sick.is_some_and(|sick| Arc::ptr_eq(sick, pod));
        let free = target.parallel || well || first_sick;
        if !going && free {
            actions.push(Action::Delete(Arc::clone(pod)));
        }
        if !target.parallel {
            return actions;
        }
    }
    if actions.is_empty() && target.strategy != Strategy::OnDelete {
        update::replace(
            target,
            revisions.update.name,
            &ranks.replicas,
            now,
            &mut actions,
        );
    }
    actions
}

/// Adds what one place needs. Whether it needs nothing and serves.
fn replica(
    target: &Target,
    revisions: &Revisions<'_>,
    ordinal: usize,
    pod: Option<&Arc<Pod>>,
    now: Timestamp,
    actions: &mut Vec<Action>,
) -> bool {
    let Some(pod) = pod else {
        let revision = revision_for(target, revisions, ordinal);
        let new = pods::new_pod(target, revision.template, revision.name, ordinal);
        actions.push(Action::Create(Box::new(new)));
        return false;
    };
    if pod::is_terminal(pod) {
        if !object::is_deleting(&pod.metadata) {
            actions.push(Action::Remake(Arc::clone(pod)));
        }
        return false;
    }
    if object::is_deleting(&pod.metadata) || !pods::is_running_and_available(target, pod, now) {
        return false;
    }
    let missing = pods::missing_identity(target, pod, ordinal);
    if !missing.is_empty() {
        actions.push(Action::Label(Arc::clone(pod), missing));
    }
    true
}

/// The template for a Pod that is made anew: below the partition the one from before the update.
/// Source: `newVersionedStatefulSetPod`.
fn revision_for<'a>(target: &Target, revisions: &Revisions<'a>, ordinal: usize) -> Revision<'a> {
    match target.strategy {
        Strategy::RollingUpdate { partition, .. }
            if ordinal < target.start.saturating_add(partition) =>
        {
            revisions.current
        }
        _ => revisions.update,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::api::apps::v1::StatefulSet;
    use serde_json::{Value, json};

    use super::*;

    pub(crate) const NOW: &str = "2030-01-01T01:00:00Z";

    pub(crate) fn target(fields: Value) -> Target {
        let mut object = json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "u", "generation": 3 },
            "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "a" } },
                "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [] } } },
        });
        for (field, value) in fields.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        Target::project(&serde_json::from_value::<StatefulSet>(object).unwrap()).unwrap()
    }

    /// A Pod in one of the states `ready`, `fresh` (ready since a second), `unready`, `going`, `failed`.
    pub(crate) fn pod(ordinal: usize, revision: &str, state: &str) -> Arc<Pod> {
        let name = format!("web-{ordinal}");
        let since = if state == "fresh" {
            "2030-01-01T00:59:59Z"
        } else {
            "2030-01-01T00:00:00Z"
        };
        let ready = matches!(state, "ready" | "fresh" | "going");
        let object = json!({
            "metadata": { "name": name, "uid": name,
                "labels": { "app": "a", "controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": name,
                    "apps.kubernetes.io/pod-index": ordinal.to_string() },
                "deletionTimestamp": (state == "going").then_some(NOW) },
            "status": { "phase": if state == "failed" { "Failed" } else { "Running" }, "conditions": [
                { "type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": since }] },
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    pub(crate) fn said(actions: &[Action]) -> Vec<String> {
        let name = |pod: &Pod| pod.metadata.name.clone().unwrap();
        let each = actions.iter().map(|action| match action {
            Action::Create(pod) => format!("create {} of {}", name(pod), pods::revision(pod)),
            Action::Delete(pod) => format!("delete {}", name(pod)),
            Action::Remake(pod) => format!("remake {}", name(pod)),
            Action::Label(pod, labels) => format!("label {} {labels:?}", name(pod)),
        });
        each.collect()
    }

    /// A Pod that is there: ordinal, revision, state.
    pub(crate) type There<'a> = (usize, &'a str, &'a str);

    pub(crate) fn outcome(fields: Value, there: &[There<'_>]) -> Vec<String> {
        let target = target(fields);
        let revisions = Revisions {
            current: Revision {
                name: "old",
                template: &target.template,
            },
            update: Revision {
                name: "new",
                template: &target.template,
            },
        };
        let pods: Vec<_> = there
            .iter()
            .map(|(ordinal, revision, state)| pod(*ordinal, revision, state))
            .collect();
        said(&plan(&target, &revisions, &pods, NOW.parse().unwrap()))
    }

    #[test]
    fn pods_come_one_after_the_other() {
        let cases: [(&[There<'_>], &[&str]); 6] = [
            (&[], &["create web-0 of new"]),
            (&[(0, "new", "unready")], &[]),
            (&[(0, "new", "ready")], &["create web-1 of new"]),
            (
                &[(0, "new", "ready"), (2, "new", "ready")],
                &["create web-1 of new"],
            ),
            (
                &[
                    (0, "new", "going"),
                    (1, "new", "ready"),
                    (2, "new", "ready"),
                ],
                &[],
            ),
            (
                &[(0, "new", "failed"), (1, "new", "ready")],
                &["remake web-0"],
            ),
        ];
        for (there, expected) in cases {
            assert_eq!(outcome(json!({}), there), expected, "{there:?}");
        }
        assert_eq!(
            outcome(json!({ "minReadySeconds": 10 }), &[(0, "new", "fresh")]),
            [""; 0]
        );
    }

    #[test]
    fn pods_go_in_reverse_order() {
        let two = json!({ "replicas": 1 });
        assert_eq!(
            outcome(
                two.clone(),
                &[
                    (0, "new", "ready"),
                    (1, "new", "ready"),
                    (2, "new", "ready")
                ]
            ),
            ["delete web-2"]
        );
        assert_eq!(
            outcome(
                two.clone(),
                &[
                    (0, "new", "ready"),
                    (1, "new", "ready"),
                    (2, "new", "going")
                ]
            ),
            [""; 0]
        );
        // Nothing is taken away while one that stays is not well.
        assert_eq!(
            outcome(two.clone(), &[(0, "new", "unready"), (1, "new", "ready")]),
            [""; 0]
        );
        // One that is not well goes when it is the first of those.
        assert_eq!(
            outcome(two.clone(), &[(0, "new", "ready"), (1, "new", "unready")]),
            ["delete web-1"]
        );
        assert_eq!(
            outcome(
                two,
                &[
                    (0, "new", "ready"),
                    (1, "new", "unready"),
                    (2, "new", "unready")
                ]
            ),
            [""; 0]
        );
    }

    #[test]
    fn in_parallel_nobody_waits() {
        let parallel = json!({ "podManagementPolicy": "Parallel" });
        assert_eq!(
            outcome(
                parallel,
                &[
                    (0, "new", "unready"),
                    (3, "new", "ready"),
                    (4, "new", "unready")
                ]
            ),
            [
                "create web-1 of new",
                "create web-2 of new",
                "delete web-4",
                "delete web-3"
            ]
        );
    }

    #[test]
    fn ordinals_may_start_elsewhere() {
        let five = json!({ "ordinals": { "start": 5 }, "replicas": 2 });
        assert_eq!(outcome(five.clone(), &[]), ["create web-5 of new"]);
        assert_eq!(
            outcome(
                five,
                &[
                    (5, "new", "ready"),
                    (6, "new", "ready"),
                    (0, "new", "ready")
                ]
            ),
            ["delete web-0"]
        );
    }

    #[test]
    fn below_the_partition_a_pod_is_made_of_the_template_it_had() {
        let partition = json!({ "updateStrategy": { "rollingUpdate": { "partition": 1 } } });
        assert_eq!(outcome(partition.clone(), &[]), ["create web-0 of old"]);
        assert_eq!(
            outcome(partition, &[(0, "old", "ready")]),
            ["create web-1 of new"]
        );
    }

    #[test]
    fn one_that_was_taken_in_gets_its_labels() {
        let target = target(json!({ "replicas": 1 }));
        let mut stray = pod(0, "new", "ready");
        Arc::make_mut(&mut stray)
            .metadata
            .labels
            .as_mut()
            .unwrap()
            .remove("apps.kubernetes.io/pod-index");
        let revision = Revision {
            name: "new",
            template: &target.template,
        };
        let revisions = Revisions {
            current: revision,
            update: revision,
        };
        let actions = plan(&target, &revisions, &[stray], NOW.parse().unwrap());
        assert_eq!(
            said(&actions),
            ["label web-0 {\"apps.kubernetes.io/pod-index\": \"0\"}"]
        );
    }
}
