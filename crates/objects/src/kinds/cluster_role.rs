//! ClusterRole: what may be done in all namespaces and outside of them. Kept, not enforced.

use k8s_openapi::api::rbac::v1::ClusterRole;

use super::rbac;
use crate::field::{FieldError, FieldErrors};
use crate::kind::Names;
use crate::metadata::validate_label_selector;
use crate::names::NameRule;
use crate::rules::Rules;
use crate::selector::LabelSelector;

pub(super) struct ClusterRoles;

impl Rules for ClusterRoles {
    type Object = ClusterRole;

    const NAMES: Names = Names {
        group: rbac::GROUP,
        version: "v1",
        kind: "ClusterRole",
        plural: "clusterroles",
        singular: "clusterrole",
        short_names: &[],
        categories: &[],
        namespaced: false,
    };
    const NAME: NameRule = NameRule::PathSegment;
    const NULLS: &'static [&'static str] = &["/rules"];

    fn validate(object: &ClusterRole) -> FieldErrors {
        let mut errors = rbac::validate_rules(object.rules.as_ref(), false);
        let Some(aggregation) = &object.aggregation_rule else {
            return errors;
        };
        const AT: &str = "aggregationRule.clusterRoleSelectors";
        let selectors = aggregation
            .cluster_role_selectors
            .as_deref()
            .unwrap_or_default();
        if selectors.is_empty() {
            errors.push(FieldError::required(
                AT,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ));
        }
        for (i, selector) in selectors.iter().enumerate() {
            let at = format!("{AT}[{i}]");
            errors.extend(validate_label_selector(selector, &at));
            if LabelSelector::from_object(Some(selector)).is_err() {
                errors.push(FieldError::invalid(at, selector, "invalid label selector."));
            }
        }
        errors
    }
}
