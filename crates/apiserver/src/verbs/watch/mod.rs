//! Watching: what changes, as it happens, as a stream of events.
//! Source: Kubernetes API concepts, "Efficient detection of changes", "Watch bookmarks" and KEP-3157 (streaming lists).
//!
//! A watch takes from the store's history when its client has taken what was sent before, so a slow client holds
//! nothing but its place in the history. When that is gone it gets `410 Expired` and the stream ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::StatusCode;
use rand::Rng;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use seaway_store::{Event, Record, Watch};

use crate::api::{Api, Call, store_error};
use crate::negotiate::{Encoding, Form};
use crate::object;
use crate::query::{VersionMatch, refuse_option};
use crate::registry::Resource;
use crate::reply::{self, JSON, Reply};
use crate::selection::Selection;
use crate::status::ApiError;
use crate::table::{self, Include};

/// Events written to the client at once.
const BATCH: usize = 256;
/// When a watch ends that names no time, between these. Source: kube-apiserver, `--min-request-timeout`.
const SECONDS: std::ops::Range<u64> = 1800..3600;
/// Tells the end of the initial events. Source: KEP-3157.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Answers with a stream of events. `api` and `resource` are those of the call.
pub(crate) fn watch(
    call: &Call<'_>,
    api: &Arc<Api>,
    resource: &Arc<Resource>,
) -> Result<Reply, ApiError> {
    if call.accept.encoding != Encoding::Json || call.accept.form == Form::AggregatedDiscovery {
        return Err(ApiError::not_acceptable(&[JSON]));
    }
    let mut selection = Selection::of(call.query, call.resource)?;
    if !call.name.is_empty() {
        selection = selection.named(call.name);
    }
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let begin = Begin::read(call, bookmarks)?;
    let prefix = selection.prefix(call.resource, call.namespace);
    let mut stream = Watching {
        api: Arc::clone(api),
        encoder: Encoder {
            resource: Arc::clone(resource),
            form: call.accept.form,
            include: Include::of(call.query)?,
            columns_sent: false,
        },
        selection,
        initial: Vec::new().into_iter(),
        initial_end: None,
        watch: None,
        bookmark: bookmarks.then(|| ticks(api.bookmarks)),
        end: Instant::now() + call.query.timeout()?.unwrap_or_else(default_timeout),
        done: false,
        failed: None,
    };
    let revision = match begin {
        Begin::After(revision) => revision,
        Begin::Now { announce_end } => {
            let (records, revision) = api.store.list(&prefix);
            stream.initial = records.into_iter();
            stream.initial_end = announce_end.then_some(revision);
            revision
        }
    };
    match api.store.watch(&prefix, revision) {
        Ok(watch) => stream.watch = Some(watch),
        Err(e) => stream.failed = Some(store_error(&e)),
    }
    Ok(reply::with_body(
        StatusCode::OK,
        JSON,
        reply::stream(stream.into_stream()),
    ))
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// With what happened after this revision.
    After(u64),
    /// With what is there now, as if it had just been added.
    Now {
        /// Whether the client wants to know when that was all.
        announce_end: bool,
    },
}

impl Begin {
    fn read(call: &Call<'_>, bookmarks: bool) -> Result<Self, ApiError> {
        let version = call.query.version()?;
        let how = call.query.version_match()?;
        let forbid =
            |field: &str, message: &str| Err(refuse_option(field, "FieldValueForbidden", message));
        match call.query.optional_flag("sendInitialEvents") {
            Some(initial) => match how {
                Some(VersionMatch::NotOlderThan) if initial => {
                    let current = call.api.store.revision();
                    if let Some(asked) = version.filter(|asked| *asked > current) {
                        return Err(ApiError::too_large_version(asked, current));
                    }
                    Ok(Self::Now {
                        announce_end: bookmarks,
                    })
                }
                Some(VersionMatch::NotOlderThan) => Ok(Self::After(
                    version
                        .filter(|v| *v > 0)
                        .unwrap_or_else(|| call.api.store.revision()),
                )),
                _ => forbid(
                    "resourceVersionMatch",
                    "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ),
            },
            None if how.is_some() => forbid(
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            None => Ok(version.filter(|v| *v > 0).map_or(
                Self::Now {
                    announce_end: false,
                },
                Self::After,
            )),
        }
    }
}

/// A watch on its way.
struct Watching {
    api: Arc<Api>,
    encoder: Encoder,
    selection: Selection,
    initial: std::vec::IntoIter<Record>,
    /// The revision of the bookmark that ends the initial events.
    initial_end: Option<u64>,
    /// `None` if it could not begin, see `failed`.
    watch: Option<Watch>,
    bookmark: Option<Interval>,
    end: Instant,
    done: bool,
    failed: Option<ApiError>,
}

impl Watching {
    fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        futures::stream::unfold(self, |mut stream| async move {
            loop {
                if stream.done {
                    return None;
                }
                let mut out = Vec::new();
                if let Err(error) = stream.step(&mut out).await {
                    write_event(&mut out, "ERROR", &error.to_value());
                    stream.done = true;
                }
                if !out.is_empty() {
                    return Some((Bytes::from(out), stream));
                }
            }
        })
    }

    /// Writes what comes next; waits for it.
    async fn step(&mut self, out: &mut Vec<u8>) -> Result<(), ApiError> {
        if self.initial.len() > 0 {
            let batch: Vec<Record> = self.initial.by_ref().take(BATCH).collect();
            for record in batch {
                if self.selection.selects(&self.encoder.resource, &record)? {
                    self.encoder.event(out, "ADDED", &record, record.revision)?;
                }
            }
            return Ok(());
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if let Some(revision) = self.initial_end.take() {
            self.encoder.bookmark(out, revision, true);
            return Ok(());
        }
        let Some(watch) = &mut self.watch else {
            self.done = true;
            return Ok(());
        };
        let tick = async {
            match &mut self.bookmark {
                Some(interval) => interval.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.api.shutdown.cancelled() => self.done = true,
            () = tokio::time::sleep_until(self.end) => {
                self.done = true;
                self.bookmark_now(out)?;
            }
            events = watch.next() => {
                for event in events.map_err(|e| store_error(&e))? {
                    self.encoder.change(out, &self.selection, &event)?;
                }
            }
            // Its kind is served no more, or otherwise than it was.
            () = self.encoder.resource.retired.cancelled() => self.done = true,
            _ = tick => self.bookmark_now(out)?,
        }
        Ok(())
    }

    /// Tells how far the watch is, if it has told all there is.
    fn bookmark_now(&mut self, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let (Some(watch), true) = (&mut self.watch, self.bookmark.is_some()) else {
            return Ok(());
        };
        for event in watch.ready().map_err(|e| store_error(&e))? {
            self.encoder.change(out, &self.selection, &event)?;
        }
        self.encoder.bookmark(out, watch.revision(), false);
        Ok(())
    }
}

/// Writes events in the form that the client wants.
struct Encoder {
    resource: Arc<Resource>,
    form: Form,
    include: Include,
    columns_sent: bool,
}

impl Encoder {
    /// What an event is to a client that sees only selected objects.
    fn change(
        &mut self,
        out: &mut Vec<u8>,
        selection: &Selection,
        event: &Event,
    ) -> Result<(), ApiError> {
        let (before, after) = selection.selects_change(&self.resource, event)?;
        match (before, after, &event.old, &event.new) {
            (false, true, _, Some(new)) => self.event(out, "ADDED", new, event.revision),
            (true, true, _, Some(new)) => self.event(out, "MODIFIED", new, event.revision),
            // As it was last seen, at the revision of its end.
            (true, false, Some(old), _) => self.event(out, "DELETED", old, event.revision),
            _ => Ok(()),
        }
    }

    fn event(
        &mut self,
        out: &mut Vec<u8>,
        what: &str,
        record: &Record,
        revision: u64,
    ) -> Result<(), ApiError> {
        if self.form == Form::Objects {
            out.extend_from_slice(format!("{{\"type\":\"{what}\",\"object\":").as_bytes());
            self.resource.render(out, record, revision)?;
            out.extend_from_slice(b"}\n");
            return Ok(());
        }
        let record = Record {
            revision,
            ..record.clone()
        };
        let mut decoded = self.resource.decode(&record)?;
        let shown = if self.form == Form::Table {
            self.table(decoded)
        } else {
            table::partial(&mut decoded)
        };
        write_event(out, what, &shown);
        Ok(())
    }

    fn table(&mut self, object: Value) -> Value {
        let mut metadata = Map::new();
        metadata.insert(
            "resourceVersion".to_owned(),
            object::version(&object).into(),
        );
        let columns = !std::mem::replace(&mut self.columns_sent, true);
        table::table(
            &self.resource,
            self.include,
            metadata,
            std::iter::once(object),
            columns,
        )
    }

    fn bookmark(&mut self, out: &mut Vec<u8>, revision: u64, ends_initial_events: bool) {
        let mut metadata =
            json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
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
                let object = table::partial(&mut shown);
                shown = json!({
                    "kind": "Table",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": null,
                    "rows": [{"cells": [], "object": object}],
                });
            }
            Form::Metadata => shown = table::partial(&mut shown),
            Form::Objects | Form::AggregatedDiscovery => {}
        }
        write_event(out, "BOOKMARK", &shown);
    }
}

fn write_event(out: &mut Vec<u8>, what: &str, object: &Value) {
    out.extend_from_slice(format!("{{\"type\":\"{what}\",\"object\":{object}}}\n").as_bytes());
}

fn ticks(period: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Spread, so that the watches of a restarted server do not all end at once.
fn default_timeout() -> Duration {
    Duration::from_secs(rand::rng().random_range(SECONDS))
}
