//! Mounts: tmpfs, bind, overlay, and taking them away again.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::error::{Error, Result};

/// How many mounts may be stacked on one place before [`unmount_if_mounted`] gives up.
const STACK_LIMIT: usize = 64;

/// Mounts an empty file system in memory at `target`. `size` is its limit in bytes; `mode` the permissions of
/// its root directory (`0o755`).
pub fn tmpfs(target: &Path, size: Option<u64>, mode: u32) -> Result<()> {
    let mut options = format!("mode={mode:o}");
    if let Some(bytes) = size {
        options.push_str(&format!(",size={bytes}"));
    }
    let options = c_string("mount tmpfs at", target, options.into_bytes())?;
    rustix::mount::mount(
        c"tmpfs",
        target,
        c"tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        options.as_c_str(),
    )
    .map_err(|errno| Error::refused("mount tmpfs at", shown(target), errno))
}

/// Shows the file or directory `source` at `target` as well, with all mounts below it.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    rustix::mount::mount_bind_recursive(source, target).map_err(|errno| {
        Error::refused(
            "bind",
            format!("{} to {}", source.display(), target.display()),
            errno,
        )
    })
}

/// Like [`bind`], but nothing can be written through `target`. Mounts below `source` stay writable.
pub fn bind_read_only(source: &Path, target: &Path) -> Result<()> {
    bind(source, target)?;
    rustix::mount::mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, c"")
        .map_err(|errno| Error::refused("make read-only", shown(target), errno))
}

/// Mounts an overlay at `target`: the `lower` directories (uppermost first) read-only under the writable `upper`.
/// `upper` and `work` must be on one file system, which must not be an overlay itself.
pub fn overlay(lower: &[&Path], upper: &Path, work: &Path, target: &Path) -> Result<()> {
    let operation = "mount overlay at";
    if lower.is_empty() {
        let reason = "an overlay needs at least one lower directory".to_owned();
        return Err(Error::Invalid {
            operation,
            object: shown(target),
            reason,
        });
    }
    let mut options = b"lowerdir=".to_vec();
    for (position, directory) in lower.iter().enumerate() {
        if position > 0 {
            options.push(b':');
        }
        options.extend(escaped(directory));
    }
    options.extend(b",upperdir=");
    options.extend(escaped(upper));
    options.extend(b",workdir=");
    options.extend(escaped(work));
    let options = c_string(operation, target, options)?;
    rustix::mount::mount(
        c"overlay",
        target,
        c"overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .map_err(|errno| Error::refused(operation, shown(target), errno))
}

/// Makes `target` and everything below keep its mounts to itself: none propagates in or out.
pub fn make_private(target: &Path) -> Result<()> {
    rustix::mount::mount_change(
        target,
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|errno| Error::refused("make private", shown(target), errno))
}

/// Takes away every mount at `target`, now or, where files of it are open still, when they close.
/// Succeeds if there is none, or no such path.
pub fn unmount_if_mounted(target: &Path) -> Result<()> {
    use rustix::io::Errno;
    for _ in 0..STACK_LIMIT {
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // EINVAL: not a mount point. ENOENT: no such path.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(Error::refused("unmount", shown(target), errno)),
        }
    }
    let reason = format!("more than {STACK_LIMIT} mounts are stacked here");
    Err(Error::Invalid {
        operation: "unmount",
        object: shown(target),
        reason,
    })
}

/// One line of `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// The directory of the file system that is shown at `target`.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// The type: `ext4`, `cgroup`, `cgroup2`, `overlay`.
    pub file_system: String,
    /// What is mounted: a device, or a name of no consequence.
    pub source: String,
    /// The options of the file system itself, separated by commas.
    pub super_options: String,
}

/// All mounts that the calling process sees, in the order in which the kernel lists them.
pub fn mounts() -> Result<Vec<MountInfo>> {
    const FILE: &str = "/proc/self/mountinfo";
    // A path may hold any byte, so this is not necessarily UTF-8.
    let text = fs::read(FILE).map_err(|cause| Error::refused("read", FILE, cause))?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect())
}

/// Parses one line; `None` for an empty or cut-off one.
fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = fields.nth(3)?;
    let target = fields.next()?;
    // Any number of optional fields follows, up to a lone hyphen.
    fields.find(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(&unescaped(field)).into_owned();
    Some(MountInfo {
        root: PathBuf::from(std::ffi::OsString::from_vec(unescaped(root))),
        target: PathBuf::from(std::ffi::OsString::from_vec(unescaped(target))),
        file_system: text(fields.next()?),
        source: text(fields.next()?),
        super_options: text(fields.next()?),
    })
}

/// Undoes the octal escapes (`\040`) in which mountinfo writes space, tab, newline and backslash.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    after @ ..,
                ],
            ) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            (byte, after) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    bytes
}

/// A path as an overlay option: colon, comma and backslash are separators there and take a backslash.
fn escaped(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    bytes
}

fn c_string(operation: &'static str, target: &Path, bytes: Vec<u8>) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::Invalid {
        operation,
        object: shown(target),
        reason: "a path holds a NUL byte".to_owned(),
    })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_read() {
        let line = br"36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let info = parse_line(line).unwrap();
        assert_eq!(info.root, Path::new("/mnt1"));
        assert_eq!(info.target, Path::new("/mnt two"));
        assert_eq!(info.file_system, "ext3");
        assert_eq!(info.source, "/dev/root");
        assert_eq!(info.super_options, "rw,errors=continue");
    }

    #[test]
    fn a_cut_off_line_is_no_mount() {
        assert_eq!(parse_line(b""), None);
        assert_eq!(parse_line(b"36 35 98:0 / /proc rw"), None);
    }

    #[test]
    fn separators_in_overlay_paths_are_escaped() {
        assert_eq!(escaped(Path::new("/a:b,c")), br"/a\:b\,c");
    }
}
