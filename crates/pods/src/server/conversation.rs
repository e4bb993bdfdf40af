//! Joins a client of exec or attach to a process in a container, whatever the client speaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use futures::SinkExt as _;
use futures::stream::SplitSink;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::ending;
use super::frames::{Coding, ERROR, STDERR, STDOUT};
use super::over_spdy::Speaker;
use super::spdy::Received;
use crate::runtime::{
    RuntimeError, Session, SessionEvent, SessionInput, SessionOutput, TerminalSize,
};

/// How long a client may take to hang up after the end.
const LINGER: Duration = Duration::from_secs(5);

/// An attach that is over ends when the container has said nothing for so long: it may answer the last of the input.
const SILENCE: Duration = Duration::from_millis(500);

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Exec,
    Attach,
}

/// Streams that a client wants. Source: `PodExecOptions`, `PodAttachOptions`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    /// Ends when the client is gone.
    pub(super) heard: mpsc::Receiver<Heard>,
    pub(super) voice: Voice,
}

/// What a client said.
#[derive(Debug)]
pub(super) enum Heard {
    /// For standard input.
    Stdin(Bytes),
    /// The same, where it takes room as long as it waits.
    Received(Received),
    /// Standard input is over.
    StdinEnd,
    /// The terminal has a new size.
    Resize(TerminalSize),
}

/// The client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// What a client is told with.
#[derive(Debug)]
pub(super) enum Voice {
    Spdy(Speaker),
    WebSocket {
        sink: SplitSink<WebSocket, Message>,
        coding: Coding,
        /// Whether the last message is a `Status` object.
        status: bool,
        /// Counts what was said, for the idle limit.
        said: Arc<AtomicU64>,
    },
}

impl Voice {
    async fn stdout(&mut self, data: Bytes) -> Result<(), Gone> {
        self.say(STDOUT, data).await
    }

    async fn stderr(&mut self, data: Bytes) -> Result<(), Gone> {
        self.say(STDERR, data).await
    }

    async fn say(&mut self, channel: u8, data: Bytes) -> Result<(), Gone> {
        match self {
            Voice::Spdy(speaker) => speaker.say(channel, data).await,
            Voice::WebSocket {
                sink, coding, said, ..
            } => {
                said.fetch_add(1, Ordering::Relaxed);
                let message = coding.write(channel, &data);
                sink.send(message).await.map_err(|_| Gone)
            }
        }
    }

    /// An empty message tells a client of WebSocket that the connection stands.
    async fn greet(&mut self, streams: Streams) -> Result<(), Gone> {
        if matches!(self, Voice::Spdy(_)) {
            return Ok(());
        }
        let first = if streams.stdout {
            STDOUT
        } else if streams.stderr {
            STDERR
        } else {
            ERROR
        };
        self.say(first, Bytes::new()).await
    }

    /// The last words.
    async fn end(self, status: &Value) {
        match self {
            Voice::Spdy(speaker) => speaker.end(status).await,
            Voice::WebSocket {
                mut sink,
                coding,
                status: as_object,
                said: _,
            } => {
                let last = coding.write(ERROR, &ending::written(status, as_object));
                let goodbye = Message::Close(Some(CloseFrame {
                    code: close_code::NORMAL,
                    reason: "".into(),
                }));
                for message in [last, goodbye] {
                    if let Err(error) = sink.send(message).await {
                        debug!(%error, "a client of exec or attach is gone");
                        return;
                    }
                }
            }
        }
    }
}

/// Carries everything both ways until the process ends or the client goes. Without `stdin_once` an attach ends with
/// its input, as with containerd.
pub(super) async fn carry(
    mut client: Client,
    session: Result<Session, RuntimeError>,
    kind: Kind,
    streams: Streams,
    stdin_once: bool,
) {
    let status = match session {
        Ok(Session { input, mut output }) => {
            let greeted = client.voice.greet(streams).await;
            if greeted.is_err() {
                return;
            }
            let detaches = kind == Kind::Attach && !stdin_once;
            let detached = CancellationToken::new();
            let (voice, heard) = (&mut client.voice, &mut client.heard);
            tokio::select! {
                status = from_process(voice, &mut output, kind, streams, &detached) => status,
                () = from_client(heard, input, streams.stdin, detaches.then_some(&detached)) => None,
            }
        }
        Err(error) => {
            let what = match kind {
                Kind::Exec => "error executing command in container",
                Kind::Attach => "error attaching to container",
            };
            Some(ending::internal_error(&format!("{what}: {error}")))
        }
    };
    // Without a status the client is gone.
    if let Some(status) = status {
        tell(client, &status).await;
    }
}

/// Tells a client the end, and waits a moment until it has read it: hanging up on one that still sends could take
/// the last words away from it.
pub(super) async fn tell(client: Client, status: &Value) {
    let Client { mut heard, voice } = client;
    voice.end(status).await;
    let hearing = async { while heard.recv().await.is_some() {} };
    let _ = tokio::time::timeout(LINGER, hearing).await;
}

/// Sends what the process writes; the status to end with, or `None` when the client is gone. When the client has
/// detached, its silence is the end as well.
async fn from_process(
    voice: &mut Voice,
    output: &mut SessionOutput,
    kind: Kind,
    streams: Streams,
    detached: &CancellationToken,
) -> Option<Value> {
    loop {
        let event = if detached.is_cancelled() {
            let heard = tokio::time::timeout(SILENCE, output.next()).await;
            heard.unwrap_or(Ok(None))
        } else {
            tokio::select! {
                event = output.next() => event,
                () = detached.cancelled() => continue,
            }
        };
        let said = match event {
            Ok(Some(SessionEvent::Stdout(data))) if streams.stdout => voice.stdout(data).await,
            Ok(Some(SessionEvent::Stderr(data))) if streams.stderr => voice.stderr(data).await,
            Ok(Some(SessionEvent::Stdout(_) | SessionEvent::Stderr(_))) => Ok(()),
            Ok(Some(SessionEvent::Exit(code))) if kind == Kind::Exec => {
                return Some(ending::exit_status(code));
            }
            // An attach tells nothing of the container's end.
            Ok(Some(SessionEvent::Exit(_)) | None) => return Some(ending::exit_status(0)),
            Err(error) => return Some(ending::internal_error(&error.to_string())),
        };
        said.ok()?;
    }
}

/// Feeds the process; returns when the client is gone. `detached` is told of the end of the input where that means that
/// the client has detached.
async fn from_client(
    heard: &mut mpsc::Receiver<Heard>,
    mut input: SessionInput,
    stdin: bool,
    detached: Option<&CancellationToken>,
) {
    let mut open = stdin;
    while let Some(heard) = heard.recv().await {
        let result = match heard {
            Heard::Stdin(data) if open => input.write(&data).await,
            Heard::Received(received) if open => input.write(&received.data).await,
            Heard::StdinEnd if open => {
                open = false;
                match detached {
                    Some(detached) => {
                        detached.cancel();
                        Ok(())
                    }
                    None => input.close().await,
                }
            }
            Heard::Resize(size) => input.resize(size).await,
            Heard::Stdin(_) | Heard::Received(_) | Heard::StdinEnd => Ok(()),
        };
        if let Err(error) = result {
            // A process that does not read any more may still write.
            debug!(%error, "a process does not take input");
            open = false;
        }
    }
}
