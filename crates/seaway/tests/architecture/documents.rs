//! README.md, ARCHITECTURE.md and CONTRIBUTING.md: what they point to exists.

use std::path::Path;

use super::{read, root};

const DOCUMENTS: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];

/// The targets of all links `[text](target)`.
fn links(page: &str) -> Vec<&str> {
    let targets = page
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target).collect()
}

/// What a heading is called in a link, as GitHub makes it.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = text
                .chars()
                .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
            kept.map(|letter| if letter == ' ' { '-' } else { letter })
                .collect()
        })
        .collect()
}

/// Names of files and folders below `crates/` that a page speaks of, wherever it does. Those with a place-holder in
/// them (`crates/<crate>`, `crates/*/tests`, `crates/X`) name no particular one.
fn paths(page: &str) -> Vec<&str> {
    let words = page.split(|letter: char| letter.is_whitespace() || "`()[],;|\"'".contains(letter));
    let words = words.map(|word| word.trim_end_matches(['.', ':', '!', '?']));
    words
        .filter(|word| {
            word.starts_with("crates/") && !word.contains(['<', '*', '{', '$', '…', 'X'])
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    for document in DOCUMENTS {
        let page = read(document);
        for link in links(&page) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (path, anchor) = link
                .split_once('#')
                .map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let path = if path.is_empty() { document } else { path };
            assert!(
                root().join(path).exists(),
                "{document} links to {link}, and there is no {path}"
            );
            if let Some(anchor) = anchor {
                let anchors = anchors(&read(path));
                assert!(
                    anchors.iter().any(|known| known == anchor),
                    "{document} links to {link}: {path} has {anchors:?}"
                );
            }
        }
    }
}

#[test]
fn every_file_that_is_spoken_of_exists() {
    for document in DOCUMENTS {
        for path in paths(&read(document)) {
            assert!(root().join(path).exists(), "{document} speaks of {path}");
        }
    }
}

#[test]
fn the_readmes_commands_are_there() {
    let readme = read("README.md");
    for command in ["cargo run --release -- demo", "./test"] {
        assert!(readme.contains(command), "README.md names {command}");
    }
    let script = root().join("test");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &script.metadata().expect("./test exists").permissions(),
    );
    assert_eq!(mode & 0o111, 0o111, "./test can be run");
    assert!(Path::new(&script).is_file());
}

#[test]
fn links_headings_and_paths_are_recognised() {
    let page = "# What is *it*, really?\nSee [this](a.md#b-c), ![that](crates/x/y.rs) and `crates/z`.\n## B c\ncrates/<crate>/src";
    assert_eq!(links(page), ["a.md#b-c", "crates/x/y.rs"]);
    assert_eq!(anchors(page), ["what-is-it-really", "b-c"]);
    assert_eq!(paths(page), ["crates/x/y.rs", "crates/z"]);
}
