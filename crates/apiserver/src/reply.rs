//! Answers.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, HeaderValue, WARNING};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

use crate::negotiate::Encoding;
use crate::status::ApiError;

/// What ends a body before its end.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;
/// Every answer.
pub(crate) type Reply = Response<Body>;

pub(crate) const JSON: &str = "application/json";

/// A body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A body that comes piece by piece.
pub(crate) fn stream(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    fallible_stream(pieces.map(Ok))
}

/// A body that comes piece by piece and may break off.
pub(crate) fn fallible_stream(
    pieces: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
) -> Body {
    StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// An answer of these bytes.
pub(crate) fn bytes(code: StatusCode, media_type: &'static str, bytes: impl Into<Bytes>) -> Reply {
    with_body(code, media_type, full(bytes))
}

/// An answer with this body.
pub(crate) fn with_body(code: StatusCode, media_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = code;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    reply
}

/// An object, written as the client wants it.
pub(crate) fn value(code: StatusCode, encoding: Encoding, value: &Value) -> Reply {
    match encoding {
        Encoding::Json => json(code, value),
        Encoding::Yaml => match serde_saphyr::to_string(value) {
            Ok(text) => bytes(code, "application/yaml", text),
            Err(e) => error(&ApiError::internal(e)),
        },
    }
}

/// An object as JSON.
pub(crate) fn json(code: StatusCode, value: &Value) -> Reply {
    let mut text = value.to_string().into_bytes();
    text.push(b'\n');
    bytes(code, JSON, text)
}

/// A refusal.
pub(crate) fn error(error: &ApiError) -> Reply {
    error_as(error, Encoding::Json)
}

/// A refusal, written as the client wants it.
pub(crate) fn error_as(error: &ApiError, encoding: Encoding) -> Reply {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = value(code, encoding, &error.to_value());
    if let Some(seconds) = error
        .details
        .as_ref()
        .map(|d| d.retry_after_seconds)
        .filter(|s| *s > 0)
    {
        reply
            .headers_mut()
            .insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

/// What Go's multiplexer says where nothing is.
pub(crate) fn nothing_there() -> Reply {
    bytes(
        StatusCode::NOT_FOUND,
        "text/plain; charset=utf-8",
        "404 page not found\n",
    )
}

/// As [`warn`], before all other warnings.
pub(crate) fn warn_first(reply: &mut Reply, warning: String) {
    let others: Vec<HeaderValue> = reply.headers().get_all(WARNING).iter().cloned().collect();
    reply.headers_mut().remove(WARNING);
    warn(reply, &[warning]);
    for other in others {
        reply.headers_mut().append(WARNING, other);
    }
}

/// Adds warnings for the person at the client. Source: RFC 7234, section 5.5, as used by KEP-1693.
pub(crate) fn warn(reply: &mut Reply, warnings: &[String]) {
    for text in warnings {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            reply.headers_mut().append(WARNING, value);
        }
    }
}
