//! How things end: namespaces, owners, and what comes back.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::harness::{Cluster, eventually};

fn deployment(namespace: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": namespace },
        "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "web" } }, "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "image": "v1" }] },
        }},
    }))
    .unwrap()
}

async fn running(pods: &Api<Pod>) -> Option<()> {
    let pods = pods.list(&ListParams::default()).await.unwrap().items;
    let has_address = |pod: &Pod| {
        pod.status
            .as_ref()
            .is_some_and(|status| status.pod_ip.is_some())
    };
    (pods.len() == 3 && pods.iter().all(has_address)).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_ends_with_everything_in_it() {
    let cluster = Cluster::start(2).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    cluster
        .create_global::<Namespace>(json!({ "metadata": { "name": "team" } }))
        .await;
    let post = PostParams::default();
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "team");
    deployments
        .create(&post, &deployment("team"))
        .await
        .unwrap();
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "team");
    let service = json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] } });
    services
        .create(&post, &serde_json::from_value(service).unwrap())
        .await
        .unwrap();
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "team");
    let held = json!({ "metadata": { "name": "held", "finalizers": ["example.org/hold"] } });
    secrets
        .create(&post, &serde_json::from_value(held).unwrap())
        .await
        .unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "team");
    eventually("three Pods", || running(&pods)).await;

    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .unwrap();
    let message = eventually("what it waits for", || async {
        let conditions = namespaces.get("team").await.unwrap().status?.conditions?;
        conditions
            .into_iter()
            .find(|one| one.type_ == "NamespaceFinalizersRemaining" && one.status == "True")?
            .message
    })
    .await;
    assert!(
        message.contains("example.org/hold in 1 resource instances"),
        "{message}"
    );
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    secrets
        .patch("held", &PatchParams::default(), &free)
        .await
        .unwrap();
    eventually("the namespace is gone", || async {
        namespaces
            .get_opt("team")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    assert!(
        pods.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert!(
        services
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_deleted_in_the_foreground_goes_last() {
    let cluster = Cluster::start(2).await;
    let (deployments, pods) = (cluster.api::<Deployment>(), cluster.api::<Pod>());
    deployments
        .create(&PostParams::default(), &deployment("default"))
        .await
        .unwrap();
    eventually("three Pods", || running(&pods)).await;
    // One Pod is held back, so that the order can be seen.
    let name = pods.list(&ListParams::default()).await.unwrap().items[0]
        .metadata
        .name
        .clone()
        .unwrap();
    let hold = Patch::Merge(json!({ "metadata": { "finalizers": ["example.org/hold"] } }));
    pods.patch(&name, &PatchParams::default(), &hold)
        .await
        .unwrap();

    deployments
        .delete("web", &DeleteParams::foreground())
        .await
        .unwrap();
    eventually("only the held Pod is left", || async {
        (pods.list(&ListParams::default()).await.unwrap().items.len() == 1).then_some(())
    })
    .await;
    assert!(
        deployments.get_opt("web").await.unwrap().is_some(),
        "the owner waits"
    );
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    pods.patch(&name, &PatchParams::default(), &free)
        .await
        .unwrap();
    eventually("all is gone", || async {
        let gone = deployments.get_opt("web").await.unwrap().is_none();
        (gone
            && pods
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .is_empty())
        .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependent_whose_owner_never_was_is_collected() {
    let cluster = Cluster::start(0).await;
    cluster
        .create::<ConfigMap>(json!({ "metadata": { "name": "stray", "ownerReferences": [
            { "apiVersion": "v1", "kind": "Secret", "name": "nobody", "uid": "00000000-0000-0000-0000-000000000000" },
        ]}}))
        .await;
    let maps = cluster.api::<ConfigMap>();
    eventually("it is gone", || async {
        maps.get_opt("stray").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_namespace_has_comes_back() {
    let cluster = Cluster::start(0).await;
    let (accounts, maps) = (cluster.api::<ServiceAccount>(), cluster.api::<ConfigMap>());
    let certificate = || async {
        let data = maps.get_opt("kube-root-ca.crt").await.unwrap()?.data?;
        (data.get("ca.crt") == Some(&cluster.root_ca)).then_some(())
    };
    let account = || async { accounts.get_opt("default").await.unwrap()?.metadata.uid };
    eventually("the certificate", certificate).await;
    let first = eventually("the account", account).await;
    accounts
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    eventually("another account", || async {
        account().await.filter(|uid| *uid != first)
    })
    .await;
    maps.delete("kube-root-ca.crt", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the certificate again", certificate).await;
    let wrong = Patch::Merge(json!({ "data": { "ca.crt": "forged" } }));
    maps.patch("kube-root-ca.crt", &PatchParams::default(), &wrong)
        .await
        .unwrap();
    eventually("the right certificate", certificate).await;
}
