//! What Pods have that other kinds do not. The node is a small HTTPS server with the paths of a kubelet.

#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::Arc;

use bytes::Bytes;
use harness::{Cluster, pod, text};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A cluster with a node that answers, and a Pod `p` on it.
async fn with_node() -> Cluster {
    let cluster = Cluster::start().await;
    let port = node(&cluster).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}});
    assert_eq!(cluster.post("/api/v1/nodes", &node).await.0, 201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    assert_eq!(
        cluster
            .patch("/api/v1/nodes/node-1/status", "merge", &status)
            .await
            .0,
        200
    );
    assert_eq!(cluster.post(PODS, &pod("p")).await.0, 201);
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "node-1"}});
    assert_eq!(
        cluster.post(&format!("{PODS}/p/binding"), &binding).await.0,
        201
    );
    cluster
}

/// Starts the node; it takes only the API server's own certificate.
async fn node(cluster: &Cluster) -> u16 {
    let mut roots = RootCertStore::empty();
    let authority = cluster.pki.authority_pem().unwrap();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let (certificate, key) = cluster.pki.node("node-1").read().unwrap();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(
            WebPkiClientVerifier::builder(Arc::new(roots))
                .build()
                .unwrap(),
        )
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(kubelet))
                    .with_upgrades();
                let _ = connection.await;
            });
        }
    });
    port
}

async fn kubelet(
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().to_string();
    let answer = |code: StatusCode, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = code;
        response
    };
    if path.contains("previous=true") {
        return Ok(answer(
            StatusCode::BAD_REQUEST,
            "previous terminated container \"c\" in pod \"p\" not found\n".into(),
        ));
    }
    if path.contains("command=refused") {
        return Ok(answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            "container not found (\"c\")".into(),
        ));
    }
    if path.contains("tailLines=404") {
        return Ok(answer(StatusCode::NOT_FOUND, "pod does not exist".into()));
    }
    if request.uri().path().starts_with("/exec/") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            // An echo, with the request that it came by in front.
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            stream
                .write_all(format!("{path}\n").as_bytes())
                .await
                .unwrap();
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..read]).await.unwrap();
            }
        });
        let mut response = answer(StatusCode::SWITCHING_PROTOCOLS, String::new());
        response
            .headers_mut()
            .insert("upgrade", "test".parse().unwrap());
        response
            .headers_mut()
            .insert("connection", "Upgrade".parse().unwrap());
        return Ok(response);
    }
    Ok(answer(StatusCode::OK, format!("{path}\n")))
}

#[tokio::test]
async fn logs_come_from_the_node_and_so_do_its_refusals() {
    let cluster = with_node().await;
    let (code, log) = cluster
        .get(&format!("{PODS}/p/log?tailLines=3&timestamps=true"))
        .await;
    assert_eq!(
        (code, log),
        (
            200,
            json!("/containerLogs/default/p/c?timestamps=true&tailLines=3\n")
        )
    );
    let (code, refused) = cluster.get(&format!("{PODS}/p/log?previous=true")).await;
    assert_eq!(code, 400);
    assert_eq!(
        text(&refused, "/message"),
        "previous terminated container \"c\" in pod \"p\" not found"
    );
    let (code, refused) = cluster.get(&format!("{PODS}/p/log?container=x")).await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (400, "container x is not valid for pod p".into())
    );
}

/// A connection as a client has one for streams.
async fn connect(cluster: &Cluster) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let (certificate, key) = cluster.pki.admin.read().unwrap();
    let mut roots = RootCertStore::empty();
    let authority = cluster.pki.authority_pem().unwrap();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let stream = tokio::net::TcpStream::connect(cluster.address)
        .await
        .unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls::pki_types::ServerName::from(cluster.address.ip());
    connector.connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn an_upgraded_connection_is_passed_on_byte_for_byte() {
    let cluster = with_node().await;
    let mut stream = connect(&cluster).await;
    let head = format!(
        "GET {PODS}/p/exec?command=ls&command=-l%20a&stdout=true HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"to and fro").await.unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    let reading = async {
        while !seen.ends_with(b"to and fro") {
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "ended after {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..read]);
        }
    };
    tokio::time::timeout(harness::PATIENCE, reading)
        .await
        .unwrap();
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.starts_with("HTTP/1.1 101 "), "{seen}");
    assert!(
        seen.contains("/exec/default/p/c?output=1&stdout=true&command=ls&command=-l+a\n"),
        "{seen}"
    );
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = with_node().await;
    let (_, bound) = cluster.get(&format!("{PODS}/p")).await;
    assert_eq!(text(&bound, "/spec/nodeName"), "node-1");
    assert_eq!(text(&bound, "/status/conditions/0/type"), "PodScheduled");
    let binding = json!({"metadata": {"name": "p"}, "target": {"name": "node-2"}});
    let (code, refused) = cluster
        .post("/api/v1/namespaces/default/bindings", &binding)
        .await;
    assert_eq!(code, 409);
    assert!(
        text(&refused, "/message").contains("pod p is already assigned to node \"node-1\""),
        "{refused}"
    );
}

#[tokio::test]
async fn an_eviction_is_a_deletion_with_its_options() {
    let cluster = with_node().await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"},
        "deleteOptions": {"gracePeriodSeconds": 7}});
    assert_eq!(
        cluster
            .post(&format!("{PODS}/p/eviction"), &eviction)
            .await
            .0,
        201
    );
    let (_, going) = cluster.get(&format!("{PODS}/p")).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 7);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_told_of() {
    let cluster = with_node().await;
    let status = json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}});
    assert_eq!(
        cluster
            .patch("/api/v1/nodes/node-1/status", "merge", &status)
            .await
            .0,
        200
    );
    let (code, refused) = cluster.get(&format!("{PODS}/p/log")).await;
    assert_eq!(code, 500);
    assert!(
        text(&refused, "/message").contains("error dialing backend: 127.0.0.1:1"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_pod_that_has_no_node_has_no_log_and_cannot_be_worked_in() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, &pod("q")).await;
    assert_eq!(
        cluster.get(&format!("{PODS}/q/log")).await,
        (200, Value::String(String::new()))
    );
    let (code, refused) = cluster
        .get(&format!("{PODS}/q/exec?command=ls&stdout=true"))
        .await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (400, "pod q does not have a host assigned".into())
    );
}

#[tokio::test]
async fn a_nodes_refusal_of_a_stream_is_shown_as_the_node_worded_it() {
    let cluster = with_node().await;
    let mut stream = connect(&cluster).await;
    let head = format!(
        "POST {PODS}/p/exec?command=refused&stdout=true HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let reading = async {
        while !said.ends_with(b"container not found (\"c\")") {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&buffer[..read]);
        }
    };
    tokio::time::timeout(harness::PATIENCE, reading)
        .await
        .unwrap();
    assert!(
        said.starts_with(b"HTTP/1.1 500 "),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[tokio::test]
async fn a_stream_needs_an_upgrade() {
    let cluster = with_node().await;
    for part in ["exec?command=ls&stdout=1", "attach?stdout=1", "portforward"] {
        let (code, refused) = cluster.get(&format!("{PODS}/p/{part}")).await;
        assert_eq!(
            (code, text(&refused, "/message")),
            (400, "Upgrade request required".into()),
            "{part}"
        );
    }
}

#[tokio::test]
async fn options_of_a_log_are_checked_before_the_pod_is_looked_for() {
    let cluster = with_node().await;
    let (code, refused) = cluster.get(&format!("{PODS}/none/log?tailLines=-1")).await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (
            422,
            "PodLogOptions \"none\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0".into()
        )
    );
    assert_eq!(text(&refused, "/details/kind"), "PodLogOptions");
    let (code, refused) = cluster.get(&format!("{PODS}/none/log?limitBytes=x")).await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (
            400,
            "strconv.ParseInt: parsing \"x\": invalid syntax".into()
        )
    );
    let (code, refused) = cluster.get(&format!("{PODS}/p/log?tailLines=404")).await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (
            404,
            "the server could not find the requested resource ( pods/log p)".into()
        )
    );
    assert_eq!(text(&refused, "/details/kind"), "pods/log");
}

#[tokio::test]
async fn discovery_lists_what_leads_through_the_proxy() {
    let cluster = Cluster::start().await;
    let (_, list) = cluster.get("/api/v1").await;
    for (name, kind, verbs) in [
        (
            "nodes/proxy",
            "NodeProxyOptions",
            json!(["create", "delete", "get", "patch", "update"]),
        ),
        (
            "pods/proxy",
            "PodProxyOptions",
            json!(["create", "delete", "get", "patch", "update"]),
        ),
        (
            "services/proxy",
            "ServiceProxyOptions",
            json!(["create", "delete", "get", "patch", "update"]),
        ),
        (
            "pods/portforward",
            "PodPortForwardOptions",
            json!(["create", "get"]),
        ),
        ("pods/attach", "PodAttachOptions", json!(["create", "get"])),
    ] {
        let resources = list["resources"].as_array().unwrap();
        let found = resources
            .iter()
            .find(|resource| resource["name"] == name)
            .unwrap_or_else(|| panic!("no {name}"));
        assert_eq!((&found["kind"], &found["verbs"]), (&json!(kind), &verbs));
    }
}
