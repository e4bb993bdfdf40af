//! ClusterRoles that are the sum of others: their rules follow those of the roles that they select.
//!
//! Source of the rules: `pkg/controller/clusterroleaggregation`.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::ListParams;
use seaway_objects::selector::LabelSelector;
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::inventory::Inventory;
use crate::object;
use crate::queue::{Next, Queue};

const NAME: &str = "clusterrole-aggregation-controller";

/// Keeps aggregated ClusterRoles.
pub(crate) struct Aggregation {
    cluster: Arc<Cluster>,
    /// There is one piece of work: to look at all roles.
    queue: Queue<()>,
}

impl Aggregation {
    /// Listens to the inventory; [`Aggregation::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>, inventory: &Arc<Inventory>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
        });
        let queue = this.queue.clone();
        inventory.on_object(move |sighting| {
            if sighting.resource.kind == "ClusterRole"
                && sighting.resource.group == "rbac.authorization.k8s.io"
            {
                queue.add(());
            }
        });
        this
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.clone();
        queue
            .run(NAME, 1, shutdown, |()| {
                let this = Arc::clone(&self);
                async move { this.reconcile().await }
            })
            .await;
    }

    async fn reconcile(&self) -> Result<Next, Error> {
        let api: Api<ClusterRole> = Api::all(self.cluster.client.clone());
        let roles = api
            .list(&ListParams::default())
            .await
            .during("list", "ClusterRoles")?
            .items;
        for role in &roles {
            let Some(rules) = aggregated(role, &roles) else {
                continue;
            };
            if role.rules.clone().unwrap_or_default() == rules {
                continue;
            }
            let name = role.metadata.name.clone().unwrap_or_default();
            let changed = ClusterRole {
                rules: Some(rules),
                ..role.clone()
            };
            or_gone(
                api.replace(&name, &cluster::post(), &changed)
                    .await
                    .during("aggregate ClusterRole", &name),
            )?;
        }
        Ok(Next::Done)
    }
}

/// The rules that the role should have; `None` if it is no sum.
fn aggregated(role: &ClusterRole, all: &[ClusterRole]) -> Option<Vec<PolicyRule>> {
    let aggregation = role.aggregation_rule.as_ref()?;
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        let Ok(selector) = LabelSelector::from_object(Some(selector)) else {
            continue;
        };
        let mut selected: Vec<&ClusterRole> = all
            .iter()
            .filter(|other| other.metadata.name != role.metadata.name)
            .filter(|other| selector.matches(object::labels_of(&other.metadata)))
            .collect();
        selected.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        for rule in selected
            .iter()
            .flat_map(|other| other.rules.iter().flatten())
        {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sum_has_each_rule_of_its_parts_once_and_in_order() {
        let role = |name: &str, verbs: &[&str]| -> ClusterRole {
            let rules: Vec<_> = verbs.iter().map(|verb| json!({"verbs": [verb]})).collect();
            serde_json::from_value(
                json!({"metadata": {"name": name, "labels": {"part": "yes"}}, "rules": rules}),
            )
            .unwrap()
        };
        let sum: ClusterRole = serde_json::from_value(json!({"metadata": {"name": "sum", "labels": {"part": "yes"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]}, "rules": [{"verbs": ["old"]}]}))
        .unwrap();
        let all = [
            role("b", &["list", "get"]),
            role("a", &["get"]),
            sum.clone(),
        ];
        let verbs: Vec<String> = aggregated(&sum, &all)
            .unwrap()
            .into_iter()
            .flat_map(|rule| rule.verbs)
            .collect();
        assert_eq!(verbs, ["get", "list"]);
        assert_eq!(aggregated(&all[0], &all), None);
    }
}
