//! The state directory: which files there are and how they are written.
//!
//! ```text
//! <state>/pods/<uid>/sandbox.json                       the sandbox and its process
//! <state>/pods/<uid>/shm/                               /dev/shm of all its containers
//! <state>/pods/<uid>/containers/<name>/<attempt>/
//!     start.json     what to start; written by the agent before it starts the shim
//!     state.json     where it is; written by the shim
//!     config.json    the OCI bundle, with rootfs/ as mount point
//!     log, log.1     output in the CRI format
//!     termination    the termination message
//!     writable/      mount point of the writable layer
//!     oci/           libcontainer's own state
//!     shim.log       what a shim says that fails itself
//!     errors.log     what libcontainer says on the way out of a failure
//!     exec.<pid>/    libcontainer's state for one exec, while it runs
//! ```
//! A file is replaced by rename, so a reader sees the old one or the new one and nothing else.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::process::ProcessId;
use super::{ContainerPhase, ContainerSpec, RuntimeError, Sandbox};
use crate::images::ImageInfo;

/// `<pod uid>/<name>/<attempt>`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ContainerId {
    pub(super) pod_uid: String,
    pub(super) name: String,
    pub(super) attempt: u32,
}

impl ContainerId {
    /// The id of what a spec describes.
    pub(super) fn of(spec: &ContainerSpec) -> Result<Self, RuntimeError> {
        let id = Self {
            pod_uid: spec.pod_uid.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
        };
        id.to_string().parse()
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.pod_uid, self.name, self.attempt)
    }
}

impl FromStr for ContainerId {
    type Err = RuntimeError;

    fn from_str(text: &str) -> Result<Self, RuntimeError> {
        let invalid = || RuntimeError::InvalidId {
            what: "container id",
            id: text.to_owned(),
        };
        let mut parts = text.split('/');
        let (Some(pod_uid), Some(name), Some(attempt), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        if !is_plain_name(pod_uid) || !is_plain_name(name) {
            return Err(invalid());
        }
        let attempt = attempt.parse().map_err(|_| invalid())?;
        Ok(Self {
            pod_uid: pod_uid.to_owned(),
            name: name.to_owned(),
            attempt,
        })
    }
}

/// Whether a text can be one component of a path, here and in the cgroup file system.
fn is_plain_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// `sandbox.json`
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) sandbox: Sandbox,
    pub(super) process: ProcessId,
}

/// `start.json`: everything that the shim needs.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct StartRecord {
    pub(super) spec: ContainerSpec,
    pub(super) image: ImageInfo,
    /// Process whose net, ipc and uts namespaces the container joins.
    pub(super) sandbox: ProcessId,
    /// Bind-mounted at `/.seaway/seaway` where the image needs it.
    pub(super) exe: PathBuf,
    /// Path of the container's cgroup below the roots of the hierarchies.
    pub(super) cgroup: String,
    /// `/dev/shm` of the Pod.
    pub(super) shm: PathBuf,
    /// Directories of the machine that a `seaway/host` container must not see.
    pub(super) hidden: Vec<PathBuf>,
}

/// `state.json`
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct StateRecord {
    pub(super) phase: ContainerPhase,
    /// `None` when no shim ever came so far.
    pub(super) shim: Option<ProcessId>,
    /// The container's first process.
    pub(super) init: Option<ProcessId>,
}

/// The state directory of one node.
#[derive(Debug, Clone)]
pub(super) struct StateDir {
    root: PathBuf,
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub(super) struct ContainerDir {
    pub(super) path: PathBuf,
}

impl StateDir {
    pub(super) fn open(root: &Path) -> Result<Self, RuntimeError> {
        create_dir_all(&root.join("pods"))?;
        let root = root.canonicalize().map_err(file("find", root))?;
        Ok(Self { root })
    }

    /// Directory of a Pod, there or not.
    pub(super) fn pod(&self, uid: &str) -> Result<PathBuf, RuntimeError> {
        if is_plain_name(uid) {
            Ok(self.root.join("pods").join(uid))
        } else {
            Err(RuntimeError::InvalidId {
                what: "pod uid",
                id: uid.to_owned(),
            })
        }
    }

    /// Directory of a container, there or not.
    pub(super) fn container(&self, id: &ContainerId) -> ContainerDir {
        let path = self.root.join("pods").join(&id.pod_uid).join("containers");
        ContainerDir {
            path: path.join(&id.name).join(id.attempt.to_string()),
        }
    }

    /// Pods that have a directory.
    pub(super) fn pods(&self) -> Result<Vec<String>, RuntimeError> {
        names(&self.root.join("pods"))
    }

    /// Containers of a Pod, by name and then attempt.
    pub(super) fn containers(&self, uid: &str) -> Result<Vec<ContainerId>, RuntimeError> {
        let dir = self.pod(uid)?.join("containers");
        let mut found = Vec::new();
        for name in names(&dir)? {
            for attempt in names(&dir.join(&name))? {
                found.push(format!("{uid}/{name}/{attempt}").parse()?);
            }
        }
        found.sort();
        Ok(found)
    }

    pub(super) fn sandbox(&self, uid: &str) -> Result<Option<SandboxRecord>, RuntimeError> {
        read_json(&self.pod(uid)?.join("sandbox.json"))
    }

    pub(super) fn write_sandbox(&self, record: &SandboxRecord) -> Result<(), RuntimeError> {
        let dir = self.pod(&record.sandbox.spec.pod_uid)?;
        write_json(&dir.join("sandbox.json"), record)
    }
}

impl ContainerDir {
    pub(super) fn start(&self) -> Result<Option<StartRecord>, RuntimeError> {
        read_json(&self.path.join("start.json"))
    }

    pub(super) fn write_start(&self, record: &StartRecord) -> Result<(), RuntimeError> {
        write_json(&self.path.join("start.json"), record)
    }

    pub(super) fn state(&self) -> Result<Option<StateRecord>, RuntimeError> {
        read_json(&self.path.join("state.json"))
    }

    pub(super) fn write_state(&self, record: &StateRecord) -> Result<(), RuntimeError> {
        write_json(&self.path.join("state.json"), record)
    }

    /// Writes the first state; `false` when there is one. A shim and a recovering agent race for it, and only the
    /// winner goes on.
    pub(super) fn claim_state(&self, record: &StateRecord) -> Result<bool, RuntimeError> {
        let path = self.path.join("state.json");
        let draft = self.path.join(format!(".state.{}", std::process::id()));
        write(&draft, record)?;
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft).map_err(file("remove", &draft))?;
        match linked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(file("write", &path)(error)),
        }
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(super) fn termination(&self) -> PathBuf {
        self.path.join("termination")
    }

    pub(super) fn shim_log(&self) -> PathBuf {
        self.path.join("shim.log")
    }
}

/// Turns an I/O error into one that names what was tried on which file.
pub(super) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |source| RuntimeError::File {
        operation,
        path,
        source,
    }
}

pub(super) fn create_dir_all(path: &Path) -> Result<(), RuntimeError> {
    fs::create_dir_all(path).map_err(file("create", path))
}

/// Removes a directory and all that is in it; nothing there is not an error.
pub(super) fn remove_dir_all(path: &Path) -> Result<(), RuntimeError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Names in a directory, sorted, without hidden ones; none when it is not there.
fn names(dir: &Path) -> Result<Vec<String>, RuntimeError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(file("list", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(file("list", dir))?;
        if let Some(name) = entry
            .file_name()
            .to_str()
            .filter(|name| is_plain_name(name))
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RuntimeError> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| RuntimeError::State {
                    path: path.to_owned(),
                    source,
                })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", path)(error)),
    }
}

pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), RuntimeError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.{}", std::process::id()));
    write(&draft, value)?;
    fs::rename(&draft, path).map_err(file("write", path))
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), RuntimeError> {
    let bytes = serde_json::to_vec(value).map_err(|source| RuntimeError::State {
        path: path.to_owned(),
        source,
    })?;
    fs::write(path, bytes).map_err(file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_three_plain_parts() {
        let id: ContainerId = "uid-1/web/3".parse().unwrap();
        assert_eq!(
            (id.pod_uid.as_str(), id.name.as_str(), id.attempt),
            ("uid-1", "web", 3)
        );
        assert_eq!(id.to_string(), "uid-1/web/3");
    }

    #[test]
    fn no_id_leads_out_of_the_state_directory() {
        for text in [
            "", "a/b", "a/b/c", "a/b/1/2", "../b/1", "a/../1", "a/b/-1", "/b/1", "a//1", ".a/b/1",
        ] {
            assert!(text.parse::<ContainerId>().is_err(), "{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert!(state.pod("..").is_err());
        assert!(state.pod("a/b").is_err());
    }

    #[test]
    fn only_the_first_state_is_claimed() {
        let dir = tempfile::tempdir().unwrap();
        let container = ContainerDir {
            path: dir.path().to_owned(),
        };
        let state = |phase| StateRecord {
            phase,
            shim: None,
            init: None,
        };
        assert!(
            container
                .claim_state(&state(ContainerPhase::Creating))
                .unwrap()
        );
        let late = ContainerPhase::Running {
            pid: 1,
            started_at: 1,
        };
        assert!(!container.claim_state(&state(late)).unwrap());
        assert_eq!(
            container.state().unwrap().unwrap().phase,
            ContainerPhase::Creating
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn containers_come_in_the_order_of_their_attempts() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        for attempt in ["10", "9"] {
            fs::create_dir_all(dir.path().join("pods/u/containers/web").join(attempt)).unwrap();
        }
        let attempts: Vec<u32> = state
            .containers("u")
            .unwrap()
            .into_iter()
            .map(|id| id.attempt)
            .collect();
        assert_eq!(attempts, [9, 10]);
        assert!(state.containers("absent").unwrap().is_empty());
    }

    #[test]
    fn a_foreign_state_file_is_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, "{").unwrap();
        let error = ContainerDir {
            path: dir.path().to_owned(),
        }
        .state()
        .unwrap_err();
        assert!(error.to_string().contains("state.json"), "{error}");
    }
}
