//! Nodes that come, fall silent, speak again and go.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::DeleteParams;
use seaway_controllers::Tuning;
use serde_json::json;

use crate::harness::{Cluster, eventually};

fn taints(node: &Node) -> BTreeSet<String> {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    taints
        .into_iter()
        .map(|taint| format!("{}:{}", taint.key, taint.effect))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_gets_a_range_of_its_own() {
    let cluster = Cluster::start(5).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let ranges = || async {
        let nodes = nodes.list(&Default::default()).await.unwrap().items;
        let ranges: BTreeSet<String> = nodes
            .into_iter()
            .filter_map(|node| node.spec?.pod_cidr)
            .collect();
        (ranges.len() == 5).then_some(ranges)
    };
    let found = eventually("five ranges", ranges).await;
    let expected: BTreeSet<String> = (0..5)
        .map(|number| format!("10.244.{number}.0/24"))
        .collect();
    assert_eq!(found, expected);
    let freed = nodes
        .get("node-3")
        .await
        .unwrap()
        .spec
        .unwrap()
        .pod_cidr
        .unwrap();
    nodes
        .delete("node-3", &DeleteParams::default())
        .await
        .unwrap();
    cluster.add_node("node-6").await;
    let given = eventually("a range", || async {
        nodes.get("node-6").await.unwrap().spec?.pod_cidr
    })
    .await;
    assert_eq!(given, freed, "the lowest that is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_given_up_and_taken_back() {
    let tuning = Tuning {
        node_grace: Duration::from_secs(2),
        ..Tuning::default()
    };
    let cluster = Cluster::start_with(1, tuning).await;
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "v1" }] } });
    cluster.create::<Pod>(pod).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let pods = cluster.api::<Pod>();
    let pod_ready = |status: &'static str| {
        let pods = pods.clone();
        move || {
            let pods = pods.clone();
            async move {
                let conditions = pods.get("p").await.unwrap().status?.conditions?;
                conditions
                    .iter()
                    .any(|one| one.type_ == "Ready" && one.status == status)
                    .then_some(())
            }
        }
    };
    eventually("the Pod is ready", pod_ready("True")).await;
    let unreachable = [
        "node.kubernetes.io/unreachable:NoExecute",
        "node.kubernetes.io/unreachable:NoSchedule",
    ]
    .map(str::to_owned);
    eventually("the node is given up", || async {
        let node = nodes.get("node-1").await.unwrap();
        let conditions = node.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions.iter().find(|one| one.type_ == "Ready")?;
        let silent =
            ready.status == "Unknown" && ready.reason.as_deref() == Some("NodeStatusUnknown");
        (silent && taints(&node) == unreachable.clone().into()).then_some(())
    })
    .await;
    eventually("its Pod is not counted on", pod_ready("False")).await;

    cluster.report_ready("node-1").await;
    eventually("the taints are gone", || async {
        taints(&nodes.get("node-1").await.unwrap())
            .is_empty()
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_a_removed_node_are_removed() {
    let tuning = Tuning {
        removed_node_grace: Duration::from_millis(100),
        ..Tuning::default()
    };
    let cluster = Cluster::start_with(1, tuning).await;
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "v1" }] } });
    cluster.create::<Pod>(pod).await;
    let pods = cluster.api::<Pod>();
    eventually("a node", || async {
        pods.get("p").await.unwrap().spec?.node_name
    })
    .await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes
        .delete("node-1", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the Pod is gone", || async {
        pods.get_opt("p").await.unwrap().is_none().then_some(())
    })
    .await;
}
