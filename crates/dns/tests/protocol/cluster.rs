//! A small cluster for tests, as objects of the API: they go through the same conversion as those of a real one.

use domain::base::Message;
use domain::base::iana::Rcode;
use domain::base::message_builder::MessageBuilder;
use domain::base::{Name, Rtype};
use domain::rdata::AllRecordData;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::Event;
use seaway_dns::Config;
use seaway_dns::answer::{Outcome, Source, Transport};
use seaway_dns::controller::{Feed, Seen};
use seaway_dns::table::Table;
use seaway_dns::zone::Zone;
use serde_json::{Value, json};

/// What the first lists of a cluster's objects bring.
pub(crate) fn listed() -> Vec<Seen> {
    let mut seen = Vec::new();
    seen.push(Seen::Namespace(Ok(Event::Init)));
    for name in ["shop", "infra", "bare"] {
        let namespace: Namespace = read(json!({"metadata": {"name": name}}));
        seen.push(Seen::Namespace(Ok(Event::InitApply(namespace))));
    }
    seen.push(Seen::Namespace(Ok(Event::InitDone)));
    seen.push(Seen::Service(Ok(Event::Init)));
    seen.extend(
        services()
            .into_iter()
            .map(|service| Seen::Service(Ok(Event::InitApply(service)))),
    );
    seen.push(Seen::Service(Ok(Event::InitDone)));
    seen.push(Seen::Slice(Ok(Event::Init)));
    seen.extend(
        slices()
            .into_iter()
            .map(|slice| Seen::Slice(Ok(Event::InitApply(slice)))),
    );
    seen.push(Seen::Slice(Ok(Event::InitDone)));
    seen
}

fn services() -> Vec<Service> {
    [
        service("shop", "cart", json!({"clusterIP": "10.96.7.1", "ports": [
            {"name": "http", "port": 80}, {"name": "admin", "port": 9000}, {"name": "stats", "port": 8125, "protocol": "UDP"}]})),
        service("shop", "nameless", json!({"clusterIP": "10.96.7.2", "type": "NodePort", "ports": [{"port": 443}]})),
        service("shop", "both", json!({"clusterIP": "10.96.7.3", "clusterIPs": ["10.96.7.3", "fd00:96::3"], "ports": [{"port": 1}]})),
        service("infra", "queue", json!({"clusterIP": "None", "ports": [{"name": "amqp", "port": 5672}]})),
        service("infra", "early", json!({"clusterIP": "None", "publishNotReadyAddresses": true, "ports": [{"name": "p", "port": 1}]})),
        service("infra", "idle", json!({"clusterIP": "None", "ports": [{"name": "p", "port": 1}]})),
        service("infra", "big", json!({"clusterIP": "None", "ports": [{"port": 1}]})),
        service("infra", "away", json!({"type": "ExternalName", "externalName": "db.Example.org"})),
        service("infra", "here", json!({"type": "ExternalName", "externalName": "cart.shop.svc.cluster.local"})),
        service("infra", "twice", json!({"type": "ExternalName", "externalName": "here.infra.svc.cluster.local"})),
        service("infra", "nowhere", json!({"type": "ExternalName", "externalName": "none.shop.svc.cluster.local"})),
        service("infra", "ring-a", json!({"type": "ExternalName", "externalName": "ring-b.infra.svc.cluster.local"})),
        service("infra", "ring-b", json!({"type": "ExternalName", "externalName": "ring-a.infra.svc.cluster.local"})),
    ]
    .map(read)
    .into()
}

fn slices() -> Vec<EndpointSlice> {
    let many: Vec<Value> = (0..200)
        .map(|number| json!({"addresses": [format!("10.244.9.{number}")]}))
        .collect();
    [
        slice("shop", "cart", "IPv4", "http", 8080, json!([{"addresses": ["10.244.0.5"]}])),
        slice("infra", "queue", "IPv4", "amqp", 5672, json!([
            {"addresses": ["10.244.1.1"], "hostname": "queue-0"},
            {"addresses": ["10.244.2.1"], "conditions": {"ready": true}},
            {"addresses": ["10.244.3.1"], "hostname": "queue-2", "conditions": {"ready": false, "serving": true, "terminating": true}}])),
        slice("infra", "queue", "IPv6", "amqp", 5672, json!([{"addresses": ["fd00:244::1"], "hostname": "queue-0"}])),
        slice("infra", "early", "IPv4", "p", 1, json!([{"addresses": ["10.244.1.2"], "hostname": "early-0", "conditions": {"ready": false}}])),
        slice("infra", "big", "IPv4", "", 1, Value::Array(many)),
    ]
    .map(read)
    .into()
}

/// A Service object.
pub(crate) fn service(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// An EndpointSlice with one port.
pub(crate) fn slice(
    namespace: &str,
    service: &str,
    family: &str,
    port: &str,
    number: u16,
    endpoints: Value,
) -> Value {
    json!({
        "metadata": {
            "namespace": namespace,
            "name": format!("{service}-{}", family.to_lowercase()),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": port, "port": number, "protocol": "TCP"}],
    })
}

/// Reads an object as the client would.
pub(crate) fn read<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("the object is well-formed")
}

/// The table of that cluster.
pub(crate) fn table() -> Table {
    let mut feed = Feed::default();
    listed().into_iter().for_each(|seen| feed.step(seen));
    feed.inventory().table().clone()
}

/// A server's configuration that fits that cluster.
pub(crate) fn config() -> Config {
    Config {
        service_cidrs: vec![
            "10.96.0.0/12".parse().unwrap(),
            "fd00:96::/112".parse().unwrap(),
        ],
        pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        advertised: vec!["10.96.0.10".parse().unwrap()],
        old_form: true,
        ..Config::new(vec!["127.0.0.1:0".parse().unwrap()])
    }
}

/// The bytes of a plain query.
pub(crate) fn query(name: &str, rtype: Rtype) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(4711);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder
        .push((Name::vec_from_str(name).unwrap(), rtype))
        .unwrap();
    builder.finish()
}

/// Asks without sockets.
pub(crate) fn ask(
    zone: &Zone,
    table: &Table,
    query: &[u8],
    transport: Transport,
) -> (Outcome, Message<Vec<u8>>) {
    let mut reply = Vec::new();
    let outcome = Source {
        zone,
        table,
        rotation: 0,
    }
    .answer(query, transport, &mut reply);
    let reply = if reply.is_empty() { vec![0; 12] } else { reply };
    (
        outcome,
        Message::from_octets(reply).expect("a reply has a header"),
    )
}

/// Asks without sockets and gives response code, answer section and what else there is to know, as text:
/// `NXDOMAIN soa cluster.local`, or `NOERROR A 10.96.7.1 + cart.shop.svc.cluster.local A 10.96.7.1`.
pub(crate) fn told(zone: &Zone, table: &Table, name: &str, rtype: Rtype) -> String {
    let (outcome, reply) = ask(zone, table, &query(name, rtype), Transport::Tcp);
    assert_eq!(outcome, Outcome::Reply, "{name} {rtype}");
    describe(&reply, name)
}

fn describe(reply: &Message<Vec<u8>>, asked: &str) -> String {
    let header = reply.header();
    assert!(header.qr() && header.id() == 4711);
    assert_eq!(header.aa(), header.rcode() != Rcode::SERVFAIL);
    let mut text = header.rcode().to_string();
    let records = |section: domain::base::message::RecordSection<'_, Vec<u8>>| {
        section
            .limit_to::<AllRecordData<_, _>>()
            .map(|record| record.expect("records can be read"))
            .map(|record| {
                assert_eq!(record.ttl().as_secs(), 5);
                let owner = record.owner().to_string();
                let owner = if owner == asked.trim_end_matches('.') {
                    String::new()
                } else {
                    format!("{owner} ")
                };
                (
                    record.rtype(),
                    owner.clone(),
                    format!("{owner}{} {}", record.rtype(), record.data()),
                )
            })
            .collect::<Vec<_>>()
    };
    for (_, _, line) in records(reply.answer().unwrap()) {
        text += &format!(" | {line}");
    }
    for (rtype, owner, _) in records(reply.authority().unwrap()) {
        assert_eq!(rtype, Rtype::SOA);
        let zone = if owner.is_empty() {
            asked
        } else {
            owner.trim()
        };
        text += &format!(" soa {}", if zone.is_empty() { "." } else { zone });
    }
    for (_, _, line) in records(reply.additional().unwrap()) {
        text += &format!(" + {line}");
    }
    text
}
