//! The nf_tables decoder against bytes that nobody promised anything about, and against what it encoded itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use proptest::prelude::*;
use seaway_kernel::nft::{
    Batch, Chain, ChainKind, CmpOp, CtDirection, CtKey, DataType, DynsetOp, Element, Expr, Family,
    FibFlags, FibResult, Hook, Message, MetaKey, NatKind, NumgenKind, Reg, Reject, Rule, Set,
    Table, TypeOf, Verdict, priority,
};

/// A batch with every sort of object and expression.
fn everything() -> Batch {
    let (ip, table) = (Family::Ip, "t");
    let reg = |slot| Reg::new(slot).unwrap();
    let first = Reg::FIRST;
    let mut batch = Batch::new();
    batch.add_table(&Table::new(ip, table).with_comment("all of it"));
    batch.add_chain(&Chain::base(
        ip,
        table,
        "pre",
        ChainKind::Nat,
        Hook::Prerouting,
        priority::DSTNAT,
    ));
    batch.add_chain(&Chain::regular(ip, table, "pick").with_comment("one of three"));
    batch.add_set(&Set::new(ip, table, "ranges", [DataType::Ipv4Addr]).with_intervals());
    let mut affinity =
        Set::new(ip, table, "affinity", [DataType::Ipv4Addr]).to_values([DataType::Mark]);
    affinity.dynamic = true;
    affinity.timeout = Some(Duration::from_secs(10));
    affinity.timeouts = true;
    affinity.size = Some(100);
    batch.add_set(&affinity);
    batch.add_set(
        &Set::new(
            ip,
            table,
            "backends",
            [
                TypeOf::IpDaddr,
                TypeOf::L4Proto,
                TypeOf::ThDport,
                TypeOf::Numgen,
            ],
        )
        .to_values([TypeOf::IpDaddr, TypeOf::ThDport])
        .with_comment("who answers"),
    );
    batch.add_set(&Set::new(ip, table, "verdicts", [TypeOf::Numgen]).to_verdicts());
    batch.add_elements(
        ip,
        table,
        "ranges",
        [
            Element::key(vec![10, 0, 0, 0]),
            Element::range_end(vec![10, 1, 0, 0]),
        ],
    );
    batch.add_elements(
        ip,
        table,
        "verdicts",
        [
            Element::verdict(3u32.to_ne_bytes().to_vec(), Verdict::goto("pick"))
                .with_comment("default/web:http"),
        ],
    );
    batch.add_elements(
        ip,
        table,
        "backends",
        [Element::value(
            vec![10, 96, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0, 0, 0, 0, 0],
            vec![10, 244, 0, 2, 0x1f, 0x90, 0, 0],
        )],
    );
    batch.add_rule(
        &Rule::new(
            ip,
            table,
            "pick",
            [
                Expr::network(16, 4, first),
                Expr::Meta {
                    key: MetaKey::L4proto,
                    dest: reg(1),
                },
                Expr::transport(2, 2, reg(2)),
                Expr::Numgen {
                    kind: NumgenKind::Random,
                    modulus: 3,
                    offset: 0,
                    dest: reg(3),
                },
                Expr::map("backends", first, first),
                Expr::Nat {
                    kind: NatKind::Dnat,
                    family: ip,
                    address: Some(first),
                    port: Some(reg(1)),
                    flags: 0,
                },
            ],
        )
        .with_comment("one of three"),
    );
    batch.add_rule(&Rule::new(
        ip,
        table,
        "pre",
        [
            Expr::Ct {
                key: CtKey::Status,
                direction: None,
                dest: first,
            },
            Expr::Bitwise {
                source: first,
                dest: first,
                mask: CtKey::STATUS_DNAT.to_ne_bytes().to_vec(),
                xor: vec![0; 4],
            },
            Expr::differs(first, vec![0; 4]),
            Expr::Ct {
                key: CtKey::DstIp,
                direction: Some(CtDirection::Original),
                dest: first,
            },
            Expr::contains("ranges", first),
            Expr::Fib {
                flags: FibFlags::DADDR,
                result: FibResult::Type,
                dest: first,
            },
            Expr::equals(first, FibResult::LOCAL.to_ne_bytes()),
            Expr::Counter {
                packets: 0,
                bytes: 0,
            },
            Expr::Immediate {
                dest: first,
                value: 3u32.to_ne_bytes().to_vec(),
            },
            Expr::Range {
                op: CmpOp::Eq,
                source: first,
                from: vec![0; 4],
                to: vec![9; 4],
            },
            Expr::network(12, 4, first),
            Expr::Immediate {
                dest: reg(4),
                value: vec![0, 0, 0, 1],
            },
            Expr::Dynset {
                set: "affinity".to_owned(),
                op: DynsetOp::Update,
                key: first,
                data: Some(reg(4)),
                timeout: Some(Duration::from_secs(3)),
            },
            Expr::Verdict(Verdict::jump("pick")),
        ],
    ));
    batch.add_rule(&Rule::new(
        ip,
        table,
        "pre",
        [Expr::Reject(Reject::TcpReset)],
    ));
    batch.add_rule(&Rule::new(
        ip,
        table,
        "pick",
        [Expr::Masquerade { flags: 0 }],
    ));
    batch.delete_elements(ip, table, "ranges", [Element::key(vec![10, 0, 0, 0])]);
    batch.flush_set(ip, table, "ranges");
    batch.delete_set(ip, table, "ranges");
    batch.delete_rule(ip, table, "pre", 7);
    batch.flush_chain(ip, table, "pre");
    batch.delete_chain(ip, table, "pre");
    batch.delete_table(ip, table);
    batch
}

#[test]
fn a_transaction_reads_as_text() {
    insta::assert_snapshot!(everything().text(&[]));
}

#[test]
fn what_was_encoded_decodes_to_the_same_number_of_objects() {
    let bytes = everything().encoded().to_vec();
    assert_eq!(Message::decode_all(&bytes).unwrap().len(), 21);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Message::decode_all(&bytes);
    }

    /// Near misses reach deeper than noise: real messages with some bytes changed, or cut.
    #[test]
    fn damaged_messages_never_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = everything().encoded().to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = Message::decode_all(&bytes);
        bytes.truncate(keep.index(bytes.len()));
        let _ = Message::decode_all(&bytes);
    }
}
