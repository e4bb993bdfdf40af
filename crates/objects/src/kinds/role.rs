//! Role: what may be done in a namespace. Kept, not enforced.

use k8s_openapi::api::rbac::v1::Role;

use super::rbac;
use crate::field::FieldErrors;
use crate::kind::Names;
use crate::names::NameRule;
use crate::rules::Rules;

pub(super) struct Roles;

impl Rules for Roles {
    type Object = Role;

    const NAMES: Names = Names {
        group: rbac::GROUP,
        version: "v1",
        kind: "Role",
        plural: "roles",
        singular: "role",
        short_names: &[],
        categories: &[],
        namespaced: true,
    };
    const NAME: NameRule = NameRule::PathSegment;
    const NULLS: &'static [&'static str] = &["/rules"];

    fn validate(object: &Role) -> FieldErrors {
        rbac::validate_rules(object.rules.as_ref(), true)
    }
}
