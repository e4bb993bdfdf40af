//! The indexes of an Indexed Job: which are done, which have failed, which are to be tried now.
//!
//! Source: `indexed_job_utils.go`, `success_policy.go`, `backoff_utils.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use seaway_objects::indexes::Indexes;

use super::backoff::{self, Tempo};
use super::count;
use super::failure_policy::{Meaning, meaning};
use super::model::Target;
use super::pods;
use crate::pod;

/// What is known of the indexes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Progress {
    /// Have succeeded.
    pub(crate) succeeded: Indexes,
    /// Have failed for good, where that is counted for each.
    pub(crate) failed: Indexes,
}

/// Adds what the Pods show to what the status remembers.
pub(crate) fn progress(target: &Target, owned: &[Arc<Pod>]) -> Progress {
    let most = target.index_count();
    let remembered =
        |text: &Option<String>| Indexes::parse_lenient(text.as_deref().unwrap_or_default(), most);
    let of = |pods: &mut dyn Iterator<Item = &Arc<Pod>>| -> Indexes {
        pods.filter_map(|pod| pods::index(pod))
            .filter(|index| *index < most)
            .collect()
    };
    let done = of(&mut owned.iter().filter(|pod| pod::phase(pod) == "Succeeded"));
    let succeeded = remembered(&target.status.completed_indexes).with(&done);
    let Some(limit) = target.backoff_limit_per_index else {
        return Progress {
            succeeded,
            failed: Indexes::default(),
        };
    };
    let lost = of(&mut owned.iter().filter(|pod| {
        count::is_failed(target, pod)
            && match meaning(target, pod) {
                Meaning::FailIndex => true,
                Meaning::Ignore => false,
                Meaning::Count | Meaning::FailJob(_) => {
                    pods::failures_before(pod).saturating_add(1) > limit
                }
            }
    }));
    let lost = remembered(&target.status.failed_indexes).with(&lost);
    // An index that succeeded in the end has not failed.
    let failed = numbers(&lost, most)
        .filter(|index| !succeeded.contains(*index))
        .collect();
    Progress { succeeded, failed }
}

fn numbers(set: &Indexes, most: i32) -> impl Iterator<Item = i32> {
    (0..most).filter(|index| set.contains(*index))
}

/// The message when the success policy is satisfied.
pub(crate) fn enough(target: &Target, progress: &Progress) -> Option<String> {
    let satisfied = |rule: &k8s_openapi::api::batch::v1::SuccessPolicyRule| {
        let of = match &rule.succeeded_indexes {
            Some(text) => Indexes::parse_lenient(text, target.index_count()),
            None => (0..target.index_count()).collect(),
        };
        let wanted = rule.succeeded_count.unwrap_or_else(|| of.count());
        progress.succeeded.count_in(&of) >= wanted
    };
    let rule = target.success_rules.iter().position(satisfied)?;
    Some(format!("Matched rules at index {rule}"))
}

/// An index to be tried, and how often it failed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Try {
    /// The index.
    pub(crate) index: i32,
    /// Failures so far, where they are counted for each index.
    pub(crate) failures: Option<i32>,
}

/// The first `most` indexes that are neither done nor being tried; and when the next one is, if some must wait after
/// a failure.
pub(crate) fn to_try(
    target: &Target,
    progress: &Progress,
    owned: &[Arc<Pod>],
    most: usize,
    tempo: Tempo,
    now: Timestamp,
) -> (Vec<Try>, Option<Duration>) {
    let busy: BTreeSet<i32> = owned
        .iter()
        .filter(|pod| pod::is_active(pod) || (target.replaces_ended_only && !pod::is_terminal(pod)))
        .filter_map(|pod| pods::index(pod))
        .collect();
    let failures = target
        .backoff_limit_per_index
        .map(|_| last_failures(target, owned));
    let (mut tries, mut wait): (Vec<Try>, Option<Duration>) = (Vec::new(), None);
    for index in 0..target.index_count() {
        if tries.len() >= most {
            break;
        }
        if busy.contains(&index)
            || progress.succeeded.contains(index)
            || progress.failed.contains(index)
        {
            continue;
        }
        let Some(failures) = &failures else {
            tries.push(Try {
                index,
                failures: None,
            });
            continue;
        };
        let before = failures.get(&index);
        let left = before.and_then(|(count, at)| tempo.left(*count, *at, now));
        match left {
            Some(left) => wait = Some(wait.map_or(left, |wait| wait.min(left))),
            None => tries.push(Try {
                index,
                failures: Some(
                    before.map_or(0, |(count, _)| i32::try_from(*count).unwrap_or(i32::MAX)),
                ),
            }),
        }
    }
    (tries, wait)
}

/// How often each index failed, and when last.
fn last_failures(target: &Target, owned: &[Arc<Pod>]) -> BTreeMap<i32, (u32, Timestamp)> {
    let mut last: BTreeMap<i32, (u32, Timestamp)> = BTreeMap::new();
    for pod in owned.iter().filter(|pod| count::is_failed(target, pod)) {
        let Some(index) = pods::index(pod) else {
            continue;
        };
        let counted = meaning(target, pod) != Meaning::Ignore;
        let failures = u32::try_from(pods::failures_before(pod)).unwrap_or(0) + u32::from(counted);
        let at = backoff::ended_at(pod);
        let entry = last.entry(index).or_insert((failures, at));
        entry.0 = entry.0.max(failures);
        entry.1 = entry.1.max(at);
    }
    last
}
