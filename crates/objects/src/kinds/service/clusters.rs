//! `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`: how they hang together.
//!
//! Source: `ValidateServiceClusterIPsRelatedFields`, `validateUpgradeDowngradeClusterIPs` and
//! `validateUpgradeDowngradeIPFamilies` in `pkg/apis/core/validation`; KEP-563.

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{is_headless, is_type};
use crate::field::{FieldError, FieldErrors, one_of};
use crate::ip;
use crate::metadata::wrong;
use crate::names::Wrong;

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const IPS: &str = "spec.clusterIPs";
const ONCE: &str = "may not change once set";

/// Whether the four fields fit each other. The API server asks this too, before it gives out addresses.
pub fn validate(spec: &ServiceSpec, old: Option<&ServiceSpec>) -> FieldErrors {
    if is_type(spec, "ExternalName") {
        return FieldErrors::new();
    }
    let mut errors = FieldErrors::new();
    let single = spec.cluster_ip.as_deref().unwrap_or_default();
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let families = spec.ip_families.as_deref().unwrap_or_default();
    match ips.first() {
        None if !single.is_empty() => errors.push(FieldError::required(IPS, "")),
        Some(_) if single.is_empty() => errors.push(FieldError::invalid(
            IPS,
            ips,
            "must be empty when `clusterIP` is not specified",
        )),
        Some(first) if first != single => errors.push(FieldError::invalid(
            IPS,
            ips,
            "first value must match `clusterIP`",
        )),
        _ => {}
    }
    for (i, family) in families.iter().enumerate() {
        let at = format!("spec.ipFamilies[{i}]");
        errors.extend(one_of(family, &FAMILIES, &at));
        if families[..i].contains(family) {
            errors.push(FieldError::duplicate(at, family));
        }
    }
    if let Some(policy) = spec.ip_family_policy.as_deref() {
        errors.extend(one_of(policy, &POLICIES, "spec.ipFamilyPolicy"));
    }
    let before = old.and_then(|old| old.cluster_ips.as_deref());
    let (addresses, readable) = validate_ips(ips, before.unwrap_or_default());
    errors.extend(addresses);
    if !readable {
        return errors;
    }
    let v6 = |text: &String| ip::parse_loosely(text).is_some_and(|ip| ip.is_ipv6());
    if ips.len() > 1 && !(ips.iter().any(v6) && ips.iter().any(|ip| !v6(ip))) {
        errors.push(FieldError::invalid(
            IPS,
            ips,
            "may specify no more than one IP for each IP family",
        ));
    }
    if !is_headless(spec) {
        for (i, (address, family)) in std::iter::zip(ips, families).enumerate() {
            let expected = match family.as_str() {
                "IPv4" if v6(address) => "an IPv4",
                "IPv6" if !v6(address) => "an IPv6",
                _ => continue,
            };
            errors.push(FieldError::invalid(
                format!("{IPS}[{i}]"),
                address,
                &format!("expected {expected} value as indicated by `ipFamilies[{i}]`"),
            ));
        }
    }
    errors
}

/// What is wrong with the addresses one by one, and whether they can be read at all.
fn validate_ips(ips: &[String], before: &[String]) -> (FieldErrors, bool) {
    let mut errors = FieldErrors::new();
    let mut readable = true;
    for (i, address) in ips.iter().enumerate() {
        if i == 0 && address == "None" {
            if ips.len() > 1 {
                readable = false;
                errors.push(FieldError::invalid(
                    IPS,
                    ips,
                    "'None' must be the first and only value",
                ));
            }
            continue;
        }
        let bad = if before.contains(address) {
            Wrong::new()
        } else {
            ip::address(address)
        };
        readable &= bad.is_empty();
        errors.extend(wrong(&format!("{IPS}[{i}]"), address.as_str(), bad));
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(
            IPS,
            ips,
            "may only hold up to 2 values",
        ));
    }
    (errors, readable)
}

/// The first address and family stay; the second may come, and go with `SingleStack`.
pub(super) fn validate_change(new: &ServiceSpec, old: &ServiceSpec) -> FieldErrors {
    if is_type(new, "ExternalName") || is_type(old, "ExternalName") {
        return FieldErrors::new();
    }
    let mut errors = FieldErrors::new();
    let headless = (is_headless(old), is_headless(new));
    if headless != (true, true) {
        errors.extend(validate_ips_change(new, old));
    }
    if headless == (false, false) {
        errors.extend(validate_families_change(new, old));
    }
    errors
}

fn validate_ips_change(new: &ServiceSpec, old: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let before = old.cluster_ips.as_deref().unwrap_or_default();
    let after = new.cluster_ips.as_deref().unwrap_or_default();
    let at = |i: usize| format!("{IPS}[{i}]");
    if before.len() == after.len() {
        let pairs = std::iter::zip(before, after).enumerate();
        errors.extend(
            pairs
                .filter(|(_, (before, after))| before != after)
                .map(|(i, _)| FieldError::invalid(at(i), after, ONCE)),
        );
        return errors;
    }
    if before.len() > after.len() && after.is_empty() {
        errors.push(FieldError::invalid(
            at(0),
            &new.cluster_ips,
            "primary clusterIP can not be unset",
        ));
    }
    if let (Some(first), Some(now)) = (before.first(), after.first())
        && first != now
    {
        errors.push(FieldError::invalid(at(0), after, ONCE));
    }
    if before.len() > after.len() && after.len() == 1 {
        errors.extend(single_stack_only(new, "clusterIP"));
    }
    errors
}

fn validate_families_change(new: &ServiceSpec, old: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let before = old.ip_families.as_deref().unwrap_or_default();
    let after = new.ip_families.as_deref().unwrap_or_default();
    let at = "spec.ipFamilies[0]";
    if before.len() == after.len() {
        let changed = std::iter::zip(before, after).filter(|(before, after)| before != after);
        errors.extend(changed.map(|_| FieldError::invalid(at, after, ONCE)));
        return errors;
    }
    let no_ips = new.cluster_ips.as_ref().is_none_or(Vec::is_empty);
    if before.len() > after.len() && no_ips {
        errors.push(FieldError::invalid(
            at,
            &new.ip_families,
            "primary ipFamily can not be unset",
        ));
    }
    if let (Some(first), Some(now)) = (before.first(), after.first())
        && first != now
    {
        // Kubernetes shows the addresses here.
        errors.push(FieldError::invalid(at, &new.cluster_ips, ONCE));
    }
    if before.len() > after.len() && after.len() == 1 {
        errors.extend(single_stack_only(new, "ipFamily"));
    }
    errors
}

fn single_stack_only(new: &ServiceSpec, what: &str) -> Option<FieldError> {
    let policy = new.ip_family_policy.as_deref();
    (policy != Some("SingleStack")).then(|| {
        FieldError::invalid(
            "spec.ipFamilyPolicy",
            policy,
            &format!("must be set to 'SingleStack' when releasing the secondary {what}"),
        )
    })
}
