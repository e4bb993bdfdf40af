//! ClusterRoleBinding: who has a role everywhere. Kept, not enforced.

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use serde_json::Value;

use super::rbac;
use crate::field::FieldErrors;
use crate::kind::{Column, Names};
use crate::names::NameRule;
use crate::rules::Rules;

pub(super) struct ClusterRoleBindings;

impl Rules for ClusterRoleBindings {
    type Object = ClusterRoleBinding;

    const NAMES: Names = Names {
        group: rbac::GROUP,
        version: "v1",
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        short_names: &[],
        categories: &[],
        namespaced: false,
    };
    const NAME: NameRule = NameRule::PathSegment;

    fn default(object: &mut ClusterRoleBinding) {
        rbac::default_binding(&mut object.role_ref, object.subjects.as_mut());
    }

    fn validate(object: &ClusterRoleBinding) -> FieldErrors {
        let kinds = ["ClusterRole"];
        rbac::validate_binding(&object.role_ref, &kinds, object.subjects.as_ref(), false)
    }

    fn validate_update(new: &ClusterRoleBinding, old: &ClusterRoleBinding) -> FieldErrors {
        rbac::validate_binding_update(&new.role_ref, &old.role_ref)
    }

    fn columns() -> Vec<Column> {
        rbac::binding_columns(
            "roleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
            [
                "Users in the clusterRoleBinding",
                "Groups in the clusterRoleBinding",
                "ServiceAccounts in the clusterRoleBinding",
            ],
        )
    }

    fn cells(object: &ClusterRoleBinding, now: i64) -> Vec<Value> {
        rbac::binding_cells(
            &object.metadata,
            &object.role_ref,
            object.subjects.as_ref(),
            now,
        )
    }
}
