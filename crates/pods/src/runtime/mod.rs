//! Sandboxes and containers on this node: what a container runtime is to a kubelet, without the CRI in between.
//!
//! The rest of the crate sees only the types of this module. One process per container, the *shim*, is the
//! re-executed single-threaded helper that libcontainer needs; it outlives the agent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::images::Images;

mod bundle;
mod cgroups;
mod error;
mod exec;
mod last_words;
mod log;
mod process;
mod program;
mod relay;
mod rootfs;
mod sandbox;
mod session;
mod shim;
mod state;
mod supervisor;
mod users;
mod wire;

pub use cgroups::remove_cgroup;
pub use error::RuntimeError;
pub use exec::exec_main;
pub use sandbox::sandbox_main;
pub use session::{Session, SessionEvent, SessionInput, SessionOutput, TerminalSize};
pub use shim::shim_main;
pub use supervisor::Runtime;

/// Where a runtime keeps its things and what it starts.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Directory of this node's sandboxes and containers; lives as long as the processes do.
    pub state_dir: PathBuf,
    /// Where root file systems come from.
    pub images: Images,
    /// The binary that has `internal sandbox|shim|exec-helper`: our own.
    pub exe: PathBuf,
    /// cgroup below which every container gets its own, such as `/seaway/lab/node-1`.
    pub cgroup_parent: String,
}

/// What holds the namespaces that the containers of a Pod share (net, ipc, uts).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SandboxSpec {
    /// `metadata.uid` of the Pod.
    pub pod_uid: String,
    /// `metadata.namespace` of the Pod.
    pub namespace: String,
    /// `metadata.name` of the Pod.
    pub name: String,
    /// What `hostname` says in the Pod.
    pub hostname: String,
    /// Use the node's network namespace instead of an own one.
    pub host_network: bool,
}

/// A running sandbox.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sandbox {
    /// What it was made from.
    pub spec: SandboxSpec,
    /// Process that holds the namespaces.
    pub pid: i32,
    /// How often a sandbox was made for this Pod before.
    pub attempt: u32,
}

/// A directory or file of the node that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    /// Path on the node.
    pub source: PathBuf,
    /// Path in the container.
    pub destination: PathBuf,
    /// Not writable.
    pub read_only: bool,
}

/// Limits of a container; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<i64>,
    /// Thousandths of a CPU, as a quota.
    pub cpu_millis: Option<i64>,
    /// Relative weight in thousandths of a CPU, from the request.
    pub cpu_request_millis: Option<i64>,
}

/// One container to start.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContainerSpec {
    /// The Pod it belongs to.
    pub pod_uid: String,
    /// Name in the Pod's spec.
    pub name: String,
    /// Counts restarts, from 0.
    pub attempt: u32,
    /// Digest of the image, as [`super::images::Images::ensure`] gave it.
    pub image_id: String,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's command when not empty.
    pub args: Vec<String>,
    /// Environment; the image's own is added where a name is not here.
    pub env: BTreeMap<String, String>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// Volumes, `/etc/hosts`, `/etc/resolv.conf`, service-account files, in the order to mount.
    pub mounts: Vec<Mount>,
    /// cgroup limits.
    pub limits: Limits,
    /// `runAsUser`, `runAsGroup`: replace the image's where given.
    pub user: Option<u32>,
    /// See `user`; without it the group of the user in the image's `/etc/passwd`, else 0.
    pub group: Option<u32>,
    /// `fsGroup` and `supplementalGroups`.
    pub supplemental_groups: Vec<u32>,
    /// All capabilities, any device may be made, nothing of `/proc` and `/sys` is hidden or read-only.
    pub privileged: bool,
    /// Capabilities on top of the default set, with or without `CAP_`; `ALL` is every one.
    pub capabilities_add: Vec<String>,
    /// Capabilities out of the default set; `ALL` is every one.
    pub capabilities_drop: Vec<String>,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    /// The root file system may not be written.
    pub read_only_root: bool,
    /// Keep standard input open for attach.
    pub stdin: bool,
    /// The first attach that ends its input ends the container's.
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// `terminationMessagePath`; empty is `/dev/termination-log`.
    pub termination_message_path: String,
    /// Declared ports as `80/TCP`, for `seaway/whoami` to listen on.
    pub ports: Vec<String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ContainerPhase {
    /// The shim is making it.
    Creating,
    /// It runs.
    Running {
        /// Its first process.
        pid: i32,
        /// Seconds since 1970.
        started_at: i64,
    },
    /// It ended.
    Exited {
        /// Exit code; 128 + n when signal n ended it.
        code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The kernel ended it for its memory.
        oom_killed: bool,
        /// Seconds since 1970, `None` when it never started.
        started_at: Option<i64>,
        /// Seconds since 1970.
        finished_at: i64,
        /// Why it could not start: for `message` of the terminated state.
        message: Option<String>,
    },
}

/// A container and where it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Container {
    /// `<pod uid>/<name>/<attempt>`
    pub id: String,
    /// What it was made from.
    pub spec: ContainerSpec,
    /// Where it is.
    pub phase: ContainerPhase,
}

/// A process to run inside a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Give it a terminal; its output then is all stdout.
    pub tty: bool,
    /// Feed its standard input from the session; otherwise it reads end of file.
    pub stdin: bool,
}

/// Something changed for this Pod; look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The Pod.
    pub pod_uid: String,
}

impl Sandbox {
    /// Path of the network namespace.
    pub fn netns(&self) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("ns/net")
    }
}
