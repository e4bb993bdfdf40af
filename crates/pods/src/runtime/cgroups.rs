//! What libcontainer leaves to us of cgroups: where the hierarchies are, the out-of-memory counter, removal.
//!
//! A machine has one of three set-ups: one unified hierarchy (v2), one hierarchy per controller (v1), or v1 with an
//! additional unified one that has no controllers (hybrid). libcontainer creates a container's cgroup in every v1
//! hierarchy, or in the unified one; we look into all that are mounted and so need not tell them apart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::RuntimeError;

/// Mount points of all hierarchies.
fn hierarchies() -> Result<Vec<PathBuf>, RuntimeError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).map_err(super::state::file("read", path))?;
    Ok(parse_mountinfo(&text))
}

/// Mount points of type cgroup and cgroup2 (proc_pid_mountinfo(5)).
fn parse_mountinfo(text: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let fs_type = after.split(' ').next()?;
            let mut fields = before.split(' ').skip(3);
            let (root, mount_point) = (fields.next()?, fields.next()?);
            // A part of a hierarchy, as inside of a container, is not where our paths begin.
            (root == "/" && matches!(fs_type, "cgroup" | "cgroup2")).then(|| mount_point.into())
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

fn directories(cgroup: &str) -> Result<Vec<PathBuf>, RuntimeError> {
    let relative = cgroup.trim_start_matches('/');
    // An empty path would be the root of every hierarchy, a `..` somebody else's.
    if relative.is_empty()
        || relative
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(RuntimeError::InvalidId {
            what: "cgroup path",
            id: cgroup.to_owned(),
        });
    }
    Ok(hierarchies()?
        .into_iter()
        .map(|root| root.join(relative))
        .collect())
}

/// Whether the kernel ended a process of this cgroup for its memory.
pub(super) fn oom_killed(cgroup: &str) -> Result<bool, RuntimeError> {
    for dir in directories(cgroup)? {
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
    for dir in directories(cgroup)? {
        kill_below(&dir)?;
    }
    Ok(())
}

fn kill_below(dir: &Path) -> Result<(), RuntimeError> {
    for child in children(dir)? {
        kill_below(&child)?;
    }
    let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) else {
        return Ok(());
    };
    // 0 is a process outside of our PID namespace; it is not ours to signal.
    for pid in text
        .lines()
        .filter_map(|line| line.parse::<i32>().ok())
        .filter(|pid| *pid > 0)
    {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            // It may have ended meanwhile.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    Ok(())
}

/// Removes a cgroup with everything below it from all hierarchies, waiting a little for processes that are about
/// to be gone. Blocks. Not there is not an error.
pub fn remove_cgroup(cgroup: &str) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut first = None;
    // All hierarchies are tried even when one fails.
    for dir in directories(cgroup)? {
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
    fn hierarchies_of_a_hybrid_machine() {
        let text = "\
24 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
33 30 0:27 /some/part /elsewhere rw,relatime - cgroup cgroup rw,memory
";
        let expected = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(parse_mountinfo(text), expected);
    }

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
        for path in ["", "/", "//", "/a/../..", "/a/./b", "/a//b"] {
            assert!(directories(path).is_err(), "{path}");
        }
    }
}
