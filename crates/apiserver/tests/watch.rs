//! Watching, over real HTTPS.

#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::{Cluster, config_map, pod, text};
use seaway_apiserver::Tuning;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/kube-public/configmaps";

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_goes_on_with_what_happens() {
    let cluster = Cluster::start().await;
    let mut watch = cluster.watch(&format!("{MAPS}?watch=1"), &[]).await;
    assert_eq!(watch.next_name().await, event("ADDED", "kube-root-ca.crt"));
    cluster.post(MAPS, &config_map("a", json!({}))).await;
    assert_eq!(watch.next_name().await, event("ADDED", "a"));
    let (_, changed) = cluster
        .patch(&format!("{MAPS}/a"), "merge", &json!({"data": {"x": "y"}}))
        .await;
    assert_eq!(
        watch.next().await.unwrap(),
        json!({"type": "MODIFIED", "object": changed})
    );
    cluster.delete(&format!("{MAPS}/a"), &Value::Null).await;
    let deleted = watch.next().await.unwrap();
    assert_eq!(text(&deleted, "/type"), "DELETED");
    let version = |object: &Value| {
        text(object, "/metadata/resourceVersion")
            .parse::<u64>()
            .unwrap()
    };
    assert!(
        version(&deleted["object"]) > version(&changed),
        "the end has a version of its own"
    );
}

#[tokio::test]
async fn a_watch_goes_on_from_a_version_over_reconnects() {
    let cluster = Cluster::start().await;
    let (_, list) = cluster.get(MAPS).await;
    let version = text(&list, "/metadata/resourceVersion");
    for name in ["a", "b"] {
        cluster.post(MAPS, &config_map(name, json!({}))).await;
    }
    let mut watch = cluster
        .watch(&format!("{MAPS}?watch=1&resourceVersion={version}"), &[])
        .await;
    let first = watch.next().await.unwrap();
    assert_eq!(text(&first, "/object/metadata/name"), "a");
    let version = text(&first, "/object/metadata/resourceVersion");
    let mut again = cluster
        .watch(&format!("{MAPS}?watch=1&resourceVersion={version}"), &[])
        .await;
    assert_eq!(again.next_name().await, event("ADDED", "b"));
}

#[tokio::test]
async fn a_version_that_history_does_not_reach_is_expired() {
    let mut tuning = Tuning::default();
    tuning.store.limits.events = 5;
    let cluster = Cluster::start_with(tuning).await;
    let mut watch = cluster
        .watch(&format!("{MAPS}?watch=1&resourceVersion=1"), &[])
        .await;
    let error = watch.next().await.unwrap();
    assert_eq!(
        (text(&error, "/type"), &error["object"]["code"]),
        ("ERROR".into(), &json!(410))
    );
    assert_eq!(text(&error, "/object/reason"), "Expired");
    assert_eq!(watch.next().await, None, "nothing after an error");
    // What was there before a restart is history of another process.
    let version = text(&cluster.get(MAPS).await.1, "/metadata/resourceVersion");
    let cluster = cluster.restart().await;
    let mut same = cluster
        .watch(&format!("{MAPS}?watch=1&resourceVersion={version}"), &[])
        .await;
    cluster.post(MAPS, &config_map("a", json!({}))).await;
    assert_eq!(
        same.next_name().await,
        event("ADDED", "a"),
        "nothing was missed, so nothing is expired"
    );
}

#[tokio::test]
async fn a_selection_sees_objects_come_and_go() {
    let cluster = Cluster::start().await;
    let mut watch = cluster
        .watch(&format!("{MAPS}?watch=1&labelSelector=in%3Dyes"), &[])
        .await;
    cluster.post(MAPS, &config_map("never", json!({}))).await;
    cluster
        .post(MAPS, &config_map("a", json!({"in": "no"})))
        .await;
    let label = async |value: &str| {
        cluster
            .patch(
                &format!("{MAPS}/a"),
                "merge",
                &json!({"metadata": {"labels": {"in": value}}}),
            )
            .await;
    };
    label("yes").await;
    assert_eq!(watch.next_name().await, event("ADDED", "a"));
    cluster
        .patch(&format!("{MAPS}/a"), "merge", &json!({"data": {"x": "y"}}))
        .await;
    assert_eq!(watch.next_name().await, event("MODIFIED", "a"));
    label("no").await;
    assert_eq!(watch.next_name().await, event("DELETED", "a"));
    label("yes").await;
    cluster.delete(&format!("{MAPS}/a"), &Value::Null).await;
    assert_eq!(watch.next_name().await, event("ADDED", "a"));
    assert_eq!(watch.next_name().await, event("DELETED", "a"));
}

#[tokio::test]
async fn a_node_sees_its_own_pods() {
    let cluster = Cluster::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let mut watch = cluster
        .watch(
            "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dnode-1",
            &[],
        )
        .await;
    for name in ["a", "b"] {
        cluster.post(pods, &pod(name)).await;
    }
    let binding = json!({"metadata": {"name": "b"}, "target": {"kind": "Node", "name": "node-1"}});
    assert_eq!(
        cluster.post(&format!("{pods}/b/binding"), &binding).await.0,
        201
    );
    assert_eq!(watch.next_name().await, event("ADDED", "b"));
}

#[tokio::test]
async fn bookmarks_tell_how_far_a_quiet_watch_is() {
    let cluster = Cluster::start_with(Tuning {
        bookmarks: Duration::from_millis(100),
        ..Tuning::default()
    })
    .await;
    let version = text(&cluster.get(MAPS).await.1, "/metadata/resourceVersion");
    let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={version}");
    let mut watch = cluster.watch(&path, &[]).await;
    let other = "/api/v1/namespaces/default/configmaps";
    let (_, elsewhere) = cluster.post(other, &config_map("a", json!({}))).await;
    loop {
        let bookmark = watch.next().await.unwrap();
        assert_eq!(
            (text(&bookmark, "/type"), text(&bookmark, "/object/kind")),
            ("BOOKMARK".into(), "ConfigMap".into())
        );
        if text(&bookmark, "/object/metadata/resourceVersion")
            == text(&elsewhere, "/metadata/resourceVersion")
        {
            break;
        }
    }
}

#[tokio::test]
async fn a_streamed_list_says_when_it_is_complete() {
    let cluster = Cluster::start().await;
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut unversioned = cluster.watch(&path, &[]).await;
    let error = unversioned.next().await.unwrap();
    assert_eq!(
        (text(&error, "/type").as_str(), &error["object"]["code"]),
        ("ERROR", &json!(500))
    );
    assert_eq!(unversioned.next().await, None);
    let mut watch = cluster
        .watch(&format!("{path}&resourceVersion=0"), &[])
        .await;
    assert_eq!(watch.next_name().await, event("ADDED", "kube-root-ca.crt"));
    let end = watch.next().await.unwrap();
    assert_eq!(text(&end, "/type"), "BOOKMARK");
    assert_eq!(
        end["object"]["metadata"]["annotations"],
        json!({"k8s.io/initial-events-end": "true"})
    );
    let (code, refused) = cluster
        .get(&format!("{MAPS}?watch=1&sendInitialEvents=true"))
        .await;
    assert_eq!(code, 422, "{refused}");
}

#[tokio::test]
async fn a_watch_as_a_table_has_its_columns_once() {
    let cluster = Cluster::start().await;
    let table = [("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let mut unversioned = cluster.watch(&format!("{MAPS}?watch=1"), &table).await;
    let mut watch = cluster
        .watch(&format!("{MAPS}?watch=1&resourceVersion=0"), &table)
        .await;
    cluster.post(MAPS, &config_map("a", json!({}))).await;
    let (first, second) = (watch.next().await.unwrap(), watch.next().await.unwrap());
    assert_eq!(text(&first, "/object/columnDefinitions/0/name"), "Name");
    assert_eq!(second["object"]["columnDefinitions"], Value::Null);
    assert_eq!(second["object"]["rows"][0]["cells"][0], "a");
    let only = unversioned.next().await.unwrap();
    assert_eq!(only["object"]["rows"][0]["cells"][0], "a");
}

#[tokio::test]
async fn a_watch_ends_when_its_client_wanted_it_to() {
    let cluster = Cluster::start().await;
    let mut watch = cluster
        .watch(
            &format!("{MAPS}?watch=1&timeoutSeconds=3&allowWatchBookmarks=true"),
            &[],
        )
        .await;
    assert_eq!(watch.next_name().await.0, "ADDED");
    assert_eq!(watch.next_name().await.0, "BOOKMARK");
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_version_that_is_still_to_come_is_waited_for() {
    let cluster = Cluster::start().await;
    let version: u64 = text(&cluster.get(MAPS).await.1, "/metadata/resourceVersion")
        .parse()
        .unwrap();
    let path = format!("{MAPS}?watch=1&resourceVersion={}", version + 2);
    let mut watch = cluster.watch(&path, &[]).await;
    for name in ["a", "b", "c"] {
        cluster.post(MAPS, &config_map(name, json!({}))).await;
    }
    assert_eq!(watch.next_name().await, event("ADDED", "c"));
}

#[tokio::test]
async fn a_watch_that_wants_no_initial_events_gets_none() {
    let cluster = Cluster::start().await;
    let path = format!("{MAPS}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan");
    let mut watch = cluster.watch(&path, &[]).await;
    cluster.post(MAPS, &config_map("a", json!({}))).await;
    assert_eq!(watch.next_name().await, event("ADDED", "a"));
}

#[tokio::test]
async fn the_old_places_of_watches_are_served() {
    let cluster = Cluster::start().await;
    cluster.post(MAPS, &config_map("a", json!({}))).await;
    let old = MAPS.replace("/v1/", "/v1/watch/");
    let mut one = cluster.watch(&format!("{old}/a"), &[]).await;
    assert_eq!(one.next_name().await, event("ADDED", "a"));
    cluster.post(MAPS, &config_map("b", json!({}))).await;
    cluster.delete(&format!("{MAPS}/a"), &Value::Null).await;
    assert_eq!(one.next_name().await, event("DELETED", "a"));
    let mut all = cluster.watch(&old, &[]).await;
    assert_eq!(all.next_name().await, event("ADDED", "b"));
    let (code, refused) = cluster
        .get(&format!("{old}/a?fieldSelector=metadata.name%3Db"))
        .await;
    assert_eq!(
        (code, text(&refused, "/message").as_str()),
        (
            400,
            "fieldSelector metadata.name doesn't match requested name"
        )
    );
    // An object that is asked for with `watch` is got, as from Kubernetes.
    let (code, got) = cluster.get(&format!("{MAPS}/b?watch=true")).await;
    assert_eq!((code, text(&got, "/kind").as_str()), (200, "ConfigMap"));
}

#[tokio::test]
async fn a_watch_of_metadata_has_nothing_else() {
    let cluster = Cluster::start().await;
    let partial = [(
        "Accept",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    )];
    let mut watch = cluster
        .watch(&format!("{MAPS}?watch=1&labelSelector=a%3Db"), &partial)
        .await;
    cluster
        .post(MAPS, &config_map("a", json!({"a": "b"})))
        .await;
    let added = watch.next().await.unwrap();
    assert_eq!(text(&added, "/object/kind"), "PartialObjectMetadata");
    assert_eq!(text(&added, "/object/metadata/name"), "a");
    assert_eq!(added["object"].get("data"), None);
    let (code, refused) = cluster
        .call(
            "GET",
            &format!("{MAPS}?watch=1"),
            &[("Accept", "application/yaml")],
            &Value::Null,
        )
        .await;
    let told = refused.as_str().unwrap();
    assert_eq!(code, 406);
    assert!(
        told.contains("only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"),
        "{told}"
    );
}
