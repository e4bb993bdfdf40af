//! What the planner knows of a DaemonSet, with every default applied.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::deployment::{Round, resolve};
use crate::object::{self, ObjectKey};
use seaway_objects::selector::LabelSelector;

/// Annotation: how often the template changed.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// How old Pods are replaced.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Strategy {
    /// When somebody deletes them.
    OnDelete,
    /// Node by node.
    RollingUpdate {
        /// Nodes that may be without an available Pod.
        max_unavailable: IntOrString,
        /// Nodes that may have two for a while.
        max_surge: IntOrString,
    },
}

/// A DaemonSet.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Namespace and name.
    pub(crate) key: ObjectKey,
    /// Its metadata, for the references of its Pods.
    pub(crate) meta: ObjectMeta,
    /// Which Pods are meant.
    pub(crate) selector: LabelSelector,
    /// What new Pods look like.
    pub(crate) template: PodTemplateSpec,
    /// How often the template changed, as new Pods carry it.
    pub(crate) template_generation: Option<String>,
    /// How old Pods are replaced.
    pub(crate) strategy: Strategy,
    /// Seconds of readiness after which a Pod counts as available.
    pub(crate) min_ready_seconds: i32,
    /// Old revisions to keep.
    pub(crate) revision_history_limit: usize,
    /// The status as last written.
    pub(crate) status: DaemonSetStatus,
}

impl Target {
    /// The planner's view; the error says what makes the DaemonSet unusable.
    pub(crate) fn project(set: &DaemonSet) -> Result<Self, String> {
        let spec = set.spec.as_ref().ok_or("spec is missing")?;
        let selector = LabelSelector::from_object(Some(&spec.selector))
            .map_err(|error| format!("spec.selector: {error}"))?;
        if selector.is_everything() {
            return Err(
                "This daemon set is selecting all pods. A non-empty selector is required."
                    .to_owned(),
            );
        }
        let strategy = spec.update_strategy.clone().unwrap_or_default();
        let strategy = match strategy.type_.as_deref() {
            Some("OnDelete") => Strategy::OnDelete,
            None | Some("RollingUpdate") => {
                let rolling = strategy.rolling_update.unwrap_or_default();
                Strategy::RollingUpdate {
                    max_unavailable: rolling.max_unavailable.unwrap_or(IntOrString::Int(1)),
                    max_surge: rolling.max_surge.unwrap_or(IntOrString::Int(0)),
                }
            }
            Some(other) => return Err(format!("spec.updateStrategy.type: {other:?} is not known")),
        };
        Ok(Self {
            key: ObjectKey::of(&set.metadata),
            meta: set.metadata.clone(),
            selector,
            template: spec.template.clone(),
            template_generation: object::annotation(&set.metadata, TEMPLATE_GENERATION)
                .map(str::to_owned),
            strategy,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or_default(),
            revision_history_limit: usize::try_from(spec.revision_history_limit.unwrap_or(10))
                .unwrap_or(0),
            status: set.status.clone().unwrap_or_default(),
        })
    }

    /// Of so many nodes, how many may be without an available Pod, and how many may have two. A share is rounded up;
    /// where both are nothing, nothing could move, so one is without.
    ///
    /// # Errors
    /// An amount is none.
    pub(crate) fn limits(&self, nodes: usize) -> Result<(usize, usize), String> {
        let Strategy::RollingUpdate {
            max_unavailable,
            max_surge,
        } = &self.strategy
        else {
            return Ok((0, 0));
        };
        let total = i32::try_from(nodes).unwrap_or(i32::MAX);
        let amount =
            |value| resolve(value, total, Round::Up).map(|n| usize::try_from(n).unwrap_or(0));
        Ok(match (amount(max_unavailable)?, amount(max_surge)?) {
            (0, 0) => (1, 0),
            limits => limits,
        })
    }

    /// Whether two Pods may be on a node while one replaces the other.
    pub(crate) fn surges(&self) -> bool {
        self.limits(100).is_ok_and(|(_, surge)| surge > 0)
    }
}
