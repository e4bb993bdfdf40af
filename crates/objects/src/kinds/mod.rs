//! Every kind that the API serves, one file each.

mod cluster_role;
mod cluster_role_binding;
mod config_map;
mod controller_revision;
mod cron_job;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod ingress;
pub mod ingress_class;
mod int_or_percent;
mod ip_address;
mod job;
mod lease;
mod limit_range;
mod local_subject_access_review;
mod namespace;
mod network_policy;
mod node;
pub mod pod;
mod pod_template;
mod rbac;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod review;
mod role;
mod role_binding;
mod secret;
mod self_subject_access_review;
mod self_subject_review;
mod self_subject_rules_review;
pub mod service;
mod service_account;
mod service_cidr;
mod stateful_set;
mod subject_access_review;
mod token_request;
mod token_review;
mod workload_status;

use std::sync::Arc;

use crate::kind::{Kind, Names};
use crate::rules::{Rules, Typed};
use crate::version::{Served, Version};

fn kind<R: Rules>() -> Arc<dyn Kind> {
    Arc::new(Typed::<R>::new())
}

/// A further version of a kind that is served in several.
fn version<V: Version>() -> Arc<dyn Kind> {
    Arc::new(Served::<V>::new())
}

/// All kinds. To add one: write its file, and a line here.
pub fn registry() -> Vec<Arc<dyn Kind>> {
    vec![
        kind::<config_map::ConfigMaps>(),
        kind::<endpoints::EndpointsKind>(),
        kind::<event::CoreEvents>(),
        kind::<limit_range::LimitRanges>(),
        kind::<namespace::Namespaces>(),
        kind::<node::Nodes>(),
        kind::<pod::Pods>(),
        kind::<replication_controller::ReplicationControllers>(),
        kind::<resource_quota::ResourceQuotas>(),
        kind::<secret::Secrets>(),
        kind::<service_account::ServiceAccounts>(),
        kind::<service::Services>(),
        kind::<deployment::Deployments>(),
        kind::<replica_set::ReplicaSets>(),
        kind::<daemon_set::DaemonSets>(),
        kind::<stateful_set::StatefulSets>(),
        kind::<controller_revision::ControllerRevisions>(),
        kind::<job::Jobs>(),
        kind::<cron_job::CronJobs>(),
        kind::<lease::Leases>(),
        kind::<endpoint_slice::EndpointSlices>(),
        kind::<cluster_role::ClusterRoles>(),
        kind::<cluster_role_binding::ClusterRoleBindings>(),
        kind::<role::Roles>(),
        kind::<role_binding::RoleBindings>(),
        kind::<custom_resource_definition::CustomResourceDefinitions>(),
        kind::<local_subject_access_review::LocalSubjectAccessReviews>(),
        kind::<self_subject_access_review::SelfSubjectAccessReviews>(),
        kind::<self_subject_review::SelfSubjectReviews>(),
        kind::<self_subject_rules_review::SelfSubjectRulesReviews>(),
        kind::<subject_access_review::SubjectAccessReviews>(),
        kind::<token_review::TokenReviews>(),
        kind::<ip_address::IpAddresses>(),
        kind::<service_cidr::ServiceCidrs>(),
        kind::<ingress::Ingresses>(),
        version::<ingress::v1beta1::Networking>(),
        version::<ingress::v1beta1::Extensions>(),
        kind::<ingress_class::IngressClasses>(),
        kind::<network_policy::NetworkPolicies>(),
        version::<event::events_v1::Events>(),
    ]
}

/// TokenRequest, which has no place of its own: it is sent to a ServiceAccount's `token` subresource.
pub fn token_request() -> Arc<dyn Kind> {
    kind::<token_request::TokenRequests>()
}

/// The kind with this group, version and plural name.
pub fn find(group: &str, version: &str, plural: &str) -> Option<Arc<dyn Kind>> {
    registry().into_iter().find(|kind| {
        let names = kind.names();
        names.group == group && names.version == version && names.plural == plural
    })
}

/// Whether objects that say this version and kind are stored as those of `names` are.
pub fn is_version_of(api_version: &str, kind: &str, names: &Names) -> bool {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kinds = registry();
    let storage = |group: &str, version: &str, kind: &str| {
        let mut kinds = kinds.iter();
        let found = kinds.find(|known| {
            let names = known.names();
            (names.group, names.version, names.kind) == (group, version, kind)
        });
        found.map(|found| found.storage())
    };
    let asked = storage(group, version, kind);
    asked.is_some() && asked == storage(names.group, names.version, names.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_is_named_as_its_type_is() {
        let mut paths = BTreeSet::new();
        for kind in registry() {
            let names = kind.names();
            let schema = kind.schema_name();
            assert!(
                schema.ends_with(&format!(".{}.{}", names.version, names.kind)),
                "{schema}"
            );
            assert!(paths.insert((names.group, names.version, names.plural)));
            assert_eq!(names.singular, names.kind.to_lowercase());
        }
    }

    #[test]
    fn every_table_has_a_cell_for_each_column() {
        for kind in registry() {
            let columns = kind.columns();
            let cells = kind.cells(&json!({"metadata": {"name": "x"}}), 0);
            assert_eq!(cells.len(), columns.len(), "{}", kind.names().kind);
            let names: Vec<&Value> = std::iter::zip(&columns, &cells)
                .filter(|(column, _)| column.format == "name")
                .map(|(_, cell)| cell)
                .collect();
            assert_eq!(names, ["x"], "{}", kind.names().kind);
            for column in &columns {
                assert!(
                    !column.description.is_empty(),
                    "{}: {}",
                    kind.names().kind,
                    column.name
                );
            }
        }
    }

    #[test]
    fn an_empty_object_is_defaulted_and_refused_without_a_panic() {
        for kind in registry() {
            // Questions have no names.
            if kind.is_review() {
                continue;
            }
            let names = kind.names();
            let group_version = if names.group.is_empty() {
                names.version.to_owned()
            } else {
                format!("{}/{}", names.group, names.version)
            };
            let object = json!({"apiVersion": group_version, "kind": names.kind});
            let mut object = kind.decode(object).expect(names.kind);
            kind.default(&mut object);
            kind.prepare_create(&mut object);
            let errors = kind.validate(&object);
            assert_eq!(errors[0].field, "metadata.name", "{}", names.kind);
        }
    }

    #[test]
    fn defaults_do_not_change_what_has_them() {
        for kind in registry() {
            let names = kind.names();
            let Ok(mut once) = kind.decode(sample(names.kind)) else {
                panic!("{} does not read its sample", names.kind);
            };
            kind.default(&mut once);
            let mut twice = once.clone();
            kind.default(&mut twice);
            assert_eq!(once, twice, "{}", names.kind);
        }
    }

    fn sample(kind: &str) -> Value {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let spec = match kind {
            "Pod" => template["spec"].clone(),
            "Deployment"
            | "ReplicaSet"
            | "ReplicationController"
            | "DaemonSet"
            | "StatefulSet"
            | "Job" => json!({"template": template}),
            "Service" => json!({"ports": [{"port": 80}]}),
            _ => json!({}),
        };
        json!({"metadata": {"name": "a"}, "spec": spec})
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(bytes in "[\\[\\]{}:,\"a-z0-9]{0,60}", index in 0usize..64) {
            let kinds = registry();
            let kind = &kinds[index % kinds.len()];
            if let Ok(value) = serde_json::from_str::<Value>(&bytes) {
                let _ = kind.decode(value.clone());
                let _ = kind.decode(json!({"metadata": value.clone(), "spec": value.clone()}));
                let _ = kind.validate(&json!({"spec": value}));
            }
        }
    }
}
