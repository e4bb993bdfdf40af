//! DaemonSets and StatefulSets against an API server and played nodes.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{Cluster, eventually};

fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

fn daemons(image: &str) -> Value {
    json!({ "metadata": { "name": "web" }, "spec": { "selector": { "matchLabels": { "app": "web" } }, "template": template(image) } })
}

fn stateful(replicas: i32, image: &str) -> Value {
    json!({ "metadata": { "name": "web" }, "spec": { "replicas": replicas, "serviceName": "web",
        "selector": { "matchLabels": { "app": "web" } }, "template": template(image) } })
}

/// The living Pods: name, node, image.
async fn living(cluster: &Cluster) -> BTreeSet<(String, String, String)> {
    let pods: Vec<Pod> = cluster.list("app=web").await;
    let living = pods
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    living
        .map(|pod| {
            let spec = pod.spec.unwrap();
            let image = spec.containers[0].image.clone().unwrap();
            (
                pod.metadata.name.unwrap(),
                spec.node_name.unwrap_or_default(),
                image,
            )
        })
        .collect()
}

async fn patch_image<K>(cluster: &Cluster, image: &str)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let patch = json!({ "spec": { "template": template(image) } });
    let api = cluster.api::<K>();
    api.patch("web", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
}

async fn nothing_is_left(cluster: &Cluster) {
    eventually("nothing is left", || async {
        let pods: Vec<Pod> = cluster.list("app=web").await;
        let revisions: Vec<ControllerRevision> = cluster.list("app=web").await;
        (pods.is_empty() && revisions.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_gets_a_daemon_and_a_new_template_reaches_all() {
    let cluster = Cluster::start(3).await;
    cluster.create::<DaemonSet>(daemons("v1")).await;
    let on_nodes = |wanted: &'static [&'static str], image: &'static str| {
        let cluster = &cluster;
        async move {
            eventually("one daemon on each node", || async {
                let living = living(cluster).await;
                let nodes: Vec<&str> = living.iter().map(|(_, node, _)| node.as_str()).collect();
                let mut nodes = nodes.clone();
                nodes.sort_unstable();
                let set = cluster.api::<DaemonSet>().get("web").await.unwrap();
                let status = set.status.unwrap_or_default();
                let count = i32::try_from(wanted.len()).unwrap();
                let done = nodes == wanted
                    && living.iter().all(|(_, _, one)| one == image)
                    && status.observed_generation == set.metadata.generation
                    && status.desired_number_scheduled == count
                    && status.updated_number_scheduled == Some(count)
                    && status.number_available == Some(count);
                done.then_some(())
            })
            .await;
        }
    };
    on_nodes(&["node-1", "node-2", "node-3"], "v1").await;
    cluster.add_node("node-4").await;
    on_nodes(&["node-1", "node-2", "node-3", "node-4"], "v1").await;

    patch_image::<DaemonSet>(&cluster, "v2").await;
    on_nodes(&["node-1", "node-2", "node-3", "node-4"], "v2").await;
    let mut revisions: Vec<i64> = cluster
        .list::<ControllerRevision>("app=web")
        .await
        .iter()
        .map(|one| one.revision)
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [1, 2]);

    // A node that takes none any more loses its daemon.
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let taint = json!({ "spec": { "taints": [{ "key": "away", "effect": "NoExecute" }] } });
    nodes
        .patch("node-1", &PatchParams::default(), &Patch::Merge(&taint))
        .await
        .unwrap();
    on_nodes(&["node-2", "node-3", "node-4"], "v2").await;

    cluster
        .api::<DaemonSet>()
        .delete("web", &DeleteParams::background())
        .await
        .unwrap();
    nothing_is_left(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_keeps_its_names_through_update_and_scaling() {
    let cluster = Cluster::start(2).await;
    cluster
        .create::<Service>(
            json!({ "metadata": { "name": "web" }, "spec": { "clusterIP": "None",
            "selector": { "app": "web" }, "ports": [{ "port": 80 }] } }),
        )
        .await;
    cluster.create::<StatefulSet>(stateful(3, "v1")).await;
    let ready = |wanted: &'static [&'static str], image: &'static str| {
        let cluster = &cluster;
        async move {
            eventually("all Pods of the set", || async {
                let living = living(cluster).await;
                let names: Vec<&str> = living.iter().map(|(name, _, _)| name.as_str()).collect();
                let set = cluster.api::<StatefulSet>().get("web").await.unwrap();
                let status = set.status.unwrap_or_default();
                let count = i32::try_from(wanted.len()).unwrap();
                let done = names == wanted
                    && living.iter().all(|(_, _, one)| one == image)
                    && status.observed_generation == set.metadata.generation
                    && status.available_replicas == Some(count)
                    && status.updated_replicas == Some(count)
                    && status.current_revision == status.update_revision;
                done.then_some(())
            })
            .await;
        }
    };
    ready(&["web-0", "web-1", "web-2"], "v1").await;
    eventually("each Pod has its name under the Service's", || async {
        let slices: Vec<EndpointSlice> = cluster.list("kubernetes.io/service-name=web").await;
        let endpoints = slices
            .into_iter()
            .flat_map(|slice| slice.endpoints.unwrap_or_default());
        let names: BTreeSet<String> = endpoints.filter_map(|endpoint| endpoint.hostname).collect();
        (names == BTreeSet::from(["web-0", "web-1", "web-2"].map(str::to_owned))).then_some(())
    })
    .await;
    patch_image::<StatefulSet>(&cluster, "v2").await;
    ready(&["web-0", "web-1", "web-2"], "v2").await;
    let scale = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    cluster
        .api::<StatefulSet>()
        .patch_scale("web", &PatchParams::default(), &scale)
        .await
        .unwrap();
    ready(&["web-0"], "v2").await;
    let events: Vec<Event> = cluster.list("").await;
    let told = |message: &str| {
        events
            .iter()
            .any(|event| event.message.as_deref() == Some(message))
    };
    assert!(told("create Pod web-0 in StatefulSet web successful"));
    assert!(told("delete Pod web-2 in StatefulSet web successful"));
    cluster
        .api::<StatefulSet>()
        .delete("web", &DeleteParams::background())
        .await
        .unwrap();
    nothing_is_left(&cluster).await;
}
