//! Starting a lab from a terminal: starts the supervisor, shows what it tells, and hands over the running lab.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use seaway_kernel::process::{CommandExt as _, spawn_init};

use crate::error::Error;
use crate::lock;
use crate::paths::Paths;
use crate::port_range::PortRange;
use crate::progress::Progress;
use crate::spec::{check_name, check_nodes};

/// What is asked of `up`. `None`: as the lab was last time, or the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpRequest {
    /// Name of the lab.
    pub name: String,
    /// Data directory.
    pub data: PathBuf,
    /// Number of nodes.
    pub nodes: Option<u32>,
    /// Port of the API server on 127.0.0.1.
    pub api_port: Option<u16>,
    /// Range of node addresses, a /24.
    pub node_cidr: Option<Ipv4Net>,
    /// Range of Pod addresses.
    pub pod_cidr: Option<Ipv4Net>,
    /// Range of Service addresses.
    pub service_cidr: Option<Ipv4Net>,
    /// May Pods and nodes reach beyond this machine?
    pub internet: bool,
    /// Admission plugins of the API server that are switched off, by Kubernetes' names for them.
    pub disabled_admission_plugins: Vec<String>,
    /// Pods wait for a scheduler that somebody else brings.
    pub without_scheduler: bool,
    /// Where node ports are given from.
    #[serde(default)]
    pub node_ports: PortRange,
    /// The lab stays when the process that asked for it ends.
    pub detach: bool,
}

impl UpRequest {
    /// A lab of that name with everything else by default.
    pub fn new(name: &str, data: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            data,
            nodes: None,
            api_port: None,
            node_cidr: None,
            pod_cidr: None,
            service_cidr: None,
            internet: false,
            disabled_admission_plugins: Vec::new(),
            without_scheduler: false,
            node_ports: PortRange::NODE_PORTS,
            detach: false,
        }
    }

    /// The files of the lab.
    pub fn paths(&self) -> Paths {
        Paths::new(&self.data, &self.name)
    }
}

/// A lab that this process started.
#[derive(Debug)]
pub struct Started {
    supervisor: Child,
    /// While this end of the pipe is open the lab stays, unless it is detached: so a killed `up` takes the lab
    /// along, and the lab still cleans up after itself.
    lifeline: Option<ChildStdin>,
}

/// Starts the lab and returns when every node is ready. `show` is called with each thing to tell.
///
/// # Errors
/// Bad options, missing rights, a lab of that name that runs already, or what the supervisor said when it gave
/// up; then nothing is left behind.
pub fn start(request: &UpRequest, mut show: impl FnMut(&Progress)) -> Result<Started, Error> {
    check_name(&request.name)?;
    if let Some(nodes) = request.nodes {
        check_nodes(nodes)?;
    }
    require_root("up")?;
    let paths = request.paths();
    if let Some(pid) = lock::holder(&paths.lock()) {
        return Err(Error::Running {
            name: request.name.clone(),
            pid,
        });
    }
    std::fs::create_dir_all(paths.logs()).map_err(Error::file("create", paths.logs()))?;
    let log_path = paths.log("supervisor");
    let log = std::fs::File::create(&log_path).map_err(Error::file("create", log_path))?;
    let exe = std::env::current_exe().map_err(Error::file("find", "the seaway program"))?;
    let json = serde_json::to_string(request)
        .map_err(|error| Error::step("starting the supervisor", error))?;

    let mut command = Command::new(exe);
    command
        .args(["internal", "lab-init", &json])
        .current_dir("/")
        .stdin(if request.detach {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(log)
        .new_session();
    let mut supervisor =
        spawn_init(command).map_err(|error| Error::step("starting the supervisor", error))?;
    let lifeline = supervisor.stdin.take();
    let Some(out) = supervisor.stdout.take() else {
        return Err(Error::step(
            "starting the supervisor",
            "it has no standard output",
        ));
    };
    for line in BufReader::new(out).lines() {
        let Ok(line) = line else { break };
        let Ok(progress) = serde_json::from_str::<Progress>(&line) else {
            continue;
        };
        match &progress {
            Progress::Failed { message } => {
                let message = message.clone();
                // It has cleaned up already and ends now.
                let _ = supervisor.wait();
                return Err(Error::Supervisor(message));
            }
            Progress::Ready { .. } => {
                show(&progress);
                return Ok(Started {
                    supervisor,
                    lifeline,
                });
            }
            Progress::Begin { .. } | Progress::Done { .. } => show(&progress),
        }
    }
    let status = supervisor
        .wait()
        .map_or_else(|error| error.to_string(), |status| status.to_string());
    Err(Error::Supervisor(format!(
        "the supervisor ended before the lab was ready ({status}); {} says why, and the next `seaway up` cleans up after it",
        paths.log("supervisor").display()
    )))
}

impl Started {
    /// The supervisor's process number.
    pub fn pid(&self) -> u32 {
        self.supervisor.id()
    }

    /// Leaves the lab to itself (it was started detached).
    pub fn leave(mut self) {
        // Dropping a `Child` neither ends nor waits for it. The lifeline of a lab that is not detached must not
        // close here by accident, so it is closed on purpose.
        drop(self.lifeline.take());
    }

    /// Asks the lab to end and waits until everything it made is gone.
    ///
    /// # Errors
    /// [`Error::File`] when the supervisor cannot be waited for.
    pub fn stop(mut self) -> Result<ExitStatus, Error> {
        drop(self.lifeline.take());
        self.supervisor
            .wait()
            .map_err(Error::file("wait for", "the supervisor"))
    }

    /// Whether the lab has ended by itself.
    ///
    /// # Errors
    /// [`Error::File`] when the supervisor cannot be asked after.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.supervisor
            .try_wait()
            .map_err(Error::file("wait for", "the supervisor"))
    }
}

/// Refuses to go on without root.
///
/// # Errors
/// [`Error::NotRoot`].
pub fn require_root(command: &'static str) -> Result<(), Error> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(Error::NotRoot { command })
    }
}
