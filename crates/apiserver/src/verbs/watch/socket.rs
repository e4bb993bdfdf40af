//! A watch over a WebSocket: each event is one text message.
//! Source: RFC 6455; `k8s.io/apiserver/pkg/endpoints/handlers/watch.go`, `HandleWS`.

use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::reply::{self, Reply};
use crate::status::ApiError;

use super::Watching;

/// Bytes of a message of the client, which has nothing to say.
const HEARD: usize = 4 << 10;
/// Credentials in the list of protocols, where browsers have to put them; not a protocol.
const CREDENTIAL: &str = "base64url.bearer.authorization.k8s.io.";

/// Whether the client wants the connection to become a WebSocket.
pub(super) fn is_wanted(request: &Request<Incoming>) -> bool {
    let names = |name: HeaderName, wanted: &str| {
        request.headers().get_all(name).iter().any(|value| {
            value.to_str().is_ok_and(|text| {
                text.split(',')
                    .any(|t| t.trim().eq_ignore_ascii_case(wanted))
            })
        })
    };
    request.version() == Version::HTTP_11
        && names(CONNECTION, "upgrade")
        && names(UPGRADE, "websocket")
}

/// Agrees, and sends the events once the client has heard it.
pub(super) fn answer(
    mut request: Request<Incoming>,
    mut watching: Watching,
) -> Result<Reply, ApiError> {
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY);
    let Some(key) = key.filter(|_| {
        headers
            .get(SEC_WEBSOCKET_VERSION)
            .is_some_and(|v| v == "13")
    }) else {
        return Err(ApiError::bad_request(
            "the request asks for a WebSocket without a key, or with a version other than 13",
        ));
    };
    let mut answer = Response::new(reply::full(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept =
        HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(ApiError::internal)?;
    let protocol = headers
        .get(SEC_WEBSOCKET_PROTOCOL)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| {
            text.split(',')
                .map(str::trim)
                .find(|name| !name.starts_with(CREDENTIAL))
        })
        .and_then(|name| HeaderValue::from_str(name).ok());
    let to = answer.headers_mut();
    to.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    to.insert(UPGRADE, HeaderValue::from_static("websocket"));
    to.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        to.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => send(connection, &mut watching).await,
            Err(error) => tracing::debug!(%error, "a watch did not become a WebSocket"),
        }
    });
    Ok(answer)
}

/// Sends until the watch ends or the client goes.
async fn send(connection: Upgraded, watching: &mut Watching) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(HEARD))
        .max_frame_size(Some(HEARD));
    let socket =
        WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, Some(config))
            .await;
    let (mut to, mut from) = socket.split();
    loop {
        tokio::select! {
            lines = watching.next() => {
                let Some(lines) = lines else {
                    break;
                };
                for line in lines {
                    let Ok(text) = String::from_utf8(line.to_vec()) else {
                        return;
                    };
                    if to.feed(Message::text(text)).await.is_err() {
                        return;
                    }
                }
                if to.flush().await.is_err() {
                    return;
                }
            }
            // Pings are answered below us; what else the client says means nothing.
            heard = from.next() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
    // The client may be gone already.
    let _ = to.close().await;
}
