//! What the planner knows of a StatefulSet, with every default applied.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::deployment::{Round, resolve};
use crate::object::ObjectKey;
use seaway_objects::selector::LabelSelector;

/// How old Pods are replaced.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Strategy {
    /// When somebody deletes them.
    OnDelete,
    /// From the highest ordinal down.
    RollingUpdate {
        /// Pods with a lower place than this keep the template they have.
        partition: usize,
        /// How many may be unavailable at a time; `None`: one after the other.
        max_unavailable: Option<usize>,
    },
}

/// A StatefulSet.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Namespace and name.
    pub(crate) key: ObjectKey,
    /// Its metadata, for the references of its Pods.
    pub(crate) meta: ObjectMeta,
    /// Which Pods are meant; their names must fit as well.
    pub(crate) selector: LabelSelector,
    /// What new Pods look like.
    pub(crate) template: PodTemplateSpec,
    /// The headless Service under which Pods have names.
    pub(crate) service: Option<String>,
    /// Names of the volumes that are claims.
    pub(crate) claims: Vec<String>,
    /// Pods wanted.
    pub(crate) replicas: usize,
    /// Ordinal of the first.
    pub(crate) start: usize,
    /// Whether Pods are not waited for (`Parallel`).
    pub(crate) parallel: bool,
    /// How old Pods are replaced.
    pub(crate) strategy: Strategy,
    /// Seconds of readiness after which a Pod counts as available.
    pub(crate) min_ready_seconds: i32,
    /// Old revisions to keep.
    pub(crate) revision_history_limit: usize,
    /// The status as last written.
    pub(crate) status: StatefulSetStatus,
}

impl Target {
    /// The planner's view; the error says what makes the StatefulSet unusable.
    pub(crate) fn project(set: &StatefulSet) -> Result<Self, String> {
        let spec = set.spec.as_ref().ok_or("spec is missing")?;
        let selector = LabelSelector::from_object(Some(&spec.selector))
            .map_err(|error| format!("spec.selector: {error}"))?;
        if selector.is_everything() {
            return Err(
                "spec.selector is empty: it would take every Pod of the namespace".to_owned(),
            );
        }
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let strategy = spec.update_strategy.clone().unwrap_or_default();
        let strategy = match strategy.type_.as_deref() {
            Some("OnDelete") => Strategy::OnDelete,
            None | Some("RollingUpdate") => {
                let rolling = strategy.rolling_update.unwrap_or_default();
                let unavailable = rolling
                    .max_unavailable
                    .map(|value| unavailable(&value, replicas));
                Strategy::RollingUpdate {
                    partition: count(rolling.partition.unwrap_or(0)),
                    max_unavailable: unavailable.transpose()?,
                }
            }
            Some(other) => return Err(format!("spec.updateStrategy.type: {other:?} is not known")),
        };
        let claims = spec.volume_claim_templates.iter().flatten();
        Ok(Self {
            key: ObjectKey::of(&set.metadata),
            meta: set.metadata.clone(),
            selector,
            template: spec.template.clone(),
            service: spec.service_name.clone().filter(|name| !name.is_empty()),
            claims: claims
                .filter_map(|claim| claim.metadata.name.clone())
                .collect(),
            replicas: count(replicas),
            start: count(
                spec.ordinals
                    .as_ref()
                    .and_then(|all| all.start)
                    .unwrap_or(0),
            ),
            parallel: spec.pod_management_policy.as_deref() == Some("Parallel"),
            strategy,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or_default(),
            revision_history_limit: count(spec.revision_history_limit.unwrap_or(10)),
            status: set.status.clone().unwrap_or_default(),
        })
    }

    /// The ordinal that a Pod's name has in this set; `None` if it is not a name of this set's Pods.
    pub(crate) fn ordinal(&self, pod: &str) -> Option<usize> {
        let number = pod
            .strip_prefix(self.key.name.as_str())?
            .strip_prefix('-')?;
        let ordinal: i32 = number.parse().ok()?;
        // Only the way in which numbers are written makes a name: neither `+1` nor `01`.
        (ordinal >= 0 && ordinal.to_string() == number).then(|| count(ordinal))
    }
}

fn count(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// A share is rounded down, and at least one may be missing.
fn unavailable(value: &IntOrString, replicas: i32) -> Result<usize, String> {
    resolve(value, replicas, Round::Down).map(|number| count(number).max(1))
}
