//! The API server as a proxy: to Pods, to the Pods behind a Service, and to the agents of nodes.
//!
//! `door` reads what a path asks for, `backend` finds who answers, `forward` passes the request on, and `links` and
//! `html` make sure that what the answer refers to leads through the proxy again.
//! Source: `k8s.io/apimachinery/pkg/util/proxy`; `ResourceLocation` of Pods, Services and nodes in
//! `k8s.io/kubernetes/pkg/registry/core`.

mod backend;
mod door;
mod forward;
mod html;
mod links;
mod page;

use http::Request;
use hyper::body::Incoming;

use crate::api::Api;
use crate::reply::Reply;
use crate::status::ApiError;

use backend::Backend;
pub(crate) use door::Door;
pub(crate) use forward::wants_upgrade;

/// Answers a request that came through `door`.
pub(crate) async fn serve(
    api: &Api,
    door: &Door,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    if !forward::wants_upgrade(request.headers())
        && let Some(redirect) = forward::to_root(door, &request)
    {
        // Kubernetes looks for the backend first, and so do we: what is not there redirects nowhere.
        Backend::find(api, door)?;
        return Ok(redirect);
    }
    let backend = Backend::find(api, door)?;
    forward::forward(api, door, &backend, request).await
}
