//! Port forwarding: connections of a client become connections inside a Pod.
//!
//! Three languages, one thing: SPDY with two streams for each connection; the same SPDY inside a WebSocket, which
//! kubectl has preferred since 1.31; and channels of a WebSocket, one connection for each port, as the Python client
//! does it.
//! Source: `k8s.io/kubelet/pkg/cri/streaming/portforward`, KEP-4006.

mod carry;
mod channels;
mod pairs;
mod streams;
mod target;
mod tunnel;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::Answers;
use super::request::{Refused, pod_named};
use super::upgrade::{self, Spdy, Wanted, Web};
use target::Target;

/// What is spoken over SPDY.
const OVER_SPDY: &str = "portforward.k8s.io";
/// SPDY inside a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// What is spoken over a WebSocket.
const OVER_WEBSOCKET: [&str; 3] = [TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];

pub(super) async fn port_forward(
    State(answers): State<Arc<Answers>>,
    Path(path): Path<HashMap<String, String>>,
    request: Request,
) -> Response {
    open(&answers, &path, request)
        .await
        .unwrap_or_else(Refused::response)
}

async fn open(
    answers: &Answers,
    path: &HashMap<String, String>,
    mut request: Request,
) -> Result<Response, Refused> {
    let target = target(answers, path)?;
    let query = request.uri().query().unwrap_or_default().to_owned();
    match Wanted::of(request.headers()) {
        Wanted::Nothing => Err(upgrade::nothing_wanted()),
        Wanted::Spdy => {
            let spdy = Spdy::negotiate(&mut request, &[OVER_SPDY])?;
            Ok(spdy.accept(async move |session| streams::serve(session, Arc::new(target)).await))
        }
        Wanted::WebSocket => {
            let web = Web::negotiate(request, &OVER_WEBSOCKET).await?;
            if web.protocol == TUNNEL {
                return Ok(web.accept(async move |socket| {
                    streams::serve(tunnel::session(socket), Arc::new(target)).await;
                }));
            }
            let refused = |problem: String| Refused::new(StatusCode::BAD_REQUEST, problem);
            let ports = channels::ports(&query).map_err(refused)?;
            let protocol = web.protocol;
            Ok(web.accept(async move |socket| {
                channels::serve(socket, protocol, ports, target).await;
            }))
        }
    }
}

fn target(answers: &Answers, path: &HashMap<String, String>) -> Result<Target, Refused> {
    let part = |name: &str| path.get(name).map(String::as_str).unwrap_or_default();
    let pod = pod_named(answers, part("namespace"), part("pod"))?;
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let sandbox = answers.runtime.sandbox(&uid).map_err(Refused::internal)?;
    let sandbox = sandbox.ok_or_else(|| {
        let message = format!("failed to find running pod sandbox {uid:?}: not found");
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    Ok(Target::new(uid, sandbox.netns()))
}
