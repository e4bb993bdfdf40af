//! Job (batch/v1): Pods that run until so many of them have succeeded.

mod policies;
mod status;
mod update;
mod validate;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use serde_json::Value;

use super::pod_template;
use crate::field::FieldErrors;
use crate::kind::{Column, Names};
use crate::rules::Rules;
use crate::table;

pub(super) use validate::validate_spec;

/// Labels that the server gives the Pods of a Job: with the Job's UID, and with its name; each in the present and in
/// the old form.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

pub(super) struct Jobs;

impl Rules for Jobs {
    type Object = Job;

    const NAMES: Names = Names {
        group: "batch",
        version: "v1",
        kind: "Job",
        plural: "jobs",
        singular: "job",
        short_names: &[],
        categories: &["all"],
        namespaced: true,
    };
    const STATUS: bool = true;
    const GENERATION: bool = true;

    fn default(object: &mut Job) {
        let spec = object.spec.get_or_insert_with(JobSpec::default);
        default_spec(spec);
        let labels = pod_template::labels(Some(&spec.template));
        if !labels.is_empty()
            && object
                .metadata
                .labels
                .as_ref()
                .is_none_or(BTreeMap::is_empty)
        {
            object.metadata.labels = Some(labels);
        }
    }

    fn prepare_create(object: &mut Job) {
        object.status = Some(JobStatus::default());
        let (name, uid) = (
            object.metadata.name.clone().unwrap_or_default(),
            object.metadata.uid.clone().unwrap_or_default(),
        );
        let spec = object.spec.get_or_insert_with(JobSpec::default);
        let before = pod_template::labels(Some(&spec.template));
        if spec.manual_selector != Some(true) {
            generate_selector(spec, &name, &uid);
        }
        // A Job without labels of its own has those of its Pods, the generated ones included.
        let own = object.metadata.labels.get_or_insert_default();
        if *own == before {
            *own = pod_template::labels(Some(&spec.template));
        }
    }

    fn validate(object: &Job) -> FieldErrors {
        validate::validate(object)
    }

    fn validate_update(new: &Job, old: &Job) -> FieldErrors {
        update::validate(new, old)
    }

    fn validate_status(new: &Job, old: &Job) -> FieldErrors {
        status::validate(new, old)
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column("Status", "string", "Status of the job."),
            table::column(
                "Completions",
                "string",
                table::documented::<JobStatus>("succeeded"),
            ),
            table::column("Duration", "string", "Time required to complete the job."),
            table::age_column(),
            table::wide(
                "Containers",
                "string",
                "Names of each container in the template.",
            ),
            table::wide(
                "Images",
                "string",
                "Images referenced by each container in the template.",
            ),
            table::wide(
                "Selector",
                "string",
                table::documented::<JobSpec>("selector"),
            ),
        ]
    }

    fn cells(object: &Job, now: i64) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let [names, images] = pod_template::container_cells(Some(&spec.template));
        let selector = spec
            .selector
            .as_ref()
            .map_or_else(|| Value::from(table::NONE), pod_template::selector_cell);
        vec![
            table::name(&object.metadata),
            Value::from(word(object)),
            Value::from(completions(&spec, &status)),
            Value::from(duration(&status, now)),
            table::age(&object.metadata, now),
            names,
            images,
            selector,
        ]
    }

    fn fields(object: &Job) -> Vec<(&'static str, String)> {
        let succeeded = object
            .status
            .as_ref()
            .and_then(|status| status.succeeded)
            .unwrap_or(0);
        vec![("status.successful", succeeded.to_string())]
    }
}

/// Fills in the defaults of a Job's spec, wherever it stands. Source: `SetDefaults_Job`.
pub(super) fn default_spec(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let no_limit = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit
        .get_or_insert(if no_limit { i32::MAX } else { 6 });
    spec.completion_mode
        .get_or_insert_with(|| "NonIndexed".to_owned());
    spec.suspend.get_or_insert(false);
    spec.manual_selector.get_or_insert(false);
    let rules = spec
        .pod_failure_policy
        .iter_mut()
        .flat_map(|policy| &mut policy.rules);
    for pattern in rules
        .filter_map(|rule| rule.on_pod_conditions.as_mut())
        .flatten()
    {
        if pattern.status.as_deref().unwrap_or_default().is_empty() {
            pattern.status = Some("True".to_owned());
        }
    }
    let replacement = match &spec.pod_failure_policy {
        Some(_) => "Failed",
        None => "TerminatingOrFailed",
    };
    spec.pod_replacement_policy
        .get_or_insert_with(|| replacement.to_owned());
    pod_template::default(&mut spec.template);
}

/// Source: `generateSelector` of the Job's strategy.
fn generate_selector(spec: &mut JobSpec, name: &str, uid: &str) {
    let meta = spec.template.metadata.get_or_insert_default();
    let labels = meta.labels.get_or_insert_default();
    for (keys, value) in [(NAME_LABELS, name), (UID_LABELS, uid)] {
        for key in keys {
            labels
                .entry(key.to_owned())
                .or_insert_with(|| value.to_owned());
        }
    }
    let selector = spec.selector.get_or_insert_default();
    let wanted = selector.match_labels.get_or_insert_default();
    wanted
        .entry(UID_LABELS[1].to_owned())
        .or_insert_with(|| uid.to_owned());
}

/// Whether a condition is there and true.
fn has_condition(job: &Job, kind: &str) -> bool {
    let conditions = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

fn word(job: &Job) -> &'static str {
    if has_condition(job, "Complete") {
        "Complete"
    } else if has_condition(job, "Failed") {
        "Failed"
    } else if job.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if has_condition(job, "Suspended") {
        "Suspended"
    } else if has_condition(job, "FailureTarget") {
        "FailureTarget"
    } else if has_condition(job, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(spec: &JobSpec, status: &JobStatus) -> String {
    let succeeded = status.succeeded.unwrap_or(0);
    match (spec.completions, spec.parallelism.unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(status: &JobStatus, now: i64) -> String {
    let Some(start) = &status.start_time else {
        return String::new();
    };
    let end = status
        .completion_time
        .as_ref()
        .map_or(now, |end| end.0.as_second());
    table::human_duration(end - start.0.as_second())
}

#[cfg(test)]
mod tests;
