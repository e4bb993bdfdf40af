//! exec and attach over SPDY: a stream for each of error, stdin, stdout, stderr and resize.
//! Source: `k8s.io/kubelet/pkg/cri/streaming/remotecommand/httpstream.go`; the versions of the protocol differ in
//! what is sent at the end, and from the third on a terminal can be resized.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::conversation::{Client, Gone, Heard, Streams, Voice};
use super::ending;
use super::frames::STDERR;
use super::sizes::Sizes;
use super::spdy::{Input, Output, Session, Stream};

/// The protocols, best first.
pub(super) const PROTOCOLS: [&str; 4] = [V4, "v3.channel.k8s.io", V2, V1];
const V4: &str = "v4.channel.k8s.io";
const V2: &str = "v2.channel.k8s.io";
const V1: &str = "channel.k8s.io";
/// How long a client may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);

/// What a client is told with.
#[derive(Debug)]
pub(super) struct Speaker {
    session: Session,
    error: Stream,
    stdin: Option<Output>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    resize: Option<Output>,
    status: bool,
}

impl Speaker {
    pub(super) async fn say(&mut self, channel: u8, data: Bytes) -> Result<(), Gone> {
        let output = if channel == STDERR {
            &mut self.stderr
        } else {
            &mut self.stdout
        };
        match output {
            Some(output) => output.write(data).await.map_err(|_| Gone),
            None => Ok(()),
        }
    }

    pub(super) async fn end(mut self, status: &Value) {
        // The client reads the outputs to their end before it looks at the status; the end of standard input tells
        // it to send no more.
        let outputs = [
            &mut self.stdout,
            &mut self.stderr,
            &mut self.stdin,
            &mut self.resize,
        ];
        for output in outputs.into_iter().flatten() {
            let _ = output.finish().await;
        }
        let last = ending::written(status, self.status);
        let told = async {
            self.error.output.write(last).await?;
            self.error.output.finish().await
        };
        if told.await.is_err() {
            debug!("a client of exec or attach is gone");
            return;
        }
        self.session.close().await;
    }
}

/// Waits until the client has opened the streams that it asked for.
///
/// # Errors
/// It is gone, or did not open them in time.
pub(super) async fn client(
    session: Session,
    protocol: &str,
    streams: Streams,
) -> Result<Client, Gone> {
    let opening = open(session, protocol, streams);
    let opened = tokio::time::timeout(OPENING, opening).await;
    opened.unwrap_or(Err(Gone))
}

#[derive(Debug, Default)]
struct Opened {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

async fn open(mut session: Session, protocol: &str, streams: Streams) -> Result<Client, Gone> {
    let resizes = streams.tty && ![V1, V2].contains(&protocol);
    let mut opened = Opened::default();
    let wanted = [true, streams.stdin, streams.stdout, streams.stderr, resizes];
    let mut missing = wanted.iter().filter(|wanted| **wanted).count();
    while missing > 0 {
        let request = session.next().await.ok_or(Gone)?;
        let place = match request.headers().first("streamtype").unwrap_or_default() {
            "error" => &mut opened.error,
            "stdin" => &mut opened.stdin,
            "stdout" => &mut opened.stdout,
            "stderr" => &mut opened.stderr,
            "resize" => &mut opened.resize,
            other => {
                debug!(other, "unexpected stream type");
                request.refuse().await;
                continue;
            }
        };
        if place.is_some() {
            request.refuse().await;
            continue;
        }
        *place = Some(request.accept().await.map_err(|_| Gone)?);
        missing -= 1;
    }
    session.take_no_more();
    let error = opened.error.ok_or(Gone)?;
    let (stdin, stdin_end) = split(opened.stdin);
    let (resize, resize_end) = split(opened.resize);
    let (said, heard) = mpsc::channel(8);
    tokio::spawn(listen(said, stdin, resize, session.closed()));
    let voice = Voice::Spdy(Speaker {
        session,
        error,
        stdin: stdin_end,
        stdout: split(opened.stdout).1,
        stderr: split(opened.stderr).1,
        resize: resize_end,
        status: protocol == V4,
    });
    Ok(Client { heard, voice })
}

fn split(stream: Option<Stream>) -> (Option<Input>, Option<Output>) {
    stream.map_or((None, None), |stream| {
        (Some(stream.input), Some(stream.output))
    })
}

/// Passes on what the client says until it is gone.
async fn listen(
    said: mpsc::Sender<Heard>,
    stdin: Option<Input>,
    resize: Option<Input>,
    closed: CancellationToken,
) {
    let typing = async {
        let Some(mut stdin) = stdin else { return };
        // A stream that is reset has no end; the connection has.
        while let Ok(received) = stdin.next().await {
            let over = received.is_none();
            let heard = received.map_or(Heard::StdinEnd, Heard::Received);
            if said.send(heard).await.is_err() || over {
                return;
            }
        }
    };
    let resizing = async {
        let Some(mut resize) = resize else { return };
        let mut sizes = Sizes::default();
        while let Ok(Some(received)) = resize.next().await {
            let Some(size) = sizes.feed(&received.data) else {
                continue;
            };
            if said.send(Heard::Resize(size)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = closed.cancelled() => {}
        () = said.closed() => {}
        () = async { tokio::join!(typing, resizing, std::future::pending::<()>()); } => {}
    }
}
