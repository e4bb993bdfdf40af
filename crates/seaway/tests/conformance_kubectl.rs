//! kubectl as it is, against a lab: the verbs and forms that people use every day.

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use support::{Host, Lab, string, text, wait};

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: seaway/whoami
        ports: [{name: http, containerPort: 80}]
"#;

fn deployed(host: &Host) -> Lab<'_> {
    let lab = Lab::up(host);
    lab.create(DEPLOYMENT);
    lab.ready_pods("app=web", 2);
    lab
}

/// The header of a table, as words.
fn header(table: &str) -> Vec<&str> {
    table
        .lines()
        .next()
        .unwrap_or_default()
        .split("   ")
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn get_prints_the_usual_columns_and_every_form() {
    let host = Host::new();
    let lab = deployed(&host);
    for (what, columns) in [
        ("pods", &["NAME", "READY", "STATUS", "RESTARTS", "AGE"][..]),
        (
            "services",
            &[
                "NAME",
                "TYPE",
                "CLUSTER-IP",
                "EXTERNAL-IP",
                "PORT(S)",
                "AGE",
            ],
        ),
        ("nodes", &["NAME", "STATUS", "ROLES", "AGE", "VERSION"]),
        (
            "deployments",
            &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
        ),
        (
            "replicasets",
            &["NAME", "DESIRED", "CURRENT", "READY", "AGE"],
        ),
        ("endpoints", &["NAME", "ENDPOINTS", "AGE"]),
        (
            "endpointslices",
            &["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"],
        ),
        ("namespaces", &["NAME", "STATUS", "AGE"]),
        ("configmaps", &["NAME", "DATA", "AGE"]),
        ("serviceaccounts", &["NAME", "SECRETS", "AGE"]),
    ] {
        let table = lab.kubectl(&["get", what]);
        assert_eq!(header(&table), columns, "{table}");
    }
    let wide = lab.kubectl(&["get", "pods", "-o", "wide"]);
    assert!(
        header(&wide).contains(&"IP") && header(&wide).contains(&"NODE"),
        "{wide}"
    );
    let names = lab.kubectl(&["get", "deploy,rs,pods", "-o", "name"]);
    assert!(
        names.contains("deployment.apps/web") && names.contains("pod/web-"),
        "{names}"
    );
    assert_eq!(
        lab.kubectl(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"]),
        "2"
    );
    assert!(
        lab.kubectl(&["get", "deploy", "web", "-o", "yaml"])
            .contains("kind: Deployment")
    );
    assert!(lab.kubectl(&["get", "pods", "-A"]).starts_with("NAMESPACE"));
    assert_eq!(
        lab.kubectl(&["get", "pods", "-l", "app!=web", "-o", "name"]),
        ""
    );
    assert_eq!(
        lab.kubectl(&["get", "pods", "-l", "app in (web)", "-o", "name"])
            .lines()
            .count(),
        2
    );
    let all = lab.kubectl(&["get", "all"]);
    for kind in [
        "pod/web-",
        "service/kubernetes",
        "deployment.apps/web",
        "replicaset.apps/web-",
    ] {
        assert!(all.contains(kind), "{all}");
    }
}

#[test]
fn get_watches() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    let mut watch = lab
        .kubectl_command(&["get", "configmaps", "-w", "--output-watch-events"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl get -w");
    let mut lines = BufReader::new(watch.stdout.take().expect("its output")).lines();
    let mut next = |word: &str| {
        for line in lines.by_ref() {
            let line = line.expect("a line");
            if line.contains("settings") && line.contains(word) {
                return;
            }
        }
        panic!("the watch ended before {word}");
    };
    lab.kubectl(&["create", "configmap", "settings", "--from-literal=a=1"]);
    next("ADDED");
    lab.kubectl(&["label", "configmap", "settings", "x=y"]);
    next("MODIFIED");
    lab.kubectl(&["delete", "configmap", "settings"]);
    next("DELETED");
    watch.kill().expect("end the watch");
    watch.wait().expect("the watch ends");
}

#[test]
fn objects_are_changed_in_every_way() {
    let host = Host::new();
    let lab = deployed(&host);

    // label, annotate, patch in three ways
    lab.kubectl(&["label", "deployment", "web", "tier=front"]);
    lab.kubectl(&["annotate", "deployment", "web", "note=hello"]);
    lab.kubectl(&["patch", "deployment", "web", "-p", r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}"#]);
    lab.kubectl(&[
        "patch",
        "deployment",
        "web",
        "--type=merge",
        "-p",
        r#"{"metadata":{"labels":{"tier":null}}}"#,
    ]);
    lab.kubectl(&[
        "patch",
        "deployment",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"add","path":"/metadata/labels/x","value":"y"}]"#,
    ]);
    let web = lab.get(&["deployment", "web"]);
    assert_eq!(web["metadata"]["annotations"]["note"], "hello");
    assert!(web["metadata"]["labels"]["tier"].is_null());
    assert_eq!(web["metadata"]["labels"]["x"], "y");
    let container = &web["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        container["image"], "seaway/whoami",
        "a strategic patch merges by name"
    );
    assert_eq!(container["env"][0]["value"], "1");

    // edit
    let edited = lab
        .kubectl_command(&["edit", "deployment", "web"])
        .env("EDITOR", "sed -i s/hello/edited/")
        .output()
        .expect("kubectl edit");
    assert!(edited.status.success(), "{}", text(&edited.stderr));
    assert_eq!(
        lab.get(&["deployment", "web"])["metadata"]["annotations"]["note"],
        "edited"
    );

    // apply: created, unchanged, changed, and what is taken out of the manifest goes
    let manifest = |data: &str| {
        format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: applied}}, data: {data}}}")
    };
    for (data, said) in [
        ("{a: '1', b: '2'}", "created"),
        ("{a: '1', b: '2'}", "unchanged"),
        ("{a: '3'}", "configured"),
    ] {
        let output = lab.kubectl_stdin(&["apply", "-f", "-"], &manifest(data));
        assert!(
            text(&output.stdout).contains(said),
            "{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
    }
    assert_eq!(
        lab.get(&["configmap", "applied"])["data"],
        serde_json::json!({"a": "3"})
    );

    // scale, expose, run, delete
    lab.kubectl(&["scale", "deployment", "web", "--replicas=3"]);
    lab.ready_pods("app=web", 3);
    lab.kubectl(&[
        "expose",
        "deployment",
        "web",
        "--port=8080",
        "--target-port=http",
    ]);
    let port = &lab.get(&["service", "web"])["spec"]["ports"][0];
    assert_eq!(
        (port["port"].as_u64(), port["targetPort"].as_str()),
        (Some(8080), Some("http"))
    );
    lab.kubectl(&["run", "lone", "--image=seaway/whoami", "--port=80"]);
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/lone", "--timeout=60s"]);
    let answer = wait("the exposed Service to answer", || {
        lab.try_exec("lone", &["curl", "-sS", "web:8080"])
    });
    assert!(answer.contains("Pod: web-"), "{answer}");
    lab.kubectl(&["delete", "pod", "lone"]);
    assert!(!lab.kubectl(&["get", "pods", "-o", "name"]).contains("lone"));

    // A stale write is refused, so that no change is lost.
    let old = lab.kubectl(&["get", "configmap", "applied", "-o", "yaml"]);
    lab.kubectl(&["label", "configmap", "applied", "new=er"]);
    let output = lab.kubectl_stdin(&["replace", "-f", "-"], &old);
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("the object has been modified"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_rollout_rolls_forward_and_back() {
    let host = Host::new();
    let lab = deployed(&host);
    let image_of = |lab: &Lab<'_>| {
        string(
            &lab.get(&["deployment", "web"])["spec"]["template"]["spec"]["containers"][0]["env"][0]
                ["value"],
        )
    };
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    lab.kubectl(&["set", "env", "deployment/web", "VERSION=2"]);
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(image_of(&lab), "2");
    lab.kubectl(&["rollout", "restart", "deployment/web"]);
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let history = lab.kubectl(&["rollout", "history", "deployment/web"]);
    assert!(
        ["1", "2", "3"]
            .iter()
            .all(|revision| history.lines().any(|line| line.starts_with(revision))),
        "{history}"
    );
    lab.kubectl(&["rollout", "undo", "deployment/web", "--to-revision=1"]);
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    lab.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/web",
        "--timeout=60s",
    ]);
    assert_eq!(image_of(&lab), "");
    lab.ready_pods("app=web", 2);
}

#[test]
fn describe_events_and_explain_tell() {
    let host = Host::new();
    let lab = deployed(&host);
    let pod = string(&lab.ready_pods("app=web", 2)[0]["metadata"]["name"]);
    let described = wait("events in the description", || {
        let said = lab.kubectl(&["describe", "pod", &pod]);
        (["Scheduled", "Pulled", "Created", "Started"]
            .iter()
            .all(|reason| said.contains(reason)))
        .then_some(said.clone())
        .ok_or(said)
    });
    for line in [
        "Node:",
        "Status:",
        "IP:",
        "Controlled By:  ReplicaSet/web-",
        "Ready:          True",
        "Restart Count:  0",
    ] {
        assert!(described.contains(line), "{described}");
    }
    for (kind, name) in [
        ("deployment", "web"),
        ("node", "node-1"),
        ("namespace", "default"),
        ("service", "kubernetes"),
    ] {
        assert!(lab.kubectl(&["describe", kind, name]).contains(name));
    }
    let events = lab.kubectl(&["events"]);
    assert!(
        events.contains("ScalingReplicaSet") && events.contains("SuccessfulCreate"),
        "{events}"
    );
    let resources = lab.kubectl(&["api-resources"]);
    for kind in [
        "pods",
        "services",
        "endpointslices",
        "deployments",
        "replicationcontrollers",
        "leases",
        "events",
    ] {
        assert!(
            resources.lines().any(|line| line.starts_with(kind)),
            "{resources}"
        );
    }
    let explained = lab.kubectl(&["explain", "service.spec.ports"]);
    assert!(
        explained.contains("targetPort") && explained.contains("DESCRIPTION"),
        "{explained}"
    );
    assert!(lab.kubectl(&["version"]).contains("Server Version: v1."));
}

#[test]
fn logs_and_exec_speak_with_containers() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    lab.create(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: seaway/host, command: [sh, -c, "echo one; echo two >&2; sleep 3600"]}
  - {name: other, image: seaway/host, command: [sleep, "3600"]}
"#,
    );
    lab.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/shell",
        "--timeout=60s",
    ]);
    wait("both lines", || {
        let said = lab.kubectl(&["logs", "shell", "-c", "main"]);
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        (lines == ["one", "two"]).then_some(()).ok_or(said)
    });
    assert_eq!(
        lab.kubectl(&["logs", "shell", "-c", "main", "--tail=1"])
            .lines()
            .count(),
        1
    );

    // exec: both streams, standard input, the exit code, a terminal
    assert_eq!(
        lab.kubectl(&["exec", "shell", "-c", "main", "--", "echo", "hi"]),
        "hi\n"
    );
    let failed = lab.kubectl_output(&[
        "exec",
        "shell",
        "-c",
        "main",
        "--",
        "sh",
        "-c",
        "echo oops >&2; exit 7",
    ]);
    assert_eq!(failed.status.code(), Some(7));
    assert!(text(&failed.stderr).contains("oops"));
    let echoed = lab.kubectl_stdin(
        &["exec", "-i", "shell", "-c", "main", "--", "cat"],
        "through standard input\n",
    );
    assert_eq!(text(&echoed.stdout), "through standard input\n");
    let missing = lab.kubectl_output(&["exec", "shell", "-c", "main", "--", "no-such-program"]);
    assert!(
        !missing.status.success() && text(&missing.stderr).contains("no-such-program"),
        "{}",
        text(&missing.stderr)
    );
    let on_terminal = lab
        .host
        .command("script")
        .args([
            "-qec",
            &format!(
                "kubectl --kubeconfig {} exec -it shell -c main -- sh -c 'tty; stty size'",
                lab.kubeconfig().display()
            ),
            "/dev/null",
        ])
        .output()
        .expect("script");
    assert!(
        text(&on_terminal.stdout).contains("/dev/pts/"),
        "{}",
        text(&on_terminal.stdout)
    );

    // The containers of a Pod share its network and host name, not their processes.
    let name = lab.kubectl(&["exec", "shell", "-c", "other", "--", "hostname"]);
    assert_eq!(name.trim(), "shell");
    let network = |container: &str| {
        lab.kubectl(&[
            "exec",
            "shell",
            "-c",
            container,
            "--",
            "readlink",
            "/proc/self/ns/net",
        ])
    };
    assert_eq!(network("main"), network("other"));
    let processes = |container: &str| {
        lab.kubectl(&[
            "exec",
            "shell",
            "-c",
            container,
            "--",
            "readlink",
            "/proc/self/ns/pid",
        ])
    };
    assert_ne!(processes("main"), processes("other"));

    // logs -f follows until the container ends
    lab.kubectl(&[
        "run",
        "talker",
        "--image=seaway/host",
        "--restart=Never",
        "--",
        "sh",
        "-c",
        "for i in 1 2 3; do echo line $i; sleep 0.2; done",
    ]);
    wait("the Pod's log", || {
        let output = lab.kubectl_output(&["logs", "talker"]);
        output
            .status
            .success()
            .then_some(())
            .ok_or(text(&output.stderr))
    });
    let mut follow = lab
        .kubectl_command(&["logs", "-f", "talker"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl logs -f");
    let mut said = String::new();
    follow
        .stdout
        .take()
        .expect("its output")
        .read_to_string(&mut said)
        .expect("the log");
    assert!(follow.wait().expect("kubectl ends").success());
    assert_eq!(said, "line 1\nline 2\nline 3\n");
    wait("the Pod to have succeeded", || {
        let phase = string(&lab.get(&["pod", "talker"])["status"]["phase"]);
        (phase == "Succeeded").then_some(()).ok_or(phase)
    });
}

#[test]
fn bad_input_gets_a_clear_answer() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    let refused = |manifest: &str, words: &[&str]| {
        let output = lab.kubectl_stdin(&["create", "-f", "-"], manifest);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{manifest}");
        for word in words {
            assert!(said.contains(word), "{said:?} without {word:?}");
        }
    };
    let service = |name: &str, node_port: u16| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{type: NodePort, ports: [{{port: 80, nodePort: {node_port}}}]}}}}"
        )
    };
    lab.create(&service("first", 30123));
    refused(
        &service("second", 30123),
        &[
            "spec.ports[0].nodePort",
            "provided port is already allocated",
        ],
    );
    refused(
        &service("second", 80),
        &["The range of valid ports is 30000-32767"],
    );
    refused(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: []}}",
        &["spec.containers", "Required value"],
    );
    refused(
        "{apiVersion: v1, kind: Pod, metadata: {name: P_}, spec: {containers: [{name: c, image: x}]}}",
        &["metadata.name", "RFC 1123"],
    );
    refused(
        "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: eighty}]}}",
        &["cannot"],
    );
    refused(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, dta: {a: b}}",
        &["unknown field"],
    );
    refused(
        "{apiVersion: v2, kind: Thing, metadata: {name: t}}",
        &["no matches for kind"],
    );
    refused(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: nowhere}}",
        &["namespaces \"nowhere\" not found"],
    );

    // An image that is nowhere: the Pod says so, and so does an Event.
    lab.kubectl(&["run", "lost", "--image=registry.invalid/no/such:image"]);
    wait("the reason in the Pod's status", || {
        let status = lab.kubectl(&["get", "pod", "lost"]);
        (status.contains("ErrImagePull") || status.contains("ImagePullBackOff"))
            .then_some(())
            .ok_or(status)
    });
    let events = wait("the reason in an Event", || {
        let events = lab.kubectl(&["events", "--for", "pod/lost"]);
        events
            .contains("Failed to pull image")
            .then_some(events.clone())
            .ok_or(events)
    });
    assert!(
        events.contains("registry.invalid/no/such:image"),
        "{events}"
    );

    // Without credentials: 401, in a Status.
    let server = lab.kubectl(&[
        "config",
        "view",
        "-o",
        "jsonpath={.clusters[0].cluster.server}",
    ]);
    let output = lab
        .host
        .command("curl")
        .args(["-sk", &format!("{server}/api/v1/namespaces/default/pods")])
        .output()
        .expect("curl");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a Status");
    assert_eq!(
        (status["code"].as_u64(), status["reason"].as_str()),
        (Some(401), Some("Unauthorized"))
    );
}

#[test]
fn a_full_disk_refuses_writes_and_loses_none() {
    let host = Host::new();
    let lab = Lab::prepare(&host);
    let disk = std::path::Path::new(lab.data_dir()).join("labs");
    std::fs::create_dir_all(&disk).expect("a directory");
    seaway_kernel::mount::tmpfs(&disk, Some(6 << 20), 0o755).expect("a small disk");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        lab.start(&["--nodes", "1"]);
        let mut stored = Vec::new();
        let mut refusal = None;
        for n in 0..40 {
            let name = format!("big-{n}");
            let manifest = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "x".repeat(400_000)}});
            let output = lab.kubectl_stdin(&["create", "-f", "-"], &manifest.to_string());
            if output.status.success() {
                stored.push(name);
            } else {
                refusal = Some(text(&output.stderr));
                break;
            }
        }
        let refusal = refusal.expect("a disk of 6 MiB is full before 16 MB are on it");
        assert!(refusal.contains("full"), "{refusal}");
        assert!(!stored.is_empty());
        // What was acknowledged is there, also after a restart.
        let kept = |lab: &Lab<'_>| {
            let found = lab.kubectl(&["get", "configmaps", "-o", "name"]);
            for name in &stored {
                assert!(found.contains(name.as_str()), "{name} is lost: {found}");
            }
        };
        kept(&lab);
        // And with room again, writes go through.
        let grown = std::process::Command::new("mount")
            .args(["-o", "remount,size=64m"])
            .arg(&disk)
            .status()
            .expect("mount");
        assert!(grown.success());
        wait("a write with room again", || {
            let output =
                lab.kubectl_output(&["create", "configmap", "after", "--from-literal=a=b"]);
            output
                .status
                .success()
                .then_some(())
                .ok_or(text(&output.stderr))
        });
        kept(&lab);
        lab.seaway(&["down", "--name", &lab.name, "--data", lab.data_dir()]);
    }));
    drop(lab.seaway_output(&[
        "down",
        "--purge",
        "--name",
        &lab.name,
        "--data",
        lab.data_dir(),
    ]));
    seaway_kernel::mount::unmount_if_mounted(&disk).expect("unmount the small disk");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
