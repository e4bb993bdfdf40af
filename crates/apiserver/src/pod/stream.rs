//! Logs, exec, attach and port forwarding: passed to the node on which the Pod runs. What flows after an upgrade
//! (WebSocket or SPDY) is between the client and the node and is passed on byte for byte.

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::container;
use crate::api::Call;
use crate::node::Place;
use crate::object::text;
use crate::reply::{self, Reply};
use crate::status::{ApiError, resource};

/// Parameters of a log that a node understands.
const LOG_OPTIONS: [&str; 7] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
];
/// Streams of exec and attach: as the API names them, and as a kubelet does. A node gets both.
const STREAMS: [(&str, &str); 4] = [
    ("stdin", "input"),
    ("stdout", "output"),
    ("stderr", "error"),
    ("tty", "tty"),
];
/// Bytes of a node's refusal that are passed on.
const REFUSAL: usize = 2048;

/// Answers with what a container wrote.
pub(super) async fn log(call: &Call<'_>) -> Result<Reply, ApiError> {
    let pod = call.decode(&call.record()?)?;
    let container = container::choose(&pod, call.query.text("container"))?;
    let text_plain = "text/plain";
    let node = text(&pod, "/spec/nodeName");
    if node.is_empty() {
        // It has not run anywhere, so it wrote nothing.
        return Ok(reply::bytes(StatusCode::OK, text_plain, ""));
    }
    let path = log_path(call, container);
    let answer = ask(call, node, Method::GET, &path, None).await?;
    if !answer.status().is_success() {
        return Err(refusal(call, answer).await);
    }
    let body = answer.into_body().map_err(Into::into).boxed_unsync();
    Ok(reply::with_body(StatusCode::OK, text_plain, body))
}

/// The path of a log on the node.
fn log_path(call: &Call<'_>, container: &str) -> String {
    let mut query = Serializer::new(String::new());
    for option in LOG_OPTIONS {
        if let Some(value) = call.query.text(option) {
            query.append_pair(option, value);
        }
    }
    format!(
        "/containerLogs/{}/{}/{container}?{}",
        call.namespace,
        call.name,
        query.finish()
    )
}

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
    let client = hyper::upgrade::on(&mut request);
    let method = request.method().clone();
    let mut answer = ask(call, node, method, &path, Some(&request)).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(call, answer).await);
    }
    let node = hyper::upgrade::on(&mut answer);
    tokio::spawn(join(client, node, call.api.shutdown.clone()));
    let (parts, _) = answer.into_parts();
    Ok(Response::from_parts(parts, reply::full(Bytes::new())))
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
async fn ask(
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

/// What a node's refusal is to the client.
/// Source: `k8s.io/apiserver/pkg/registry/generic/rest/response_checker.go`.
async fn refusal(call: &Call<'_>, answer: Response<Incoming>) -> ApiError {
    let code = answer.status();
    let text = match Limited::new(answer.into_body(), REFUSAL).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes())
            .trim_end()
            .to_owned(),
        Err(error) => error.to_string(),
    };
    match code {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::INTERNAL_SERVER_ERROR => ApiError::internal(text),
        StatusCode::NOT_FOUND => {
            let names = call.resource.names;
            let what = format!(
                "the server could not find the requested resource ({} {})",
                resource(names),
                call.name
            );
            let mut error = ApiError::not_found(names, call.name);
            error.message = if text.is_empty() {
                what
            } else {
                format!("{what}: {text}")
            };
            error
        }
        _ => ApiError::new(
            500,
            "InternalError",
            format!("the node answered {code}: {text}"),
        ),
    }
}

/// Passes bytes on in both directions until one side ends or the server does.
async fn join(client: OnUpgrade, node: OnUpgrade, shutdown: CancellationToken) {
    let passing = async {
        let (client, node) = tokio::try_join!(client, node)?;
        let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
        tokio::io::copy_bidirectional(&mut client, &mut node).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    tokio::select! {
        passed = passing => {
            if let Err(error) = passed {
                tracing::debug!(%error, "a stream between a client and a node ended with an error");
            }
        }
        () = shutdown.cancelled() => {}
    }
}
