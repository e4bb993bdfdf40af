//! CronJob (batch/v1): makes Jobs at the times of a schedule.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, JobSpec};
use serde_json::Value;

use super::{job, pod_template};
use crate::cron::Schedule;
use crate::field::{FieldError, FieldErrors, not_negative, one_of};
use crate::kind::{Column, Names};
use crate::rules::Rules;
use crate::table;

/// A Job's name is this one with eleven characters, and it is a label.
const NAME_LENGTH: usize = 52;
/// Length of a part of a time zone's name. Source: <https://data.iana.org/time-zones/theory.html#naming>.
const ZONE_PART_LENGTH: usize = 14;

pub(super) struct CronJobs;

impl Rules for CronJobs {
    type Object = CronJob;

    const NAMES: Names = Names {
        group: "batch",
        version: "v1",
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        short_names: &["cj"],
        categories: &["all"],
        namespaced: true,
    };
    const STATUS: bool = true;
    const GENERATION: bool = true;

    fn default(object: &mut CronJob) {
        let spec = &mut object.spec;
        spec.concurrency_policy
            .get_or_insert_with(|| "Allow".to_owned());
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        if let Some(spec) = &mut spec.job_template.spec {
            // What a Job gets only when it is made is not filled in here. Source: `SetDefaults_CronJob`.
            pod_template::default(&mut spec.template);
        }
    }

    fn prepare_create(object: &mut CronJob) {
        object.status = Some(CronJobStatus::default());
    }

    fn validate(object: &CronJob) -> FieldErrors {
        let spec = object.spec.clone();
        let mut errors = FieldErrors::new();
        errors.extend(validate_schedule(&spec));
        if let Some(seconds) = spec.starting_deadline_seconds {
            errors.extend(not_negative(seconds, "spec.startingDeadlineSeconds"));
        }
        errors.extend(validate_zone(spec.time_zone.as_deref()));
        let policy_at = "spec.concurrencyPolicy";
        match spec.concurrency_policy.as_deref().unwrap_or_default() {
            "" => errors.push(FieldError::required(policy_at, "")),
            policy => errors.extend(one_of(policy, &["Allow", "Forbid", "Replace"], policy_at)),
        }
        let template = spec.job_template.spec.unwrap_or_default();
        errors.extend(job::validate_spec(&template, "spec.jobTemplate.spec"));
        errors.extend(no_selector(&template));
        for (field, limit) in [
            (
                "successfulJobsHistoryLimit",
                spec.successful_jobs_history_limit,
            ),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
        ] {
            if let Some(limit) = limit {
                errors.extend(not_negative(limit.into(), &format!("spec.{field}")));
            }
        }
        let name = object.metadata.name.as_deref().unwrap_or_default();
        if name.len() > NAME_LENGTH {
            errors.push(FieldError::invalid(
                "metadata.name",
                name,
                "must be no more than 52 characters",
            ));
        }
        errors
    }

    fn columns() -> Vec<Column> {
        let spec = table::documented::<CronJobSpec>;
        let status = table::documented::<CronJobStatus>;
        vec![
            table::name_column(),
            table::column("Schedule", "string", spec("schedule")),
            table::column("Timezone", "string", spec("timeZone")),
            table::column("Suspend", "boolean", spec("suspend")),
            table::column("Active", "integer", status("active")),
            table::column("Last Schedule", "string", status("lastScheduleTime")),
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

    fn cells(object: &CronJob, now: i64) -> Vec<Value> {
        let spec = object.spec.clone();
        let status = object.status.clone().unwrap_or_default();
        let template = spec.job_template.spec.unwrap_or_default();
        let [names, images] = pod_template::container_cells(Some(&template.template));
        let last = status.last_schedule_time.as_ref();
        let suspend = match spec.suspend {
            None => "<unset>",
            Some(true) => "True",
            Some(false) => "False",
        };
        vec![
            table::name(&object.metadata),
            Value::from(spec.schedule),
            Value::from(table::or_none(spec.time_zone.unwrap_or_default())),
            Value::from(suspend),
            Value::from(status.active.map_or(0, |active| active.len())),
            Value::from(last.map_or_else(
                || table::NONE.to_owned(),
                |time| table::since(Some(time), now),
            )),
            table::age(&object.metadata, now),
            names,
            images,
            Value::from(table::NONE),
        ]
    }
}

fn validate_schedule(spec: &CronJobSpec) -> FieldErrors {
    let at = "spec.schedule";
    if spec.schedule.is_empty() {
        return vec![FieldError::required(at, "")];
    }
    let mut errors = FieldErrors::new();
    if spec.schedule.contains("TZ") {
        errors.push(FieldError::invalid(
            at,
            &spec.schedule,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ));
    } else if let Err(e) = Schedule::parse(&spec.schedule) {
        errors.push(FieldError::invalid(at, &spec.schedule, &e.to_string()));
    }
    errors
}

fn validate_zone(zone: Option<&str>) -> FieldErrors {
    let at = "spec.timeZone";
    let Some(zone) = zone else {
        return FieldErrors::new();
    };
    if zone.is_empty() {
        return vec![FieldError::invalid(
            at,
            zone,
            "timeZone must be nil or non-empty string",
        )];
    }
    let odd = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
        part.is_empty()
            || part == "."
            || part == ".."
            || part.starts_with('-')
            || part.len() > ZONE_PART_LENGTH
            || !part.bytes().all(plain)
    };
    if zone.split('/').any(odd) {
        return vec![FieldError::invalid(
            at,
            zone,
            &format!("unknown time zone {zone}"),
        )];
    }
    if zone.eq_ignore_ascii_case("Local") {
        return vec![FieldError::invalid(
            at,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        )];
    }
    FieldErrors::new()
}

/// The selector of each Job is made by the server.
fn no_selector(template: &JobSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if let Some(selector) = &template.selector {
        errors.push(FieldError::invalid(
            "spec.jobTemplate.spec.selector",
            selector,
            "`selector` will be auto-generated",
        ));
    }
    if template.manual_selector == Some(true) {
        errors.push(FieldError::not_supported(
            "spec.jobTemplate.spec.manualSelector",
            true,
            &["nil", "false"],
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::{Value, json};

    fn made(change: impl FnOnce(&mut Value)) -> Value {
        let kind = kinds::find("batch", "v1", "cronjobs").expect("cronjobs");
        let mut object = json!({"metadata": {"name": "c", "namespace": "default"}, "spec": {"schedule": "*/5 * * * *",
            "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}});
        change(&mut object);
        let mut object = kind.decode(object).expect("decodes");
        kind.default(&mut object);
        kind.prepare_create(&mut object);
        object
    }

    fn errors(object: &Value) -> Vec<String> {
        let kind = kinds::find("batch", "v1", "cronjobs").expect("cronjobs");
        kind.validate(object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_defaults_are_those_of_kubernetes() {
        let object = made(|_| {});
        let spec = &object["spec"];
        assert_eq!(
            (
                &spec["concurrencyPolicy"],
                &spec["suspend"],
                &spec["successfulJobsHistoryLimit"],
                &spec["failedJobsHistoryLimit"]
            ),
            (&json!("Allow"), &json!(false), &json!(3), &json!(1))
        );
        assert_eq!(spec["jobTemplate"]["spec"]["completions"], Value::Null);
        assert_eq!(errors(&object), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_said_in_kubernetes_words() {
        for (field, value, message) in [
            (
                "schedule",
                json!("* * *"),
                "spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]",
            ),
            ("schedule", json!(""), "spec.schedule: Required value"),
            (
                "schedule",
                json!("TZ=UTC 0 0 * * *"),
                "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ),
            (
                "timeZone",
                json!("not a zone"),
                "spec.timeZone: Invalid value: \"not a zone\": unknown time zone not a zone",
            ),
            (
                "concurrencyPolicy",
                json!("Maybe"),
                "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ),
            (
                "failedJobsHistoryLimit",
                json!(-1),
                "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            ),
        ] {
            let object = made(|object| object["spec"][field] = value);
            assert_eq!(errors(&object), [message], "{field}");
        }
        let long = made(|object| object["metadata"]["name"] = json!("a".repeat(53)));
        assert!(errors(&long)[0].ends_with("must be no more than 52 characters"));
    }
}
