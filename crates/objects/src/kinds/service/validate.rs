//! What is wrong with a Service by itself, with a change of it, and with its status.
//!
//! Source: `ValidateService` in `pkg/apis/core/validation`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::{externally_accessible, is_headless, is_type, needs_cluster_ip};
use crate::field::{FieldError, FieldErrors, one_of};
use crate::kinds::endpoints::PROTOCOLS;
use crate::metadata::{validate_labels, wrong};
use crate::names::{self, NOT_AN_IP};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];
/// The longest that a client may stay with its Pod, in seconds: a day.
const AFFINITY_SECONDS_MAX: i32 = 86_400;
/// The Service by itself.
pub(super) fn service(object: &Service) -> FieldErrors {
    let spec = object.spec.clone().unwrap_or_default();
    let mut errors = validate_type_and_ports(&spec);
    errors.extend(validate_addresses(&spec));
    errors.extend(validate_load_balancer(&spec));
    errors.extend(validate_traffic(&spec));
    errors
}

/// What may not change.
pub(super) fn change(new: &Service, old: &Service) -> FieldErrors {
    let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) else {
        return FieldErrors::new();
    };
    let mut errors = FieldErrors::new();
    let external = |spec: &ServiceSpec| is_type(spec, "ExternalName");
    if !external(new) && !external(old) {
        let old_ips = old.cluster_ips.as_deref().unwrap_or_default();
        let new_ips = new.cluster_ips.as_deref().unwrap_or_default();
        if let (Some(before), Some(after)) = (old_ips.first(), new_ips.first())
            && !before.is_empty()
            && before != after
        {
            errors.push(FieldError::invalid(
                "spec.clusterIPs[0]",
                new_ips,
                "may not change once set",
            ));
        }
        let old_families = old.ip_families.as_deref().unwrap_or_default();
        let new_families = new.ip_families.as_deref().unwrap_or_default();
        if let (Some(before), Some(after)) = (old_families.first(), new_families.first())
            && before != after
        {
            errors.push(FieldError::invalid(
                "spec.ipFamilies[0]",
                new_families,
                "may not change once set",
            ));
        }
    }
    if is_type(new, "LoadBalancer")
        && is_type(old, "LoadBalancer")
        && new.load_balancer_class != old.load_balancer_class
    {
        errors.push(FieldError::invalid(
            "spec.loadBalancerClass",
            &new.load_balancer_class,
            "may not change once set",
        ));
    }
    errors
}

/// The addresses that a load balancer gave.
pub(super) fn status(new: &Service) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let at = "status.loadBalancer.ingress";
    let ingress = new
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref())
        .and_then(|b| b.ingress.as_deref())
        .unwrap_or_default();
    let balancer = new
        .spec
        .as_ref()
        .is_some_and(|s| is_type(s, "LoadBalancer"));
    if !balancer && !ingress.is_empty() {
        errors.push(FieldError::forbidden(
            at,
            "may only be used when `spec.type` is 'LoadBalancer'",
        ));
        return errors;
    }
    for (i, point) in ingress.iter().enumerate() {
        if let Some(ip) = point.ip.as_deref().filter(|ip| !ip.is_empty()) {
            errors.extend(wrong(&format!("{at}[{i}].ip"), ip, names::ip_address(ip)));
        }
        if let Some(name) = point.hostname.as_deref().filter(|h| !h.is_empty()) {
            let field = format!("{at}[{i}].hostname");
            errors.extend(wrong(&field, name, names::dns_subdomain(name)));
            if name.parse::<IpAddr>().is_ok() {
                errors.push(FieldError::invalid(
                    field,
                    name,
                    "must be a DNS name, not an IP address",
                ));
            }
        }
    }
    errors
}

fn validate_type_and_ports(spec: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let headless = is_headless(spec);
    if ports.is_empty() && !headless && !is_type(spec, "ExternalName") {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match spec.type_.as_deref().unwrap_or_default() {
        "LoadBalancer" | "NodePort" if headless => {
            let kind = spec.type_.as_deref().unwrap_or_default();
            errors.push(FieldError::invalid(
                "spec.clusterIPs[0]",
                "None",
                &format!("may not be set to 'None' for {kind} services"),
            ));
        }
        "ExternalName" => errors.extend(validate_external_name(spec)),
        _ => {}
    }
    let mut seen_names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        errors.extend(validate_port(
            port,
            ports.len() > 1,
            &mut seen_names,
            &format!("spec.ports[{i}]"),
        ));
    }
    errors.extend(validate_labels(spec.selector.as_ref(), "spec.selector"));
    match spec.session_affinity.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required("spec.sessionAffinity", "")),
        affinity => errors.extend(one_of(affinity, &AFFINITIES, "spec.sessionAffinity")),
    }
    let timeout = spec
        .session_affinity_config
        .as_ref()
        .and_then(|c| c.client_ip.as_ref())
        .and_then(|c| c.timeout_seconds);
    match (spec.session_affinity.as_deref(), timeout) {
        (Some("ClientIP"), Some(seconds)) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
            errors.push(FieldError::invalid(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                seconds,
                &format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"),
            ));
        }
        (Some("None"), Some(_)) => errors.push(FieldError::forbidden(
            "spec.sessionAffinityConfig",
            "must not be set when session affinity is None",
        )),
        _ => {}
    }
    match spec.type_.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required("spec.type", "")),
        kind => errors.extend(one_of(kind, &TYPES, "spec.type")),
    }
    errors.extend(validate_repeated_ports(ports));
    if !matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
        for (i, _) in ports
            .iter()
            .enumerate()
            .filter(|(_, p)| p.node_port.unwrap_or(0) != 0)
        {
            errors.push(FieldError::forbidden(
                format!("spec.ports[{i}].nodePort"),
                &format!(
                    "may not be used when `type` is '{}'",
                    spec.type_.as_deref().unwrap_or_default()
                ),
            ));
        }
    }
    errors
}

fn validate_external_name(spec: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let words = "may not be set when `type` is 'ExternalName'";
    if spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
        errors.push(FieldError::forbidden("spec.clusterIPs", words));
    } else if spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty()) {
        errors.push(FieldError::forbidden("spec.clusterIP", words));
    }
    if spec.ip_families.as_ref().is_some_and(|f| !f.is_empty()) {
        errors.push(FieldError::forbidden("spec.ipFamilies", words));
    }
    if spec.ip_family_policy.is_some() {
        errors.push(FieldError::forbidden("spec.ipFamilyPolicy", words));
    }
    // A trailing dot makes the name absolute, which is fine here.
    let name = spec.external_name.as_deref().unwrap_or_default();
    let relative = name.strip_suffix('.').unwrap_or(name);
    if relative.is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    } else {
        errors.extend(wrong(
            "spec.externalName",
            relative,
            names::dns_subdomain(relative),
        ));
    }
    errors
}

fn validate_port(
    port: &ServicePort,
    name_needed: bool,
    seen: &mut BTreeSet<String>,
    at: &str,
) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let name = port.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        if name_needed {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        }
    } else {
        errors.extend(wrong(&format!("{at}.name"), name, names::dns_label(name)));
        if !seen.insert(name.to_owned()) {
            errors.push(FieldError::duplicate(format!("{at}.name"), name));
        }
    }
    errors.extend(wrong(
        &format!("{at}.port"),
        port.port,
        names::port_number(port.port),
    ));
    match port.protocol.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(format!("{at}.protocol"), "")),
        protocol => errors.extend(one_of(protocol, &PROTOCOLS, &format!("{at}.protocol"))),
    }
    match &port.target_port {
        Some(IntOrString::Int(number)) => {
            errors.extend(wrong(
                &format!("{at}.targetPort"),
                *number,
                names::port_number(*number),
            ));
        }
        Some(IntOrString::String(name)) => {
            errors.extend(wrong(
                &format!("{at}.targetPort"),
                name.as_str(),
                names::port_name(name),
            ));
        }
        None => {}
    }
    if let Some(app) = port.app_protocol.as_deref() {
        errors.extend(wrong(
            &format!("{at}.appProtocol"),
            app,
            names::qualified_name(app),
        ));
    }
    errors
}

fn validate_repeated_ports(ports: &[ServicePort]) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if !seen.insert((port.protocol.clone(), port.port)) {
            // The words show Kubernetes' internal type, of which only these two fields are filled in.
            let shown = format!(
                "Duplicate value: {{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                json!(port.protocol),
                port.port
            );
            let mut error = FieldError::duplicate(format!("spec.ports[{i}]"), "");
            error.message = shown;
            errors.push(error);
        }
    }
    let mut node_ports = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let number = port.node_port.unwrap_or(0);
        if number != 0 && !node_ports.insert((port.protocol.clone(), number)) {
            errors.push(FieldError::duplicate(
                format!("spec.ports[{i}].nodePort"),
                number,
            ));
        }
    }
    errors
}

fn validate_addresses(spec: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        let at = format!("spec.externalIPs[{i}]");
        match ip.parse::<IpAddr>() {
            Err(_) => errors.push(FieldError::invalid(at, ip, NOT_AN_IP)),
            Ok(parsed) => errors.extend(wrong(&at, ip.as_str(), names::endpoint_ip(parsed))),
        }
    }
    if is_type(spec, "ExternalName") {
        return errors;
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        errors.extend(one_of(family, &FAMILIES, &format!("spec.ipFamilies[{i}]")));
    }
    if let Some(policy) = spec.ip_family_policy.as_deref() {
        errors.extend(one_of(policy, &FAMILY_POLICIES, "spec.ipFamilyPolicy"));
    }
    let single = spec.cluster_ip.as_deref().unwrap_or_default();
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    match ips.first() {
        Some(first) if single.is_empty() && !first.is_empty() => {
            errors.push(FieldError::invalid(
                "spec.clusterIPs",
                ips,
                "must be empty when `clusterIP` is not specified",
            ));
        }
        Some(first) if first != single => {
            errors.push(FieldError::invalid(
                "spec.clusterIPs",
                ips,
                "first value must match `clusterIP`",
            ));
        }
        _ => {}
    }
    for (i, ip) in ips.iter().enumerate() {
        let at = format!("spec.clusterIPs[{i}]");
        if ip == "None" {
            if ips.len() > 1 {
                errors.push(FieldError::invalid(
                    "spec.clusterIPs",
                    ips,
                    "'None' must be the first and only value",
                ));
            }
        } else {
            errors.extend(wrong(&at, ip.as_str(), names::ip_address(ip)));
        }
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(
            "spec.clusterIPs",
            ips,
            "may only hold up to 2 values",
        ));
    }
    errors
}

fn validate_load_balancer(spec: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let balancer = is_type(spec, "LoadBalancer");
    let only = "may only be used when `type` is 'LoadBalancer'";
    for (i, range) in spec
        .load_balancer_source_ranges
        .iter()
        .flatten()
        .enumerate()
    {
        if range.trim().parse::<ipnet::IpNet>().is_err() {
            errors.push(FieldError::invalid(
                format!("spec.loadBalancerSourceRanges[{i}]"),
                range,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ));
        }
    }
    if !balancer {
        if spec
            .load_balancer_source_ranges
            .as_ref()
            .is_some_and(|r| !r.is_empty())
        {
            errors.push(FieldError::forbidden("spec.loadBalancerSourceRanges", only));
        }
        if spec.allocate_load_balancer_node_ports.is_some() {
            errors.push(FieldError::forbidden(
                "spec.allocateLoadBalancerNodePorts",
                only,
            ));
        }
        if spec.load_balancer_class.is_some() {
            errors.push(FieldError::forbidden("spec.loadBalancerClass", only));
        }
    } else if let Some(class) = spec.load_balancer_class.as_deref() {
        errors.extend(wrong(
            "spec.loadBalancerClass",
            class,
            names::qualified_name(class),
        ));
    }
    errors
}

fn validate_traffic(spec: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    match (
        externally_accessible(spec),
        spec.external_traffic_policy.as_deref().unwrap_or_default(),
    ) {
        (true, "") => errors.push(FieldError::required("spec.externalTrafficPolicy", "")),
        (true, policy) => errors.extend(one_of(policy, &POLICIES, "spec.externalTrafficPolicy")),
        (false, "") => {}
        (false, policy) => errors.push(FieldError::invalid(
            "spec.externalTrafficPolicy",
            policy,
            "may only be set for externally-accessible services",
        )),
    }
    let health = spec.health_check_node_port.unwrap_or(0);
    let health_wanted =
        is_type(spec, "LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local");
    if health != 0 && !health_wanted {
        errors.push(FieldError::invalid(
            "spec.healthCheckNodePort",
            health,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ));
    } else if health < 0 {
        errors.push(FieldError::invalid(
            "spec.healthCheckNodePort",
            health,
            names::PORT_RANGE,
        ));
    }
    if !is_type(spec, "ExternalName") {
        match spec.internal_traffic_policy.as_deref() {
            None | Some("") if needs_cluster_ip(spec) => {
                errors.push(FieldError::required("spec.internalTrafficPolicy", ""));
            }
            None | Some("") => {}
            Some(policy) => errors.extend(one_of(policy, &POLICIES, "spec.internalTrafficPolicy")),
        }
    }
    if let Some(distribution) = spec.traffic_distribution.as_deref() {
        errors.extend(one_of(
            distribution,
            &DISTRIBUTIONS,
            "spec.trafficDistribution",
        ));
    }
    errors
}
