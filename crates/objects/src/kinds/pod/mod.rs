//! Pod: containers that share a network and a life.

pub(super) mod defaults;
pub(super) mod internal;
mod qos;
mod row;
mod scheduling;
mod security;
mod update;
pub(super) mod validate;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus};
use serde_json::Value;

use crate::field::FieldErrors;
use crate::kind::{Column, Names};
use crate::rules::Rules;

pub use qos::qos_class;

/// How long a deleted Pod may take to end, unless it says otherwise, in seconds.
const GRACE_SECONDS: i64 = 30;
pub(super) struct Pods;

impl Rules for Pods {
    type Object = Pod;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        namespaced: true,
    };
    const STATUS: bool = true;
    const GENERATION: bool = true;

    fn default(object: &mut Pod) {
        if let Some(spec) = &mut object.spec {
            defaults::default_pod(spec);
        }
    }

    fn prepare_create(object: &mut Pod) {
        let qos = object.spec.as_ref().map(qos_class);
        object.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: qos.map(str::to_owned),
            conditions: gated(object.spec.as_ref()),
            ..PodStatus::default()
        });
    }

    fn validate(object: &Pod) -> FieldErrors {
        let spec = object.spec.clone().unwrap_or_default();
        validate::validate_spec(&spec, "spec")
    }

    fn validate_update(new: &Pod, old: &Pod) -> FieldErrors {
        update::validate(new, old)
    }

    fn columns() -> Vec<Column> {
        row::columns()
    }

    fn cells(object: &Pod, now: i64) -> Vec<Value> {
        row::cells(object, now)
    }

    fn fields(object: &Pod) -> Vec<(&'static str, String)> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        vec![
            ("spec.nodeName", spec.node_name.unwrap_or_default()),
            (
                "spec.restartPolicy",
                spec.restart_policy.unwrap_or_default(),
            ),
            (
                "spec.schedulerName",
                spec.scheduler_name.unwrap_or_default(),
            ),
            (
                "spec.serviceAccountName",
                spec.service_account_name.unwrap_or_default(),
            ),
            (
                "spec.hostNetwork",
                spec.host_network.unwrap_or(false).to_string(),
            ),
            ("status.phase", status.phase.unwrap_or_default()),
            ("status.podIP", status.pod_ip.unwrap_or_default()),
            (
                "status.nominatedNodeName",
                status.nominated_node_name.unwrap_or_default(),
            ),
        ]
    }

    fn default_grace_seconds(object: &Pod) -> Option<i64> {
        let own = object
            .spec
            .as_ref()
            .and_then(|s| s.termination_grace_period_seconds);
        Some(own.unwrap_or(GRACE_SECONDS))
    }
}

/// A Pod that nobody may schedule yet says so from the first. Source: `applySchedulingGatedCondition`.
fn gated(spec: Option<&PodSpec>) -> Option<Vec<PodCondition>> {
    let gates = spec.and_then(|spec| spec.scheduling_gates.as_ref());
    gates.filter(|gates| !gates.is_empty())?;
    Some(vec![PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        ..PodCondition::default()
    }])
}

#[cfg(test)]
mod tests;
