//! Objects as rows of a table, the form in which `kubectl get` prints them.
//! Source: API reference, `Table` (meta.k8s.io/v1).

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::negotiate::MetaVersion;
use crate::query::Query;
use crate::registry::Resource;
use crate::status::ApiError;

/// What of the object goes with each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// `includeObject`
    pub(crate) fn of(query: &Query) -> Result<Self, ApiError> {
        match query.text("includeObject") {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(ApiError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// A table of these objects. `metadata` is that of a list; without `columns` the client has them already.
pub(crate) fn table(
    resource: &Resource,
    meta: MetaVersion,
    include: Include,
    metadata: Map<String, Value>,
    objects: impl Iterator<Item = Value>,
    columns: bool,
) -> Value {
    let now = Timestamp::now().as_second();
    let rows: Vec<Value> = objects
        .map(|object| row(resource, meta, include, object, now))
        .collect();
    let mut table = json!({
        "kind": "Table",
        "apiVersion": meta.api_version(),
        "metadata": metadata,
        "columnDefinitions": null,
        "rows": rows,
    });
    if columns {
        table["columnDefinitions"] = resource
            .kind
            .columns()
            .into_iter()
            .map(|c| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority}))
            .collect();
    }
    table
}

/// Only the metadata of an object, as an object of its own.
pub(crate) fn partial(meta: MetaVersion, object: &mut Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": meta.api_version(),
        "metadata": object["metadata"].take(),
    })
}

fn row(
    resource: &Resource,
    meta: MetaVersion,
    include: Include,
    mut object: Value,
    now: i64,
) -> Value {
    let cells = resource.kind.cells(&object, now);
    let object = match include {
        Include::None => Value::Null,
        Include::Metadata => partial(meta, &mut object),
        Include::Object => object,
    };
    json!({"cells": cells, "object": object})
}
