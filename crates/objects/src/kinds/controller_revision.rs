//! ControllerRevision (apps/v1): what the template of a DaemonSet or StatefulSet once was. It never changes.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::Value;

use crate::field::{FieldError, FieldErrors, immutable, not_negative};
use crate::kind::{Column, Names};
use crate::rules::Rules;
use crate::table;

pub(super) struct ControllerRevisions;

impl Rules for ControllerRevisions {
    type Object = ControllerRevision;

    const NAMES: Names = Names {
        group: "apps",
        version: "v1",
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        singular: "controllerrevision",
        short_names: &[],
        categories: &[],
        namespaced: true,
    };

    fn validate(object: &ControllerRevision) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if data(object).is_null() {
            errors.push(FieldError::required("data", "data is mandatory"));
        }
        errors.extend(not_negative(object.revision, "revision"));
        errors
    }

    fn validate_update(new: &ControllerRevision, old: &ControllerRevision) -> FieldErrors {
        immutable(data(new), data(old), "data")
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column("Controller", "string", "Controller of the object"),
            table::column(
                "Revision",
                "string",
                table::documented::<ControllerRevision>("revision"),
            ),
            table::age_column(),
        ]
    }

    fn cells(object: &ControllerRevision, now: i64) -> Vec<Value> {
        let owners = object.metadata.owner_references.iter().flatten();
        let mut controller = owners
            .filter(|owner| owner.controller == Some(true))
            .map(|owner| {
                let kind = owner.kind.to_lowercase();
                match owner.api_version.split_once('/') {
                    Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
                    None => format!("{kind}/{}", owner.name),
                }
            });
        vec![
            table::name(&object.metadata),
            Value::from(table::or_none(controller.next().unwrap_or_default())),
            Value::from(object.revision),
            table::age(&object.metadata, now),
        ]
    }
}

fn data(object: &ControllerRevision) -> &Value {
    static NOTHING: Value = Value::Null;
    match &object.data {
        Some(RawExtension(data)) => data,
        None => &NOTHING,
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::json;

    #[test]
    fn what_was_recorded_stays_as_it_was() {
        let kind = kinds::find("apps", "v1", "controllerrevisions").expect("the kind");
        let old = json!({"metadata": {"name": "web-1", "namespace": "default", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true}]},
            "data": {"spec": {"template": {}}}, "revision": 1});
        assert_eq!(kind.validate(&old), vec![]);
        let mut new = old.clone();
        new["revision"] = json!(2);
        assert_eq!(kind.validate_update(&new, &old), vec![]);
        new["data"] = json!({"spec": {}});
        assert_eq!(
            kind.validate_update(&new, &old)[0].to_string(),
            "data: Invalid value: {\"spec\":{}}: field is immutable"
        );
        let cells = kind.cells(&old, 0);
        assert_eq!(cells[1..3], [json!("statefulset.apps/web"), json!(1)]);
        let nothing = json!({"metadata": {"name": "a", "namespace": "default"}, "revision": -1});
        let said: Vec<String> = kind
            .validate(&nothing)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            said,
            [
                "data: Required value: data is mandatory",
                "revision: Invalid value: -1: must be greater than or equal to 0"
            ]
        );
    }
}
