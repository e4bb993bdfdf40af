//! The OpenAPI documents: what `kubectl explain` prints, where kubectl learns that the server checks fields itself,
//! and by which keys `kubectl apply` merges lists.
//!
//! A document is made when it is first asked for and then kept. Its address in the index carries a hash of its
//! content, so that clients keep it for as long as it is true.
//! Source: KEP-2896 (OpenAPI v3).

mod operations;
mod schemas;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use seaway_objects::kind::Kind;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use self::schemas::Dialect;
use crate::reply::{self, JSON, Reply};
use crate::status::ApiError;

/// The version that the documents say the API has.
const VERSION: &str = "v1.36.0";

/// The documents of all kinds that are served.
pub(crate) struct OpenApi {
    /// By path: `api/v1`, `apis/apps/v1`.
    v3: BTreeMap<String, Arc<Group>>,
    index: OnceLock<Bytes>,
    v2: OnceLock<Document>,
}

/// The kinds of one group and version, and their document.
struct Group {
    kinds: Vec<Arc<dyn Kind>>,
    document: OnceLock<Document>,
}

/// A document as it is sent.
struct Document {
    bytes: Bytes,
    hash: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let bytes = Bytes::from(value.to_string());
        let hash = hex::encode_upper(Sha256::digest(&bytes));
        Self { bytes, hash }
    }

    fn reply(&self, headers: &HeaderMap) -> Reply {
        let tag = format!("\"{}\"", self.hash);
        let known = headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok());
        let mut reply = if known == Some(tag.as_str()) {
            reply::bytes(StatusCode::NOT_MODIFIED, JSON, Bytes::new())
        } else {
            reply::bytes(StatusCode::OK, JSON, self.bytes.clone())
        };
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            reply.headers_mut().insert(ETAG, tag);
        }
        reply
    }
}

/// The protobuf form of version 2, as clients of Kubernetes ask for it.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The same in a reply: a media type must not have an `@` (RFC 6838), and Go refuses to read one that has.
const PROTOBUF_REPLY: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

impl OpenApi {
    /// The documents of these kinds; nothing is made yet. Those of groups that are as they were `before` are kept.
    pub(crate) fn new(kinds: &[Arc<dyn Kind>], before: Option<&Self>) -> Self {
        let mut groups: BTreeMap<String, Vec<Arc<dyn Kind>>> = BTreeMap::new();
        for kind in kinds {
            let group = groups.entry(operations::root(kind.names())).or_default();
            group.push(Arc::clone(kind));
        }
        let document = |(path, kinds): (String, Vec<Arc<dyn Kind>>)| {
            let known = before.and_then(|b| b.v3.get(&path));
            let same = |known: &&Arc<Group>| {
                known.kinds.len() == kinds.len()
                    && std::iter::zip(&known.kinds, &kinds).all(|(a, b)| Arc::ptr_eq(a, b))
            };
            let group = known.filter(same).cloned().unwrap_or_else(|| {
                Arc::new(Group {
                    kinds,
                    document: OnceLock::new(),
                })
            });
            (path, group)
        };
        Self {
            v3: groups.into_iter().map(document).collect(),
            index: OnceLock::new(),
            v2: OnceLock::new(),
        }
    }

    /// `/openapi/v3`: where the documents are.
    pub(crate) fn v3(&self) -> Reply {
        let index = self.index.get_or_init(|| {
            let paths: Map<String, Value> = self
                .v3
                .iter()
                .map(|(path, group)| {
                    let hash = &group.document().hash;
                    let url = format!("/openapi/v3/{path}?hash={hash}");
                    (path.clone(), json!({"serverRelativeURL": url}))
                })
                .collect();
            Bytes::from(json!({"paths": paths}).to_string())
        });
        reply::bytes(StatusCode::OK, JSON, index.clone())
    }

    /// `/openapi/v3/<path>`: everything of one group and version.
    pub(crate) fn v3_document(&self, path: &str, headers: &HeaderMap) -> Reply {
        let Some(group) = self.v3.get(path) else {
            return reply::nothing_there();
        };
        if !accepts_json(headers) {
            return reply::error(&ApiError::not_acceptable(&[JSON]));
        }
        let mut reply = group.document().reply(headers);
        // The address changes with the content.
        let forever = HeaderValue::from_static("public, immutable");
        reply.headers_mut().insert(CACHE_CONTROL, forever);
        reply
    }

    /// `/openapi/v2`: everything in one document, as JSON. kubectl asks for the protobuf form, and only when version 3
    /// does not know the kind it was given; the answer is a document without definitions, so that kubectl goes on and
    /// says itself that there is no such kind.
    pub(crate) fn v2(&self, headers: &HeaderMap) -> Reply {
        if accepts(headers, &[PROTOBUF]) {
            return reply::bytes(
                StatusCode::OK,
                PROTOBUF_REPLY,
                document_without_definitions(),
            );
        }
        if !accepts_json(headers) {
            return reply::error(&ApiError::not_acceptable(&[JSON, PROTOBUF]));
        }
        self.v2
            .get_or_init(|| Document::new(&self.swagger()))
            .reply(headers)
    }

    fn swagger(&self) -> Value {
        let kinds: Vec<&Arc<dyn Kind>> = self.v3.values().flat_map(|g| &g.kinds).collect();
        json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": operations::paths(&kinds, Dialect::V2),
            "definitions": schemas::schemas(&kinds, Dialect::V2),
        })
    }
}

impl Group {
    fn document(&self) -> &Document {
        self.document.get_or_init(|| {
            let kinds: Vec<&Arc<dyn Kind>> = self.kinds.iter().collect();
            Document::new(&json!({
                "openapi": "3.0.0",
                "info": {"title": "Kubernetes", "version": VERSION},
                "paths": operations::paths(&kinds, Dialect::V3),
                "components": {"schemas": schemas::schemas(&kinds, Dialect::V3)},
            }))
        })
    }
}

/// Whether the client takes JSON, which is so unless it lists what it takes and JSON is not there.
fn accepts_json(headers: &HeaderMap) -> bool {
    !headers.contains_key(ACCEPT) || accepts(headers, &["", "*/*", "application/*", JSON])
}

/// Whether the client lists one of these media types.
fn accepts(headers: &HeaderMap, media_types: &[&str]) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.unwrap_or_default().split(',').any(|range| {
        let media_type = range.split(';').next().unwrap_or_default().trim();
        media_types.contains(&media_type)
    })
}

/// The protobuf form of `{"swagger": "2.0", "info": {"title": …, "version": …}}`.
/// Source: gnostic `openapi_v2.proto`: `Document` has swagger = 1 and info = 2, `Info` has title = 1 and version = 2.
fn document_without_definitions() -> Vec<u8> {
    let info = [field(1, b"Kubernetes"), field(2, VERSION.as_bytes())].concat();
    [field(1, b"2.0"), field(2, &info)].concat()
}

/// A protobuf field of wire type 2 (length-delimited), shorter than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    debug_assert!(
        content.len() < 128,
        "longer lengths take more than one byte"
    );
    let mut bytes = vec![number << 3 | 2, content.len() as u8];
    bytes.extend(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaway_objects::kinds;
    use std::collections::BTreeSet;

    fn document(path: &str) -> Value {
        let api = OpenApi::new(&kinds::registry(), None);
        serde_json::from_slice(&api.v3[path].document().bytes).expect("JSON")
    }

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|v| references(v, found));
            }
            Value::Array(list) => list.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let api = OpenApi::new(&kinds::registry(), None);
        let v3 = api.v3.values().map(|g| g.document());
        let v2 = Document::new(&api.swagger());
        for document in v3.chain([&v2]) {
            let document: Value = serde_json::from_slice(&document.bytes).expect("JSON");
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(found.len() > 10);
            for reference in found {
                let pointer = reference.strip_prefix('#').expect("inside the document");
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
        }
    }

    #[test]
    fn kubectl_finds_that_fields_are_checked_by_the_server() {
        let document = document("apis/apps/v1");
        let patch =
            &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "kind": "Deployment", "version": "v1"})
        );
        let parameters = patch["parameters"].as_array().expect("a list");
        assert!(
            parameters
                .iter()
                .any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
        );
    }

    #[test]
    fn kubectl_finds_by_which_key_lists_are_merged() {
        let document = document("api/v1");
        let schemas = &document["components"]["schemas"];
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(
            schemas["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"],
            json!([{"group": "", "kind": "Pod", "version": "v1"}])
        );
        assert_eq!(
            schemas["io.k8s.api.core.v1.PodList"]["properties"]["items"]["items"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.api.core.v1.Pod"
        );
    }

    #[test]
    fn the_index_names_every_version_and_its_hash() {
        let api = OpenApi::new(&kinds::registry(), None);
        let kinds = kinds::registry();
        let expected: BTreeSet<String> =
            kinds.iter().map(|k| operations::root(k.names())).collect();
        assert!(expected.contains("api/v1") && expected.contains("apis/extensions/v1beta1"));
        assert!(api.v3.keys().eq(&expected));
        for group in api.v3.values() {
            assert_eq!(group.document().hash.len(), 128 / 2);
        }
    }

    #[test]
    fn version_2_is_json_or_a_document_without_definitions() {
        let api = OpenApi::new(&kinds::registry(), None);
        let ask = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            api.v2(&headers).status()
        };
        assert_eq!(ask("text/plain"), StatusCode::NOT_ACCEPTABLE);
        assert_eq!(ask("application/json"), StatusCode::OK);
        assert_eq!(ask(PROTOBUF), StatusCode::OK);
        let bytes = document_without_definitions();
        assert!(bytes.starts_with(b"\x0a\x032.0\x12"), "{bytes:?}");
        assert_eq!(usize::from(bytes[6]), bytes.len() - 7);
    }

    #[test]
    fn what_a_client_has_is_not_sent_again() {
        let api = OpenApi::new(&kinds::registry(), None);
        let first = api.v3_document("api/v1", &HeaderMap::new());
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!(
            api.v3_document("api/v1", &headers).status(),
            StatusCode::NOT_MODIFIED
        );
        assert_eq!(
            api.v3_document("apis/none/v1", &headers).status(),
            StatusCode::NOT_FOUND
        );
    }
}
