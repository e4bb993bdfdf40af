//! Every row of "Kubernetes DNS-Based Service Discovery" 1.1.0, and what the RFCs say about names without records.
//! Each case is a question and all of the reply: code, answer, the zone of the SOA, additional records.

use domain::base::Rtype;
use seaway_dns::Config;
use seaway_dns::zone::Zone;

use crate::cluster::{config, table, told};

fn check(config: &Config, cases: &[(&str, Rtype, &str)]) {
    let (zone, table) = (Zone::new(config).unwrap(), table());
    for (name, rtype, expected) in cases {
        assert_eq!(
            told(&zone, &table, name, *rtype),
            *expected,
            "{name} {rtype}"
        );
    }
}

const NO_SUCH_NAME: &str = "NXDOMAIN soa cluster.local";
const NO_SUCH_RECORD: &str = "NOERROR soa cluster.local";

#[test]
fn a_service_with_an_address() {
    let srv = |port: u16, weight: u16| format!("SRV 0 {weight} {port} cart.shop.svc.cluster.local");
    let host = "+ cart.shop.svc.cluster.local A 10.96.7.1";
    check(
        &config(),
        &[
            (
                "cart.shop.svc.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.96.7.1",
            ),
            ("cart.shop.svc.cluster.local.", Rtype::AAAA, NO_SUCH_RECORD),
            ("cart.shop.svc.cluster.local.", Rtype::TXT, NO_SUCH_RECORD),
            ("cart.shop.svc.cluster.local.", Rtype::CNAME, NO_SUCH_RECORD),
            (
                "both.shop.svc.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.96.7.3",
            ),
            (
                "both.shop.svc.cluster.local.",
                Rtype::AAAA,
                "NOERROR | AAAA fd00:96::3",
            ),
            (
                "_http._tcp.cart.shop.svc.cluster.local.",
                Rtype::SRV,
                &format!("NOERROR | {} {host}", srv(80, 100)),
            ),
            (
                "_stats._udp.cart.shop.svc.cluster.local.",
                Rtype::SRV,
                &format!("NOERROR | {} {host}", srv(8125, 100)),
            ),
            (
                "_stats._tcp.cart.shop.svc.cluster.local.",
                Rtype::SRV,
                NO_SUCH_NAME,
            ),
            (
                "_none._tcp.cart.shop.svc.cluster.local.",
                Rtype::SRV,
                NO_SUCH_NAME,
            ),
            (
                "_http.cart.shop.svc.cluster.local.",
                Rtype::SRV,
                NO_SUCH_NAME,
            ),
            // As CoreDNS has it, beyond the specification: all ports at the Service's own name, nameless ones too,
            // addresses at the names of ports, endpoints of a Service with an address.
            (
                "cart.shop.svc.cluster.local.",
                Rtype::SRV,
                &format!(
                    "NOERROR | {} | {} | {} {host}",
                    srv(80, 33),
                    srv(9000, 33),
                    srv(8125, 33)
                )
                .replace("+ cart.shop.svc.cluster.local ", "+ "),
            ),
            (
                "nameless.shop.svc.cluster.local.",
                Rtype::SRV,
                "NOERROR | SRV 0 100 443 nameless.shop.svc.cluster.local + A 10.96.7.2",
            ),
            (
                "_http._tcp.cart.shop.svc.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.96.7.1",
            ),
            (
                "10-244-0-5.cart.shop.svc.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.244.0.5",
            ),
        ],
    );
}

#[test]
fn a_headless_service() {
    check(
        &config(),
        &[
            (
                "queue.infra.svc.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.244.1.1 | A 10.244.2.1",
            ),
            (
                "queue.infra.svc.cluster.local.",
                Rtype::AAAA,
                "NOERROR | AAAA fd00:244::1",
            ),
            (
                "queue-0.queue.infra.svc.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.244.1.1",
            ),
            (
                "queue-0.queue.infra.svc.cluster.local.",
                Rtype::AAAA,
                "NOERROR | AAAA fd00:244::1",
            ),
            (
                "queue-0.queue.infra.svc.cluster.local.",
                Rtype::SRV,
                "NOERROR | SRV 0 100 5672 queue-0.queue.infra.svc.cluster.local + A 10.244.1.1 + AAAA fd00:244::1",
            ),
            (
                "_amqp._tcp.queue.infra.svc.cluster.local.",
                Rtype::SRV,
                "NOERROR | SRV 0 50 5672 10-244-2-1.queue.infra.svc.cluster.local \
                 | SRV 0 50 5672 queue-0.queue.infra.svc.cluster.local \
                 + 10-244-2-1.queue.infra.svc.cluster.local A 10.244.2.1 \
                 + queue-0.queue.infra.svc.cluster.local A 10.244.1.1 \
                 + queue-0.queue.infra.svc.cluster.local AAAA fd00:244::1",
            ),
            (
                "10-244-2-1.queue.infra.svc.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.244.2.1",
            ),
            // It has a name, so its address is not one; it is not ready, so it has no records.
            (
                "10-244-1-1.queue.infra.svc.cluster.local.",
                Rtype::A,
                NO_SUCH_NAME,
            ),
            (
                "queue-2.queue.infra.svc.cluster.local.",
                Rtype::A,
                NO_SUCH_NAME,
            ),
            (
                "early.infra.svc.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.244.1.2",
            ),
            (
                "early-0.early.infra.svc.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.244.1.2",
            ),
            ("idle.infra.svc.cluster.local.", Rtype::A, NO_SUCH_NAME),
            (
                "_p._tcp.idle.infra.svc.cluster.local.",
                Rtype::SRV,
                NO_SUCH_NAME,
            ),
        ],
    );
}

#[test]
fn a_service_that_is_another_name() {
    check(
        &config(),
        &[
            (
                "away.infra.svc.cluster.local.",
                Rtype::CNAME,
                "NOERROR | CNAME db.example.org.",
            ),
            (
                "here.infra.svc.cluster.local.",
                Rtype::CNAME,
                "NOERROR | CNAME cart.shop.svc.cluster.local.",
            ),
            // Resolved along where it can be; where it cannot, the alias by itself is the answer.
            (
                "away.infra.svc.cluster.local.",
                Rtype::A,
                "NOERROR | CNAME db.example.org.",
            ),
            (
                "here.infra.svc.cluster.local.",
                Rtype::A,
                "NOERROR | CNAME cart.shop.svc.cluster.local. | cart.shop.svc.cluster.local A 10.96.7.1",
            ),
            (
                "twice.infra.svc.cluster.local.",
                Rtype::A,
                "NOERROR | CNAME here.infra.svc.cluster.local. \
                 | here.infra.svc.cluster.local CNAME cart.shop.svc.cluster.local. \
                 | cart.shop.svc.cluster.local A 10.96.7.1",
            ),
            // The code is that of the last name (RFC 6604 §3).
            (
                "here.infra.svc.cluster.local.",
                Rtype::AAAA,
                "NOERROR | CNAME cart.shop.svc.cluster.local. soa cluster.local",
            ),
            (
                "nowhere.infra.svc.cluster.local.",
                Rtype::A,
                "NXDOMAIN | CNAME none.shop.svc.cluster.local. soa cluster.local",
            ),
            ("x.away.infra.svc.cluster.local.", Rtype::A, NO_SUCH_NAME),
            ("ring-a.infra.svc.cluster.local.", Rtype::A, "SERVFAIL"),
            (
                "ring-a.infra.svc.cluster.local.",
                Rtype::CNAME,
                "NOERROR | CNAME ring-b.infra.svc.cluster.local.",
            ),
        ],
    );
}

#[test]
fn pods_by_their_address() {
    check(
        &config(),
        &[
            (
                "10-244-9-9.shop.pod.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.244.9.9",
            ),
            (
                "10-244-9-9.shop.pod.cluster.local.",
                Rtype::AAAA,
                NO_SUCH_RECORD,
            ),
            (
                "fd00-244--1.shop.pod.cluster.local.",
                Rtype::AAAA,
                "NOERROR | AAAA fd00:244::1",
            ),
            ("10-244-9.shop.pod.cluster.local.", Rtype::A, NO_SUCH_NAME),
            ("10-244-9-9.none.pod.cluster.local.", Rtype::A, NO_SUCH_NAME),
            (
                "x.10-244-9-9.shop.pod.cluster.local.",
                Rtype::A,
                NO_SUCH_NAME,
            ),
        ],
    );
}

#[test]
fn addresses_in_reverse() {
    check(
        &config(),
        &[
            (
                "1.7.96.10.in-addr.arpa.",
                Rtype::PTR,
                "NOERROR | PTR cart.shop.svc.cluster.local.",
            ),
            (
                "1.7.96.10.in-addr.arpa.",
                Rtype::A,
                "NOERROR soa in-addr.arpa",
            ),
            (
                "1.1.244.10.in-addr.arpa.",
                Rtype::PTR,
                "NOERROR | PTR queue-0.queue.infra.svc.cluster.local.",
            ),
            (
                "1.2.244.10.in-addr.arpa.",
                Rtype::PTR,
                "NOERROR | PTR 10-244-2-1.queue.infra.svc.cluster.local.",
            ),
            (
                "1.3.244.10.in-addr.arpa.",
                Rtype::PTR,
                "NXDOMAIN soa in-addr.arpa",
            ),
            (
                "9.7.96.10.in-addr.arpa.",
                Rtype::PTR,
                "NXDOMAIN soa in-addr.arpa",
            ),
            (
                "7.96.10.in-addr.arpa.",
                Rtype::PTR,
                "NOERROR soa in-addr.arpa",
            ),
            ("10.in-addr.arpa.", Rtype::PTR, "NOERROR soa in-addr.arpa"),
            ("x.7.96.10.in-addr.arpa.", Rtype::PTR, "NXDOMAIN soa ."),
            (
                "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.",
                Rtype::PTR,
                "NOERROR | PTR both.shop.svc.cluster.local.",
            ),
            (
                "6.9.0.0.0.0.d.f.ip6.arpa.",
                Rtype::PTR,
                "NOERROR soa ip6.arpa",
            ),
        ],
    );
}

#[test]
fn the_zone_itself() {
    let soa = "SOA ns.dns.cluster.local. hostmaster.cluster.local. 0 7200 1800 86400 5";
    check(
        &config(),
        &[
            (
                "dns-version.cluster.local.",
                Rtype::TXT,
                "NOERROR | TXT \"1.1.0\"",
            ),
            ("dns-version.cluster.local.", Rtype::A, NO_SUCH_RECORD),
            ("cluster.local.", Rtype::SOA, &format!("NOERROR | {soa}")),
            (
                "cluster.local.",
                Rtype::NS,
                "NOERROR | NS ns.dns.cluster.local.",
            ),
            ("cluster.local.", Rtype::A, "NOERROR soa cluster.local."),
            ("ns.dns.cluster.local.", Rtype::A, "NOERROR | A 10.96.0.10"),
            ("ns.dns.cluster.local.", Rtype::AAAA, NO_SUCH_RECORD),
        ],
    );
}

/// A name that exists because others are below it is not NXDOMAIN: a resolver that is told so may take everything
/// below for absent too (RFC 8020 §2). CoreDNS says NXDOMAIN for `_tcp.<service>`; the RFC wins.
#[test]
fn names_that_exist_only_because_others_are_below_them() {
    let empty = [
        "svc",
        "pod",
        "dns",
        "shop.svc",
        "bare.svc",
        "shop.pod",
        "_tcp.cart.shop.svc",
        "_udp.cart.shop.svc",
        "_tcp.queue.infra.svc",
    ];
    let missing = [
        "none",
        "none.svc",
        "none.pod",
        "x.dns",
        "x.ns.dns",
        "x.dns-version",
        "*.shop.svc",
        "cart.infra.svc",
        "_sctp.cart.shop.svc",
        "_tcp.nameless.shop.svc",
        "a.b.cart.shop.svc",
        "a._http._tcp.cart.shop.svc",
        "_tcp.idle.infra.svc",
    ];
    let (zone, table) = (Zone::new(&config()).unwrap(), table());
    let all = empty
        .map(|name| (name, NO_SUCH_RECORD))
        .into_iter()
        .chain(missing.map(|name| (name, NO_SUCH_NAME)));
    for (name, expected) in all {
        for rtype in [Rtype::A, Rtype::SRV, Rtype::ANY] {
            assert_eq!(
                told(&zone, &table, &format!("{name}.cluster.local."), rtype),
                expected,
                "{name} {rtype}"
            );
        }
    }
}

#[test]
fn the_form_of_kubernetes_first_years_means_the_same_if_wanted() {
    let wanted = config();
    check(
        &wanted,
        &[
            (
                "cart.shop.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.96.7.1",
            ),
            (
                "queue-0.queue.infra.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.244.1.1",
            ),
            ("shop.cluster.local.", Rtype::A, NO_SUCH_RECORD),
            ("none.shop.cluster.local.", Rtype::A, NO_SUCH_NAME),
            ("none.cluster.local.", Rtype::A, NO_SUCH_NAME),
        ],
    );
    let unwanted = Config {
        old_form: false,
        ..config()
    };
    check(
        &unwanted,
        &[
            ("cart.shop.cluster.local.", Rtype::A, NO_SUCH_NAME),
            ("shop.cluster.local.", Rtype::A, NO_SUCH_NAME),
            (
                "cart.shop.svc.cluster.local.",
                Rtype::A,
                "NOERROR | A 10.96.7.1",
            ),
        ],
    );
}

#[test]
fn without_upstreams_there_is_nothing_outside() {
    check(
        &config(),
        &[
            ("example.com.", Rtype::A, "NXDOMAIN soa ."),
            ("local.", Rtype::A, "NXDOMAIN soa ."),
            ("mycluster.local.", Rtype::A, "NXDOMAIN soa ."),
            (
                "cart.shop.svc.cluster.local.example.com.",
                Rtype::A,
                "NXDOMAIN soa .",
            ),
            ("1.1.1.1.in-addr.arpa.", Rtype::PTR, "NXDOMAIN soa ."),
        ],
    );
}

#[test]
fn another_domain_is_as_good() {
    let config = Config {
        cluster_domain: "Prod.Example.Org".to_owned(),
        ..config()
    };
    check(
        &config,
        &[
            (
                "cart.shop.svc.prod.example.org.",
                Rtype::A,
                "NOERROR | A 10.96.7.1",
            ),
            (
                "1.7.96.10.in-addr.arpa.",
                Rtype::PTR,
                "NOERROR | PTR cart.shop.svc.prod.example.org.",
            ),
            ("cart.shop.svc.cluster.local.", Rtype::A, "NXDOMAIN soa ."),
        ],
    );
}
