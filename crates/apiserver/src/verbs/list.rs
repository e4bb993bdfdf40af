//! Listing objects: selected, in pages that belong together, at a version.
//! Source: Kubernetes API concepts, "Retrieving large results sets in chunks" and "Resource versions".
//!
//! What is stored is sent as it is, piece by piece as the client takes it, so that a list of any length costs little
//! memory and nobody waits for it. Only tables and YAML need the objects themselves.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use seaway_store::{Error as StoreError, Record};

use crate::api::{Call, store_error};
use crate::list_options::{ListOptions, VersionMatch};
use crate::negotiate::{Encoding, Form, MetaVersion};
use crate::object;
use crate::registry::Resource;
use crate::reply::{self, BodyError, JSON, Reply};
use crate::status::ApiError;
use crate::table::{self, Include};
use crate::verbs::continuation::Continue;
use crate::verbs::get::RETRY;

/// Bytes of a list that are written at once.
const PIECE: usize = 64 << 10;
/// Objects looked at between two looks at the store, when only some of them are wanted.
const LOOK: usize = 500;

/// A page of a list.
pub(crate) struct Page {
    pub(crate) records: Vec<Record>,
    pub(crate) revision: u64,
    next: Option<Continue>,
    remaining: Option<usize>,
}

/// Answers with what the client asked for.
/// `resource` is that of the call.
pub(crate) fn list(call: &Call<'_>, resource: &Arc<Resource>) -> Result<Reply, ApiError> {
    let options = ListOptions::of(call, false)?;
    let include = Include::of(call.query);
    let page = page(call, &options)?;
    let metadata = page.metadata();
    let meta = call.accept.meta;
    if call.accept.form == Form::Metadata {
        let message = format!(
            "you requested PartialObjectMetadata, but the requested object is a list ({}List)",
            call.resource.go_type()
        );
        return Err(ApiError::new(406, "NotAcceptable", message));
    }
    if call.accept.encoding == Encoding::Json {
        match call.accept.form {
            Form::Objects => {
                let kind = resource.kind.list_kind();
                let begin = list_head(&kind, &resource.api_version, metadata);
                return pieces(begin, page.records, Item::Object(Arc::clone(resource)));
            }
            Form::MetadataList => {
                let begin = list_head("PartialObjectMetadataList", meta.api_version(), metadata);
                return pieces(begin, page.records, Item::Metadata(meta));
            }
            _ => {}
        }
    }
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
        Form::MetadataList => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": meta.api_version(),
            "metadata": metadata,
            "items": decoded.into_iter().map(|mut o| table::partial(meta, &mut o)).collect::<Vec<_>>(),
        }),
        Form::Table => table::table(
            call.resource,
            meta,
            include?,
            metadata,
            decoded.into_iter(),
            true,
        ),
        Form::Metadata | Form::AggregatedDiscovery => {
            return Err(ApiError::not_acceptable(&[JSON]));
        }
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
pub(crate) fn page(call: &Call<'_>, options: &ListOptions) -> Result<Page, ApiError> {
    let selection = &options.selection;
    let prefix = selection.prefix(call.resource, call.namespace);
    let begin = Begin::of(call, options, &prefix)?;
    let everything = selection.is_everything();
    let look = match begin.limit {
        None => usize::MAX,
        Some(limit) if everything => limit,
        Some(limit) => limit.max(LOOK),
    };
    let (mut from, mut revision) = (begin.from, begin.revision);
    let mut records = Vec::new();
    loop {
        let part = call
            .api
            .store
            .page(
                &prefix,
                &from,
                revision,
                look,
                if everything { usize::MAX } else { 1 },
            )
            .map_err(|e| {
                begin
                    .token
                    .clone()
                    .map_or_else(|| expired(&e), |token| lost(token, options, &e))
            })?;
        // Whatever else is looked at belongs to the same version.
        revision = Some(part.revision);
        let looked_at = part.records.len();
        if let Some(last) = part.records.last() {
            from = format!("{}\0", last.key);
        }
        for (index, record) in part.records.into_iter().enumerate() {
            if !selection.selects(call.resource, &record)? {
                continue;
            }
            records.push(record);
            let behind = looked_at - index - 1 + part.remaining;
            if begin.limit == Some(records.len()) && behind > 0 {
                return Ok(Page {
                    next: records
                        .last()
                        .map(|last| Continue::after(&prefix, &last.key, part.revision)),
                    // Kubernetes does not say how much is left of a selection: it would have to look.
                    remaining: everything.then_some(behind),
                    records,
                    revision: part.revision,
                });
            }
        }
        if part.remaining == 0 {
            return Ok(Page {
                records,
                revision: part.revision,
                next: None,
                remaining: None,
            });
        }
    }
}

/// Where a list begins, at which version, and how long it may be.
struct Begin {
    from: String,
    /// `None`: as it is now.
    revision: Option<u64>,
    limit: Option<usize>,
    token: Option<Continue>,
}

impl Begin {
    fn of(call: &Call<'_>, options: &ListOptions, prefix: &str) -> Result<Self, ApiError> {
        let version = options.version()?;
        if let Some(token) = &options.token {
            let token = Continue::read(token)?;
            if version.is_some_and(|v| v > 0) {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            return Ok(Self {
                from: token.from(prefix),
                revision: token.revision(),
                limit: options.limit,
                token: Some(token),
            });
        }
        // A limit with a version and no word on how it is meant asks for exactly that version, for clients of old.
        let exactly = match options.how {
            Some(how) => how == VersionMatch::Exact,
            None => options.limit.is_some(),
        };
        let revision = match version {
            Some(asked) if asked > 0 && exactly => Some(asked),
            Some(asked) => {
                let current = call.api.store.revision();
                if asked > current {
                    return Err(ApiError::too_large_version(asked, current, RETRY));
                }
                None
            }
            None => None,
        };
        Ok(Self {
            from: String::new(),
            revision,
            // Whatever is at hand comes as a whole, as from Kubernetes' watch cache.
            limit: options.limit.filter(|_| version != Some(0)),
            token: None,
        })
    }
}

/// The version of a list that has not begun is not there.
fn expired(error: &StoreError) -> ApiError {
    match error {
        StoreError::Compacted { .. } => {
            ApiError::expired("The resourceVersion for the provided list is too old.")
        }
        e => store_error(e),
    }
}

/// The version of a list that goes on is not there.
fn lost(token: Continue, options: &ListOptions, error: &StoreError) -> ApiError {
    match error {
        StoreError::Compacted { .. } if options.limit.is_some() => token.expired(),
        e => expired(e),
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

/// What of each object is an item of the list.
enum Item {
    Object(Arc<Resource>),
    Metadata(MetaVersion),
}

impl Item {
    fn render(&self, out: &mut Vec<u8>, record: &Record) -> Result<(), ApiError> {
        match self {
            Self::Object(resource) => resource.render_item(out, record, record.revision),
            Self::Metadata(meta) => {
                object::render_metadata(out, *meta, &record.value, record.revision);
                Ok(())
            }
        }
    }
}

fn list_head(kind: &str, api_version: &str, metadata: Map<String, Value>) -> Vec<u8> {
    let metadata = Value::Object(metadata);
    format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":["
    )
    .into_bytes()
}

/// The list, at once if it is short, else piece by piece.
fn pieces(begin: Vec<u8>, records: Vec<Record>, item: Item) -> Result<Reply, ApiError> {
    let mut rest = Pieces {
        out: begin,
        records: records.into_iter(),
        item,
        first: true,
        done: false,
    };
    let first = rest.next().transpose()?.unwrap_or_default();
    if rest.done {
        return Ok(reply::bytes(StatusCode::OK, JSON, first));
    }
    // What cannot be shown breaks the answer off: the client must not take it for the whole.
    let all = std::iter::once(Ok(first)).chain(rest.map(|piece| piece.map_err(BodyError::from)));
    let body = reply::fallible_stream(futures::stream::iter(all));
    Ok(reply::with_body(StatusCode::OK, JSON, body))
}

struct Pieces {
    out: Vec<u8>,
    records: std::vec::IntoIter<Record>,
    item: Item,
    first: bool,
    done: bool,
}

impl Iterator for Pieces {
    type Item = Result<Bytes, ApiError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let mut out = std::mem::take(&mut self.out);
        out.reserve(PIECE);
        while out.len() < PIECE {
            let Some(record) = self.records.next() else {
                out.extend_from_slice(b"]}\n");
                self.done = true;
                break;
            };
            if !std::mem::replace(&mut self.first, false) {
                out.push(b',');
            }
            if let Err(error) = self.item.render(&mut out, &record) {
                self.done = true;
                return Some(Err(error));
            }
        }
        Some(Ok(out.into()))
    }
}
