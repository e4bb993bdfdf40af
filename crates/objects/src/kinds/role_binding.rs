//! RoleBinding: who has a role in a namespace. Kept, not enforced.

use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::Value;

use super::rbac;
use crate::field::FieldErrors;
use crate::kind::{Column, Names};
use crate::names::NameRule;
use crate::rules::Rules;

pub(super) struct RoleBindings;

impl Rules for RoleBindings {
    type Object = RoleBinding;

    const NAMES: Names = Names {
        group: rbac::GROUP,
        version: "v1",
        kind: "RoleBinding",
        plural: "rolebindings",
        singular: "rolebinding",
        short_names: &[],
        categories: &[],
        namespaced: true,
    };
    const NAME: NameRule = NameRule::PathSegment;

    fn default(object: &mut RoleBinding) {
        rbac::default_binding(&mut object.role_ref, object.subjects.as_mut());
    }

    fn validate(object: &RoleBinding) -> FieldErrors {
        let kinds = ["Role", "ClusterRole"];
        rbac::validate_binding(&object.role_ref, &kinds, object.subjects.as_ref(), true)
    }

    fn validate_update(new: &RoleBinding, old: &RoleBinding) -> FieldErrors {
        rbac::validate_binding_update(&new.role_ref, &old.role_ref)
    }

    fn columns() -> Vec<Column> {
        rbac::binding_columns(
            "roleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
            [
                "Users in the roleBinding",
                "Groups in the roleBinding",
                "ServiceAccounts in the roleBinding",
            ],
        )
    }

    fn cells(object: &RoleBinding, now: i64) -> Vec<Value> {
        rbac::binding_cells(
            &object.metadata,
            &object.role_ref,
            object.subjects.as_ref(),
            now,
        )
    }
}
