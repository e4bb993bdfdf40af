//! CustomResourceDefinition: a kind that comes as an object. What follows from it is in [`crate::custom`].
//! Source: `k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition`.

mod validate;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionCondition,
    CustomResourceDefinitionNames, CustomResourceDefinitionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::Value;

use crate::custom::conditions::CLEANUP;
use crate::custom::definition::Definition;
use crate::field::{FieldError, FieldErrors, immutable};
use crate::kind::{Column, Names};
use crate::rules::Rules;
use crate::table;

pub(super) struct CustomResourceDefinitions;

impl Rules for CustomResourceDefinitions {
    type Object = CustomResourceDefinition;

    const NAMES: Names = Names {
        group: "apiextensions.k8s.io",
        version: "v1",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        singular: "customresourcedefinition",
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
    };
    const STATUS: bool = true;
    const GENERATION: bool = true;

    fn default(object: &mut CustomResourceDefinition) {
        let names = &mut object.spec.names;
        if names.singular.as_deref().unwrap_or_default().is_empty() {
            names.singular = Some(names.kind.to_lowercase());
        }
        if names.list_kind.as_deref().unwrap_or_default().is_empty() && !names.kind.is_empty() {
            names.list_kind = Some(format!("{}List", names.kind));
        }
        let conversion = object.spec.conversion.get_or_insert_with(|| {
            let strategy = "None".to_owned();
            CustomResourceConversion {
                strategy,
                webhook: None,
            }
        });
        let config = conversion.webhook.as_mut();
        let service = config.and_then(|w| w.client_config.as_mut()?.service.as_mut());
        if let Some(service) = service {
            service.port.get_or_insert(443);
        }
    }

    fn prepare_create(object: &mut CustomResourceDefinition) {
        object.status = Some(CustomResourceDefinitionStatus {
            accepted_names: Some(CustomResourceDefinitionNames::default()),
            conditions: Some(Vec::new()),
            ..CustomResourceDefinitionStatus::default()
        });
        remember_stored_version(object);
    }

    fn prepare_update(object: &mut CustomResourceDefinition, _old: &CustomResourceDefinition) {
        remember_stored_version(object);
    }

    fn prepare_delete(object: &mut CustomResourceDefinition) {
        let finalizers = object.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == CLEANUP) {
            finalizers.push(CLEANUP.to_owned());
        }
        let now = object.metadata.deletion_timestamp.clone();
        let status = object.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != "Terminating");
        conditions.push(CustomResourceDefinitionCondition {
            type_: "Terminating".to_owned(),
            status: "True".to_owned(),
            reason: Some("InstanceDeletionPending".to_owned()),
            message: Some(
                "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
                    .to_owned(),
            ),
            last_transition_time: now,
            ..CustomResourceDefinitionCondition::default()
        });
    }

    fn validate_written(object: &CustomResourceDefinition, written: &Value) -> FieldErrors {
        match Definition::read(written) {
            Ok(definition) => {
                let mut errors = FieldErrors::new();
                validate::check_name(object, &mut errors);
                errors.extend(validate::spec(&definition, &written["spec"]));
                errors.extend(validate::status(&definition));
                errors.extend(validate::stored_versions(&definition));
                errors.extend(validate::preserve_unknown_fields(&definition));
                errors
            }
            Err(e) => vec![FieldError::invalid("spec", "", &e)],
        }
    }

    fn validate_new(_object: &CustomResourceDefinition, written: &Value) -> FieldErrors {
        Definition::read(written).map_or_else(
            |e| vec![FieldError::invalid("spec", "", &e)],
            |definition| validate::approval(&definition, None),
        )
    }

    fn validate_update(
        object: &CustomResourceDefinition,
        old: &CustomResourceDefinition,
    ) -> FieldErrors {
        let (new, was) = (&object.spec, &old.spec);
        let mut errors = FieldErrors::new();
        if condition(old, "Established") {
            errors.extend(immutable(&new.scope, &was.scope, "spec.scope"));
            errors.extend(immutable(
                &new.names.kind,
                &was.names.kind,
                "spec.names.kind",
            ));
        }
        errors.extend(immutable(&new.group, &was.group, "spec.group"));
        errors.extend(immutable(
            &new.names.plural,
            &was.names.plural,
            "spec.names.plural",
        ));
        errors.extend(validate::approval_change(object, old));
        errors
    }

    fn validate_status(
        object: &CustomResourceDefinition,
        _old: &CustomResourceDefinition,
    ) -> FieldErrors {
        match serde_json::to_value(object).map(|v| Definition::read(&v)) {
            Ok(Ok(definition)) => validate::status(&definition),
            Ok(Err(e)) => vec![FieldError::invalid("status", "", &e)],
            Err(e) => vec![FieldError::invalid("status", "", &e.to_string())],
        }
    }

    fn warnings(
        _object: &CustomResourceDefinition,
        written: &Value,
        old: Option<(&CustomResourceDefinition, &Value)>,
    ) -> Vec<String> {
        let of = |written: &Value| {
            Definition::read(written)
                .map(|definition| validate::warnings(&definition))
                .unwrap_or_default()
        };
        // Nobody is told twice of what stays as it was.
        let before = old.map(|(_, written)| of(written)).unwrap_or_default();
        let mut warnings = of(written);
        warnings.retain(|warning| !before.contains(warning));
        warnings
    }

    const UNCONDITIONAL_UPDATE: bool = false;

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column("Scope", "string", "Cluster/Namespaced"),
            table::column("Versions", "string", "Served versions"),
            table::column(
                "Created At",
                "date",
                table::documented::<ObjectMeta>("creationTimestamp"),
            ),
            table::wide("Group", "string", "API group"),
            table::wide("Kind", "string", "CustomResource kind"),
            table::wide("ShortNames", "string", "Short names"),
            table::wide("Established", "boolean", "Established status"),
        ]
    }

    fn cells(object: &CustomResourceDefinition, _now: i64) -> Vec<Value> {
        let spec = &object.spec;
        let served = spec.versions.iter().filter(|v| v.served);
        let mut versions: Vec<String> = served
            .map(|v| {
                let mark = if v.storage { "(storage)" } else { "" };
                format!("{}{mark}", v.name)
            })
            .collect();
        versions.sort();
        let created = object.metadata.creation_timestamp.as_ref().map(rfc3339);
        let short_names = spec.names.short_names.as_deref().unwrap_or_default();
        vec![
            table::name(&object.metadata),
            spec.scope.as_str().into(),
            versions.join(",").into(),
            created.unwrap_or(Value::Null),
            spec.group.as_str().into(),
            spec.names.kind.as_str().into(),
            short_names.join(",").into(),
            condition(object, "Established").into(),
        ]
    }
}

fn rfc3339(time: &Time) -> Value {
    serde_json::to_value(time).unwrap_or(Value::Null)
}

fn condition(object: &CustomResourceDefinition, kind: &str) -> bool {
    let status = object.status.as_ref();
    let mut conditions = status
        .and_then(|s| s.conditions.as_ref())
        .into_iter()
        .flatten();
    conditions.any(|c| c.type_ == kind && c.status == "True")
}

/// Objects may be stored in every version that ever was the one to store in.
fn remember_stored_version(object: &mut CustomResourceDefinition) {
    let storage = object.spec.versions.iter().find(|v| v.storage);
    let Some(name) = storage.map(|v| v.name.clone()) else {
        return;
    };
    let status = object.status.get_or_insert_default();
    let stored = status.stored_versions.get_or_insert_default();
    if !stored.contains(&name) {
        stored.push(name);
    }
}

#[cfg(test)]
mod tests;
