//! Which address families a Service has. The cluster has IPv4 only; who insists on something else is refused.
//!
//! Source: KEP-563 (dual stack), `pkg/registry/core/service/storage/alloc.go`.

use std::net::IpAddr;

use seaway_objects::field::{FieldError, FieldErrors};
use serde_json::{Map, Value, json};

const SINGLE: &str = "SingleStack";
const REQUIRE_DUAL: &str = "RequireDualStack";

/// Fills in `ipFamilies` and `ipFamilyPolicy` of a Service that has addresses.
pub(super) fn settle(spec: &mut Map<String, Value>) -> FieldErrors {
    let ips = texts(spec.get("clusterIPs"));
    let headless = ips.first().is_some_and(|ip| ip == "None");
    let policy = spec
        .get("ipFamilyPolicy")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let mut families = texts(spec.get("ipFamilies"));
    let selects = spec
        .get("selector")
        .and_then(Value::as_object)
        .is_some_and(|s| !s.is_empty());
    if headless && !selects {
        // Its endpoints are written by hand and may be of any family, whatever the cluster has.
        if families.is_empty() {
            families.push("IPv4".to_owned());
        }
        if policy.is_empty() {
            spec.insert("ipFamilyPolicy".to_owned(), json!(REQUIRE_DUAL));
        }
        if families.len() == 1 && policy != SINGLE {
            let other = if families[0] == "IPv4" {
                "IPv6"
            } else {
                "IPv4"
            };
            families.push(other.to_owned());
        }
        spec.insert("ipFamilies".to_owned(), json!(families));
        return FieldErrors::new();
    }
    let mut errors = FieldErrors::new();
    if policy == REQUIRE_DUAL {
        errors.push(FieldError::invalid(
            "spec.ipFamilyPolicy",
            &policy,
            "this cluster is not configured for dual-stack services",
        ));
    }
    if policy != REQUIRE_DUAL && policy != "PreferDualStack" {
        for (field, values) in [("ipFamilies", &families), ("clusterIPs", &ips)] {
            if values.len() > 1 {
                errors.push(FieldError::invalid(
                    "spec.ipFamilyPolicy",
                    if policy.is_empty() { SINGLE } else { &policy },
                    &format!("must be RequireDualStack or PreferDualStack when multiple '{field}' are specified"),
                ));
            }
        }
    }
    for (i, family) in families.iter().enumerate() {
        if family != "IPv4" {
            errors.push(FieldError::invalid(
                format!("spec.ipFamilies[{i}]"),
                family,
                "not configured on this cluster",
            ));
        }
    }
    if families
        .iter()
        .enumerate()
        .any(|(i, f)| families[..i].contains(f))
    {
        errors.push(FieldError::duplicate("spec.ipFamilies[1]", &families[0]));
    }
    for (i, ip) in ips.iter().enumerate() {
        if matches!(ip.parse(), Ok(IpAddr::V6(_))) {
            let words = if families.is_empty() {
                "may not use IPv6 on a cluster which is not configured for it"
            } else {
                "expected an IPv4 value as indicated by `ipFamilies[0]`"
            };
            errors.push(FieldError::invalid(
                format!("spec.clusterIPs[{i}]"),
                ip,
                words,
            ));
        }
    }
    if errors.is_empty() {
        spec.insert("ipFamilies".to_owned(), json!(["IPv4"]));
        if policy.is_empty() {
            spec.insert("ipFamilyPolicy".to_owned(), json!(SINGLE));
        }
    }
    errors
}

/// The texts of a list; empty if there is none.
pub(super) fn texts(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(spec: Value) -> (Value, Vec<String>) {
        let Value::Object(mut spec) = spec else {
            unreachable!("tests give objects")
        };
        let errors = settle(&mut spec).iter().map(ToString::to_string).collect();
        (Value::Object(spec), errors)
    }

    #[test]
    fn a_service_is_single_stack_unless_it_prefers_more() {
        let (spec, errors) = settled(json!({}));
        assert_eq!(errors, [""; 0]);
        assert_eq!(
            spec,
            json!({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})
        );
        let (spec, errors) = settled(json!({"ipFamilyPolicy": "PreferDualStack"}));
        assert_eq!(errors, [""; 0]);
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
        assert_eq!(spec["ipFamilyPolicy"], "PreferDualStack");
    }

    #[test]
    fn what_the_cluster_has_not_is_refused() {
        for (spec, error) in [
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            ),
            (
                json!({"clusterIPs": ["fd00::1"]}),
                "spec.clusterIPs[0]: Invalid value: \"fd00::1\": may not use IPv6 on a cluster which is not configured for it",
            ),
        ] {
            assert_eq!(settled(spec).1, [error]);
        }
    }

    #[test]
    fn a_headless_service_without_selector_takes_any_family() {
        let (spec, errors) = settled(json!({"clusterIPs": ["None"]}));
        assert_eq!(errors, [""; 0]);
        assert_eq!(spec["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(spec["ipFamilyPolicy"], "RequireDualStack");
        let (spec, _) = settled(json!({"clusterIPs": ["None"], "selector": {"a": "b"}}));
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    }
}
