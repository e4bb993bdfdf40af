//! Creating and deleting Pods for the objects that keep them, each told as an Event of the object.
//!
//! A refusal, by a quota for example, becomes the Event `FailedCreate` with the API server's words; the error goes back
//! to the caller, whose queue tries again after growing pauses. Source: `RealPodControl` in
//! `pkg/controller/controller_utils.go`.

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{DeleteParams, Preconditions};

use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::events::{self, Recorder};
use crate::expectations::Expectations;
use crate::object::{self, ObjectKey};

/// How an Event tells of a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// As all controllers but one: `Created pod: web-x`.
    Plain,
    /// As the StatefulSet controller: `create Pod web-0 in StatefulSet web successful`.
    StatefulSet,
}

/// Creates and deletes Pods in the name of one controller.
#[derive(Clone)]
pub(crate) struct PodControl {
    cluster: Arc<Cluster>,
    events: Recorder,
    words: Words,
}

impl PodControl {
    /// With Events of the recorder's component.
    pub(crate) fn new(cluster: &Arc<Cluster>, events: Recorder, words: Words) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            events,
            words,
        }
    }

    /// Creates a Pod for its owner. `None` when its namespace is going: nothing can be done about that, and nothing
    /// needs to be told.
    pub(crate) async fn create<O>(&self, owner: &O, pod: &Pod) -> Result<Option<Pod>, Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let key = ObjectKey::of(owner.meta());
        let answer = self
            .cluster
            .api::<Pod>(&key.namespace)
            .create(&cluster::post(), pod)
            .await;
        let about = || events::reference::<O>(owner.meta());
        match answer.during("create a Pod for", &key) {
            Ok(made) => {
                let name = made.metadata.name.as_deref().unwrap_or_default();
                self.events
                    .normal(about(), "SuccessfulCreate", self.done("create", name, &key));
                Ok(Some(made))
            }
            Err(error) if error.is_namespace_terminating() => Ok(None),
            // Made in an earlier round that the cache does not show yet.
            Err(error) if error.is_already_exists() => Err(error),
            Err(error) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                self.events.warning(
                    about(),
                    "FailedCreate",
                    self.failed("create", name, &key, &error.told()),
                );
                Err(error)
            }
        }
    }

    /// Creates Pods that the expectations do not know of yet, first one, then twice as many each time, so that a
    /// template that the API server refuses is refused once and not five hundred times. What was not created is
    /// expected no more.
    pub(crate) async fn create_all<O>(
        &self,
        owner: &O,
        expectations: &Expectations<ObjectKey>,
        pods: &[Pod],
    ) -> Result<(), Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let key = ObjectKey::of(owner.meta());
        expectations.expect_creations(&key, pods.len());
        let mut left = pods;
        for size in slow_start(pods.len()) {
            let (batch, rest) = left.split_at(size);
            left = rest;
            let answers = join_all(batch.iter().map(|pod| self.create(owner, pod))).await;
            let mut stop = None;
            for answer in answers {
                match answer {
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        expectations.creation_observed(&key);
                        stop.get_or_insert(Ok(()));
                    }
                    Err(error) => {
                        expectations.creation_observed(&key);
                        stop = Some(Err(error));
                    }
                }
            }
            if let Some(stop) = stop {
                expectations.creations_given_up(&key, left.len());
                return stop;
            }
        }
        Ok(())
    }

    /// Deletes a Pod, provided that it is still the one that was seen.
    pub(crate) async fn delete<O>(&self, owner: &O, pod: &Pod) -> Result<(), Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let key = ObjectKey::of(owner.meta());
        let pod_key = ObjectKey::of(&pod.metadata);
        let parameters = DeleteParams::default().preconditions(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        });
        let answer = self
            .cluster
            .api::<Pod>(&pod_key.namespace)
            .delete(&pod_key.name, &parameters)
            .await;
        let about = || events::reference::<O>(owner.meta());
        match or_gone(answer.during("delete Pod", &pod_key)) {
            Ok(Some(_)) => {
                let message = self.done("delete", &pod_key.name, &key);
                self.events.normal(about(), "SuccessfulDelete", message);
                Ok(())
            }
            Ok(None) => Ok(()),
            // Another Pod has the name now, so this one is gone.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => {
                let message = self.failed("delete", &pod_key.name, &key, &error.told());
                self.events.warning(about(), "FailedDelete", message);
                Err(error)
            }
        }
    }

    /// Deletes Pods and expects to see them go. The first error is returned after all were tried.
    pub(crate) async fn delete_all<O>(
        &self,
        owner: &O,
        expectations: &Expectations<ObjectKey>,
        pods: &[Arc<Pod>],
    ) -> Result<(), Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let key = ObjectKey::of(owner.meta());
        for pod in pods {
            expectations.expect_deletion(&key, object::uid_of(&pod.metadata));
        }
        let answers = join_all(pods.iter().map(|pod| self.delete(owner, pod))).await;
        let mut outcome = Ok(());
        for (pod, answer) in pods.iter().zip(answers) {
            if answer.is_err() || self.is_gone(pod) {
                expectations.deletion_observed(&key, object::uid_of(&pod.metadata));
            }
            outcome = outcome.and(answer);
        }
        outcome
    }

    /// Whether the cache shows already that the Pod goes or is gone.
    fn is_gone(&self, pod: &Pod) -> bool {
        let present = self.cluster.pods.get(&ObjectKey::of(&pod.metadata));
        present.is_none_or(|present| {
            present.metadata.uid != pod.metadata.uid || object::is_deleting(&present.metadata)
        })
    }

    fn done(&self, verb: &str, pod: &str, owner: &ObjectKey) -> String {
        match (self.words, verb) {
            (Words::StatefulSet, _) => {
                format!("{verb} Pod {pod} in StatefulSet {} successful", owner.name)
            }
            (Words::Plain, "create") => format!("Created pod: {pod}"),
            (Words::Plain, _) => format!("Deleted pod: {pod}"),
        }
    }

    fn failed(&self, verb: &str, pod: &str, owner: &ObjectKey, why: &str) -> String {
        match (self.words, verb) {
            (Words::StatefulSet, _) => {
                format!(
                    "{verb} Pod {pod} in StatefulSet {} failed error: {why}",
                    owner.name
                )
            }
            (Words::Plain, "create") => format!("Error creating: {why}"),
            (Words::Plain, _) => format!("Error deleting: {why}"),
        }
    }
}

/// The sizes of the batches in which Pods are created: one, then twice as many each time. Source: `slowStartBatch`.
fn slow_start(total: usize) -> impl Iterator<Item = usize> {
    let mut left = total;
    let mut size = 1;
    std::iter::from_fn(move || {
        let batch = left.min(size);
        left -= batch;
        size *= 2;
        (batch > 0).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn batches_add_up_and_at_most_double(total in 0usize..2000) {
            let batches: Vec<usize> = slow_start(total).collect();
            prop_assert_eq!(batches.iter().sum::<usize>(), total);
            prop_assert!(batches.iter().zip(batches.iter().skip(1)).all(|(one, next)| *next <= one * 2));
            prop_assert!(batches.first().is_none_or(|first| *first == 1));
        }
    }
}
