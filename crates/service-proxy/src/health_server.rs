//! The sockets behind `health.rs`: one for each health-check port, and one for the proxy itself.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::health::{Answer, Health};

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after a port was found taken it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Listens as long as it lives.
#[derive(Debug)]
pub(crate) struct HealthServer {
    health: Health,
    /// Kept because it ends with this.
    _own: Option<Listener>,
    services: BTreeMap<u16, Listener>,
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl HealthServer {
    /// Answers for the proxy at this address, if one is given.
    pub(crate) fn new(health: Health, address: Option<SocketAddr>) -> Self {
        let answers = health.clone();
        let own = address
            .map(|address| listen(address, move |path| answers.of_proxy(path, Instant::now())));
        Self {
            health,
            _own: own,
            services: BTreeMap::new(),
        }
    }

    /// Services have these health-check ports now. They answer at all addresses of the node, as in kube-proxy.
    pub(crate) fn set_ports(&mut self, ports: &[u16]) {
        self.services.retain(|port, _| ports.contains(port));
        for &port in ports {
            let health = self.health.clone();
            self.services.entry(port).or_insert_with(|| {
                let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
                listen(everywhere, move |_| health.of_service(port, Instant::now()))
            });
        }
    }
}

fn listen(
    address: SocketAddr,
    answer: impl Fn(&str) -> Option<Answer> + Clone + Send + Sync + 'static,
) -> Listener {
    Listener(tokio::spawn(async move {
        let listener = loop {
            match bind(address).await {
                Ok(listener) => break listener,
                Err(error) => {
                    tracing::warn!(
                        "health checks at {address}: {error}; trying again in {RETRY:?}"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: others have to end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let answer = answer.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let response = respond(answer(request.uri().path()));
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                // A client that goes away in the middle is nobody's loss.
                let _ = connection.await;
            });
        }
    }))
}

/// Where the machine has no IPv6, everywhere is IPv4.
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip().is_unspecified() && address.is_ipv6() => {
            TcpListener::bind(("0.0.0.0", address.port())).await
        }
        other => other,
    }
}

fn respond(answer: Option<Answer>) -> Response<Full<Bytes>> {
    let Some(answer) = answer else {
        let mut response = Response::new(Full::from("404 page not found\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() =
        StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    if let Some(weight) = answer.weight {
        headers.insert(
            HeaderName::from_static("x-load-balancing-endpoint-weight"),
            HeaderValue::from(weight),
        );
    }
    response
}
