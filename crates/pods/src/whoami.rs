//! `seaway/whoami`: a container that says which Pod it is, on every port it declares.
//!
//! - HTTP/1.1 with keep-alive: the Pod, who asks, the request and the container's arguments, as plain text.
//!   `/healthz` is 200, `/fail` is 500.
//! - TCP that does not begin like HTTP: echo.
//! - UDP: echo; the datagram `whoami` gets the same text as HTTP.
//!
//! Threads of the standard library, one per connection: the process is small, and there are as many of it as Pods.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

/// Environment variable with the ports to answer on: `80/TCP,53/UDP`. Without it, 80/TCP.
pub const PORTS: &str = "SEAWAY_WHOAMI_PORTS";

/// A longer request head is not one.
const MAX_HEAD: usize = 64 * 1024;
/// A connection on which nothing comes is closed.
const IDLE: Duration = Duration::from_secs(120);
/// Enough for one connection; the default of 2 MiB times a thousand connections is address space for nothing.
const STACK: usize = 128 * 1024;

/// Entry point of `seaway internal whoami <arguments>`: serves until SIGTERM or SIGINT.
///
/// It is PID 1 of its PID namespace, for which the kernel drops signals that have no handler; so they are blocked
/// and waited for.
pub fn main(args: &[String]) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whoami: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &[String]) -> io::Result<()> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    // Before any thread is made, so that all inherit it.
    ends.thread_block()?;
    let ports = std::env::var(PORTS).unwrap_or_default();
    let ports = parse_ports(&ports).map_err(io::Error::other)?;
    let identity = Arc::new(Identity::from_env(args));
    for port in ports {
        let busy = |error| io::Error::other(format!("cannot listen on {port}: {error}"));
        let identity = identity.clone();
        match port {
            Port::Tcp(number) => {
                let listener = bind(number, TcpListener::bind).map_err(busy)?;
                spawn(move || accept(&listener, &identity))?;
            }
            Port::Udp(number) => {
                let socket = bind(number, UdpSocket::bind).map_err(busy)?;
                spawn(move || answer_datagrams(&socket, &identity))?;
            }
        }
        say(&format!("listening on {port}"));
    }
    let signal = ends.wait()?;
    say(&format!("ended by {signal}"));
    Ok(())
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(work)
        .map(|_| ())
}

/// On both address families, or on IPv4 where the machine has no IPv6.
fn bind<T>(port: u16, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    bind((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Err(error),
        _ => bind((Ipv4Addr::UNSPECIFIED, port).into()),
    })
}

/// A line for `kubectl logs`. That nobody takes it is no reason to end.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A port to answer on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Tcp(u16),
    Udp(u16),
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Port::Tcp(number) => write!(f, "{number}/TCP"),
            Port::Udp(number) => write!(f, "{number}/UDP"),
        }
    }
}

fn parse_ports(text: &str) -> Result<Vec<Port>, String> {
    let mut ports = Vec::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let (number, protocol) = item.split_once('/').unwrap_or((item, "TCP"));
        let number: u16 = number
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| format!("{item:?} is not a port"))?;
        let port = match protocol.to_ascii_uppercase().as_str() {
            "TCP" => Port::Tcp(number),
            "UDP" => Port::Udp(number),
            _ => return Err(format!("{item:?}: only TCP and UDP are answered")),
        };
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    if ports.is_empty() {
        ports.push(Port::Tcp(80));
    }
    Ok(ports)
}

/// What it says of itself.
#[derive(Debug)]
struct Identity {
    /// `Pod: …` and so on, ready to send.
    lines: String,
    arguments: String,
}

impl Identity {
    fn from_env(args: &[String]) -> Self {
        Self::new(&std::env::vars().collect(), args)
    }

    fn new(env: &BTreeMap<String, String>, args: &[String]) -> Self {
        let value = |name: &str| env.get(name).map_or("", String::as_str);
        // The host name is the Pod's name unless the Pod says otherwise.
        let pod = match value("POD_NAME") {
            "" => value("HOSTNAME"),
            name => name,
        };
        let lines = format!(
            "Pod: {pod}\nNode: {}\nNamespace: {}\nAddress: {}\n",
            value("NODE_NAME"),
            value("POD_NAMESPACE"),
            value("POD_IP")
        );
        Self {
            lines,
            arguments: args.join(" "),
        }
    }

    fn describe(&self, client: SocketAddr) -> String {
        format!(
            "{}Client: {}\nArguments: {}\n",
            self.lines,
            plain(client),
            self.arguments
        )
    }
}

/// An IPv4 client of an IPv6 socket looks like `::ffff:10.0.0.1`.
fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => ip
            .to_ipv4_mapped()
            .map_or(address, |v4| SocketAddr::new(v4.into(), address.port())),
        IpAddr::V4(_) => address,
    }
}

fn answer_datagrams(socket: &UdpSocket, identity: &Identity) {
    let mut buffer = vec![0u8; 65536];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, client)) => {
                let data = &buffer[..length];
                let asked = data.trim_ascii() == b"whoami";
                let answer = if asked {
                    identity.describe(client).into_bytes()
                } else {
                    data.to_vec()
                };
                // The client may be gone; others are not.
                let _ = socket.send_to(&answer, client);
            }
            // An ICMP error about an earlier answer.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn accept(listener: &TcpListener, identity: &Arc<Identity>) {
    loop {
        match listener.accept() {
            Ok((stream, client)) => {
                let identity = identity.clone();
                // Without a thread the connection is dropped, which the client sees.
                let _ = spawn(move || {
                    let _ = converse(stream, client, &identity);
                });
            }
            // Out of descriptors, or the client gave up: the next may do better.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn converse(mut stream: TcpStream, client: SocketAddr, identity: &Identity) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    let mut received = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        match beginning(&received) {
            Beginning::Http => break,
            Beginning::Other => {
                stream.write_all(&received)?;
                return echo(stream);
            }
            Beginning::Unclear => match stream.read(&mut buffer)? {
                0 => return stream.write_all(&received),
                length => received.extend_from_slice(&buffer[..length]),
            },
        }
    }
    loop {
        let Some(end) = head_end(&received) else {
            if received.len() > MAX_HEAD {
                return stream.write_all(
                    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                );
            }
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                length => received.extend_from_slice(&buffer[..length]),
            }
            continue;
        };
        let head = String::from_utf8_lossy(&received[..end]).into_owned();
        received.drain(..end);
        let request = Request::parse(&head);
        // The body is read away, so that the next request begins where it ends.
        let mut rest = request.content_length;
        let here = rest.min(received.len());
        received.drain(..here);
        rest -= here;
        while rest > 0 {
            let wanted = rest.min(buffer.len());
            match stream.read(&mut buffer[..wanted])? {
                0 => return Ok(()),
                length => rest -= length,
            }
        }
        let status = request.status();
        stream.write_all(&request.answer(status, client, identity))?;
        say(&format!("{} {} {status}", plain(client), request.line));
        if !request.keep_alive {
            return Ok(());
        }
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0u8; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    Http,
    Other,
    Unclear,
}

fn beginning(received: &[u8]) -> Beginning {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"PATCH ",
        b"OPTIONS ",
        b"TRACE ",
        b"CONNECT ",
    ];
    if METHODS.iter().any(|method| received.starts_with(method)) {
        Beginning::Http
    } else if METHODS.iter().any(|method| method.starts_with(received)) {
        Beginning::Unclear
    } else {
        Beginning::Other
    }
}

fn head_end(received: &[u8]) -> Option<usize> {
    received
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    line: &'a str,
    method: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    content_length: usize,
    keep_alive: bool,
}

impl<'a> Request<'a> {
    fn parse(head: &'a str) -> Self {
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or("");
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or("/"));
        let headers: Vec<(&str, &str)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        let header = |wanted: &str| {
            headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|it| it.1)
        };
        let content_length = header("content-length").map(str::parse);
        let connection = header("connection").unwrap_or("").to_ascii_lowercase();
        // A body whose end we do not know ends with the connection.
        let known =
            header("transfer-encoding").is_none() && !matches!(content_length, Some(Err(_)));
        let persistent = if line.ends_with("HTTP/1.0") {
            connection.contains("keep-alive")
        } else {
            !connection.contains("close")
        };
        Self {
            line,
            method,
            path: target.split('?').next().unwrap_or("/"),
            content_length: content_length.and_then(Result::ok).unwrap_or(0),
            keep_alive: persistent && known,
            headers,
        }
    }

    fn status(&self) -> &'static str {
        if self.path == "/fail" {
            "500 Internal Server Error"
        } else {
            "200 OK"
        }
    }

    fn answer(&self, status: &str, client: SocketAddr, identity: &Identity) -> Vec<u8> {
        let body = match self.path {
            "/healthz" => "ok\n".to_owned(),
            "/fail" => "failing as asked\n".to_owned(),
            _ => {
                let mut body = identity.describe(client);
                let _ = write!(body, "\n{}\n", self.line);
                for (name, value) in &self.headers {
                    let _ = writeln!(body, "{name}: {value}");
                }
                body
            }
        };
        let connection = if self.keep_alive {
            "keep-alive"
        } else {
            "close"
        };
        let mut answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n",
            body.len()
        );
        if self.method != "HEAD" {
            answer.push_str(&body);
        }
        answer.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Arc<Identity> {
        let env = [
            ("POD_NAME", "web-1"),
            ("NODE_NAME", "node-2"),
            ("POD_NAMESPACE", "shop"),
            ("POD_IP", "10.244.1.5"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Arc::new(Identity::new(
            &env.into(),
            &["Whale".into(), "Type A, Here.".into()],
        ))
    }

    /// A connection to a server that runs as in a container.
    fn connect() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        spawn(move || accept(&listener, &identity())).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    /// One response, by its content length.
    fn response(stream: &mut TcpStream) -> String {
        let mut received = Vec::new();
        let mut byte = [0u8; 1];
        while head_end(&received).is_none() {
            stream.read_exact(&mut byte).unwrap();
            received.push(byte[0]);
        }
        let head = String::from_utf8(received).unwrap();
        let mut body = vec![0; Request::parse(&head).content_length];
        stream.read_exact(&mut body).unwrap();
        head + std::str::from_utf8(&body).unwrap()
    }

    #[test]
    fn it_says_who_it_is_and_who_asks() {
        let mut stream = connect();
        let client = stream.local_addr().unwrap();
        stream
            .write_all(b"GET /x?y HTTP/1.1\r\nHost: web\r\n\r\n")
            .unwrap();
        let text = response(&mut stream);
        for line in [
            "HTTP/1.1 200 OK",
            "Pod: web-1",
            "Node: node-2",
            "Namespace: shop",
            "Address: 10.244.1.5",
            &format!("Client: {client}"),
            "Arguments: Whale Type A, Here.",
            "GET /x?y HTTP/1.1",
            "Host: web",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn one_connection_carries_many_requests_and_bodies() {
        let mut stream = connect();
        stream
            .write_all(b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET /heal")
            .unwrap();
        assert!(response(&mut stream).starts_with("HTTP/1.1 200"));
        stream.write_all(b"thz HTTP/1.1\r\n\r\n").unwrap();
        assert!(response(&mut stream).ends_with("\r\n\r\nok\n"));
        stream
            .write_all(b"GET /fail HTTP/1.1\r\nConnection: close\r\n\r\n")
            .unwrap();
        assert!(response(&mut stream).starts_with("HTTP/1.1 500"));
        assert_eq!(stream.read(&mut [0u8; 1]).unwrap(), 0);
    }

    #[test]
    fn what_is_not_http_is_echoed() {
        let mut stream = connect();
        for text in ["GEnerally speaking\n", "and on"] {
            stream.write_all(text.as_bytes()).unwrap();
            let mut back = vec![0; text.len()];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back, text.as_bytes());
        }
    }

    #[test]
    fn a_head_answer_has_no_body_and_an_endless_head_is_refused() {
        let mut stream = connect();
        stream.write_all(b"HEAD / HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        let mut stream = connect();
        stream.write_all(b"GET / HTTP/1.1\r\nx: ").unwrap();
        stream.write_all(&vec![b'x'; MAX_HEAD + 10]).unwrap();
        let mut start = [0u8; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 431");
    }

    #[test]
    fn datagrams_are_echoed_and_whoami_is_answered() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        spawn(move || answer_datagrams(&socket, &identity())).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut buffer = [0u8; 1000];
        client.send_to(b"hello", address).unwrap();
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
        client.send_to(b"whoami\n", address).unwrap();
        let length = client.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"Pod: web-1\n"));
    }

    #[test]
    fn ports_are_numbers_with_a_protocol() {
        assert_eq!(parse_ports("").unwrap(), [Port::Tcp(80)]);
        assert_eq!(
            parse_ports("80/TCP, 53/UDP,80/tcp,8080").unwrap(),
            [Port::Tcp(80), Port::Udp(53), Port::Tcp(8080)]
        );
        for bad in ["x", "0", "65536/TCP", "80/SCTP"] {
            assert!(parse_ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mapped_client_is_shown_as_the_ipv4_client_that_it_is() {
        let mapped: SocketAddr = "[::ffff:10.1.2.3]:99".parse().unwrap();
        assert_eq!(plain(mapped).to_string(), "10.1.2.3:99");
    }
}
