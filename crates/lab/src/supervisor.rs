//! PID 1 of a lab: makes its network, starts its processes, starts them again when they die, and takes all of it
//! away at the end. It runs in a PID and a mount namespace of its own, so that whatever way it dies the kernel
//! ends every process of the lab and with them every network namespace, link and mount.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use seaway_apiserver::pki::{self, Pki, SubjectName};
use seaway_kernel::netns::NetNs;
use seaway_kernel::process::CommandExt as _;
use seaway_kernel::reaper::Reaper;

use crate::agent::AgentConfig;
use crate::control_plane::ControlPlaneConfig;
use crate::error::Error;
use crate::fabric::Fabric;
use crate::paths::{Paths, running_names};
use crate::progress::{Progress, tell};
use crate::ranges::Wanted;
use crate::readiness::Report;
use crate::running::{Running, read_json, write_json, write_whole};
use crate::spec::{CLUSTER_DOMAIN, LabSpec};
use crate::up::UpRequest;
use crate::{down, fabric, lock, name_servers};

/// How long the first start of a process may take before the lab gives up.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long processes have to end by themselves.
const END_LIMIT: Duration = Duration::from_secs(3);
/// First and longest pause before a process that died is started again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A process that ran this long starts with the first pause again.
const STEADY: Duration = Duration::from_secs(30);

/// Runs the supervisor; the only return is the end of the lab.
pub fn main(request: &UpRequest) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::step("starting the supervisor", error))?;
    let result = runtime.block_on(Supervisor::run(request));
    if let Err(error) = &result {
        tell(&Progress::Failed {
            message: error.to_string(),
        });
    }
    result
}

/// A step that is shown: what, and since when.
struct Step {
    name: String,
    since: Instant,
}

impl Step {
    fn begin(name: impl Into<String>) -> Self {
        let name = name.into();
        tell(&Progress::Begin { step: name.clone() });
        Self {
            name,
            since: Instant::now(),
        }
    }

    fn done(self, detail: impl Into<String>) {
        tell(&Progress::Done {
            step: self.name,
            detail: detail.into(),
            millis: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
    }
}

/// What a process of the lab did.
#[derive(Debug)]
enum Happened {
    Ready(String),
    /// It gave up, and said why.
    Failed(String, String),
    /// It ended without a word.
    Ended(String, String),
}

struct Supervisor {
    paths: Paths,
    spec: LabSpec,
    reaper: Reaper,
    ending: CancellationToken,
    happened: mpsc::UnboundedSender<Happened>,
}

impl Supervisor {
    async fn run(request: &UpRequest) -> Result<(), Error> {
        let started = Instant::now();
        let end = end_of_lab(!request.detach)?;
        let paths = request.paths();
        std::fs::create_dir_all(paths.run()).map_err(Error::file("create", paths.run()))?;
        let Some(_lock) = lock::take(&paths.lock())? else {
            return Err(Error::Running {
                name: request.name.clone(),
                pid: lock::holder(&paths.lock()).unwrap_or_default(),
            });
        };
        // What a killed lab of this name left, with the ranges that it had.
        let leftover: Option<Running> = read_json(&paths.running())?;
        if leftover.is_some() {
            let step = Step::begin("cleaning up after a lab that was killed");
            down::sweep(&paths, &request.name, leftover.as_ref())?;
            step.done("");
        }
        let result = Self::live(request, &paths, started, end).await;
        // The floor under the containers must go before its directory can.
        let swept = seaway_kernel::mount::unmount_if_mounted(&paths.run_nodes())
            .map_err(|error| Error::step("removing the containers", error))
            .and_then(|()| read_json(&paths.running()))
            .and_then(|running| down::sweep(&paths, &request.name, running.as_ref()))
            .and_then(|()| down::forget(&paths));
        if let (Err(_), Err(error)) = (&result, &swept) {
            tracing::error!(%error, "cleaning up");
        }
        result.and(swept)
    }

    async fn live(
        request: &UpRequest,
        paths: &Paths,
        started: Instant,
        end: CancellationToken,
    ) -> Result<(), Error> {
        let spec = choose(request, paths).await?;
        let mut running = Running {
            spec: spec.clone(),
            data: request.data.clone(),
            started_at: seconds_since_1970(),
            ready: false,
        };
        write_json(&paths.running(), &running)?;
        std::fs::create_dir_all(paths.run_nodes())
            .map_err(Error::file("create", paths.run_nodes()))?;
        seaway_kernel::mount::tmpfs(&paths.run_nodes(), None, 0o755)
            .map_err(|error| Error::step("making room for containers", error))?;

        let step = Step::begin("network");
        let fabric = Fabric::create(&spec).await?;
        step.done(format!(
            "{} nodes on {}, Pods {}, Services {}",
            spec.nodes, spec.node_cidr, spec.pod_cidr, spec.service_cidr
        ));

        let (happened, mut happenings) = mpsc::unbounded_channel();
        let supervisor = Arc::new(Self {
            paths: paths.clone(),
            spec,
            reaper: Reaper::start()
                .map_err(|error| Error::step("starting the supervisor", error))?,
            ending: CancellationToken::new(),
            happened,
        });
        let result = supervisor.start_all(&fabric, &mut happenings, &end).await;
        if result.is_ok() {
            running.ready = true;
            write_json(&paths.running(), &running)?;
            tell(&Progress::Ready {
                millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            });
            supervisor.watch(&mut happenings, &end).await;
        }
        supervisor.end_all().await;
        let removed = fabric.remove().await;
        result.and(removed)
    }

    /// Starts every process and waits until each says that it is ready.
    async fn start_all(
        self: &Arc<Self>,
        fabric: &Fabric,
        happenings: &mut mpsc::UnboundedReceiver<Happened>,
        end: &CancellationToken,
    ) -> Result<(), Error> {
        let step = Step::begin("certificates");
        self.credentials()?;
        step.done(self.paths.kubeconfig().display().to_string());

        let mut steps = Vec::new();
        steps.push(("control-plane".to_owned(), Step::begin("API server")));
        self.control_plane()?;
        for (index, (node, address)) in self.spec.node_list().into_iter().enumerate() {
            if let Some(netns) = fabric.node_netns(index) {
                steps.push((node.clone(), Step::begin(node.clone())));
                self.agent(&node, address, netns)?;
            }
        }
        let limit = tokio::time::sleep(START_LIMIT);
        tokio::pin!(limit);
        while !steps.is_empty() {
            let happened = tokio::select! {
                happened = happenings.recv() => happened,
                () = end.cancelled() => return Err(Error::step("starting", "asked to end before the lab was ready")),
                () = &mut limit => None,
            };
            match happened {
                Some(Happened::Ready(name)) => {
                    if let Some(at) = steps.iter().position(|(waiting, _)| *waiting == name) {
                        let detail = if name == "control-plane" {
                            format!("https://{}", self.spec.local_api())
                        } else {
                            "Ready".to_owned()
                        };
                        steps.remove(at).1.done(detail);
                    }
                }
                Some(Happened::Failed(name, message)) => {
                    return Err(Error::step("starting", format!("{name}: {message}")));
                }
                Some(Happened::Ended(name, how)) => {
                    return Err(Error::step(
                        "starting",
                        format!(
                            "{name} ended ({how}); {} says why",
                            self.paths.log(&name).display()
                        ),
                    ));
                }
                None => {
                    let names: Vec<&str> = steps.iter().map(|(name, _)| name.as_str()).collect();
                    return Err(Error::step(
                        "starting",
                        format!(
                            "{} not ready within {} s; the logs are in {}",
                            names.join(", "),
                            START_LIMIT.as_secs(),
                            self.paths.logs().display()
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The lab lives until it is asked to end.
    async fn watch(
        &self,
        happenings: &mut mpsc::UnboundedReceiver<Happened>,
        end: &CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                happened = happenings.recv() => match happened {
                    Some(Happened::Ready(name)) => tracing::info!(process = name, "ready again"),
                    Some(Happened::Failed(name, message)) => tracing::warn!(process = name, message, "gave up"),
                    Some(Happened::Ended(name, how)) => tracing::warn!(process = name, how, "ended"),
                    None => return,
                },
            }
        }
    }

    /// Certificates and kubeconfigs of every process.
    fn credentials(&self) -> Result<(), Error> {
        let spec = &self.spec;
        let nodes: Vec<_> = spec
            .node_list()
            .into_iter()
            .map(|(name, address)| (name, address.into()))
            .collect();
        let names: Vec<SubjectName> = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ]
        .into_iter()
        .map(|name| SubjectName::Dns(name.to_owned()))
        .chain([SubjectName::Dns(format!(
            "kubernetes.default.svc.{CLUSTER_DOMAIN}"
        ))])
        .chain(
            [
                Ipv4Addr::LOCALHOST,
                spec.host_address(),
                spec.kubernetes_address(),
            ]
            .map(|address| SubjectName::Address(address.into())),
        )
        .collect();
        let made = || -> Result<_, pki::Error> {
            let pki = Pki::ensure(&self.paths.pki(), &names, &nodes)?;
            let cluster = format!("seaway-{}", spec.name);
            let local = format!("https://{}", spec.local_api());
            let inside = format!("https://{}", spec.fabric_api());
            let authority = pki.authority_pem()?;
            let kubeconfig = |server: &str, user: &pki::Credential| -> Result<String, pki::Error> {
                let (certificate, key) = user.read()?;
                Ok(pki::kubeconfig(
                    server,
                    &authority,
                    &certificate,
                    &key,
                    &cluster,
                ))
            };
            let mut files = vec![
                (self.paths.kubeconfig(), kubeconfig(&local, &pki.admin)?),
                (
                    self.kubeconfig("controllers"),
                    kubeconfig(&local, &pki.controllers)?,
                ),
            ];
            for (node, _) in &nodes {
                files.push((self.kubeconfig(node), kubeconfig(&inside, &pki.node(node))?));
            }
            Ok(files)
        };
        for (path, text) in made().map_err(|error| Error::step("making certificates", error))? {
            write_whole(&path, text.as_bytes())?;
        }
        Ok(())
    }

    fn kubeconfig(&self, user: &str) -> PathBuf {
        self.paths.pki().join(format!("{user}.kubeconfig"))
    }

    fn control_plane(self: &Arc<Self>) -> Result<(), Error> {
        let spec = &self.spec;
        self.keep_running(
            "control-plane",
            &ControlPlaneConfig {
                lab: spec.name.clone(),
                listen: vec![spec.local_api(), spec.fabric_api()],
                advertise: spec.fabric_api(),
                store: self.paths.store(),
                pki: self.paths.pki(),
                kubeconfig: self.kubeconfig("controllers"),
                pod_cidr: spec.pod_cidr,
                service_cidr: spec.service_cidr,
                dns: spec.dns_address(),
                disabled_admission_plugins: spec.disabled_admission_plugins.clone(),
                without_scheduler: spec.without_scheduler,
                node_ports: spec.node_ports,
            },
            None,
        )
    }

    fn agent(self: &Arc<Self>, node: &str, address: Ipv4Addr, netns: &NetNs) -> Result<(), Error> {
        let state = self.paths.run_node(node);
        let durable = self.paths.node(node);
        for dir in [&state, &durable] {
            std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        }
        let upstreams = if self.spec.internet {
            name_servers::upstreams(
                &std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            )
        } else {
            Vec::new()
        };
        self.keep_running(
            node,
            &AgentConfig {
                lab: self.spec.name.clone(),
                node: node.to_owned(),
                address,
                kubeconfig: self.kubeconfig(node),
                pki: self.paths.pki(),
                state,
                durable,
                images: self.paths.images(),
                cgroup: format!("{}/{node}", self.paths.cgroup()),
                pod_cidr: self.spec.pod_cidr,
                service_cidr: self.spec.service_cidr,
                dns: self.spec.dns_address(),
                upstreams,
            },
            Some(netns.clone()),
        )
    }

    /// Starts a process and, until the lab ends, starts it again whenever it dies.
    fn keep_running(
        self: &Arc<Self>,
        name: &str,
        config: &impl Serialize,
        netns: Option<NetNs>,
    ) -> Result<(), Error> {
        let kind = if netns.is_some() {
            "agent"
        } else {
            "control-plane"
        };
        let config_path = self.paths.run().join(format!("{name}.json"));
        write_json(&config_path, config)?;
        let exe = std::env::current_exe().map_err(Error::file("find", "the seaway program"))?;
        let log_path = self.paths.log(name);
        let log = std::fs::File::create(&log_path).map_err(Error::file("create", &log_path))?;
        let command = move || -> std::io::Result<Command> {
            let mut command = Command::new(&exe);
            command
                .args(["internal", kind])
                .arg(&config_path)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(log.try_clone()?);
            if let Some(netns) = &netns {
                command.in_netns(netns);
            }
            Ok(command)
        };
        let name = name.to_owned();
        let supervisor = Arc::clone(self);
        tokio::spawn(async move {
            let mut pause = BACK_OFF.0;
            while !supervisor.ending.is_cancelled() {
                let since = Instant::now();
                let happened = match supervisor.run_once(&name, command()).await {
                    Ok(how) => Happened::Ended(name.clone(), how),
                    Err(error) => Happened::Failed(name.clone(), error.to_string()),
                };
                // The receiver goes only with the whole lab.
                let _ = supervisor.happened.send(happened);
                if since.elapsed() > STEADY {
                    pause = BACK_OFF.0;
                }
                tokio::select! {
                    () = supervisor.ending.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(BACK_OFF.1);
            }
        });
        Ok(())
    }

    /// Runs a process to its end; returns how it ended.
    async fn run_once(
        &self,
        name: &str,
        command: std::io::Result<Command>,
    ) -> Result<String, Error> {
        let mut command = command.map_err(Error::file("open", self.paths.log(name)))?;
        let mut child = self
            .reaper
            .spawn(&mut command)
            .map_err(|error| Error::step("starting a process", error))?;
        let mut failed = None;
        if let Some(out) = child.stdout.take() {
            let out = tokio::net::unix::pipe::Receiver::from_owned_fd(out.into())
                .map_err(|error| Error::step("listening to a process", error))?;
            let mut lines = BufReader::new(out).lines();
            // The pipe is open in what the process started too (containers' shims), so its end is not waited for.
            loop {
                let line = tokio::select! {
                    line = lines.next_line() => line,
                    _ = child.wait() => break,
                };
                let Ok(Some(line)) = line else { break };
                match serde_json::from_str(&line) {
                    Ok(Report::Ready) => {
                        let _ = self.happened.send(Happened::Ready(name.to_owned()));
                    }
                    Ok(Report::Failed { message }) => failed = Some(message),
                    Err(_) => tracing::warn!(process = name, line, "not a report"),
                }
            }
        }
        let status = child
            .wait()
            .await
            .map_err(|error| Error::step("waiting for a process", error))?;
        match failed {
            Some(message) => Err(Error::Supervisor(message)),
            None => Ok(status.to_string()),
        }
    }

    /// Ends every process of the lab: all are in this PID namespace, whoever started them.
    async fn end_all(&self) {
        self.ending.cancel();
        let deadline = Instant::now() + END_LIMIT;
        signal_all(Signal::TERM);
        while others_alive() {
            if Instant::now() > deadline {
                signal_all(Signal::KILL);
            }
            if Instant::now() > deadline + END_LIMIT {
                tracing::error!("processes of the lab do not end");
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Sends a signal to every process of the PID namespace but this one. Only ever as PID 1: anywhere else it would
/// reach the whole machine.
fn signal_all(signal: Signal) {
    if std::process::id() == 1 {
        // `ESRCH`: nobody is left, which is what is wanted.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(-1),
            nix::sys::signal::Signal::try_from(signal.as_raw()).ok(),
        );
    }
}

/// Whether the PID namespace has any process but this one (`/proc` is the namespace's own).
fn others_alive() -> bool {
    std::fs::read_dir("/proc").is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
                .is_some_and(|pid| pid != 1)
        })
    })
}

/// Cancelled when somebody asks the lab to end: SIGTERM, SIGINT, or the end of the process that holds the lifeline.
fn end_of_lab(lifeline: bool) -> Result<CancellationToken, Error> {
    let end = CancellationToken::new();
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        let mut signals =
            signal(kind).map_err(|error| Error::step("listening for signals", error))?;
        let end = end.clone();
        tokio::spawn(async move {
            signals.recv().await;
            end.cancel();
        });
    }
    if lifeline {
        let end = end.clone();
        std::thread::spawn(move || {
            // Nothing is ever written; the read returns when the other end closes.
            let _ = std::io::stdin().read(&mut [0]);
            end.cancel();
        });
    }
    Ok(end)
}

/// What the lab is made of: what it was before, with what is asked now.
async fn choose(request: &UpRequest, paths: &Paths) -> Result<LabSpec, Error> {
    let before: Option<LabSpec> = read_json(&paths.spec())?;
    let others: Vec<LabSpec> = running_names()
        .into_iter()
        .filter(|name| *name != request.name)
        .filter_map(|name| {
            read_json::<Running>(&Paths::new(&request.data, &name).running()).ok()?
        })
        .map(|running| running.spec)
        .collect();
    let wanted = Wanted {
        node_cidr: request
            .node_cidr
            .or(before.as_ref().map(|spec| spec.node_cidr)),
        pod_cidr: request
            .pod_cidr
            .or(before.as_ref().map(|spec| spec.pod_cidr)),
        service_cidr: request
            .service_cidr
            .or(before.as_ref().map(|spec| spec.service_cidr)),
    };
    let ranges = fabric::choose_ranges(&wanted, &others).await?;
    let spec = LabSpec {
        name: request.name.clone(),
        nodes: request
            .nodes
            .or(before.as_ref().map(|spec| spec.nodes))
            .unwrap_or(3),
        node_cidr: ranges.node_cidr,
        pod_cidr: ranges.pod_cidr,
        service_cidr: ranges.service_cidr,
        api_port: choose_port(request, before.as_ref(), &others)?,
        internet: request.internet,
        disabled_admission_plugins: request.disabled_admission_plugins.clone(),
        without_scheduler: request.without_scheduler,
        node_ports: request.node_ports,
    };
    std::fs::create_dir_all(paths.lab()).map_err(Error::file("create", paths.lab()))?;
    write_json(&paths.spec(), &spec)?;
    Ok(spec)
}

/// The port asked for or used before must be free; else the first free one from 6443 up.
fn choose_port(
    request: &UpRequest,
    before: Option<&LabSpec>,
    others: &[LabSpec],
) -> Result<u16, Error> {
    const FIRST: u16 = 6443;
    const TRIES: u16 = 100;
    let free = |port: u16| {
        others.iter().all(|other| other.api_port != port)
            && std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    };
    match request.api_port.or(before.map(|spec| spec.api_port)) {
        Some(port) if free(port) => Ok(port),
        Some(port) => Err(Error::PortTaken { port }),
        None => (FIRST..FIRST + TRIES)
            .find(|port| free(*port))
            .ok_or(Error::PortTaken { port: FIRST }),
    }
}

fn seconds_since_1970() -> i64 {
    jiff::Timestamp::now().as_second()
}
