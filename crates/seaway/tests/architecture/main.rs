//! The promises of ARCHITECTURE.md, CONTRIBUTING.md and deny.toml, held against what is really there.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is how it says no")]

mod crate_map;
mod dependencies;
mod documents;
mod sources;

use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;

/// The root of the repository.
fn root() -> &'static Path {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    above.expect("this crate is in crates/")
}

/// A file of the repository as text.
fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A question to cargo about this workspace.
fn cargo_metadata() -> MetadataCommand {
    let mut command = MetadataCommand::new();
    command
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--locked".to_owned()]);
    command
}

/// All files below a folder of the repository whose name ends so, but for what builds leave behind.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "there are files *{ending} in {folder}");
    found
}
