//! Reading what a client sends: within a limit, as JSON or YAML, and as the kind that the path names.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use seaway_objects::kind::Names;
use seaway_objects::kinds;

use crate::deadline;
use crate::object::api_version;
use crate::protobuf;
use crate::status::ApiError;
use crate::strict_json;
use crate::yaml;

/// Bytes of a body. Source: `k8s.io/apiserver`, `MaxRequestBodyBytes` (what etcd takes, twice over).
pub(crate) const LIMIT: usize = 3 << 20;

/// Media types of objects that are read.
const READ: [&str; 3] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];

/// An object as the client sent it.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) object: Value,
    /// Paths of fields that were given more than once in JSON.
    pub(crate) duplicates: Vec<String>,
    /// Keys that were given more than once in YAML, with their lines.
    pub(crate) yaml_duplicates: Vec<String>,
    /// The JSON that the object was read from; empty if it was something else.
    pub(crate) source: Vec<u8>,
}

impl Sent {
    fn plain(object: Value) -> Self {
        Self {
            object,
            duplicates: Vec::new(),
            yaml_duplicates: Vec::new(),
            source: Vec::new(),
        }
    }
}

/// Reads the whole body. A client that does not send it in time is not waited for.
pub(crate) async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let Ok(read) = tokio::time::timeout(deadline::MOST, Limited::new(body, LIMIT).collect()).await
    else {
        return Err(deadline::passed());
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => Err(ApiError::too_large(LIMIT)),
        Err(e) => Err(ApiError::bad_request(format!(
            "the body of the request could not be read: {e}"
        ))),
    }
}

/// The media type of the body, without parameters; JSON if none is given.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let kind = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if kind.is_empty() {
        READ[0].to_owned()
    } else {
        kind
    }
}

/// Reads an object of a kind. Type members that are missing are filled in; others are refused.
pub(crate) fn object(names: &Names, media_type: &str, body: &[u8]) -> Result<Sent, ApiError> {
    let mut sent = parse(names.kind, media_type, body)?;
    let version = api_version(names);
    if sent.object.is_null() {
        sent.object = Value::Object(serde_json::Map::new());
    }
    let Value::Object(map) = &mut sent.object else {
        // Refused by `parse`.
        return Err(unrecognized(names.kind, "json: not an object", body));
    };
    let given = |name: &str| {
        map.get(name)
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
    };
    let given_version = given("apiVersion").unwrap_or_else(|| version.clone());
    let given_kind = given("kind").unwrap_or_else(|| names.kind.to_owned());
    if given_version != version && kinds::is_version_of(&given_version, &given_kind, names) {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({version})"
        )));
    }
    if given_version != version || given_kind != names.kind {
        let why = if protobuf::knows(&given_version, &given_kind) {
            let group = names
                .group
                .split('.')
                .next()
                .filter(|g| !g.is_empty())
                .unwrap_or("core");
            format!(
                "converting ({}.{given_kind}) to ({group}.{}): unknown conversion",
                short_version(&given_version),
                names.kind
            )
        } else {
            format!(
                "no kind {given_kind:?} is registered for version {given_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
            )
        };
        return Err(ApiError::bad_request(format!(
            "{given_kind} in version {:?} cannot be handled as a {}: {why}",
            short_version(&given_version),
            names.kind
        )));
    }
    map.insert("apiVersion".to_owned(), version.into());
    map.insert("kind".to_owned(), names.kind.into());
    Ok(sent)
}

/// Reads JSON or YAML of no particular kind. `wanted` is only for the error.
pub(crate) fn parse(wanted: &str, media_type: &str, body: &[u8]) -> Result<Sent, ApiError> {
    let json = |why: &str| {
        unrecognized(
            wanted,
            &format!("couldn't get version/kind; json parse error: {why}"),
            body,
        )
    };
    let sent = match media_type {
        "application/json" => {
            let (object, duplicates) = strict_json::parse(body).map_err(|e| json(&e))?;
            Sent {
                duplicates,
                source: body.to_vec(),
                ..Sent::plain(object)
            }
        }
        "application/yaml" => {
            let (object, yaml_duplicates) = yaml::parse(body).map_err(|e| {
                unrecognized(wanted, &format!("error converting YAML to JSON: {e}"), body)
            })?;
            Sent {
                yaml_duplicates,
                ..Sent::plain(object)
            }
        }
        "application/vnd.kubernetes.protobuf" => {
            let object = protobuf::read(body).map_err(|e| {
                ApiError::bad_request(format!(
                    "the object provided is unrecognized (must be of type {wanted}): {e}"
                ))
            })?;
            Sent::plain(object)
        }
        _ => return Err(ApiError::unsupported_media_type(&READ)),
    };
    typed_as_text(&sent.object).map_or(Ok(sent), |why| Err(json(&why)))
}

/// What Go says when it looks for the type of something that has none: its own type there is an anonymous struct.
fn typed_as_text(object: &Value) -> Option<String> {
    let go = |value: &Value| match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Null => "null",
    };
    match object {
        Value::Null => None,
        Value::Object(map) => ["apiVersion", "kind"].into_iter().find_map(|field| {
            let value = map.get(field).filter(|v| !v.is_string() && !v.is_null())?;
            Some(format!(
                "json: cannot unmarshal {} into Go struct field .{field} of type string",
                go(value)
            ))
        }),
        other => Some(format!(
            "json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            go(other)
        )),
    }
}

/// Source: `transformDecodeError` in `k8s.io/apiserver/pkg/endpoints/handlers`.
fn unrecognized(wanted: &str, why: &str, body: &[u8]) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {wanted}): {why} ({})",
        summary(body)
    ))
}

/// The beginning of a body, for people: as text if it may be JSON, otherwise as hexadecimal digits.
fn summary(body: &[u8]) -> String {
    const MAX: usize = 30;
    let (start, dots) = match body.get(..MAX) {
        Some(start) if body.len() > MAX => (start, " ..."),
        _ => (body, ""),
    };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(start)),
        Some(_) => format!("{}{dots}", hex::encode(start)),
    }
}

/// `v1` of `apps/v1`: Kubernetes leaves the group out here.
fn short_version(version: &str) -> &str {
    version.rsplit('/').next().unwrap_or(version)
}
