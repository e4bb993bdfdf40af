//! The loop that mirrors hand-made Endpoints of Services without a selector.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Endpoints;
use tokio_util::sync::CancellationToken;

use super::mirror;
use super::packing::{self, Changes};
use super::service;
use super::slice_writer::{RECHECK, SliceWriter};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::events::{self, Recorder};
use crate::object::ObjectKey;
use crate::queue::{Next, Queue};

const NAME: &str = "endpoint-slice-mirroring-controller";
/// Services worked on at the same time.
const PARALLEL: usize = 8;

/// Keeps mirrored EndpointSlices.
pub(crate) struct Mirrors {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
    writer: SliceWriter,
    events: Recorder,
}

impl Mirrors {
    /// Listens to the caches; [`Mirrors::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            writer: SliceWriter::new(cluster, mirror::MANAGER),
            events: cluster.events.named(NAME),
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
        cluster.endpoint_slices.on_change(move |change| {
            if let Some(service) = listener.writer.observe(change) {
                listener.queue.add(service);
            }
        });
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
        if !self.writer.is_caught_up(key) {
            return Ok(Next::After(RECHECK));
        }
        let slices = self.writer.slices_of(key);
        let selectorless = self
            .cluster
            .services
            .get(key)
            .is_some_and(|service| service::is_selectorless(&service));
        let endpoints = self
            .cluster
            .endpoints
            .get(key)
            .filter(|one| selectorless && mirror::is_mirrorable(one));
        let changes = match &endpoints {
            Some(endpoints) => {
                let (groups, skipped) = mirror::groups(endpoints);
                for (reason, message) in skipped.complaints() {
                    let about = events::reference::<Endpoints>(&endpoints.metadata);
                    self.events.warning(about, reason, message);
                }
                packing::pack(&mirror::wrapper(endpoints), groups, &slices, &[])
            }
            None => Changes {
                delete: slices,
                ..Changes::default()
            },
        };
        self.writer.write(key, changes).await?;
        Ok(Next::Done)
    }
}
