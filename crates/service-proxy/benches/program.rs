//! How long the kernel takes for a cluster's forwarding, and for one change of it, beside what `nft -f` takes for
//! the same in kube-proxy's shape (a chain for each Service port and for each endpoint).
//!
//!     cargo bench -p seaway-service-proxy --bench program [-- SERVICES ENDPOINTS]
//!
//! Needs root and the `nft` program; works in namespaces that it makes.

#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on has failed"
)]

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seaway_kernel::NetNs;
use seaway_service_proxy::{
    Applier, Backend, Compiled, Contents, Forwarding, Frontend, FrontendKey, IpFamily, ObjectName,
    Policy, Protocol,
};

/// How often each small thing is measured; the median counts.
const ROUNDS: usize = 21;

fn main() {
    let numbers: Vec<u32> = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let (services, endpoints) = match numbers.as_slice() {
        [services, endpoints] => (*services, *endpoints),
        // As a test (`cargo test --benches`), it need only work.
        _ if !std::env::args().any(|argument| argument == "--bench") => (50, 3),
        _ => (10_000, 3),
    };
    println!("{services} Services with {endpoints} endpoints each");
    // Each in its own namespace, which takes its rules away with it.
    NetNs::new()
        .unwrap()
        .run(|| flat(services, endpoints))
        .unwrap();
    NetNs::new()
        .unwrap()
        .run(|| chains(services, endpoints))
        .unwrap();
}

fn cluster_ip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + service)
}

fn backend(service: u32, endpoint: u32) -> Backend {
    let address = u32::from(Ipv4Addr::new(10, 244, 0, 1)) + (service * 7 + endpoint) % 60_000;
    Backend::new(IpAddr::V4(address.into()), 8080)
}

fn compiled(service: u32, endpoints: u32, first: u32) -> Compiled {
    let mut backends: Vec<Backend> = (first..first + endpoints)
        .map(|n| backend(service, n))
        .collect();
    backends.sort();
    let key = FrontendKey::Address {
        ip: cluster_ip(service).into(),
        protocol: Protocol::Tcp,
        port: 80,
    };
    let backends: Arc<[Backend]> = backends.into();
    let label = format!("default/service-{service}:http").into();
    Compiled {
        frontends: vec![Frontend {
            key,
            label,
            backends,
            policy: Policy::default(),
        }],
        local: vec![],
    }
}

fn name(service: u32) -> ObjectName {
    ObjectName::new("default", &format!("service-{service}"))
}

fn flat(services: u32, endpoints: u32) {
    let all: Vec<_> = (0..services)
        .map(|n| (name(n), Some(compiled(n, endpoints, 0))))
        .collect();
    let mut forwarding = Forwarding::new(IpFamily::V4, &["10.96.0.0/12".parse().unwrap()]);
    let mut applier = Applier::open(IpFamily::V4).unwrap();
    applier.synchronise(&Contents::default()).unwrap();
    let (planned, delta) = timed(|| forwarding.update(all));
    tell("plan all", planned);
    tell(
        "program all (encode, one transaction)",
        timed(|| applier.apply(&delta).unwrap()).0,
    );
    tell(
        "read back and compare",
        timed(|| applier.synchronise(&forwarding.contents()).unwrap()).0,
    );
    let mut first = 0;
    tell(
        "replace an endpoint",
        median(|| {
            first = 1 - first;
            let delta = forwarding.update([(name(0), Some(compiled(0, endpoints, first)))]);
            applier.apply(&delta).unwrap();
        }),
    );
    let mut count = endpoints;
    tell(
        "scale to a number of endpoints that no other Service has, and back",
        median(|| {
            count = if count == endpoints {
                endpoints + 1
            } else {
                endpoints
            };
            let delta = forwarding.update([(name(0), Some(compiled(0, count, 0)))]);
            applier.apply(&delta).unwrap();
        }),
    );
    let mut there = false;
    tell(
        "add or remove a Service",
        median(|| {
            there = !there;
            let compiled = there.then(|| compiled(services, endpoints, 0));
            let delta = forwarding.update([(name(services), compiled)]);
            applier.apply(&delta).unwrap();
        }),
    );
    let empty = Forwarding::new(IpFamily::V4, &[]);
    tell(
        "take all away, element by element",
        timed(|| applier.synchronise(&empty.contents()).unwrap()).0,
    );
}

/// kube-proxy's layout (1.33 and later): a verdict map, a chain for each Service port that chooses among chains
/// for each endpoint, which masquerade hairpin connections and translate.
fn chains(services: u32, endpoints: u32) {
    let mut text = String::from(
        "table ip kube-proxy {\n map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n chain mark-for-masquerade { meta mark set meta mark or 0x4000; }\n",
    );
    let mut elements = String::new();
    for service in 0..services {
        let ip = cluster_ip(service);
        let mut vmap = String::new();
        for n in 0..endpoints {
            let address = backend(service, n);
            writeln!(text, " chain endpoint-{service}-{n} {{\n  ip saddr {} jump mark-for-masquerade\n  meta l4proto tcp dnat to {address}\n }}", address.ip()).unwrap();
            write!(vmap, "{n} : goto endpoint-{service}-{n}, ").unwrap();
        }
        writeln!(text, " chain service-{service} {{\n  ip daddr {ip} tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade\n  numgen random mod {endpoints} vmap {{ {vmap} }}\n }}").unwrap();
        writeln!(
            elements,
            "add element ip kube-proxy service-ips {{ {ip} . tcp . 80 : goto service-{service} }}"
        )
        .unwrap();
    }
    text += " chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }\n chain nat-prerouting {\n  type nat hook prerouting priority dstnat\n  jump services\n }\n}\n";
    text += &elements;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let (took, status) = timed(|| {
        Command::new("nft")
            .arg("-f")
            .arg(file.path())
            .status()
            .unwrap()
    });
    assert!(status.success());
    tell("`nft -f` of the same in kube-proxy's shape", took);
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let result = work();
    (started.elapsed(), result)
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| timed(&mut work).0).collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn tell(what: &str, took: Duration) {
    println!("{:>12.3} ms  {what}", took.as_secs_f64() * 1000.0);
}
