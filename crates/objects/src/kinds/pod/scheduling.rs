//! What is wrong with what a Pod says of where it may run: affinities, spreading, gates.
//!
//! Source: `validateAffinity`, `validateTopologySpreadConstraints`, `validateReadinessGates` and
//! `validateSchedulingGates` in `pkg/apis/core/validation`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};

use crate::field::{FieldError, FieldErrors, one_of};
use crate::metadata::{validate_label_selector, wrong};
use crate::names;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// All of it but the tolerations, which stand elsewhere in the order of messages.
pub(super) fn validate_affinity(spec: &PodSpec, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let affinity = spec.affinity.clone().unwrap_or_default();
    let at = format!("{at}.affinity");
    if let Some(nodes) = &affinity.node_affinity {
        errors.extend(node_affinity(nodes, &format!("{at}.nodeAffinity")));
    }
    let with = affinity.pod_affinity.unwrap_or_default();
    let without = affinity.pod_anti_affinity.unwrap_or_default();
    for (field, required, preferred) in [
        (
            "podAffinity",
            with.required_during_scheduling_ignored_during_execution,
            with.preferred_during_scheduling_ignored_during_execution,
        ),
        (
            "podAntiAffinity",
            without.required_during_scheduling_ignored_during_execution,
            without.preferred_during_scheduling_ignored_during_execution,
        ),
    ] {
        let at = format!("{at}.{field}");
        for (i, term) in required.iter().flatten().enumerate() {
            errors.extend(pod_affinity_term(term, &format!("{at}.{REQUIRED}[{i}]")));
        }
        for (i, term) in preferred.iter().flatten().enumerate() {
            errors.extend(weighted(term, &format!("{at}.{PREFERRED}[{i}]")));
        }
    }
    errors
}

/// Readiness gates, scheduling gates and spread constraints.
pub(super) fn validate_gates_and_spread(spec: &PodSpec, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        errors.extend(qualified(
            &gate.condition_type,
            &format!("{at}.readinessGates[{i}].conditionType"),
        ));
    }
    let mut seen = BTreeSet::new();
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let at = format!("{at}.schedulingGates[{i}]");
        errors.extend(qualified(&gate.name, &at));
        if !seen.insert(gate.name.as_str()) {
            errors.push(FieldError::duplicate(at, &gate.name));
        }
    }
    let constraints = spec
        .topology_spread_constraints
        .as_deref()
        .unwrap_or_default();
    for (i, constraint) in constraints.iter().enumerate() {
        let before = &constraints[..i];
        let at = format!("{at}.topologySpreadConstraints[{i}]");
        errors.extend(spread(constraint, before, &at));
    }
    errors
}

fn qualified(name: &str, at: &str) -> FieldErrors {
    wrong(at, name, names::qualified_name(name))
}

fn node_affinity(affinity: &NodeAffinity, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        let at = format!("{at}.{REQUIRED}.nodeSelectorTerms");
        if required.node_selector_terms.is_empty() {
            errors.push(FieldError::required(
                at.clone(),
                "must have at least one node selector term",
            ));
        }
        for (i, term) in required.node_selector_terms.iter().enumerate() {
            errors.extend(node_term(term, &format!("{at}[{i}]")));
        }
    }
    let preferred = &affinity.preferred_during_scheduling_ignored_during_execution;
    for (i, term) in preferred.iter().flatten().enumerate() {
        let at = format!("{at}.{PREFERRED}[{i}]");
        errors.extend(weight(term.weight, &at));
        errors.extend(node_term(&term.preference, &format!("{at}.preference")));
    }
    errors
}

fn weight(weight: i32, at: &str) -> FieldErrors {
    if (1..=100).contains(&weight) {
        return FieldErrors::new();
    }
    vec![FieldError::invalid(
        format!("{at}.weight"),
        weight,
        "must be in the range 1-100",
    )]
}

fn node_term(term: &NodeSelectorTerm, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        errors.extend(by_label(
            requirement,
            &format!("{at}.matchExpressions[{i}]"),
        ));
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        errors.extend(by_field(requirement, &format!("{at}.matchFields[{i}]")));
    }
    errors
}

fn by_label(requirement: &NodeSelectorRequirement, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let values = requirement.values.as_deref().unwrap_or_default();
    let values_at = format!("{at}.values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
            values_at.clone(),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
            values_at.clone(),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "Gt" | "Lt" if values.len() != 1 => errors.push(FieldError::required(
            values_at.clone(),
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(
            format!("{at}.operator"),
            other,
            "not a valid selector operator",
        )),
    }
    errors.extend(qualified(&requirement.key, &format!("{at}.key")));
    for (i, value) in values.iter().enumerate() {
        errors.extend(wrong(
            &format!("{values_at}[{i}]"),
            value.as_str(),
            names::label_value(value),
        ));
    }
    errors
}

fn by_field(requirement: &NodeSelectorRequirement, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => errors.push(FieldError::required(
            format!("{at}.values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        )),
        other => errors.push(FieldError::invalid(
            format!("{at}.operator"),
            other,
            "not a valid selector operator",
        )),
    }
    if requirement.key != "metadata.name" {
        errors.push(FieldError::invalid(
            format!("{at}.key"),
            &requirement.key,
            "not a valid field selector key",
        ));
        return errors;
    }
    for (i, value) in values.iter().enumerate() {
        errors.extend(wrong(
            &format!("{at}.values[{i}]"),
            value.as_str(),
            names::dns_subdomain(value),
        ));
    }
    errors
}

fn pod_affinity_term(term: &PodAffinityTerm, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (field, selector) in [
        ("labelSelector", &term.label_selector),
        ("namespaceSelector", &term.namespace_selector),
    ] {
        if let Some(selector) = selector {
            errors.extend(validate_label_selector(selector, &format!("{at}.{field}")));
        }
    }
    for name in term.namespaces.iter().flatten() {
        errors.extend(wrong(
            &format!("{at}.namespace"),
            name.as_str(),
            names::dns_label(name),
        ));
    }
    let at = format!("{at}.topologyKey");
    if term.topology_key.is_empty() {
        errors.push(FieldError::required(at.clone(), "can not be empty"));
    }
    errors.extend(qualified(&term.topology_key, &at));
    errors
}

fn weighted(term: &WeightedPodAffinityTerm, at: &str) -> FieldErrors {
    let mut errors = weight(term.weight, at);
    errors.extend(pod_affinity_term(
        &term.pod_affinity_term,
        &format!("{at}.podAffinityTerm"),
    ));
    errors
}

fn spread(
    constraint: &TopologySpreadConstraint,
    before: &[TopologySpreadConstraint],
    at: &str,
) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if constraint.max_skew <= 0 {
        errors.push(FieldError::invalid(
            format!("{at}.maxSkew"),
            constraint.max_skew,
            "must be greater than zero",
        ));
    }
    let (key, otherwise) = (&constraint.topology_key, &constraint.when_unsatisfiable);
    if key.is_empty() {
        errors.push(FieldError::required(
            format!("{at}.topologyKey"),
            "can not be empty",
        ));
    } else {
        errors.extend(qualified(key, &format!("{at}.topologyKey")));
    }
    errors.extend(one_of(
        otherwise,
        &["DoNotSchedule", "ScheduleAnyway"],
        &format!("{at}.whenUnsatisfiable"),
    ));
    let repeated = before
        .iter()
        .any(|one| one.topology_key == *key && one.when_unsatisfiable == *otherwise);
    if repeated {
        errors.push(FieldError::duplicate(
            format!("{at}.{{topologyKey, whenUnsatisfiable}}"),
            format!("{{{key}, {otherwise}}}"),
        ));
    }
    if let Some(domains) = constraint.min_domains {
        let at = format!("{at}.minDomains");
        if domains <= 0 {
            errors.push(FieldError::invalid(
                at.clone(),
                domains,
                "must be greater than zero",
            ));
        }
        if otherwise != "DoNotSchedule" {
            errors.push(FieldError::invalid(
                at,
                domains,
                &format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {otherwise}"
                ),
            ));
        }
    }
    for (field, policy) in [
        ("nodeAffinityPolicy", &constraint.node_affinity_policy),
        ("nodeTaintsPolicy", &constraint.node_taints_policy),
    ] {
        if let Some(policy) = policy {
            errors.extend(one_of(
                policy,
                &["Honor", "Ignore"],
                &format!("{at}.{field}"),
            ));
        }
    }
    if let Some(selector) = &constraint.label_selector {
        errors.extend(validate_label_selector(
            selector,
            &format!("{at}.labelSelector"),
        ));
    }
    errors
}
