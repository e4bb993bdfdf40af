//! What may be stored where: quotas, limits, accounts, priorities, as clients meet them.

#![allow(clippy::unwrap_used)]

mod harness;

use futures::future::join_all;
use harness::{Cluster, config_map, pod, text};
use seaway_apiserver::Tuning;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

fn quota(hard: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}})
}

fn service(name: &str, spec: Value) -> Value {
    let mut object =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    object["spec"]["ports"] = json!([{"port": 80}]);
    object
}

async fn used(cluster: &Cluster) -> Value {
    let (code, quota) = cluster.get(&format!("{QUOTAS}/q")).await;
    assert_eq!(code, 200, "{quota}");
    quota["status"]["used"].clone()
}

#[tokio::test]
async fn a_quota_is_charged_before_the_answer_and_refuses_what_goes_beyond_it() {
    let cluster = Cluster::start().await;
    let hard = json!({"pods": "1", "services": "3", "services.nodeports": "1", "configmaps": "10", "count/deployments.apps": "0"});
    assert_eq!(cluster.post(QUOTAS, &quota(hard)).await.0, 201);
    assert_eq!(cluster.post(PODS, &pod("a")).await.0, 201);
    assert_eq!(used(&cluster).await["pods"], "1");
    let (code, refusal) = cluster.post(PODS, &pod("b")).await;
    assert_eq!(
        (
            code,
            text(&refusal, "/message").as_str(),
            text(&refusal, "/reason").as_str()
        ),
        (
            403,
            "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
            "Forbidden"
        )
    );

    let services = "/api/v1/namespaces/default/services";
    assert_eq!(
        cluster.post(services, &service("s", json!({}))).await.0,
        201
    );
    assert_eq!(
        cluster
            .post(services, &service("t", json!({"type": "NodePort"})))
            .await
            .0,
        201
    );
    let (code, _) = cluster.post(services, &service("u", json!({}))).await;
    assert_eq!(code, 403, "there is `kubernetes`, too");
    // A change is charged with what it adds.
    let patch = json!({"spec": {"type": "NodePort"}});
    let (code, refusal) = cluster
        .patch(&format!("{services}/s"), "merge", &patch)
        .await;
    assert_eq!(code, 403);
    assert_eq!(
        text(&refusal, "/message"),
        "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1"
    );
    assert_eq!(
        cluster
            .patch(
                &format!("{services}/t"),
                "merge",
                &json!({"spec": {"type": "ClusterIP"}})
            )
            .await
            .0,
        200
    );
    assert_eq!(
        cluster
            .patch(&format!("{services}/s"), "merge", &patch)
            .await
            .0,
        200
    );

    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let (code, refusal) = cluster
        .post("/apis/apps/v1/namespaces/default/deployments", &deployment)
        .await;
    assert_eq!(code, 403);
    assert!(text(&refusal, "/message").starts_with("deployments.apps \"d\" is forbidden: exceeded quota: q, requested: count/deployments.apps=1"));
    // What is deleted makes room at once.
    assert_eq!(
        cluster.delete(&format!("{PODS}/a"), &Value::Null).await.0,
        200
    );
    assert_eq!(cluster.post(PODS, &pod("b")).await.0, 201);
}

#[tokio::test]
async fn of_many_at_once_no_more_get_through_than_the_quota_has() {
    let cluster = Cluster::start().await;
    assert_eq!(
        cluster.post(QUOTAS, &quota(json!({"pods": "3"}))).await.0,
        201
    );
    let pods: Vec<Value> = (0..20).map(|n| pod(&format!("p{n}"))).collect();
    let answers = join_all(pods.iter().map(|pod| cluster.post(PODS, pod))).await;
    assert_eq!(answers.iter().filter(|(code, _)| *code == 201).count(), 3);
    assert_eq!(answers.iter().filter(|(code, _)| *code == 403).count(), 17);
    assert_eq!(used(&cluster).await, json!({"pods": "3"}));
    assert_eq!(
        cluster.get(PODS).await.1["items"].as_array().map(Vec::len),
        Some(3)
    );
}

#[tokio::test]
async fn what_is_not_stored_takes_nothing() {
    let cluster = Cluster::start().await;
    assert_eq!(
        cluster.post(QUOTAS, &quota(json!({"pods": "2"}))).await.0,
        201
    );
    for _ in 0..5 {
        assert_eq!(
            cluster
                .post(&format!("{PODS}?dryRun=All"), &pod("a"))
                .await
                .0,
            201
        );
    }
    assert_eq!(cluster.post(PODS, &pod("a")).await.0, 201);
    // A name that is taken is found out after the share was reserved.
    for _ in 0..5 {
        assert_eq!(cluster.post(PODS, &pod("a")).await.0, 409);
    }
    assert_eq!(cluster.post(PODS, &pod("b")).await.0, 201);
    let cluster = cluster.restart().await;
    assert_eq!(cluster.post(PODS, &pod("c")).await.0, 403);
}

#[tokio::test]
async fn a_quota_of_cpu_wants_to_know_how_much() {
    let cluster = Cluster::start().await;
    let hard = json!({"limits.cpu": "1", "requests.memory": "1Gi"});
    assert_eq!(cluster.post(QUOTAS, &quota(hard)).await.0, 201);
    let (code, refusal) = cluster.post(PODS, &pod("a")).await;
    assert_eq!(code, 403);
    assert_eq!(
        text(&refusal, "/message"),
        "pods \"a\" is forbidden: failed quota: q: must specify limits.cpu for: c; requests.memory for: c"
    );
    let mut sized = pod("a");
    sized["spec"]["containers"][0]["resources"] =
        json!({"limits": {"cpu": 0.5, "memory": "1024Mi"}});
    let (code, made) = cluster.post(PODS, &sized).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        made["spec"]["containers"][0]["resources"]["requests"],
        json!({"cpu": "500m", "memory": "1Gi"})
    );
    assert_eq!(
        used(&cluster).await,
        json!({"limits.cpu": "500m", "requests.memory": "1Gi"})
    );
    sized["metadata"]["name"] = json!("b");
    let (_, refusal) = cluster.post(PODS, &sized).await;
    assert_eq!(
        text(&refusal, "/message"),
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.memory=1Gi, used: requests.memory=1Gi, limited: requests.memory=1Gi"
    );
}

#[tokio::test]
async fn a_limit_range_fills_in_and_refuses() {
    let cluster = Cluster::start().await;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "50m"}, "default": {"cpu": "200m"}, "defaultRequest": {"cpu": "100m"}}]}});
    assert_eq!(
        cluster
            .post("/api/v1/namespaces/default/limitranges", &range)
            .await
            .0,
        201
    );
    let (code, made) = cluster.post(PODS, &pod("a")).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let mut big = pod("big");
    big["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let (code, refusal) = cluster.post(PODS, &big).await;
    assert_eq!(
        (code, text(&refusal, "/message").as_str()),
        (
            403,
            "pods \"big\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
        )
    );
}

#[tokio::test]
async fn a_pod_has_an_account_a_token_a_priority_and_patience() {
    let cluster = Cluster::start().await;
    let (code, made) = cluster.post(PODS, &pod("a")).await;
    assert_eq!(code, 201, "{made}");
    let spec = &made["spec"];
    assert_eq!(
        (&spec["serviceAccountName"], &spec["serviceAccount"]),
        (&json!("default"), &json!("default"))
    );
    let volume = text(&made, "/spec/volumes/0/name");
    assert!(volume.starts_with("kube-api-access-"), "{volume}");
    assert_eq!(
        spec["volumes"][0]["projected"]["sources"][0],
        json!({"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}})
    );
    assert_eq!(
        spec["containers"][0]["volumeMounts"],
        json!([{"name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}])
    );
    assert_eq!(
        (&spec["priority"], &spec["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));

    let with = |field: &str, value: Value| {
        let mut pod = pod("b");
        pod["metadata"] = json!({"generateName": "b-"});
        pod["spec"][field] = value;
        pod
    };
    for (pod, message) in [
        (
            with("serviceAccountName", json!("robot")),
            "pods \"b-\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found",
        ),
        (
            with("priorityClassName", json!("high")),
            "pods \"b-\" is forbidden: no PriorityClass with name high was found",
        ),
    ] {
        let (code, refusal) = cluster.post(PODS, &pod).await;
        assert_eq!((code, text(&refusal, "/message").as_str()), (403, message));
    }
    let (code, made) = cluster
        .post(
            PODS,
            &with("priorityClassName", json!("system-node-critical")),
        )
        .await;
    assert_eq!(
        (code, &made["spec"]["priority"]),
        (201, &json!(2_000_001_000))
    );
    let (_, made) = cluster
        .post(PODS, &with("automountServiceAccountToken", json!(false)))
        .await;
    assert_eq!(made["spec"].get("volumes"), None);
}

#[tokio::test]
async fn some_namespaces_are_never_deleted_and_others_must_be_there() {
    let cluster = Cluster::start().await;
    for name in ["default", "kube-system", "kube-public"] {
        let (code, refusal) = cluster
            .delete(&format!("/api/v1/namespaces/{name}"), &Value::Null)
            .await;
        assert_eq!(
            (code, text(&refusal, "/message")),
            (
                403,
                format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted")
            )
        );
    }
    let (code, refusal) = cluster
        .post(
            "/api/v1/namespaces/none/configmaps",
            &config_map("a", json!({})),
        )
        .await;
    assert_eq!(
        (code, text(&refusal, "/message").as_str()),
        (404, "namespaces \"none\" not found")
    );
    assert_eq!(
        refusal["details"],
        json!({"kind": "namespaces", "name": "none"})
    );
}

#[tokio::test]
async fn a_plugin_that_is_switched_off_does_nothing() {
    let tuning = Tuning {
        disabled_plugins: vec!["ServiceAccount".to_owned()],
        ..Tuning::default()
    };
    let cluster = Cluster::start_with(tuning).await;
    let (code, made) = cluster.post(PODS, &pod("a")).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        (
            made["spec"].get("serviceAccountName"),
            made["spec"].get("volumes")
        ),
        (None, None)
    );
    assert_eq!(made["spec"]["priority"], 0);
}
