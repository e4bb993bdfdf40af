//! What a fuzzer calls: everything that reads bytes from outside, with what must hold whatever they are.
//!
//! `cargo fuzz` drives these functions for as long as somebody wants (see `fuzz/README.md`); the test
//! `what_is_thrown_at_the_server` drives the same functions for some seconds wherever the tests run.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use seaway_objects::kind::Kind;
use seaway_objects::kinds;
use seaway_objects::managed::{self, Schema, Set, Types, Writable};
use seaway_objects::patch;
use seaway_objects::selector::{FieldSelector, LabelSelector};

use crate::body;
use crate::object;
use crate::options::Options;
use crate::path::Target;
use crate::query::Query;
use crate::selection::Selection;
use crate::strict_json;
use crate::yaml;

/// A target: its name, as its corpus is called, and what it calls.
pub type Entry = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Entry; 4] = [
    ("bodies", bodies),
    ("patches", patches),
    ("selectors", selectors),
    ("requests", requests),
];

static KINDS: LazyLock<Vec<Arc<dyn Kind>>> = LazyLock::new(kinds::registry);

fn kind(byte: u8) -> &'static dyn Kind {
    &*KINDS[usize::from(byte) % KINDS.len()]
}

/// The body of a request: the first byte chooses the kind, the second JSON, YAML or protobuf.
pub fn bodies(data: &[u8]) {
    let [first, second, text @ ..] = data else {
        return;
    };
    let kind = kind(*first);
    let media_type = [
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
    ][usize::from(*second) % 3];
    let Ok(sent) = body::object(kind.names(), media_type, text) else {
        return;
    };
    let _ = kind.unknown_fields(&sent.object);
    let Ok(read) = kind.decode(sent.object) else {
        return;
    };
    assert_eq!(
        kind.decode(read.clone()).as_ref(),
        Ok(&read),
        "what was read is read as it is"
    );
    let mut object = read;
    kind.default(&mut object);
    let mut again = object.clone();
    kind.default(&mut again);
    assert_eq!(again, object, "what has its defaults gets no others");
    let owned = own(kind, None, None, &object);
    assert!(managed::Managed::read(owned.as_ref()).is_ok());
    kind.prepare_create(&mut object);
    let errors = kind.validate(&object);
    let _ = kind.validate_changed(&object, &again);
    let _ = kind.validate_status(&object, &again);
    assert_eq!(kind.cells(&object, 0).len(), kind.columns().len());
    let _ = kind.fields(&object);
    if errors.is_empty() {
        assert!(
            object::encode(&object).is_ok(),
            "what is valid can be stored"
        );
    }
}

/// A patch: the first byte chooses the kind, the first line is the object, and the rest is the patch.
pub fn patches(data: &[u8]) {
    let [first, text @ ..] = data else { return };
    let kind = kind(*first);
    let mut halves = text.splitn(2, |b| *b == b'\n');
    let (Some(object), Some(change)) = (halves.next(), halves.next()) else {
        return;
    };
    let (Ok((object, _)), Ok((change, _))) = (strict_json::parse(object), yaml::parse(change))
    else {
        return;
    };
    if !object.is_object() {
        return;
    }
    let _ = patch::json(&object, &change);
    if let Ok(merged) = patch::merge(&object, &change) {
        assert_eq!(
            patch::merge(&merged, &change).as_ref(),
            Ok(&merged),
            "merging twice is merging once"
        );
    }
    if let Ok(merged) = patch::strategic(kind, &object, &change) {
        let _ = kind.decode(merged);
    }
    applied(kind, &object, &change);
}

/// Applies the change to the object, and again: the second time nothing happens.
fn applied(kind: &dyn Kind, object: &Value, change: &Value) {
    let named = |value: &Value| {
        let mut value = value.clone();
        let names = kind.names();
        value["apiVersion"] = object::api_version(names).into();
        value["kind"] = names.kind.into();
        value
    };
    if !change.is_object() {
        return;
    }
    let Ok(mut live) = kind.decode(named(object)) else {
        return;
    };
    let config = named(change);
    let live_managed = managed::take(&mut live);
    let Ok(first) = apply(kind, &live, live_managed.as_ref(), &config) else {
        return;
    };
    let Ok(mut after) = kind.decode(first.object.unwrap_or_else(|| live.clone())) else {
        return;
    };
    managed::take(&mut after);
    // What is not valid is never stored, so nobody applies to it; its elements may have lost their keys.
    let mut stored = after.clone();
    stored["metadata"]["name"] = "fuzz".into();
    if kind.names().namespaced {
        stored["metadata"]["namespace"] = "fuzz".into();
    }
    if !kind.validate(&stored).is_empty() {
        return;
    }
    let second = apply(kind, &after, first.managed.as_ref(), &config);
    let second = second.expect("what was applied once can be applied again");
    assert_eq!(
        managed::Managed::read(second.managed.as_ref()).map(|m| m.managers),
        managed::Managed::read(first.managed.as_ref()).map(|m| m.managers),
        "applying twice owns what applying once owns"
    );
}

/// A kind in its one version.
struct Only<'a>(&'a dyn Kind);

impl Types for Only<'_> {
    fn schema(&self, api_version: &str) -> Option<Arc<Schema>> {
        (api_version == object::api_version(self.0.names())).then(|| self.0.typed())
    }

    fn convert(&self, _object: &Value, _api_version: &str) -> Option<Value> {
        None
    }
}

fn with<T>(kind: &dyn Kind, run: impl FnOnce(&managed::Write<'_>) -> T) -> T {
    run(&managed::Write {
        types: &Only(kind),
        api_version: &object::api_version(kind.names()),
        kind: kind.names().kind,
        subresource: "",
        writable: &Writable::AllBut(Set::default()),
        manager: "fuzzer",
        now: "2026-01-01T00:00:00Z",
    })
}

fn own(
    kind: &dyn Kind,
    live: Option<&Value>,
    managed: Option<&Value>,
    new: &Value,
) -> Option<Value> {
    let mut new = new.clone();
    let sent = managed::take(&mut new);
    with(kind, |write| {
        write.updated(live, managed, &new, sent.as_ref())
    })
}

fn apply(
    kind: &dyn Kind,
    live: &Value,
    managed: Option<&Value>,
    config: &Value,
) -> Result<managed::Applied, managed::ApplyError> {
    with(kind, |write| {
        write.applied(Some(live), managed, config, true)
    })
}

/// A selector of labels or fields; both are tried.
pub fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(selector) = LabelSelector::parse(text) {
        let labels = [("a".to_owned(), "b".to_owned())].into();
        let _ = selector.matches(&labels);
        let object = json!({"metadata": {"labels": {"a": "b"}}});
        assert_eq!(selector.matches_object(&object), selector.matches(&labels));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let _ = selector.wanted_name();
        for kind in KINDS.iter() {
            if selector.check(&**kind).is_ok() {
                let _ = selector.matches(&**kind, &json!({"metadata": {"name": "a"}}));
            }
        }
    }
}

/// The path and the query of a request.
pub fn requests(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*text, None),
    };
    let _ = Target::parse(path);
    let query = Query::parse(query);
    let _ = query.version();
    let _ = query.number("limit");
    let _ = Selection::parse(&query);
    for options in [
        Options::Create,
        Options::Update,
        Options::Patch,
        Options::Apply,
    ] {
        if options.check(&query).is_ok() {
            assert!(query.dry_run().is_ok() && query.field_validation().is_ok());
        }
    }
}
