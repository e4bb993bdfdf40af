//! Jobs against an API server and played nodes.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job, JobStatus};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use seaway_controllers::Tuning;
use serde_json::{Value, json};

use crate::harness::{Cluster, eventually};

fn job(name: &str, image: &str, fields: Value) -> Value {
    let mut object = json!({ "metadata": { "name": name }, "spec": {
        "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": image }] } } } });
    for (field, value) in fields.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

/// The status once the condition is true.
async fn until(cluster: &Cluster, name: &str, condition: &str) -> JobStatus {
    eventually(condition, || async {
        let status = cluster.api::<Job>().get(name).await.unwrap().status?;
        let conditions = status.conditions.iter().flatten();
        let holds = conditions
            .into_iter()
            .any(|one| one.type_ == condition && one.status == "True");
        holds.then_some(status)
    })
    .await
}

async fn pods(cluster: &Cluster, job: &str) -> Vec<Pod> {
    cluster
        .list(&format!("batch.kubernetes.io/job-name={job}"))
        .await
}

async fn start() -> Cluster {
    let tuning = Tuning {
        job_backoff: Duration::from_millis(20),
        ..Tuning::default()
    };
    Cluster::start_with(2, tuning).await
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_complete_fail_and_go_with_every_pod_counted() {
    let cluster = start().await;
    cluster
        .create::<Job>(job(
            "good",
            "succeeds",
            json!({ "completions": 5, "parallelism": 2 }),
        ))
        .await;
    cluster
        .create::<Job>(job("bad", "fails", json!({ "backoffLimit": 2 })))
        .await;
    let indexed = json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed" });
    cluster
        .create::<Job>(job("indexed", "succeeds", indexed))
        .await;

    let status = until(&cluster, "good", "Complete").await;
    assert_eq!(
        (status.succeeded, status.failed, status.active),
        (Some(5), None, None)
    );
    assert!(status.completion_time.is_some());
    let status = until(&cluster, "bad", "Failed").await;
    assert_eq!((status.succeeded, status.failed), (None, Some(3)));
    let status = until(&cluster, "indexed", "Complete").await;
    assert_eq!(
        (status.succeeded, status.completed_indexes.as_deref()),
        (Some(3), Some("0-2"))
    );

    assert_eq!(pods(&cluster, "good").await.len(), 5);
    assert_eq!(pods(&cluster, "bad").await.len(), 3);
    eventually("no Pod is held back", || async {
        let all: Vec<Pod> = cluster.list("").await;
        all.iter()
            .all(|pod| pod.metadata.finalizers.is_none())
            .then_some(())
    })
    .await;
    eventually("the Events", || async {
        let events: Vec<Event> = cluster.list("").await;
        let told = |job: &str, reason: &str| {
            events.iter().any(|event| {
                event.involved_object.name.as_deref() == Some(job)
                    && event.reason.as_deref() == Some(reason)
            })
        };
        (told("good", "Completed")
            && told("good", "SuccessfulCreate")
            && told("bad", "BackoffLimitExceeded"))
        .then_some(())
    })
    .await;

    for name in ["good", "bad", "indexed"] {
        cluster
            .api::<Job>()
            .delete(name, &DeleteParams::background())
            .await
            .unwrap();
    }
    eventually("nothing is left", || async {
        cluster.list::<Pod>("").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_while_suspended_and_goes_after_its_time() {
    let cluster = start().await;
    let fields = json!({ "suspend": true, "ttlSecondsAfterFinished": 0 });
    cluster
        .create::<Job>(job("later", "succeeds", fields))
        .await;
    until(&cluster, "later", "Suspended").await;
    assert!(pods(&cluster, "later").await.is_empty());
    let resume = Patch::Merge(json!({ "spec": { "suspend": false } }));
    cluster
        .api::<Job>()
        .patch("later", &PatchParams::default(), &resume)
        .await
        .unwrap();
    eventually("the Job and its Pod are gone", || async {
        let job = cluster.api::<Job>().get_opt("later").await.unwrap();
        (job.is_none() && pods(&cluster, "later").await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_deleted_with_its_pods() {
    let cluster = start().await;
    cluster
        .create::<Job>(job(
            "long",
            "runs",
            json!({ "parallelism": 2, "completions": 2 }),
        ))
        .await;
    eventually("two Pods run", || async {
        let status = cluster.api::<Job>().get("long").await.unwrap().status?;
        (status.ready == Some(2) && status.active == Some(2)).then_some(())
    })
    .await;
    cluster
        .api::<Job>()
        .delete("long", &DeleteParams::foreground())
        .await
        .unwrap();
    eventually("nothing is left", || async {
        let job = cluster.api::<Job>().get_opt("long").await.unwrap();
        (job.is_none() && pods(&cluster, "long").await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_makes_jobs_and_keeps_the_last_ones() {
    let cluster = start().await;
    let template = job("", "succeeds", json!({}))["spec"].clone();
    cluster
        .create::<CronJob>(
            json!({ "metadata": { "name": "tick" }, "spec": { "schedule": "@every 1s",
            "successfulJobsHistoryLimit": 1, "jobTemplate": { "spec": template } } }),
        )
        .await;
    eventually("a Job of this minute has succeeded", || async {
        let status = cluster.api::<CronJob>().get("tick").await.unwrap().status?;
        status.last_schedule_time?;
        status.last_successful_time
    })
    .await;
    let jobs: Vec<Job> = cluster.list("").await;
    assert!(!jobs.is_empty());
    for job in &jobs {
        let name = job.metadata.name.as_deref().unwrap();
        assert!(name.starts_with("tick-"), "{name}");
        assert!(
            job.metadata
                .annotations
                .as_ref()
                .unwrap()
                .contains_key("batch.kubernetes.io/cronjob-scheduled-timestamp")
        );
    }
    cluster
        .api::<CronJob>()
        .delete("tick", &DeleteParams::background())
        .await
        .unwrap();
    eventually("nothing is left", || async {
        let jobs: Vec<Job> = cluster.list("").await;
        let pods: Vec<Pod> = cluster.list("").await;
        (jobs.is_empty() && pods.is_empty()).then_some(())
    })
    .await;
}
