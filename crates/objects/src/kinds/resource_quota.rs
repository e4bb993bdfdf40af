//! ResourceQuota: how much of what there may be in a namespace.
//!
//! Source: `ValidateResourceQuota` in `pkg/apis/core/validation`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, ScopeSelector,
    ScopedResourceSelectorRequirement,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use crate::field::{FieldError, FieldErrors};
use crate::kind::{Column, Names};
use crate::quantity::{Amount, UNIT};
use crate::rules::Rules;
use crate::{resources, table};

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// What a scope of Pods other than `BestEffort` can be about.
const OF_PODS: [&str; 7] = [
    "pods",
    "cpu",
    "memory",
    "limits.cpu",
    "limits.memory",
    "requests.cpu",
    "requests.memory",
];
const OF_CLAIMS: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
const OPPOSITES: [[&str; 2]; 2] = [
    ["BestEffort", "NotBestEffort"],
    ["Terminating", "NotTerminating"],
];

pub(super) struct ResourceQuotas;

impl Rules for ResourceQuotas {
    type Object = ResourceQuota;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "ResourceQuota",
        plural: "resourcequotas",
        singular: "resourcequota",
        short_names: &["quota"],
        categories: &[],
        namespaced: true,
    };
    const STATUS: bool = true;

    fn default(object: &mut ResourceQuota) {
        // In Go both are plain structs, which are always written.
        object.spec.get_or_insert_default();
        object.status.get_or_insert_default();
    }

    fn prepare_create(object: &mut ResourceQuota) {
        object.status = Some(ResourceQuotaStatus::default());
    }

    fn validate(object: &ResourceQuota) -> FieldErrors {
        let spec = object.spec.clone().unwrap_or_default();
        let mut errors = validate_amounts(spec.hard.as_ref(), "spec.hard");
        errors.extend(validate_scopes(&spec));
        if let Some(selector) = &spec.scope_selector {
            errors.extend(validate_selector(selector, &spec));
        }
        errors
    }

    fn validate_update(new: &ResourceQuota, old: &ResourceQuota) -> FieldErrors {
        let scopes = |quota: &ResourceQuota| -> Vec<String> {
            let spec = quota.spec.as_ref();
            spec.and_then(|s| s.scopes.clone()).unwrap_or_default()
        };
        let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<String>>();
        let (now, before) = (scopes(new), scopes(old));
        if set(&now) == set(&before) {
            return FieldErrors::new();
        }
        let shown = if now.is_empty() {
            Value::Null
        } else {
            json!(now)
        };
        vec![FieldError::invalid(
            "spec.scopes",
            shown,
            "field is immutable",
        )]
    }

    fn validate_status(new: &ResourceQuota, _old: &ResourceQuota) -> FieldErrors {
        let status = new.status.clone().unwrap_or_default();
        let mut errors = validate_amounts(status.hard.as_ref(), "status.hard");
        errors.extend(validate_amounts(status.used.as_ref(), "status.used"));
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            table::name_column(),
            table::column(
                "Request",
                "string",
                "Request represents a minimum amount of cpu/memory that a container may consume.",
            ),
            table::column(
                "Limit",
                "string",
                "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
            ),
            table::age_column(),
        ]
    }

    fn cells(object: &ResourceQuota, now: i64) -> Vec<Value> {
        let status = object.status.clone().unwrap_or_default();
        let used = status.used.unwrap_or_default();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in status.hard.iter().flatten() {
            let used = used.get(name).map_or("0", |amount| amount.0.as_str());
            let text = format!("{name}: {used}/{}", hard.0);
            if name.starts_with("limits.") {
                limits.push(text);
            } else {
                requests.push(text);
            }
        }
        vec![
            table::name(&object.metadata),
            Value::from(requests.join(", ")),
            Value::from(limits.join(", ")),
            table::age(&object.metadata, now),
        ]
    }
}

fn validate_amounts(amounts: Option<&BTreeMap<String, Quantity>>, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (name, amount) in amounts.into_iter().flatten() {
        let at = format!("{at}[{name}]");
        errors.extend(resources::validate_quota_name(name, &at));
        let value = Amount::parse(&amount.0).unwrap_or_default();
        if value.nano < 0 {
            errors.push(FieldError::invalid(
                at.clone(),
                &amount.0,
                "must be greater than or equal to 0",
            ));
        }
        if resources::is_integer(name) && value.nano % UNIT != 0 {
            errors.push(FieldError::invalid(at, &amount.0, "must be an integer"));
        }
    }
    errors
}

fn hard_names(spec: &ResourceQuotaSpec) -> impl Iterator<Item = &String> {
    spec.hard.iter().flat_map(BTreeMap::keys)
}

/// Whether what the scope picks out can use any of the resource.
fn scope_fits(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => OF_PODS.contains(&resource),
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => OF_CLAIMS.contains(&resource),
        _ => true,
    }
}

fn validate_scopes(spec: &ResourceQuotaSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let scopes = spec.scopes.as_deref().unwrap_or_default();
    let mut wrong = |words: &str| errors.push(FieldError::invalid("spec.scopes", scopes, words));
    for scope in scopes {
        if !SCOPES.contains(&scope.as_str()) {
            wrong("unsupported scope");
        }
        for name in hard_names(spec) {
            if resources::is_standard_for_quota(name) && !scope_fits(scope, name) {
                wrong("unsupported scope applied to resource");
            }
        }
    }
    for pair in OPPOSITES {
        if pair
            .iter()
            .all(|one| scopes.iter().any(|scope| scope == one))
        {
            wrong("conflicting scopes");
        }
    }
    errors
}

fn validate_selector(selector: &ScopeSelector, spec: &ResourceQuotaSpec) -> FieldErrors {
    const AT: &str = "spec.scopeSelector.matchExpressions";
    let requirements: &[ScopedResourceSelectorRequirement] =
        selector.match_expressions.as_deref().unwrap_or_default();
    let mut errors = FieldErrors::new();
    for requirement in requirements {
        let scope = requirement.scope_name.as_str();
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(
                format!("{AT}.scopeName"),
                scope,
                "unsupported scope",
            ));
        }
        for name in hard_names(spec) {
            if resources::is_standard_for_quota(name) && !scope_fits(scope, name) {
                errors.push(FieldError::invalid(
                    AT,
                    as_go_shows(selector),
                    "unsupported scope applied to resource",
                ));
            }
        }
        let operator = requirement.operator.as_str();
        let by_itself = !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if by_itself && SCOPES.contains(&scope) && operator != "Exists" {
            errors.push(FieldError::invalid(
                format!("{AT}.operator"),
                operator,
                "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            ));
        }
        let values = requirement.values.as_deref().unwrap_or_default();
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                format!("{AT}.values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::invalid(
                format!("{AT}.values"),
                values,
                "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                format!("{AT}.operator"),
                other,
                "not a valid selector operator",
            )),
        }
    }
    for pair in OPPOSITES {
        if pair
            .iter()
            .all(|one| requirements.iter().any(|r| r.scope_name == *one))
        {
            let shown = match &spec.scopes {
                Some(scopes) if !scopes.is_empty() => json!(scopes),
                _ => Value::Null,
            };
            errors.push(FieldError::invalid(AT, shown, "conflicting scopes"));
        }
    }
    errors
}

/// Kubernetes shows the selector in its internal form, whose fields have Go's names.
fn as_go_shows(selector: &ScopeSelector) -> Value {
    let requirements: Vec<Value> = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|r| json!({"ScopeName": r.scope_name, "Operator": r.operator, "Values": r.values}))
        .collect();
    json!({"MatchExpressions": requirements})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    fn errors(spec: Value) -> Vec<String> {
        let kind = kinds::find("", "v1", "resourcequotas").expect("resourcequotas");
        let object = json!({"metadata": {"name": "q", "namespace": "d"}, "spec": spec});
        let object = kind.decode(object).expect("decodes");
        kind.validate(&object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn amounts_are_canonical_and_may_be_written_as_numbers() {
        let kind = kinds::find("", "v1", "resourcequotas").expect("resourcequotas");
        let object = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": 3, "requests.cpu": "0.5", "memory": "1024Mi"}}});
        let mut object = kind.decode(object).expect("decodes");
        kind.default(&mut object);
        kind.prepare_create(&mut object);
        assert_eq!(
            object["spec"]["hard"],
            json!({"pods": "3", "requests.cpu": "500m", "memory": "1Gi"})
        );
        assert_eq!(object["status"], json!({}));
        let wrong = kind
            .decode(json!({"spec": {"hard": {"pods": "three"}}}))
            .expect_err("no quantity");
        assert_eq!(wrong.message, crate::quantity::NOT_A_QUANTITY);
    }

    #[test]
    fn what_cannot_be_limited_is_refused() {
        assert_eq!(
            errors(json!({"hard": {"services": "-1"}})),
            ["spec.hard[services]: Invalid value: \"-1\": must be greater than or equal to 0"]
        );
        assert_eq!(
            errors(json!({"hard": {"pods": "1.5"}})),
            ["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"]
        );
        assert_eq!(
            errors(json!({"hard": {"wishes": "3"}})),
            [
                "spec.hard[wishes]: Invalid value: \"wishes\": must be a standard resource type or fully qualified",
                "spec.hard[wishes]: Invalid value: \"wishes\": must be a standard resource for quota"
            ]
        );
        assert_eq!(
            errors(json!({"hard": {"count/deployments.apps": "2", "cpu": "1"}})),
            [""; 0]
        );
    }

    #[test]
    fn scopes_fit_each_other_and_what_is_limited() {
        assert_eq!(
            errors(json!({"scopes": ["BestEffort", "NotBestEffort"]})),
            ["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"]
        );
        assert_eq!(
            errors(json!({"scopes": ["BestEffort"], "hard": {"cpu": "1"}})),
            ["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"]
        );
        assert_eq!(
            errors(
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}})
            ),
            [
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            ]
        );
    }
}
