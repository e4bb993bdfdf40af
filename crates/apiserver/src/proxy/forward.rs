//! Passes a request on to its backend, and the answer back.
//!
//! Every request has a connection of its own, which ends when the answer was read or the client has gone.
//! Source: `k8s.io/apimachinery/pkg/util/proxy` (`UpgradeAwareHandler`, `Transport`); RFC 9110, section 7.6.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, LOCATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::api::Api;
use crate::reply::{self, BodyError, Reply};
use crate::server::Peer;
use crate::status::ApiError;
use crate::tunnel;

use super::backend::Backend;
use super::door::Door;
use super::links::Links;
use super::page::{Packing, with_links};

/// How long a backend may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// Headers that are between two neighbours. Source: RFC 9110, section 7.6.1, and `net/http/httputil`.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Permissions that a backend gives are for its own place, not for the API server's.
const CORS: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Whether a client wants to speak something else than HTTP.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"))
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Where a backend's path is empty, links that are relative would lead out of it. Source: `proxyRedirectsforRootPath`.
pub(super) fn to_root(door: &Door, request: &Request<Incoming>) -> Option<Reply> {
    if !door.path.is_empty() || ![Method::GET, Method::HEAD].contains(request.method()) {
        return None;
    }
    let query = request.uri().query();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let place = HeaderValue::from_str(&format!("{}/{query}", door.prefix)).ok()?;
    let mut reply = Response::new(reply::full(Bytes::new()));
    *reply.status_mut() = StatusCode::MOVED_PERMANENTLY;
    reply.headers_mut().insert(LOCATION, place);
    Some(reply)
}

/// Passes on a request, and the answer.
pub(super) async fn forward(
    api: &Api,
    door: &Door,
    backend: &Backend,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let links = Links {
        prefix: door.prefix.clone(),
        backend: backend.host(),
        client: host_of(&request),
    };
    let mut request = request;
    let peer = request.extensions().get::<Peer>().map(|Peer(peer)| *peer);
    let path = path_of(door, request.uri())?;
    let is_upgrade = wants_upgrade(request.headers());
    prepare(request.headers_mut(), &links.client, peer, is_upgrade)?;
    *request.uri_mut() = path;
    *request.version_mut() = http::Version::HTTP_11;
    if is_upgrade {
        return upgrade(api, backend, request).await;
    }
    let forwarded = HeaderValue::from_str(&format!("{}{}", door.prefix, door.path));
    request
        .headers_mut()
        .insert(FORWARDED_URI, forwarded.map_err(ApiError::internal)?);
    let is_head = request.method() == Method::HEAD;
    let answer = ask(api, backend, request).await?;
    answered(answer, &links, is_head)
}

fn host_of(request: &Request<Incoming>) -> String {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let header = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    authority.or(header).unwrap_or_default().to_owned()
}

fn path_of(door: &Door, uri: &Uri) -> Result<Uri, ApiError> {
    let path = if door.path.is_empty() {
        "/"
    } else {
        &door.path
    };
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let path: PathAndQuery = text.parse().map_err(ApiError::internal)?;
    Ok(Uri::from(path))
}

/// Makes a client's headers those of the proxy's own request.
fn prepare(
    headers: &mut HeaderMap,
    host: &str,
    peer: Option<IpAddr>,
    is_upgrade: bool,
) -> Result<(), ApiError> {
    let upgrade = headers.get(UPGRADE).cloned().filter(|_| is_upgrade);
    let trailers = words(headers, &TE).any(|word| word.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(headers);
    // This is for the API server, and the backend could use it.
    headers.remove(AUTHORIZATION);
    // It was answered when the body was first asked for.
    headers.remove(EXPECT);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    // A backend may have several hosts on one address.
    headers.insert(
        HOST,
        HeaderValue::from_str(host).map_err(ApiError::internal)?,
    );
    if let Some(peer) = peer {
        let before: Vec<&str> = words(headers, &FORWARDED_FOR).collect();
        let all = [before.as_slice(), &[&peer.to_string()]]
            .concat()
            .join(", ");
        let all = HeaderValue::from_str(&all).map_err(ApiError::internal)?;
        headers.insert(FORWARDED_FOR, all);
    }
    Ok(())
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = words(headers, &CONNECTION)
        .filter_map(|word| word.parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Sends a request to a backend.
async fn ask<B>(
    api: &Api,
    backend: &Backend,
    request: Request<B>,
) -> Result<Response<Incoming>, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let (https, at) = match backend {
        Backend::Node(place) => return api.nodes.ask(*place, request).await,
        Backend::Server {
            https,
            address,
            port,
        } => (*https, SocketAddr::new(*address, *port)),
    };
    let failed = |why: &dyn std::fmt::Display| {
        ApiError::service_unavailable(format!("error trying to reach service: {why}"))
    };
    let dial = async {
        let stream = TcpStream::connect(at).await.map_err(|error| {
            let refused = error.kind() == io::ErrorKind::ConnectionRefused;
            let why = if refused {
                "connection refused".to_owned()
            } else {
                error.to_string()
            };
            failed(&format!("dial tcp {at}: connect: {why}"))
        })?;
        // What is passed on is not worth waiting for more of it.
        let _ = stream.set_nodelay(true);
        if !https {
            let plain: Pin<Box<dyn Connection>> = Box::pin(stream);
            return Ok(plain);
        }
        let name = ServerName::from(at.ip());
        let tls = api.backends.connect(name, stream).await;
        let secure: Pin<Box<dyn Connection>> = Box::pin(tls.map_err(|error| failed(&error))?);
        Ok(secure)
    };
    let dialled = tokio::time::timeout(PATIENCE, dial).await;
    let stream = dialled.map_err(|_| failed(&format!("dial tcp {at}: i/o timeout")))??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a backend ended with an error");
        }
    });
    sender
        .send_request(request)
        .await
        .map_err(|error| failed(&error))
}

/// TCP, or TLS over it.
trait Connection: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Connection for T {}

/// Joins the client and a backend that speaks something else than HTTP from now on.
async fn upgrade(
    api: &Api,
    backend: &Backend,
    mut request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let client = hyper::upgrade::on(&mut request);
    let request = request.map(|_| Empty::<Bytes>::new());
    let mut answer = ask(api, backend, request).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let backend = hyper::upgrade::on(&mut answer);
        tokio::spawn(tunnel::join(client, backend, api.shutdown.clone()));
        let (parts, _) = answer.into_parts();
        return Ok(Response::from_parts(parts, reply::full(Bytes::new())));
    }
    if answer.status().as_u16() < 400 {
        let why = format!(
            "invalid upgrade response: status code {}",
            answer.status().as_u16()
        );
        return Err(ApiError::new(500, "", why));
    }
    let (mut parts, body) = answer.into_parts();
    remove_hop_by_hop(&mut parts.headers);
    Ok(Response::from_parts(
        parts,
        body.map_err(Into::into).boxed_unsync(),
    ))
}

/// Makes a backend's answer that of the proxy.
fn answered(answer: Response<Incoming>, links: &Links, is_head: bool) -> Result<Reply, ApiError> {
    let (mut parts, body) = answer.into_parts();
    parts.version = http::Version::HTTP_11;
    let headers = &mut parts.headers;
    remove_hop_by_hop(headers);
    for name in CORS {
        headers.remove(name);
    }
    let body = body.map_err(Into::into).boxed_unsync();
    if let Some(place) = headers.get(LOCATION) {
        let instead = place.to_str().ok().and_then(|place| links.rewrite(place));
        if let Some(instead) = instead {
            let instead = HeaderValue::from_str(&instead).map_err(ApiError::internal)?;
            headers.insert(LOCATION, instead);
        }
        return Ok(Response::from_parts(parts, body));
    }
    let Some(packing) = Packing::of_page(headers) else {
        return Ok(Response::from_parts(parts, body));
    };
    // The page will be longer, who knows by how much.
    headers.remove(CONTENT_LENGTH);
    let body = if is_head {
        body
    } else {
        with_links(body, links.clone(), packing)
    };
    Ok(Response::from_parts(parts, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_is_between_neighbours_is_not_passed_on() {
        let mut sent = headers(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("te", "gzip, trailers"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer secret"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
            ("x-forwarded-for", "192.0.2.1"),
        ]);
        let peer = Some("192.0.2.7".parse().unwrap());
        prepare(&mut sent, "api:6443", peer, false).unwrap();
        let expected = headers(&[
            ("te", "trailers"),
            ("accept", "*/*"),
            ("x-forwarded-for", "192.0.2.1, 192.0.2.7"),
            ("host", "api:6443"),
        ]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn an_upgrade_keeps_what_it_needs() {
        let mut sent = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
        ]);
        assert!(wants_upgrade(&sent));
        prepare(&mut sent, "api", None, true).unwrap();
        let expected = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
            ("host", "api"),
        ]);
        assert_eq!(sent, expected);
    }
}
