//! From a Deployment and its ReplicaSets to what must be done now. One step at a time: the events that a step causes
//! bring the Deployment back for the next.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::model::{DESIRED_REPLICAS, HASH_LABEL, MAX_REPLICAS, Set, Strategy, Target};
use super::rolling::{self, Sizes};
use super::{hash, revision, status};

/// What must be done, in this order.
#[derive(Debug)]
pub(crate) struct Plan {
    /// A ReplicaSet for the current template.
    pub(crate) create: Option<Box<ReplicaSet>>,
    /// Changes to ReplicaSets.
    pub(crate) updates: Vec<Update>,
    /// ReplicaSets beyond the history limit.
    pub(crate) delete: Vec<Arc<ReplicaSet>>,
    /// The revision that the Deployment is at, if its annotation says otherwise.
    pub(crate) revision: Option<String>,
    /// Its status.
    pub(crate) status: DeploymentStatus,
    /// Come back after this time though nothing changes.
    pub(crate) wake: Option<Duration>,
}

/// A change to one ReplicaSet.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    /// As it is.
    pub(crate) set: Arc<ReplicaSet>,
    /// Old and new number of Pods, if it changes.
    pub(crate) replicas: Option<(i32, i32)>,
    /// Annotations to set.
    pub(crate) annotations: BTreeMap<String, String>,
    /// New `minReadySeconds`, if it changes.
    pub(crate) min_ready_seconds: Option<i32>,
}

/// What is known when a plan is made.
struct Scene<'a> {
    target: &'a Target,
    all: Vec<&'a Set>,
    new: Option<&'a Set>,
    old: Vec<&'a Set>,
    now: Timestamp,
}

/// Makes the plan. `with_pods` holds the UIDs of the ReplicaSets that have Pods which have not ended.
pub(crate) fn plan(
    target: &Target,
    sets: &[Set],
    with_pods: &HashSet<String>,
    now: Timestamp,
) -> Plan {
    // Two ReplicaSets may have the template: then the older is the current one for good.
    let matching = sets.iter().filter(|set| set.has_template(&target.template));
    let new = matching.min_by_key(|set| (set.created, set.name()));
    let old = sets
        .iter()
        .filter(|set| new.is_none_or(|new| new.uid() != set.uid()))
        .collect();
    let scene = Scene {
        target,
        all: sets.iter().collect(),
        new,
        old,
        now,
    };

    let conditions = target.status.conditions.clone().unwrap_or_default();
    let mut plan = Plan {
        create: None,
        updates: Vec::new(),
        delete: Vec::new(),
        revision: None,
        status: DeploymentStatus::default(),
        wake: None,
    };
    if target.deleting {
        plan.status = status::figures(target, &scene.all, new, conditions, now);
        return plan;
    }
    let conditions = status::with_pause(target, conditions, now);
    if target.paused || scene.is_scaling() {
        scene.name_revision(&mut plan);
        scene.scale(&mut plan);
        if target.paused {
            scene.clean_up(&mut plan);
        }
        plan.status = status::figures(target, &scene.all, new, conditions, now);
        return plan;
    }
    match target.strategy {
        Strategy::Recreate => scene.recreate(&mut plan, conditions, with_pods),
        Strategy::RollingUpdate { .. } => scene.roll(&mut plan, conditions),
    }
    plan.wake = status::wake(target, &plan.status, now);
    plan
}

impl Scene<'_> {
    /// Whether `spec.replicas` changed since the ReplicaSets were last sized.
    fn is_scaling(&self) -> bool {
        let mut active = self.all.iter().filter(|set| set.replicas > 0);
        active.any(|set| {
            set.number(DESIRED_REPLICAS)
                .is_some_and(|desired| desired != self.target.replicas)
        })
    }

    /// Sizes the ReplicaSets for a new `spec.replicas`, whatever stage a rollout is at.
    fn scale(&self, plan: &mut Plan) {
        let mut active = self.all.iter().filter(|set| set.replicas > 0);
        let only = match (active.next(), active.next()) {
            (None, _) => self
                .new
                .or_else(|| self.old.iter().copied().max_by_key(|set| set.created)),
            (Some(only), None) => Some(*only),
            (Some(_), Some(_)) => None,
        };
        if let Some(only) = only {
            self.resize(plan, only, self.target.replicas);
            return;
        }
        if self.new.is_some_and(|new| self.is_saturated(new)) {
            for set in self.old.iter().filter(|set| set.replicas > 0) {
                self.resize(plan, set, 0);
            }
            return;
        }
        if matches!(self.target.strategy, Strategy::RollingUpdate { .. }) {
            self.resize_all(plan, &rolling::proportional(self.target, &self.all));
        }
    }

    /// The new ReplicaSet serves all by itself. Source: `IsSaturated`.
    fn is_saturated(&self, new: &Set) -> bool {
        new.replicas == self.target.replicas
            && new.number(DESIRED_REPLICAS) == Some(self.target.replicas)
            && new.available == self.target.replicas
    }

    fn roll(&self, plan: &mut Plan, conditions: Vec<DeploymentCondition>) {
        let conditions = self.have_new(plan, conditions);
        let grown = self.new.is_some_and(|new| {
            let size = rolling::new_size(self.target, &self.all, new.replicas);
            if size != new.replicas {
                self.resize(plan, new, size);
            }
            size != new.replicas
        });
        if plan.create.is_none() && !grown {
            self.resize_all(plan, &rolling::shrink_old(self.target, self.new, &self.old));
        }
        self.conclude(plan, conditions);
    }

    fn recreate(
        &self,
        plan: &mut Plan,
        conditions: Vec<DeploymentCondition>,
        with_pods: &HashSet<String>,
    ) {
        self.name_revision(plan);
        let active: Vec<&&Set> = self.old.iter().filter(|set| set.replicas > 0).collect();
        let old_pods = self.old.iter().any(|set| with_pods.contains(set.uid()));
        let mut conditions = conditions;
        if !active.is_empty() {
            for set in active {
                self.resize(plan, set, 0);
            }
        } else if !old_pods {
            conditions = self.have_new(plan, conditions);
            if let Some(new) = self.new
                && new.replicas != self.target.replicas
            {
                self.resize(plan, new, self.target.replicas);
            }
        }
        self.conclude(plan, conditions);
    }

    /// Figures, progress, and the cleaning up after a rollout is complete.
    fn conclude(&self, plan: &mut Plan, conditions: Vec<DeploymentCondition>) {
        let figures = status::figures(self.target, &self.all, self.new, conditions, self.now);
        if status::is_complete(self.target, &figures) {
            self.clean_up(plan);
        }
        plan.status = status::progress(self.target, &self.all, self.new, figures, self.now);
    }

    fn clean_up(&self, plan: &mut Plan) {
        let excess = revision::superfluous(&self.old, self.target.revision_history_limit);
        plan.delete = excess
            .into_iter()
            .map(|set| Arc::clone(&set.object))
            .collect();
    }

    /// Sees to it that the current template has its ReplicaSet, named with the current revision.
    fn have_new(
        &self,
        plan: &mut Plan,
        mut conditions: Vec<DeploymentCondition>,
    ) -> Vec<DeploymentCondition> {
        self.name_revision(plan);
        let known = status::find(&conditions, "Progressing").is_some();
        let wants_progress = self.target.progress_deadline.is_some();
        match self.new {
            Some(new) => {
                if wants_progress && !known {
                    let message = format!("Found new replica set \"{}\"", new.name());
                    let reason = status::FOUND_NEW_REPLICA_SET;
                    status::set(
                        &mut conditions,
                        status::condition("Progressing", "True", reason, message, self.now),
                    );
                }
            }
            None => {
                let set = self.new_set();
                if wants_progress {
                    let name = set.metadata.name.as_deref().unwrap_or_default();
                    let message = format!("Created new replica set \"{name}\"");
                    let reason = status::NEW_REPLICA_SET;
                    status::set(
                        &mut conditions,
                        status::condition("Progressing", "True", reason, message, self.now),
                    );
                }
                plan.create = Some(Box::new(set));
            }
        }
        conditions
    }

    /// Brings the annotations of the current ReplicaSet, if there is one, and of the Deployment up to date.
    fn name_revision(&self, plan: &mut Plan) {
        let next = revision::next(&self.old);
        let mut current = next;
        if let Some(new) = self.new {
            let present = new.object.metadata.annotations.clone().unwrap_or_default();
            let annotations = revision::annotations(self.target, &present, next);
            let seconds = new
                .object
                .spec
                .as_ref()
                .and_then(|spec| spec.min_ready_seconds)
                .unwrap_or(0);
            let update = update_of(plan, new);
            update.annotations.extend(annotations);
            update.min_ready_seconds =
                (seconds != self.target.min_ready_seconds).then_some(self.target.min_ready_seconds);
            current = revision::of(new).max(next);
            drop_empty(plan);
        } else if self.target.paused || matches!(self.target.strategy, Strategy::Recreate) {
            // The revision comes with the ReplicaSet, and that is not made yet.
            return;
        }
        let current = current.to_string();
        if self.target.annotations.get(revision::REVISION) != Some(&current) {
            plan.revision = Some(current);
        }
    }

    fn resize_all(&self, plan: &mut Plan, sizes: &Sizes) {
        for set in &self.all {
            if let Some(&size) = sizes.get(set.uid()) {
                self.resize(plan, set, size);
            }
        }
    }

    fn resize(&self, plan: &mut Plan, set: &Set, size: i32) {
        let update = update_of(plan, set);
        if size != set.replicas {
            update.replicas = Some((set.replicas, size));
        }
        let present = set.object.metadata.annotations.as_ref();
        for (name, value) in self.size_annotations() {
            if present.and_then(|present| present.get(&name)) != Some(&value) {
                update.annotations.insert(name, value);
            }
        }
        drop_empty(plan);
    }

    fn size_annotations(&self) -> [(String, String); 2] {
        let most = self.target.replicas.saturating_add(self.target.max_surge());
        [
            (
                DESIRED_REPLICAS.to_owned(),
                self.target.replicas.to_string(),
            ),
            (MAX_REPLICAS.to_owned(), most.to_string()),
        ]
    }

    /// The ReplicaSet for the current template.
    fn new_set(&self) -> ReplicaSet {
        let target = self.target;
        let hash = hash::of(&target.template, target.status.collision_count);
        let mut selector = target.selector.clone();
        selector
            .match_labels
            .get_or_insert_default()
            .insert(HASH_LABEL.to_owned(), hash.clone());
        let mut template: PodTemplateSpec = target.template.clone();
        let metadata = template.metadata.get_or_insert_default();
        metadata
            .labels
            .get_or_insert_default()
            .insert(HASH_LABEL.to_owned(), hash.clone());
        let labels = metadata.labels.clone();
        let mut annotations =
            revision::annotations(target, &BTreeMap::new(), revision::next(&self.old));
        annotations.extend(self.size_annotations());
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", target.key.name)),
                namespace: Some(target.key.namespace.clone()),
                labels,
                annotations: Some(annotations),
                owner_references: Some(vec![owner_reference(target)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(rolling::new_size(target, &self.all, 0)),
                min_ready_seconds: Some(target.min_ready_seconds),
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }
}

/// What makes a ReplicaSet one of this Deployment.
pub(crate) fn owner_reference(target: &Target) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: target.key.name.clone(),
        uid: target.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn update_of<'a>(plan: &'a mut Plan, set: &Set) -> &'a mut Update {
    let known = plan
        .updates
        .iter()
        .position(|update| update.set.metadata.uid == set.object.metadata.uid);
    let at = known.unwrap_or_else(|| {
        plan.updates.push(Update {
            set: Arc::clone(&set.object),
            replicas: None,
            annotations: BTreeMap::new(),
            min_ready_seconds: None,
        });
        plan.updates.len() - 1
    });
    &mut plan.updates[at]
}

fn drop_empty(plan: &mut Plan) {
    plan.updates.retain(|update| {
        update.replicas.is_some()
            || !update.annotations.is_empty()
            || update.min_ready_seconds.is_some()
    });
}

#[cfg(test)]
mod tests;
