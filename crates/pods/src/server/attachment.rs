//! exec and attach: joins a WebSocket to a process in a container.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts as _, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tracing::debug;

use super::Answers;
use super::frames::{self, ERROR, FromClient, PROTOCOLS, STDERR, STDOUT};
use super::request::{Refused, running};
use crate::runtime::{
    ExecRequest, RuntimeError, Session, SessionEvent, SessionInput, SessionOutput,
};

/// What a request asks for: `PodExecOptions`, in the kubelet's names or in those of the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Options {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    command: Vec<String>,
}

impl Options {
    fn parse(query: &str) -> Self {
        let mut options = Options::default();
        for (name, value) in pairs(query) {
            let yes = matches!(value.as_str(), "1" | "true");
            match name.as_str() {
                "input" | "stdin" => options.stdin = yes,
                "output" | "stdout" => options.stdout = yes,
                "error" | "stderr" => options.stderr = yes,
                "tty" => options.tty = yes,
                "command" => options.command.push(value),
                _ => {}
            }
        }
        // A terminal has one output only.
        options.stderr &= !options.tty;
        options
    }
}

/// The parameters of a query, decoded; repeated ones in their order.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'+' => bytes.push(b' '),
                b'%' => {
                    let digits = rest
                        .clone()
                        .take(2)
                        .map(|digit| char::from(digit).to_digit(16))
                        .collect::<Option<Vec<_>>>();
                    match digits.as_deref() {
                        Some([high, low]) => {
                            // Two hexadecimal digits fit a byte.
                            bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                            rest.nth(1);
                        }
                        _ => bytes.push(b'%'),
                    }
                }
                other => bytes.push(other),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name), decode(value))
        })
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exec,
    Attach,
}

pub(super) async fn exec(
    State(answers): State<Arc<Answers>>,
    Path(path): Path<HashMap<String, String>>,
    request: Request,
) -> Response {
    open(Kind::Exec, answers, &path, request)
        .await
        .unwrap_or_else(Refused::response)
}

pub(super) async fn attach(
    State(answers): State<Arc<Answers>>,
    Path(path): Path<HashMap<String, String>>,
    request: Request,
) -> Response {
    open(Kind::Attach, answers, &path, request)
        .await
        .unwrap_or_else(Refused::response)
}

async fn open(
    kind: Kind,
    answers: Arc<Answers>,
    path: &HashMap<String, String>,
    request: Request,
) -> Result<Response, Refused> {
    let part = |name: &str| path.get(name).map(String::as_str).unwrap_or_default();
    let container = running(&answers, part("namespace"), part("pod"), part("container"))?;
    let mut options = Options::parse(request.uri().query().unwrap_or_default());
    if !(options.stdin || options.stdout || options.stderr) {
        let message = "you must specify at least one of stdin, stdout, stderr";
        return Err(Refused::new(StatusCode::BAD_REQUEST, message));
    }
    if kind == Kind::Exec && options.command.is_empty() {
        return Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "you must specify at least one command for the container",
        ));
    }
    // An attach has what the container was started with.
    if kind == Kind::Attach {
        options.tty = container.spec.tty;
        options.stdin &= container.spec.stdin;
    }
    let upgrade = upgrade_of(request).await?;
    let upgrade = upgrade.protocols(PROTOCOLS);
    if upgrade.selected_protocol().is_none() {
        let message = format!(
            "none of the offered subprotocols is known; this node has {}",
            PROTOCOLS.join(" and ")
        );
        return Err(Refused::new(StatusCode::BAD_REQUEST, message));
    }
    Ok(upgrade.on_upgrade(async move |socket| {
        let closes = socket
            .protocol()
            .is_some_and(|protocol| protocol == PROTOCOLS[0]);
        let session = match kind {
            Kind::Exec => {
                let request = ExecRequest {
                    command: options.command.clone(),
                    tty: options.tty,
                    stdin: options.stdin,
                };
                answers.runtime.exec(&container.id, request).await
            }
            Kind::Attach => answers.runtime.attach(&container.id).await,
        };
        join(socket, session, kind, &options, closes).await;
    }))
}

/// The upgrade to WebSocket, or what to use instead of what was asked for.
async fn upgrade_of(request: Request) -> Result<WebSocketUpgrade, Refused> {
    let (mut parts, _) = request.into_parts();
    let asked = parts
        .headers
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if asked.to_ascii_lowercase().starts_with("spdy/") {
        let message = "SPDY is not supported by seaway: use a client that speaks WebSocket (kubectl 1.31 or newer)";
        return Err(Refused::new(StatusCode::NOT_IMPLEMENTED, message));
    }
    WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|error| {
            Refused::new(
                StatusCode::BAD_REQUEST,
                format!("an upgrade to WebSocket is needed: {error}"),
            )
        })
}

/// Carries everything both ways until the process ends or the client goes.
async fn join(
    socket: WebSocket,
    session: Result<Session, RuntimeError>,
    kind: Kind,
    options: &Options,
    closes: bool,
) {
    let (mut sink, stream) = socket.split();
    let status = match session {
        Ok(Session { input, output }) => tokio::select! {
            status = from_process(&mut sink, output, kind, options) => status,
            () = from_client(stream, input, options, closes) => None,
        },
        Err(error) => Some(frames::internal_error(&format!(
            "error executing command in container: {error}"
        ))),
    };
    // Without a status the client is gone.
    let Some(status) = status else { return };
    let last = frames::frame(ERROR, status.to_string().as_bytes());
    let goodbye = Message::Close(Some(CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    }));
    for message in [Message::Binary(last), goodbye] {
        if let Err(error) = sink.send(message).await {
            debug!(%error, "a client of exec or attach is gone");
            return;
        }
    }
}

/// Sends what the process writes; the status to end with, or `None` when the client is gone.
async fn from_process(
    sink: &mut SplitSink<WebSocket, Message>,
    mut output: SessionOutput,
    kind: Kind,
    options: &Options,
) -> Option<Value> {
    // An empty message tells the client that the connection stands.
    let first = if options.stdout {
        STDOUT
    } else if options.stderr {
        STDERR
    } else {
        ERROR
    };
    sink.send(Message::Binary(frames::frame(first, &[])))
        .await
        .ok()?;
    loop {
        let (channel, data, wanted) = match output.next().await {
            Ok(Some(SessionEvent::Stdout(data))) => (STDOUT, data, options.stdout),
            Ok(Some(SessionEvent::Stderr(data))) => (STDERR, data, options.stderr),
            Ok(Some(SessionEvent::Exit(code))) if kind == Kind::Exec => {
                return Some(frames::exit_status(code));
            }
            // An attach tells nothing of the container's end.
            Ok(Some(SessionEvent::Exit(_)) | None) => return Some(frames::exit_status(0)),
            Err(error) => return Some(frames::internal_error(&error.to_string())),
        };
        if wanted {
            sink.send(Message::Binary(frames::frame(channel, &data)))
                .await
                .ok()?;
        }
    }
}

/// Feeds the process; returns when the client is gone.
async fn from_client(
    mut stream: SplitStream<WebSocket>,
    mut input: SessionInput,
    options: &Options,
    closes: bool,
) {
    let mut open = options.stdin;
    while let Some(message) = stream.next().await {
        let message: Bytes = match message {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Close(_)) | Err(_) => return,
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
        };
        let result = match frames::read(&message, closes) {
            FromClient::Stdin(data) if open => input.write(&data).await,
            FromClient::StdinEnd if open => {
                open = false;
                input.close().await
            }
            FromClient::Resize(size) => input.resize(size).await,
            FromClient::Stdin(_) | FromClient::StdinEnd | FromClient::Nothing => Ok(()),
        };
        if let Err(error) = result {
            // A process that does not read any more may still write.
            debug!(%error, "a process does not take input");
            open = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_in_both_spellings() {
        let kubelet = Options::parse(
            "command=sh&command=-c&command=echo+%22a%26b%22&input=1&output=1&error=1",
        );
        let api = Options::parse(
            "command=sh&command=-c&command=echo%20%22a%26b%22&stdin=true&stdout=true&stderr=true",
        );
        assert_eq!(kubelet, api);
        assert_eq!(api.command, ["sh", "-c", "echo \"a&b\""]);
        assert!(api.stdin && api.stdout && api.stderr && !api.tty);
    }

    #[test]
    fn a_terminal_has_no_second_output() {
        assert!(!Options::parse("tty=1&output=1&error=1").stderr);
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(
            pairs("a=%zz&b=%4&c=%41%&=x&&d"),
            [
                ("a".to_owned(), "%zz".to_owned()),
                ("b".to_owned(), "%4".to_owned()),
                ("c".to_owned(), "A%".to_owned()),
                (String::new(), "x".to_owned()),
                ("d".to_owned(), String::new()),
            ]
        );
    }
}
