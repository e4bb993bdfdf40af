//! The server on real sockets of the loopback interface, asked with `dig` and with bytes of our own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::message_builder::MessageBuilder;
use domain::base::{Message, Rtype};
use domain::rdata::{A, Txt};
use futures::channel::mpsc::{self, UnboundedSender};
use kube::runtime::watcher::Event;
use seaway_dns::controller::{Seen, publish_all};
use seaway_dns::{Config, Error, Server};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, config, listed, query};

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server with a runtime of its own, fed by hand. It stops when dropped.
struct Running {
    address: SocketAddr,
    feed: UnboundedSender<Seen>,
    readiness: watch::Receiver<bool>,
    runtime: Option<Runtime>,
    shutdown: CancellationToken,
}

impl Running {
    /// Serves what the feed will bring.
    fn empty(config: Config) -> Self {
        let runtime = Runtime::new().unwrap();
        let (server, events, feed, shutdown) = {
            let _inside = runtime.enter();
            let (feed, events) = mpsc::unbounded();
            (
                Server::bind(config).unwrap(),
                events,
                feed,
                CancellationToken::new(),
            )
        };
        let (address, readiness) = (server.addresses()[0], server.readiness());
        runtime.spawn(publish_all(events, server.publisher()));
        runtime.spawn(server.serve(shutdown.clone()));
        Running {
            address,
            feed,
            readiness,
            runtime: Some(runtime),
            shutdown,
        }
    }

    /// Serves the cluster of the tests.
    fn ready(config: Config) -> Self {
        let mut running = Running::empty(config);
        listed()
            .into_iter()
            .for_each(|seen| running.feed.unbounded_send(seen).unwrap());
        running.wait_until_ready();
        running
    }

    fn wait_until_ready(&mut self) {
        let runtime = self.runtime.as_ref().unwrap();
        let waiting = self.readiness.wait_for(|ready| *ready);
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, waiting)
                .await
                .unwrap()
                .unwrap()
        });
    }

    fn ask_udp(&self, query: &[u8]) -> Message<Vec<u8>> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(query, self.address).unwrap();
        let mut reply = vec![0; 65535];
        let length = socket.recv(&mut reply).expect("a reply comes");
        reply.truncate(length);
        Message::from_octets(reply).unwrap()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What `dig` prints.
    fn dig(&self, arguments: &[&str]) -> String {
        let output = Command::new("dig")
            .args([
                &format!("@{}", self.address.ip()),
                "-p",
                &self.address.port().to_string(),
            ])
            .args(["+time=5", "+tries=1", "+nocmd", "+nostats"])
            .args(arguments)
            .output()
            .expect("dig runs (Debian package dnsutils)");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn read_framed(stream: &mut TcpStream) -> Message<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a reply comes");
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    Message::from_octets(reply).unwrap()
}

fn addresses(reply: &Message<Vec<u8>>) -> Vec<String> {
    let records = reply.answer().unwrap().limit_to_in::<A>();
    records
        .map(|record| record.unwrap().data().addr().to_string())
        .collect()
}

#[test]
fn dig_is_content() {
    let server = Running::ready(config());
    for (arguments, expected) in [
        (
            &["+short", "cart.shop.svc.cluster.local"][..],
            "10.96.7.1\n",
        ),
        (
            &["+short", "-x", "10.96.7.1"],
            "cart.shop.svc.cluster.local.\n",
        ),
        (
            &["+short", "_http._tcp.cart.shop.svc.cluster.local", "SRV"],
            "0 100 80 cart.shop.svc.cluster.local.\n",
        ),
        (
            &["+short", "dns-version.cluster.local", "TXT"],
            "\"1.1.0\"\n",
        ),
        (
            &["+short", "+tcp", "cart.shop.svc.cluster.local"],
            "10.96.7.1\n",
        ),
        (
            &[
                "+short",
                "cart.shop",
                "+search",
                "+ndots=5",
                "+domain=svc.cluster.local",
            ],
            "10.96.7.1\n",
        ),
    ] {
        assert_eq!(server.dig(arguments), expected, "{arguments:?}");
    }
    let missing = server.dig(&["none.shop.svc.cluster.local"]);
    assert!(
        missing.contains("status: NXDOMAIN") && missing.contains("SOA"),
        "{missing}"
    );
    let exact = server.dig(&[
        "+qr",
        "CaRt.shop.svc.cluster.local",
        "+subnet=10.0.0.0/8",
        "+cookie",
    ]);
    for complaint in [
        "Warning",
        "alformed",
        "mismatch",
        "extra bytes",
        "Truncated",
    ] {
        assert!(!exact.contains(complaint), "{exact}");
    }
    // Truncated on UDP; dig comes back on TCP by itself.
    let big = server.dig(&["+short", "big.infra.svc.cluster.local"]);
    assert_eq!(
        big.lines()
            .filter(|line| line.starts_with("10.244.9."))
            .count(),
        200,
        "{big}"
    );
}

#[test]
fn before_the_lists_are_complete_the_answer_is_server_failure_and_afterwards_it_follows_each_change()
 {
    let mut server = Running::empty(config());
    let asked = query("cart.shop.svc.cluster.local.", Rtype::A);
    assert_eq!(server.ask_udp(&asked).header().rcode(), Rcode::SERVFAIL);
    assert!(!*server.readiness.borrow());
    listed()
        .into_iter()
        .for_each(|seen| server.feed.unbounded_send(seen).unwrap());
    server.wait_until_ready();
    assert_eq!(addresses(&server.ask_udp(&asked)), ["10.96.7.1"]);

    let changed = || {
        cluster::read(cluster::service(
            "shop",
            "cart",
            json!({"clusterIP": "10.96.7.99"}),
        ))
    };
    server
        .feed
        .unbounded_send(Seen::Service(Ok(Event::Apply(changed()))))
        .unwrap();
    wait_until(|| addresses(&server.ask_udp(&asked)) == ["10.96.7.99"]);
    server
        .feed
        .unbounded_send(Seen::Service(Ok(Event::Delete(changed()))))
        .unwrap();
    wait_until(|| server.ask_udp(&asked).header().rcode() == Rcode::NXDOMAIN);
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "the condition never came");
        thread::yield_now();
    }
}

#[test]
fn queries_in_one_go_on_one_connection_are_all_answered() {
    let server = Running::ready(config());
    let mut stream = server.connect();
    let names = ["cart.shop", "nameless.shop", "none.shop"];
    let queries = names.map(|name| framed(&query(&format!("{name}.svc.cluster.local."), Rtype::A)));
    stream.write_all(&queries.concat()).unwrap();
    assert_eq!(addresses(&read_framed(&mut stream)), ["10.96.7.1"]);
    assert_eq!(addresses(&read_framed(&mut stream)), ["10.96.7.2"]);
    assert_eq!(read_framed(&mut stream).header().rcode(), Rcode::NXDOMAIN);
}

#[test]
fn rubbish_disturbs_nobody() {
    let server = Running::ready(config());
    let asked = query("cart.shop.svc.cluster.local.", Rtype::A);
    let rubbish = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in [0, 1, 11, 12, 13, 512, 9000] {
        rubbish
            .send_to(&vec![0x7f; length], server.address)
            .unwrap();
    }
    for bytes in [
        &[][..],
        &[0],
        &[0, 5, 1, 2],
        &[0xff, 0xff, 0],
        &framed(&[0xff; 40]),
    ] {
        let mut stream = server.connect();
        stream.write_all(bytes).unwrap();
        let mut quick = server.connect();
        quick.write_all(&framed(&asked)).unwrap();
        assert_eq!(
            addresses(&read_framed(&mut quick)),
            ["10.96.7.1"],
            "beside {bytes:?}"
        );
    }
    assert_eq!(addresses(&server.ask_udp(&asked)), ["10.96.7.1"]);
}

#[test]
fn an_address_in_use_is_an_error_that_says_so() {
    let server = Running::ready(config());
    let config = Config {
        listen: vec![server.address],
        ..config()
    };
    let _inside = server.runtime.as_ref().unwrap().enter();
    let error = Server::bind(config).expect_err("it is taken");
    assert!(matches!(error, Error::Bind { address, .. } if address == server.address));
    assert!(
        error.to_string().contains(&server.address.to_string()),
        "{error}"
    );
}

#[test]
fn senseless_configurations_are_refused() {
    let runtime = Runtime::new().unwrap();
    let _inside = runtime.enter();
    let nowhere = Config {
        listen: vec![],
        ..config()
    };
    assert!(matches!(Server::bind(nowhere), Err(Error::NoAddress)));
    let own: SocketAddr = "127.0.0.1:5353".parse().unwrap();
    let ring = Config {
        listen: vec![own],
        upstreams: vec![own],
        ..config()
    };
    assert!(matches!(Server::bind(ring), Err(Error::UpstreamLoop(address)) if address == own));
    let nameless = Config {
        cluster_domain: "..".to_owned(),
        ..config()
    };
    assert!(matches!(Server::bind(nameless), Err(Error::Domain { .. })));
}

#[test]
fn after_shutdown_nobody_listens() {
    let server = Running::ready(config());
    server.shutdown.cancel();
    wait_until(|| TcpStream::connect(server.address).is_err());
    // The UDP port is free as well: nobody else's socket stands in the way of an exclusive one.
    wait_until(|| UdpSocket::bind(server.address).is_ok());
}

/// A server outside the cluster, for names that end in `.test`: `truncated.test` is truncated on UDP, `silent.test`
/// is not answered, `refused.test` is refused, all others have one address.
struct Upstream {
    address: SocketAddr,
}

impl Upstream {
    fn start() -> Self {
        let (listener, socket) = (0..16)
            .find_map(|_| {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                UdpSocket::bind(listener.local_addr().unwrap())
                    .ok()
                    .map(|socket| (listener, socket))
            })
            .expect("a port is free");
        let address = socket.local_addr().unwrap();
        // Both threads end with the test process.
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                // A forged reply first: it must not be believed.
                let mut forged = upstream_reply(&buffer[..length], false).unwrap_or_default();
                if let Some(octet) = forged.first_mut() {
                    *octet ^= 0xff;
                    socket.send_to(&forged, client).unwrap();
                }
                if let Some(reply) = upstream_reply(&buffer[..length], false) {
                    socket.send_to(&reply, client).unwrap();
                }
            }
        });
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let query = read_framed(&mut stream).into_octets();
                if let Some(reply) = upstream_reply(&query, true) {
                    stream.write_all(&framed(&reply)).unwrap();
                }
            }
        });
        Upstream { address }
    }
}

fn upstream_reply(query: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let message = Message::from_slice(query).unwrap();
    let question = message.sole_question().unwrap();
    let name = question.qname().to_string().to_lowercase();
    let (rcode, truncated) = match name.as_str() {
        "silent.test" => return None,
        "refused.test" => (Rcode::REFUSED, false),
        "missing.test" => (Rcode::NXDOMAIN, false),
        "truncated.test" => (Rcode::NOERROR, !tcp),
        _ => (Rcode::NOERROR, false),
    };
    let mut answer = MessageBuilder::new_vec()
        .start_answer(message, rcode)
        .unwrap();
    answer.header_mut().set_tc(truncated);
    answer.header_mut().set_ra(true);
    if rcode == Rcode::NOERROR && !truncated {
        answer
            .push((question.qname(), 60, A::new([192, 0, 2, 1].into())))
            .unwrap();
        if name == "truncated.test" {
            for _ in 0..5 {
                let text = Txt::<Vec<u8>>::build_from_slice(&[b'x'; 200]).unwrap();
                answer.push((question.qname(), 60, text)).unwrap();
            }
        }
    }
    Some(answer.finish())
}

fn forwarding(upstreams: Vec<SocketAddr>) -> Running {
    Running::ready(Config {
        upstreams,
        ..config()
    })
}

#[test]
fn names_outside_are_asked_upstream() {
    let upstream = Upstream::start();
    let server = forwarding(vec![upstream.address]);
    let reply = server.ask_udp(&query("Www.Example.TEST.", Rtype::A));
    assert_eq!(addresses(&reply), ["192.0.2.1"]);
    assert_eq!(
        (reply.header().id(), reply.header().rcode()),
        (4711, Rcode::NOERROR)
    );
    assert_eq!(
        reply.sole_question().unwrap().qname().to_string(),
        "Www.Example.TEST"
    );
    assert_eq!(
        server
            .ask_udp(&query("missing.test.", Rtype::A))
            .header()
            .rcode(),
        Rcode::NXDOMAIN
    );
    // The cluster's own names do not depend on it.
    assert_eq!(
        addresses(&server.ask_udp(&query("cart.shop.svc.cluster.local.", Rtype::A))),
        ["10.96.7.1"]
    );
}

#[test]
fn a_truncated_upstream_reply_is_passed_on_over_udp_and_fetched_over_tcp() {
    let upstream = Upstream::start();
    let server = forwarding(vec![upstream.address]);
    let asked = query("truncated.test.", Rtype::A);
    let short = server.ask_udp(&asked);
    assert!(short.header().tc() && short.header_counts().ancount() == 0);
    let mut stream = server.connect();
    stream.write_all(&framed(&asked)).unwrap();
    let whole = read_framed(&mut stream);
    assert!(!whole.header().tc());
    assert_eq!(
        (whole.header().id(), whole.header_counts().ancount()),
        (4711, 6)
    );
}

#[test]
fn an_alias_that_leads_outside_is_followed_there() {
    let upstream = Upstream::start();
    let server = forwarding(vec![upstream.address]);
    for (target, expected, rcode) in [
        ("db.test", &["192.0.2.1"][..], Rcode::NOERROR),
        ("missing.test", &[], Rcode::NXDOMAIN),
    ] {
        let service = cluster::service(
            "infra",
            "away",
            json!({"type": "ExternalName", "externalName": target}),
        );
        server
            .feed
            .unbounded_send(Seen::Service(Ok(Event::Apply(cluster::read(service)))))
            .unwrap();
        let asked = query("away.infra.svc.cluster.local.", Rtype::A);
        wait_until(|| server.ask_udp(&asked).header().rcode() == rcode);
        let reply = server.ask_udp(&asked);
        assert_eq!(addresses(&reply), expected);
        let alias = reply.answer().unwrap().next().unwrap().unwrap();
        assert_eq!(
            (alias.rtype(), alias.owner().to_string()),
            (Rtype::CNAME, "away.infra.svc.cluster.local".to_owned())
        );
    }
}

#[test]
fn an_upstream_that_fails_is_passed_over_and_without_any_the_answer_is_prompt() {
    let upstream = Upstream::start();
    // Bound, so that nobody else takes the port, but never read: it is silent. The closed one refuses at once.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let closed = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = forwarding(vec![closed, silent.local_addr().unwrap(), upstream.address]);
    assert_eq!(
        addresses(&server.ask_udp(&query("www.test.", Rtype::A))),
        ["192.0.2.1"]
    );
    assert_eq!(
        server
            .ask_udp(&query("refused.test.", Rtype::A))
            .header()
            .rcode(),
        Rcode::REFUSED
    );

    let server = forwarding(vec![closed]);
    let start = std::time::Instant::now();
    assert_eq!(
        server
            .ask_udp(&query("www.test.", Rtype::A))
            .header()
            .rcode(),
        Rcode::SERVFAIL
    );
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_client_waiting_for_an_upstream_keeps_nobody_waiting() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = forwarding(vec![silent.local_addr().unwrap()]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..100 {
        socket
            .send_to(&query("www.test.", Rtype::A), server.address)
            .unwrap();
    }
    let start = std::time::Instant::now();
    assert_eq!(
        addresses(&server.ask_udp(&query("cart.shop.svc.cluster.local.", Rtype::A))),
        ["10.96.7.1"]
    );
    assert!(
        start.elapsed() < Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
}
