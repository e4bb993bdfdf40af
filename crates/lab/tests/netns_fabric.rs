//! The lab's network on the real kernel: who reaches whom, that nothing leaves, and that nothing stays.

use std::net::SocketAddr;
use std::time::Duration;

use seaway_lab::fabric::Fabric;
use seaway_lab::spec::LabSpec;
use seaway_testkit::probe::tcp_from;
use seaway_testkit::serve::Server;
use seaway_testkit::{Outer, Watch};

const LIMIT: Duration = Duration::from_secs(3);

fn spec(name: &str) -> LabSpec {
    LabSpec {
        name: name.into(),
        nodes: 2,
        node_cidr: "10.87.0.0/24".parse().expect("a range"),
        pod_cidr: "10.244.0.0/16".parse().expect("a range"),
        service_cidr: "10.96.0.0/12".parse().expect("a range"),
        api_port: 6443,
        internet: false,
        disabled_admission_plugins: Vec::new(),
        without_scheduler: false,
        node_ports: Default::default(),
    }
}

/// Runs an async function on a thread in the host's namespace.
fn on_host<T: Send>(outer: &Outer, work: impl AsyncFnOnce() -> T + Send) -> T {
    outer.run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(work())
    })
}

#[test]
fn host_and_nodes_reach_each_other_and_nothing_stays() {
    let outer = Outer::new();
    let spec = spec("fab1");
    let watch = Watch::new(outer.netns(), &["sw-fab1"]);
    let before = watch.snapshot();
    let fabric = on_host(&outer, async || Fabric::create(&spec).await.unwrap());
    let node = |index: u32| {
        let netns = fabric.node_netns(index as usize).unwrap().clone();
        let server =
            Server::tcp(&netns, SocketAddr::new(spec.node_address(index).into(), 0)).unwrap();
        (netns, server)
    };
    let (one, server_one) = node(0);
    let (two, server_two) = node(1);
    let seen = |from, to: &Server| tcp_from(from, to.address(), LIMIT).unwrap();
    assert_eq!(seen(outer.netns(), &server_one), "10.87.0.1");
    assert_eq!(seen(outer.netns(), &server_two), "10.87.0.1");
    assert_eq!(seen(&one, &server_two), "10.87.0.2");
    assert_eq!(seen(&two, &server_one), "10.87.0.3");

    let routes = outer.shell("ip route");
    for line in [
        "10.96.0.0/12 via 10.87.0.2",
        "unreachable 10.96.0.0/12",
        "unreachable 10.244.0.0/16",
        "unreachable 10.87.0.0/24",
    ] {
        assert!(routes.contains(line), "{routes}");
    }
    // No way out of a node: refused at once.
    let outside = tcp_from(&one, "203.0.113.1:80".parse().unwrap(), LIMIT);
    assert_eq!(
        outside.unwrap_err().kind(),
        std::io::ErrorKind::NetworkUnreachable
    );

    drop((server_one, server_two, one, two));
    on_host(&outer, async || fabric.remove().await.unwrap());
    before.assert_same(&watch.snapshot());
}

#[test]
fn what_a_killed_lab_leaves_is_swept() {
    let outer = Outer::new();
    let spec = spec("fab2");
    let watch = Watch::new(outer.netns(), &["sw-fab2"]);
    let before = watch.snapshot();
    // Dropped without `remove`: as when the supervisor is killed.
    drop(on_host(&outer, async || {
        Fabric::create(&spec).await.unwrap()
    }));
    outer.run(|| seaway_lab::cleanup::network(&spec).unwrap());
    before.assert_same(&watch.snapshot());
    outer.run(|| seaway_lab::cleanup::network(&spec).unwrap());
}

#[test]
fn a_lab_with_internet_leaves_under_the_hosts_address_and_gives_forwarding_back() {
    let outer = Outer::new();
    // The host's uplink leads to a namespace that plays the internet (203.0.113.0/24 is for documentation).
    let internet = Outer::new();
    outer.shell("ip link add uplink type veth peer name exchange && ip addr add 203.0.113.2/24 dev uplink && ip link set uplink up");
    let moved = internet.netns().clone();
    let link = on_host(&outer, async || {
        let socket = seaway_kernel::rtnl::RouteSocket::open(outer.netns()).unwrap();
        let exchange = socket.link("exchange").await.unwrap().index;
        socket.move_link(exchange, &moved).await
    });
    link.unwrap();
    internet.shell("ip addr add 203.0.113.1/24 dev exchange && ip link set exchange up");
    let server = Server::tcp(internet.netns(), "203.0.113.1:0".parse().unwrap()).unwrap();

    let spec = LabSpec {
        internet: true,
        ..spec("fab3")
    };
    let fabric = on_host(&outer, async || Fabric::create(&spec).await.unwrap());
    let seen = tcp_from(fabric.node_netns(0).unwrap(), server.address(), LIMIT).unwrap();
    assert_eq!(seen, "203.0.113.2");
    on_host(&outer, async || fabric.remove().await.unwrap());
    assert_eq!(outer.shell("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
    assert_eq!(outer.shell("nft list tables").trim(), "");
}
