//! exec, attach and port forwarding: passed to the node on which the Pod runs. What flows after an upgrade
//! (WebSocket or SPDY) is between the client and the node and is passed on byte for byte.

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use serde_json::Value;

use super::container;
use crate::api::Call;
use crate::node::Place;
use crate::object::text;
use crate::proxy;
use crate::reply::{self, Reply};
use crate::status::ApiError;
use crate::tunnel;

/// Streams of exec and attach: as the API names them, and as a kubelet does. A node gets both.
const STREAMS: [(&str, &str); 4] = [
    ("stdin", "input"),
    ("stdout", "output"),
    ("stderr", "error"),
    ("tty", "tty"),
];
/// Joins the client and the node, for exec, attach and port forwarding.
pub(super) async fn upgrade(
    call: &Call<'_>,
    mut request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let pod = call.decode(&call.record()?)?;
    let path = path(call, &pod)?;
    let node = text(&pod, "/spec/nodeName");
    if node.is_empty() {
        return Err(ApiError::bad_request(format!(
            "pod {} does not have a host assigned",
            call.name
        )));
    }
    if !proxy::wants_upgrade(request.headers()) {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let client = hyper::upgrade::on(&mut request);
    let method = request.method().clone();
    let mut answer = ask(call, node, method, &path, Some(&request)).await?;
    let code = answer.status();
    if code == StatusCode::SWITCHING_PROTOCOLS {
        let node = hyper::upgrade::on(&mut answer);
        tokio::spawn(tunnel::join(client, node, call.api.shutdown.clone()));
        let (parts, _) = answer.into_parts();
        return Ok(Response::from_parts(parts, reply::full(Bytes::new())));
    }
    if code.as_u16() < 400 {
        let why = format!("invalid upgrade response: status code {}", code.as_u16());
        return Err(ApiError::new(500, "", why));
    }
    // Clients show a refusal of an upgrade as it is, so it is passed on as the node worded it.
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(CONNECTION);
    parts.headers.remove(TRANSFER_ENCODING);
    let body = body.map_err(Into::into).boxed_unsync();
    Ok(Response::from_parts(parts, body))
}

/// The path on the node, with what the client asked for.
fn path(call: &Call<'_>, pod: &Value) -> Result<String, ApiError> {
    let mut query = Serializer::new(String::new());
    if call.subresource == "portforward" {
        for ports in call.query.all("ports") {
            query.append_pair("port", ports);
        }
        return Ok(format!(
            "/portForward/{}/{}?{}",
            call.namespace,
            call.name,
            query.finish()
        ));
    }
    let container = container::choose(pod, call.query.text("container"))?;
    for (ours, theirs) in STREAMS {
        if call.query.flag(ours) {
            query.append_pair(theirs, "1");
            if ours != theirs {
                query.append_pair(ours, "true");
            }
        }
    }
    if call.subresource == "exec" {
        let mut commands = call.query.all("command").peekable();
        if commands.peek().is_none() {
            return Err(ApiError::bad_request(
                "you must specify at least 1 command for the container",
            ));
        }
        for command in commands {
            query.append_pair("command", command);
        }
    }
    Ok(format!(
        "/{}/{}/{}/{container}?{}",
        call.subresource,
        call.namespace,
        call.name,
        query.finish()
    ))
}

/// Sends a request to a node, with the headers of the client's if it is to be upgraded.
pub(super) async fn ask(
    call: &Call<'_>,
    node: &str,
    method: Method,
    path: &str,
    like: Option<&Request<Incoming>>,
) -> Result<Response<Incoming>, ApiError> {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(ApiError::internal)?;
    for (name, value) in like.iter().flat_map(|like| like.headers()) {
        // Those are between the client and this server.
        if ![HOST, AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            request
                .headers_mut()
                .append(name, HeaderValue::clone(value));
        }
    }
    call.api
        .nodes
        .ask(Place::of(call.api, node)?, request)
        .await
}
