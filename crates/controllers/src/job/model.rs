//! What the planner knows of a Job, with every default applied.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobStatus, PodFailurePolicyRule, SuccessPolicyRule};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object::ObjectKey;
use seaway_objects::selector::LabelSelector;

/// The finalizer of Pods that are not counted yet.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Who runs Jobs that name nobody.
const MANAGER: &str = "kubernetes.io/job-controller";

/// A Job.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Namespace and name.
    pub(crate) key: ObjectKey,
    /// Its metadata, for the references of its Pods.
    pub(crate) meta: ObjectMeta,
    /// Which Pods are meant.
    pub(crate) selector: LabelSelector,
    /// What new Pods look like.
    pub(crate) template: PodTemplateSpec,
    /// Pods at a time.
    pub(crate) parallelism: i32,
    /// Successes wanted; `None`: one, and then no new Pods.
    pub(crate) completions: Option<i32>,
    /// Whether each completion has an index of its own.
    pub(crate) indexed: bool,
    /// Failures after which the Job has failed.
    pub(crate) backoff_limit: i32,
    /// Failures after which an index has failed.
    pub(crate) backoff_limit_per_index: Option<i32>,
    /// Failed indexes after which the Job has failed.
    pub(crate) max_failed_indexes: Option<i32>,
    /// What a failure means, by the first rule that fits.
    pub(crate) failure_rules: Vec<PodFailurePolicyRule>,
    /// When it is enough.
    pub(crate) success_rules: Vec<SuccessPolicyRule>,
    /// How long it may take, from its start.
    pub(crate) deadline: Option<Duration>,
    /// How long it stays after its end.
    pub(crate) ttl: Option<Duration>,
    /// Whether it waits.
    pub(crate) suspended: bool,
    /// Whether a Pod is replaced only when it has ended, not already when it goes.
    pub(crate) replaces_ended_only: bool,
    /// Whether containers are started again in their Pod.
    pub(crate) restarts_on_failure: bool,
    /// The status as last written.
    pub(crate) status: JobStatus,
}

impl Target {
    /// The planner's view; `None` for a Job that somebody else runs; the error says what makes it unusable.
    pub(crate) fn project(job: &Job) -> Result<Option<Self>, String> {
        let spec = job.spec.as_ref().ok_or("spec is missing")?;
        if spec
            .managed_by
            .as_deref()
            .is_some_and(|manager| manager != MANAGER)
        {
            return Ok(None);
        }
        let selector = LabelSelector::from_object(spec.selector.as_ref())
            .map_err(|error| format!("spec.selector: {error}"))?;
        if selector.is_everything() {
            return Err(
                "spec.selector is empty: it would take every Pod of the namespace".to_owned(),
            );
        }
        let seconds = |number: i64| Duration::from_secs(u64::try_from(number).unwrap_or(0));
        let restart = spec
            .template
            .spec
            .as_ref()
            .and_then(|pod| pod.restart_policy.as_deref());
        Ok(Some(Self {
            key: ObjectKey::of(&job.metadata),
            meta: job.metadata.clone(),
            selector,
            template: spec.template.clone(),
            parallelism: spec.parallelism.unwrap_or(1).max(0),
            completions: spec.completions,
            indexed: spec.completion_mode.as_deref() == Some("Indexed"),
            backoff_limit: spec.backoff_limit.unwrap_or(6),
            backoff_limit_per_index: spec.backoff_limit_per_index,
            max_failed_indexes: spec.max_failed_indexes,
            failure_rules: spec
                .pod_failure_policy
                .clone()
                .map(|policy| policy.rules)
                .unwrap_or_default(),
            success_rules: spec
                .success_policy
                .clone()
                .map(|policy| policy.rules)
                .unwrap_or_default(),
            deadline: spec.active_deadline_seconds.map(seconds),
            ttl: spec
                .ttl_seconds_after_finished
                .map(|number| seconds(number.into())),
            suspended: spec.suspend.unwrap_or_default(),
            replaces_ended_only: spec.pod_replacement_policy.as_deref() == Some("Failed"),
            restarts_on_failure: restart == Some("OnFailure"),
            status: job.status.clone().unwrap_or_default(),
        }))
    }

    /// Completions of an Indexed Job.
    pub(crate) fn index_count(&self) -> i32 {
        self.completions.unwrap_or(0)
    }
}
