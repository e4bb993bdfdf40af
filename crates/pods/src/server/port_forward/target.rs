//! Where forwarded connections go: the loopback addresses inside a Pod.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use seaway_kernel::NetNs;
use tokio::net::{TcpSocket, TcpStream};

/// How long a program in the Pod may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// A Pod.
#[derive(Debug)]
pub(super) struct Target {
    pod_uid: String,
    netns: PathBuf,
}

impl Target {
    pub(super) fn new(pod_uid: String, netns: PathBuf) -> Self {
        Self { pod_uid, netns }
    }

    /// Connects to 127.0.0.1 in the Pod, and if nothing listens there to ::1.
    ///
    /// # Errors
    /// What the client is told, as a kubelet with containerd words it.
    pub(super) async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let netns = self.netns.clone();
        // A socket stays in the namespace in which it was made, whoever uses it. Making it needs a thread.
        let made = tokio::task::spawn_blocking(move || {
            let namespace = NetNs::open(&netns).map_err(|error| error.to_string())?;
            let sockets = namespace.run(|| (TcpSocket::new_v4(), TcpSocket::new_v6()));
            sockets.map_err(|error| error.to_string())
        });
        let (v4, v6) = made
            .await
            .map_err(|error| error.to_string())
            .and_then(|made| made)
            .map_err(|why| self.failed(port, &why))?;
        let v4 = match connect(v4, Ipv4Addr::LOCALHOST.into(), port).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let v6 = match connect(v6, Ipv6Addr::LOCALHOST.into(), port).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let why = format!(
            "failed to connect to localhost:{port} inside namespace {:?}, IPv4: {v4} IPv6 {v6} ",
            self.pod_uid
        );
        Err(self.failed(port, &why))
    }

    fn failed(&self, port: u16, why: &str) -> String {
        format!(
            "error forwarding port {port} to pod {}, uid : failed to execute portforward in network namespace {:?}: {why}",
            self.pod_uid,
            self.netns.display().to_string()
        )
    }
}

async fn connect(
    socket: io::Result<TcpSocket>,
    address: IpAddr,
    port: u16,
) -> Result<TcpStream, String> {
    let address = SocketAddr::new(address, port);
    let connecting = async { socket?.connect(address).await };
    let connected = tokio::time::timeout(PATIENCE, connecting).await;
    let failed = |why: &str| {
        let family = if address.is_ipv4() { "tcp4" } else { "tcp6" };
        format!("dial {family} {address}: {why}")
    };
    match connected {
        Ok(Ok(stream)) => {
            // A forwarded connection is as quick as the program's own would be.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(failed("connect: connection refused"))
        }
        Ok(Err(error)) => Err(failed(&format!("connect: {error}"))),
        Err(_) => Err(failed("i/o timeout")),
    }
}
