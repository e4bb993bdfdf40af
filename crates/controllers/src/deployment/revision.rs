//! Revisions: which template was current when, and what `kubectl rollout history` and `undo` read.

use std::collections::BTreeMap;

use super::model::{DESIRED_REPLICAS, MAX_REPLICAS, Set, Target};
use crate::object;

/// Annotation: the revision, a growing number.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation: the revisions that this ReplicaSet was before.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotations that belong to one object and are not handed down.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// Longest history that is kept, in characters.
const HISTORY_LENGTH: usize = 2000;

/// The revision of a ReplicaSet; without one, zero.
pub(crate) fn of(set: &Set) -> i64 {
    object::annotation(&set.object.metadata, REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// The revision that the current template gets: one above all old ones.
pub(crate) fn next(old: &[&Set]) -> i64 {
    old.iter()
        .map(|set| of(set))
        .max()
        .unwrap_or(0)
        .saturating_add(1)
}

/// The annotations that must change on the current ReplicaSet, or that it is born with. A ReplicaSet that was current
/// before and is again (`rollout undo`) moves up to the new revision and notes the one it had.
pub(crate) fn annotations(
    target: &Target,
    present: &BTreeMap<String, String>,
    revision: i64,
) -> BTreeMap<String, String> {
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in &target.annotations {
        if !OWN.contains(&key.as_str()) {
            wanted.insert(key.clone(), value.clone());
        }
    }
    let before: Option<i64> = present.get(REVISION).and_then(|text| text.parse().ok());
    if before.is_none_or(|before| before < revision) {
        wanted.insert(REVISION.to_owned(), revision.to_string());
        if let Some(before) = before.filter(|before| *before > 0) {
            wanted.insert(HISTORY.to_owned(), history(present.get(HISTORY), before));
        }
    }
    wanted.retain(|key, value| present.get(key) != Some(value));
    wanted
}

fn history(present: Option<&String>, before: i64) -> String {
    let mut revisions: Vec<String> = present
        .into_iter()
        .flat_map(|text| text.split(','))
        .filter(|one| !one.is_empty())
        .map(str::to_owned)
        .collect();
    let before = before.to_string();
    if !revisions.contains(&before) {
        revisions.push(before);
    }
    while revisions.len() > 1 && revisions.join(",").len() > HISTORY_LENGTH {
        revisions.remove(0);
    }
    revisions.join(",")
}

/// Old ReplicaSets beyond the limit, the oldest revisions first. One that still has Pods, or whose present state is
/// not known, stays.
pub(crate) fn superfluous<'a>(old: &[&'a Set], limit: usize) -> Vec<&'a Set> {
    let mut living: Vec<&Set> = old
        .iter()
        .copied()
        .filter(|set| !object::is_deleting(&set.object.metadata))
        .collect();
    living.sort_by_key(|set| (of(set), set.created));
    let excess = living.len().saturating_sub(limit);
    living.truncate(excess);
    living.retain(|set| {
        let observed = set
            .object
            .status
            .as_ref()
            .and_then(|status| status.observed_generation)
            .unwrap_or(0);
        set.replicas == 0
            && set.actual == 0
            && set.object.metadata.generation.unwrap_or(0) <= observed
    });
    living
}
