//! From a manifest to Pods behind a Service.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Event, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::harness::{Cluster, eventually};

fn deployment(replicas: i32, image: &str) -> serde_json::Value {
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [
                    { "name": "c", "image": image, "ports": [{ "name": "http", "containerPort": 8080 }] },
                ]},
            },
        },
    })
}

fn service() -> serde_json::Value {
    json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] },
    })
}

/// The addresses that slices say are ready, and their port.
async fn ready_addresses(cluster: &Cluster) -> BTreeSet<(String, i32)> {
    let slices: Vec<EndpointSlice> = cluster.list("kubernetes.io/service-name=web").await;
    let mut ready = BTreeSet::new();
    for slice in slices {
        let port = slice.ports.iter().flatten().find_map(|port| port.port);
        for endpoint in slice.endpoints.iter().flatten() {
            if endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                == Some(true)
            {
                assert!(
                    ready.insert((endpoint.addresses[0].clone(), port.unwrap())),
                    "shown twice"
                );
            }
        }
    }
    ready
}

async fn pods_by_node(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pod in cluster.list::<Pod>("app=web").await {
        if pod.metadata.deletion_timestamp.is_none() {
            *counts
                .entry(pod.spec.unwrap().node_name.unwrap_or_default())
                .or_default() += 1;
        }
    }
    counts
}

fn condition(deployment: &Deployment, type_: &str) -> Option<(String, String)> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|one| one.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone()?))
}

async fn wait_complete(cluster: &Cluster, replicas: i32, revision: &str) -> Deployment {
    eventually("the rollout is complete", || async {
        let web = cluster.api::<Deployment>().get("web").await.unwrap();
        let status = web.status.clone()?;
        let done = status.observed_generation == web.metadata.generation
            && status.updated_replicas == Some(replicas)
            && status.replicas == Some(replicas)
            && status.available_replicas == Some(replicas)
            && condition(&web, "Progressing")?.1 == "NewReplicaSetAvailable"
            && web
                .metadata
                .annotations
                .as_ref()?
                .get("deployment.kubernetes.io/revision")?
                == revision;
        done.then_some(web)
    })
    .await
}

async fn scale(cluster: &Cluster, replicas: i32) {
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    cluster
        .api::<Deployment>()
        .patch_scale("web", &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_spreads_serves_scales_rolls_and_goes() {
    let cluster = Cluster::start(3).await;
    cluster.create::<Service>(service()).await;
    cluster.create::<Deployment>(deployment(3, "v1")).await;

    let web = wait_complete(&cluster, 3, "1").await;
    assert_eq!(
        condition(&web, "Available"),
        Some(("True".into(), "MinimumReplicasAvailable".into()))
    );
    assert_eq!(
        pods_by_node(&cluster)
            .await
            .into_values()
            .collect::<Vec<_>>(),
        [1, 1, 1]
    );
    eventually("three endpoints", || async {
        let ready = ready_addresses(&cluster).await;
        (ready.len() == 3 && ready.iter().all(|(_, port)| *port == 8080)).then_some(())
    })
    .await;
    eventually("three addresses in the older kind", || async {
        let endpoints = cluster.api::<Endpoints>().get_opt("web").await.unwrap()?;
        let subsets = endpoints.subsets.unwrap_or_default();
        (subsets.len() == 1 && subsets[0].addresses.as_ref()?.len() == 3).then_some(())
    })
    .await;

    for replicas in [5, 1] {
        let start = Instant::now();
        scale(&cluster, replicas).await;
        let wanted = usize::try_from(replicas).unwrap();
        eventually("the endpoints follow", || async {
            let serving = ready_addresses(&cluster).await.len() == wanted;
            (serving && pods_by_node(&cluster).await.into_values().sum::<usize>() == wanted)
                .then_some(())
        })
        .await;
        // Nothing in between waits for a timer: this takes tens of milliseconds.
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        let counts: Vec<usize> = pods_by_node(&cluster).await.into_values().collect();
        assert!(
            counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1,
            "{counts:?}"
        );
    }

    scale(&cluster, 3).await;
    wait_complete(&cluster, 3, "1").await;
    let image = |image: &str| {
        Patch::Strategic(
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } }),
        )
    };
    let api = cluster.api::<Deployment>();
    api.patch("web", &PatchParams::default(), &image("v2"))
        .await
        .unwrap();
    wait_complete(&cluster, 3, "2").await;
    for pod in cluster.list::<Pod>("app=web").await {
        assert_eq!(pod.spec.unwrap().containers[0].image.as_deref(), Some("v2"));
    }
    api.patch("web", &PatchParams::default(), &image("v1"))
        .await
        .unwrap();
    wait_complete(&cluster, 3, "3").await;
    assert_eq!(
        cluster.list::<ReplicaSet>("app=web").await.len(),
        2,
        "the first serves again"
    );
    let events = cluster
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let told: BTreeSet<String> = events
        .items
        .into_iter()
        .filter_map(|event| event.reason)
        .collect();
    for reason in [
        "ScalingReplicaSet",
        "SuccessfulCreate",
        "SuccessfulDelete",
        "Scheduled",
    ] {
        assert!(told.contains(reason), "{reason} is missing among {told:?}");
    }

    api.delete("web", &DeleteParams::background())
        .await
        .unwrap();
    eventually("nothing of the Deployment is left", || async {
        let left = cluster.list::<ReplicaSet>("").await.len() + cluster.list::<Pod>("").await.len();
        (left == 0 && ready_addresses(&cluster).await.is_empty()).then_some(())
    })
    .await;
    cluster
        .api::<Service>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    eventually("nothing of the Service is left", || async {
        let slices = cluster
            .list::<EndpointSlice>("kubernetes.io/service-name=web")
            .await;
        (slices.is_empty()
            && cluster
                .api::<Endpoints>()
                .get_opt("web")
                .await
                .unwrap()
                .is_none())
        .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_cannot_finish_keeps_the_old_pods() {
    let cluster = Cluster::start(2).await;
    cluster.create::<Service>(service()).await;
    cluster.create::<Deployment>(deployment(4, "v1")).await;
    wait_complete(&cluster, 4, "1").await;
    let broken = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "never-ready" }] } } } });
    let api = cluster.api::<Deployment>();
    api.patch("web", &PatchParams::default(), &Patch::Strategic(&broken))
        .await
        .unwrap();
    eventually("the new Pods are there, as many as may be", || async {
        let sets = cluster.list::<ReplicaSet>("app=web").await;
        let mut sizes: Vec<i32> = sets
            .iter()
            .filter_map(|set| set.status.as_ref().map(|status| status.replicas))
            .collect();
        sizes.sort();
        // 25 % of four: one more, one fewer.
        (sizes == [2, 3]).then_some(())
    })
    .await;
    assert_eq!(ready_addresses(&cluster).await.len(), 3);
    let web = api.get("web").await.unwrap();
    assert_eq!(
        condition(&web, "Available"),
        Some(("True".into(), "MinimumReplicasAvailable".into()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_controller_adopts_replaces_and_leaves_behind() {
    let cluster = Cluster::start(2).await;
    let pod = json!({ "metadata": { "name": "mine", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": "v1" }] } });
    cluster.create::<Pod>(pod).await;
    cluster
        .create::<ReplicationController>(json!({
            "metadata": { "name": "web" },
            "spec": { "replicas": 3, "selector": { "app": "web" }, "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "v1" }] },
            }},
        }))
        .await;
    let api = cluster.api::<ReplicationController>();
    let full = || async {
        let status = api.get("web").await.unwrap().status?;
        (status.replicas == 3 && status.available_replicas == Some(3)).then_some(())
    };
    eventually("three Pods", full).await;
    let names: BTreeSet<String> = cluster
        .list::<Pod>("app=web")
        .await
        .into_iter()
        .filter_map(|pod| pod.metadata.name)
        .collect();
    assert_eq!(names.len(), 3);
    assert!(
        names.contains("mine"),
        "the Pod that was there is one of them"
    );

    cluster
        .api::<Pod>()
        .delete("mine", &DeleteParams::default())
        .await
        .unwrap();
    eventually("another in its place", || async {
        let pods = cluster.list::<Pod>("app=web").await;
        let gone = pods
            .iter()
            .all(|pod| pod.metadata.name.as_deref() != Some("mine"));
        (gone && pods.len() == 3).then_some(())
    })
    .await;

    api.delete("web", &DeleteParams::orphan()).await.unwrap();
    eventually("the owner is gone", || async {
        api.get_opt("web").await.unwrap().is_none().then_some(())
    })
    .await;
    let pods = cluster.list::<Pod>("app=web").await;
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| {
        pod.metadata
            .owner_references
            .as_ref()
            .is_none_or(Vec::is_empty)
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_waits_for_a_node() {
    let cluster = Cluster::start(3).await;
    let pod = json!({ "metadata": { "name": "picky" },
        "spec": { "nodeSelector": { "disk": "ssd" }, "containers": [{ "name": "c", "image": "v1" }] } });
    cluster.create::<Pod>(pod).await;
    let api = cluster.api::<Pod>();
    let message = eventually("the reason", || async {
        let conditions = api.get("picky").await.unwrap().status?.conditions?;
        conditions
            .into_iter()
            .find(|one| one.type_ == "PodScheduled" && one.status == "False")?
            .message
    })
    .await;
    assert_eq!(
        message,
        "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    );
    let label = Patch::Merge(json!({ "metadata": { "labels": { "disk": "ssd" } } }));
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes
        .patch("node-2", &PatchParams::default(), &label)
        .await
        .unwrap();
    let node = eventually("a node", || async {
        api.get("picky").await.unwrap().spec?.node_name
    })
    .await;
    assert_eq!(node, "node-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_made_by_hand_are_mirrored() {
    let cluster = Cluster::start(0).await;
    cluster
        .create::<Service>(
            json!({ "metadata": { "name": "web" }, "spec": { "ports": [{ "port": 5432 }] } }),
        )
        .await;
    cluster
        .create::<Endpoints>(json!({ "metadata": { "name": "web" }, "subsets": [
            { "addresses": [{ "ip": "192.0.2.1" }, { "ip": "192.0.2.2" }], "ports": [{ "port": 5432 }] },
        ]}))
        .await;
    let two = [
        ("192.0.2.1".to_owned(), 5432),
        ("192.0.2.2".to_owned(), 5432),
    ]
    .into();
    eventually("both addresses", || async {
        (ready_addresses(&cluster).await == two).then_some(())
    })
    .await;
    cluster
        .api::<Endpoints>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    eventually("none", || async {
        cluster
            .list::<EndpointSlice>("kubernetes.io/service-name=web")
            .await
            .is_empty()
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_lags_makes_no_pod_too_many() {
    let cluster = Cluster::start(3).await;
    cluster.create::<Deployment>(deployment(60, "v1")).await;
    wait_complete(&cluster, 60, "1").await;
    let counts: Vec<usize> = pods_by_node(&cluster).await.into_values().collect();
    assert_eq!(counts, [20, 20, 20]);
    let deleted = cluster
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some("SuccessfulDelete"))
        .count();
    assert_eq!(deleted, 0, "a Pod too many was made and taken away");
}
