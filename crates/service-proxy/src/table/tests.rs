//! The table as text, and its names.

use std::net::SocketAddr;

use seaway_kernel::nft::Batch;

use super::*;
use crate::diff::Delta;
use crate::model::{ObjectName, Protocol};
use crate::plan::{Backend, Compiled, Forwarding, Frontend, FrontendKey, Policy};

fn compiled(backends: &[&str]) -> Compiled {
    let backends: std::sync::Arc<[Backend]> = backends.iter().map(|b| b.parse().unwrap()).collect();
    let frontend = |key| Frontend {
        key,
        label: "default/web:http".into(),
        backends: backends.clone(),
        policy: Policy::default(),
    };
    let v6 = backends.first().is_some_and(SocketAddr::is_ipv6);
    let ip = if v6 { "fd00::7" } else { "10.96.0.7" }.parse().unwrap();
    Compiled {
        frontends: vec![
            frontend(FrontendKey::Address {
                ip,
                protocol: Protocol::Tcp,
                port: 80,
            }),
            frontend(FrontendKey::NodePort {
                protocol: Protocol::Tcp,
                port: 30080,
            }),
        ],
        local: backends.iter().take(1).map(SocketAddr::ip).collect(),
    }
}

fn text(layout: Layout, delta: &Delta) -> String {
    let mut sets = layout.sets();
    sets.extend(
        delta
            .branches
            .iter()
            .flat_map(|(before, after)| before | after)
            .map(|branch| layout.branch_set(branch)),
    );
    let mut batch = Batch::new();
    let mut transactions = Vec::new();
    if layout.encode_new_branches(&mut batch, delta) {
        transactions.push(std::mem::take(&mut batch).text(&sets));
    }
    let handles = delta
        .branches_gone()
        .zip(1..)
        .map(|(branch, handle)| (*branch, vec![handle]))
        .collect();
    layout.encode(&mut batch, delta, &handles);
    transactions.push(std::mem::take(&mut batch).text(&sets));
    if layout.encode_afterwards(&mut batch, delta) {
        transactions.push(batch.text(&sets));
    }
    transactions.join("commit\n") + "commit\n"
}

#[test]
fn the_table_before_any_service() {
    for (name, family) in [("skeleton", IpFamily::V4), ("skeleton_ipv6", IpFamily::V6)] {
        let mut batch = Batch::new();
        Layout::new(family).encode_skeleton(&mut batch);
        insta::assert_snapshot!(name, batch.text(&[]));
    }
}

#[test]
fn the_life_of_a_service() {
    let layout = Layout::new(IpFamily::V4);
    let mut forwarding = Forwarding::new(IpFamily::V4, &[]);
    let name = ObjectName::new("default", "web");
    let mut step =
        |compiled: Option<Compiled>| text(layout, &forwarding.update([(name.clone(), compiled)]));
    let mut story = String::new();
    for (what, compiled) in [
        ("no endpoint yet", Some(compiled(&[]))),
        (
            "two endpoints",
            Some(compiled(&["10.244.0.2:8080", "10.244.1.2:8080"])),
        ),
        (
            "one of them replaced",
            Some(compiled(&["10.244.0.2:8080", "10.244.1.3:8080"])),
        ),
        ("one endpoint", Some(compiled(&["10.244.0.2:8080"]))),
        ("gone", None),
    ] {
        story += &format!("# {what}\n{}", step(compiled));
    }
    insta::assert_snapshot!(story);
}

#[test]
fn ipv6_is_the_same_with_longer_addresses() {
    let layout = Layout::new(IpFamily::V6);
    let mut forwarding = Forwarding::new(IpFamily::V6, &["fd00::/112".parse().unwrap()]);
    let delta = forwarding.update([(
        ObjectName::new("default", "web"),
        Some(compiled(&["[fd01::2]:8080"])),
    )]);
    insta::assert_snapshot!(text(layout, &delta));
}

#[test]
fn a_frontend_with_every_policy() {
    let layout = Layout::new(IpFamily::V4);
    let mut forwarding = Forwarding::new(IpFamily::V4, &[]);
    let mut all = compiled(&["10.244.0.2:8080"]);
    for frontend in &mut all.frontends {
        frontend.policy = Policy {
            inside: Some(
                ["10.244.0.2:8080", "10.244.1.2:8080"]
                    .map(|b| b.parse().unwrap())
                    .into(),
            ),
            drops: false,
            keeps_source: true,
            affinity: Some(10),
            sources: None,
        };
    }
    all.frontends[0].policy.sources = Some(["192.0.2.0/24".parse().unwrap()].into());
    let name = ObjectName::new("default", "web");
    let mut story = String::new();
    for compiled in [Some(all), Some(compiled(&["10.244.0.2:8080"])), None] {
        story += &text(layout, &forwarding.update([(name.clone(), compiled)]));
    }
    insta::assert_snapshot!(story);
}

#[test]
fn the_sets_of_branches_are_told_by_their_names() {
    for node_port in [false, true] {
        for branch in [
            Branch::Pick {
                node_port,
                inside: false,
                count: 1,
            },
            Branch::Pick {
                node_port,
                inside: true,
                count: 250,
            },
            Branch::Remember {
                node_port,
                seconds: 10_800,
            },
        ] {
            assert_eq!(read_branch(&branch_set_name(branch)), Some(branch));
        }
    }
    for other in [
        "frontends",
        "frontends-",
        "frontends-0",
        "frontends-01",
        "frontends-for-",
        "frontends-inside",
        "node-ports-refused",
        "x-1",
    ] {
        assert_eq!(read_branch(other), None, "{other}");
    }
}
