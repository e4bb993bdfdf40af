//! The arithmetic of replacing: how far the new may grow and the old must shrink at this moment.

use std::collections::HashMap;

use super::model::{MAX_REPLICAS, Set, Strategy, Target};

/// UID of a ReplicaSet → the number of Pods it shall keep. Only those that change.
pub(crate) type Sizes = HashMap<String, i32>;

/// The size of the current ReplicaSet: as large as the surge allows. `all` holds every ReplicaSet, the current one
/// too if it exists.
pub(crate) fn new_size(target: &Target, all: &[&Set], current: i32) -> i32 {
    match target.strategy {
        Strategy::Recreate => target.replicas,
        Strategy::RollingUpdate { max_surge, .. } => {
            if current > target.replicas {
                return target.replicas;
            }
            let total: i32 = sum(all);
            let most = target.replicas.saturating_add(max_surge);
            if total >= most {
                return current;
            }
            current + (most - total).min(target.replicas - current)
        }
    }
}

/// How the old ReplicaSets shrink: first by Pods that do not serve anyway, then as far as availability allows.
/// Source: `reconcileOldReplicaSets`.
pub(crate) fn shrink_old(target: &Target, new: Option<&Set>, old: &[&Set]) -> Sizes {
    let mut sizes = Sizes::new();
    if sum(old) == 0 {
        return sizes;
    }
    let least_available = target.replicas - target.max_unavailable();
    let new_replicas = new.map_or(0, |set| set.replicas);
    let new_unavailable = new.map_or(0, |set| (set.replicas - set.serving()).max(0));
    let spare = sum(old) + new_replicas - least_available - new_unavailable;
    if spare <= 0 {
        return sizes;
    }
    let mut by_age = old.to_vec();
    by_age.sort_by_key(|set| set.created);

    let mut removed = 0;
    for set in &by_age {
        let useless = (set.replicas - set.serving()).max(0).min(spare - removed);
        if useless > 0 {
            sizes.insert(set.uid().to_owned(), set.replicas - useless);
            removed += useless;
        }
    }

    let available: i32 =
        old.iter().map(|set| set.serving()).sum::<i32>() + new.map_or(0, |set| set.serving());
    let mut removable = (available - least_available).max(0);
    for set in &by_age {
        let size = sizes.get(set.uid()).copied().unwrap_or(set.replicas);
        let fewer = size.min(removable);
        if fewer > 0 {
            sizes.insert(set.uid().to_owned(), size - fewer);
            removable -= fewer;
        }
    }
    sizes
}

/// How a change of `spec.replicas` in the middle of a rollout is shared out: in proportion to the sizes, so that the
/// rollout stays as far as it is. Source: `DeploymentController.scale` and `GetReplicaSetProportion`.
pub(crate) fn proportional(target: &Target, all: &[&Set]) -> Sizes {
    let mut active: Vec<&Set> = all.iter().copied().filter(|set| set.replicas > 0).collect();
    let total = sum(&active);
    let allowed = if target.replicas > 0 {
        target.replicas.saturating_add(target.max_surge())
    } else {
        0
    };
    let change = allowed - total;
    // The largest get the remainder; among equals growth favours the newer, shrinking the older.
    if change > 0 {
        active.sort_by_key(|set| {
            (
                std::cmp::Reverse(set.replicas),
                std::cmp::Reverse(set.created),
            )
        });
    } else {
        active.sort_by_key(|set| (std::cmp::Reverse(set.replicas), set.created));
    }
    let mut changed = 0;
    let mut sizes: Vec<(String, i32)> = Vec::new();
    for set in &active {
        let share = if change == 0 || change == changed {
            0
        } else {
            let fraction = fraction(target, set);
            let left = change - changed;
            if change > 0 {
                fraction.min(left)
            } else {
                fraction.max(left)
            }
        };
        sizes.push((set.uid().to_owned(), set.replicas + share));
        changed += share;
    }
    if change != 0
        && let Some((_, largest)) = sizes.first_mut()
    {
        *largest += change - changed;
    }
    sizes
        .into_iter()
        .map(|(uid, size)| (uid, size.max(0)))
        .collect()
}

/// By how much one ReplicaSet changes if all keep their proportion.
fn fraction(target: &Target, set: &Set) -> i32 {
    if target.replicas == 0 {
        return -set.replicas;
    }
    let most = i64::from(target.replicas) + i64::from(target.max_surge());
    let before = set.number(MAX_REPLICAS).filter(|number| *number > 0);
    let before = before.or(target.status.replicas.filter(|number| *number > 0));
    let Some(before) = before.map(i64::from) else {
        return 0;
    };
    // Rounded to the nearest.
    let size = (2 * i64::from(set.replicas) * most + before) / (2 * before);
    i32::try_from(size).unwrap_or(i32::MAX) - set.replicas
}

/// Pods that the ReplicaSets are asked to keep.
pub(crate) fn sum(sets: &[&Set]) -> i32 {
    sets.iter().map(|set| set.replicas).sum()
}
