//! Listening, and serving each connection: TLS, who the client is, HTTP/1.1 or 2.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use ipnet::IpNet;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use seaway_store::{Options, Store};

use crate::admission::addresses::Addresses;
use crate::admission::{self, Chain};
use crate::api::Api;
use crate::bootstrap;
use crate::custom_resources::{self, CustomResources, Follow};
use crate::error::Error;
use crate::event::Lines;
use crate::node::Nodes;
use crate::pki::Pki;
use crate::registry::Registry;
use crate::repair::Repair;
use crate::router;
use crate::tls::{self, Authenticator};
use crate::tokens::Issuer;

/// How long a client may take for its TLS handshake and for the head of a request, which begins when the one before was
/// answered. Source: `k8s.io/apiserver/pkg/server/secure_serving.go`, `ReadHeaderTimeout`.
const PATIENCE: Duration = Duration::from_secs(32);
/// Bytes of the head of a request, and of an answer that wait for a client who does not take them. Go takes heads of a
/// mebibyte; with that, a thousand slow watchers would hold a gibibyte.
const HEAD: u32 = 256 << 10;
/// After which silence of a client it is asked whether it is there, and how often. Watches of clients that are gone would
/// stay otherwise.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long requests may go on when the server ends.
const DRAIN: Duration = Duration::from_secs(2);
/// Requests of one HTTP/2 connection at a time; every watch is one.
const STREAMS: u32 = 1000;

/// What the API server needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes any that is free.
    pub listen: Vec<SocketAddr>,
    /// The store's file; made if there is none.
    pub store: PathBuf,
    /// Credentials.
    pub pki: Pki,
    /// Where Services get their addresses from: one range, or one of each family, of which the first is the default.
    /// Its first address is that of `default/kubernetes`.
    pub service_cidrs: Vec<IpNet>,
    /// Where Services get their node ports from.
    pub node_port_range: RangeInclusive<u16>,
    /// Where Pods reach the API server: what is behind `default/kubernetes`.
    pub advertise: SocketAddr,
}

/// What rarely has to differ from its default.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// History and size of the store.
    pub store: Options,
    /// How often watches that want bookmarks get one.
    pub bookmarks: Duration,
    /// Admission plugins that are left out, out of [`admission::NAMES`].
    pub disabled_plugins: Vec<String>,
    /// How often the addresses and node ports of all Services are looked through.
    pub repair_interval: Duration,
    /// How long an IPAddress may be there without the Service that it is for.
    pub leak_grace: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            store: Options::default(),
            bookmarks: Duration::from_secs(60),
            disabled_plugins: Vec::new(),
            repair_interval: Duration::from_secs(180),
            leak_grace: Duration::from_secs(60),
        }
    }
}

/// The address of a client, among what its requests carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// An API server that is ready: connections to it wait until [`Server::run`] takes them.
pub struct Server {
    api: Arc<Api>,
    custom: Arc<CustomResources>,
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    acceptor: TlsAcceptor,
    authenticator: Authenticator,
    repair: Repair,
    shutdown: CancellationToken,
}

/// Serves until `shutdown`. Says through `ready` where it listens, as soon as clients can connect.
///
/// # Errors
/// As [`Server::start`] and [`Server::run`]; `ready` is dropped then.
pub async fn serve(
    config: Config,
    tuning: Tuning,
    ready: oneshot::Sender<Vec<SocketAddr>>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let server = Server::start(config, &tuning, shutdown).await?;
    // Nobody has to wait for it.
    let _ = ready.send(server.addresses.clone());
    server.run().await
}

impl Server {
    /// Opens the store, makes the objects that every cluster has, and listens. When it returns, clients can connect.
    ///
    /// # Errors
    /// The store, the credentials or an address cannot be used.
    pub async fn start(
        config: Config,
        tuning: &Tuning,
        shutdown: CancellationToken,
    ) -> Result<Self, Error> {
        let (server, authenticator) = tls::server(&config.pki)?;
        let (path, options) = (config.store.clone(), tuning.store.clone());
        let store =
            tokio::task::spawn_blocking(move || Store::open_with(&path, &options)).await??;
        let store = Arc::new(store);
        let registry = Registry::new(
            seaway_objects::kinds::registry(),
            &config.advertise.to_string(),
        );
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for address in &config.listen {
            let failed = |source| Error::Listen {
                address: *address,
                source,
            };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let services = Addresses::new(&config.service_cidrs, config.node_port_range.clone());
        let mut plugins = admission::plugins(services.clone(), &store, &tuning.disabled_plugins);
        let registry = Arc::new(registry);
        let custom = CustomResources::new(&store, &registry);
        custom.sync();
        plugins.push(Box::new(Follow(Arc::clone(&custom))));
        let api = Arc::new(Api {
            store,
            registry,
            admission: Chain::new(plugins),
            issuer: issuer(&config.pki)?,
            advertise: config.advertise.to_string(),
            nodes: Nodes::new(tls::to_nodes(&config.pki)?),
            lines: Lines::default(),
            backends: tls::to_backends()?,
            bookmarks: tuning.bookmarks,
            shutdown: shutdown.clone(),
        });
        replay(&api).map_err(|e| Error::Bootstrap {
            what: "what the store holds known".to_owned(),
            source: Box::new(e),
        })?;
        bootstrap::run(&api, &config).await?;
        let mut repair = Repair::new(Arc::clone(&api), services, tuning);
        repair.look_at_everything().await;
        Ok(Self {
            api,
            custom,
            repair,
            listeners,
            addresses,
            acceptor: TlsAcceptor::from(Arc::new(server)),
            authenticator,
            shutdown,
        })
    }

    /// Where it listens, in the order of [`Config::listen`].
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until the shutdown that it was started with; requests get a moment to finish.
    ///
    /// # Errors
    /// A part of the server died.
    pub async fn run(self) -> Result<(), Error> {
        let connections = TaskTracker::new();
        let custom = tokio::spawn(custom_resources::run(
            Arc::clone(&self.api),
            self.custom,
            self.shutdown.clone(),
        ));
        connections.spawn(self.repair.run(self.shutdown.clone()));
        let accepting: Vec<_> = self
            .listeners
            .into_iter()
            .map(|listener| {
                let accept = Accept {
                    api: Arc::clone(&self.api),
                    acceptor: self.acceptor.clone(),
                    authenticator: self.authenticator.clone(),
                    connections: connections.clone(),
                };
                tokio::spawn(accept.run(listener, self.shutdown.clone()))
            })
            .collect();
        for task in accepting {
            task.await?;
        }
        custom.await?;
        connections.close();
        // Connections end themselves by then; what they hold, the store above all, is free when this returns.
        if tokio::time::timeout(DRAIN + Duration::from_secs(1), connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                open = connections.len(),
                "connections were still open when the API server ended"
            );
        }
        Ok(())
    }
}

fn issuer(pki: &Pki) -> Result<Issuer, Error> {
    Issuer::new(&pki.account_key_pem()?).map_err(|reason| Error::Tls {
        what: "the key that signs tokens",
        reason,
    })
}

/// Tells admission what the store holds already.
fn replay(api: &Api) -> Result<(), crate::status::ApiError> {
    let kinds = api.registry.kinds();
    // Once for each object, in the version in which it is stored.
    for resource in kinds.resources().filter(|r| r.names == r.stored) {
        for record in api.store.list(&resource.prefix("")).0 {
            api.admission
                .committed(None, Some(&resource.decode(&record)?));
        }
    }
    Ok(())
}

/// What taking connections needs.
#[derive(Clone)]
struct Accept {
    api: Arc<Api>,
    acceptor: TlsAcceptor,
    authenticator: Authenticator,
    connections: TaskTracker,
}

impl Accept {
    async fn run(self, listener: TcpListener, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.connections
                        .spawn(self.clone().connection(stream, shutdown.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others have to end first.
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream, shutdown: CancellationToken) {
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE / 2);
        if let Err(error) = stream
            .set_nodelay(true)
            .and_then(|()| SockRef::from(&stream).set_tcp_keepalive(&keepalive))
        {
            tracing::debug!(%error, "cannot set options of a connection");
        }
        let peer = stream.peer_addr().ok().map(|peer| Peer(peer.ip()));
        let stream = match tokio::time::timeout(PATIENCE, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "no TLS connection"),
            Err(_) => return tracing::debug!("no TLS connection in time"),
        };
        let user = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| self.authenticator.user(chain));
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            let (api, user) = (Arc::clone(&self.api), user.clone());
            async move { Ok::<_, std::convert::Infallible>(router::handle(api, user, request).await) }
        });
        // The handshake says which protocol it is. Waiting for the first bytes to tell would be waiting without end.
        let builder = Builder::new(TokioExecutor::new());
        let mut builder = if stream.get_ref().1.alpn_protocol() == Some(b"h2".as_slice()) {
            builder.http2_only()
        } else {
            builder.http1_only()
        };
        builder
            .http1()
            .timer(TokioTimer::new())
            .max_buf_size(HEAD as usize)
            .header_read_timeout(PATIENCE);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD)
            .keep_alive_interval(Some(KEEPALIVE))
            .keep_alive_timeout(Duration::from_secs(15));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(DRAIN, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }
}
