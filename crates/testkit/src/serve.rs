//! Servers that tell a client which address it came from, so that a test sees whether something translated it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use seaway_kernel::NetNs;

/// How long a server rests between two looks for a client or for its end.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a server waits for the rest of a client's question.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);

/// A running server. It stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers every TCP connection to `address` in `netns` with the client's address, once it has sent its
    /// question. Port 0 picks a free port.
    pub fn tcp(netns: &NetNs, address: SocketAddr) -> io::Result<Self> {
        let listener = netns
            .run(|| TcpListener::bind(address))
            .map_err(io::Error::other)??;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok(Self::start(bound, move || match listener.accept() {
            Ok((stream, client)) => answer(stream, client).is_ok(),
            Err(_) => false,
        }))
    }

    /// Answers every datagram to `address` in `netns` with the client's address.
    pub fn udp(netns: &NetNs, address: SocketAddr) -> io::Result<Self> {
        let socket = netns
            .run(|| UdpSocket::bind(address))
            .map_err(io::Error::other)??;
        socket.set_nonblocking(true)?;
        let bound = socket.local_addr()?;
        Ok(Self::start(bound, move || {
            match socket.recv_from(&mut [0; 65_535]) {
                Ok((_, client)) => socket
                    .send_to(client.ip().to_string().as_bytes(), client)
                    .is_ok(),
                Err(_) => false,
            }
        }))
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many clients it has answered.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    fn start(address: SocketAddr, mut serve_one: impl FnMut() -> bool + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&served));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                if serve_one() {
                    counter.fetch_add(1, Ordering::SeqCst);
                } else {
                    thread::park_timeout(PAUSE);
                }
            }
        });
        Self {
            address,
            stop,
            served,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the server has been printed already; the client's failure says the rest.
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(CLIENT_LIMIT))?;
    stream.read_to_end(&mut Vec::new())?;
    stream.write_all(client.ip().to_string().as_bytes())
}
