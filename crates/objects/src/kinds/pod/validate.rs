//! What is wrong with a Pod by itself.
//!
//! Source: `pkg/apis/core/validation` in Kubernetes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, LifecycleHandler, PodSpec, Probe, ResourceRequirements,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::defaults::volume_sources;
use super::{scheduling, security};
use crate::field::{FieldError, FieldErrors, not_negative, one_of};
use crate::kinds::endpoints::PROTOCOLS;
use crate::metadata::{validate_labels, wrong};
use crate::quantity::NOT_A_QUANTITY;
use crate::{names, quantity};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const MESSAGE_POLICIES: [&str; 2] = ["FallbackToLogsOnError", "File"];
const TOLERATION_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// A Pod spec at the path `at`, defaults filled in.
pub(in crate::kinds) fn validate_spec(spec: &PodSpec, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    errors.extend(validate_volumes(volumes, &format!("{at}.volumes")));
    let volume_names: BTreeSet<&str> = volumes.iter().map(|v| v.name.as_str()).collect();

    let host_network = spec.host_network == Some(true);
    let mut seen = BTreeSet::new();
    let containers = format!("{at}.containers");
    if spec.containers.is_empty() {
        errors.push(FieldError::required(containers.clone(), ""));
    }
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (field, list) in [
        (containers.as_str(), spec.containers.as_slice()),
        (&format!("{at}.initContainers"), init),
    ] {
        for (i, container) in list.iter().enumerate() {
            let at = format!("{field}[{i}]");
            errors.extend(validate_container(
                container,
                host_network,
                &volume_names,
                &at,
            ));
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            if field != containers && !sidecar {
                errors.extend(only_for_sidecars(container, &at));
            }
            if !container.name.is_empty() && !seen.insert(container.name.as_str()) {
                errors.push(FieldError::duplicate(format!("{at}.name"), &container.name));
            }
        }
    }
    errors.extend(validate_host_ports(&spec.containers, &containers));

    errors.extend(required_one_of(
        spec.restart_policy.as_deref(),
        &RESTART_POLICIES,
        &format!("{at}.restartPolicy"),
    ));
    errors.extend(required_one_of(
        spec.dns_policy.as_deref(),
        &DNS_POLICIES,
        &format!("{at}.dnsPolicy"),
    ));
    errors.extend(validate_labels(
        spec.node_selector.as_ref(),
        &format!("{at}.nodeSelector"),
    ));
    errors.extend(security::validate_pod(spec, at));
    errors.extend(scheduling::validate_affinity(spec, at));
    errors.extend(security::validate_resolver(spec, at));
    errors.extend(scheduling::validate_gates_and_spread(spec, at));
    for (field, value) in [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
    ] {
        if let Some(name) = value.as_deref().filter(|n| !n.is_empty()) {
            errors.extend(wrong(
                &format!("{at}.{field}"),
                name,
                names::dns_subdomain(name),
            ));
        }
    }
    for (field, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = value.as_deref().filter(|n| !n.is_empty()) {
            errors.extend(wrong(
                &format!("{at}.{field}"),
                name,
                names::dns_label(name),
            ));
        }
    }
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.push(FieldError::invalid(
            format!("{at}.activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    if let Some(seconds) = spec.termination_grace_period_seconds.filter(|s| *s < 0) {
        errors.push(FieldError::invalid(
            format!("{at}.terminationGracePeriodSeconds"),
            seconds,
            "must be greater than or equal to 0",
        ));
    }
    errors.extend(validate_tolerations(spec, at));
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let at = format!("{at}.hostAliases[{i}]");
        errors.extend(wrong(
            &format!("{at}.ip"),
            alias.ip.as_str(),
            names::ip_address(&alias.ip),
        ));
        for (j, name) in alias.hostnames.iter().flatten().enumerate() {
            errors.extend(wrong(
                &format!("{at}.hostnames[{j}]"),
                name.as_str(),
                names::dns_subdomain(name),
            ));
        }
    }
    errors
}

/// What an init container may not have that is done before the others start. Source: `validateInitContainers`.
fn only_for_sidecars(container: &Container, at: &str) -> FieldErrors {
    let set = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    let each = set.into_iter().filter(|(_, set)| *set).map(|(field, _)| {
        FieldError::forbidden(
            format!("{at}.{field}"),
            "may not be set for init containers without restartPolicy=Always",
        )
    });
    each.collect()
}

fn required_one_of(value: Option<&str>, supported: &[&str], at: &str) -> FieldErrors {
    match value.unwrap_or_default() {
        "" => vec![FieldError::required(at, "")],
        value => one_of(value, supported, at),
    }
}

fn validate_container(
    container: &Container,
    host_network: bool,
    volumes: &BTreeSet<&str>,
    at: &str,
) -> FieldErrors {
    let mut errors = FieldErrors::new();
    match container.name.as_str() {
        "" => errors.push(FieldError::required(format!("{at}.name"), "")),
        name => errors.extend(wrong(&format!("{at}.name"), name, names::dns_label(name))),
    }
    match container.image.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(format!("{at}.image"), "")),
        image if image.trim() != image => errors.push(FieldError::invalid(
            format!("{at}.image"),
            image,
            "must not have leading or trailing whitespace",
        )),
        _ => {}
    }
    errors.extend(required_one_of(
        container.termination_message_policy.as_deref(),
        &MESSAGE_POLICIES,
        &format!("{at}.terminationMessagePolicy"),
    ));
    errors.extend(validate_ports(
        container.ports.as_deref().unwrap_or_default(),
        host_network,
        &format!("{at}.ports"),
    ));
    for (i, variable) in container.env.iter().flatten().enumerate() {
        errors.extend(validate_env(variable, &format!("{at}.env[{i}]")));
    }
    for (i, source) in container.env_from.iter().flatten().enumerate() {
        let sources =
            usize::from(source.config_map_ref.is_some()) + usize::from(source.secret_ref.is_some());
        if sources != 1 {
            let words = if sources == 0 {
                "must specify one of: `configMapRef` or `secretRef`"
            } else {
                "may not have more than one field specified at a time"
            };
            errors.push(FieldError::invalid(format!("{at}.envFrom[{i}]"), "", words));
        }
    }
    errors.extend(validate_mounts(
        container.volume_mounts.as_deref().unwrap_or_default(),
        volumes,
        &format!("{at}.volumeMounts"),
    ));
    errors.extend(required_one_of(
        container.image_pull_policy.as_deref(),
        &PULL_POLICIES,
        &format!("{at}.imagePullPolicy"),
    ));
    if let Some(resources) = &container.resources {
        errors.extend(validate_resources(resources, &format!("{at}.resources")));
    }
    if let Some(lifecycle) = &container.lifecycle {
        for (field, handler) in [
            ("postStart", &lifecycle.post_start),
            ("preStop", &lifecycle.pre_stop),
        ] {
            if let Some(handler) = handler {
                errors.extend(validate_hook(handler, &format!("{at}.lifecycle.{field}")));
            }
        }
    }
    if let Some(context) = &container.security_context {
        errors.extend(security::validate_container(
            context,
            &format!("{at}.securityContext"),
        ));
    }
    for (field, probe, once) in [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ] {
        if let Some(probe) = probe {
            errors.extend(validate_probe(probe, once, &format!("{at}.{field}")));
        }
    }
    errors
}

fn validate_ports(ports: &[ContainerPort], host_network: bool, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = format!("{at}[{i}]");
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let problems = names::port_name(name);
            if problems.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), name));
            }
            errors.extend(wrong(&format!("{at}.name"), name, problems));
        }
        match port.container_port {
            0 => errors.push(FieldError::required(format!("{at}.containerPort"), "")),
            number => errors.extend(wrong(
                &format!("{at}.containerPort"),
                number,
                names::port_number(number),
            )),
        }
        match port.host_port.unwrap_or(0) {
            0 => {}
            number => {
                errors.extend(wrong(
                    &format!("{at}.hostPort"),
                    number,
                    names::port_number(number),
                ));
                if host_network && number != port.container_port {
                    errors.push(FieldError::invalid(
                        format!("{at}.hostPort"),
                        number,
                        "must match `containerPort` when `hostNetwork` is true",
                    ));
                }
            }
        }
        errors.extend(required_one_of(
            port.protocol.as_deref(),
            &PROTOCOLS,
            &format!("{at}.protocol"),
        ));
    }
    errors
}

/// Two containers cannot have the same port of the host.
fn validate_host_ports(containers: &[Container], at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let number = port.host_port.unwrap_or(0);
            let text = format!(
                "{}/{}/{number}",
                port.protocol.as_deref().unwrap_or_default(),
                port.host_ip.as_deref().unwrap_or_default()
            );
            if number != 0 && !seen.insert(text.clone()) {
                errors.push(FieldError::duplicate(
                    format!("{at}[{i}].ports[{j}].hostPort"),
                    text,
                ));
            }
        }
    }
    errors
}

fn validate_env(variable: &EnvVar, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    match variable.name.as_str() {
        "" => errors.push(FieldError::required(format!("{at}.name"), "")),
        name => errors.extend(wrong(&format!("{at}.name"), name, names::env_name(name))),
    }
    let Some(from) = &variable.value_from else {
        return errors;
    };
    let at = format!("{at}.valueFrom");
    let sources = [
        from.field_ref.is_some(),
        from.resource_field_ref.is_some(),
        from.config_map_key_ref.is_some(),
        from.secret_key_ref.is_some(),
        from.file_key_ref.is_some(),
    ];
    let count = sources.iter().filter(|s| **s).count();
    if variable.value.as_deref().is_some_and(|v| !v.is_empty()) && count > 0 {
        errors.push(FieldError::invalid(
            at,
            "",
            "may not be specified when `value` is not empty",
        ));
        return errors;
    }
    match count {
        1 => {}
        0 => errors.push(FieldError::invalid(
            at.clone(),
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        )),
        _ => errors.push(FieldError::invalid(at.clone(), "", "may not have more than one field specified at a time")),
    }
    if let Some(field) = &from.field_ref
        && field.field_path.is_empty()
    {
        errors.push(FieldError::required(format!("{at}.fieldRef.fieldPath"), ""));
    }
    for (field, key) in [
        (
            "configMapKeyRef",
            from.config_map_key_ref.as_ref().map(|r| &r.key),
        ),
        ("secretKeyRef", from.secret_key_ref.as_ref().map(|r| &r.key)),
    ] {
        match key.map(String::as_str) {
            Some("") => errors.push(FieldError::required(format!("{at}.{field}.key"), "")),
            Some(key) => errors.extend(wrong(
                &format!("{at}.{field}.key"),
                key,
                names::config_key(key),
            )),
            None => {}
        }
    }
    errors
}

fn validate_mounts(mounts: &[VolumeMount], volumes: &BTreeSet<&str>, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut paths = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = format!("{at}[{i}]");
        if mount.name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else if !volumes.contains(mount.name.as_str()) {
            errors.push(FieldError::not_found(format!("{at}.name"), &mount.name));
        }
        if mount.mount_path.is_empty() {
            errors.push(FieldError::required(format!("{at}.mountPath"), ""));
        } else if !paths.insert(mount.mount_path.as_str()) {
            errors.push(FieldError::invalid(
                format!("{at}.mountPath"),
                &mount.mount_path,
                "must be unique",
            ));
        }
        if let Some(sub) = mount.sub_path.as_deref().filter(|s| !s.is_empty()) {
            errors.extend(validate_inner_path(sub, &format!("{at}.subPath")));
        }
    }
    errors
}

/// A path inside a volume: relative, and not out of it.
fn validate_inner_path(path: &str, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if path.starts_with('/') {
        errors.push(FieldError::invalid(at, path, "must be a relative path"));
    }
    if path.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(at, path, "must not contain '..'"));
    }
    errors
}

fn validate_resources(resources: &ResourceRequirements, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let empty = BTreeMap::<String, Quantity>::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    for (field, list) in [("limits", limits), ("requests", requests)] {
        for (name, amount) in list {
            let at = format!("{at}.{field}[{name}]");
            match quantity::parse(&amount.0) {
                None => errors.push(FieldError::invalid(at, &amount.0, NOT_A_QUANTITY)),
                Some(value) if value < 0 => {
                    errors.push(FieldError::invalid(
                        at,
                        &amount.0,
                        "must be greater than or equal to 0",
                    ));
                }
                Some(_) => {}
            }
        }
    }
    for (name, request) in requests {
        let Some(limit) = limits.get(name) else {
            continue;
        };
        if let (Some(asked), Some(most)) = (quantity::parse(&request.0), quantity::parse(&limit.0))
            && asked > most
        {
            errors.push(FieldError::invalid(
                format!("{at}.requests"),
                &request.0,
                &format!("must be less than or equal to {name} limit of {}", limit.0),
            ));
        }
    }
    errors
}

/// Exactly one way of asking; each one more is complained about at its own field.
fn one_handler(handlers: &[(&str, bool)], at: &str) -> FieldErrors {
    let mut given = handlers.iter().filter(|(_, given)| *given);
    if given.next().is_none() {
        return vec![FieldError::required(at, "must specify a handler type")];
    }
    let more = given.map(|(field, _)| {
        FieldError::forbidden(
            format!("{at}.{field}"),
            "may not specify more than 1 handler type",
        )
    });
    more.collect()
}

fn validate_hook(hook: &LifecycleHandler, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if let Some(exec) = &hook.exec
        && exec.command.as_ref().is_none_or(Vec::is_empty)
    {
        errors.push(FieldError::required(format!("{at}.exec.command"), ""));
    }
    if let Some(get) = &hook.http_get {
        errors.extend(validate_port_or_name(
            &get.port,
            &format!("{at}.httpGet.port"),
        ));
        errors.extend(required_one_of(
            get.scheme.as_deref(),
            &["HTTP", "HTTPS"],
            &format!("{at}.httpGet.scheme"),
        ));
    }
    if let Some(socket) = &hook.tcp_socket {
        errors.extend(validate_port_or_name(
            &socket.port,
            &format!("{at}.tcpSocket.port"),
        ));
    }
    errors.extend(one_handler(
        &[
            ("exec", hook.exec.is_some()),
            ("httpGet", hook.http_get.is_some()),
            ("tcpSocket", hook.tcp_socket.is_some()),
            ("sleep", hook.sleep.is_some()),
        ],
        at,
    ));
    errors
}

fn validate_probe(probe: &Probe, once: bool, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    errors.extend(one_handler(
        &[
            ("exec", probe.exec.is_some()),
            ("httpGet", probe.http_get.is_some()),
            ("tcpSocket", probe.tcp_socket.is_some()),
            ("grpc", probe.grpc.is_some()),
        ],
        at,
    ));
    if let Some(exec) = &probe.exec
        && exec.command.as_ref().is_none_or(Vec::is_empty)
    {
        errors.push(FieldError::required(format!("{at}.exec.command"), ""));
    }
    if let Some(get) = &probe.http_get {
        errors.extend(validate_port_or_name(
            &get.port,
            &format!("{at}.httpGet.port"),
        ));
        errors.extend(required_one_of(
            get.scheme.as_deref(),
            &["HTTP", "HTTPS"],
            &format!("{at}.httpGet.scheme"),
        ));
    }
    if let Some(socket) = &probe.tcp_socket {
        errors.extend(validate_port_or_name(
            &socket.port,
            &format!("{at}.tcpSocket.port"),
        ));
    }
    if let Some(grpc) = &probe.grpc {
        errors.extend(wrong(
            &format!("{at}.grpc.port"),
            grpc.port,
            names::port_number(grpc.port),
        ));
    }
    for (field, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        errors.extend(not_negative(
            number.unwrap_or(0).into(),
            &format!("{at}.{field}"),
        ));
    }
    if once && probe.success_threshold.unwrap_or(1) != 1 {
        errors.push(FieldError::invalid(
            format!("{at}.successThreshold"),
            probe.success_threshold,
            "must be 1",
        ));
    }
    errors
}

fn validate_port_or_name(port: &IntOrString, at: &str) -> FieldErrors {
    match port {
        IntOrString::Int(number) => wrong(at, *number, names::port_number(*number)),
        IntOrString::String(name) => wrong(at, name.as_str(), names::port_name(name)),
    }
}

fn validate_volumes(volumes: &[Volume], at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut seen = BTreeSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = format!("{at}[{i}]");
        match volume_sources(volume) {
            0 => errors.push(FieldError::required(
                at.clone(),
                "must specify a volume type",
            )),
            1 => {}
            _ => errors.push(FieldError::forbidden(
                at.clone(),
                "may not specify more than 1 volume type",
            )),
        }
        if let Some(path) = &volume.host_path
            && path.path.is_empty()
        {
            errors.push(FieldError::required(format!("{at}.hostPath.path"), ""));
        }
        let (mut items, mut field) = (None, "");
        if let Some(secret) = &volume.secret {
            if secret.secret_name.as_deref().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(format!("{at}.secret.secretName"), ""));
            }
            (items, field) = (secret.items.as_ref(), "secret");
        }
        if let Some(map) = &volume.config_map {
            if map.name.is_empty() {
                errors.push(FieldError::required(format!("{at}.configMap.name"), ""));
            }
            (items, field) = (map.items.as_ref(), "configMap");
        }
        for (j, item) in items.into_iter().flatten().enumerate() {
            let at = format!("{at}.{field}.items[{j}]");
            if item.key.is_empty() {
                errors.push(FieldError::required(format!("{at}.key"), ""));
            }
            if item.path.is_empty() {
                errors.push(FieldError::required(format!("{at}.path"), ""));
            }
            errors.extend(validate_inner_path(&item.path, &format!("{at}.path")));
            if let Some(mode) = item.mode.filter(|m| !(0..=0o777).contains(m)) {
                errors.push(FieldError::invalid(
                    format!("{at}.mode"),
                    mode,
                    "must be a number between 0 and 0777 (octal), both inclusive",
                ));
            }
        }
        if volume.name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else {
            errors.extend(wrong(
                &format!("{at}.name"),
                volume.name.as_str(),
                names::dns_label(&volume.name),
            ));
            if !seen.insert(volume.name.as_str()) {
                errors.push(FieldError::duplicate(format!("{at}.name"), &volume.name));
            }
        }
    }
    errors
}

fn validate_tolerations(spec: &PodSpec, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (i, toleration) in spec.tolerations.iter().flatten().enumerate() {
        let at = format!("{at}.tolerations[{i}]");
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (key, value, effect) = (
            text(&toleration.key),
            text(&toleration.value),
            text(&toleration.effect),
        );
        if !key.is_empty() {
            errors.extend(wrong(
                &format!("{at}.key"),
                key.as_str(),
                names::qualified_name(&key),
            ));
        }
        let operator = text(&toleration.operator);
        if key.is_empty() && operator != "Exists" {
            errors.push(FieldError::invalid(
                format!("{at}.operator"),
                &operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
        match operator.as_str() {
            "" | "Equal" => errors.extend(wrong(
                &format!("{at}.operator"),
                value.as_str(),
                names::label_value(&value),
            )),
            "Exists" if !value.is_empty() => errors.push(FieldError::invalid(
                format!("{at}.operator"),
                toleration,
                "value must be empty when `operator` is 'Exists'",
            )),
            "Exists" => {}
            other => errors.push(FieldError::not_supported(
                format!("{at}.operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            errors.push(FieldError::invalid(
                format!("{at}.effect"),
                &effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        if !effect.is_empty() {
            errors.extend(one_of(
                &effect,
                &TOLERATION_EFFECTS,
                &format!("{at}.effect"),
            ));
        }
    }
    errors
}
