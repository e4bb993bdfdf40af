//! The protocol around the names: flags, sizes, errors, and that no bytes whatever bring the server down.

use domain::base::iana::{Class, Opcode, OptRcode, Rcode};
use domain::base::message_builder::MessageBuilder;
use domain::base::name::ToName;
use domain::base::{Message, Name, Rtype};
use domain::rdata::A;
use proptest::prelude::*;
use seaway_dns::Config;
use seaway_dns::answer::{Outcome, Source, Transport};
use seaway_dns::table::Table;
use seaway_dns::zone::Zone;

use crate::cluster::{ask, config, query, table};

const CART: &str = "cart.shop.svc.cluster.local.";
const BIG: &str = "big.infra.svc.cluster.local.";

fn zone() -> Zone {
    Zone::new(&config()).unwrap()
}

fn with_upstream() -> Zone {
    Zone::new(&Config {
        upstreams: vec!["127.0.0.1:53".parse().unwrap()],
        ..config()
    })
    .unwrap()
}

/// A query with an OPT record.
fn edns_query(name: &str, udp_octets: u16, version: u8, dnssec_ok: bool) -> Vec<u8> {
    let plain = query(name, Rtype::A);
    let message = Message::from_slice(&plain).unwrap();
    let mut builder = MessageBuilder::new_vec();
    *builder.header_mut() = message.header();
    let mut builder = builder.question();
    builder.push(message.sole_question().unwrap()).unwrap();
    let mut builder = builder.additional();
    builder
        .opt(|opt| {
            opt.set_udp_payload_size(udp_octets);
            opt.set_version(version);
            opt.set_dnssec_ok(dnssec_ok);
            Ok(())
        })
        .unwrap();
    builder.finish()
}

fn reply_to(query: &[u8]) -> Message<Vec<u8>> {
    let (outcome, reply) = ask(&zone(), &table(), query, Transport::Udp);
    assert_eq!(outcome, Outcome::Reply);
    reply
}

#[test]
fn the_spelling_of_the_question_comes_back() {
    let reply = reply_to(&query("cArT.ShOp.sVc.cLuStEr.LoCaL.", Rtype::A));
    let question = reply.sole_question().unwrap();
    assert_eq!(question.qname().to_string(), "cArT.ShOp.sVc.cLuStEr.LoCaL");
    let record = reply
        .answer()
        .unwrap()
        .limit_to::<A>()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(record.owner().to_string(), "cArT.ShOp.sVc.cLuStEr.LoCaL");
    assert_eq!(record.data().addr().to_string(), "10.96.7.1");
}

#[test]
fn the_flags_are_those_of_an_authoritative_server() {
    let mut asked = query(CART, Rtype::A);
    Message::from_octets(&mut asked[..])
        .unwrap()
        .header_mut()
        .set_cd(true);
    let header = reply_to(&asked).header();
    assert!(header.qr() && header.aa() && header.rd() && header.cd());
    assert!(!header.ra() && !header.tc() && !header.ad() && !header.z());
    let (_, reply) = ask(
        &with_upstream(),
        &table(),
        &query(CART, Rtype::A),
        Transport::Udp,
    );
    assert!(
        reply.header().ra(),
        "with upstreams, recursion is available"
    );
}

#[test]
fn a_reply_is_never_longer_than_the_client_takes() {
    let table = table();
    for (query, transport, most, truncated) in [
        (query(BIG, Rtype::A), Transport::Udp, 512, true),
        (query(BIG, Rtype::A), Transport::Tcp, 65535, false),
        (edns_query(BIG, 100, 0, false), Transport::Udp, 512, true),
        (edns_query(BIG, 800, 0, false), Transport::Udp, 800, true),
        (edns_query(BIG, 65535, 0, false), Transport::Udp, 1232, true),
        (edns_query(BIG, 512, 0, false), Transport::Tcp, 65535, false),
        (query(BIG, Rtype::SRV), Transport::Udp, 512, true),
        (query(CART, Rtype::A), Transport::Udp, 512, false),
    ] {
        let (_, reply) = ask(&zone(), &table, &query, transport);
        assert!(
            reply.as_slice().len() <= most,
            "{} octets, not {most}",
            reply.as_slice().len()
        );
        assert_eq!(reply.header().tc(), truncated);
        let answers = reply
            .answer()
            .unwrap()
            .filter(|record| record.is_ok())
            .count();
        assert!(answers > 0, "what fits is sent");
        assert_eq!(
            reply.opt().is_some(),
            Message::from_slice(&query).unwrap().opt().is_some()
        );
    }
}

#[test]
fn hosts_without_room_for_their_addresses_do_not_make_a_reply_truncated() {
    // One SRV record of an endpoint fits into 512 octets, 200 addresses do not.
    let mut feed = seaway_dns::controller::Feed::default();
    crate::cluster::listed()
        .into_iter()
        .for_each(|seen| feed.step(seen));
    let addresses: Vec<_> = (0..100).map(|number| serde_json::json!({"addresses": [format!("10.244.9.{number}")], "hostname": "h"})).collect();
    let slice = crate::cluster::slice(
        "infra",
        "idle",
        "IPv4",
        "p",
        1,
        serde_json::Value::Array(addresses),
    );
    feed.step(seaway_dns::controller::Seen::Slice(Ok(
        kube::runtime::watcher::Event::Apply(crate::cluster::read(slice)),
    )));
    let asked = query("_p._tcp.idle.infra.svc.cluster.local.", Rtype::SRV);
    let (_, reply) = ask(&zone(), feed.inventory().table(), &asked, Transport::Udp);
    assert!(!reply.header().tc());
    assert_eq!(reply.header_counts().ancount(), 1);
    assert!(reply.header_counts().arcount() > 10);
}

#[test]
fn addresses_take_turns_at_the_front() {
    let (zone, table) = (zone(), table());
    let first = |rotation| {
        let mut reply = Vec::new();
        Source {
            zone: &zone,
            table: &table,
            rotation,
        }
        .answer(
            &query("queue.infra.svc.cluster.local.", Rtype::A),
            Transport::Udp,
            &mut reply,
        );
        let reply = Message::from_octets(reply).unwrap();
        reply
            .answer()
            .unwrap()
            .limit_to::<A>()
            .next()
            .unwrap()
            .unwrap()
            .data()
            .addr()
            .to_string()
    };
    assert_eq!(
        [0, 1, 2, usize::MAX].map(first),
        ["10.244.1.1", "10.244.2.1", "10.244.1.1", "10.244.2.1"]
    );
}

#[test]
fn edns_is_answered_with_edns() {
    let opt = reply_to(&edns_query(CART, 4096, 0, true))
        .opt()
        .map(|opt| (opt.version(), opt.udp_payload_size(), opt.dnssec_ok()));
    assert_eq!(opt, Some((0, 1232, true)));
    assert!(reply_to(&query(CART, Rtype::A)).opt().is_none());
    let unknown = reply_to(&edns_query(CART, 4096, 1, false));
    assert_eq!(unknown.opt_rcode(), OptRcode::BADVERS);
    assert_eq!(unknown.header_counts().ancount(), 0);
}

/// RFC 8482 §4.2. CoreDNS denies that there is anything, which is not so.
#[test]
fn any_gets_a_minimal_answer() {
    let reply = reply_to(&query(CART, Rtype::ANY));
    let record = reply.answer().unwrap().next().unwrap().unwrap();
    assert_eq!(
        (record.rtype(), reply.header_counts().ancount()),
        (Rtype::HINFO, 1)
    );
}

#[test]
fn what_is_not_served_is_refused_in_the_right_words() {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = query(CART, Rtype::A);
        change(&mut bytes);
        bytes
    };
    let question_end = query(CART, Rtype::A).len();
    for (bytes, rcode) in [
        (query(CART, Rtype::AXFR), Rcode::REFUSED),
        (query(CART, Rtype::OPT), Rcode::FORMERR),
        (query(CART, Rtype::TKEY), Rcode::NOTIMP),
        (with(&|bytes| bytes[question_end - 1] = 3), Rcode::REFUSED), // class CH
        (with(&|bytes| bytes[2] |= 4 << 3), Rcode::NOTIMP),           // opcode NOTIFY
        (with(&|bytes| bytes[5] = 0), Rcode::FORMERR),                // no question
        (with(&|bytes| bytes[5] = 2), Rcode::FORMERR),                // two, one of them absent
        (with(&|bytes| bytes[11] = 1), Rcode::FORMERR), // an additional record that is absent
        (
            with(&|bytes| bytes.truncate(question_end - 1)),
            Rcode::FORMERR,
        ),
        (with(&|bytes| bytes[12] = 0xc0), Rcode::FORMERR), // a pointer to beyond
    ] {
        let reply = reply_to(&bytes);
        assert_eq!(reply.header().rcode(), rcode, "{bytes:?}");
        assert_eq!((reply.header().id(), reply.header().qr()), (4711, true));
        assert_eq!(reply.header_counts().ancount(), 0);
    }
    let opcode = with(&|bytes| bytes[2] |= 4 << 3);
    assert_eq!(reply_to(&opcode).header().opcode(), Opcode::NOTIFY);
}

#[test]
fn a_reply_and_a_scrap_are_left_unanswered() {
    let reply = reply_to(&query(CART, Rtype::A)).into_octets();
    for bytes in [&reply[..], &[], &[0; 11]] {
        let (outcome, _) = ask(&zone(), &table(), bytes, Transport::Udp);
        assert_eq!(outcome, Outcome::Ignore);
    }
}

#[test]
fn two_opt_records_are_a_format_error() {
    let mut twice = edns_query(CART, 1232, 0, false);
    let opt = twice[twice.len() - 11..].to_vec();
    twice.extend(opt);
    twice[11] = 2;
    assert_eq!(reply_to(&twice).header().rcode(), Rcode::FORMERR);
}

#[test]
fn before_everything_is_known_nothing_is_denied() {
    let (zone, nothing) = (zone(), Table::default());
    for (name, rcode) in [
        (CART, Rcode::SERVFAIL),
        ("cluster.local.", Rcode::SERVFAIL),
        ("1.7.96.10.in-addr.arpa.", Rcode::SERVFAIL),
        ("example.com.", Rcode::NXDOMAIN),
    ] {
        let (_, reply) = ask(&zone, &nothing, &query(name, Rtype::A), Transport::Udp);
        assert_eq!(reply.header().rcode(), rcode, "{name}");
    }
    let (_, reply) = ask(
        &zone,
        &nothing,
        &edns_query(CART, 1232, 0, false),
        Transport::Udp,
    );
    let reason = reply
        .opt()
        .and_then(|opt| opt.opt().extended_error())
        .map(|error| error.code().to_int());
    assert_eq!(reason, Some(14), "Not Ready (RFC 8914 §4.15)");
}

#[test]
fn names_outside_go_to_the_upstreams_and_the_clusters_own_never_do() {
    let (zone, table) = (with_upstream(), table());
    let outcome = |name| ask(&zone, &table, &query(name, Rtype::A), Transport::Udp).0;
    for name in ["Example.com.", "1.1.1.1.in-addr.arpa."] {
        let Outcome::Forward(question) = outcome(name) else {
            panic!("{name} is forwarded")
        };
        assert_eq!(
            question.name.as_slice(),
            Name::vec_from_str(name).unwrap().as_slice(),
            "spelled as it came"
        );
        assert!(!question.is_continuation);
    }
    for name in [
        CART,
        "none.svc.cluster.local.",
        "cluster.local.",
        "9.7.96.10.in-addr.arpa.",
        "here.infra.svc.cluster.local.",
    ] {
        assert_eq!(outcome(name), Outcome::Reply, "{name}");
    }
    let Outcome::Forward(question) = outcome("away.infra.svc.cluster.local.") else {
        panic!("the alias is followed")
    };
    assert!(
        question.is_continuation
            && question
                .name
                .name_eq(&Name::vec_from_str("db.example.org.").unwrap())
    );
    assert_eq!(question.rtype, Rtype::A);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = ask(&zone(), &Table::default(), &bytes, Transport::Udp);
    }

    /// Bytes that come close to queries: a header that asks, then labels and pointers.
    #[test]
    fn no_query_makes_it_panic_and_every_reply_is_a_message(
        flags in any::<u8>(), counts in prop::array::uniform4(0u8..3), body in prop::collection::vec(
            prop_oneof![Just(0u8), Just(0xc0), Just(12), Just(3), Just(4), Just(41), any::<u8>()], 0..120),
        udp in any::<bool>(),
    ) {
        let mut bytes = vec![1, 2, flags & 0x7f, 0];
        counts.iter().for_each(|count| bytes.extend([0, *count]));
        bytes.extend(body);
        let transport = if udp { Transport::Udp } else { Transport::Tcp };
        let (outcome, reply) = ask(&zone(), &table(), &bytes, transport);
        if outcome == Outcome::Reply {
            prop_assert_eq!(reply.header().id(), 0x0102);
            prop_assert!(reply.iter().all(|record| record.is_ok()));
            prop_assert!(!udp || reply.as_slice().len() <= 1232);
        }
    }

    /// Any name in the zone, any type: the reply is readable to its end and denies with an SOA record.
    #[test]
    fn every_name_in_the_zone_has_a_well_formed_reply(
        labels in prop::collection::vec(prop_oneof![
            Just("cart"), Just("queue"), Just("queue-0"), Just("big"), Just("away"), Just("here"), Just("shop"), Just("infra"),
            Just("svc"), Just("pod"), Just("dns"), Just("ns"), Just("_http"), Just("_amqp"), Just("_tcp"), Just("_udp"), Just("10-244-1-1"), Just("x")], 0..7),
        rtype in any::<u16>(),
    ) {
        let name = labels.iter().chain(["cluster", "local"].iter()).fold(String::new(), |name, label| name + label + ".");
        let rtype = Rtype::from_int(rtype);
        let (outcome, reply) = ask(&zone(), &table(), &query(&name, rtype), Transport::Udp);
        prop_assert_eq!(outcome, Outcome::Reply);
        prop_assert!(reply.iter().all(|record| record.is_ok()), "{}", name);
        prop_assert_eq!(reply.sole_question().unwrap().qclass(), Class::IN);
        if reply.header().rcode() == Rcode::NXDOMAIN {
            prop_assert_eq!(reply.header_counts().nscount(), 1);
        }
    }
}
