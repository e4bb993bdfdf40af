//! A server as a process of its own, and what it takes of the machine.

use std::process::Child;
use std::time::Duration;

/// In the environment of a process of this program that is to be the server.
pub(crate) const SERVER: &str = "SEAWAY_BENCH_SERVER";

/// Whether this process is to be the server.
pub(crate) fn is_server() -> bool {
    std::env::var_os(SERVER).is_some()
}

/// Ends when it is dropped.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Resident bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let status = status.expect("the server lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .expect("its memory");
        kib * 1024
    }

    /// Time on processors.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()));
        let stat = stat.expect("the server lives");
        // Behind the name, which is in brackets. Source: proc_pid_stat(5), utime and stime in ticks of 10 ms.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks: u64 = [11, 12]
            .iter()
            .map(|index| fields[*index].parse::<u64>().expect("a number"))
            .sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where both sides keep their data: on the same disk, and not in memory.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// An address that is free.
pub(crate) fn free() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    listener.local_addr().expect("an address")
}
