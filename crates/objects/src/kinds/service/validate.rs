//! What is wrong with a Service by itself, with a change of it, and with its status.
//!
//! Source: `ValidateService`, `ValidateServiceUpdate` and `ValidateServiceStatusUpdate` in `pkg/apis/core/validation`;
//! the order of the errors is theirs.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::{clusters, externally_accessible, is_headless, is_type, needs_health_check};
use crate::field::{FieldError, FieldErrors, one_of};
use crate::ip;
use crate::kinds::endpoints::PROTOCOLS;
use crate::metadata::{validate_labels, wrong};
use crate::names;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];
const IP_MODES: [&str; 2] = ["Proxy", "VIP"];
/// The longest that a client may stay with its Pod, in seconds: a day.
const AFFINITY_SECONDS_MAX: i32 = 86_400;
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

/// The Service by itself. What `old` has already is not judged again where rules were tightened since.
pub(super) fn service(object: &Service, old: Option<&Service>) -> FieldErrors {
    let spec = object.spec.clone().unwrap_or_default();
    let old = old.and_then(|old| old.spec.as_ref());
    let mut errors = validate_topology(object);
    errors.extend(validate_type(&spec));
    errors.extend(validate_ports(&spec));
    errors.extend(validate_labels(spec.selector.as_ref(), "spec.selector"));
    errors.extend(validate_affinity(&spec));
    errors.extend(clusters::validate(&spec, old));
    errors.extend(validate_external_ips(&spec, old));
    match spec.type_.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required("spec.type", "")),
        kind => errors.extend(one_of(kind, &TYPES, "spec.type")),
    }
    errors.extend(validate_node_ports(&spec));
    errors.extend(validate_repeated_ports(
        spec.ports.as_deref().unwrap_or_default(),
    ));
    errors.extend(validate_source_ranges(object, &spec, old));
    errors.extend(validate_load_balancer(&spec));
    errors.extend(validate_class(&spec, None));
    errors.extend(validate_external_traffic(&spec));
    errors.extend(validate_internal_traffic(&spec));
    if let Some(distribution) = spec.traffic_distribution.as_deref() {
        errors.extend(one_of(
            distribution,
            &DISTRIBUTIONS,
            "spec.trafficDistribution",
        ));
    }
    errors
}

/// What may not change. Kubernetes judges a new load balancer class here and in [`service`], and so says twice what is
/// wrong with it.
pub(super) fn change(new: &Service, old: &Service) -> FieldErrors {
    let new = new.spec.clone().unwrap_or_default();
    let old = old.spec.clone().unwrap_or_default();
    let mut errors = clusters::validate_change(&new, &old);
    errors.extend(validate_class(&new, Some(&old)));
    if needs_health_check(&old)
        && needs_health_check(&new)
        && new.health_check_node_port != old.health_check_node_port
    {
        errors.push(FieldError::forbidden(
            "spec.healthCheckNodePort",
            "field is immutable",
        ));
    }
    errors
}

/// The addresses that a load balancer gave.
pub(super) fn status(new: &Service, old: &Service) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let at = "status.loadBalancer.ingress";
    let points = |service: &Service| {
        let balancer = service
            .status
            .as_ref()
            .and_then(|s| s.load_balancer.clone());
        balancer.and_then(|b| b.ingress).unwrap_or_default()
    };
    let balancer = new
        .spec
        .as_ref()
        .is_some_and(|s| is_type(s, "LoadBalancer"));
    let ingress = points(new);
    if !balancer && !ingress.is_empty() {
        errors.push(FieldError::forbidden(
            at,
            "may only be used when `spec.type` is 'LoadBalancer'",
        ));
        return errors;
    }
    let before: Vec<String> = points(old).into_iter().filter_map(|p| p.ip).collect();
    for (i, point) in ingress.iter().enumerate() {
        let address = point.ip.as_deref().unwrap_or_default();
        if !address.is_empty() && !before.iter().any(|ip| ip == address) {
            errors.extend(wrong(
                &format!("{at}[{i}].ip"),
                address,
                ip::address(address),
            ));
        }
        let mode = format!("{at}[{i}].ipMode");
        match point.ip_mode.as_deref() {
            None if !address.is_empty() => errors.push(FieldError::required(
                mode,
                "must be specified when `ip` is set",
            )),
            None => {}
            Some(_) if address.is_empty() => errors.push(FieldError::forbidden(
                mode,
                "may not be specified when `ip` is not set",
            )),
            Some(value) => errors.extend(one_of(value, &IP_MODES, &mode)),
        }
        if let Some(name) = point.hostname.as_deref().filter(|h| !h.is_empty()) {
            let field = format!("{at}[{i}].hostname");
            errors.extend(wrong(&field, name, names::dns_subdomain(name)));
            if ip::parse_loosely(name).is_some() {
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

fn validate_topology(object: &Service) -> FieldErrors {
    let annotations = object.metadata.annotations.as_ref();
    let value = |key: &str| annotations.and_then(|a| a.get(key));
    match (value(TOPOLOGY_MODE), value(TOPOLOGY_HINTS)) {
        (Some(mode), Some(hints)) if mode != hints => vec![FieldError::invalid(
            format!("metadata.annotations[{TOPOLOGY_MODE}]"),
            mode,
            &format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified"),
        )],
        _ => FieldErrors::new(),
    }
}

fn validate_type(spec: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let headless = is_headless(spec);
    if ports.is_empty() && !headless && !is_type(spec, "ExternalName") {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match spec.type_.as_deref().unwrap_or_default() {
        kind @ ("LoadBalancer" | "NodePort") if headless => errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            "None",
            &format!("may not be set to 'None' for {kind} services"),
        )),
        "ExternalName" => errors.extend(validate_external_name(spec)),
        _ => {}
    }
    errors
}

fn validate_external_name(spec: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let words = "may not be set for ExternalName services";
    if spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
        errors.push(FieldError::forbidden("spec.clusterIPs", words));
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

fn validate_ports(spec: &ServiceSpec) -> FieldErrors {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut seen = BTreeSet::new();
    let judged = ports.iter().enumerate().flat_map(|(i, port)| {
        validate_port(
            port,
            ports.len() > 1,
            &mut seen,
            &format!("spec.ports[{i}]"),
        )
    });
    judged.collect()
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

fn validate_affinity(spec: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let affinity = spec.session_affinity.as_deref().unwrap_or_default();
    match affinity {
        "" => errors.push(FieldError::required("spec.sessionAffinity", "")),
        _ => errors.extend(one_of(affinity, &AFFINITIES, "spec.sessionAffinity")),
    }
    let at = "spec.sessionAffinityConfig";
    if affinity == "None" && spec.session_affinity_config.is_some() {
        errors.push(FieldError::forbidden(
            at,
            "must not be set when session affinity is None",
        ));
    }
    if affinity != "ClientIP" {
        return errors;
    }
    let needed =
        |field: &str| FieldError::required(field, "when session affinity type is ClientIP");
    let client = spec
        .session_affinity_config
        .as_ref()
        .map(|config| config.client_ip.as_ref());
    match client {
        None => errors.push(needed(at)),
        Some(None) => errors.push(needed(&format!("{at}.clientIP"))),
        Some(Some(client)) => {
            let at = format!("{at}.clientIP.timeoutSeconds");
            match client.timeout_seconds {
                None => errors.push(needed(&at)),
                Some(seconds) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
                    errors.push(FieldError::invalid(
                        at,
                        seconds,
                        &format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"),
                    ));
                }
                Some(_) => {}
            }
        }
    }
    errors
}

fn validate_external_ips(spec: &ServiceSpec, old: Option<&ServiceSpec>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let before = old.and_then(|old| old.external_ips.as_deref());
    for (i, address) in spec.external_ips.iter().flatten().enumerate() {
        let at = format!("spec.externalIPs[{i}]");
        let known = before.is_some_and(|ips| ips.contains(address));
        let bad = if known {
            names::Wrong::new()
        } else {
            ip::address(address)
        };
        if bad.is_empty()
            && let Some(parsed) = ip::parse_loosely(address)
        {
            errors.extend(wrong(&at, address.as_str(), names::endpoint_ip(parsed)));
        }
        errors.extend(wrong(&at, address.as_str(), bad));
    }
    errors
}

fn validate_node_ports(spec: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let asked = || {
        let ports = spec.ports.iter().flatten().enumerate();
        ports.filter(|(_, port)| port.node_port.unwrap_or(0) != 0)
    };
    if is_type(spec, "ClusterIP") {
        errors.extend(asked().map(|(i, _)| {
            let at = format!("spec.ports[{i}].nodePort");
            FieldError::forbidden(at, "may not be used when `type` is 'ClusterIP'")
        }));
    }
    let mut seen = BTreeSet::new();
    for (i, port) in asked() {
        let number = port.node_port.unwrap_or(0);
        if !seen.insert((port.protocol.clone(), number)) {
            let at = format!("spec.ports[{i}].nodePort");
            errors.push(FieldError::duplicate(at, number));
        }
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
    errors
}

/// The ranges in the field, or in the annotation that was there before it.
fn validate_source_ranges(
    object: &Service,
    spec: &ServiceSpec,
    old: Option<&ServiceSpec>,
) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let balancer = is_type(spec, "LoadBalancer");
    let ranges = spec.load_balancer_source_ranges.as_deref();
    let annotation = object
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(SOURCE_RANGES));
    if let Some(ranges) = ranges.filter(|r| !r.is_empty()) {
        // With this capital letter, for ever.
        let at = "spec.LoadBalancerSourceRanges";
        if !balancer {
            errors.push(FieldError::forbidden(at, ONLY_BALANCERS));
        }
        let before = old.and_then(|old| old.load_balancer_source_ranges.as_deref());
        for (i, range) in ranges.iter().enumerate() {
            if before.is_some_and(|b| b.contains(range)) {
                continue;
            }
            let value = range.trim();
            errors.extend(wrong(&format!("{at}[{i}]"), value, ip::cidr(value)));
        }
    } else if let Some(list) = annotation {
        let at = format!("metadata.annotations[{SOURCE_RANGES}]");
        if !balancer {
            errors.push(FieldError::forbidden(at.clone(), ONLY_BALANCERS));
        }
        for value in list.split(',').map(str::trim) {
            if !list.trim().is_empty() {
                errors.extend(wrong(&at, value, ip::cidr(value)));
            }
        }
    }
    errors
}

fn validate_load_balancer(spec: &ServiceSpec) -> FieldErrors {
    let balancer = is_type(spec, "LoadBalancer");
    match spec.allocate_load_balancer_node_ports {
        Some(_) if !balancer => vec![FieldError::forbidden(
            "spec.allocateLoadBalancerNodePorts",
            ONLY_BALANCERS,
        )],
        None if balancer => vec![FieldError::required("allocateLoadBalancerNodePorts", "")],
        _ => FieldErrors::new(),
    }
}

fn validate_class(new: &ServiceSpec, old: Option<&ServiceSpec>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let at = "spec.loadBalancerClass";
    if let Some(old) = old
        && is_type(old, "LoadBalancer")
        && is_type(new, "LoadBalancer")
        && new.load_balancer_class != old.load_balancer_class
    {
        errors.push(FieldError::invalid(
            at,
            &new.load_balancer_class,
            "may not change once set",
        ));
    }
    match new.load_balancer_class.as_deref() {
        Some(class) if is_type(new, "LoadBalancer") => {
            errors.extend(wrong(at, class, names::qualified_name(class)));
        }
        Some(_) => errors.push(FieldError::forbidden(at, ONLY_BALANCERS)),
        None => {}
    }
    errors
}

fn validate_external_traffic(spec: &ServiceSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let at = "spec.externalTrafficPolicy";
    let policy = spec.external_traffic_policy.as_deref().unwrap_or_default();
    match (externally_accessible(spec), policy) {
        (true, "") => errors.push(FieldError::required(at, "")),
        (true, policy) => errors.extend(one_of(policy, &POLICIES, at)),
        (false, "") => {}
        (false, policy) => errors.push(FieldError::invalid(
            at,
            policy,
            "may only be set for externally-accessible services",
        )),
    }
    let at = "spec.healthCheckNodePort";
    let port = spec.health_check_node_port.unwrap_or(0);
    if !needs_health_check(spec) {
        if port != 0 {
            errors.push(FieldError::invalid(
                at,
                port,
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            ));
        }
    } else if port == 0 {
        errors.push(FieldError::required(at, ""));
    } else {
        errors.extend(wrong(at, port, names::port_number(port)));
    }
    errors
}

fn validate_internal_traffic(spec: &ServiceSpec) -> FieldErrors {
    let at = "spec.internalTrafficPolicy";
    match spec.internal_traffic_policy.as_deref() {
        None if super::has_cluster_type(spec) => vec![FieldError::required(at, "")],
        None => FieldErrors::new(),
        Some(policy) => one_of(policy, &POLICIES, at),
    }
}
