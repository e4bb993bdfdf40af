//! The names of resources that containers ask for, ranges limit and quotas count: `cpu`, `requests.memory`,
//! `example.com/gpu`, `count/deployments.apps`.
//!
//! Source: `pkg/apis/core/helper` and `ValidateResourceQuotaResourceName` and its neighbours in
//! `pkg/apis/core/validation`.

use crate::field::{FieldError, FieldErrors};
use crate::metadata::wrong;
use crate::names;

/// What a quota's names for requests begin with.
pub const REQUESTS: &str = "requests.";
/// What a quota's names for counted objects begin with.
pub const COUNT: &str = "count/";

const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// What only a quota can limit, and what it shares with containers.
const QUOTA: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
    // Known, but of claims only.
    "storage",
];
const INTEGERS: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether the name is one of Kubernetes' own: without a domain, or with one of `kubernetes.io`.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether the name is that of an extended resource of a node, `example.com/gpu` for example.
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with(REQUESTS)
        && names::qualified_name(&format!("{REQUESTS}{name}")).is_empty()
}

/// Whether only whole numbers of it make sense.
pub fn is_integer(name: &str) -> bool {
    INTEGERS.contains(&name) || is_extended(name)
}

/// Whether a container may be limited to more than it requests.
pub fn may_be_overcommitted(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Whether a quota knows the name without a domain.
pub fn is_standard_for_quota(name: &str) -> bool {
    (QUOTA.contains(&name) && name != "storage")
        || is_huge_pages(name)
        || name.strip_prefix(REQUESTS).is_some_and(is_huge_pages)
}

fn has_no_domain(name: &str) -> bool {
    !name.contains('/')
}

/// The name of any resource.
pub fn validate_name(name: &str, at: &str) -> FieldErrors {
    let errors = wrong(at, name, names::qualified_name(name));
    if !errors.is_empty() {
        return errors;
    }
    let standard = QUOTA.contains(&name) || is_huge_pages(name) || is_standard_for_quota(name);
    if has_no_domain(name) && !standard {
        let words = "must be a standard resource type or fully qualified";
        return vec![FieldError::invalid(at, name, words)];
    }
    FieldErrors::new()
}

/// The name of a resource that a container asks for.
pub fn validate_container_name(name: &str, at: &str) -> FieldErrors {
    let mut errors = validate_name(name, at);
    if has_no_domain(name) {
        if !CONTAINER.contains(&name) && !is_huge_pages(name) {
            let words = "must be a standard resource for containers";
            errors.push(FieldError::invalid(at, name, words));
        }
    } else if !is_native(name) && !is_extended(name) {
        let words = "doesn't follow extended resource name standard";
        errors.push(FieldError::invalid(at, name, words));
    }
    errors
}

/// The name of a resource that a quota limits.
pub fn validate_quota_name(name: &str, at: &str) -> FieldErrors {
    let mut errors = validate_name(name, at);
    if has_no_domain(name) && !is_standard_for_quota(name) {
        let words = "must be a standard resource for quota";
        errors.push(FieldError::invalid(at, name, words));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_domain_must_be_known() {
        for name in [
            "cpu",
            "count/pods",
            "example.com/gpu",
            "requests.example.com/gpu",
            "requests.hugepages-2Mi",
        ] {
            assert_eq!(validate_quota_name(name, "x"), vec![], "{name}");
        }
        assert_eq!(validate_quota_name("gpus", "x").len(), 2);
        assert_eq!(
            validate_quota_name("storage", "x")[0].message,
            "Invalid value: \"storage\": must be a standard resource for quota"
        );
        assert_eq!(validate_container_name("pods", "x").len(), 1);
    }

    #[test]
    fn objects_and_devices_are_counted_in_whole_numbers() {
        for name in ["pods", "count/widgets.example.com", "example.com/gpu"] {
            assert!(is_integer(name), "{name}");
        }
        for name in ["cpu", "requests.memory", "requests.example.com/gpu"] {
            assert!(!is_integer(name), "{name}");
        }
    }
}
