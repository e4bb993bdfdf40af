//! What a replaced Service keeps of the old one, and what it loses with its type.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

use super::{externally_accessible, is_type, needs_cluster_ip, needs_node_port};

/// What was given out to the old Service and was left out of the new one stays: clients replace Services without
/// knowing the addresses. Source: `patchAllocatedValues` in `pkg/registry/core/service`.
pub(super) fn carry_over(spec: &mut ServiceSpec, old: &ServiceSpec) {
    let unset = |ip: &Option<String>| ip.as_deref().unwrap_or_default().is_empty();
    let no_ips = |ips: &Option<Vec<String>>| ips.as_ref().is_none_or(Vec::is_empty);
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        if unset(&spec.cluster_ip) && no_ips(&spec.cluster_ips) {
            spec.cluster_ip.clone_from(&old.cluster_ip);
            spec.cluster_ips.clone_from(&old.cluster_ips);
        } else if spec.cluster_ip != old.cluster_ip && spec.cluster_ips == old.cluster_ips {
            // Only the singular field was changed: the plural one follows.
            spec.cluster_ips = spec
                .cluster_ip
                .clone()
                .filter(|ip| !ip.is_empty())
                .map(|ip| vec![ip]);
        } else if no_ips(&spec.cluster_ips) {
            spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
        }
        if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
            spec.ip_families.clone_from(&old.ip_families);
        }
        if spec.ip_family_policy.is_none() {
            spec.ip_family_policy.clone_from(&old.ip_family_policy);
        }
    }
    if needs_node_port(old) && needs_node_port(spec) {
        let old_ports = old.ports.as_deref().unwrap_or_default();
        let key = |p: &ServicePort| (p.protocol.clone(), p.port);
        let mut used: BTreeSet<i32> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|p| p.node_port)
            .collect();
        for port in spec.ports.iter_mut().flatten() {
            if port.node_port.unwrap_or(0) != 0 {
                continue;
            }
            let before = old_ports
                .iter()
                .find(|p| key(p) == key(port))
                .and_then(|p| p.node_port);
            if let Some(number) = before.filter(|n| *n != 0 && used.insert(*n)) {
                port.node_port = Some(number);
            }
        }
    }
    let health_check = |s: &ServiceSpec| {
        is_type(s, "LoadBalancer") && s.external_traffic_policy.as_deref() == Some("Local")
    };
    if health_check(old) && health_check(spec) && spec.health_check_node_port.unwrap_or(0) == 0 {
        spec.health_check_node_port = old.health_check_node_port;
    }
}

/// When the type changes, what only the old type had goes, unless the client changed it in the same write.
/// Source: `dropTypeDependentFields` in `pkg/registry/core/service`.
pub(super) fn drop_what_the_type_has_not(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(spec) {
        if spec.cluster_ip == old.cluster_ip && spec.cluster_ips == old.cluster_ips {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
        }
        if spec.ip_families == old.ip_families {
            spec.ip_families = None;
        }
        if spec.ip_family_policy == old.ip_family_policy {
            spec.ip_family_policy = None;
        }
    }
    let node_ports = |s: &ServiceSpec| -> Vec<Option<i32>> {
        s.ports.iter().flatten().map(|p| p.node_port).collect()
    };
    if needs_node_port(old) && !needs_node_port(spec) && node_ports(spec) == node_ports(old) {
        for port in spec.ports.iter_mut().flatten() {
            port.node_port = None;
        }
    }
    let health_check = |s: &ServiceSpec| {
        is_type(s, "LoadBalancer") && s.external_traffic_policy.as_deref() == Some("Local")
    };
    if health_check(old)
        && !health_check(spec)
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
    if is_type(old, "ExternalName")
        && !is_type(spec, "ExternalName")
        && spec.external_name == old.external_name
    {
        spec.external_name = None;
    }
}
