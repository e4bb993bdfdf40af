//! The loop that keeps the EndpointSlices of Services with a selector.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tokio_util::sync::CancellationToken;

use super::member::{self, Member};
use super::packing::{self, Group, MANAGED_BY, SERVICE_LABEL, Wrapper};
use super::service::{HEADLESS_LABEL, Hints, Selecting};
use super::slice_writer::{RECHECK, SliceWriter};
use crate::cache::Change;
use crate::cluster::{Cluster, PODS_BY_NODE};
use crate::error::Error;
use crate::object::{self, ObjectKey};
use crate::queue::{Next, Queue};

const NAME: &str = "endpoint-slice-controller";
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label of a node: where it is.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Services worked on at the same time.
const PARALLEL: usize = 16;

/// Keeps EndpointSlices.
pub(crate) struct Slices {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
    writer: SliceWriter,
}

impl Slices {
    /// Listens to the caches; [`Slices::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            writer: SliceWriter::new(cluster, MANAGER),
        });
        let queue = this.queue.clone();
        cluster.services.on_change(move |change| {
            queue.add(ObjectKey::of(&change.latest().metadata));
        });
        let listener = Arc::clone(&this);
        cluster.endpoint_slices.on_change(move |change| {
            if let Some(service) = listener.writer.observe(change) {
                listener.queue.add(service);
            }
        });
        let listener = Arc::clone(&this);
        cluster
            .pods
            .on_change(move |change| add_services_of(&listener.cluster, &listener.queue, change));
        let listener = Arc::clone(&this);
        cluster
            .nodes
            .on_change(move |change| listener.node_changed(change));
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

    /// A node that moved to another zone takes its endpoints along.
    fn node_changed(&self, change: &Change<Node>) {
        let zone = |node: Option<&Arc<Node>>| {
            node.and_then(|node| object::labels_of(&node.metadata).get(ZONE).cloned())
        };
        if zone(change.before()) == zone(change.after()) {
            return;
        }
        let node = change.latest().metadata.name.as_deref().unwrap_or_default();
        for pod in self.cluster.pods.find(&PODS_BY_NODE, node) {
            for service in self.cluster.services_selecting(&pod) {
                self.queue.add(ObjectKey::of(&service.metadata));
            }
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(service) = self.cluster.services.get(key) else {
            // The slices are the Service's, so the garbage collector takes them.
            self.writer.forget(key);
            return Ok(Next::Done);
        };
        let Some(view) =
            Selecting::of(&service).filter(|_| !object::is_deleting(&service.metadata))
        else {
            return Ok(Next::Done);
        };
        if !self.writer.is_caught_up(key) {
            return Ok(Next::After(RECHECK));
        }
        let slices = self.writer.slices_of(key);
        let pods = self.cluster.pods_matching(&key.namespace, &view.selector);
        let zone = |node: &str| {
            let node = self.cluster.nodes.get(&ObjectKey::cluster(node))?;
            object::labels_of(&node.metadata).get(ZONE).cloned()
        };
        let groups = groups(&view, &pods, &zone);
        let changes = packing::pack(&wrapper(&view, &pods), groups, &slices, &view.families);
        self.writer.write(key, changes).await?;
        Ok(Next::Done)
    }
}

/// Enqueues the Services that a Pod's change concerns: those that selected it and those that do now.
pub(crate) fn add_services_of(cluster: &Cluster, queue: &Queue<ObjectKey>, change: &Change<Pod>) {
    if let Change::Modified { old, new } = change
        && member::relevant(old) == member::relevant(new)
    {
        return;
    }
    for pod in change.states() {
        for service in cluster.services_selecting(pod) {
            queue.add(ObjectKey::of(&service.metadata));
        }
    }
}

/// The endpoints of a Service, each in a group of its own; [`packing::pack`] brings equal ones together.
fn groups(
    service: &Selecting,
    pods: &[Arc<Pod>],
    zone: &dyn Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let mut groups = Vec::new();
    for &family in &service.families {
        for pod in pods {
            let Some(member) = Member::of(service, pod, family) else {
                continue;
            };
            let zone = member.node.as_deref().and_then(zone);
            groups.push(Group {
                family,
                endpoints: vec![endpoint(service, &member, zone)],
                ports: member.ports,
            });
        }
    }
    groups
}

fn endpoint(service: &Selecting, member: &Member, zone: Option<String>) -> Endpoint {
    let ready = service.publish_not_ready || (member.serving && !member.terminating);
    Endpoint {
        addresses: vec![member.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(member.serving),
            terminating: Some(member.terminating),
        }),
        hostname: member.hostname.clone(),
        node_name: member.node.clone(),
        target_ref: Some(member.target.clone()),
        hints: ready
            .then(|| hints(service.hints, zone.as_deref(), member))
            .flatten(),
        zone,
        ..Endpoint::default()
    }
}

/// For whom a ready endpoint is: clients in its zone, or on its node.
fn hints(hints: Hints, zone: Option<&str>, member: &Member) -> Option<EndpointHints> {
    let for_zones = zone.filter(|_| hints != Hints::None).map(|zone| {
        vec![ForZone {
            name: zone.to_owned(),
        }]
    });
    let node = member.node.as_ref().filter(|_| hints == Hints::Node);
    let for_nodes = node.map(|node| vec![ForNode { name: node.clone() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints {
        for_zones,
        for_nodes,
    })
}

fn wrapper(service: &Selecting, pods: &[Arc<Pod>]) -> Wrapper {
    let mut labels = service.labels.clone();
    // What a user writes under these names cannot be meant for the slices.
    labels.remove(HEADLESS_LABEL);
    if service.headless {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(SERVICE_LABEL.to_owned(), service.key.name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let changes = pods.iter().filter_map(|pod| member::changed_at(pod));
    Wrapper {
        service: service.key.clone(),
        owner: OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: service.key.name.clone(),
            uid: service.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
        labels,
        annotations: Default::default(),
        trigger: changes.chain(service.created).max(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    fn view(service: serde_json::Value) -> Option<Selecting> {
        Selecting::of(&serde_json::from_value::<Service>(service).unwrap())
    }

    fn pod(name: &str, ready: bool, deleting: bool, port: i32) -> Arc<Pod> {
        let mut object = json!({
            "metadata": { "namespace": "default", "name": name, "uid": name },
            "spec": { "nodeName": "node-1", "containers": [
                { "name": "c", "ports": [{ "name": "http", "containerPort": port }] },
            ]},
            "status": { "podIP": format!("10.0.0.{}", name.len()),
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
        });
        if deleting {
            object["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn service(extra: serde_json::Value) -> serde_json::Value {
        let mut object = json!({
            "metadata": { "namespace": "default", "name": "web", "uid": "s", "labels": { "team": "a" } },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] },
        });
        for (key, value) in extra.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        object
    }

    #[test]
    fn conditions_follow_readiness_and_deletion() {
        let table = [
            (true, false, false, (true, true, false)),
            (false, false, false, (false, false, false)),
            (true, true, false, (false, true, true)),
            (false, true, false, (false, false, true)),
            (false, false, true, (true, false, false)),
            (true, true, true, (true, true, true)),
        ];
        for (ready, deleting, publish, expected) in table {
            let view = view(service(json!({ "publishNotReadyAddresses": publish }))).unwrap();
            let groups = groups(&view, &[pod("p", ready, deleting, 80)], &|_| None);
            let conditions = groups[0].endpoints[0].conditions.clone().unwrap();
            let shown = (
                conditions.ready.unwrap(),
                conditions.serving.unwrap(),
                conditions.terminating.unwrap(),
            );
            assert_eq!(
                shown, expected,
                "ready {ready}, deleting {deleting}, publishNotReady {publish}"
            );
        }
    }

    #[test]
    fn pods_with_different_numbers_for_a_name_are_in_different_slices() {
        let view = view(service(json!({}))).unwrap();
        let pods = [
            pod("a", true, false, 80),
            pod("bb", true, false, 8080),
            pod("ccc", true, false, 80),
        ];
        let changes = packing::pack(
            &wrapper(&view, &pods),
            groups(&view, &pods, &|_| None),
            &[],
            &view.families,
        );
        let mut sizes: Vec<usize> = changes
            .create
            .iter()
            .map(|slice| slice.endpoints.as_ref().unwrap().len())
            .collect();
        sizes.sort();
        assert_eq!(sizes, [1, 2]);
    }

    #[test]
    fn labels_say_whose_the_slices_are() {
        let view = view(service(json!({ "clusterIP": "None" }))).unwrap();
        let labels = wrapper(&view, &[]).labels;
        let expected = [
            ("team", "a"),
            (SERVICE_LABEL, "web"),
            (MANAGED_BY, MANAGER),
            (HEADLESS_LABEL, ""),
        ];
        assert_eq!(
            labels,
            expected
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into()
        );
    }

    #[test]
    fn ready_endpoints_say_whom_they_are_for_when_the_service_wants_it() {
        let hints = |distribution: serde_json::Value, ready: bool| {
            let view = view(service(json!({ "trafficDistribution": distribution }))).unwrap();
            let groups = groups(&view, &[pod("p", ready, false, 80)], &|_| {
                Some("z".to_owned())
            });
            serde_json::to_value(&groups[0].endpoints[0].hints).unwrap()
        };
        let zone = json!({ "forZones": [{ "name": "z" }] });
        assert_eq!(hints(json!(null), true), json!(null));
        assert_eq!(hints(json!("PreferClose"), true), zone);
        assert_eq!(hints(json!("PreferSameZone"), true), zone);
        assert_eq!(hints(json!("PreferSameZone"), false), json!(null));
        assert_eq!(
            hints(json!("PreferSameNode"), true),
            json!({ "forZones": [{ "name": "z" }], "forNodes": [{ "name": "node-1" }] })
        );
    }

    #[test]
    fn services_without_a_selector_are_left_alone() {
        assert!(view(service(json!({ "selector": null }))).is_none());
        assert!(view(service(json!({ "type": "ExternalName" }))).is_none());
    }

    #[test]
    fn the_zone_is_that_of_the_node() {
        let view = view(service(json!({}))).unwrap();
        let groups = groups(&view, &[pod("p", true, false, 80)], &|node| {
            Some(format!("zone-of-{node}"))
        });
        assert_eq!(
            groups[0].endpoints[0].zone.as_deref(),
            Some("zone-of-node-1")
        );
    }
}
