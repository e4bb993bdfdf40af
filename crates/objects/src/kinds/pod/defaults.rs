//! What a Pod gets when its author left it out.
//!
//! Source: `pkg/apis/core/v1/defaults.go` in Kubernetes.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EphemeralContainer, HTTPGetAction,
    Lifecycle, LifecycleHandler, PodSecurityContext, PodSpec, Probe, ResourceRequirements, Volume,
};

use super::GRACE_SECONDS;

/// Permissions of files in volumes: 0644.
const FILE_MODE: i32 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

/// A Pod that is created as such: everything of [`default_spec`], and what templates leave open until then.
pub(super) fn default_pod(spec: &mut PodSpec) {
    spec.enable_service_links.get_or_insert(true);
    // The old name of the field follows the new one, whichever was given.
    match (&spec.service_account_name, &spec.service_account) {
        (Some(name), _) => spec.service_account = Some(name.clone()),
        (None, Some(old)) => spec.service_account_name = Some(old.clone()),
        (None, None) => {}
    }
    let init = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(init) {
        if let Some(resources) = &mut container.resources {
            request_the_limits(resources);
        }
    }
    if spec.host_network == Some(true) {
        let init = spec.init_containers.iter_mut().flatten();
        for container in spec.containers.iter_mut().chain(init) {
            for port in container.ports.iter_mut().flatten() {
                if port.host_port.unwrap_or(0) == 0 {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }
    default_spec(spec);
}

/// Who limits a resource without requesting it requests all of it.
fn request_the_limits(resources: &mut ResourceRequirements) {
    if let Some(limits) = &resources.limits {
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests
                .entry(name.clone())
                .or_insert_with(|| limit.clone());
        }
    }
}

/// A Pod spec wherever it stands, in templates as well.
pub(in crate::kinds) fn default_spec(spec: &mut PodSpec) {
    spec.dns_policy
        .get_or_insert_with(|| "ClusterFirst".to_owned());
    spec.restart_policy
        .get_or_insert_with(|| "Always".to_owned());
    spec.security_context
        .get_or_insert_with(PodSecurityContext::default);
    spec.termination_grace_period_seconds
        .get_or_insert(GRACE_SECONDS);
    spec.scheduler_name
        .get_or_insert_with(|| "default-scheduler".to_owned());
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        default_container(container);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        default_ephemeral(container);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        default_volume(volume);
    }
}

fn default_container(container: &mut Container) {
    let image = container.image.as_deref().unwrap_or_default();
    container
        .image_pull_policy
        .get_or_insert_with(|| pull_policy(image).to_owned());
    container
        .resources
        .get_or_insert_with(ResourceRequirements::default);
    default_message(
        &mut container.termination_message_path,
        &mut container.termination_message_policy,
    );
    default_ports(container.ports.as_deref_mut());
    default_env(container.env.as_deref_mut());
    for probe in [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ]
    .into_iter()
    .flatten()
    {
        default_probe(probe);
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        default_lifecycle(lifecycle);
    }
}

fn default_ephemeral(container: &mut EphemeralContainer) {
    let image = container.image.as_deref().unwrap_or_default();
    container
        .image_pull_policy
        .get_or_insert_with(|| pull_policy(image).to_owned());
    container
        .resources
        .get_or_insert_with(ResourceRequirements::default);
    default_message(
        &mut container.termination_message_path,
        &mut container.termination_message_policy,
    );
    default_env(container.env.as_deref_mut());
}

fn default_message(path: &mut Option<String>, policy: &mut Option<String>) {
    path.get_or_insert_with(|| "/dev/termination-log".to_owned());
    policy.get_or_insert_with(|| "File".to_owned());
}

fn default_ports(ports: Option<&mut [ContainerPort]>) {
    for port in ports.into_iter().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
}

fn default_env(env: Option<&mut [EnvVar]>) {
    for variable in env.into_iter().flatten() {
        if let Some(field) = variable
            .value_from
            .as_mut()
            .and_then(|v| v.field_ref.as_mut())
        {
            field.api_version.get_or_insert_with(|| "v1".to_owned());
        }
    }
}

fn default_probe(probe: &mut Probe) {
    // In Go these are plain numbers: zero is the same as left out.
    let number = |field: &mut Option<i32>, value| {
        if field.unwrap_or(0) == 0 {
            *field = Some(value);
        }
    };
    number(&mut probe.timeout_seconds, 1);
    number(&mut probe.period_seconds, 10);
    number(&mut probe.success_threshold, 1);
    number(&mut probe.failure_threshold, 3);
    if let Some(get) = &mut probe.http_get {
        default_http_get(get);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn default_lifecycle(lifecycle: &mut Lifecycle) {
    let hooks: [&mut Option<LifecycleHandler>; 2] =
        [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
    for get in hooks
        .into_iter()
        .flatten()
        .filter_map(|h| h.http_get.as_mut())
    {
        default_http_get(get);
    }
}

fn default_http_get(get: &mut HTTPGetAction) {
    if get.path.as_deref().unwrap_or_default().is_empty() {
        get.path = Some("/".to_owned());
    }
    get.scheme.get_or_insert_with(|| "HTTP".to_owned());
}

fn default_volume(volume: &mut Volume) {
    if volume_sources(volume) == 0 {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        for field in source
            .items
            .iter_mut()
            .flatten()
            .filter_map(|i| i.field_ref.as_mut())
        {
            field.api_version.get_or_insert_with(|| "v1".to_owned());
        }
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(FILE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
            }
            let items = source.downward_api.as_mut().and_then(|d| d.items.as_mut());
            for field in items
                .into_iter()
                .flatten()
                .filter_map(|i| i.field_ref.as_mut())
            {
                field.api_version.get_or_insert_with(|| "v1".to_owned());
            }
        }
    }
}

/// How many kinds of source the volume names; one is right.
pub(super) fn volume_sources(volume: &Volume) -> usize {
    // Asking the JSON form finds sources of every type, those included that a later Kubernetes adds.
    match serde_json::to_value(volume) {
        Ok(serde_json::Value::Object(fields)) => fields.keys().filter(|k| *k != "name").count(),
        _ => 0,
    }
}

/// `Always` for what may move under the same name: no tag, or `latest`; digests never move.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains('@') {
        return "IfNotPresent";
    }
    match name.rsplit_once(':') {
        None if !image.is_empty() => "Always",
        Some((_, "latest")) => "Always",
        _ => "IfNotPresent",
    }
}
