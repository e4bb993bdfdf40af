//! What the planner knows of a Deployment and its ReplicaSets, with every default applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::object::{self, ObjectKey};
use seaway_objects::selector::LabelSelector;

/// Label that keeps the Pods of a Deployment's ReplicaSets apart.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";
/// Annotation on a ReplicaSet: what the Deployment wanted when it was last scaled.
pub(crate) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation on a ReplicaSet: what was wanted with the surge.
pub(crate) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// How the new replaces the old. Numbers, not percentages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// All old Pods go before the first new one comes.
    Recreate,
    /// Step by step.
    RollingUpdate {
        /// Pods above the wanted number.
        max_surge: i32,
        /// Pods below the wanted number; never more than that number.
        max_unavailable: i32,
    },
}

/// A Deployment.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Namespace and name.
    pub(crate) key: ObjectKey,
    /// UID.
    pub(crate) uid: String,
    /// Generation of the spec.
    pub(crate) generation: i64,
    /// Whether its deletion has begun.
    pub(crate) deleting: bool,
    /// Whether template changes wait.
    pub(crate) paused: bool,
    /// Pods wanted.
    pub(crate) replicas: i32,
    /// How the new replaces the old.
    pub(crate) strategy: Strategy,
    /// Seconds of readiness after which a Pod counts as available.
    pub(crate) min_ready_seconds: i32,
    /// Seconds without progress after which the rollout has failed; `None`: never.
    pub(crate) progress_deadline: Option<i32>,
    /// Old ReplicaSets to keep.
    pub(crate) revision_history_limit: usize,
    /// The selector as written, which new ReplicaSets narrow by the hash label.
    pub(crate) selector: meta::LabelSelector,
    /// What new Pods look like.
    pub(crate) template: PodTemplateSpec,
    /// Its annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// The status as last written.
    pub(crate) status: DeploymentStatus,
}

impl Target {
    /// The planner's view; the error says what makes the Deployment unusable.
    pub(crate) fn project(deployment: &Deployment) -> Result<Self, String> {
        let spec = deployment.spec.as_ref().ok_or("spec is missing")?;
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let selector = LabelSelector::from_object(Some(&spec.selector))
            .map_err(|error| format!("spec.selector: {error}"))?;
        if selector.is_everything() {
            return Err(
                "spec.selector is empty: it would take every Pod of the namespace".to_owned(),
            );
        }
        let strategy = spec.strategy.clone().unwrap_or_default();
        let strategy = match strategy.type_.as_deref() {
            Some("Recreate") => Strategy::Recreate,
            None | Some("RollingUpdate") => {
                let limits = strategy.rolling_update.unwrap_or_default();
                let quarter = || IntOrString::String("25%".to_owned());
                let max_surge = resolve(
                    &limits.max_surge.unwrap_or_else(quarter),
                    replicas,
                    Round::Up,
                )?;
                let unavailable = resolve(
                    &limits.max_unavailable.unwrap_or_else(quarter),
                    replicas,
                    Round::Down,
                )?;
                // Both rounded to nothing would mean a rollout that can never move.
                let unavailable = if max_surge == 0 && unavailable == 0 {
                    1
                } else {
                    unavailable
                };
                Strategy::RollingUpdate {
                    max_surge,
                    max_unavailable: unavailable.min(replicas),
                }
            }
            Some(other) => return Err(format!("spec.strategy.type: {other:?} is not known")),
        };
        Ok(Self {
            key: ObjectKey::of(&deployment.metadata),
            uid: object::uid_of(&deployment.metadata).to_owned(),
            generation: deployment.metadata.generation.unwrap_or_default(),
            deleting: object::is_deleting(&deployment.metadata),
            paused: spec.paused.unwrap_or_default(),
            replicas,
            strategy,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or_default(),
            // The largest number is how a client writes "never".
            progress_deadline: spec
                .progress_deadline_seconds
                .filter(|&seconds| seconds != i32::MAX),
            revision_history_limit: usize::try_from(spec.revision_history_limit.unwrap_or(10))
                .unwrap_or(0),
            selector: spec.selector.clone(),
            template: spec.template.clone(),
            annotations: deployment.metadata.annotations.clone().unwrap_or_default(),
            status: deployment.status.clone().unwrap_or_default(),
        })
    }

    /// Pods above the wanted number.
    pub(crate) fn max_surge(&self) -> i32 {
        match self.strategy {
            Strategy::Recreate => 0,
            Strategy::RollingUpdate { max_surge, .. } => max_surge,
        }
    }

    /// Pods below the wanted number.
    pub(crate) fn max_unavailable(&self) -> i32 {
        match self.strategy {
            Strategy::Recreate => 0,
            Strategy::RollingUpdate {
                max_unavailable, ..
            } => max_unavailable,
        }
    }
}

/// Which way a fraction of a Pod goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// To the next whole one.
    Up,
    /// To none.
    Down,
}

/// A number, or a percentage of `total`.
///
/// # Errors
/// The value is neither.
pub(crate) fn resolve(value: &IntOrString, total: i32, round: Round) -> Result<i32, String> {
    match value {
        IntOrString::Int(number) => Ok((*number).max(0)),
        IntOrString::String(text) => {
            let percent: i64 = text
                .strip_suffix('%')
                .and_then(|number| number.parse().ok())
                .filter(|percent| (0..=i64::from(i32::MAX)).contains(percent))
                .ok_or_else(|| format!("{text:?} is neither a number nor a percentage"))?;
            let hundredths = percent * i64::from(total);
            let whole = match round {
                Round::Up => (hundredths + 99) / 100,
                Round::Down => hundredths / 100,
            };
            Ok(i32::try_from(whole).unwrap_or(i32::MAX))
        }
    }
}

/// A ReplicaSet of the Deployment.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    /// The object itself.
    pub(crate) object: Arc<ReplicaSet>,
    /// Pods it is asked to keep.
    pub(crate) replicas: i32,
    /// Pods it has.
    pub(crate) actual: i32,
    /// Those that are ready.
    pub(crate) ready: i32,
    /// Those that are available.
    pub(crate) available: i32,
    /// Pods of it that go; `None` when it does not say.
    pub(crate) terminating: Option<i32>,
    /// When it was made.
    pub(crate) created: Option<Timestamp>,
}

impl Set {
    /// The planner's view.
    pub(crate) fn project(object: &Arc<ReplicaSet>) -> Self {
        let status = object.status.as_ref();
        Self {
            replicas: object
                .spec
                .as_ref()
                .and_then(|spec| spec.replicas)
                .unwrap_or(1),
            actual: status.map_or(0, |status| status.replicas),
            ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
            available: status
                .and_then(|status| status.available_replicas)
                .unwrap_or(0),
            terminating: status.and_then(|status| status.terminating_replicas),
            created: object
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0),
            object: Arc::clone(object),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its UID.
    pub(crate) fn uid(&self) -> &str {
        object::uid_of(&self.object.metadata)
    }

    /// Pods that serve and will go on doing so. A status may lag behind a size that was just reduced; those that go
    /// are not to be counted on.
    pub(crate) fn serving(&self) -> i32 {
        self.available.min(self.replicas)
    }

    /// A number kept in an annotation.
    pub(crate) fn number(&self, annotation: &str) -> Option<i32> {
        object::annotation(&self.object.metadata, annotation)?
            .parse()
            .ok()
    }

    /// Whether it makes Pods of this template; the hash label does not count.
    pub(crate) fn has_template(&self, template: &PodTemplateSpec) -> bool {
        let Some(own) = self
            .object
            .spec
            .as_ref()
            .and_then(|spec| spec.template.as_ref())
        else {
            return false;
        };
        own.spec == template.spec && without_hash(own) == without_hash(template)
    }
}

/// Labels and annotations of a template, without the hash label.
fn without_hash(
    template: &PodTemplateSpec,
) -> (BTreeMap<&String, &String>, BTreeMap<&String, &String>) {
    let metadata = template.metadata.as_ref();
    let labels = metadata
        .and_then(|metadata| metadata.labels.as_ref())
        .into_iter()
        .flatten();
    let annotations = metadata
        .and_then(|metadata| metadata.annotations.as_ref())
        .into_iter()
        .flatten();
    (
        labels
            .filter(|(key, _)| key.as_str() != HASH_LABEL)
            .collect(),
        annotations.collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_so_that_a_rollout_can_move() {
        let table = [
            ("25%", 3, 1, 0),
            ("25%", 4, 1, 1),
            ("50%", 5, 3, 2),
            ("0%", 5, 0, 0),
            ("100%", 5, 5, 5),
            ("150%", 2, 3, 3),
        ];
        for (text, total, up, down) in table {
            let value = IntOrString::String(text.to_owned());
            assert_eq!(
                resolve(&value, total, Round::Up),
                Ok(up),
                "{text} of {total} up"
            );
            assert_eq!(
                resolve(&value, total, Round::Down),
                Ok(down),
                "{text} of {total} down"
            );
        }
        assert!(resolve(&IntOrString::String("many".into()), 1, Round::Up).is_err());
        assert!(resolve(&IntOrString::String("-5%".into()), 1, Round::Up).is_err());
    }
}
