//! The loop that gives every namespace its `default` ServiceAccount and the certificate of the API server, and gives
//! them back when somebody takes them away.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Patch;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cache::Change;
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::inventory::{Inventory, Sighting};
use crate::object::{self, ObjectKey};
use crate::queue::{Next, Queue};

const NAME: &str = "namespace-defaults";
/// Namespaces worked on at the same time.
const PARALLEL: usize = 8;
const SERVICE_ACCOUNT: &str = "default";
/// Source: KEP-1205, `RootCAConfigMap`.
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

/// Keeps the objects that every namespace has.
pub(crate) struct Defaults {
    cluster: Arc<Cluster>,
    queue: Queue<String>,
    root_ca: String,
}

impl Defaults {
    /// Listens to the caches; [`Defaults::run`] does the work. `root_ca` is PEM.
    pub(crate) fn new(
        cluster: &Arc<Cluster>,
        inventory: &Arc<Inventory>,
        root_ca: String,
    ) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            root_ca,
        });
        let queue = this.queue.clone();
        cluster.namespaces.on_change(move |change| {
            if let Change::Added(namespace) = change {
                queue.add(namespace.metadata.name.clone().unwrap_or_default());
            }
        });
        let queue = this.queue.clone();
        inventory.on_object(move |sighting| {
            if let Some(namespace) = disturbed(sighting) {
                queue.add(namespace);
            }
        });
        this
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.clone();
        queue
            .run(NAME, PARALLEL, shutdown, |name| {
                let this = Arc::clone(&self);
                async move { this.reconcile(&name).await }
            })
            .await;
    }

    async fn reconcile(&self, namespace: &str) -> Result<Next, Error> {
        let object = self.cluster.namespaces.get(&ObjectKey::cluster(namespace));
        if !object.is_some_and(|object| is_active(&object)) {
            return Ok(Next::Done);
        }
        self.ensure_service_account(namespace).await?;
        self.ensure_root_ca(namespace).await?;
        Ok(Next::Done)
    }

    async fn ensure_service_account(&self, namespace: &str) -> Result<(), Error> {
        let api = self.cluster.api::<ServiceAccount>(namespace);
        let key = ObjectKey::new(namespace, SERVICE_ACCOUNT);
        if api
            .get_opt(SERVICE_ACCOUNT)
            .await
            .during("read ServiceAccount", &key)?
            .is_some()
        {
            return Ok(());
        }
        let account = ServiceAccount {
            metadata: named(&key),
            ..ServiceAccount::default()
        };
        made(
            api.create(&cluster::post(), &account)
                .await
                .during("create ServiceAccount", &key),
        )
    }

    async fn ensure_root_ca(&self, namespace: &str) -> Result<(), Error> {
        let api = self.cluster.api::<ConfigMap>(namespace);
        let key = ObjectKey::new(namespace, ROOT_CA);
        let data = BTreeMap::from([(ROOT_CA_KEY.to_owned(), self.root_ca.clone())]);
        let Some(present) = api.get_opt(ROOT_CA).await.during("read ConfigMap", &key)? else {
            let mut metadata = named(&key);
            metadata.annotations =
                Some([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())].into());
            let map = ConfigMap {
                metadata,
                data: Some(data),
                ..ConfigMap::default()
            };
            return made(
                api.create(&cluster::post(), &map)
                    .await
                    .during("create ConfigMap", &key),
            );
        };
        if present.data.as_ref() == Some(&data) || object::is_deleting(&present.metadata) {
            return Ok(());
        }
        // Keys that a user added go too: the map says one thing.
        let patch = json!([{ "op": "add", "path": "/data", "value": data }]);
        let patch: Patch<()> =
            Patch::Json(
                serde_json::from_value(patch).map_err(|error| Error::Object {
                    object: key.to_string(),
                    problem: error.to_string(),
                })?,
            );
        or_gone(
            api.patch(ROOT_CA, &cluster::patch(), &patch)
                .await
                .during("restore ConfigMap", &key),
        )?;
        Ok(())
    }
}

/// The namespace in which one of the objects was changed or taken away.
fn disturbed(sighting: &Sighting<'_>) -> Option<String> {
    let old = sighting.old?;
    let name = old.name.as_deref()?;
    let is_ours = sighting.resource.group.is_empty()
        && match sighting.resource.kind.as_str() {
            "ServiceAccount" => name == SERVICE_ACCOUNT && sighting.new.is_none(),
            "ConfigMap" => name == ROOT_CA,
            _ => false,
        };
    if is_ours { old.namespace.clone() } else { None }
}

fn is_active(namespace: &Namespace) -> bool {
    !object::is_deleting(&namespace.metadata)
        && namespace
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            != Some("Terminating")
}

fn named(key: &ObjectKey) -> ObjectMeta {
    ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        ..ObjectMeta::default()
    }
}

/// Somebody else may have been faster, or the namespace may have gone: both are as good.
fn made<T>(answer: Result<T, Error>) -> Result<(), Error> {
    match answer {
        Ok(_) => Ok(()),
        Err(error)
            if error.is_already_exists()
                || error.is_namespace_terminating()
                || error.is_not_found() =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
