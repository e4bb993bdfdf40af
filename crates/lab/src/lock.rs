//! One supervisor for each lab. A POSIX record lock, because the kernel tells who holds it (in the asker's own
//! PID namespace) and gives it up when the holder dies, however it dies.

use std::fs::{File, OpenOptions};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::error::Error;

/// Held until dropped. The file must not be opened and closed elsewhere in this process: POSIX locks go with
/// the first `close` of any descriptor of the file.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

fn request(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes the lock, or says that another holds it.
///
/// # Errors
/// [`Error::File`] when the file cannot be made. `Ok(None)` means that another process holds the lock.
pub fn take(path: &Path) -> Result<Option<Lock>, Error> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::file("create", path))?;
    match fcntl(&file, FcntlArg::F_SETLK(&request(libc::F_WRLCK))) {
        Ok(_) => Ok(Some(Lock { _file: file })),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(errno) => Err(Error::file("lock", path)(errno.into())),
    }
}

/// Who holds the lock, as a process of the caller's PID namespace. `None`: nobody.
pub fn holder(path: &Path) -> Option<i32> {
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    let mut lock = request(libc::F_WRLCK);
    fcntl(&file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    (i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_until_taken_and_after_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(holder(&path), None);
        let lock = take(&path).unwrap();
        assert!(lock.is_some());
        drop(lock);
        assert_eq!(holder(&path), None);
        assert!(take(&path).unwrap().is_some());
    }
}
