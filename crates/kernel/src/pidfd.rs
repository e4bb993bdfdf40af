//! A process held by file descriptor: wait for it and signal it without ever hitting another process that got
//! the same number (pidfd_open(2), Linux 5.3).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};

/// One process, whatever becomes of its number. Works for any process, not only for children.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: u32,
}

impl PidFd {
    /// Holds the process that has number `pid` now.
    pub fn open(pid: u32) -> Result<Self> {
        let object = || format!("process {pid}");
        let raw = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| Error::Invalid {
                operation: "open",
                object: object(),
                reason: "not a process number".to_owned(),
            })?;
        let fd = pidfd_open(raw, PidfdFlags::empty())
            .map_err(|errno| Error::refused("open", object(), errno))?;
        Ok(Self { fd, pid })
    }

    /// The process's number at the time it was opened.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal. That the process has ended already is an error of which `is_not_found` is true.
    pub fn send_signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.fd, signal)
            .map_err(|errno| Error::refused("signal", format!("process {}", self.pid), errno))
    }

    /// Waits until the process has ended (for a child: until it can be reaped). Must be called within tokio.
    pub async fn ended(&self) -> Result<()> {
        let refused =
            |cause: io::Error| Error::refused("wait for", format!("process {}", self.pid), cause);
        // SAFETY: the borrowed descriptor stays open, and the same one, for as long as the borrow lasts.
        #[allow(unsafe_code)]
        let fd = unsafe { AsyncFd::register_with_interest(self.fd.as_fd(), Interest::READABLE) }
            .map_err(|error| refused(error.into()))?;
        fd.readable().await.map_err(refused)?.retain_ready();
        Ok(())
    }

    /// Waits until the process has ended, at most `limit`; returns whether it has. Blocks the thread.
    pub fn ended_within(&self, limit: Duration) -> Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| Error::Invalid {
                operation: "wait for",
                object: format!("process {}", self.pid),
                reason: "the time limit is too long".to_owned(),
            })?;
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(Error::refused(
                        "wait for",
                        format!("process {}", self.pid),
                        errno,
                    ));
                }
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
