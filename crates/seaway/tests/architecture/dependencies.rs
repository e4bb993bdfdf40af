//! Where dependencies come from and under which licences: the lists of deny.toml against `cargo metadata`, so that
//! they hold on machines without cargo-deny too.

use std::collections::BTreeMap;

use cargo_metadata::{CargoOpt, Package};
use serde::Deserialize;
use spdx::{Expression, ParseMode};

use super::{cargo_metadata, read};

/// What is read of deny.toml.
#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licenses,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
    clarify: Vec<Clarified>,
}

/// A licence that one crate may have.
#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

/// What a crate without a statement is under.
#[derive(Debug, Deserialize)]
struct Clarified {
    #[serde(rename = "crate")]
    name: String,
    expression: String,
}

impl Rules {
    fn read() -> Self {
        toml::from_str(&read("deny.toml")).expect("deny.toml is as this test reads it")
    }

    /// Why a crate under that licence may not be used.
    fn objection(&self, name: &str, license: Option<&str>) -> Option<String> {
        let clarified = self
            .licenses
            .clarify
            .iter()
            .find(|clarified| clarified.name == name);
        let Some(license) = license.or(clarified.map(|clarified| clarified.expression.as_str()))
        else {
            return Some("it states no licence".to_owned());
        };
        let expression = match Expression::parse_mode(license, ParseMode::LAX) {
            Ok(expression) => expression,
            Err(error) => return Some(format!("{license:?} cannot be read: {error}")),
        };
        let exceptions = self
            .licenses
            .exceptions
            .iter()
            .filter(|exception| exception.name == name);
        let allowed: Vec<&String> = self
            .licenses
            .allow
            .iter()
            .chain(exceptions.flat_map(|exception| &exception.allow))
            .collect();
        let is_allowed = expression.evaluate(|wanted| {
            allowed
                .iter()
                .any(|allowed| **allowed == wanted.to_string())
        });
        (!is_allowed).then(|| format!("{license} is not allowed"))
    }
}

fn dependencies() -> Vec<Package> {
    let command = &mut cargo_metadata();
    let platform = [
        "--filter-platform".to_owned(),
        format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
    ];
    command.features(CargoOpt::AllFeatures).other_options(
        ["--locked".to_owned()]
            .into_iter()
            .chain(platform)
            .collect::<Vec<_>>(),
    );
    let metadata = command.exec().expect("cargo metadata");
    let used: BTreeMap<_, _> = metadata
        .resolve
        .iter()
        .flat_map(|resolve| &resolve.nodes)
        .map(|node| (&node.id, ()))
        .collect();
    metadata
        .packages
        .iter()
        .filter(|package| used.contains_key(&package.id) && package.source.is_some())
        .cloned()
        .collect()
}

#[test]
fn every_licence_is_allowed() {
    let rules = Rules::read();
    let dependencies = dependencies();
    assert!(
        dependencies.len() > 100,
        "only {} dependencies found",
        dependencies.len()
    );
    let objections: Vec<String> = dependencies
        .iter()
        .filter_map(|package| {
            let objection = rules.objection(&package.name, package.license.as_deref())?;
            Some(format!("{} {}: {objection}", package.name, package.version))
        })
        .collect();
    assert!(objections.is_empty(), "see deny.toml: {objections:#?}");
}

#[test]
fn everything_comes_from_the_registry() {
    let elsewhere: Vec<String> = dependencies()
        .into_iter()
        .filter(|package| {
            !package
                .source
                .as_ref()
                .is_some_and(cargo_metadata::Source::is_crates_io)
        })
        .map(|package| format!("{}: {:?}", package.name, package.source))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

#[test]
fn licences_are_read_as_their_authors_mean_them() {
    let rules: Rules = toml::from_str(
        r#"
        [licenses]
        allow = ["MIT", "Apache-2.0 WITH LLVM-exception"]
        exceptions = [{ crate = "special", allow = ["MPL-2.0"] }]
        clarify = [{ crate = "silent", expression = "MIT" }]
        "#,
    )
    .unwrap();
    for (name, license, is_allowed) in [
        ("a", Some("MIT"), true),
        ("a", Some("MIT OR GPL-3.0-only"), true),
        ("a", Some("MIT/GPL-3.0"), true),
        ("a", Some("MIT AND GPL-3.0-only"), false),
        ("a", Some("Apache-2.0"), false),
        ("a", Some("Apache-2.0 WITH LLVM-exception"), true),
        ("a", Some("MPL-2.0"), false),
        ("special", Some("MPL-2.0"), true),
        ("a", Some("what the author likes"), false),
        ("a", None, false),
        ("silent", None, true),
    ] {
        assert_eq!(
            rules.objection(name, license).is_none(),
            is_allowed,
            "{name} {license:?}"
        );
    }
}
