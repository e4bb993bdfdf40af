//! nf_tables against the real kernel, in namespaces without a way out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use seaway_kernel::NetNs;
use seaway_kernel::nft::{
    Batch, Chain, ChainKind, DataType, Element, Expr, Family, Hook, MetaKey, NatKind, NumgenKind,
    Reg, Rule, Set, Socket, Table, TypeOf, Verdict, priority,
};

const IP: Family = Family::Ip;
const T: &str = "seaway-test";

fn inside<T: Send>(work: impl FnOnce(&mut Socket) -> T + Send) -> T {
    let namespace = NetNs::new().unwrap();
    namespace
        .run(|| work(&mut Socket::open().unwrap()))
        .unwrap()
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "nft {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn skeleton() -> (Table, Vec<Chain>, Vec<Set>, Vec<Rule>) {
    let first = Reg::FIRST;
    let (second, third, fourth) = (first.after(4), first.after(8), first.after(12));
    let table = Table::new(IP, T).with_comment("a test");
    let chains = vec![
        Chain::base(
            IP,
            T,
            "prerouting",
            ChainKind::Nat,
            Hook::Prerouting,
            priority::DSTNAT,
        )
        .with_comment("first"),
        Chain::regular(IP, T, "pick-3"),
    ];
    let sets = vec![
        Set::new(IP, T, "ranges", [DataType::Ipv4Addr])
            .with_intervals()
            .with_comment("whose"),
        Set::new(
            IP,
            T,
            "backends",
            [
                TypeOf::IpDaddr,
                TypeOf::L4Proto,
                TypeOf::ThDport,
                TypeOf::Numgen,
            ],
        )
        .to_values([TypeOf::IpDaddr, TypeOf::ThDport]),
        Set::new(IP, T, "choosers", [TypeOf::Numgen]).to_verdicts(),
    ];
    let rules = vec![
        Rule::new(
            IP,
            T,
            "prerouting",
            [
                Expr::network(16, 4, first),
                Expr::contains("ranges", first),
                Expr::Verdict(Verdict::jump("pick-3")),
            ],
        ),
        Rule::new(
            IP,
            T,
            "pick-3",
            [
                Expr::network(16, 4, first),
                Expr::Meta {
                    key: MetaKey::L4proto,
                    dest: second,
                },
                Expr::transport(2, 2, third),
                Expr::Numgen {
                    kind: NumgenKind::Random,
                    modulus: 3,
                    offset: 0,
                    dest: fourth,
                },
                Expr::map("backends", first, first),
                Expr::Nat {
                    kind: NatKind::Dnat,
                    family: IP,
                    address: Some(first),
                    port: Some(second),
                    flags: 0,
                },
            ],
        )
        .with_comment("one of three"),
    ];
    (table, chains, sets, rules)
}

fn load(socket: &mut Socket) {
    let (table, chains, sets, rules) = skeleton();
    let mut batch = Batch::new();
    batch.add_table(&table);
    chains.iter().for_each(|chain| batch.add_chain(chain));
    sets.iter().for_each(|set| batch.add_set(set));
    rules.iter().for_each(|rule| batch.add_rule(rule));
    socket.commit(batch).unwrap();
}

#[test]
fn the_kernel_gives_back_what_it_was_given() {
    inside(|socket| {
        assert_eq!(socket.read_table(IP, T).unwrap(), None);
        load(socket);
        let (table, chains, sets, rules) = skeleton();
        let dumped = socket.read_table(IP, T).unwrap().unwrap();
        assert_eq!(dumped.table, table);
        assert_eq!(dumped.chains, chains);
        assert_eq!(dumped.sets, sets);
        let without_handles: Vec<Rule> = dumped
            .rules
            .iter()
            .cloned()
            .map(|rule| Rule {
                handle: None,
                ..rule
            })
            .collect();
        assert_eq!(without_handles, rules);
        assert!(dumped.rules.iter().all(|rule| rule.handle.is_some()));
        let mut batch = Batch::new();
        batch.delete_table(IP, T);
        socket.commit(batch).unwrap();
        assert_eq!(socket.read_table(IP, T).unwrap(), None);
    });
}

#[test]
fn twenty_thousand_elements_go_in_and_come_back() {
    inside(|socket| {
        load(socket);
        let elements: Vec<Element<'_>> = (0..20_000u32)
            .map(|n| {
                let [_, b, c, d] = n.to_be_bytes();
                let key = vec![10, b, c, d, 6, 0, 0, 0, 0, 80, 0, 0, 0, 0, 0, 0];
                Element::value(key, vec![10, 244, c, d, 0x1f, 0x90, 0, 0])
                    .with_comment(format!("n{n}"))
            })
            .collect();
        let mut batch = Batch::new();
        batch.add_elements(IP, T, "backends", elements.clone());
        socket.commit(batch).unwrap();
        let mut found = socket.elements(IP, T, "backends").unwrap();
        found.sort();
        assert_eq!(found, elements);
        let mut batch = Batch::new();
        batch.delete_elements(IP, T, "backends", elements.into_iter().skip(1));
        socket.commit(batch).unwrap();
        assert_eq!(socket.elements(IP, T, "backends").unwrap().len(), 1);
    });
}

#[test]
fn a_refused_element_is_named_and_nothing_is_changed() {
    inside(|socket| {
        load(socket);
        let chooser = |n: u32, chain: &'static str| {
            Element::verdict(n.to_ne_bytes().to_vec(), Verdict::goto(chain))
        };
        let before = socket.generation().unwrap();
        let mut batch = Batch::new();
        batch.add_set(&skeleton().2[2]);
        batch.add_elements(
            IP,
            T,
            "choosers",
            [
                chooser(3, "pick-3"),
                chooser(4, "pick-4"),
                chooser(5, "pick-3"),
            ],
        );
        let error = socket.commit(batch).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("add element ip seaway-test choosers { 4 : goto pick-4 }"),
            "{text}"
        );
        assert!(error.is_not_found(), "{text}");
        assert!(text.contains("is not there"), "{text}");
        assert_eq!(socket.elements(IP, T, "choosers").unwrap(), vec![]);
        assert_eq!(socket.generation().unwrap(), before);
        // The socket is in step again.
        let mut batch = Batch::new();
        batch.add_elements(IP, T, "choosers", [chooser(3, "pick-3")]);
        socket.commit(batch).unwrap();
    });
}

#[test]
fn a_batch_for_an_older_generation_is_refused() {
    inside(|socket| {
        load(socket);
        let old = socket.generation().unwrap();
        let batch = |name: &str| {
            let mut batch = Batch::new();
            batch.add_chain(&Chain::regular(IP, T, name));
            batch
        };
        socket.commit_at(batch("a"), old).unwrap();
        let error = socket.commit_at(batch("b"), old).unwrap_err();
        assert_eq!(error.errno(), Some(85), "{error}");
        assert_eq!(socket.chains(IP, T).unwrap().len(), 3);
    });
}

#[test]
fn nft_lists_it_with_types_names_and_comments() {
    inside(|socket| {
        load(socket);
        let mut batch = Batch::new();
        batch.add_elements(
            IP,
            T,
            "ranges",
            [
                Element::key(vec![10, 96, 0, 0]),
                Element::range_end(vec![10, 112, 0, 0]),
            ],
        );
        batch.add_elements(
            IP,
            T,
            "choosers",
            [Element::verdict(
                3u32.to_ne_bytes().to_vec(),
                Verdict::goto("pick-3"),
            )],
        );
        batch.add_elements(
            IP,
            T,
            "backends",
            [Element::value(
                vec![10, 96, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0, 2, 0, 0, 0],
                vec![10, 244, 0, 2, 0x1f, 0x90, 0, 0],
            )
            .with_comment("default/web:http")],
        );
        socket.commit(batch).unwrap();
        let listed = nft(&["list", "table", "ip", T]);
        for expected in [
            "comment \"a test\"",
            "10.96.0.0/12",
            "typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport",
            "10.96.0.1 . udp . 53 . 2 comment \"default/web:http\" : 10.244.0.2 . 8080",
            "3 : goto pick-3",
            "type nat hook prerouting priority dstnat; policy accept;",
            "ip daddr @ranges jump pick-3",
            "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @backends comment \"one of three\"",
        ] {
            assert!(
                listed.contains(expected),
                "{expected:?} is not in\n{listed}"
            );
        }
    });
}
