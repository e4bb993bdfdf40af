//! Service: a stable name and address for Pods. The addresses and node ports themselves are given out by the API
//! server's admission; here is what can be said of a Service by itself.

mod allocated;
pub mod clusters;
mod row;
mod validate;
mod warnings;

use k8s_openapi::api::core::v1::{
    ClientIPConfig, LoadBalancerStatus, Service, ServiceSpec, ServiceStatus, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::field::FieldErrors;
use crate::kind::{Column, Names};
use crate::names::NameRule;
use crate::rules::{Judged, Rules};

/// How long a client stays with its Pod unless said otherwise, in seconds: three hours.
const AFFINITY_SECONDS: i32 = 10_800;

pub(super) struct Services;

impl Rules for Services {
    type Object = Service;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        namespaced: true,
    };
    const NAME: NameRule = NameRule::Label;
    const STATUS: bool = true;

    fn default(object: &mut Service) {
        let spec = object.spec.get_or_insert_with(ServiceSpec::default);
        let affinity = spec
            .session_affinity
            .get_or_insert_with(|| "None".to_owned());
        match affinity.as_str() {
            "None" => spec.session_affinity_config = None,
            "ClientIP" => {
                let config = spec
                    .session_affinity_config
                    .get_or_insert_with(SessionAffinityConfig::default);
                let client = config.client_ip.get_or_insert_with(ClientIPConfig::default);
                client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
            }
            _ => {}
        }
        let kind = spec
            .type_
            .get_or_insert_with(|| "ClusterIP".to_owned())
            .clone();
        for port in spec.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
            let unset = match &port.target_port {
                None => true,
                Some(IntOrString::Int(number)) => *number == 0,
                Some(IntOrString::String(name)) => name.is_empty(),
            };
            if unset {
                port.target_port = Some(IntOrString::Int(port.port));
            }
        }
        if externally_accessible(spec) {
            spec.external_traffic_policy
                .get_or_insert_with(|| "Cluster".to_owned());
        }
        if has_cluster_type(spec) {
            spec.internal_traffic_policy
                .get_or_insert_with(|| "Cluster".to_owned());
        }
        if kind == "LoadBalancer" {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
        }
        let balancer = object
            .status
            .as_mut()
            .filter(|_| kind == "LoadBalancer")
            .and_then(|s| s.load_balancer.as_mut());
        for ingress in balancer
            .and_then(|b| b.ingress.as_mut())
            .into_iter()
            .flatten()
        {
            if ingress.ip.as_ref().is_some_and(|ip| !ip.is_empty()) {
                ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
            }
        }
    }

    fn prepare_create(object: &mut Service) {
        if let Some(spec) = &mut object.spec {
            allocated::align_new(spec);
        }
        object.status = Some(ServiceStatus {
            load_balancer: Some(LoadBalancerStatus::default()),
            conditions: None,
        });
    }

    fn prepare_update(new: &mut Service, old: &Service) {
        let (Some(spec), Some(old_spec)) = (new.spec.as_mut(), old.spec.as_ref()) else {
            return;
        };
        allocated::carry_over(spec, old_spec);
        allocated::align_changed(spec, old_spec);
        allocated::drop_what_the_type_has_not(spec, old_spec);
        if !is_type(spec, "LoadBalancer")
            && let Some(status) = &mut new.status
        {
            status.load_balancer = Some(LoadBalancerStatus::default());
        }
    }

    fn validate(object: &Service) -> FieldErrors {
        validate::service(object, None)
    }

    fn validate_update(new: &Service, old: &Service) -> FieldErrors {
        validate::change(new, old)
    }

    fn judge_change(new: &Service, old: &Service) -> Option<Judged> {
        Some(Judged {
            of_change: validate::change(new, old),
            of_object: validate::service(new, Some(old)),
        })
    }

    fn validate_status(new: &Service, old: &Service) -> FieldErrors {
        validate::status(new, old)
    }

    fn warnings(
        object: &Service,
        _written: &Value,
        _old: Option<(&Service, &Value)>,
    ) -> Vec<String> {
        warnings::warnings(object)
    }

    fn columns() -> Vec<Column> {
        row::columns()
    }

    fn cells(object: &Service, now: i64) -> Vec<Value> {
        row::cells(object, now)
    }

    fn fields(object: &Service) -> Vec<(&'static str, String)> {
        let spec = object.spec.as_ref();
        vec![
            (
                "spec.clusterIP",
                spec.and_then(|s| s.cluster_ip.clone()).unwrap_or_default(),
            ),
            (
                "spec.type",
                spec.and_then(|s| s.type_.clone()).unwrap_or_default(),
            ),
        ]
    }
}

fn is_type(spec: &ServiceSpec, kind: &str) -> bool {
    spec.type_.as_deref() == Some(kind)
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ips
        .as_ref()
        .is_some_and(|ips| ips.len() == 1 && ips[0] == "None")
}

/// Whether traffic from outside reaches it: only then has `externalTrafficPolicy` a meaning.
fn externally_accessible(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort" | "LoadBalancer") => true,
        Some("ClusterIP") => spec
            .external_ips
            .as_ref()
            .is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}

/// Whether the nodes must tell the load balancer which of them have endpoints.
fn needs_health_check(spec: &ServiceSpec) -> bool {
    is_type(spec, "LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Whether the type is one of those that have addresses within the cluster.
fn has_cluster_type(spec: &ServiceSpec) -> bool {
    matches!(
        spec.type_.as_deref(),
        Some("ClusterIP" | "NodePort" | "LoadBalancer")
    )
}

#[cfg(test)]
mod tests;
