//! Which groups, versions and resources there are: the documents by which clients find their way. They are made
//! once for what is served at one time.
//! Source: Kubernetes API concepts, "API Discovery"; API reference, `APIGroupDiscoveryList` (apidiscovery.k8s.io/v2).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use seaway_objects::kind::Names;

use crate::negotiate::{Accept, Form};
use crate::registry::{Kinds, Resource};
use crate::reply::{self, Reply};
use crate::subresource::{SUBRESOURCES, Subresource};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

/// All documents.
pub(crate) struct Discovery {
    core_versions: Value,
    groups: Value,
    group: BTreeMap<&'static str, Value>,
    resources: BTreeMap<(&'static str, &'static str), Value>,
    core_aggregated: Aggregated,
    aggregated: Aggregated,
}

struct Aggregated {
    text: String,
    etag: String,
}

impl Discovery {
    /// `address` is where clients reach the server.
    pub(crate) fn new(registry: &Kinds, address: &str) -> Self {
        let groups: Vec<_> = registry.groups().collect();
        let (mut group, mut resources) = (BTreeMap::new(), BTreeMap::new());
        for (name, versions) in &groups {
            for version in versions {
                resources.insert((*name, *version), resource_list(registry, name, version));
            }
            if !name.is_empty() {
                group.insert(*name, group_document(name, versions));
            }
        }
        Self {
            core_versions: json!({
                "kind": "APIVersions",
                "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
            }),
            groups: json!({
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": groups.iter().filter_map(|(name, _)| group.get(name)).map(without_type).collect::<Vec<_>>(),
            }),
            group,
            resources,
            core_aggregated: Aggregated::new(
                registry,
                groups.iter().filter(|(name, _)| name.is_empty()),
            ),
            aggregated: Aggregated::new(
                registry,
                groups.iter().filter(|(name, _)| !name.is_empty()),
            ),
        }
    }

    /// `/api`
    pub(crate) fn core_versions(&self, accept: Accept, headers: &HeaderMap) -> Reply {
        if accept.form == Form::AggregatedDiscovery {
            return self.core_aggregated.reply(headers);
        }
        reply::value(StatusCode::OK, accept.encoding, &self.core_versions)
    }

    /// `/apis`
    pub(crate) fn groups(&self, accept: Accept, headers: &HeaderMap) -> Reply {
        if accept.form == Form::AggregatedDiscovery {
            return self.aggregated.reply(headers);
        }
        reply::value(StatusCode::OK, accept.encoding, &self.groups)
    }

    /// `/apis/<group>`
    pub(crate) fn group(&self, accept: Accept, group: &str) -> Reply {
        match self.group.get(group) {
            Some(document) => reply::value(StatusCode::OK, accept.encoding, document),
            None => reply::nothing_there(),
        }
    }

    /// `/api/v1`, `/apis/<group>/<version>`
    pub(crate) fn resources(&self, accept: Accept, group: &str, version: &str) -> Reply {
        match self.resources.get(&(group, version)) {
            Some(document) => reply::value(StatusCode::OK, accept.encoding, document),
            None => reply::nothing_there(),
        }
    }
}

impl Aggregated {
    fn new<'a>(
        registry: &Kinds,
        groups: impl Iterator<Item = &'a (&'static str, Vec<&'static str>)>,
    ) -> Self {
        let items: Vec<Value> = groups
            .map(|(name, versions)| {
                let versions: Vec<Value> = versions
                    .iter()
                    .map(|version| {
                        let resources = aggregated_resources(registry, name, version);
                        json!({"version": version, "resources": resources, "freshness": "Current"})
                    })
                    .collect();
                let mut metadata = json!({"creationTimestamp": null});
                if !name.is_empty() {
                    metadata["name"] = json!(name);
                }
                json!({"metadata": metadata, "versions": versions})
            })
            .collect();
        let document = json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": items,
        });
        let text = format!("{document}\n");
        let etag = format!("\"{}\"", hex::encode_upper(Sha256::digest(text.as_bytes())));
        Self { text, etag }
    }

    fn reply(&self, headers: &HeaderMap) -> Reply {
        let known = headers
            .get(IF_NONE_MATCH)
            .is_some_and(|tag| tag.as_bytes() == self.etag.as_bytes());
        let mut reply = if known {
            reply::bytes(StatusCode::NOT_MODIFIED, AGGREGATED, "")
        } else {
            reply::bytes(StatusCode::OK, AGGREGATED, self.text.clone())
        };
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            reply.headers_mut().insert(ETAG, etag);
        }
        reply
            .headers_mut()
            .insert(VARY, HeaderValue::from_static("Accept"));
        reply
    }
}

fn group_document(name: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
        .collect();
    json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "preferredVersion": versions.first(),
        "versions": versions,
    })
}

fn without_type(document: &Value) -> Value {
    crate::verbs::list::untyped(document.clone())
}

fn resource_list(registry: &Kinds, group: &str, version: &str) -> Value {
    let mut resources: Vec<Value> = Vec::new();
    for resource in registry.version(group, version).unwrap_or_default() {
        let names = resource.names;
        let mut entry = json!({
            "name": names.plural,
            "singularName": names.singular,
            "namespaced": names.namespaced,
            "kind": names.kind,
            "verbs": verbs(resource),
        });
        if !names.short_names.is_empty() {
            entry["shortNames"] = json!(names.short_names);
        }
        if !names.categories.is_empty() {
            entry["categories"] = json!(names.categories);
        }
        if let Some(hash) = storage_version_hash(resource) {
            entry["storageVersionHash"] = hash.into();
        }
        resources.push(entry);
        for part in parts(resource) {
            let mut entry = json!({
                "name": format!("{}/{}", names.plural, part.name),
                "singularName": "",
                "namespaced": names.namespaced,
                "kind": part.kind,
                "verbs": part.verbs,
            });
            if let Some((group, version)) = part.group_version {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            resources.push(entry);
        }
    }
    if group.is_empty() {
        for door in SUBRESOURCES.iter().filter(|s| s.resource.is_empty()) {
            resources.push(json!({
                "name": door.name,
                "singularName": door.kind.to_lowercase(),
                "namespaced": true,
                "kind": door.kind,
                "verbs": door.verbs,
            }));
        }
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let mut list =
        json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = json!("v1");
    }
    list
}

fn aggregated_resources(registry: &Kinds, group: &str, version: &str) -> Vec<Value> {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let mut resources: Vec<Value> = Vec::new();
    for resource in registry.version(group, version).unwrap_or_default() {
        let names = resource.names;
        let mut entry = Map::new();
        entry.insert("resource".to_owned(), json!(names.plural));
        entry.insert("responseKind".to_owned(), kind(group, version, names.kind));
        entry.insert("scope".to_owned(), json!(scope(names.namespaced)));
        entry.insert("singularResource".to_owned(), json!(names.singular));
        entry.insert("verbs".to_owned(), json!(verbs(resource)));
        if !names.short_names.is_empty() {
            entry.insert("shortNames".to_owned(), json!(names.short_names));
        }
        if !names.categories.is_empty() {
            entry.insert("categories".to_owned(), json!(names.categories));
        }
        let subresources: Vec<Value> = parts(resource)
            .iter()
            .map(|part| {
                let (group, version) = part.group_version.unwrap_or((group, version));
                json!({"subresource": part.name, "responseKind": kind(group, version, part.kind), "verbs": part.verbs})
            })
            .collect();
        if !subresources.is_empty() {
            entry.insert("subresources".to_owned(), Value::Array(subresources));
        }
        resources.push(Value::Object(entry));
    }
    if group.is_empty() {
        for door in SUBRESOURCES.iter().filter(|s| s.resource.is_empty()) {
            resources.push(json!({
                "resource": door.name,
                "responseKind": kind("", version, door.kind),
                "scope": "Namespaced",
                "singularResource": door.kind.to_lowercase(),
                "verbs": door.verbs,
            }));
        }
    }
    resources.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
    resources
}

/// Tells clients which version is stored, and so whether two resources are the same objects; `None` if nothing is.
/// Source: `StorageVersionHash` in `k8s.io/apiserver/pkg/endpoints/discovery`.
fn storage_version_hash(resource: &Resource) -> Option<String> {
    let Names {
        group,
        version,
        kind,
        ..
    } = resource.stored;
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    let is_stored = verbs(resource).contains(&"list");
    is_stored.then(|| STANDARD.encode(&digest[..8]))
}

fn verbs(resource: &Resource) -> Vec<&'static str> {
    if let Some(verbs) = resource.kind.verbs() {
        return verbs.to_vec();
    }
    let collection = crate::router::has_delete_collection(resource.names);
    VERBS
        .into_iter()
        .filter(|verb| *verb != "deletecollection" || collection)
        .collect()
}

/// The subresources of a resource.
fn parts(resource: &Resource) -> Vec<Subresource> {
    let names = resource.names;
    let mut parts: Vec<Subresource> = Vec::new();
    if names.group.is_empty() {
        parts.extend(SUBRESOURCES.iter().filter(|s| s.resource == names.plural));
    }
    let own = |name, kind, group_version| Subresource {
        resource: names.plural,
        name,
        kind,
        group_version,
        verbs: &PART_VERBS,
    };
    if resource.kind.has_status() {
        parts.push(own("status", names.kind, None));
    }
    if resource.kind.scale().is_some() {
        parts.push(own("scale", "Scale", Some(("autoscaling", "v1"))));
    }
    parts.sort_by_key(|part| part.name);
    parts
}
