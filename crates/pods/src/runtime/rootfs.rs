//! Mounts a container's root file system: an overlay whose writable layer is in memory.
//!
//! It happens in a mount namespace of the shim's own. So nobody else sees these mounts, and the kernel takes them
//! away with the last process of the container, however the shim ends. The writable layer is a tmpfs of its own
//! since overlayfs refuses an upper directory that lies below the lower one on the same file system (ELOOP), which
//! for the machine's own root it nearly always would.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::images::{Rootfs, hold_layer};

/// What could not be mounted.
#[derive(Debug, thiserror::Error)]
pub(super) enum RootfsError {
    #[error("cannot {what}: {source}")]
    Mount { what: String, source: io::Error },
    #[error("the image has no files")]
    NoLayers,
    #[error("the image has {0} layers, too many to mount at once")]
    TooManyLayers(usize),
}

/// mount(2) takes one page of options.
const MAX_OPTIONS: usize = 4095;

/// A mounted root file system, whose layers stay in the image store while this lives.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) path: PathBuf,
    _layers: Vec<OwnedFd>,
}

/// Mounts the root file system at `<dir>/rootfs`. Must be called by a process with one thread, once.
pub(super) fn mount(dir: &Path, rootfs: &Rootfs) -> Result<Mounted, RootfsError> {
    fn failed<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> RootfsError {
        let what = what.into();
        move |error| RootfsError::Mount {
            what,
            source: error.into(),
        }
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace"))?;
    // What others unmount goes from here as well; what is mounted here stays here.
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(failed("keep mounts to ourselves"))?;

    let writable = dir.join("writable");
    rustix::mount::mount("tmpfs", &writable, "tmpfs", MountFlags::NODEV, c"mode=755")
        .map_err(failed("mount the writable layer"))?;
    let (upper, work) = (writable.join("upper"), writable.join("work"));
    for path in [&upper, &work] {
        rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755))
            .map_err(failed(format!("create {}", path.display())))?;
    }

    // Layers are named relative to their directory: an image may have a hundred, and options are short.
    let mut held = Vec::new();
    let (base, lower) = match rootfs {
        Rootfs::Host => (PathBuf::from("/"), vec![".".to_owned()]),
        Rootfs::Layers(layers) => {
            let layers = without_repeats(layers);
            if layers.is_empty() {
                return Err(RootfsError::NoLayers);
            }
            for layer in &layers {
                held.push(hold_layer(layer).map_err(failed(format!("use {}", layer.display())))?);
            }
            relative_layers(&layers)
        }
    };
    let count = lower.len();
    // The first is the uppermost.
    let lower: Vec<String> = lower.iter().rev().map(|path| escape(path)).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        escape(&upper.to_string_lossy()),
        escape(&work.to_string_lossy())
    );
    if options.len() > MAX_OPTIONS {
        return Err(RootfsError::TooManyLayers(count));
    }
    let target = dir.join("rootfs");
    let here = std::env::current_dir().map_err(failed("find the current directory"))?;
    std::env::set_current_dir(&base).map_err(failed(format!("enter {}", base.display())))?;
    let options = std::ffi::CString::new(options)
        .map_err(|error| failed("mount the root file system")(io::Error::other(error)))?;
    let mounted = rustix::mount::mount(
        "overlay",
        &target,
        "overlay",
        MountFlags::empty(),
        &*options,
    );
    std::env::set_current_dir(&here).map_err(failed(format!("enter {}", here.display())))?;
    mounted.map_err(failed("mount the root file system (overlayfs)"))?;
    Ok(Mounted {
        path: target,
        _layers: held,
    })
}

/// Layers without those that come again further up: overlayfs refuses a directory that is there twice, and what the
/// upper one says holds.
fn without_repeats(layers: &[PathBuf]) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::with_capacity(layers.len());
    for layer in layers.iter().rev() {
        if !kept.contains(layer) {
            kept.push(layer.clone());
        }
    }
    kept.reverse();
    kept
}

/// Directory that all layers lie in, and their names in it; `/` and whole paths when they do not.
fn relative_layers(layers: &[PathBuf]) -> (PathBuf, Vec<String>) {
    let base = layers
        .first()
        .and_then(|path| path.parent())
        .unwrap_or(Path::new("/"));
    let names: Option<Vec<String>> = layers
        .iter()
        .map(|path| {
            path.strip_prefix(base)
                .ok()
                .map(|name| name.to_string_lossy().into_owned())
        })
        .collect();
    match names {
        Some(names) => (base.to_owned(), names),
        None => (
            PathBuf::from("/"),
            layers
                .iter()
                .map(|path| path.to_string_lossy().into_owned())
                .collect(),
        ),
    }
}

/// Separators in a path of a mount option.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '\\' | ':' | ',') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_named_short() {
        let layers = ["/data/images/layers/a", "/data/images/layers/b"].map(PathBuf::from);
        assert_eq!(
            relative_layers(&layers),
            (
                "/data/images/layers".into(),
                vec!["a".to_owned(), "b".to_owned()]
            )
        );
        let scattered = ["/x/a", "/y/b"].map(PathBuf::from);
        assert_eq!(relative_layers(&scattered).0, Path::new("/"));
    }

    #[test]
    fn of_a_layer_that_comes_twice_the_upper_one_counts() {
        let layers = ["/l/a", "/l/b", "/l/a", "/l/c"].map(PathBuf::from);
        let kept = ["/l/b", "/l/a", "/l/c"].map(PathBuf::from);
        assert_eq!(without_repeats(&layers), kept);
    }

    #[test]
    fn separators_in_paths_are_escaped() {
        assert_eq!(escape("/a:b,c\\d"), "/a\\:b\\,c\\\\d");
    }
}
