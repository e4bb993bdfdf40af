//! What Pods have that other kinds do not: being bound to a node, evicted, read the logs of, and worked in.

mod binding;
mod container;
mod eviction;
mod log;
mod refusal;
mod stream;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use crate::api::Call;
use crate::reply::{self, Reply};
use crate::router;
use crate::status::ApiError;

/// Answers a request for a subresource of a Pod.
pub(crate) async fn subresource(
    call: &Call<'_>,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let method = request.method().clone();
    match (call.subresource, method) {
        ("binding", Method::POST) => {
            let (media_type, text) = router::text(request).await?;
            binding::bind(call, &media_type, &text).await
        }
        ("eviction", Method::POST) => {
            let (media_type, text) = router::text(request).await?;
            eviction::evict(call, &media_type, &text).await
        }
        ("log", Method::GET) => log::log(call).await,
        ("exec" | "attach" | "portforward", Method::GET | Method::POST) => {
            stream::upgrade(call, request).await
        }
        ("binding" | "eviction" | "log" | "exec" | "attach" | "portforward", _) => {
            Err(ApiError::method_not_allowed())
        }
        _ => Err(ApiError::no_such_resource()),
    }
}

/// The answer where there is nothing more to tell.
fn done(call: &Call<'_>) -> Reply {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    reply::value(StatusCode::CREATED, call.accept.encoding, &status)
}
