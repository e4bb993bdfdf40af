//! The process that every lab has once: API server and controllers, in the host's network namespace.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, PostParams};
use seaway_apiserver::Tuning;
use seaway_apiserver::pki::Pki;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::port_range::PortRange;
use crate::{client, host_routes, readiness};

/// What the control plane needs to know; the supervisor writes it, the process reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPlaneConfig {
    /// Where the API server listens.
    pub listen: Vec<SocketAddr>,
    /// Where Pods find it, behind the `kubernetes` Service.
    pub advertise: SocketAddr,
    /// The store's file.
    pub store: PathBuf,
    /// Name of the lab.
    pub lab: String,
    /// Directory of the certificates.
    pub pki: PathBuf,
    /// Credentials of the controllers.
    pub kubeconfig: PathBuf,
    /// Addresses of Pods; nodes get a /24 each.
    pub pod_cidr: Ipv4Net,
    /// Addresses of Services.
    pub service_cidr: Ipv4Net,
    /// Address of the cluster DNS.
    pub dns: std::net::Ipv4Addr,
    /// Admission plugins that are switched off.
    #[serde(default)]
    pub disabled_admission_plugins: Vec<String>,
    /// Pods wait for a scheduler that somebody else brings.
    #[serde(default)]
    pub without_scheduler: bool,
    /// Where node ports are given from.
    #[serde(default)]
    pub node_ports: PortRange,
}

/// Prefix length of a node's share of the Pod range, as kube-controller-manager's default for IPv4.
const NODE_CIDR_MASK: u8 = 24;

/// Runs the control plane until `shutdown`.
///
/// # Errors
/// What made the API server or the controllers give up.
pub async fn run(config: ControlPlaneConfig, shutdown: CancellationToken) -> Result<(), Error> {
    client::install_tls();
    let server = seaway_apiserver::Config {
        listen: config.listen.clone(),
        store: config.store.clone(),
        pki: Pki::at(&config.pki),
        service_cidrs: vec![config.service_cidr.into()],
        node_port_range: config.node_ports.ports(),
        advertise: config.advertise,
    };
    let (ready, became_ready) = tokio::sync::oneshot::channel();
    let tuning = Tuning {
        disabled_plugins: config.disabled_admission_plugins.clone(),
        ..Tuning::default()
    };
    let serving = seaway_apiserver::serve(server, tuning, ready, shutdown.clone());
    let controlling = async {
        // Dropped without a word: `serving` ends with the reason.
        if became_ready.await.is_err() {
            return std::future::pending().await;
        }
        let client = client::from_kubeconfig(&config.kubeconfig).await?;
        publish_dns(&client, config.dns).await?;
        readiness::report(&readiness::Report::Ready);
        let root_ca = Pki::at(&config.pki)
            .authority_pem()
            .map_err(|error| Error::step("reading certificates", error))?;
        let controllers = seaway_controllers::Config {
            cluster_cidr: config.pod_cidr.into(),
            node_cidr_mask: NODE_CIDR_MASK,
            root_ca,
            scheduler: !config.without_scheduler,
        };
        let running = seaway_controllers::run(client.clone(), controllers, shutdown.clone());
        tokio::try_join!(
            async {
                running
                    .await
                    .map_err(|error| Error::step("running the controllers", error))
            },
            host_routes::follow(client, &config.lab),
        )
        .map(drop)
    };
    tokio::select! {
        served = serving => served.map_err(|error| Error::step("serving the API", error)),
        controlled = controlling => controlled,
    }
}

/// The Service that names the cluster DNS. Every node answers on its address by itself, so the service proxy
/// leaves it alone: that is what the label says.
/// Source: Kubernetes well-known labels, `service.kubernetes.io/service-proxy-name`.
async fn publish_dns(client: &kube::Client, address: std::net::Ipv4Addr) -> Result<(), Error> {
    let service: Service = serde_json::from_value(serde_json::json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
                "service.kubernetes.io/service-proxy-name": "seaway-dns",
            },
        },
        "spec": {
            "clusterIP": address.to_string(),
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        },
    }))
    .map_err(|error| Error::step("naming the cluster DNS", error))?;
    match Api::<Service>::namespaced(client.clone(), "kube-system")
        .create(&PostParams::default(), &service)
        .await
    {
        Ok(_) => Ok(()),
        // There from an earlier start.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(Error::step("naming the cluster DNS", error)),
    }
}
