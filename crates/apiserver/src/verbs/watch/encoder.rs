//! Events as lines, in the form that the client wants.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use seaway_store::{Event, Record};

use crate::event::{Line, Lines, What};
use crate::negotiate::{Form, MetaVersion};
use crate::object;
use crate::registry::Resource;
use crate::status::ApiError;
use crate::table::{self, Include};

/// Tells the end of the initial events. Source: KEP-3157.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Writes events.
pub(super) struct Encoder {
    pub(super) resource: Arc<Resource>,
    form: Form,
    meta: MetaVersion,
    include: Include,
    columns_sent: bool,
}

impl Encoder {
    pub(super) fn new(
        resource: Arc<Resource>,
        form: Form,
        meta: MetaVersion,
        include: Include,
    ) -> Self {
        Self {
            resource,
            form,
            meta,
            include,
            columns_sent: false,
        }
    }

    /// A change, in bytes that are shared with all who want the same.
    pub(super) fn change(
        &mut self,
        lines: &Lines,
        event: &Event,
        what: What,
        record: &Record,
    ) -> Result<Bytes, ApiError> {
        let line = Line {
            what,
            resource: Arc::as_ptr(&self.resource) as usize,
            form: self.form,
            meta: self.meta,
            include: self.include,
            columns: self.form == Form::Table && !self.columns_sent,
            second: if self.form == Form::Table {
                Timestamp::now().as_second()
            } else {
                0
            },
        };
        let written = lines.line(event, line, || {
            self.write(what.name(), record, event.revision, line.columns)
        })?;
        self.columns_sent = true;
        Ok(written)
    }

    /// An object that was there when the watch began.
    pub(super) fn initial(&mut self, record: &Record) -> Result<Bytes, ApiError> {
        let columns = !std::mem::replace(&mut self.columns_sent, true);
        self.write(What::Added.name(), record, record.revision, columns)
    }

    fn write(
        &self,
        what: &str,
        record: &Record,
        revision: u64,
        columns: bool,
    ) -> Result<Bytes, ApiError> {
        let mut out = Vec::with_capacity(record.value.len() + 192);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(what.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        match self.form {
            Form::Table => {
                let record = Record {
                    revision,
                    ..record.clone()
                };
                let table = self.table(self.resource.decode(&record)?, columns);
                serde_json::to_writer(&mut out, &table).map_err(ApiError::internal)?;
            }
            Form::Metadata | Form::MetadataList => {
                object::render_metadata(&mut out, self.meta, &record.value, revision);
            }
            Form::Objects | Form::AggregatedDiscovery => {
                self.resource.render(&mut out, record, revision)?;
            }
        }
        out.extend_from_slice(b"}\n");
        Ok(out.into())
    }

    fn table(&self, object: Value, columns: bool) -> Value {
        let mut metadata = Map::new();
        metadata.insert(
            "resourceVersion".to_owned(),
            object::version(&object).into(),
        );
        table::table(
            &self.resource,
            self.meta,
            self.include,
            metadata,
            std::iter::once(object),
            columns,
        )
    }

    /// Tells how far the watch is.
    pub(super) fn bookmark(&self, revision: u64, ends_initial_events: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if ends_initial_events {
            metadata["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        let mut shown = json!({
            "kind": self.resource.names.kind,
            "apiVersion": self.resource.api_version,
            "metadata": metadata,
        });
        match self.form {
            Form::Table => {
                let object = table::partial(self.meta, &mut shown);
                shown = json!({
                    "kind": "Table",
                    "apiVersion": self.meta.api_version(),
                    "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": null,
                    "rows": [{"cells": [], "object": object}],
                });
            }
            Form::Metadata | Form::MetadataList => shown = table::partial(self.meta, &mut shown),
            Form::Objects | Form::AggregatedDiscovery => {}
        }
        line("BOOKMARK", &shown)
    }
}

/// Tells why the watch ends.
pub(super) fn error(error: &ApiError) -> Bytes {
    line("ERROR", &error.to_value())
}

fn line(what: &str, object: &Value) -> Bytes {
    format!("{{\"type\":\"{what}\",\"object\":{object}}}\n").into()
}
