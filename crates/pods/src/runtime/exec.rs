//! `seaway internal exec-helper`: runs one more process in a container.
//!
//! Its standard input is a socket to the agent, which first carries what to run and then the process's own input and
//! output. When the agent hangs up, the process ends.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::BytesMut;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::process::{Signal, kill_process_group};
use serde_json::Value;

use super::ExecRequest;
use super::last_words::LastWords;
use super::program::{self, Program};
use super::relay::{End, Relay, SlowClient, pidfd_of_child, read_frame};
use super::shim::{CONTAINER, Stdio, exit_status};
use super::state::ContainerDir;
use super::users::Identity;
use super::wire::Frame;

type Error = Box<dyn std::error::Error>;

/// Entry point of `seaway internal exec-helper <container directory>`.
pub fn exec_main(args: &[String]) -> ExitCode {
    let [dir] = args else {
        eprintln!("usage: internal exec-helper <container directory>");
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

fn run(dir: &ContainerDir) -> Result<(), Error> {
    nix::unistd::setsid()?;
    nix::sys::prctl::set_name(c"seaway-exec")?;
    let mut agent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // The socket has to be ours alone, or the process would inherit it as its standard input.
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    let mut received = BytesMut::new();
    let Frame::Request(request) = read_frame(&mut agent, &mut received)? else {
        return Err("the first frame is not a request".into());
    };
    let request: ExecRequest = serde_json::from_slice(&request)?;
    // libcontainer leaves sockets beside its state on every exec; in a directory of ours they go with us.
    let own = OwnDir::create(dir)?;
    std::env::set_current_dir(&own.path)?;
    let words = LastWords::collect(&own.path.join("errors.log"))?;
    let process = match start(dir, &own.path, &request) {
        Ok(process) => process,
        Err(error) => {
            let message = program::message_of(error.as_ref(), words.first());
            let mut answer = BytesMut::new();
            Frame::Failed(program::exit_code(&message), message).encode(&mut answer);
            agent.write_all(&answer)?;
            return Ok(());
        }
    };
    let mut relay = process.relay.serve(agent, received)?;
    if relay.run()? == End::HungUp {
        // It leads its own session, so this reaches what it has started as well, unless that made sessions of its own.
        if let Some(group) = rustix::process::Pid::from_raw(process.pid) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
    let (code, _) = exit_status(process.pid)?;
    relay.goodbye(code);
    Ok(())
}

struct Process {
    pid: i32,
    relay: Relay,
}

fn start(dir: &ContainerDir, own: &Path, request: &ExecRequest) -> Result<Process, Error> {
    let mut config: Value = serde_json::from_slice(&fs::read(dir.path.join("config.json"))?)?;
    let process = config
        .get_mut("process")
        .ok_or("config.json has no process")?;
    process["args"] = Value::from(request.command.clone());
    process["terminal"] = Value::from(request.tty);
    if request.tty
        && let Some(env) = process["env"].as_array_mut()
        && !env
            .iter()
            .any(|entry| entry.as_str().is_some_and(|text| text.starts_with("TERM=")))
    {
        env.push("TERM=xterm".into());
    }
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let identity = Identity {
        uid: number(&process["user"]["uid"]).ok_or("config.json has no user")?,
        gid: number(&process["user"]["gid"]).ok_or("config.json has no group")?,
        additional_gids: Vec::new(),
    };
    let process_file = own.join("process.json");
    fs::write(&process_file, serde_json::to_vec(process)?)?;

    let own_dir = ContainerDir {
        path: own.to_owned(),
    };
    let stdio = Stdio::open(&own_dir, request.tty, request.stdin, &identity)?;
    let builder = ContainerBuilder::new(CONTAINER.to_owned(), SyscallType::default())
        .with_root_path(own)?
        .with_executor(Program);
    let (builder, pending) = stdio.give_to(builder, own);
    let pid = builder
        .as_tenant()
        .with_process(Some(process_file))
        .with_detach(request.tty)
        .build()?
        .as_raw();
    let relay = Relay::new(pidfd_of_child(pid)?, pending.channels()?, SlowClient::Wait)?;
    Ok(Process { pid, relay })
}

/// A directory with a copy of libcontainer's state, removed when dropped.
struct OwnDir {
    path: PathBuf,
}

impl OwnDir {
    fn create(dir: &ContainerDir) -> io::Result<Self> {
        let path = dir.path.join(format!("exec.{}", std::process::id()));
        let copy = path.join(CONTAINER);
        fs::create_dir_all(&copy)?;
        let own = Self { path };
        fs::copy(
            dir.path.join("oci").join(CONTAINER).join("state.json"),
            copy.join("state.json"),
        )?;
        Ok(own)
    }
}

impl Drop for OwnDir {
    fn drop(&mut self) {
        // The container's whole directory may be gone already.
        let _ = fs::remove_dir_all(&self.path);
    }
}
