//! Control group trees on the machine's real hierarchies. Needs root. Each test has a tree of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use seaway_kernel::cgroup::Tree;

#[test]
fn a_tree_is_made_in_every_hierarchy_and_removed_with_what_is_in_it() {
    let name = format!("seaway-test-{}/tree", std::process::id());
    let tree = Tree::at(&name).unwrap();
    assert!(
        !tree.directories().is_empty(),
        "no cgroup hierarchy is mounted"
    );
    tree.create().unwrap();
    tree.create().unwrap();
    for directory in tree.directories() {
        fs::create_dir_all(directory.join("pod/container")).unwrap();
    }
    tree.remove(Duration::from_secs(5)).unwrap();
    assert!(!tree.exists());
    for directory in tree.directories() {
        assert!(
            !directory.parent().unwrap().exists(),
            "the empty parent of {directory:?} stayed"
        );
    }
    tree.remove(Duration::ZERO).unwrap();
}

#[test]
fn a_process_in_the_tree_is_listed_and_keeps_it() {
    let name = format!("seaway-test-{}-busy", std::process::id());
    let tree = Tree::at(&name).unwrap();
    tree.create().unwrap();
    let directories = tree.directories();
    // The last one is version 2 on a hybrid machine, which takes processes without further setting up.
    let group = directories.last().unwrap().join("pod");
    fs::create_dir(&group).unwrap();
    let mut child = Command::new("/bin/sleep").arg("600").spawn().unwrap();
    fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
    assert_eq!(
        tree.processes().unwrap().into_iter().collect::<Vec<_>>(),
        [child.id()]
    );
    let errors = tree.remove(Duration::ZERO).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(group.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    tree.remove(Duration::from_secs(5)).unwrap();
    assert!(!tree.exists());
}
