//! What a Job lacks and has too much of, case by case.

use k8s_openapi::api::batch::v1::Job;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const START: &str = "2030-01-01T00:00:00Z";
const NOW: &str = "2030-01-01T01:00:00Z";

fn target(fields: Value, status: Value) -> Target {
    let mut object = json!({
        "metadata": { "name": "pi", "namespace": "default", "uid": "job" },
        "spec": { "parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
            "podReplacementPolicy": "TerminatingOrFailed", "selector": { "matchLabels": { "job": "pi" } },
            "template": { "metadata": { "labels": { "job": "pi" } }, "spec": { "containers": [{ "name": "c" }] } } },
        "status": status,
    });
    for (field, value) in fields.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    Target::project(&serde_json::from_value::<Job>(object).unwrap())
        .unwrap()
        .unwrap()
}

/// A Pod in a phase; `going` is running and being deleted. `index` is that of its completion, or none.
fn pod(name: &str, state: &str, index: Option<i32>) -> Arc<Pod> {
    let annotations =
        index.map(|index| json!({ "batch.kubernetes.io/job-completion-index": index.to_string() }));
    let phase = if state == "going" { "Running" } else { state };
    let code = i32::from(phase == "Failed") * 7;
    let ended = matches!(phase, "Failed" | "Succeeded").then(|| {
        json!([{ "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": code, "finishedAt": START } } }])
    });
    let object = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name, "annotations": annotations,
            "finalizers": ["batch.kubernetes.io/job-tracking"], "creationTimestamp": START,
            "deletionTimestamp": (state == "going").then_some(NOW) },
        "status": { "phase": phase, "containerStatuses": ended },
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn planned_at(target: &Target, pods: &[Arc<Pod>], released: &[&str], now: &str) -> Plan {
    let released = released.iter().map(|uid| (*uid).to_owned()).collect();
    plan(
        target,
        &Seen {
            pods,
            released: &released,
            caught_up: true,
            now: now.parse().unwrap(),
            tempo: Tempo(Duration::from_secs(10)),
        },
    )
}

fn planned(target: &Target, pods: &[Arc<Pod>]) -> Plan {
    planned_at(target, pods, &[], NOW)
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter()
        .map(|pod| pod.metadata.name.as_deref().unwrap())
        .collect()
}

fn held(status: &JobStatus) -> Vec<&str> {
    let conditions = status.conditions.iter().flatten();
    conditions
        .filter(|one| one.status == "True")
        .map(|one| one.type_.as_str())
        .collect()
}

fn started() -> Value {
    json!({ "startTime": START })
}

#[test]
fn a_job_begins_with_as_many_pods_as_may_run_and_are_wanted() {
    for (parallelism, completions, expected) in [
        (1, json!(1), 1),
        (3, json!(5), 3),
        (5, json!(2), 2),
        (2, Value::Null, 2),
        (0, json!(1), 0),
    ] {
        let target = target(
            json!({ "parallelism": parallelism, "completions": completions }),
            json!({}),
        );
        let plan = planned(&target, &[]);
        assert_eq!(plan.create.len(), expected, "{parallelism} {completions}");
        assert_eq!(plan.status.start_time, Some(Time(NOW.parse().unwrap())));
        let pod = plan.create.first();
        assert!(
            pod.is_none_or(|pod| pod.metadata.finalizers
                == Some(vec!["batch.kubernetes.io/job-tracking".into()]))
        );
    }
}

#[test]
fn a_success_is_noted_released_and_counted_before_the_job_is_complete() {
    let pods = [pod("a", "Succeeded", None)];
    let plan = planned(&target(json!({}), started()), &pods);
    assert_eq!(count::noted(&plan.status), (1, 0));
    assert_eq!(names(&plan.release), ["a"]);
    assert_eq!(held(&plan.status), ["SuccessCriteriaMet"]);
    assert!(plan.status.succeeded.is_none() && plan.tell.is_empty());

    // The finalizer was removed, and the cache does not show it yet.
    let target = target(json!({}), json!(plan.status));
    let plan = planned_at(&target, &pods, &["a"], NOW);
    assert_eq!(plan.status.succeeded, Some(1));
    assert_eq!(count::noted(&plan.status), (0, 0));
    assert_eq!(held(&plan.status), ["SuccessCriteriaMet", "Complete"]);
    assert_eq!(
        plan.status.completion_time,
        Some(Time(NOW.parse().unwrap()))
    );
    assert_eq!(
        (plan.tell[0].reason, plan.tell[0].message.as_str()),
        ("Completed", "Job completed")
    );
}

#[test]
fn nothing_is_counted_twice_though_the_cache_lags() {
    // Counted, its finalizer removed, and both caches show the state before.
    let status = json!({ "startTime": START, "succeeded": 1 });
    let target = target(json!({ "completions": 3 }), status);
    let plan = planned_at(&target, &[pod("a", "Succeeded", None)], &["a"], NOW);
    assert_eq!(
        (plan.status.succeeded, count::noted(&plan.status)),
        (Some(1), (0, 0))
    );
}

#[test]
fn after_a_failure_it_is_tried_again_with_a_pause() {
    let target = target(json!({}), started());
    let pods = [pod("a", "Failed", None)];
    let soon = planned_at(&target, &pods, &[], "2030-01-01T00:00:04Z");
    assert!(soon.create.is_empty());
    assert_eq!(soon.wake, Some(Duration::from_secs(6)));
    let later = planned(&target, &pods);
    assert_eq!(later.create.len(), 1);
    assert_eq!(count::noted(&later.status), (0, 1));
}

#[test]
fn too_many_failures_end_the_job_and_whoever_runs() {
    let target = target(
        json!({ "backoffLimit": 1, "parallelism": 2, "completions": 2 }),
        json!({ "startTime": START, "failed": 1 }),
    );
    let pods = [pod("a", "Failed", None), pod("b", "Running", None)];
    let plan = planned(&target, &pods);
    assert_eq!(names(&plan.delete), ["b"]);
    assert_eq!(names(&plan.release), ["a", "b"]);
    assert_eq!(held(&plan.status), ["FailureTarget"]);
    assert_eq!(count::noted(&plan.status), (0, 2));
    let target = self::target(json!({ "backoffLimit": 1 }), json!(plan.status));
    let plan = planned(&target, &[]);
    assert_eq!(plan.status.failed, Some(3));
    assert_eq!(held(&plan.status), ["FailureTarget", "Failed"]);
    assert_eq!(plan.tell[0].reason, "BackoffLimitExceeded");
    assert_eq!(
        plan.tell[0].message,
        "Job has reached the specified backoff limit"
    );
    assert!(plan.tell[0].warning && plan.status.completion_time.is_none());
}

#[test]
fn restarts_in_a_pod_are_failures_where_containers_are_restarted() {
    let mut target = target(json!({ "backoffLimit": 2 }), started());
    target.restarts_on_failure = true;
    let mut running = pod("a", "Running", None);
    let restarts = |pod: &mut Arc<Pod>, count: i32| {
        let status = Arc::make_mut(pod).status.as_mut().unwrap();
        status.container_statuses = serde_json::from_value(json!([{ "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": count }])).unwrap();
    };
    restarts(&mut running, 1);
    assert_eq!(
        held(&planned(&target, &[Arc::clone(&running)]).status),
        [""; 0]
    );
    restarts(&mut running, 2);
    assert_eq!(
        held(&planned(&target, &[running]).status),
        ["FailureTarget"]
    );
}

#[test]
fn a_deadline_is_waited_for_and_then_ends_the_job() {
    let target = target(json!({ "activeDeadlineSeconds": 5 }), started());
    let pods = [pod("a", "Running", None)];
    assert_eq!(
        planned_at(&target, &pods, &[], "2030-01-01T00:00:02Z").wake,
        Some(Duration::from_secs(3))
    );
    let plan = planned_at(&target, &pods, &[], "2030-01-01T00:00:05Z");
    assert_eq!(names(&plan.delete), ["a"]);
    let condition = &plan.status.conditions.unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(
        condition.message.as_deref(),
        Some("Job was active longer than specified deadline")
    );
}

#[test]
fn a_suspended_job_has_no_pods_and_starts_anew_when_resumed() {
    let target = target(json!({ "suspend": true }), started());
    let plan = planned(&target, &[pod("a", "Running", None)]);
    assert_eq!(names(&plan.delete), ["a"]);
    assert_eq!(held(&plan.status), ["Suspended"]);
    assert_eq!(
        (plan.tell[0].reason, plan.tell[0].message.as_str()),
        ("Suspended", "Job suspended")
    );
    let target = self::target(json!({}), json!(plan.status));
    let plan = planned(&target, &[]);
    assert_eq!(plan.create.len(), 1);
    assert_eq!(held(&plan.status), [""; 0]);
    assert_eq!(plan.tell[0].reason, "Resumed");
    assert_eq!(plan.status.start_time, Some(Time(NOW.parse().unwrap())));
}

#[test]
fn a_pod_that_goes_is_replaced_at_once_or_when_it_is_gone() {
    for (policy, created) in [("TerminatingOrFailed", 1), ("Failed", 0)] {
        let target = target(json!({ "podReplacementPolicy": policy }), started());
        let plan = planned_at(
            &target,
            &[pod("a", "going", None)],
            &[],
            "2030-01-01T02:00:00Z",
        );
        assert_eq!(plan.create.len(), created, "{policy}");
        assert_eq!(plan.status.terminating, Some(1));
    }
}

#[test]
fn without_completions_one_success_is_enough_and_nobody_new_comes() {
    let target = target(
        json!({ "completions": Value::Null, "parallelism": 3 }),
        started(),
    );
    let pods = [pod("a", "Succeeded", None), pod("b", "Running", None)];
    let plan = planned(&target, &pods);
    assert!(plan.create.is_empty() && plan.delete.is_empty());
    assert_eq!(held(&plan.status), [""; 0]);
}

#[test]
fn each_index_is_tried_until_it_succeeds() {
    let fields = json!({ "completionMode": "Indexed", "completions": 4, "parallelism": 3 });
    let target = target(
        fields.clone(),
        json!({ "startTime": START, "completedIndexes": "0" }),
    );
    let pods = [
        pod("a", "Succeeded", Some(1)),
        pod("b", "Running", Some(2)),
        pod("c", "Running", Some(2)),
    ];
    let plan = planned(&target, &pods);
    assert_eq!(plan.status.completed_indexes.as_deref(), Some("0,1"));
    assert_eq!(plan.status.succeeded, Some(2));
    // Two Pods with one index are one too many, and that is mended first.
    assert_eq!(plan.delete.len(), 1);
    let plan = planned(&target, &pods[..2]);
    let new = &plan.create[0];
    assert_eq!(plan.create.len(), 1);
    assert_eq!(new.metadata.generate_name.as_deref(), Some("pi-3-"));
    let spec = new.spec.as_ref().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("pi-3"));
    assert_eq!(
        json!(spec.containers[0].env),
        json!([{ "name": "JOB_COMPLETION_INDEX", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']" } } }])
    );
    assert_eq!(
        new.metadata.labels.as_ref().unwrap()["batch.kubernetes.io/job-completion-index"],
        "3"
    );
}

#[test]
fn an_index_fails_alone_where_it_has_a_limit_of_its_own() {
    let fields = json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 0, "backoffLimit": i32::MAX });
    let job = target(fields.clone(), started());
    let plan = planned(
        &job,
        &[pod("a", "Failed", Some(0)), pod("b", "Running", Some(1))],
    );
    assert_eq!(plan.status.failed_indexes.as_deref(), Some("0"));
    assert!(plan.create.is_empty() && held(&plan.status).is_empty());
    let plan = planned(
        &job,
        &[pod("a", "Failed", Some(0)), pod("b", "Succeeded", Some(1))],
    );
    let condition = &plan.status.conditions.as_ref().unwrap()[0];
    assert_eq!(
        (condition.type_.as_str(), condition.reason.as_deref()),
        ("FailureTarget", Some("FailedIndexes"))
    );
    // With one more try it is tried again, told how often it failed.
    let mut once_more = fields;
    once_more["backoffLimitPerIndex"] = json!(1);
    let plan = planned(
        &target(once_more, started()),
        &[pod("a", "Failed", Some(0)), pod("b", "Running", Some(1))],
    );
    let annotations = plan.create[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(
        annotations["batch.kubernetes.io/job-index-failure-count"],
        "1"
    );
}

#[test]
fn a_success_policy_ends_the_job_before_all_have_succeeded() {
    let fields = json!({ "completionMode": "Indexed", "completions": 4, "parallelism": 4,
        "successPolicy": { "rules": [{ "succeededIndexes": "0-1", "succeededCount": 1 }] } });
    let target = target(fields, started());
    let plan = planned(
        &target,
        &[pod("a", "Succeeded", Some(1)), pod("b", "Running", Some(2))],
    );
    assert_eq!(names(&plan.delete), ["b"]);
    let condition = &plan.status.conditions.as_ref().unwrap()[0];
    assert_eq!(
        (condition.type_.as_str(), condition.reason.as_deref()),
        ("SuccessCriteriaMet", Some("SuccessPolicy"))
    );
    assert_eq!(
        condition.message.as_deref(),
        Some("Matched rules at index 0")
    );
    assert_eq!(plan.status.failed, None);
}

#[test]
fn the_failure_policy_says_what_a_failure_means() {
    let policy = |action: &str| {
        json!({ "podFailurePolicy": { "rules": [
            { "action": action, "onExitCodes": { "operator": "In", "values": [7] } }] } })
    };
    let pods = [pod("a", "Failed", None)];
    let ignored = planned(&target(policy("Ignore"), started()), &pods);
    assert_eq!(
        (count::noted(&ignored.status), ignored.create.len()),
        ((0, 0), 1)
    );
    assert_eq!(names(&ignored.release), ["a"]);
    let fatal = planned(&target(policy("FailJob"), started()), &pods);
    let condition = &fatal.status.conditions.as_ref().unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("PodFailurePolicy"));
    assert_eq!(
        condition.message.as_deref(),
        Some(
            "Container c for pod default/a failed with exit code 7 matching FailJob rule at index 0"
        )
    );
}

#[test]
fn a_job_that_goes_frees_its_pods_and_makes_none() {
    let mut target = target(json!({ "parallelism": 2, "completions": 2 }), started());
    target.meta.deletion_timestamp = Some(Time(NOW.parse().unwrap()));
    let plan = planned(&target, &[pod("a", "Running", None)]);
    assert!(plan.create.is_empty() && plan.delete.is_empty());
    assert_eq!(names(&plan.release), ["a"]);
}

proptest! {
    /// Whatever the Pods do, in whatever order the writes and the cache are seen, each ends up counted once.
    #[test]
    fn every_pod_is_counted_exactly_once(ends in proptest::collection::vec(any::<bool>(), 1..12), lags in proptest::collection::vec(any::<bool>(), 40)) {
        let total = i32::try_from(ends.len()).unwrap();
        let fields = json!({ "completions": 1000, "parallelism": 0, "backoffLimit": 1000 });
        let pods: Vec<_> = ends.iter().enumerate().map(|(n, good)| pod(&format!("p{n}"), if *good { "Succeeded" } else { "Failed" }, None)).collect();
        let (mut shown, mut released, mut status) = (pods.clone(), Vec::<String>::new(), started());
        for lag in lags {
            let job = target(fields.clone(), status.clone());
            let hidden: Vec<&str> = released.iter().map(String::as_str).collect();
            let plan = planned_at(&job, &shown, &hidden, NOW);
            // A write that is lost in a crash is made again.
            if lag {
                continue;
            }
            status = json!(plan.status);
            released.extend(plan.release.iter().map(|pod| pod.metadata.uid.clone().unwrap()));
            if released.len() % 2 == 0 {
                shown.retain(|pod| !released.contains(pod.metadata.uid.as_ref().unwrap()));
            }
        }
        let counted = |field: &str| i32::try_from(status[field].as_i64().unwrap_or(0)).unwrap();
        let good = i32::try_from(ends.iter().filter(|good| **good).count()).unwrap();
        let last = planned_at(&target(fields, status.clone()), &[], &[], NOW).status;
        prop_assert_eq!(last.succeeded.unwrap_or(0), good);
        prop_assert_eq!(last.failed.unwrap_or(0), total - good);
        prop_assert!(counted("succeeded") <= good);
    }
}
