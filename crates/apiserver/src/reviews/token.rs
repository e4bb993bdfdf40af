//! Whose token is this?
//! Source: `pkg/registry/authentication/tokenreview`.

use serde_json::{Value, json};

use super::subject::info;
use crate::api::Call;
use crate::object::text;
use crate::status::ApiError;
use crate::tokens;

pub(super) fn answer(call: &Call<'_>, mut question: Value) -> Result<Value, ApiError> {
    let token = text(&question, "/spec/token");
    if token.is_empty() {
        return Err(ApiError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences: Vec<String> = question["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    question["status"] = match tokens::authenticate(call.api, token, &audiences) {
        Ok(Some(known)) => json!({
            "authenticated": true,
            "user": info(&known.user),
            "audiences": known.audiences,
        }),
        Ok(None) => json!({"user": {}}),
        Err(why) => json!({"user": {}, "error": why}),
    };
    Ok(question)
}
