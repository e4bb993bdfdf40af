//! Paths below a directory that cannot lead out of it, whatever symbolic links it holds.
//!
//! An image's files are written by strangers: `/etc/passwd` in it may be a link to the machine's. Every path of an
//! image goes through openat2(2) with `RESOLVE_IN_ROOT`, where the kernel takes the directory for `/`.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// A directory taken for `/`.
#[derive(Debug)]
pub(crate) struct Root {
    dir: OwnedFd,
}

impl Root {
    /// Opens the directory.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self {
            dir: rustix::fs::openat(CWD, path, flags, Mode::empty())?,
        })
    }

    /// Opens a file below; links are followed inside.
    pub(crate) fn open_file(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: somebody renames directories meanwhile and the kernel cannot tell whether the walk escaped.
        for _ in 0..16 {
            let relative = relative(path);
            match rustix::fs::openat2(&self.dir, &relative, flags | OFlags::CLOEXEC, mode, resolve)
            {
                Err(Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// What is at a path after following links inside.
    pub(crate) fn metadata(&self, path: &Path) -> io::Result<Stat> {
        let fd = self.open_file(path, OFlags::PATH, Mode::empty())?;
        Ok(rustix::fs::fstat(fd)?)
    }

    /// At most `limit` bytes of a regular file.
    pub(crate) fn read_to_string(&self, path: &Path, limit: u64) -> io::Result<String> {
        // NONBLOCK: a FIFO in the place of the file must not hold us up.
        let fd = self.open_file(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a regular file",
            ));
        }
        let mut text = String::new();
        std::fs::File::from(fd)
            .take(limit)
            .read_to_string(&mut text)?;
        Ok(text)
    }

    /// Opens a directory below, made with all its parents when missing.
    pub(crate) fn create_dir_all(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        match self.open_file(path, directory, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut at = PathBuf::new();
        let mut fd = self.open_file(Path::new("/"), directory, Mode::empty())?;
        for component in relative(path).components() {
            let Component::Normal(name) = component else {
                continue;
            };
            match rustix::fs::mkdirat(&fd, name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            at.push(name);
            fd = self.open_file(&at, directory, Mode::empty())?;
        }
        Ok(fd)
    }

    /// The directory that a path lies in (links followed inside) and the last component (not followed), for the
    /// `*at` calls. `None` for the root itself and for paths that end in `..`.
    pub(crate) fn parent<'a>(
        &self,
        path: &'a Path,
    ) -> io::Result<Option<(OwnedFd, &'a std::ffi::OsStr)>> {
        let Some(name) = path.file_name() else {
            return Ok(None);
        };
        let parent = path.parent().unwrap_or(Path::new("/"));
        let fd = self.open_file(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Some((fd, name)))
    }
}

/// openat2 takes a leading `/` for the root as well, but an empty path for an error.
fn relative(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        path.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "outside").unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "inside").unwrap();
        symlink(outside.path().join("secret"), dir.path().join("absolute")).unwrap();
        symlink("../../../../../secret", dir.path().join("upwards")).unwrap();
        symlink("/", dir.path().join("slash")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(root.read_to_string(Path::new("/absolute"), 100).is_err());
        assert_eq!(
            root.read_to_string(Path::new("upwards"), 100).unwrap(),
            "inside"
        );
        assert_eq!(
            root.read_to_string(Path::new("slash/secret"), 100).unwrap(),
            "inside"
        );
        assert_eq!(
            root.read_to_string(Path::new("../../secret"), 100).unwrap(),
            "inside"
        );
    }

    #[test]
    fn directories_are_made_through_links_inside() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("/real", dir.path().join("link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        root.create_dir_all(Path::new("/link/a/b"), Mode::from_raw_mode(0o755))
            .unwrap();
        assert!(dir.path().join("real/a/b").is_dir());
        // The link's target does not exist inside, and nothing may appear outside.
        assert!(
            root.create_dir_all(Path::new("/out/x"), Mode::from_raw_mode(0o755))
                .is_err()
        );
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_fifo_in_the_place_of_a_file_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("passwd");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(root.read_to_string(Path::new("/passwd"), 100).is_err());
    }
}
