//! Whole rollouts, played through without a cluster.

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
