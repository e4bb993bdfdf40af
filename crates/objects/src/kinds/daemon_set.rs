//! DaemonSet (apps/v1): one Pod on every node.

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{int_or_percent, pod_template, workload_status};
use crate::field::{FieldError, FieldErrors, not_negative};
use crate::go_value::Go;
use crate::kind::{Column, Names};
use crate::metadata::validate_label_selector;
use crate::rules::Rules;
use crate::selector::LabelSelector;
use crate::table;

/// Annotation: how often the template changed. Old versions had a field for it. Source: `DeprecatedTemplateGeneration`
/// in `k8s.io/api/apps/v1`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(super) struct DaemonSets;

impl Rules for DaemonSets {
    type Object = DaemonSet;

    const NAMES: Names = Names {
        group: "apps",
        version: "v1",
        kind: "DaemonSet",
        plural: "daemonsets",
        singular: "daemonset",
        short_names: &["ds"],
        categories: &["all"],
        namespaced: true,
    };
    const STATUS: bool = true;
    const GENERATION: bool = true;
    const POINTERS: &'static [&'static str] = &["/spec/selector"];

    fn default(object: &mut DaemonSet) {
        let spec = object.spec.get_or_insert_with(DaemonSetSpec::default);
        let strategy = spec
            .update_strategy
            .get_or_insert_with(DaemonSetUpdateStrategy::default);
        let kind = strategy
            .type_
            .get_or_insert_with(|| "RollingUpdate".to_owned());
        if kind == "RollingUpdate" {
            let rolling = strategy
                .rolling_update
                .get_or_insert_with(RollingUpdateDaemonSet::default);
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(10);
        pod_template::default(&mut spec.template);
    }

    fn prepare_create(object: &mut DaemonSet) {
        object.status = Some(DaemonSetStatus::default());
        let generation = template_generation(&object.metadata).max(1);
        set_template_generation(&mut object.metadata, generation);
    }

    fn prepare_update(object: &mut DaemonSet, old: &DaemonSet) {
        let template = |object: &DaemonSet| object.spec.as_ref().map(|spec| spec.template.clone());
        let raised = i64::from(template(object) != template(old));
        let generation = template_generation(&old.metadata).saturating_add(raised);
        set_template_generation(&mut object.metadata, generation);
    }

    fn validate_written(object: &DaemonSet, written: &Value) -> FieldErrors {
        let spec = object.spec.clone().unwrap_or_default();
        let mut errors = FieldErrors::new();
        let template = Some(&spec.template);
        let at = "spec.selector";
        if written.pointer("/spec/selector").is_none_or(Value::is_null) {
            let nothing = LabelSelector::nothing();
            errors.extend(pod_template::validate_match_strictly(
                &nothing,
                template,
                "spec.template",
            ));
        } else {
            errors.extend(validate_label_selector(&spec.selector, at));
            if let Ok(wanted) = LabelSelector::from_object(Some(&spec.selector)) {
                errors.extend(pod_template::validate_match_strictly(
                    &wanted,
                    template,
                    "spec.template",
                ));
                if wanted.is_everything() {
                    errors.push(FieldError::invalid(
                        at,
                        &spec.selector,
                        "empty selector is invalid for daemonset",
                    ));
                }
            }
        }
        errors.extend(pod_template::validate_spec(&spec.template, "spec.template"));
        errors.extend(pod_template::runs_for_ever(
            &spec.template,
            "spec.template",
            "DaemonSet",
        ));
        errors.extend(not_negative(
            spec.min_ready_seconds.unwrap_or(0).into(),
            "spec.minReadySeconds",
        ));
        errors.extend(validate_strategy(&spec.update_strategy.unwrap_or_default()));
        if let Some(limit) = spec.revision_history_limit {
            errors.extend(not_negative(limit.into(), "spec.revisionHistoryLimit"));
        }
        errors
    }

    fn validate_update(new: &DaemonSet, old: &DaemonSet) -> FieldErrors {
        let selector = |object: &DaemonSet| object.spec.clone().unwrap_or_default().selector;
        crate::field::immutable(&selector(new), &selector(old), "spec.selector")
    }

    fn validate_status(new: &DaemonSet, old: &DaemonSet) -> FieldErrors {
        let status = new.status.clone().unwrap_or_default();
        let mut errors = workload_status::not_below_zero(&[
            (
                "currentNumberScheduled",
                status.current_number_scheduled.into(),
            ),
            ("numberMisscheduled", status.number_misscheduled.into()),
            (
                "desiredNumberScheduled",
                status.desired_number_scheduled.into(),
            ),
            ("numberReady", status.number_ready.into()),
            (
                "observedGeneration",
                status.observed_generation.unwrap_or(0),
            ),
            (
                "updatedNumberScheduled",
                status.updated_number_scheduled.unwrap_or(0).into(),
            ),
            (
                "numberAvailable",
                status.number_available.unwrap_or(0).into(),
            ),
            (
                "numberUnavailable",
                status.number_unavailable.unwrap_or(0).into(),
            ),
            ("collisionCount", status.collision_count.unwrap_or(0).into()),
        ]);
        let before = old
            .status
            .as_ref()
            .and_then(|status| status.collision_count);
        errors.extend(workload_status::collisions(status.collision_count, before));
        errors
    }

    fn columns() -> Vec<Column> {
        let status = table::documented::<DaemonSetStatus>;
        vec![
            table::name_column(),
            table::column("Desired", "integer", status("desiredNumberScheduled")),
            table::column("Current", "integer", status("currentNumberScheduled")),
            table::column("Ready", "integer", status("numberReady")),
            table::column("Up-to-date", "integer", status("updatedNumberScheduled")),
            table::column("Available", "integer", status("numberAvailable")),
            table::column(
                "Node Selector",
                "string",
                table::documented::<PodSpec>("nodeSelector"),
            ),
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
                table::documented::<DaemonSetSpec>("selector"),
            ),
        ]
    }

    fn cells(object: &DaemonSet, now: i64) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let [names, images] = pod_template::container_cells(Some(&spec.template));
        let node_selector = spec
            .template
            .spec
            .as_ref()
            .and_then(|spec| spec.node_selector.as_ref());
        vec![
            table::name(&object.metadata),
            Value::from(status.desired_number_scheduled),
            Value::from(status.current_number_scheduled),
            Value::from(status.number_ready),
            Value::from(status.updated_number_scheduled.unwrap_or(0)),
            Value::from(status.number_available.unwrap_or(0)),
            Value::from(table::labels(node_selector)),
            table::age(&object.metadata, now),
            names,
            images,
            pod_template::selector_cell(&spec.selector),
        ]
    }
}

fn template_generation(meta: &ObjectMeta) -> i64 {
    let written = meta
        .annotations
        .as_ref()
        .and_then(|all| all.get(TEMPLATE_GENERATION));
    written.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_template_generation(meta: &mut ObjectMeta, generation: i64) {
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

fn validate_strategy(strategy: &DaemonSetUpdateStrategy) -> FieldErrors {
    let at = "spec.updateStrategy";
    match strategy.type_.as_deref().unwrap_or_default() {
        "OnDelete" => FieldErrors::new(),
        "RollingUpdate" => match &strategy.rolling_update {
            None => vec![FieldError::required(format!("{at}.rollingUpdate"), "")],
            Some(rolling) => validate_rolling(rolling, &format!("{at}.rollingUpdate")),
        },
        other => {
            let rolling = strategy.rolling_update.as_ref().map_or(Go::NIL, |rolling| {
                let json = |value| Go::from(serde_json::to_value(value).unwrap_or_default());
                Go::fields([
                    ("MaxUnavailable", json(&rolling.max_unavailable)),
                    ("MaxSurge", json(&rolling.max_surge)),
                ])
            });
            vec![FieldError::not_supported(
                at,
                Go::fields([("Type", Go::from(other)), ("RollingUpdate", rolling)]),
                &["RollingUpdate", "OnDelete"],
            )]
        }
    }
}

/// Source: `ValidateRollingUpdateDaemonSet`: one of the two is more than nothing, never both.
fn validate_rolling(rolling: &RollingUpdateDaemonSet, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let parts = [
        (
            rolling.max_unavailable.as_ref(),
            format!("{at}.maxUnavailable"),
        ),
        (rolling.max_surge.as_ref(), format!("{at}.maxSurge")),
    ];
    for check in [int_or_percent::validate, int_or_percent::validate_share] {
        for (value, at) in &parts {
            errors.extend(value.map(|value| check(value, at)).into_iter().flatten());
        }
    }
    let [(unavailable, unavailable_at), (surge, surge_at)] = parts;
    match (
        int_or_percent::is_zero(unavailable),
        int_or_percent::is_zero(surge),
    ) {
        (false, false) => errors.push(FieldError::invalid(
            surge_at,
            surge,
            "may not be set when maxUnavailable is non-zero",
        )),
        (true, true) => {
            errors.push(FieldError::required(
                unavailable_at,
                "cannot be 0 when maxSurge is 0",
            ));
        }
        _ => {}
    }
    errors
}

#[cfg(test)]
mod tests {
    use crate::kind::Kind;
    use crate::kinds;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn kind() -> Arc<dyn Kind> {
        kinds::find("apps", "v1", "daemonsets").expect("daemonsets")
    }

    fn object(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "d", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}}}});
        change(&mut object);
        let mut object = kind().decode(object).expect("decodes");
        kind().default(&mut object);
        kind().prepare_create(&mut object);
        object
    }

    fn errors(object: &Value) -> Vec<String> {
        kind()
            .validate(object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_defaults_are_those_of_kubernetes() {
        let object = object(|_| {});
        assert_eq!(
            object["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})
        );
        assert_eq!(object["spec"]["revisionHistoryLimit"], 10);
        assert_eq!(
            object["status"],
            json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0})
        );
        assert_eq!(
            object["metadata"]["annotations"],
            json!({super::TEMPLATE_GENERATION: "1"})
        );
        assert_eq!(errors(&object), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_said_in_kubernetes_words() {
        let cases: [(&str, Value, &[&str]); 7] = [
            (
                "selector",
                json!({}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
            ),
            (
                "selector",
                Value::Null,
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                "updateStrategy",
                json!({"type": "Soon"}),
                &[
                    "spec.updateStrategy: Unsupported value: {\"Type\":\"Soon\",\"RollingUpdate\":null}: supported values: \"RollingUpdate\", \"OnDelete\"",
                ],
            ),
            (
                "updateStrategy",
                json!({"rollingUpdate": {"maxUnavailable": 0}}),
                &[
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
                ],
            ),
            (
                "updateStrategy",
                json!({"rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 1}}),
                &[
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
                ],
            ),
            (
                "updateStrategy",
                json!({"rollingUpdate": {"maxUnavailable": "101%"}}),
                &[
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                ],
            ),
            (
                "minReadySeconds",
                json!(-1),
                &["spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ];
        for (field, value, messages) in cases {
            let object = object(|object| {
                if value.is_null() {
                    object["spec"]
                        .as_object_mut()
                        .expect("a spec")
                        .remove(field);
                } else {
                    object["spec"][field] = value;
                }
            });
            assert_eq!(errors(&object), messages, "{field}");
        }
    }

    #[test]
    fn changes_of_the_template_are_counted() {
        let old = object(|_| {});
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("x:2");
        new["metadata"]
            .as_object_mut()
            .expect("metadata")
            .remove("annotations");
        kind().prepare_update(&mut new, &old);
        assert_eq!(
            new["metadata"]["annotations"][super::TEMPLATE_GENERATION],
            "2"
        );
        assert_eq!(new["metadata"]["generation"], 2);
        let mut same = old.clone();
        same["spec"]["minReadySeconds"] = json!(5);
        kind().prepare_update(&mut same, &old);
        assert_eq!(
            same["metadata"]["annotations"][super::TEMPLATE_GENERATION],
            "1"
        );
    }
}
