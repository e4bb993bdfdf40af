//! The cluster's Services as far as containers are told of them in their environment: watched once per node.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::env::{ServiceEndpoint, service_variables};

/// Where the API's own Service is, of which every container is told.
const MASTER_NAMESPACE: &str = "default";
const MASTER_SERVICE: &str = "kubernetes";

type Table = BTreeMap<String, BTreeMap<String, ServiceEndpoint>>;

/// The Services by namespace and name. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Services {
    table: Arc<RwLock<Table>>,
    synced: watch::Receiver<bool>,
}

impl Services {
    /// Starts the watch.
    pub fn start(client: Client, shutdown: CancellationToken) -> Self {
        let table = Arc::new(RwLock::new(Table::new()));
        let (synced_sender, synced) = watch::channel(false);
        let writer = table.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follow(client, writer, synced_sender) => {}
            }
        });
        Services { table, synced }
    }

    /// Waits until all Services were read once: a container that starts earlier would miss some for good.
    pub async fn ready(&self) {
        // An error means that the watch has ended, and with it the agent.
        let _ = self.synced.clone().wait_for(|synced| *synced).await;
    }

    /// The variables for containers of a namespace. `links` is `enableServiceLinks`.
    pub fn variables(&self, namespace: &str, links: bool) -> BTreeMap<String, String> {
        let table = self.table.read();
        let master = table
            .get(MASTER_NAMESPACE)
            .and_then(|services| services.get(MASTER_SERVICE));
        let own = table
            .get(namespace)
            .filter(|_| links)
            .into_iter()
            .flat_map(BTreeMap::values);
        // A Service of the namespace called `kubernetes` comes later and wins.
        service_variables(master.into_iter().chain(own))
    }
}

async fn follow(client: Client, table: Arc<RwLock<Table>>, synced: watch::Sender<bool>) {
    let mut events = std::pin::pin!(
        watcher(Api::<Service>::all(client), watcher::Config::default()).default_backoff()
    );
    let mut fresh = Table::new();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => fresh = Table::new(),
            Ok(Some(watcher::Event::InitApply(service))) => apply(&mut fresh, &service),
            Ok(Some(watcher::Event::InitDone)) => {
                *table.write() = std::mem::take(&mut fresh);
                synced.send_replace(true);
            }
            Ok(Some(watcher::Event::Apply(service))) => apply(&mut table.write(), &service),
            Ok(Some(watcher::Event::Delete(service))) => remove(&mut table.write(), &service),
            Ok(None) => return,
            Err(error) => warn!(%error, "cannot watch Services; trying again"),
        }
    }
}

fn apply(table: &mut Table, service: &Service) {
    match ServiceEndpoint::of(service) {
        Some(endpoint) => {
            let namespace = service.metadata.namespace.clone().unwrap_or_default();
            table
                .entry(namespace)
                .or_default()
                .insert(endpoint.name.clone(), endpoint);
        }
        None => remove(table, service),
    }
}

fn remove(table: &mut Table, service: &Service) {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    if let Some(services) = table.get_mut(namespace) {
        services.remove(name);
        if services.is_empty() {
            table.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn services(list: &[(&str, &str)]) -> Services {
        let mut table = Table::new();
        for (namespace, name) in list {
            let service = json!({"metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}});
            apply(&mut table, &serde_json::from_value(service).unwrap());
        }
        Services {
            table: Arc::new(RwLock::new(table)),
            synced: watch::channel(true).1,
        }
    }

    fn hosts(services: &Services, namespace: &str, links: bool) -> Vec<String> {
        let names = services.variables(namespace, links).into_keys();
        names
            .filter(|name| name.ends_with("_SERVICE_HOST"))
            .collect()
    }

    #[test]
    fn a_container_is_told_of_its_own_namespace_and_of_the_api() {
        let services = services(&[
            ("default", "kubernetes"),
            ("default", "other"),
            ("shop", "web"),
        ]);
        assert_eq!(
            hosts(&services, "shop", true),
            ["KUBERNETES_SERVICE_HOST", "WEB_SERVICE_HOST"]
        );
        assert_eq!(hosts(&services, "shop", false), ["KUBERNETES_SERVICE_HOST"]);
        assert_eq!(
            hosts(&services, "default", true),
            ["KUBERNETES_SERVICE_HOST", "OTHER_SERVICE_HOST"]
        );
    }

    #[test]
    fn a_removed_service_is_forgotten() {
        let services = services(&[("shop", "web")]);
        let gone = json!({"metadata": {"name": "web", "namespace": "shop"}});
        remove(
            &mut services.table.write(),
            &serde_json::from_value(gone).unwrap(),
        );
        assert!(services.table.read().is_empty());
    }
}
