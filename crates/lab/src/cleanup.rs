//! What a lab leaves that the kernel does not take away by itself when its supervisor dies.

use std::time::Duration;

use seaway_kernel::cgroup::Tree;

use crate::error::Error;
use crate::fabric;
use crate::spec::LabSpec;

/// How long processes that are being killed may keep their cgroups.
const PATIENCE: Duration = Duration::from_secs(5);

/// Removes the host's link, routes and table of a lab. There may be none of it, or only some.
///
/// # Errors
/// What the kernel refused.
pub fn network(spec: &LabSpec) -> Result<(), Error> {
    // A thread of its own, because the caller may be within a runtime already.
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|error| Error::step("removing the lab's network", error))?
                    .block_on(fabric::remove_from_host(spec))
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Removes a lab's cgroups from every hierarchy.
///
/// # Errors
/// [`Error::Step`] with all that could not be removed.
pub fn cgroups(path: &str) -> Result<(), Error> {
    let failed = |message: String| Error::step("removing cgroups", message);
    let tree = Tree::at(path.trim_start_matches('/')).map_err(|error| failed(error.to_string()))?;
    tree.remove(PATIENCE).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        failed(all.join("; "))
    })
}
