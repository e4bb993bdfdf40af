//! StatefulSet (apps/v1): Pods with names and storage that stay, one after the other.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet,
    StatefulSetPersistentVolumeClaimRetentionPolicy as ClaimRetention, StatefulSetSpec,
    StatefulSetStatus, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec, Volume,
};
use serde_json::Value;

use super::{int_or_percent, pod_template, workload_status};
use crate::field::{FieldError, FieldErrors, not_negative};
use crate::go_value::Go;
use crate::kind::{Column, Names, Scale};
use crate::metadata::{validate_label_selector, wrong};
use crate::names::{self, NameRule};
use crate::quantity;
use crate::rules::Rules;
use crate::selector::LabelSelector;
use crate::table;

/// What an update may change. Source: `ValidateStatefulSetUpdate`.
const FIXED: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

pub(super) struct StatefulSets;

impl Rules for StatefulSets {
    type Object = StatefulSet;

    const NAMES: Names = Names {
        group: "apps",
        version: "v1",
        kind: "StatefulSet",
        plural: "statefulsets",
        singular: "statefulset",
        short_names: &["sts"],
        categories: &["all"],
        namespaced: true,
    };
    // A Pod's name, which is this one with a number, is its hostname.
    const NAME: NameRule = NameRule::Label;
    const STATUS: bool = true;
    const GENERATION: bool = true;
    const SCALE: Option<Scale> = Some(Scale {
        replicas: "/spec/replicas",
        observed: "/status/replicas",
        selector: "/spec/selector",
    });
    const POINTERS: &'static [&'static str] = &["/spec/selector"];

    fn default(object: &mut StatefulSet) {
        let spec = object.spec.get_or_insert_with(StatefulSetSpec::default);
        spec.pod_management_policy
            .get_or_insert_with(|| "OrderedReady".to_owned());
        let strategy = spec
            .update_strategy
            .get_or_insert_with(StatefulSetUpdateStrategy::default);
        let kind = strategy
            .type_
            .get_or_insert_with(|| "RollingUpdate".to_owned());
        if kind == "RollingUpdate" {
            let rolling = strategy
                .rolling_update
                .get_or_insert_with(RollingUpdateStatefulSetStrategy::default);
            rolling.partition.get_or_insert(0);
        }
        let retention = spec
            .persistent_volume_claim_retention_policy
            .get_or_insert_with(ClaimRetention::default);
        retention
            .when_deleted
            .get_or_insert_with(|| "Retain".to_owned());
        retention
            .when_scaled
            .get_or_insert_with(|| "Retain".to_owned());
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            let spec = claim
                .spec
                .get_or_insert_with(PersistentVolumeClaimSpec::default);
            spec.volume_mode
                .get_or_insert_with(|| "Filesystem".to_owned());
            let status = claim.status.get_or_insert_default();
            status.phase.get_or_insert_with(|| "Pending".to_owned());
        }
        pod_template::default(&mut spec.template);
    }

    fn prepare_create(object: &mut StatefulSet) {
        object.status = Some(StatefulSetStatus {
            available_replicas: Some(0),
            ..StatefulSetStatus::default()
        });
    }

    fn validate_written(object: &StatefulSet, written: &Value) -> FieldErrors {
        let spec = object.spec.clone().unwrap_or_default();
        let mut errors = validate_policies(&spec);
        for (i, claim) in spec.volume_claim_templates.iter().flatten().enumerate() {
            errors.extend(validate_claim(
                claim,
                &format!("spec.volumeClaimTemplates[{i}]"),
            ));
        }
        errors.extend(not_negative(
            spec.replicas.unwrap_or(1).into(),
            "spec.replicas",
        ));
        errors.extend(not_negative(
            spec.min_ready_seconds.unwrap_or(0).into(),
            "spec.minReadySeconds",
        ));
        if let Some(ordinals) = &spec.ordinals {
            errors.extend(not_negative(
                ordinals.start.unwrap_or(0).into(),
                "spec.ordinals.start",
            ));
        }
        if let Some(limit) = spec.revision_history_limit {
            errors.extend(not_negative(limit.into(), "spec.revisionHistoryLimit"));
        }
        errors.extend(validate_selector(&spec, written));
        let template = with_claims(&spec);
        errors.extend(pod_template::validate_spec(&template, "spec.template"));
        errors.extend(pod_template::runs_for_ever(
            &template,
            "spec.template",
            "StatefulSet",
        ));
        errors
    }

    fn validate_update(new: &StatefulSet, old: &StatefulSet) -> FieldErrors {
        let (mut new, old) = (
            new.spec.clone().unwrap_or_default(),
            old.spec.clone().unwrap_or_default(),
        );
        new.replicas = old.replicas;
        new.ordinals.clone_from(&old.ordinals);
        new.template.clone_from(&old.template);
        new.update_strategy.clone_from(&old.update_strategy);
        new.min_ready_seconds = old.min_ready_seconds;
        new.revision_history_limit = old.revision_history_limit;
        new.persistent_volume_claim_retention_policy
            .clone_from(&old.persistent_volume_claim_retention_policy);
        if new == old {
            FieldErrors::new()
        } else {
            vec![FieldError::forbidden("spec", FIXED)]
        }
    }

    fn validate_status(new: &StatefulSet, old: &StatefulSet) -> FieldErrors {
        let status = new.status.clone().unwrap_or_default();
        let ready = status.ready_replicas.unwrap_or(0);
        let available = ("availableReplicas", status.available_replicas.unwrap_or(0));
        let parts = [
            ("readyReplicas", ready),
            ("currentReplicas", status.current_replicas.unwrap_or(0)),
            ("updatedReplicas", status.updated_replicas.unwrap_or(0)),
            available,
        ];
        let mut figures = vec![("replicas", i64::from(status.replicas))];
        figures.extend(parts.map(|(field, value)| (field, i64::from(value))));
        figures.push((
            "observedGeneration",
            status.observed_generation.unwrap_or(0),
        ));
        figures.push(("collisionCount", status.collision_count.unwrap_or(0).into()));
        let mut errors = workload_status::not_below_zero(&figures);
        errors.extend(workload_status::at_most(
            &parts,
            status.replicas,
            "status.replicas",
        ));
        errors.extend(workload_status::at_most(
            &[available],
            ready,
            "status.readyReplicas",
        ));
        let before = old
            .status
            .as_ref()
            .and_then(|status| status.collision_count);
        errors.extend(workload_status::collisions(status.collision_count, before));
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column("Ready", "string", "Number of the pod with ready state"),
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
        ]
    }

    fn cells(object: &StatefulSet, now: i64) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let ready = object
            .status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0);
        let [names, images] = pod_template::container_cells(Some(&spec.template));
        vec![
            table::name(&object.metadata),
            Value::from(format!("{ready}/{}", spec.replicas.unwrap_or(0))),
            table::age(&object.metadata, now),
            names,
            images,
        ]
    }
}

fn validate_policies(spec: &StatefulSetSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let management = "spec.podManagementPolicy";
    match spec.pod_management_policy.as_deref().unwrap_or_default() {
        "OrderedReady" | "Parallel" => {}
        "" => errors.push(FieldError::required(management, "")),
        other => errors.push(FieldError::invalid(
            management,
            other,
            "must be 'OrderedReady' or 'Parallel'",
        )),
    }
    errors.extend(validate_strategy(
        &spec.update_strategy.clone().unwrap_or_default(),
    ));
    let retention = spec
        .persistent_volume_claim_retention_policy
        .clone()
        .unwrap_or_default();
    for (field, policy) in [
        ("whenDeleted", retention.when_deleted),
        ("whenScaled", retention.when_scaled),
    ] {
        let policy = policy.unwrap_or_default();
        if !matches!(policy.as_str(), "Retain" | "Delete") {
            errors.push(FieldError::not_supported(
                format!("spec.persistentVolumeClaimRetentionPolicy.{field}"),
                policy,
                &["Retain", "Delete"],
            ));
        }
    }
    errors
}

fn validate_strategy(strategy: &StatefulSetUpdateStrategy) -> FieldErrors {
    let at = "spec.updateStrategy";
    let rolling = strategy.rolling_update.as_ref();
    let rolling_in_go = rolling.map_or(Go::NIL, |rolling| {
        let unavailable = serde_json::to_value(&rolling.max_unavailable).unwrap_or_default();
        Go::fields([
            ("Partition", Go::from(rolling.partition.unwrap_or(0))),
            ("MaxUnavailable", Go::from(unavailable)),
        ])
    });
    match strategy.type_.as_deref().unwrap_or_default() {
        "" => vec![FieldError::required(at, "")],
        "OnDelete" if rolling.is_some() => vec![FieldError::invalid(
            format!("{at}.rollingUpdate"),
            rolling_in_go,
            "only allowed for updateStrategy 'RollingUpdate'",
        )],
        "OnDelete" => FieldErrors::new(),
        "RollingUpdate" => rolling
            .map(|rolling| validate_rolling(rolling, &format!("{at}.rollingUpdate")))
            .unwrap_or_default(),
        other => vec![FieldError::invalid(
            at,
            Go::fields([("Type", Go::from(other)), ("RollingUpdate", rolling_in_go)]),
            "must be 'RollingUpdate' or 'OnDelete'",
        )],
    }
}

fn validate_rolling(rolling: &RollingUpdateStatefulSetStrategy, at: &str) -> FieldErrors {
    let mut errors = not_negative(
        rolling.partition.unwrap_or(0).into(),
        &format!("{at}.partition"),
    );
    if let Some(unavailable) = &rolling.max_unavailable {
        let at = format!("{at}.maxUnavailable");
        errors.extend(int_or_percent::validate(unavailable, &at));
        if int_or_percent::is_zero(Some(unavailable)) {
            errors.push(FieldError::invalid(at.clone(), unavailable, "cannot be 0"));
        }
        errors.extend(int_or_percent::validate_share(unavailable, &at));
    }
    errors
}

fn validate_selector(spec: &StatefulSetSpec, written: &Value) -> FieldErrors {
    let at = "spec.selector";
    if written.pointer("/spec/selector").is_none_or(Value::is_null) {
        let mut errors = vec![FieldError::required(at, "")];
        let nothing = LabelSelector::nothing();
        errors.extend(pod_template::validate_match(
            &nothing,
            Some(&spec.template),
            "spec.template",
        ));
        return errors;
    }
    let mut errors = validate_label_selector(&spec.selector, at);
    match LabelSelector::from_object(Some(&spec.selector)) {
        Ok(wanted) if wanted.is_everything() => errors.push(FieldError::invalid(
            at,
            &spec.selector,
            "empty selector is invalid for statefulset",
        )),
        Ok(wanted) => {
            errors.extend(pod_template::validate_match(
                &wanted,
                Some(&spec.template),
                "spec.template",
            ));
        }
        Err(_) => errors.push(FieldError::invalid(at, &spec.selector, "")),
    }
    errors
}

/// The Pods get a volume for each claim, in place of a volume of the same name.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let claims: BTreeSet<&str> = spec
        .volume_claim_templates
        .iter()
        .flatten()
        .filter_map(|claim| claim.metadata.name.as_deref())
        .collect();
    if let Some(pod) = &mut template.spec
        && !claims.is_empty()
    {
        let volumes = pod.volumes.get_or_insert_default();
        volumes.retain(|volume| !claims.contains(volume.name.as_str()));
        volumes.extend(claims.into_iter().map(|name| Volume {
            name: name.to_owned(),
            persistent_volume_claim: Some(Default::default()),
            ..Volume::default()
        }));
    }
    template
}

/// Source: `ValidatePersistentVolumeClaimSpec`, for what every claim must have.
fn validate_claim(claim: &PersistentVolumeClaim, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    if !name.is_empty() {
        errors.extend(wrong(
            &format!("{at}.metadata.name"),
            name,
            names::dns_label(name),
        ));
    }
    let spec = claim.spec.clone().unwrap_or_default();
    let modes = spec.access_modes.unwrap_or_default();
    if modes.is_empty() {
        errors.push(FieldError::required(
            format!("{at}.spec.accessModes"),
            "at least 1 access mode is required",
        ));
    }
    let supported = [
        "ReadOnlyMany",
        "ReadWriteMany",
        "ReadWriteOnce",
        "ReadWriteOncePod",
    ];
    for (i, mode) in modes.iter().enumerate() {
        if !supported.contains(&mode.as_str()) {
            errors.push(FieldError::not_supported(
                format!("{at}.spec.accessModes[{i}]"),
                mode,
                &supported,
            ));
        }
    }
    let requests = spec
        .resources
        .and_then(|resources| resources.requests)
        .unwrap_or_default();
    match requests.get("storage") {
        None => errors.push(FieldError::required(
            format!("{at}.spec.resources[storage]"),
            "",
        )),
        Some(size) if quantity::parse(&size.0).is_some_and(|size| size <= 0) => {
            errors.push(FieldError::invalid(
                format!("{at}.spec.resources[storage]"),
                &size.0,
                "must be greater than zero",
            ));
        }
        Some(_) => {}
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
        kinds::find("apps", "v1", "statefulsets").expect("statefulsets")
    }

    fn object(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"serviceName": "web", "selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": {"labels": {"app": "a"}},
                    "spec": {"containers": [{"name": "c", "image": "x:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
        change(&mut object);
        let mut object = kind().decode(object).expect("decodes");
        kind().default(&mut object);
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
        let mut object = object(|_| {});
        kind().prepare_create(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["podManagementPolicy"], "OrderedReady");
        assert_eq!(
            spec["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!(
            (&spec["replicas"], &spec["revisionHistoryLimit"]),
            (&json!(1), &json!(10))
        );
        assert_eq!(
            spec["volumeClaimTemplates"],
            json!([{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Filesystem"},
                "status": {"phase": "Pending"}}])
        );
        assert_eq!(
            object["status"],
            json!({"availableReplicas": 0, "replicas": 0})
        );
        assert_eq!(errors(&object), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_said_in_kubernetes_words() {
        let cases: [(&str, Value, &str); 12] = [
            (
                "/spec/podManagementPolicy",
                json!("Any"),
                "spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'",
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "Now"}),
                "spec.updateStrategy: Invalid value: {\"Type\":\"Now\",\"RollingUpdate\":null}: must be 'RollingUpdate' or 'OnDelete'",
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":1,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
            ),
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"partition": -1}}),
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"maxUnavailable": 0}}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
            ),
            (
                "/spec/persistentVolumeClaimRetentionPolicy",
                json!({"whenScaled": "Keep"}),
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": supported values: \"Retain\", \"Delete\"",
            ),
            (
                "/spec/ordinals",
                json!({"start": -1}),
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/selector",
                json!({}),
                "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
            ),
            (
                "/spec/selector",
                json!({"matchLabels": {"app": "b"}}),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            (
                "/spec/template/spec/activeDeadlineSeconds",
                json!(5),
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
            ),
            (
                "/metadata/name",
                json!("a.b"),
                "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
        ];
        for (path, value, message) in cases {
            let object = object(|object| {
                let (parent, field) = path.rsplit_once('/').expect("a path");
                object.pointer_mut(parent).expect(path)[field] = value;
            });
            assert_eq!(errors(&object), [message], "{path}");
        }
        let without = object(|object| {
            object["spec"]
                .as_object_mut()
                .expect("a spec")
                .remove("volumeClaimTemplates");
        });
        assert_eq!(
            errors(&without),
            ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""]
        );
        let claim = object(|object| object["spec"]["volumeClaimTemplates"][0]["spec"] = json!({}));
        assert_eq!(
            errors(&claim),
            [
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value"
            ]
        );
    }

    #[test]
    fn an_update_changes_what_it_may_and_nothing_else() {
        let old = object(|_| {});
        for (path, value, allowed) in [
            ("/spec/replicas", json!(3), true),
            ("/spec/minReadySeconds", json!(3), true),
            ("/spec/revisionHistoryLimit", json!(3), true),
            ("/spec/template/spec/containers/0/image", json!("x:2"), true),
            ("/spec/updateStrategy/type", json!("OnDelete"), true),
            ("/spec/serviceName", json!("other"), false),
            ("/spec/podManagementPolicy", json!("Parallel"), false),
            ("/spec/selector/matchLabels/app", json!("b"), false),
        ] {
            let mut new = old.clone();
            let (parent, field) = path.rsplit_once('/').expect("a path");
            new.pointer_mut(parent).expect(path)[field] = value;
            let errors = kind().validate_update(&new, &old);
            let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let expected = if allowed {
                vec![]
            } else {
                vec![format!("spec: Forbidden: {}", super::FIXED)]
            };
            assert_eq!(said, expected, "{path}");
        }
    }

    #[test]
    fn the_status_adds_up() {
        let old = object(|_| {});
        let mut new = old.clone();
        new["status"] = json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 3});
        let said: Vec<String> = kind()
            .validate_status(&new, &old)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            said,
            [
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.readyReplicas"
            ]
        );
    }
}
