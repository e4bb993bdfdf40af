//! What a node has to offer.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};

use super::demand::{self, Amounts};
use crate::object;
use crate::taint::{NO_SCHEDULE, NOT_READY, UNSCHEDULABLE};

/// The part of a Node that bears on scheduling.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Offer {
    /// Its name.
    pub(crate) name: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its taints, and those that follow from its state though nobody has written them yet.
    pub(crate) taints: Vec<Taint>,
    /// What Pods may use in all.
    pub(crate) allocatable: Amounts,
}

impl Offer {
    /// Reads a Node. The error names an amount that is not one.
    pub(crate) fn of(node: &Node) -> Result<Self, String> {
        let status = node.status.as_ref();
        let mut taints = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.clone())
            .unwrap_or_default();
        let mut imply = |key: &str| {
            if !taints
                .iter()
                .any(|taint| taint.key == key && taint.effect == NO_SCHEDULE)
            {
                taints.push(Taint {
                    key: key.to_owned(),
                    effect: NO_SCHEDULE.to_owned(),
                    ..Taint::default()
                });
            }
        };
        if node
            .spec
            .as_ref()
            .and_then(|spec| spec.unschedulable)
            .unwrap_or_default()
        {
            imply(UNSCHEDULABLE);
        }
        let mut conditions = status
            .and_then(|status| status.conditions.as_deref())
            .into_iter()
            .flatten();
        if !conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            imply(NOT_READY);
        }
        let resources =
            status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        Ok(Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: object::labels_of(&node.metadata).clone(),
            taints,
            allocatable: demand::amounts(resources)?,
        })
    }
}
