//! Patching: what the patch makes of the object is then an update like any other.

use http::StatusCode;
use serde_json::Value;

use seaway_objects::patch::{self, PatchError};

use crate::api::Call;
use crate::body::Sent;
use crate::fields;
use crate::reply::{self, Reply};
use crate::status::ApiError;
use crate::strict_json;
use crate::verbs::get::answer;
use crate::verbs::update::{Part, change};

/// What is sent to change an object.
#[derive(Debug)]
pub(crate) enum Patch {
    /// RFC 6902
    Json(Value),
    /// RFC 7386
    Merge(Value),
    /// As merge, but lists merge by the keys of their elements.
    Strategic(Value),
}

impl Patch {
    /// Reads a patch; the media type says which kind it is.
    pub(crate) fn read(media_type: &str, text: &[u8]) -> Result<Self, ApiError> {
        let parse = || -> Result<Value, ApiError> {
            let (value, _) = strict_json::parse(text)
                .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
            Ok(value)
        };
        match media_type {
            "application/json-patch+json" => Ok(Self::Json(parse()?)),
            "application/merge-patch+json" => Ok(Self::Merge(parse()?)),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic(parse()?)),
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => Err(ApiError::new(
                415,
                "UnsupportedMediaType",
                "server-side apply is not supported by this server: apply without --server-side",
            )),
            _ => {
                let mut error =
                    ApiError::new(415, "UnsupportedMediaType", "415: Unsupported Media Type");
                error.details = Some(Box::default());
                Err(error)
            }
        }
    }

    /// What it makes of an object.
    pub(crate) fn apply(&self, call: &Call<'_>, object: &Value) -> Result<Value, ApiError> {
        let patched = match self {
            Self::Strategic(_) if !call.resource.kind.strategic_merge() => {
                return Err(no_strategic_merge());
            }
            Self::Json(operations) => patch::json(object, operations),
            Self::Merge(changes) => patch::merge(object, changes),
            Self::Strategic(changes) => patch::strategic(&*call.resource.kind, object, changes),
        };
        patched.map_err(|e| refused(&e))
    }
}

/// Custom resources have nothing that says how their lists merge.
fn no_strategic_merge() -> ApiError {
    ApiError::unsupported_media_type(&[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
    ])
}

/// What a client is told of a patch that does not fit.
pub(crate) fn refused(error: &PatchError) -> ApiError {
    let (code, reason) = error.status();
    let mut refusal = ApiError::new(code, reason, error.to_string());
    if matches!(error, PatchError::Inapplicable { .. }) {
        refusal.details = Some(Box::default());
    }
    refusal
}

/// Patches the object or its status.
pub(crate) async fn patch(
    call: &Call<'_>,
    media_type: &str,
    text: &[u8],
    part: Part,
) -> Result<Reply, ApiError> {
    let patch = Patch::read(media_type, text)?;
    let record = call.record()?;
    // Fields are checked once, on what the patch makes of the object as it is now.
    let object = patch.apply(call, &call.decode(&record)?)?;
    let warnings = fields::check(
        call,
        &Sent {
            object,
            duplicates: Vec::new(),
        },
    )?;
    let object = change(call, part, |old| patch.apply(call, old)).await?;
    let mut reply = answer(call, StatusCode::OK, object)?;
    reply::warn(&mut reply, &warnings);
    Ok(reply)
}
