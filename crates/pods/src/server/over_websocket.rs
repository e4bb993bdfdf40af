//! exec and attach over WebSocket: a channel for each of stdin, stdout, stderr, error and resize.
//! Source: `k8s.io/kubelet/pkg/cri/streaming/remotecommand/websocket.go`, KEP-4006.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::SplitStream;
use tokio::sync::mpsc;
use tracing::debug;

use super::IDLE;
use super::conversation::{Client, Heard, Voice};
use super::frames::{Coding, FromClient, RESIZE, STDIN};
use super::sizes::Sizes;

/// The protocols, best first.
pub(super) const PROTOCOLS: [&str; 5] = [
    V5,
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
/// The one that Kubernetes' API server speaks itself, in front of a kubelet: it agrees to it before it has asked.
pub(super) const V5: &str = "v5.channel.k8s.io";

/// The client behind a socket.
pub(super) fn client(socket: WebSocket, protocol: &'static str) -> Client {
    let coding = Coding::of(protocol);
    let (sink, stream) = socket.split();
    let (tell, heard) = mpsc::channel(8);
    let said = Arc::new(AtomicU64::new(0));
    tokio::spawn(listen(stream, tell, coding, protocol == V5, said.clone()));
    let voice = Voice::WebSocket {
        sink,
        coding,
        status: protocol == V5 || protocol.starts_with("v4."),
        said,
    };
    Client { heard, voice }
}

/// Passes on what the client says until it is gone.
async fn listen(
    mut stream: SplitStream<WebSocket>,
    tell: mpsc::Sender<Heard>,
    coding: Coding,
    closes: bool,
    said: Arc<AtomicU64>,
) {
    let mut sizes = Sizes::default();
    loop {
        let before = said.load(Ordering::Relaxed);
        let message: Bytes = match tokio::time::timeout(IDLE, stream.next()).await {
            Ok(Some(Ok(Message::Binary(data)))) => data,
            Ok(Some(Ok(Message::Text(text)))) => text.into(),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
            Ok(Some(Ok(Message::Close(_))) | None) => return,
            Ok(Some(Err(error))) => return debug!(%error, "a client of exec or attach is gone"),
            Err(_) if said.load(Ordering::Relaxed) != before => continue,
            Err(_) => return debug!("nothing was said in exec or attach for too long"),
        };
        let heard = match coding.read(&message, closes) {
            Some(FromClient::Data(STDIN, data)) if !data.is_empty() => Heard::Stdin(data),
            Some(FromClient::Data(RESIZE, data)) => match sizes.feed(&data) {
                Some(size) => Heard::Resize(size),
                None => continue,
            },
            Some(FromClient::Close(STDIN)) => Heard::StdinEnd,
            _ => continue,
        };
        // After the end of the process nothing is taken, but the client's goodbye is waited for.
        let _ = tell.send(heard).await;
    }
}
