//! `seaway internal sandbox`: the process that holds the namespaces of a Pod.
//!
//! It does what the pause container does, without an image: its network, IPC and UTS namespaces live as long as it
//! does, and containers join them through `/proc/<pid>/ns`. It writes `ready` to standard output when they can.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::SandboxSpec;

/// Said when containers may join.
pub(super) const READY: &str = "ready\n";

/// Entry point of `seaway internal sandbox <spec as JSON>`. Returns only when it fails.
pub fn sandbox_main(args: &[String]) -> ExitCode {
    match hold(args) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn hold(args: &[String]) -> io::Result<std::convert::Infallible> {
    let [spec] = args else {
        return Err(io::Error::other("usage: internal sandbox <spec>"));
    };
    let spec: SandboxSpec = serde_json::from_str(spec)?;
    let doing = |what: &'static str| {
        move |error: nix::Error| io::Error::other(format!("cannot {what}: {error}"))
    };
    nix::unistd::setsid().map_err(doing("leave the agent's session"))?;
    // For `ps`; a name is 15 bytes.
    nix::sys::prctl::set_name(c"seaway-sandbox").map_err(doing("set the process name"))?;
    let mut namespaces = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if !spec.host_network {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    unshare(namespaces).map_err(doing("make namespaces"))?;
    nix::unistd::sethostname(&spec.hostname).map_err(doing("set the host name"))?;
    if !spec.host_network {
        loopback_up()?;
        // As containerd does: a container needs no capability for port 80, nor to ping.
        fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
    }
    let mut stdout = io::stdout();
    stdout.write_all(READY.as_bytes())?;
    stdout.flush()?;
    // The agent may go and come back; nothing of its is kept open.
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    loop {
        nix::unistd::pause();
    }
}

/// Brings `lo` up: a network namespace is born with it down, and containers of a Pod talk to each other over it.
fn loopback_up() -> io::Result<()> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let fd = netlink.as_raw_fd();
    send(fd, &set_loopback_up(), MsgFlags::empty())?;
    let mut answer = [0u8; 256];
    let length = recv(fd, &mut answer, MsgFlags::empty())?;
    // nlmsgerr: the error number follows the 16 bytes of the header; 0 acknowledges.
    let error = answer[..length]
        .get(16..20)
        .and_then(|bytes| bytes.try_into().ok());
    match error.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::other("short answer from rtnetlink")),
    }
}

/// `RTM_NEWLINK` for interface 1, which is always `lo`, with `IFF_UP` (rtnetlink(7)).
fn set_loopback_up() -> Vec<u8> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
    const IFF_UP: u32 = 1;
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes()); // nlmsg_len
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend(1u32.to_ne_bytes()); // nlmsg_seq
    message.extend(0u32.to_ne_bytes()); // nlmsg_pid: the kernel's choice
    message.extend([0u8; 4]); // ifi_family, padding, ifi_type
    message.extend(1i32.to_ne_bytes()); // ifi_index
    message.extend(IFF_UP.to_ne_bytes()); // ifi_flags
    message.extend(IFF_UP.to_ne_bytes()); // ifi_change
    message
}
