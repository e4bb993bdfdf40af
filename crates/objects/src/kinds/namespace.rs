//! Namespace: what all names live in.

use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec, NamespaceStatus};
use serde_json::Value;

use crate::field::{FieldError, FieldErrors};
use crate::kind::{Column, Names};
use crate::names::NameRule;
use crate::rules::Rules;
use crate::table;

/// The label by which selectors find a Namespace by its name; it cannot be changed.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer that the namespace controller removes when everything in the Namespace is gone.
const FINALIZER: &str = "kubernetes";

pub(super) struct Namespaces;

impl Rules for Namespaces {
    type Object = Namespace;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        categories: &[],
        namespaced: false,
    };
    const NAME: NameRule = NameRule::Label;
    const STATUS: bool = true;

    fn default(object: &mut Namespace) {
        if let Some(name) = object.metadata.name.clone().filter(|n| !n.is_empty()) {
            let labels = object.metadata.labels.get_or_insert_default();
            labels.insert(NAME_LABEL.to_owned(), name);
        }
    }

    fn prepare_create(object: &mut Namespace) {
        object.status = Some(NamespaceStatus {
            phase: Some("Active".to_owned()),
            ..NamespaceStatus::default()
        });
        let spec = object.spec.get_or_insert_with(NamespaceSpec::default);
        let finalizers = spec.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    fn prepare_update(object: &mut Namespace, old: &Namespace) {
        // Only the `finalize` subresource may change the finalizers.
        object.spec.clone_from(&old.spec);
    }

    fn validate_status(new: &Namespace, _old: &Namespace) -> FieldErrors {
        let phase = new.status.as_ref().and_then(|s| s.phase.as_deref());
        let going = new.metadata.deletion_timestamp.is_some();
        match (going, phase.unwrap_or_default()) {
            (false, "Active") | (true, "Terminating") => FieldErrors::new(),
            (false, other) => vec![FieldError::invalid(
                "status.phase",
                other,
                "may only be 'Active' if `deletionTimestamp` is empty",
            )],
            (true, other) => vec![FieldError::invalid(
                "status.phase",
                other,
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            )],
        }
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column("Status", "string", "The status of the namespace"),
            table::age_column(),
        ]
    }

    fn cells(object: &Namespace, now: i64) -> Vec<Value> {
        vec![
            table::name(&object.metadata),
            Value::from(phase(object)),
            table::age(&object.metadata, now),
        ]
    }

    fn fields(object: &Namespace) -> Vec<(&'static str, String)> {
        vec![
            ("status.phase", phase(object)),
            ("name", object.metadata.name.clone().unwrap_or_default()),
        ]
    }
}

fn phase(object: &Namespace) -> String {
    let status = object.status.as_ref();
    status.and_then(|s| s.phase.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::json;

    #[test]
    fn a_new_namespace_is_active_and_found_by_its_name() {
        let kind = kinds::find("", "v1", "namespaces").expect("namespaces");
        let mut object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}, "status": {"phase": "Terminating"}});
        kind.default(&mut object);
        kind.prepare_create(&mut object);
        assert_eq!(kind.validate(&object), vec![]);
        assert_eq!(
            object["metadata"]["labels"],
            json!({"kubernetes.io/metadata.name": "a"})
        );
        assert_eq!(object["spec"], json!({"finalizers": ["kubernetes"]}));
        assert_eq!(object["status"], json!({"phase": "Active"}));
    }

    #[test]
    fn an_update_leaves_the_finalizers_alone() {
        let kind = kinds::find("", "v1", "namespaces").expect("namespaces");
        let old = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let mut new = json!({"metadata": {"name": "a"}, "spec": {}});
        kind.prepare_update(&mut new, &old);
        assert_eq!(new["spec"], old["spec"]);
        assert_eq!(new["status"], old["status"]);
    }
}
