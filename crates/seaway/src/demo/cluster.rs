//! What the demo asks of the cluster: objects through the API, commands in Pods, requests from this machine.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Node, Pod, ReplicationController, Service};
use kube::api::{Api, AttachParams, DeleteParams, ListParams, PostParams};
use tokio::io::AsyncReadExt as _;

/// How long anything may take before the demo says that it failed.
const LIMIT: Duration = Duration::from_secs(20);

/// A Pod as the story tells of it.
#[derive(Debug, Clone)]
pub(crate) struct RunningPod {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) address: String,
}

pub(crate) struct Cluster {
    client: kube::Client,
}

impl Cluster {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client }
    }

    pub(crate) async fn create_controller(&self, object: serde_json::Value) -> anyhow::Result<()> {
        let api: Api<ReplicationController> = Api::default_namespaced(self.client.clone());
        api.create(&PostParams::default(), &serde_json::from_value(object)?)
            .await?;
        Ok(())
    }

    pub(crate) async fn create_service(
        &self,
        object: serde_json::Value,
    ) -> anyhow::Result<Service> {
        let api: Api<Service> = Api::default_namespaced(self.client.clone());
        Ok(api
            .create(&PostParams::default(), &serde_json::from_value(object)?)
            .await?)
    }

    /// Addresses of all nodes, by name.
    pub(crate) async fn nodes(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let list = nodes.list(&ListParams::default()).await?;
        Ok(list
            .into_iter()
            .filter_map(|node| {
                let address = node
                    .status?
                    .addresses?
                    .into_iter()
                    .find(|a| a.type_ == "InternalIP")?;
                Some((node.metadata.name?, address.address))
            })
            .collect())
    }

    /// Waits until exactly `count` Pods with the label are ready, none of them on its way out.
    pub(crate) async fn ready_pods(
        &self,
        label: &str,
        count: usize,
    ) -> anyhow::Result<Vec<RunningPod>> {
        let api: Api<Pod> = Api::default_namespaced(self.client.clone());
        let deadline = Instant::now() + LIMIT;
        loop {
            let pods = api.list(&ListParams::default().labels(label)).await?;
            let ready: Vec<RunningPod> = pods.iter().filter_map(ready).collect();
            if ready.len() == count && pods.items.len() == count {
                return Ok(ready);
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "{} of {count} Pods ready after {} s; `kubectl describe pods -l {label}` says why",
                ready.len(),
                LIMIT.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn delete_pod(&self, name: &str) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::default_namespaced(self.client.clone());
        api.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Runs a command in a Pod, as `kubectl exec` does; its output.
    pub(crate) async fn exec(&self, pod: &str, command: &[&str]) -> anyhow::Result<String> {
        let api: Api<Pod> = Api::default_namespaced(self.client.clone());
        let mut process = api
            .exec(
                pod,
                command.iter().copied(),
                &AttachParams::default().stderr(true),
            )
            .await
            .with_context(|| format!("cannot run {command:?} in {pod}"))?;
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(mut stdout) = process.stdout() {
            stdout.read_to_string(&mut out).await?;
        }
        if let Some(mut stderr) = process.stderr() {
            stderr.read_to_string(&mut err).await?;
        }
        let status = match process.take_status() {
            Some(status) => status.await,
            None => None,
        };
        let success = status.is_some_and(|status| status.status.as_deref() == Some("Success"));
        anyhow::ensure!(success, "{command:?} in {pod} failed: {}", err.trim());
        Ok(out)
    }
}

fn ready(pod: &Pod) -> Option<RunningPod> {
    let status = pod.status.as_ref()?;
    let is_ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    (is_ready && pod.metadata.deletion_timestamp.is_none()).then_some(())?;
    Some(RunningPod {
        name: pod.metadata.name.clone()?,
        node: pod.spec.as_ref()?.node_name.clone()?,
        address: status.pod_ip.clone()?,
    })
}

/// One HTTP request from this machine, on a connection of its own.
pub(crate) fn request(address: SocketAddr) -> anyhow::Result<String> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, limit)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .context("not an HTTP answer")?;
    Ok(body.to_owned())
}

/// What an answer of `seaway/whoami` says of a subject (`Pod`, `Node`, `Client`…).
pub(crate) fn says<'a>(answer: &'a str, subject: &str) -> &'a str {
    answer
        .lines()
        .find_map(|line| line.strip_prefix(subject)?.strip_prefix(": "))
        .unwrap_or("?")
}

/// Asks until the answer is right: the change has to reach every node first.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
