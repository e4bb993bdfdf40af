//! What a Service says about who may answer whom, from the objects to real packets. The world is that of
//! `netns_forwarding.rs`: pod-a and pod-b on this node, `remote` on another, a client outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use seaway_service_proxy::{
    Applier, Forwarding, IpFamily, Node, Outcome, RangeSet, Snapshot, cleanup,
};
use seaway_testkit::wait_until;
use serde_json::{Value, json};
use world::{World, tcp, udp};

const CLUSTER_IP: &str = "10.96.0.7:80";
const EXTERNAL_IP: &str = "198.51.100.1:80";
const BALANCER_IP: &str = "198.51.100.2:80";
const NODE_PORT: &str = "192.0.2.1:30080";

/// The proxy of the node, fed with objects.
struct Proxy {
    snapshot: Snapshot,
    forwarding: Forwarding,
    applier: Applier,
}

impl Proxy {
    fn on(world: &World) -> Self {
        let node = Node {
            name: "node-1".to_owned(),
            zone: Some("zone-1".to_owned()),
        };
        let mut forwarding = Forwarding::new(IpFamily::V4, &["10.96.0.0/12".parse().unwrap()]);
        let _ = forwarding.set_ranges(RangeSet::Pods, &["10.244.0.0/24".parse().unwrap()]);
        let _ = forwarding.set_ranges(RangeSet::NodePorts, &["192.0.2.1/32".parse().unwrap()]);
        let mut applier = world.run("node", || Applier::open(IpFamily::V4)).unwrap();
        applier.synchronise(&forwarding.contents()).unwrap();
        Self {
            snapshot: Snapshot::new(node),
            forwarding,
            applier,
        }
    }

    fn service(&mut self, service: Value) {
        let problems = self
            .snapshot
            .service_seen(&serde_json::from_value(service).unwrap());
        assert_eq!(problems, []);
        self.go_on();
    }

    fn endpoints(&mut self, endpoints: Value) {
        let slice = json!({
            "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 8080}, {"port": 8080, "protocol": "UDP", "name": "udp"}],
            "endpoints": endpoints,
        });
        let problems = self
            .snapshot
            .slice_seen(&serde_json::from_value(slice).unwrap());
        assert_eq!(problems, []);
        self.go_on();
    }

    fn go_on(&mut self) {
        let (touched, _) = self.snapshot.take_touched();
        let changes: Vec<_> = touched
            .into_iter()
            .map(|name| {
                let compiled = self.snapshot.compile(&name, IpFamily::V4);
                (name, compiled)
            })
            .collect();
        let delta = self.forwarding.update(changes);
        self.applier.apply(&delta).unwrap();
        self.applier
            .forget_stale(&self.forwarding, Some(&delta))
            .unwrap();
        let contents = self.forwarding.contents();
        assert_eq!(self.applier.read().unwrap().unwrap(), contents);
        assert_eq!(self.applier.synchronise(&contents).unwrap(), Outcome::Same);
    }
}

fn service(spec: Value) -> Value {
    let mut all = json!({
        "clusterIP": "10.96.0.7", "externalIPs": ["198.51.100.1"], "type": "LoadBalancer",
        "ports": [{"port": 80, "nodePort": 30080}],
    });
    all.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    json!({
        "metadata": {"namespace": "default", "name": "web"}, "spec": all,
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.2"}]}},
    })
}

fn on(node: u8, addresses: &[&str]) -> Vec<Value> {
    addresses
        .iter()
        .map(|ip| json!({"addresses": [ip], "nodeName": format!("node-{node}")}))
        .collect()
}

/// pod-a and pod-b here, `remote` elsewhere.
fn everyone() -> Value {
    let mut all = on(1, &["10.244.0.2", "10.244.0.3"]);
    all.extend(on(2, &["10.244.1.2"]));
    json!(all)
}

fn world() -> World {
    let world = World::new();
    world.serve_all();
    // The outside comes to the Service's external addresses through this node, as a router would send it, and what
    // the node itself sends there has a way to go before it is translated.
    for address in ["198.51.100.1", "198.51.100.2"] {
        world.ip(
            "node",
            &format!("route add {address}/32 via 10.87.0.2 dev to-remote src 10.87.0.1"),
        );
    }
    world
}

/// Who answers there, in many attempts, and which sources they see.
fn who(world: &World, from: &str, target: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    world.run(from, || {
        (0..30)
            .map(|_| tcp(target).unwrap_or_else(|e| panic!("{from} to {target}: {e}")))
            .unzip()
    })
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Nobody answers, and nobody says so.
fn is_dropped(world: &World, from: &str, target: &str) {
    let error = world.run(from, || {
        let target = target.parse().unwrap();
        std::net::TcpStream::connect_timeout(&target, Duration::from_millis(700)).unwrap_err()
    });
    assert!(
        matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock),
        "{from} to {target}: {error}"
    );
}

#[test]
fn external_traffic_stays_local_and_keeps_its_source() {
    let world = world();
    let mut proxy = Proxy::on(&world);
    proxy.service(service(json!({"externalTrafficPolicy": "Local"})));
    proxy.endpoints(everyone());
    let here = set(&["pod-a", "pod-b"]);
    for target in [EXTERNAL_IP, BALANCER_IP, NODE_PORT] {
        let (who, sources) = who(&world, "client", target);
        assert_eq!(who, here, "{target}");
        assert_eq!(sources, set(&["192.0.2.2"]), "{target}");
    }
    // The cluster IP is for internal traffic, which has no such policy.
    assert_eq!(who(&world, "client", CLUSTER_IP).0.len(), 3);
    // The node and its Pods reach all endpoints, as if through the cluster IP.
    for target in [EXTERNAL_IP, BALANCER_IP] {
        for from in ["node", "pod-a"] {
            assert_eq!(who(&world, from, target).0.len(), 3, "{from} to {target}");
        }
        assert_eq!(
            who(&world, "pod-b", target).1,
            set(&["10.244.0.3", "10.244.0.1"]),
            "its own address, but to itself"
        );
    }
    assert_eq!(who(&world, "node", NODE_PORT).0.len(), 3);
}

#[test]
fn external_traffic_without_a_local_endpoint_is_dropped_and_inside_it_is_served() {
    let world = world();
    let mut proxy = Proxy::on(&world);
    proxy.service(service(json!({"externalTrafficPolicy": "Local"})));
    proxy.endpoints(json!(on(2, &["10.244.1.2"])));
    for target in [EXTERNAL_IP, NODE_PORT] {
        is_dropped(&world, "client", target);
    }
    for from in ["node", "pod-a"] {
        for target in [EXTERNAL_IP, NODE_PORT] {
            assert_eq!(who(&world, from, target).0, set(&["remote"]));
        }
    }
    // With no endpoint at all, everybody is told.
    proxy.endpoints(json!([]));
    for from in ["client", "node", "pod-a"] {
        for target in [EXTERNAL_IP, NODE_PORT, CLUSTER_IP] {
            let error = world.run(from, || tcp(target)).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::ConnectionRefused,
                "{from} to {target}"
            );
        }
    }
}

#[test]
fn internal_traffic_stays_local_or_is_dropped() {
    let world = world();
    let mut proxy = Proxy::on(&world);
    proxy.service(service(json!({"internalTrafficPolicy": "Local"})));
    proxy.endpoints(everyone());
    for from in ["node", "pod-a"] {
        assert_eq!(who(&world, from, CLUSTER_IP).0, set(&["pod-a", "pod-b"]));
    }
    assert_eq!(who(&world, "client", NODE_PORT).0.len(), 3);
    proxy.endpoints(json!(on(2, &["10.244.1.2"])));
    is_dropped(&world, "pod-a", CLUSTER_IP);
    assert_eq!(who(&world, "client", NODE_PORT).0, set(&["remote"]));
}

#[test]
fn a_client_comes_back_to_the_same_endpoint_until_it_goes() {
    let world = world();
    let mut proxy = Proxy::on(&world);
    let sticky = |seconds: u32| {
        let config = json!({"clientIP": {"timeoutSeconds": seconds}});
        service(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}))
    };
    proxy.service(sticky(600));
    proxy.endpoints(everyone());
    let only = |from: &str, target: &str| {
        let (answered, _) = who(&world, from, target);
        assert_eq!(answered.len(), 1, "{from} to {target}: {answered:?}");
        answered.into_iter().next().unwrap()
    };
    let mut first = String::new();
    for target in [CLUSTER_IP, EXTERNAL_IP, BALANCER_IP, NODE_PORT] {
        for from in ["client", "node"] {
            first = only(from, target);
        }
    }
    for from in ["pod-a", "pod-b"] {
        only(from, CLUSTER_IP);
    }
    // The endpoint goes, and takes the memory of its clients along; others are not disturbed.
    let before: Vec<String> = ["client", "node", "pod-a"]
        .map(|from| only(from, CLUSTER_IP))
        .to_vec();
    let address = |name: &str| match name {
        "pod-a" => "10.244.0.2",
        "pod-b" => "10.244.0.3",
        _ => "10.244.1.2",
    };
    let rest: Vec<Value> = everyone()
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["addresses"][0] != address(&first))
        .cloned()
        .collect();
    proxy.endpoints(json!(rest));
    for (from, before) in ["client", "node", "pod-a"].iter().zip(before) {
        let now = only(from, CLUSTER_IP);
        if before == first {
            assert_ne!(now, first);
        } else {
            assert_eq!(now, before, "{from}");
        }
    }
    // Memory fades.
    proxy.service(sticky(1));
    proxy.endpoints(everyone());
    wait_until(
        "another endpoint after a second",
        Duration::from_secs(60),
        || {
            let mut answered = BTreeSet::new();
            for _ in 0..2 {
                answered.extend(who(&world, "client", CLUSTER_IP).0);
                let remembered = world.nft(&["list", "map", "ip", "seaway-proxy", "affinity"]);
                if remembered.contains("elements") {
                    std::thread::sleep(Duration::from_millis(1200));
                }
            }
            (answered.len() > 1)
                .then_some(())
                .ok_or(format!("{answered:?}"))
        },
    );
    // Without affinity nothing is remembered, and what was is forgotten.
    proxy.service(service(json!({})));
    assert_eq!(who(&world, "client", CLUSTER_IP).0.len(), 3);
    for map in ["affinity", "node-port-affinity"] {
        let remembered = world.nft(&["list", "map", "ip", "seaway-proxy", map]);
        assert!(!remembered.contains("elements"), "{remembered}");
    }
}

#[test]
fn only_allowed_sources_reach_the_load_balancers_address() {
    let world = world();
    let mut proxy = Proxy::on(&world);
    let from = |ranges: &[&str]| service(json!({"loadBalancerSourceRanges": ranges}));
    proxy.service(from(&["203.0.113.0/24", "192.0.2.0/30"]));
    proxy.endpoints(everyone());
    assert_eq!(who(&world, "client", BALANCER_IP).0.len(), 3);
    is_dropped(&world, "remote", BALANCER_IP);
    // Other addresses of the Service are not restricted.
    for target in [EXTERNAL_IP, CLUSTER_IP] {
        who(&world, "remote", target);
    }
    proxy.service(from(&["203.0.113.0/24", "10.87.0.0/16"]));
    who(&world, "remote", BALANCER_IP);
    is_dropped(&world, "client", BALANCER_IP);
    proxy.service(from(&[]));
    assert_eq!(who(&world, "client", BALANCER_IP).0.len(), 3);
}

#[test]
fn all_policies_together_are_listed_readably_and_go_without_a_trace() {
    let world = world();
    let mut proxy = Proxy::on(&world);
    proxy.service(service(json!({
        "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    })));
    proxy.endpoints(everyone());
    let (answered, sources) = who(&world, "client", BALANCER_IP);
    assert_eq!((answered.len(), sources), (1, set(&["192.0.2.2"])));
    let listed = world.nft(&["list", "table", "ip", "seaway-proxy"]);
    for line in [
        "198.51.100.2 . tcp . 80 comment \"default/web:80\"",
        "198.51.100.2 . tcp . 80 . 192.0.2.0/24",
        "ip daddr . meta l4proto . th dport @frontends-by-policy jump by-policy",
        "ip daddr . meta l4proto . th dport . ip saddr != @allowed-sources drop",
        "update @affinity { ip saddr . ct original ip daddr . meta l4proto . ct original proto-dst timeout 3h : ct \
         reply ip saddr . ct reply proto-src }",
    ] {
        assert!(listed.contains(line), "{line:?} is not in\n{listed}");
    }
    // `nft` takes back what it printed.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &listed).unwrap();
    world.run("node", cleanup).unwrap();
    world.nft(&["-f", file.path().to_str().unwrap()]);
    who(&world, "client", BALANCER_IP);
    world.run("node", cleanup).unwrap();
    assert_eq!(world.nft(&["list", "ruleset"]), "");
}

#[test]
fn datagrams_follow_when_their_endpoint_goes() {
    let world = world();
    let mut proxy = Proxy::on(&world);
    let mut udp_service = service(json!({
        "ports": [{"name": "udp", "port": 53, "nodePort": 30053, "protocol": "UDP"}],
    }));
    proxy.service(udp_service.clone());
    proxy.endpoints(json!(on(1, &["10.244.0.2"])));
    for (from, target) in [
        ("pod-b", "10.96.0.7:53"),
        ("client", "192.0.2.1:30053"),
        ("node", "10.96.0.7:53"),
    ] {
        proxy.endpoints(json!(on(1, &["10.244.0.2"])));
        let socket = world.run(from, || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(target).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            socket
        });
        let ask = || {
            let mut buffer = [0; 100];
            socket.send(b"?").unwrap();
            let length = socket.recv(&mut buffer)?;
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            Ok::<_, std::io::Error>(answer.split(' ').next().unwrap_or_default().to_owned())
        };
        assert_eq!(ask().unwrap(), "pod-a");
        // The same socket, hence the same flow.
        proxy.endpoints(json!(on(2, &["10.244.1.2"])));
        assert_eq!(ask().unwrap(), "remote", "{from} to {target}");
    }
    // A restart finds what went stale while nobody looked.
    assert_eq!(
        world.run("client", || udp("192.0.2.1:30053")).unwrap().0,
        "remote"
    );
    udp_service["spec"]["ports"][0]["nodePort"] = json!(30054);
    let mut restarted = Forwarding::new(IpFamily::V4, &["10.96.0.0/12".parse().unwrap()]);
    let _ = restarted.set_ranges(RangeSet::NodePorts, &["192.0.2.1/32".parse().unwrap()]);
    assert!(
        proxy.applier.forget_stale(&restarted, None).unwrap() >= 1,
        "the flow to the cluster IP has no Service any more"
    );
}

#[test]
fn hints_keep_traffic_in_the_zone() {
    let world = world();
    let mut proxy = Proxy::on(&world);
    proxy.service(service(json!({"trafficDistribution": "PreferSameZone"})));
    let hinted = |hints: [Value; 3]| {
        let mut all = everyone();
        for (one, hints) in all.as_array_mut().unwrap().iter_mut().zip(hints) {
            one["hints"] = hints;
        }
        all
    };
    let zone = |name: &str| json!({"forZones": [{"name": name}]});
    proxy.endpoints(hinted([zone("zone-1"), zone("zone-2"), zone("zone-2")]));
    assert_eq!(who(&world, "pod-b", CLUSTER_IP).0, set(&["pod-a"]));
    proxy.endpoints(hinted([zone("zone-3"), zone("zone-2"), zone("zone-2")]));
    assert_eq!(who(&world, "pod-b", CLUSTER_IP).0.len(), 3);
    let node = |name: &str| json!({"forNodes": [{"name": name}], "forZones": [{"name": "zone-1"}]});
    proxy.endpoints(hinted([node("node-2"), node("node-1"), node("node-2")]));
    assert_eq!(who(&world, "pod-a", CLUSTER_IP).0, set(&["pod-b"]));
}

#[test]
fn node_ports_answer_at_the_nodes_own_addresses_only() {
    let world = world();
    let mut proxy = Proxy::on(&world);
    proxy.service(service(json!({})));
    proxy.endpoints(everyone());
    assert_eq!(who(&world, "client", NODE_PORT).0.len(), 3);
    let error = world.run("client", || tcp("10.87.0.1:30080")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}
