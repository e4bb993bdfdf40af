//! Which of the nodes that can run a Pod should?

use std::cmp::Reverse;

use super::demand::Demand;
use super::filter;
use super::node::Offer;
use super::state::Load;
use crate::taint::{self, PREFER_NO_SCHEDULE};

/// Smaller is better: first what the Pod prefers, then as few Pods of its group as possible, then as few Pods as
/// possible, then the name, so that the choice is the same every time.
pub(crate) fn rank<'a>(demand: &Demand, offer: &'a Offer, load: &Load) -> impl Ord + use<'a> {
    let group = load.groups.get(&demand.group).copied().unwrap_or(0);
    (
        unwelcome(demand, offer),
        Reverse(preference(demand, offer)),
        group,
        load.pods,
        offer.name.as_str(),
    )
}

/// Taints that ask to stay away and that the Pod does not tolerate.
fn unwelcome(demand: &Demand, offer: &Offer) -> usize {
    let soft = offer
        .taints
        .iter()
        .filter(|taint| taint.effect == PREFER_NO_SCHEDULE);
    soft.filter(|taint| {
        !demand
            .tolerations
            .iter()
            .any(|toleration| taint::tolerates(toleration, taint))
    })
    .count()
}

/// The sum of the weights of the preferred node affinities that the node meets.
fn preference(demand: &Demand, offer: &Offer) -> i64 {
    let preferred = demand.affinity.node_affinity.as_ref().and_then(|affinity| {
        affinity
            .preferred_during_scheduling_ignored_during_execution
            .as_deref()
    });
    let met = preferred
        .into_iter()
        .flatten()
        .filter(|term| filter::matches_term(&term.preference, offer));
    met.map(|term| i64::from(term.weight)).sum()
}
