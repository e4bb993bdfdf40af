//! The story that the demo tells, in its order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;

use super::cluster::{Cluster, RunningPod, request, says, until};

/// As the documents name their example.
const NAME: &str = "node-js";
/// The node port that the documents choose.
const NODE_PORT: u16 = 30001;
/// Requests that show the spread.
const REQUESTS: usize = 300;

pub(crate) async fn tell(cluster: &Cluster) -> anyhow::Result<()> {
    let label = format!("name={NAME}");
    chapter("Three Pods, asked for through the Kubernetes API as a ReplicationController");
    cluster.create_controller(controller()).await?;
    let since = Instant::now();
    let pods = cluster.ready_pods(&label, 3).await?;
    for pod in &pods {
        anstream::println!("  {:<16} {:<14} on {}", pod.name, pod.address, pod.node);
    }
    anstream::println!("  all ready after {} ms", since.elapsed().as_millis());

    chapter("A Service: one name and one address for all of them, and a port on every node");
    let service = cluster.create_service(service()).await?;
    let address = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("the Service got no address")?;
    let first = pods.first().context("no Pod")?;
    anstream::println!(
        "  Service {NAME} has the address {address}, port 80, and node port {NODE_PORT}"
    );

    chapter("From inside a Pod, by name");
    let answer = until(async || get(cluster, first, &format!("http://{NAME}/")).await).await?;
    anstream::println!(
        "  {} asked http://{NAME}/ and {} on {} answered",
        first.name,
        says(&answer, "Pod"),
        says(&answer, "Node")
    );

    chapter("From inside a Pod, by address");
    // A Pod that happens to reach itself sees its node's address instead of its own: that is another story.
    let answer = until(async || {
        let answer = get(cluster, first, &format!("http://{address}/")).await?;
        anyhow::ensure!(
            says(&answer, "Pod") != first.name,
            "only the Pod itself answers"
        );
        Ok(answer)
    })
    .await?;
    anstream::println!(
        "  {} asked http://{address}/ and {} answered",
        first.name,
        says(&answer, "Pod")
    );
    anstream::println!(
        "  which saw the client as {}; the address of {} is {}: no NAT in between",
        says(&answer, "Client"),
        first.name,
        first.address
    );

    chapter("From this machine, through the port on every node");
    for (node, node_address) in cluster.nodes().await? {
        let at: SocketAddr = format!("{node_address}:{NODE_PORT}").parse()?;
        let answer = until(async || request(at)).await?;
        anstream::println!(
            "  http://{at}/ ({node}) was answered by {} on {}",
            says(&answer, "Pod"),
            says(&answer, "Node")
        );
    }

    chapter(&format!(
        "Who answers? {REQUESTS} requests to the Service's address from this machine"
    ));
    let at: SocketAddr = format!("{address}:80").parse()?;
    for (pod, count) in spread(at)? {
        anstream::println!("  {pod:<16} {count:>4} times");
    }

    chapter("A Pod is deleted, and replaced");
    let victim = first.name.clone();
    cluster.delete_pod(&victim).await?;
    let since = Instant::now();
    let pods = cluster.ready_pods(&label, 3).await?;
    let new: Vec<&str> = pods
        .iter()
        .filter(|pod| pod.name != victim)
        .map(|pod| pod.name.as_str())
        .collect();
    anstream::println!(
        "  {victim} is gone; after {} ms the Pods are {}",
        since.elapsed().as_millis(),
        new.join(", ")
    );
    until(async || {
        let counts = spread(at)?;
        anyhow::ensure!(
            counts.len() == 3 && !counts.contains_key(&victim),
            "the Service still answers with other Pods than these: {counts:?}"
        );
        for (pod, count) in counts {
            anstream::println!("  {pod:<16} {count:>4} times");
        }
        Ok(())
    })
    .await
}

fn chapter(title: &str) {
    anstream::println!("\n{title}");
}

/// A request from inside a Pod, with what every Pod of this image has.
async fn get(cluster: &Cluster, pod: &RunningPod, url: &str) -> anyhow::Result<String> {
    cluster
        .exec(&pod.name, &["/.seaway/seaway", "internal", "get", url])
        .await
}

/// How often each Pod answers.
fn spread(at: SocketAddr) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for _ in 0..REQUESTS {
        *counts
            .entry(says(&request(at)?, "Pod").to_owned())
            .or_default() += 1;
    }
    Ok(counts)
}

fn controller() -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": NAME},
        "spec": {
            "replicas": 3,
            "selector": {"name": NAME},
            "template": {
                "metadata": {"labels": {"name": NAME}},
                "spec": {"containers": [{
                    "name": NAME,
                    "image": "seaway/whoami",
                    "ports": [{"containerPort": 80}],
                }]},
            },
        },
    })
}

fn service() -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME},
        "spec": {
            "type": "NodePort",
            "ports": [{"port": 80, "nodePort": NODE_PORT}],
            "selector": {"name": NAME},
        },
    })
}
