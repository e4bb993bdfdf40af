//! The README claims nothing that no test shows: every test it names exists.

use std::path::Path;

/// Names of test functions below `dir`.
fn tests_below(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let mut lines = text.lines().map(str::trim);
            while let Some(line) = lines.next() {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    let function = lines.by_ref().find_map(|line| line.split_once("fn "));
                    if let Some((_, rest)) = function {
                        found.extend(rest.split(['(', '<']).next().map(str::to_owned));
                    }
                }
            }
        }
    }
}

#[test]
fn every_line_of_the_support_table_is_shown_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut tests = Vec::new();
    tests_below(&root.join("crates"), &mut tests);
    let readme = std::fs::read_to_string(root.join("README.md")).expect("README.md");
    let rows: Vec<&str> = readme
        .lines()
        .skip_while(|line| !line.starts_with("| what | shown by |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() > 10, "no support table in README.md");
    for row in rows {
        let names = row.rsplit('|').nth(1).unwrap_or_default();
        for name in names.split(',') {
            let name = name.trim().trim_matches('`');
            assert!(
                tests.iter().any(|test| test == name),
                "README.md names the test {name:?}, which does not exist"
            );
        }
    }
}
