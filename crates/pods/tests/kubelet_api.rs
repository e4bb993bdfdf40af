//! Who gets into the kubelet API: real TLS on loopback, with certificates made for the test.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use seaway_pods::controller::PodTable;
use seaway_pods::images::Images;
use seaway_pods::runtime::{Runtime, RuntimeConfig};
use seaway_pods::server::{Answers, Listener, serve};
use seaway_pods::{Config, Tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
type Credential = (String, String);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self, name: &str) -> Credential {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

struct Api {
    address: SocketAddr,
    shutdown: CancellationToken,
    ours: Authority,
    _directory: tempfile::TempDir,
}

impl Api {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let ours = Authority::new("ours");
        let (certificate, key) = ours.issue("localhost");
        for (name, text) in [
            ("crt", &certificate),
            ("key", &key),
            ("ca", &ours.certificate),
        ] {
            std::fs::write(at(name), text).unwrap();
        }
        let config = Config {
            node_name: "node-1".into(),
            node_ip: [127, 0, 0, 1].into(),
            lab: "test".into(),
            state_dir: at("state"),
            images_dir: at("images"),
            exe: std::env::current_exe().unwrap(),
            cgroup_parent: "/seaway/test".into(),
            cluster_dns: [10, 96, 0, 10].into(),
            cluster_domain: "cluster.local".into(),
            tls: Tls {
                cert: at("crt"),
                key: at("key"),
                client_ca: at("ca"),
            },
            kubelet_port: 0,
            labels: Default::default(),
        };
        let images = Images::open(&config.images_dir).unwrap();
        let (runtime, _changed) = Runtime::open(RuntimeConfig {
            state_dir: config.state_dir.clone(),
            images,
            exe: config.exe.clone(),
            cgroup_parent: config.cgroup_parent.clone(),
        })
        .await
        .unwrap();
        let listener = Listener::bind(&config).await.unwrap();
        let address = listener.address().unwrap();
        let shutdown = CancellationToken::new();
        let answers = Answers {
            pods: PodTable::default(),
            runtime,
        };
        tokio::spawn(serve(listener, answers, shutdown.clone()));
        Api {
            address,
            shutdown,
            ours,
            _directory: directory,
        }
    }

    /// The first line of the answer, or the error of the connection.
    async fn get(&self, path: &str, client: Option<&Credential>) -> Result<String, std::io::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.ours.certificate.as_bytes()).unwrap())
            .unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                builder
                    .with_client_auth_cert(
                        chain,
                        PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                    )
                    .unwrap()
            }
        };
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_cluster_get_in() {
    let api = Api::start().await;
    let (known, stranger) = (
        api.ours.issue("client"),
        Authority::new("theirs").issue("client"),
    );
    assert_eq!(
        api.get("/healthz", Some(&known)).await.unwrap(),
        "HTTP/1.1 200 OK"
    );
    for path in [
        "/healthz",
        "/pods",
        "/containerLogs/a/b/c",
        "/exec/a/b/c?command=id",
        "/nothing",
    ] {
        assert_eq!(
            api.get(path, None).await.unwrap(),
            "HTTP/1.1 401 Unauthorized",
            "{path}"
        );
        assert!(api.get(path, Some(&stranger)).await.is_err(), "{path}");
    }
    // What went wrong with some connections does not end the server.
    assert_eq!(
        api.get("/healthz", Some(&known)).await.unwrap(),
        "HTTP/1.1 200 OK"
    );
    api.shutdown.cancel();
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_supported_is_said_clearly() {
    let api = Api::start().await;
    let client = api.ours.issue("client");
    for (path, status) in [
        ("/containerLogs/ns/none/main", "HTTP/1.1 404 Not Found"),
        (
            "/containerLogs/ns/none/main?tailLines=x",
            "HTTP/1.1 400 Bad Request",
        ),
        (
            "/exec/ns/none/main?command=id&output=1",
            "HTTP/1.1 404 Not Found",
        ),
        ("/portForward/ns/none", "HTTP/1.1 404 Not Found"),
        ("/pods", "HTTP/1.1 200 OK"),
        ("/metrics", "HTTP/1.1 200 OK"),
    ] {
        assert_eq!(
            api.get(path, Some(&client)).await.unwrap(),
            status,
            "{path}"
        );
    }
    api.shutdown.cancel();
}

#[tokio::test]
async fn unusable_credentials_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = |name: &str| directory.path().join(name);
    let config = Config {
        node_name: "node-1".into(),
        node_ip: [127, 0, 0, 1].into(),
        lab: "test".into(),
        state_dir: missing("state"),
        images_dir: missing("images"),
        exe: Path::new("/proc/self/exe").to_owned(),
        cgroup_parent: "/seaway/test".into(),
        cluster_dns: [10, 96, 0, 10].into(),
        cluster_domain: "cluster.local".into(),
        tls: Tls {
            cert: missing("node.crt"),
            key: missing("node.key"),
            client_ca: missing("ca.crt"),
        },
        kubelet_port: 0,
        labels: Default::default(),
    };
    let error = Listener::bind(&config).await.unwrap_err().to_string();
    assert!(
        error.contains("certificate") && error.contains("node.crt"),
        "{error}"
    );
}
