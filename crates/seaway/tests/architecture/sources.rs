//! Rules for source files that the compiler does not know, or that somebody could switch off.

use super::{files, read, root};

/// Spelled in two parts, so that this file keeps the rule it checks.
const KEYWORD: &str = concat!("un", "safe");

/// A line without its comment and without what is between double quotes.
fn code(line: &str) -> String {
    let line = line.replace("\\\\", "").replace("\\\"", "");
    let outside: Vec<&str> = line.split('"').step_by(2).collect();
    let outside = outside.join("\"\"");
    outside.split("//").next().unwrap_or_default().to_owned()
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .any(|found| found == word)
}

#[test]
fn the_keyword_is_in_the_kernel_crate_only() {
    let kernel = root().join("crates/kernel");
    let mut found = Vec::new();
    for file in files("crates", ".rs")
        .into_iter()
        .filter(|file| !file.starts_with(&kernel))
    {
        let text = read(&file);
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| has_word(&code(line), KEYWORD));
        found.extend(lines.map(|(number, _)| format!("{}:{}", file.display(), number + 1)));
    }
    assert!(
        found.is_empty(),
        "{KEYWORD} code belongs into crates/kernel: {found:#?}"
    );
}

#[test]
fn every_other_crate_takes_the_workspaces_lints() {
    let workspace: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    assert_eq!(
        workspace["workspace"]["lints"]["rust"][&format!("{KEYWORD}_code")].as_str(),
        Some("forbid")
    );
    for manifest in files("crates", "Cargo.toml") {
        let text = read(&manifest);
        let table: toml::Table =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", manifest.display()));
        let inherits = table
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(toml::Value::as_bool);
        let is_kernel = manifest.ends_with("crates/kernel/Cargo.toml");
        assert!(
            is_kernel || inherits == Some(true),
            "{} needs `[lints] workspace = true`",
            manifest.display()
        );
    }
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent: Vec<_> = files("crates", ".rs")
        .into_iter()
        .filter(|file| !read(file).starts_with("//! "))
        .collect();
    assert!(
        silent.is_empty(),
        "the first line is `//! what this file is for` in all but {silent:#?}"
    );
}

#[test]
fn no_file_or_folder_is_a_drawer() {
    let drawers = [
        "util", "utils", "misc", "common", "helper", "helpers", "handy",
    ];
    for file in files("crates", ".rs") {
        for name in file.strip_prefix(root()).unwrap().with_extension("").iter() {
            assert!(
                !drawers.contains(&name.to_string_lossy().as_ref()),
                "{}: name what is in it",
                file.display()
            );
        }
    }
}

#[test]
fn nothing_is_left_to_do_quietly() {
    let marks = [
        concat!("#[", "ignore"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    for file in files("crates", ".rs") {
        let text = read(&file);
        for mark in marks {
            assert!(!text.contains(mark), "{} has {mark}", file.display());
        }
    }
}

/// `./test` runs no examples in documentation, so there must be none that look as if they were tested.
#[test]
fn examples_in_documentation_are_marked_as_text() {
    for file in files("crates", ".rs") {
        let text = read(&file);
        let comments = text
            .lines()
            .map(str::trim)
            .filter_map(|line| line.strip_prefix("//!").or(line.strip_prefix("///")));
        let opening = comments
            .filter_map(|comment| comment.trim().strip_prefix("```"))
            .step_by(2);
        for language in opening {
            assert!(
                !["", "rust", "no_run", "should_panic"].contains(&language),
                "{}: ```text",
                file.display()
            );
        }
    }
}

#[test]
fn a_word_in_a_comment_or_in_quotes_is_not_code() {
    for (line, expected) in [
        ("unsafe { x() }", true),
        ("let x = 1; unsafe fn y() {}", true),
        ("\"quoted\"; unsafe {}", true),
        ("// unsafe", false),
        ("x(); // unsafe", false),
        ("\"unsafe\"", false),
        ("\"a \\\" unsafe\"", false),
        ("#![deny(unsafe_code)]", false),
    ] {
        let line = line.replace("unsafe", KEYWORD);
        assert_eq!(has_word(&code(&line), KEYWORD), expected, "{line}");
    }
}
