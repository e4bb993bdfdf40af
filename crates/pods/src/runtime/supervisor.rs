//! The runtime of one node: starts sandboxes and shims, finds them again, and learns when they end.
//!
//! The files of the state directory are the truth; nothing is remembered here that is not written there, so a new
//! agent knows what the old one knew. What runs is held by pidfds. A shim writes its container's state before it
//! ends, so the end of the shim is the one event to wait for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::process::ProcessId;
use super::session::Session;
use super::state::{
    ContainerDir, ContainerId, SandboxRecord, StartRecord, StateDir, StateRecord, create_dir_all,
    file, remove_dir_all,
};
use super::wire::Frame;
use super::{
    Changed, Container, ContainerPhase, ContainerSpec, ExecRequest, RuntimeConfig, RuntimeError,
    Sandbox, SandboxSpec, cgroups, sandbox, shim,
};
use crate::images::Images;

/// How long a helper may take until it is ready. A loaded machine is slow, a hanging one never ready.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long the kernel may take to end what was killed.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// A shim that was started by a former agent has written its first state by then, or it never will.
const CLAIM_LIMIT: Duration = Duration::from_secs(2);
/// Longest termination message (kubelet: MaxContainerTerminationMessageLength).
const MAX_TERMINATION_MESSAGE: usize = 4096;

/// The container runtime of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: StateDir,
    images: Images,
    exe: PathBuf,
    cgroup_parent: String,
    changes: mpsc::UnboundedSender<Changed>,
}

impl Runtime {
    /// Opens the state directory, and finds again the sandboxes and containers that a former agent left there.
    /// The receiver tells of every Pod whose sandbox or containers changed by themselves.
    pub async fn open(
        config: RuntimeConfig,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Changed>), RuntimeError> {
        let (changes, receiver) = mpsc::unbounded_channel();
        let exe = config
            .exe
            .canonicalize()
            .map_err(file("find", &config.exe))?;
        let runtime = Self {
            inner: Arc::new(Inner {
                state: StateDir::open(&config.state_dir)?,
                images: config.images,
                exe,
                cgroup_parent: config.cgroup_parent,
                changes,
            }),
        };
        for uid in runtime.pods()? {
            if let Some(record) = runtime.inner.state.sandbox(&uid)? {
                runtime.watch_sandbox(&uid, record.process);
            }
            for id in runtime.inner.state.containers(&uid)? {
                runtime.recover(&id).await?;
            }
        }
        Ok((runtime, receiver))
    }

    /// Starts the process that holds the namespaces of a Pod. The network namespace has nothing but `lo`, up;
    /// its path is [`Sandbox::netns`]. A sandbox that is there already and alive is returned as it is.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, RuntimeError> {
        if let Some(sandbox) = self.sandbox(&spec.pod_uid)? {
            return Ok(sandbox);
        }
        let uid = spec.pod_uid.clone();
        let dir = self.pod_dir(&uid)?;
        let shm = dir.join("shm");
        create_dir_all(&shm)?;
        fs::set_permissions(&shm, std::os::unix::fs::PermissionsExt::from_mode(0o1777))
            .map_err(file("open to all", &shm))?;
        let attempt = self
            .inner
            .state
            .sandbox(&uid)?
            .map_or(0, |former| former.sandbox.attempt + 1);

        const WHAT: &str = "the sandbox process";
        let spawned = |source| RuntimeError::Spawn { what: WHAT, source };
        let argument = serde_json::to_string(&spec).map_err(|source| RuntimeError::State {
            path: dir.clone(),
            source,
        })?;
        let mut child = Command::new(&self.inner.exe)
            .args(["internal", "sandbox", &argument])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(spawned)?;
        let mut answer = Vec::new();
        let ready = match child.stdout.take() {
            Some(stdout) => timeout(START_LIMIT, stdout.take(64).read_to_end(&mut answer)).await,
            None => Ok(Ok(0)),
        };
        if !matches!(ready, Ok(Ok(_))) || answer != sandbox::READY.as_bytes() {
            let mut message = String::new();
            // It may hang as well as have failed.
            let _ = child.start_kill();
            if let Some(stderr) = child.stderr.take() {
                let _ = timeout(KILL_LIMIT, stderr.take(4096).read_to_string(&mut message)).await;
            }
            let _ = timeout(KILL_LIMIT, child.wait()).await;
            return Err(RuntimeError::Helper {
                what: WHAT,
                message: message.trim().to_owned(),
            });
        }
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .unwrap_or(0);
        let process = ProcessId::of(pid)
            .map_err(|source| RuntimeError::Process {
                operation: "look at",
                pid,
                source,
            })?
            .ok_or_else(|| RuntimeError::Helper {
                what: WHAT,
                message: "it ended at once".to_owned(),
            })?;
        reap(child);
        let sandbox = Sandbox { spec, pid, attempt };
        self.inner.state.write_sandbox(&SandboxRecord {
            sandbox: sandbox.clone(),
            process,
        })?;
        self.watch_sandbox(&uid, process);
        Ok(sandbox)
    }

    /// The sandbox of a Pod if it is alive.
    pub fn sandbox(&self, pod_uid: &str) -> Result<Option<Sandbox>, RuntimeError> {
        Ok(self.living_sandbox(pod_uid)?.map(|record| record.sandbox))
    }

    /// All living sandboxes.
    pub fn sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        let mut found = Vec::new();
        for uid in self.pods()? {
            found.extend(self.sandbox(&uid)?);
        }
        Ok(found)
    }

    /// Pods of which there is anything left, living or not.
    pub fn pods(&self) -> Result<Vec<String>, RuntimeError> {
        self.inner.state.pods()
    }

    /// Ends a Pod's containers at once, removes them and the sandbox, and with it [`Runtime::pod_dir`].
    /// Nothing there is not an error.
    pub async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        let dir = self.inner.state.pod(pod_uid)?;
        for id in self.inner.state.containers(pod_uid)? {
            self.remove(&id).await?;
        }
        if let Some(record) = self.inner.state.sandbox(pod_uid)? {
            kill_and_wait(record.process).await?;
        }
        let cgroup = self.pod_cgroup(pod_uid);
        blocking(move || {
            cgroups::remove_cgroup(&cgroup)?;
            remove_dir_all(&dir)
        })
        .await
    }

    /// Creates and starts a container and returns when it runs, or when it is clear that it cannot: that is then
    /// `Exited` with code 128 and the reason, not an error. One that ends at once may be `Exited` as well.
    pub async fn start_container(&self, spec: ContainerSpec) -> Result<Container, RuntimeError> {
        let id = ContainerId::of(&spec)?;
        let sandbox =
            self.living_sandbox(&spec.pod_uid)?
                .ok_or_else(|| RuntimeError::NoSandbox {
                    pod_uid: spec.pod_uid.clone(),
                })?;
        let image = self.inner.images.resolve(&spec.image_id)?.ok_or_else(|| {
            crate::images::ImageError::NotFound {
                name: spec.image_id.clone(),
            }
        })?;
        let dir = self.inner.state.container(&id);
        for name in ["rootfs", "writable", "oci"] {
            create_dir_all(&dir.path.join(name))?;
        }
        let log = dir.log();
        fs::File::create(&log).map_err(file("create", &log))?;
        dir.write_start(&StartRecord {
            cgroup: format!(
                "{}/{}.{}",
                self.pod_cgroup(&id.pod_uid),
                id.name,
                id.attempt
            ),
            shm: self.inner.state.pod(&id.pod_uid)?.join("shm"),
            spec,
            image,
            sandbox: sandbox.process,
            exe: self.inner.exe.clone(),
            hidden: self.hidden(),
        })?;

        const WHAT: &str = "the container's shim";
        let shim_log = dir.shim_log();
        let stderr = fs::File::create(&shim_log).map_err(file("create", &shim_log))?;
        let mut child = Command::new(&self.inner.exe)
            .args(["internal", "shim"])
            .arg(&dir.path)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|source| RuntimeError::Spawn { what: WHAT, source })?;
        let stdout = child.stdout.take();
        reap(child);
        if let Some(mut stdout) = stdout {
            // It says nothing; it closes its output when the container runs, and so does its death.
            let mut nothing = [0u8; 16];
            match timeout(START_LIMIT, stdout.read(&mut nothing)).await {
                Ok(Ok(_)) => {}
                Ok(Err(source)) => return Err(RuntimeError::Spawn { what: WHAT, source }),
                Err(_) => {
                    return Err(RuntimeError::Timeout {
                        what: format!("container {id} to start"),
                        seconds: START_LIMIT.as_secs(),
                    });
                }
            }
        }
        self.recover(&id).await?;
        let container = self
            .look_at(&id)?
            .ok_or_else(|| RuntimeError::NoContainer { id: id.to_string() })?;
        if matches!(container.phase, ContainerPhase::Exited { .. }) {
            // Nothing is left to watch, and who only waits for changes should not wait in vain.
            self.tell(&id.pod_uid);
        }
        Ok(container)
    }

    /// All containers of a Pod that were not removed, by name and then attempt.
    pub fn containers(&self, pod_uid: &str) -> Result<Vec<Container>, RuntimeError> {
        let mut found = Vec::new();
        for id in self.inner.state.containers(pod_uid)? {
            found.extend(self.look_at(&id)?);
        }
        Ok(found)
    }

    /// One container.
    pub fn container(&self, id: &str) -> Result<Option<Container>, RuntimeError> {
        self.look_at(&id.parse()?)
    }

    /// Asks a container to end by its image's stop signal, and after `grace` ends it and all its processes.
    /// Returns when it has ended.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let id: ContainerId = id.parse()?;
        let (start, state) = self.running(&id).await?;
        if let Some(init) = state.init
            && !grace.is_zero()
        {
            let name = start
                .image
                .config
                .stop_signal
                .as_deref()
                .unwrap_or("SIGTERM");
            let signal = parse_signal(name).unwrap_or(Signal::TERM);
            send(init, signal)?;
            if timeout(grace, ended(init)).await.is_ok() {
                return self.settle(&id).await;
            }
        }
        self.kill(&id).await
    }

    /// Removes what is left of a container: logs, exit status, cgroup. Ends it first if it still runs.
    pub async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.remove(&id.parse()?).await
    }

    /// Runs a process in a container. Dropping the session's input ends the process.
    pub async fn exec(&self, id: &str, request: ExecRequest) -> Result<Session, RuntimeError> {
        let id: ContainerId = id.parse()?;
        let dir = self.dir_of_running(&id)?;
        const WHAT: &str = "the exec helper";
        let spawned = |source| RuntimeError::Spawn { what: WHAT, source };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(spawned)?;
        ours.set_nonblocking(true).map_err(spawned)?;
        let ours = tokio::net::UnixStream::from_std(ours).map_err(spawned)?;
        let child = Command::new(&self.inner.exe)
            .args(["internal", "exec-helper"])
            .arg(&dir.path)
            .env_clear()
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(spawned)?;
        reap(child);
        let json = serde_json::to_vec(&request).map_err(|source| RuntimeError::State {
            path: dir.path.clone(),
            source,
        })?;
        let begin = Session::begin(ours, Some(Frame::Request(Bytes::from(json))));
        match timeout(START_LIMIT, begin).await {
            Ok(Err(RuntimeError::Session { .. })) if self.dir_of_running(&id).is_err() => {
                Err(RuntimeError::NotRunning { id: id.to_string() })
            }
            Ok(session) => session,
            Err(_) => Err(RuntimeError::Timeout {
                what: format!("a process in container {id} to start"),
                seconds: START_LIMIT.as_secs(),
            }),
        }
    }

    /// Connects to the first process of a running container: its output from now on, and its input if it was
    /// started with `stdin` or `tty`.
    pub async fn attach(&self, id: &str) -> Result<Session, RuntimeError> {
        let id: ContainerId = id.parse()?;
        let dir = self.dir_of_running(&id)?;
        // The path of a socket may have 107 bytes; through the descriptor of its directory it always fits.
        let opened = fs::File::open(&dir.path).map_err(file("open", &dir.path))?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&opened);
        let path = format!("/proc/self/fd/{fd}/{}", shim::ATTACH_SOCKET);
        let stream = tokio::net::UnixStream::connect(&path)
            .await
            .map_err(|source| RuntimeError::Session { source })?;
        match timeout(START_LIMIT, Session::begin(stream, None)).await {
            Ok(session) => session,
            Err(_) => Err(RuntimeError::Timeout {
                what: format!("container {id} to take the connection"),
                seconds: START_LIMIT.as_secs(),
            }),
        }
    }

    /// The container's log in the CRI format (`<RFC 3339> stdout|stderr F|P <text>`). At 10 MiB it is renamed to
    /// the same path with `.1` appended, which replaces the former one.
    pub fn log_path(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        Ok(self.inner.state.container(&id.parse()?).log())
    }

    /// What the container wrote to its termination message path, up to 4096 bytes.
    pub fn termination_message(&self, id: &str) -> Result<String, RuntimeError> {
        let path = self.inner.state.container(&id.parse()?).termination();
        let mut bytes = Vec::new();
        match fs::File::open(&path) {
            Ok(opened) => {
                io::Read::read_to_end(
                    &mut io::Read::take(opened, MAX_TERMINATION_MESSAGE as u64),
                    &mut bytes,
                )
                .map_err(file("read", &path))?;
            }
            // The container never came that far.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file("open", &path)(error)),
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The Pod's own directory, made when missing: for volumes and the like. [`Runtime::remove_sandbox`] removes it.
    pub fn pod_dir(&self, pod_uid: &str) -> Result<PathBuf, RuntimeError> {
        let dir = self.inner.state.pod(pod_uid)?;
        create_dir_all(&dir)?;
        Ok(dir)
    }

    fn pod_cgroup(&self, uid: &str) -> String {
        format!(
            "{}/pod{uid}",
            self.inner.cgroup_parent.trim_end_matches('/')
        )
    }

    /// What of the machine a container on its root file system must not see: sockets of its services, other
    /// people's files, and our own data with its keys.
    fn hidden(&self) -> Vec<PathBuf> {
        let mut hidden: Vec<PathBuf> = ["/run", "/tmp"].map(PathBuf::from).into();
        let data = self.inner.images.data_dir();
        for dir in [Path::new("/var/lib/seaway"), &data] {
            let covered = hidden.iter().any(|other| dir.starts_with(other));
            if dir.is_dir() && !covered && dir != Path::new("/") {
                hidden.push(dir.to_owned());
            }
        }
        hidden
    }

    fn living_sandbox(&self, uid: &str) -> Result<Option<SandboxRecord>, RuntimeError> {
        let Some(record) = self.inner.state.sandbox(uid)? else {
            return Ok(None);
        };
        let pid = record.process.pid;
        let alive = record
            .process
            .is_alive()
            .map_err(|source| RuntimeError::Process {
                operation: "look at",
                pid,
                source,
            })?;
        Ok(alive.then_some(record))
    }

    fn look_at(&self, id: &ContainerId) -> Result<Option<Container>, RuntimeError> {
        let dir = self.inner.state.container(id);
        let Some(start) = dir.start()? else {
            return Ok(None);
        };
        let phase = dir
            .state()?
            .map_or(ContainerPhase::Creating, |state| state.phase);
        Ok(Some(Container {
            id: id.to_string(),
            spec: start.spec,
            phase,
        }))
    }

    fn dir_of_running(&self, id: &ContainerId) -> Result<ContainerDir, RuntimeError> {
        match self.look_at(id)?.map(|container| container.phase) {
            None => Err(RuntimeError::NoContainer { id: id.to_string() }),
            Some(ContainerPhase::Running { .. }) => Ok(self.inner.state.container(id)),
            Some(_) => Err(RuntimeError::NotRunning { id: id.to_string() }),
        }
    }

    /// Start and state of a container once it is not being created any more.
    async fn running(&self, id: &ContainerId) -> Result<(StartRecord, StateRecord), RuntimeError> {
        let dir = self.inner.state.container(id);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let start = dir
                .start()?
                .ok_or_else(|| RuntimeError::NoContainer { id: id.to_string() })?;
            match dir.state()? {
                Some(state) if state.phase != ContainerPhase::Creating => {
                    return Ok((start, state));
                }
                _ if Instant::now() > deadline => {
                    return Err(RuntimeError::Timeout {
                        what: format!("container {id} to be created"),
                        seconds: START_LIMIT.as_secs(),
                    });
                }
                // Only while somebody stops what somebody else just starts.
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let dir = self.inner.state.container(id);
        let Some(start) = dir.start()? else {
            // Perhaps a directory that was made and not filled.
            return blocking(move || remove_dir_all(&dir.path)).await;
        };
        self.kill(id).await?;
        blocking(move || {
            cgroups::kill(&start.cgroup)?;
            cgroups::remove_cgroup(&start.cgroup)?;
            remove_dir_all(&dir.path)
        })
        .await
    }

    /// Ends a container at once and waits until its shim has written that.
    async fn kill(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let dir = self.inner.state.container(id);
        let Some(state) = dir.state()? else {
            return self.settle(id).await;
        };
        match (&state.phase, state.init, state.shim) {
            (ContainerPhase::Exited { .. }, _, _) => {}
            // PID 1 of its PID namespace: the kernel ends all others with it.
            (_, Some(init), _) => {
                send(init, Signal::KILL)?;
            }
            // Still being created: nothing runs yet that anybody depends on.
            (_, None, Some(shim)) => {
                send(shim, Signal::KILL)?;
            }
            (_, None, None) => {}
        }
        self.settle(id).await
    }

    /// Waits until a container's shim is gone, and then makes sure that its end is written.
    async fn settle(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let dir = self.inner.state.container(id);
        if let Some(shim) = dir.state()?.and_then(|state| state.shim) {
            timeout(KILL_LIMIT, ended(shim))
                .await
                .map_err(|_| RuntimeError::Timeout {
                    what: format!("container {id} to end"),
                    seconds: KILL_LIMIT.as_secs(),
                })?;
        }
        self.conclude(id)
    }

    /// Writes the end of a container whose shim is gone without having done so.
    fn conclude(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let dir = self.inner.state.container(id);
        let Some(start) = dir.start()? else {
            return Ok(());
        };
        let (message, started_at) = match dir.state()? {
            Some(StateRecord {
                phase: ContainerPhase::Exited { .. },
                ..
            }) => return Ok(()),
            Some(StateRecord {
                phase: ContainerPhase::Running { started_at, .. },
                init,
                ..
            }) => {
                if let Some(init) = init {
                    send(init, Signal::KILL)?;
                }
                (
                    "the container's shim ended before it did".to_owned(),
                    Some(started_at),
                )
            }
            _ => {
                let last_words = fs::read_to_string(dir.shim_log()).unwrap_or_default();
                let message = match last_words.trim() {
                    "" => "the container's shim ended before the container was started",
                    words => words,
                };
                (message.to_owned(), None)
            }
        };
        cgroups::kill(&start.cgroup)?;
        let finished_at = Timestamp::now().as_second();
        // Without a shim nobody knows; 137 is what its processes got, 128 that it never started.
        let code = if started_at.is_some() { 137 } else { 128 };
        let message = Some(message);
        let signal = started_at.map(|_| Signal::KILL.as_raw());
        let phase = ContainerPhase::Exited {
            code,
            signal,
            oom_killed: false,
            started_at,
            finished_at,
            message,
        };
        dir.write_state(&StateRecord {
            phase,
            shim: None,
            init: None,
        })
    }

    /// Looks after a container again: watches its shim, or writes its end when there is none.
    async fn recover(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let dir = self.inner.state.container(id);
        if dir.start()?.is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + CLAIM_LIMIT;
        let state = loop {
            if let Some(state) = dir.state()? {
                break state;
            }
            if Instant::now() > deadline {
                let never = StateRecord {
                    phase: ContainerPhase::Creating,
                    shim: None,
                    init: None,
                };
                // A shim that comes later still finds the place taken and goes.
                dir.claim_state(&never)?;
                return self.conclude(id);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        match (state.phase, state.shim) {
            (ContainerPhase::Exited { .. }, _) => Ok(()),
            (_, None) => self.conclude(id),
            (_, Some(shim)) => {
                let (runtime, id) = (self.clone(), id.clone());
                tokio::spawn(async move {
                    ended(shim).await;
                    if let Err(error) = runtime.conclude(&id) {
                        tracing::error!(container = %id, %error, "cannot write the end of a container");
                    }
                    runtime.tell(&id.pod_uid);
                });
                Ok(())
            }
        }
    }

    fn watch_sandbox(&self, uid: &str, process: ProcessId) {
        let (runtime, uid) = (self.clone(), uid.to_owned());
        tokio::spawn(async move {
            ended(process).await;
            runtime.tell(&uid);
        });
    }

    fn tell(&self, uid: &str) {
        // Nobody listens when the agent is going.
        let _ = self.inner.changes.send(Changed {
            pod_uid: uid.to_owned(),
        });
    }
}

/// Waits for a child in the background so that it does not stay a zombie. It lives on when this process ends.
fn reap(mut child: tokio::process::Child) {
    tokio::spawn(async move { child.wait().await });
}

/// Returns when a process has ended. One that cannot be watched is looked at from time to time.
async fn ended(process: ProcessId) {
    while let Err(error) = process.ended().await {
        tracing::warn!(pid = process.pid, %error, "cannot watch a process");
        if !process.is_alive().unwrap_or(true) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn send(process: ProcessId, signal: Signal) -> Result<bool, RuntimeError> {
    let pid = process.pid;
    process
        .signal(signal)
        .map_err(|source| RuntimeError::Process {
            operation: "signal",
            pid,
            source,
        })
}

async fn kill_and_wait(process: ProcessId) -> Result<(), RuntimeError> {
    if send(process, Signal::KILL)? {
        timeout(KILL_LIMIT, ended(process))
            .await
            .map_err(|_| RuntimeError::Timeout {
                what: format!("process {} to end", process.pid),
                seconds: KILL_LIMIT.as_secs(),
            })?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| RuntimeError::Interrupted)?
}

/// `SIGTERM`, `TERM` or `15`.
fn parse_signal(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse::<i32>() {
        return Signal::from_named_raw(number);
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") {
        name
    } else {
        format!("SIG{name}")
    };
    let signal: nix::sys::signal::Signal = name.parse().ok()?;
    Signal::from_named_raw(signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_names_or_numbers() {
        assert_eq!(parse_signal("SIGQUIT"), Some(Signal::QUIT));
        assert_eq!(parse_signal("quit"), Some(Signal::QUIT));
        assert_eq!(parse_signal("15"), Some(Signal::TERM));
        assert_eq!(parse_signal("SIGNONE"), None);
        assert_eq!(parse_signal("4096"), None);
    }
}
