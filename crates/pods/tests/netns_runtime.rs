//! Containers on the real kernel: made, looked into, ended, and gone without a trace.
//!
//! Needs root. Every test has its own state directory and its own cgroup tree, and its Pods have network namespaces
//! without a way out. Whatever a test does, [`Place::leave`] then asserts that nothing of it is left.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is how it says no")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seaway_pods::images::Images;
use seaway_pods::runtime::{
    Changed, Container, ContainerPhase, ContainerSpec, ExecRequest, Limits, Mount, Runtime,
    RuntimeConfig, RuntimeError, SandboxSpec, Session, SessionEvent, SessionOutput, TerminalSize,
    remove_cgroup,
};
use tokio::sync::mpsc::UnboundedReceiver;

const LIMIT: Duration = Duration::from_secs(60);
const POD: &str = "0b5e2a9c-test";

/// A node with one runtime.
struct Place {
    dir: tempfile::TempDir,
    cgroup: String,
    images: Images,
    runtime: Runtime,
    changes: UnboundedReceiver<Changed>,
}

impl Place {
    async fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let dir = tempfile::tempdir().unwrap();
        let name = dir
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_start_matches('.');
        let cgroup = format!("/seaway-test-{name}");
        let images = Images::open(&dir.path().join("data/images")).unwrap();
        let (runtime, changes) = Self::open(&dir, &cgroup, &images).await;
        Self {
            dir,
            cgroup,
            images,
            runtime,
            changes,
        }
    }

    async fn open(
        dir: &tempfile::TempDir,
        cgroup: &str,
        images: &Images,
    ) -> (Runtime, UnboundedReceiver<Changed>) {
        Runtime::open(RuntimeConfig {
            state_dir: dir.path().join("state"),
            images: images.clone(),
            exe: env!("CARGO_BIN_EXE_pods-harness").into(),
            cgroup_parent: cgroup.to_owned(),
        })
        .await
        .unwrap()
    }

    /// With a sandbox whose host name is `web`.
    async fn with_pod() -> Self {
        let place = Self::new().await;
        place.sandbox(false).await;
        place
    }

    async fn sandbox(&self, host_network: bool) {
        let spec = SandboxSpec {
            pod_uid: POD.into(),
            namespace: "default".into(),
            name: "web".into(),
            hostname: "web".into(),
            host_network,
        };
        self.runtime.create_sandbox(spec).await.unwrap();
    }

    /// A container on the machine's root file system.
    fn host(&self, name: &str, command: &[&str]) -> ContainerSpec {
        self.spec("seaway/host", name, command)
    }

    fn spec(&self, image: &str, name: &str, command: &[&str]) -> ContainerSpec {
        ContainerSpec {
            pod_uid: POD.into(),
            name: name.into(),
            image_id: self.images.resolve(image).unwrap().unwrap().id,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..ContainerSpec::default()
        }
    }

    async fn start(&self, spec: ContainerSpec) -> Container {
        self.runtime.start_container(spec).await.unwrap()
    }

    /// Starts, and waits for the end: exit code and what was said.
    async fn run(&self, spec: ContainerSpec) -> (i32, String) {
        let container = self.start(spec).await;
        let (code, _) = exited(&self.ended(&container.id).await);
        (code, self.said(&container.id))
    }

    async fn ended(&self, id: &str) -> Container {
        let started = Instant::now();
        loop {
            let container = self.runtime.container(id).unwrap().unwrap();
            if matches!(container.phase, ContainerPhase::Exited { .. }) {
                return container;
            }
            assert!(started.elapsed() < LIMIT, "{container:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The log without time stamps: `stdout F text`.
    fn log(&self, id: &str) -> Vec<String> {
        let text = fs::read_to_string(self.runtime.log_path(id).unwrap()).unwrap();
        text.lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }

    /// The text of the log.
    fn said(&self, id: &str) -> String {
        let text = |line: &String| line.splitn(3, ' ').nth(2).unwrap().to_owned();
        self.log(id).iter().map(text).collect::<Vec<_>>().join("\n")
    }

    async fn says(&self, id: &str, wanted: &str) {
        let started = Instant::now();
        while !self.said(id).contains(wanted) {
            assert!(
                started.elapsed() < LIMIT,
                "{wanted:?} not in {:?}",
                self.said(id)
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn exec(&self, id: &str, command: &[&str]) -> (i32, String, String) {
        finish(
            self.runtime
                .exec(id, request(command, false))
                .await
                .unwrap(),
        )
        .await
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let name = self.cgroup.trim_start_matches('/');
        let mut found = Vec::new();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let path = hierarchy.unwrap().path().join(name);
            if path.exists() {
                found.push(path);
            }
        }
        found.extend(Some(Path::new("/sys/fs/cgroup").join(name)).filter(|path| path.exists()));
        found
    }

    /// Processes that the runtime started here, by what they were told.
    fn processes(&self) -> Vec<String> {
        let mark = self.dir.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let is = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
            let (cmdline, cgroup) = (is("cmdline").replace('\0', " "), is("cgroup"));
            if cmdline.contains(mark) || cgroup.contains(&self.cgroup) {
                found.push(cmdline);
            }
        }
        found
    }

    /// Removes the Pod and asserts that nothing of this place is left.
    async fn leave(self) {
        let sandbox = self
            .runtime
            .sandbox(POD)
            .unwrap()
            .map(|sandbox| sandbox.pid);
        self.runtime.remove_sandbox(POD).await.unwrap();
        self.runtime.remove_sandbox(POD).await.unwrap();
        assert!(self.runtime.pods().unwrap().is_empty());
        assert_eq!(
            fs::read_dir(self.dir.path().join("state/pods"))
                .unwrap()
                .count(),
            0
        );
        // Shims end after they have written the end.
        let started = Instant::now();
        loop {
            let processes = self.processes();
            let holder = sandbox.filter(|pid| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.contains("(seaway-sandbox)")
            });
            if processes.is_empty() && holder.is_none() {
                break;
            }
            assert!(started.elapsed() < LIMIT, "{processes:?} {holder:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(self.dir.path().to_str().unwrap()),
            "{mounts}"
        );
        for cgroup in self.cgroups() {
            let below = fs::read_dir(&cgroup)
                .unwrap()
                .filter(|e| e.as_ref().unwrap().path().is_dir());
            assert_eq!(below.count(), 0, "{}", cgroup.display());
        }
        remove_cgroup(&self.cgroup).unwrap();
        assert!(self.cgroups().is_empty());
    }
}

impl Drop for Place {
    /// A test that failed cleans up behind itself too, as far as it can.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let (runtime, cgroup) = (self.runtime.clone(), self.cgroup.clone());
        // On a thread of its own, since this one may belong to a tokio runtime.
        let cleaned = std::thread::spawn(move || {
            let tokio = tokio::runtime::Runtime::new().unwrap();
            tokio.block_on(runtime.remove_sandbox(POD)).unwrap();
            remove_cgroup(&cgroup).unwrap();
        });
        if cleaned.join().is_err() {
            eprintln!("{} was not cleaned up", self.dir.path().display());
        }
    }
}

/// Exit code and message.
fn exited(container: &Container) -> (i32, Option<&str>) {
    match &container.phase {
        ContainerPhase::Exited { code, message, .. } => (*code, message.as_deref()),
        phase => panic!("{phase:?}"),
    }
}

fn request(command: &[&str], tty: bool) -> ExecRequest {
    ExecRequest {
        command: command.iter().map(|w| (*w).to_owned()).collect(),
        tty,
        stdin: tty,
    }
}

/// Reads a session to its end: exit code, stdout, stderr.
async fn finish(mut session: Session) -> (i32, String, String) {
    read_to_end(&mut session.output).await
}

async fn read_to_end(output: &mut SessionOutput) -> (i32, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        let next = tokio::time::timeout(LIMIT, output.next())
            .await
            .unwrap()
            .unwrap();
        match next.expect("an exit code") {
            SessionEvent::Stdout(data) => out.extend(data),
            SessionEvent::Stderr(data) => err.extend(data),
            SessionEvent::Exit(code) => {
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return (code, text(out), text(err));
            }
        }
    }
}

/// Reads standard output until it contains a text.
async fn until(session: &mut Session, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        match tokio::time::timeout(LIMIT, session.output.next())
            .await
            .unwrap()
            .unwrap()
        {
            Some(SessionEvent::Stdout(data)) => text.push_str(&String::from_utf8_lossy(&data)),
            other => panic!("{wanted:?} not in {text:?}, then {other:?}"),
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_logs_and_exits() {
    let mut place = Place::with_pod().await;
    let script = "echo out; echo err >&2; hostname; pwd; echo done > /dev/termination-log; printf end; exit 7";
    let container = place.start(place.host("main", &["sh", "-c", script])).await;
    let ended = place.ended(&container.id).await;
    assert_eq!(exited(&ended), (7, None));
    let mut log = place.log(&container.id);
    log.sort();
    assert_eq!(
        log,
        [
            "stderr F err",
            "stdout F /",
            "stdout F out",
            "stdout F web",
            "stdout P end"
        ]
    );
    assert_eq!(
        place.runtime.termination_message(&container.id).unwrap(),
        "done\n"
    );
    let told = tokio::time::timeout(LIMIT, place.changes.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(told.pod_uid, POD);
    place.runtime.remove_container(&container.id).await.unwrap();
    assert_eq!(place.runtime.container(&container.id).unwrap(), None);
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_asked_to_end_before_it_is_made_to() {
    let place = Place::with_pod().await;
    let polite = "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done";
    let polite = place
        .start(place.host("polite", &["sh", "-c", polite]))
        .await;
    let deaf = "trap '' TERM; echo up; while :; do sleep 0.01; done";
    let deaf = place.start(place.host("deaf", &["sh", "-c", deaf])).await;
    place.says(&polite.id, "up").await;
    place.says(&deaf.id, "up").await;
    place
        .runtime
        .stop_container(&polite.id, LIMIT)
        .await
        .unwrap();
    assert_eq!(exited(&place.ended(&polite.id).await).0, 3);
    place
        .runtime
        .stop_container(&deaf.id, Duration::from_millis(200))
        .await
        .unwrap();
    assert_eq!(exited(&place.ended(&deaf.id).await).0, 137);
    // Once more is not an error.
    place
        .runtime
        .stop_container(&deaf.id, Duration::ZERO)
        .await
        .unwrap();
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_start_says_why() {
    let place = Place::with_pod().await;
    let cases: [(&[&str], &str); 4] = [
        (
            &["no-such-program"],
            "exec: \"no-such-program\": executable file not found in $PATH",
        ),
        (
            &["/no/such"],
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        (&["/etc/passwd"], "exec: \"/etc/passwd\": permission denied"),
        (&["/etc"], "exec: \"/etc\": is a directory"),
    ];
    for (attempt, (command, message)) in cases.into_iter().enumerate() {
        let attempt = u32::try_from(attempt).unwrap();
        let spec = ContainerSpec {
            attempt,
            ..place.host("main", command)
        };
        assert_eq!(exited(&place.start(spec).await), (128, Some(message)));
    }
    let mount = Mount {
        source: "/no/such/volume".into(),
        destination: "/data".into(),
        read_only: false,
    };
    let spec = ContainerSpec {
        mounts: vec![mount],
        ..place.host("volume", &["true"])
    };
    let container = place.start(spec).await;
    let (code, message) = exited(&container);
    assert_eq!(code, 128);
    assert!(message.unwrap().contains("No such file"), "{message:?}");
    let no_pod = ContainerSpec {
        pod_uid: "other".into(),
        ..place.host("main", &["true"])
    };
    let error = place.runtime.start_container(no_pod).await.unwrap_err();
    assert!(matches!(error, RuntimeError::NoSandbox { .. }), "{error}");
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_runs_in_a_container_and_its_streams_are_kept_apart() {
    let place = Place::with_pod().await;
    let id = place.start(place.host("main", &["sleep", "1000"])).await.id;
    let (code, out, err) = place
        .exec(
            &id,
            &["sh", "-c", "echo out; echo err >&2; hostname; exit 5"],
        )
        .await;
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (5, "out\nweb\n", "err\n")
    );
    // The container's own processes and no others.
    let (_, out, _) = place.exec(&id, &["cat", "/proc/1/cmdline"]).await;
    assert_eq!(out, "sleep\x001000\0");

    let cat = ExecRequest {
        stdin: true,
        ..request(&["cat"], false)
    };
    let Session {
        mut input,
        mut output,
    } = place.runtime.exec(&id, cat).await.unwrap();
    let data = "x".repeat(3_000_000);
    let text = data.clone();
    let writer = tokio::spawn(async move {
        input.write(text.as_bytes()).await.unwrap();
        input.close().await.unwrap();
        input
    });
    let (code, out, _) = read_to_end(&mut output).await;
    assert_eq!((code, out == data), (0, true));
    drop(writer.await.unwrap());

    let error = place
        .runtime
        .exec(&id, request(&["nonsense"], false))
        .await
        .unwrap_err();
    match error {
        RuntimeError::Exec { code, message } => {
            assert_eq!(code, 127);
            assert_eq!(
                message,
                "exec: \"nonsense\": executable file not found in $PATH"
            );
        }
        other => panic!("{other}"),
    }
    place
        .runtime
        .stop_container(&id, Duration::ZERO)
        .await
        .unwrap();
    let error = place
        .runtime
        .exec(&id, request(&["true"], false))
        .await
        .unwrap_err();
    assert!(matches!(error, RuntimeError::NotRunning { .. }), "{error}");
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_and_echoes() {
    let place = Place::with_pod().await;
    let id = place.start(place.host("main", &["sleep", "1000"])).await.id;
    let mut session = place
        .runtime
        .exec(&id, request(&["sh"], true))
        .await
        .unwrap();
    session
        .input
        .resize(TerminalSize {
            width: 123,
            height: 45,
        })
        .await
        .unwrap();
    session
        .input
        .write(b"tty; stty size; echo $((6*7)) $TERM\n")
        .await
        .unwrap();
    let text = until(&mut session, "42 xterm").await;
    assert!(
        text.contains("/dev/pts/") && text.contains("45 123"),
        "{text}"
    );
    session.input.write(b"exit 9\n").await.unwrap();
    assert_eq!(finish(session).await.0, 9);
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_ends_when_nobody_listens_to_it_any_more() {
    let place = Place::with_pod().await;
    let id = place.start(place.host("main", &["sleep", "1000"])).await.id;
    for tty in [false, true] {
        let mut session = place
            .runtime
            .exec(&id, request(&["sh", "-c", "echo up; exec sleep 4242"], tty))
            .await
            .unwrap();
        until(&mut session, "up").await;
        drop(session);
        let started = Instant::now();
        while place
            .processes()
            .iter()
            .any(|process| process.contains("sleep 4242"))
        {
            assert!(started.elapsed() < LIMIT);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_attaches_to_a_containers_first_process() {
    let place = Place::with_pod().await;
    let script = "while read line; do echo got $line; done; echo over";
    let spec = ContainerSpec {
        stdin: true,
        stdin_once: true,
        ..place.host("main", &["sh", "-c", script])
    };
    let id = place.start(spec).await.id;
    let mut first = place.runtime.attach(&id).await.unwrap();
    first.input.write(b"one\n").await.unwrap();
    until(&mut first, "got one").await;
    drop(first);
    let mut second = place.runtime.attach(&id).await.unwrap();
    second.input.write(b"two\n").await.unwrap();
    until(&mut second, "got two").await;
    second.input.close().await.unwrap();
    let (code, out, _) = finish(second).await;
    assert_eq!((code, out.as_str()), (0, "over\n"));
    assert_eq!(place.said(&id), "got one\ngot two\nover");
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_may_have_a_terminal_itself() {
    let place = Place::with_pod().await;
    let spec = ContainerSpec {
        tty: true,
        stdin: true,
        ..place.host("main", &["sh", "-c", "tty; read line; echo [$line]"])
    };
    let id = place.start(spec).await.id;
    place.says(&id, "/dev/pts/").await;
    let mut session = place.runtime.attach(&id).await.unwrap();
    session.input.write(b"hello\n").await.unwrap();
    assert_eq!(finish(session).await.0, 0);
    assert!(place.said(&id).contains("[hello]"), "{}", place.said(&id));
    place.leave().await;
}

/// A shell script that sends a request to a port of 127.0.0.1 and shows the answer.
fn ask(port: u16, path: &str) -> String {
    format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_localhost_and_whoami_answers_there() {
    let place = Place::with_pod().await;
    let mut spec = place.spec(
        "seaway/whoami",
        "who",
        &["node", "index.js", "Whale Type A, Here."],
    );
    spec.ports = vec!["80/TCP".into(), "8888/TCP".into(), "53/UDP".into()];
    for (name, value) in [
        ("POD_NAME", "web"),
        ("POD_NAMESPACE", "shop"),
        ("NODE_NAME", "node-1"),
    ] {
        spec.env.insert(name.into(), value.into());
    }
    let who = place.start(spec).await;
    place.says(&who.id, "listening on 53/UDP").await;
    for port in [80, 8888] {
        let (code, said) = place
            .run(ContainerSpec {
                attempt: u32::from(port),
                ..place.host("client", &["bash", "-c", &ask(port, "/hello")])
            })
            .await;
        assert_eq!(code, 0, "{said}");
        for line in [
            "Pod: web",
            "Node: node-1",
            "Namespace: shop",
            "Arguments: node index.js Whale Type A, Here.",
            "GET /hello HTTP/1.0",
        ] {
            assert!(said.contains(line), "{line} in {said}");
        }
    }
    let udp = "exec 3<>/dev/udp/127.0.0.1/53; echo whoami >&3; head -n 1 <&3";
    assert_eq!(
        place.exec(&who.id, &["bash", "-c", udp]).await.1,
        "Pod: web\n"
    );
    // It is PID 1 of its namespace and ends at once all the same.
    place.runtime.stop_container(&who.id, LIMIT).await.unwrap();
    assert_eq!(exited(&place.ended(&who.id).await).0, 0);
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_network_is_its_own_unless_it_is_the_nodes() {
    let place = Place::with_pod().await;
    let links = ["sh", "-c", "readlink /proc/self/ns/net; ls /sys/class/net"];
    let (_, own) = place.run(place.host("main", &links)).await;
    let node = fs::read_link("/proc/self/ns/net")
        .unwrap()
        .display()
        .to_string();
    assert!(!own.contains(&node) && own.ends_with("\nlo"), "{own}");
    let sandbox = place.runtime.sandbox(POD).unwrap().unwrap();
    assert_eq!(
        fs::read_link(sandbox.netns())
            .unwrap()
            .display()
            .to_string(),
        own.lines().next().unwrap()
    );
    place.runtime.remove_sandbox(POD).await.unwrap();
    place.sandbox(true).await;
    let (_, shared) = place.run(place.host("main", &links)).await;
    assert!(shared.contains(&node), "{shared}");
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_over_its_memory_limit_is_ended_and_says_so() {
    let place = Place::with_pod().await;
    let limits = Limits {
        memory: Some(32 << 20),
        cpu_millis: Some(500),
        cpu_request_millis: Some(100),
    };
    let spec = ContainerSpec {
        limits,
        ..place.host("greedy", &["tail", "/dev/zero"])
    };
    let container = place.start(spec).await;
    match place.ended(&container.id).await.phase {
        ContainerPhase::Exited {
            code: 137,
            signal: Some(9),
            oom_killed: true,
            ..
        } => {}
        phase => panic!("{phase:?}"),
    }
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_finds_what_the_old_one_left() {
    let mut place = Place::with_pod().await;
    let runs = "echo up; read line < /fifo/go; echo went on; exit 4";
    let volume = place.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    nix::unistd::mkfifo(&volume.join("go"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mount = Mount {
        source: volume.clone(),
        destination: "/fifo".into(),
        read_only: false,
    };
    let spec = ContainerSpec {
        mounts: vec![mount],
        ..place.host("main", &["sh", "-c", runs])
    };
    let container = place.start(spec).await;
    place.says(&container.id, "up").await;
    let sandbox = place.runtime.sandbox(POD).unwrap();

    let (runtime, changes) = Place::open(&place.dir, &place.cgroup, &place.images).await;
    place.runtime = runtime;
    place.changes = changes;
    assert_eq!(place.runtime.sandbox(POD).unwrap(), sandbox);
    assert_eq!(place.runtime.sandboxes().unwrap().len(), 1);
    assert_eq!(
        place.runtime.containers(POD).unwrap(),
        std::slice::from_ref(&container)
    );
    assert_eq!(
        place.exec(&container.id, &["echo", "there"]).await.1,
        "there\n"
    );
    fs::write(volume.join("go"), "go\n").unwrap();
    let told = tokio::time::timeout(LIMIT, place.changes.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(told.pod_uid, POD);
    assert_eq!(exited(&place.ended(&container.id).await), (4, None));
    assert_eq!(place.said(&container.id), "up\nwent on");
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_shim_is_killed_does_not_run_on_unwatched() {
    let mut place = Place::with_pod().await;
    let container = place.start(place.host("main", &["sleep", "4243"])).await;
    let state = place
        .dir
        .path()
        .join("state/pods")
        .join(POD)
        .join("containers/main/0/state.json");
    let state: serde_json::Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
    let shim = i32::try_from(state["shim"]["pid"].as_i64().unwrap()).unwrap();
    let shim = nix::unistd::Pid::from_raw(shim);
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    tokio::time::timeout(LIMIT, place.changes.recv())
        .await
        .unwrap()
        .unwrap();
    let ended = place.ended(&container.id).await;
    let (code, message) = exited(&ended);
    assert_eq!(code, 137);
    assert!(message.unwrap().contains("shim"), "{message:?}");
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_sandbox_is_told_of_and_replaced() {
    let mut place = Place::with_pod().await;
    let first = place.runtime.sandbox(POD).unwrap().unwrap();
    let pid = nix::unistd::Pid::from_raw(first.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    tokio::time::timeout(LIMIT, place.changes.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(place.runtime.sandbox(POD).unwrap(), None);
    place.sandbox(false).await;
    assert_eq!(place.runtime.sandbox(POD).unwrap().unwrap().attempt, 1);
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_container_sees_the_machines_programs_and_not_its_secrets() {
    let place = Place::with_pod().await;
    // The test's own directory is below /tmp, and so is the data directory with its keys.
    let secret = place.dir.path().join("data/secret");
    fs::write(&secret, "secret").unwrap();
    let script = format!(
        "test ! -e {} && test -z \"$(ls -A /tmp /run | grep -v :)\" && touch /usr/bin/mine /tmp/mine && ls /usr/bin/mine",
        secret.display()
    );
    let (code, said) = place.run(place.host("main", &["sh", "-c", &script])).await;
    assert_eq!((code, said.as_str()), (0, "/usr/bin/mine"));
    assert!(!Path::new("/usr/bin/mine").exists() && !Path::new("/tmp/mine").exists());
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_users_and_rights_are_as_asked() {
    let place = Place::with_pod().await;
    let volume = place.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "content").unwrap();
    let at = |destination: &str, read_only| Mount {
        source: volume.clone(),
        destination: destination.into(),
        read_only,
    };
    let script = "cat /ro/file; touch /ro/x 2>/dev/null || echo ' ro'; touch /rw/new; \
                  touch /x 2>/dev/null || echo root ro; id -u; id -g; id -G; pwd; \
                  grep -E '^(CapEff|NoNewPrivs)' /proc/self/status; cat < /dev/null > /dev/stdout";
    let spec = ContainerSpec {
        mounts: vec![at("/ro", true), at("/rw", false)],
        read_only_root: true,
        user: Some(0),
        group: Some(5),
        supplemental_groups: vec![7],
        working_dir: Some("/rw".into()),
        capabilities_drop: vec!["ALL".into()],
        capabilities_add: vec!["DAC_OVERRIDE".into()],
        no_new_privileges: true,
        ..place.host("main", &["sh", "-c", script])
    };
    let (code, said) = place.run(spec).await;
    let expected = "content ro\nroot ro\n0\n5\n5 7\n/rw\nCapEff:\t0000000000000002\nNoNewPrivs:\t1";
    assert_eq!((code, said.as_str()), (0, expected));
    assert!(volume.join("new").exists() && !volume.join("x").exists());

    let nobody = "id -u; echo mine > /dev/termination-log; grep CapEff /proc/self/status; \
                  echo to-stdout > /dev/stdout; touch /etc/x 2>/dev/null || echo refused";
    let spec = ContainerSpec {
        user: Some(65534),
        ..place.host("nobody", &["sh", "-c", nobody])
    };
    let container = place.start(spec).await;
    assert_eq!(exited(&place.ended(&container.id).await).0, 0);
    assert_eq!(
        place.said(&container.id),
        "65534\nCapEff:\t0000000000000000\nto-stdout\nrefused"
    );
    assert_eq!(
        place.runtime.termination_message(&container.id).unwrap(),
        "mine\n"
    );

    let all = "mount -t tmpfs tmpfs /mnt && echo mounted; test -w /proc/sys/kernel/hostname && echo writable";
    let spec = ContainerSpec {
        privileged: true,
        ..place.host("mighty", &["sh", "-c", all])
    };
    let container = place.start(spec).await;
    let ended = place.ended(&container.id).await;
    assert_eq!(exited(&ended), (0, None));
    assert_eq!(place.said(&container.id), "mounted\nwritable");
    let (code, _) = place
        .run(ContainerSpec {
            attempt: 1,
            ..place.host("mighty", &["sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        })
        .await;
    assert_ne!(code, 0);
    place.leave().await;
}

/// Builds a static program and an image of two layers around it, as `docker save` would write it. Each layer comes
/// twice, as empty ones do in real images.
fn two_layers(dir: &Path) -> PathBuf {
    const SOURCE: &[u8] = br#"
        #include <stdio.h>
        #include <stdlib.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            char cwd[100];
            printf("%d %s %s %s %s ", getuid(), getcwd(cwd, 100), getenv("FROM"), getenv("HOME"), argv[1]);
            printf("%d%d%d%d\n", access("/etc/kept", 0), access("/etc/gone", 0), access("/opt/old", 0),
                access("/etc/resolv.conf", 0));
            return 6;
        }"#;
    let program = dir.join("program");
    let mut cc = Command::new("cc")
        .args(["-static", "-O1", "-x", "c", "-o"])
        .arg(&program)
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler");
    cc.stdin.take().unwrap().write_all(SOURCE).unwrap();
    assert!(cc.wait().unwrap().success());

    let layer = |files: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            match name.split_once(" -> ") {
                Some((name, target)) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    builder.append_link(&mut header, name, target).unwrap();
                }
                None => builder.append_data(&mut header, name, *data).unwrap(),
            }
        }
        builder.into_inner().unwrap()
    };
    let passwd = b"root:x:0:0::/root:/bin/sh\napp:x:1234:1234::/home/app:/bin/sh\n";
    let lower = layer(&[
        ("bin/program", &fs::read(&program).unwrap()),
        ("etc/passwd", passwd),
        ("etc/kept", b""),
        ("etc/gone", b""),
        ("opt/old", b""),
        (
            "etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf",
            b"",
        ),
    ]);
    let upper = layer(&[
        ("etc/.wh.gone", b""),
        ("opt/.wh..wh..opq", b""),
        ("opt/new", b""),
    ]);
    let diff_id = |layer: &[u8]| {
        use sha2::Digest;
        format!("sha256:{}", hex::encode(sha2::Sha256::digest(layer)))
    };
    let config = serde_json::json!({
        "os": "linux",
        "config": {
            "Entrypoint": ["program"], "Cmd": ["default"], "User": "app",
            "WorkingDir": "/work/here", "Env": ["PATH=/bin", "FROM=image"],
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id(&lower), diff_id(&upper), diff_id(&lower), diff_id(&upper)] },
    });
    let manifest = serde_json::json!([
        { "Config": "c.json", "RepoTags": ["example/app:1"], "Layers": ["lower", "upper", "lower", "upper"] }
    ]);
    let archive = layer(&[
        ("manifest.json", manifest.to_string().as_bytes()),
        ("c.json", config.to_string().as_bytes()),
        ("lower", &lower),
        ("upper", &upper),
    ]);
    let path = dir.join("app.tar");
    fs::write(&path, archive).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_image_runs_as_it_says_itself() {
    let place = Place::with_pod().await;
    let archive = two_layers(place.dir.path());
    place.images.import(&archive, None).unwrap();
    let spec = place.spec("example/app:1", "app", &[]);
    let (code, said) = place.run(spec.clone()).await;
    assert_eq!(
        (code, said.as_str()),
        (6, "1234 /work/here image /home/app default 0-1-1-1")
    );
    // The kubelet's file is there even where the image has a link to nowhere.
    let resolv_conf = place.dir.path().join("resolv.conf");
    fs::write(&resolv_conf, "").unwrap();
    let mounts = vec![Mount {
        source: resolv_conf,
        destination: "/etc/resolv.conf".into(),
        read_only: true,
    }];
    let mut other = ContainerSpec {
        mounts,
        attempt: 1,
        args: vec!["given".into()],
        ..spec
    };
    other.env.insert("FROM".into(), "pod".into());
    let (_, said) = place.run(other).await;
    assert!(said.ends_with("pod /home/app given 0-1-10"), "{said}");
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_removed_while_everything_in_it_runs() {
    let place = Place::with_pod().await;
    for name in ["one", "two"] {
        let busy = "trap '' TERM; while :; do (sleep 0.01; echo x) & wait; done";
        place.start(place.host(name, &["sh", "-c", busy])).await;
    }
    let id = format!("{POD}/one/0");
    let session = place
        .runtime
        .exec(&id, request(&["sleep", "1000"], false))
        .await
        .unwrap();
    let volume = place.runtime.pod_dir(POD).unwrap().join("volumes");
    fs::create_dir(&volume).unwrap();
    place.leave().await;
    drop(session);
}
