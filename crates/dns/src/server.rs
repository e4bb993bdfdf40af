//! The sockets: each UDP datagram and each message on a TCP connection goes through [`answer`](crate::answer), and
//! what that cannot answer alone goes to [`forward`](crate::forward).

use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use domain::base::iana::{ExtendedErrorCode, OptRcode};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::answer::{Outcome, Question, Source, Transport};
use crate::table::Table;
use crate::zone::Zone;
use crate::{Config, Error, forward};

/// Longer queries do not exist: a name, a type and a few options.
const LONGEST_UDP_QUERY: usize = 4096;
/// Most sockets that share the datagrams of an address.
const MOST_WORKERS: usize = 4;
/// Most connections at a time, all addresses together.
const MOST_CONNECTIONS: usize = 1024;
/// Most queries that wait for upstreams at a time; more get SERVFAIL at once.
const MOST_FORWARDED: usize = 1024;
/// How long a connection may be silent (RFC 7766 §6.2.3: "in the order of a few seconds").
const IDLE: Duration = Duration::from_secs(10);
/// After that many errors in a row a socket is given up.
const MOST_ERRORS: u32 = 64;
/// How often a free port is looked for that UDP and TCP both have.
const PORT_ATTEMPTS: u32 = 16;

/// A DNS server with its sockets open.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    udp: Vec<(SocketAddr, UdpSocket)>,
    tcp: Vec<(SocketAddr, TcpListener)>,
}

#[derive(Debug)]
struct Shared {
    zone: Zone,
    table: ArcSwap<Table>,
    ready: watch::Sender<bool>,
    rotation: AtomicUsize,
    upstreams: Vec<SocketAddr>,
    forwarded: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// Gives a server the newest table.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<Shared>);

impl Publisher {
    /// From now on queries are answered from `table`; those being answered are not disturbed.
    pub fn publish(&self, table: Table) {
        let complete = table.complete;
        self.0.table.store(Arc::new(table));
        self.0
            .ready
            .send_if_modified(|ready| std::mem::replace(ready, complete) != complete);
    }
}

impl Server {
    /// Opens the sockets. From here on queries wait in them; they are answered once [`Server::serve`] runs.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the configuration makes no sense or an address cannot be bound.
    pub fn bind(config: Config) -> Result<Self, Error> {
        if config.listen.is_empty() {
            return Err(Error::NoAddress);
        }
        if let Some(upstream) = config
            .upstreams
            .iter()
            .find(|upstream| config.listen.contains(upstream))
        {
            return Err(Error::UpstreamLoop(*upstream));
        }
        let zone = Zone::new(&config)?;
        let workers = std::thread::available_parallelism()
            .map_or(1, NonZero::get)
            .min(MOST_WORKERS);
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for address in &config.listen {
            let (address, listener, sockets) = bind_both(*address, workers)?;
            tcp.push((address, listener));
            udp.extend(sockets.into_iter().map(|socket| (address, socket)));
        }
        let shared = Shared {
            zone,
            table: ArcSwap::default(),
            ready: watch::Sender::new(false),
            rotation: AtomicUsize::new(0),
            upstreams: config.upstreams,
            forwarded: Arc::new(Semaphore::new(MOST_FORWARDED)),
            connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        };
        Ok(Server {
            shared: Arc::new(shared),
            udp,
            tcp,
        })
    }

    /// Where the server listens, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().map(|(address, _)| *address).collect()
    }

    /// A handle that feeds the server.
    pub fn publisher(&self) -> Publisher {
        Publisher(self.shared.clone())
    }

    /// Turns true when everything about the cluster is known.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.shared.ready.subscribe()
    }

    /// Answers queries until `shutdown` is cancelled.
    ///
    /// # Errors
    /// When a socket stops working.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut tasks = JoinSet::new();
        for (address, socket) in self.udp {
            let shared = self.shared.clone();
            tasks.spawn(async move {
                let result = serve_udp(Arc::new(socket), shared).await;
                result.map_err(|source| Error::Socket {
                    protocol: "UDP",
                    address,
                    source,
                })
            });
        }
        for (address, listener) in self.tcp {
            let shared = self.shared.clone();
            tasks.spawn(async move {
                let result = serve_tcp(listener, shared).await;
                result.map_err(|source| Error::Socket {
                    protocol: "TCP",
                    address,
                    source,
                })
            });
        }
        // When the set is dropped, so are the tasks and their sockets.
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            Some(ended) = tasks.join_next() => match ended {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            },
        }
    }
}

/// One TCP listener and `workers` UDP sockets on one address.
fn bind_both(
    address: SocketAddr,
    workers: usize,
) -> Result<(SocketAddr, TcpListener, Vec<UdpSocket>), Error> {
    let mut attempt = 1;
    loop {
        let bind = |protocol, address, socket: io::Result<Socket>| {
            socket.map_err(|source| Error::Bind {
                protocol,
                address,
                source,
            })
        };
        // TCP comes first: it does not share its port, so a second server on this address is found out here.
        let tcp = bind("TCP", address, tcp_socket(address))?;
        let local = tcp
            .local_addr()
            .map(|local| local.as_socket())
            .ok()
            .flatten()
            .unwrap_or(address);
        let udp: Result<Vec<Socket>, Error> = (0..workers)
            .map(|_| bind("UDP", local, udp_socket(local)))
            .collect();
        match udp {
            Err(Error::Bind { .. }) if address.port() == 0 && attempt < PORT_ATTEMPTS => {
                attempt += 1
            }
            udp => {
                let failed = |protocol| {
                    move |source| Error::Bind {
                        protocol,
                        address: local,
                        source,
                    }
                };
                let listener = TcpListener::from_std(tcp.into()).map_err(failed("TCP"))?;
                let sockets = udp?
                    .into_iter()
                    .map(|socket| UdpSocket::from_std(socket.into()));
                let sockets = sockets.collect::<io::Result<_>>().map_err(failed("UDP"))?;
                return Ok((local, listener, sockets));
            }
        }
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    prepare(&socket, address)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket)
}

fn udp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    // The kernel spreads clients over the sockets that share the port.
    socket.set_reuse_port(true)?;
    prepare(&socket, address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The address of the cluster's DNS Service may be put on the node after the server has started.
fn prepare(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.set_nonblocking(true)
}

impl Shared {
    fn answer(&self, query: &[u8], transport: Transport, reply: &mut Vec<u8>) -> Outcome {
        let table = self.table.load();
        let rotation = self.rotation.fetch_add(1, Ordering::Relaxed);
        Source {
            zone: &self.zone,
            table: &table,
            rotation,
        }
        .answer(query, transport, reply)
    }

    fn fail(&self, query: &[u8], reply: &mut Vec<u8>) -> Outcome {
        let table = self.table.load();
        let source = Source {
            zone: &self.zone,
            table: &table,
            rotation: 0,
        };
        source.fail(
            query,
            OptRcode::SERVFAIL,
            ExtendedErrorCode::NETWORK_ERROR,
            reply,
        )
    }

    /// Asks upstream and puts together the reply to `query`; `beginning` is what there is of it.
    async fn complete(
        &self,
        query: &[u8],
        beginning: &[u8],
        question: &Question,
        transport: Transport,
    ) -> Vec<u8> {
        let upstream = match forward::ask(&self.upstreams, question, transport).await {
            Ok(upstream) => match question.is_continuation {
                true => crate::answer::continued(beginning, &upstream, question.flags, transport),
                false => forward::relayed(upstream, query, question, transport),
            },
            Err(error) => {
                tracing::debug!(name = %question.name, rtype = %question.rtype, %error, "cannot forward");
                None
            }
        };
        upstream.unwrap_or_else(|| {
            let mut failure = Vec::new();
            self.fail(query, &mut failure);
            failure
        })
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) -> io::Result<()> {
    let mut query = [0; LONGEST_UDP_QUERY];
    let mut reply = Vec::with_capacity(usize::from(crate::answer::MOST_UDP_OCTETS));
    let mut errors = 0;
    loop {
        let (length, client) = match socket.recv_from(&mut query).await {
            Ok(received) => received,
            Err(error) => {
                patience(&mut errors, error).await?;
                continue;
            }
        };
        errors = 0;
        let query = &query[..length];
        let outcome = match shared.answer(query, Transport::Udp, &mut reply) {
            Outcome::Forward(question) => match shared.forwarded.clone().try_acquire_owned() {
                Ok(permit) => {
                    let beginning = std::mem::take(&mut reply);
                    let reply_to = ForwardedDatagram {
                        socket: socket.clone(),
                        client,
                        query: query.into(),
                        permit,
                    };
                    tokio::spawn(reply_to.complete(shared.clone(), beginning, question));
                    continue;
                }
                Err(_) => shared.fail(query, &mut reply),
            },
            outcome => outcome,
        };
        if outcome == Outcome::Reply {
            send(&socket, &reply, client).await;
        }
    }
}

/// A datagram whose reply depends on an upstream.
struct ForwardedDatagram {
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    query: Box<[u8]>,
    /// Held while the query counts among those being forwarded.
    permit: OwnedSemaphorePermit,
}

impl ForwardedDatagram {
    async fn complete(self, shared: Arc<Shared>, beginning: Vec<u8>, question: Question) {
        let reply = shared
            .complete(&self.query, &beginning, &question, Transport::Udp)
            .await;
        drop(self.permit);
        send(&self.socket, &reply, self.client).await;
    }
}

/// A reply that cannot be sent is lost, as datagrams may be; its client asks again.
async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%client, %error, "cannot send a reply");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    let mut errors = 0;
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // Without a free place, clients wait in the listener's queue.
        let Ok(permit) = shared.connections.clone().acquire_owned().await else {
            return Ok(());
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                errors = 0;
                let shared = shared.clone();
                connections.spawn(async move {
                    if let Err(error) = serve_connection(stream, shared).await {
                        tracing::debug!(%client, %error, "connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => patience(&mut errors, error).await?,
        }
    }
}

/// Answers one query after the other until the client closes or falls silent.
async fn serve_connection(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut query = Vec::new();
    let mut reply = Vec::new();
    let mut framed = Vec::new();
    loop {
        let length = match timeout(IDLE, stream.read_u16()).await {
            Ok(Ok(length)) => length,
            // Closed between two messages, or silent.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        };
        query.resize(usize::from(length), 0);
        match timeout(IDLE, stream.read_exact(&mut query)).await {
            Ok(read) => read?,
            Err(_) => return Ok(()),
        };
        let outcome = match shared.answer(&query, Transport::Tcp, &mut reply) {
            Outcome::Forward(question) => match shared.forwarded.clone().try_acquire_owned() {
                Ok(_permit) => {
                    reply = shared
                        .complete(&query, &reply, &question, Transport::Tcp)
                        .await;
                    Outcome::Reply
                }
                Err(_) => shared.fail(&query, &mut reply),
            },
            outcome => outcome,
        };
        if outcome == Outcome::Ignore {
            // Whoever sends this does not speak DNS.
            return Ok(());
        }
        let Ok(length) = u16::try_from(reply.len()) else {
            return Ok(());
        };
        framed.clear();
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&reply);
        match timeout(IDLE, stream.write_all(&framed)).await {
            Ok(written) => written?,
            Err(_) => return Ok(()),
        }
    }
}

/// Errors on a socket pass (no memory, no file descriptor left, a client gone); one that stays is returned.
async fn patience(errors: &mut u32, error: io::Error) -> io::Result<()> {
    *errors += 1;
    if *errors > MOST_ERRORS {
        return Err(error);
    }
    tracing::warn!(%error, "a socket reports an error");
    sleep(Duration::from_millis(u64::from(*errors))).await;
    Ok(())
}
