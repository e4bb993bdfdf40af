//! The process that every node has: service proxy, Pod network, DNS and Pods, each watching the API by itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::Node;
use seaway_apiserver::pki::Pki;
use seaway_kernel::netns::NetNs;
use seaway_kernel::rtnl::RouteSocket;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client;
use crate::error::Error;
use crate::readiness::{Report, report};
use crate::spec::CLUSTER_DOMAIN;

/// Where a node's service proxy tells of its health, as kube-proxy does.
const PROXY_HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10256);

/// What an agent needs to know; the supervisor writes it, the process reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// Name of the lab.
    pub lab: String,
    /// Name of the node.
    pub node: String,
    /// Its address on the fabric.
    pub address: Ipv4Addr,
    /// Its credentials for the API.
    pub kubeconfig: PathBuf,
    /// Directory of the certificates.
    pub pki: PathBuf,
    /// State that goes with the lab.
    pub state: PathBuf,
    /// State that stays.
    pub durable: PathBuf,
    /// The image store.
    pub images: PathBuf,
    /// Parent of the cgroups of this node.
    pub cgroup: String,
    /// Addresses of Pods, of all nodes.
    pub pod_cidr: Ipv4Net,
    /// Addresses of Services.
    pub service_cidr: Ipv4Net,
    /// Address of the cluster DNS.
    pub dns: Ipv4Addr,
    /// Name servers for names outside the cluster; none without `--internet`.
    pub upstreams: Vec<SocketAddr>,
}

/// Pause between two questions to an API server that is about to start.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// The kubelet's usual port.
const KUBELET_PORT: u16 = 10250;

/// Runs the agent until `shutdown`.
///
/// # Errors
/// What made one of its parts give up; the supervisor starts the agent again.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), Error> {
    client::install_tls();
    let client = client::from_kubeconfig(&config.kubeconfig).await?;
    api_answers(&client).await;
    let address = IpAddr::V4(config.address);
    let service_cidr = IpNet::V4(config.service_cidr);
    own_address(config.dns).await?;

    let network = seaway_pod_network::PodNetwork::open(seaway_pod_network::Config {
        node_name: config.node.clone(),
        node_ip: address,
        state: config.durable.clone(),
        cluster_cidrs: vec![config.pod_cidr.into()],
        service_cidrs: vec![service_cidr],
    })
    .map_err(|error| Error::step("opening the Pod network", error))?;
    let proxy = seaway_service_proxy::Config {
        service_cidrs: vec![service_cidr],
        health_address: Some(PROXY_HEALTH),
        ..seaway_service_proxy::Config::new(&config.node)
    };
    let dns = seaway_dns::Config {
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        upstreams: config.upstreams.clone(),
        old_form: true,
        service_cidrs: vec![service_cidr],
        pod_cidrs: vec![config.pod_cidr.into()],
        ..seaway_dns::Config::new(vec![(config.dns, 53).into()])
    };
    let pki = Pki::at(&config.pki);
    let credential = pki.node(&config.node);
    let pods = seaway_pods::Config {
        node_name: config.node.clone(),
        node_ip: address,
        lab: config.lab.clone(),
        state_dir: config.state.clone(),
        images_dir: config.images.clone(),
        exe: std::env::current_exe().map_err(Error::file("find", "the seaway program"))?,
        cgroup_parent: config.cgroup.clone(),
        cluster_dns: config.dns.into(),
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        tls: seaway_pods::Tls {
            cert: credential.certificate,
            key: credential.key,
            client_ca: pki.authority,
        },
        kubelet_port: KUBELET_PORT,
        labels: BTreeMap::new(),
    };

    let mut parts = JoinSet::new();
    part(
        &mut parts,
        "Pod network",
        seaway_pod_network::run(client.clone(), network.clone(), shutdown.clone()),
    );
    part(
        &mut parts,
        "service proxy",
        seaway_service_proxy::run(client.clone(), proxy, shutdown.clone()),
    );
    part(
        &mut parts,
        "DNS",
        seaway_dns::run(client.clone(), dns, shutdown.clone()),
    );
    part(
        &mut parts,
        "Pods",
        seaway_pods::run(client.clone(), pods, network, shutdown.clone()),
    );
    let node = config.node.clone();
    let since = jiff::Timestamp::now().as_second();
    tokio::spawn(async move {
        while let Err(error) = ready(&client, &node, since).await {
            tracing::warn!(%error, "cannot tell yet whether the node is ready");
            tokio::time::sleep(ASK_AGAIN).await;
        }
        report(&Report::Ready);
    });
    while let Some(ended) = parts.join_next().await {
        let result = ended.map_err(|error| Error::step("running the agent", error))?;
        // A part ends by itself only when it cannot go on; without it the node would be half alive.
        if result.is_err() || !shutdown.is_cancelled() {
            return result;
        }
    }
    Ok(())
}

fn part<E: std::fmt::Display>(
    parts: &mut JoinSet<Result<(), Error>>,
    name: &'static str,
    work: impl Future<Output = Result<(), E>> + Send + 'static,
) {
    parts.spawn(async move { work.await.map_err(|error| Error::step(name, error)) });
}

/// Gives this node the cluster DNS's address, on loopback: every node has it, so that a query never leaves the node.
/// For this node only, or masquerading would choose it as the source of what goes to a Pod here.
async fn own_address(address: Ipv4Addr) -> Result<(), Error> {
    let taken = async {
        let routes = RouteSocket::open(&NetNs::current()?)?;
        let loopback = routes.link("lo").await?;
        routes
            .ensure_host_address(loopback.index, IpNet::from(IpAddr::V4(address)))
            .await
    };
    taken
        .await
        .map_err(|error: seaway_kernel::Error| Error::step("taking the DNS address", error))
}

/// Waits until the API server answers. In a lab it starts at the same time, and every watch that fails first would
/// wait for its back-off.
async fn api_answers(client: &kube::Client) {
    let mut said = false;
    while let Err(error) = client.apiserver_version().await {
        if !said {
            tracing::info!(%error, "waiting for the API server");
            said = true;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Returns when the API says that this node is ready, and has said so since this moment (in seconds since 1970):
/// what an earlier life of the node said does not count.
async fn ready(client: &kube::Client, node: &str, since: i64) -> Result<(), Error> {
    let nodes: kube::Api<Node> = kube::Api::all(client.clone());
    let is_ready = |node: Option<&Node>| {
        node.and_then(|node| node.status.as_ref())
            .and_then(|status| status.conditions.as_ref())
            .is_some_and(|conditions| {
                conditions
                    .iter()
                    .filter(|condition| condition.type_ == "Ready" && condition.status == "True")
                    .filter_map(|condition| condition.last_heartbeat_time.as_ref())
                    .any(|heard| heard.0.as_second() >= since)
            })
    };
    kube::runtime::wait::await_condition(nodes, node, is_ready)
        .await
        .map(drop)
        .map_err(|error| Error::step("watching the node", error))
}
