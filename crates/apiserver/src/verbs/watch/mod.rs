//! Watching: what changes, as it happens, as a stream of events.
//! Source: Kubernetes API concepts, "Efficient detection of changes", "Watch bookmarks" and KEP-3157 (streaming lists).
//!
//! A watch takes from the store's history when its client has taken what was sent before, so a slow client holds
//! nothing but its place in the history. When that is gone it gets `410 Expired` and the stream ends.

mod encoder;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use rand::Rng;
use tokio::time::Instant;

use seaway_store::Watch;

use crate::api::{Api, Call, store_error};
use crate::event::What;
use crate::finish::Endless;
use crate::list_options::ListOptions;
use crate::negotiate::Form;
use crate::registry::Resource;
use crate::reply::{self, JSON, Reply};
use crate::selection::Selection;
use crate::status::ApiError;
use crate::table::Include;
use crate::verbs::get::RETRY;

use encoder::Encoder;

/// Events written to the client at once.
const BATCH: usize = 256;
/// When a watch ends that names no time, between these. Source: kube-apiserver, `--min-request-timeout`.
const SECONDS: std::ops::Range<u64> = 1800..3600;
/// How long before its end a watch is told how far it is. Source: `k8s.io/apiserver/pkg/storage/cacher`,
/// `cacheWatcher.nextBookmarkTime`.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// Answers with a stream of events. `api` and `resource` are those of the call.
pub(crate) fn watch(
    call: &Call<'_>,
    api: &Arc<Api>,
    resource: &Arc<Resource>,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let options = ListOptions::of(call, true)?;
    let accept = call.accept.of_stream()?;
    if accept.form == Form::AggregatedDiscovery {
        return Err(ApiError::not_acceptable(&[JSON]));
    }
    let include = if accept.form == Form::Table {
        Include::of(call.query)?
    } else {
        Include::Metadata
    };
    let begin = Begin::of(&options, call)?;
    let prefix = options.selection.prefix(call.resource, call.namespace);
    let end = Instant::now() + options.timeout.unwrap_or_else(default_timeout);
    let mut watching = Watching {
        api: Arc::clone(api),
        encoder: Encoder::new(Arc::clone(resource), accept.form, accept.meta, include),
        selection: options.selection,
        prefix,
        initial: None,
        initial_end: None,
        not_before: 0,
        watch: None,
        bookmark: options.bookmarks.then(|| next_bookmark(api.bookmarks, end)),
        end,
        done: false,
        failed: None,
    };
    match begin {
        Ok(begin) => watching.begin(begin),
        Err(error) => watching.failed = Some(error),
    }
    if socket::is_wanted(&request) {
        return socket::answer(request, watching);
    }
    let mut reply = reply::with_body(StatusCode::OK, JSON, reply::stream(watching.into_stream()));
    reply.extensions_mut().insert(Endless);
    Ok(reply)
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
    /// The outer error is answered, the inner one is the first and last event of the stream, as in Kubernetes: what is
    /// found out after the options were read comes that way.
    fn of(options: &ListOptions, call: &Call<'_>) -> Result<Result<Self, ApiError>, ApiError> {
        let version = options.version()?;
        let current = call.api.store.revision();
        let initial = options.initial_events;
        if initial == Some(true) {
            if let Some(asked) = version.filter(|asked| *asked > current) {
                return Ok(Err(ApiError::too_large_version(asked, current, RETRY)));
            }
            if options.bookmarks && call.query.optional("resourceVersion").is_none() {
                // A list that is streamed at the most recent version is what the API server that this one is compared
                // with does not have: it would have to ask its storage for progress, and that cannot tell. client-go
                // lists instead then, at the cost of one request. Who names a version, be it 0 or empty, gets it.
                return Ok(Err(ApiError::new(
                    500,
                    "InternalError",
                    "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled",
                )));
            }
            return Ok(Ok(Self::Now {
                announce_end: options.bookmarks,
            }));
        }
        Ok(Ok(match version {
            Some(version) if version > 0 => Self::After(version),
            // Nothing that was there before is wanted.
            _ if initial == Some(false) => Self::After(current),
            // So it was recorded of kube-apiserver 1.36.2. kubectl always names a version, 0 at least.
            None if call.accept.form == Form::Table
                && call.query.optional("resourceVersion").is_none() =>
            {
                Self::After(current)
            }
            _ => Self::Now {
                announce_end: false,
            },
        }))
    }
}

/// A watch on its way.
struct Watching {
    api: Arc<Api>,
    encoder: Encoder,
    selection: Selection,
    prefix: String,
    /// What of the initial state is not sent yet.
    initial: Option<Initial>,
    /// The revision of the bookmark that ends the initial events.
    initial_end: Option<u64>,
    /// Events up to here are not wanted, even if they are still to come.
    not_before: u64,
    /// `None` if it could not begin, see `failed`.
    watch: Option<Watch>,
    /// When the next bookmark is due, if the client wants any.
    bookmark: Option<Instant>,
    end: Instant,
    done: bool,
    failed: Option<ApiError>,
}

/// The state that a watch begins with, read page by page as the client takes it.
struct Initial {
    from: String,
    revision: u64,
}

impl Watching {
    fn begin(&mut self, begin: Begin) {
        let current = self.api.store.revision();
        let revision = match begin {
            // Kubernetes waits for what is still to come.
            Begin::After(revision) => {
                self.not_before = revision;
                revision.min(current)
            }
            Begin::Now { announce_end } => {
                self.initial = Some(Initial {
                    from: String::new(),
                    revision: current,
                });
                self.initial_end = announce_end.then_some(current);
                current
            }
        };
        match self.api.store.watch(&self.prefix, revision) {
            Ok(watch) => self.watch = Some(watch),
            Err(e) => self.failed = Some(store_error(&e)),
        }
    }

    fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        futures::stream::unfold(self, |mut watching| async move {
            let lines = watching.next().await?;
            let bytes = match <[Bytes; 1]>::try_from(lines) {
                Ok([line]) => line,
                Err(lines) => lines.concat().into(),
            };
            Some((bytes, watching))
        })
    }

    /// The next lines, one for each event; waits for them. `None` at the end.
    async fn next(&mut self) -> Option<Vec<Bytes>> {
        loop {
            if self.done {
                return None;
            }
            let mut out = Vec::new();
            if let Err(error) = self.step(&mut out).await {
                out.push(encoder::error(&error));
                self.done = true;
            }
            if !out.is_empty() {
                return Some(out);
            }
        }
    }

    /// Writes what comes next; waits for it.
    async fn step(&mut self, out: &mut Vec<Bytes>) -> Result<(), ApiError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if let Some(initial) = &mut self.initial {
            let page = self
                .api
                .store
                .page(
                    &self.prefix,
                    &initial.from,
                    Some(initial.revision),
                    BATCH,
                    1,
                )
                .map_err(|e| store_error(&e))?;
            match page.records.last() {
                Some(last) if page.remaining > 0 => initial.from = format!("{}\0", last.key),
                _ => self.initial = None,
            }
            for record in page.records {
                if self.selection.selects(&self.encoder.resource, &record)? {
                    out.push(self.encoder.initial(&record)?);
                }
            }
            return Ok(());
        }
        if let Some(revision) = self.initial_end.take() {
            out.push(self.encoder.bookmark(revision, true));
            return Ok(());
        }
        let Some(watch) = &mut self.watch else {
            self.done = true;
            return Ok(());
        };
        let bookmark = self.bookmark;
        let due = async {
            match bookmark {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.api.shutdown.cancelled() => self.done = true,
            () = tokio::time::sleep_until(self.end) => self.done = true,
            events = watch.next() => {
                for event in events.map_err(|e| store_error(&e))? {
                    self.change(out, &event)?;
                }
            }
            // Its kind is served no more, or otherwise than it was.
            () = self.encoder.resource.retired.cancelled() => self.done = true,
            () = due => {
                self.bookmark_now(out)?;
                self.bookmark = Some(next_bookmark(self.api.bookmarks, self.end));
            }
        }
        Ok(())
    }

    /// What an event is to a client that sees only selected objects.
    fn change(
        &mut self,
        out: &mut Vec<Bytes>,
        event: &seaway_store::Event,
    ) -> Result<(), ApiError> {
        if event.revision <= self.not_before {
            return Ok(());
        }
        let (before, after) = self
            .selection
            .selects_change(&self.encoder.resource, event)?;
        let (what, record) = match (before, after, &event.old, &event.new) {
            (false, true, _, Some(new)) => (What::Added, new),
            (true, true, _, Some(new)) => (What::Modified, new),
            // As it was last seen, at the revision of its end.
            (true, false, Some(old), _) => (What::Deleted, old),
            _ => return Ok(()),
        };
        out.push(self.encoder.change(&self.api.lines, event, what, record)?);
        Ok(())
    }

    /// Tells how far the watch is, if it has told all there is.
    fn bookmark_now(&mut self, out: &mut Vec<Bytes>) -> Result<(), ApiError> {
        let Some(watch) = &mut self.watch else {
            return Ok(());
        };
        let events = watch.ready().map_err(|e| store_error(&e))?;
        let revision = watch.revision();
        for event in events {
            self.change(out, &event)?;
        }
        if revision >= self.not_before {
            out.push(self.encoder.bookmark(revision, false));
        }
        Ok(())
    }
}

/// When a watch that ends at `end` is told next how far it is: every `period`, and shortly before its end, so that the
/// one that follows it has little to catch up with.
fn next_bookmark(period: Duration, end: Instant) -> Instant {
    let now = Instant::now();
    match end.checked_sub(LAST_BOOKMARK) {
        Some(last) if last > now => last.min(now + period),
        _ => now + period,
    }
}

/// Spread, so that the watches of a restarted server do not all end at once.
fn default_timeout() -> Duration {
    Duration::from_secs(rand::rng().random_range(SECONDS))
}
