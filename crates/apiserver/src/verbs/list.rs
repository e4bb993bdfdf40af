//! Listing objects: selected, in pages that belong together, at a version.
//! Source: Kubernetes API concepts, "Retrieving large results sets in chunks" and "Resource versions".

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use seaway_store::{Error as StoreError, Record};

use crate::api::{Call, store_error};
use crate::negotiate::{Encoding, Form};
use crate::query::{VersionMatch, refuse_option};
use crate::reply::{self, JSON, Reply};
use crate::selection::Selection;
use crate::status::ApiError;
use crate::table::{self, Include};

/// Where the next page of a list begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Continue {
    v: String,
    /// The version that all pages show; -1: whatever is there now.
    rv: i64,
    /// The key of the last object of the page before.
    start: String,
}

/// A page of a list.
pub(crate) struct Page {
    pub(crate) records: Vec<Record>,
    pub(crate) revision: u64,
    next: Option<Continue>,
    remaining: Option<usize>,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// Answers with what the client asked for.
pub(crate) fn list(call: &Call<'_>) -> Result<Reply, ApiError> {
    let selection = Selection::of(call.query, call.resource)?;
    let page = page(call, &selection)?;
    if call.accept.form == Form::Objects && call.accept.encoding == Encoding::Json {
        return Ok(reply::bytes(StatusCode::OK, JSON, render(call, &page)?));
    }
    let metadata = page.metadata();
    let decoded = page
        .records
        .iter()
        .map(|record| call.decode(record))
        .collect::<Result<Vec<Value>, ApiError>>()?;
    let shown = match call.accept.form {
        Form::Objects => {
            let items = decoded
                .into_iter()
                .map(|object| call.resource.item(object))
                .collect();
            list_of(call, metadata, items)
        }
        Form::Metadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": decoded.into_iter().map(|mut o| table::partial(&mut o)).collect::<Vec<_>>(),
        }),
        Form::Table => table::table(
            call.resource,
            Include::of(call.query)?,
            metadata,
            decoded.into_iter(),
            true,
        ),
        Form::AggregatedDiscovery => return Err(ApiError::not_acceptable(&[JSON])),
    };
    Ok(reply::value(StatusCode::OK, call.accept.encoding, &shown))
}

/// A list object of these items.
pub(crate) fn list_of(call: &Call<'_>, metadata: Map<String, Value>, items: Vec<Value>) -> Value {
    json!({
        "kind": call.resource.kind.list_kind(),
        "apiVersion": call.resource.api_version,
        "metadata": metadata,
        "items": items,
    })
}

/// An object as an item of a list, where the list says its type.
pub(crate) fn untyped(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    object
}

/// The records that the client asked for.
pub(crate) fn page(call: &Call<'_>, selection: &Selection) -> Result<Page, ApiError> {
    let limit = call
        .query
        .number("limit")?
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n > 0);
    let (records, revision, start, consistent) = snapshot(call, selection)?;
    let mut records: Vec<Record> = records
        .into_iter()
        .filter(|r| start.as_deref().is_none_or(|start| &*r.key > start))
        .filter_map(|r| match selection.selects(call.resource, &r) {
            Ok(true) => Some(Ok(r)),
            Ok(false) => None,
            Err(e) => Some(Err(e)),
        })
        .collect::<Result<_, ApiError>>()?;
    let (mut next, mut remaining) = (None, None);
    if let Some(limit) = limit
        && records.len() > limit
    {
        // Kubernetes does not say how much is left of a selection, and clients rely on no number there.
        remaining = selection.is_everything().then_some(records.len() - limit);
        records.truncate(limit);
        next = records.last().map(|last| Continue {
            v: TOKEN_VERSION.to_owned(),
            rv: if consistent {
                i64::try_from(revision).unwrap_or(-1)
            } else {
                -1
            },
            start: last.key.to_string(),
        });
    }
    Ok(Page {
        records,
        revision,
        next,
        remaining,
    })
}

type Snapshot = (Vec<Record>, u64, Option<String>, bool);

/// Everything at the version that is asked for, that version, after which key to begin, and whether further pages can
/// show the same version.
fn snapshot(call: &Call<'_>, selection: &Selection) -> Result<Snapshot, ApiError> {
    let store = &call.api.store;
    let prefix = selection.prefix(call.resource, call.namespace);
    let version = call.query.version()?;
    let how = call.query.version_match()?;
    if let Some(token) = call.query.text("continue") {
        if version.is_some_and(|v| v > 0) {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Continue::read(token)?;
        let Ok(revision) = u64::try_from(token.rv) else {
            let (records, revision) = store.list(&prefix);
            return Ok((records, revision, Some(token.start), false));
        };
        return match store.list_at(&prefix, revision) {
            Ok(records) => Ok((records, revision, Some(token.start), true)),
            Err(StoreError::Compacted { .. }) => Err(token.expired()),
            Err(e) => Err(store_error(&e)),
        };
    }
    match (how, version) {
        (Some(_), None) => Err(refuse_option(
            "resourceVersionMatch",
            "FieldValueForbidden",
            "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (Some(VersionMatch::Exact), Some(0)) => Err(refuse_option(
            "resourceVersionMatch",
            "FieldValueForbidden",
            "Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
        )),
        (Some(VersionMatch::Exact), Some(revision)) => {
            let records = store
                .list_at(&prefix, revision)
                .map_err(|e| store_error(&e))?;
            Ok((records, revision, None, true))
        }
        (_, version) => {
            let (records, revision) = store.list(&prefix);
            match version {
                Some(asked) if asked > revision => {
                    Err(ApiError::too_large_version(asked, revision))
                }
                _ => Ok((records, revision, None, true)),
            }
        }
    }
}

impl Page {
    fn metadata(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        metadata.insert(
            "resourceVersion".to_owned(),
            self.revision.to_string().into(),
        );
        if let Some(next) = &self.next {
            metadata.insert("continue".to_owned(), next.write().into());
        }
        if let Some(remaining) = self.remaining {
            metadata.insert("remainingItemCount".to_owned(), remaining.into());
        }
        metadata
    }
}

fn render(call: &Call<'_>, page: &Page) -> Result<Vec<u8>, ApiError> {
    let size: usize = page.records.iter().map(|r| r.value.len() + 48).sum();
    let mut out = Vec::with_capacity(size + 256);
    let metadata = Value::Object(page.metadata());
    let (kind, version) = (call.resource.kind.list_kind(), &call.resource.api_version);
    out.extend_from_slice(
        format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},\"items\":["
        )
        .as_bytes(),
    );
    for (index, record) in page.records.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        call.resource
            .render_item(&mut out, record, record.revision)?;
    }
    out.extend_from_slice(b"]}\n");
    Ok(out)
}

impl Continue {
    fn read(token: &str) -> Result<Self, ApiError> {
        let invalid = |why: &dyn std::fmt::Display| {
            ApiError::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let text = URL_SAFE_NO_PAD
            .decode(token.trim_end_matches('='))
            .map_err(|e| invalid(&e))?;
        let read: Self = serde_json::from_slice(&text).map_err(|e| invalid(&e))?;
        if read.v == TOKEN_VERSION {
            Ok(read)
        } else {
            Err(invalid(&format!("unrecognized encoded version {}", read.v)))
        }
    }

    fn write(&self) -> String {
        // Two strings and a number: there is nothing that could fail.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The history is gone; the client may begin again, or go on with what is there now.
    fn expired(self) -> ApiError {
        let mut error = ApiError::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        error.next_page = Some(Self { rv: -1, ..self }.write());
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_was() {
        let token = Continue {
            v: TOKEN_VERSION.to_owned(),
            rv: 7,
            start: "core/pods/d/a".to_owned(),
        };
        assert_eq!(Continue::read(&token.write()), Ok(token));
        assert_eq!(Continue::read("rubbish").unwrap_err().code, 400);
    }
}
