//! What is known of each container's attempts: from the runtime while it has them, and from the Pod's status where
//! the runtime forgot (the node restarted) or was told to (a new sandbox). Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::runtime::{Container, ContainerPhase};

/// How container ids begin in the API.
pub const ID_PREFIX: &str = "seaway://";

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; 128 + n for signal n.
    pub code: i32,
    /// The signal.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`
    pub reason: String,
    /// The termination message, or why it could not start.
    pub message: Option<String>,
    /// `None` when it never ran or nobody knows.
    pub started_at: Option<Timestamp>,
    /// `None` when nobody knows.
    pub finished_at: Option<Timestamp>,
}

/// Where an attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Being made.
    Creating,
    /// Runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Ended.
    Ended(Ended),
}

/// One attempt to run a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// `<pod uid>/<name>/<number>`
    pub id: String,
    /// Counts restarts, from 0.
    pub number: u32,
    /// Digest of its image.
    pub image_id: String,
    /// It belongs to the sandbox that the Pod has now; others count for restarts only.
    pub here: bool,
    /// Where it is.
    pub stage: Stage,
}

impl Attempt {
    /// Whether it may still have a process.
    pub fn alive(&self) -> bool {
        self.here && !matches!(self.stage, Stage::Ended(_))
    }

    /// How it ended.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.stage {
            Stage::Ended(ended) => Some(ended),
            _ => None,
        }
    }
}

/// The last two attempts of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The newest attempt.
    pub newest: Option<Attempt>,
    /// How the one before ended.
    pub previous: Option<Attempt>,
    /// Ids of still older attempts that the runtime has.
    pub older: Vec<String>,
}

/// By container name.
pub type Histories = BTreeMap<String, History>;

/// What an earlier life of the Pod's containers left in its status: containers that ran then are gone, and
/// nobody saw how they ended.
pub fn from_status(status: &PodStatus) -> Histories {
    let all = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    all.map(|status| (status.name.clone(), history_of(status)))
        .collect()
}

fn history_of(status: &ContainerStatus) -> History {
    let number = u32::try_from(status.restart_count).unwrap_or(0);
    let attempt = |id: &str, number, ended| Attempt {
        id: id.strip_prefix(ID_PREFIX).unwrap_or(id).to_owned(),
        number,
        image_id: status.image_id.clone(),
        here: false,
        stage: Stage::Ended(ended),
    };
    let id = status.container_id.as_deref().unwrap_or("");
    let last = status
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let last_attempt = |number| {
        last.map(|last| {
            attempt(
                last.container_id.as_deref().unwrap_or(""),
                number,
                ended_of(last),
            )
        })
    };
    match &status.state {
        Some(ContainerState {
            terminated: Some(terminated),
            ..
        }) => History {
            newest: Some(attempt(id, number, ended_of(terminated))),
            previous: last_attempt(number.saturating_sub(1)),
            older: Vec::new(),
        },
        Some(ContainerState {
            running: Some(running),
            ..
        }) => History {
            newest: Some(attempt(
                id,
                number,
                lost(running.started_at.as_ref().map(|time| time.0)),
            )),
            previous: last_attempt(number.saturating_sub(1)),
            older: Vec::new(),
        },
        // It waits for its next attempt; the last is all there is.
        _ => History {
            newest: last_attempt(number),
            ..History::default()
        },
    }
}

/// The end of a container that nobody saw.
pub fn lost(started_at: Option<Timestamp>) -> Ended {
    Ended {
        code: 137,
        signal: None,
        reason: "ContainerStatusUnknown".to_owned(),
        message: Some(
            "The container could not be located when the node came back. It used to be Running"
                .to_owned(),
        ),
        started_at,
        finished_at: None,
    }
}

fn ended_of(terminated: &ContainerStateTerminated) -> Ended {
    Ended {
        code: terminated.exit_code,
        signal: terminated.signal.filter(|signal| *signal != 0),
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone(),
        started_at: terminated.started_at.as_ref().map(|time| time.0),
        finished_at: terminated.finished_at.as_ref().map(|time| time.0),
    }
}

/// The API's form of an end.
pub fn terminated(attempt: &Attempt, ended: &Ended) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: (!attempt.id.is_empty()).then(|| format!("{ID_PREFIX}{}", attempt.id)),
        exit_code: ended.code,
        finished_at: ended.finished_at.map(Time),
        message: ended.message.clone(),
        reason: Some(ended.reason.clone()).filter(|reason| !reason.is_empty()),
        signal: ended.signal,
        started_at: ended.started_at.map(Time),
    }
}

/// Puts together what was `carried` from before and what the runtime has now. `messages` are the termination
/// messages by container id.
pub fn histories(
    carried: &Histories,
    containers: &[Container],
    messages: &BTreeMap<String, String>,
) -> Histories {
    let mut result = carried.clone();
    let mut by_age: Vec<_> = containers.iter().collect();
    by_age.sort_by_key(|container| container.spec.attempt);
    for container in by_age {
        let history = result.entry(container.spec.name.clone()).or_default();
        let newer = history.newest.as_ref().is_none_or(|newest| {
            // An attempt that is also in the status is better known by the runtime.
            !newest.here || newest.number < container.spec.attempt
        });
        if newer {
            let before = history
                .newest
                .take()
                .filter(|before| before.number < container.spec.attempt);
            if before.is_some() {
                history.older.extend(
                    history
                        .previous
                        .take()
                        .filter(|previous| previous.here)
                        .map(|old| old.id),
                );
            }
            history.previous = before.or(history.previous.take());
            history.newest = Some(attempt_of(container, messages.get(&container.id)));
        }
    }
    result
}

/// The histories of containers that are about to be removed: what they were stays known.
pub fn carried(histories: &Histories) -> Histories {
    let mut result = histories.clone();
    for history in result.values_mut() {
        history.older.clear();
        for attempt in [&mut history.newest, &mut history.previous]
            .into_iter()
            .flatten()
        {
            attempt.here = false;
            match attempt.stage {
                Stage::Ended(_) => {}
                Stage::Running { started_at } => {
                    attempt.stage = Stage::Ended(lost(Some(started_at)))
                }
                Stage::Creating => attempt.stage = Stage::Ended(lost(None)),
            }
        }
    }
    result
}

fn attempt_of(container: &Container, message: Option<&String>) -> Attempt {
    let time = |second: i64| Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    let stage = match &container.phase {
        ContainerPhase::Creating => Stage::Creating,
        ContainerPhase::Running { started_at, .. } => Stage::Running {
            started_at: time(*started_at),
        },
        ContainerPhase::Exited {
            code,
            signal,
            oom_killed,
            started_at,
            finished_at,
            message: failure,
        } => {
            let reason = match (oom_killed, started_at, code) {
                (true, _, _) => "OOMKilled",
                (false, None, _) => "StartError",
                (false, Some(_), 0) => "Completed",
                (false, Some(_), _) => "Error",
            };
            Stage::Ended(Ended {
                code: *code,
                signal: *signal,
                reason: reason.to_owned(),
                message: failure
                    .clone()
                    .or_else(|| message.filter(|message| !message.is_empty()).cloned()),
                started_at: started_at.map(time),
                finished_at: Some(time(*finished_at)),
            })
        }
    };
    Attempt {
        id: container.id.clone(),
        number: container.spec.attempt,
        image_id: container.spec.image_id.clone(),
        here: true,
        stage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ContainerSpec;
    use serde_json::{Value, json};

    fn status(container: Value) -> PodStatus {
        let mut container = container;
        for (key, value) in [
            ("name", json!("main")),
            ("image", json!("i")),
            ("imageID", json!("sha256:1")),
        ] {
            container[key] = value;
        }
        container["ready"] = json!(false);
        serde_json::from_value(json!({"containerStatuses": [container]})).unwrap()
    }

    fn container(attempt: u32, phase: ContainerPhase) -> Container {
        let spec = ContainerSpec {
            pod_uid: "u".into(),
            name: "main".into(),
            attempt,
            image_id: "sha256:1".into(),
            ..ContainerSpec::default()
        };
        Container {
            id: format!("u/main/{attempt}"),
            spec,
            phase,
        }
    }

    fn exited(code: i32) -> ContainerPhase {
        ContainerPhase::Exited {
            code,
            signal: None,
            oom_killed: false,
            started_at: Some(1),
            finished_at: 2,
            message: None,
        }
    }

    #[test]
    fn a_container_that_ran_before_the_node_went_down_ended_unseen() {
        let running = json!({"restartCount": 2, "containerID": "seaway://u/main/2",
            "state": {"running": {"startedAt": "2026-11-21T10:00:00Z"}}});
        let histories = from_status(&status(running));
        let newest = histories["main"].newest.as_ref().unwrap();
        assert_eq!(
            (newest.number, newest.here, newest.alive()),
            (2, false, false)
        );
        assert_eq!(newest.id, "u/main/2");
        assert_eq!(newest.ended().unwrap().reason, "ContainerStatusUnknown");
    }

    #[test]
    fn a_container_that_waited_is_known_by_its_last_end() {
        let waiting = json!({"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 7, "reason": "Error"}}});
        let history = &from_status(&status(waiting))["main"];
        assert_eq!(history.newest.as_ref().unwrap().number, 3);
        assert_eq!(history.newest.as_ref().unwrap().ended().unwrap().code, 7);
        assert_eq!(
            from_status(&status(
                json!({"restartCount": 0, "state": {"waiting": {}}})
            ))["main"]
                .newest,
            None
        );
    }

    #[test]
    fn the_runtime_knows_better_than_the_status() {
        let running = json!({"restartCount": 1, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 7, "reason": "Error"}}});
        let carried = from_status(&status(running));
        let phase = ContainerPhase::Running {
            pid: 5,
            started_at: 100,
        };
        let merged = &histories(&carried, &[container(1, phase)], &BTreeMap::new())["main"];
        assert!(merged.newest.as_ref().unwrap().alive());
        assert_eq!(merged.previous.as_ref().unwrap().ended().unwrap().code, 7);
    }

    #[test]
    fn reasons_say_how_it_ended() {
        let never_started = ContainerPhase::Exited {
            code: 128,
            signal: None,
            oom_killed: false,
            started_at: None,
            finished_at: 2,
            message: Some("no such file".into()),
        };
        let killed = ContainerPhase::Exited {
            code: 137,
            signal: Some(9),
            oom_killed: true,
            started_at: Some(1),
            finished_at: 2,
            message: None,
        };
        for (phase, reason) in [
            (exited(0), "Completed"),
            (exited(3), "Error"),
            (never_started, "StartError"),
            (killed, "OOMKilled"),
        ] {
            let merged = histories(&Histories::new(), &[container(0, phase)], &BTreeMap::new());
            assert_eq!(
                merged["main"]
                    .newest
                    .as_ref()
                    .unwrap()
                    .ended()
                    .unwrap()
                    .reason,
                reason
            );
        }
    }

    #[test]
    fn a_third_attempt_makes_the_first_old() {
        let containers = [
            container(0, exited(1)),
            container(1, exited(2)),
            container(2, exited(3)),
        ];
        let merged = &histories(&Histories::new(), &containers, &BTreeMap::new())["main"];
        assert_eq!(merged.older, ["u/main/0"]);
        assert_eq!(merged.previous.as_ref().unwrap().ended().unwrap().code, 2);
    }

    #[test]
    fn two_attempts_are_newest_and_previous_in_any_order() {
        let running = ContainerPhase::Running {
            pid: 5,
            started_at: 100,
        };
        let merged = histories(
            &Histories::new(),
            &[container(1, running), container(0, exited(3))],
            &BTreeMap::new(),
        );
        assert_eq!(merged["main"].newest.as_ref().unwrap().number, 1);
        assert_eq!(
            merged["main"]
                .previous
                .as_ref()
                .unwrap()
                .ended()
                .unwrap()
                .code,
            3
        );
    }
}
