//! Pulling where there is no network: said at once, with the reason, and without a packet.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is how it says no")]

use std::time::{Duration, Instant};

use seaway_kernel::NetNs;
use seaway_pods::images::{Images, PullPolicy};

#[test]
fn without_a_way_out_a_pull_fails_at_once_and_names_the_registry() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(&dir.path().join("images")).unwrap();
    let netns = NetNs::new().unwrap();
    let (error, took) = netns
        .run(|| {
            // Its threads are made from this one and so are in the namespace as well.
            let tokio = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let started = Instant::now();
            // A documentation address (RFC 5737): no resolver is asked, and nobody has it.
            let pulled = tokio.block_on(images.ensure("192.0.2.1/app:1", PullPolicy::IfNotPresent));
            (pulled.unwrap_err(), started.elapsed())
        })
        .unwrap();
    assert_eq!(error.reason(), "ErrImagePull");
    let text = error.to_string();
    for part in ["192.0.2.1", "not reachable", "Network is unreachable"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(images.list().unwrap().len(), 2);
}
