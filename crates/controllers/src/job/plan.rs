//! From a Job and its Pods to what must be done now, and the status that results.
//!
//! Source: `syncJob` and `manageJob` in `job_controller.go`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::{self, Tempo};
use super::conditions::{self, COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED};
use super::count::{self, Over};
use super::failure_policy::{Meaning, meaning};
use super::indexes::{self, Progress};
use super::model::Target;
use super::pods;
use crate::object;
use crate::pod;
use crate::replicas::by_deletion_order;

/// At most so many Pods are created or deleted before the cache must have caught up. Source: `MaxPodCreateDeletePerSync`.
const BURST: usize = 500;

/// What is seen of the world.
pub(crate) struct Seen<'a> {
    /// The Pods of the Job.
    pub(crate) pods: &'a [Arc<Pod>],
    /// Of those, the ones whose finalizer was removed though the cache shows it still.
    pub(crate) released: &'a HashSet<String>,
    /// Whether the cache shows all that was written before.
    pub(crate) caught_up: bool,
    /// The time.
    pub(crate) now: Timestamp,
    /// How fast it is tried again.
    pub(crate) tempo: Tempo,
}

/// Something that happened, for an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tell {
    /// Whether it needs attention.
    pub(crate) warning: bool,
    /// Its reason; conditions have the same ones.
    pub(crate) reason: &'static str,
    /// What it was.
    pub(crate) message: String,
}

/// What must be done, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Pods that go.
    pub(crate) delete: Vec<Arc<Pod>>,
    /// Pods that come.
    pub(crate) create: Vec<Pod>,
    /// The status to write.
    pub(crate) status: JobStatus,
    /// Pods whose finalizer goes once the status is written.
    pub(crate) release: Vec<Arc<Pod>>,
    /// What to tell.
    pub(crate) tell: Vec<Tell>,
    /// When to look again though nothing changes.
    pub(crate) wake: Option<Duration>,
}

/// How a Job ends, and why.
struct Verdict {
    over: Over,
    reason: &'static str,
    message: String,
}

/// Makes the plan for a Job that is not over yet.
pub(crate) fn plan(target: &Target, seen: &Seen<'_>) -> Plan {
    let mut plan = Plan {
        status: target.status.clone(),
        ..Plan::default()
    };
    let active: Vec<Arc<Pod>> = seen
        .pods
        .iter()
        .filter(|pod| pod::is_active(pod))
        .cloned()
        .collect();
    let going = object::is_deleting(&target.meta);
    if plan.status.start_time.is_none() && !target.suspended {
        plan.status.start_time = Some(Time(seen.now));
    }
    let progress = if target.indexed {
        indexes::progress(target, seen.pods)
    } else {
        Progress::default()
    };
    // Twice: what is noted now decides whether the Job is over, and that decides what is noted.
    let mut noted = plan.status.clone();
    count::count(target, seen.pods, seen.released, None, &mut noted);
    let tally = tally(target, &noted, &progress);
    let mut verdict = verdict(
        target,
        seen,
        &progress,
        &tally,
        &plan.status,
        &mut plan.wake,
    );
    let mut left = active.len();
    if verdict.is_some() {
        if !going {
            plan.delete.extend(active.iter().take(BURST).cloned());
        }
        left -= plan.delete.len();
    } else if tally.is_complete(target, active.len()) {
        verdict = Some(Verdict {
            over: Over::Succeeded,
            reason: "CompletionsReached",
            message: "Reached expected number of succeeded pods".to_owned(),
        });
    } else if seen.caught_up && !going {
        manage(target, seen, &active, &progress, &tally, &mut plan);
        left = (active.len() + plan.create.len()).saturating_sub(plan.delete.len());
        suspend_or_resume(target, seen.now, &mut plan);
    }

    let over = verdict.as_ref().map(|verdict| verdict.over);
    plan.release = count::count(target, seen.pods, seen.released, over, &mut plan.status);
    if target.indexed {
        let done = progress.succeeded.count();
        plan.status.succeeded = (done != 0).then_some(done);
        plan.status.completed_indexes =
            Some(progress.succeeded.to_string()).filter(|text| !text.is_empty());
        plan.status.failed_indexes = target
            .backoff_limit_per_index
            .map(|_| progress.failed.to_string());
    }
    let ready = active.iter().filter(|pod| pod::is_ready(pod)).count();
    let terminating = seen
        .pods
        .iter()
        .filter(|pod| object::is_deleting(&pod.metadata) && !pod::is_terminal(pod));
    let terminating = number(terminating.count());
    plan.status.active = Some(number(left)).filter(|count| *count != 0);
    plan.status.ready = Some(number(ready.min(left)));
    plan.status.terminating = Some(terminating);
    if let Some(verdict) = verdict {
        let settled = active.is_empty()
            && terminating == 0
            && seen.caught_up
            && !count::has_notes(&plan.status)
            && plan.release.is_empty();
        end(&verdict, settled, seen.now, &mut plan);
    }
    plan
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Successes and failures, the noted ones among them.
struct Tally {
    succeeded: i32,
    failed: i32,
}

fn tally(target: &Target, noted: &JobStatus, progress: &Progress) -> Tally {
    let (wins, losses) = count::noted(noted);
    let succeeded = if target.indexed {
        progress.succeeded.count()
    } else {
        noted.succeeded.unwrap_or(0).saturating_add(wins)
    };
    Tally {
        succeeded,
        failed: noted.failed.unwrap_or(0).saturating_add(losses),
    }
}

impl Tally {
    fn is_complete(&self, target: &Target, active: usize) -> bool {
        active == 0
            && match target.completions {
                Some(wanted) => self.succeeded >= wanted,
                None => self.succeeded > 0,
            }
    }
}

/// Whether the Job is to end before all completions are reached. What was decided earlier stays decided.
fn verdict(
    target: &Target,
    seen: &Seen<'_>,
    progress: &Progress,
    tally: &Tally,
    status: &JobStatus,
    wake: &mut Option<Duration>,
) -> Option<Verdict> {
    for (kind, over) in [
        (FAILURE_TARGET, Over::Failed),
        (SUCCESS_CRITERIA_MET, Over::Succeeded),
    ] {
        if let Some(decided) = conditions::find(status, kind) {
            return Some(Verdict {
                over,
                reason: known_reason(decided.reason.as_deref().unwrap_or_default()),
                message: decided.message.clone().unwrap_or_default(),
            });
        }
    }
    let failed = |reason, message: &str| {
        Some(Verdict {
            over: Over::Failed,
            reason,
            message: message.to_owned(),
        })
    };
    let by_policy = seen.pods.iter().find_map(|pod| match meaning(target, pod) {
        Meaning::FailJob(message) => Some(message),
        _ => None,
    });
    if let Some(message) = by_policy {
        return failed("PodFailurePolicy", &message);
    }
    if tally.failed > target.backoff_limit || too_many_restarts(target, seen.pods) {
        return failed(
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        );
    }
    if let (Some(deadline), Some(start), false) =
        (target.deadline, &status.start_time, target.suspended)
    {
        let since = Duration::try_from(seen.now.duration_since(start.0)).unwrap_or_default();
        match deadline.checked_sub(since).filter(|left| !left.is_zero()) {
            None => {
                return failed(
                    "DeadlineExceeded",
                    "Job was active longer than specified deadline",
                );
            }
            Some(left) => *wake = Some(left),
        }
    }
    if target.backoff_limit_per_index.is_some() {
        let lost = progress.failed.count();
        if target.max_failed_indexes.is_some_and(|most| lost > most) {
            return failed(
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            );
        }
        if lost > 0 && lost + progress.succeeded.count() >= target.index_count() {
            return failed("FailedIndexes", "Job has failed indexes");
        }
    }
    indexes::enough(target, progress).map(|message| Verdict {
        over: Over::Succeeded,
        reason: "SuccessPolicy",
        message,
    })
}

/// Reasons come back from the status as text.
fn known_reason(text: &str) -> &'static str {
    let known = [
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "PodFailurePolicy",
        "MaxFailedIndexesExceeded",
        "FailedIndexes",
        "SuccessPolicy",
        "CompletionsReached",
    ];
    known
        .into_iter()
        .find(|reason| *reason == text)
        .unwrap_or("Unknown")
}

/// Where containers are started again in their Pod, their restarts are the failures. Source: `pastBackoffLimitOnFailure`.
fn too_many_restarts(target: &Target, owned: &[Arc<Pod>]) -> bool {
    if !target.restarts_on_failure {
        return false;
    }
    let running = owned
        .iter()
        .filter(|pod| matches!(pod::phase(pod), "Running" | "Pending"));
    let statuses = running
        .filter_map(|pod| pod.status.as_ref())
        .flat_map(|status| {
            status
                .container_statuses
                .iter()
                .chain(&status.init_container_statuses)
                .flatten()
        });
    let restarts: i32 = statuses
        .map(|container| container.restart_count)
        .fold(0, i32::saturating_add);
    if target.backoff_limit == 0 {
        restarts > 0
    } else {
        restarts >= target.backoff_limit
    }
}

/// Adjusts the number of Pods to what is wanted: either some go, or some come.
fn manage(
    target: &Target,
    seen: &Seen<'_>,
    active: &[Arc<Pod>],
    progress: &Progress,
    tally: &Tally,
    plan: &mut Plan,
) {
    if target.suspended {
        plan.delete.extend(active.iter().take(BURST).cloned());
        return;
    }
    let running = number(active.len());
    let wanted = match target.completions {
        // Whoever runs may end; nobody new comes after the first success.
        None if tally.succeeded > 0 => running,
        None => target.parallelism,
        Some(completions) => {
            let failed = progress.failed.count();
            (completions - tally.succeeded - failed).clamp(0, target.parallelism)
        }
    };
    let too_many = usize::try_from(running - wanted).unwrap_or(0);
    plan.delete = superfluous(target, active, too_many, seen.now);
    plan.delete.truncate(BURST);
    if !plan.delete.is_empty() {
        return;
    }
    let waited_for = if target.replaces_ended_only {
        let terminating = seen
            .pods
            .iter()
            .filter(|pod| object::is_deleting(&pod.metadata) && !pod::is_terminal(pod));
        number(terminating.count())
    } else {
        0
    };
    let missing = usize::try_from(wanted - waited_for - running)
        .unwrap_or(0)
        .min(BURST);
    if missing == 0 {
        return;
    }
    if target.backoff_limit_per_index.is_none()
        && let Some(left) = backoff::left(target, seen.pods, seen.tempo, seen.now)
    {
        plan.wake = Some(plan.wake.map_or(left, |wake| wake.min(left)));
        return;
    }
    if target.indexed {
        let (tries, wait) =
            indexes::to_try(target, progress, seen.pods, missing, seen.tempo, seen.now);
        plan.create = tries
            .into_iter()
            .map(|one| pods::new_pod(target, Some(one)))
            .collect();
        plan.wake = plan.wake.into_iter().chain(wait).min();
    } else {
        plan.create = vec![pods::new_pod(target, None); missing];
    }
}

/// Which Pods go: of two with one index the younger, those whose index is too high, and as many more as are too many.
fn superfluous(
    target: &Target,
    active: &[Arc<Pod>],
    too_many: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut ordered = active.to_vec();
    by_deletion_order(&mut ordered, active, now);
    if !target.indexed {
        ordered.truncate(too_many);
        return ordered;
    }
    let mut kept = HashSet::new();
    let (mut gone, mut left) = (Vec::new(), Vec::new());
    // From the one that is to stay longest.
    for pod in ordered.into_iter().rev() {
        match pods::index(&pod) {
            Some(index) if index < target.index_count() && kept.insert(index) => left.push(pod),
            _ => gone.push(pod),
        }
    }
    let more = too_many.saturating_sub(gone.len());
    gone.extend(left.into_iter().rev().take(more));
    gone
}

fn suspend_or_resume(target: &Target, now: Timestamp, plan: &mut Plan) {
    let (reason, message) = if target.suspended {
        ("Suspended", "Job suspended")
    } else {
        ("Resumed", "Job resumed")
    };
    let condition = format!("Job{reason}");
    let changed = conditions::set(
        &mut plan.status,
        SUSPENDED,
        target.suspended,
        &condition,
        message,
        now,
    );
    if !changed {
        return;
    }
    plan.tell.push(Tell {
        warning: false,
        reason,
        message: message.to_owned(),
    });
    if !target.suspended {
        // Time in which it waited does not count.
        plan.status.start_time = Some(Time(now));
    }
}

/// Says how the Job will end, and once nothing of it is left, that it has.
fn end(verdict: &Verdict, settled: bool, now: Timestamp, plan: &mut Plan) {
    let (target, end) = match verdict.over {
        Over::Succeeded => (SUCCESS_CRITERIA_MET, COMPLETE),
        Over::Failed => (FAILURE_TARGET, FAILED),
    };
    let status = &mut plan.status;
    conditions::set(status, target, true, verdict.reason, &verdict.message, now);
    if !settled {
        return;
    }
    conditions::set(status, end, true, verdict.reason, &verdict.message, now);
    plan.wake = None;
    match verdict.over {
        Over::Succeeded => {
            status.completion_time = Some(Time(now));
            plan.tell.push(Tell {
                warning: false,
                reason: "Completed",
                message: "Job completed".to_owned(),
            });
        }
        Over::Failed => plan.tell.push(Tell {
            warning: true,
            reason: verdict.reason,
            message: verdict.message.clone(),
        }),
    }
}

#[cfg(test)]
mod tests;
