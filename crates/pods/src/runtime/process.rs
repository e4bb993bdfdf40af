//! A process named so that it cannot be taken for a later one that got the same number.
//!
//! Process ids are written to files that outlive processes. The kernel uses numbers again, so a name has the
//! time of the process's start as well, and a signal goes through a pidfd that was opened first and compared
//! afterwards.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal};
use seaway_kernel::pidfd::PidFd;

/// Number and start time of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct ProcessId {
    /// Its number in our PID namespace.
    pub(super) pid: i32,
    /// Clock ticks from boot to its start.
    started: u64,
}

impl ProcessId {
    /// The process that has this number now, unless it is a zombie; `None` when there is none.
    pub(super) fn of(pid: i32) -> io::Result<Option<Self>> {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => Ok(parse_stat(&stat)?.map(|started| Self { pid, started })),
            // ESRCH: it ended between open and read.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The calling process.
    pub(super) fn current() -> io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Self::of(pid)?.ok_or_else(|| io::Error::other("/proc does not show this process"))
    }

    /// Whether it still runs; a zombie does not.
    pub(super) fn is_alive(&self) -> io::Result<bool> {
        Ok(Self::of(self.pid)? == Some(*self))
    }

    /// A descriptor that becomes readable when it ends; `None` when it has ended already.
    pub(super) fn pidfd(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let fd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // Compared after opening: what the descriptor holds cannot be replaced any more.
        Ok(self.is_alive()?.then_some(fd))
    }

    /// Sends a signal; `false` when it has ended.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(fd) = self.pidfd()? else {
            return Ok(false);
        };
        match rustix::process::pidfd_send_signal(fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Returns when it has ended.
    pub(super) async fn ended(&self) -> io::Result<()> {
        let Ok(pid) = u32::try_from(self.pid) else {
            return Ok(());
        };
        let held = match PidFd::open(pid) {
            Ok(held) => held,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        };
        // Compared after opening, as in `pidfd`.
        if self.is_alive()? {
            held.ended().await.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Start time out of `/proc/<pid>/stat` (proc_pid_stat(5)): field 22, and `None` for a zombie or a dead process.
fn parse_stat(stat: &str) -> io::Result<Option<u64>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "/proc/<pid>/stat is malformed");
    // The name is in parentheses and may contain anything, parentheses as well.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(malformed)?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next().ok_or_else(malformed)?;
    // State is field 3, so 18 more lie before field 22.
    let started = fields
        .nth(18)
        .and_then(|text| text.parse().ok())
        .ok_or_else(malformed)?;
    Ok((!matches!(state, "Z" | "X")).then_some(started))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 10";

    #[test]
    fn the_start_time_is_found_behind_a_hostile_name() {
        assert_eq!(parse_stat(STAT).unwrap(), Some(98765));
    }

    #[test]
    fn a_zombie_is_not_alive() {
        assert_eq!(parse_stat(&STAT.replace(" S ", " Z ")).unwrap(), None);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(parse_stat("42 (a").is_err());
        assert!(parse_stat("42 (a) S 1 2").is_err());
    }

    #[test]
    fn this_process_is_alive_and_a_later_one_of_its_number_is_not_it() {
        let me = ProcessId::current().unwrap();
        assert!(me.is_alive().unwrap());
        let other = ProcessId {
            started: me.started + 1,
            ..me
        };
        assert!(!other.is_alive().unwrap());
        assert!(other.pidfd().unwrap().is_none());
        assert!(!other.signal(Signal::CONT).unwrap());
    }
}
