//! The loop: from events of CronJobs and their Jobs to keys, from the clock to Jobs.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, Preconditions};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::due;
use super::model::{Concurrency, Target};
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::events::{self, Recorder};
use crate::object::{self, ObjectKey};
use crate::queue::{Next, Queue};

const NAME: &str = "cronjob-controller";
/// CronJobs worked on at the same time.
const PARALLEL: usize = 4;

/// Makes the Jobs of all CronJobs.
pub(crate) struct CronJobs {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
    events: Recorder,
}

impl CronJobs {
    /// Listens to the caches; [`CronJobs::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            events: cluster.events.named(NAME),
        });
        let queue = this.queue.clone();
        cluster.cron_jobs.on_change(move |change| {
            queue.add(ObjectKey::of(&change.latest().metadata));
        });
        let queue = this.queue.clone();
        cluster.jobs.on_change(move |change| {
            for job in change.states() {
                let controller =
                    object::controller_of(&job.metadata).filter(|one| one.kind == "CronJob");
                let namespace = job.metadata.namespace.as_deref();
                if let (Some(controller), Some(namespace)) = (controller, namespace) {
                    queue.add(ObjectKey::new(namespace, &controller.name));
                }
            }
        });
        this
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.clone();
        queue
            .run(NAME, PARALLEL, shutdown, |key| {
                let this = Arc::clone(&self);
                async move { this.reconcile(&key).await }
            })
            .await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(cron) = self.cluster.cron_jobs.get(key) else {
            return Ok(Next::Done);
        };
        let target = match Target::project(&cron) {
            Ok(target) => target,
            Err((reason, message)) => {
                self.events.warning(
                    events::reference::<CronJob>(&cron.metadata),
                    reason,
                    message,
                );
                return Ok(Next::Done);
            }
        };
        let uid = object::uid_of(&target.meta);
        let jobs = self.cluster.jobs.find(&cluster::by_controller(), uid);
        let mut status = target.status.clone();
        let known = status.active.clone().unwrap_or_default();
        for job in jobs.iter().filter(|job| ending(job).is_some()) {
            let name = job.metadata.name.clone().unwrap_or_default();
            if known.iter().any(|one| one.uid == job.metadata.uid) {
                let condition = ending(job).unwrap_or_default();
                let message = format!("Saw completed job: {name}, condition: {condition}");
                self.events.normal(
                    events::reference::<CronJob>(&target.meta),
                    "SawCompletedJob",
                    message,
                );
            }
            let done = job
                .status
                .as_ref()
                .and_then(|status| status.completion_time.clone());
            status.last_successful_time = status.last_successful_time.max(done);
        }
        let mut running: Vec<Arc<Job>> = jobs
            .iter()
            .filter(|job| ending(job).is_none())
            .cloned()
            .collect();
        running.sort_by_key(|job| job.metadata.name.clone());
        let mut active: Vec<ObjectReference> = running
            .iter()
            .map(|job| events::reference::<Job>(&job.metadata))
            .collect();

        let going = object::is_deleting(&target.meta);
        let mut next = Next::Done;
        let mut outcome = Ok(());
        if !going {
            self.forget_old(&target, &jobs).await?;
        }
        if !going && !target.suspended {
            let now = Timestamp::now();
            let base = target
                .meta
                .creation_timestamp
                .as_ref()
                .map_or(now, |time| time.0);
            let since = status
                .last_schedule_time
                .as_ref()
                .map_or(base, |time| time.0);
            if let Some(at) = due::last(&target.schedule, &target.zone, base, since, now) {
                match self.start(&target, &running, at, now).await {
                    Ok(Started::Job(reference)) => {
                        if target.concurrency == Concurrency::Replace {
                            active.clear();
                        }
                        active.push(*reference);
                        status.last_schedule_time = Some(Time(at));
                    }
                    Ok(Started::Missed) => status.last_schedule_time = Some(Time(at)),
                    Ok(Started::NotYet) => {}
                    Err(error) => outcome = Err(error),
                }
            }
            if let Some(at) = due::next(&target.schedule, &target.zone, base, now) {
                next = Next::After(Duration::try_from(at.duration_since(now)).unwrap_or_default());
            }
        }
        status.active = Some(active).filter(|all| !all.is_empty());
        if json!(status) != json!(target.status) {
            let patch = json!({
                "metadata": { "uid": target.meta.uid, "resourceVersion": target.meta.resource_version },
                "status": { "active": status.active, "lastScheduleTime": status.last_schedule_time,
                    "lastSuccessfulTime": status.last_successful_time },
            });
            let api = self.cluster.api::<CronJob>(&key.namespace);
            let answer = api
                .patch_status(&key.name, &cluster::patch(), &Patch::Merge(&patch))
                .await;
            or_gone(answer.during("write status of CronJob", key))?;
        }
        outcome?;
        Ok(next)
    }

    /// Makes the Job for a time, if it may start.
    async fn start(
        &self,
        target: &Target,
        running: &[Arc<Job>],
        due: Timestamp,
        now: Timestamp,
    ) -> Result<Started, Error> {
        let about = || events::reference::<CronJob>(&target.meta);
        let late = Duration::try_from(now.duration_since(due)).unwrap_or_default();
        if target.starting_deadline.is_some_and(|most| late > most) {
            let message = format!(
                "Missed scheduled time to start a job: {}",
                due.strftime("%a, %d %b %Y %H:%M:%S +0000")
            );
            self.events.warning(about(), "MissSchedule", message);
            return Ok(Started::Missed);
        }
        if target.concurrency == Concurrency::Forbid && !running.is_empty() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.events
                .normal(about(), "JobAlreadyActive", message.to_owned());
            return Ok(Started::NotYet);
        }
        if target.concurrency == Concurrency::Replace {
            for job in running {
                self.delete(target, job).await?;
            }
        }
        let new = target.job(due);
        let key = ObjectKey::of(&new.metadata);
        let api = self.cluster.api::<Job>(&key.namespace);
        match api
            .create(&cluster::post(), &new)
            .await
            .during("create Job", &key)
        {
            Ok(made) => {
                self.events.normal(
                    about(),
                    "SuccessfulCreate",
                    format!("Created job {}", key.name),
                );
                Ok(Started::Job(Box::new(events::reference::<Job>(
                    &made.metadata,
                ))))
            }
            Err(error) if error.is_namespace_terminating() => Ok(Started::NotYet),
            // Made in an earlier round whose status was not written.
            Err(error) if error.is_already_exists() => {
                let made = or_gone(api.get(&key.name).await.during("read Job", &key))?;
                let ours = made.filter(|made| {
                    object::controller_of(&made.metadata)
                        .is_some_and(|one| Some(&one.uid) == target.meta.uid.as_ref())
                });
                Ok(ours.map_or(Started::Missed, |made| {
                    Started::Job(Box::new(events::reference::<Job>(&made.metadata)))
                }))
            }
            Err(error) => {
                let message = format!("Error creating job: {}", error.told());
                self.events.warning(about(), "FailedCreate", message);
                Err(error)
            }
        }
    }

    /// Deletes Jobs that ended, beyond those that are kept.
    async fn forget_old(&self, target: &Target, jobs: &[Arc<Job>]) -> Result<(), Error> {
        for (kind, keep) in [
            ("Complete", target.keep_succeeded),
            ("Failed", target.keep_failed),
        ] {
            let mut ended: Vec<&Arc<Job>> = jobs
                .iter()
                .filter(|job| ending(job) == Some(kind) && !object::is_deleting(&job.metadata))
                .collect();
            ended.sort_by_key(|job| {
                (
                    job.metadata.creation_timestamp.as_ref().map(|time| time.0),
                    job.metadata.name.clone(),
                )
            });
            ended.truncate(ended.len().saturating_sub(keep));
            for job in ended {
                self.delete(target, job).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, target: &Target, job: &Job) -> Result<(), Error> {
        let key = ObjectKey::of(&job.metadata);
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid: job.metadata.uid.clone(),
            resource_version: None,
        });
        let answer = self
            .cluster
            .api::<Job>(&key.namespace)
            .delete(&key.name, &parameters)
            .await;
        if or_gone(answer.during("delete Job", &key))?.is_some() {
            let about = events::reference::<CronJob>(&target.meta);
            self.events.normal(
                about,
                "SuccessfulDelete",
                format!("Deleted job {}", key.name),
            );
        }
        Ok(())
    }
}

/// What became of a time that is due.
enum Started {
    /// Its Job is there.
    Job(Box<ObjectReference>),
    /// It is over.
    Missed,
    /// Its Job may start later.
    NotYet,
}

/// How a Job ended.
fn ending(job: &Job) -> Option<&'static str> {
    let conditions = job
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ends = conditions
        .filter(|one| one.status == "True")
        .filter_map(|one| match one.type_.as_str() {
            "Complete" => Some("Complete"),
            "Failed" => Some("Failed"),
            _ => None,
        });
    ends.next()
}
