//! Lifecycle hooks: what a container wants done after it started and before it ends.
//! Source: "Container Lifecycle Hooks" in the Kubernetes documentation.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::probes::{Answer, Asker, action_of_hook};
use crate::runtime::Runtime;

/// A hook that has no end of its own still may not hold a container for ever.
pub const LONGEST_POST_START: Duration = Duration::from_secs(3600);

/// Runs a hook of a container; the problem in words if it failed.
pub async fn run(
    runtime: &Runtime,
    container_id: &str,
    pod_ip: IpAddr,
    container: &Container,
    hook: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    let asker = Asker {
        runtime: runtime.clone(),
        container_id: container_id.to_owned(),
        pod_ip,
    };
    match asker.ask(&action_of_hook(container, hook), limit).await {
        Answer::Good => Ok(()),
        Answer::Bad(problem) | Answer::Unknown(problem) => Err(problem),
    }
}

/// The hook after the start.
pub fn post_start(container: &Container) -> Option<&LifecycleHandler> {
    container.lifecycle.as_ref()?.post_start.as_ref()
}

/// The hook before the end.
pub fn pre_stop(container: &Container) -> Option<&LifecycleHandler> {
    container.lifecycle.as_ref()?.pre_stop.as_ref()
}
