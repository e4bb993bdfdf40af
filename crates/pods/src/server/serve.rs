//! Listens: TLS with client certificates of the cluster, one task per connection.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::{Answers, Authenticated, router};
use crate::config::{Config, Tls};
use crate::error::Error;

/// A client that does not get through the handshake in this time is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, as when there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that listens, and its credentials.
pub struct Listener {
    socket: TcpListener,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Listener {
    /// Reads the credentials and listens on the node's address.
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        let acceptor = TlsAcceptor::from(Arc::new(tls(&config.tls)?));
        let address = SocketAddr::new(config.node_ip, config.kubelet_port);
        let socket = TcpListener::bind(address)
            .await
            .map_err(|source| Error::Listen { address, source })?;
        Ok(Listener { socket, acceptor })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

fn tls(files: &Tls) -> Result<rustls::ServerConfig, Error> {
    let bad = |what, path: &Path, problem: String| Error::Credentials {
        what,
        path: path.to_owned(),
        problem,
    };
    let chain = certificates("certificate", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| bad("private key", &files.key, error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client CA", &files.client_ca)? {
        roots
            .add(certificate)
            .map_err(|error| bad("client CA", &files.client_ca, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Who has no certificate gets as far as a 401; who has a wrong one not even there.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| bad("client CA", &files.client_ca, error.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad("certificate", &files.cert, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| bad("certificate", &files.cert, error.to_string()))?;
    // exec and attach need the upgrade that HTTP/2 does not have.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |problem: String| Error::Credentials {
        what,
        path: path.to_owned(),
        problem,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| bad(error.to_string()))?;
    if found.is_empty() {
        Err(bad("there is no certificate in it".to_owned()))
    } else {
        Ok(found)
    }
}

/// Serves until `shutdown`. What goes wrong with one connection ends that connection only.
pub async fn serve(listener: Listener, answers: Answers, shutdown: CancellationToken) {
    let app = router(Arc::new(answers));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                let (acceptor, app, shutdown) =
                    (listener.acceptor.clone(), app.clone(), shutdown.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        result = connection(stream, acceptor, app) => {
                            if let Err(error) = result {
                                debug!(%client, error, "connection to the kubelet API ended");
                            }
                        }
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection to the kubelet API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    app: axum::Router,
) -> Result<(), String> {
    // Keystrokes go one by one.
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| "no TLS handshake in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let known = stream
        .get_ref()
        .1
        .peer_certificates()
        .is_some_and(|chain| !chain.is_empty());
    let service =
        hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Authenticated(known));
            app.clone().oneshot(request.map(Body::new))
        });
    hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
        .map_err(|error| error.to_string())
}
