//! What is done to every answer at its end: JSON is indented for people, long answers are compressed, and nobody may
//! keep what they say.
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`, `pkg/endpoints/filters/cachecontrol.go`.

use std::io::Write;

use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt};
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue,
    USER_AGENT, VARY,
};
use http::{Request, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::indent::Indent;
use crate::query::Query;
use crate::reply::{self, Body, BodyError, JSON, Reply};

/// Bytes that are sent as they are. Source: `defaultGzipThresholdBytes`.
const SHORT: u64 = 128 << 10;
/// Bytes that are worked on at once.
const PIECE: usize = 64 << 10;
/// How programs begin their name that show answers to people. Source: `isPrettyPrint`.
const FOR_PEOPLE: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// What the client wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    indent: bool,
    gzip: bool,
}

impl Wanted {
    pub(crate) fn of<B>(request: &Request<B>, query: &Query) -> Self {
        let header = |name| {
            request
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
        };
        let agent = header(USER_AGENT);
        Self {
            indent: match query.text("pretty") {
                Some(text) => matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"),
                None => FOR_PEOPLE.iter().any(|begin| agent.starts_with(begin)),
            },
            gzip: header(ACCEPT_ENCODING)
                .split(',')
                .any(|coding| coding.trim() == "gzip"),
        }
    }
}

/// Marks an answer that goes on for as long as the client listens: it is sent as it comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endless;

/// Finishes an answer.
pub(crate) fn finish(mut reply: Reply, wanted: Wanted) -> Reply {
    reply
        .headers_mut()
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    if reply.status() == StatusCode::SWITCHING_PROTOCOLS
        || reply.extensions().get::<Endless>().is_some()
        || reply.headers().contains_key(CONTENT_ENCODING)
    {
        return reply;
    }
    let is_json = reply
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value == JSON);
    if wanted.indent && is_json {
        reply = reply.map(|body| {
            let mut indent = Indent::default();
            worked_on(body, move |piece, out| match piece {
                Some(piece) => indent.write(piece, out),
                None => indent.finish(out),
            })
        });
        reply.headers_mut().remove(CONTENT_LENGTH);
    }
    let size = reply.body().size_hint();
    let long = size.exact().is_none_or(|bytes| bytes > SHORT);
    let is_text = is_json
        || reply
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value == "application/yaml");
    // An indented answer has no known length: compressing a short one costs little.
    if wanted.gzip && long && is_text {
        reply = reply.map(compressed);
        let headers = reply.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    reply
}

fn compressed(body: Body) -> Body {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    worked_on(body, move |piece, out| match (piece, &mut encoder) {
        (Some(piece), Some(encoder)) => {
            // Writing to memory does not fail.
            let _ = encoder.write_all(piece);
            out.append(encoder.get_mut());
        }
        (None, encoder) => {
            if let Some(Ok(mut rest)) = encoder.take().map(GzEncoder::finish) {
                out.append(&mut rest);
            }
        }
        (Some(_), None) => {}
    })
}

/// A body that passes through `work`: it is given each piece and adds to what is sent, at last with `None`.
fn worked_on(body: Body, work: impl FnMut(Option<&[u8]>, &mut Vec<u8>) + Send + 'static) -> Body {
    let pieces = pieces(body);
    let state = (Box::pin(pieces), Some(work));
    let stream = futures::stream::unfold(state, |(mut pieces, mut work)| async move {
        loop {
            let mut out = Vec::new();
            match pieces.next().await {
                Some(Ok(piece)) => {
                    if let Some(work) = &mut work {
                        work(Some(&piece), &mut out);
                    }
                }
                Some(Err(error)) => return Some((Err(error), (pieces, None))),
                None => {
                    let mut work = work.take()?;
                    work(None, &mut out);
                    return Some((Ok(Bytes::from(out)), (pieces, None)));
                }
            }
            if !out.is_empty() {
                return Some((Ok(Bytes::from(out)), (pieces, work)));
            }
        }
    });
    reply::fallible_stream(stream)
}

/// The body in pieces that nobody has to wait long for.
fn pieces(body: Body) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
    body.into_data_stream().flat_map(|data| {
        let mut rest = Some(data);
        futures::stream::iter(std::iter::from_fn(move || match rest.take()? {
            Ok(mut data) => {
                let piece = data.copy_to_bytes(data.remaining().min(PIECE));
                if data.has_remaining() {
                    rest = Some(Ok(data));
                }
                Some(Ok(piece))
            }
            Err(error) => Some(Err(error)),
        }))
    })
}
