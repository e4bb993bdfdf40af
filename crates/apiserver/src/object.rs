//! How objects are stored, and how what is stored becomes JSON again.
//!
//! The store keeps each object as compact JSON without `apiVersion`, `kind` and `resourceVersion`, with its metadata
//! first. So the same bytes serve as an item of a list (which has no type), as an object of its own and in a watch
//! event: what is missing is written in front, and nothing has to be parsed on the way out.

use bytes::Bytes;
use serde_json::{Map, Value};

use seaway_objects::kind::Names;
use seaway_store::Record;

use crate::negotiate::MetaVersion;
use crate::status::ApiError;

/// What every stored object begins with. Metadata is never empty: there is a name.
const BEGIN: &[u8] = b"{\"metadata\":{";

/// `apps/v1`, or `v1` for the core group.
pub(crate) fn api_version(names: &Names) -> String {
    if names.group.is_empty() {
        names.version.to_owned()
    } else {
        format!("{}/{}", names.group, names.version)
    }
}

/// The stored form of an object.
pub(crate) fn encode(object: &Value) -> Result<Bytes, ApiError> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(BEGIN);
    let write = |out: &mut Vec<u8>, key: &str, value: &Value| -> Result<(), ApiError> {
        serde_json::to_writer(&mut *out, key).map_err(ApiError::internal)?;
        out.push(b':');
        serde_json::to_writer(out, value).map_err(ApiError::internal)
    };
    let metadata = object["metadata"]
        .as_object()
        .filter(|m| m.contains_key("name"));
    let metadata =
        metadata.ok_or_else(|| ApiError::internal("an object without a name cannot be stored"))?;
    for (index, (key, value)) in metadata
        .iter()
        .filter(|(key, _)| *key != "resourceVersion")
        .enumerate()
    {
        if index > 0 {
            out.push(b',');
        }
        write(&mut out, key, value)?;
    }
    out.push(b'}');
    for (key, value) in object.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            out.push(b',');
            write(&mut out, key, value)?;
        }
    }
    out.push(b'}');
    // Objects stay for long: what the vector has too much goes back.
    Ok(Bytes::from(out.into_boxed_slice()))
}

/// The object that is stored in a record.
pub(crate) fn decode(names: &Names, record: &Record) -> Result<Value, ApiError> {
    let damaged = |what: &dyn std::fmt::Display| {
        ApiError::internal(format!(
            "{} in the store is not an object: {what}",
            record.key
        ))
    };
    let mut object: Map<String, Value> =
        serde_json::from_slice(&record.value).map_err(|e| damaged(&e))?;
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let metadata = metadata.ok_or_else(|| damaged(&"it has no metadata"))?;
    metadata.insert(
        "resourceVersion".to_owned(),
        record.revision.to_string().into(),
    );
    object.insert("apiVersion".to_owned(), api_version(names).into());
    object.insert("kind".to_owned(), names.kind.into());
    Ok(Value::Object(object))
}

/// Writes a stored object as JSON. `head` is what [`head`] made, or empty for an item of a list.
pub(crate) fn render(out: &mut Vec<u8>, head: &str, stored: &[u8], revision: u64) {
    let rest = stored.strip_prefix(BEGIN).unwrap_or(b"}}");
    out.push(b'{');
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(b"\"metadata\":{\"resourceVersion\":\"");
    out.extend_from_slice(revision.to_string().as_bytes());
    out.extend_from_slice(b"\",");
    out.extend_from_slice(rest);
}

/// The metadata of a stored object, as JSON.
pub(crate) fn metadata_of(stored: &[u8]) -> &[u8] {
    let Some(rest) = stored.strip_prefix(BEGIN) else {
        return b"{}";
    };
    let (mut depth, mut quoted, mut escaped) = (1_usize, false, false);
    for (at, byte) in rest.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return &stored[BEGIN.len() - 1..=BEGIN.len() + at];
                }
            }
            _ => {}
        }
    }
    b"{}"
}

/// Writes the metadata of a stored object as an object of its own, see [`crate::table::partial`].
pub(crate) fn render_metadata(out: &mut Vec<u8>, meta: MetaVersion, stored: &[u8], revision: u64) {
    out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"");
    out.extend_from_slice(meta.api_version().as_bytes());
    out.extend_from_slice(b"\",\"metadata\":{\"resourceVersion\":\"");
    out.extend_from_slice(revision.to_string().as_bytes());
    out.push(b'"');
    match metadata_of(stored).strip_prefix(b"{") {
        Some(rest) if rest != b"}" => {
            out.push(b',');
            out.extend_from_slice(rest);
        }
        _ => out.push(b'}'),
    }
    out.push(b'}');
}

/// The type of an object as JSON members.
pub(crate) fn head(names: &Names) -> String {
    format!(
        "\"kind\":\"{}\",\"apiVersion\":\"{}\",",
        names.kind,
        api_version(names)
    )
}

/// The revision in `metadata.resourceVersion`; empty if there is none.
pub(crate) fn version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// A string somewhere in an object; empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The object's metadata, made if there is none.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    match metadata {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    const PODS: Names = Names {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &[],
        categories: &[],
        namespaced: true,
    };

    #[test]
    fn what_is_stored_comes_back_with_its_type_and_revision() {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a\"b", "resourceVersion": "3"},
            "spec": {"x": [1, null]}});
        let stored = encode(&object).unwrap();
        let mut expected = object.clone();
        expected["metadata"]["resourceVersion"] = json!("7");
        let record = Record {
            key: Arc::from("core/pods/d/a"),
            revision: 7,
            value: stored.clone(),
        };
        assert_eq!(decode(&PODS, &record).unwrap(), expected);

        let mut out = Vec::new();
        render(&mut out, &head(&PODS), &stored, 7);
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
    }

    #[test]
    fn metadata_is_found_without_reading_the_rest() {
        let object =
            json!({"metadata": {"name": "a\"}{", "labels": {"b": "\\"}}, "spec": {"x": "}"}});
        let stored = encode(&object).unwrap();
        let found: Value = serde_json::from_slice(metadata_of(&stored)).unwrap();
        assert_eq!(found, object["metadata"]);
        let mut out = Vec::new();
        render_metadata(&mut out, MetaVersion::V1, &stored, 7);
        let mut expected = object["metadata"].clone();
        expected["resourceVersion"] = json!("7");
        assert_eq!(
            serde_json::from_slice::<Value>(&out).unwrap(),
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": expected})
        );
    }

    #[test]
    fn an_object_without_a_name_is_refused() {
        assert!(encode(&json!({"metadata": {}})).is_err());
    }
}
