//! The kubelet API of the node: logs, exec, attach and port forwarding for the API server, over HTTPS with client
//! certificates.
//! Source: `pkg/kubelet/server/server.go`.

mod attachment;
mod conversation;
mod ending;
mod frames;
mod logs;
mod over_spdy;
mod over_websocket;
mod port_forward;
mod request;
mod serve;
mod sizes;
mod spdy;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;

pub use serve::{Listener, serve};

use crate::controller::PodTable;
use crate::runtime::{ContainerPhase, Runtime};

/// A conversation in which nothing happens for so long is over: the kubelet's default
/// `streamingConnectionIdleTimeout`.
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);

/// Whether the client showed a certificate of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Authenticated(bool);

/// What requests are answered from.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The Pods of the node.
    pub pods: PodTable,
    /// Their containers.
    pub runtime: Runtime,
}

/// All paths of the API.
fn router(answers: Arc<Answers>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/pods", get(pods))
        .route("/metrics", get(metrics))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(logs::container_logs),
        )
        .route(
            "/exec/{namespace}/{pod}/{container}",
            get(attachment::exec).post(attachment::exec),
        )
        .route(
            "/exec/{namespace}/{pod}/{uid}/{container}",
            get(attachment::exec).post(attachment::exec),
        )
        .route(
            "/attach/{namespace}/{pod}/{container}",
            get(attachment::attach).post(attachment::attach),
        )
        .route(
            "/attach/{namespace}/{pod}/{uid}/{container}",
            get(attachment::attach).post(attachment::attach),
        )
        .route(
            "/portForward/{namespace}/{pod}",
            get(port_forward::port_forward).post(port_forward::port_forward),
        )
        .route(
            "/portForward/{namespace}/{pod}/{uid}",
            get(port_forward::port_forward).post(port_forward::port_forward),
        )
        .layer(middleware::from_fn(authenticate))
        .with_state(answers)
}

async fn authenticate(request: Request, next: Next) -> Response {
    match request.extensions().get::<Authenticated>() {
        Some(Authenticated(true)) => next.run(request).await,
        // Whatever says nothing of the client is not let in.
        _ => (StatusCode::UNAUTHORIZED, "Unauthorized").into_response(),
    }
}

async fn pods(State(answers): State<Arc<Answers>>) -> Response {
    let items = answers
        .pods
        .list()
        .iter()
        .map(|pod| Pod::clone(pod))
        .collect();
    axum::Json(List::<Pod> {
        items,
        ..List::default()
    })
    .into_response()
}

async fn metrics(State(answers): State<Arc<Answers>>) -> Response {
    let pods = answers.pods.list();
    let running = pods
        .iter()
        .filter_map(|pod| {
            answers
                .runtime
                .containers(pod.metadata.uid.as_deref()?)
                .ok()
        })
        .flatten()
        .filter(|container| matches!(container.phase, ContainerPhase::Running { .. }))
        .count();
    let text = format!(
        "# HELP kubelet_running_pods Number of pods that have a running pod sandbox\n\
         # TYPE kubelet_running_pods gauge\nkubelet_running_pods {}\n\
         # HELP kubelet_running_containers Number of containers currently running\n\
         # TYPE kubelet_running_containers gauge\nkubelet_running_containers{{container_state=\"running\"}} {running}\n",
        pods.len()
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use tower::ServiceExt as _;

    async fn status(extension: Option<Authenticated>) -> StatusCode {
        let app = Router::new()
            .route("/healthz", get(async || "ok"))
            .layer(middleware::from_fn(authenticate));
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = "/healthz".parse().unwrap();
        if let Some(extension) = extension {
            request.extensions_mut().insert(extension);
        }
        app.oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn only_who_showed_a_certificate_is_let_in() {
        assert_eq!(status(Some(Authenticated(true))).await, StatusCode::OK);
        assert_eq!(
            status(Some(Authenticated(false))).await,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(status(None).await, StatusCode::UNAUTHORIZED);
    }
}
