//! Service: a stable name and address for Pods. The addresses and node ports themselves are given out by the API
//! server's admission; here is what can be said of a Service by itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ClientIPConfig, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus,
    SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::endpoints::PROTOCOLS;
use crate::field::{FieldError, FieldErrors, one_of};
use crate::kind::{Column, Names};
use crate::metadata::{validate_labels, wrong};
use crate::names::{self, NOT_AN_IP, NameRule};
use crate::rules::Rules;
use crate::table;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];
/// How long a client stays with its Pod, in seconds: three hours unless said otherwise, a day at most.
const AFFINITY_SECONDS: i32 = 10_800;
const AFFINITY_SECONDS_MAX: i32 = 86_400;

pub(super) struct Services;

impl Rules for Services {
    type Object = Service;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        namespaced: true,
    };
    const NAME: NameRule = NameRule::Label;
    const STATUS: bool = true;

    fn default(object: &mut Service) {
        let spec = object.spec.get_or_insert_with(ServiceSpec::default);
        let affinity = spec
            .session_affinity
            .get_or_insert_with(|| "None".to_owned());
        match affinity.as_str() {
            "None" => spec.session_affinity_config = None,
            "ClientIP" => {
                let config = spec
                    .session_affinity_config
                    .get_or_insert_with(SessionAffinityConfig::default);
                let client = config.client_ip.get_or_insert_with(ClientIPConfig::default);
                client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
            }
            _ => {}
        }
        let kind = spec
            .type_
            .get_or_insert_with(|| "ClusterIP".to_owned())
            .clone();
        for port in spec.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
            let unset = match &port.target_port {
                None => true,
                Some(IntOrString::Int(number)) => *number == 0,
                Some(IntOrString::String(name)) => name.is_empty(),
            };
            if unset {
                port.target_port = Some(IntOrString::Int(port.port));
            }
        }
        if externally_accessible(spec) {
            spec.external_traffic_policy
                .get_or_insert_with(|| "Cluster".to_owned());
        }
        if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
            spec.internal_traffic_policy
                .get_or_insert_with(|| "Cluster".to_owned());
        }
        if kind == "LoadBalancer" {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
        }
        let balancer = object
            .status
            .as_mut()
            .and_then(|s| s.load_balancer.as_mut());
        for ingress in balancer
            .and_then(|b| b.ingress.as_mut())
            .into_iter()
            .flatten()
        {
            if ingress.ip.is_some() {
                ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
            }
        }
    }

    fn prepare_create(object: &mut Service) {
        if let Some(spec) = &mut object.spec
            && spec.cluster_ips.as_ref().is_none_or(Vec::is_empty)
            && let Some(ip) = spec.cluster_ip.clone().filter(|ip| !ip.is_empty())
        {
            spec.cluster_ips = Some(vec![ip]);
        }
        object.status = Some(ServiceStatus {
            load_balancer: Some(LoadBalancerStatus::default()),
            conditions: None,
        });
    }

    fn prepare_update(new: &mut Service, old: &Service) {
        let (Some(spec), Some(old_spec)) = (new.spec.as_mut(), old.spec.as_ref()) else {
            return;
        };
        carry_over(spec, old_spec);
        drop_what_the_type_has_not(spec, old_spec);
        if !is_type(spec, "LoadBalancer")
            && let Some(status) = &mut new.status
        {
            status.load_balancer = Some(LoadBalancerStatus::default());
        }
    }

    fn validate(object: &Service) -> FieldErrors {
        let spec = object.spec.clone().unwrap_or_default();
        let mut errors = validate_type_and_ports(&spec);
        errors.extend(validate_addresses(&spec));
        errors.extend(validate_load_balancer(&spec));
        errors.extend(validate_traffic(&spec));
        errors
    }

    fn validate_update(new: &Service, old: &Service) -> FieldErrors {
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

    fn validate_status(new: &Service, _old: &Service) -> FieldErrors {
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

    fn columns() -> Vec<Column> {
        let text = table::documented::<ServiceSpec>;
        vec![
            table::name_column(),
            table::column("Type", "string", text("type")),
            table::column("Cluster-IP", "string", text("clusterIP")),
            table::column("External-IP", "string", text("externalIPs")),
            table::column("Port(s)", "string", text("ports")),
            table::age_column(),
            table::wide("Selector", "string", text("selector")),
        ]
    }

    fn cells(object: &Service, now: i64) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        vec![
            table::name(&object.metadata),
            Value::from(spec.type_.clone().unwrap_or_default()),
            Value::from(table::or_none(
                spec.cluster_ips
                    .as_ref()
                    .and_then(|ips| ips.first().cloned())
                    .unwrap_or_default(),
            )),
            Value::from(external_addresses(&spec, object.status.as_ref())),
            Value::from(ports_text(&spec)),
            table::age(&object.metadata, now),
            Value::from(table::labels(spec.selector.as_ref())),
        ]
    }

    fn fields(object: &Service) -> Vec<(&'static str, String)> {
        let spec = object.spec.as_ref();
        vec![
            (
                "spec.clusterIP",
                spec.and_then(|s| s.cluster_ip.clone()).unwrap_or_default(),
            ),
            (
                "spec.type",
                spec.and_then(|s| s.type_.clone()).unwrap_or_default(),
            ),
        ]
    }
}

fn is_type(spec: &ServiceSpec, kind: &str) -> bool {
    spec.type_.as_deref() == Some(kind)
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
        || spec
            .cluster_ips
            .as_ref()
            .is_some_and(|ips| ips.first().is_some_and(|ip| ip == "None"))
}

/// Whether traffic from outside reaches it: only then has `externalTrafficPolicy` a meaning.
fn externally_accessible(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort" | "LoadBalancer") => true,
        Some("ClusterIP") => spec
            .external_ips
            .as_ref()
            .is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}

fn needs_node_port(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    matches!(
        spec.type_.as_deref(),
        Some("ClusterIP" | "NodePort" | "LoadBalancer")
    )
}

/// What was given out to the old Service and was left out of the new one stays: clients replace Services without
/// knowing the addresses. Source: `patchAllocatedValues` in `pkg/registry/core/service`.
fn carry_over(spec: &mut ServiceSpec, old: &ServiceSpec) {
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
fn drop_what_the_type_has_not(spec: &mut ServiceSpec, old: &ServiceSpec) {
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

fn external_addresses(spec: &ServiceSpec, status: Option<&ServiceStatus>) -> String {
    let external = spec.external_ips.clone().unwrap_or_default();
    match spec.type_.as_deref().unwrap_or_default() {
        "ClusterIP" | "NodePort" => table::or_none(external.join(",")),
        "LoadBalancer" => {
            let ingress = status
                .and_then(|s| s.load_balancer.as_ref())
                .and_then(|b| b.ingress.as_deref());
            let given = ingress.unwrap_or_default().iter();
            let mut all: Vec<String> = given
                .filter_map(|i| {
                    i.ip.clone()
                        .filter(|ip| !ip.is_empty())
                        .or_else(|| i.hostname.clone())
                })
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect();
            all.extend(external);
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        "ExternalName" => spec.external_name.clone().unwrap_or_default(),
        _ => table::UNKNOWN.to_owned(),
    }
}

fn ports_text(spec: &ServiceSpec) -> String {
    let list = spec.ports.iter().flatten().map(|port| {
        let protocol = port.protocol.as_deref().unwrap_or_default();
        match port.node_port.unwrap_or(0) {
            0 => format!("{}/{protocol}", port.port),
            node_port => format!("{}:{node_port}/{protocol}", port.port),
        }
    });
    table::or_none(list.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use crate::kind::Kind;
    use crate::kinds;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn services() -> Arc<dyn Kind> {
        kinds::find("", "v1", "services").expect("services")
    }

    fn created(spec: Value) -> Value {
        let object = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "namespace": "default"}, "spec": spec});
        let mut object = services().decode(object).expect("decodes");
        services().default(&mut object);
        services().prepare_create(&mut object);
        object
    }

    fn errors(spec: Value) -> Vec<String> {
        let found = services().validate(&created(spec));
        found.iter().map(ToString::to_string).collect()
    }

    fn updated(old: &Value, patch: &Value) -> Value {
        let mut new = crate::patch::merge(old, patch).expect("an object");
        services().default(&mut new);
        services().prepare_update(&mut new, old);
        new
    }

    #[test]
    fn the_defaults_depend_on_the_type() {
        let spec =
            created(json!({"ports": [{"port": 80}], "selector": {"app": "a"}}))["spec"].clone();
        assert_eq!(
            spec,
            json!({"internalTrafficPolicy": "Cluster", "selector": {"app": "a"}, "sessionAffinity": "None",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "type": "ClusterIP"})
        );
        let external = created(json!({"type": "ExternalName", "externalName": "a.example.com"}));
        assert_eq!(
            external["spec"],
            json!({"externalName": "a.example.com", "sessionAffinity": "None", "type": "ExternalName"})
        );
        let balancer = created(
            json!({"type": "LoadBalancer", "ports": [{"port": 80}], "sessionAffinity": "ClientIP"}),
        );
        assert_eq!(balancer["spec"]["allocateLoadBalancerNodePorts"], true);
        assert_eq!(balancer["spec"]["externalTrafficPolicy"], "Cluster");
        assert_eq!(
            balancer["spec"]["sessionAffinityConfig"],
            json!({"clientIP": {"timeoutSeconds": 10800}})
        );
        assert_eq!(balancer["status"], json!({"loadBalancer": {}}));
    }

    #[test]
    fn each_refusal_names_its_field_and_reason() {
        let port = || json!([{"port": 80}]);
        for (spec, message) in [
            (json!({}), "spec.ports: Required value"),
            (
                json!({"ports": [{"port": 80, "protocol": "ICMP"}]}),
                "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ),
            (
                json!({"ports": [{"name": "x", "port": 80}, {"name": "y", "port": 80}]}),
                "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
            ),
            (
                json!({"ports": port(), "type": "Balancer"}),
                "spec.type: Unsupported value: \"Balancer\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ),
            (
                json!({"type": "ExternalName"}),
                "spec.externalName: Required value",
            ),
            (
                json!({"ports": port(), "clusterIP": "10.96.0"}),
                "spec.clusterIPs[0]: Invalid value: \"10.96.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                json!({"ports": port(), "externalTrafficPolicy": "Local"}),
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ),
            (
                json!({"ports": [{"port": 80, "nodePort": 30000}]}),
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ),
            (
                json!({"ports": port(), "clusterIP": "None", "type": "NodePort"}),
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
            ),
            (
                json!({"ports": port(), "clusterIPs": ["10.96.0.9"]}),
                "spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: must be empty when `clusterIP` is not specified",
            ),
        ] {
            assert_eq!(errors(spec.clone()), [message], "{spec}");
        }
        assert_eq!(
            errors(json!({"clusterIP": "None"})),
            [""; 0],
            "headless needs no port"
        );
        let zero = errors(json!({"ports": [{"port": 0}]}));
        assert_eq!(zero.len(), 2, "port and target port: {zero:?}");
    }

    #[test]
    fn an_update_that_leaves_out_what_was_given_out_keeps_it() {
        let mut old = created(json!({"type": "NodePort", "ports": [{"port": 80}]}));
        old["spec"]["clusterIP"] = json!("10.96.0.7");
        old["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
        old["spec"]["ports"][0]["nodePort"] = json!(30001);
        let mut new = created(
            json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "name": "b"}]}),
        );
        services().prepare_update(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.7"]));
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.7");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
        assert_eq!(new["spec"]["ports"][1].get("nodePort"), None);
    }

    #[test]
    fn another_type_drops_what_only_the_old_one_had() {
        let mut old = created(
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
        );
        old["spec"]["clusterIP"] = json!("10.96.0.7");
        old["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
        old["spec"]["ports"][0]["nodePort"] = json!(30001);
        old["spec"]["healthCheckNodePort"] = json!(30002);
        let plain = updated(&old, &json!({"spec": {"type": "ClusterIP"}}));
        assert_eq!(
            plain["spec"],
            json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "sessionAffinity": "None", "type": "ClusterIP"})
        );
        let external = updated(
            &old,
            &json!({"spec": {"type": "ExternalName", "externalName": "x.y"}}),
        );
        assert_eq!(external["spec"].get("clusterIP"), None);
        assert_eq!(services().validate(&external), vec![]);
    }

    #[test]
    fn the_address_never_changes() {
        let old = created(json!({"clusterIP": "10.96.77.1", "ports": [{"port": 80}]}));
        let new = updated(&old, &json!({"spec": {"clusterIP": "10.96.77.2"}}));
        let errors = services().validate_update(&new, &old);
        assert_eq!(
            errors[0].to_string(),
            "spec.clusterIPs[0]: Invalid value: [\"10.96.77.2\"]: may not change once set"
        );
    }

    #[test]
    fn only_a_load_balancer_has_an_outside_address() {
        let old = created(json!({"ports": [{"port": 80}]}));
        let mut new = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}});
        services().prepare_status(&mut new, &old);
        assert_eq!(new["spec"], old["spec"]);
        assert_eq!(
            services().validate_status(&new, &old)[0].to_string(),
            "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"
        );
    }

    #[test]
    fn a_row_shows_addresses_and_ports() {
        let row = |spec: Value, status: Value| {
            let cells = services().cells(
                &json!({"metadata": {"name": "a"}, "spec": spec, "status": status}),
                0,
            );
            [
                cells[1].clone(),
                cells[2].clone(),
                cells[3].clone(),
                cells[4].clone(),
                cells[6].clone(),
            ]
        };
        assert_eq!(
            row(
                json!({"type": "NodePort", "clusterIPs": ["10.96.0.7"], "selector": {"a": "b"},
                    "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}, {"port": 53, "protocol": "UDP"}]}),
                json!({})
            ),
            [
                json!("NodePort"),
                json!("10.96.0.7"),
                json!("<none>"),
                json!("80:30001/TCP,53/UDP"),
                json!("a=b")
            ]
        );
        assert_eq!(
            row(json!({"type": "LoadBalancer", "ports": []}), json!({})),
            [
                json!("LoadBalancer"),
                json!("<none>"),
                json!("<pending>"),
                json!("<none>"),
                json!("<none>")
            ]
        );
        let given = json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}});
        assert_eq!(
            row(
                json!({"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]}),
                given
            )[2],
            "1.2.3.4,9.9.9.9"
        );
    }
}
