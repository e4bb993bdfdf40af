//! `seaway internal shim`: one process per container that makes it, keeps its log and waits for it.
//!
//! libcontainer forks and must not find a second thread, and somebody has to be the parent that learns a container's
//! exit status while agents come and go. Both are this process. It belongs to nobody: it leaves the agent's session
//! and tells what it knows by `state.json`. Closing its standard output says that the container runs or never will.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::bundle::{self, Bundle};
use super::last_words::LastWords;
use super::log::LogWriter;
use super::process::ProcessId;
use super::program::{self, CommandLine, Program};
use super::relay::{Channels, End, Relay, SlowClient, pidfd_of_child, receive_terminal};
use super::state::{ContainerDir, StartRecord, StateRecord};
use super::users::{self, Identity, Wanted};
use super::{ContainerPhase, cgroups, rootfs};
use crate::rooted::Root;

/// libcontainer's name for the container; its state directory is the container's own, so one name does.
pub(super) const CONTAINER: &str = "container";
/// Where clients attach, in the container's directory.
pub(super) const ATTACH_SOCKET: &str = "attach.sock";
/// Exit code of a container that could not be started, as containerd gives.
const START_ERROR: i32 = 128;

/// Entry point of `seaway internal shim <container directory>`.
pub fn shim_main(args: &[String]) -> ExitCode {
    let [dir] = args else {
        eprintln!("usage: internal shim <container directory>");
        return ExitCode::FAILURE;
    };
    match run(&ContainerDir {
        path: PathBuf::from(dir),
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Error = Box<dyn std::error::Error>;

fn run(dir: &ContainerDir) -> Result<(), Error> {
    nix::unistd::setsid()?;
    nix::sys::prctl::set_name(c"seaway-shim")?;
    std::env::set_current_dir(&dir.path)?;
    let start = dir.start()?.ok_or("start.json is missing")?;
    let shim = Some(ProcessId::current()?);
    let creating = StateRecord {
        phase: ContainerPhase::Creating,
        shim,
        init: None,
    };
    if !dir.claim_state(&creating)? {
        // An agent that came back has given this container up.
        return Ok(());
    }
    let words = LastWords::collect(&dir.path.join("errors.log"))?;
    let started = match create(dir, &start) {
        Ok(started) => started,
        Err(error) => {
            let message = program::message_of(error.as_ref(), words.first());
            // It may have died on the way for its memory limit, and libcontainer removes only what it made itself.
            let oom_killed = cgroups::oom_killed(&start.cgroup).unwrap_or(false);
            cgroups::kill(&start.cgroup)?;
            let removed = cgroups::remove_cgroup(&start.cgroup);
            dir.write_state(&StateRecord {
                phase: ContainerPhase::Exited {
                    code: START_ERROR,
                    signal: None,
                    oom_killed,
                    started_at: None,
                    finished_at: Timestamp::now().as_second(),
                    message: Some(message),
                },
                shim,
                init: None,
            })?;
            return Ok(removed?);
        }
    };
    let started_at = Timestamp::now().as_second();
    let phase = ContainerPhase::Running {
        pid: started.init,
        started_at,
    };
    dir.write_state(&StateRecord {
        phase,
        shim,
        init: ProcessId::of(started.init)?,
    })?;
    // The agent reads standard output to its end.
    rustix::stdio::dup2_stdout(fs::OpenOptions::new().write(true).open("/dev/null")?)?;

    let mut relay = started.relay;
    match relay.run()? {
        End::Exited | End::HungUp => {}
    }
    let (code, signal) = exit_status(started.init)?;
    let oom_killed = signal.is_some() && cgroups::oom_killed(&start.cgroup)?;
    cgroups::kill(&start.cgroup)?;
    let removed = cgroups::remove_cgroup(&start.cgroup);
    dir.write_state(&StateRecord {
        phase: ContainerPhase::Exited {
            code,
            signal,
            oom_killed,
            started_at: Some(started_at),
            finished_at: Timestamp::now().as_second(),
            message: None,
        },
        shim,
        init: None,
    })?;
    relay.goodbye(code);
    Ok(removed?)
}

struct Started {
    init: i32,
    relay: Relay,
    _rootfs: rootfs::Mounted,
}

/// Makes the container and starts it.
fn create(dir: &ContainerDir, start: &StartRecord) -> Result<Started, Error> {
    let (spec, image) = (&start.spec, &start.image);
    if !start.sandbox.is_alive()? {
        return Err("the Pod's sandbox is gone".into());
    }
    let rootfs = rootfs::mount(&dir.path, &image.rootfs)?;
    let root = Root::open(&rootfs.path)?;
    let working_dir = bundle::working_dir(spec, image);
    if !working_dir.starts_with('/') {
        return Err(format!("working directory {working_dir:?} is not an absolute path").into());
    }
    let identity = users::resolve(
        &root,
        &Wanted {
            image: &image.config.user,
            user: spec.user,
            group: spec.group,
            supplemental: &spec.supplemental_groups,
        },
    )?;
    let env = bundle::environment(spec, image);
    let argv = CommandLine {
        image: &image.config,
        built_in: image.built_in,
        command: &spec.command,
        args: &spec.args,
        env: &env,
        working_dir,
    }
    .resolve(&root)?;
    if !is_on_a_volume(start, working_dir) {
        root.create_dir_all(Path::new(working_dir), Mode::from_raw_mode(0o755))?;
    }
    fs::write(dir.termination(), "")?;
    // The container may run as anybody.
    fs::set_permissions(
        dir.termination(),
        std::os::unix::fs::PermissionsExt::from_mode(0o666),
    )?;
    let config = Bundle {
        spec,
        image,
        argv,
        env,
        working_dir,
        identity: identity.clone(),
        available: available_capabilities()?,
        rootfs: &rootfs.path,
        sandbox_pid: start.sandbox.pid,
        cgroup: &start.cgroup,
        exe: &start.exe,
        shm: &start.shm,
        termination: &dir.termination(),
        hidden: &start.hidden,
    }
    .config();
    fs::write(dir.path.join("config.json"), serde_json::to_vec(&config)?)?;

    for mount in &spec.mounts {
        // libcontainer would say the same at length.
        let source = fs::metadata(&mount.source)
            .map_err(|error| format!("failed to mount {:?}: {error}", mount.source))?;
        if !source.is_dir() {
            clear_link(&root, &mount.destination)?;
        }
    }
    let stdio = Stdio::open(dir, spec.tty, spec.stdin, &identity)?;
    let builder = ContainerBuilder::new(CONTAINER.to_owned(), SyscallType::default())
        .with_root_path(dir.path.join("oci"))?
        .with_executor(Program);
    let (builder, pending) = stdio.give_to(builder, &dir.path);
    let mut container = builder
        .as_init(&dir.path)
        .with_systemd(false)
        .with_detach(true)
        .build()?;
    let init = container
        .pid()
        .ok_or("libcontainer did not tell the container's process")?;
    let relay = Relay::new(
        pidfd_of_child(init.as_raw())?,
        pending.channels()?,
        SlowClient::Drop,
    )?
    .log_to(LogWriter::open(&dir.log())?)
    .accept_from(UnixListener::bind(ATTACH_SOCKET)?, spec.stdin_once)?;
    container.start()?;
    Ok(Started {
        init: init.as_raw(),
        relay,
        _rootfs: rootfs,
    })
}

/// Bits of the capabilities of this process (proc_pid_status(5)). A container cannot have others.
fn available_capabilities() -> Result<u64, Error> {
    let status = fs::read_to_string("/proc/self/status")?;
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    let bits = permitted.ok_or("/proc/self/status has no CapPrm")?.trim();
    Ok(u64::from_str_radix(bits, 16)?)
}

/// Takes away a symbolic link on whose place a file is to be mounted. Where the machine's `/etc/resolv.conf` leads to
/// `/run/systemd/resolve`, the container's would have to be mounted on something that is hidden from it.
fn clear_link(root: &Root, path: &Path) -> io::Result<()> {
    let (dir, name) = match root.parent(path) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(()),
        // Nothing there yet; libcontainer makes the way.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
            Ok(rustix::fs::unlinkat(&dir, name, AtFlags::empty())?)
        }
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A volume hides what is made below it beforehand.
fn is_on_a_volume(start: &StartRecord, path: &str) -> bool {
    start
        .spec
        .mounts
        .iter()
        .any(|mount| Path::new(path).starts_with(&mount.destination))
}

/// Standard streams of a process to be, both ends.
pub(super) enum Stdio {
    Pipes {
        stdin: Option<(OwnedFd, OwnedFd)>,
        stdout: (OwnedFd, OwnedFd),
        stderr: (OwnedFd, OwnedFd),
    },
    Console {
        listener: UnixListener,
        name: String,
    },
}

/// Our ends, once the process has got its own.
pub(super) enum Pending {
    Pipes(Channels),
    Console(UnixListener),
}

impl Stdio {
    /// Makes pipes, or a console socket in the current directory, which must be `dir`.
    pub(super) fn open(
        dir: &ContainerDir,
        tty: bool,
        stdin: bool,
        identity: &Identity,
    ) -> Result<Self, Error> {
        if tty {
            let name = format!("console.{}.sock", std::process::id());
            debug_assert!(dir.path.is_absolute());
            let listener = UnixListener::bind(&name)?;
            return Ok(Self::Console { listener, name });
        }
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
        let stdio = Self::Pipes {
            stdin: if stdin { Some(pipe()?) } else { None },
            stdout: pipe()?,
            stderr: pipe()?,
        };
        if let Self::Pipes {
            stdin,
            stdout,
            stderr,
        } = &stdio
        {
            // So that the process may open /dev/stdout as well as write to it (runc: fixStdioPermissions).
            let own = |fd: &OwnedFd| {
                nix::unistd::fchown(
                    fd,
                    Some(Uid::from_raw(identity.uid)),
                    Some(Gid::from_raw(identity.gid)),
                )
            };
            own(&stdout.1)?;
            own(&stderr.1)?;
            if let Some((read, _)) = stdin {
                own(read)?;
            }
        }
        Ok(stdio)
    }

    pub(super) fn give_to(
        self,
        mut builder: ContainerBuilder,
        dir: &Path,
    ) -> (ContainerBuilder, Pending) {
        match self {
            Self::Console { listener, name } => (
                builder.with_console_socket(Some(dir.join(name))),
                Pending::Console(listener),
            ),
            Self::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                let stdin = stdin.map(|(read, write)| {
                    builder.stdin = Some(read);
                    write
                });
                let builder = builder.with_stdout(stdout.1).with_stderr(stderr.1);
                let channels = Channels::Pipes {
                    stdin,
                    stdout: stdout.0,
                    stderr: stderr.0,
                };
                (builder, Pending::Pipes(channels))
            }
        }
    }
}

impl Pending {
    /// Waits for the terminal where there is one.
    pub(super) fn channels(self) -> io::Result<Channels> {
        match self {
            Self::Pipes(channels) => Ok(channels),
            Self::Console(listener) => {
                let terminal = receive_terminal(&listener)?;
                let address = listener.local_addr()?;
                if let Some(path) = address.as_pathname() {
                    fs::remove_file(path)?;
                }
                debug_assert!(rustix::termios::isatty(terminal.as_fd()));
                Ok(Channels::Terminal(terminal))
            }
        }
    }
}

/// Exit code and signal of a child that has ended.
pub(super) fn exit_status(pid: i32) -> io::Result<(i32, Option<i32>)> {
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok((code, None)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Ok((128 + signal as i32, Some(signal as i32)));
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
