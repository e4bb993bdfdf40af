//! An Ingress in the table of `kubectl get ingresses`.
//!
//! Source: `printIngress` in `pkg/printers/internalversion`.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{Ingress, IngressRule, IngressStatus};
use serde_json::Value;

use crate::kind::Column;
use crate::table;

/// So many hosts a row shows.
const HOSTS: usize = 3;

pub(super) fn columns() -> Vec<Column> {
    let text = |name, description| table::column(name, "string", description);
    vec![
        table::name_column(),
        text(
            "Class",
            "The name of the IngressClass resource that should be used for additional configuration",
        ),
        text(
            "Hosts",
            "Hosts that incoming requests are matched against before the ingress rule",
        ),
        text(
            "Address",
            "Address is a list containing ingress points for the load-balancer",
        ),
        text("Ports", "Ports of TLS configurations that open"),
        table::age_column(),
    ]
}

pub(super) fn cells(object: &Ingress, now: i64) -> Vec<Value> {
    let spec = object.spec.clone().unwrap_or_default();
    let class = spec.ingress_class_name;
    let tls = spec.tls.is_some_and(|tls| !tls.is_empty());
    vec![
        table::name(&object.metadata),
        Value::from(class.unwrap_or_else(|| table::NONE.to_owned())),
        Value::from(hosts(spec.rules.as_deref().unwrap_or_default())),
        Value::from(addresses(object.status.as_ref())),
        Value::from(if tls { "80, 443" } else { "80" }),
        table::age(&object.metadata, now),
    ]
}

fn hosts(rules: &[IngressRule]) -> String {
    let mut list: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        // As Kubernetes counts: a rule after the third host, whether it has a host or not.
        more |= list.len() == HOSTS;
        let host = rule.host.as_deref().unwrap_or_default();
        if !more && !host.is_empty() {
            list.push(host);
        }
    }
    match (list.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, false) => list.join(","),
        (false, true) => format!("{} + {} more...", list.join(","), rules.len() - HOSTS),
    }
}

fn addresses(status: Option<&IngressStatus>) -> String {
    let balancer = status.and_then(|s| s.load_balancer.as_ref());
    let points = balancer.and_then(|b| b.ingress.as_deref());
    let names = points.unwrap_or_default().iter().filter_map(|point| {
        let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        given(&point.ip).or_else(|| given(&point.hostname))
    });
    let names: BTreeSet<String> = names.collect();
    names.into_iter().collect::<Vec<_>>().join(",")
}
