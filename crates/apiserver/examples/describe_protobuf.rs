//! Makes `src/protobuf/messages.txt`: the messages of the Kubernetes API, as numbers and JSON names of their fields.
//!
//! `cargo run -p seaway-apiserver --example describe_protobuf -- API APIMACHINERY > crates/apiserver/src/protobuf/messages.txt`
//! where the arguments are checkouts of github.com/kubernetes/api and github.com/kubernetes/apimachinery.
//!
//! Types and numbers come from `generated.proto`; JSON names, and whether zero is left out of JSON, from the tags in
//! `types.go`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

const GROUPS: [(&str, &str); 14] = [
    ("apps", "apps"),
    ("authentication", "authentication.k8s.io"),
    ("authorization", "authorization.k8s.io"),
    ("autoscaling", "autoscaling"),
    ("batch", "batch"),
    ("coordination", "coordination.k8s.io"),
    ("core", ""),
    ("discovery", "discovery.k8s.io"),
    ("events", "events.k8s.io"),
    ("networking", "networking.k8s.io"),
    ("policy", "policy"),
    ("rbac", "rbac.authorization.k8s.io"),
    ("scheduling", "scheduling.k8s.io"),
    ("storage", "storage.k8s.io"),
];

/// Older versions of which some messages are needed: directory, group, version, and how the names of
/// those begin, after `HTTP` where that is before it.
const OLDER: [(&str, &str, &str, &str); 2] = [
    ("extensions", "extensions", "v1beta1", "Ingress"),
    ("networking", "networking.k8s.io", "v1beta1", "Ingress"),
];

/// What `types.go` says of a field.
struct Tag {
    /// Empty: the fields of the value are fields of the object.
    json: String,
    /// Whether zero is left out.
    omitted: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let api = arguments
        .next()
        .ok_or("which checkout of kubernetes/api?")?;
    let machinery = arguments
        .next()
        .ok_or("which checkout of kubernetes/apimachinery?")?;
    println!(
        "# Made by examples/describe_protobuf.rs from the Kubernetes API (Apache-2.0). Do not edit."
    );
    for (directory, group) in GROUPS {
        let package = if group.is_empty() {
            "v1".to_owned()
        } else {
            format!("{group}/v1")
        };
        describe(&Path::new(&api).join(directory).join("v1"), &package, "")?;
    }
    for (directory, group, version, word) in OLDER {
        let package = format!("{group}/{version}");
        describe(
            &Path::new(&api).join(directory).join(version),
            &package,
            word,
        )?;
    }
    describe(&Path::new(&machinery).join("pkg/apis/meta/v1"), "meta", "")
}

/// Prints the messages whose names begin with `word`.
fn describe(directory: &Path, package: &str, word: &str) -> Result<(), Box<dyn Error>> {
    let tags = tags(&std::fs::read_to_string(directory.join("types.go"))?);
    let proto = std::fs::read_to_string(directory.join("generated.proto"))?;
    let wanted = |name: &str| name.trim_start_matches("HTTP").starts_with(word);
    let mut message = "";
    for line in proto.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("message ") {
            message = name.trim_end_matches([' ', '{']);
            if wanted(message) {
                println!("{package}.{message}");
            }
        } else if !wanted(message) {
            // Of a message that is not wanted.
        } else if let Some((field, number)) =
            line.strip_suffix(';').and_then(|l| l.split_once(" = "))
        {
            let Some((kind, _name)) = field.rsplit_once(' ') else {
                continue;
            };
            if !["optional ", "repeated ", "required ", "map<"]
                .iter()
                .any(|p| kind.starts_with(p))
            {
                continue;
            }
            let number: u32 = number.parse()?;
            let name = match tags.get(&(message.to_owned(), number)) {
                Some(tag) if tag.json.is_empty() => ".".to_owned(),
                Some(tag) => format!("{}{}", tag.json, if tag.omitted { "?" } else { "" }),
                // A named list: the message is the list.
                None => "=".to_owned(),
            };
            println!(" {number} {name} {}", kind_of(kind, package)?);
        }
    }
    Ok(())
}

fn kind_of(kind: &str, package: &str) -> Result<String, Box<dyn Error>> {
    if let Some(entry) = kind.strip_prefix("map<") {
        let (_, value) = entry
            .trim_end_matches('>')
            .split_once(", ")
            .ok_or("a map without a value")?;
        return Ok(format!("map:{}", name_of(value, package)));
    }
    let (label, name) = kind.split_once(' ').ok_or("a field without a label")?;
    let list = if label == "repeated" { "[]" } else { "" };
    Ok(format!("{list}{}", name_of(name, package)))
}

fn name_of(kind: &str, package: &str) -> String {
    if let Some(path) = kind.strip_prefix(".k8s.io.api.") {
        let mut parts = path.split('.');
        let (directory, name) = (
            parts.next().unwrap_or_default(),
            parts.next_back().unwrap_or_default(),
        );
        let group = GROUPS
            .iter()
            .find(|(d, _)| *d == directory)
            .map_or(directory, |(_, g)| g);
        return if group.is_empty() {
            format!("v1.{name}")
        } else {
            format!("{group}/v1.{name}")
        };
    }
    if kind.starts_with(".k8s.io.apimachinery.") {
        return format!("meta.{}", kind.rsplit('.').next().unwrap_or_default());
    }
    if kind.chars().next().is_some_and(char::is_uppercase) {
        format!("{package}.{kind}")
    } else {
        kind.to_owned()
    }
}

fn tags(go: &str) -> BTreeMap<(String, u32), Tag> {
    let mut tags = BTreeMap::new();
    let mut structure = String::new();
    for line in go.lines() {
        if let Some(name) = line
            .strip_prefix("type ")
            .and_then(|l| l.strip_suffix(" struct {"))
        {
            name.clone_into(&mut structure);
        }
        let (Some((code, _)), Some(json), Some(proto)) = (
            line.split_once('`'),
            between(line, "json:\""),
            between(line, "protobuf:\""),
        ) else {
            continue;
        };
        let Some(number) = proto.split(',').nth(1).and_then(|n| n.parse().ok()) else {
            continue;
        };
        let (json, options) = json.split_once(',').unwrap_or((json, ""));
        let pointer = code
            .split_whitespace()
            .last()
            .is_some_and(|kind| kind.starts_with('*'));
        let omitted = options
            .split(',')
            .any(|o| o == "omitempty" || o == "omitzero")
            && !pointer;
        tags.insert(
            (structure.clone(), number),
            Tag {
                json: json.to_owned(),
                omitted,
            },
        );
    }
    tags
}

fn between<'a>(line: &'a str, begin: &str) -> Option<&'a str> {
    line.split_once(begin)?.1.split('"').next()
}
