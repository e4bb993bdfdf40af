//! Questions that are answered and never stored: who am I, may I, whose token is this. They have a place in the API like
//! other kinds, and only `create`.
//!
//! A new one is a kind with `REVIEW`, and a file here with a line in [`ANSWERS`].

mod access;
mod rules;
mod subject;
mod token;

use http::StatusCode;
use serde_json::Value;

use seaway_objects::kind::Kind;

use crate::api::Call;
use crate::body;
use crate::fields;
use crate::object::{metadata_mut, text};
use crate::reply::{self, Reply};
use crate::status::ApiError;

/// Completes a question with its answer.
type Answer = fn(&Call<'_>, Value) -> Result<Value, ApiError>;

const ANSWERS: [(&str, Answer); 6] = [
    ("LocalSubjectAccessReview", access::answer),
    ("SelfSubjectAccessReview", access::answer),
    ("SelfSubjectReview", subject::answer),
    ("SelfSubjectRulesReview", rules::answer),
    ("SubjectAccessReview", access::answer),
    ("TokenReview", token::answer),
];

/// Answers the question in the body.
pub(crate) fn create(call: &Call<'_>, media_type: &str, text: &[u8]) -> Result<Reply, ApiError> {
    let kind = &*call.resource.kind;
    let (_, answer) = ANSWERS
        .iter()
        .find(|(name, _)| *name == call.resource.names.kind)
        .ok_or_else(ApiError::no_such_resource)?;
    let mut question = read(call, kind, media_type, text)?;
    kind.default(&mut question);
    let errors = kind.validate(&question);
    if !errors.is_empty() {
        return Err(ApiError::invalid(call.resource.names, "", &errors));
    }
    let answered = answer(call, question)?;
    Ok(reply::value(
        StatusCode::CREATED,
        call.accept.encoding,
        &answered,
    ))
}

/// Reads an object of a kind that is not stored, in the namespace of the request.
pub(crate) fn read(
    call: &Call<'_>,
    kind: &dyn Kind,
    media_type: &str,
    text_: &[u8],
) -> Result<Value, ApiError> {
    let names = kind.names();
    let sent = body::object(names, media_type, text_)?;
    fields::check_kind(call, kind, &sent)?;
    let mut object = kind.decode(sent.object).map_err(|e| {
        ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {kind}: {e}",
            names.version,
            kind = names.kind
        ))
    })?;
    let given = text(&object, "/metadata/namespace");
    if !given.is_empty() && given != call.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !call.namespace.is_empty() {
        metadata_mut(&mut object).insert("namespace".to_owned(), call.namespace.into());
    }
    Ok(object)
}
