//! May somebody do something? There is no authorizer, so everybody may, and the answer says why.
//! Source: `pkg/registry/authorization`.

use serde_json::{Value, json};

use crate::api::Call;
use crate::status::ApiError;

const REASON: &str =
    "authorization is not enforced by this server: every authenticated user may do everything";

pub(super) fn answer(_call: &Call<'_>, mut question: Value) -> Result<Value, ApiError> {
    question["status"] = json!({"allowed": true, "reason": REASON});
    Ok(question)
}
