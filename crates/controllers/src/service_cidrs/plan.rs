//! What is to be done about a ServiceCIDR. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::object;

/// Keeps a ServiceCIDR until this controller lets it go.
pub(super) const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Type of the condition.
pub(super) const READY: &str = "Ready";

/// One thing to do; the change that it makes brings the ServiceCIDR back for the next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It is as it should be.
    Nothing,
    /// It must not go without this controller knowing.
    AddFinalizer,
    /// It can be used, and says so.
    Ready,
    /// It is to go, but Services have addresses of it.
    Blocked,
    /// Nothing needs it any more.
    LetGo,
}

/// What is to be done. `others` are the ranges of all other ServiceCIDRs that stay; `in_use` tells of an address that
/// is given out, out of those that are.
pub(super) fn plan(cidr: &ServiceCIDR, others: &[IpNet], in_use: &[IpAddr]) -> Action {
    let meta = &cidr.metadata;
    let has_finalizer = object::has_finalizer(meta, FINALIZER);
    if !object::is_deleting(meta) {
        return match (has_finalizer, says(cidr, "True")) {
            (false, _) => Action::AddFinalizer,
            (true, false) => Action::Ready,
            (true, true) => Action::Nothing,
        };
    }
    if !has_finalizer {
        return Action::Nothing;
    }
    if !is_needed(&ranges(cidr), others, in_use) {
        return Action::LetGo;
    }
    if says(cidr, "False") {
        Action::Nothing
    } else {
        Action::Blocked
    }
}

/// Whether an address would be in no range without these.
fn is_needed(ranges: &[IpNet], others: &[IpNet], in_use: &[IpAddr]) -> bool {
    let covered = |range: &IpNet| others.iter().any(|other| other.contains(range));
    let open: Vec<&IpNet> = ranges.iter().filter(|range| !covered(range)).collect();
    in_use.iter().any(|ip| {
        open.iter().any(|range| is_usable(range, *ip))
            && !others.iter().any(|other| is_usable(other, *ip))
    })
}

/// The ranges of a ServiceCIDR.
pub(super) fn ranges(cidr: &ServiceCIDR) -> Vec<IpNet> {
    let cidrs = cidr
        .spec
        .iter()
        .flat_map(|spec| spec.cidrs.iter().flatten());
    cidrs.filter_map(|cidr| cidr.parse().ok()).collect()
}

/// Neither the network's own address nor, in IPv4, that of all hosts is a Service's.
pub(super) fn is_usable(range: &IpNet, ip: IpAddr) -> bool {
    let broadcast = matches!(range, IpNet::V4(v4) if IpAddr::V4(v4.broadcast()) == ip);
    range.contains(&ip) && ip != range.network() && !broadcast
}

/// The condition that an action sets.
pub(super) fn condition(action: &Action) -> Option<(&'static str, &'static str, &'static str)> {
    match action {
        Action::Ready => Some(("True", "", "Kubernetes Service CIDR is ready")),
        Action::Blocked => Some((
            "False",
            "Terminating",
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
        )),
        _ => None,
    }
}

fn says(cidr: &ServiceCIDR, status: &str) -> bool {
    conditions(cidr)
        .iter()
        .any(|one| one.type_ == READY && one.status == status)
}

/// The conditions that it has.
pub(super) fn conditions(cidr: &ServiceCIDR) -> &[Condition] {
    let status = cidr.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cidr(metadata: Value, status: Value) -> ServiceCIDR {
        serde_json::from_value(json!({
            "metadata": metadata, "spec": { "cidrs": ["10.97.0.0/24", "fd00:97::/112"] }, "status": status,
        }))
        .unwrap()
    }

    fn ready(status: &str) -> Value {
        json!({ "conditions": [{ "type": READY, "status": status, "reason": "", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }] })
    }

    fn deleting(status: &str) -> ServiceCIDR {
        let metadata = json!({ "name": "more", "finalizers": [FINALIZER],
            "deletionTimestamp": "2026-01-01T00:00:00Z" });
        cidr(metadata, ready(status))
    }

    #[test]
    fn a_new_one_gets_its_finalizer_and_then_becomes_ready() {
        let with = json!({ "name": "more", "finalizers": [FINALIZER] });
        let table = [
            (json!({ "name": "more" }), json!({}), Action::AddFinalizer),
            (with.clone(), json!({}), Action::Ready),
            (with.clone(), ready("False"), Action::Ready),
            (with, ready("True"), Action::Nothing),
        ];
        for (metadata, status, action) in table {
            assert_eq!(plan(&cidr(metadata, status), &[], &[]), action);
        }
    }

    #[test]
    fn one_that_goes_stays_while_an_address_is_in_no_other() {
        let ip: IpAddr = "10.97.0.9".parse().unwrap();
        let six: IpAddr = "fd00:97::9".parse().unwrap();
        let elsewhere: IpAddr = "10.96.0.9".parse().unwrap();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let table = [
            (vec![], vec![], Action::LetGo),
            (vec![elsewhere], vec![], Action::LetGo),
            (vec![ip], vec![], Action::Blocked),
            (vec![six], vec![net("10.97.0.0/16")], Action::Blocked),
            (vec![ip], vec![net("10.97.0.0/16")], Action::LetGo),
            (vec![ip], vec![net("10.97.0.8/29")], Action::LetGo),
            // The address of the smaller network itself is nobody's there.
            (vec![ip], vec![net("10.97.0.9/32")], Action::Blocked),
        ];
        for (in_use, others, action) in table {
            assert_eq!(
                plan(&deleting("True"), &others, &in_use),
                action,
                "{in_use:?} {others:?}"
            );
        }
        assert_eq!(
            plan(&deleting("False"), &[], &[ip]),
            Action::Nothing,
            "it says so already"
        );
    }
}
