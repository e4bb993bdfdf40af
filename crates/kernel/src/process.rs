//! Starting processes in the namespaces they belong in.
//!
//! What a child must do to itself between `fork` and `exec` (enter a namespace, become a session leader, ask to
//! be killed with its parent) needs `unsafe` in Rust, because only async-signal-safe calls are allowed there.
//! [`CommandExt`] has the safe forms; they all work on [`std::process::Command`], and on tokio's through
//! `as_std_mut()`. Steps run in the order in which they were added.
//!
//! # PID 1 of a new PID namespace
//!
//! `unshare(CLONE_NEWPID)` does not move the caller; it decides where the caller's *next children* go. So it
//! cannot be a step of the child: the program would stay outside and its first child would be PID 1.
//! [`spawn_init`] instead calls it on a thread of its own and forks from that thread: the setting belongs to the
//! thread, so the child is PID 1 itself and its [`Child`] is the caller's, with no process in between, and no
//! other thread of the caller is affected.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::netns::NetNs;

/// Steps that a child takes between `fork` and `exec`.
pub trait CommandExt {
    /// The child runs in this network namespace.
    fn in_netns(&mut self, netns: &NetNs) -> &mut Self;

    /// The child gets a session and a process group of its own, without a terminal (`setsid`).
    fn new_session(&mut self) -> &mut Self;

    /// The child gets a session of its own whose controlling terminal is its standard input, which must be a
    /// terminal that controls no other session.
    fn new_session_on_terminal(&mut self) -> &mut Self;

    /// The kernel sends `signal` to the child when the *thread* that spawns it ends (`PR_SET_PDEATHSIG`).
    ///
    /// So spawn from a thread that lives as long as the process: the main thread, or a worker of a tokio
    /// runtime. A thread of `spawn_blocking` ends after ten idle seconds and would take the child along. If
    /// the parent is gone already when the child gets here, spawning fails with `ESRCH` in the orphan.
    fn die_with_parent(&mut self, signal: Signal) -> &mut Self;

    /// The child keeps this file descriptor, under the number it has here (`AsRawFd::as_raw_fd`), which the
    /// caller passes on in an argument or a variable. The `Command` keeps the descriptor open until it is dropped.
    fn keep_fd(&mut self, fd: Arc<OwnedFd>) -> &mut Self;

    /// The child gets a mount namespace of its own from which no mount reaches the parent's, and the other
    /// way round (propagation is private throughout).
    fn new_mount_namespace(&mut self) -> &mut Self;
}

impl CommandExt for Command {
    fn in_netns(&mut self, netns: &NetNs) -> &mut Self {
        let netns = netns.clone();
        // SAFETY: setns is one system call; the clone of the descriptor was made before the fork.
        #[allow(unsafe_code)]
        unsafe {
            self.pre_exec(move || Ok(setns(&netns, CloneFlags::CLONE_NEWNET)?))
        }
    }

    fn new_session(&mut self) -> &mut Self {
        // SAFETY: setsid is one system call.
        #[allow(unsafe_code)]
        unsafe {
            self.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(())
            })
        }
    }

    fn new_session_on_terminal(&mut self) -> &mut Self {
        // SAFETY: two system calls on descriptor 0, which `Command` has set up before any step runs.
        #[allow(unsafe_code)]
        unsafe {
            self.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            })
        }
    }

    fn die_with_parent(&mut self, signal: Signal) -> &mut Self {
        let parent = std::process::id();
        // SAFETY: two system calls, no allocation.
        #[allow(unsafe_code)]
        unsafe {
            self.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(signal))?;
                // The parent may have died before the line above; then nobody would send the signal. In a new
                // PID namespace the parent has no number: nothing to compare with.
                match rustix::process::getppid() {
                    Some(now) if now.as_raw_nonzero().get().unsigned_abs() != parent => {
                        Err(io::Error::from_raw_os_error(nix::libc::ESRCH))
                    }
                    Some(_) | None => Ok(()),
                }
            })
        }
    }

    fn keep_fd(&mut self, fd: Arc<OwnedFd>) -> &mut Self {
        // SAFETY: one fcntl on a descriptor that the closure keeps open.
        #[allow(unsafe_code)]
        unsafe {
            self.pre_exec(move || {
                rustix::io::fcntl_setfd(&*fd, rustix::io::FdFlags::empty())?;
                Ok(())
            })
        }
    }

    fn new_mount_namespace(&mut self) -> &mut Self {
        // SAFETY: two system calls with constant strings.
        #[allow(unsafe_code)]
        unsafe {
            self.pre_exec(private_mounts)
        }
    }
}

/// Starts `command` as PID 1 of a new PID namespace, with a mount namespace of its own (no mount propagates in
/// or out) and a fresh `/proc` that shows the new PID namespace.
///
/// When this process ends, however it ends, the kernel kills every process in its PID namespace. PID 1 inherits
/// all orphans and has to reap them: see [`crate::reaper`]. Do not combine with
/// [`CommandExt::die_with_parent`]: the spawning thread ends when this function returns.
pub fn spawn_init(mut command: Command) -> Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    // SAFETY: a few system calls with constant strings, no allocation.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            private_mounts()?;
            fresh_proc()
        });
    }
    thread::scope(|scope| {
        let spawner = thread::Builder::new()
            .name("spawn-init".to_owned())
            .spawn_scoped(scope, move || {
                unshare(CloneFlags::CLONE_NEWPID)
                    .map_err(|errno| Error::refused("create", "PID namespace", errno))?;
                command
                    .spawn()
                    .map_err(|cause| Error::refused("start", program, cause))
            })
            .map_err(|cause| Error::refused("start", "a thread to spawn from", cause))?;
        match spawner.join() {
            Ok(child) => child,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Moves the calling process, which must have one thread only, into a mount namespace of its own without
/// propagation.
fn private_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    rustix::mount::mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    Ok(())
}

/// Mounts a `/proc` of the calling process's PID namespace over the one that is there.
fn fresh_proc() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(c"proc", c"/proc", c"proc", flags, None)?;
    Ok(())
}

/// Orphaned descendants of this process become its children (`PR_SET_CHILD_SUBREAPER`), as they would those of
/// PID 1. The caller then has to reap them.
pub fn become_subreaper() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| Error::refused("become", "the reaper of orphaned descendants", errno))
}

/// Whether the file descriptor number is one that [`CommandExt::keep_fd`] of the parent passed, and takes it.
///
/// The descriptor must be open and must not be standard input, output or error. It is closed on the next
/// `exec`. Call once per number: afterwards it belongs to the returned value.
pub fn take_kept_fd(number: i32) -> Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let object = || format!("file descriptor {number}");
    if number <= 2 {
        let reason = "standard streams cannot be taken".to_owned();
        return Err(Error::Invalid {
            operation: "take",
            object: object(),
            reason,
        });
    }
    let flags = nix::libc::FD_CLOEXEC;
    // SAFETY: F_GETFD and F_SETFD on a number are harmless whatever the number is; the first proves that it is open.
    #[allow(unsafe_code)]
    let set = unsafe {
        match nix::libc::fcntl(number, nix::libc::F_GETFD) {
            // Whatever this process opened itself carries close-on-exec, and has an owner.
            held if held >= 0 && held & flags != 0 => {
                let reason = "it was not passed by the parent".to_owned();
                return Err(Error::Invalid {
                    operation: "take",
                    object: object(),
                    reason,
                });
            }
            held if held >= 0 => nix::libc::fcntl(number, nix::libc::F_SETFD, flags),
            _ => -1,
        }
    };
    if set < 0 {
        return Err(Error::refused("take", object(), io::Error::last_os_error()));
    }
    // SAFETY: the number is open and, having come without close-on-exec, nobody in this process owns it yet.
    #[allow(unsafe_code)]
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    debug_assert_eq!(fd.as_raw_fd(), number);
    Ok(fd)
}
