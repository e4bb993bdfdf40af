//! What libcontainer leaves to us of cgroups: the out-of-memory counter, ending everything, removal.
//!
//! libcontainer creates a container's cgroup in every v1 hierarchy, or in the unified one where there is no other. We
//! look into all that are mounted and so need not tell the machine's set-ups apart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use seaway_kernel::cgroup::Tree;

use super::RuntimeError;

fn tree(cgroup: &str) -> Result<Tree, RuntimeError> {
    Ok(Tree::at(cgroup.trim_start_matches('/'))?)
}

/// Whether the kernel ended a process of this cgroup for its memory.
pub(super) fn oom_killed(cgroup: &str) -> Result<bool, RuntimeError> {
    for dir in tree(cgroup)?.directories() {
        // v1 and v2 keep the same counter, `oom_kill <n>`, in different files.
        for name in ["memory.oom_control", "memory.events"] {
            if let Ok(text) = fs::read_to_string(dir.join(name))
                && oom_kills(&text) > 0
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn oom_kills(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Ends every process in a cgroup and below it. Not there is not an error.
pub(super) fn kill(cgroup: &str) -> Result<(), RuntimeError> {
    for pid in tree(cgroup)?.processes()? {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended meanwhile.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

/// Removes a cgroup with everything below it from all hierarchies, waiting a little for processes that are about
/// to be gone. Blocks. Not there is not an error.
///
/// Unlike [`Tree::remove`] it leaves the directories above alone: another container may be about to make its own in
/// them.
pub fn remove_cgroup(cgroup: &str) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut first = None;
    // All hierarchies are tried even when one fails.
    for dir in tree(cgroup)?.directories() {
        if let Err(error) = remove_below(&dir, deadline) {
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(()), Err)
}

fn remove_below(dir: &Path, deadline: Instant) -> Result<(), RuntimeError> {
    for child in children(dir)? {
        remove_below(&child, deadline)?;
    }
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A process that was killed leaves its cgroup a moment after its death is seen.
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            Err(source) => {
                return Err(RuntimeError::Cgroup {
                    operation: "remove",
                    path: dir.to_owned(),
                    source,
                });
            }
        }
    }
}

fn children(dir: &Path) -> Result<Vec<PathBuf>, RuntimeError> {
    let list = |source| RuntimeError::Cgroup {
        operation: "list",
        path: dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(list(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(list)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_reads_the_same_in_both_versions() {
        assert_eq!(
            oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            2
        );
        assert_eq!(
            oom_kills("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n"),
            1
        );
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\n"), 0);
    }

    #[test]
    fn the_root_of_a_hierarchy_is_never_a_container() {
        for path in ["", "/", "//", "/a/../..", "/.."] {
            assert!(remove_cgroup(path).is_err(), "{path}");
        }
    }
}
