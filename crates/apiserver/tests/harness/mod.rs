//! A real API server on a loopback port with a directory of its own, and ways to talk to it.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub(crate) mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures::AsyncBufReadExt;

use futures::stream::StreamExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config as ClientConfig};
use seaway_apiserver::pki::{Credential, Pki, kubeconfig};
use seaway_apiserver::{Config, Server, Tuning};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) pki: Pki,
    pub(crate) address: SocketAddr,
    directory: TempDir,
    tuning: Tuning,
    ranges: Vec<ipnet::IpNet>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(Tuning::default()).await
    }

    pub(crate) async fn start_with(tuning: Tuning) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), tuning).await
    }

    pub(crate) async fn start_in(directory: TempDir, tuning: Tuning) -> Self {
        Self::start_of(directory, tuning, vec!["10.96.0.0/16".parse().unwrap()]).await
    }

    /// With these ranges for Services.
    pub(crate) async fn start_of(
        directory: TempDir,
        tuning: Tuning,
        ranges: Vec<ipnet::IpNet>,
    ) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let names = ["127.0.0.1".parse().unwrap()];
        let nodes = [("node-1".to_owned(), "127.0.0.1".parse().unwrap())];
        let pki = Pki::ensure(&directory.path().join("pki"), &names, &nodes).unwrap();
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            store: directory.path().join("store.db"),
            pki: pki.clone(),
            service_cidrs: ranges.clone(),
            node_port_range: 30000..=32767,
            advertise: "10.87.0.1:6443".parse().unwrap(),
        };
        let shutdown = CancellationToken::new();
        let server = Server::start(config, &tuning, shutdown.clone())
            .await
            .unwrap();
        let address = server.addresses()[0];
        let running = tokio::spawn(async move { server.run().await.unwrap() });
        let client = client(&kubeconfig_of(&pki, address, &pki.admin)).await;
        Self {
            client,
            pki,
            address,
            directory,
            tuning,
            ranges,
            shutdown,
            running,
        }
    }

    /// Ends the server and starts another on the same store.
    pub(crate) async fn restart(self) -> Self {
        self.shutdown.cancel();
        self.running.await.unwrap();
        Self::start_of(self.directory, self.tuning, self.ranges).await
    }

    /// Ends the server. What it kept is in the directory.
    pub(crate) async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        self.running.await.unwrap();
        self.directory
    }

    /// A file for kubectl.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let file = self.directory.path().join("kubeconfig");
        std::fs::write(
            &file,
            kubeconfig_of(&self.pki, self.address, &self.pki.admin),
        )
        .unwrap();
        file
    }

    /// A client with another credential.
    pub(crate) async fn client_as(&self, credential: &Credential) -> Client {
        client(&kubeconfig_of(&self.pki, self.address, credential)).await
    }

    /// A client without credentials.
    pub(crate) async fn stranger(&self) -> Client {
        let pem = self.pki.authority_pem().unwrap();
        let mut config = ClientConfig::new(format!("https://{}", self.address).parse().unwrap());
        config.root_cert = Some(vec![pem::parse(&pem)]);
        Client::try_from(config).unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, &[], &Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("POST", path, &[], body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("PUT", path, &[], body).await
    }

    pub(crate) async fn delete(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("DELETE", path, &[], body).await
    }

    /// `kind`: `json`, `merge` or `strategic-merge`.
    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        let media_type = format!("application/{kind}-patch+json");
        self.call("PATCH", path, &[("Content-Type", &media_type)], body)
            .await
    }

    /// A request with a JSON body (none for null) and its answer.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> (u16, Value) {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let (code, _, text) = self.raw(&self.client, method, path, headers, body).await;
        (
            code,
            serde_json::from_slice(&text).unwrap_or_else(|_| json!(String::from_utf8_lossy(&text))),
        )
    }

    pub(crate) async fn raw(
        &self,
        client: &Client,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (u16, http::HeaderMap, Vec<u8>) {
        let mut request = http::Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "Content-Type") {
            request = request.header("Content-Type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(kube::client::Body::from(body)).unwrap();
        let answer = tokio::time::timeout(PATIENCE, client.send(request))
            .await
            .unwrap()
            .unwrap();
        let (parts, body) = answer.into_parts();
        let text = http_body_util::BodyExt::collect(body)
            .await
            .unwrap()
            .to_bytes()
            .to_vec();
        (parts.status.as_u16(), parts.headers, text)
    }

    /// Begins a watch.
    pub(crate) async fn watch(&self, path: &str, headers: &[(&str, &str)]) -> Watching {
        let mut request = http::Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let lines = self
            .client
            .request_stream(request.body(Vec::new()).unwrap())
            .await
            .unwrap()
            .lines();
        Watching {
            lines: Box::pin(lines),
        }
    }
}

/// A watch on its way.
pub(crate) struct Watching {
    lines: std::pin::Pin<Box<dyn futures::Stream<Item = std::io::Result<String>> + Send>>,
}

impl Watching {
    /// The next event; `None` when the server has ended the watch.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next())
            .await
            .expect("an event in time")?;
        Some(serde_json::from_str(&line.unwrap()).unwrap())
    }

    /// Type and name of the next event.
    pub(crate) async fn next_name(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch goes on");
        (text(&event, "/type"), text(&event, "/object/metadata/name"))
    }
}

/// A string in an object; empty if there is none.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// A ConfigMap.
pub(crate) fn config_map(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"k": "v"}})
}

/// A Pod with one container.
pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn kubeconfig_of(pki: &Pki, address: SocketAddr, credential: &Credential) -> String {
    let (certificate, key) = credential.read().unwrap();
    kubeconfig(
        &format!("https://{address}"),
        &pki.authority_pem().unwrap(),
        &certificate,
        &key,
        "test",
    )
}

async fn client(kubeconfig: &str) -> Client {
    let config = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = ClientConfig::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

mod pem {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    pub(crate) fn parse(text: &str) -> Vec<u8> {
        CertificateDer::from_pem_slice(text.as_bytes())
            .unwrap()
            .to_vec()
    }
}
