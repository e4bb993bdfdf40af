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
mod tests {
    use k8s_openapi::api::apps::v1::{Deployment, ReplicaSetStatus};
    use proptest::prelude::{
        Just, ProptestConfig, Strategy as Generator, prop, prop_assert, prop_assert_eq, prop_oneof,
        proptest,
    };
    use serde_json::json;

    use super::*;
    use crate::object;

    /// An API server with one Deployment, and Pods that become available when they are told to.
    struct World {
        deployment: Deployment,
        sets: Vec<ReplicaSet>,
        clock: Timestamp,
    }

    impl World {
        fn new(spec: serde_json::Value) -> Self {
            let mut object = json!({
                "metadata": { "namespace": "default", "name": "web", "uid": "d", "generation": 1 },
                "spec": {
                    "selector": { "matchLabels": { "app": "web" } },
                    "progressDeadlineSeconds": 600,
                    "template": { "metadata": { "labels": { "app": "web" } },
                        "spec": { "containers": [{ "name": "c", "image": "v1" }] } },
                },
            });
            for (key, value) in spec.as_object().unwrap() {
                object["spec"][key] = value.clone();
            }
            let clock = "2030-01-01T00:00:00Z".parse().unwrap();
            Self {
                deployment: serde_json::from_value(object).unwrap(),
                sets: Vec::new(),
                clock,
            }
        }

        fn edit(&mut self, change: impl FnOnce(&mut k8s_openapi::api::apps::v1::DeploymentSpec)) {
            change(self.deployment.spec.as_mut().unwrap());
            *self.deployment.metadata.generation.as_mut().unwrap() += 1;
        }

        fn image(&mut self, image: &str) {
            self.edit(|spec| {
                spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned())
            });
        }

        fn plan(&self) -> Plan {
            let target = Target::project(&self.deployment).unwrap();
            let sets: Vec<Set> = self
                .sets
                .iter()
                .map(|set| Set::project(&Arc::new(set.clone())))
                .collect();
            let with_pods = sets
                .iter()
                .filter(|set| set.actual > 0)
                .map(|set| set.uid().to_owned())
                .collect();
            plan(&target, &sets, &with_pods, self.clock)
        }

        /// Carries the plan out. Whether it changed anything.
        fn step(&mut self) -> bool {
            let plan = self.plan();
            let before = (self.sets.clone(), self.deployment.clone());
            if let Some(set) = plan.create {
                let mut set = *set;
                set.metadata.uid = set.metadata.name.clone();
                set.metadata.generation = Some(1);
                self.clock += Duration::from_secs(1);
                set.metadata.creation_timestamp = Some(
                    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.clock),
                );
                self.sets.push(set);
            }
            for update in plan.updates {
                let set = self
                    .sets
                    .iter_mut()
                    .find(|set| set.metadata.uid == update.set.metadata.uid)
                    .unwrap();
                set.metadata
                    .annotations
                    .get_or_insert_default()
                    .extend(update.annotations);
                if let Some((from, to)) = update.replicas {
                    let spec = set.spec.as_mut().unwrap();
                    assert_eq!(spec.replicas, Some(from));
                    spec.replicas = Some(to);
                }
            }
            for gone in plan.delete {
                self.sets
                    .retain(|set| set.metadata.uid != gone.metadata.uid);
            }
            if let Some(revision) = plan.revision {
                let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                annotations.insert(revision::REVISION.to_owned(), revision);
            }
            self.deployment.status = Some(plan.status);
            (self.sets.clone(), self.deployment.clone()) != before
        }

        /// What the ReplicaSet controller and the nodes do: Pods are created and removed at once, the unavailable
        /// first; `ready` of those that are not available become so.
        fn run_pods(&mut self, mut ready: i32) {
            for set in &mut self.sets {
                let wanted = set
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.replicas)
                    .unwrap_or(1);
                let generation = set.metadata.generation;
                let status = set.status.get_or_insert_with(ReplicaSetStatus::default);
                let available = status.available_replicas.unwrap_or(0).min(wanted);
                let more = (wanted - available).min(ready);
                ready -= more;
                status.replicas = wanted;
                status.ready_replicas = Some(available + more);
                status.available_replicas = Some(available + more);
                status.observed_generation = generation;
            }
        }

        /// A Pod that served fails.
        fn fail_one(&mut self, which: usize) {
            let serving = self.sets.iter_mut().filter_map(|set| set.status.as_mut());
            let mut serving: Vec<_> = serving
                .filter(|status| status.available_replicas.unwrap_or(0) > 0)
                .collect();
            if serving.is_empty() {
                return;
            }
            let at = which % serving.len();
            *serving[at].available_replicas.as_mut().unwrap() -= 1;
            *serving[at].ready_replicas.as_mut().unwrap() -= 1;
        }

        fn settle(&mut self) {
            for _ in 0..200 {
                self.run_pods(i32::MAX);
                if !self.step() {
                    return;
                }
            }
            panic!("does not settle: {:#?}", self.plan());
        }

        fn sizes(&self) -> Vec<i32> {
            let mut sets: Vec<_> = self.sets.iter().collect();
            sets.sort_by_key(|set| set.metadata.creation_timestamp.clone());
            sets.iter()
                .map(|set| {
                    set.spec
                        .as_ref()
                        .and_then(|spec| spec.replicas)
                        .unwrap_or(1)
                })
                .collect()
        }

        fn asked(&self) -> i32 {
            self.sizes().iter().sum()
        }

        /// Pods that serve and that nobody asked to go.
        fn serving(&self) -> i32 {
            let one = |set: &ReplicaSet| {
                let wanted = set
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.replicas)
                    .unwrap_or(1);
                set.status
                    .as_ref()
                    .and_then(|status| status.available_replicas)
                    .unwrap_or(0)
                    .min(wanted)
            };
            self.sets.iter().map(one).sum()
        }

        fn condition(&self, type_: &str) -> Option<(String, String)> {
            let status = self.deployment.status.as_ref()?;
            let found = status::find(status.conditions.as_deref()?, type_)?;
            Some((found.status.clone(), found.reason.clone()?))
        }

        fn revision(&self) -> &str {
            object::annotation(&self.deployment.metadata, revision::REVISION).unwrap_or_default()
        }
    }

    fn pair(status: &str, reason: &str) -> Option<(String, String)> {
        Some((status.to_owned(), reason.to_owned()))
    }

    #[test]
    fn a_new_deployment_gets_its_replica_set_and_becomes_available() {
        let mut world = World::new(json!({ "replicas": 3 }));
        world.step();
        assert_eq!(world.sizes(), [3]);
        assert_eq!(
            world.condition("Progressing"),
            pair("True", "NewReplicaSetCreated")
        );
        assert_eq!(
            world.condition("Available"),
            pair("False", "MinimumReplicasUnavailable")
        );
        let set = &world.sets[0];
        let hash = &object::labels_of(&set.metadata)[HASH_LABEL];
        assert_eq!(
            set.metadata.name.as_deref(),
            Some(format!("web-{hash}").as_str())
        );
        assert_eq!(
            set.spec
                .as_ref()
                .unwrap()
                .selector
                .match_labels
                .as_ref()
                .unwrap()[HASH_LABEL],
            *hash
        );
        assert_eq!(
            set.metadata.annotations.as_ref().unwrap()[MAX_REPLICAS],
            "4"
        );
        world.settle();
        assert_eq!(
            world.condition("Progressing"),
            pair("True", "NewReplicaSetAvailable")
        );
        assert_eq!(
            world.condition("Available"),
            pair("True", "MinimumReplicasAvailable")
        );
        assert_eq!(world.revision(), "1");
        let status = world.deployment.status.clone().unwrap();
        assert_eq!(
            (
                status.replicas,
                status.updated_replicas,
                status.available_replicas
            ),
            (Some(3), Some(3), Some(3))
        );
        assert_eq!(status.unavailable_replicas, None);
    }

    #[test]
    fn an_update_and_an_undo_move_the_revision_up() {
        let mut world = World::new(json!({ "replicas": 2 }));
        world.settle();
        world.image("v2");
        world.settle();
        assert_eq!((world.sizes(), world.revision()), (vec![0, 2], "2"));
        world.image("v1");
        world.settle();
        assert_eq!(
            (world.sizes(), world.revision()),
            (vec![2, 0], "3"),
            "the old ReplicaSet serves again"
        );
        let annotations = world.sets[0].metadata.annotations.as_ref().unwrap();
        assert_eq!(annotations[revision::REVISION], "3");
        assert_eq!(
            annotations["deployment.kubernetes.io/revision-history"],
            "1"
        );
    }

    #[test]
    fn old_replica_sets_are_kept_up_to_the_limit() {
        let mut world = World::new(json!({ "replicas": 1, "revisionHistoryLimit": 2 }));
        for version in 1..7 {
            world.image(&format!("v{version}"));
            world.settle();
        }
        assert_eq!(world.sizes(), [0, 0, 1]);
        let kept = world.sets.iter().map(|set| {
            object::annotation(&set.metadata, revision::REVISION)
                .unwrap()
                .to_owned()
        });
        assert_eq!(kept.collect::<Vec<_>>(), ["4", "5", "6"]);
    }

    #[test]
    fn recreate_waits_for_the_last_old_pod() {
        let mut world = World::new(json!({ "replicas": 3, "strategy": { "type": "Recreate" } }));
        world.settle();
        assert_eq!(world.sizes(), [3]);
        world.image("v2");
        world.step();
        assert_eq!(world.sizes(), [0]);
        world.step();
        assert_eq!(world.sizes(), [0], "old Pods are still there");
        world.run_pods(0);
        world.step();
        assert_eq!(world.sizes(), [0, 3]);
        world.settle();
        assert_eq!(world.revision(), "2");
    }

    #[test]
    fn a_paused_deployment_scales_but_does_not_roll() {
        let mut world = World::new(json!({ "replicas": 2 }));
        world.settle();
        world.edit(|spec| spec.paused = Some(true));
        world.image("v2");
        world.edit(|spec| spec.replicas = Some(5));
        world.settle();
        assert_eq!(world.sizes(), [5]);
        assert_eq!(
            world.condition("Progressing"),
            pair("Unknown", "DeploymentPaused")
        );
        world.edit(|spec| spec.paused = None);
        world.settle();
        assert_eq!(world.sizes(), [0, 5]);
        assert_eq!(
            world.condition("Progressing"),
            pair("True", "NewReplicaSetAvailable")
        );
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_keeps_its_stage() {
        let mut world = World::new(json!({
            "replicas": 10,
            "strategy": { "rollingUpdate": { "maxSurge": 3, "maxUnavailable": 2 } },
        }));
        world.settle();
        world.image("v2");
        for _ in 0..4 {
            world.step();
            world.run_pods(0);
        }
        assert_eq!(world.sizes(), [8, 5]);
        world.edit(|spec| spec.replicas = Some(15));
        world.step();
        // The example of Kubernetes' documentation, "Proportional scaling".
        assert_eq!(world.sizes(), [11, 7]);
    }

    #[test]
    fn a_rollout_that_stands_still_is_said_to() {
        let mut world = World::new(json!({ "replicas": 1, "progressDeadlineSeconds": 60 }));
        world.step();
        world.run_pods(0);
        world.step();
        let wake = world.plan().wake.unwrap();
        assert!(wake <= Duration::from_secs(61), "{wake:?}");
        world.clock += Duration::from_secs(62);
        world.step();
        assert_eq!(
            world.condition("Progressing"),
            pair("False", "ProgressDeadlineExceeded")
        );
        world.settle();
        assert_eq!(
            world.condition("Progressing"),
            pair("True", "NewReplicaSetAvailable"),
            "it may still succeed"
        );
    }

    #[test]
    fn a_deployment_that_is_going_is_only_counted() {
        let mut world = World::new(json!({ "replicas": 3 }));
        world.settle();
        world.deployment.metadata.deletion_timestamp = Some(
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.clock),
        );
        world.image("v2");
        let plan = world.plan();
        assert!(plan.create.is_none() && plan.updates.is_empty() && plan.delete.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Happening {
        Reconciled,
        Ready(i32),
        Failed(usize),
        Image(u8),
        Scaled(i32),
    }

    fn happening() -> impl Generator<Value = Happening> {
        prop_oneof![
            4 => Just(Happening::Reconciled),
            3 => (0i32..4).prop_map(Happening::Ready),
            1 => (0usize..4).prop_map(Happening::Failed),
            1 => (0u8..4).prop_map(Happening::Image),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_rolling_update_keeps_its_limits_whatever_happens(
            replicas in 0i32..8,
            surge in 0i32..4,
            unavailable in 0i32..4,
            happenings in prop::collection::vec(happening(), 0..80),
        ) {
            let mut world = World::new(json!({
                "replicas": replicas,
                "strategy": { "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } },
            }));
            world.settle();
            let target = Target::project(&world.deployment).unwrap();
            let (most, least) = (replicas + target.max_surge(), replicas - target.max_unavailable());
            for happening in happenings {
                match happening {
                    Happening::Reconciled => {
                        let before = world.serving();
                        world.step();
                        // A step may take away what serves only down to the limit.
                        prop_assert!(world.serving() >= before.min(least), "{:?} of {before}", world.sizes());
                    }
                    Happening::Ready(count) => world.run_pods(count),
                    Happening::Failed(which) => world.fail_one(which),
                    Happening::Image(version) => world.image(&format!("v{version}")),
                    Happening::Scaled(_) => {}
                }
                prop_assert!(world.asked() <= most.max(replicas), "{:?} is more than {most}", world.sizes());
            }
            world.settle();
            prop_assert_eq!(world.asked(), replicas);
            prop_assert_eq!(world.sizes().iter().filter(|size| **size > 0).count(), usize::from(replicas > 0));
        }

        #[test]
        fn any_sequence_of_edits_settles(
            edits in prop::collection::vec(prop_oneof![
                (0u8..3).prop_map(Happening::Image),
                (0i32..9).prop_map(Happening::Scaled),
                (0i32..3).prop_map(Happening::Ready),
                Just(Happening::Reconciled),
            ], 0..40),
        ) {
            let mut world = World::new(json!({ "replicas": 3 }));
            for edit in edits {
                match edit {
                    Happening::Image(version) => world.image(&format!("v{version}")),
                    Happening::Scaled(replicas) => world.edit(|spec| spec.replicas = Some(replicas)),
                    Happening::Ready(count) => world.run_pods(count),
                    Happening::Reconciled | Happening::Failed(_) => {
                        world.step();
                    }
                }
            }
            world.settle();
            let replicas = world.deployment.spec.as_ref().unwrap().replicas.unwrap();
            prop_assert_eq!(world.asked(), replicas);
            prop_assert_eq!(world.condition("Progressing"), pair("True", "NewReplicaSetAvailable"));
        }
    }
}
