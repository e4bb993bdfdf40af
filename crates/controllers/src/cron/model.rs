//! What the controller knows of a CronJob, with every default applied.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job, JobTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use seaway_objects::cron::Schedule;

use crate::claim::owner_reference;
use crate::object::ObjectKey;

/// Annotation on a Job: the time that it was made for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What happens when a Job still runs as the next is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concurrency {
    /// Both run.
    Allow,
    /// The next does not start.
    Forbid,
    /// The one that runs goes.
    Replace,
}

/// A CronJob.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Namespace and name.
    pub(crate) key: ObjectKey,
    /// Its metadata.
    pub(crate) meta: ObjectMeta,
    /// When Jobs are due.
    pub(crate) schedule: Schedule,
    /// In whose time.
    pub(crate) zone: TimeZone,
    /// So long after its time a Job may still start; `None`: always.
    pub(crate) starting_deadline: Option<Duration>,
    /// What happens when a Job still runs.
    pub(crate) concurrency: Concurrency,
    /// Whether it waits.
    pub(crate) suspended: bool,
    /// What Jobs look like.
    pub(crate) template: JobTemplateSpec,
    /// Jobs that succeeded to keep.
    pub(crate) keep_succeeded: usize,
    /// Jobs that failed to keep.
    pub(crate) keep_failed: usize,
    /// The status as last written.
    pub(crate) status: CronJobStatus,
}

impl Target {
    /// The controller's view; the error is the reason and the message of an Event.
    pub(crate) fn project(cron: &CronJob) -> Result<Self, (&'static str, String)> {
        let spec = cron.spec.clone();
        let schedule = Schedule::parse(&spec.schedule).map_err(|error| {
            (
                "UnparseableSchedule",
                format!("unparseable schedule: {:?} : {error}", spec.schedule),
            )
        })?;
        let zone = match spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|error| {
                (
                    "UnknownTimeZone",
                    format!("invalid timeZone: {name:?}: {error}"),
                )
            })?,
        };
        let count =
            |limit: Option<i32>, default| usize::try_from(limit.unwrap_or(default)).unwrap_or(0);
        let deadline = spec
            .starting_deadline_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        Ok(Self {
            key: ObjectKey::of(&cron.metadata),
            meta: cron.metadata.clone(),
            schedule,
            zone,
            starting_deadline: deadline.map(Duration::from_secs),
            concurrency: match spec.concurrency_policy.as_deref() {
                Some("Forbid") => Concurrency::Forbid,
                Some("Replace") => Concurrency::Replace,
                _ => Concurrency::Allow,
            },
            suspended: spec.suspend.unwrap_or_default(),
            template: spec.job_template,
            keep_succeeded: count(spec.successful_jobs_history_limit, 3),
            keep_failed: count(spec.failed_jobs_history_limit, 1),
            status: cron.status.clone().unwrap_or_default(),
        })
    }

    /// The Job for one time; its name says which, so that it is made once.
    pub(crate) fn job(&self, due: Timestamp) -> Job {
        let meta = self.template.metadata.clone().unwrap_or_default();
        let mut annotations = meta.annotations.unwrap_or_default();
        let local = due.to_zoned(self.zone.clone());
        annotations.insert(
            SCHEDULED.to_owned(),
            local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        );
        Job {
            metadata: ObjectMeta {
                name: Some(format!("{}-{}", self.key.name, due.as_second() / 60)),
                namespace: Some(self.key.namespace.clone()),
                labels: meta.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![owner_reference::<CronJob>(&self.meta)]),
                ..ObjectMeta::default()
            },
            spec: self.template.spec.clone(),
            status: None,
        }
    }
}
