//! The API server as a proxy: real requests through it to servers on the addresses of Pods, which are addresses of the
//! loopback link in a network namespace.

#![allow(clippy::unwrap_used)]

mod harness;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use harness::{Cluster, PATIENCE, pod, text};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use seaway_testkit::Outer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;

const NAMESPACE: &str = "/api/v1/namespaces/default";
const FIRST: &str = "10.244.0.5";
const SECOND: &str = "10.244.0.6";

/// Runs a test in a namespace of its own, in which the addresses of two Pods are.
fn inside<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    let outer = Outer::new();
    outer.shell(&format!(
        "ip address add {FIRST}/32 dev lo; ip address add {SECOND}/32 dev lo"
    ));
    outer.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, test()).await.unwrap() });
    });
}

/// A server in a Pod.
#[derive(Debug, Clone, Default)]
struct Backend {
    go_on: Arc<Notify>,
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

impl Backend {
    async fn listen(&self, address: &str, port: u16) -> u16 {
        let listener = TcpListener::bind((address, port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let backend = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let here = stream.local_addr().unwrap();
                tokio::spawn(backend.clone().serve(stream, here));
            }
        });
        port
    }

    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        here: SocketAddr,
    ) {
        let service = service_fn(move |request| {
            let backend = self.clone();
            async move { Ok::<_, Infallible>(backend.answer(here, request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let _ = connection.await;
    }

    async fn answer(&self, here: SocketAddr, mut request: Request<Incoming>) -> Answer {
        let full = |text: String| Full::new(Bytes::from(text)).boxed();
        let answer = Response::builder();
        let built = match request.uri().path() {
            "/page" => answer
                .header("content-type", "text/html; charset=utf-8")
                .header("access-control-allow-origin", "*")
                .header("connection", "x-hop")
                .header("x-hop", "1")
                .header("x-own", "1")
                .body(full(format!(
                    "<a href=\"/x\">x</a><img src='http://{here}/i.png'><a href=\"http://example.com/\">y</a>"
                ))),
            "/moved" => answer
                .status(302)
                .header("location", "/there?a=b")
                .body(full(String::new())),
            "/slow" => {
                let go_on = self.go_on.clone();
                let pieces = futures::stream::unfold(0, move |at| {
                    let go_on = go_on.clone();
                    async move {
                        match at {
                            0 => Some((Ok(Frame::data(Bytes::from_static(b"first "))), 1)),
                            1 => {
                                go_on.notified().await;
                                Some((Ok(Frame::data(Bytes::from_static(b"second"))), 2))
                            }
                            _ => None,
                        }
                    }
                });
                answer.body(http_body_util::BodyExt::boxed(StreamBody::new(pieces)))
            }
            "/upgrade" => {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut stream = TokioIo::new(upgrade.await.unwrap());
                    let mut buffer = [0; 1024];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        stream.write_all(&buffer[..read]).await.unwrap();
                    }
                });
                answer
                    .status(101)
                    .header("connection", "Upgrade")
                    .header("upgrade", "test")
                    .body(full(String::new()))
            }
            "/broken" => answer.status(500).body(full("it broke".to_owned())),
            _ => {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let headers: serde_json::Map<String, Value> = head
                    .headers
                    .iter()
                    .map(|(name, value)| {
                        (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes())))
                    })
                    .collect();
                let said = json!({
                    "here": here.to_string(),
                    "method": head.method.as_str(),
                    "uri": head.uri.to_string(),
                    "headers": headers,
                    "length": body.len(),
                });
                answer
                    .header("content-type", "application/json")
                    .body(full(said.to_string()))
            }
        };
        built.unwrap()
    }
}

/// A Pod with these addresses.
async fn make_pod(cluster: &Cluster, name: &str, address: &str, port: u16) {
    let mut object = pod(name);
    object["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": port}]);
    let pods = format!("{NAMESPACE}/pods");
    assert_eq!(cluster.post(&pods, &object).await.0, 201);
    let status =
        json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
    let (code, said) = cluster
        .patch(&format!("{pods}/{name}/status"), "merge", &status)
        .await;
    assert_eq!(code, 200, "{said}");
}

/// A Service `web` with a port of each name, and Pods behind it.
async fn make_service(cluster: &Cluster, port: u16, pods: &[(&str, &str)]) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": port}]}});
    let (code, said) = cluster
        .post(&format!("{NAMESPACE}/services"), &service)
        .await;
    assert_eq!(code, 201, "{said}");
    let addresses: Vec<Value> = pods
        .iter()
        .map(|(name, ip)| {
            json!({"ip": ip, "targetRef": {"kind": "Pod", "namespace": "default", "name": name}})
        })
        .collect();
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"},
        "subsets": [{"addresses": addresses, "ports": [{"name": "http", "port": port}]}]});
    let (code, said) = cluster
        .post(&format!("{NAMESPACE}/endpoints"), &endpoints)
        .await;
    assert_eq!(code, 201, "{said}");
}

/// A cluster with a Pod `p`, a Service `web` before it, and what answers there.
async fn with_backend() -> (Cluster, Backend, u16) {
    let cluster = Cluster::start().await;
    let backend = Backend::default();
    let port = backend.listen(FIRST, 0).await;
    make_pod(&cluster, "p", FIRST, port).await;
    make_service(&cluster, port, &[("p", FIRST)]).await;
    (cluster, backend, port)
}

async fn raw(
    cluster: &Cluster,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (u16, HeaderMap, String) {
    let (code, headers, body) = cluster
        .raw(&cluster.client, method, path, headers, body)
        .await;
    (code, headers, String::from_utf8(body).unwrap())
}

#[test]
fn every_method_reaches_the_pod_with_its_path_query_and_body() {
    inside(async || {
        let (cluster, _, port) = with_backend().await;
        let here = format!("{FIRST}:{port}");
        let web = format!("{NAMESPACE}/services/web:http/proxy");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let path = format!("{web}/a/b%2Fc/?x=1&y=%20");
            // More than the API server takes of an object.
            let body = if method == "POST" {
                vec![b'x'; 5 << 20]
            } else {
                Vec::new()
            };
            let headers = [("Authorization", "Bearer secret"), ("X-Own", "1")];
            let (code, _, said) = raw(&cluster, method, &path, &headers, body.clone()).await;
            let said: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(code, 200);
            assert_eq!(text(&said, "/here"), here);
            assert_eq!(text(&said, "/method"), method);
            assert_eq!(text(&said, "/uri"), "/a/b%2Fc/?x=1&y=%20");
            assert_eq!(said["length"], body.len());
            assert_eq!(text(&said, "/headers/x-own"), "1");
            assert_eq!(said["headers"].get("authorization"), None);
            assert_eq!(
                text(&said, "/headers/x-forwarded-uri"),
                format!("{web}/a/b%2Fc/")
            );
            assert_eq!(text(&said, "/headers/x-forwarded-for"), "127.0.0.1");
        }
    });
}

#[test]
fn a_backend_is_named_in_all_the_ways_that_kubernetes_knows() {
    inside(async || {
        let (cluster, _, port) = with_backend().await;
        for id in [
            "services/web:http/proxy",
            "services/web:80/proxy",
            "services/http:web:http/proxy",
            "services/:web:80/proxy",
            "pods/p/proxy",
            "pods/p:web/proxy",
            "pods/http:p:PORT/proxy",
        ] {
            let id = id.replace("PORT", &port.to_string());
            let (code, said) = cluster.get(&format!("{NAMESPACE}/{id}/x")).await;
            assert_eq!(
                (code, text(&said, "/uri")),
                (200, "/x".into()),
                "{id}: {said}"
            );
        }
        // As documents from before Kubernetes 1.2 have it.
        for path in ["services/web:80", "pods/p"] {
            let path = format!("/api/v1/proxy/namespaces/default/{path}/x?y");
            let (code, said) = cluster.get(&path).await;
            assert_eq!((code, text(&said, "/uri")), (200, "/x?y".into()), "{path}");
        }
    });
}

#[test]
fn what_cannot_be_reached_is_told_in_kubernetes_words() {
    inside(async || {
        let (cluster, _, _) = with_backend().await;
        make_pod(&cluster, "deaf", FIRST, 1).await;
        make_pod(&cluster, "local", "127.0.0.1", 1).await;
        assert_eq!(
            cluster
                .post(&format!("{NAMESPACE}/pods"), &pod("new"))
                .await
                .0,
            201
        );
        let lonely = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lonely"},
            "spec": {"ports": [{"port": 80}]}});
        cluster
            .post(&format!("{NAMESPACE}/services"), &lonely)
            .await;
        let nobody =
            json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "lonely"}});
        cluster
            .post(&format!("{NAMESPACE}/endpoints"), &nobody)
            .await;
        for (id, code, reason, message) in [
            (
                "services/lonely/proxy/",
                503,
                "ServiceUnavailable",
                "no endpoints available for service \"lonely\"",
            ),
            (
                "services/web:81/proxy/",
                503,
                "ServiceUnavailable",
                "no service port 81 found for service \"web\"",
            ),
            (
                "services/web:other/proxy/",
                503,
                "ServiceUnavailable",
                "no endpoints available for service \"web:other\"",
            ),
            (
                "services/none:80/proxy/",
                404,
                "NotFound",
                "services \"none\" not found",
            ),
            (
                "services/none/proxy/",
                404,
                "NotFound",
                "endpoints \"none\" not found",
            ),
            (
                "services/ftp:web:80/proxy/",
                400,
                "BadRequest",
                "invalid service request \"ftp:web:80\"",
            ),
            (
                "pods/none/proxy/",
                404,
                "NotFound",
                "pods \"none\" not found",
            ),
            (
                "pods/a:b:c:d/proxy/",
                400,
                "BadRequest",
                "invalid pod request \"a:b:c:d\"",
            ),
            (
                "pods/local/proxy/",
                400,
                "BadRequest",
                "address not allowed",
            ),
            ("pods/new/proxy/", 400, "BadRequest", "address not allowed"),
            (
                "pods/deaf/proxy/",
                503,
                "ServiceUnavailable",
                "error trying to reach service: dial tcp 10.244.0.5:1: connect: connection refused",
            ),
        ] {
            let (got, said) = once(&cluster, &format!("{NAMESPACE}/{id}")).await;
            assert_eq!(
                (got, text(&said, "/reason"), text(&said, "/message")),
                (code, reason.into(), message.into()),
                "{id}"
            );
            assert_eq!(text(&said, "/kind"), "Status");
        }
    });
}

#[test]
fn every_pod_behind_a_service_is_asked_and_nothing_that_is_no_pod() {
    inside(async || {
        let cluster = Cluster::start().await;
        let backend = Backend::default();
        let port = backend.listen(FIRST, 0).await;
        backend.listen(SECOND, port).await;
        make_pod(&cluster, "p", FIRST, port).await;
        make_pod(&cluster, "q", SECOND, port).await;
        // Somebody wrote an address that is not the Pod's, and one without a Pod.
        let endpoints = [
            ("p", FIRST),
            ("q", SECOND),
            ("q", "10.244.0.9"),
            ("none", FIRST),
        ];
        make_service(&cluster, port, &endpoints).await;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let path = format!("{NAMESPACE}/services/web:http/proxy/x");
            let (code, said) = cluster.get(&path).await;
            assert_eq!(code, 200);
            seen.insert(text(&said, "/here"));
        }
        let all = [FIRST, SECOND].map(|address| format!("{address}:{port}"));
        assert_eq!(seen, all.into());
    });
}

#[test]
fn links_of_an_answer_lead_through_the_proxy() {
    inside(async || {
        let (cluster, _, _) = with_backend().await;
        for prefix in [
            format!("{NAMESPACE}/services/web:http/proxy"),
            "/api/v1/proxy/namespaces/default/pods/p".to_owned(),
        ] {
            let (code, headers, page) =
                raw(&cluster, "GET", &format!("{prefix}/page"), &[], Vec::new()).await;
            assert_eq!(code, 200);
            assert_eq!(
                page,
                format!(
                    "<a href=\"{prefix}/x\">x</a><img src='{prefix}/i.png'><a href=\"http://example.com/\">y</a>"
                )
            );
            assert_eq!(headers.get("x-own").unwrap(), "1");
            for gone in ["access-control-allow-origin", "x-hop"] {
                assert_eq!(headers.get(gone), None, "{gone}");
            }
            let (code, headers, _) =
                raw(&cluster, "GET", &format!("{prefix}/moved"), &[], Vec::new()).await;
            assert_eq!(code, 302);
            assert_eq!(
                headers.get("location").unwrap(),
                &format!("{prefix}/there?a=b")
            );
            // Links that are relative need the slash.
            let (code, headers, _) =
                raw(&cluster, "GET", &format!("{prefix}?a=b"), &[], Vec::new()).await;
            assert_eq!(code, 301);
            assert_eq!(headers.get("location").unwrap(), &format!("{prefix}/?a=b"));
            let (code, _, said) = raw(&cluster, "POST", &prefix, &[], Vec::new()).await;
            assert_eq!(code, 200);
            assert!(said.contains("\"uri\":\"/\""), "{said}");
        }
    });
}

#[test]
fn an_error_of_the_backend_is_passed_on_as_it_is() {
    inside(async || {
        let (cluster, _, _) = with_backend().await;
        let path = format!("{NAMESPACE}/pods/p/proxy/broken");
        assert_eq!(cluster.get(&path).await, (500, json!("it broke")));
    });
}

#[test]
fn an_answer_is_passed_on_as_it_comes() {
    inside(async || {
        let (cluster, backend, _) = with_backend().await;
        let request = http::Request::get(format!("{NAMESPACE}/pods/p/proxy/slow"));
        let request = request.body(kube::client::Body::empty()).unwrap();
        let answer = cluster.client.send(request).await.unwrap();
        let mut body = answer.into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), "first ");
        backend.go_on.notify_one();
        assert_eq!(body.next().await.unwrap().unwrap(), "second");
        assert!(body.next().await.is_none());
    });
}

/// A connection to the API server as kubectl has one for streams.
async fn connect(cluster: &Cluster) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let (certificate, key) = cluster.pki.admin.read().unwrap();
    let mut roots = rustls::RootCertStore::empty();
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
    let name = rustls::pki_types::ServerName::from(cluster.address.ip());
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

/// Asks once: the client of kube-rs asks again where something is not available.
async fn once(cluster: &Cluster, path: &str) -> (u16, Value) {
    let mut stream = connect(cluster).await;
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (code, serde_json::from_str(body).unwrap_or(json!(body)))
}

async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &[u8]) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !seen.ends_with(end) {
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "ended after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(seen).unwrap()
}

#[test]
fn an_upgrade_is_passed_on_byte_for_byte() {
    inside(async || {
        let (cluster, _, _) = with_backend().await;
        let mut stream = connect(&cluster).await;
        let head = format!(
            "GET {NAMESPACE}/services/web:http/proxy/upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let said = read_until(&mut stream, b"\r\n\r\n").await;
        assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
        stream.write_all(b"to and fro").await.unwrap();
        read_until(&mut stream, b"to and fro").await;

        // A backend that does not upgrade has not done what it was asked for.
        let mut stream = connect(&cluster).await;
        let head = head.replace("/upgrade", "/x");
        stream.write_all(head.as_bytes()).await.unwrap();
        let said = read_until(&mut stream, b"}\n").await;
        assert!(
            said.contains("invalid upgrade response: status code 200"),
            "{said}"
        );
    });
}

#[test]
fn a_pod_is_asked_over_tls_whoever_certified_it() {
    inside(async || {
        let (cluster, backend, _) = with_backend().await;
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["nobody.example".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((FIRST, 0)).await.unwrap();
        let here = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    tokio::spawn(backend.clone().serve(stream, here));
                }
            }
        });
        let path = format!("{NAMESPACE}/pods/https:p:{}/proxy/x", here.port());
        let (code, said) = cluster.get(&path).await;
        assert_eq!(code, 200, "{said}");
        assert_eq!(text(&said, "/uri"), "/x");
        // In plain text it does not answer.
        let plain = path.replace("https:", "");
        assert_eq!(once(&cluster, &plain).await.0, 503);
    });
}

#[test]
fn a_client_without_credentials_gets_nowhere() {
    inside(async || {
        let (cluster, _, _) = with_backend().await;
        let stranger = cluster.stranger().await;
        let path = format!("{NAMESPACE}/pods/p/proxy/x");
        let (code, _, _) = cluster.raw(&stranger, "GET", &path, &[], Vec::new()).await;
        assert_eq!(
            StatusCode::from_u16(code).unwrap(),
            StatusCode::UNAUTHORIZED
        );
    });
}
