//! The kit itself: what it calls unreachable is, and what is left behind shows. Needs root.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::Stdio;
use std::time::Duration;

use seaway_testkit::serve::Server;
use seaway_testkit::{Outer, Watch, probe};

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn nothing_gets_out_of_an_outer() {
    let outer = Outer::new();
    assert_eq!(outer.shell("ip -o link show | wc -l").trim(), "1");
    // 192.0.2.0/24 is for documentation only (RFC 5737): nobody is there even if this went wrong.
    let error = probe::tcp_from(outer.netns(), "192.0.2.1:9".parse().unwrap(), LIMIT).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(101),
        "expected ENETUNREACH: {error}"
    );
}

#[test]
fn servers_tell_where_the_client_comes_from() {
    let outer = Outer::new();
    let local = "127.0.0.1:0".parse().unwrap();
    let tcp = Server::tcp(outer.netns(), local).unwrap();
    let udp = Server::udp(outer.netns(), local).unwrap();
    assert_eq!(
        probe::tcp_from(outer.netns(), tcp.address(), LIMIT).unwrap(),
        "127.0.0.1"
    );
    assert_eq!(
        probe::udp_from(outer.netns(), udp.address(), LIMIT).unwrap(),
        "127.0.0.1"
    );
    let (closed, refused) = (tcp.address(), std::io::ErrorKind::ConnectionRefused);
    drop(tcp);
    assert_eq!(
        probe::tcp_from(outer.netns(), closed, LIMIT)
            .unwrap_err()
            .kind(),
        refused
    );
}

#[test]
fn a_snapshot_shows_each_kind_of_leftover_until_it_is_gone() {
    let outer = Outer::new();
    let word = format!("seaway-left-{}", std::process::id());
    let directory = std::env::temp_dir().join(&word);
    std::fs::create_dir(&directory).unwrap();
    let watch = Watch::new(outer.netns(), &[&word]);
    let before = watch.snapshot();

    outer.shell("ip link add left0 type veth peer name left1");
    outer.shell("ip route add unreachable 10.9.0.0/16; nft add table ip left");
    seaway_kernel::mount::tmpfs(&directory, None, 0o755).unwrap();
    let tree = seaway_kernel::cgroup::Tree::at(&word).unwrap();
    tree.create().unwrap();
    // Reads from a pipe that closes with this process, so that it cannot outlive a failing test.
    let mut process = outer
        .command("/bin/cat")
        .args(["-", &word])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();

    let difference = before.difference(&watch.snapshot());

    drop(process.stdin.take());
    process.wait().unwrap();
    tree.remove(LIMIT).unwrap();
    seaway_kernel::mount::unmount_if_mounted(&directory).unwrap();
    std::fs::remove_dir(&directory).unwrap();
    for kind in [
        "link: left0",
        "route: unreachable 10.9.0.0/16",
        "nft: table ip left",
        "mount: tmpfs",
        "cgroup:",
        "process:",
    ] {
        assert!(
            difference.added.iter().any(|line| line.starts_with(kind)),
            "{kind} is missing in\n{difference}"
        );
    }
    assert!(difference.removed.is_empty(), "{difference}");
    outer
        .shell("ip link del left0; ip route del unreachable 10.9.0.0/16; nft delete table ip left");
    before.assert_same(&watch.snapshot());
}
