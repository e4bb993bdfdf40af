//! What may I do in a namespace?
//! Source: `pkg/registry/authorization/selfsubjectrulesreview`.

use serde_json::{Value, json};

use crate::api::Call;
use crate::object::text;
use crate::status::ApiError;

pub(super) fn answer(_call: &Call<'_>, mut question: Value) -> Result<Value, ApiError> {
    if text(&question, "/spec/namespace").is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let all = json!(["*"]);
    question["status"] = json!({
        "incomplete": false,
        "resourceRules": [{"verbs": all, "apiGroups": all, "resources": all}],
        "nonResourceRules": [{"verbs": all, "nonResourceURLs": all}],
    });
    Ok(question)
}
