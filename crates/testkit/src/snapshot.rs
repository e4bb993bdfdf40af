//! What is there before and after: the difference is what was left behind.
//!
//! Links, routes and rules are those of one network namespace, as `ip` and `nft` show them. Mounts, control
//! groups, processes and named network namespaces are the whole machine's, where other tests are at work at the
//! same time; so of these only entries that hold one of the watched words count.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use seaway_kernel::NetNs;
use seaway_kernel::cgroup;

use crate::outer::shell_in;

/// What to look at.
#[derive(Debug, Clone)]
pub struct Watch {
    netns: NetNs,
    words: Vec<String>,
}

/// The state of what is watched at one moment: a set of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    lines: BTreeSet<String>,
}

/// What two snapshots differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Lines that were not there before.
    pub added: Vec<String>,
    /// Lines that are there no more.
    pub removed: Vec<String>,
}

impl Watch {
    /// Watches the network of `netns`, and what is named after one of `words` (the name of a lab, a test's own
    /// directory) on the machine.
    pub fn new(netns: &NetNs, words: &[&str]) -> Self {
        Self {
            netns: netns.clone(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    /// Takes a snapshot.
    ///
    /// # Panics
    /// If something cannot be looked at: an incomplete snapshot would hide leftovers.
    pub fn snapshot(&self) -> Snapshot {
        let mut lines = BTreeSet::new();
        let mut add = |kind: &str, text: &str| {
            lines.extend(
                text.lines()
                    .map(str::trim_end)
                    .filter(|line| !line.is_empty())
                    .map(|line| format!("{kind}: {line}")),
            );
        };
        // Name and kind; not the state, which may still be changing.
        add(
            "link",
            &shell_in(
                &self.netns,
                "ip -o link show | awk '{print $2}' | cut -d@ -f1 | tr -d :",
            ),
        );
        add(
            "address",
            &shell_in(&self.netns, "ip -o address show | awk '{print $2, $3, $4}'"),
        );
        add(
            "route",
            &shell_in(
                &self.netns,
                "ip -4 route show table all; ip -6 route show table all",
            ),
        );
        add(
            "rule",
            &shell_in(&self.netns, "ip rule show; ip -6 rule show"),
        );
        add(
            "nft",
            &shell_in(&self.netns, "nft --stateless list ruleset"),
        );
        add(
            "sysctl",
            &shell_in(&self.netns, "cat /proc/sys/net/ipv4/ip_forward"),
        );
        for (kind, entries) in [
            ("named namespace", named_namespaces()),
            ("mount", mounts()),
            ("cgroup", control_groups()),
            ("process", processes()),
        ] {
            for entry in entries {
                if self.words.iter().any(|word| entry.contains(word)) {
                    add(kind, &entry);
                }
            }
        }
        Snapshot { lines }
    }
}

impl Snapshot {
    /// What has changed from this snapshot to a later one.
    pub fn difference(&self, later: &Self) -> Difference {
        Difference {
            added: later.lines.difference(&self.lines).cloned().collect(),
            removed: self.lines.difference(&later.lines).cloned().collect(),
        }
    }

    /// Panics if `later` differs, with what was added and what is missing.
    #[track_caller]
    pub fn assert_same(&self, later: &Self) {
        let difference = self.difference(later);
        assert!(difference.is_empty(), "not as it was before:\n{difference}");
    }
}

impl Difference {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.added {
            writeln!(f, "+ {line}")?;
        }
        for line in &self.removed {
            writeln!(f, "- {line}")?;
        }
        Ok(())
    }
}

fn named_namespaces() -> Vec<String> {
    match fs::read_dir("/run/netns") {
        Ok(entries) => entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => panic!("/run/netns: {error}"),
    }
}

fn mounts() -> Vec<String> {
    let mounts = seaway_kernel::mount::mounts().unwrap_or_else(|error| panic!("{error}"));
    mounts
        .iter()
        .map(|mount| format!("{} on {}", mount.file_system, mount.target.display()))
        .collect()
}

fn control_groups() -> Vec<String> {
    let hierarchies = cgroup::hierarchies().unwrap_or_else(|error| panic!("{error}"));
    let mut found = Vec::new();
    for hierarchy in hierarchies {
        directories_below(&hierarchy.mount, &mut found);
    }
    found
}

/// Control groups come and go while they are listed; one that has gone is none.
fn directories_below(directory: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path().display().to_string());
            directories_below(&entry.path(), found);
        }
    }
}

/// Every process but this one, as number and command line. The kernel's own have no command line.
fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap_or_else(|error| panic!("/proc: {error}"));
    let numbers = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = Vec::new();
    for number in numbers.filter(|number| *number != std::process::id()) {
        // It may have ended since the directory was read.
        let Ok(arguments) = fs::read(format!("/proc/{number}/cmdline")) else {
            continue;
        };
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        if !arguments.is_empty() {
            found.push(format!("{number} {}", arguments.trim_end()));
        }
    }
    found
}
