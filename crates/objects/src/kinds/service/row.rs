//! A Service in the table of `kubectl get services`.
//!
//! Source: `printService` in `pkg/printers/internalversion`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};
use serde_json::Value;

use crate::kind::Column;
use crate::table;

pub(super) fn columns() -> Vec<Column> {
    let text = table::documented::<ServiceSpec>;
    vec![
        table::name_column(),
        table::column("Type", "string", text("type")),
        table::column("Cluster-IP", "string", text("clusterIP")),
        table::column("External-IP", "string", text("externalIPs")),
        table::column("Port(s)", "string", text("ports")),
        table::age_column(),
        table::wide("Selector", "string", text("selector")),
    ]
}

pub(super) fn cells(object: &Service, now: i64) -> Vec<Value> {
    let spec = object.spec.clone().unwrap_or_default();
    vec![
        table::name(&object.metadata),
        Value::from(spec.type_.clone().unwrap_or_default()),
        Value::from(table::or_none(
            spec.cluster_ips
                .as_ref()
                .and_then(|ips| ips.first().cloned())
                .unwrap_or_default(),
        )),
        Value::from(external_addresses(&spec, object.status.as_ref())),
        Value::from(ports_text(&spec)),
        table::age(&object.metadata, now),
        Value::from(table::labels(spec.selector.as_ref())),
    ]
}

fn external_addresses(spec: &ServiceSpec, status: Option<&ServiceStatus>) -> String {
    let external = spec.external_ips.clone().unwrap_or_default();
    match spec.type_.as_deref().unwrap_or_default() {
        "ClusterIP" | "NodePort" => table::or_none(external.join(",")),
        "LoadBalancer" => {
            let ingress = status
                .and_then(|s| s.load_balancer.as_ref())
                .and_then(|b| b.ingress.as_deref());
            let given = ingress.unwrap_or_default().iter();
            let mut all: Vec<String> = given
                .filter_map(|i| {
                    i.ip.clone()
                        .filter(|ip| !ip.is_empty())
                        .or_else(|| i.hostname.clone())
                })
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect();
            all.extend(external);
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        "ExternalName" => spec.external_name.clone().unwrap_or_default(),
        _ => table::UNKNOWN.to_owned(),
    }
}

fn ports_text(spec: &ServiceSpec) -> String {
    let list = spec.ports.iter().flatten().map(|port| {
        let protocol = port.protocol.as_deref().unwrap_or_default();
        match port.node_port.unwrap_or(0) {
            0 => format!("{}/{protocol}", port.port),
            node_port => format!("{}:{node_port}/{protocol}", port.port),
        }
    });
    table::or_none(list.collect::<Vec<_>>().join(","))
}
