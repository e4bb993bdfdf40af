//! From HTTP to a conversation: what a client wants to speak instead, and agreeing on it.
//! Source: `k8s.io/apimachinery/pkg/util/httpstream`, `Handshake` and `spdy/upgrade.go`; RFC 6455.

use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::request::Refused;
use super::spdy::Session;

/// What SPDY calls itself.
const SPDY: &str = "SPDY/3.1";
/// Lists what the client can speak over SPDY, and names what was chosen.
const PROTOCOL: &str = "x-stream-protocol-version";
/// Lists what the server can speak when it is nothing of the client's.
const ACCEPTED: &str = "x-accepted-stream-protocol-versions";
/// No message of a WebSocket is longer (as in `golang.org/x/net/websocket`).
const MAX_MESSAGE: usize = 32 << 20;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Spdy,
    WebSocket,
    Nothing,
}

impl Wanted {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let says = |name, word: &str| {
            let mut values = headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok());
            values.any(|value| value.to_ascii_lowercase().contains(word))
        };
        if !says(header::CONNECTION, "upgrade") {
            Wanted::Nothing
        } else if says(header::UPGRADE, "websocket") {
            Wanted::WebSocket
        } else if says(header::UPGRADE, "spdy/3.1") {
            Wanted::Spdy
        } else {
            Wanted::Nothing
        }
    }
}

/// The refusal of a client that wants to speak nothing.
pub(super) fn nothing_wanted() -> Refused {
    let message = "unable to upgrade: missing upgrade headers in request";
    Refused::new(StatusCode::BAD_REQUEST, message)
}

/// The words of a list header, in order.
fn listed<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

/// An upgrade to SPDY that both sides agree on.
#[derive(Debug)]
pub(super) struct Spdy {
    /// One of those that were served.
    pub(super) protocol: &'static str,
    upgrade: OnUpgrade,
}

impl Spdy {
    /// Chooses the client's first protocol that is served.
    pub(super) fn negotiate(
        request: &mut Request,
        served: &[&'static str],
    ) -> Result<Self, Refused> {
        let offered: Vec<&str> = listed(request.headers(), PROTOCOL).collect();
        if offered.is_empty() {
            let message = "unable to upgrade: X-Stream-Protocol-Version is required";
            return Err(Refused::new(StatusCode::BAD_REQUEST, message));
        }
        let chosen = offered
            .iter()
            .find_map(|offer| served.iter().copied().find(|one| one == offer));
        let Some(protocol) = chosen else {
            let message = format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                offered.join(" "),
                served.join(" ")
            );
            let mut refused = Refused::new(StatusCode::FORBIDDEN, message);
            refused.headers = served.iter().map(|one| (ACCEPTED, *one)).collect();
            return Err(refused);
        };
        Ok(Self {
            protocol,
            upgrade: hyper::upgrade::on(request),
        })
    }

    /// The answer that agrees. `serve` gets the session once the client has it.
    pub(super) fn accept<F>(self, serve: impl FnOnce(Session) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send,
    {
        let Self { protocol, upgrade } = self;
        tokio::spawn(async move {
            match upgrade.await {
                Ok(connection) => serve(Session::start(TokioIo::new(connection))).await,
                Err(error) => debug!(%error, "a client went while it was upgraded"),
            }
        });
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
        headers.insert(PROTOCOL, HeaderValue::from_static(protocol));
        response
    }
}

/// An upgrade to WebSocket that both sides agree on.
pub(super) struct Web {
    /// One of those that were served; empty when the client offered none.
    pub(super) protocol: &'static str,
    upgrade: WebSocketUpgrade,
}

impl Web {
    /// Chooses the client's first protocol that is served.
    pub(super) async fn negotiate(
        request: Request,
        served: &[&'static str],
    ) -> Result<Self, Refused> {
        let (mut parts, _) = request.into_parts();
        let offered: Vec<String> = listed(&parts.headers, "sec-websocket-protocol")
            .map(str::to_owned)
            .collect();
        let chosen = offered
            .iter()
            .find_map(|offer| served.iter().copied().find(|one| one == offer));
        let refused = |message: String| Refused::new(StatusCode::BAD_REQUEST, message);
        if chosen.is_none() && !offered.is_empty() {
            return Err(refused(format!(
                "none of the offered subprotocols is known; this node has {}",
                served.join(", ")
            )));
        }
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
            .await
            .map_err(|error| refused(format!("unable to upgrade websocket connection: {error}")))?;
        let upgrade = upgrade
            .max_message_size(MAX_MESSAGE)
            .max_frame_size(MAX_MESSAGE)
            .protocols(chosen);
        Ok(Self {
            protocol: chosen.unwrap_or_default(),
            upgrade,
        })
    }

    /// The answer that agrees. `serve` gets the socket once the client has it.
    pub(super) fn accept<F>(self, serve: impl FnOnce(WebSocket) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.upgrade.on_upgrade(serve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_a_client_wants_is_in_two_headers() {
        for (connection, upgrade, wanted) in [
            ("Upgrade", "SPDY/3.1", Wanted::Spdy),
            ("keep-alive, upgrade", "WebSocket", Wanted::WebSocket),
            ("keep-alive", "websocket", Wanted::Nothing),
            ("upgrade", "h2c", Wanted::Nothing),
        ] {
            let headers = headers(&[("connection", connection), ("upgrade", upgrade)]);
            assert_eq!(Wanted::of(&headers), wanted, "{connection} {upgrade}");
        }
    }

    fn negotiate(offers: &[(&'static str, &'static str)]) -> Result<&'static str, Refused> {
        let mut request = Request::new(Body::empty());
        *request.headers_mut() = headers(offers);
        Spdy::negotiate(&mut request, &["v2", "v1"]).map(|spdy| spdy.protocol)
    }

    #[test]
    fn the_clients_first_protocol_that_is_served_is_spoken() {
        assert_eq!(
            negotiate(&[(PROTOCOL, "v3"), (PROTOCOL, "v1"), (PROTOCOL, "v2")]).unwrap(),
            "v1"
        );
        assert_eq!(negotiate(&[(PROTOCOL, "v3, v2,v1")]).unwrap(), "v2");
    }

    #[test]
    fn without_a_common_protocol_the_servers_are_told() {
        let refused = negotiate(&[(PROTOCOL, "v9")]).unwrap_err();
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        let response = refused.response();
        let told: Vec<_> = listed(response.headers(), ACCEPTED).collect();
        assert_eq!(told, ["v2", "v1"]);
        assert_eq!(negotiate(&[]).unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
