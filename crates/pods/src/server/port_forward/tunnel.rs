//! SPDY inside a WebSocket: the bytes of the connection are those of the binary messages, one after the other.
//! Source: KEP-4006; `k8s.io/client-go/tools/portforward/tunneling_connection.go`.

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::BytesMut;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::server::spdy::Session;

/// Bytes that wait in each direction, and that a message has at most.
const CHUNK: usize = 64 * 1024;

/// The session inside a socket.
pub(super) fn session(socket: WebSocket) -> Session {
    let (ours, theirs) = tokio::io::duplex(CHUNK);
    tokio::spawn(carry(socket, theirs));
    Session::start(ours)
}

async fn carry(socket: WebSocket, connection: DuplexStream) {
    let (mut sink, mut stream) = socket.split();
    let (mut from_session, mut to_session) = tokio::io::split(connection);
    let inwards = async {
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(data) => to_session.write_all(&data).await?,
                Message::Close(_) => break,
                // Text is nothing here.
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
            }
        }
        to_session.shutdown().await
    };
    let outwards = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            match from_session.read_buf(&mut buffer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
            if sink
                .send(Message::Binary(buffer.split().freeze()))
                .await
                .is_err()
            {
                return;
            }
        }
        let goodbye = CloseFrame {
            code: close_code::NORMAL,
            reason: "".into(),
        };
        // A client that is gone needs no goodbye.
        let _ = sink.send(Message::Close(Some(goodbye))).await;
    };
    // The session notices the end of either.
    tokio::select! {
        _ = inwards => {}
        () = outwards => {}
    }
}
