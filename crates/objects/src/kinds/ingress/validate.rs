//! What an Ingress may say.
//!
//! Source: `pkg/apis/networking/validation` in Kubernetes.

use k8s_openapi::api::core::v1::TypedLocalObjectReference;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
    IngressServiceBackend, IngressSpec, IngressTLS,
};
use serde_json::Value;

use super::CLASS_ANNOTATION;
use crate::field::{FieldError, FieldErrors, one_of};
use crate::metadata::wrong;
use crate::{ip, names};

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const NOT_IN_PATHS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const NOT_AT_ENDS_OF_PATHS: [&str; 2] = ["/..", "/."];
const NOT_AN_IP_BUT_A_NAME: &str = "must be a DNS name, not an IP address";

/// What older versions took, and so what an object that has it already may keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    /// `spec.tls[].secretName` that no Secret can have.
    pub(super) invalid_secret_name: bool,
    /// Rules for wildcard hosts are not looked at.
    pub(super) invalid_wildcard_rule: bool,
}

impl Allowed {
    /// Because `old` has it.
    pub(super) fn by(old: &Ingress) -> Self {
        let Some(spec) = &old.spec else {
            return Self::default();
        };
        let tls = spec.tls.iter().flatten();
        let rules = spec.rules.iter().flatten();
        let is_wildcard = |rule: &&IngressRule| rule.host.as_deref().is_some_and(is_wildcard);
        Self {
            invalid_secret_name: tls
                .filter_map(secret_name)
                .any(|name| !names::dns_subdomain(name).is_empty()),
            invalid_wildcard_rule: rules
                .filter(is_wildcard)
                .filter_map(|rule| rule.http.as_ref())
                .any(|http| !paths(http, "").is_empty()),
        }
    }
}

/// A new Ingress.
pub(super) fn new(object: &Ingress, allowed: Allowed) -> FieldErrors {
    let mut errors = ingress(object, allowed);
    let annotations = object.metadata.annotations.as_ref();
    let annotation = annotations.and_then(|all| all.get(CLASS_ANNOTATION));
    let class = object
        .spec
        .as_ref()
        .and_then(|s| s.ingress_class_name.as_ref());
    if let (Some(annotation), Some(class)) = (annotation, class)
        && annotation != class
    {
        errors.push(FieldError::invalid(
            format!("annotations.{CLASS_ANNOTATION}"),
            annotation,
            "must match `ingressClassName` when both are specified",
        ));
    }
    errors
}

/// An Ingress, new or changed.
pub(super) fn ingress(object: &Ingress, allowed: Allowed) -> FieldErrors {
    let empty = IngressSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    let mut errors = FieldErrors::new();
    let rules = spec.rules.as_deref().unwrap_or_default();
    match &spec.default_backend {
        None if rules.is_empty() => errors.push(FieldError::invalid(
            "spec",
            Value::Null,
            "either `defaultBackend` or `rules` must be specified",
        )),
        None => {}
        Some(default) => errors.extend(backend(default, "spec.defaultBackend")),
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = format!("spec.rules[{i}]");
        let name = rule.host.as_deref().unwrap_or_default();
        errors.extend(host(name, &format!("{at}.host")));
        let unseen = allowed.invalid_wildcard_rule && is_wildcard(name);
        if let (Some(http), false) = (&rule.http, unseen) {
            errors.extend(paths(http, &format!("{at}.http")));
        }
    }
    for (i, tls) in spec.tls.iter().flatten().enumerate() {
        errors.extend(certificate(tls, &format!("spec.tls[{i}]"), allowed));
    }
    if let Some(class) = spec.ingress_class_name.as_deref() {
        errors.extend(wrong(
            "spec.ingressClassName",
            class,
            names::dns_subdomain(class),
        ));
    }
    errors
}

/// The status of an Ingress.
pub(super) fn status(new: &Ingress, old: &Ingress) -> FieldErrors {
    let points = |object: &Ingress| {
        let status = object.status.clone().unwrap_or_default();
        status
            .load_balancer
            .unwrap_or_default()
            .ingress
            .unwrap_or_default()
    };
    let old = points(old);
    let known: Vec<&str> = old.iter().filter_map(|point| point.ip.as_deref()).collect();
    let mut errors = FieldErrors::new();
    for (i, point) in points(new).iter().enumerate() {
        let at = format!("status.loadBalancer.ingress[{i}]");
        let new = |ip: &&str| !ip.is_empty() && !known.contains(ip);
        if let Some(address) = point.ip.as_deref().filter(new) {
            errors.extend(wrong(&format!("{at}.ip"), address, ip::address(address)));
        }
        if let Some(name) = point.hostname.as_deref().filter(|name| !name.is_empty()) {
            let at = format!("{at}.hostname");
            errors.extend(wrong(&at, name, names::dns_subdomain(name)));
            if ip::parse_loosely(name).is_some() {
                errors.push(FieldError::invalid(at, name, NOT_AN_IP_BUT_A_NAME));
            }
        }
    }
    errors
}

fn is_wildcard(host: &str) -> bool {
    host.contains('*')
}

fn host(name: &str, at: &str) -> FieldErrors {
    if name.is_empty() {
        return FieldErrors::new();
    }
    let mut errors = FieldErrors::new();
    if ip::parse_loosely(name).is_some() {
        errors.push(FieldError::invalid(at, name, NOT_AN_IP_BUT_A_NAME));
    }
    errors.extend(wrong(at, name, names::dns_name_or_wildcard(name)));
    errors
}

fn certificate(tls: &IngressTLS, at: &str, allowed: Allowed) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, host) in tls.hosts.iter().flatten().enumerate() {
        errors.extend(wrong(
            &format!("{at}.hosts[{i}]"),
            host.as_str(),
            names::dns_name_or_wildcard(host),
        ));
    }
    if let (Some(name), false) = (secret_name(tls), allowed.invalid_secret_name) {
        errors.extend(wrong(
            &format!("{at}.secretName"),
            name,
            names::dns_subdomain(name),
        ));
    }
    errors
}

fn secret_name(tls: &IngressTLS) -> Option<&str> {
    tls.secret_name.as_deref().filter(|name| !name.is_empty())
}

fn paths(http: &HTTPIngressRuleValue, at: &str) -> FieldErrors {
    if http.paths.is_empty() {
        return vec![FieldError::required(format!("{at}.paths"), "")];
    }
    let one = |(i, one)| path(one, &format!("{at}.paths[{i}]"));
    http.paths.iter().enumerate().flat_map(one).collect()
}

fn path(path: &HTTPIngressPath, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let text = path.path.as_deref().unwrap_or_default();
    let mut refuse = |why: &str| {
        errors.push(FieldError::invalid(format!("{at}.path"), text, why));
    };
    let absolute = text.starts_with('/');
    match path.path_type.as_str() {
        "" => {
            return vec![FieldError::required(
                format!("{at}.pathType"),
                "pathType must be specified",
            )];
        }
        "Exact" | "Prefix" => {
            if !absolute {
                refuse("must be an absolute path");
            }
            for part in NOT_IN_PATHS.iter().filter(|part| text.contains(**part)) {
                refuse(&format!("must not contain '{part}'"));
            }
            for end in NOT_AT_ENDS_OF_PATHS
                .iter()
                .filter(|end| text.ends_with(**end))
            {
                refuse(&format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !absolute {
                refuse("must be an absolute path");
            }
        }
        other => errors.extend(one_of(other, &PATH_TYPES, &format!("{at}.pathType"))),
    }
    errors.extend(backend(&path.backend, &format!("{at}.backend")));
    errors
}

fn backend(backend: &IngressBackend, at: &str) -> FieldErrors {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => vec![FieldError::invalid(
            at,
            "",
            "cannot set both resource and service backends",
        )],
        (Some(resource), None) => reference(resource, &format!("{at}.resource")),
        (None, Some(service)) => service_backend(service, at),
        (None, None) => vec![FieldError::invalid(
            at,
            "",
            "resource or service backend is required",
        )],
    }
}

fn service_backend(service: &IngressServiceBackend, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let name = service.name.as_str();
    let name_at = format!("{at}.service.name");
    if name.is_empty() {
        errors.push(FieldError::required(name_at, ""));
    } else {
        // Not that of RFC 1035 any more: `RelaxedServiceNameValidation`.
        errors.extend(wrong(&name_at, name, names::dns_label(name)));
    }
    let port = service.port.clone().unwrap_or_default();
    let named = port.name.as_deref().filter(|name| !name.is_empty());
    match (named, port.number.filter(|number| *number != 0)) {
        (Some(_), Some(_)) => errors.push(FieldError::invalid(
            at,
            "",
            "cannot set both port name & port number",
        )),
        (Some(name), None) => errors.extend(wrong(
            &format!("{at}.service.port.name"),
            name,
            names::port_name(name),
        )),
        (None, Some(number)) => errors.extend(wrong(
            &format!("{at}.service.port.number"),
            number,
            names::port_number(number),
        )),
        (None, None) => errors.push(FieldError::required(at, "port name or number is required")),
    }
    errors
}

fn reference(to: &TypedLocalObjectReference, at: &str) -> FieldErrors {
    typed_reference(to.api_group.as_deref(), &to.kind, &to.name, at)
}

/// A reference to an object of any kind. Source: `validateIngressTypedLocalObjectReference`.
pub(in crate::kinds) fn typed_reference(
    group: Option<&str>,
    kind: &str,
    name: &str,
    at: &str,
) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if let Some(group) = group {
        errors.extend(wrong(
            &format!("{at}.apiGroup"),
            group,
            names::dns_subdomain(group),
        ));
    }
    for (field, value) in [("kind", kind), ("name", name)] {
        let at = format!("{at}.{field}");
        if value.is_empty() {
            errors.push(FieldError::required(at, &format!("{field} is required")));
        } else {
            errors.extend(wrong(&at, value, names::path_segment(value)));
        }
    }
    errors
}
