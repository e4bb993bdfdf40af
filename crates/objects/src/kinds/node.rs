//! Node: a machine that Pods run on.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeSystemInfo};
use serde_json::Value;

use crate::field::{FieldError, FieldErrors, one_of};
use crate::kind::{Column, Names};
use crate::metadata::wrong;
use crate::rules::Rules;
use crate::{names, table};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) struct Nodes;

impl Rules for Nodes {
    type Object = Node;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        categories: &[],
        namespaced: false,
    };
    const STATUS: bool = true;
    const STATUS_ON_CREATE: bool = true;

    fn validate(object: &Node) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let Some(spec) = &object.spec else {
            return errors;
        };
        let mut seen = BTreeSet::new();
        for (i, taint) in spec.taints.iter().flatten().enumerate() {
            let at = format!("spec.taints[{i}]");
            errors.extend(wrong(
                &format!("{at}.key"),
                taint.key.as_str(),
                names::qualified_name(&taint.key),
            ));
            let value = taint.value.as_deref().unwrap_or_default();
            errors.extend(wrong(
                &format!("{at}.value"),
                value,
                names::label_value(value),
            ));
            if taint.effect.is_empty() {
                errors.push(FieldError::required(format!("{at}.effect"), ""));
            } else {
                errors.extend(one_of(
                    &taint.effect,
                    &TAINT_EFFECTS,
                    &format!("{at}.effect"),
                ));
            }
            if !seen.insert((&taint.key, &taint.effect)) {
                errors.push(FieldError::duplicate(at, taint));
            }
        }
        for (i, cidr) in spec.pod_cidrs.iter().flatten().enumerate() {
            if cidr.parse::<ipnet::IpNet>().is_err() {
                errors.push(FieldError::invalid(
                    format!("spec.podCIDRs[{i}]"),
                    cidr,
                    "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                ));
            }
        }
        errors
    }

    fn validate_update(new: &Node, old: &Node) -> FieldErrors {
        let cidrs = |n: &Node| {
            n.spec
                .as_ref()
                .and_then(|s| s.pod_cidrs.clone())
                .unwrap_or_default()
        };
        let (new_cidrs, old_cidrs) = (cidrs(new), cidrs(old));
        if !old_cidrs.is_empty() && new_cidrs != old_cidrs {
            vec![FieldError::forbidden(
                "spec.podCIDRs",
                "node updates may not change podCIDR except from \"\" to valid",
            )]
        } else {
            FieldErrors::new()
        }
    }

    fn columns() -> Vec<Column> {
        let info = table::documented::<NodeSystemInfo>;
        let addresses = "List of addresses reachable to the node.";
        vec![
            table::name_column(),
            table::column("Status", "string", "The status of the node"),
            table::column("Roles", "string", "The roles of the node"),
            table::age_column(),
            table::column("Version", "string", info("kubeletVersion")),
            table::wide("Internal-IP", "string", addresses),
            table::wide("External-IP", "string", addresses),
            table::wide("OS-Image", "string", info("osImage")),
            table::wide("Kernel-Version", "string", info("kernelVersion")),
            table::wide(
                "Container-Runtime",
                "string",
                info("containerRuntimeVersion"),
            ),
        ]
    }

    fn cells(object: &Node, now: i64) -> Vec<Value> {
        let info = object
            .status
            .as_ref()
            .and_then(|s| s.node_info.clone())
            .unwrap_or_default();
        let or_unknown = |s: String| {
            if s.is_empty() {
                table::UNKNOWN.to_owned()
            } else {
                s
            }
        };
        vec![
            table::name(&object.metadata),
            Value::from(status(object)),
            Value::from(table::or_none(roles(object))),
            table::age(&object.metadata, now),
            Value::from(info.kubelet_version),
            Value::from(table::or_none(address(object, "InternalIP"))),
            Value::from(table::or_none(address(object, "ExternalIP"))),
            Value::from(or_unknown(info.os_image)),
            Value::from(or_unknown(info.kernel_version)),
            Value::from(or_unknown(info.container_runtime_version)),
        ]
    }

    fn fields(object: &Node) -> Vec<(&'static str, String)> {
        let unschedulable = object.spec.as_ref().and_then(|s| s.unschedulable);
        vec![(
            "spec.unschedulable",
            unschedulable.unwrap_or(false).to_string(),
        )]
    }
}

fn status(object: &Node) -> String {
    let conditions = object.status.as_ref().and_then(|s| s.conditions.as_deref());
    let ready = conditions
        .unwrap_or_default()
        .iter()
        .find(|c| c.type_ == "Ready");
    let mut words = vec![match ready {
        Some(condition) if condition.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if object.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(object: &Node) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in object.metadata.labels.iter().flatten() {
        if let Some(role) = key.strip_prefix(ROLE_PREFIX).filter(|r| !r.is_empty()) {
            roles.insert(role);
        } else if key == ROLE_LABEL && !value.is_empty() {
            roles.insert(value);
        }
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address(object: &Node, kind: &str) -> String {
    let addresses = object.status.as_ref().and_then(|s| s.addresses.as_deref());
    let found = addresses
        .unwrap_or_default()
        .iter()
        .find(|a| a.type_ == kind);
    found.map(|a| a.address.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::{Value, json};

    #[test]
    fn a_row_says_whether_the_node_is_ready_and_taking_pods() {
        let kind = kinds::find("", "v1", "nodes").expect("nodes");
        let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.87.0.2"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"}}});
        assert_eq!(
            Value::Array(kind.cells(&node, 0)),
            json!([
                "n",
                "Ready,SchedulingDisabled",
                "worker",
                "<unknown>",
                "v1.36.0",
                "10.87.0.2",
                "<none>",
                "Debian",
                "<unknown>",
                "<unknown>"
            ])
        );
        assert_eq!(
            kind.fields(&node),
            [("spec.unschedulable", "true".to_owned())]
        );
    }

    #[test]
    fn the_status_that_the_agent_registers_with_is_kept() {
        let kind = kinds::find("", "v1", "nodes").expect("nodes");
        let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"capacity": {"pods": "110"}}});
        kind.prepare_create(&mut node);
        assert_eq!(node["status"]["capacity"]["pods"], "110");
    }
}
