//! exec and attach: what is asked for, and in which language.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::Answers;
use super::conversation::{Client, Kind, Streams, carry, tell};
use super::ending;
use super::request::{Refused, running};
use super::upgrade::{self, Spdy, Wanted, Web};
use super::{over_spdy, over_websocket};
use crate::runtime::{Container, ExecRequest, RuntimeError, Session};

/// What a request asks for: `PodExecOptions`, in the kubelet's names or in those of the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Options {
    streams: Streams,
    command: Vec<String>,
}

impl Options {
    fn parse(query: &str) -> Self {
        let mut options = Options::default();
        let streams = &mut options.streams;
        for (name, value) in pairs(query) {
            let yes = matches!(value.as_str(), "1" | "true");
            match name.as_str() {
                "input" | "stdin" => streams.stdin = yes,
                "output" | "stdout" => streams.stdout = yes,
                "error" | "stderr" => streams.stderr = yes,
                "tty" => streams.tty = yes,
                "command" => options.command.push(value),
                _ => {}
            }
        }
        // A terminal has one output only.
        streams.stderr &= !streams.tty;
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

pub(super) async fn exec(
    State(answers): State<Arc<Answers>>,
    Path(path): Path<HashMap<String, String>>,
    request: Request,
) -> Response {
    open(Kind::Exec, answers, &path, request).await
}

pub(super) async fn attach(
    State(answers): State<Arc<Answers>>,
    Path(path): Path<HashMap<String, String>>,
    request: Request,
) -> Response {
    open(Kind::Attach, answers, &path, request).await
}

/// A container, and what is to be done in it.
struct Task {
    answers: Arc<Answers>,
    kind: Kind,
    container: Container,
    options: Options,
}

impl Task {
    fn new(
        kind: Kind,
        answers: Arc<Answers>,
        path: &HashMap<String, String>,
        query: &str,
    ) -> Result<Self, Refused> {
        let part = |name: &str| path.get(name).map(String::as_str).unwrap_or_default();
        let container = running(&answers, part("namespace"), part("pod"), part("container"))?;
        let mut options = Options::parse(query);
        let streams = &mut options.streams;
        let refused = |message| Err(Refused::new(StatusCode::BAD_REQUEST, message));
        if !(streams.stdin || streams.stdout || streams.stderr) {
            return refused("you must specify at least 1 of stdin, stdout, stderr");
        }
        if kind == Kind::Exec && options.command.is_empty() {
            return refused("you must specify at least 1 command for the container");
        }
        // An attach has the terminal that the container was started with, or none.
        if kind == Kind::Attach {
            streams.tty = container.spec.tty;
        }
        Ok(Self {
            answers,
            kind,
            container,
            options,
        })
    }

    async fn session(&self) -> Result<Session, RuntimeError> {
        let runtime = &self.answers.runtime;
        match self.kind {
            Kind::Exec => {
                let request = ExecRequest {
                    command: self.options.command.clone(),
                    tty: self.options.streams.tty,
                    stdin: self.options.streams.stdin,
                };
                runtime.exec(&self.container.id, request).await
            }
            Kind::Attach => runtime.attach(&self.container.id).await,
        }
    }

    async fn carry(&self, client: Client) {
        let spec = &self.container.spec;
        let mut streams = self.options.streams;
        streams.stdin &= self.kind == Kind::Exec || spec.stdin;
        let stdin_once = spec.stdin_once && !spec.tty;
        carry(client, self.session().await, self.kind, streams, stdin_once).await;
    }
}

async fn open(
    kind: Kind,
    answers: Arc<Answers>,
    path: &HashMap<String, String>,
    mut request: Request,
) -> Response {
    let query = request.uri().query().unwrap_or_default();
    // What the client opens are the streams that it asks for.
    let asked = Options::parse(query).streams;
    let task = Task::new(kind, answers, path, query);
    match Wanted::of(request.headers()) {
        Wanted::Nothing => task
            .err()
            .unwrap_or_else(upgrade::nothing_wanted)
            .response(),
        Wanted::Spdy => {
            let task = match task {
                Ok(task) => task,
                Err(refused) => return refused.response(),
            };
            let spdy = match Spdy::negotiate(&mut request, &over_spdy::PROTOCOLS) {
                Ok(spdy) => spdy,
                Err(refused) => return refused.response(),
            };
            let protocol = spdy.protocol;
            spdy.accept(async move |session| {
                if let Ok(client) = over_spdy::client(session, protocol, asked).await {
                    task.carry(client).await;
                }
            })
        }
        Wanted::WebSocket => {
            let web = match Web::negotiate(request, &over_websocket::PROTOCOLS).await {
                Ok(web) => web,
                Err(refused) => return refused.response(),
            };
            let protocol = web.protocol;
            match task {
                Ok(task) => web.accept(async move |socket| {
                    let client = over_websocket::client(socket, protocol);
                    task.carry(client).await;
                }),
                // As Kubernetes' API server tells what a kubelet refuses.
                Err(refused) if protocol == over_websocket::V5 => web.accept(async move |socket| {
                    let problem = format!("unable to upgrade connection: {}", refused.message);
                    let client = over_websocket::client(socket, protocol);
                    tell(client, &ending::internal_error(&problem)).await;
                }),
                Err(refused) => refused.response(),
            }
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
        let streams = api.streams;
        assert!(streams.stdin && streams.stdout && streams.stderr && !streams.tty);
    }

    #[test]
    fn a_terminal_has_no_second_output() {
        assert!(!Options::parse("tty=1&output=1&error=1").streams.stderr);
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
