//! What to do next for one Pod. Pure: a function of the Pod, of what became of its containers so far, of probes
//! and back-offs, and of the time. Source: the kubelet's `computePodActions` and `doBackOff`, KEP-753 (sidecars).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::backoff::{BackOff, go_seconds};
use crate::history::{Ended, Histories, Stage};
use crate::model::{ContainerModel, PodModel, RestartPolicy, Role};

/// How long a failed pull is shown as `ErrImagePull` before it becomes `ImagePullBackOff`.
const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(2);

/// Sidecars get at least this long to end, however little of the Pod's grace is left.
const LEAST_SIDECAR_GRACE: i64 = 2;

/// What probes say of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// `None` before the first verdict.
    pub startup: Option<bool>,
    /// `None` before the first verdict.
    pub readiness: Option<bool>,
    /// `None` before the first verdict.
    pub liveness: Option<bool>,
}

/// By container id, so that no verdict outlives its container.
pub type Verdicts = BTreeMap<String, Verdict>;

/// Something that did not work and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `ErrImagePull`, `CreateContainerConfigError`…
    pub reason: String,
    /// What went wrong.
    pub message: String,
    /// When.
    pub since: Timestamp,
    /// When it is tried again.
    pub retry_at: Timestamp,
}

impl Failure {
    fn is_pull(&self) -> bool {
        self.reason == "ErrImagePull"
    }
}

/// The sandbox, as the plan needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxView {
    /// There is none that is alive.
    Gone,
    /// Alive, but this agent has not made sure of its network and files.
    Alive,
    /// Alive, with its address and its files.
    Ready,
}

/// What the worker remembers between two plans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Restart delays by container name.
    pub restarts: BTreeMap<String, BackOff>,
    /// Why a container could not be started, by name.
    pub failures: BTreeMap<String, Failure>,
    /// Why the sandbox could not be made ready.
    pub sandbox_failure: Option<Failure>,
    /// Ids of containers that were ended because a probe failed: they restart even if they end well.
    pub condemned: BTreeSet<String>,
    /// When the Pod began to end.
    pub ending_since: Option<Timestamp>,
    /// The network is given back.
    pub released: bool,
    /// Nothing of the Pod is left on the node.
    pub destroyed: bool,
}

/// What is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Busy {
    /// The sandbox is being made or removed.
    pub sandbox: bool,
    /// Names of containers being started (pull, create, post-start hook).
    pub starting: BTreeSet<String>,
    /// Ids of containers being stopped → when they are killed.
    pub stopping: BTreeMap<String, Timestamp>,
    /// Ids of containers being removed.
    pub removing: BTreeSet<String>,
    /// The Pod is being deleted from the API.
    pub deleting: bool,
}

impl Busy {
    fn quiet(&self) -> bool {
        !self.sandbox
            && self.starting.is_empty()
            && self.stopping.is_empty()
            && self.removing.is_empty()
    }
}

/// Why a Pod ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was deleted; the object waits for us.
    Deleted {
        /// Seconds that its containers have.
        grace_seconds: i64,
    },
    /// The object is gone already.
    Gone,
    /// All its work is done, or has failed for good.
    Finished,
    /// It ran longer than `activeDeadlineSeconds`.
    Deadline,
}

/// Everything that a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// The Pod.
    pub pod: &'a PodModel,
    /// The object does not exist any more.
    pub gone: bool,
    /// Its status says `Succeeded` or `Failed`.
    pub finished: bool,
    /// Its sandbox.
    pub sandbox: SandboxView,
    /// Its containers.
    pub histories: &'a Histories,
    /// What the probes say.
    pub verdicts: &'a Verdicts,
    /// What the worker remembers.
    pub memory: &'a Memory,
    /// What it is doing.
    pub busy: &'a Busy,
    /// Since when the Pod is on this node.
    pub start_time: Timestamp,
    /// The time.
    pub now: Timestamp,
}

/// Why a container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The Pod ends.
    PodEnds,
    /// Its liveness probe failed.
    Liveness,
    /// Its startup probe failed.
    Startup,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the sandbox if there is none, its network and its files.
    Prepare,
    /// The sandbox died: remove the containers that were in it.
    Reset,
    /// Start a container: pull its image, make it, run its post-start hook.
    Start {
        /// Its name.
        name: String,
        /// The number of this attempt.
        attempt: u32,
        /// The delay to keep from now on, if this is a restart.
        back_off: Option<BackOff>,
    },
    /// Stop a container.
    Stop {
        /// Its name.
        name: String,
        /// Its id.
        id: String,
        /// Seconds it gets, its pre-stop hook included.
        grace_seconds: i64,
        /// Why.
        reason: StopReason,
        /// Whether it is started again afterwards.
        restarts: bool,
    },
    /// Forget an old attempt.
    Remove {
        /// Its id.
        id: String,
    },
    /// Give the network back; logs and exit codes stay.
    Release,
    /// Remove all that the Pod has on this node.
    Destroy,
    /// Delete the object.
    Delete,
}

/// Why a container does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// `CrashLoopBackOff`, `ImagePullBackOff`…
    pub reason: String,
    /// In words.
    pub message: String,
}

/// What to do, what to say, and when to think again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To do now, all at once.
    pub actions: Vec<Action>,
    /// For the status: containers that wait for a reason of their own.
    pub waiting: BTreeMap<String, Waiting>,
    /// The next time at which the plan changes by itself.
    pub wake_at: Option<Timestamp>,
    /// The Pod ends.
    pub ending: Option<Ending>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Makes the plan.
pub fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let mut plan = Plan {
        ending: ending(snapshot),
        ..Plan::default()
    };
    match plan.ending {
        Some(ending) => end(snapshot, ending, &mut plan),
        None => run(snapshot, &mut plan),
    }
    plan
}

fn ending(snapshot: &Snapshot<'_>) -> Option<Ending> {
    if snapshot.gone {
        return Some(Ending::Gone);
    }
    if let Some(deletion) = snapshot.pod.deletion {
        return Some(Ending::Deleted {
            grace_seconds: deletion.grace_seconds,
        });
    }
    if snapshot.finished || over(snapshot) {
        return Some(Ending::Finished);
    }
    let deadline = deadline(snapshot)?;
    (deadline <= snapshot.now).then_some(Ending::Deadline)
}

fn deadline(snapshot: &Snapshot<'_>) -> Option<Timestamp> {
    let seconds = snapshot.pod.active_deadline_seconds?;
    snapshot
        .start_time
        .checked_add(SignedDuration::from_secs(seconds))
        .ok()
}

/// Stops the app containers, then the sidecars from the last to the first, then takes everything away.
fn end(snapshot: &Snapshot<'_>, ending: Ending, plan: &mut Plan) {
    // A container that is just being started is let be: the start is cancelled, or done in a moment.
    let alive = |role| {
        let containers = snapshot.pod.of_role(role);
        containers.filter_map(|container| {
            let newest = snapshot.histories.get(&container.name)?.newest.as_ref()?;
            let settled = !snapshot.busy.starting.contains(&container.name);
            (newest.alive() && settled).then_some((container, newest))
        })
    };
    let mut targets: Vec<_> = alive(Role::App).chain(alive(Role::Init)).collect();
    let sidecar = targets.is_empty() && snapshot.busy.starting.is_empty();
    if sidecar {
        targets.extend(alive(Role::Sidecar).next_back());
    }
    let since = snapshot.memory.ending_since.unwrap_or(snapshot.now);
    let whole = match ending {
        // The kernel is never asked to do without any grace: the API object may go at once, the process gets a second.
        Ending::Deleted { grace_seconds } => grace_seconds.max(1),
        Ending::Gone => snapshot
            .pod
            .deletion
            .map_or(1, |deletion| deletion.grace_seconds.max(1)),
        Ending::Finished | Ending::Deadline => snapshot.pod.grace_seconds,
    };
    let used = snapshot.now.duration_since(since).as_secs().max(0);
    let grace_seconds = (whole - used).max(if sidecar {
        LEAST_SIDECAR_GRACE.min(whole)
    } else {
        0
    });
    let kill_at = snapshot
        .now
        .checked_add(SignedDuration::from_secs(grace_seconds))
        .unwrap_or(snapshot.now);
    for (container, attempt) in &targets {
        // A stop that is under way is hurried when the grace was shortened since, by more than its rounding.
        let under_way = snapshot.busy.stopping.get(&attempt.id);
        if under_way.is_some_and(|at| *at <= kill_at + SignedDuration::from_secs(1)) {
            continue;
        }
        plan.actions.push(Action::Stop {
            name: container.name.clone(),
            id: attempt.id.clone(),
            grace_seconds,
            reason: StopReason::PodEnds,
            restarts: false,
        });
    }
    if !targets.is_empty() || !snapshot.busy.quiet() {
        return;
    }
    let memory = snapshot.memory;
    match ending {
        Ending::Deleted { .. } | Ending::Gone if !memory.destroyed => {
            plan.actions.push(Action::Destroy)
        }
        Ending::Deleted { .. } if !snapshot.busy.deleting => plan.actions.push(Action::Delete),
        Ending::Finished if !memory.released => plan.actions.push(Action::Release),
        _ => {}
    }
}

fn run(snapshot: &Snapshot<'_>, plan: &mut Plan) {
    if let Some(deadline) = deadline(snapshot) {
        plan.wake(deadline);
    }
    remove_old_attempts(snapshot, plan);
    if snapshot.sandbox != SandboxView::Ready {
        prepare(snapshot, plan);
        // Containers that run already (the agent is new) go on, but none is started before its files are there.
        return;
    }
    if !initialised(snapshot) {
        for container in snapshot
            .pod
            .containers
            .iter()
            .filter(|container| container.role != Role::App)
        {
            if !advance(snapshot, container, plan) {
                return;
            }
        }
    } else {
        for sidecar in snapshot.pod.of_role(Role::Sidecar) {
            advance(snapshot, sidecar, plan);
        }
    }
    for app in snapshot.pod.of_role(Role::App) {
        advance(snapshot, app, plan);
    }
}

/// Whether there is nothing left that may run: what the Pod is for is done, or has failed for good.
fn over(snapshot: &Snapshot<'_>) -> bool {
    let ended = |container: &ContainerModel| {
        let newest = snapshot.histories.get(&container.name)?.newest.as_ref()?;
        newest.ended()
    };
    let done = |container: &ContainerModel| {
        ended(container).is_some_and(|ended| {
            !container.restart.restarts(ended.code) && !restarts_as_condemned(snapshot, container)
        })
    };
    let failed = |container: &ContainerModel| {
        ended(container).is_some_and(|ended| ended.code != 0) && done(container)
    };
    snapshot.pod.of_role(Role::Init).any(failed) || snapshot.pod.of_role(Role::App).all(done)
}

/// Init containers are behind us as soon as one app container was made in this sandbox.
fn initialised(snapshot: &Snapshot<'_>) -> bool {
    snapshot.pod.of_role(Role::App).any(|container| {
        let newest = snapshot
            .histories
            .get(&container.name)
            .and_then(|history| history.newest.as_ref());
        newest.is_some_and(|newest| newest.here)
    })
}

fn prepare(snapshot: &Snapshot<'_>, plan: &mut Plan) {
    if snapshot.busy.sandbox {
        return;
    }
    let orphans = snapshot.histories.values().any(|history| {
        [&history.newest, &history.previous]
            .into_iter()
            .flatten()
            .any(|attempt| attempt.here)
    });
    if snapshot.sandbox == SandboxView::Gone && orphans {
        if snapshot.busy.quiet() {
            plan.actions.push(Action::Reset);
        }
        return;
    }
    match &snapshot.memory.sandbox_failure {
        Some(failure) if failure.retry_at > snapshot.now => plan.wake(failure.retry_at),
        _ => plan.actions.push(Action::Prepare),
    }
}

/// Does what one container needs next; whether the next init container may come after it.
fn advance(snapshot: &Snapshot<'_>, container: &ContainerModel, plan: &mut Plan) -> bool {
    if snapshot.busy.starting.contains(&container.name) {
        return false;
    }
    let newest = snapshot
        .histories
        .get(&container.name)
        .and_then(|history| history.newest.as_ref());
    let Some(newest) = newest else {
        start(snapshot, container, 0, None, plan);
        return false;
    };
    match &newest.stage {
        Stage::Creating => false,
        Stage::Running { .. } => {
            let verdict = snapshot
                .verdicts
                .get(&newest.id)
                .copied()
                .unwrap_or_default();
            let stop = match (verdict.startup, verdict.liveness) {
                (Some(false), _) => Some((StopReason::Startup, container.startup_grace)),
                (_, Some(false)) => Some((StopReason::Liveness, container.liveness_grace)),
                _ => None,
            };
            if let Some((reason, grace)) = stop
                && !snapshot.busy.stopping.contains_key(&newest.id)
            {
                plan.actions.push(Action::Stop {
                    name: container.name.clone(),
                    id: newest.id.clone(),
                    grace_seconds: grace.unwrap_or(snapshot.pod.grace_seconds),
                    reason,
                    restarts: container.restart != RestartPolicy::Never,
                });
            }
            // A sidecar holds up those after it until it has started; an init container until it has ended.
            container.role == Role::Sidecar
                && (!container.startup_probe || verdict.startup == Some(true))
        }
        Stage::Ended(ended) => {
            // What ended in a sandbox that is gone did so for reasons of its own only if it may not run again.
            let again = container.restart.restarts(ended.code)
                || (!newest.here && container.role == Role::Init)
                || restarts_as_condemned(snapshot, container);
            if again {
                start(
                    snapshot,
                    container,
                    newest.number.saturating_add(1),
                    Some(ended),
                    plan,
                );
                return false;
            }
            container.role == Role::Init && ended.code == 0
        }
    }
}

fn restarts_as_condemned(snapshot: &Snapshot<'_>, container: &ContainerModel) -> bool {
    let newest = snapshot
        .histories
        .get(&container.name)
        .and_then(|history| history.newest.as_ref());
    container.restart != RestartPolicy::Never
        && newest.is_some_and(|newest| snapshot.memory.condemned.contains(&newest.id))
}

/// Starts a container, or says why not yet.
fn start(
    snapshot: &Snapshot<'_>,
    container: &ContainerModel,
    attempt: u32,
    after: Option<&Ended>,
    plan: &mut Plan,
) {
    let now = snapshot.now;
    let name = &container.name;
    if let Some(failure) = snapshot.memory.failures.get(name)
        && failure.retry_at > now
    {
        let backing_off = failure.since.checked_add(PULL_ERROR_SHOWN).unwrap_or(now);
        let waiting = if failure.is_pull() && backing_off <= now {
            Waiting {
                reason: "ImagePullBackOff".to_owned(),
                message: format!(
                    "Back-off pulling image {:?}: ErrImagePull: {}",
                    container.image, failure.message
                ),
            }
        } else {
            if failure.is_pull() {
                plan.wake(backing_off);
            }
            Waiting {
                reason: failure.reason.clone(),
                message: failure.message.clone(),
            }
        };
        plan.waiting.insert(name.clone(), waiting);
        plan.wake(failure.retry_at);
        return;
    }
    let mut back_off = None;
    if let Some(ended) = after {
        let entry = snapshot.memory.restarts.get(name).copied();
        let failed_at = ended.finished_at.unwrap_or(now);
        if let Some(at) = BackOff::restart_at(entry, failed_at, now) {
            let delay = entry.map(|entry| entry.delay).unwrap_or_default();
            plan.waiting.insert(
                name.clone(),
                Waiting {
                    reason: "CrashLoopBackOff".to_owned(),
                    message: format!(
                        "back-off {} restarting failed container={name} pod={}",
                        go_seconds(delay),
                        snapshot.pod.display()
                    ),
                },
            );
            plan.wake(at);
            return;
        }
        back_off = Some(BackOff::next(entry, failed_at, now));
    }
    plan.actions.push(Action::Start {
        name: name.clone(),
        attempt,
        back_off,
    });
}

/// Keeps the newest attempt and the one before, whose log `kubectl logs --previous` shows.
fn remove_old_attempts(snapshot: &Snapshot<'_>, plan: &mut Plan) {
    let old = snapshot
        .histories
        .values()
        .flat_map(|history| &history.older);
    for id in old.filter(|id| !snapshot.busy.removing.contains(*id)) {
        plan.actions.push(Action::Remove { id: id.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::FIRST_DELAY;
    use crate::history::{Attempt, History};
    use crate::model::Deletion;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn container(name: &str, role: Role, restart: RestartPolicy) -> ContainerModel {
        ContainerModel {
            name: name.into(),
            role,
            image: format!("{name}:1"),
            restart,
            startup_probe: false,
            readiness_probe: false,
            liveness_grace: None,
            startup_grace: None,
        }
    }

    fn pod(restart: RestartPolicy, containers: Vec<ContainerModel>) -> PodModel {
        PodModel {
            uid: "u".into(),
            namespace: "ns".into(),
            name: "p".into(),
            deletion: None,
            restart,
            grace_seconds: 30,
            active_deadline_seconds: None,
            host_network: false,
            start_time: None,
            containers,
        }
    }

    fn simple(restart: RestartPolicy) -> PodModel {
        pod(restart, vec![container("main", Role::App, restart)])
    }

    fn attempt(name: &str, number: u32, stage: Stage) -> Attempt {
        Attempt {
            id: format!("u/{name}/{number}"),
            number,
            image_id: "sha256:1".into(),
            here: true,
            stage,
        }
    }

    fn running() -> Stage {
        Stage::Running { started_at: at(0) }
    }

    fn ended(code: i32, finished: i64) -> Stage {
        Stage::Ended(Ended {
            code,
            signal: None,
            reason: "Error".into(),
            message: None,
            started_at: Some(at(0)),
            finished_at: Some(at(finished)),
        })
    }

    /// A Pod in the middle of its life, to be changed by each test.
    struct Case {
        pod: PodModel,
        gone: bool,
        finished: bool,
        sandbox: SandboxView,
        histories: Histories,
        verdicts: Verdicts,
        memory: Memory,
        busy: Busy,
        now: Timestamp,
    }

    impl Case {
        fn of(pod: PodModel) -> Self {
            Case {
                pod,
                gone: false,
                finished: false,
                sandbox: SandboxView::Ready,
                histories: Histories::new(),
                verdicts: Verdicts::new(),
                memory: Memory::default(),
                busy: Busy::default(),
                now: at(100),
            }
        }

        fn with(mut self, name: &str, number: u32, stage: Stage) -> Self {
            let newest = Some(attempt(name, number, stage));
            self.histories.insert(
                name.into(),
                History {
                    newest,
                    ..History::default()
                },
            );
            self
        }

        fn plan(&self) -> Plan {
            plan(&Snapshot {
                pod: &self.pod,
                gone: self.gone,
                finished: self.finished,
                sandbox: self.sandbox,
                histories: &self.histories,
                verdicts: &self.verdicts,
                memory: &self.memory,
                busy: &self.busy,
                start_time: at(0),
                now: self.now,
            })
        }

        /// The actions in short: `start main 0`, `stop main 30`.
        fn actions(&self) -> Vec<String> {
            self.plan().actions.iter().map(short).collect()
        }
    }

    fn short(action: &Action) -> String {
        match action {
            Action::Start { name, attempt, .. } => format!("start {name} {attempt}"),
            Action::Stop {
                name,
                grace_seconds,
                ..
            } => format!("stop {name} {grace_seconds}"),
            Action::Remove { id } => format!("remove {id}"),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    #[test]
    fn a_new_pod_gets_its_sandbox_and_then_its_containers() {
        let mut case = Case::of(simple(RestartPolicy::Always));
        case.sandbox = SandboxView::Gone;
        assert_eq!(case.actions(), ["prepare"]);
        case.busy.sandbox = true;
        assert_eq!(case.actions(), [""; 0]);
        case.busy.sandbox = false;
        case.sandbox = SandboxView::Ready;
        assert_eq!(case.actions(), ["start main 0"]);
        case.busy.starting.insert("main".into());
        assert_eq!(case.actions(), [""; 0]);
    }

    #[test]
    fn a_sandbox_that_cannot_be_made_is_tried_again_later() {
        let mut case = Case::of(simple(RestartPolicy::Always));
        case.sandbox = SandboxView::Gone;
        case.memory.sandbox_failure = Some(Failure {
            reason: "FailedMount".into(),
            message: "no".into(),
            since: at(99),
            retry_at: at(101),
        });
        assert_eq!(
            (case.actions(), case.plan().wake_at),
            (vec![], Some(at(101)))
        );
        case.now = at(101);
        assert_eq!(case.actions(), ["prepare"]);
    }

    #[test]
    fn the_restart_policy_decides_after_an_end() {
        for (policy, code, expected) in [
            (RestartPolicy::Always, 0, &["start main 4"][..]),
            (RestartPolicy::Always, 1, &["start main 4"]),
            (RestartPolicy::OnFailure, 1, &["start main 4"]),
            // What is done is put away.
            (RestartPolicy::OnFailure, 0, &["release"]),
            (RestartPolicy::Never, 1, &["release"]),
            (RestartPolicy::Never, 0, &["release"]),
        ] {
            let case = Case::of(simple(policy)).with("main", 3, ended(code, 100));
            assert_eq!(case.actions(), expected, "{policy:?} {code}");
        }
    }

    #[test]
    fn restarts_wait_longer_and_longer_and_then_say_so() {
        let mut case = Case::of(simple(RestartPolicy::Always));
        let (mut number, mut delays) = (0, Vec::new());
        for _ in 0..7 {
            let finished = case.now;
            case = case.with("main", number, ended(1, finished.as_second()));
            let waited = match case.plan().wake_at {
                None => 0,
                Some(at) => {
                    let waiting = &case.plan().waiting["main"];
                    assert_eq!(waiting.reason, "CrashLoopBackOff");
                    case.now = at;
                    at.duration_since(finished).as_secs()
                }
            };
            delays.push(waited);
            let Some(Action::Start {
                back_off: Some(back_off),
                attempt,
                ..
            }) = case.plan().actions.pop()
            else {
                panic!("not restarted")
            };
            case.memory.restarts.insert("main".into(), back_off);
            number = attempt;
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300]);
    }

    #[test]
    fn the_back_off_message_is_the_kubelets() {
        let mut case = Case::of(simple(RestartPolicy::Always)).with("main", 1, ended(1, 99));
        case.memory.restarts.insert(
            "main".into(),
            BackOff {
                delay: FIRST_DELAY * 8,
                raised_at: at(90),
            },
        );
        assert_eq!(
            case.plan().waiting["main"].message,
            "back-off 1m20s restarting failed container=main pod=p_ns(u)"
        );
    }

    #[test]
    fn a_failed_pull_is_shown_and_then_backs_off() {
        let mut case = Case::of(simple(RestartPolicy::Always));
        let failure = |reason: &str| Failure {
            reason: reason.into(),
            message: "no such image".into(),
            since: at(100),
            retry_at: at(110),
        };
        case.memory
            .failures
            .insert("main".into(), failure("ErrImagePull"));
        let plan = case.plan();
        assert_eq!(
            (plan.waiting["main"].reason.as_str(), plan.wake_at),
            ("ErrImagePull", Some(at(102)))
        );
        case.now = at(102);
        let plan = case.plan();
        assert_eq!(
            (plan.waiting["main"].reason.as_str(), plan.wake_at),
            ("ImagePullBackOff", Some(at(110)))
        );
        assert_eq!(
            plan.waiting["main"].message,
            "Back-off pulling image \"main:1\": ErrImagePull: no such image"
        );
        case.now = at(110);
        assert_eq!(case.actions(), ["start main 0"]);
        case.now = at(105);
        case.memory
            .failures
            .insert("main".into(), failure("CreateContainerConfigError"));
        assert_eq!(
            case.plan().waiting["main"].reason,
            "CreateContainerConfigError"
        );
    }

    fn with_init(restart: RestartPolicy) -> PodModel {
        let init = if restart == RestartPolicy::Never {
            restart
        } else {
            RestartPolicy::OnFailure
        };
        pod(
            restart,
            vec![
                container("first", Role::Init, init),
                container("side", Role::Sidecar, RestartPolicy::Always),
                container("second", Role::Init, init),
                container("main", Role::App, restart),
                container("other", Role::App, restart),
            ],
        )
    }

    #[test]
    fn init_containers_go_one_by_one_and_sidecars_stay() {
        let mut case = Case::of(with_init(RestartPolicy::Always));
        assert_eq!(case.actions(), ["start first 0"]);
        case = case.with("first", 0, running());
        assert_eq!(case.actions(), [""; 0]);
        case = case.with("first", 0, ended(0, 100));
        assert_eq!(case.actions(), ["start side 0"]);
        case = case.with("side", 0, running());
        assert_eq!(case.actions(), ["start second 0"]);
        case = case.with("second", 0, ended(0, 100));
        assert_eq!(case.actions(), ["start main 0", "start other 0"]);
        case = case
            .with("main", 0, running())
            .with("side", 0, ended(0, 100));
        assert_eq!(case.actions(), ["start side 1", "start other 0"]);
    }

    #[test]
    fn a_sidecar_with_a_startup_probe_holds_up_the_next() {
        let mut case = Case::of(with_init(RestartPolicy::Always));
        case.pod.containers[1].startup_probe = true;
        case = case
            .with("first", 0, ended(0, 90))
            .with("side", 0, running());
        assert_eq!(case.actions(), [""; 0]);
        case.verdicts.insert(
            "u/side/0".into(),
            Verdict {
                startup: Some(true),
                ..Verdict::default()
            },
        );
        assert_eq!(case.actions(), ["start second 0"]);
    }

    #[test]
    fn a_failed_init_container_is_repeated_or_ends_the_pod() {
        let case = Case::of(with_init(RestartPolicy::OnFailure)).with("first", 0, ended(1, 100));
        assert_eq!(case.actions(), ["start first 1"]);
        let case = Case::of(with_init(RestartPolicy::Never)).with("first", 0, ended(1, 100));
        assert_eq!(
            (case.actions(), case.plan().ending),
            (vec!["release".to_owned()], Some(Ending::Finished))
        );
    }

    #[test]
    fn a_failed_probe_stops_the_container_and_it_comes_back_whatever_its_exit_code() {
        let mut case = Case::of(simple(RestartPolicy::OnFailure)).with("main", 0, running());
        case.verdicts.insert(
            "u/main/0".into(),
            Verdict {
                liveness: Some(false),
                ..Verdict::default()
            },
        );
        assert_eq!(case.actions(), ["stop main 30"]);
        case.busy.stopping.insert("u/main/0".into(), at(130));
        assert_eq!(case.actions(), [""; 0]);
        case.busy.stopping.clear();
        case.memory.condemned.insert("u/main/0".into());
        case = case.with("main", 0, ended(0, 100));
        assert_eq!(case.actions(), ["start main 1"]);
    }

    #[test]
    fn a_probe_may_give_less_grace_and_a_pod_that_may_not_restart_is_not() {
        let mut case = Case::of(simple(RestartPolicy::Never)).with("main", 0, running());
        case.pod.containers[0].startup_grace = Some(3);
        case.verdicts.insert(
            "u/main/0".into(),
            Verdict {
                startup: Some(false),
                ..Verdict::default()
            },
        );
        let Some(Action::Stop {
            grace_seconds: 3,
            restarts: false,
            reason: StopReason::Startup,
            ..
        }) = case.plan().actions.pop()
        else {
            panic!("{:?}", case.plan())
        };
    }

    #[test]
    fn a_deleted_pod_ends_its_containers_then_its_sidecars_then_goes() {
        let mut case = Case::of(with_init(RestartPolicy::Always))
            .with("side", 0, running())
            .with("main", 0, running());
        case.pod.deletion = Some(Deletion { grace_seconds: 10 });
        case.memory.ending_since = Some(at(96));
        assert_eq!(case.actions(), ["stop main 6"]);
        case.busy.stopping.insert("u/main/0".into(), at(106));
        assert_eq!(case.actions(), [""; 0]);
        case.busy.stopping.clear();
        case = case.with("main", 0, ended(143, 105));
        case.now = at(105);
        assert_eq!(case.actions(), ["stop side 2"]);
        case = case.with("side", 0, ended(143, 106));
        assert_eq!(case.actions(), ["destroy"]);
        case.memory.destroyed = true;
        assert_eq!(case.actions(), ["delete"]);
        case.busy.deleting = true;
        assert_eq!(case.actions(), [""; 0]);
    }

    #[test]
    fn a_shorter_grace_hurries_a_stop_that_is_under_way() {
        let mut case = Case::of(simple(RestartPolicy::Always)).with("main", 0, running());
        case.busy.stopping.insert("u/main/0".into(), at(130));
        case.memory.ending_since = Some(at(100));
        case.pod.deletion = Some(Deletion { grace_seconds: 30 });
        assert_eq!(case.actions(), [""; 0]);
        case.pod.deletion = Some(Deletion { grace_seconds: 5 });
        assert_eq!(case.actions(), ["stop main 5"]);
    }

    #[test]
    fn a_container_that_is_being_started_is_waited_for() {
        let mut case = Case::of(simple(RestartPolicy::Always)).with("main", 0, Stage::Creating);
        case.pod.deletion = Some(Deletion { grace_seconds: 5 });
        case.busy.starting.insert("main".into());
        assert_eq!(case.actions(), [""; 0]);
        case.busy.starting.clear();
        assert_eq!(case.actions(), ["stop main 5"]);
    }

    #[test]
    fn a_pod_that_vanished_is_removed_without_asking_the_api() {
        let mut case = Case::of(simple(RestartPolicy::Always)).with("main", 0, running());
        case.gone = true;
        assert_eq!(case.actions(), ["stop main 1"]);
        case = case.with("main", 0, ended(137, 100));
        assert_eq!(case.actions(), ["destroy"]);
        case.memory.destroyed = true;
        assert_eq!(case.actions(), [""; 0]);
    }

    #[test]
    fn the_deadline_ends_the_pod() {
        let mut case = Case::of(simple(RestartPolicy::Always)).with("main", 0, running());
        case.pod.active_deadline_seconds = Some(101);
        assert_eq!(
            (case.actions(), case.plan().wake_at),
            (vec![], Some(at(101)))
        );
        case.now = at(101);
        assert_eq!(
            (case.actions(), case.plan().ending),
            (vec!["stop main 30".to_owned()], Some(Ending::Deadline))
        );
    }

    #[test]
    fn a_dead_sandbox_is_emptied_and_made_again() {
        let mut case = Case::of(simple(RestartPolicy::Always)).with("main", 2, running());
        case.sandbox = SandboxView::Gone;
        assert_eq!(case.actions(), ["reset"]);
        case.histories = crate::history::carried(&case.histories);
        assert_eq!(case.actions(), ["prepare"]);
        case.sandbox = SandboxView::Ready;
        assert_eq!(case.actions(), ["start main 3"]);
    }

    #[test]
    fn after_a_node_restart_init_containers_run_again_but_finished_work_does_not() {
        let mut case = Case::of(with_init(RestartPolicy::OnFailure))
            .with("first", 0, ended(0, 50))
            .with("main", 0, ended(0, 60))
            .with("other", 0, ended(137, 60));
        case.histories = crate::history::carried(&case.histories);
        assert_eq!(case.actions(), ["start first 1"]);
        let mut case = Case::of(simple(RestartPolicy::Never)).with("main", 0, running());
        case.histories = crate::history::carried(&case.histories);
        case.sandbox = SandboxView::Gone;
        assert_eq!(
            (case.actions(), case.plan().ending),
            (vec!["release".to_owned()], Some(Ending::Finished))
        );
    }

    #[test]
    fn old_attempts_are_removed_once() {
        let mut case = Case::of(simple(RestartPolicy::Always)).with("main", 2, running());
        case.histories
            .get_mut("main")
            .unwrap()
            .older
            .push("u/main/0".into());
        assert_eq!(case.actions(), ["remove u/main/0"]);
        case.busy.removing.insert("u/main/0".into());
        assert_eq!(case.actions(), [""; 0]);
    }

    fn any_stage() -> impl Strategy<Value = Option<(u32, bool, Stage)>> {
        let stage = prop_oneof![
            Just(Stage::Creating),
            (0i64..120).prop_map(|second| Stage::Running {
                started_at: at(second)
            }),
            (0i32..3, 0i64..120).prop_map(|(code, finished)| ended(code, finished)),
        ];
        proptest::option::of((0u32..4, any::<bool>(), stage))
    }

    fn any_case() -> impl Strategy<Value = Case> {
        let restart = prop_oneof![
            Just(RestartPolicy::Always),
            Just(RestartPolicy::OnFailure),
            Just(RestartPolicy::Never)
        ];
        let sandbox = prop_oneof![
            Just(SandboxView::Gone),
            Just(SandboxView::Alive),
            Just(SandboxView::Ready)
        ];
        (
            restart,
            sandbox,
            proptest::collection::vec(any_stage(), 5),
            proptest::option::of(0i64..60),
            any::<(bool, bool, bool)>(),
            proptest::collection::btree_set("first|side|second|main|other", 0..3),
        )
            .prop_map(
                |(restart, sandbox, stages, deletion, (gone, finished, busy), starting)| {
                    let mut case = Case::of(with_init(restart));
                    let names: Vec<_> = case
                        .pod
                        .containers
                        .iter()
                        .map(|container| container.name.clone())
                        .collect();
                    for (name, stage) in names.iter().zip(stages) {
                        if let Some((number, here, stage)) = stage {
                            case = case.with(name, number, stage);
                            case.histories
                                .get_mut(name)
                                .unwrap()
                                .newest
                                .as_mut()
                                .unwrap()
                                .here = here;
                        }
                    }
                    case.histories = case
                        .histories
                        .into_iter()
                        .map(|(name, history)| {
                            let here = history.newest.as_ref().is_some_and(|newest| newest.here);
                            let one = Histories::from([(name.clone(), history.clone())]);
                            let history = if here {
                                history
                            } else {
                                crate::history::carried(&one)[&name].clone()
                            };
                            (name, history)
                        })
                        .collect();
                    case.sandbox = sandbox;
                    case.pod.deletion = deletion.map(|grace_seconds| Deletion { grace_seconds });
                    (case.gone, case.finished, case.busy.sandbox) = (gone, finished, busy);
                    case.busy.starting = starting;
                    case
                },
            )
    }

    impl std::fmt::Debug for Case {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(
                f,
                "{:?} {:?} {:?} {:?}",
                self.pod, self.sandbox, self.histories, self.busy
            )
        }
    }

    proptest! {
        #[test]
        fn app_containers_never_start_before_the_init_containers_are_done(case in any_case()) {
            let app_made_here = ["main", "other"].iter().any(|name| {
                case.histories.get(*name).and_then(|h| h.newest.as_ref()).is_some_and(|newest| newest.here)
            });
            let done = ["first", "second"].iter().all(|name| {
                let newest = case.histories.get(*name).and_then(|h| h.newest.as_ref());
                newest.is_some_and(|newest| newest.here && newest.ended().is_some_and(|ended| ended.code == 0))
            });
            for action in case.plan().actions {
                if let Action::Start { name, .. } = action {
                    let app = name == "main" || name == "other";
                    prop_assert!(!app || done || app_made_here, "{} started", name);
                }
            }
        }

        #[test]
        fn nothing_is_started_for_a_pod_that_ends_or_twice_or_outside_a_sandbox(case in any_case()) {
            let plan = case.plan();
            for action in &plan.actions {
                if let Action::Start { name, .. } = action {
                    prop_assert!(plan.ending.is_none());
                    prop_assert!(!case.busy.starting.contains(name));
                    prop_assert_eq!(case.sandbox, SandboxView::Ready);
                    let newest = case.histories.get(name).and_then(|history| history.newest.as_ref());
                    prop_assert!(newest.is_none_or(|newest| !newest.alive()), "{} runs already", name);
                }
            }
        }

        #[test]
        fn nothing_is_taken_away_from_under_a_running_container(case in any_case()) {
            let alive = case.histories.values().any(|h| h.newest.as_ref().is_some_and(Attempt::alive));
            let plan = case.plan();
            if alive || !case.busy.starting.is_empty() {
                let takes = |action: &Action| matches!(action, Action::Destroy | Action::Release | Action::Delete);
                prop_assert!(!plan.actions.iter().any(takes), "{:?}", plan);
            }
        }
    }
}
