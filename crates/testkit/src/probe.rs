//! Questions to servers: plain TCP, UDP and HTTP/1.1, each within a time limit.
//!
//! Every function opens its socket in the network namespace of the calling thread: call it inside
//! [`NetNs::run`](seaway_kernel::NetNs::run), or use the `*_from` form.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use seaway_kernel::NetNs;

/// The most that a server may answer, in bytes.
const ANSWER_LIMIT: u64 = 16 << 20;

/// An answer to an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The header lines, as sent.
    pub headers: Vec<String>,
    /// The body, as it came over the wire (chunks are not put together).
    pub body: String,
}

/// Connects, sends `question`, closes the sending half and reads the answer to the end.
pub fn tcp(server: SocketAddr, question: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(question)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Sends one datagram and returns the one that comes back from the same address.
pub fn udp(server: SocketAddr, question: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(limit))?;
    socket.send(question)?;
    let mut answer = vec![0; 65_535];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// `GET`s a path with HTTP/1.1 on a connection of its own.
pub fn http(server: SocketAddr, path: &str, limit: Duration) -> io::Result<HttpAnswer> {
    let mut stream = TcpStream::connect_timeout(&server, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let cut_off = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not an HTTP answer: {text:?}"),
        )
    };
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut_off)?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok());
    Ok(HttpAnswer {
        status: status.ok_or_else(cut_off)?,
        headers: lines.map(str::to_owned).collect(),
        body: body.to_owned(),
    })
}

/// [`tcp`] from inside a namespace, as text.
pub fn tcp_from(netns: &NetNs, server: SocketAddr, limit: Duration) -> io::Result<String> {
    let answer = within(netns, || tcp(server, b"who am I?\n", limit))?;
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}

/// [`udp`] from inside a namespace, as text.
pub fn udp_from(netns: &NetNs, server: SocketAddr, limit: Duration) -> io::Result<String> {
    let answer = within(netns, || udp(server, b"who am I?\n", limit))?;
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}

/// [`http`] from inside a namespace.
pub fn http_from(
    netns: &NetNs,
    server: SocketAddr,
    path: &str,
    limit: Duration,
) -> io::Result<HttpAnswer> {
    within(netns, || http(server, path, limit))
}

fn within<T: Send>(netns: &NetNs, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    netns.run(work).map_err(io::Error::other)?
}
