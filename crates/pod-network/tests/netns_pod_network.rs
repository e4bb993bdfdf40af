//! Two nodes on a wire, their Pods, and the world beyond: real packets through the real kernel. Needs root.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use seaway_kernel::rtnl::{Route, RouteKind, RouteSocket, Veth, VethPeer};
use seaway_kernel::{NetNs, sysctl};
use seaway_pod_network::{Config, Error, PodNetwork};
use seaway_testkit::probe;
use seaway_testkit::serve::Server;

const LIMIT: Duration = Duration::from_secs(5);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node's namespace with its own link and its Pod network.
struct TestNode {
    netns: NetNs,
    ip: IpAddr,
}

impl TestNode {
    fn open(&self, state: &Path, range: &str) -> PodNetwork {
        let network = self.reopen(state).unwrap();
        network.set_pod_cidr(net(range)).unwrap();
        network
    }

    /// As an agent does that starts again: only what the disk and the kernel hold is known.
    fn reopen(&self, state: &Path) -> Result<PodNetwork, Error> {
        let config = Config {
            node_name: "node".to_owned(),
            node_ip: self.ip,
            state: state.to_owned(),
            cluster_cidrs: vec![net("10.244.0.0/16")],
            service_cidrs: vec![net("10.96.0.0/12")],
        };
        let runtime = tokio::runtime::Handle::current();
        self.netns
            .run(|| {
                let _within = runtime.enter();
                PodNetwork::open(config)
            })
            .unwrap()
    }

    async fn link(&self, name: &str, address: &str) {
        let socket = RouteSocket::open(&self.netns).unwrap();
        let link = socket.link(name).await.unwrap();
        socket
            .ensure_address(link.index, net(address))
            .await
            .unwrap();
        socket.set_up(link.index).await.unwrap();
    }

    async fn route(&self, range: &str, gateway: &str) {
        let route = Route::new(net(range), RouteKind::Unicast, 4).via(ip(gateway));
        RouteSocket::open(&self.netns)
            .unwrap()
            .ensure_route(&route)
            .await
            .unwrap();
    }
}

async fn two_nodes() -> [TestNode; 2] {
    let [a, b] = [
        TestNode {
            netns: NetNs::new().unwrap(),
            ip: ip("10.87.0.2"),
        },
        TestNode {
            netns: NetNs::new().unwrap(),
            ip: ip("10.87.0.3"),
        },
    ];
    let peer = VethPeer {
        name: "eth0",
        mac: None,
        netns: Some(&b.netns),
    };
    let veth = Veth {
        name: "eth0",
        mac: None,
        mtu: Some(1400),
        master: None,
        peer,
    };
    RouteSocket::open(&a.netns)
        .unwrap()
        .add_veth(&veth)
        .await
        .unwrap();
    a.link("eth0", "10.87.0.2/24").await;
    b.link("eth0", "10.87.0.3/24").await;
    a.route("10.244.1.0/24", "10.87.0.3").await;
    b.route("10.244.0.0/24", "10.87.0.2").await;
    [a, b]
}

#[tokio::test]
async fn pods_and_nodes_reach_each_other_without_translation() {
    let directory = tempfile::tempdir().unwrap();
    let [a, b] = two_nodes().await;
    let on_a = a.open(&directory.path().join("a"), "10.244.0.0/24");
    let on_b = b.open(&directory.path().join("b"), "10.244.1.0/24");
    let [pod_a, pod_a2, pod_b] = [(); 3].map(|()| NetNs::new().unwrap());
    let address_a = on_a.attach("uid-a", &pod_a).await.unwrap();
    let address_a2 = on_a.attach("uid-a2", &pod_a2).await.unwrap();
    let address_b = on_b.attach("uid-b", &pod_b).await.unwrap();
    assert_eq!(
        [address_a, address_a2, address_b],
        [ip("10.244.0.2"), ip("10.244.0.3"), ip("10.244.1.2")]
    );

    let everyone = [
        (&pod_a, address_a),
        (&pod_a2, address_a2),
        (&pod_b, address_b),
        (&a.netns, a.ip),
        (&b.netns, b.ip),
    ];
    for (server_netns, server_address) in everyone {
        let tcp = Server::tcp(server_netns, (server_address, 0).into()).unwrap();
        let udp = Server::udp(server_netns, (server_address, 0).into()).unwrap();
        for (client_netns, client_address) in everyone {
            let seen = probe::tcp_from(client_netns, tcp.address(), LIMIT).unwrap();
            assert_eq!(seen, client_address.to_string(), "TCP to {server_address}");
            let seen = probe::udp_from(client_netns, udp.address(), LIMIT).unwrap();
            assert_eq!(seen, client_address.to_string(), "UDP to {server_address}");
        }
    }
    // The largest packet between the nodes is that of the Pods.
    let eth0 = RouteSocket::open(&pod_a)
        .unwrap()
        .link("eth0")
        .await
        .unwrap();
    assert_eq!(eth0.mtu, 1400);
}

#[tokio::test]
async fn a_pod_cannot_send_with_another_address() {
    let directory = tempfile::tempdir().unwrap();
    let [a, _b] = two_nodes().await;
    let on_a = a.open(directory.path(), "10.244.0.0/24");
    let [honest, forger] = [(); 2].map(|()| NetNs::new().unwrap());
    let victim = on_a.attach("honest", &honest).await.unwrap();
    on_a.attach("forger", &forger).await.unwrap();
    let server = Server::udp(&honest, (victim, 0).into()).unwrap();
    let forged = RouteSocket::open(&forger).unwrap();
    let eth0 = forged.link("eth0").await.unwrap();
    forged
        .ensure_address(eth0.index, net("10.244.0.99/32"))
        .await
        .unwrap();
    let sent = forger
        .run(|| {
            std::net::UdpSocket::bind("10.244.0.99:0")
                .unwrap()
                .send_to(b"forged", server.address())
        })
        .unwrap();
    sent.unwrap();
    // What is sent afterwards arrives, so what was sent before would have arrived as well.
    probe::udp_from(&forger, server.address(), LIMIT).unwrap();
    assert_eq!(server.served(), 1);
}

#[tokio::test]
async fn attaching_again_changes_nothing_and_a_new_sandbox_gets_the_same_address() {
    let directory = tempfile::tempdir().unwrap();
    let [a, _b] = two_nodes().await;
    let network = a.open(directory.path(), "10.244.0.0/24");
    let first = NetNs::new().unwrap();
    let address = network.attach("pod", &first).await.unwrap();
    let before = RouteSocket::open(&first)
        .unwrap()
        .link("eth0")
        .await
        .unwrap();
    assert_eq!(network.attach("pod", &first).await.unwrap(), address);
    assert_eq!(
        RouteSocket::open(&first)
            .unwrap()
            .link("eth0")
            .await
            .unwrap(),
        before
    );

    let second = NetNs::new().unwrap();
    assert_eq!(network.attach("pod", &second).await.unwrap(), address);
    let server = Server::tcp(&second, (address, 0).into()).unwrap();
    assert_eq!(
        probe::tcp_from(&a.netns, server.address(), LIMIT).unwrap(),
        a.ip.to_string()
    );
    assert_eq!(
        RouteSocket::open(&first)
            .unwrap()
            .find_link("eth0")
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn pods_keep_network_and_address_when_the_agent_starts_again() {
    let directory = tempfile::tempdir().unwrap();
    let [a, _b] = two_nodes().await;
    let pod = NetNs::new().unwrap();
    let address = a
        .open(directory.path(), "10.244.0.0/24")
        .attach("pod", &pod)
        .await
        .unwrap();
    let server = Server::tcp(&pod, (address, 0).into()).unwrap();
    probe::tcp_from(&a.netns, server.address(), LIMIT).unwrap();

    // The range is known without asking anyone, too.
    let again = a.reopen(directory.path()).unwrap();
    assert_eq!(again.attach("pod", &pod).await.unwrap(), address);
    assert_ne!(
        again.attach("other", &NetNs::new().unwrap()).await.unwrap(),
        address
    );
    probe::tcp_from(&a.netns, server.address(), LIMIT).unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_a_pod_that_was_detached_or_is_no_longer_live() {
    let directory = tempfile::tempdir().unwrap();
    let [a, _b] = two_nodes().await;
    let socket = RouteSocket::open(&a.netns).unwrap();
    let network = a.open(directory.path(), "10.244.0.0/24");
    let (links, routes) = (
        socket.links().await.unwrap(),
        socket.routes().await.unwrap(),
    );
    let pods: Vec<NetNs> = (0..3).map(|_| NetNs::new().unwrap()).collect();
    for (number, pod) in pods.iter().enumerate() {
        network.attach(&format!("pod-{number}"), pod).await.unwrap();
    }
    network.detach("pod-0").await.unwrap();
    network.detach("pod-0").await.unwrap();
    assert_eq!(
        RouteSocket::open(&pods[0])
            .unwrap()
            .find_link("eth0")
            .await
            .unwrap(),
        None
    );
    network
        .retain(&BTreeSet::from(["pod-2".to_owned()]))
        .await
        .unwrap();
    assert_eq!(
        RouteSocket::open(&pods[1])
            .unwrap()
            .find_link("eth0")
            .await
            .unwrap(),
        None
    );
    assert!(
        RouteSocket::open(&pods[2])
            .unwrap()
            .find_link("eth0")
            .await
            .unwrap()
            .is_some()
    );
    network.retain(&BTreeSet::new()).await.unwrap();
    assert_eq!(socket.links().await.unwrap(), links);
    assert_eq!(socket.routes().await.unwrap(), routes);
    // The addresses are free again; the longest free one comes when no fresh one is left.
    let file = std::fs::read_to_string(directory.path().join("ipam.json")).unwrap();
    assert!(
        file.contains(r#""freed":["10.244.0.2","10.244.0.3","10.244.0.4"],"owners":{}"#),
        "{file}"
    );
}

#[tokio::test]
async fn errors_say_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let [a, _b] = two_nodes().await;
    let lost = TestNode {
        netns: a.netns.clone(),
        ip: ip("10.99.0.1"),
    };
    let network = lost.open(&directory.path().join("lost"), "10.244.0.0/24");
    let error = network
        .attach("pod", &NetNs::new().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NodeAddressMissing { .. }), "{error}");

    let full = a.open(&directory.path().join("full"), "10.244.0.0/30");
    full.attach("one", &NetNs::new().unwrap()).await.unwrap();
    let error = full
        .attach("two", &NetNs::new().unwrap())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Exhausted { taken: 1, .. }),
        "{error}"
    );
    assert_eq!(sysctl::read(&a.netns, "ipv4/ip_forward").unwrap(), "1");
}

#[tokio::test]
async fn a_node_without_a_range_says_so_after_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let [a, _b] = two_nodes().await;
    let error = a
        .reopen(directory.path())
        .unwrap()
        .attach("pod", &NetNs::new().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NoPodCidr { .. }), "{error}");
}
