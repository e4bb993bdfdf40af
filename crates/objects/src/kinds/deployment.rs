//! Deployment (apps/v1): rolls Pods from one template to the next, through ReplicaSets.

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{int_or_percent, pod_template, workload_status};
use crate::field::{FieldError, FieldErrors, immutable, not_negative};
use crate::go_value::Go;
use crate::kind::{Column, Names, Scale};
use crate::rules::Rules;
use crate::table;

pub(super) struct Deployments;

impl Rules for Deployments {
    type Object = Deployment;

    const NAMES: Names = Names {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        categories: &["all"],
        namespaced: true,
    };
    const STATUS: bool = true;
    // The controller tells the revision with it, which is no change of what is wanted.
    const STATUS_ANNOTATIONS: bool = true;
    const GENERATION: bool = true;
    const SCALE: Option<Scale> = Some(Scale {
        replicas: "/spec/replicas",
        observed: "/status/replicas",
        selector: "/spec/selector",
    });
    const POINTERS: &'static [&'static str] = &["/spec/selector"];

    fn default(object: &mut Deployment) {
        let spec = object.spec.get_or_insert_with(DeploymentSpec::default);
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        let strategy = spec
            .strategy
            .get_or_insert_with(DeploymentStrategy::default);
        let kind = strategy
            .type_
            .get_or_insert_with(|| "RollingUpdate".to_owned());
        if kind == "RollingUpdate" {
            let quarter = || IntOrString::String("25%".to_owned());
            let rolling = strategy
                .rolling_update
                .get_or_insert_with(RollingUpdateDeployment::default);
            rolling.max_unavailable.get_or_insert_with(quarter);
            rolling.max_surge.get_or_insert_with(quarter);
        }
        pod_template::default(&mut spec.template);
    }

    fn prepare_create(object: &mut Deployment) {
        object.status = Some(DeploymentStatus::default());
    }

    fn wants_change(new: &Value, old: &Value) -> bool {
        // Annotations count: they are passed on to the ReplicaSets.
        let annotations = "/metadata/annotations";
        new.get("spec") != old.get("spec") || new.pointer(annotations) != old.pointer(annotations)
    }

    fn validate_written(object: &Deployment, written: &Value) -> FieldErrors {
        let spec = object.spec.clone().unwrap_or_default();
        let mut errors = not_negative(spec.replicas.unwrap_or(1).into(), "spec.replicas");
        errors.extend(pod_template::validate_selector(
            &spec.selector,
            Some(&spec.template),
            written,
            "deployment",
        ));
        errors.extend(pod_template::validate(
            &spec.template,
            "spec.template",
            "ReplicaSet",
        ));
        errors.extend(validate_strategy(&spec.strategy.unwrap_or_default()));
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        errors.extend(not_negative(min_ready.into(), "spec.minReadySeconds"));
        if let Some(limit) = spec.revision_history_limit {
            errors.extend(not_negative(limit.into(), "spec.revisionHistoryLimit"));
        }
        if let Some(deadline) = spec.progress_deadline_seconds {
            errors.extend(not_negative(
                deadline.into(),
                "spec.progressDeadlineSeconds",
            ));
            if deadline <= min_ready {
                errors.push(FieldError::invalid(
                    "spec.progressDeadlineSeconds",
                    deadline,
                    "must be greater than minReadySeconds",
                ));
            }
        }
        errors
    }

    fn validate_update(new: &Deployment, old: &Deployment) -> FieldErrors {
        let selector = |o: &Deployment| o.spec.clone().unwrap_or_default().selector;
        immutable(&selector(new), &selector(old), "spec.selector")
    }

    fn validate_status(new: &Deployment, old: &Deployment) -> FieldErrors {
        let status = new.status.clone().unwrap_or_default();
        let replicas = status.replicas.unwrap_or(0);
        let ready = status.ready_replicas.unwrap_or(0);
        let available = ("availableReplicas", status.available_replicas.unwrap_or(0));
        let updated = ("updatedReplicas", status.updated_replicas.unwrap_or(0));
        let mut errors = workload_status::not_below_zero(&[
            (
                "observedGeneration",
                status.observed_generation.unwrap_or(0),
            ),
            ("replicas", replicas.into()),
            ("updatedReplicas", updated.1.into()),
            ("readyReplicas", ready.into()),
            ("availableReplicas", available.1.into()),
            (
                "unavailableReplicas",
                status.unavailable_replicas.unwrap_or(0).into(),
            ),
            (
                "terminatingReplicas",
                status.terminating_replicas.unwrap_or(0).into(),
            ),
            ("collisionCount", status.collision_count.unwrap_or(0).into()),
        ]);
        let parts = [updated, ("readyReplicas", ready), available];
        errors.extend(workload_status::at_most(
            &parts,
            replicas,
            "status.replicas",
        ));
        errors.extend(workload_status::at_most(
            &[available],
            ready,
            "readyReplicas",
        ));
        let before = old
            .status
            .as_ref()
            .and_then(|status| status.collision_count);
        errors.extend(workload_status::collisions(status.collision_count, before));
        errors
    }

    fn columns() -> Vec<Column> {
        let status = table::documented::<DeploymentStatus>;
        vec![
            table::name_column(),
            table::column("Ready", "string", "Number of the pod with ready state"),
            table::column("Up-to-date", "string", status("updatedReplicas")),
            table::column("Available", "string", status("availableReplicas")),
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
                table::documented::<DeploymentSpec>("selector"),
            ),
        ]
    }

    fn cells(object: &Deployment, now: i64) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let ready = status.ready_replicas.unwrap_or(0);
        let [names, images] = pod_template::container_cells(Some(&spec.template));
        vec![
            table::name(&object.metadata),
            Value::from(format!("{ready}/{}", spec.replicas.unwrap_or(0))),
            Value::from(status.updated_replicas.unwrap_or(0)),
            Value::from(status.available_replicas.unwrap_or(0)),
            table::age(&object.metadata, now),
            names,
            images,
            pod_template::selector_cell(&spec.selector),
        ]
    }
}

fn validate_strategy(strategy: &DeploymentStrategy) -> FieldErrors {
    let at = "spec.strategy";
    let rolling = strategy.rolling_update.as_ref();
    match strategy.type_.as_deref().unwrap_or_default() {
        "Recreate" => match rolling {
            Some(_) => vec![FieldError::forbidden(
                format!("{at}.rollingUpdate"),
                "may not be specified when strategy `type` is 'Recreate'",
            )],
            None => FieldErrors::new(),
        },
        "RollingUpdate" => match rolling {
            Some(rolling) => validate_rolling(rolling, &format!("{at}.rollingUpdate")),
            None => vec![FieldError::required(
                format!("{at}.rollingUpdate"),
                "this should be defaulted and never be nil",
            )],
        },
        other => vec![FieldError::not_supported(
            at,
            Go::fields([
                ("Type", Go::from(other)),
                ("RollingUpdate", rolling.map_or(Go::NIL, rolling_in_go)),
            ]),
            &["Recreate", "RollingUpdate"],
        )],
    }
}

fn rolling_in_go(rolling: &RollingUpdateDeployment) -> Go {
    // Left out is zero there.
    let amount = |value: &Option<IntOrString>| {
        let value = value.clone().unwrap_or(IntOrString::Int(0));
        Go::from(serde_json::to_value(value).unwrap_or_default())
    };
    Go::fields([
        ("MaxUnavailable", amount(&rolling.max_unavailable)),
        ("MaxSurge", amount(&rolling.max_surge)),
    ])
}

fn validate_rolling(rolling: &RollingUpdateDeployment, at: &str) -> FieldErrors {
    let unavailable = rolling.max_unavailable.as_ref();
    let unavailable_at = format!("{at}.maxUnavailable");
    let mut errors = FieldErrors::new();
    for (value, at) in [
        (unavailable, unavailable_at.clone()),
        (rolling.max_surge.as_ref(), format!("{at}.maxSurge")),
    ] {
        errors.extend(
            value
                .map(|value| int_or_percent::validate(value, &at))
                .into_iter()
                .flatten(),
        );
    }
    if int_or_percent::is_zero(unavailable) && int_or_percent::is_zero(rolling.max_surge.as_ref()) {
        errors.push(FieldError::invalid(
            unavailable_at.clone(),
            unavailable,
            "may not be 0 when `maxSurge` is 0",
        ));
    }
    let share = unavailable.map(|value| int_or_percent::validate_share(value, &unavailable_at));
    errors.extend(share.into_iter().flatten());
    errors
}

#[cfg(test)]
mod tests {
    use crate::kind::Kind;
    use crate::kinds;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn deployments() -> Arc<dyn Kind> {
        kinds::find("apps", "v1", "deployments").expect("deployments")
    }

    fn deployment(selector: Value) -> Value {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "namespace": "default"},
            "spec": {"replicas": 0, "selector": selector, "template": {"metadata": {"labels": {"app": "a"}},
                "spec": {"containers": [{"name": "c", "image": "x:1", "ports": [{"name": "web", "containerPort": 80}]}]}}}});
        if object["spec"]["selector"].is_null() {
            object["spec"]
                .as_object_mut()
                .expect("an object")
                .remove("selector");
        }
        let kind = deployments();
        let mut object = kind.decode(object).expect("decodes");
        kind.default(&mut object);
        object
    }

    fn errors(object: &Value) -> Vec<String> {
        deployments()
            .validate(object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_defaults_are_those_of_kubernetes() {
        let spec = deployment(json!({"matchLabels": {"app": "a"}}))["spec"].clone();
        assert_eq!(
            spec,
            json!({"progressDeadlineSeconds": 600, "replicas": 0, "revisionHistoryLimit": 10,
                "selector": {"matchLabels": {"app": "a"}},
                "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}, "type": "RollingUpdate"},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {
                    "containers": [{"image": "x:1", "imagePullPolicy": "IfNotPresent", "name": "c",
                        "ports": [{"containerPort": 80, "name": "web", "protocol": "TCP"}], "resources": {},
                        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                    "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                    "securityContext": {}, "terminationGracePeriodSeconds": 30}}})
        );
    }

    #[test]
    fn the_selector_must_find_the_pods_of_the_template() {
        assert_eq!(
            errors(&deployment(json!({"matchLabels": {"app": "a"}}))),
            [""; 0]
        );
        assert_eq!(
            errors(&deployment(json!({}))),
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
        );
        let mismatch = "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`";
        assert_eq!(
            errors(&deployment(Value::Null)),
            ["spec.selector: Required value", mismatch]
        );
        assert_eq!(
            errors(&deployment(json!({"matchLabels": {"app": "b"}}))),
            [mismatch]
        );
    }

    #[test]
    fn the_selector_never_changes() {
        let old = deployment(json!({"matchLabels": {"app": "a"}}));
        let new = deployment(json!({"matchLabels": {"app": "b"}}));
        let errors = deployments().validate_update(&new, &old);
        assert_eq!(
            errors[0].to_string(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"
        );
    }

    #[test]
    fn a_rolling_update_must_be_able_to_move() {
        let mut object = deployment(json!({"matchLabels": {"app": "a"}}));
        object["spec"]["strategy"]["rollingUpdate"] =
            json!({"maxSurge": 0, "maxUnavailable": "0%"});
        assert_eq!(
            errors(&object),
            [
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"
            ]
        );
        object["spec"]["strategy"]["rollingUpdate"] =
            json!({"maxSurge": "many", "maxUnavailable": -1});
        assert_eq!(errors(&object).len(), 2);
    }

    #[test]
    fn labels_do_not_raise_the_generation_but_annotations_do() {
        let mut old = deployment(json!({"matchLabels": {"app": "a"}}));
        old["metadata"]["generation"] = json!(4);
        for (field, generation) in [("labels", 4), ("annotations", 5)] {
            let mut new = old.clone();
            new["metadata"][field] = json!({"a": "b"});
            deployments().prepare_update(&mut new, &old);
            assert_eq!(new["metadata"]["generation"], generation, "{field}");
        }
    }
}
