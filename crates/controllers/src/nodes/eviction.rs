//! When must a Pod leave a tainted node?

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

use crate::taint::{self, NO_EXECUTE, NOT_READY, UNREACHABLE};

/// How long a Pod that says nothing about it bears a node that is not ready or not reachable.
/// Source: the admission plugin `DefaultTolerationSeconds`.
const DEFAULT_SECONDS: i64 = 300;

/// The time at which the Pod must go; `None` when it may stay. Source: `processPodOnNode` and API reference,
/// `Toleration.tolerationSeconds`.
pub(crate) fn deadline(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default();
    let evicting = taints.iter().filter(|taint| taint.effect == NO_EXECUTE);
    evicting
        .filter_map(|taint| leave_by(tolerations, taint, now))
        .min()
}

/// When one taint drives the Pod out.
fn leave_by(tolerations: &[Toleration], taint: &Taint, now: Timestamp) -> Option<Timestamp> {
    let mut matching = tolerations
        .iter()
        .filter(|toleration| taint::tolerates(toleration, taint))
        .peekable();
    let seconds = if matching.peek().is_some() {
        // Among several the shortest counts; one without seconds bears it for ever but does not lengthen the others.
        matching
            .filter_map(|toleration| toleration.toleration_seconds)
            .min()?
    } else if matches!(taint.key.as_str(), NOT_READY | UNREACHABLE) {
        DEFAULT_SECONDS
    } else {
        return Some(now);
    };
    if seconds <= 0 {
        return Some(now);
    }
    let since = taint.time_added.as_ref().map_or(now, |time| time.0);
    // Seconds beyond the end of time are for ever.
    since.checked_add(SignedDuration::from_secs(seconds)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_leaves_when_it_bears_it_no_longer() {
        let now: Timestamp = "2030-01-01T00:10:00Z".parse().unwrap();
        let added = "2030-01-01T00:09:00Z";
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let exists = |key: &str, seconds: Option<i64>| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds });
        let table = [
            (json!([]), UNREACHABLE, at("2030-01-01T00:14:00Z")),
            (json!([]), "maintenance", Some(now)),
            (
                json!([exists(UNREACHABLE, Some(30))]),
                UNREACHABLE,
                at("2030-01-01T00:09:30Z"),
            ),
            (json!([exists(UNREACHABLE, None)]), UNREACHABLE, None),
            (
                json!([exists(UNREACHABLE, None), exists(UNREACHABLE, Some(90))]),
                UNREACHABLE,
                at("2030-01-01T00:10:30Z"),
            ),
            (
                json!([exists(UNREACHABLE, Some(0))]),
                UNREACHABLE,
                Some(now),
            ),
            (
                json!([exists(UNREACHABLE, Some(i64::MAX))]),
                UNREACHABLE,
                None,
            ),
            (json!([{ "operator": "Exists" }]), "maintenance", None),
        ];
        for (tolerations, key, expected) in table {
            let pod: Pod = serde_json::from_value(
                json!({ "spec": { "containers": [], "tolerations": tolerations } }),
            )
            .unwrap();
            let taint: Taint = serde_json::from_value(
                json!({ "key": key, "effect": "NoExecute", "timeAdded": added }),
            )
            .unwrap();
            assert_eq!(
                deadline(&pod, &[taint], now),
                expected,
                "{tolerations} of {key}"
            );
        }
    }

    #[test]
    fn a_taint_of_another_effect_drives_nobody_out() {
        let taint: Taint =
            serde_json::from_value(json!({ "key": "gpu", "effect": "NoSchedule" })).unwrap();
        assert_eq!(
            deadline(&Pod::default(), &[taint], Timestamp::UNIX_EPOCH),
            None
        );
    }
}
