//! What Pods are given and how they live: environment, files, probes, restarts, limits, images.

mod support;

use std::net::SocketAddr;

use support::{Host, Lab, http, is_ready, says, string, text, wait};

fn phase(lab: &Lab<'_>, pod: &str, wanted: &str) -> serde_json::Value {
    wait(&format!("{pod} to be {wanted}"), || {
        let pod = lab.get(&["pod", pod]);
        let now = string(&pod["status"]["phase"]);
        (now == wanted)
            .then_some(pod.clone())
            .ok_or(pod["status"].to_string())
    })
}

#[test]
fn configuration_reaches_the_container() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    lab.create(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, "file.conf": "a=1\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: hunter2}
---
apiVersion: v1
kind: Pod
metadata: {name: configured, labels: {team: sea}}
spec:
  terminationGracePeriodSeconds: 1
  hostAliases: [{ip: 192.0.2.7, hostnames: [alias.example]}]
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys}}
  initContainers:
  - name: first
    image: seaway/host
    command: [sh, -c, "echo from-init > /shared/file"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: main
    image: seaway/host
    workingDir: /tmp
    command: [sleep, "3600"]
    env:
    - {name: PLAIN, value: plain}
    - {name: EXPANDED, value: "$(PLAIN)-$(MISSING)-$$(PLAIN)"}
    - {name: MY_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: MY_NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: MY_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: MY_TEAM, valueFrom: {fieldRef: {fieldPath: "metadata.labels['team']"}}}
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: settings, mountPath: /settings}
    - {name: keys, mountPath: /keys, readOnly: true}
"#,
    );
    let pod = phase(&lab, "configured", "Running");
    let address = string(&pod["status"]["podIP"]);
    let run = |command: &[&str]| lab.exec("configured", command);
    let environment = run(&["env"]);
    let kubernetes = lab.cluster_ip("default", "kubernetes");
    let dns = lab.cluster_ip("kube-system", "kube-dns");
    for line in [
        "PLAIN=plain",
        "EXPANDED=plain-$(MISSING)-$(PLAIN)",
        "MY_NAME=configured",
        "MY_NODE=node-1",
        &format!("MY_IP={address}"),
        "MY_TEAM=sea",
        "COLOR=blue",
        "PASSWORD=hunter2",
        &format!("KUBERNETES_SERVICE_HOST={kubernetes}"),
        &format!("KUBERNETES_PORT_443_TCP=tcp://{kubernetes}:443"),
    ] {
        assert!(
            environment.lines().any(|found| found == line),
            "no {line} in {environment}"
        );
    }
    assert_eq!(run(&["pwd"]).trim(), "/tmp");
    assert_eq!(run(&["hostname"]).trim(), "configured");
    assert_eq!(run(&["cat", "/shared/file"]), "from-init\n");
    assert_eq!(run(&["cat", "/settings/file.conf"]), "a=1\n");
    assert_eq!(run(&["cat", "/keys/password"]), "hunter2");
    let hosts = run(&["cat", "/etc/hosts"]);
    assert!(
        hosts
            .lines()
            .any(|line| line.split_whitespace().eq([address.as_str(), "configured"])),
        "{hosts}"
    );
    assert!(hosts.contains("alias.example"), "{hosts}");
    let resolver = run(&["cat", "/etc/resolv.conf"]);
    for line in [
        format!("nameserver {dns}").as_str(),
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "options ndots:5",
    ] {
        assert!(resolver.lines().any(|found| found == line), "{resolver}");
    }
    assert_eq!(pod["status"]["qosClass"], "Burstable");

    // What a container writes is its own: the machine's root file system is only the floor.
    run(&["sh", "-c", "echo x > /etc/seaway-was-here"]);
    assert!(!std::path::Path::new("/etc/seaway-was-here").exists());

    // A changed ConfigMap reaches the file.
    lab.kubectl(&[
        "patch",
        "configmap",
        "settings",
        "-p",
        r#"{"data":{"file.conf":"a=2\n"}}"#,
    ]);
    wait("the new content", || {
        let found = run(&["cat", "/settings/file.conf"]);
        (found == "a=2\n").then_some(()).ok_or(found)
    });

    // What is missing is named.
    lab.create("{apiVersion: v1, kind: Pod, metadata: {name: unconfigured}, spec: {containers: [{name: c, image: seaway/host, command: [sleep, '60'], env: [{name: A, valueFrom: {configMapKeyRef: {name: nowhere, key: a}}}]}]}}");
    let message = wait("the reason", || {
        let pod = lab.get(&["pod", "unconfigured"]);
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        (waiting["reason"] == "CreateContainerConfigError")
            .then_some(string(&waiting["message"]))
            .ok_or(pod["status"].to_string())
    });
    assert!(
        message.contains("configmap \"nowhere\" not found"),
        "{message}"
    );
}

#[test]
fn probes_decide_who_is_in_the_service_and_who_is_restarted() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    lab.create(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: probed, labels: {app: probed}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: seaway/host
    command: [sh, -c, "touch /tmp/alive; sleep 3600"]
    readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: main
    image: seaway/whoami
    ports: [{name: http, containerPort: 8080}]
    startupProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: probed}
spec: {selector: {app: probed}, ports: [{port: 80}]}
"#,
    );
    lab.ready_pods("app=web", 1);
    phase(&lab, "probed", "Running");
    assert!(!is_ready(&lab.get(&["pod", "probed"])));
    let in_slice = |wanted: bool| {
        wait(&format!("ready={wanted} in the slice"), || {
            let slices = lab.get(&["endpointslices", "-l", "kubernetes.io/service-name=probed"]);
            let ready = &slices["items"][0]["endpoints"][0]["conditions"]["ready"];
            (*ready == wanted).then_some(()).ok_or(slices.to_string())
        });
    };
    in_slice(false);
    lab.exec("probed", &["touch", "/tmp/ready"]);
    in_slice(true);
    lab.exec("probed", &["rm", "/tmp/alive"]);
    wait("a restart", || {
        let count =
            lab.get(&["pod", "probed"])["status"]["containerStatuses"][0]["restartCount"].clone();
        (count == 1).then_some(()).ok_or(count.to_string())
    });
    wait("the reason in an Event", || {
        let events = lab.kubectl(&["events", "--for", "pod/probed"]);
        (events.contains("Liveness probe failed") && events.contains("Unhealthy"))
            .then_some(())
            .ok_or(events)
    });
    in_slice(false);
}

#[test]
fn containers_end_and_are_restarted_as_their_policy_says() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    let pod = |name: &str, policy: &str, script: &str| {
        lab.create(&format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: {policy}, terminationGracePeriodSeconds: 1, containers: [{{name: c, image: seaway/host, command: [sh, -c, '{script}'], resources: {{limits: {{memory: 48Mi}}}}}}]}}}}"));
    };
    pod("good", "Never", "exit 0");
    pod("bad", "Never", "exit 3");
    pod("again", "OnFailure", "exit 4");
    pod("hungry", "Never", "exec tail /dev/zero");
    phase(&lab, "good", "Succeeded");
    let bad = phase(&lab, "bad", "Failed");
    let terminated = &bad["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (
            terminated["exitCode"].as_i64(),
            terminated["reason"].as_str()
        ),
        (Some(3), Some("Error"))
    );
    let hungry = phase(&lab, "hungry", "Failed");
    assert_eq!(
        hungry["status"]["containerStatuses"][0]["state"]["terminated"]["reason"],
        "OOMKilled"
    );
    let status = wait("a back-off", || {
        let listed = lab.kubectl(&["get", "pod", "again"]);
        listed
            .contains("CrashLoopBackOff")
            .then_some(listed.clone())
            .ok_or(listed)
    });
    assert!(status.contains("0/1"), "{status}");
    let again = lab.get(&["pod", "again"]);
    let last = &again["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 4);
    lab.create("{apiVersion: v1, kind: Pod, metadata: {name: wrong}, spec: {restartPolicy: Never, containers: [{name: c, image: seaway/host, command: [/no/such/program]}]}}");
    let wrong = phase(&lab, "wrong", "Failed");
    let terminated = &wrong["status"]["containerStatuses"][0]["state"]["terminated"];
    assert!(
        string(&terminated["message"]).contains("/no/such/program"),
        "{terminated}"
    );
}

#[test]
fn a_pod_is_asked_to_end_before_it_is_killed() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    let pod = |name: &str, trap: &str| {
        lab.create(&format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 2, containers: [{{name: c, image: seaway/host, command: [sh, -c, \"trap '{trap}' TERM; while :; do sleep 0.1; done\"]}}]}}}}"));
        phase(&lab, name, "Running");
    };
    pod("polite", "exit 0");
    pod("stubborn", ":");
    for name in ["polite", "stubborn"] {
        let since = std::time::Instant::now();
        lab.kubectl(&["delete", "pod", name]);
        let took = since.elapsed();
        assert_eq!(
            took.as_secs() >= 2,
            name == "stubborn",
            "{name} took {took:?}"
        );
        assert!(!lab.kubectl_output(&["get", "pod", name]).status.success());
    }
}

#[test]
fn a_pod_on_the_hosts_network_has_the_nodes_address() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    lab.create("{apiVersion: v1, kind: Pod, metadata: {name: there, labels: {app: there}}, spec: {hostNetwork: true, containers: [{name: c, image: seaway/whoami, ports: [{containerPort: 8081}]}]}}");
    lab.ready_pods("app=there", 1);
    let (_, node) = lab.nodes().remove(0);
    assert_eq!(string(&lab.get(&["pod", "there"])["status"]["podIP"]), node);
    let at: SocketAddr = format!("{node}:8081").parse().expect("an address");
    let answer = wait("an answer", || lab.host.run(|| http(at)));
    assert_eq!(says(&answer, "Pod"), "there");
}

#[test]
fn an_imported_image_runs() {
    let host = Host::new();
    let lab = Lab::prepare(&host);
    // The archive of `docker save`, of an image with one static program: Debian's busybox-static.
    let archive = std::path::Path::new(lab.data_dir()).join("box.tar");
    let made = host
        .command("python3")
        .args(["-c", MAKE_ARCHIVE, archive.to_str().expect("UTF-8")])
        .output()
        .expect("python3");
    assert!(made.status.success(), "{}", text(&made.stderr));
    lab.seaway(&[
        "image",
        "import",
        archive.to_str().expect("UTF-8"),
        "--data",
        lab.data_dir(),
    ]);
    let listed = lab.seaway(&["image", "list", "--data", lab.data_dir()]);
    assert!(listed.contains("docker.io/library/box:1"), "{listed}");
    lab.start(&["--nodes", "1"]);
    lab.kubectl(&[
        "run",
        "box",
        "--image=box:1",
        "--restart=Never",
        "--",
        "echo",
        "from the image",
    ]);
    phase(&lab, "box", "Succeeded");
    assert_eq!(lab.kubectl(&["logs", "box"]), "from the image\n");
    lab.seaway(&["image", "remove", "box:1", "--data", lab.data_dir()]);
    assert!(
        !lab.seaway(&["image", "list", "--data", lab.data_dir()])
            .contains("box:1")
    );
}

const MAKE_ARCHIVE: &str = r#"
import hashlib, io, json, shutil, sys, tarfile
def add(tar, name, data, mode=0o644):
    info = tarfile.TarInfo(name); info.size = len(data); info.mode = mode
    tar.addfile(info, io.BytesIO(data))
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as tar:
    with open(shutil.which("busybox") or "/bin/busybox", "rb") as file:
        add(tar, "bin/busybox", file.read(), 0o755)
    link = tarfile.TarInfo("bin/echo"); link.type = tarfile.SYMTYPE; link.linkname = "busybox"
    tar.addfile(link)
layer = layer.getvalue()
config = json.dumps({"architecture": "amd64", "os": "linux",
    "config": {"Cmd": ["/bin/echo"], "Env": ["PATH=/bin"]},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()
name = hashlib.sha256(config).hexdigest() + ".json"
with tarfile.open(sys.argv[1], "w") as tar:
    add(tar, name, config)
    add(tar, "layer.tar", layer)
    add(tar, "manifest.json", json.dumps([{"Config": name, "RepoTags": ["box:1"], "Layers": ["layer.tar"]}]).encode())
"#;
