//! The work behind each action of a plan: the only place where a Pod touches the node.
//!
//! Everything here may be done twice: an agent that comes back does what its predecessor may have done already.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::{Api, DeleteParams, Preconditions};
use seaway_kernel::netns::NetNs;
use seaway_pod_network::PodNetwork;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::Config;
use crate::env::{self, PodFacts, SourceKind, SourceName, Sources};
use crate::events::{Recorder, Severity};
use crate::files::{
    ClusterDns, HostPathType, Resolver, VolumeContent, hosts_file, mounts, pod_names, project,
    source_names, volume_content,
};
use crate::hooks;
use crate::images::{ImageError, Images, PullPolicy};
use crate::launch::{add_own_variables, container_spec, pull_policy};
use crate::model::{PodModel, container_of};
use crate::quantity::Amount;
use crate::runtime::{ContainerPhase, Mount, Runtime, RuntimeError, SandboxSpec};
use crate::services::Services;
use crate::sources;
use crate::tokens;

/// A container gets at least this long after its pre-stop hook.
const LEAST_AFTER_HOOK: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What all Pods of the node work with.
pub struct Node {
    /// For objects.
    pub client: kube::Client,
    /// Who we are.
    pub config: Config,
    /// For containers.
    pub runtime: Runtime,
    /// For images.
    pub images: Images,
    /// For addresses.
    pub network: PodNetwork,
    /// Whether the Pod network has its range.
    pub network_ready: watch::Receiver<bool>,
    /// For environments.
    pub services: Services,
    /// For Events.
    pub events: Recorder,
    /// CPUs of the node.
    pub cpu: Amount,
    /// Bytes of memory of the node.
    pub memory: Amount,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A sandbox with its address and files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The Pod's address.
    pub pod_ip: IpAddr,
    /// Its own name.
    pub hostname: String,
    /// Directory or path of each volume.
    pub places: BTreeMap<String, PathBuf>,
    /// `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`
    pub etc: PathBuf,
    /// What the volumes were made from.
    pub sources: Sources,
}

/// Why something was not done, as Kubernetes tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `ErrImagePull`, `FailedMount`…
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

impl Refusal {
    fn new(reason: &'static str, message: impl ToString) -> Self {
        Refusal {
            reason,
            message: message.to_string(),
        }
    }
}

impl Node {
    /// What a Pod can be told of itself.
    pub fn facts(&self, pod_ip: IpAddr) -> PodFacts {
        PodFacts {
            pod_ip,
            host_ip: self.config.node_ip,
            node_name: self.config.node_name.clone(),
            node_cpu: self.cpu,
            node_memory: self.memory,
        }
    }

    /// Makes the volumes, the sandbox and its network, if they are not there.
    pub async fn prepare(&self, pod: &Pod, model: &PodModel) -> Result<Prepared, Refusal> {
        let broken = |error: &dyn std::fmt::Display| {
            Refusal::new(
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {error}"),
            )
        };
        let spec = pod.spec.clone().unwrap_or_default();
        let directory = self
            .runtime
            .pod_dir(&model.uid)
            .map_err(|error| broken(&error))?;
        let names = source_names(&spec);
        let mut sources = sources::read(&self.client, &model.namespace, names)
            .await
            .map_err(|error| {
                Refusal::new(
                    "FailedMount",
                    format!("cannot read ConfigMaps and Secrets: {error}"),
                )
            })?;
        let tokens = tokens::read(&self.client, pod, tokens::wishes(&spec)).await;
        sources.extend(tokens.map_err(|error| Refusal::new("FailedMount", error))?);
        let places = self.volumes(pod, &spec, &directory, &sources)?;
        let names = pod_names(
            &spec,
            &model.name,
            &model.namespace,
            &self.config.node_name,
            &self.config.cluster_domain,
        );
        if !model.host_network {
            // An error means that the agent ends.
            let _ = self.network_ready.clone().wait_for(|ready| *ready).await;
        }
        let sandbox = self
            .runtime
            .create_sandbox(SandboxSpec {
                pod_uid: model.uid.clone(),
                namespace: model.namespace.clone(),
                name: model.name.clone(),
                hostname: names.hostname.clone(),
                host_network: model.host_network,
            })
            .await
            .map_err(|error| broken(&error))?;
        let pod_ip = if model.host_network {
            self.config.node_ip
        } else {
            let pid = u32::try_from(sandbox.pid).unwrap_or_default();
            let namespace = NetNs::of_process(pid).map_err(|error| broken(&error))?;
            self.network
                .attach(&model.uid, &namespace)
                .await
                .map_err(|error| broken(&error))?
        };
        let etc = directory.join("etc");
        let node_hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let node_resolver =
            Resolver::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        let cluster = ClusterDns {
            address: self.config.cluster_dns,
            domain: &self.config.cluster_domain,
        };
        for (name, text) in [
            ("hosts", hosts_file(&spec, &names, pod_ip, &node_hosts)),
            (
                "resolv.conf",
                Resolver::of_pod(&spec, &model.namespace, &cluster, &node_resolver).render(),
            ),
            ("hostname", format!("{}\n", names.hostname)),
        ] {
            write_if_new(&etc, name, &text).map_err(|error| broken(&error))?;
        }
        Ok(Prepared {
            pod_ip,
            hostname: names.hostname,
            places,
            etc,
            sources,
        })
    }

    /// Brings the volumes of a Pod up to `sources`; the place of each.
    pub fn volumes(
        &self,
        pod: &Pod,
        spec: &PodSpec,
        directory: &Path,
        sources: &Sources,
    ) -> Result<BTreeMap<String, PathBuf>, Refusal> {
        let facts = self.facts(self.config.node_ip);
        let mut places = BTreeMap::new();
        for volume in spec.volumes.iter().flatten() {
            let failed = |error: &dyn std::fmt::Display| {
                let message = format!(
                    "MountVolume.SetUp failed for volume {:?} : {error}",
                    volume.name
                );
                Refusal::new("FailedMount", message)
            };
            let place = directory.join("volumes").join(&volume.name);
            let place = match volume_content(pod, volume, &facts, sources)
                .map_err(|error| failed(&error))?
            {
                VolumeContent::Empty => {
                    open_directory(&place).map_err(|error| failed(&error))?;
                    place
                }
                VolumeContent::HostPath { path, kind } => {
                    host_path(&path, kind).map_err(|error| failed(&error))?;
                    path
                }
                VolumeContent::Files(files) => {
                    let stamp = format!("v{}", Timestamp::now().as_nanosecond());
                    project(&place, &files, &stamp).map_err(|error| failed(&error))?;
                    place
                }
            };
            places.insert(volume.name.clone(), place);
        }
        Ok(places)
    }

    /// Pulls the image, makes the container and runs its post-start hook. `running` is told when its process runs.
    pub async fn start(
        &self,
        pod: &Pod,
        model: &PodModel,
        prepared: &Prepared,
        (name, attempt): (&str, u32),
        running: impl FnOnce(),
        cancel: &CancellationToken,
    ) -> Result<(), Refusal> {
        let spec = pod.spec.clone().unwrap_or_default();
        let Some(container) = container_of(&spec, name) else {
            return Err(Refusal::new(
                "CreateContainerError",
                format!("container {name} not found in the Pod"),
            ));
        };
        let image_name = container.image.clone().unwrap_or_default();
        let image = tokio::select! {
            () = cancel.cancelled() => return Err(Refusal::new("Cancelled", "the Pod ends")),
            image = self.image(pod, name, &image_name, pull_policy(container)) => image?,
        };
        let config_error = |error: &dyn std::fmt::Display| {
            let message = error.to_string();
            self.events.pod(
                pod,
                Some(name),
                Severity::Warning,
                "Failed",
                format!("Error: {message}"),
            );
            Refusal {
                reason: "CreateContainerConfigError",
                message,
            }
        };
        let facts = self.facts(prepared.pod_ip);
        let references: Vec<SourceName> = env::references(container).into_iter().collect();
        let sources = sources::read(&self.client, &model.namespace, references)
            .await
            .map_err(|error| config_error(&error))?;
        tokio::select! {
            () = cancel.cancelled() => return Err(Refusal::new("Cancelled", "the Pod ends")),
            () = self.services.ready() => {}
        }
        let links = spec.enable_service_links != Some(false);
        let services = self.services.variables(&model.namespace, links);
        let environment = env::environment(pod, container, &facts, &sources, &services)
            .map_err(|error| config_error(&error))?;
        for ((kind, source), keys) in &environment.skipped {
            let kind = match kind {
                SourceKind::ConfigMap => "configMap",
                SourceKind::Secret => "secret",
                SourceKind::Token => "token",
            };
            let message = format!(
                "Keys [{}] from the EnvFrom {kind} {}/{source} were skipped since they are considered invalid \
                 environment variable names.",
                keys.join(", "),
                model.namespace
            );
            self.events.pod(
                pod,
                None,
                Severity::Warning,
                "InvalidEnvironmentVariableNames",
                message,
            );
        }
        let mut variables = environment.variables;
        add_own_variables(
            &mut variables,
            pod,
            container,
            &facts,
            &prepared.hostname,
            &image,
        );
        let lookup = |name: &str| variables.get(name).map(String::as_str);
        let mut all_mounts =
            mounts(container, &prepared.places, lookup).map_err(|error| config_error(&error))?;
        for file in ["hosts", "resolv.conf", "hostname"] {
            let destination = Path::new("/etc").join(file);
            if !all_mounts
                .iter()
                .any(|mount| mount.destination == destination)
            {
                all_mounts.push(Mount {
                    source: prepared.etc.join(file),
                    destination,
                    read_only: false,
                });
            }
        }
        let request = container_spec(pod, container, attempt, &image, variables, all_mounts)
            .map_err(|error| config_error(&error))?;
        if cancel.is_cancelled() {
            return Err(Refusal::new("Cancelled", "the Pod ends"));
        }
        let started = self
            .runtime
            .start_container(request)
            .await
            .map_err(|error| {
                self.events.pod(
                    pod,
                    Some(name),
                    Severity::Warning,
                    "Failed",
                    format!("Error: {error}"),
                );
                Refusal::new("CreateContainerError", error)
            })?;
        self.events.pod(
            pod,
            Some(name),
            Severity::Normal,
            "Created",
            format!("Created container: {name}"),
        );
        if let ContainerPhase::Exited {
            started_at: None,
            message,
            ..
        } = &started.phase
        {
            let message = message
                .clone()
                .unwrap_or_else(|| "the container could not be started".to_owned());
            self.events.pod(
                pod,
                Some(name),
                Severity::Warning,
                "Failed",
                format!("Error: {message}"),
            );
            return Err(Refusal {
                reason: "RunContainerError",
                message,
            });
        }
        self.events.pod(
            pod,
            Some(name),
            Severity::Normal,
            "Started",
            format!("Started container {name}"),
        );
        let Some(hook) = hooks::post_start(container) else {
            return Ok(());
        };
        running();
        let outcome = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            outcome = hooks::run(
                &self.runtime, &started.id, prepared.pod_ip, container, hook, hooks::LONGEST_POST_START,
            ) => outcome,
        };
        let Err(problem) = outcome else { return Ok(()) };
        self.events.pod(
            pod,
            Some(name),
            Severity::Warning,
            "FailedPostStartHook",
            "PostStartHook failed",
        );
        let grace = Duration::from_secs(u64::try_from(model.grace_seconds).unwrap_or(0));
        self.stop(&started.id, grace).await;
        Err(Refusal::new(
            "PostStartHookError",
            format!("PostStartHook failed: {problem}"),
        ))
    }

    /// The image, from here or from its registry, with the Events that go with it.
    async fn image(
        &self,
        pod: &Pod,
        container: &str,
        name: &str,
        policy: PullPolicy,
    ) -> Result<crate::images::ImageInfo, Refusal> {
        let tell = |severity, reason: &str, message: String| {
            self.events
                .pod(pod, Some(container), severity, reason, message);
        };
        let here = match self.images.resolve(name) {
            Ok(here) => here,
            Err(error) if error.reason() == "InvalidImageName" => {
                let message = format!("Failed to apply default image tag {name:?}: {error}");
                tell(Severity::Warning, "InspectFailed", message.clone());
                tell(
                    Severity::Warning,
                    "Failed",
                    "Error: InvalidImageName".to_owned(),
                );
                return Err(Refusal {
                    reason: "InvalidImageName",
                    message,
                });
            }
            // What is wrong with the store comes out when it is asked for the image.
            Err(_) => None,
        };
        let asks = match (&here, policy) {
            (Some(image), PullPolicy::Always) => image.built_in.is_none(),
            (None, PullPolicy::Always | PullPolicy::IfNotPresent) => true,
            (_, _) => false,
        };
        if asks {
            tell(
                Severity::Normal,
                "Pulling",
                format!("Pulling image {name:?}"),
            );
        }
        let begun = std::time::Instant::now();
        match self.images.ensure(name, policy).await {
            Ok(image) if asks => {
                let took = begun.elapsed().as_millis();
                tell(
                    Severity::Normal,
                    "Pulled",
                    format!(
                        "Successfully pulled image {name:?} in {took}ms ({took}ms including waiting). \
                         Image size: {} bytes.",
                        image.size
                    ),
                );
                Ok(image)
            }
            Ok(image) => {
                tell(
                    Severity::Normal,
                    "Pulled",
                    format!(
                        "Container image {name:?} already present on machine and can be accessed by the pod"
                    ),
                );
                Ok(image)
            }
            Err(error) => {
                let reason = error.reason();
                if reason == "ErrImageNeverPull" {
                    let message = format!(
                        "Container image {name:?} is not present with pull policy of Never"
                    );
                    tell(Severity::Warning, "ErrImageNeverPull", message.clone());
                    tell(
                        Severity::Warning,
                        "Failed",
                        "Error: ErrImageNeverPull".to_owned(),
                    );
                    return Err(Refusal { reason, message });
                }
                // The registry's own words, without ours around them twice.
                let problem = match error {
                    ImageError::Pull { problem, .. } => problem,
                    other => other.to_string(),
                };
                tell(
                    Severity::Warning,
                    "Failed",
                    format!("Failed to pull image {name:?}: {problem}"),
                );
                tell(Severity::Warning, "Failed", format!("Error: {reason}"));
                let message = format!("failed to pull image {name:?}: {problem}");
                Err(Refusal { reason, message })
            }
        }
    }

    /// Runs the pre-stop hook of a container and stops it.
    pub async fn stop_with_hook(
        &self,
        pod: &Pod,
        (name, id): (&str, &str),
        pod_ip: Option<IpAddr>,
        grace: Duration,
    ) {
        let begun = std::time::Instant::now();
        let container = pod.spec.as_ref().and_then(|spec| container_of(spec, name));
        let mut remaining = grace;
        if let Some((container, pod_ip)) = container.zip(pod_ip)
            && let Some(hook) = hooks::pre_stop(container)
        {
            if hooks::run(&self.runtime, id, pod_ip, container, hook, grace)
                .await
                .is_err()
            {
                self.events.pod(
                    pod,
                    Some(name),
                    Severity::Warning,
                    "FailedPreStopHook",
                    "PreStopHook failed",
                );
            }
            remaining = grace.saturating_sub(begun.elapsed()).max(LEAST_AFTER_HOOK);
        }
        self.stop(id, remaining).await;
    }

    /// Stops a container; returns when it has ended.
    async fn stop(&self, id: &str, grace: Duration) {
        if let Err(error) = over_already(self.runtime.stop_container(id, grace).await) {
            warn!(%error, id, "cannot stop a container; it is ended at once");
            let end =
                || async { over_already(self.runtime.stop_container(id, Duration::ZERO).await) };
            until_done("end a container", end).await;
        }
    }

    /// Forgets a container that ended.
    pub async fn remove(&self, id: &str) {
        until_done("remove a container", || async {
            over_already(self.runtime.remove_container(id).await)
        })
        .await;
    }

    /// Removes all containers of a Pod whose sandbox died.
    pub async fn reset(&self, uid: &str) {
        until_done("remove the containers of a sandbox that died", || async {
            for container in self.runtime.containers(uid)? {
                over_already(self.runtime.remove_container(&container.id).await)?;
            }
            Ok::<_, RuntimeError>(())
        })
        .await;
    }

    /// Gives the Pod's address and links back.
    pub async fn release(&self, model: &PodModel) {
        if !model.host_network {
            until_done("detach a Pod from the network", || async {
                self.network.detach(&model.uid).await
            })
            .await;
        }
    }

    /// Removes all that the Pod has on the node.
    pub async fn destroy(&self, uid: &str) {
        until_done("detach a Pod from the network", || async {
            self.network.detach(uid).await
        })
        .await;
        until_done("remove a sandbox", || async {
            self.runtime.remove_sandbox(uid).await
        })
        .await;
    }

    /// Gives back the addresses and links of all Pods but these.
    pub async fn retain_networks(&self, pods: &BTreeSet<String>) {
        until_done("remove the networks of former Pods", || async {
            self.network.retain(pods).await
        })
        .await;
    }

    /// Deletes the object, if it is still this Pod.
    pub async fn delete(&self, model: &PodModel) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &model.namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(model.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        until_done("delete a Pod that has ended", || async {
            match api.delete(&model.name, &params).await {
                // It is gone, or another Pod has its name.
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
                other => other.map(drop),
            }
        })
        .await;
    }
}

/// Tries again, later and later, until it works.
async fn until_done<E, F>(what: &str, work: impl Fn() -> F)
where
    E: std::fmt::Display,
    F: Future<Output = Result<(), E>>,
{
    let mut pause = FIRST_PAUSE;
    while let Err(error) = work().await {
        warn!(%error, "cannot {what}; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// That something is not there is what was wanted.
fn over_already(result: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(RuntimeError::NoContainer { .. } | RuntimeError::NotRunning { .. }) => Ok(()),
        other => other,
    }
}

fn write_if_new(directory: &Path, name: &str, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(name);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    // In place: containers have this very file mounted.
    std::fs::write(path, text)
}

/// A directory that every user of the Pod may write to.
fn open_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
}

/// Checks a path of the node, and makes it where its type says so.
fn host_path(path: &Path, kind: HostPathType) -> Result<(), String> {
    use std::os::unix::fs::FileTypeExt as _;
    let make = |error: std::io::Error| format!("cannot make {}: {error}", path.display());
    let found = std::fs::metadata(path);
    match (kind, &found) {
        (HostPathType::DirectoryOrCreate, Err(_)) => {
            return std::fs::create_dir_all(path).map_err(make);
        }
        (HostPathType::FileOrCreate, Err(_)) => {
            return std::fs::File::create(path).map(drop).map_err(make);
        }
        (HostPathType::Any, Err(_)) => return std::fs::create_dir_all(path).map_err(make),
        _ => {}
    }
    let meta = found
        .map_err(|error| format!("hostPath type check failed: {}: {error}", path.display()))?;
    let fits = match kind {
        HostPathType::Any => true,
        HostPathType::Directory | HostPathType::DirectoryOrCreate => meta.is_dir(),
        HostPathType::File | HostPathType::FileOrCreate => meta.is_file(),
        HostPathType::Socket => meta.file_type().is_socket(),
        HostPathType::CharDevice => meta.file_type().is_char_device(),
        HostPathType::BlockDevice => meta.file_type().is_block_device(),
    };
    if fits {
        Ok(())
    } else {
        Err(format!(
            "hostPath type check failed: {} is not a {kind:?}",
            path.display()
        ))
    }
}
