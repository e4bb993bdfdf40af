//! The forwarding with real packets: a node with Pods behind it, a Pod elsewhere, and a client outside, all in
//! namespaces without a way out.
//!
//! ```text
//! client 192.0.2.2 ── 192.0.2.1 node 10.87.0.1 ── 10.87.0.2 remote (Pod 10.244.1.2)
//!                               │ 10.244.0.1
//!                pod-a 10.244.0.2, pod-b 10.244.0.3
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use seaway_service_proxy::{
    Applier, Backend, Compiled, Forwarding, Frontend, FrontendKey, IpFamily, ObjectName, Outcome,
    Policy, Protocol, RangeSet, cleanup,
};
use world::{World, tcp, tcp_open, udp};

const SERVICE: &str = "10.96.0.7";
const PODS: [&str; 3] = ["10.244.0.2:8080", "10.244.0.3:8080", "10.244.1.2:8080"];

/// The frontends of a Service on port 80 and node port 30080, TCP and UDP.
fn service(address: &str, node_port: Option<u16>, backends: &[&str]) -> Compiled {
    let backends: Arc<[Backend]> = backends
        .iter()
        .map(|backend| backend.parse().unwrap())
        .collect();
    let mut frontends = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let frontend = |key| Frontend {
            key,
            label: "default/web:http".into(),
            backends: backends.clone(),
            policy: Policy::default(),
        };
        frontends.push(frontend(FrontendKey::Address {
            ip: address.parse().unwrap(),
            protocol,
            port: 80,
        }));
        frontends.extend(node_port.map(|port| frontend(FrontendKey::NodePort { protocol, port })));
    }
    frontends.sort_by_key(|frontend| frontend.key);
    let here = |backend: &&Backend| backend.ip().to_string().starts_with("10.244.0.");
    Compiled {
        frontends,
        local: backends.iter().filter(here).map(SocketAddr::ip).collect(),
    }
}

/// A proxy on the node, driven by hand.
struct Proxy {
    forwarding: Forwarding,
    applier: Applier,
}

impl Proxy {
    fn on(world: &World) -> Self {
        let mut forwarding = Forwarding::new(IpFamily::V4, &["10.96.0.0/12".parse().unwrap()]);
        let _ = forwarding.set_ranges(RangeSet::Pods, &["10.244.0.0/24".parse().unwrap()]);
        let own = [
            "192.0.2.1/32",
            "10.87.0.1/32",
            "10.244.0.1/32",
            "127.0.0.0/8",
        ];
        let _ = forwarding.set_ranges(RangeSet::NodePorts, &own.map(|ip| ip.parse().unwrap()));
        let mut applier = world.run("node", || Applier::open(IpFamily::V4)).unwrap();
        assert_eq!(
            applier.synchronise(&forwarding.contents()).unwrap(),
            Outcome::Replaced
        );
        Self {
            forwarding,
            applier,
        }
    }

    fn set(&mut self, name: &str, compiled: Option<Compiled>) {
        let delta = self
            .forwarding
            .update([(ObjectName::new("default", name), compiled)]);
        self.applier.apply(&delta).unwrap();
        assert_eq!(
            self.applier.read().unwrap().unwrap(),
            self.forwarding.contents(),
            "what the kernel holds"
        );
    }
}

/// A world with servers in all Pods and a Service of these backends.
fn serving(backends: &[&str]) -> (World, Proxy) {
    let world = World::new();
    world.serve_all();
    let mut proxy = Proxy::on(&world);
    proxy.set("web", Some(service(SERVICE, Some(30080), backends)));
    (world, proxy)
}

#[test]
fn a_pod_reaches_a_service_and_keeps_its_address() {
    let (world, _proxy) = serving(&PODS[1..]);
    for ask in [tcp, udp] {
        for _ in 0..20 {
            let (who, source) = world.run("pod-a", || ask("10.96.0.7:80")).unwrap();
            assert!(who == "pod-b" || who == "remote", "{who}");
            assert_eq!(source, "10.244.0.2");
        }
    }
}

#[test]
fn the_node_itself_reaches_a_service() {
    let (world, _proxy) = serving(&PODS);
    for ask in [tcp, udp] {
        for target in ["10.96.0.7:80", "192.0.2.1:30080", "10.87.0.1:30080"] {
            world.run("node", || ask(target)).unwrap();
        }
    }
}

#[test]
fn an_outside_client_reaches_the_node_port_and_the_service_with_the_node_s_address() {
    let (world, _proxy) = serving(&PODS);
    for ask in [tcp, udp] {
        for target in ["192.0.2.1:30080", "10.87.0.1:30080", "10.96.0.7:80"] {
            for _ in 0..10 {
                let (who, source) = world.run("client", || ask(target)).unwrap();
                let node = if who == "remote" {
                    "10.87.0.1"
                } else {
                    "10.244.0.1"
                };
                assert_eq!(source, node, "{who} through {target}");
            }
        }
    }
}

#[test]
fn a_remote_pod_reaches_the_node_port_through_this_node() {
    let (world, _proxy) = serving(&PODS[..2]);
    for ask in [tcp, udp] {
        let (_, source) = world.run("remote", || ask("10.87.0.1:30080")).unwrap();
        assert_eq!(source, "10.244.0.1", "the answer must come back this way");
    }
}

#[test]
fn the_loopback_address_has_no_node_ports() {
    let (world, _proxy) = serving(&PODS);
    let refused = world.run("node", || tcp("127.0.0.1:30080")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn connections_spread_evenly_over_the_endpoints() {
    let (world, _proxy) = serving(&PODS);
    for target in ["10.96.0.7:80", "192.0.2.1:30080"] {
        let mut counts = BTreeMap::new();
        world.run("client", || {
            for _ in 0..3000 {
                *counts.entry(udp(target).unwrap().0).or_insert(0u32) += 1;
            }
        });
        assert_eq!(counts.len(), 3, "{counts:?}");
        for (who, count) in counts {
            // Five points in a hundred are almost six standard deviations.
            assert!(
                (850..=1150).contains(&count),
                "{who} got {count} of 3000 through {target}"
            );
        }
    }
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let (world, _proxy) = serving(&PODS[..1]);
    for ask in [tcp, udp] {
        let answer = world.run("pod-a", || ask("10.96.0.7:80")).unwrap();
        assert_eq!(answer, ("pod-a".to_owned(), "10.244.0.1".to_owned()));
        let answer = world.run("pod-a", || ask("10.244.0.1:30080")).unwrap();
        assert_eq!(answer, ("pod-a".to_owned(), "10.244.0.1".to_owned()));
    }
}

#[test]
fn without_endpoints_a_service_refuses_at_once() {
    let (world, _proxy) = serving(&[]);
    for from in ["pod-a", "node", "client", "remote"] {
        for ask in [tcp, udp] {
            for target in ["10.96.0.7:80", "10.87.0.1:30080"] {
                let refused = world.run(from, || ask(target)).unwrap_err();
                assert_eq!(
                    refused.kind(),
                    ErrorKind::ConnectionRefused,
                    "{from} to {target}: {refused}"
                );
            }
        }
    }
}

#[test]
fn an_address_that_no_service_has_is_refused() {
    let (world, _proxy) = serving(&PODS);
    for from in ["pod-a", "node", "client"] {
        for ask in [tcp, udp] {
            for target in ["10.96.0.8:80", "10.96.0.7:81"] {
                let refused = world.run(from, || ask(target)).unwrap_err();
                assert_eq!(
                    refused.kind(),
                    ErrorKind::ConnectionRefused,
                    "{from} to {target}: {refused}"
                );
            }
        }
    }
}

#[test]
fn a_listener_of_the_node_on_a_service_address_is_left_alone() {
    let (world, mut proxy) = serving(&PODS);
    world.ip("node", "addr add 10.96.0.10/32 dev lo");
    world.serve("node", "10.96.0.10:80", "dns");
    for endpoints_known in [false, true] {
        if endpoints_known {
            // The cluster's DNS Service has the address too, and no endpoints.
            proxy.set("dns", Some(service("10.96.0.10", None, &[])));
        }
        for from in ["pod-a", "node", "client"] {
            for ask in [tcp, udp] {
                assert_eq!(
                    world.run(from, || ask("10.96.0.10:80")).unwrap().0,
                    "dns",
                    "{from}"
                );
            }
        }
    }
}

#[test]
fn a_change_of_endpoints_is_followed_and_leaves_connections_alone() {
    let (world, mut proxy) = serving(&PODS[..1]);
    let mut open = world.run("client", || tcp_open("10.96.0.7:80")).unwrap();
    assert_eq!(open.ask().unwrap(), "pod-a");
    proxy.set("web", Some(service(SERVICE, Some(30080), &PODS[2..])));
    assert_eq!(
        world.run("client", || tcp("10.96.0.7:80")).unwrap().0,
        "remote"
    );
    assert_eq!(open.ask().unwrap(), "pod-a");
    proxy.set("web", None);
    assert_eq!(
        world
            .run("client", || tcp("10.96.0.7:80"))
            .unwrap_err()
            .kind(),
        ErrorKind::ConnectionRefused
    );
    assert_eq!(open.ask().unwrap(), "pod-a");
    assert_eq!(
        proxy
            .applier
            .synchronise(&proxy.forwarding.contents())
            .unwrap(),
        Outcome::Same
    );
}

#[test]
fn no_connection_fails_while_the_endpoints_change() {
    let (world, mut proxy) = serving(&PODS);
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            world.run("pod-b", || {
                while !stop.load(Ordering::Relaxed) {
                    tcp("10.96.0.7:80").unwrap();
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        let mut round = 0;
        // Bounded, whatever the machine is busy with.
        while !client.is_finished()
            && round < 20_000
            && (round < 300 || asked.load(Ordering::Relaxed) < 500)
        {
            let backends: &[&str] = [&PODS[..], &PODS[..2], &PODS[2..], &PODS[1..]][round % 4];
            proxy.set("web", Some(service(SERVICE, Some(30080), backends)));
            round += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) >= 500);
}

#[test]
fn after_a_restart_only_the_difference_is_repaired() {
    let (world, mut proxy) = serving(&PODS);
    let other = "add table ip other; add chain ip other c; add rule ip other c counter drop";
    world.nft(&[other]);
    let others = world.nft(&["list", "table", "ip", "other"]);
    let contents = proxy.forwarding.contents();
    let restart = || {
        let mut applier = world.run("node", || Applier::open(IpFamily::V4)).unwrap();
        let outcome = applier.synchronise(&contents).unwrap();
        assert_eq!(applier.read().unwrap().unwrap(), contents);
        assert!(!applier.is_disturbed().unwrap());
        outcome
    };
    assert_eq!(restart(), Outcome::Same);
    // One element away, one foreign element there.
    world.nft(&["delete element ip seaway-proxy backends { 10.96.0.7 . tcp . 80 . 1 }"]);
    world.nft(&["add element ip seaway-proxy hairpin { 10.244.0.99 . 10.244.0.99 }"]);
    assert!(proxy.applier.is_disturbed().unwrap());
    assert_eq!(restart(), Outcome::Repaired(2));
    // A changed chain, a lost one, an additional one: the table is made anew.
    for damage in [
        "add rule ip seaway-proxy refuse drop",
        "flush chain ip seaway-proxy services",
        "add chain ip seaway-proxy mine",
        "delete element ip seaway-proxy frontends-3 { 10.96.0.7 . tcp . 80 }",
        "delete table ip seaway-proxy",
    ] {
        world.nft(&[damage]);
        assert_eq!(restart(), Outcome::Replaced, "{damage}");
        world.run("pod-a", || tcp("10.96.0.7:80")).unwrap();
    }
    assert_eq!(world.nft(&["list", "table", "ip", "other"]), others);
}

#[test]
fn ranges_and_services_can_change_and_all_is_gone_after_cleanup() {
    let (world, mut proxy) = serving(&PODS[1..2]);
    let before = world.run("pod-a", || tcp("10.96.0.7:80")).unwrap();
    assert_eq!(before.1, "10.244.0.2");
    let delta = proxy
        .forwarding
        .set_ranges(RangeSet::Pods, &["10.244.7.0/24".parse().unwrap()]);
    proxy.applier.apply(&delta).unwrap();
    let after = world.run("pod-a", || tcp("10.96.0.7:80")).unwrap();
    assert_eq!(after.1, "10.244.0.1", "it is a stranger's address now");
    world.nft(&["add table ip other"]);
    world.run("node", cleanup).unwrap();
    assert_eq!(
        world.nft(&["list", "ruleset"]).trim(),
        "table ip other {\n}"
    );
    // A second time there is nothing to do.
    world.run("node", cleanup).unwrap();
    assert!(matches!(proxy.applier.read(), Ok(None)));
}

#[test]
fn nft_lists_the_table_readably() {
    let (world, mut proxy) = serving(&PODS);
    proxy.set("empty", Some(service("10.96.0.9", None, &[])));
    let listed = world.nft(&["list", "table", "ip", "seaway-proxy"]);
    let pods: Vec<IpAddr> = PODS
        .iter()
        .map(|pod| pod.parse::<SocketAddr>().unwrap().ip())
        .collect();
    let mut expected = [
        "ip daddr . meta l4proto . th dport @frontends jump pick",
        "ip daddr . meta l4proto . th dport @frontends-3 dnat ip to ip daddr . meta l4proto . th dport . numgen \
         random mod 3 map @backends",
        "meta l4proto . th dport @node-ports-3 dnat ip to meta l4proto . th dport . numgen random mod 3 map \
         @node-port-backends",
        "10.96.0.7 . tcp . 80 comment \"default/web:http\"",
        "10.96.0.9 . udp . 80 comment \"default/web:http\"",
        "tcp . 30080 comment \"default/web:http\"",
        "ip saddr . ip daddr @hairpin masquerade fully-random",
        "ip daddr @service-ranges fib daddr type != local goto refuse",
        "elements = { 10.96.0.0/12 }",
    ]
    .map(str::to_owned)
    .to_vec();
    expected.extend((0..3).map(|n| format!("10.96.0.7 . tcp . 80 . {n} : {} . 8080", pods[n])));
    for line in expected {
        assert!(listed.contains(&line), "{line:?} is not in\n{listed}");
    }
    assert!(
        !listed.contains("mark"),
        "marks belong to others:\n{listed}"
    );
    // `nft` takes back what it printed, and makes the same of it.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &listed).unwrap();
    let path = file.path().to_str().unwrap();
    world.run("node", cleanup).unwrap();
    world.nft(&["--check", "-f", path]);
    world.nft(&["-f", path]);
    assert_eq!(world.nft(&["list", "table", "ip", "seaway-proxy"]), listed);
    for ask in [tcp, udp] {
        world.run("client", || ask("10.96.0.7:80")).unwrap();
        world.run("client", || ask("192.0.2.1:30080")).unwrap();
    }
}

#[test]
fn the_ipv6_table_is_taken_by_the_kernel_and_by_nft() {
    let world = World::new();
    let mut forwarding = Forwarding::new(IpFamily::V6, &["fd00:96::/112".parse().unwrap()]);
    let _ = forwarding.set_ranges(RangeSet::Pods, &["fd00:244::/64".parse().unwrap()]);
    let _ = forwarding.set_ranges(RangeSet::NodePorts, &["fd00:87::/64".parse().unwrap()]);
    let mut applier = world.run("node", || Applier::open(IpFamily::V6)).unwrap();
    applier.synchronise(&forwarding.contents()).unwrap();
    for backends in [
        &["[fd00:244::2]:8080", "[fd00:244::3]:8080"][..],
        &["[fd00:244::3]:8080"],
        &[],
    ] {
        let compiled = service("fd00:96::7", Some(30080), backends);
        let delta = forwarding.update([(ObjectName::new("default", "web"), Some(compiled))]);
        applier.apply(&delta).unwrap();
        assert_eq!(applier.read().unwrap().unwrap(), forwarding.contents());
        assert_eq!(
            applier.synchronise(&forwarding.contents()).unwrap(),
            Outcome::Same
        );
        let listed = world.nft(&["list", "table", "ip6", "seaway-proxy"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            format!("delete table ip6 seaway-proxy\n{listed}"),
        )
        .unwrap();
        world.nft(&["-f", file.path().to_str().unwrap()]);
        assert_eq!(world.nft(&["list", "table", "ip6", "seaway-proxy"]), listed);
        // `nft` 1.0.6 turns the byte order of a protocol of one byte in the rule with `allowed-sources`: so the
        // table is not quite what it was, and is made anew.
        let outcome = applier.synchronise(&forwarding.contents()).unwrap();
        assert_eq!(outcome, Outcome::Replaced);
    }
    world.run("node", cleanup).unwrap();
    assert_eq!(world.nft(&["list", "ruleset"]), "");
}
