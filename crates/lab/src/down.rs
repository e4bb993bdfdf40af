//! Ending a lab, and removing what a killed one left.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use seaway_kernel::pidfd::PidFd;

use crate::error::Error;
use crate::paths::Paths;
use crate::running::{Running, read_json};
use crate::up::require_root;
use crate::{cleanup, lock};

/// How long a lab has to end by itself before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// What `down` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A running lab was ended.
    Ended,
    /// No lab ran; leftovers of a killed one were removed.
    Swept,
    /// There was nothing to do.
    Nothing,
}

/// Ends the lab and removes all that it made; with `purge` its data too.
///
/// # Errors
/// [`Error::NotRoot`]; [`Error::Stuck`] names what could not be removed.
pub fn down(data: &Path, name: &str, purge: bool) -> Result<Outcome, Error> {
    crate::spec::check_name(name)?;
    require_root("down")?;
    let paths = Paths::new(data, name);
    // The running lab knows its data directory best.
    let running: Option<Running> = read_json(&paths.running())?;
    let paths = running
        .as_ref()
        .map_or(paths, |running| Paths::new(&running.data, name));

    let mut outcome = Outcome::Nothing;
    if let Some(pid) = lock::holder(&paths.lock()) {
        end(name, pid)?;
        outcome = Outcome::Ended;
    }
    if paths.run().exists() {
        sweep(&paths, name, running.as_ref())?;
        forget(&paths)?;
        if outcome == Outcome::Nothing {
            outcome = Outcome::Swept;
        }
    }
    if purge && paths.lab().exists() {
        std::fs::remove_dir_all(paths.lab()).map_err(Error::file("remove", paths.lab()))?;
        outcome = match outcome {
            Outcome::Nothing => Outcome::Swept,
            other => other,
        };
    }
    Ok(outcome)
}

fn end(name: &str, pid: i32) -> Result<(), Error> {
    let stuck = |error: seaway_kernel::Error| Error::Stuck {
        name: name.to_owned(),
        message: error.to_string(),
    };
    let process = match PidFd::open(pid.unsigned_abs()) {
        Ok(process) => process,
        // It ended between the two questions.
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(stuck(error)),
    };
    for signal in [Signal::TERM, Signal::KILL] {
        match process.send_signal(signal) {
            Err(error) if !error.is_not_found() => return Err(stuck(error)),
            Ok(()) | Err(_) => {}
        }
        if process.ended_within(PATIENCE).map_err(stuck)? {
            return Ok(());
        }
    }
    Err(Error::Stuck {
        name: name.to_owned(),
        message: format!("process {pid} does not end, not even when killed"),
    })
}

/// Removes what the kernel does not take away by itself when a lab dies: the host's routes, tables, cgroups.
///
/// # Errors
/// [`Error::Stuck`] with everything that could not be removed.
pub fn sweep(paths: &Paths, name: &str, running: Option<&Running>) -> Result<(), Error> {
    let mut problems: Vec<String> = Vec::new();
    if let Some(running) = running {
        problems.extend(
            cleanup::network(&running.spec)
                .err()
                .map(|error| error.to_string()),
        );
    }
    problems.extend(
        cleanup::cgroups(&paths.cgroup())
            .err()
            .map(|error| error.to_string()),
    );
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Stuck {
            name: name.to_owned(),
            message: problems.join("; "),
        })
    }
}

/// Removes the directory below `/run`; the very last thing, so that whatever fails before can be tried again.
///
/// # Errors
/// [`Error::File`].
pub fn forget(paths: &Paths) -> Result<(), Error> {
    match std::fs::remove_dir_all(paths.run()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", paths.run())(error))
        }
        Ok(()) | Err(_) => {
            // Succeeds only when no other lab is left.
            let _ = paths.run().parent().map(std::fs::remove_dir);
            Ok(())
        }
    }
}
