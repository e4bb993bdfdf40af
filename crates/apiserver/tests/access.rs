//! Who may talk to the API server.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Cluster, text};
use seaway_apiserver::pki::Pki;
use serde_json::{Value, json};

#[tokio::test]
async fn strangers_see_that_the_server_is_there_and_nothing_else() {
    let cluster = Cluster::start().await;
    let stranger = cluster.stranger().await;
    let get = async |path: &str| {
        let (code, _, body) = cluster.raw(&stranger, "GET", path, &[], Vec::new()).await;
        (code, String::from_utf8(body).unwrap())
    };
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(get(path).await, (200, "ok".to_owned()));
    }
    assert!(get("/version").await.1.contains("v1.36.0+seaway"));
    for path in ["/api/v1/pods", "/apis", "/openapi/v3", "/nothing"] {
        let (code, body) = get(path).await;
        let status: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (code, text(&status, "/reason")),
            (401, "Unauthorized".into()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_none() {
    let cluster = Cluster::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let forged = Pki::ensure(elsewhere.path(), &[], &[]).unwrap();
    let client = cluster.client_as(&forged.admin).await;
    let (code, _, _) = cluster
        .raw(&client, "GET", "/api/v1/pods", &[], Vec::new())
        .await;
    assert_eq!(code, 401);
    let (code, _, _) = cluster
        .raw(&client, "GET", "/healthz", &[], Vec::new())
        .await;
    assert_eq!(code, 200, "a bad certificate is no failed handshake");
}

#[tokio::test]
async fn a_node_is_known_by_its_certificate() {
    let cluster = Cluster::start().await;
    let node = cluster.client_as(&cluster.pki.node("node-1")).await;
    let body =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}).to_string();
    let (code, _, _) = cluster
        .raw(&node, "POST", "/api/v1/nodes", &[], body.into())
        .await;
    assert_eq!(code, 201);
}
