//! How old Pods are replaced: from the highest ordinal down to the partition. Source: `updateStatefulSet`, and
//! `updateStatefulSetAfterInvariantEstablished` where several may be unavailable (KEP-961).

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::model::{Strategy, Target};
use super::plan::Action;
use super::pods;
use crate::object;

/// Adds which old Pods go now. All places are taken when this is called.
pub(super) fn replace(
    target: &Target,
    update: &str,
    replicas: &[Option<Arc<Pod>>],
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    let Strategy::RollingUpdate {
        partition,
        max_unavailable,
    } = target.strategy
    else {
        return;
    };
    let from_the_top = replicas.iter().skip(partition).rev().flatten();
    let is_old = |pod: &Pod| pods::revision(pod) != update && !object::is_deleting(&pod.metadata);
    match max_unavailable {
        None => {
            for pod in from_the_top {
                if is_old(pod) {
                    actions.push(Action::Delete(Arc::clone(pod)));
                    return;
                }
                if pods::is_unhealthy(pod) {
                    return;
                }
            }
        }
        Some(most) => {
            let missing = replicas.iter().flatten().filter(|pod| {
                object::is_deleting(&pod.metadata)
                    || !pods::is_running_and_available(target, pod, now)
            });
            let free = most.saturating_sub(missing.count());
            let old = from_the_top.filter(|pod| is_old(pod)).take(free);
            actions.extend(old.map(|pod| Action::Delete(Arc::clone(pod))));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::plan::tests::{There, outcome};

    #[test]
    fn the_last_one_is_replaced_first() {
        let cases: [(&[There<'_>], &[&str]); 4] = [
            (
                &[
                    (0, "old", "ready"),
                    (1, "old", "ready"),
                    (2, "old", "ready"),
                ],
                &["delete web-2"],
            ),
            (
                &[
                    (0, "old", "ready"),
                    (1, "old", "ready"),
                    (2, "new", "ready"),
                ],
                &["delete web-1"],
            ),
            (
                &[
                    (0, "old", "ready"),
                    (1, "old", "ready"),
                    (2, "new", "unready"),
                ],
                &[],
            ),
            (
                &[
                    (0, "new", "ready"),
                    (1, "new", "ready"),
                    (2, "new", "ready"),
                ],
                &[],
            ),
        ];
        for (there, expected) in cases {
            assert_eq!(outcome(json!({}), there), expected, "{there:?}");
        }
    }

    #[test]
    fn the_partition_and_on_delete_hold_the_update_back() {
        let all_old = [
            (0, "old", "ready"),
            (1, "old", "ready"),
            (2, "old", "ready"),
        ];
        let partition = |n| json!({ "updateStrategy": { "rollingUpdate": { "partition": n } } });
        assert_eq!(outcome(partition(2), &all_old), ["delete web-2"]);
        assert_eq!(outcome(partition(3), &all_old), [""; 0]);
        assert_eq!(
            outcome(
                partition(2),
                &[
                    (0, "old", "ready"),
                    (1, "old", "ready"),
                    (2, "new", "ready")
                ]
            ),
            [""; 0]
        );
        assert_eq!(
            outcome(
                json!({ "updateStrategy": { "type": "OnDelete" } }),
                &all_old
            ),
            [""; 0]
        );
    }

    #[test]
    fn in_parallel_an_old_one_that_never_got_well_is_replaced() {
        let there = [
            (0, "old", "ready"),
            (1, "old", "ready"),
            (2, "old", "unready"),
        ];
        assert_eq!(
            outcome(json!({ "podManagementPolicy": "Parallel" }), &there),
            ["delete web-2"]
        );
    }

    #[test]
    fn several_may_be_missing_at_a_time() {
        let two = json!({ "podManagementPolicy": "Parallel", "updateStrategy": { "rollingUpdate": { "maxUnavailable": 2 } } });
        let all_old = [
            (0, "old", "ready"),
            (1, "old", "ready"),
            (2, "old", "ready"),
        ];
        assert_eq!(
            outcome(two.clone(), &all_old),
            ["delete web-2", "delete web-1"]
        );
        assert_eq!(
            outcome(
                two.clone(),
                &[
                    (0, "old", "ready"),
                    (1, "old", "ready"),
                    (2, "new", "unready")
                ]
            ),
            ["delete web-1"]
        );
        assert_eq!(
            outcome(
                two,
                &[
                    (0, "old", "ready"),
                    (1, "new", "unready"),
                    (2, "new", "unready")
                ]
            ),
            [""; 0]
        );
    }
}
