//! Processes in the namespaces they belong in. Needs root.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use seaway_kernel::NetNs;
use seaway_kernel::pidfd::PidFd;
use seaway_kernel::process::{CommandExt, spawn_init};
use seaway_kernel::reaper::Reaper;

/// Longer than anything here takes; a test that waits this long has failed.
const LIMIT: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

fn output_of(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_new_namespace_has_a_loopback_that_is_up_and_nothing_else() {
    let netns = NetNs::new().unwrap();
    assert!(!netns.same_as(&NetNs::current().unwrap()).unwrap());
    let mut command = shell("grep -c : /proc/net/dev");
    command.in_netns(&netns);
    assert_eq!(output_of(command), "1");
    let answered = netns
        .run(|| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).is_ok()
        })
        .unwrap();
    assert!(answered, "127.0.0.1 does not work inside");
}

#[test]
fn the_calling_thread_stays_where_it_was() {
    let before = NetNs::current().unwrap();
    let netns = NetNs::new().unwrap();
    let inside = netns.run(NetNs::current).unwrap().unwrap();
    assert!(inside.same_as(&netns).unwrap());
    assert!(NetNs::current().unwrap().same_as(&before).unwrap());
}

#[test]
fn a_child_runs_in_the_namespace_it_was_given() {
    let netns = NetNs::new().unwrap();
    let mut command = Command::new("/bin/sleep");
    let mut child = command.arg("60").in_netns(&netns).spawn().unwrap();
    let of_child = NetNs::of_process(child.id()).unwrap();
    assert!(of_child.same_as(&netns).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_pinned_namespace_can_be_opened_by_its_name_until_it_is_unpinned() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pinned");
    let netns = NetNs::new().unwrap();
    netns.pin(&path).unwrap();
    assert!(NetNs::open(&path).unwrap().same_as(&netns).unwrap());
    NetNs::unpin(&path).unwrap();
    assert!(!path.exists());
    NetNs::unpin(&path).unwrap();
}

#[test]
fn spawn_init_makes_the_program_pid_1_with_its_own_proc() {
    let mut command = shell("echo $$; ls -d /proc/[0-9]* | wc -l; readlink /proc/self/ns/pid");
    command.stdout(Stdio::piped());
    let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let output = spawn_init(command).unwrap().wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "1");
    // The shell, and `ls` or `wc` beside it: no process from outside.
    assert!(lines[1].parse::<u32>().unwrap() <= 4, "{text}");
    assert_ne!(lines[2], own.to_str().unwrap());
    // This process is where it was, and its next children are as well.
    assert_eq!(
        output_of(shell("readlink /proc/self/ns/pid")),
        own.to_str().unwrap()
    );
}

#[test]
fn everything_in_the_pid_namespace_ends_with_its_pid_1() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("alive");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    // A grandchild in a session of its own holds the write end open: reading to the end waits for its death.
    let script = format!("setsid sleep 600 > {} & echo started; wait", fifo.display());
    let mut command = shell(&script);
    command.stdout(Stdio::piped());
    let mut init = spawn_init(command).unwrap();
    let mut alive = std::fs::File::open(&fifo).unwrap();
    init.kill().unwrap();
    init.wait().unwrap();
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut alive, &mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn mounts_made_by_pid_1_do_not_show_outside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    let status = spawn_init(shell(&format!(
        "mount -t tmpfs none {path} && touch {path}/inside"
    )))
    .unwrap()
    .wait()
    .unwrap();
    assert!(status.success());
    assert!(!directory.path().join("inside").exists());
}

#[test]
fn a_kept_descriptor_is_open_in_the_child_and_others_are_not() {
    use std::os::fd::AsRawFd;
    let file = tempfile::tempfile().unwrap();
    let other = tempfile::tempfile().unwrap();
    let (kept, closed) = (file.as_raw_fd(), other.as_raw_fd());
    let mut command = shell(&format!(
        "ls /proc/self/fd/{kept}; ls /proc/self/fd/{closed} 2>/dev/null || echo closed"
    ));
    command.keep_fd(Arc::new(file.into()));
    let text = output_of(command);
    assert!(text.contains(&format!("/proc/self/fd/{kept}")), "{text}");
    assert!(text.contains("closed"), "{text}");
}

#[test]
fn a_child_dies_with_the_thread_that_spawned_it() {
    let child = std::thread::spawn(|| {
        Command::new("/bin/sleep")
            .arg("600")
            .die_with_parent(Signal::KILL)
            .spawn()
            .unwrap()
    })
    .join()
    .unwrap();
    let process = PidFd::open(child.id()).unwrap();
    assert!(
        process.ended_within(LIMIT).unwrap(),
        "the child outlived the thread"
    );
    let mut child = child;
    assert!(!child.wait().unwrap().success());
}

#[tokio::test]
async fn a_pidfd_tells_when_its_process_ends() {
    let mut child = Command::new("/bin/sleep").arg("600").spawn().unwrap();
    let process = PidFd::open(child.id()).unwrap();
    assert!(!process.ended_within(Duration::ZERO).unwrap());
    process.send_signal(Signal::TERM).unwrap();
    tokio::time::timeout(LIMIT, process.ended())
        .await
        .unwrap()
        .unwrap();
    child.wait().unwrap();
    assert!(
        process
            .send_signal(Signal::TERM)
            .unwrap_err()
            .is_not_found()
    );
}

/// The reaper takes every child of its process, so it gets a process of its own: this test binary again.
#[test]
fn the_reaper_reports_every_child_and_takes_the_orphans() {
    const INSIDE: &str = "SEAWAY_TEST_REAPER";
    if std::env::var_os(INSIDE).is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "the_reaper_reports_every_child_and_takes_the_orphans",
            "--nocapture",
        ]);
        command.env(INSIDE, "1");
        let status = spawn_init(command).unwrap().wait().unwrap();
        assert!(status.success(), "inside: {status}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let reaper = Reaper::start().unwrap();
        let mut seven = reaper.spawn(&mut shell("exit 7")).unwrap();
        let mut killed = reaper.spawn(&mut shell("kill -KILL $$")).unwrap();
        // A real-time signal, which has no name.
        let mut real_time = reaper.spawn(&mut shell("kill -37 $$; sleep 60")).unwrap();
        let missing = reaper
            .spawn(&mut Command::new("/no/such/program"))
            .unwrap_err();
        assert!(missing.is_not_found(), "{missing}");
        // The shell ends at once and leaves an orphan to PID 1, which this is.
        let mut parent = reaper.spawn(&mut shell("sleep 0.2 & exit 0")).unwrap();
        let status = |wait: Result<std::process::ExitStatus, _>| -> std::process::ExitStatus {
            wait.unwrap()
        };
        use std::os::unix::process::ExitStatusExt;
        let limit = |future| tokio::time::timeout(LIMIT, future);
        assert_eq!(status(limit(seven.wait()).await.unwrap()).code(), Some(7));
        assert_eq!(
            status(limit(killed.wait()).await.unwrap()).signal(),
            Some(9)
        );
        assert_eq!(
            status(limit(real_time.wait()).await.unwrap()).signal(),
            Some(37)
        );
        assert_eq!(status(limit(parent.wait()).await.unwrap()).code(), Some(0));
        // Many at once, and none is lost.
        let mut many: Vec<_> = (0..50u8)
            .map(|code| reaper.spawn(&mut shell(&format!("exit {code}"))).unwrap())
            .collect();
        for (code, child) in many.iter_mut().enumerate() {
            let ended = tokio::time::timeout(LIMIT, child.wait())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(ended.code(), Some(i32::try_from(code).unwrap()));
        }
        // No zombie is left, the orphan included.
        let end = std::time::Instant::now() + LIMIT;
        while std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.parse::<u32>().is_ok_and(|pid| pid != 1)
        }) {
            assert!(std::time::Instant::now() < end, "a process is left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}
