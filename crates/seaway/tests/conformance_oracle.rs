//! Conversations recorded from kube-apiserver, replayed against a lab: every answer has to be the recorded one.
//!
//! The recordings and the program that replays them are not part of this repository. They are looked for where
//! `SEAWAY_ORACLE` says, or in `../shared/oracle` beside the checkout; without them the test says that nothing was
//! compared, and fails where `CI` is `true`.

mod support;

use std::path::PathBuf;

use support::{Host, Lab, text};

/// The folder with `replay.py`, and the conversations in `api/`.
fn oracle() -> Option<PathBuf> {
    let beside = || {
        PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../../shared/oracle"
        ))
    };
    let folder = std::env::var_os("SEAWAY_ORACLE").map_or_else(beside, PathBuf::from);
    folder.join("replay.py").is_file().then_some(folder)
}

#[test]
fn recorded_conversations_with_kubernetes_go_the_same_way() {
    let Some(oracle) = oracle() else {
        let missing = "no recorded conversations: set SEAWAY_ORACLE to the folder with replay.py";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
        return eprintln!("NOT CHECKED: {missing}");
    };
    let host = Host::new();
    // As the recordings were made: with the addresses that Kubernetes gives Services by default, without this plugin,
    // and by an API server and controllers alone.
    let lab = Lab::up_with(
        &host,
        &[
            "--nodes",
            "1",
            "--without-scheduler",
            "--service-cidr",
            "10.96.0.0/12",
            "--disable-admission-plugins",
            "ServiceAccount",
        ],
    );
    let mut conversations: Vec<PathBuf> = std::fs::read_dir(oracle.join("api"))
        .expect("the folder of the conversations")
        .map(|entry| entry.expect("its entries").path())
        .collect();
    conversations.sort();
    let output = host
        .command("python3")
        .arg(oracle.join("replay.py"))
        .args(["--most", "40", "--kubeconfig"])
        .arg(lab.kubeconfig())
        .args(&conversations)
        .output()
        .expect("run replay.py");
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    let passed = format!("{} passed, 0 failed", conversations.len());
    assert!(said.trim_end().ends_with(&passed), "{said}");
}
