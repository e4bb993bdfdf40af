//! Unpacks a layer: a tar archive by a stranger, into a directory that it must not get out of.
//!
//! Every path goes through [`Root`], where links lead nowhere but inside, and a path with `..` is refused. Files that
//! the layer takes away (`.wh.<name>`, `.wh..wh..opq`; OCI image-spec, layer.md) become what overlayfs understands: a
//! character device 0:0, and an attribute of the directory. Device files of the image are left out: a container gets
//! its own `/dev`, and a device 0:0 would be a whiteout.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

use crate::rooted::Root;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("cannot read the archive: {0}")]
    Read(io::Error),
    #[error("entry {0:?} leads out of the image")]
    Escape(String),
    #[error("entry {path:?}: {source}")]
    Write { path: String, source: io::Error },
    #[error("the archive is larger than {0} bytes unpacked")]
    TooLarge(u64),
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// `sha256:…` of the uncompressed archive.
    pub(super) diff_id: String,
    /// Bytes of its files.
    pub(super) size: u64,
}

/// No image of use is larger; a few kilobytes of a hostile one could be.
const MAX_SIZE: u64 = 256 << 30;

/// Opens a stream that may be compressed with gzip or zstd.
pub(super) fn decompress<'a>(mut stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::with_capacity(4);
    stream.by_ref().take(4).read_to_end(&mut magic)?;
    let whole = io::Cursor::new(magic.clone()).chain(stream);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

/// Unpacks a layer into an empty directory. Blocks.
pub(super) fn unpack(stream: impl Read, dir: &Path) -> Result<Unpacked, UnpackError> {
    unpack_limited(stream, dir, MAX_SIZE)
}

fn unpack_limited(stream: impl Read, dir: &Path, limit: u64) -> Result<Unpacked, UnpackError> {
    let stream = decompress(stream).map_err(UnpackError::Read)?;
    let mut hashing = Hashing {
        inner: stream,
        hash: Sha256::new(),
    };
    let mut layer = Layer {
        root: Root::open(dir).map_err(UnpackError::Read)?,
        directories: Vec::new(),
        size: 0,
        limit,
    };
    let mut archive = Archive::new(&mut hashing);
    for entry in archive.entries().map_err(UnpackError::Read)? {
        layer.add(entry.map_err(UnpackError::Read)?)?;
    }
    layer.finish()?;
    let size = layer.size;
    // The digest is of the whole stream, with what follows the last entry.
    io::copy(&mut hashing, &mut io::sink()).map_err(UnpackError::Read)?;
    let diff_id = format!("sha256:{}", hex::encode(hashing.hash.finalize()));
    Ok(Unpacked { diff_id, size })
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

struct Layer {
    root: Root,
    /// Directories with what they get when nothing is written into them any more.
    directories: Vec<(PathBuf, Attributes)>,
    size: u64,
    limit: u64,
}

/// Owner, permission bits, time and extended attributes of an entry.
#[derive(Debug, Clone)]
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: i64,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    fn of<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Self> {
        let xattrs = xattrs(entry)?;
        let header = entry.header();
        let old = header.as_old();
        let id = |number: u64| u32::try_from(number).map_err(|_| io::Error::other("id too large"));
        Ok(Self {
            uid: id(or_blank(header.uid(), &old.uid)?)?,
            gid: id(or_blank(header.gid(), &old.gid)?)?,
            mode: or_blank(header.mode(), &old.mode)? & 0o7777,
            mtime: i64::try_from(or_blank(header.mtime(), &old.mtime)?).unwrap_or(0),
            xattrs,
        })
    }

    /// Changing the owner clears the set-user-id bit, so the mode comes after it.
    fn apply(&self, fd: &OwnedFd) -> io::Result<()> {
        rustix::fs::fchown(
            fd,
            Some(Uid::from_raw(self.uid)),
            Some(Gid::from_raw(self.gid)),
        )?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(self.mode))?;
        for (name, value) in &self.xattrs {
            match rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
                // Best effort: the store's file system may know no such attributes.
                Ok(()) | Err(Errno::NOTSUP | Errno::PERM | Errno::NOSPC) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        rustix::fs::futimens(fd, &self.times())?;
        Ok(())
    }

    fn times(&self) -> Timestamps {
        Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: self.mtime,
                tv_nsec: 0,
            },
        }
    }
}

/// A number of a header; a blank field is 0, as Go's `archive/tar` reads it.
fn or_blank<T: Default>(number: io::Result<T>, field: &[u8]) -> io::Result<T> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        Ok(T::default())
    } else {
        number
    }
}

/// Extended attributes that an image may set: file capabilities and what users may anyway. `trusted.overlay.*` would
/// redirect lookups of the overlay.
fn xattrs<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(found);
    };
    for extension in extensions {
        let extension = extension?;
        let Ok(key) = extension.key() else { continue };
        if let Some(name) = key.strip_prefix("SCHILY.xattr.")
            && (name == "security.capability" || name.starts_with("user."))
        {
            found.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

impl Layer {
    fn add<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), UnpackError> {
        let raw = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&raw).into_owned();
        let path = clean(&raw).ok_or_else(|| UnpackError::Escape(shown.clone()))?;
        let size = entry.size();
        self.size = self.size.saturating_add(size);
        if self.size > self.limit {
            return Err(UnpackError::TooLarge(self.limit));
        }
        match self.write(&mut entry, &path) {
            Ok(()) => Ok(()),
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<Escaping>()) => {
                Err(UnpackError::Escape(shown))
            }
            Err(source) => Err(UnpackError::Write {
                path: shown,
                source,
            }),
        }
    }

    fn write<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let kind = entry.header().entry_type();
        let attributes = Attributes::of(entry)?;
        let Some(name) = path.file_name() else {
            // The root directory itself.
            self.directories.push((PathBuf::new(), attributes));
            return Ok(());
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = self
            .root
            .create_dir_all(parent, Mode::from_raw_mode(0o755))?;
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return whiteout(&self.root, &dir, parent, OsStr::from_bytes(hidden));
        }
        match kind {
            EntryType::Directory => {
                match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) => {}
                    Err(Errno::EXIST) if is_directory(&dir, name)? => {}
                    Err(Errno::EXIST) => {
                        clear(&dir, name)?;
                        rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755))?;
                    }
                    Err(errno) => return Err(errno.into()),
                }
                self.directories.push((path.to_owned(), attributes));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                clear(&dir, name)?;
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o600))?;
                let mut file = fs::File::from(fd);
                io::copy(entry, &mut file)?;
                attributes.apply(&file.into())?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or(Errno::INVAL)?;
                clear(&dir, name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &dir, name)?;
                attributes.apply_to_link(&dir, name)?;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or(Errno::INVAL)?;
                let target = clean(&target).ok_or_else(|| io::Error::other(Escaping))?;
                let (target_dir, target_name) = self
                    .root
                    .parent(&target)?
                    .ok_or_else(|| io::Error::other(Escaping))?;
                clear(&dir, name)?;
                // Without AT_SYMLINK_FOLLOW: a link to a link is a link to that link.
                rustix::fs::linkat(&target_dir, target_name, &dir, name, AtFlags::empty())?;
            }
            EntryType::Fifo => {
                clear(&dir, name)?;
                let mode = Mode::from_raw_mode(attributes.mode);
                rustix::fs::mknodat(&dir, name, FileType::Fifo, mode, 0)?;
                attributes.apply_to_link(&dir, name)?;
            }
            // Devices: see the module. The rest are headers without a file.
            _ => {}
        }
        Ok(())
    }

    /// Directories get their attributes last: writing into them changes their time, and may need permissions that
    /// the image does not give.
    fn finish(&mut self) -> Result<(), UnpackError> {
        for (path, attributes) in std::mem::take(&mut self.directories) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            match self.root.open_file(&path, flags, Mode::empty()) {
                Ok(fd) => attributes.apply(&fd),
                // A later entry has replaced it.
                Err(error) if error.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) => Ok(()),
                Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
            .map_err(|source| UnpackError::Write {
                path: path.display().to_string(),
                source,
            })?;
        }
        Ok(())
    }
}

impl Attributes {
    fn apply_to_link(&self, dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::utimensat(dir, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

/// Marks an error as an attempt to get out.
#[derive(Debug, thiserror::Error)]
#[error("the link leads out of the image")]
struct Escaping;

/// A path without leading `/` and `.`; `None` when it has `..`, which no honest layer needs.
fn clean(raw: &[u8]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(raw)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

fn is_directory(dir: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Makes room: a later entry of a layer replaces an earlier one.
fn clear(dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {
            // Through the descriptor, so that nothing between us and it can be a link.
            let path = Path::new("/proc/self/fd").join(dir.as_fd().as_raw_fd().to_string());
            fs::remove_dir_all(path.join(name))
        }
        Err(errno) => Err(errno.into()),
    }
}

fn whiteout(root: &Root, dir: &OwnedFd, parent: &Path, hidden: &OsStr) -> io::Result<()> {
    if hidden == ".wh..opq" {
        // The path was walked just now; this one may be written to.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = root.open_file(parent, flags, Mode::empty())?;
        rustix::fs::fsetxattr(fd, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
        return Ok(());
    }
    // Aufs keeps house with other such names; a whiteout of nothing or of a directory itself is nonsense.
    if hidden.is_empty()
        || hidden == "."
        || hidden == ".."
        || hidden.as_bytes().starts_with(b".wh.")
    {
        return Ok(());
    }
    clear(dir, hidden)?;
    rustix::fs::mknodat(dir, hidden, FileType::CharacterDevice, Mode::empty(), 0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

    use tar::{Builder, Header};

    use super::*;

    /// An archive whose names are taken as they are: `tar` itself refuses to write hostile ones.
    #[derive(Default)]
    struct Tar(Vec<u8>);

    impl Tar {
        fn entry(
            mut self,
            kind: EntryType,
            name: &str,
            link: &str,
            data: &[u8],
            mode: u32,
        ) -> Self {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(data.len() as u64);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1_000_000);
            let gnu = header.as_gnu_mut().unwrap();
            gnu.name[..name.len()].copy_from_slice(name.as_bytes());
            gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            self.0.extend_from_slice(header.as_bytes());
            self.0.extend_from_slice(data);
            self.0
                .extend(vec![0; data.len().next_multiple_of(512) - data.len()]);
            self
        }

        fn file(self, name: &str, data: &str) -> Self {
            self.entry(EntryType::Regular, name, "", data.as_bytes(), 0o644)
        }

        fn dir(self, name: &str) -> Self {
            self.entry(EntryType::Directory, name, "", b"", 0o755)
        }

        fn symlink(self, name: &str, target: &str) -> Self {
            self.entry(EntryType::Symlink, name, target, b"", 0o777)
        }

        fn link(self, name: &str, target: &str) -> Self {
            self.entry(EntryType::Link, name, target, b"", 0o644)
        }

        fn end(mut self) -> Vec<u8> {
            self.0.extend(vec![0; 1024]);
            self.0
        }
    }

    /// A directory to unpack into, beside one that nothing may be written to.
    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("root")).unwrap();
            fs::create_dir(dir.path().join("outside")).unwrap();
            fs::write(dir.path().join("outside/victim"), "untouched").unwrap();
            Self { dir }
        }

        fn path(&self, below: &str) -> PathBuf {
            self.dir.path().join("root").join(below)
        }

        fn outside(&self) -> PathBuf {
            self.dir.path().join("outside")
        }

        fn unpack(&self, tar: Tar) -> Result<Unpacked, UnpackError> {
            unpack(&*tar.end(), &self.path(""))
        }

        fn assert_nothing_got_out(&self) {
            let names: Vec<_> = fs::read_dir(self.outside())
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            assert_eq!(names, ["victim"]);
            assert_eq!(
                fs::read_to_string(self.outside().join("victim")).unwrap(),
                "untouched"
            );
            assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
            assert_eq!(
                fs::metadata(self.outside().join("victim")).unwrap().nlink(),
                1
            );
        }
    }

    #[test]
    fn files_come_with_their_attributes() {
        let place = Place::new();
        let tar = Tar::default()
            .dir("usr")
            .entry(EntryType::Regular, "usr/su", "", b"x", 0o4755)
            .link("usr/hard", "usr/su")
            .symlink("usr/soft", "/usr/su")
            .entry(EntryType::Fifo, "pipe", "", b"", 0o600)
            .file("/absolute/path", "there");
        let bytes = tar.0.len() + 1024;
        let unpacked = place.unpack(tar).unwrap();
        assert_eq!(unpacked.size, 6);
        assert!(bytes > 0);
        let su = fs::metadata(place.path("usr/su")).unwrap();
        assert_eq!(
            (su.permissions().mode() & 0o7777, su.mtime(), su.nlink()),
            (0o4755, 1_000_000, 2)
        );
        assert_eq!(fs::metadata(place.path("usr")).unwrap().mtime(), 1_000_000);
        assert_eq!(
            fs::read_link(place.path("usr/soft")).unwrap(),
            Path::new("/usr/su")
        );
        assert!(
            fs::metadata(place.path("pipe"))
                .unwrap()
                .file_type()
                .is_fifo()
        );
        assert_eq!(
            fs::read_to_string(place.path("absolute/path")).unwrap(),
            "there"
        );
    }

    #[test]
    fn the_diff_id_is_of_the_uncompressed_stream_whatever_the_compression() {
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(5);
        builder
            .append_data(&mut header, "hello", &b"world"[..])
            .unwrap();
        let plain = builder.into_inner().unwrap();
        let expected = format!("sha256:{}", hex::encode(Sha256::digest(&plain)));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&*plain, 1).unwrap();
        for stream in [plain, gzip, zstd] {
            let place = Place::new();
            assert_eq!(unpack(&*stream, &place.path("")).unwrap().diff_id, expected);
            assert_eq!(fs::read_to_string(place.path("hello")).unwrap(), "world");
        }
    }

    #[test]
    fn whiteouts_become_what_overlayfs_understands() {
        let place = Place::new();
        let tar = Tar::default()
            .dir("etc")
            .file("etc/.wh.passwd", "")
            .dir("var")
            .file("var/.wh..wh..opq", "")
            .file("var/.wh..wh.plnk", "");
        place.unpack(tar).unwrap();
        let gone = fs::symlink_metadata(place.path("etc/passwd")).unwrap();
        assert!(gone.file_type().is_char_device());
        assert_eq!(gone.rdev(), 0);
        let mut value = [0u8; 8];
        let length =
            rustix::fs::getxattr(place.path("var"), "trusted.overlay.opaque", &mut value).unwrap();
        assert_eq!(&value[..length], b"y");
        assert_eq!(fs::read_dir(place.path("var")).unwrap().count(), 0);
    }

    #[test]
    fn a_path_with_dots_is_refused() {
        for name in ["../outside/new", "a/../../outside/new", "/../outside/new"] {
            let place = Place::new();
            let error = place
                .unpack(Tar::default().dir("a").file(name, "evil"))
                .unwrap_err();
            assert!(matches!(error, UnpackError::Escape(_)), "{name}: {error}");
            place.assert_nothing_got_out();
        }
    }

    #[test]
    fn a_link_to_the_outside_is_not_walked() {
        for (target, below) in [("absolute", ""), ("../outside", ""), ("..", "outside/")] {
            let place = Place::new();
            let target = match target {
                "absolute" => place.outside().display().to_string(),
                other => other.to_owned(),
            };
            let tar = Tar::default()
                .symlink("way", &target)
                .file(&format!("way/{below}new"), "evil")
                .file(&format!("way/{below}victim"), "evil");
            // Refused or landed inside; either will do.
            let _ = place.unpack(tar);
            place.assert_nothing_got_out();
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_replaced_and_not_written_through() {
        let place = Place::new();
        let victim = place.outside().join("victim").display().to_string();
        place
            .unpack(Tar::default().symlink("file", &victim).file("file", "new"))
            .unwrap();
        assert_eq!(fs::read_to_string(place.path("file")).unwrap(), "new");
        place.assert_nothing_got_out();
    }

    #[test]
    fn a_hard_link_to_the_outside_is_refused() {
        let place = Place::new();
        let victim = place.outside().join("victim").display().to_string();
        for target in ["../outside/victim", victim.as_str()] {
            assert!(
                place.unpack(Tar::default().link("mine", target)).is_err(),
                "{target}"
            );
        }
        // Through a link that the same layer brings.
        let outside = place.outside().display().to_string();
        let tar = Tar::default()
            .symlink("way", &outside)
            .link("mine", "way/victim");
        assert!(place.unpack(tar).is_err());
        // To a link: the link itself gets a second name, and what is written replaces that.
        let tar = Tar::default()
            .symlink("l", &victim)
            .link("m", "l")
            .file("m", "new");
        place.unpack(tar).unwrap();
        place.assert_nothing_got_out();
    }

    #[test]
    fn a_directory_that_became_a_link_does_not_pass_its_attributes_on() {
        let place = Place::new();
        let outside = place.outside();
        let before = fs::metadata(&outside).unwrap();
        let tar = Tar::default()
            .entry(EntryType::Directory, "d", "", b"", 0o000)
            .symlink("d", &outside.display().to_string());
        place.unpack(tar).unwrap();
        let after = fs::metadata(&outside).unwrap();
        assert_eq!(
            (before.mode(), before.mtime()),
            (after.mode(), after.mtime())
        );
        place.assert_nothing_got_out();
    }

    #[test]
    fn whiteouts_reach_only_inside() {
        let place = Place::new();
        let outside = place.outside().display().to_string();
        let tar = Tar::default()
            .symlink("way", &outside)
            .file("way/.wh.victim", "");
        let _ = place.unpack(tar);
        place.assert_nothing_got_out();
        for name in [".wh.", ".wh..", ".wh..."] {
            place
                .unpack(Tar::default().dir("x").file(&format!("x/{name}"), ""))
                .unwrap();
        }
        place.assert_nothing_got_out();
    }

    #[test]
    fn a_non_empty_directory_is_replaced_by_a_file() {
        let place = Place::new();
        symlink(place.outside(), place.path("out")).unwrap();
        let tar = Tar::default()
            .dir("d")
            .file("d/a", "x")
            .symlink("d/l", "/")
            .file("d", "now a file");
        place.unpack(tar).unwrap();
        assert_eq!(fs::read_to_string(place.path("d")).unwrap(), "now a file");
        place.assert_nothing_got_out();
    }

    #[test]
    fn devices_are_left_out() {
        let place = Place::new();
        let tar = Tar::default()
            .entry(EntryType::Char, "dev/null", "", b"", 0o666)
            .entry(EntryType::Block, "dev/sda", "", b"", 0o660);
        place.unpack(tar).unwrap();
        assert_eq!(fs::read_dir(place.path("dev")).unwrap().count(), 0);
    }

    #[test]
    fn attributes_of_overlayfs_itself_are_not_taken_over() {
        let place = Place::new();
        let mut builder = Builder::new(Vec::new());
        let attributes = [
            ("SCHILY.xattr.trusted.overlay.redirect", &b"/"[..]),
            ("SCHILY.xattr.user.note", &b"kept"[..]),
        ];
        builder.append_pax_extensions(attributes).unwrap();
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        builder.append_data(&mut header, "file", &b"x"[..]).unwrap();
        unpack(&*builder.into_inner().unwrap(), &place.path("")).unwrap();
        let mut value = [0u8; 16];
        let get = |name: &str, value: &mut [u8; 16]| {
            rustix::fs::getxattr(place.path("file"), name, value)
        };
        assert!(get("trusted.overlay.redirect", &mut value).is_err());
        assert_eq!(get("user.note", &mut value), Ok(4));
    }

    #[test]
    fn an_archive_that_grows_without_end_is_stopped() {
        let place = Place::new();
        let tar = Tar::default()
            .file("a", &"x".repeat(600))
            .file("b", &"x".repeat(600))
            .end();
        let error = unpack_limited(&*tar, &place.path(""), 1000).unwrap_err();
        assert!(matches!(error, UnpackError::TooLarge(1000)));
    }

    #[test]
    fn a_cut_off_archive_is_an_error() {
        let place = Place::new();
        let tar = Tar::default().file("a", &"x".repeat(600)).end();
        assert!(unpack(&tar[..700], &place.path("")).is_err());
    }
}
