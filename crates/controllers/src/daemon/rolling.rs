//! How old Pods are replaced, node by node. Source: `rollingUpdate` in `pkg/controller/daemon/update.go`.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::model::Target;
use super::placement::Place;
use super::plan::{ByNode, Places, Plan, is_available, wanted};
use super::pods;
use crate::object;

/// Adds to the plan which old Pods go now, or with surge, which nodes get a second Pod.
///
/// # Errors
/// An amount of the update strategy is none.
pub(super) fn replace(
    target: &Target,
    hash: &str,
    places: &Places,
    filed: &ByNode,
    now: Timestamp,
    plan: &mut Plan,
) -> Result<(), String> {
    let (max_unavailable, max_surge) = target.limits(wanted(places).len())?;
    let here = filed
        .iter()
        .filter(|(node, _)| matches!(places.get(*node), Some(Place::Run | Place::Stay)));
    let nodes = here.map(|(node, pods)| (node.as_str(), sides(pods, hash)));
    if max_surge == 0 {
        delete_old(target, nodes, max_unavailable, now, plan);
    } else {
        let running = nodes.filter(|(node, _)| places.get(*node) == Some(&Place::Run));
        add_new(target, running, max_surge, now, plan);
    }
    Ok(())
}

/// The Pods of one node that are not on their way out: of the new template, and of an old one.
struct Sides {
    new: Option<Arc<Pod>>,
    old: Option<Arc<Pod>>,
}

fn sides(pods: &[Arc<Pod>], hash: &str) -> Sides {
    let living = |current: bool| {
        let mut living = pods.iter().filter(|pod| {
            !object::is_deleting(&pod.metadata) && pods::is_current(pod, hash) == current
        });
        living.next().cloned()
    };
    Sides {
        new: living(true),
        old: living(false),
    }
}

/// Old Pods that are not available anyway go at once, and of the others as many as may be missing.
fn delete_old<'a>(
    target: &Target,
    nodes: impl Iterator<Item = (&'a str, Sides)>,
    max_unavailable: usize,
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut unavailable = 0;
    let mut candidates = Vec::new();
    for (_, sides) in nodes {
        match (sides.new, sides.old) {
            (Some(new), None) => unavailable += usize::from(!is_available(target, &new, now)),
            (None, Some(old)) if is_available(target, &old, now) => candidates.push(old),
            (None, Some(old)) => {
                unavailable += 1;
                plan.delete.push(old);
            }
            // One is on its way, or one too many is there: not settled.
            _ => unavailable += 1,
        }
    }
    candidates.truncate(max_unavailable.saturating_sub(unavailable));
    plan.delete.extend(candidates);
}

/// Nodes whose old Pod is not available get a new one at once, and of the others as many as may have two.
fn add_new<'a>(
    target: &Target,
    nodes: impl Iterator<Item = (&'a str, Sides)>,
    max_surge: usize,
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut surging = 0;
    let mut candidates = Vec::new();
    for (node, sides) in nodes {
        match (sides.new, sides.old) {
            (None, Some(old)) if is_available(target, &old, now) => {
                candidates.push(node.to_owned())
            }
            (None, Some(_)) => plan.create.push(node.to_owned()),
            (Some(new), Some(old)) if is_available(target, &new, now) => plan.delete.push(old),
            (Some(_), Some(_)) => surging += 1,
            (_, None) => {}
        }
    }
    candidates.truncate(max_surge.saturating_sub(surging));
    plan.create.extend(candidates);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::plan::tests::{NOW, names, places, pod, target};
    use super::super::plan::{by_node, plan};
    use super::*;

    /// The Pods (hash and state by node) and what the plan creates and deletes.
    fn outcome(strategy: Value, pods: &[(&str, &str, &str)]) -> (Vec<String>, Vec<String>) {
        let nodes: Vec<(&str, Place)> = ["n1", "n2", "n3", "n4"]
            .map(|node| (node, Place::Run))
            .into();
        let pods: Vec<_> = pods
            .iter()
            .map(|(node, hash, state)| pod(&format!("{node}-{hash}"), node, hash, state))
            .collect();
        let plan = plan(
            &target(strategy),
            "new",
            &places(&nodes),
            &by_node(&pods),
            NOW.parse().unwrap(),
        )
        .unwrap();
        (
            plan.create,
            names(&plan.delete).into_iter().map(str::to_owned).collect(),
        )
    }

    #[test]
    fn as_many_old_ones_go_as_may_be_missing() {
        let all_old = [
            ("n1", "old", "ready"),
            ("n2", "old", "ready"),
            ("n3", "old", "ready"),
            ("n4", "old", "ready"),
        ];
        let one = json!({});
        assert_eq!(
            outcome(one.clone(), &all_old),
            (vec![], vec!["n1-old".into()])
        );
        let half = json!({ "rollingUpdate": { "maxUnavailable": "50%" } });
        assert_eq!(
            outcome(half, &all_old),
            (vec![], vec!["n1-old".into(), "n2-old".into()])
        );
        let on_delete = json!({ "type": "OnDelete" });
        assert_eq!(outcome(on_delete, &all_old), (vec![], vec![]));
        // One that is not available yet counts as missing.
        let waiting = [
            ("n1", "new", "pending"),
            ("n2", "old", "ready"),
            ("n3", "old", "ready"),
            ("n4", "old", "ready"),
        ];
        assert_eq!(outcome(one.clone(), &waiting), (vec![], vec![]));
        // One that serves nobody goes in any case.
        let broken = [
            ("n1", "new", "pending"),
            ("n2", "old", "broken"),
            ("n3", "old", "ready"),
            ("n4", "old", "ready"),
        ];
        assert_eq!(outcome(one, &broken), (vec![], vec!["n2-old".into()]));
    }

    #[test]
    fn with_surge_new_ones_come_first() {
        let surge = json!({ "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
        let all_old = [
            ("n1", "old", "ready"),
            ("n2", "old", "ready"),
            ("n3", "old", "ready"),
            ("n4", "old", "ready"),
        ];
        assert_eq!(
            outcome(surge.clone(), &all_old),
            (vec!["n1".into()], vec![])
        );
        let mut waiting = all_old.to_vec();
        waiting.push(("n1", "new", "pending"));
        assert_eq!(outcome(surge.clone(), &waiting), (vec![], vec![]));
        let mut arrived = all_old.to_vec();
        arrived.push(("n1", "new", "ready"));
        assert_eq!(outcome(surge, &arrived), (vec![], vec!["n1-old".into()]));
    }
}
