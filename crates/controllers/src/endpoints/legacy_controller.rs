//! The loop that keeps the Endpoints object of every Service with a selector.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Endpoints;
use kube::api::{DeleteParams, Preconditions};
use tokio_util::sync::CancellationToken;

use super::legacy::{self, Action, MANAGED_BY, MANAGER};
use super::service::Selecting;
use super::slice_controller::add_services_of;
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::object::{self, ObjectKey};
use crate::queue::{Next, Queue};

const NAME: &str = "endpoints-controller";
/// Services worked on at the same time.
const PARALLEL: usize = 16;

/// Keeps Endpoints.
pub(crate) struct LegacyEndpoints {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
}

impl LegacyEndpoints {
    /// Listens to the caches; [`LegacyEndpoints::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
        });
        let queue = this.queue.clone();
        cluster.services.on_change(move |change| {
            queue.add(ObjectKey::of(&change.latest().metadata));
        });
        let queue = this.queue.clone();
        cluster.endpoints.on_change(move |change| {
            queue.add(ObjectKey::of(&change.latest().metadata));
        });
        let listener = Arc::clone(&this);
        cluster
            .pods
            .on_change(move |change| add_services_of(&listener.cluster, &listener.queue, change));
        this
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.clone();
        queue
            .run(NAME, PARALLEL, shutdown, |key| {
                let this = Arc::clone(&self);
                async move { this.reconcile(&key).await }
            })
            .await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let present = self.cluster.endpoints.get(key);
        let Some(service) = self.cluster.services.get(key) else {
            if let Some(present) = present.filter(|present| is_mine(present)) {
                self.delete(key, &present).await?;
            }
            return Ok(Next::Done);
        };
        let Some(view) =
            Selecting::of(&service).filter(|_| !object::is_deleting(&service.metadata))
        else {
            return Ok(Next::Done);
        };
        let pods = self.cluster.pods_matching(&key.namespace, &view.selector);
        let api = self.cluster.api::<Endpoints>(&key.namespace);
        match legacy::plan(&view, &pods, present.as_deref()) {
            Action::Keep => {}
            Action::Create(new) => match api
                .create(&cluster::post(), &new)
                .await
                .during("create Endpoints", key)
            {
                Err(error) if error.is_already_exists() => {
                    return Err(Error::Stale {
                        object: key.to_string(),
                    });
                }
                Err(error) if error.is_namespace_terminating() => {}
                answer => drop(answer?),
            },
            Action::Update(new) => {
                let answer = api.replace(&key.name, &cluster::post(), &new).await;
                answer.during("update Endpoints", key)?;
            }
        }
        Ok(Next::Done)
    }

    /// The Service is gone, and its Endpoints with it. Only what was written here: what a user made stays.
    async fn delete(&self, key: &ObjectKey, present: &Endpoints) -> Result<(), Error> {
        let preconditions = Preconditions {
            uid: present.metadata.uid.clone(),
            resource_version: None,
        };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let api = self.cluster.api::<Endpoints>(&key.namespace);
        or_gone(
            api.delete(&key.name, &parameters)
                .await
                .during("delete Endpoints", key),
        )?;
        Ok(())
    }
}

fn is_mine(endpoints: &Endpoints) -> bool {
    object::labels_of(&endpoints.metadata)
        .get(MANAGED_BY)
        .is_some_and(|manager| manager == MANAGER)
}
