//! An API server, the controllers, and played nodes.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use seaway_apiserver::pki::{Pki, kubeconfig};
use seaway_apiserver::{Server, Tuning as ServerTuning};
use seaway_controllers::{Config, Tuning};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster; all of it ends when this is dropped.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) root_ca: String,
    _directory: TempDir,
    _stop: DropGuard,
}

impl Cluster {
    /// With nodes `node-1` to `node-N`.
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, Tuning::default()).await
    }

    pub(crate) async fn start_with(nodes: usize, tuning: Tuning) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::ensure(
            &directory.path().join("pki"),
            &["127.0.0.1".parse().unwrap()],
            &[],
        )
        .unwrap();
        let config = seaway_apiserver::Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            store: directory.path().join("store.db"),
            pki: pki.clone(),
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            node_port_range: 30000..=32767,
            advertise: "10.87.0.1:6443".parse().unwrap(),
        };
        let shutdown = CancellationToken::new();
        let server = Server::start(config, &ServerTuning::default(), shutdown.clone())
            .await
            .unwrap();
        let address = server.addresses()[0];
        tokio::spawn(server.run());

        let (certificate, key) = pki.admin.read().unwrap();
        let root_ca = pki.authority_pem().unwrap();
        let text = kubeconfig(
            &format!("https://{address}"),
            &root_ca,
            &certificate,
            &key,
            "test",
        );
        let file = Kubeconfig::from_yaml(&text).unwrap();
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();

        let settings = Config {
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            node_cidr_mask: 24,
            root_ca: root_ca.clone(),
            scheduler: true,
        };
        let (theirs, stop) = (client.clone(), shutdown.clone());
        tokio::spawn(async move {
            seaway_controllers::run_with(theirs, settings, &tuning, stop)
                .await
                .unwrap();
        });
        let cluster = Self {
            client,
            root_ca,
            _directory: directory,
            _stop: shutdown.clone().drop_guard(),
        };
        tokio::spawn(play_kubelets(cluster.client.clone(), shutdown));
        for number in 1..=nodes {
            cluster.add_node(&format!("node-{number}")).await;
        }
        cluster
    }

    /// A node that is ready and has room.
    pub(crate) async fn add_node(&self, name: &str) {
        self.create_global::<Node>(json!({ "metadata": { "name": name } }))
            .await;
        self.report_ready(name).await;
    }

    /// What a kubelet says when it is well.
    pub(crate) async fn report_ready(&self, node: &str) {
        let now = jiff::Timestamp::now().to_string();
        let status = json!({ "status": {
            "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": now, "lastTransitionTime": now }],
        }});
        let api: Api<Node> = Api::all(self.client.clone());
        api.patch_status(node, &PatchParams::default(), &Patch::Strategic(&status))
            .await
            .unwrap();
    }

    /// The API of a kind in `default`.
    pub(crate) fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
        &self,
    ) -> Api<K> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates an object in `default`.
    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        self.api::<K>()
            .create(
                &PostParams::default(),
                &serde_json::from_value(object).unwrap(),
            )
            .await
            .unwrap()
    }

    /// Creates a cluster-wide object.
    pub(crate) async fn create_global<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let api: Api<K> = Api::all(self.client.clone());
        api.create(
            &PostParams::default(),
            &serde_json::from_value(object).unwrap(),
        )
        .await
        .unwrap()
    }

    /// All objects of a kind in `default`, `labels` as kubectl's `-l`.
    pub(crate) async fn list<K>(&self, labels: &str) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        self.api::<K>()
            .list(&ListParams::default().labels(labels))
            .await
            .unwrap()
            .items
    }
}

/// Asks again until there is an answer.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    ask: impl Fn() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs every bound Pod, and ends it when it is deleted. A Pod of the image `never-ready` stays pending.
async fn play_kubelets(client: Client, shutdown: CancellationToken) {
    let all: Api<Pod> = Api::all(client.clone());
    let mut events = std::pin::pin!(
        watcher(all, watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    let mut addresses: HashMap<String, usize> = HashMap::new();
    loop {
        let pod = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => match event {
                Some(Ok(pod)) => pod,
                Some(Err(_)) => continue,
                None => return,
            },
        };
        let (meta, Some(spec)) = (&pod.metadata, &pod.spec) else {
            continue;
        };
        if spec.node_name.is_none() {
            continue;
        }
        let api: Api<Pod> = Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap());
        let name = meta.name.as_deref().unwrap();
        if meta.deletion_timestamp.is_some() {
            // It may be gone already.
            let _ = api
                .delete(name, &DeleteParams::default().grace_period(0))
                .await;
            continue;
        }
        // A Pod of the image `succeeds` or `fails` ends at once.
        let ending = match spec.containers[0].image.as_deref() {
            Some("succeeds") => Some(("Succeeded", 0)),
            Some("fails") => Some(("Failed", 1)),
            _ => None,
        };
        if let Some((phase, code)) = ending {
            let ended = pod
                .status
                .as_ref()
                .is_some_and(|s| s.phase.as_deref() == Some(phase));
            if !ended {
                let now = jiff::Timestamp::now().to_string();
                let status = json!({ "status": { "phase": phase, "containerStatuses": [{
                    "name": spec.containers[0].name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "terminated": { "exitCode": code, "finishedAt": now } } }] } });
                let _ = api
                    .patch_status(name, &PatchParams::default(), &Patch::Strategic(&status))
                    .await;
            }
            continue;
        }
        let running = pod
            .status
            .as_ref()
            .is_some_and(|status| status.pod_ip.is_some());
        if running || spec.containers[0].image.as_deref() == Some("never-ready") {
            continue;
        }
        let next = addresses.len() + 1;
        let number = *addresses.entry(meta.uid.clone().unwrap()).or_insert(next);
        let ip = format!("10.244.{}.{}", number / 250, number % 250 + 1);
        let now = jiff::Timestamp::now().to_string();
        let status = json!({ "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": now }],
        }});
        let _ = api
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(&status))
            .await;
    }
}
