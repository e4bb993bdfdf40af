//! What `seaway status` shows: the labs of this machine, their processes, nodes and Pods.

use std::path::Path;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{Api, ListParams};
use serde::Serialize;

use crate::error::Error;
use crate::paths::{Paths, running_names};
use crate::running::{Running, read_json};
use crate::{client, lock};

/// One lab.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabStatus {
    /// Its name.
    pub name: String,
    /// `Running`, `Starting` or `Killed` (its leftovers wait for `down` or the next `up`).
    pub phase: &'static str,
    /// The supervisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Seconds since 1970.
    pub started_at: i64,
    /// Where kubectl finds the API server.
    pub server: String,
    /// Credentials for kubectl.
    pub kubeconfig: String,
    /// Range of node addresses.
    pub node_cidr: String,
    /// Range of Pod addresses.
    pub pod_cidr: String,
    /// Range of Service addresses.
    pub service_cidr: String,
    /// Nodes as the API has them.
    pub nodes: Vec<NodeStatus>,
    /// Number of Services.
    pub services: usize,
    /// Why the API server gave no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One node of a lab.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its condition `Ready` is `True`.
    pub ready: bool,
    /// Its address.
    pub address: String,
    /// Its share of the Pod range.
    pub pod_cidr: String,
    /// Pods bound to it.
    pub pods: usize,
}

/// The labs that run or were killed; only `name` when given.
///
/// # Errors
/// [`Error::NotRunning`] when a lab was named and does not run; damaged files.
pub async fn status(data: &Path, name: Option<&str>) -> Result<Vec<LabStatus>, Error> {
    let names = name.map_or_else(running_names, |name| vec![name.to_owned()]);
    let mut labs = Vec::new();
    for lab in names {
        let paths = Paths::new(data, &lab);
        match read_json::<Running>(&paths.running())? {
            Some(running) => labs.push(one(&lab, &running).await),
            None if name.is_some() => return Err(Error::NotRunning { name: lab }),
            None => {}
        }
    }
    Ok(labs)
}

async fn one(name: &str, running: &Running) -> LabStatus {
    let paths = Paths::new(&running.data, name);
    let pid = lock::holder(&paths.lock());
    let mut status = LabStatus {
        name: name.to_owned(),
        phase: match (pid, running.ready) {
            (None, _) => "Killed",
            (Some(_), false) => "Starting",
            (Some(_), true) => "Running",
        },
        pid,
        started_at: running.started_at,
        server: format!("https://{}", running.spec.local_api()),
        kubeconfig: paths.kubeconfig().display().to_string(),
        node_cidr: running.spec.node_cidr.to_string(),
        pod_cidr: running.spec.pod_cidr.to_string(),
        service_cidr: running.spec.service_cidr.to_string(),
        nodes: Vec::new(),
        services: 0,
        problem: None,
    };
    if pid.is_some()
        && let Err(error) = ask(&paths, &mut status).await
    {
        status.problem = Some(error.to_string());
    }
    status
}

async fn ask(paths: &Paths, status: &mut LabStatus) -> Result<(), Error> {
    let client = client::from_kubeconfig(&paths.kubeconfig()).await?;
    let failed = |error: kube::Error| Error::step("asking the API server", error);
    let all = ListParams::default();
    let (nodes, pods, services) = futures::try_join!(
        async { Api::<Node>::all(client.clone()).list(&all).await },
        async { Api::<Pod>::all(client.clone()).list(&all).await },
        async {
            Api::<Service>::all(client.clone())
                .list_metadata(&all)
                .await
        },
    )
    .map_err(failed)?;
    status.services = services.items.len();
    for node in nodes {
        let name = node.metadata.name.unwrap_or_default();
        let node_status = node.status.unwrap_or_default();
        status.nodes.push(NodeStatus {
            ready: node_status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            address: node_status
                .addresses
                .iter()
                .flatten()
                .find(|address| address.type_ == "InternalIP")
                .map(|address| address.address.clone())
                .unwrap_or_default(),
            pod_cidr: node.spec.and_then(|spec| spec.pod_cidr).unwrap_or_default(),
            pods: pods
                .items
                .iter()
                .filter(|pod| {
                    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&name)
                })
                .count(),
            name,
        });
    }
    Ok(())
}
