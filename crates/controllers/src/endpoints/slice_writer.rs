//! Writes slice changes, and remembers them until the cache shows them: a slice that is created twice would show its
//! endpoints twice.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Preconditions};

use super::packing::{Changes, MANAGED_BY, SERVICE_LABEL};
use crate::cache::Change;
use crate::cluster::{self, Cluster, SLICES_BY_SERVICE};
use crate::error::{Context, Error, or_gone};
use crate::expectations::Expectations;
use crate::object::{self, ObjectKey};

/// How often outstanding writes are looked at again, should their events never come.
pub(crate) const RECHECK: Duration = Duration::from_secs(60);

/// Writes the slices of one manager.
pub(crate) struct SliceWriter {
    cluster: Arc<Cluster>,
    manager: &'static str,
    expectations: Expectations<ObjectKey>,
}

impl SliceWriter {
    /// A writer in the name of `manager`, the value of the `managed-by` label.
    pub(crate) fn new(cluster: &Arc<Cluster>, manager: &'static str) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            manager,
            expectations: Expectations::new(),
        }
    }

    /// Whether the cache shows everything written for the Service.
    pub(crate) fn is_caught_up(&self, service: &ObjectKey) -> bool {
        self.expectations.are_fulfilled(service)
    }

    /// The Service is no more.
    pub(crate) fn forget(&self, service: &ObjectKey) {
        self.expectations.forget(service);
    }

    /// This manager's slices of a Service.
    pub(crate) fn slices_of(&self, service: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self
            .cluster
            .endpoint_slices
            .find(&SLICES_BY_SERVICE, &service.to_string());
        slices.retain(|slice| self.is_mine(slice));
        slices
    }

    /// Takes note of a slice's change; the Service whose slices must be looked at again.
    pub(crate) fn observe(&self, change: &Change<EndpointSlice>) -> Option<ObjectKey> {
        let slice = change.states().find(|slice| self.is_mine(slice))?;
        let name = object::labels_of(&slice.metadata).get(SERVICE_LABEL)?;
        let service = ObjectKey::new(
            slice.metadata.namespace.as_deref().unwrap_or_default(),
            name,
        );
        let uid = object::uid_of(&slice.metadata);
        match change {
            Change::Added(_) => self.expectations.creation_observed(&service),
            Change::Modified { new, .. } => {
                let version = new.metadata.resource_version.as_deref().unwrap_or_default();
                self.expectations.update_observed(&service, uid, version);
            }
            Change::Removed(_) => {}
        }
        if change
            .after()
            .is_none_or(|new| object::is_deleting(&new.metadata))
        {
            self.expectations.deletion_observed(&service, uid);
        }
        Some(service)
    }

    fn is_mine(&self, slice: &EndpointSlice) -> bool {
        object::labels_of(&slice.metadata)
            .get(MANAGED_BY)
            .is_some_and(|manager| manager == self.manager)
    }

    /// Writes. What is new comes before what goes, so that no endpoint is missing in between.
    pub(crate) async fn write(&self, service: &ObjectKey, changes: Changes) -> Result<(), Error> {
        let api = self.cluster.api::<EndpointSlice>(&service.namespace);
        let post = cluster::post();
        self.expectations
            .expect_creations(service, changes.create.len());
        let created = join_all(changes.create.iter().map(|slice| api.create(&post, slice))).await;
        let mut failed = Ok(());
        for answer in created {
            if let Err(error) = answer.during("create EndpointSlice for", service) {
                self.expectations.creation_observed(service);
                if !error.is_namespace_terminating() {
                    failed = Err(error);
                }
            }
        }
        failed?;
        try_join_all(changes.update.iter().map(|slice| async {
            let meta = &slice.metadata;
            let (name, uid) = (
                meta.name.as_deref().unwrap_or_default(),
                object::uid_of(meta),
            );
            self.expectations.expect_update(
                service,
                uid,
                meta.resource_version.as_deref().unwrap_or_default(),
            );
            let answer = api
                .replace(name, &post, slice)
                .await
                .during("update EndpointSlice", name);
            if answer.is_err() {
                self.expectations.update_given_up(service, uid);
            }
            answer
        }))
        .await?;
        try_join_all(changes.delete.iter().map(|slice| async {
            let meta = &slice.metadata;
            let (name, uid) = (
                meta.name.as_deref().unwrap_or_default(),
                object::uid_of(meta),
            );
            self.expectations.expect_deletion(service, uid);
            let parameters = DeleteParams::default().preconditions(Preconditions {
                uid: meta.uid.clone(),
                resource_version: None,
            });
            let answer = or_gone(
                api.delete(name, &parameters)
                    .await
                    .during("delete EndpointSlice", name),
            );
            if !matches!(answer, Ok(Some(_))) {
                self.expectations.deletion_observed(service, uid);
            }
            answer
        }))
        .await?;
        Ok(())
    }
}
