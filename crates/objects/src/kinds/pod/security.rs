//! What is wrong with whom a Pod runs as, and with its resolver.
//!
//! Source: `validatePodSpecSecurityContext`, `ValidateSecurityContext` and `validatePodDNSConfig` in
//! `pkg/apis/core/validation`.

use k8s_openapi::api::core::v1::{PodSpec, SeccompProfile, SecurityContext};
use serde_json::json;

use crate::field::{FieldError, FieldErrors};
use crate::metadata::wrong;
use crate::names;

/// Limits of a resolver. Source: `MaxDNSNameservers`, `MaxDNSSearchPaths`, `MaxDNSSearchListChars`.
const MOST_SERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;
const SEARCH_CHARACTERS: usize = 2048;

/// The security context of the whole Pod.
pub(super) fn validate_pod(spec: &PodSpec, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let Some(context) = &spec.security_context else {
        return errors;
    };
    let at = format!("{at}.securityContext");
    errors.extend(id(context.fs_group, &format!("{at}.fsGroup")));
    errors.extend(id(context.run_as_user, &format!("{at}.runAsUser")));
    errors.extend(id(context.run_as_group, &format!("{at}.runAsGroup")));
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        errors.extend(id(Some(*group), &format!("{at}.supplementalGroups[{i}]")));
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        errors.push(FieldError::invalid(
            format!("{at}.shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    errors.extend(seccomp(
        context.seccomp_profile.as_ref(),
        &format!("{at}.seccompProfile"),
    ));
    errors
}

/// The security context of one container.
pub(super) fn validate_container(context: &SecurityContext, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    errors.extend(id(context.run_as_user, &format!("{at}.runAsUser")));
    errors.extend(id(context.run_as_group, &format!("{at}.runAsGroup")));
    if let Some(mount) = &context.proc_mount {
        errors.extend(crate::field::one_of(
            mount,
            &["Default", "Unmasked"],
            &format!("{at}.procMount"),
        ));
    }
    errors.extend(seccomp(
        context.seccomp_profile.as_ref(),
        &format!("{at}.seccompProfile"),
    ));
    if context.allow_privilege_escalation == Some(false) {
        let added = context
            .capabilities
            .as_ref()
            .and_then(|all| all.add.as_ref());
        let admin = added
            .into_iter()
            .flatten()
            .any(|one| one == "CAP_SYS_ADMIN");
        let shown = || json!(context);
        if context.privileged == Some(true) {
            errors.push(FieldError::invalid(
                at,
                shown(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        if admin {
            errors.push(FieldError::invalid(
                at,
                shown(),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            ));
        }
    }
    errors
}

fn id(id: Option<i64>, at: &str) -> FieldErrors {
    match id {
        Some(id) if !(0..=i64::from(i32::MAX)).contains(&id) => vec![FieldError::invalid(
            at,
            id,
            "must be between 0 and 2147483647, inclusive",
        )],
        _ => FieldErrors::new(),
    }
}

fn seccomp(profile: Option<&SeccompProfile>, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let Some(profile) = profile else {
        return errors;
    };
    let file = profile.localhost_profile.as_deref();
    match profile.type_.as_str() {
        "" => errors.push(FieldError::required(
            format!("{at}.type"),
            "type is required when seccompProfile is set",
        )),
        "Localhost" if file.is_none() => errors.push(FieldError::required(
            format!("{at}.localhostProfile"),
            "must be set when seccomp type is Localhost",
        )),
        "Localhost" => {}
        "RuntimeDefault" | "Unconfined" => {
            if let Some(file) = file {
                errors.push(FieldError::invalid(
                    format!("{at}.localhostProfile"),
                    file,
                    "can only be set when seccomp type is Localhost",
                ));
            }
        }
        other => errors.push(FieldError::not_supported(
            format!("{at}.type"),
            other,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        )),
    }
    errors
}

/// The resolver.
pub(super) fn validate_resolver(spec: &PodSpec, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let config = spec.dns_config.clone().unwrap_or_default();
    let at = format!("{at}.dnsConfig");
    let servers = config.nameservers.unwrap_or_default();
    let servers_at = format!("{at}.nameservers");
    if spec.dns_policy.as_deref() == Some("None") && servers.is_empty() {
        errors.push(FieldError::required(
            servers_at.clone(),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        ));
    }
    if servers.len() > MOST_SERVERS {
        errors.push(FieldError::invalid(
            servers_at.clone(),
            &servers,
            "must not have more than 3 nameservers",
        ));
    }
    for (i, server) in servers.iter().enumerate() {
        errors.extend(wrong(
            &format!("{servers_at}[{i}]"),
            server.as_str(),
            names::ip_address(server),
        ));
    }
    let searches = config.searches.unwrap_or_default();
    let searches_at = format!("{at}.searches");
    if searches.len() > MOST_SEARCHES {
        errors.push(FieldError::invalid(
            searches_at.clone(),
            &searches,
            "must not have more than 32 search paths",
        ));
    }
    if searches.join(" ").len() > SEARCH_CHARACTERS {
        errors.push(FieldError::invalid(
            searches_at.clone(),
            &searches,
            "must not have more than 2048 characters (including spaces) in the search list",
        ));
    }
    for (i, search) in searches.iter().enumerate() {
        // A dot at the end says that the name is complete; the root alone is one too.
        let name = search.strip_suffix('.').unwrap_or(search);
        if search != "." {
            errors.extend(wrong(
                &format!("{searches_at}[{i}]"),
                name,
                names::dns_subdomain(name),
            ));
        }
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            errors.push(FieldError::required(
                format!("{at}.options[{i}]"),
                "must not be empty",
            ));
        }
    }
    errors
}
