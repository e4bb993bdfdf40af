//! The loop that empties namespaces which are being deleted, and then lets them go: first the Pods, so that nothing
//! that guards them goes before they do (KEP-5080), then everything else.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, Preconditions};
use kube::discovery::verbs;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::conditions::{self, Progress};
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::inventory::{Inventory, Known, Sighting};
use crate::object::{self, ObjectKey};
use crate::queue::{Next, Queue};

const NAME: &str = "namespace-controller";
/// Namespaces emptied at the same time.
const PARALLEL: usize = 8;
/// The finalizer that this controller answers for.
const FINALIZER: &str = "kubernetes";
/// How often what remains is looked at, should no event come (kinds that cannot be watched).
const RECHECK: Duration = Duration::from_secs(5);
/// Objects listed at once.
const PAGE: u32 = 500;

/// Ends namespaces.
pub(crate) struct Deletion {
    cluster: Arc<Cluster>,
    inventory: Arc<Inventory>,
    queue: Queue<String>,
    /// Those that are ending: the events in them matter.
    ending: Mutex<HashSet<String>>,
}

impl Deletion {
    /// Listens to the caches; [`Deletion::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>, inventory: &Arc<Inventory>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            inventory: Arc::clone(inventory),
            queue: Queue::new(),
            ending: Mutex::new(HashSet::new()),
        });
        let listener = Arc::clone(&this);
        cluster.namespaces.on_change(move |change| {
            let namespace = change.latest();
            let name = namespace.metadata.name.clone().unwrap_or_default();
            if change.after().is_some() && object::is_deleting(&namespace.metadata) {
                listener.ending.lock().insert(name.clone());
                listener.queue.add(name);
            } else {
                listener.ending.lock().remove(&name);
            }
        });
        let listener = Arc::clone(&this);
        inventory.on_object(move |sighting| listener.seen(sighting));
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

    /// Something in a namespace that ends is gone: perhaps it was the last.
    fn seen(&self, sighting: &Sighting<'_>) {
        if sighting.new.is_some() {
            return;
        }
        let Some(namespace) = sighting.old.and_then(|meta| meta.namespace.as_ref()) else {
            return;
        };
        if self.ending.lock().contains(namespace) {
            self.queue.add(namespace.clone());
        }
    }

    async fn reconcile(&self, name: &str) -> Result<Next, Error> {
        let Some(namespace) = self.cluster.namespaces.get(&ObjectKey::cluster(name)) else {
            return Ok(Next::Done);
        };
        if !object::is_deleting(&namespace.metadata) || !has_finalizer(&namespace) {
            return Ok(Next::Done);
        }
        let mut progress = Progress::default();
        if let Err(error) = self.inventory.discover().await {
            // What is known is emptied all the same, but the end must wait until all is known.
            progress.discovery_failure = Some(error.to_string());
        }
        let (pods, others): (Vec<Known>, Vec<Known>) = self
            .inventory
            .namespaced()
            .into_iter()
            .partition(|known| known.resource.group.is_empty() && known.resource.kind == "Pod");
        self.empty(name, &pods, &mut progress).await;
        if progress.is_complete() {
            self.empty(name, &others, &mut progress).await;
        }
        self.tell(&namespace, &progress).await?;
        if progress.is_complete() {
            self.let_go(name, &namespace).await?;
            return Ok(Next::Done);
        }
        Ok(Next::After(RECHECK))
    }

    async fn empty(&self, namespace: &str, kinds: &[Known], progress: &mut Progress) {
        let outcomes = join_all(kinds.iter().map(|kind| self.empty_kind(namespace, kind))).await;
        for (kind, outcome) in kinds.iter().zip(outcomes) {
            let name = format!("{}.{}", kind.resource.plural, kind.resource.group);
            match outcome {
                Ok(left) => {
                    if left.objects > 0 {
                        progress.remaining.insert(name, left.objects);
                    }
                    for finalizer in left.finalizers {
                        *progress.finalizers.entry(finalizer).or_default() += 1;
                    }
                }
                Err(error) => progress.failures.push(error.to_string()),
            }
        }
    }

    /// Deletes all objects of a kind and counts what is left: those that end gracefully, and those held by finalizers.
    async fn empty_kind(&self, namespace: &str, kind: &Known) -> Result<Left, Error> {
        let api = kind.api(&self.cluster, namespace);
        let what = format!("{} in {namespace}", kind.resource.plural);
        let mut left = Left::default();
        let mut page = ListParams::default().limit(PAGE);
        let mut whole_collection = kind
            .capabilities
            .supports_operation(verbs::DELETE_COLLECTION);
        if whole_collection {
            let answer = api
                .delete_collection(&DeleteParams::background(), &ListParams::default())
                .await;
            match answer {
                Ok(_) => {}
                // Some kinds say they can and cannot.
                Err(kube::Error::Api(status)) if status.code == 405 => whole_collection = false,
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(left),
                Err(error) => return Err(error).during("delete all", what),
            }
        }
        loop {
            let list = api.list(&page).await.during("list", &what)?;
            for object in &list.items {
                let meta = &object.metadata;
                if !whole_collection && !object::is_deleting(meta) {
                    let preconditions = Preconditions {
                        uid: meta.uid.clone(),
                        resource_version: None,
                    };
                    let parameters = DeleteParams::background().preconditions(preconditions);
                    let name = meta.name.as_deref().unwrap_or_default();
                    or_gone(api.delete(name, &parameters).await.during("delete", &what))?;
                }
                left.objects += 1;
                left.finalizers
                    .extend(meta.finalizers.iter().flatten().cloned());
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
                None => return Ok(left),
            }
        }
    }

    /// Says in the status how far it is.
    async fn tell(&self, namespace: &Namespace, progress: &Progress) -> Result<(), Error> {
        let status = namespace.status.clone().unwrap_or_default();
        let present = status.conditions.unwrap_or_default();
        let conditions = conditions::conditions(progress, &present, Timestamp::now());
        if conditions == present && status.phase.as_deref() == Some("Terminating") {
            return Ok(());
        }
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({
            "metadata": { "uid": namespace.metadata.uid },
            "status": { "phase": "Terminating", "conditions": conditions },
        });
        let answer = self
            .api()
            .patch_status(name, &cluster::patch(), &Patch::Merge(&patch))
            .await;
        or_gone(answer.during("write status of namespace", name))?;
        Ok(())
    }

    /// Takes the finalizer away, which ends the namespace.
    async fn let_go(&self, name: &str, namespace: &Namespace) -> Result<(), Error> {
        let Some(mut fresh) = or_gone(self.api().get(name).await.during("read namespace", name))?
        else {
            return Ok(());
        };
        if fresh.metadata.uid != namespace.metadata.uid || !object::is_deleting(&fresh.metadata) {
            return Ok(());
        }
        if let Some(finalizers) = fresh
            .spec
            .as_mut()
            .and_then(|spec| spec.finalizers.as_mut())
        {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let answer = self
            .api()
            .replace_subresource("finalize", name, &cluster::post(), &fresh)
            .await;
        or_gone(answer.during("finalize namespace", name))?;
        Ok(())
    }

    fn api(&self) -> Api<Namespace> {
        Api::all(self.cluster.client.clone())
    }
}

#[derive(Default)]
struct Left {
    objects: usize,
    finalizers: Vec<String>,
}

fn has_finalizer(namespace: &Namespace) -> bool {
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_deref())
        .unwrap_or_default();
    finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}
