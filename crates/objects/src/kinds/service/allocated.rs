//! What a replaced Service keeps of the old one, and what it loses with its type.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{externally_accessible, is_type, needs_health_check};

/// What was given out to the old Service and was left out of the new one stays: clients replace Services without
/// knowing the addresses. Source: `patchAllocatedValues` in `pkg/registry/core/service/storage`.
pub(super) fn carry_over(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        if text(&spec.cluster_ip).is_empty() {
            spec.cluster_ip.clone_from(&old.cluster_ip);
        }
        if list(&spec.cluster_ips).is_empty() && text(&spec.cluster_ip) == text(&old.cluster_ip) {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if needs_node_port(old) && needs_node_port(spec) {
        let kept: BTreeSet<i32> = &node_ports(old) & &node_ports(spec);
        let by_name: BTreeMap<&str, i32> = old
            .ports
            .iter()
            .flatten()
            .map(|p| {
                let name = p.name.as_deref().unwrap_or_default();
                (name, p.node_port.unwrap_or(0))
            })
            .collect();
        for port in spec.ports.iter_mut().flatten() {
            let before = by_name.get(port.name.as_deref().unwrap_or_default());
            if port.node_port.unwrap_or(0) == 0
                && let Some(&number) = before
                && number != 0
                && !kept.contains(&number)
            {
                port.node_port = Some(number);
            }
        }
    }
    if needs_health_check(old)
        && needs_health_check(spec)
        && spec.health_check_node_port.unwrap_or(0) == 0
    {
        spec.health_check_node_port = old.health_check_node_port;
    }
}

/// `clusterIPs` of a new Service that names only `clusterIP`, as old clients do.
/// Source: `normalizeClusterIPs` in `pkg/registry/core/service/storage`.
pub(super) fn align_new(spec: &mut ServiceSpec) {
    if !text(&spec.cluster_ip).is_empty() && list(&spec.cluster_ips).is_empty() {
        spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    }
}

/// `clusterIPs` follows `clusterIP` when a client changed only that one. Source: as [`align_new`].
pub(super) fn align_changed(spec: &mut ServiceSpec, old: &ServiceSpec) {
    let (before, now) = (text(&old.cluster_ip), text(&spec.cluster_ip));
    if before == now {
        if list(&spec.cluster_ips).is_empty() {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
    } else if list(&spec.cluster_ips) == list(&old.cluster_ips) {
        spec.cluster_ips = (!now.is_empty()).then(|| vec![now.to_owned()]);
    }
}

/// When the type changes, what only the old type had goes, unless the client changed it in the same write.
/// Source: `dropTypeDependentFields` in `pkg/registry/core/service`.
pub(super) fn drop_what_the_type_has_not(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(spec) {
        if text(&spec.cluster_ip) == text(&old.cluster_ip)
            && list(&spec.cluster_ips) == list(&old.cluster_ips)
        {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
        }
        if list(&spec.ip_families) == list(&old.ip_families) {
            spec.ip_families = None;
        }
        if spec.ip_family_policy == old.ip_family_policy {
            spec.ip_family_policy = None;
        }
    }
    if needs_node_port(old)
        && !needs_node_port(spec)
        && node_ports(old).is_superset(&node_ports(spec))
    {
        for port in spec.ports.iter_mut().flatten() {
            port.node_port = None;
        }
    }
    if needs_health_check(old)
        && !needs_health_check(spec)
        && spec.health_check_node_port == old.health_check_node_port
    {
        spec.health_check_node_port = None;
    }
    if is_type(old, "LoadBalancer") && !is_type(spec, "LoadBalancer") {
        if spec.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            spec.allocate_load_balancer_node_ports = None;
        }
        if spec.load_balancer_class == old.load_balancer_class {
            spec.load_balancer_class = None;
        }
    }
    if externally_accessible(old)
        && !externally_accessible(spec)
        && spec.external_traffic_policy == old.external_traffic_policy
    {
        spec.external_traffic_policy = None;
    }
}

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

fn list(field: &Option<Vec<String>>) -> &[String] {
    field.as_deref().unwrap_or_default()
}

fn node_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|p| p.node_port)
        .filter(|n| *n != 0)
        .collect()
}

/// By type alone: what a client means by leaving node ports out does not depend on whether new ones are given.
fn needs_node_port(spec: &ServiceSpec) -> bool {
    is_type(spec, "NodePort") || is_type(spec, "LoadBalancer")
}

fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    !is_type(spec, "ExternalName")
}
