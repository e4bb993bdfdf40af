//! Eviction: a deletion that asks whether it may. Nothing here can forbid it yet (PodDisruptionBudgets are not
//! served), so it is a deletion with the options that it carries.
//! Source: API-initiated eviction, Kubernetes documentation.

use crate::api::Call;
use crate::body;
use crate::object::text;
use crate::reply::Reply;
use crate::status::ApiError;
use crate::verbs::delete::{Options, delete_one};

use super::done;

/// Evicts the Pod.
pub(super) async fn evict(
    call: &Call<'_>,
    media_type: &str,
    sent: &[u8],
) -> Result<Reply, ApiError> {
    let eviction = body::parse("Eviction", media_type, sent)?.object;
    let name = text(&eviction, "/metadata/name");
    if !name.is_empty() && name != call.name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let options = eviction
        .get("deleteOptions")
        .map(ToString::to_string)
        .unwrap_or_default();
    let options = Options::read(call, "application/json", options.as_bytes())?;
    delete_one(call, &options).await?;
    Ok(done(call))
}
