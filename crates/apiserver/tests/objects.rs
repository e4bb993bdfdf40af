//! What can be done with objects, over real HTTPS.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Cluster, config_map, pod, text};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn an_object_lives_from_creation_to_deletion() {
    let cluster = Cluster::start().await;
    let (code, created) = cluster.post(MAPS, &config_map("a", json!({}))).await;
    assert_eq!(code, 201, "{created}");
    assert_eq!(
        (text(&created, "/kind"), text(&created, "/apiVersion")),
        ("ConfigMap".into(), "v1".into())
    );
    assert_ne!(text(&created, "/metadata/uid"), "");
    let (code, again) = cluster.post(MAPS, &config_map("a", json!({}))).await;
    assert_eq!(
        (code, text(&again, "/reason")),
        (409, "AlreadyExists".into())
    );
    assert_eq!(text(&again, "/message"), "configmaps \"a\" already exists");

    let path = format!("{MAPS}/a");
    let (_, got) = cluster.get(&path).await;
    assert_eq!(got, created);
    let mut changed = created.clone();
    changed["data"]["k"] = json!("w");
    let (code, updated) = cluster.put(&path, &changed).await;
    assert_eq!(code, 200);
    assert_ne!(
        text(&updated, "/metadata/resourceVersion"),
        text(&created, "/metadata/resourceVersion")
    );
    // The same version again: somebody else was quicker.
    changed["data"]["k"] = json!("x");
    let (code, conflict) = cluster.put(&path, &changed).await;
    assert_eq!((code, text(&conflict, "/reason")), (409, "Conflict".into()));

    let (code, deleted) = cluster.delete(&path, &Value::Null).await;
    assert_eq!((code, text(&deleted, "/status")), (200, "Success".into()));
    assert_eq!(
        text(&deleted, "/details/uid"),
        text(&created, "/metadata/uid")
    );
    let (code, gone) = cluster.get(&path).await;
    assert_eq!(
        (code, text(&gone, "/message")),
        (404, "configmaps \"a\" not found".into())
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_no_new_version() {
    let cluster = Cluster::start().await;
    let (_, created) = cluster.post(MAPS, &config_map("a", json!({}))).await;
    let (_, same) = cluster.put(&format!("{MAPS}/a"), &created).await;
    assert_eq!(same, created);
}

#[tokio::test]
async fn every_kind_of_patch_is_applied_and_a_bad_one_refused() {
    let cluster = Cluster::start().await;
    cluster
        .post(MAPS, &config_map("a", json!({"x": "1"})))
        .await;
    let path = format!("{MAPS}/a");
    let (code, merged) = cluster
        .patch(
            &path,
            "merge",
            &json!({"metadata": {"labels": {"x": null, "y": "2"}}}),
        )
        .await;
    assert_eq!(
        (code, &merged["metadata"]["labels"]),
        (200, &json!({"y": "2"}))
    );
    let (code, patched) = cluster
        .patch(
            &path,
            "json",
            &json!([{"op": "add", "path": "/data/n", "value": "1"}]),
        )
        .await;
    assert_eq!(
        (code, &patched["data"]),
        (200, &json!({"k": "v", "n": "1"}))
    );
    let (code, strategic) = cluster
        .patch(&path, "strategic-merge", &json!({"data": {"k": null}}))
        .await;
    assert_eq!((code, &strategic["data"]), (200, &json!({"n": "1"})));

    let (code, _) = cluster
        .patch(
            &path,
            "json",
            &json!([{"op": "remove", "path": "/nothing"}]),
        )
        .await;
    assert_eq!(code, 422);
    let (code, stale) = cluster
        .patch(
            &path,
            "merge",
            &json!({"metadata": {"resourceVersion": "1"}, "data": {}}),
        )
        .await;
    assert_eq!((code, text(&stale, "/reason")), (409, "Conflict".into()));
    let apply = [("Content-Type", "application/apply-patch+yaml")];
    let (code, refused) = cluster.call("PATCH", &path, &apply, &json!({})).await;
    assert_eq!(code, 422);
    assert_eq!(
        text(&refused, "/details/causes/0/message"),
        "Required value: is required for apply patch"
    );
}

#[tokio::test]
async fn patches_without_a_version_do_not_get_lost_when_they_meet() {
    let cluster = std::sync::Arc::new(Cluster::start().await);
    cluster.post(MAPS, &config_map("a", json!({}))).await;
    let patches = (0..20).map(|i| {
        let cluster = std::sync::Arc::clone(&cluster);
        tokio::spawn(async move {
            let change = json!({"data": {format!("k{i}"): "v"}});
            cluster
                .patch(&format!("{MAPS}/a"), "merge", &change)
                .await
                .0
        })
    });
    for patch in patches {
        assert_eq!(patch.await.unwrap(), 200);
    }
    let (_, object) = cluster.get(&format!("{MAPS}/a")).await;
    assert_eq!(object["data"].as_object().unwrap().len(), 21);
}

#[tokio::test]
async fn a_deleted_object_waits_for_its_finalizers() {
    let cluster = Cluster::start().await;
    let mut object = config_map("a", json!({}));
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.post(MAPS, &object).await;
    let path = format!("{MAPS}/a");
    let (code, going) = cluster.delete(&path, &Value::Null).await;
    assert_eq!((code, text(&going, "/kind")), (200, "ConfigMap".into()));
    assert_ne!(text(&going, "/metadata/deletionTimestamp"), "");
    assert_eq!(cluster.get(&path).await.0, 200);
    let (code, _) = cluster
        .patch(&path, "merge", &json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(code, 200);
    assert_eq!(cluster.get(&path).await.0, 404);
}

#[tokio::test]
async fn propagation_is_left_to_the_garbage_collector_as_a_finalizer() {
    let cluster = Cluster::start().await;
    cluster.post(MAPS, &config_map("a", json!({}))).await;
    let path = format!("{MAPS}/a");
    let (_, going) = cluster
        .delete(&path, &json!({"propagationPolicy": "Foreground"}))
        .await;
    assert_eq!(
        going["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    // Asked again in another way, it goes at once.
    cluster
        .delete(&path, &json!({"propagationPolicy": "Background"}))
        .await;
    assert_eq!(cluster.get(&path).await.0, 404);
    let (code, refused) = cluster
        .delete(&path, &json!({"propagationPolicy": "Sideways"}))
        .await;
    assert_eq!(code, 422, "{refused}");
}

#[tokio::test]
async fn preconditions_protect_from_deleting_another_object_of_the_same_name() {
    let cluster = Cluster::start().await;
    let (_, created) = cluster.post(MAPS, &config_map("a", json!({}))).await;
    let path = format!("{MAPS}/a");
    let (code, refused) = cluster
        .delete(&path, &json!({"preconditions": {"uid": "other"}}))
        .await;
    assert_eq!((code, text(&refused, "/reason")), (409, "Conflict".into()));
    let right = json!({"preconditions": {"uid": created["metadata"]["uid"]}});
    assert_eq!(cluster.delete(&path, &right).await.0, 200);
}

#[tokio::test]
async fn a_pod_gets_its_grace_only_where_something_has_to_end() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, &pod("idle")).await;
    assert_eq!(
        cluster
            .delete(&format!("{PODS}/idle"), &Value::Null)
            .await
            .0,
        200
    );
    assert_eq!(cluster.get(&format!("{PODS}/idle")).await.0, 404);

    let mut running = pod("running");
    running["spec"]["nodeName"] = json!("node-1");
    cluster.post(PODS, &running).await;
    let path = format!("{PODS}/running");
    let (_, going) = cluster.delete(&path, &Value::Null).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(cluster.get(&path).await.0, 200);
    let (_, sooner) = cluster
        .delete(&path, &json!({"gracePeriodSeconds": 5}))
        .await;
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    // What the node says when it is done.
    assert_eq!(
        cluster
            .delete(&path, &json!({"gracePeriodSeconds": 0}))
            .await
            .0,
        200
    );
    assert_eq!(cluster.get(&path).await.0, 404);
}

#[tokio::test]
async fn generated_names_are_new_and_a_dry_run_stores_nothing() {
    let cluster = Cluster::start().await;
    let mut object = config_map("", json!({}));
    object["metadata"] = json!({"generateName": "gen-"});
    let (code, first) = cluster.post(MAPS, &object).await;
    assert_eq!(code, 201);
    assert!(text(&first, "/metadata/name").starts_with("gen-"));
    let (code, dry) = cluster
        .post(&format!("{MAPS}?dryRun=All"), &config_map("dry", json!({})))
        .await;
    assert_eq!((code, text(&dry, "/metadata/name")), (201, "dry".into()));
    assert_eq!(cluster.get(&format!("{MAPS}/dry")).await.0, 404);
    let (_, nameless) = cluster.post(MAPS, &json!({"data": {}})).await;
    assert!(
        text(&nameless, "/message").contains("name or generateName is required"),
        "{nameless}"
    );
}

#[tokio::test]
async fn a_namespace_must_be_there_and_ends_through_its_finalizer() {
    let cluster = Cluster::start().await;
    let (code, missing) = cluster
        .post(
            "/api/v1/namespaces/none/configmaps",
            &config_map("a", json!({})),
        )
        .await;
    assert_eq!(
        (code, text(&missing, "/message")),
        (404, "namespaces \"none\" not found".into())
    );

    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    let (_, created) = cluster.post("/api/v1/namespaces", &namespace).await;
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(text(&created, "/status/phase"), "Active");
    let (_, going) = cluster.delete("/api/v1/namespaces/n", &Value::Null).await;
    assert_eq!(text(&going, "/status/phase"), "Terminating");
    let (code, refused) = cluster
        .post(
            "/api/v1/namespaces/n/configmaps",
            &config_map("a", json!({})),
        )
        .await;
    assert_eq!(code, 403);
    assert_eq!(
        text(&refused, "/details/causes/0/reason"),
        "NamespaceTerminating"
    );
    // What the namespace controller says when everything in it is gone.
    let mut done = going.clone();
    done["spec"]["finalizers"] = json!([]);
    assert_eq!(
        cluster.put("/api/v1/namespaces/n/finalize", &done).await.0,
        200
    );
    assert_eq!(cluster.get("/api/v1/namespaces/n").await.0, 404);
}

#[tokio::test]
async fn lists_are_selected_and_their_pages_show_one_moment() {
    let cluster = Cluster::start().await;
    for (name, tier) in [
        ("a", "front"),
        ("b", "front"),
        ("c", "back"),
        ("d", "back"),
        ("e", "back"),
    ] {
        cluster
            .post(MAPS, &config_map(name, json!({"tier": tier})))
            .await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| text(i, "/metadata/name"))
            .collect()
    };
    let (_, front) = cluster
        .get(&format!("{MAPS}?labelSelector=tier%3Dfront"))
        .await;
    assert_eq!(names(&front), ["a", "b"]);
    assert_eq!(front["items"][0].get("kind"), None);
    let (_, one) = cluster
        .get(&format!("{MAPS}?fieldSelector=metadata.name%3Dc"))
        .await;
    assert_eq!(names(&one), ["c"]);
    let (code, refused) = cluster
        .get(&format!("{MAPS}?fieldSelector=spec.flavour%3Dc"))
        .await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (400, "field label not supported: spec.flavour".into())
    );

    let (_, page) = cluster.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(names(&page), ["a", "b"]);
    assert_eq!(
        page["metadata"]["remainingItemCount"], 4,
        "c, d, e and kube-root-ca.crt"
    );
    cluster.delete(&format!("{MAPS}/c"), &Value::Null).await;
    cluster.post(MAPS, &config_map("bb", json!({}))).await;
    let token = text(&page, "/metadata/continue");
    let (_, rest) = cluster
        .get(&format!("{MAPS}?limit=10&continue={token}"))
        .await;
    assert_eq!(
        names(&rest),
        ["c", "d", "e", "kube-root-ca.crt"],
        "as it was at the first page"
    );
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        page["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn a_page_that_is_too_old_says_how_to_go_on() {
    let mut tuning = seaway_apiserver::Tuning::default();
    tuning.store.limits.events = 5;
    let cluster = Cluster::start_with(tuning).await;
    for name in ["a", "b", "c"] {
        cluster.post(MAPS, &config_map(name, json!({}))).await;
    }
    let (_, page) = cluster.get(&format!("{MAPS}?limit=1")).await;
    for i in 0..10 {
        cluster
            .patch(
                &format!("{MAPS}/a"),
                "merge",
                &json!({"data": {"i": i.to_string()}}),
            )
            .await;
    }
    let token = text(&page, "/metadata/continue");
    let (code, expired) = cluster
        .get(&format!("{MAPS}?limit=1&continue={token}"))
        .await;
    assert_eq!((code, text(&expired, "/reason")), (410, "Expired".into()));
    let (code, rest) = cluster
        .get(&format!(
            "{MAPS}?continue={}",
            text(&expired, "/metadata/continue")
        ))
        .await;
    assert_eq!((code, rest["items"].as_array().unwrap().len()), (200, 3));
}

#[tokio::test]
async fn objects_come_as_tables_and_as_metadata_only() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, &pod("a")).await;
    let table = [("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let (_, pods) = cluster.call("GET", PODS, &table, &Value::Null).await;
    assert_eq!(text(&pods, "/kind"), "Table");
    let columns: Vec<String> = pods["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| text(c, "/name"))
        .collect();
    assert_eq!(columns[..5], ["Name", "Ready", "Status", "Restarts", "Age"]);
    assert_eq!(pods["rows"][0]["cells"][0], "a");
    assert_eq!(text(&pods, "/rows/0/object/kind"), "PartialObjectMetadata");
    let (_, bare) = cluster
        .call(
            "GET",
            &format!("{PODS}?includeObject=None"),
            &table,
            &Value::Null,
        )
        .await;
    assert_eq!(bare["rows"][0]["object"], Value::Null);

    let partial = [(
        "Accept",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )];
    let (_, list) = cluster.call("GET", PODS, &partial, &Value::Null).await;
    assert_eq!(text(&list, "/kind"), "PartialObjectMetadataList");
    assert_eq!(list["items"][0].get("spec"), None);
    let html = [("Accept", "text/html")];
    assert_eq!(cluster.call("GET", PODS, &html, &Value::Null).await.0, 406);
}

#[tokio::test]
async fn status_and_scale_are_written_apart_from_the_object() {
    let cluster = Cluster::start().await;
    let path = "/apis/apps/v1/namespaces/default/replicasets";
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let (code, created) = cluster.post(path, &set).await;
    assert_eq!(
        (code, &created["metadata"]["generation"]),
        (201, &json!(1)),
        "{created}"
    );
    let mut observed = created.clone();
    observed["status"] = json!({"replicas": 2});
    observed["spec"]["replicas"] = json!(7);
    let (_, observed) = cluster.put(&format!("{path}/r/status"), &observed).await;
    assert_eq!(
        (
            &observed["spec"]["replicas"],
            &observed["status"]["replicas"]
        ),
        (&json!(2), &json!(2))
    );

    let scale = format!("{path}/r/scale");
    let (_, shown) = cluster.get(&scale).await;
    assert_eq!(
        (&shown["spec"], &shown["status"]),
        (
            &json!({"replicas": 2}),
            &json!({"replicas": 2, "selector": "app=a"})
        )
    );
    let (code, scaled) = cluster
        .patch(&scale, "merge", &json!({"spec": {"replicas": 5}}))
        .await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(5)));
    let (_, set) = cluster.get(&format!("{path}/r")).await;
    assert_eq!(
        (&set["spec"]["replicas"], &set["metadata"]["generation"]),
        (&json!(5), &json!(2))
    );
    assert_eq!(
        cluster
            .put(
                &scale,
                &json!({"metadata": {"name": "r"}, "spec": {"replicas": -1}})
            )
            .await
            .0,
        422
    );
}

#[tokio::test]
async fn all_that_is_selected_can_be_deleted_at_once() {
    let cluster = Cluster::start().await;
    for (name, keep) in [("a", "no"), ("b", "yes"), ("c", "no")] {
        cluster
            .post(MAPS, &config_map(name, json!({"keep": keep})))
            .await;
    }
    let (code, _) = cluster
        .delete(&format!("{MAPS}?labelSelector=keep%3Dno"), &Value::Null)
        .await;
    assert_eq!(code, 200);
    let (_, left) = cluster.get(&format!("{MAPS}?labelSelector=keep")).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        cluster.delete("/api/v1/namespaces", &Value::Null).await.0,
        405
    );
}

#[tokio::test]
async fn fields_that_do_not_exist_or_come_twice_are_told_or_refused() {
    let cluster = Cluster::start().await;
    let text_of =
        |fields: &str| format!("{{\"metadata\":{{\"name\":\"a\"}},{fields}}}").into_bytes();
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let (code, _, body) = cluster
        .raw(
            &cluster.client,
            "POST",
            &strict,
            &[],
            text_of("\"flavour\":1,\"data\":{},\"data\":{}"),
        )
        .await;
    let body = String::from_utf8(body).unwrap();
    assert_eq!(code, 400);
    assert!(body.contains("strict decoding error"), "{body}");
    assert!(
        body.contains("unknown field \\\\\\\"flavour")
            || body.contains("unknown field \\\"flavour"),
        "{body}"
    );
    assert!(body.contains("duplicate field \\\"data"), "{body}");
    let (code, headers, _) = cluster
        .raw(&cluster.client, "POST", MAPS, &[], text_of("\"flavour\":1"))
        .await;
    assert_eq!(code, 201);
    assert_eq!(
        headers["warning"],
        "299 - \"unknown field \\\"flavour\\\"\""
    );
}

#[tokio::test]
async fn yaml_is_read_and_written() {
    let cluster = Cluster::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\ndata: {a: \"1\"}\n";
    let headers = [
        ("Content-Type", "application/yaml"),
        ("Accept", "application/yaml"),
    ];
    let (code, answered, body) = cluster
        .raw(&cluster.client, "POST", MAPS, &headers, yaml.into())
        .await;
    assert_eq!(
        (code, &answered["content-type"]),
        (201, &http::HeaderValue::from_static("application/yaml"))
    );
    assert!(String::from_utf8(body).unwrap().contains("kind: ConfigMap"));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let cluster = Cluster::start().await;
    let post = async |media_type: &str, body: Vec<u8>| {
        cluster
            .raw(
                &cluster.client,
                "POST",
                MAPS,
                &[("Content-Type", media_type)],
                body,
            )
            .await
            .0
    };
    assert_eq!(post("application/json", b"{not json".to_vec()).await, 400);
    assert_eq!(post("application/json", b"[]".to_vec()).await, 400);
    assert_eq!(post("text/csv", b"a,b".to_vec()).await, 415);
    assert_eq!(
        post("application/json", vec![b' '; (3 << 20) + 1]).await,
        413
    );
    assert_eq!(
        post(
            "application/vnd.kubernetes.protobuf",
            b"k8s\0nonsense".to_vec()
        )
        .await,
        400
    );
    let (code, wrong) = cluster.post(MAPS, &pod("a")).await;
    assert_eq!((code, text(&wrong, "/reason")), (400, "BadRequest".into()));
    assert_eq!(cluster.get("/api/v1/flavours").await.0, 404);
    assert_eq!(
        cluster.get("/apis/none.example.com/v1").await,
        (404, json!("404 page not found\n"))
    );
    assert_eq!(cluster.put(MAPS, &json!({})).await.0, 405);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let cluster = Cluster::start().await;
    let (_, created) = cluster.post(MAPS, &config_map("a", json!({}))).await;
    let service = "/api/v1/namespaces/default/services/kubernetes";
    let (_, before) = cluster.get(service).await;
    let cluster = cluster.restart().await;
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.1, created);
    assert_eq!(cluster.get(service).await.1, before, "made once, kept");
}

#[tokio::test]
async fn a_cluster_begins_with_what_every_cluster_has() {
    let cluster = Cluster::start().await;
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let path = format!("/api/v1/namespaces/{namespace}");
        assert_eq!(text(&cluster.get(&path).await.1, "/status/phase"), "Active");
        assert_eq!(
            cluster
                .get(&format!("{path}/serviceaccounts/default"))
                .await
                .0,
            200
        );
        let (_, roots) = cluster
            .get(&format!("{path}/configmaps/kube-root-ca.crt"))
            .await;
        assert_eq!(
            text(&roots, "/data/ca.crt"),
            cluster.pki.authority_pem().unwrap()
        );
    }
    let (_, service) = cluster
        .get("/api/v1/namespaces/default/services/kubernetes")
        .await;
    assert_eq!(text(&service, "/spec/clusterIP"), "10.96.0.1");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 6443);
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    assert_eq!(
        cluster.get(slices).await.1["endpoints"][0]["addresses"],
        json!(["10.87.0.1"])
    );
}
