//! Many watchers of many objects: each is told everything, and one that is slow is in nobody's way.

#![allow(clippy::unwrap_used)]

mod harness;

use futures::{AsyncBufReadExt, StreamExt};
use harness::{Cluster, PATIENCE, config_map, text};
use seaway_apiserver::Tuning;
use seaway_store::{Options, Store};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const OBJECTS: usize = 10_000;
const WATCHERS: usize = 200;
const CHANGES: usize = 600;
/// Events that the server remembers: fewer than there will be.
const HISTORY: usize = 400;
/// Objects that change, and are small; the others are large, so that they do not fit into the buffers between a server and
/// a client that takes nothing.
const SMALL: usize = 1000;
/// Watches on one connection.
const SHARED: usize = 50;

/// A server that holds many objects already.
async fn full() -> Cluster {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_with(&directory.path().join("store.db"), &Options::default()).unwrap();
    let puts = (0..OBJECTS).map(|n| {
        let key = format!("core/configmaps/default/m{n:05}");
        let padding = "x".repeat(if n < SMALL { 0 } else { 2000 });
        let value = format!(
            r#"{{"metadata":{{"name":"m{n:05}","namespace":"default","uid":"u{n}","creationTimestamp":"2026-01-01T00:00:00Z"}},"data":{{"k":"{n}","p":"{padding}"}}}}"#
        );
        let store = &store;
        async move { store.put(&key, value).await.unwrap() }
    });
    futures::stream::iter(puts)
        .buffer_unordered(512)
        .for_each(|_| std::future::ready(()))
        .await;
    drop(store);
    let mut tuning = Tuning::default();
    tuning.store.limits.events = HISTORY;
    Cluster::start_in(directory, tuning).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_of_ten_thousand_objects_is_in_nobodys_way() {
    let cluster = full().await;
    let (_, one) = cluster.get(&format!("{MAPS}?limit=1")).await;
    assert_eq!(one["metadata"]["remainingItemCount"], OBJECTS);
    let version = text(&one, "/metadata/resourceVersion");

    // Asks for everything and takes nothing.
    let mut slow = cluster.connect().await;
    slow.write_all(format!("GET {MAPS}?watch=1 HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
        .await
        .unwrap();

    let mut watchers = Vec::new();
    let mut client = cluster.client_as(&cluster.pki.admin).await;
    for n in 0..WATCHERS {
        if n % SHARED == 0 {
            client = cluster.client_as(&cluster.pki.admin).await;
        }
        let path = format!("{MAPS}?watch=1&resourceVersion={version}");
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        let mut lines = client.request_stream(request).await.unwrap().lines();
        watchers.push(tokio::spawn(async move {
            let mut numbers = Vec::new();
            while numbers.len() < CHANGES {
                let line = tokio::time::timeout(PATIENCE, lines.next())
                    .await
                    .expect("an event in time")
                    .expect("the watch goes on")
                    .unwrap();
                let event: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(text(&event, "/type"), "MODIFIED", "{line}");
                numbers.push(text(&event, "/object/data/k"));
            }
            numbers
        }));
    }
    let expected: Vec<String> = (0..CHANGES).map(|n| format!("changed-{n}")).collect();
    for (n, value) in expected.iter().enumerate() {
        let path = format!("{MAPS}/m{:05}", n * 7 % SMALL);
        let (code, told) = cluster
            .patch(&path, "merge", &json!({"data": {"k": value}}))
            .await;
        assert_eq!(code, 200, "{told}");
    }
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap(), expected);
    }

    // The slow one wakes up: it gets what was there when it began, as far as that is remembered, then hears that it has
    // missed something, and that is all. What the server kept for it meanwhile is what fits into buffers.
    let mut told = Vec::new();
    let mut piece = vec![0; 64 << 10];
    let heard = async {
        loop {
            let read = slow.read(&mut piece).await.unwrap();
            told.extend_from_slice(&piece[..read]);
            if read == 0 || told.ends_with(b"0\r\n\r\n") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
    let told = String::from_utf8_lossy(&told).into_owned();
    let added = told.matches("{\"type\":\"ADDED\"").count();
    assert!(added > 0 && added < OBJECTS, "{added}");
    assert!(!told.contains("changed-"));
    assert!(
        told.contains("\"type\":\"ERROR\"") && told.contains("\"code\":410"),
        "no word on it"
    );
}

#[tokio::test]
async fn watchers_of_many_forms_and_selections_are_each_told_what_they_asked_for() {
    let cluster = Cluster::start().await;
    let version = text(&cluster.get(MAPS).await.1, "/metadata/resourceVersion");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let old_table = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let mut watches = Vec::new();
    for (query, accept, kind, types) in [
        (
            "",
            "application/json",
            "ConfigMap",
            ["ADDED", "MODIFIED", "DELETED"],
        ),
        ("", table, "Table", ["ADDED", "MODIFIED", "DELETED"]),
        (
            "&includeObject=Object",
            table,
            "Table",
            ["ADDED", "MODIFIED", "DELETED"],
        ),
        ("", old_table, "Table", ["ADDED", "MODIFIED", "DELETED"]),
        (
            "",
            partial,
            "PartialObjectMetadata",
            ["ADDED", "MODIFIED", "DELETED"],
        ),
        (
            "&labelSelector=in%3Dyes",
            "application/json",
            "ConfigMap",
            ["ADDED", "DELETED", ""],
        ),
        (
            "&labelSelector=in%3Dno",
            "application/json",
            "ConfigMap",
            ["ADDED", "DELETED", ""],
        ),
        (
            "&labelSelector=in%3Dno",
            partial,
            "PartialObjectMetadata",
            ["ADDED", "DELETED", ""],
        ),
    ] {
        // Twice each: one of them writes the lines, the other is sent the same.
        for _ in 0..2 {
            let path = format!("{MAPS}?watch=1&resourceVersion={version}{query}");
            let watch = cluster.watch(&path, &[("Accept", accept)]).await;
            watches.push((watch, query, kind, types));
        }
    }
    cluster
        .post(MAPS, &config_map("a", json!({"in": "yes"})))
        .await;
    cluster
        .patch(
            &format!("{MAPS}/a"),
            "merge",
            &json!({"metadata": {"labels": {"in": "no"}}}),
        )
        .await;
    cluster.delete(&format!("{MAPS}/a"), &Value::Null).await;
    let mut told: Vec<(&str, &str, Vec<Value>)> = Vec::new();
    for (mut watch, query, kind, types) in watches {
        let mut events = Vec::new();
        for what in types.iter().filter(|what| !what.is_empty()) {
            let event = watch.next().await.unwrap();
            assert_eq!(text(&event, "/type"), *what, "{query} {kind}: {event}");
            assert_eq!(text(&event, "/object/kind"), kind);
            events.push(event);
        }
        told.push((query, kind, events));
    }
    for pair in told.chunks(2) {
        // Ages may differ by the second at which they were written.
        if pair[0].1 != "Table" {
            assert_eq!(pair[0], pair[1]);
        }
    }
    assert_eq!(text(&told[2].2[0], "/object/apiVersion"), "meta.k8s.io/v1");
    assert_eq!(
        text(&told[4].2[0], "/object/rows/0/object/kind"),
        "ConfigMap"
    );
    assert_eq!(
        text(&told[6].2[0], "/object/apiVersion"),
        "meta.k8s.io/v1beta1"
    );
}

#[tokio::test]
async fn a_watch_over_a_websocket_has_one_message_for_each_event() {
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    let cluster = Cluster::start().await;
    let maps = "/api/v1/namespaces/kube-public/configmaps";
    let url = format!("wss://127.0.0.1{maps}?watch=1&timeoutSeconds=3");
    let request = url.into_client_request().unwrap();
    let stream = cluster.connect().await;
    let (mut socket, answer) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    assert_eq!(answer.status(), 101);
    let mut next = async || loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Text(text))) => return serde_json::from_str::<Value>(&text).ok(),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    };
    let first = next().await.unwrap();
    assert_eq!(text(&first, "/object/metadata/name"), "kube-root-ca.crt");
    cluster.post(maps, &config_map("a", json!({}))).await;
    let second = next().await.unwrap();
    assert_eq!(
        (
            text(&second, "/type"),
            text(&second, "/object/metadata/name")
        ),
        ("ADDED".into(), "a".into())
    );
    assert_eq!(next().await, None, "it ends when it was to end");

    // A refusal is an answer, not a socket.
    let refused = cluster
        .ask(
            &format!("{maps}?watch=1&resourceVersion=junk"),
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        )
        .await;
    assert_eq!(refused.code, 500);
    let without_key = cluster
        .ask(
            &format!("{maps}?watch=1"),
            "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        )
        .await;
    assert_eq!(without_key.code, 400);
}
