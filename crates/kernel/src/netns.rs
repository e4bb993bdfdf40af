//! Network namespaces: make one, find one, do something inside one.
//!
//! A network namespace belongs to a *thread*, not to a process. A thread that moved into another one must
//! never go back to a pool, or the next task on it would speak to the wrong network. So everything here that
//! enters a namespace does it on a thread of its own that ends afterwards.
//!
//! A namespace lives as long as a process in it, an open file of it, or a mount of it. A [`NetNs`] is such an
//! open file: when the last clone is dropped and no process is inside, the kernel takes the namespace away with
//! every link, route and rule in it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, Result};
use crate::rtnl;

/// Where the calling thread finds its own network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace. Clones share one file descriptor.
#[derive(Debug, Clone)]
pub struct NetNs {
    file: Arc<OwnedFd>,
}

impl NetNs {
    /// Makes a new, empty network namespace. Its loopback link is up; it has no way to anywhere else.
    pub fn new() -> Result<Self> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::refused("create", "network namespace", errno))?;
            rtnl::raise_loopback()?;
            Self::current()
        })?
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// The namespace that process `pid` is in (the process as this PID namespace numbers it).
    pub fn of_process(pid: u32) -> Result<Self> {
        Self::open(&PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    /// The namespace behind a file: `/proc/<pid>/ns/net`, or one that [`NetNs::pin`] or `ip netns add` made.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|cause| {
            Error::refused("open network namespace", path.display().to_string(), cause)
        })?;
        Ok(Self {
            file: Arc::new(file.into()),
        })
    }

    /// The namespace behind a file descriptor that was received from elsewhere.
    pub fn from_fd(file: OwnedFd) -> Self {
        Self {
            file: Arc::new(file),
        }
    }

    /// Runs `work` inside this namespace and returns what it returns.
    ///
    /// The work runs on a thread of its own; the calling thread waits for it. A socket that it opens stays in
    /// this namespace for good, wherever it is used afterwards. A panic of `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_own_thread(|| {
            self.enter_for_good()?;
            Ok(work())
        })?
    }

    /// Moves the calling thread into this namespace. For threads that never leave it again.
    pub fn enter_for_good(&self) -> Result<()> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::refused("enter", "network namespace", errno))
    }

    /// Whether both are the same namespace (the same inode of the same namespace file system).
    pub fn same_as(&self, other: &Self) -> Result<bool> {
        Ok(self.identity()? == other.identity()?)
    }

    /// The namespace's identity as the kernel shows it in `/proc/<pid>/ns/net`: device and inode number.
    pub fn identity(&self) -> Result<(u64, u64)> {
        let stat = rustix::fs::fstat(self.file.as_fd())
            .map_err(|errno| Error::refused("look at", "network namespace", errno))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Gives the namespace a name in the file system at `path`, where it stays until it is unmounted, even
    /// with no process inside (what `ip netns add` does under `/run/netns`). The directory must exist.
    pub fn pin(&self, path: &Path) -> Result<()> {
        let object = || path.display().to_string();
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|cause| {
                Error::refused("create the file for network namespace", object(), cause)
            })?;
        // The magic link leads to the namespace itself, so it can be the source of a bind mount.
        let source = format!("/proc/self/fd/{}", self.as_raw_fd());
        rustix::mount::mount_bind(source, path)
            .map_err(|errno| Error::refused("pin network namespace at", object(), errno))
    }

    /// Takes back what [`NetNs::pin`] did. Succeeds if nothing is there.
    pub fn unpin(path: &Path) -> Result<()> {
        crate::mount::unmount_if_mounted(path)?;
        match std::fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(Error::refused("remove", path.display().to_string(), cause)),
        }
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for NetNs {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Runs `work` on a new thread and waits for it.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("in-netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|cause| Error::refused("start", "a thread for a network namespace", cause))?;
        match worker.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
