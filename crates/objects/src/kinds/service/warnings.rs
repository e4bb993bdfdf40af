//! What the writer of a Service should know although it was taken.
//!
//! Source: `GetWarningsForService` in `pkg/api/service/warnings.go`.

use k8s_openapi::api::core::v1::Service;

use super::is_type;
use crate::ip;

const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";

pub(super) fn warnings(service: &Service) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(spec) = &service.spec else {
        return warnings;
    };
    let annotations = service.metadata.annotations.as_ref();
    if annotations.is_some_and(|a| a.contains_key(HINTS)) {
        warnings.push(format!(
            "annotation {HINTS} is deprecated, please use {MODE} instead"
        ));
    }
    let single = spec.cluster_ip.as_deref().unwrap_or_default();
    if !single.is_empty() && single != "None" {
        for (i, address) in spec.cluster_ips.iter().flatten().enumerate() {
            warnings.extend(ip::address_warning(
                &format!("spec.clusterIPs[{i}]"),
                address,
            ));
        }
    }
    let external_ips = spec.external_ips.as_deref().unwrap_or_default();
    let balancer_ip = spec.load_balancer_ip.as_deref().unwrap_or_default();
    let headless = is_type(spec, "ClusterIP") && single == "None";
    let external_name = is_type(spec, "ExternalName");
    if headless {
        if !balancer_ip.is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if !external_ips.is_empty() {
            warnings.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if spec.session_affinity.as_deref() != Some("None") {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    for (i, address) in external_ips.iter().enumerate() {
        warnings.extend(ip::address_warning(
            &format!("spec.externalIPs[{i}]"),
            address,
        ));
    }
    if !external_ips.is_empty() && !headless && !external_name {
        warnings.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
                .to_owned(),
        );
    }
    warnings.extend(ip::address_warning("spec.loadBalancerIP", balancer_ip));
    for (i, range) in spec
        .load_balancer_source_ranges
        .iter()
        .flatten()
        .enumerate()
    {
        warnings.extend(ip::cidr_warnings(
            &format!("spec.loadBalancerSourceRanges[{i}]"),
            range,
        ));
    }
    if external_name && !external_ips.is_empty() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external_name && spec.external_name.as_ref().is_some_and(|n| !n.is_empty()) {
        warnings
            .push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.traffic_distribution.as_deref() == Some("PreferClose") {
        warnings.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""
                .to_owned(),
        );
    }
    warnings
}
