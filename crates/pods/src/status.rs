//! `status` of a Pod, as the kubelet writes it. Pure.
//! Source: "Pod Lifecycle" in the Kubernetes documentation; `getPhase`, `convertToAPIContainerStatuses` and
//! `pkg/kubelet/status/generate.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateWaiting, ContainerStatus, HostIP, Pod,
    PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use seaway_objects::kinds::pod::qos_class;

use crate::history::{Attempt, Histories, ID_PREFIX, Stage, terminated};
use crate::model::{ContainerModel, PodModel, RestartPolicy, Role};
use crate::plan::{Busy, Ending, Verdicts, Waiting};

/// Everything that a status depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The object, for what the model leaves out: readiness gates, resources, conditions of others.
    pub object: &'a Pod,
    /// The Pod.
    pub pod: &'a PodModel,
    /// The status before this one; transition times come from it.
    pub previous: &'a PodStatus,
    /// Its containers.
    pub histories: &'a Histories,
    /// What the probes say.
    pub verdicts: &'a Verdicts,
    /// Containers that wait for a reason of their own.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// What is under way.
    pub busy: &'a Busy,
    /// Whether the sandbox is alive and has its network.
    pub sandbox_ready: bool,
    /// The Pod's address once it has one.
    pub pod_ip: Option<IpAddr>,
    /// The node's address.
    pub node_ip: IpAddr,
    /// Why the Pod ends, if it does.
    pub ending: Option<Ending>,
    /// When the Pod came to this node.
    pub start_time: Timestamp,
    /// The time.
    pub now: Timestamp,
}

/// Makes the status.
pub fn pod_status(facts: &Facts<'_>) -> PodStatus {
    let init: Vec<_> = facts
        .pod
        .containers
        .iter()
        .filter(|c| c.role != Role::App)
        .map(|c| container_status(facts, c))
        .collect();
    let apps: Vec<_> = facts
        .pod
        .of_role(Role::App)
        .map(|c| container_status(facts, c))
        .collect();
    let deadline = matches!(facts.ending, Some(Ending::Deadline));
    let phase = match facts.previous.phase.as_deref() {
        // What is over does not come back.
        Some(over @ ("Succeeded" | "Failed")) => over,
        _ if deadline => "Failed",
        _ => phase(facts, &init, &apps),
    };
    let (reason, message) = if deadline {
        (
            Some("DeadlineExceeded".to_owned()),
            Some("Pod was active on the node longer than the specified deadline".to_owned()),
        )
    } else {
        (
            facts.previous.reason.clone(),
            facts.previous.message.clone(),
        )
    };
    // The last address stays known after the network is given back, as for any finished Pod.
    let pod_ip = facts
        .pod_ip
        .map(|ip| ip.to_string())
        .or_else(|| facts.previous.pod_ip.clone());
    let generation = facts
        .object
        .metadata
        .generation
        .filter(|generation| *generation > 0);
    PodStatus {
        conditions: Some(conditions(facts, phase, &init, &apps, generation)),
        container_statuses: Some(apps),
        init_container_statuses: (!init.is_empty()).then_some(init),
        host_ip: Some(facts.node_ip.to_string()),
        host_ips: Some(vec![HostIP {
            ip: facts.node_ip.to_string(),
        }]),
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        observed_generation: generation,
        phase: Some(phase.to_owned()),
        qos_class: Some(
            facts
                .object
                .spec
                .as_ref()
                .map_or("BestEffort", qos_class)
                .to_owned(),
        ),
        reason,
        message,
        start_time: Some(Time(facts.start_time)),
        ..PodStatus::default()
    }
}

fn container_status(facts: &Facts<'_>, container: &ContainerModel) -> ContainerStatus {
    let default_reason = if facts.pod.containers.iter().any(|c| c.role != Role::App) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let history = facts
        .histories
        .get(&container.name)
        .cloned()
        .unwrap_or_default();
    let newest = history.newest.as_ref();
    let mut state = match newest.map(|attempt| (attempt, &attempt.stage)) {
        None | Some((_, Stage::Creating)) => waiting_state(default_reason, None),
        Some((_, Stage::Running { started_at })) => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(*started_at)),
            }),
            ..ContainerState::default()
        },
        Some((attempt, Stage::Ended(ended))) => ContainerState {
            terminated: Some(terminated(attempt, ended)),
            ..ContainerState::default()
        },
    };
    let mut last_state = history.previous.as_ref().and_then(ended_state);
    let waiting = facts.waiting.get(&container.name);
    // What ended before this sandbox, or waits for its next attempt, is past: the container waits.
    let past = newest.is_some_and(|attempt| {
        attempt.ended().is_some_and(|ended| {
            facts.ending.is_none()
                && !attempt.here
                && (container.restart.restarts(ended.code)
                    || container.role == Role::Init && container.restart != RestartPolicy::Never)
        })
    });
    if let Some(waiting) = waiting {
        last_state = newest.and_then(ended_state).or(last_state);
        state = waiting_state(&waiting.reason, Some(&waiting.message));
    } else if past {
        last_state = newest.and_then(ended_state).or(last_state);
        state = waiting_state(default_reason, None);
    }
    let (started, ready) = readiness(facts, container, newest);
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        image_id: newest
            .map(|attempt| attempt.image_id.clone())
            .unwrap_or_default(),
        container_id: newest
            .map(|attempt| &attempt.id)
            .filter(|id| !id.is_empty())
            .map(|id| format!("{ID_PREFIX}{id}")),
        restart_count: newest.map_or(0, |attempt| {
            i32::try_from(attempt.number).unwrap_or(i32::MAX)
        }),
        // kubectl and clients expect the empty object where there is no last state.
        last_state: Some(last_state.unwrap_or_default()),
        state: Some(state),
        started: Some(started),
        ready,
        ..ContainerStatus::default()
    }
}

fn waiting_state(reason: &str, message: Option<&str>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: message
                .filter(|message| !message.is_empty())
                .map(str::to_owned),
        }),
        ..ContainerState::default()
    }
}

fn ended_state(attempt: &Attempt) -> Option<ContainerState> {
    let ended = attempt.ended()?;
    Some(ContainerState {
        terminated: Some(terminated(attempt, ended)),
        ..ContainerState::default()
    })
}

/// `started` and `ready` of a container.
fn readiness(
    facts: &Facts<'_>,
    container: &ContainerModel,
    newest: Option<&Attempt>,
) -> (bool, bool) {
    let Some(newest) = newest else {
        return (false, false);
    };
    match &newest.stage {
        Stage::Creating => (false, false),
        // An init container that did its work is ready for good.
        Stage::Ended(ended) => (
            false,
            container.role == Role::Init && ended.code == 0 && newest.here,
        ),
        Stage::Running { .. } => {
            if container.role == Role::Init {
                return (true, false);
            }
            let verdict = facts.verdicts.get(&newest.id).copied().unwrap_or_default();
            // Until its post-start hook is done a container has not started.
            let started = !facts.busy.starting.contains(&container.name)
                && (!container.startup_probe || verdict.startup == Some(true));
            let ready = started && (!container.readiness_probe || verdict.readiness == Some(true));
            (started, ready)
        }
    }
}

/// The phase, before what an earlier phase or the deadline makes of it.
fn phase(facts: &Facts<'_>, init: &[ContainerStatus], apps: &[ContainerStatus]) -> &'static str {
    let state = |status: &ContainerStatus| status.state.clone().unwrap_or_default();
    let last = |status: &ContainerStatus| status.last_state.clone().unwrap_or_default().terminated;
    let role = |status: &ContainerStatus| {
        facts
            .pod
            .containers
            .iter()
            .find(|c| c.name == status.name && c.role != Role::App)
            .map(|c| (c.role, c.restart))
    };
    let (mut pending_init, mut failed_init, mut pending_sidecars) = (false, false, false);
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in init {
        let now = state(status);
        match role(status) {
            Some((Role::Sidecar, _)) => {
                if now.running.is_some() {
                    pending_sidecars |= status.started != Some(true);
                    running += 1;
                } else if now.terminated.is_none() && last(status).is_none() {
                    pending_sidecars = true;
                    waiting += 1;
                }
            }
            Some((_, restart)) => {
                let ended = now.terminated.or_else(|| last(status));
                match ended {
                    Some(ended) if now.running.is_none() => {
                        failed_init |= ended.exit_code != 0 && restart == RestartPolicy::Never;
                        // A repeated attempt is still to come.
                        pending_init |= ended.exit_code != 0 && restart != RestartPolicy::Never
                            || now.waiting.is_some();
                    }
                    _ => pending_init = true,
                }
            }
            None => {}
        }
    }
    for status in apps {
        let now = state(status);
        if now.running.is_some() {
            running += 1;
        } else if let Some(ended) = now.terminated {
            stopped += 1;
            succeeded += i32::from(ended.exit_code == 0);
        } else if last(status).is_some() {
            stopped += 1;
        } else {
            waiting += 1;
        }
    }
    if failed_init {
        return "Failed";
    }
    let app_started = apps.iter().any(|status| {
        let now = state(status);
        now.running.is_some() || now.terminated.is_some() || last(status).is_some()
    });
    if !app_started && (pending_init || pending_sidecars) || waiting > 0 {
        return "Pending";
    }
    if running > 0 {
        return "Running";
    }
    if stopped == 0 {
        return "Pending";
    }
    let ended_for_good = facts.ending.is_some() && facts.busy.starting.is_empty();
    if ended_for_good || all_apps_over(facts, apps) {
        return if stopped == succeeded {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    "Running"
}

/// Every app container ended for good.
fn all_apps_over(facts: &Facts<'_>, apps: &[ContainerStatus]) -> bool {
    !apps.is_empty()
        && apps.iter().all(|status| {
            let model = facts
                .pod
                .of_role(Role::App)
                .find(|container| container.name == status.name);
            let ended = status
                .state
                .as_ref()
                .and_then(|state| state.terminated.as_ref());
            match (model, ended) {
                (Some(model), Some(ended)) => !model.restart.restarts(ended.exit_code),
                _ => false,
            }
        })
}

fn conditions(
    facts: &Facts<'_>,
    phase: &str,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
    generation: Option<i64>,
) -> Vec<PodCondition> {
    let containers_ready = containers_ready(facts, phase, init, apps);
    let ready = if containers_ready.status == "True" {
        gates(facts)
    } else {
        containers_ready.clone()
    };
    let own = [
        (
            "PodReadyToStartContainers",
            Truth::plain(facts.sandbox_ready),
        ),
        ("Initialized", initialized(facts, phase, init, apps)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Truth::plain(true)),
    ];
    let before = facts.previous.conditions.as_deref().unwrap_or_default();
    let mut conditions: Vec<_> = own
        .iter()
        .map(|(type_, truth)| {
            let same = before
                .iter()
                .find(|old| old.type_ == *type_ && old.status == truth.status);
            PodCondition {
                type_: (*type_).to_owned(),
                status: truth.status.to_owned(),
                reason: truth.reason.map(str::to_owned),
                message: truth.message.clone(),
                last_probe_time: None,
                last_transition_time: same
                    .and_then(|old| old.last_transition_time.clone())
                    .or(Some(Time(facts.now))),
                observed_generation: generation,
            }
        })
        .collect();
    let foreign = before
        .iter()
        .filter(|old| !own.iter().any(|(type_, _)| old.type_ == *type_));
    conditions.extend(foreign.cloned());
    conditions
}

/// Status, reason and message of a condition.
#[derive(Debug, Clone)]
struct Truth {
    status: &'static str,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Truth {
    fn plain(value: bool) -> Self {
        Truth {
            status: if value { "True" } else { "False" },
            reason: None,
            message: None,
        }
    }

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Truth {
            status: "False",
            reason: Some(reason),
            message,
        }
    }
}

fn initialized(
    facts: &Facts<'_>,
    phase: &str,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
) -> Truth {
    if phase == "Succeeded" {
        return Truth {
            reason: Some("PodCompleted"),
            ..Truth::plain(true)
        };
    }
    let app_started = apps.iter().any(|status| {
        let state = status.state.clone().unwrap_or_default();
        state.running.is_some() || state.terminated.is_some()
    });
    if app_started {
        return Truth::plain(true);
    }
    let sidecar = |name: &str| {
        facts
            .pod
            .of_role(Role::Sidecar)
            .any(|container| container.name == name)
    };
    let incomplete = names(init.iter().filter(|status| {
        if sidecar(&status.name) {
            status.started != Some(true)
        } else {
            !status.ready
        }
    }));
    match incomplete {
        None => Truth::plain(true),
        Some(names) => Truth::no(
            "ContainersNotInitialized",
            Some(format!("containers with incomplete status: {names}")),
        ),
    }
}

fn containers_ready(
    facts: &Facts<'_>,
    phase: &str,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
) -> Truth {
    match phase {
        "Succeeded" => return Truth::no("PodCompleted", None),
        "Failed" => return Truth::no("PodFailed", None),
        _ => {}
    }
    let sidecars = init.iter().filter(|status| {
        facts
            .pod
            .of_role(Role::Sidecar)
            .any(|c| c.name == status.name)
    });
    match names(sidecars.chain(apps).filter(|status| !status.ready)) {
        None => Truth::plain(true),
        Some(names) => Truth::no(
            "ContainersNotReady",
            Some(format!("containers with unready status: {names}")),
        ),
    }
}

fn gates(facts: &Facts<'_>) -> Truth {
    let conditions = facts.previous.conditions.as_deref().unwrap_or_default();
    let gates = facts
        .object
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten());
    let unready: Vec<_> = gates
        .filter_map(|gate| {
            let type_ = &gate.condition_type;
            match conditions
                .iter()
                .find(|condition| condition.type_ == *type_)
            {
                None => Some(format!(
                    "corresponding condition of pod readiness gate {type_:?} does not exist."
                )),
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate {type_:?} is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if unready.is_empty() {
        Truth::plain(true)
    } else {
        Truth::no("ReadinessGatesNotReady", Some(unready.join(", ")))
    }
}

/// `[a b]`, as Go prints a list; `None` for an empty one.
fn names<'a>(statuses: impl Iterator<Item = &'a ContainerStatus>) -> Option<String> {
    let names: Vec<_> = statuses.map(|status| status.name.as_str()).collect();
    (!names.is_empty()).then(|| format!("[{}]", names.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Ended;
    use crate::plan::Verdict;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(code: i32) -> Stage {
        let reason = if code == 0 { "Completed" } else { "Error" };
        Stage::Ended(Ended {
            code,
            signal: None,
            reason: reason.into(),
            message: None,
            started_at: Some(at(1)),
            finished_at: Some(at(2)),
        })
    }

    struct Case {
        object: Pod,
        previous: PodStatus,
        histories: Histories,
        verdicts: Verdicts,
        waiting: BTreeMap<String, Waiting>,
        busy: Busy,
        ending: Option<Ending>,
        sandbox_ready: bool,
    }

    impl Case {
        fn of(spec: Value) -> Self {
            let object = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 2}, "spec": spec});
            Case {
                object: serde_json::from_value(object).unwrap(),
                previous: PodStatus::default(),
                histories: Histories::new(),
                verdicts: Verdicts::new(),
                waiting: BTreeMap::new(),
                busy: Busy::default(),
                ending: None,
                sandbox_ready: true,
            }
        }

        fn plain(policy: &str) -> Self {
            Case::of(
                json!({"restartPolicy": policy, "containers": [{"name": "main", "image": "i"}]}),
            )
        }

        fn with(mut self, name: &str, number: u32, stage: Stage) -> Self {
            let attempt = |number, stage| Attempt {
                id: format!("u/{name}/{number}"),
                number,
                image_id: "sha256:1".into(),
                here: true,
                stage,
            };
            let history = self.histories.entry(name.into()).or_default();
            history.previous = history.newest.take();
            history.newest = Some(attempt(number, stage));
            self
        }

        fn wait(mut self, name: &str, reason: &str) -> Self {
            self.waiting.insert(
                name.into(),
                Waiting {
                    reason: reason.into(),
                    message: "m".into(),
                },
            );
            self
        }

        fn status(&self) -> PodStatus {
            let model = PodModel::try_from(&self.object).unwrap();
            pod_status(&Facts {
                object: &self.object,
                pod: &model,
                previous: &self.previous,
                histories: &self.histories,
                verdicts: &self.verdicts,
                waiting: &self.waiting,
                busy: &self.busy,
                sandbox_ready: self.sandbox_ready,
                pod_ip: self.sandbox_ready.then(|| "10.244.0.5".parse().unwrap()),
                node_ip: "10.87.0.2".parse().unwrap(),
                ending: self.ending,
                start_time: at(0),
                now: at(100),
            })
        }

        fn phase(&self) -> String {
            self.status().phase.unwrap()
        }
    }

    fn running() -> Stage {
        Stage::Running { started_at: at(1) }
    }

    fn conditions(status: &PodStatus) -> Vec<String> {
        let conditions = status.conditions.iter().flatten();
        conditions
            .map(|c| {
                let words = [
                    Some(c.type_.clone()),
                    Some(c.status.clone()),
                    c.reason.clone(),
                    c.message.clone(),
                ];
                words.into_iter().flatten().collect::<Vec<_>>().join(" ")
            })
            .collect()
    }

    #[test]
    fn phases_are_the_kubelets() {
        for (case, phase) in [
            (Case::plain("Always"), "Pending"),
            (
                Case::plain("Always").with("main", 0, Stage::Creating),
                "Pending",
            ),
            (Case::plain("Always").with("main", 0, running()), "Running"),
            (Case::plain("Always").with("main", 0, ended(0)), "Running"),
            (Case::plain("Always").with("main", 0, ended(1)), "Running"),
            (
                Case::plain("Always")
                    .with("main", 0, ended(1))
                    .wait("main", "CrashLoopBackOff"),
                "Running",
            ),
            (
                Case::plain("Always").wait("main", "ErrImagePull"),
                "Pending",
            ),
            (
                Case::plain("OnFailure").with("main", 0, ended(1)),
                "Running",
            ),
            (
                Case::plain("OnFailure").with("main", 0, ended(0)),
                "Succeeded",
            ),
            (Case::plain("Never").with("main", 0, ended(0)), "Succeeded"),
            (Case::plain("Never").with("main", 0, ended(1)), "Failed"),
        ] {
            assert_eq!(case.phase(), phase, "{:?}", case.histories);
        }
    }

    #[test]
    fn several_containers_make_one_phase() {
        let two = |policy: &str| {
            Case::of(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}))
        };
        for (case, phase) in [
            (two("Never").with("a", 0, ended(0)), "Pending"),
            (
                two("Never").with("a", 0, ended(1)).with("b", 0, running()),
                "Running",
            ),
            (
                two("Never").with("a", 0, ended(1)).with("b", 0, ended(0)),
                "Failed",
            ),
            (
                two("Never").with("a", 0, ended(0)).with("b", 0, ended(0)),
                "Succeeded",
            ),
            (
                two("OnFailure")
                    .with("a", 0, ended(1))
                    .with("b", 0, ended(0)),
                "Running",
            ),
        ] {
            assert_eq!(case.phase(), phase, "{:?}", case.histories);
        }
    }

    #[test]
    fn a_terminated_pod_is_succeeded_or_failed_whatever_its_policy() {
        for (code, phase) in [(0, "Succeeded"), (143, "Failed")] {
            let mut case = Case::plain("Always").with("main", 0, ended(code));
            case.ending = Some(Ending::Deleted { grace_seconds: 30 });
            assert_eq!(case.phase(), phase);
        }
        let mut case = Case::plain("Always").with("main", 0, running());
        case.ending = Some(Ending::Deleted { grace_seconds: 30 });
        assert_eq!(case.phase(), "Running");
    }

    #[test]
    fn what_is_over_stays_over() {
        let mut case = Case::plain("Always").with("main", 0, running());
        case.previous.phase = Some("Failed".into());
        assert_eq!(case.phase(), "Failed");
    }

    #[test]
    fn the_deadline_fails_the_pod_and_says_why() {
        let mut case = Case::plain("Always").with("main", 0, running());
        case.ending = Some(Ending::Deadline);
        let status = case.status();
        assert_eq!(
            (status.phase.as_deref(), status.reason.as_deref()),
            (Some("Failed"), Some("DeadlineExceeded"))
        );
    }

    #[test]
    fn a_new_pod_is_not_ready_and_says_what_is_missing() {
        let mut case = Case::plain("Always");
        case.sandbox_ready = false;
        let status = case.status();
        assert_eq!(
            conditions(&status),
            [
                "PodReadyToStartContainers False",
                "Initialized True",
                "Ready False ContainersNotReady containers with unready status: [main]",
                "ContainersReady False ContainersNotReady containers with unready status: [main]",
                "PodScheduled True",
            ]
        );
        let container = &status.container_statuses.as_ref().unwrap()[0];
        let value = serde_json::to_value(container).unwrap();
        assert_eq!(
            value,
            json!({"name": "main", "image": "i", "imageID": "", "ready": false, "started": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ContainerCreating"}}, "lastState": {}})
        );
        assert_eq!(status.host_ip.as_deref(), Some("10.87.0.2"));
        assert_eq!(status.pod_ip, None);
        assert_eq!(status.observed_generation, Some(2));
    }

    #[test]
    fn a_running_pod_is_ready_and_has_its_address() {
        let status = Case::plain("Always").with("main", 0, running()).status();
        assert_eq!(
            conditions(&status),
            [
                "PodReadyToStartContainers True",
                "Initialized True",
                "Ready True",
                "ContainersReady True",
                "PodScheduled True"
            ]
        );
        let container = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!(container.container_id.as_deref(), Some("seaway://u/main/0"));
        assert_eq!((container.ready, container.started), (true, Some(true)));
        assert_eq!(status.pod_ip.as_deref(), Some("10.244.0.5"));
    }

    #[test]
    fn probes_and_hooks_hold_back_readiness() {
        let probed = || {
            let get = json!({"httpGet": {"port": 80}});
            Case::of(json!({"containers": [{"name": "main", "startupProbe": get, "readinessProbe": get}]}))
                .with("main", 0, running())
        };
        let container = |case: &Case| {
            let status = case.status().container_statuses.unwrap().remove(0);
            (status.started.unwrap(), status.ready)
        };
        let mut case = probed();
        assert_eq!(container(&case), (false, false));
        let verdict = |startup, readiness| Verdict {
            startup,
            readiness,
            liveness: None,
        };
        for (startup, readiness, expected) in [
            (Some(true), None, (true, false)),
            (Some(true), Some(false), (true, false)),
            (Some(true), Some(true), (true, true)),
            (None, Some(true), (false, false)),
        ] {
            case.verdicts
                .insert("u/main/0".into(), verdict(startup, readiness));
            assert_eq!(container(&case), expected, "{startup:?} {readiness:?}");
        }
        let mut case = Case::plain("Always").with("main", 0, running());
        case.busy.starting.insert("main".into());
        assert_eq!(container(&case), (false, false));
    }

    #[test]
    fn a_crash_loop_shows_the_wait_and_the_last_end() {
        let status = Case::plain("Always")
            .with("main", 3, ended(7))
            .wait("main", "CrashLoopBackOff")
            .status();
        let container = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!(container.restart_count, 3);
        let state = container.state.clone().unwrap().waiting.unwrap();
        assert_eq!(
            (state.reason.as_deref(), state.message.as_deref()),
            (Some("CrashLoopBackOff"), Some("m"))
        );
        let last = container.last_state.clone().unwrap().terminated.unwrap();
        assert_eq!(
            (last.exit_code, last.container_id.as_deref()),
            (7, Some("seaway://u/main/3"))
        );
    }

    #[test]
    fn a_restarted_container_remembers_its_last_end() {
        let status = Case::plain("Always")
            .with("main", 0, ended(7))
            .with("main", 1, running())
            .status();
        let container = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!(container.restart_count, 1);
        assert_eq!(
            container
                .last_state
                .clone()
                .unwrap()
                .terminated
                .unwrap()
                .exit_code,
            7
        );
        assert!(container.state.clone().unwrap().running.is_some());
    }

    fn with_init(policy: &str) -> Case {
        Case::of(
            json!({"restartPolicy": policy, "initContainers": [{"name": "first"}], "containers": [{"name": "main"}]}),
        )
    }

    #[test]
    fn init_containers_come_first_in_phase_and_conditions() {
        let initialised = |case: &Case| conditions(&case.status()).remove(1);
        let incomplete =
            "Initialized False ContainersNotInitialized containers with incomplete status: [first]";
        for (case, phase, condition) in [
            (with_init("Always"), "Pending", incomplete),
            (
                with_init("Always").with("first", 0, running()),
                "Pending",
                incomplete,
            ),
            (
                with_init("Always").with("first", 0, ended(1)),
                "Pending",
                incomplete,
            ),
            (
                with_init("Never").with("first", 0, ended(1)),
                "Failed",
                incomplete,
            ),
            (
                with_init("Always").with("first", 0, ended(0)),
                "Pending",
                "Initialized True",
            ),
            (
                with_init("Always")
                    .with("first", 0, ended(0))
                    .with("main", 0, running()),
                "Running",
                "Initialized True",
            ),
            (
                with_init("Never")
                    .with("first", 0, ended(0))
                    .with("main", 0, ended(0)),
                "Succeeded",
                "Initialized True PodCompleted",
            ),
        ] {
            assert_eq!(
                (case.phase().as_str(), initialised(&case).as_str()),
                (phase, condition)
            );
        }
        let waiting = with_init("Always")
            .status()
            .container_statuses
            .unwrap()
            .remove(0)
            .state
            .unwrap()
            .waiting;
        assert_eq!(waiting.unwrap().reason.as_deref(), Some("PodInitializing"));
    }

    #[test]
    fn a_running_sidecar_keeps_a_finished_pod_running_until_it_ends() {
        let case = || {
            Case::of(json!({"restartPolicy": "Never", "initContainers": [{"name": "side", "restartPolicy": "Always"}],
                "containers": [{"name": "main"}]}))
            .with("main", 0, ended(0))
        };
        assert_eq!(case().with("side", 0, running()).phase(), "Running");
        assert_eq!(case().with("side", 0, ended(143)).phase(), "Succeeded");
    }

    #[test]
    fn over_pods_are_not_ready_and_say_why() {
        for (policy, code, reason) in [("Never", 0, "PodCompleted"), ("Never", 1, "PodFailed")] {
            let status = Case::plain(policy).with("main", 0, ended(code)).status();
            assert!(
                conditions(&status).contains(&format!("Ready False {reason}")),
                "{:?}",
                conditions(&status)
            );
        }
    }

    #[test]
    fn readiness_gates_wait_for_others() {
        let mut case = Case::of(json!({"readinessGates": [{"conditionType": "example.org/x"}], "containers": [{"name": "main"}]}))
            .with("main", 0, running());
        let gate = |case: &Case| conditions(&case.status()).remove(2);
        assert!(
            gate(&case).ends_with("readiness gate \"example.org/x\" does not exist."),
            "{}",
            gate(&case)
        );
        let condition = PodCondition {
            type_: "example.org/x".into(),
            status: "True".into(),
            ..PodCondition::default()
        };
        case.previous.conditions = Some(vec![condition.clone()]);
        assert_eq!(gate(&case), "Ready True");
        assert_eq!(case.status().conditions.unwrap().pop(), Some(condition));
    }

    #[test]
    fn transition_times_change_only_with_the_status() {
        let mut case = Case::plain("Always").with("main", 0, running());
        case.previous.conditions = Some(vec![
            PodCondition {
                type_: "Ready".into(),
                status: "True".into(),
                last_transition_time: Some(Time(at(7))),
                ..PodCondition::default()
            },
            PodCondition {
                type_: "ContainersReady".into(),
                status: "False".into(),
                last_transition_time: Some(Time(at(7))),
                ..PodCondition::default()
            },
        ]);
        let status = case.status();
        let time = |type_: &str| {
            let condition = status
                .conditions
                .iter()
                .flatten()
                .find(|c| c.type_ == type_)
                .unwrap();
            condition.last_transition_time.as_ref().unwrap().0
        };
        assert_eq!((time("Ready"), time("ContainersReady")), (at(7), at(100)));
    }

    #[test]
    fn after_a_node_restart_containers_wait_and_count_on() {
        let mut case = Case::plain("Always").with("main", 2, running());
        case.histories = crate::history::carried(&case.histories);
        let status = case.status();
        let container = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!(
            container
                .state
                .clone()
                .unwrap()
                .waiting
                .unwrap()
                .reason
                .as_deref(),
            Some("ContainerCreating")
        );
        let last = container.last_state.clone().unwrap().terminated.unwrap();
        assert_eq!(last.reason.as_deref(), Some("ContainerStatusUnknown"));
        assert!(!container.ready);
        assert_eq!(status.phase.as_deref(), Some("Running"));
    }
}
