//! Labs as a whole: side by side, killed and started again, ended, and what `up` refuses.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use seaway_testkit::Watch;
use support::{Host, Lab, http, says, string, text, wait};

/// Watches everything that a lab could leave on its machine.
fn traces(lab: &Lab<'_>) -> Watch {
    Watch::new(lab.host.netns(), &[&lab.name])
}

/// Processes whose command line speaks of the lab.
fn processes_of(lab: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = text(&line).replace('\0', " ");
            (pid != std::process::id() && line.contains(lab)).then(|| format!("{pid} {line}"))
        })
        .collect()
}

const WHOAMI: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec:
  replicas: 2
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: seaway/whoami, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
"#;

fn service_answers(lab: &Lab<'_>) -> String {
    let address = string(&lab.get(&["service", "web"])["spec"]["clusterIP"]);
    let at = format!("{address}:80").parse().expect("an address");
    wait("the Service to answer", || lab.host.run(|| http(at)));
    address
}

/// Pod name → address.
fn addresses(lab: &Lab<'_>) -> BTreeMap<String, String> {
    lab.get(&["pods"])["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|pod| {
            (
                string(&pod["metadata"]["name"]),
                string(&pod["status"]["podIP"]),
            )
        })
        .collect()
}

#[test]
fn a_lab_leaves_nothing_behind_when_it_ends() {
    let host = Host::new();
    let lab = Lab::prepare(&host);
    let before = traces(&lab).snapshot();
    lab.start(&[]);
    lab.create(WHOAMI);
    lab.ready_pods("app=web", 2);
    let during = before.difference(&traces(&lab).snapshot()).to_string();
    for trace in ["link", "route", "cgroup", "process"] {
        assert!(
            during
                .lines()
                .any(|line| line.starts_with(&format!("+ {trace}"))),
            "no {trace} in {during}"
        );
    }
    lab.seaway(&["down", "--name", &lab.name, "--data", lab.data_dir()]);
    before.assert_same(&traces(&lab).snapshot());
    assert!(!Path::new("/run/seaway").join(&lab.name).exists());
    assert!(lab.kubeconfig().exists(), "the data stays without --purge");
    lab.seaway(&[
        "down",
        "--purge",
        "--name",
        &lab.name,
        "--data",
        lab.data_dir(),
    ]);
    assert!(!lab.kubeconfig().exists(), "--purge takes the data");
}

#[test]
fn two_labs_live_side_by_side() {
    let host = Host::new();
    let one = Lab::up(&host);
    let two = Lab::up(&host);
    for lab in [&one, &two] {
        lab.create(WHOAMI);
        lab.ready_pods("app=web", 2);
    }
    let (first, second) = (service_answers(&one), service_answers(&two));
    assert_ne!(first, second, "their Services do not share addresses");
    let one_addresses = addresses(&one);
    assert!(
        addresses(&two)
            .values()
            .all(|address| !one_addresses.values().any(|other| other == address))
    );

    // A second lab of the same name is refused, and the first does not notice.
    let again = one.seaway_output(&[
        "up",
        "--detach",
        "--name",
        &one.name,
        "--data",
        one.data_dir(),
    ]);
    assert!(!again.status.success());
    assert!(
        text(&again.stderr).contains("is running already"),
        "{}",
        text(&again.stderr)
    );
    service_answers(&one);

    // One goes, the other stays.
    two.seaway(&["down", "--name", &two.name, "--data", two.data_dir()]);
    service_answers(&one);
}

#[test]
fn a_killed_lab_comes_back_as_it_was() {
    let host = Host::new();
    let lab = Lab::prepare(&host);
    let before = traces(&lab).snapshot();
    lab.start(&[]);
    lab.create(WHOAMI);
    lab.ready_pods("app=web", 2);
    let service = service_answers(&lab);
    let pods = addresses(&lab);
    let nodes = lab.nodes();

    // Everything at once, as a power cut would.
    for process in processes_of(&lab.name) {
        let pid = process.split_whitespace().next().expect("a process number");
        // Most are gone already with the first: the lab's PID 1.
        Command::new("kill")
            .args(["-KILL", pid])
            .output()
            .expect("kill");
    }
    wait("every process to be gone", || {
        let left = processes_of(&lab.name);
        left.is_empty().then_some(()).ok_or(left.join("\n"))
    });
    // Links and mounts go with the lab's namespaces, without anybody's help; the kernel takes a moment for it.
    wait("links and mounts to be gone", || {
        let killed = before.difference(&traces(&lab).snapshot());
        let floor =
            |line: &String| line.starts_with("route: unreachable") || line.starts_with("cgroup");
        killed
            .added
            .iter()
            .all(floor)
            .then_some(())
            .ok_or(killed.to_string())
    });

    lab.start(&[]);
    lab.ready_pods("app=web", 2);
    assert_eq!(
        service_answers(&lab),
        service,
        "the Service has its address again"
    );
    assert_eq!(addresses(&lab), pods, "the same Pods at the same addresses");
    assert_eq!(lab.nodes(), nodes);
    lab.seaway(&["down", "--name", &lab.name, "--data", lab.data_dir()]);
    before.assert_same(&traces(&lab).snapshot());
}

#[test]
fn nothing_of_a_lab_leaves_the_machine() {
    let host = Host::new();
    let lab = Lab::up(&host);
    lab.create("{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: p}}, spec: {containers: [{name: c, image: seaway/whoami}]}}");
    lab.ready_pods("app=p", 1);
    // 203.0.113.0/24 is for documentation (RFC 5737). The answer is a refusal at once, not silence.
    let said = lab.try_exec(
        "p",
        &["curl", "-sS", "--max-time", "3", "http://203.0.113.1/"],
    );
    let error = said.expect_err("there is no way out");
    assert!(!error.contains("timed out"), "{error}");
    // On the host itself, the lab's ranges have a floor below the lab's own routes.
    let routes = lab
        .host
        .command("ip")
        .args(["route"])
        .output()
        .expect("ip route");
    let routes = text(&routes.stdout);
    let status = lab.status();
    for range in ["podCidr", "serviceCidr", "nodeCidr"].map(|range| string(&status[range])) {
        assert!(
            routes
                .lines()
                .any(|line| line.starts_with(&format!("unreachable {range}"))),
            "no floor under {range}: {routes}"
        );
    }
}

#[test]
fn bad_requests_are_refused_with_what_to_do() {
    let host = Host::new();
    let lab = Lab::prepare(&host);
    let before = traces(&lab).snapshot();
    let refused = |options: &[&str], words: &[&str]| {
        let mut arguments = vec!["up", "--detach", "--data", lab.data_dir()];
        arguments.extend(options);
        let output = lab.seaway_output(&arguments);
        assert_eq!(output.status.code(), Some(1), "{options:?}");
        let said = text(&output.stderr);
        for word in words {
            assert!(
                said.contains(word),
                "{options:?} says {said:?} without {word:?}"
            );
        }
        assert_eq!(
            said.lines()
                .filter(|line| line.starts_with("error:"))
                .count(),
            1,
            "{said}"
        );
    };
    refused(
        &["--name", &lab.name, "--nodes", "0"],
        &["--nodes 0", "1 to"],
    );
    refused(&["--name", "Not_A_Name"], &["--name", "lower-case"]);
    refused(&["--name", &lab.name, "--nodes", "1000"], &["--nodes 1000"]);

    let port = lab.host.run(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let output = lab.seaway_output(&[
            "up",
            "--detach",
            "--name",
            &lab.name,
            "--data",
            lab.data_dir(),
            "--api-port",
            &port.to_string(),
        ]);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(
            said.contains("is taken") && said.contains("--api-port"),
            "{said}"
        );
        port
    });
    assert_ne!(port, 0);

    // Without root: what is needed. A copy that everybody may run, since the build may lie in a private directory.
    let public = std::env::temp_dir().join(format!("{}-public", lab.name));
    std::fs::create_dir(&public).expect("a directory");
    std::fs::set_permissions(&public, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("its mode");
    let program = public.join("seaway");
    std::fs::copy(support::SEAWAY, &program).expect("a copy of the program");
    let output = lab
        .host
        .command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["up", "--name", &lab.name])
        .current_dir("/")
        .output()
        .expect("setpriv");
    std::fs::remove_dir_all(&public).expect("remove the copy");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("needs root"),
        "{}",
        text(&output.stderr)
    );
    before.assert_same(&traces(&lab).snapshot());
}

#[test]
fn the_lab_ends_with_the_terminal_that_started_it() {
    use std::os::unix::process::CommandExt as _;
    let host = Host::new();
    let lab = Lab::prepare(&host);
    let before = traces(&lab).snapshot();
    for signal in ["-INT", "-KILL"] {
        let mut up = lab
            .host
            .command(support::SEAWAY)
            .args([
                "up",
                "--name",
                &lab.name,
                "--data",
                lab.data_dir(),
                "--nodes",
                "1",
            ])
            .process_group(0)
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("seaway up");
        wait("the lab to run", || {
            let said = lab.seaway_output(&["status", "-o", "json", "--data", lab.data_dir()]);
            let labs: serde_json::Value =
                serde_json::from_slice(&said.stdout).map_err(|error| error.to_string())?;
            let lab = labs
                .as_array()
                .into_iter()
                .flatten()
                .find(|found| found["name"] == lab.name.as_str());
            (lab.is_some_and(|lab| lab["phase"] == "Running"))
                .then_some(())
                .ok_or(labs.to_string())
        });
        Command::new("kill")
            .args([signal, &up.id().to_string()])
            .status()
            .expect("kill");
        up.wait().expect("seaway up ends");
        wait("everything to be gone", || {
            let left = before.difference(&traces(&lab).snapshot());
            left.is_empty().then_some(()).ok_or(left.to_string())
        });
    }
}

#[test]
fn an_agent_that_dies_comes_back_and_its_pods_do_not_notice() {
    let host = Host::new();
    let lab = Lab::up(&host);
    lab.create(WHOAMI);
    let pods = lab.ready_pods("app=web", 2);
    let address = service_answers(&lab);
    let at = format!("{address}:80").parse().expect("an address");
    let started = |pods: &[serde_json::Value]| -> Vec<String> {
        pods.iter()
            .map(|pod| {
                string(&pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"])
            })
            .collect()
    };
    let agents: Vec<String> = processes_of(&lab.name)
        .into_iter()
        .filter(|line| line.contains("internal agent"))
        .collect();
    assert_eq!(agents.len(), 3, "{agents:?}");
    for agent in &agents {
        Command::new("kill")
            .args(["-KILL", agent.split_whitespace().next().expect("a number")])
            .status()
            .expect("kill");
    }
    // What the kernel holds goes on working without the agents.
    for _ in 0..50 {
        lab.host
            .run(|| http(at))
            .expect("the Service answers while the agents are away");
    }
    wait("the agents to be back", || {
        let now = processes_of(&lab.name)
            .iter()
            .filter(|line| line.contains("internal agent"))
            .count();
        (now == 3).then_some(()).ok_or(now.to_string())
    });
    // They work: a change reaches the kernel.
    lab.kubectl(&["scale", "rc", "web", "--replicas=3"]);
    let after = lab.ready_pods("app=web", 3);
    wait("the third Pod to answer", || {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..40 {
            seen.insert(says(&lab.host.run(|| http(at))?, "Pod"));
        }
        (seen.len() == 3).then_some(()).ok_or(format!("{seen:?}"))
    });
    let before = started(&pods);
    assert!(
        started(&after)
            .iter()
            .filter(|time| before.contains(time))
            .count()
            >= 2,
        "the first two were not restarted"
    );
}
