//! What the four kinds of role-based access control have in common. They are kept and checked, and enforce nothing.
//!
//! Source: `pkg/apis/rbac/validation` and `pkg/apis/rbac/v1/defaults.go`.

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::field::{FieldError, FieldErrors};
use crate::kind::Column;
use crate::metadata::wrong;
use crate::names;
use crate::table;

pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules of a Role (`namespaced`) or ClusterRole.
pub(super) fn validate_rules(rules: Option<&Vec<PolicyRule>>, namespaced: bool) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, rule) in rules.into_iter().flatten().enumerate() {
        let at = format!("rules[{i}]");
        let none = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        if rule.verbs.is_empty() {
            errors.push(FieldError::required(
                format!("{at}.verbs"),
                "verbs must contain at least one value",
            ));
        }
        if let Some(urls) = rule
            .non_resource_urls
            .as_ref()
            .filter(|urls| !urls.is_empty())
        {
            let mut refuse = |words: &str| {
                errors.push(FieldError::invalid(
                    format!("{at}.nonResourceURLs"),
                    urls,
                    words,
                ));
            };
            if namespaced {
                refuse("namespaced rules cannot apply to non-resource URLs");
            }
            if !none(&rule.api_groups) || !none(&rule.resources) || !none(&rule.resource_names) {
                refuse("rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if none(&rule.api_groups) {
            errors.push(FieldError::required(
                format!("{at}.apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if none(&rule.resources) {
            errors.push(FieldError::required(
                format!("{at}.resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
    errors
}

/// Groups that are left out are this one, except that of ServiceAccounts.
pub(super) fn default_binding(role: &mut RoleRef, subjects: Option<&mut Vec<Subject>>) {
    let empty = |group: &Option<String>| group.as_deref().unwrap_or_default().is_empty();
    if empty(&role.api_group) {
        role.api_group = Some(GROUP.to_owned());
    }
    for subject in subjects.into_iter().flatten() {
        if empty(&subject.api_group) && matches!(subject.kind.as_str(), "User" | "Group") {
            subject.api_group = Some(GROUP.to_owned());
        }
    }
}

/// A binding to one of the kinds of roles `kinds`, within a namespace or (`namespaced` is false) for all.
pub(super) fn validate_binding(
    role: &RoleRef,
    kinds: &[&str],
    subjects: Option<&Vec<Subject>>,
    namespaced: bool,
) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let group = role.api_group.as_deref().unwrap_or_default();
    if group != GROUP {
        errors.push(FieldError::not_supported(
            "roleRef.apiGroup",
            group,
            &[GROUP],
        ));
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.push(FieldError::not_supported("roleRef.kind", &role.kind, kinds));
    }
    if role.name.is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    } else {
        errors.extend(wrong(
            "roleRef.name",
            role.name.as_str(),
            names::path_segment(&role.name),
        ));
    }
    for (i, subject) in subjects.into_iter().flatten().enumerate() {
        errors.extend(validate_subject(
            subject,
            namespaced,
            &format!("subjects[{i}]"),
        ));
    }
    errors
}

fn validate_subject(subject: &Subject, namespaced: bool, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let at_name = format!("{at}.name");
    if subject.name.is_empty() {
        errors.push(FieldError::required(at_name.clone(), ""));
    }
    let group = subject.api_group.as_deref().unwrap_or_default();
    let at_group = format!("{at}.apiGroup");
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                errors.extend(wrong(
                    &at_name,
                    subject.name.as_str(),
                    names::dns_subdomain(&subject.name),
                ));
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(at_group, group, &[""]));
            }
            if !namespaced && subject.namespace.as_deref().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(format!("{at}.namespace"), ""));
            }
        }
        "User" | "Group" if group != GROUP => {
            errors.push(FieldError::not_supported(at_group, group, &[GROUP]));
        }
        "User" | "Group" => {}
        other => errors.push(FieldError::not_supported(
            format!("{at}.kind"),
            other,
            &["ServiceAccount", "User", "Group"],
        )),
    }
    errors
}

/// A binding is to one role for ever.
pub(super) fn validate_binding_update(new: &RoleRef, old: &RoleRef) -> FieldErrors {
    if new == old {
        return FieldErrors::new();
    }
    // Shown in its internal form, whose fields have Go's names.
    let shown = json!({"APIGroup": new.api_group.as_deref().unwrap_or_default(), "Kind": new.kind, "Name": new.name});
    vec![FieldError::invalid(
        "roleRef",
        shown,
        "cannot change roleRef",
    )]
}

/// The columns of bindings. `role` describes the reference, `of` names the kind.
pub(super) fn binding_columns(role: &'static str, of: [&'static str; 3]) -> Vec<Column> {
    vec![
        table::name_column(),
        table::column("Role", "string", role),
        table::age_column(),
        table::wide("Users", "string", of[0]),
        table::wide("Groups", "string", of[1]),
        table::wide("ServiceAccounts", "string", of[2]),
    ]
}

/// The cells for [`binding_columns`].
pub(super) fn binding_cells(
    meta: &ObjectMeta,
    role: &RoleRef,
    subjects: Option<&Vec<Subject>>,
    now: i64,
) -> Vec<Value> {
    let of_kind = |kind: &str| {
        let subjects = subjects.into_iter().flatten().filter(|s| s.kind == kind);
        let shown: Vec<String> = subjects
            .map(|s| match (kind, s.namespace.as_deref()) {
                ("ServiceAccount", namespace) => {
                    format!("{}/{}", namespace.unwrap_or_default(), s.name)
                }
                _ => s.name.clone(),
            })
            .collect();
        Value::from(shown.join(", "))
    };
    vec![
        table::name(meta),
        Value::from(format!("{}/{}", role.kind, role.name)),
        table::age(meta, now),
        of_kind("User"),
        of_kind("Group"),
        of_kind("ServiceAccount"),
    ]
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::{Value, json};

    fn errors(plural: &str, object: Value) -> Vec<String> {
        let kind = kinds::find(super::GROUP, "v1", plural).expect(plural);
        let mut object = kind.decode(object).expect("decodes");
        kind.default(&mut object);
        kind.validate(&object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_rule_is_about_resources_or_about_paths() {
        let role = |rule: Value| json!({"metadata": {"name": "system:a", "namespace": "d"}, "rules": [rule]});
        assert_eq!(
            errors(
                "roles",
                role(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}))
            ),
            [""; 0]
        );
        assert_eq!(
            errors("roles", role(json!({"verbs": []}))),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ]
        );
        assert_eq!(
            errors(
                "roles",
                role(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}))
            ),
            [
                "rules[0].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to non-resource URLs"
            ]
        );
    }

    #[test]
    fn a_binding_names_its_group_once_and_its_role_for_ever() {
        let kind = kinds::find(super::GROUP, "v1", "rolebindings").expect("rolebindings");
        let binding = |role: &str| {
            json!({"metadata": {"name": "b", "namespace": "d"}, "roleRef": {"kind": "Role", "name": role},
                "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "d"}]})
        };
        let mut object = kind.decode(binding("r")).expect("decodes");
        kind.default(&mut object);
        assert_eq!(object["roleRef"]["apiGroup"], super::GROUP);
        assert_eq!(object["subjects"][0]["apiGroup"], super::GROUP);
        assert!(object["subjects"][1].get("apiGroup").is_none());
        assert_eq!(kind.validate(&object), vec![]);
        let mut other = kind.decode(binding("other")).expect("decodes");
        kind.default(&mut other);
        assert_eq!(
            kind.validate_update(&other, &object)[0].to_string(),
            "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"other\"}: cannot change roleRef"
        );
        assert_eq!(
            errors(
                "clusterrolebindings",
                json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": ""},
                "subjects": [{"kind": "ServiceAccount", "name": "s"}, {"kind": "Robot", "name": "r"}]})
            ),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "roleRef.name: Required value",
                "subjects[0].namespace: Required value",
                "subjects[1].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ]
        );
    }

    #[test]
    fn a_role_without_rules_says_so() {
        let kind = kinds::find(super::GROUP, "v1", "roles").expect("roles");
        let object = kind
            .decode(json!({"metadata": {"name": "r", "namespace": "d"}}))
            .expect("decodes");
        assert_eq!(object["rules"], Value::Null);
        assert!(object.get("rules").is_some());
    }
}
