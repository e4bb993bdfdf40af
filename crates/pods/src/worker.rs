//! One task per Pod: looks at what there is, makes the plan and the status, starts the work, and waits for news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::apply::{Node, Prepared, Refusal};
use crate::env::{SourceKind, SourceName, Sources};
use crate::error::Error;
use crate::events::Severity;
use crate::files::source_names;
use crate::history::{self, Histories, Stage};
use crate::model::{PodModel, Role, container_of};
use crate::plan::{
    Action, Busy, Ending, Failure, Memory, Plan, SandboxView, Snapshot, StopReason, Verdict,
    Verdicts, plan,
};
use crate::probes::{Asker, ProbeKind, ProbeReport, ProbeSpec, Probing};
use crate::sources::{self, SourceChange};
use crate::status::{Facts, pod_status};
use crate::status_writer::StatusWriter;
use crate::tokens;

/// Delays after failures other than pulls, which have the kubelet's.
const RETRY_FIRST: SignedDuration = SignedDuration::from_millis(500);
const RETRY_LONGEST: SignedDuration = SignedDuration::from_secs(10);
const PULL_FIRST: SignedDuration = crate::backoff::FIRST_DELAY;
const PULL_LONGEST: SignedDuration = crate::backoff::LONGEST_DELAY;

/// The ConfigMap with the certificate of the API server's authority. Source: KEP-1205.
const ROOT_CA: &str = "kube-root-ca.crt";

/// News for a worker.
#[derive(Debug, Clone)]
pub enum Message {
    /// The object changed.
    Object(Arc<Pod>),
    /// The object does not exist any more; this is its last state.
    Gone(Arc<Pod>),
    /// Something changed in the runtime.
    Look,
}

/// What came of a piece of work.
#[derive(Debug)]
enum Outcome {
    Prepared(Result<Prepared, Refusal>),
    Reset,
    Started {
        name: String,
        result: Result<(), Refusal>,
    },
    Stopped {
        id: String,
    },
    Removed {
        id: String,
    },
    Released,
    Destroyed,
    Deleted,
}

/// The task of one Pod.
#[derive(Debug)]
pub struct Worker {
    node: Arc<Node>,
    object: Arc<Pod>,
    model: PodModel,
    gone: bool,
    writer: StatusWriter,
    status: PodStatus,
    start_time: Timestamp,
    prepared: Option<Prepared>,
    carried: Histories,
    histories: Histories,
    messages: BTreeMap<String, String>,
    memory: Memory,
    busy: Busy,
    verdicts: Verdicts,
    probes: BTreeMap<(String, ProbeKind), Probing>,
    reports: (
        mpsc::UnboundedSender<ProbeReport>,
        mpsc::UnboundedReceiver<ProbeReport>,
    ),
    changes: (
        mpsc::UnboundedSender<SourceChange>,
        mpsc::UnboundedReceiver<SourceChange>,
    ),
    sources: Sources,
    following: Option<AbortOnDropHandle<()>>,
    renewing: Option<AbortOnDropHandle<()>>,
    waiting_reasons: BTreeMap<String, String>,
    cancel: CancellationToken,
    work: JoinSet<Outcome>,
    itself: mpsc::UnboundedSender<Message>,
    inbox: mpsc::UnboundedReceiver<Message>,
}

/// Whole seconds, as they stand in the API.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

impl Worker {
    /// A worker for a Pod, and where to send it news.
    pub fn new(
        node: Arc<Node>,
        object: Arc<Pod>,
    ) -> Result<(Self, mpsc::UnboundedSender<Message>), Error> {
        let model = PodModel::try_from(object.as_ref())?;
        let api: Api<Pod> = Api::namespaced(node.client.clone(), &model.namespace);
        let status = object.status.clone().unwrap_or_default();
        let (itself, inbox) = mpsc::unbounded_channel();
        let worker = Worker {
            writer: StatusWriter::start(api, object.clone()),
            start_time: model.start_time.unwrap_or_else(now),
            carried: history::from_status(&status),
            status,
            gone: false,
            prepared: None,
            histories: Histories::new(),
            messages: BTreeMap::new(),
            memory: Memory::default(),
            busy: Busy::default(),
            verdicts: Verdicts::new(),
            probes: BTreeMap::new(),
            reports: mpsc::unbounded_channel(),
            changes: mpsc::unbounded_channel(),
            sources: Sources::new(),
            following: None,
            renewing: None,
            waiting_reasons: BTreeMap::new(),
            cancel: CancellationToken::new(),
            work: JoinSet::new(),
            itself: itself.clone(),
            inbox,
            node,
            object,
            model,
        };
        Ok((worker, itself))
    }

    /// Runs until the Pod is gone from the node and from the API.
    pub async fn run(mut self) -> Result<(), Error> {
        loop {
            let plan = self.step()?;
            if self.memory.destroyed && self.gone {
                return Ok(());
            }
            let wake = async {
                match plan.wake_at {
                    Some(at) => {
                        let wait = at.duration_since(Timestamp::now());
                        // Whole seconds are compared: a little later is surely not too early.
                        let wait = Duration::try_from(wait).unwrap_or_default()
                            + Duration::from_millis(10);
                        tokio::time::sleep(wait).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.hear(message)?,
                    None => return Ok(()),
                },
                Some(outcome) = self.work.join_next(), if !self.work.is_empty() => {
                    let outcome = outcome.map_err(|source| Error::Task { what: "the work of a Pod", source })?;
                    self.finish(outcome);
                }
                Some(report) = self.reports.1.recv() => self.judge(report),
                Some(change) = self.changes.1.recv() => self.refresh(change),
                () = wake => {}
            }
            // What has come meanwhile is looked at together.
            while let Ok(message) = self.inbox.try_recv() {
                self.hear(message)?;
            }
        }
    }

    fn hear(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Look => {}
            Message::Object(object) => {
                self.writer.saw(&object);
                self.model = PodModel::try_from(object.as_ref())?;
                let told = |pod: &Pod| {
                    (
                        pod.metadata.labels.clone(),
                        pod.metadata.annotations.clone(),
                    )
                };
                let retold = told(&object) != told(&self.object);
                self.object = object;
                if retold {
                    self.refresh_volumes();
                }
            }
            Message::Gone(object) => {
                self.gone = true;
                // The last state says how much grace whoever deleted it wanted to give.
                if let Ok(model) = PodModel::try_from(object.as_ref()) {
                    self.model = model;
                    self.object = object;
                }
            }
        }
        Ok(())
    }

    /// Looks, plans, tells, and sets to work.
    fn step(&mut self) -> Result<Plan, Error> {
        loop {
            let sandbox = self.look()?;
            let plan = self.plan(sandbox);
            if plan.ending.is_some() && self.memory.ending_since.is_none() {
                self.memory.ending_since = Some(now());
                self.cancel.cancel();
                if plan.ending == Some(Ending::Deadline) {
                    let message = "Pod was active on the node longer than the specified deadline";
                    self.tell(None, Severity::Normal, "DeadlineExceeded", message);
                }
            }
            let over_before = self.over();
            self.publish(&plan, sandbox);
            // That the Pod is over changes the plan.
            if self.over() != over_before {
                continue;
            }
            self.tell_waiting(&plan);
            for action in &plan.actions {
                self.act(action);
            }
            self.update_probes(&plan);
            return Ok(plan);
        }
    }

    fn over(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Reads what the runtime has.
    fn look(&mut self) -> Result<SandboxView, Error> {
        if self.memory.destroyed {
            self.histories = self.carried.clone();
            return Ok(SandboxView::Gone);
        }
        let runtime = &self.node.runtime;
        let containers = runtime.containers(&self.model.uid)?;
        for container in &containers {
            let ended = matches!(
                container.phase,
                crate::runtime::ContainerPhase::Exited { .. }
            );
            if ended && !self.messages.contains_key(&container.id) {
                let message = runtime
                    .termination_message(&container.id)
                    .unwrap_or_default();
                self.messages.insert(container.id.clone(), message);
            }
        }
        self.histories = history::histories(&self.carried, &containers, &self.messages);
        let alive = runtime.sandbox(&self.model.uid)?.is_some();
        if !alive
            && !self.busy.sandbox
            && self.prepared.take().is_some()
            && self.memory.ending_since.is_none()
        {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.tell(None, Severity::Normal, "SandboxChanged", message);
        }
        Ok(match (alive, &self.prepared) {
            (false, _) => SandboxView::Gone,
            (true, None) => SandboxView::Alive,
            (true, Some(_)) => SandboxView::Ready,
        })
    }

    fn plan(&self, sandbox: SandboxView) -> Plan {
        plan(&Snapshot {
            pod: &self.model,
            gone: self.gone,
            finished: self.over(),
            sandbox,
            histories: &self.histories,
            verdicts: &self.verdicts,
            memory: &self.memory,
            busy: &self.busy,
            start_time: self.start_time,
            now: Timestamp::now(),
        })
    }

    fn publish(&mut self, plan: &Plan, sandbox: SandboxView) {
        if self.gone {
            return;
        }
        // A sandbox that this agent has not seen to yet was ready when it was left.
        let adopted = sandbox == SandboxView::Alive && self.status.pod_ip.is_some();
        let status = pod_status(&Facts {
            object: &self.object,
            pod: &self.model,
            previous: &self.status,
            histories: &self.histories,
            verdicts: &self.verdicts,
            waiting: &plan.waiting,
            busy: &self.busy,
            sandbox_ready: (sandbox == SandboxView::Ready || adopted) && !self.memory.released,
            pod_ip: self.prepared.as_ref().map(|prepared| prepared.pod_ip),
            node_ip: self.node.config.node_ip,
            ending: plan.ending,
            start_time: self.start_time,
            now: now(),
        });
        if status != self.status {
            self.status = status.clone();
            self.writer.publish(status);
        }
    }

    /// Tells of containers that begin to wait for a back-off.
    fn tell_waiting(&mut self, plan: &Plan) {
        for (name, waiting) in &plan.waiting {
            if self.waiting_reasons.get(name) == Some(&waiting.reason) {
                continue;
            }
            match waiting.reason.as_str() {
                "CrashLoopBackOff" => {
                    let message = format!(
                        "Back-off restarting failed container {name} in pod {}",
                        self.model.display()
                    );
                    self.tell(Some(name), Severity::Warning, "BackOff", message);
                }
                "ImagePullBackOff" => {
                    let image = self
                        .model
                        .containers
                        .iter()
                        .find(|c| c.name == *name)
                        .map(|c| c.image.clone());
                    let message = format!("Back-off pulling image {:?}", image.unwrap_or_default());
                    self.tell(Some(name), Severity::Normal, "BackOff", message);
                    self.tell(
                        Some(name),
                        Severity::Warning,
                        "Failed",
                        "Error: ImagePullBackOff",
                    );
                }
                _ => {}
            }
        }
        self.waiting_reasons = plan
            .waiting
            .iter()
            .map(|(name, waiting)| (name.clone(), waiting.reason.clone()))
            .collect();
    }

    fn tell(
        &self,
        container: Option<&str>,
        severity: Severity,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.node
            .events
            .pod(&self.object, container, severity, reason, message);
    }

    /// Starts the work of an action.
    fn act(&mut self, action: &Action) {
        debug!(pod = self.model.display(), ?action, "acting");
        let (node, object, model) = (self.node.clone(), self.object.clone(), self.model.clone());
        match action.clone() {
            Action::Prepare => {
                self.busy.sandbox = true;
                self.work
                    .spawn(async move { Outcome::Prepared(node.prepare(&object, &model).await) });
            }
            Action::Reset => {
                self.busy.sandbox = true;
                self.carried = history::carried(&self.histories);
                self.work.spawn(async move {
                    node.reset(&model.uid).await;
                    Outcome::Reset
                });
            }
            Action::Start {
                name,
                attempt,
                back_off,
            } => {
                let Some(prepared) = self.prepared.clone() else {
                    return;
                };
                self.busy.starting.insert(name.clone());
                if let Some(back_off) = back_off {
                    self.memory.restarts.insert(name.clone(), back_off);
                }
                let (cancel, itself) = (self.cancel.clone(), self.itself.clone());
                self.work.spawn(async move {
                    let look = || drop(itself.send(Message::Look));
                    let result = node
                        .start(&object, &model, &prepared, (&name, attempt), look, &cancel)
                        .await;
                    Outcome::Started { name, result }
                });
            }
            Action::Stop {
                name,
                id,
                grace_seconds,
                reason,
                restarts,
            } => {
                let kill_at = Timestamp::now() + SignedDuration::from_secs(grace_seconds);
                let first = self.busy.stopping.insert(id.clone(), kill_at).is_none();
                if first {
                    self.tell_stop(&name, reason, restarts);
                }
                if reason != StopReason::PodEnds {
                    self.memory.condemned.insert(id.clone());
                }
                let grace = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
                let pod_ip = self.prepared.as_ref().map(|prepared| prepared.pod_ip);
                self.work.spawn(async move {
                    node.stop_with_hook(&object, (&name, &id), pod_ip.filter(|_| first), grace)
                        .await;
                    Outcome::Stopped { id }
                });
            }
            Action::Remove { id } => {
                self.busy.removing.insert(id.clone());
                self.work.spawn(async move {
                    node.remove(&id).await;
                    Outcome::Removed { id }
                });
            }
            Action::Release => {
                self.busy.sandbox = true;
                self.work.spawn(async move {
                    node.release(&model).await;
                    Outcome::Released
                });
            }
            Action::Destroy => {
                self.busy.sandbox = true;
                self.carried = self.histories.clone();
                self.work.spawn(async move {
                    node.destroy(&model.uid).await;
                    Outcome::Destroyed
                });
            }
            Action::Delete => {
                self.busy.deleting = true;
                // The last status has the exit codes: it goes first.
                let flushed = self.writer.flushed();
                self.work.spawn(async move {
                    flushed.await;
                    node.delete(&model).await;
                    Outcome::Deleted
                });
            }
        }
    }

    fn tell_stop(&self, name: &str, reason: StopReason, restarts: bool) {
        let afterwards = if restarts { ", will be restarted" } else { "" };
        let message = match reason {
            StopReason::PodEnds => format!("Stopping container {name}"),
            StopReason::Liveness => format!("Container {name} failed liveness probe{afterwards}"),
            StopReason::Startup => format!("Container {name} failed startup probe{afterwards}"),
        };
        self.tell(Some(name), Severity::Normal, "Killing", message);
    }

    fn finish(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Prepared(Ok(prepared)) => {
                self.busy.sandbox = false;
                self.memory.sandbox_failure = None;
                self.sources = prepared.sources.clone();
                self.prepared = Some(prepared);
                self.follow_sources();
            }
            Outcome::Prepared(Err(refusal)) => {
                self.busy.sandbox = false;
                let before = self.memory.sandbox_failure.take();
                // The first failure may only mean that something is not there yet, a moment after all was created.
                if before.is_some() || refusal.reason == "FailedMount" {
                    self.tell(
                        None,
                        Severity::Warning,
                        refusal.reason,
                        refusal.message.clone(),
                    );
                }
                self.memory.sandbox_failure = Some(failure(before.as_ref(), refusal));
            }
            Outcome::Reset => self.busy.sandbox = false,
            Outcome::Started { name, result } => {
                self.busy.starting.remove(&name);
                match result {
                    Ok(()) => drop(self.memory.failures.remove(&name)),
                    Err(refusal) if refusal.reason == "Cancelled" => {}
                    Err(refusal) => {
                        let failure = failure(self.memory.failures.get(&name), refusal);
                        self.memory.failures.insert(name, failure);
                    }
                }
            }
            Outcome::Stopped { id } => drop(self.busy.stopping.remove(&id)),
            Outcome::Removed { id } => {
                self.busy.removing.remove(&id);
                self.messages.remove(&id);
                self.memory.condemned.remove(&id);
            }
            Outcome::Released => {
                self.busy.sandbox = false;
                self.memory.released = true;
            }
            Outcome::Destroyed => {
                self.busy.sandbox = false;
                self.memory.destroyed = true;
                self.prepared = None;
            }
            // Deleted once; the watch tells when it is gone.
            Outcome::Deleted => {}
        }
    }

    fn judge(&mut self, report: ProbeReport) {
        let name = self.histories.iter().find_map(|(name, history)| {
            let newest = history.newest.as_ref()?;
            (newest.id == report.container_id).then(|| name.clone())
        });
        // A container that is gone meanwhile has no verdict.
        let Some(name) = name else { return };
        let verdict: &mut Verdict = self.verdicts.entry(report.container_id).or_default();
        match report.kind {
            ProbeKind::Startup => verdict.startup = report.verdict,
            ProbeKind::Readiness => verdict.readiness = report.verdict,
            ProbeKind::Liveness => verdict.liveness = report.verdict,
        }
        if let Some(complaint) = report.complaint {
            self.tell(Some(&name), Severity::Warning, "Unhealthy", complaint);
        }
    }

    /// Starts the probes of containers that run, and ends those of containers that do not.
    fn update_probes(&mut self, plan: &Plan) {
        let mut wanted = BTreeSet::new();
        if let Some(prepared) = &self.prepared {
            for container in self
                .model
                .containers
                .iter()
                .filter(|container| container.role != Role::Init)
            {
                let newest = self
                    .histories
                    .get(&container.name)
                    .and_then(|history| history.newest.as_ref());
                let Some(newest) = newest.filter(|newest| newest.here) else {
                    continue;
                };
                let Stage::Running { started_at } = newest.stage else {
                    continue;
                };
                let startup = self
                    .verdicts
                    .get(&newest.id)
                    .and_then(|verdict| verdict.startup);
                let started = !container.startup_probe || startup == Some(true);
                let kinds: &[ProbeKind] = match (plan.ending.is_some(), started) {
                    // A Pod that ends is not restarted, but may still be serving.
                    (true, true) => &[ProbeKind::Readiness],
                    (true, false) => &[],
                    (false, true) => &[ProbeKind::Readiness, ProbeKind::Liveness],
                    (false, false) => &[ProbeKind::Startup],
                };
                let spec = self
                    .object
                    .spec
                    .as_ref()
                    .and_then(|spec| container_of(spec, &container.name));
                for kind in kinds {
                    let Some(probe) = spec.and_then(|spec| ProbeSpec::of(spec, *kind)) else {
                        continue;
                    };
                    let key = (newest.id.clone(), *kind);
                    wanted.insert(key.clone());
                    if self.probes.contains_key(&key) {
                        continue;
                    }
                    let asker = Asker {
                        runtime: self.node.runtime.clone(),
                        container_id: newest.id.clone(),
                        pod_ip: prepared.pod_ip,
                    };
                    let age = Duration::try_from(Timestamp::now().duration_since(started_at))
                        .unwrap_or_default();
                    self.probes.insert(
                        key,
                        Probing::start(probe, asker, age, self.reports.0.clone()),
                    );
                }
            }
        }
        self.probes.retain(|key, _| wanted.contains(key));
        let newest: BTreeSet<&String> = self
            .histories
            .values()
            .filter_map(|history| history.newest.as_ref())
            .map(|newest| &newest.id)
            .collect();
        self.verdicts.retain(|id, _| newest.contains(id));
    }

    /// Watches the ConfigMaps and Secrets that the volumes show, and renews their tokens.
    fn follow_sources(&mut self) {
        let mut names: BTreeSet<SourceName> = self
            .object
            .spec
            .as_ref()
            .map(source_names)
            .unwrap_or_default();
        // In every Pod, and the same for as long as the cluster lives: not worth a watch for each Pod.
        names.remove(&(SourceKind::ConfigMap, ROOT_CA.to_owned()));
        let wishes = self
            .object
            .spec
            .as_ref()
            .map(tokens::wishes)
            .unwrap_or_default();
        if !wishes.is_empty() {
            // Begun anew with each sandbox, whose volumes were made with new tokens.
            self.renewing = Some(tokens::renew(
                self.node.client.clone(),
                self.object.clone(),
                wishes,
                self.changes.0.clone(),
            ));
        }
        if self.following.is_none() && !names.is_empty() {
            let (client, namespace) = (self.node.client.clone(), self.model.namespace.clone());
            self.following = Some(sources::follow(
                client,
                namespace,
                names,
                self.changes.0.clone(),
            ));
        }
    }

    /// A ConfigMap or Secret changed.
    fn refresh(&mut self, (name, data): SourceChange) {
        // What is removed stays in the volumes as it was, as long as the Pod lives.
        let Some(data) = data else { return };
        if self.sources.get(&name) != Some(&data) {
            self.sources.insert(name, data);
            self.refresh_volumes();
        }
    }

    /// Brings the volumes up to the objects that they show.
    fn refresh_volumes(&self) {
        let Some(spec) = self
            .object
            .spec
            .as_ref()
            .filter(|_| self.prepared.is_some())
        else {
            return;
        };
        let result = self
            .node
            .runtime
            .pod_dir(&self.model.uid)
            .map_err(|error| error.to_string())
            .and_then(|directory| {
                let places = self
                    .node
                    .volumes(&self.object, spec, &directory, &self.sources);
                places.map_err(|refusal| refusal.message)
            });
        if let Err(error) = result {
            warn!(
                error,
                pod = self.model.display(),
                "cannot refresh the volumes of a Pod"
            );
            self.tell(None, Severity::Warning, "FailedMount", error);
        }
    }
}

/// The failure with the time of the next try: later when the same failed before.
fn failure(before: Option<&Failure>, refusal: Refusal) -> Failure {
    let pull = matches!(
        refusal.reason,
        "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull"
    );
    let (first, longest) = if pull {
        (PULL_FIRST, PULL_LONGEST)
    } else {
        (RETRY_FIRST, RETRY_LONGEST)
    };
    let since = Timestamp::now();
    let delay = before
        .filter(|before| before.reason == refusal.reason)
        .map_or(first, |before| {
            (before.retry_at.duration_since(before.since) * 2).min(longest)
        });
    Failure {
        reason: refusal.reason.to_owned(),
        message: refusal.message,
        since,
        retry_at: since + delay,
    }
}
