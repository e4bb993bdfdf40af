//! From Node objects to packets: `run` with an API server that is a function, and a wire to a second node behind
//! which the world is. Needs root.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future;
use std::net::IpAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use seaway_kernel::NetNs;
use seaway_kernel::process::CommandExt;
use seaway_pod_network::{Config, PodNetwork, run};
use seaway_testkit::serve::Server;
use seaway_testkit::{Outer, probe, wait_until};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);
/// Beyond the cluster (RFC 5737: for documentation).
const WORLD: &str = "203.0.113.1";

/// An API server that has Nodes only, and says what happens to them.
#[derive(Clone, Default)]
struct ApiServer {
    nodes: Arc<Mutex<Vec<Value>>>,
    watch: Arc<Mutex<Option<UnboundedSender<Value>>>>,
}

impl ApiServer {
    fn client(&self) -> kube::Client {
        let server = self.clone();
        let answer = move |request: Request<Body>| {
            future::ready(Ok::<_, Infallible>(server.answer(&request)))
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    fn answer(&self, request: &Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        assert_eq!(request.uri().path(), "/api/v1/nodes");
        if request
            .uri()
            .query()
            .unwrap_or_default()
            .contains("watch=true")
        {
            let (sender, events) = unbounded::<Value>();
            *self.watch.lock().unwrap() = Some(sender);
            let frames = events.map(|event| Ok(Frame::data(Bytes::from(format!("{event}\n")))));
            return Response::new(StreamBody::new(frames).boxed_unsync());
        }
        let items = self.nodes.lock().unwrap().clone();
        let list = json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
        Response::new(Full::new(Bytes::from(list.to_string())).boxed_unsync())
    }

    fn tell(&self, event: &str, node: &Value) {
        let watch = wait_until("the watch", LIMIT, || {
            self.watch
                .lock()
                .unwrap()
                .clone()
                .ok_or("none yet".to_owned())
        });
        watch
            .unbounded_send(json!({"type": event, "object": node}))
            .unwrap();
    }
}

fn node(name: &str, address: &str, range: &str) -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {"name": name, "resourceVersion": "2"},
        "spec": {"podCIDR": range, "podCIDRs": [range]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

/// Node `own` with one wire, at whose other end are a second node and the world.
struct Bench {
    own: Outer,
    other: Outer,
    api: ApiServer,
    state: tempfile::TempDir,
}

struct Running {
    network: PodNetwork,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), seaway_pod_network::Error>>,
}

impl Bench {
    fn new() -> Self {
        let (own, other) = (Outer::new(), Outer::new());
        let script = format!(
            "ip link add eth0 type veth peer name eth1 && ip link set eth1 netns /proc/{}/fd/{} && \
             ip address add 10.87.0.2/24 dev eth0 && ip link set eth0 up && ip route add default via 10.87.0.3",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(other.netns()),
        );
        own.shell(&script);
        other.shell(&format!(
            "ip address add 10.87.0.3/24 dev eth1 && ip link set eth1 up && \
             ip address add {WORLD}/32 dev lo && ip route add 10.244.0.0/24 via 10.87.0.2"
        ));
        let api = ApiServer::default();
        *api.nodes.lock().unwrap() = vec![
            node("own", "10.87.0.2", "10.244.0.0/24"),
            node("other", "10.87.0.3", "10.244.1.0/24"),
        ];
        Self {
            own,
            other,
            api,
            state: tempfile::tempdir().unwrap(),
        }
    }

    fn start(&self) -> Running {
        let config = Config {
            node_name: "own".to_owned(),
            node_ip: "10.87.0.2".parse().unwrap(),
            state: self.state.path().to_owned(),
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
        };
        let runtime = tokio::runtime::Handle::current();
        let network = self.own.run(|| {
            let _within = runtime.enter();
            PodNetwork::open(config).unwrap()
        });
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(self.api.client(), network.clone(), shutdown.clone()));
        Running {
            network,
            shutdown,
            task,
        }
    }

    fn routes(&self) -> String {
        self.own.shell("ip route show")
    }

    fn wait_for_route(&self, line: &str) {
        wait_until(&format!("route {line:?}"), LIMIT, || {
            let routes = self.routes();
            if routes.contains(line) {
                Ok(())
            } else {
                Err(routes)
            }
        });
    }

    /// The whole ruleset with the kernel's handles: it differs if anything was made anew.
    fn rules(&self) -> String {
        self.own.shell("nft --handle list ruleset")
    }

    fn wait_for_rules(&self, what: &str, as_wanted: impl Fn(&str) -> bool) {
        wait_until(what, LIMIT, || {
            let rules = self.rules();
            if as_wanted(&rules) {
                Ok(())
            } else {
                Err(rules)
            }
        });
    }

    /// Which client address a server on the other side sees.
    fn seen_by(&self, server: &str, client: &NetNs) -> String {
        let address: IpAddr = server.parse().unwrap();
        let server = Server::tcp(self.other.netns(), (address, 0).into()).unwrap();
        probe::tcp_from(client, server.address(), LIMIT).unwrap()
    }
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

const ROUTE: &str = "10.244.1.0/24 via 10.87.0.3 dev eth0 proto 84 src 10.87.0.2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_come_and_go_are_followed() {
    let bench = Bench::new();
    let running = bench.start();
    let pod = NetNs::new().unwrap();
    // The first Pod waits for the range, which comes with the Nodes.
    let address = running
        .network
        .attach("pod", &pod)
        .await
        .unwrap()
        .to_string();
    assert_eq!(address, "10.244.0.2");
    bench.wait_for_route(ROUTE);
    bench.wait_for_route("unreachable 10.244.0.0/24 proto 84");
    bench.wait_for_rules("the other node among the node addresses", |rules| {
        rules.contains("10.87.0.3")
    });

    assert_eq!(
        bench.seen_by(WORLD, &pod),
        "10.87.0.2",
        "beyond the cluster with the node's address"
    );
    assert_eq!(
        bench.seen_by("10.87.0.3", &pod),
        address,
        "to a node without translation"
    );
    assert_eq!(
        bench.seen_by(WORLD, bench.own.netns()),
        "10.87.0.2",
        "the node itself"
    );

    bench
        .api
        .tell("DELETED", &node("other", "10.87.0.3", "10.244.1.0/24"));
    bench.wait_for_rules("no other node", |rules| !rules.contains("10.87.0.3"));
    wait_until("the route to go", LIMIT, || {
        let routes = bench.routes();
        if routes.contains("10.244.1.0/24") {
            Err(routes)
        } else {
            Ok(())
        }
    });
    assert_eq!(
        bench.seen_by("10.87.0.3", &pod),
        "10.87.0.2",
        "no node any more"
    );

    bench
        .api
        .tell("ADDED", &node("third", "10.87.0.3", "10.244.7.0/24"));
    bench.wait_for_route("10.244.7.0/24 via 10.87.0.3");
    bench
        .api
        .tell("MODIFIED", &node("third", "10.87.0.4", "10.244.7.0/24"));
    bench.wait_for_route("10.244.7.0/24 via 10.87.0.4");
    running.network.retain(&BTreeSet::new()).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_leaves_alone_what_is_right_and_repairs_the_rest() {
    let bench = Bench::new();
    let running = bench.start();
    bench.wait_for_route(ROUTE);
    bench.wait_for_rules("the table", |rules| rules.contains("masquerade"));
    let (routes, rules) = (bench.routes(), bench.rules());
    running.stop().await;
    assert_eq!(
        (bench.routes(), bench.rules()),
        (routes.clone(), rules.clone()),
        "the end of the agent changed something"
    );

    // Stale and missing routes of ours; a route of another's; a missing and a foreign node address.
    bench.own.shell(
        "ip route del 10.244.1.0/24 && ip route add 10.244.9.0/24 via 10.87.0.3 proto 84 && \
         ip route add 10.250.0.0/16 via 10.87.0.3 proto static && \
         nft delete element ip seaway-pods node-addresses '{ 10.87.0.3 }' && \
         nft add element ip seaway-pods node-addresses '{ 10.87.0.99 }'",
    );
    let running = bench.start();
    bench.wait_for_route(ROUTE);
    wait_until("the repair", LIMIT, || {
        let (routes, rules) = (bench.routes(), bench.rules());
        let repaired = !routes.contains("10.244.9.0/24")
            && rules.contains("10.87.0.3")
            && !rules.contains("10.87.0.99");
        if repaired {
            Ok(())
        } else {
            Err(format!("{routes}\n{rules}"))
        }
    });
    assert!(
        bench.routes().contains("10.250.0.0/16"),
        "another's route is gone"
    );
    assert_eq!(bench.rules(), rules, "more was made anew than was wrong");
    running.stop().await;

    // A table that somebody rewrote is replaced as a whole.
    bench
        .own
        .shell("nft add rule ip seaway-pods postrouting counter");
    let running = bench.start();
    bench.wait_for_rules("the foreign rule to go", |rules| {
        rules.contains("masquerade") && !rules.contains("counter")
    });
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_the_kernel_refuses_holds_up_no_other() {
    let bench = Bench::new();
    let running = bench.start();
    bench.wait_for_route(ROUTE);
    // No link leads to this gateway: its Pods cannot be reached, those of the next node can.
    bench.own.shell("ip route del default");
    bench
        .api
        .tell("ADDED", &node("astray", "192.0.2.77", "10.244.3.0/24"));
    bench
        .api
        .tell("ADDED", &node("third", "10.87.0.5", "10.244.5.0/24"));
    bench.wait_for_route("10.244.5.0/24 via 10.87.0.5");
    assert!(!bench.routes().contains("10.244.3.0/24"));
    // It is tried again, and works as soon as it can.
    bench.own.shell("ip route add 192.0.2.77 dev eth0");
    bench.wait_for_route("10.244.3.0/24 via 192.0.2.77");
    running.stop().await;
}

/// What others look at: the ruleset as `nft` prints it, and `nft` accepts it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ruleset_reads_well_and_nft_takes_it_back() {
    let bench = Bench::new();
    let running = bench.start();
    bench.wait_for_rules("the table", |rules| rules.contains("masquerade"));
    let text = bench.own.shell("nft list table ip seaway-pods");
    for line in [
        "comment \"Pods speak to the world with their node's address\"",
        "set pod-ranges {",
        "elements = { 10.244.0.0/16 }",
        "elements = { 10.96.0.0/12, 10.244.0.0/16 }",
        "ip saddr @pod-ranges ip daddr != @cluster-ranges ip daddr != @node-addresses masquerade",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let file = bench.state.path().join("rules.nft");
    std::fs::write(&file, &text).unwrap();
    let empty = NetNs::new().unwrap();
    let mut nft = Command::new("nft");
    let output = nft
        .arg("--file")
        .arg(&file)
        .in_netns(&empty)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    running.stop().await;
}
