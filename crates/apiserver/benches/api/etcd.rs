//! Debian's etcd, through its own JSON gateway.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::Side;
use crate::http::{Connection, Request, request};
use crate::process::{Process, directory, free};

/// What all keys begin with, and the first key behind them.
const PREFIX: &str = "/registry/services/specs/default/";
const END: &str = "/registry/services/specs/default0";
/// Bytes of a value: those of a Service as our side stores it.
const VALUE: usize = 760;

pub(crate) struct Etcd {
    process: Process,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Etcd {
    /// # Errors
    /// Why there is nothing to compare with.
    pub(crate) async fn start() -> Result<Self, String> {
        let directory = directory();
        let (address, peers) = (free(), free());
        let (client, peer) = (format!("http://{address}"), format!("http://{peers}"));
        let child = Command::new("etcd")
            .args(["--data-dir", &directory.path().display().to_string()])
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args([
                "--quota-backend-bytes",
                "4294967296",
                "--log-level",
                "error",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("etcd cannot be started ({e}): apt-get install etcd-server"))?;
        let etcd = Self {
            process: Process(child),
            address,
            _directory: directory,
        };
        for _ in 0..100 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                let mut connection = etcd.connect().await;
                connection
                    .ask(put(PREFIX.trim_end_matches('/'), "ready"))
                    .await;
                return Ok(etcd);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("etcd does not listen".to_owned())
    }
}

fn put(key: &str, value: &str) -> Request {
    let body = json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value)});
    request("POST", "/v3/kv/put", "application/json", body.to_string())
}

fn key(number: usize) -> String {
    format!("{PREFIX}service-{number:06}")
}

impl Side for Etcd {
    fn name(&self) -> &'static str {
        "etcd 3.4 gateway"
    }

    fn process(&self) -> &Process {
        &self.process
    }

    async fn connect(&self) -> Connection {
        Connection::open(self.address, None).await
    }

    fn create(&self, number: usize) -> Request {
        put(&key(number), &"v".repeat(VALUE))
    }

    fn change(&self, number: usize, _turn: usize) -> Request {
        self.create(number)
    }

    fn list(&self, limit: Option<usize>, from: Option<&str>) -> Request {
        // A place that `next` found is the last key of the page before; what follows it begins with a zero byte more.
        let from = from.map_or_else(
            || PREFIX.as_bytes().to_vec(),
            |last| {
                let mut key = STANDARD.decode(last).expect("a key");
                key.push(0);
                key
            },
        );
        let mut body = json!({"key": STANDARD.encode(from), "range_end": STANDARD.encode(END)});
        if let Some(limit) = limit {
            body["limit"] = json!(limit);
        }
        request("POST", "/v3/kv/range", "application/json", body.to_string())
    }

    fn next(&self, page: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(page);
        text.contains("\"more\":true").then_some(())?;
        let (_, rest) = text.rsplit_once("\"key\":\"")?;
        rest.split_once('"').map(|(key, _)| key.to_owned())
    }

    fn watch(&self) -> Request {
        let wanted = json!({"create_request": {"key": STANDARD.encode(PREFIX), "range_end": STANDARD.encode(END)}});
        request("POST", "/v3/watch", "application/json", wanted.to_string())
    }

    fn revision_in_answer(&self) -> &'static str {
        "\"revision\":\""
    }

    fn revision_in_event(&self) -> &'static str {
        "\"mod_revision\":\""
    }
}
