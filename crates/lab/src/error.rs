//! What can go wrong with a lab, each with what to do about it.

use std::path::PathBuf;

/// Why a lab could not be started, stopped or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not root.
    #[error(
        "seaway {command} needs root: it makes network namespaces, links and mounts; run it with sudo"
    )]
    NotRoot {
        /// The subcommand.
        command: &'static str,
    },
    /// An option has a value that cannot be.
    #[error("{option} {value}: {hint}")]
    BadOption {
        /// The option's name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        hint: String,
    },
    /// A lab of that name runs.
    #[error(
        "lab {name:?} is running already (process {pid}); `seaway status --name {name}` shows it, `seaway down --name {name}` ends it, `--name` starts another beside it"
    )]
    Running {
        /// Its name.
        name: String,
        /// Its supervisor.
        pid: i32,
    },
    /// No lab of that name runs.
    #[error("no lab {name:?} is running; `seaway up --name {name}` starts it")]
    NotRunning {
        /// Its name.
        name: String,
    },
    /// There is no lab of that name.
    #[error("there is no lab {name:?} in {data}; `seaway up --name {name}` makes it")]
    Unknown {
        /// Its name.
        name: String,
        /// The data directory looked into.
        data: PathBuf,
    },
    /// The API server's port is taken.
    #[error(
        "port {port} on 127.0.0.1 is taken by another program; choose another with --api-port, or end that program (`ss -ltnp 'sport = :{port}'` shows it)"
    )]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// A file could not be read or written.
    #[error("cannot {operation} {path}: {source}")]
    File {
        /// Read, write, create…
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} is damaged ({source}); `seaway down --purge` removes the lab and all it holds")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A step of the start failed.
    #[error("{step}: {message}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// Why it failed, and what to do.
        message: String,
    },
    /// The supervisor said why it gave up.
    #[error("{0}")]
    Supervisor(String),
    /// The lab did not end in time.
    #[error("lab {name:?} did not end: {message}")]
    Stuck {
        /// Its name.
        name: String,
        /// What remains.
        message: String,
    },
}

impl Error {
    /// A failed step, from anything that can be shown.
    pub fn step(step: &'static str, error: impl std::fmt::Display) -> Self {
        Self::Step {
            step,
            message: error.to_string(),
        }
    }

    /// A failed file operation.
    pub fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }
}
