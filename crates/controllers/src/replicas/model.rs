//! What the engine knows of a ReplicationController or a ReplicaSet: one shape for both.

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::object::{self, ObjectKey};
use seaway_objects::selector::LabelSelector;

/// A kind that keeps a number of Pods.
pub(crate) trait Workload:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The name that Events carry as their source.
    const COMPONENT: &'static str;
    /// Whether its status counts the Pods that go. Source: KEP-3973.
    const COUNTS_TERMINATING: bool;

    /// The engine's view; the error says what makes the object unusable.
    fn project(&self) -> Result<Owner, String>;

    /// Whether a Pod with these labels might be meant; for objects that cannot be used, none is.
    fn selector(&self) -> Option<LabelSelector>;
}

/// A workload with all defaults applied.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    /// Namespace and name.
    pub(crate) key: ObjectKey,
    /// UID.
    pub(crate) uid: String,
    /// Generation of the spec.
    pub(crate) generation: i64,
    /// Whether its deletion has begun.
    pub(crate) deleting: bool,
    /// Pods wanted.
    pub(crate) replicas: usize,
    /// Seconds of readiness after which a Pod counts as available.
    pub(crate) min_ready_seconds: i32,
    /// Which Pods are meant.
    pub(crate) selector: LabelSelector,
    /// What new Pods look like.
    pub(crate) template: PodTemplateSpec,
    /// Whether the status counts the Pods that go.
    pub(crate) counts_terminating: bool,
    /// The status as last written.
    pub(crate) status: Status,
}

/// The status that both kinds share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// Active Pods.
    pub(crate) replicas: i32,
    /// Those that have all labels of the template.
    pub(crate) fully_labeled: i32,
    /// Those that are ready.
    pub(crate) ready: i32,
    /// Those that are ready for long enough.
    pub(crate) available: i32,
    /// Those that go and have not ended; `None` where nobody counts them.
    pub(crate) terminating: Option<i32>,
    /// Generation that these figures belong to.
    pub(crate) observed_generation: i64,
    /// Why Pods could not be created or deleted.
    pub(crate) failure: Option<Failure>,
}

/// The `ReplicaFailure` condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(crate) reason: String,
    /// What the API server said.
    pub(crate) message: String,
    /// When the failing began.
    pub(crate) since: Option<Timestamp>,
}

impl Status {
    /// As a merge patch of the object's status. Zero is written as absence, as Kubernetes shows it.
    pub(crate) fn to_patch(&self, uid: &str) -> serde_json::Value {
        let some = |number: i32| (number != 0).then_some(number);
        let condition = self.failure.as_ref().map(|failure| {
            serde_json::json!([{
                "type": "ReplicaFailure",
                "status": "True",
                "reason": failure.reason,
                "message": failure.message,
                "lastTransitionTime": failure.since.map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time),
            }])
        });
        serde_json::json!({
            "metadata": { "uid": uid },
            "status": {
                "replicas": self.replicas,
                "fullyLabeledReplicas": some(self.fully_labeled),
                "readyReplicas": some(self.ready),
                "availableReplicas": some(self.available),
                "terminatingReplicas": self.terminating,
                "observedGeneration": self.observed_generation,
                "conditions": condition,
            },
        })
    }
}

fn count(replicas: Option<i32>) -> usize {
    // The API server's default is one; a negative number cannot get past its validation.
    usize::try_from(replicas.unwrap_or(1)).unwrap_or(0)
}

impl Workload for ReplicaSet {
    const COMPONENT: &'static str = "replicaset-controller";
    const COUNTS_TERMINATING: bool = true;

    fn project(&self) -> Result<Owner, String> {
        let spec = self.spec.as_ref().ok_or("spec is missing")?;
        let status = self.status.clone().unwrap_or_default();
        let failure = status
            .conditions
            .iter()
            .flatten()
            .find(|one| one.type_ == "ReplicaFailure" && one.status == "True");
        Ok(Owner {
            key: ObjectKey::of(&self.metadata),
            uid: object::uid_of(&self.metadata).to_owned(),
            generation: self.metadata.generation.unwrap_or_default(),
            deleting: object::is_deleting(&self.metadata),
            replicas: count(spec.replicas),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or_default(),
            selector: parse(&spec.selector).and_then(not_everything)?,
            template: spec.template.clone().ok_or("spec.template is missing")?,
            counts_terminating: Self::COUNTS_TERMINATING,
            status: Status {
                replicas: status.replicas,
                fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
                ready: status.ready_replicas.unwrap_or_default(),
                available: status.available_replicas.unwrap_or_default(),
                terminating: status.terminating_replicas,
                observed_generation: status.observed_generation.unwrap_or_default(),
                failure: failure.map(|condition| Failure {
                    reason: condition.reason.clone().unwrap_or_default(),
                    message: condition.message.clone().unwrap_or_default(),
                    since: condition.last_transition_time.as_ref().map(|time| time.0),
                }),
            },
        })
    }

    fn selector(&self) -> Option<LabelSelector> {
        let selector = parse(&self.spec.as_ref()?.selector).ok()?;
        not_everything(selector).ok()
    }
}

impl Workload for ReplicationController {
    const COMPONENT: &'static str = "replication-controller";
    const COUNTS_TERMINATING: bool = false;

    fn project(&self) -> Result<Owner, String> {
        let spec = self.spec.as_ref().ok_or("spec is missing")?;
        let status = self.status.clone().unwrap_or_default();
        let failure = status
            .conditions
            .iter()
            .flatten()
            .find(|one| one.type_ == "ReplicaFailure" && one.status == "True");
        Ok(Owner {
            key: ObjectKey::of(&self.metadata),
            uid: object::uid_of(&self.metadata).to_owned(),
            generation: self.metadata.generation.unwrap_or_default(),
            deleting: object::is_deleting(&self.metadata),
            replicas: count(spec.replicas),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or_default(),
            selector: self.selector().ok_or("spec.selector is empty")?,
            template: spec.template.clone().ok_or("spec.template is missing")?,
            counts_terminating: Self::COUNTS_TERMINATING,
            status: Status {
                replicas: status.replicas,
                fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
                ready: status.ready_replicas.unwrap_or_default(),
                available: status.available_replicas.unwrap_or_default(),
                terminating: None,
                observed_generation: status.observed_generation.unwrap_or_default(),
                failure: failure.map(|condition| Failure {
                    reason: condition.reason.clone().unwrap_or_default(),
                    message: condition.message.clone().unwrap_or_default(),
                    since: condition.last_transition_time.as_ref().map(|time| time.0),
                }),
            },
        })
    }

    fn selector(&self) -> Option<LabelSelector> {
        let selector = LabelSelector::from_map(self.spec.as_ref()?.selector.as_ref()?);
        not_everything(selector).ok()
    }
}

fn parse(selector: &meta::LabelSelector) -> Result<LabelSelector, String> {
    LabelSelector::from_object(Some(selector)).map_err(|error| format!("spec.selector: {error}"))
}

fn not_everything(selector: LabelSelector) -> Result<LabelSelector, String> {
    if selector.is_everything() {
        return Err("spec.selector is empty: it would take every Pod of the namespace".to_owned());
    }
    Ok(selector)
}
