//! Which address families a Service has: what it asks for, what the cluster has, and what follows.
//!
//! Source: KEP-563 (dual stack), `initIPFamilyFields` in `pkg/registry/core/service/storage/alloc.go`.

use k8s_openapi::api::core::v1::ServiceSpec;
use seaway_objects::field::{FieldError, FieldErrors};
use seaway_objects::ip;
use seaway_objects::kinds::service::clusters;

use super::pools::Family;

const SINGLE: &str = "SingleStack";
const PREFER_DUAL: &str = "PreferDualStack";
const REQUIRE_DUAL: &str = "RequireDualStack";
const POLICY: &str = "spec.ipFamilyPolicy";

/// Fills in `ipFamilies` and `ipFamilyPolicy` of a Service that has addresses. `cluster` are the families that
/// Services can have, the default first.
pub(super) fn settle(
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    cluster: &[Family],
) -> FieldErrors {
    if is_external(spec) || stays_as_it_is(spec, old) {
        return FieldErrors::new();
    }
    let anything_goes = is_headless(spec) && !selects(spec);
    if spec.ip_family_policy.is_none() {
        let before = old.and_then(|old| old.ip_family_policy.clone());
        let policy = if anything_goes { REQUIRE_DUAL } else { SINGLE };
        spec.ip_family_policy = before.or_else(|| Some(policy.to_owned()));
    }
    let errors = clusters::validate(spec, old);
    if !errors.is_empty() {
        return errors;
    }
    let policy = spec.ip_family_policy.clone().unwrap_or_default();
    let mut errors = FieldErrors::new();
    if let Some(old) = old {
        errors.extend(settle_change(spec, old, &policy));
    }
    if policy == SINGLE {
        for (what, list) in [
            ("cluster IPs", &spec.cluster_ips),
            ("IP families", &spec.ip_families),
        ] {
            if list.as_ref().is_some_and(|list| list.len() == 2) {
                errors.push(FieldError::invalid(
                    POLICY,
                    &policy,
                    &format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"),
                ));
            }
        }
    }
    errors.extend(infer_from_addresses(spec, cluster));
    if !errors.is_empty() {
        return errors;
    }
    if anything_goes {
        // Its endpoints are written by hand and may be of any family, whatever the cluster has.
        complete(spec, &policy, cluster.first().copied(), true);
        return errors;
    }
    if policy == REQUIRE_DUAL && cluster.len() < 2 {
        errors.push(FieldError::invalid(
            POLICY,
            &policy,
            "this cluster is not configured for dual-stack services",
        ));
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        if !Family::read(family).is_some_and(|family| cluster.contains(&family)) {
            errors.push(FieldError::invalid(
                format!("spec.ipFamilies[{i}]"),
                family,
                "not configured on this cluster",
            ));
        }
    }
    if errors.is_empty() {
        complete(spec, &policy, cluster.first().copied(), cluster.len() == 2);
    }
    errors
}

/// A Service that prefers both families is neither extended nor cut only because the cluster changed.
/// Source: `isMatchingPreferDualStackClusterIPFields`.
pub(super) fn stays_as_it_is(spec: &ServiceSpec, old: Option<&ServiceSpec>) -> bool {
    let Some(old) = old else {
        return false;
    };
    let has_cluster_type = matches!(
        spec.type_.as_deref(),
        Some("ClusterIP" | "NodePort" | "LoadBalancer")
    );
    let prefers = |policy: &Option<String>| policy.as_deref() == Some(PREFER_DUAL);
    prefers(&spec.ip_family_policy)
        && (old.ip_family_policy.is_none() || prefers(&old.ip_family_policy))
        && spec.type_ == old.type_
        && has_cluster_type
        && list(&spec.cluster_ips) == list(&old.cluster_ips)
        && list(&spec.ip_families) == list(&old.ip_families)
}

/// Going back to one family takes the second address and family away, and nothing else does.
fn settle_change(spec: &mut ServiceSpec, old: &ServiceSpec, policy: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (what, now, before) in [
        ("cluster IP", &mut spec.cluster_ips, &old.cluster_ips),
        ("IP family", &mut spec.ip_families, &old.ip_families),
    ] {
        if policy == SINGLE {
            if list(now) == list(before)
                && let Some(now) = now
            {
                now.truncate(1);
            }
        } else if !list(now).is_empty() && list(now).len() < list(before).len() {
            errors.push(FieldError::invalid(
                POLICY,
                policy,
                &format!("must be 'SingleStack' to release the secondary {what}"),
            ));
        }
    }
    errors
}

/// Addresses that were asked for say which families are meant.
fn infer_from_addresses(spec: &mut ServiceSpec, cluster: &[Family]) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let ips = spec.cluster_ips.clone().unwrap_or_default();
    for (i, text) in ips.iter().enumerate().take_while(|(_, ip)| *ip != "None") {
        let families = spec.ip_families.get_or_insert_default();
        let Some(ip) = ip::parse_loosely(text).filter(|_| i >= families.len()) else {
            continue;
        };
        let family = Family::of(ip);
        if cluster.contains(&family) {
            families.push(family.text().to_owned());
        } else {
            errors.push(FieldError::invalid(
                format!("spec.clusterIPs[{i}]"),
                &ips,
                &format!("{} is not configured on this cluster", family.text()),
            ));
        }
    }
    if list(&spec.ip_families).is_empty() {
        spec.ip_families = None;
    }
    errors
}

/// At least one family; the other one too if it is wanted and can be had.
fn complete(spec: &mut ServiceSpec, policy: &str, default: Option<Family>, dual: bool) {
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.extend(default.map(|family| family.text().to_owned()));
    }
    if dual
        && policy != SINGLE
        && let [one] = families.as_slice()
        && let Some(family) = Family::read(one)
    {
        families.push(family.other().text().to_owned());
    }
}

pub(super) fn is_external(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("ExternalName")
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn selects(spec: &ServiceSpec) -> bool {
    spec.selector.as_ref().is_some_and(|s| !s.is_empty())
}

fn list(field: &Option<Vec<String>>) -> &[String] {
    field.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const V4: &[Family] = &[Family::V4];
    const DUAL: &[Family] = &[Family::V4, Family::V6];

    fn spec(value: Value) -> ServiceSpec {
        let mut spec: ServiceSpec = serde_json::from_value(value).unwrap();
        spec.type_.get_or_insert_with(|| "ClusterIP".to_owned());
        if let Some(ips) = &spec.cluster_ips {
            spec.cluster_ip = ips.first().cloned();
        }
        spec
    }

    fn settled(value: Value, old: Option<Value>, cluster: &[Family]) -> (Value, Vec<String>) {
        let mut new = spec(value);
        let old = old.map(spec);
        let errors = settle(&mut new, old.as_ref(), cluster);
        let shown = json!([new.ip_families, new.ip_family_policy, new.cluster_ips]);
        (shown, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_service_is_single_stack_unless_it_wants_more_and_the_cluster_has_it() {
        let prefer = || json!({"ipFamilyPolicy": PREFER_DUAL});
        for (asked, cluster, expected) in [
            (json!({}), V4, json!([["IPv4"], SINGLE, null])),
            (json!({}), DUAL, json!([["IPv4"], SINGLE, null])),
            (prefer(), V4, json!([["IPv4"], PREFER_DUAL, null])),
            (prefer(), DUAL, json!([["IPv4", "IPv6"], PREFER_DUAL, null])),
            (
                json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": REQUIRE_DUAL}),
                DUAL,
                json!([["IPv6", "IPv4"], REQUIRE_DUAL, null]),
            ),
            (
                json!({"clusterIPs": ["fd00::9"]}),
                DUAL,
                json!([["IPv6"], SINGLE, ["fd00::9"]]),
            ),
            (
                json!({"clusterIPs": ["None"]}),
                V4,
                json!([["IPv4", "IPv6"], REQUIRE_DUAL, ["None"]]),
            ),
            (
                json!({"clusterIPs": ["None"], "ipFamilyPolicy": SINGLE}),
                V4,
                json!([["IPv4"], SINGLE, ["None"]]),
            ),
            (
                json!({"clusterIPs": ["None"], "selector": {"a": "b"}}),
                DUAL,
                json!([["IPv4"], SINGLE, ["None"]]),
            ),
        ] {
            assert_eq!(
                settled(asked.clone(), None, cluster),
                (expected, vec![]),
                "{asked}"
            );
        }
    }

    #[test]
    fn what_the_cluster_has_not_is_refused() {
        for (asked, cluster, error) in [
            (
                json!({"ipFamilyPolicy": REQUIRE_DUAL}),
                V4,
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                V4,
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            ),
            (
                json!({"clusterIPs": ["fd00::1"]}),
                V4,
                "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster",
            ),
            (
                json!({"ipFamilies": ["IPv4", "IPv6"]}),
                DUAL,
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
            ),
            (
                json!({"clusterIPs": ["10.96.0.9", "fd00::9"]}),
                DUAL,
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
            ),
            (
                json!({"ipFamilies": ["IPv4", "IPv4"], "ipFamilyPolicy": REQUIRE_DUAL}),
                DUAL,
                "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
            ),
            (
                json!({"clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv6"]}),
                DUAL,
                "spec.clusterIPs[0]: Invalid value: \"10.96.0.9\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            ),
        ] {
            assert_eq!(settled(asked.clone(), None, cluster).1, [error], "{asked}");
        }
    }

    #[test]
    fn only_single_stack_takes_the_second_family_away() {
        let dual = || {
            json!({"ipFamilyPolicy": REQUIRE_DUAL, "ipFamilies": ["IPv4", "IPv6"],
                "clusterIPs": ["10.96.0.9", "fd00::9"]})
        };
        let mut single = dual();
        single["ipFamilyPolicy"] = json!(SINGLE);
        assert_eq!(
            settled(single, Some(dual()), DUAL),
            (json!([["IPv4"], SINGLE, ["10.96.0.9"]]), vec![])
        );
        let mut fewer = dual();
        fewer["clusterIPs"] = json!(["10.96.0.9"]);
        fewer["ipFamilies"] = json!(["IPv4"]);
        assert_eq!(
            settled(fewer, Some(dual()), DUAL).1,
            [
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary cluster IP",
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary IP family",
            ]
        );
    }

    #[test]
    fn a_change_of_the_cluster_changes_no_service_that_is_content() {
        let prefers = || json!({"ipFamilyPolicy": PREFER_DUAL, "ipFamilies": ["IPv4"], "clusterIPs": ["10.96.0.9"]});
        assert_eq!(
            settled(prefers(), Some(prefers()), DUAL),
            (json!([["IPv4"], PREFER_DUAL, ["10.96.0.9"]]), vec![])
        );
        let mut single = prefers();
        single["ipFamilyPolicy"] = json!(SINGLE);
        assert_eq!(
            settled(prefers(), Some(single), DUAL),
            (
                json!([["IPv4", "IPv6"], PREFER_DUAL, ["10.96.0.9"]]),
                vec![]
            )
        );
    }
}
