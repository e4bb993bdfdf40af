//! What can be done on which path: for each kind the collection, the object and its subresources.

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Status};
use seaway_objects::kind::{Kind, Names};
use serde_json::{Map, Value, json};

use super::schemas::{Dialect, PATCH, list_name, name_of};

const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// `api/v1` or `apis/apps/v1`.
pub(super) fn root(names: &Names) -> String {
    if names.group.is_empty() {
        format!("api/{}", names.version)
    } else {
        format!("apis/{}/{}", names.group, names.version)
    }
}

/// All paths of the kinds.
pub(super) fn paths(kinds: &[&Arc<dyn Kind>], dialect: Dialect) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let kind = kind.as_ref();
        let names = kind.names();
        let top = format!("/{}", root(names));
        let collection = if names.namespaced {
            let everywhere = Operations::new(kind, dialect, "ForAllNamespaces", false);
            paths.insert(format!("{top}/{}", names.plural), everywhere.lists());
            format!("{top}/namespaces/{{namespace}}/{}", names.plural)
        } else {
            format!("{top}/{}", names.plural)
        };
        let operations = Operations::new(kind, dialect, "", names.namespaced);
        paths.insert(collection.clone(), operations.collection());
        let object = format!("{collection}/{{name}}");
        paths.insert(object.clone(), operations.object());
        if kind.has_status() {
            paths.insert(
                format!("{object}/status"),
                operations.part("Status", &operations.own()),
            );
        }
        if kind.scale().is_some() {
            let scale = What {
                schema: name_of::<Scale>(),
                gvk: json!({"group": "autoscaling", "kind": "Scale", "version": "v1"}),
            };
            paths.insert(format!("{object}/scale"), operations.part("Scale", &scale));
        }
    }
    paths
}

/// What an operation is about.
struct What {
    schema: String,
    gvk: Value,
}

/// Makes the operations of one kind on one sort of path.
struct Operations<'a> {
    kind: &'a dyn Kind,
    dialect: Dialect,
    suffix: &'a str,
    /// Whether the path names a namespace.
    namespaced: bool,
}

impl<'a> Operations<'a> {
    fn new(kind: &'a dyn Kind, dialect: Dialect, suffix: &'a str, namespaced: bool) -> Self {
        Self {
            kind,
            dialect,
            suffix,
            namespaced,
        }
    }

    fn own(&self) -> What {
        let names = self.kind.names();
        What {
            schema: self.kind.schema_name(),
            gvk: json!({"group": names.group, "kind": names.kind, "version": names.version}),
        }
    }

    fn lists(&self) -> Value {
        json!({"get": self.list(), "parameters": self.path_parameters(false)})
    }

    fn list(&self) -> Value {
        let What { gvk, .. } = self.own();
        let what = What {
            schema: list_name(self.kind),
            gvk,
        };
        let mut parameters: Vec<Value> = [
            "continue",
            "fieldSelector",
            "labelSelector",
            "resourceVersion",
            "resourceVersionMatch",
        ]
        .iter()
        .map(|name| self.query(name, "string"))
        .collect();
        parameters.push(self.query("limit", "integer"));
        parameters.push(self.query("timeoutSeconds", "integer"));
        parameters.push(self.query("allowWatchBookmarks", "boolean"));
        parameters.push(self.query("sendInitialEvents", "boolean"));
        parameters.push(self.query("watch", "boolean"));
        self.operation("list", "list", "", &what, parameters, None, &[200])
    }

    fn collection(&self) -> Value {
        let own = self.own();
        let deleted = What {
            schema: name_of::<Status>(),
            gvk: own.gvk.clone(),
        };
        json!({
            "get": self.list(),
            "post": self.operation("create", "post", "", &own, self.write_parameters(), Some((&own.schema, &[])), &[200, 201, 202]),
            "delete": self.operation("deleteCollection", "deletecollection", "", &deleted,
                self.delete_parameters(), Some((&name_of::<DeleteOptions>(), &[])), &[200]),
            "parameters": self.path_parameters(false),
        })
    }

    fn object(&self) -> Value {
        let own = self.own();
        let deleted = What {
            schema: name_of::<Status>(),
            gvk: own.gvk.clone(),
        };
        let mut item = self.part("", &own);
        item["delete"] = self.operation(
            "delete",
            "delete",
            "",
            &deleted,
            self.delete_parameters(),
            Some((&name_of::<DeleteOptions>(), &[])),
            &[200, 202],
        );
        item
    }

    /// Reading, replacing and patching an object or a part of it.
    fn part(&self, part: &str, what: &What) -> Value {
        let write = || self.write_parameters();
        json!({
            "get": self.operation("read", "get", part, what, vec![], None, &[200]),
            "put": self.operation("replace", "put", part, what, write(), Some((&what.schema, &[])), &[200, 201]),
            "patch": self.operation("patch", "patch", part, what, {
                let mut parameters = write();
                parameters.push(self.query("force", "boolean"));
                parameters
            }, Some((PATCH, &PATCH_TYPES)), &[200, 201]),
            "parameters": self.path_parameters(true),
        })
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one for each member of an operation"
    )]
    fn operation(
        &self,
        verb: &str,
        action: &str,
        part: &str,
        what: &What,
        mut parameters: Vec<Value>,
        body: Option<(&str, &[&str])>,
        codes: &[u16],
    ) -> Value {
        let names = self.kind.names();
        let scope = if self.namespaced { "Namespaced" } else { "" };
        let id = format!(
            "{verb}{}{scope}{}{part}{}",
            tag_camel(names),
            names.kind,
            self.suffix
        );
        let mut operation = json!({
            "operationId": id,
            "tags": [tag(names)],
            "description": format!("{verb} {}", names.plural),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": what.gvk,
        });
        let schema = self.dialect.reference(&what.schema);
        let responses: Map<String, Value> = codes
            .iter()
            .map(|code| {
                let response = match self.dialect {
                    Dialect::V2 => json!({"description": "OK", "schema": schema}),
                    Dialect::V3 => json!({"description": "OK", "content": {"application/json": {"schema": schema}}}),
                };
                (code.to_string(), response)
            })
            .chain([("401".to_owned(), json!({"description": "Unauthorized"}))])
            .collect();
        operation["responses"] = Value::Object(responses);
        if let Some((name, media_types)) = body {
            let schema = self.dialect.reference(name);
            let media_types = if media_types.is_empty() {
                &["*/*"]
            } else {
                media_types
            };
            match self.dialect {
                Dialect::V2 => {
                    parameters.push(
                        json!({"name": "body", "in": "body", "required": true, "schema": schema}),
                    );
                    operation["consumes"] = json!(media_types);
                }
                Dialect::V3 => {
                    let content: Map<String, Value> = media_types
                        .iter()
                        .map(|media_type| ((*media_type).to_owned(), json!({"schema": schema})))
                        .collect();
                    operation["requestBody"] = json!({"required": verb != "delete" && verb != "deleteCollection", "content": content});
                }
            }
        }
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        operation
    }

    fn write_parameters(&self) -> Vec<Value> {
        ["dryRun", "fieldManager", "fieldValidation"]
            .iter()
            .map(|name| self.query(name, "string"))
            .collect()
    }

    fn delete_parameters(&self) -> Vec<Value> {
        vec![
            self.query("dryRun", "string"),
            self.query("gracePeriodSeconds", "integer"),
            self.query("propagationPolicy", "string"),
        ]
    }

    fn path_parameters(&self, named: bool) -> Vec<Value> {
        let mut parameters = Vec::new();
        if named {
            parameters.push(self.parameter("name", "path", "string"));
        }
        if self.namespaced {
            parameters.push(self.parameter("namespace", "path", "string"));
        }
        parameters.push(self.query("pretty", "string"));
        parameters
    }

    fn query(&self, name: &str, kind: &str) -> Value {
        self.parameter(name, "query", kind)
    }

    fn parameter(&self, name: &str, place: &str, kind: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place, "uniqueItems": true});
        if place == "path" {
            parameter["required"] = json!(true);
        }
        match self.dialect {
            Dialect::V2 => parameter["type"] = json!(kind),
            Dialect::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
        }
        if self.dialect == Dialect::V3
            && let Some(parameter) = parameter.as_object_mut()
        {
            parameter.remove("uniqueItems");
        }
        parameter
    }
}

/// `core_v1`, `apps_v1`, `discovery_v1`.
fn tag(names: &Names) -> String {
    format!("{}_{}", short_group(names), names.version)
}

/// `CoreV1`
fn tag_camel(names: &Names) -> String {
    let capital = |text: &str| {
        let mut chars = text.chars();
        chars
            .next()
            .map(|first| first.to_uppercase().chain(chars).collect::<String>())
            .unwrap_or_default()
    };
    capital(short_group(names)) + &capital(names.version)
}

fn short_group(names: &Names) -> &'static str {
    if names.group.is_empty() {
        "core"
    } else {
        names.group.split('.').next().unwrap_or(names.group)
    }
}
