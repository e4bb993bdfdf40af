//! ReplicaSet (apps/v1): keeps a number of equal Pods running, for a Deployment most of the time.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use serde_json::Value;

use super::{pod_template, workload_status};
use crate::field::{FieldError, FieldErrors, immutable, not_negative};
use crate::kind::{Column, Names, Scale};
use crate::rules::Rules;
use crate::table;

pub(super) struct ReplicaSets;

impl Rules for ReplicaSets {
    type Object = ReplicaSet;

    const NAMES: Names = Names {
        group: "apps",
        version: "v1",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        categories: &["all"],
        namespaced: true,
    };
    const STATUS: bool = true;
    const GENERATION: bool = true;
    const SCALE: Option<Scale> = Some(Scale {
        replicas: "/spec/replicas",
        observed: "/status/replicas",
        selector: "/spec/selector",
    });
    const POINTERS: &'static [&'static str] = &["/spec/selector"];

    fn default(object: &mut ReplicaSet) {
        let spec = object.spec.get_or_insert_with(ReplicaSetSpec::default);
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            pod_template::default(template);
        }
    }

    fn prepare_create(object: &mut ReplicaSet) {
        object.status = Some(ReplicaSetStatus::default());
    }

    fn validate_written(object: &ReplicaSet, written: &Value) -> FieldErrors {
        let spec = object.spec.clone().unwrap_or_default();
        let mut errors = not_negative(spec.replicas.unwrap_or(1).into(), "spec.replicas");
        if let Some(seconds) = spec.min_ready_seconds {
            errors.extend(not_negative(seconds.into(), "spec.minReadySeconds"));
        }
        errors.extend(pod_template::validate_selector(
            &spec.selector,
            spec.template.as_ref(),
            written,
            "deployment",
        ));
        match &spec.template {
            None => errors.push(FieldError::required("spec.template", "")),
            Some(template) => errors.extend(pod_template::validate(
                template,
                "spec.template",
                "ReplicaSet",
            )),
        }
        errors
    }

    fn validate_update(new: &ReplicaSet, old: &ReplicaSet) -> FieldErrors {
        let selector = |o: &ReplicaSet| o.spec.clone().unwrap_or_default().selector;
        immutable(&selector(new), &selector(old), "spec.selector")
    }

    fn validate_status(new: &ReplicaSet, _old: &ReplicaSet) -> FieldErrors {
        let status = new.status.clone().unwrap_or_default();
        let labeled = (
            "fullyLabeledReplicas",
            status.fully_labeled_replicas.unwrap_or(0),
        );
        let ready = ("readyReplicas", status.ready_replicas.unwrap_or(0));
        let available = ("availableReplicas", status.available_replicas.unwrap_or(0));
        let mut errors = workload_status::not_below_zero(&[
            ("replicas", status.replicas.into()),
            ("fullyLabeledReplicas", labeled.1.into()),
            ("readyReplicas", ready.1.into()),
            ("availableReplicas", available.1.into()),
            (
                "observedGeneration",
                status.observed_generation.unwrap_or(0),
            ),
        ]);
        let parts = [labeled, ready, available];
        errors.extend(workload_status::at_most(
            &parts,
            status.replicas,
            "status.replicas",
        ));
        errors.extend(workload_status::at_most(
            &[available],
            ready.1,
            "readyReplicas",
        ));
        errors
    }

    fn columns() -> Vec<Column> {
        let spec = table::documented::<ReplicaSetSpec>;
        let status = table::documented::<ReplicaSetStatus>;
        vec![
            table::name_column(),
            table::column("Desired", "integer", spec("replicas")),
            table::column("Current", "integer", status("replicas")),
            table::column("Ready", "integer", status("readyReplicas")),
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
            table::wide("Selector", "string", spec("selector")),
        ]
    }

    fn cells(object: &ReplicaSet, now: i64) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let [names, images] = pod_template::container_cells(spec.template.as_ref());
        vec![
            table::name(&object.metadata),
            Value::from(spec.replicas.unwrap_or(0)),
            Value::from(status.replicas),
            Value::from(status.ready_replicas.unwrap_or(0)),
            table::age(&object.metadata, now),
            names,
            images,
            pod_template::selector_cell(&spec.selector),
        ]
    }

    fn fields(object: &ReplicaSet) -> Vec<(&'static str, String)> {
        let replicas = object.status.as_ref().map_or(0, |s| s.replicas);
        vec![("status.replicas", replicas.to_string())]
    }
}
