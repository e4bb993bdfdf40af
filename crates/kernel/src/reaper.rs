//! Reaping for a process that inherits orphans: PID 1 of a PID namespace, or a child subreaper.
//!
//! Such a process must wait for children that it never started. But whoever waits for *any* child also takes
//! the exit statuses that [`std::process::Child`] and tokio wait for. So all children of such a process are
//! started by [`Reaper::spawn`], and one thread waits for all of them and for the orphans:
//!
//! 1. it looks at whichever child ended without taking its status (`WNOWAIT`),
//! 2. it takes the lock that `spawn` holds from before `fork` until the child is entered in the table,
//! 3. it takes the status and hands it to whoever holds the child.
//!
//! Because of the lock, a status never arrives before its table entry, and a child whose `exec` failed stays for
//! the standard library, which waits for it inside `spawn`. Never use `std::process` or tokio to spawn in a
//! process that has a `Reaper`: their wait would find the child taken.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, waitid};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::pidfd::PidFd;

/// How long the reaper sleeps when it has no child at all before it looks again. Only a process that entered
/// the PID namespace from outside can become a child without [`Reaper::spawn`] waking the reaper.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Starts and reaps all children of this process. Clones are the same reaper.
#[derive(Debug, Clone)]
pub struct Reaper {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Who waits for which child, by process number.
    waiting: Mutex<HashMap<i32, watch::Sender<Option<ExitStatus>>>>,
    /// Wakes the reaper when it has no child to wait for.
    spawned: Condvar,
}

/// A child that a [`Reaper`] started. Dropping it does not end the process.
#[derive(Debug)]
pub struct ReapedChild {
    /// The write end of the child's standard input, if it was made with a pipe.
    pub stdin: Option<ChildStdin>,
    /// The read end of the child's standard output, if it was made with a pipe.
    pub stdout: Option<ChildStdout>,
    /// The read end of the child's standard error, if it was made with a pipe.
    pub stderr: Option<ChildStderr>,
    process: PidFd,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Reaper {
    /// Starts the thread that reaps. It runs until the process ends.
    pub fn start() -> Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::new(HashMap::new()),
            spawned: Condvar::new(),
        });
        let reaper = Self {
            shared: Arc::clone(&shared),
        };
        thread::Builder::new()
            .name("reaper".to_owned())
            .spawn(move || shared.reap_for_ever())
            .map_err(|cause| Error::refused("start", "the reaper's thread", cause))?;
        Ok(reaper)
    }

    /// Starts a child.
    pub fn spawn(&self, command: &mut Command) -> Result<ReapedChild> {
        let mut waiting = self.shared.lock();
        let mut child = command.spawn().map_err(|cause| {
            Error::refused("start", command.get_program().to_string_lossy(), cause)
        })?;
        // The child cannot have been reaped yet, so its number is still its own.
        let process = PidFd::open(child.id())?;
        let (sender, exit) = watch::channel(None);
        waiting.insert(child.id().cast_signed(), sender);
        drop(waiting);
        self.shared.spawned.notify_all();
        Ok(ReapedChild {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            process,
            exit,
        })
    }
}

impl ReapedChild {
    /// The child's process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How the child ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits until the child has ended. May be called again, and dropped before it returns.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let pid = self.pid();
        let gone = |_| Error::NotFound {
            operation: "wait for",
            object: format!("process {pid}"),
        };
        let status = self.exit.wait_for(Option::is_some).await.map_err(gone)?;
        status.ok_or_else(|| Error::NotFound {
            operation: "wait for",
            object: format!("process {pid}"),
        })
    }

    /// Sends a signal to the child, and to no other process even if the child has ended.
    pub fn send_signal(&self, signal: Signal) -> Result<()> {
        self.process.send_signal(signal)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, watch::Sender<Option<ExitStatus>>>> {
        // The table is a plain map that is valid at any moment, also after a panic of its holder.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reap_for_ever(&self) {
        loop {
            match any_ended_child() {
                Ok(pid) => self.reap(pid),
                Err(rustix::io::Errno::CHILD) => {
                    let waiting = self.lock();
                    drop(self.spawned.wait_timeout(waiting, LOOK_AGAIN));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!("wait for any child: {}", io::Error::from(errno));
                    thread::sleep(LOOK_AGAIN);
                }
            }
        }
    }

    /// Takes the status of one ended child and hands it to its holder. The child may be gone: `spawn` waits
    /// itself for a child that could not `exec`.
    fn reap(&self, pid: Pid) {
        let mut waiting = self.lock();
        let Ok(Some(status)) = waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) else {
            return;
        };
        if let Some(holder) = waiting.remove(&pid.as_raw_nonzero().get()) {
            // Nobody may be waiting any more: that is fine.
            let _ = holder.send(Some(exit_status(&status)));
        }
    }
}

/// Blocks until some child has ended and says which, leaving its status where it is.
///
/// Called through libc because `rustix` does not tell the number, and `nix` fails on a child that a real-time
/// signal ended, for ever.
fn any_ended_child() -> rustix::io::Result<Pid> {
    use nix::libc;
    // SAFETY: siginfo_t is plain data of which all zeroes is a value; waitid writes one into it; si_pid reads the
    // field that waitid has set.
    #[allow(unsafe_code)]
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        if libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | libc::WNOWAIT) != 0 {
            let cause = io::Error::last_os_error();
            return Err(rustix::io::Errno::from_io_error(&cause).unwrap_or(rustix::io::Errno::IO));
        }
        info.si_pid()
    };
    Pid::from_raw(pid).ok_or(rustix::io::Errno::CHILD)
}

/// The status as `wait(2)` encodes it, which is what the standard library takes.
fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    const CORE_DUMPED: i32 = 0x80;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::from_raw((code & 0xff) << 8),
        (None, Some(signal)) => {
            let core = if status.dumped() { CORE_DUMPED } else { 0 };
            ExitStatus::from_raw(signal | core)
        }
        (None, None) => ExitStatus::default(),
    }
}
