//! ReplicationController: keeps a number of equal Pods running; the oldest of its sort.

use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus,
};
use serde_json::Value;

use super::{pod_template, workload_status};
use crate::field::{FieldError, FieldErrors, not_negative};
use crate::kind::{Column, Names, Scale};
use crate::rules::Rules;
use crate::selector::LabelSelector;
use crate::table;

pub(super) struct ReplicationControllers;

impl Rules for ReplicationControllers {
    type Object = ReplicationController;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        singular: "replicationcontroller",
        short_names: &["rc"],
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

    fn default(object: &mut ReplicationController) {
        let spec = object
            .spec
            .get_or_insert_with(ReplicationControllerSpec::default);
        let labels = pod_template::labels(spec.template.as_ref());
        if !labels.is_empty() {
            if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
                spec.selector = Some(labels.clone());
            }
            if object.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
                object.metadata.labels = Some(labels);
            }
        }
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            pod_template::default(template);
        }
    }

    fn prepare_create(object: &mut ReplicationController) {
        object.status = Some(ReplicationControllerStatus::default());
    }

    fn validate(object: &ReplicationController) -> FieldErrors {
        let spec = object.spec.clone().unwrap_or_default();
        let mut errors = FieldErrors::new();
        if let Some(seconds) = spec.min_ready_seconds {
            errors.extend(not_negative(seconds.into(), "spec.minReadySeconds"));
        }
        let selector = spec.selector.unwrap_or_default();
        if selector.is_empty() {
            errors.push(FieldError::required("spec.selector", ""));
        }
        errors.extend(not_negative(
            spec.replicas.unwrap_or(1).into(),
            "spec.replicas",
        ));
        match &spec.template {
            None => errors.push(FieldError::required("spec.template", "")),
            Some(template) => {
                if !selector.is_empty() {
                    let wanted = LabelSelector::from_map(&selector);
                    errors.extend(pod_template::validate_match(
                        &wanted,
                        Some(template),
                        "spec.template",
                    ));
                }
                errors.extend(pod_template::validate(
                    template,
                    "spec.template",
                    "ReplicationController",
                ));
            }
        }
        errors
    }

    fn validate_status(new: &ReplicationController, _old: &ReplicationController) -> FieldErrors {
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
        let spec = table::documented::<ReplicationControllerSpec>;
        let status = table::documented::<ReplicationControllerStatus>;
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

    fn cells(object: &ReplicationController, now: i64) -> Vec<Value> {
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
            Value::from(table::labels(spec.selector.as_ref())),
        ]
    }

    fn fields(object: &ReplicationController) -> Vec<(&'static str, String)> {
        let replicas = object.status.as_ref().map_or(0, |s| s.replicas);
        vec![("status.replicas", replicas.to_string())]
    }
}
