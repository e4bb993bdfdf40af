//! The Node object: registers the node, says how it is, and that it is alive.
//! Source: "Nodes" in the Kubernetes documentation; `pkg/kubelet/nodestatus`, KEP-589 (Leases).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
    NodeSystemInfo, ObjectReference,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::Config;
use crate::error::Error;
use crate::events::{Occurrence, Recorder, Severity};

/// The Kubernetes whose kubelet this is like.
const KUBELET_VERSION: &str = "v1.36.0+seaway";
const RUNTIME_VERSION: &str = concat!("seaway://", env!("CARGO_PKG_VERSION"));
/// Pods on one node, as the kubelet's default.
const PODS: &str = "110";

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_secs(300);
const RETRY_EVERY: Duration = Duration::from_millis(200);

/// What the machine is, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// CPUs.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the file system of the Pods.
    pub storage: u64,
    /// `uname -r`
    pub kernel: String,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub os_image: String,
    /// `/etc/machine-id`
    pub machine_id: String,
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: String,
}

impl Machine {
    /// Reads it. What is not there stays empty: none of it is needed to run Pods.
    pub fn read(config: &Config) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let line = |path: &str| text(path).trim().to_owned();
        let storage = nix::sys::statvfs::statvfs(&config.state_dir)
            .map(|stat| stat.blocks().saturating_mul(stat.fragment_size()))
            .unwrap_or(0);
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory_of(&text("/proc/meminfo")),
            storage,
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image_of(&text("/etc/os-release")),
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        }
    }
}

fn memory_of(meminfo: &str) -> u64 {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = total
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0);
    kib * 1024
}

fn os_image_of(os_release: &str) -> String {
    let name = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches(['"', '\'']).to_owned()
}

/// Go's name of this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Why the node can or cannot take Pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// The kubelet API answers.
    pub serving: bool,
    /// The Pod network has its range.
    pub network: bool,
}

impl Readiness {
    fn condition(self) -> (bool, &'static str, &'static str) {
        match self {
            Readiness { network: false, .. } => (
                false,
                "KubeletNotReady",
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                 message:Network plugin returns error: the node has no Pod address range yet",
            ),
            Readiness { serving: false, .. } => (
                false,
                "KubeletNotReady",
                "the kubelet API does not listen yet",
            ),
            Readiness {
                serving: true,
                network: true,
            } => (true, "KubeletReady", "seaway is posting ready status"),
        }
    }
}

/// The labels of the node.
fn labels(config: &Config) -> BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    for (name, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    labels
}

/// `status` of the node. Pure.
fn status(
    config: &Config,
    machine: &Machine,
    readiness: Readiness,
    old: &NodeStatus,
    now: Timestamp,
) -> NodeStatus {
    let resources: BTreeMap<String, Quantity> = [
        ("cpu", machine.cpus.to_string()),
        ("memory", format!("{}Ki", machine.memory / 1024)),
        ("ephemeral-storage", format!("{}Ki", machine.storage / 1024)),
        ("pods", PODS.to_owned()),
    ]
    .into_iter()
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .collect();
    let address = |type_: &str, address: String| NodeAddress {
        type_: type_.to_owned(),
        address,
    };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", config.node_ip.to_string()),
            address("Hostname", config.node_name.clone()),
        ]),
        allocatable: Some(resources.clone()),
        capacity: Some(resources),
        conditions: Some(conditions(readiness, old, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: i32::from(config.kubelet_port),
            }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: RUNTIME_VERSION.to_owned(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: KUBELET_VERSION.to_owned(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.machine_id.clone(),
            swap: None,
        }),
        ..old.clone()
    }
}

fn conditions(readiness: Readiness, old: &NodeStatus, now: Timestamp) -> Vec<NodeCondition> {
    let (ready, reason, message) = readiness.condition();
    let own = [
        (
            "MemoryPressure",
            false,
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            false,
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            false,
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        ("Ready", ready, reason, message),
    ];
    let before = old.conditions.as_deref().unwrap_or_default();
    let foreign = before
        .iter()
        .filter(|old| !own.iter().any(|(type_, ..)| old.type_ == *type_))
        .cloned();
    let mine = own.iter().map(|(type_, value, reason, message)| {
        let status = if *value { "True" } else { "False" };
        let same = before
            .iter()
            .find(|old| old.type_ == *type_ && old.status == status);
        NodeCondition {
            type_: (*type_).to_owned(),
            status: status.to_owned(),
            reason: Some((*reason).to_owned()),
            message: Some((*message).to_owned()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: same
                .and_then(|old| old.last_transition_time.clone())
                .or(Some(Time(now))),
        }
    });
    foreign.chain(mine).collect()
}

/// Keeps the Node object until `shutdown`. `serving` tells when the kubelet API listens; `network` is told when the
/// node has its range.
pub async fn run(
    client: Client,
    config: Config,
    machine: Machine,
    events: Recorder,
    mut serving: watch::Receiver<bool>,
    network: watch::Sender<bool>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let api: Api<Node> = Api::all(client.clone());
    let only = watcher::Config::default().fields(&format!("metadata.name={}", config.node_name));
    let mut changes = std::pin::pin!(watcher(api.clone(), only).default_backoff());
    let mut timer =
        tokio::time::interval_at(tokio::time::Instant::now() + REPORT_EVERY, REPORT_EVERY);
    let lease = heartbeat(client, config.node_name.clone());
    let mut lease = std::pin::pin!(lease);
    let mut reported: Option<Readiness> = None;
    let mut due = true;
    loop {
        let readiness = Readiness {
            serving: *serving.borrow(),
            network: *network.borrow(),
        };
        if due || reported != Some(readiness) {
            match report(&api, &config, &machine, readiness).await {
                Ok(node) => {
                    let has_range = has_range(&node);
                    tell(&events, &node, reported, readiness);
                    (reported, due) = (Some(readiness), false);
                    if has_range && !readiness.network {
                        network.send_replace(true);
                        continue;
                    }
                }
                Err(error) => {
                    debug!(%error, "cannot report the node; trying again");
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(()),
                        () = tokio::time::sleep(RETRY_EVERY) => continue,
                    }
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = &mut lease => {}
            _ = timer.tick() => due = true,
            changed = serving.changed() => if changed.is_err() { return Ok(()) },
            event = changes.try_next() => match event {
                Ok(Some(watcher::Event::Apply(node) | watcher::Event::InitApply(node))) => {
                    if has_range(&node) {
                        network.send_replace(true);
                    }
                    // Given up by the node controller while we were away: we are still here.
                    let said = reported.map(|readiness| readiness.condition().0);
                    due |= said.is_some_and(|ready| ready != says_ready(&node));
                }
                // Someone deleted it: it comes back, as with the kubelet.
                Ok(Some(watcher::Event::Delete(_))) => due = true,
                Ok(_) => {}
                Err(error) => warn!(%error, "cannot watch our Node; trying again"),
            },
        }
    }
}

fn says_ready(node: &Node) -> bool {
    node.status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
}

fn has_range(node: &Node) -> bool {
    node.spec
        .as_ref()
        .and_then(|spec| spec.pod_cidr.as_deref())
        .is_some_and(|range| !range.is_empty())
}

/// Tells of the node's readiness when it changed.
fn tell(events: &Recorder, node: &Node, before: Option<Readiness>, now: Readiness) {
    let name = node.metadata.name.clone().unwrap_or_default();
    let ready = now.condition().0;
    let reason = match before {
        None => "Starting",
        Some(before) if before.condition().0 == ready => return,
        Some(_) if ready => "NodeReady",
        Some(_) => "NodeNotReady",
    };
    let message = if before.is_none() {
        "Starting kubelet.".to_owned()
    } else {
        format!("Node {name} status is now: {reason}")
    };
    events.record(Occurrence {
        about: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            uid: Some(name.clone()),
            name: Some(name),
            ..ObjectReference::default()
        },
        severity: Severity::Normal,
        reason: reason.to_owned(),
        message,
    });
}

/// Makes the Node if it is not there, and writes its labels and status.
async fn report(
    api: &Api<Node>,
    config: &Config,
    machine: &Machine,
    readiness: Readiness,
) -> Result<Node, kube::Error> {
    let now = Timestamp::now();
    let params = PostParams::default();
    let mut node = match api.get_opt(&config.node_name).await? {
        Some(mut node) => {
            let mut wanted = node.metadata.labels.clone().unwrap_or_default();
            wanted.extend(labels(config));
            if node.metadata.labels.as_ref() != Some(&wanted) {
                node.metadata.labels = Some(wanted);
                node = api.replace(&config.node_name, &params, &node).await?;
            }
            node
        }
        None => {
            let metadata = ObjectMeta {
                name: Some(config.node_name.clone()),
                labels: Some(labels(config)),
                ..ObjectMeta::default()
            };
            let status = status(config, machine, readiness, &NodeStatus::default(), now);
            api.create(
                &params,
                &Node {
                    metadata,
                    spec: None,
                    status: Some(status),
                },
            )
            .await?
        }
    };
    let old = node.status.clone().unwrap_or_default();
    node.status = Some(status(config, machine, readiness, &old, now));
    api.replace_status(&config.node_name, &params, &node).await
}

/// Renews the node's Lease for ever.
async fn heartbeat(client: Client, node: String) {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, LEASE_NAMESPACE);
    loop {
        let pause = match renew(&nodes, &leases, &node).await {
            Ok(()) => RENEW_EVERY,
            Err(error) => {
                debug!(%error, "cannot renew the Lease; trying again");
                RETRY_EVERY * 5
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(nodes: &Api<Node>, leases: &Api<Lease>, node: &str) -> Result<(), kube::Error> {
    let now = Some(MicroTime(Timestamp::now()));
    let params = PostParams::default();
    if let Some(mut lease) = leases.get_opt(node).await? {
        lease.spec.get_or_insert_default().renew_time = now;
        return leases.replace(node, &params, &lease).await.map(drop);
    }
    let owner = nodes
        .get_opt(node)
        .await?
        .and_then(|node| node.metadata.uid);
    let metadata = ObjectMeta {
        name: Some(node.to_owned()),
        namespace: Some(LEASE_NAMESPACE.to_owned()),
        // With the Node its Lease goes.
        owner_references: owner.map(|uid| {
            vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: node.to_owned(),
                uid,
                ..OwnerReference::default()
            }]
        }),
        ..ObjectMeta::default()
    };
    let spec = LeaseSpec {
        holder_identity: Some(node.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: now,
        ..LeaseSpec::default()
    };
    leases
        .create(
            &params,
            &Lease {
                metadata,
                spec: Some(spec),
            },
        )
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready_of(conditions: &[NodeCondition]) -> (&str, Option<&str>, Option<Timestamp>) {
        let ready = conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .unwrap();
        let since = ready.last_transition_time.as_ref().map(|time| time.0);
        (ready.status.as_str(), ready.reason.as_deref(), since)
    }

    #[test]
    fn a_node_is_ready_with_its_api_and_its_range_only() {
        for (serving, network, status) in [
            (false, false, "False"),
            (true, false, "False"),
            (false, true, "False"),
            (true, true, "True"),
        ] {
            let conditions = conditions(
                Readiness { serving, network },
                &NodeStatus::default(),
                at(5),
            );
            assert_eq!(ready_of(&conditions).0, status, "{serving} {network}");
        }
    }

    #[test]
    fn transition_times_stay_while_nothing_changes() {
        let yes = Readiness {
            serving: true,
            network: true,
        };
        let first = conditions(yes, &NodeStatus::default(), at(5));
        let old = NodeStatus {
            conditions: Some(first),
            ..NodeStatus::default()
        };
        assert_eq!(
            ready_of(&conditions(yes, &old, at(9))),
            ("True", Some("KubeletReady"), Some(at(5)))
        );
        let no = Readiness {
            network: false,
            ..yes
        };
        assert_eq!(
            ready_of(&conditions(no, &old, at(9))),
            ("False", Some("KubeletNotReady"), Some(at(9)))
        );
    }

    #[test]
    fn conditions_of_others_stay() {
        let foreign = NodeCondition {
            type_: "NetworkUnavailable".into(),
            status: "False".into(),
            ..NodeCondition::default()
        };
        let old = NodeStatus {
            conditions: Some(vec![foreign.clone()]),
            ..NodeStatus::default()
        };
        let conditions = conditions(
            Readiness {
                serving: true,
                network: true,
            },
            &old,
            at(5),
        );
        assert_eq!(conditions.first(), Some(&foreign));
        assert_eq!(conditions.len(), 5);
    }

    #[test]
    fn the_machine_is_read_from_its_files() {
        assert_eq!(
            memory_of("MemTotal:       24605200 kB\nMemFree: 1 kB\n"),
            24_605_200 * 1024
        );
        assert_eq!(memory_of(""), 0);
        assert_eq!(
            os_image_of("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"),
            "Debian GNU/Linux 13 (trixie)"
        );
        assert_eq!(os_image_of(""), "Linux");
    }
}
