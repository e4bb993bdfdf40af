//! A stand-in for the machine: a network namespace from which no packet gets out.

use std::process::{Command, Output};

use seaway_kernel::NetNs;
use seaway_kernel::process::CommandExt;

/// A fresh network namespace with a loopback link and nothing else. What a test does "on the host" it does in here.
#[derive(Debug, Clone)]
pub struct Outer {
    netns: NetNs,
}

impl Outer {
    /// Makes one. It goes away with the value and the processes inside.
    ///
    /// # Panics
    /// Without root: the test cannot run, and must not pass.
    pub fn new() -> Self {
        let netns = NetNs::new()
            .unwrap_or_else(|error| panic!("this test needs a network namespace: {error}"));
        Self { netns }
    }

    /// The namespace.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.in_netns(&self.netns);
        command
    }

    /// Runs `work` on a thread inside and returns what it returns.
    ///
    /// # Panics
    /// If the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns
            .run(work)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a shell script inside and returns what it prints.
    ///
    /// # Panics
    /// If it fails, with all that it printed.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        shell_in(&self.netns, script)
    }
}

impl Default for Outer {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a shell script inside a namespace and returns what it prints; panics if it fails.
#[track_caller]
pub(crate) fn shell_in(netns: &NetNs, script: &str) -> String {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).in_netns(netns);
    match command.output() {
        Ok(Output { status, stdout, .. }) if status.success() => {
            String::from_utf8_lossy(&stdout).into_owned()
        }
        Ok(Output {
            status,
            stdout,
            stderr,
        }) => panic!(
            "`{script}`: {status}\n{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        ),
        Err(error) => panic!("`{script}`: {error}"),
    }
}
