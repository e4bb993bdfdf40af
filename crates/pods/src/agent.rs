//! Puts the parts of this crate together into what a kubelet is to a node.

use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use seaway_pod_network::PodNetwork;

use crate::apply::Node;
use crate::config::Config;
use crate::controller::{Controller, PodTable};
use crate::error::Error;
use crate::events::Recorder;
use crate::images::Images;
use crate::node::{self, Machine};
use crate::quantity::Amount;
use crate::runtime::{Runtime, RuntimeConfig};
use crate::server::{self, Answers, Listener};
use crate::services::Services;

/// Runs the Pods of a node until `shutdown`; its containers go on without it and are found again by the next agent.
///
/// Ends early when the node cannot be run at all: its directories, its credentials or its port cannot be used.
pub async fn run(
    client: Client,
    config: Config,
    network: PodNetwork,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    std::fs::create_dir_all(&config.state_dir).map_err(Error::file("create", &config.state_dir))?;
    let images = Images::open(&config.images_dir)?;
    let (runtime, changed) = Runtime::open(RuntimeConfig {
        state_dir: config.state_dir.clone(),
        images: images.clone(),
        exe: config.exe.clone(),
        cgroup_parent: config.cgroup_parent.clone(),
    })
    .await?;
    let listener = Listener::bind(&config).await?;
    let machine = Machine::read(&config);
    let events = Recorder::start(client.clone(), config.node_name.clone());
    let (network_sender, network_ready) = watch::channel(false);
    // The socket listens from here on; requests are answered as soon as the server below runs.
    let (_serving, serving) = watch::channel(true);
    let node = Arc::new(Node {
        client: client.clone(),
        runtime: runtime.clone(),
        images,
        network,
        network_ready,
        services: Services::start(client.clone(), shutdown.clone()),
        events: events.clone(),
        cpu: Amount::whole(i64::try_from(machine.cpus).unwrap_or(i64::MAX)),
        memory: Amount::whole(i64::try_from(machine.memory).unwrap_or(i64::MAX)),
        config: config.clone(),
    });
    let pods = PodTable::default();
    let answers = Answers {
        pods: pods.clone(),
        runtime,
    };
    // Whatever ends first ends the others with it.
    let all = shutdown.child_token();
    let _guard = all.clone().drop_guard();
    tokio::spawn(server::serve(listener, answers, all.clone()));
    tokio::select! {
        result = node::run(client, config, machine, events, serving, network_sender, all.clone()) => result,
        result = Controller::new(node, pods).run(changed, all.clone()) => result,
    }
}
