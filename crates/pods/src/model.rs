//! A Pod as the plan sees it: read once from the API object, with nothing left to interpret.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// The object cannot be a Pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The API server always sets these.
    #[error("the Pod has no {field}")]
    Missing {
        /// `metadata.uid`, for example.
        field: &'static str,
    },
    /// Neither `Always` nor `OnFailure` nor `Never`.
    #[error("unknown restartPolicy {value:?}")]
    RestartPolicy {
        /// As given.
        value: String,
    },
}

/// `restartPolicy`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// After every end.
    Always,
    /// After an end with a code other than 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    fn parse(value: Option<&str>) -> Result<Self, ModelError> {
        match value.unwrap_or("Always") {
            "Always" => Ok(RestartPolicy::Always),
            "OnFailure" => Ok(RestartPolicy::OnFailure),
            "Never" => Ok(RestartPolicy::Never),
            other => Err(ModelError::RestartPolicy {
                value: other.to_owned(),
            }),
        }
    }

    /// Whether a container that ended with `code` runs again.
    pub fn restarts(self, code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// When in the life of its Pod a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Before all others, to its end, one after the other.
    Init,
    /// Started among the init containers, and runs as long as the Pod (`restartPolicy: Always` on an init container).
    Sidecar,
    /// What the Pod is for.
    App,
}

/// A container as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerModel {
    /// Name in the Pod.
    pub name: String,
    /// When it runs.
    pub role: Role,
    /// Image as written in the spec.
    pub image: String,
    /// When it runs again.
    pub restart: RestartPolicy,
    /// It has a startup probe.
    pub startup_probe: bool,
    /// It has a readiness probe.
    pub readiness_probe: bool,
    /// Seconds to end in after its liveness probe failed, where the probe says so.
    pub liveness_grace: Option<i64>,
    /// Seconds to end in after its startup probe failed, where the probe says so.
    pub startup_grace: Option<i64>,
}

/// Someone deleted the Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// `metadata.deletionGracePeriodSeconds`
    pub grace_seconds: i64,
}

/// A Pod as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodModel {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// The Pod is to go.
    pub deletion: Option<Deletion>,
    /// `spec.restartPolicy`
    pub restart: RestartPolicy,
    /// Seconds that its containers get to end in.
    pub grace_seconds: i64,
    /// Seconds after its start at which the Pod has failed.
    pub active_deadline_seconds: Option<i64>,
    /// It uses the node's network namespace.
    pub host_network: bool,
    /// When the kubelet first saw it, if it said so already.
    pub start_time: Option<Timestamp>,
    /// All containers, init containers first, in the order of the spec.
    pub containers: Vec<ContainerModel>,
}

impl PodModel {
    /// `name_namespace(uid)`, as the kubelet writes a Pod in messages.
    pub fn display(&self) -> String {
        format!("{}_{}({})", self.name, self.namespace, self.uid)
    }

    /// The containers of one role.
    pub fn of_role(&self, role: Role) -> impl DoubleEndedIterator<Item = &ContainerModel> {
        self.containers
            .iter()
            .filter(move |container| container.role == role)
    }
}

impl TryFrom<&Pod> for PodModel {
    type Error = ModelError;

    fn try_from(pod: &Pod) -> Result<Self, ModelError> {
        let missing = |field| ModelError::Missing { field };
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref().ok_or(missing("spec"))?;
        let grace_seconds = spec.termination_grace_period_seconds.unwrap_or(30).max(0);
        let status = pod.status.as_ref();
        Ok(PodModel {
            uid: meta.uid.clone().ok_or(missing("metadata.uid"))?,
            namespace: meta
                .namespace
                .clone()
                .ok_or(missing("metadata.namespace"))?,
            name: meta.name.clone().ok_or(missing("metadata.name"))?,
            deletion: meta.deletion_timestamp.as_ref().map(|_| Deletion {
                grace_seconds: meta
                    .deletion_grace_period_seconds
                    .unwrap_or(grace_seconds)
                    .max(0),
            }),
            restart: RestartPolicy::parse(spec.restart_policy.as_deref())?,
            grace_seconds,
            active_deadline_seconds: spec.active_deadline_seconds,
            host_network: spec.host_network == Some(true),
            start_time: status
                .and_then(|status| status.start_time.as_ref())
                .map(|time| time.0),
            containers: containers(spec)?,
        })
    }
}

fn containers(spec: &PodSpec) -> Result<Vec<ContainerModel>, ModelError> {
    let pod_policy = RestartPolicy::parse(spec.restart_policy.as_deref())?;
    let mut models = Vec::new();
    for container in spec.init_containers.iter().flatten() {
        let own = container.restart_policy.as_deref();
        let (role, restart) = match own {
            Some("Always") => (Role::Sidecar, RestartPolicy::Always),
            Some(_) => (Role::Init, RestartPolicy::parse(own)?),
            // A failed init container is tried again unless the Pod may not restart; one that did its work is not.
            None if pod_policy == RestartPolicy::Never => (Role::Init, RestartPolicy::Never),
            None => (Role::Init, RestartPolicy::OnFailure),
        };
        models.push(model(container, role, restart));
    }
    for container in &spec.containers {
        let restart = match container.restart_policy.as_deref() {
            None => pod_policy,
            own => RestartPolicy::parse(own)?,
        };
        models.push(model(container, Role::App, restart));
    }
    Ok(models)
}

fn model(container: &Container, role: Role, restart: RestartPolicy) -> ContainerModel {
    let grace = |probe: &Option<k8s_openapi::api::core::v1::Probe>| {
        probe
            .as_ref()
            .and_then(|probe| probe.termination_grace_period_seconds)
    };
    ContainerModel {
        name: container.name.clone(),
        role,
        image: container.image.clone().unwrap_or_default(),
        restart,
        // Init containers that run to their end have no probes (validation refuses them).
        startup_probe: role != Role::Init && container.startup_probe.is_some(),
        readiness_probe: role != Role::Init && container.readiness_probe.is_some(),
        liveness_grace: grace(&container.liveness_probe),
        startup_grace: grace(&container.startup_probe),
    }
}

/// The container of a name, whichever role it has.
pub fn container_of<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a Container> {
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .find(|container| container.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_are_tried_until_they_succeed_unless_the_pod_may_not_restart() {
        for (policy, expected) in [
            (
                "Always",
                [
                    RestartPolicy::OnFailure,
                    RestartPolicy::Always,
                    RestartPolicy::Always,
                ],
            ),
            (
                "OnFailure",
                [
                    RestartPolicy::OnFailure,
                    RestartPolicy::Always,
                    RestartPolicy::OnFailure,
                ],
            ),
            (
                "Never",
                [
                    RestartPolicy::Never,
                    RestartPolicy::Always,
                    RestartPolicy::Never,
                ],
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
                "spec": {"restartPolicy": policy,
                    "initContainers": [{"name": "first"}, {"name": "side", "restartPolicy": "Always"}],
                    "containers": [{"name": "main"}]},
            }))
            .unwrap();
            let model = PodModel::try_from(&pod).unwrap();
            let roles: Vec<_> = model
                .containers
                .iter()
                .map(|container| container.role)
                .collect();
            assert_eq!(roles, [Role::Init, Role::Sidecar, Role::App]);
            let policies: Vec<_> = model
                .containers
                .iter()
                .map(|container| container.restart)
                .collect();
            assert_eq!(policies, expected, "{policy}");
        }
    }

    #[test]
    fn an_unknown_policy_is_an_error_not_a_default() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"restartPolicy": "Sometimes", "containers": []},
        }))
        .unwrap();
        assert_eq!(
            PodModel::try_from(&pod),
            Err(ModelError::RestartPolicy {
                value: "Sometimes".into()
            })
        );
    }
}
