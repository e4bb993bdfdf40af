//! Our side.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use seaway_apiserver::pki::Pki;
use seaway_apiserver::{Config, Server, Tuning};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::Side;
use crate::http::{Connection, Request, request};
use crate::process::{Process, SERVER, directory, free};

const SERVICES: &str = "/api/v1/namespaces/default/services";

pub(crate) struct Seaway {
    process: Process,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    _directory: tempfile::TempDir,
}

fn pki(directory: &Path) -> Pki {
    let names = ["127.0.0.1".parse().expect("an address")];
    Pki::ensure(&directory.join("pki"), &names, &[]).expect("credentials")
}

/// The process of the server.
pub(crate) fn serve() -> ! {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let place = std::env::var(SERVER).expect("a place");
    let (port, directory) = place.split_once(' ').expect("a port and a directory");
    let directory = Path::new(directory);
    let config = Config {
        listen: vec![([127, 0, 0, 1], port.parse().expect("a port")).into()],
        store: directory.join("store.db"),
        pki: pki(directory),
        service_cidrs: vec!["10.96.0.0/12".parse().expect("a range")],
        node_port_range: 30000..=32767,
        advertise: "10.87.0.1:6443".parse().expect("an address"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let server = Server::start(config, &Tuning::default(), CancellationToken::new())
            .await
            .expect("the server starts");
        println!("ready");
        server.run().await.expect("it runs");
    });
    std::process::exit(0)
}

impl Seaway {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = directory();
        let address = free();
        let credentials = pki(directory.path());
        let place = format!("{} {}", address.port(), directory.path().display());
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .env(SERVER, place)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("a line");
        assert_eq!(line, "ready\n");
        let (chain, key) = credentials.admin.read().expect("a credential");
        let authority = credentials.authority_pem().expect("an authority");
        let certificates = |text: &str| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_slice_iter(text.as_bytes())
                .map(|c| c.expect("a certificate"))
                .collect()
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&authority));
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let tls = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&chain), key)
            .expect("a credential");
        Self {
            process: Process(child),
            address,
            tls: Arc::new(tls),
            _directory: directory,
        }
    }
}

/// What a client sends for the Service of this number.
fn service(number: usize) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name(number),
            "labels": {"app.kubernetes.io/name": format!("app-{number}"), "app.kubernetes.io/part-of": "bench"},
        },
        "spec": {
            "selector": {"app.kubernetes.io/name": format!("app-{number}")},
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "metrics", "port": 9090, "targetPort": "metrics"},
            ],
        },
    })
    .to_string()
}

fn name(number: usize) -> String {
    format!("service-{number:06}")
}

impl Side for Seaway {
    fn name(&self) -> &'static str {
        "Seaway's API"
    }

    fn process(&self) -> &Process {
        &self.process
    }

    async fn connect(&self) -> Connection {
        Connection::open(self.address, Some(Arc::clone(&self.tls))).await
    }

    fn create(&self, number: usize) -> Request {
        request("POST", SERVICES, "application/json", service(number))
    }

    fn change(&self, number: usize, turn: usize) -> Request {
        let path = format!("{SERVICES}/{}", name(number));
        let change = json!({"metadata": {"annotations": {"turn": turn.to_string()}}});
        request(
            "PATCH",
            &path,
            "application/merge-patch+json",
            change.to_string(),
        )
    }

    fn list(&self, limit: Option<usize>, from: Option<&str>) -> Request {
        let path = match (limit, from) {
            (None, _) => SERVICES.to_owned(),
            (Some(limit), from) => {
                format!(
                    "{SERVICES}?limit={limit}&continue={}",
                    from.unwrap_or_default()
                )
            }
        };
        request("GET", &path, "application/json", "")
    }

    fn next(&self, page: &[u8]) -> Option<String> {
        let head = String::from_utf8_lossy(&page[..page.len().min(600)]);
        let (_, rest) = head.split_once("\"continue\":\"")?;
        rest.split_once('"').map(|(token, _)| token.to_owned())
    }

    fn watch(&self) -> Request {
        // Begins now: what is there is listed.
        let path =
            format!("{SERVICES}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan");
        request("GET", &path, "application/json", "")
    }

    fn revision_in_answer(&self) -> &'static str {
        "\"resourceVersion\":\""
    }

    fn revision_in_event(&self) -> &'static str {
        "\"resourceVersion\":\""
    }
}
