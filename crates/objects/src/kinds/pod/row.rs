//! A Pod in the table of `kubectl get pods`: above all, the one word that says how it is.
//!
//! Source: `printPod` in `pkg/printers/internalversion`.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStatus, Pod, PodCondition, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use crate::kind::Column;
use crate::table;

pub(super) fn columns() -> Vec<Column> {
    let spec = table::documented::<PodSpec>;
    let status = table::documented::<PodStatus>;
    vec![
        table::name_column(),
        table::column(
            "Ready",
            "string",
            "The aggregate readiness state of this pod for accepting traffic.",
        ),
        table::column(
            "Status",
            "string",
            "The aggregate status of the containers in this pod.",
        ),
        table::column(
            "Restarts",
            "string",
            "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        ),
        table::age_column(),
        table::wide("IP", "string", status("podIP")),
        table::wide("Node", "string", spec("nodeName")),
        table::wide("Nominated Node", "string", status("nominatedNodeName")),
        table::wide("Readiness Gates", "string", spec("readinessGates")),
    ]
}

pub(super) fn cells(pod: &Pod, now: i64) -> Vec<Value> {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let summary = summarize(pod, &spec, &status);
    let restarts = match &summary.last_restart {
        Some(time) if summary.restarts > 0 => {
            format!(
                "{} ({} ago)",
                summary.restarts,
                table::since(Some(time), now)
            )
        }
        _ => summary.restarts.to_string(),
    };
    let first_ip = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| ip.ip.clone())
        .next();
    let ip = first_ip.or(status.pod_ip.clone()).unwrap_or_default();
    vec![
        table::name(&pod.metadata),
        Value::from(format!("{}/{}", summary.ready, summary.containers)),
        Value::from(summary.word),
        Value::from(restarts),
        table::age(&pod.metadata, now),
        Value::from(table::or_none(ip)),
        Value::from(table::or_none(spec.node_name.clone().unwrap_or_default())),
        Value::from(table::or_none(
            status.nominated_node_name.clone().unwrap_or_default(),
        )),
        Value::from(readiness_gates(&spec, &status)),
    ]
}

struct Summary {
    word: String,
    ready: usize,
    containers: usize,
    restarts: i32,
    last_restart: Option<Time>,
}

/// Restarts of some containers, and when the last one was.
#[derive(Default, Clone)]
struct Restarts {
    count: i32,
    last: Option<Time>,
}

impl Restarts {
    fn add(&mut self, status: &ContainerStatus) {
        self.count += status.restart_count;
        let ended = status
            .last_state
            .as_ref()
            .and_then(|s| s.terminated.as_ref())
            .and_then(|t| t.finished_at.clone());
        self.last = self.last.take().max(ended);
    }
}

fn summarize(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> Summary {
    let phase = status.phase.clone().unwrap_or_default();
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let mut word = match status.reason.as_deref() {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        _ => phase.clone(),
    };
    if conditions
        .iter()
        .any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated"))
    {
        "SchedulingGated".clone_into(&mut word);
    }
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let mut containers = spec.containers.len() + init.iter().filter(|c| is_sidecar(c)).count();
    if containers == 0 {
        containers = status.container_statuses.as_ref().map_or(0, Vec::len);
    }
    let mut ready = 0;
    let mut restarts = Restarts::default();
    let mut sidecar_restarts = Restarts::default();
    let mut initializing = false;
    for (i, state) in status.init_container_statuses.iter().flatten().enumerate() {
        let sidecar = init.iter().any(|c| c.name == state.name && is_sidecar(c));
        restarts.add(state);
        if sidecar {
            sidecar_restarts.add(state);
        }
        match init_word(state, sidecar, i, init.len()) {
            None => ready += usize::from(sidecar && state.ready),
            Some(now) => {
                word = now;
                initializing = true;
                break;
            }
        }
    }
    if !initializing || is_true(conditions, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        for state in status.container_statuses.iter().flatten().rev() {
            restarts.add(state);
            match container_word(state) {
                Some(now) => word = now,
                None if state.ready && is_running(state) => {
                    running = true;
                    ready += 1;
                }
                None => {}
            }
        }
        if word == "Completed" && running {
            let now = if is_true(conditions, "Ready") {
                "Running"
            } else {
                "NotReady"
            };
            now.clone_into(&mut word);
        }
    }
    if pod.metadata.deletion_timestamp.is_some() {
        if status.reason.as_deref() == Some("NodeLost") {
            "Unknown".clone_into(&mut word);
        } else if !matches!(phase.as_str(), "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut word);
        }
    }
    Summary {
        word,
        ready,
        containers,
        restarts: restarts.count,
        last_restart: restarts.last,
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn is_true(conditions: &[PodCondition], kind: &str) -> bool {
    conditions
        .iter()
        .any(|c| c.type_ == kind && c.status == "True")
}

/// What an init container that is not done makes of the Pod; `None` when it holds up nothing.
fn init_word(
    status: &ContainerStatus,
    sidecar: bool,
    index: usize,
    count: usize,
) -> Option<String> {
    let state = status.state.clone().unwrap_or_default();
    match state {
        ContainerState {
            terminated: Some(ended),
            ..
        } if ended.exit_code == 0 => None,
        _ if sidecar && status.started == Some(true) => None,
        ContainerState {
            terminated: Some(ended),
            ..
        } => Some(match ended.reason.as_deref() {
            Some(reason) if !reason.is_empty() => format!("Init:{reason}"),
            _ => match ended.signal.unwrap_or(0) {
                0 => format!("Init:ExitCode:{}", ended.exit_code),
                signal => format!("Init:Signal:{signal}"),
            },
        }),
        ContainerState {
            waiting: Some(waiting),
            ..
        } if !matches!(
            waiting.reason.as_deref(),
            None | Some("" | "PodInitializing")
        ) =>
        {
            waiting.reason.map(|reason| format!("Init:{reason}"))
        }
        _ => Some(format!("Init:{index}/{count}")),
    }
}

/// What a container that waits or has ended makes of the Pod.
fn container_word(status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    if let Some(reason) = state
        .waiting
        .as_ref()
        .and_then(|w| w.reason.clone())
        .filter(|r| !r.is_empty())
    {
        return Some(reason);
    }
    let ended = state.terminated.as_ref()?;
    Some(match ended.reason.as_deref() {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        _ => match ended.signal.unwrap_or(0) {
            0 => format!("ExitCode:{}", ended.exit_code),
            signal => format!("Signal:{signal}"),
        },
    })
}

fn readiness_gates(spec: &PodSpec, status: &PodStatus) -> String {
    let gates = spec.readiness_gates.as_deref().unwrap_or_default();
    if gates.is_empty() {
        return table::NONE.to_owned();
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let open = gates
        .iter()
        .filter(|g| is_true(conditions, &g.condition_type))
        .count();
    format!("{open}/{}", gates.len())
}
