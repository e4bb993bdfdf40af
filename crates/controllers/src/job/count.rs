//! Counting the Pods that ended, each exactly once.
//!
//! A Pod that ended and has the finalizer is noted by its UID in the status; then its finalizer goes; what is noted and
//! has no finalizer any more is added to the figure and taken off the notes. Each step is a write of its own that may
//! be the last before a crash, and none can be done twice. Source: `trackJobStatusAndRemoveFinalizers`; KEP-2307.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::api::core::v1::Pod;

use super::failure_policy::{Meaning, meaning};
use super::model::{TRACKING, Target};
use super::pods;
use crate::object;
use crate::pod;

/// At most so many are noted at a time. Source: `MaxUncountedPods`.
const NOTES: usize = 500;

/// Whether the Pod counts as a failure: it failed, or it goes without having succeeded, unless the Job waits for the
/// end of those that go. Source: `isPodFailed`.
pub(crate) fn is_failed(target: &Target, pod: &Pod) -> bool {
    match pod::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => !target.replaces_ended_only && object::is_deleting(&pod.metadata),
    }
}

/// Moves notes to figures and notes what is new, in `status`; the answer are the Pods whose finalizer goes once that
/// is written. `released` are Pods whose finalizer was removed though the cache shows it still. `over` is whether the
/// Job is to fail, so that whoever still runs has failed.
pub(crate) fn count(
    target: &Target,
    owned: &[Arc<Pod>],
    released: &HashSet<String>,
    over: Option<Over>,
    status: &mut JobStatus,
) -> Vec<Arc<Pod>> {
    let tracked: Vec<&Arc<Pod>> = owned
        .iter()
        .filter(|pod| {
            object::has_finalizer(&pod.metadata, TRACKING)
                && !released.contains(object::uid_of(&pod.metadata))
        })
        .collect();
    let uids: HashSet<&str> = tracked
        .iter()
        .map(|pod| object::uid_of(&pod.metadata))
        .collect();
    let mut notes = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let settle = |noted: &mut Option<Vec<String>>| {
        let before = noted.as_ref().map_or(0, Vec::len);
        if let Some(noted) = noted {
            noted.retain(|uid| uids.contains(uid.as_str()));
        }
        let after = noted.as_ref().map_or(0, Vec::len);
        i32::try_from(before - after).unwrap_or(i32::MAX)
    };
    let succeeded = settle(&mut notes.succeeded);
    let failed = settle(&mut notes.failed);
    if !target.indexed {
        status.succeeded = sum(status.succeeded, succeeded);
    }
    status.failed = sum(status.failed, failed);

    let going = object::is_deleting(&target.meta);
    let mut done = Vec::new();
    for pod in tracked {
        let uid = object::uid_of(&pod.metadata).to_owned();
        let (wins, losses) = (
            notes.succeeded.get_or_insert_default(),
            notes.failed.get_or_insert_default(),
        );
        if wins.contains(&uid) || losses.contains(&uid) {
            done.push(Arc::clone(pod));
            continue;
        }
        if wins.len() + losses.len() >= NOTES {
            break;
        }
        if pod::phase(pod) == "Succeeded" {
            // The index is enough to know it again.
            if !target.indexed {
                wins.push(uid);
            }
        } else if is_failed(target, pod) || over == Some(Over::Failed) {
            let in_range = pods::index(pod).is_some_and(|index| index < target.index_count());
            if (!target.indexed || in_range) && meaning(target, pod) != Meaning::Ignore {
                losses.push(uid);
            }
        } else if !going && over.is_none() {
            continue;
        }
        done.push(Arc::clone(pod));
    }
    for list in [&mut notes.succeeded, &mut notes.failed] {
        if list.as_ref().is_some_and(Vec::is_empty) {
            *list = None;
        }
    }
    status.uncounted_terminated_pods = Some(notes);
    done
}

/// How a Job is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Well.
    Succeeded,
    /// Badly.
    Failed,
}

/// Whether anything is noted that is not counted yet.
pub(crate) fn has_notes(status: &JobStatus) -> bool {
    noted(status) != (0, 0)
}

/// How many successes and failures are noted.
pub(crate) fn noted(status: &JobStatus) -> (i32, i32) {
    let length = |list: &Option<Vec<String>>| {
        i32::try_from(list.as_ref().map_or(0, Vec::len)).unwrap_or(i32::MAX)
    };
    let notes = status.uncounted_terminated_pods.as_ref();
    notes.map_or((0, 0), |notes| {
        (length(&notes.succeeded), length(&notes.failed))
    })
}

fn sum(before: Option<i32>, more: i32) -> Option<i32> {
    let sum = before.unwrap_or(0).saturating_add(more);
    (sum != 0).then_some(sum)
}
