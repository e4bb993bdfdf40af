//! Where the files of a lab are. `ARCHITECTURE.md` has the same list in words.

use std::path::{Path, PathBuf};

/// Where data goes unless `--data` says otherwise.
pub const DEFAULT_DATA: &str = "/var/lib/seaway";
const RUN: &str = "/run/seaway";

/// Where running labs keep what is gone with them; a directory for each.
pub fn run_dir() -> &'static Path {
    Path::new(RUN)
}

/// The files of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    data: PathBuf,
    name: String,
}

impl Paths {
    /// Paths of the lab `name` whose data is below `data`.
    pub fn new(data: &Path, name: &str) -> Self {
        Self {
            data: data.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Images, shared by all labs of this data directory.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// Everything of this lab that survives `down`.
    pub fn lab(&self) -> PathBuf {
        self.data.join("labs").join(&self.name)
    }

    /// What was chosen when the lab was first made ([`crate::spec::LabSpec`]).
    pub fn spec(&self) -> PathBuf {
        self.lab().join("lab.json")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.lab().join("pki")
    }

    /// The API server's store.
    pub fn store(&self) -> PathBuf {
        self.lab().join("store.db")
    }

    /// For kubectl.
    pub fn kubeconfig(&self) -> PathBuf {
        self.lab().join("kubeconfig")
    }

    /// Log files, one for each process.
    pub fn logs(&self) -> PathBuf {
        self.lab().join("log")
    }

    /// Log file of one process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    /// Durable state of a node.
    pub fn node(&self, node: &str) -> PathBuf {
        self.lab().join("nodes").join(node)
    }

    /// State of the running lab; gone with it.
    pub fn run(&self) -> PathBuf {
        Path::new(RUN).join(&self.name)
    }

    /// Locked by the supervisor for as long as it lives.
    pub fn lock(&self) -> PathBuf {
        self.run().join("lock")
    }

    /// What the running lab is made of ([`crate::running::Running`]).
    pub fn running(&self) -> PathBuf {
        self.run().join("lab.json")
    }

    /// Mount point of the tmpfs (in the lab's mount namespace) that holds the containers of all nodes.
    pub fn run_nodes(&self) -> PathBuf {
        self.run().join("nodes")
    }

    /// State of a running node.
    pub fn run_node(&self, node: &str) -> PathBuf {
        self.run_nodes().join(node)
    }

    /// Parent of every cgroup of the lab, relative to the hierarchy's root.
    pub fn cgroup(&self) -> String {
        format!("/seaway/{}", self.name)
    }
}

/// Names of the labs that run or ran under `/run`.
pub fn running_names() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(RUN) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
