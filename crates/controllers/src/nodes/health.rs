//! Is a node alive? Its Lease and its status are its heartbeat; after a while without either, nothing that it said of
//! itself holds any more.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Conditions that a node reports and that nobody else can know.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What follows from a silence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// Alive; look again when it would have been silent too long.
    Alive(Duration),
    /// Silent too long: these conditions are unknown now.
    Silent(Vec<NodeCondition>),
    /// Silent, and said to be.
    KnownSilent,
}

/// Judges a node that was last heard of `silence` ago. Source: `tryUpdateNodeHealth`.
pub(crate) fn judge(node: &Node, silence: Duration, grace: Duration, now: Timestamp) -> Verdict {
    if silence < grace {
        return Verdict::Alive(grace - silence);
    }
    let present = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let mut changed = Vec::new();
    for type_ in REPORTED {
        let (mut condition, reason, message) = match present.iter().find(|one| one.type_ == type_) {
            Some(known) if known.status == "Unknown" => continue,
            Some(known) => (
                known.clone(),
                "NodeStatusUnknown",
                "Kubelet stopped posting node status.",
            ),
            None => {
                let never = NodeCondition {
                    type_: type_.to_owned(),
                    ..NodeCondition::default()
                };
                (
                    never,
                    "NodeStatusNeverUpdated",
                    "Kubelet never posted node status.",
                )
            }
        };
        condition.status = "Unknown".to_owned();
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message.to_owned());
        condition.last_transition_time = Some(Time(now));
        changed.push(condition);
    }
    if changed.is_empty() {
        Verdict::KnownSilent
    } else {
        Verdict::Silent(changed)
    }
}

/// The status of a condition; `None` when the node has not got it.
pub(crate) fn condition_status<'a>(node: &'a Node, type_: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|one| one.type_ == type_)
        .map(|one| one.status.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GRACE: Duration = Duration::from_secs(40);

    fn node(ready: &str) -> Node {
        serde_json::from_value(json!({ "status": { "conditions": [
            { "type": "Ready", "status": ready }, { "type": "MemoryPressure", "status": "False" },
        ]}}))
        .unwrap()
    }

    #[test]
    fn a_node_is_alive_until_the_grace_is_over() {
        let verdict = judge(
            &node("True"),
            Duration::from_secs(39),
            GRACE,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(verdict, Verdict::Alive(Duration::from_secs(1)));
    }

    #[test]
    fn what_a_silent_node_said_is_unknown() {
        let Verdict::Silent(conditions) = judge(&node("True"), GRACE, GRACE, Timestamp::UNIX_EPOCH)
        else {
            panic!("must be silent");
        };
        assert!(conditions.iter().all(|one| one.status == "Unknown"));
        let reason = |type_: &str| {
            conditions
                .iter()
                .find(|one| one.type_ == type_)
                .unwrap()
                .reason
                .clone()
                .unwrap()
        };
        assert_eq!(reason("Ready"), "NodeStatusUnknown");
        assert_eq!(reason("PIDPressure"), "NodeStatusNeverUpdated");
    }

    #[test]
    fn it_is_said_once() {
        let mut node = node("True");
        let Verdict::Silent(conditions) = judge(&node, GRACE, GRACE, Timestamp::UNIX_EPOCH) else {
            panic!("must be silent");
        };
        node.status.as_mut().unwrap().conditions = Some(conditions);
        assert_eq!(
            judge(&node, GRACE * 2, GRACE, Timestamp::UNIX_EPOCH),
            Verdict::KnownSilent
        );
    }
}
