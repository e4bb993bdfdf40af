//! The crate map of ARCHITECTURE.md against what cargo says: names, and which crate depends on which.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata};

use super::{cargo_metadata, read, root};

/// Each crate by the name of its folder, with those it depends on.
type Map = BTreeMap<String, BTreeSet<String>>;

fn set<'t>(names: impl IntoIterator<Item = &'t str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn metadata() -> Metadata {
    cargo_metadata().no_deps().exec().expect("cargo metadata")
}

/// `seaway-dns` lives in `crates/dns`; the binary, `seaway`, in `crates/seaway`.
fn folder(package: &str) -> &str {
    package.strip_prefix("seaway-").unwrap_or(package)
}

fn real(metadata: &Metadata, kinds: &[DependencyKind]) -> Map {
    let packages = metadata.packages.iter().map(|package| {
        let ours = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.path.is_some());
        let ours = ours.filter(|dependency| kinds.contains(&dependency.kind));
        (
            folder(&package.name).to_owned(),
            set(ours.map(|dependency| folder(&dependency.name))),
        )
    });
    packages.collect()
}

/// The rows `` | `crate` | is | may depend on | `` of the section "Crate map".
fn documented(architecture: &str) -> Map {
    let section = architecture
        .split("\n## ")
        .find(|section| section.starts_with("Crate map"));
    let section = section.expect("ARCHITECTURE.md has a section \"Crate map\"");
    let rows = section.lines().filter_map(|line| {
        let cells: Vec<&str> = line
            .trim()
            .strip_prefix('|')?
            .strip_suffix('|')?
            .split('|')
            .map(str::trim)
            .collect();
        let name = cells[0].strip_prefix('`')?.strip_suffix('`')?;
        let dependencies = cells[2]
            .split(',')
            .map(str::trim)
            .filter(|dependency| *dependency != "–");
        Some((name.to_owned(), set(dependencies)))
    });
    rows.collect()
}

#[test]
fn the_map_is_what_cargo_says() {
    let (documented, real) = (
        documented(&read("ARCHITECTURE.md")),
        real(&metadata(), &[DependencyKind::Normal]),
    );
    let names = |map: &Map| map.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(
        names(&documented),
        names(&real),
        "the crates: ARCHITECTURE.md (left) and cargo (right)"
    );
    let differences: Vec<String> = real
        .iter()
        .filter(|(name, depends_on)| documented[*name] != **depends_on)
        .map(|(name, depends_on)| {
            format!(
                "{name}: the map says {:?}, cargo says {depends_on:?}",
                documented[name]
            )
        })
        .collect();
    assert!(differences.is_empty(), "ARCHITECTURE.md: {differences:#?}");
}

#[test]
fn every_folder_in_crates_is_on_the_map_and_named_like_its_crate() {
    let folders = std::fs::read_dir(root().join("crates")).unwrap();
    let folders = folders
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect::<BTreeSet<_>>();
    let metadata = metadata();
    assert_eq!(folders, real(&metadata, &[]).into_keys().collect());
    for package in &metadata.packages {
        assert!(
            package
                .manifest_path
                .ends_with(format!("crates/{}/Cargo.toml", folder(&package.name))),
            "{}",
            package.name
        );
    }
}

#[test]
fn what_is_for_tests_only_stays_out_of_the_binary() {
    let real = real(
        &metadata(),
        &[DependencyKind::Normal, DependencyKind::Build],
    );
    let users: Vec<&String> = real
        .iter()
        .filter(|(_, depends_on)| depends_on.contains("testkit"))
        .map(|(name, _)| name)
        .collect();
    assert!(
        users.is_empty(),
        "{users:?} may have testkit under [dev-dependencies] only"
    );
}

#[test]
fn a_map_is_read_as_it_is_written() {
    let page = "# A\n\n## Crate map\n| crate | is | may depend on |\n|---|---|---|\n| `a` | x | – |\n| `b` | y | a, c-d |\n\n## Next\n| `z` | | a |\n";
    let expected = BTreeMap::from([
        ("a".to_owned(), set([])),
        ("b".to_owned(), set(["a", "c-d"])),
    ]);
    assert_eq!(documented(page), expected);
}
