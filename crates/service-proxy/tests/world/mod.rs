//! A node with Pods and a client around it, in network namespaces of their own; and servers and clients in them.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use seaway_kernel::NetNs;

/// Longer than any answer takes on a busy machine, shorter than a test may hang.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often servers look whether they shall end.
const HEARTBEAT: Duration = Duration::from_millis(50);

/// The namespaces. They are gone when this is dropped.
pub(crate) struct World {
    namespaces: HashMap<&'static str, (String, NetNs)>,
    stop: Arc<AtomicBool>,
}

impl World {
    /// Namespaces, links and routes.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut world = Self {
            namespaces: HashMap::new(),
            stop: Arc::default(),
        };
        for role in ["node", "client", "pod-a", "pod-b", "remote"] {
            let name = format!("proxy-{}-{number}-{role}", std::process::id());
            command("ip", &["netns", "add", &name]);
            let namespace = NetNs::open(&Path::new("/run/netns").join(&name)).unwrap();
            world.namespaces.insert(role, (name, namespace));
            world.ip(role, "link set lo up");
        }
        world.run("node", || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        });
        // Routed: no Pod sees another one's link.
        for (role, node, other) in [
            ("client", "192.0.2.1", "192.0.2.2"),
            ("remote", "10.87.0.1", "10.87.0.2"),
            ("pod-a", "10.244.0.1", "10.244.0.2"),
            ("pod-b", "10.244.0.1", "10.244.0.3"),
        ] {
            let peer = &world.namespaces[role].0;
            world.ip(
                "node",
                &format!("link add to-{role} type veth peer name eth0 netns {peer}"),
            );
            world.ip("node", &format!("addr add {node}/32 dev to-{role}"));
            world.ip("node", &format!("link set to-{role} up"));
            world.ip(
                "node",
                &format!("route add {other}/32 dev to-{role} src {node}"),
            );
            world.ip(role, &format!("addr add {other}/32 dev eth0"));
            world.ip(role, "link set eth0 up");
            world.ip(role, &format!("route add {node}/32 dev eth0 src {other}"));
            world.ip(
                role,
                &format!("route add default via {node} dev eth0 src {other}"),
            );
        }
        world.ip("remote", "addr add 10.244.1.2/32 dev lo");
        world.ip(
            "node",
            "route add 10.244.1.0/24 via 10.87.0.2 dev to-remote",
        );
        // Locally made packets are routed before their destination is translated.
        world.ip(
            "node",
            "route add 10.96.0.0/12 via 10.87.0.2 dev to-remote src 10.87.0.1",
        );
        world
    }

    /// Runs something in the namespace of this role.
    pub(crate) fn run<T: Send>(&self, role: &str, work: impl FnOnce() -> T + Send) -> T {
        self.namespaces[role].1.run(work).unwrap()
    }

    /// `ip`, in the namespace of this role.
    pub(crate) fn ip(&self, role: &str, arguments: &str) {
        let mut all = vec!["-n", self.namespaces[role].0.as_str()];
        all.extend(arguments.split(' '));
        command("ip", &all);
    }

    /// `nft` on the node; returns what it prints.
    pub(crate) fn nft(&self, arguments: &[&str]) -> String {
        let mut all = vec!["netns", "exec", self.namespaces["node"].0.as_str(), "nft"];
        all.extend(arguments);
        command("ip", &all)
    }

    /// Servers in all Pods, on port 8080.
    pub(crate) fn serve_all(&self) {
        self.serve("pod-a", "10.244.0.2:8080", "pod-a");
        self.serve("pod-b", "10.244.0.3:8080", "pod-b");
        self.serve("remote", "10.244.1.2:8080", "remote");
    }

    /// A TCP and a UDP server that answer each line or datagram with `name`, and the address that it came from.
    pub(crate) fn serve(&self, role: &str, address: &str, name: &'static str) {
        let (tcp, udp) = self.run(role, || {
            (
                TcpListener::bind(address).unwrap(),
                UdpSocket::bind(address).unwrap(),
            )
        });
        let stop = self.stop.clone();
        udp.set_read_timeout(Some(HEARTBEAT)).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((_, from)) = udp.recv_from(&mut buffer) {
                    // The client may be gone already.
                    let _ = udp.send_to(format!("{name} {}", from.ip()).as_bytes(), from);
                }
            }
        });
        let stop = self.stop.clone();
        rustix::net::sockopt::set_socket_timeout(
            &tcp,
            rustix::net::sockopt::Timeout::Recv,
            Some(HEARTBEAT),
        )
        .unwrap();
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Ok((stream, from)) = tcp.accept() {
                    let stop = stop.clone();
                    thread::spawn(move || answer(stream, &format!("{name} {}", from.ip()), &stop));
                }
            }
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (name, _) in self.namespaces.values() {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn answer(mut stream: TcpStream, text: &str, stop: &AtomicBool) {
    let mut byte = [0];
    stream.set_read_timeout(Some(HEARTBEAT)).unwrap();
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut byte) {
            Ok(1..) if stream.write_all(format!("{text}\n").as_bytes()).is_ok() => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => return,
        }
    }
}

/// A connection that stays open.
pub(crate) struct Open(TcpStream);

impl Open {
    /// Who answers at the other end.
    pub(crate) fn ask(&mut self) -> io::Result<String> {
        Ok(self.answer()?.0)
    }

    fn answer(&mut self) -> io::Result<(String, String)> {
        self.0.write_all(b"?")?;
        let mut text = Vec::new();
        let mut byte = [0];
        while self.0.read(&mut byte)? == 1 && byte != *b"\n" {
            text.push(byte[0]);
        }
        split(&text)
    }
}

/// Opens a connection.
pub(crate) fn tcp_open(target: &str) -> io::Result<Open> {
    let target: SocketAddr = target.parse().unwrap();
    let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(Open(stream))
}

/// Who answers on a new TCP connection, and which source address they see.
pub(crate) fn tcp(target: &str) -> io::Result<(String, String)> {
    tcp_open(target)?.answer()
}

/// Who answers a datagram from a new socket, and which source address they see.
pub(crate) fn udp(target: &str) -> io::Result<(String, String)> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(target)?;
    match socket.send(b"?") {
        // So the kernel says that an own datagram was refused; the reason waits at the socket.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
        other => drop(other?),
    }
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer)?;
    split(&buffer[..length])
}

fn split(answer: &[u8]) -> io::Result<(String, String)> {
    let text = std::str::from_utf8(answer).map_err(io::Error::other)?;
    let (who, source) = text
        .split_once(' ')
        .ok_or_else(|| io::Error::other("no answer"))?;
    Ok((who.to_owned(), source.to_owned()))
}

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
