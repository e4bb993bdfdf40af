//! Control groups: a directory tree of one's own in every hierarchy of the machine.
//!
//! Machines differ: version 1 has one hierarchy for each controller, version 2 a single one, and *hybrid*
//! machines mount both. A [`Tree`] is the same path in all that are mounted. Control groups do not go away with
//! their processes, so whoever makes a tree has to remove it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::mount::{self, MountInfo};

/// How often removal looks again whether the last processes have gone.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Which of the two interfaces a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One of several hierarchies, each with some controllers (cgroups(7), "version 1").
    One,
    /// The unified hierarchy.
    Two,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its interface.
    pub version: Version,
    /// Version 1: its controllers, or its name as `name=systemd`. Empty for version 2.
    pub controllers: Vec<String>,
}

/// The hierarchies that are mounted, each once.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    Ok(hierarchies_in(&mount::mounts()?))
}

fn hierarchies_in(mounts: &[MountInfo]) -> Vec<Hierarchy> {
    /// Options of a version 1 mount that name no controller.
    const NOT_CONTROLLERS: [&str; 5] = ["rw", "ro", "xattr", "clone_children", "noprefix"];
    let mut found: Vec<Hierarchy> = Vec::new();
    for mount in mounts {
        let hierarchy = match mount.file_system.as_str() {
            "cgroup2" => Hierarchy {
                mount: mount.target.clone(),
                version: Version::Two,
                controllers: Vec::new(),
            },
            "cgroup" => {
                let controllers = mount
                    .super_options
                    .split(',')
                    .filter(|option| {
                        !NOT_CONTROLLERS.contains(option) && !option.starts_with("release_agent=")
                    })
                    .map(str::to_owned)
                    .collect();
                Hierarchy {
                    mount: mount.target.clone(),
                    version: Version::One,
                    controllers,
                }
            }
            _ => continue,
        };
        let same = |known: &Hierarchy| {
            known.version == hierarchy.version && known.controllers == hierarchy.controllers
        };
        if !found.iter().any(same) {
            found.push(hierarchy);
        }
    }
    found
}

/// One path below the root of every hierarchy.
#[derive(Debug, Clone)]
pub struct Tree {
    path: PathBuf,
    hierarchies: Vec<Hierarchy>,
}

impl Tree {
    /// The tree at `path` (`seaway/lab`, relative) in every hierarchy that is mounted. Makes nothing yet.
    pub fn at(path: &str) -> Result<Self> {
        let relative = Path::new(path);
        let plain = |part| matches!(part, Component::Normal(_));
        if path.is_empty() || !relative.components().all(plain) {
            let reason =
                "the path of a control group is relative and names every directory".to_owned();
            return Err(Error::Invalid {
                operation: "use",
                object: format!("control group {path:?}"),
                reason,
            });
        }
        Ok(Self {
            path: relative.to_owned(),
            hierarchies: hierarchies()?,
        })
    }

    /// The tree's path as container runtimes want it: absolute within each hierarchy.
    pub fn absolute(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// The tree's top directory in every hierarchy.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.hierarchies
            .iter()
            .map(|hierarchy| hierarchy.mount.join(&self.path))
            .collect()
    }

    /// Makes the tree's top directory in every hierarchy.
    pub fn create(&self) -> Result<()> {
        for directory in self.directories() {
            fs::create_dir_all(&directory).map_err(|cause| {
                Error::refused(
                    "create control group",
                    directory.display().to_string(),
                    cause,
                )
            })?;
        }
        Ok(())
    }

    /// Whether any of it is there.
    pub fn exists(&self) -> bool {
        self.directories()
            .iter()
            .any(|directory| directory.exists())
    }

    /// The processes anywhere in the tree, as the caller's PID namespace numbers them.
    pub fn processes(&self) -> Result<BTreeSet<u32>> {
        let mut processes = BTreeSet::new();
        for top in self.directories() {
            for directory in directories_below(&top)? {
                let file = directory.join("cgroup.procs");
                let text = match fs::read_to_string(&file) {
                    Ok(text) => text,
                    // It went away in between, or it is a threaded control group, whose processes its parent lists.
                    Err(cause)
                        if is_gone(&cause)
                            || cause.raw_os_error() == Some(nix::libc::EOPNOTSUPP) =>
                    {
                        continue;
                    }
                    Err(cause) => {
                        return Err(Error::refused("read", file.display().to_string(), cause));
                    }
                };
                // A process outside of the caller's PID namespace is listed as 0.
                processes.extend(
                    text.lines()
                        .filter_map(|line| line.parse::<u32>().ok())
                        .filter(|pid| *pid != 0),
                );
            }
        }
        Ok(processes)
    }

    /// Removes the tree with all control groups in it from every hierarchy, and its parent directories where
    /// they are empty then. Waits at most `limit` for processes that are ending. Reports every failure, after
    /// removing what it could.
    pub fn remove(&self, limit: Duration) -> Result<(), Vec<Error>> {
        let end = Instant::now() + limit;
        let mut errors = Vec::new();
        for hierarchy in &self.hierarchies {
            let top = hierarchy.mount.join(&self.path);
            match remove_below(&top, end) {
                Ok(()) => remove_empty_parents(&top, &hierarchy.mount),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }
}

/// A directory and all below it, every directory after those inside it. Empty if there is none.
fn directories_below(top: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut next = vec![top.to_owned()];
    while let Some(directory) = next.pop() {
        let refused =
            |cause| Error::refused("list control group", directory.display().to_string(), cause);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(cause) if is_gone(&cause) => continue,
            Err(cause) => return Err(refused(cause)),
        };
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.file_type()?, entry.path()))) {
                Ok((kind, path)) if kind.is_dir() => next.push(path),
                Ok(_) => {}
                Err(cause) if is_gone(&cause) => {}
                Err(cause) => return Err(refused(cause)),
            }
        }
        found.push(directory);
    }
    // Parents were found before their children.
    found.reverse();
    Ok(found)
}

fn remove_below(top: &Path, end: Instant) -> Result<()> {
    loop {
        let mut busy = None;
        for directory in directories_below(top)? {
            match fs::remove_dir(&directory) {
                Ok(()) => {}
                Err(cause) if is_gone(&cause) => {}
                Err(cause) => {
                    let error = Error::refused(
                        "remove control group",
                        directory.display().to_string(),
                        cause,
                    );
                    if error.errno() != Some(nix::libc::EBUSY) {
                        return Err(error);
                    }
                    busy.get_or_insert(error);
                }
            }
        }
        match busy {
            None => return Ok(()),
            Some(error) if Instant::now() >= end => return Err(error),
            Some(_) => thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Parents are shared with other trees: they stay as long as anything is in them, and that is no failure.
fn remove_empty_parents(top: &Path, mount: &Path) {
    let mut directory = top.parent();
    while let Some(parent) =
        directory.filter(|parent| *parent != mount && parent.starts_with(mount))
    {
        if fs::remove_dir(parent).is_err() {
            return;
        }
        directory = parent.parent();
    }
}

/// A control group that is removed while it is read answers `ENODEV` instead of `ENOENT`.
fn is_gone(cause: &io::Error) -> bool {
    matches!(
        cause.raw_os_error(),
        Some(nix::libc::ENOENT | nix::libc::ENODEV)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(target: &str, file_system: &str, options: &str) -> MountInfo {
        MountInfo {
            root: "/".into(),
            target: target.into(),
            file_system: file_system.to_owned(),
            source: file_system.to_owned(),
            super_options: options.to_owned(),
        }
    }

    #[test]
    fn a_hybrid_machine_has_all_of_its_hierarchies_once() {
        let mounts = [
            mount("/", "ext4", "rw"),
            mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
            mount("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
            mount(
                "/sys/fs/cgroup/systemd",
                "cgroup",
                "rw,xattr,release_agent=/lib/agent,name=systemd",
            ),
            mount("/sys/fs/cgroup/unified", "cgroup2", "rw"),
            mount("/container/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
        ];
        let found = hierarchies_in(&mounts);
        let summary: Vec<_> = found
            .iter()
            .map(|h| {
                (
                    h.mount.to_str().unwrap(),
                    h.version,
                    h.controllers.join(" "),
                )
            })
            .collect();
        assert_eq!(
            summary,
            [
                ("/sys/fs/cgroup/memory", Version::One, "memory".to_owned()),
                (
                    "/sys/fs/cgroup/cpu,cpuacct",
                    Version::One,
                    "cpu cpuacct".to_owned()
                ),
                (
                    "/sys/fs/cgroup/systemd",
                    Version::One,
                    "name=systemd".to_owned()
                ),
                ("/sys/fs/cgroup/unified", Version::Two, String::new()),
            ]
        );
    }

    #[test]
    fn a_path_that_leaves_the_hierarchy_is_rejected() {
        for path in ["", "/", "/seaway", "../seaway", "seaway/../..", "./seaway"] {
            assert!(Tree::at(path).is_err(), "{path:?} was accepted");
        }
    }
}
