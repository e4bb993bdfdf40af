//! From a container of a Pod to what the runtime is asked for. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext};

use crate::env::{PodFacts, expand};
use crate::images::{BuiltIn, ImageInfo, PullPolicy};
use crate::quantity::{Amount, InvalidQuantity};
use crate::runtime::{ContainerSpec, Limits, Mount};

/// The container cannot be made as it is written; it waits with `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// A limit that is not a quantity.
    #[error(transparent)]
    Quantity(#[from] InvalidQuantity),
    /// `runAsNonRoot`, and the image has no other user.
    #[error(
        "container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})"
    )]
    Root {
        /// `name_namespace(uid)`
        pod: String,
        /// Its name.
        container: String,
    },
    /// A user id that the kernel does not have.
    #[error("{field} {value} is not a user or group id")]
    Id {
        /// `runAsUser` or `runAsGroup`
        field: &'static str,
        /// As given.
        value: i64,
    },
}

/// `imagePullPolicy`; where it is not given an image without a version is asked for every time.
pub fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ => {
            let image = container.image.as_deref().unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or(image);
            let versioned =
                last.contains('@') || last.split_once(':').is_some_and(|(_, tag)| tag != "latest");
            if versioned {
                PullPolicy::IfNotPresent
            } else {
                PullPolicy::Always
            }
        }
    }
}

/// Adds what every container is told, and what the built-in images want to know.
pub fn add_own_variables(
    variables: &mut BTreeMap<String, String>,
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
    hostname: &str,
    image: &ImageInfo,
) {
    let mut add = |name: &str, value: String| {
        variables.entry(name.to_owned()).or_insert(value);
    };
    add("HOSTNAME", hostname.to_owned());
    if container.tty == Some(true) {
        add("TERM", "xterm".to_owned());
    }
    if image.built_in == Some(BuiltIn::Whoami) {
        add("POD_NAME", pod.metadata.name.clone().unwrap_or_default());
        add(
            "POD_NAMESPACE",
            pod.metadata.namespace.clone().unwrap_or_default(),
        );
        add("NODE_NAME", facts.node_name.clone());
        add("POD_IP", facts.pod_ip.to_string());
    }
}

/// What the runtime is asked for.
pub fn container_spec(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: &ImageInfo,
    env: BTreeMap<String, String>,
    mounts: Vec<Mount>,
) -> Result<ContainerSpec, LaunchError> {
    let words = |words: &Option<Vec<String>>| -> Vec<String> {
        let lookup = |name: &str| env.get(name).map(String::as_str);
        words
            .iter()
            .flatten()
            .map(|word| expand(word, lookup))
            .collect()
    };
    let (command, args) = (words(&container.command), words(&container.args));
    let security = container.security_context.clone().unwrap_or_default();
    let capabilities = security.capabilities.clone().unwrap_or_default();
    Ok(ContainerSpec {
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        name: container.name.clone(),
        attempt,
        image_id: image.id.clone(),
        command,
        args,
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        env,
        mounts,
        limits: limits(container)?,
        user: user(pod, container, image)?,
        group: group(pod, container)?,
        supplemental_groups: supplemental_groups(pod)?,
        privileged: security.privileged == Some(true),
        capabilities_add: capabilities.add.unwrap_or_default(),
        capabilities_drop: capabilities.drop.unwrap_or_default(),
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        read_only_root: security.read_only_root_filesystem == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        termination_message_path: container
            .termination_message_path
            .clone()
            .unwrap_or_default(),
        ports: ports(container),
    })
}

/// `80/TCP`
fn ports(container: &Container) -> Vec<String> {
    let ports = container.ports.iter().flatten();
    ports
        .map(|port| {
            format!(
                "{}/{}",
                port.container_port,
                port.protocol.as_deref().unwrap_or("TCP")
            )
        })
        .collect()
}

fn limits(container: &Container) -> Result<Limits, LaunchError> {
    let resources = container.resources.clone().unwrap_or_default();
    let (limits, requests) = (
        resources.limits.unwrap_or_default(),
        resources.requests.unwrap_or_default(),
    );
    let amount = |text: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>| {
        text.map(|text| Amount::parse(&text.0)).transpose()
    };
    // A limit of nothing is no limit.
    let some = |value: i64| (value > 0).then_some(value);
    let cpu = amount(limits.get("cpu"))?;
    Ok(Limits {
        memory: amount(limits.get("memory"))?
            .map(Amount::units)
            .and_then(some),
        cpu_millis: cpu.map(Amount::millis).and_then(some),
        cpu_request_millis: amount(requests.get("cpu"))?
            .or(cpu)
            .map(Amount::millis)
            .and_then(some),
    })
}

fn id(field: &'static str, value: i64) -> Result<u32, LaunchError> {
    u32::try_from(value).map_err(|_| LaunchError::Id { field, value })
}

/// `runAsUser`, refused where it or the image's user is root and may not be.
fn user(pod: &Pod, container: &Container, image: &ImageInfo) -> Result<Option<u32>, LaunchError> {
    let of_pod = pod_security(pod);
    let own = container.security_context.clone().unwrap_or_default();
    let user = own
        .run_as_user
        .or(of_pod.run_as_user)
        .map(|value| id("runAsUser", value))
        .transpose()?;
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        let named = image.config.user.split(':').next().unwrap_or("");
        let root = match user {
            Some(user) => user == 0,
            None => matches!(named, "" | "0" | "root"),
        };
        if root {
            let meta = &pod.metadata;
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            let pod = format!(
                "{}_{}({})",
                part(&meta.name),
                part(&meta.namespace),
                part(&meta.uid)
            );
            return Err(LaunchError::Root {
                pod,
                container: container.name.clone(),
            });
        }
    }
    Ok(user)
}

fn group(pod: &Pod, container: &Container) -> Result<Option<u32>, LaunchError> {
    let own = container
        .security_context
        .as_ref()
        .and_then(|own| own.run_as_group);
    own.or(pod_security(pod).run_as_group)
        .map(|value| id("runAsGroup", value))
        .transpose()
}

fn supplemental_groups(pod: &Pod) -> Result<Vec<u32>, LaunchError> {
    let security = pod_security(pod);
    let groups = security
        .fs_group
        .into_iter()
        .chain(security.supplemental_groups.into_iter().flatten());
    groups
        .map(|group| id("supplementalGroups", group))
        .collect()
}

fn pod_security(pod: &Pod) -> PodSecurityContext {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.security_context.clone())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{ImageConfig, Rootfs};
    use serde_json::{Value, json};

    fn image(user: &str, built_in: Option<BuiltIn>) -> ImageInfo {
        let config = ImageConfig {
            user: user.into(),
            ..ImageConfig::default()
        };
        ImageInfo {
            id: "sha256:1".into(),
            config,
            size: 0,
            rootfs: Rootfs::Host,
            built_in,
        }
    }

    fn make(container: Value, user: &str) -> Result<ContainerSpec, LaunchError> {
        let mut container = container;
        container["name"] = json!("main");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": [container]},
        }))
        .unwrap();
        let env = BTreeMap::from([("WHO".to_owned(), "world".to_owned())]);
        let container = &pod.spec.as_ref().unwrap().containers[0];
        container_spec(&pod, container, 2, &image(user, None), env, Vec::new())
    }

    #[test]
    fn commands_and_arguments_see_the_environment() {
        let spec = make(
            json!({"command": ["echo", "$(WHO)"], "args": ["$(NOBODY)", "$$(WHO)"]}),
            "",
        )
        .unwrap();
        assert_eq!(spec.command, ["echo", "world"]);
        assert_eq!(spec.args, ["$(NOBODY)", "$(WHO)"]);
        assert_eq!(spec.attempt, 2);
    }

    #[test]
    fn limits_are_bytes_and_thousandths() {
        let spec = make(
            json!({"resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}),
            "",
        )
        .unwrap();
        let limits = Limits {
            memory: Some(67_108_864),
            cpu_millis: Some(1500),
            cpu_request_millis: Some(1500),
        };
        assert_eq!(spec.limits, limits);
        assert_eq!(make(json!({}), "").unwrap().limits, Limits::default());
        assert!(make(json!({"resources": {"limits": {"cpu": "much"}}}), "").is_err());
    }

    #[test]
    fn root_is_refused_where_it_may_not_be() {
        let non_root = json!({"securityContext": {"runAsNonRoot": true}});
        assert!(make(non_root.clone(), "").is_err());
        assert!(make(non_root.clone(), "root").is_err());
        assert_eq!(make(non_root, "1000:1000").unwrap().user, None);
        let own =
            json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 7, "runAsGroup": 8}});
        let made = make(own, "root").unwrap();
        assert_eq!((made.user, made.group), (Some(7), Some(8)));
        assert!(make(json!({"securityContext": {"runAsUser": -1}}), "").is_err());
    }

    #[test]
    fn only_versions_are_taken_from_here_without_asking() {
        for (image, policy) in [
            ("web", PullPolicy::Always),
            ("web:latest", PullPolicy::Always),
            ("host:5000/web", PullPolicy::Always),
            ("web:1.2", PullPolicy::IfNotPresent),
            ("web@sha256:abc", PullPolicy::IfNotPresent),
        ] {
            let container: Container =
                serde_json::from_value(json!({"name": "c", "image": image})).unwrap();
            assert_eq!(pull_policy(&container), policy, "{image}");
        }
    }

    #[test]
    fn whoami_is_told_who_it_is() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [{"name": "main", "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]}]},
        }))
        .unwrap();
        let facts = PodFacts {
            pod_ip: "10.244.0.5".parse().unwrap(),
            host_ip: "10.87.0.2".parse().unwrap(),
            node_name: "node-1".into(),
            node_cpu: Amount::ONE,
            node_memory: Amount::ONE,
        };
        let mut variables = BTreeMap::from([("NODE_NAME".to_owned(), "own".to_owned())]);
        let image = image("", Some(BuiltIn::Whoami));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        add_own_variables(&mut variables, &pod, container, &facts, "p", &image);
        let made =
            container_spec(&pod, container, 0, &image, variables.clone(), Vec::new()).unwrap();
        assert_eq!(made.ports, ["80/TCP", "53/UDP"]);
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            variables,
            [
                "HOSTNAME=p",
                "NODE_NAME=own",
                "POD_IP=10.244.0.5",
                "POD_NAME=p",
                "POD_NAMESPACE=ns"
            ]
        );
    }
}
