//! What can go wrong with sandboxes and containers.

use std::path::PathBuf;

use crate::images::ImageError;

/// A failed operation of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A file of the state directory.
    #[error("cannot {operation} {path}: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A state file that is not what we write.
    #[error("{path} is not a state file of this version of seaway: {source}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: serde_json::Error,
    },
    /// A helper process could not be started.
    #[error("cannot start {what}: {source}")]
    Spawn {
        /// Which one.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A helper process ended before it was ready.
    #[error("{what} failed: {message}")]
    Helper {
        /// Which one.
        what: &'static str,
        /// Its last words.
        message: String,
    },
    /// The Pod has no living sandbox.
    #[error("Pod {pod_uid} has no sandbox")]
    NoSandbox {
        /// The Pod.
        pod_uid: String,
    },
    /// There is no such container.
    #[error("container {id} not found")]
    NoContainer {
        /// `<pod uid>/<name>/<attempt>`
        id: String,
    },
    /// The container does not run (any more).
    #[error("container {id} is not running")]
    NotRunning {
        /// `<pod uid>/<name>/<attempt>`
        id: String,
    },
    /// An id that cannot be the name of a directory.
    #[error("{id:?} is not a valid {what}")]
    InvalidId {
        /// `container id`, `pod uid`
        what: &'static str,
        /// The text.
        id: String,
    },
    /// The program of an exec could not be started; the text is what runc says.
    #[error("{message}")]
    Exec {
        /// Such as `exec: "foo": executable file not found in $PATH`.
        message: String,
        /// 127 not found, 126 not executable, 128 otherwise.
        code: i32,
    },
    /// The conversation with a process broke off.
    #[error("connection to the process lost: {source}")]
    Session {
        /// How.
        source: std::io::Error,
    },
    /// A process of ours could not be looked at or signalled.
    #[error("cannot {operation} process {pid}: {source}")]
    Process {
        /// What was tried.
        operation: &'static str,
        /// On which.
        pid: i32,
        /// Why not.
        source: std::io::Error,
    },
    /// A task of this process was cut off.
    #[error("interrupted: the agent is shutting down")]
    Interrupted,
    /// It did not happen in time.
    #[error("timed out after {seconds} s: {what}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// A cgroup could not be made or removed.
    #[error("cannot {operation} cgroup {path}: {source}")]
    Cgroup {
        /// What was tried.
        operation: &'static str,
        /// Its directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] seaway_kernel::Error),
    /// The image is not there.
    #[error(transparent)]
    Image(#[from] ImageError),
}
