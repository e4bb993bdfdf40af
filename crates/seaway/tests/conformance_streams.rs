//! Streams, as kubectl uses them: exec, attach, port-forward, cp, proxy and logs, each over WebSocket and over SPDY where
//! kubectl can do both.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use support::{Host, LIMIT, Lab, http, string, text, wait};

/// Whether kubectl speaks WebSocket, for everything; SPDY is the other.
const BOTH: [bool; 2] = [true, false];

fn over(mut command: Command, websocket: bool) -> Command {
    let value = websocket.to_string();
    command
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", &value)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", &value);
    command
}

/// Runs kubectl with this input.
fn kubectl(lab: &Lab<'_>, websocket: bool, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = over(lab.kubectl_command(arguments), websocket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run kubectl");
    let mut stdin = child.stdin.take().expect("its standard input");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Whoever does not read it all has a reason.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().expect("wait for kubectl")
    })
}

fn run_shell(lab: &Lab<'_>, name: &str) {
    lab.kubectl(&[
        "run",
        name,
        "--image=seaway/host",
        "--overrides={\"spec\":{\"terminationGracePeriodSeconds\":1}}",
        "--command",
        "--",
        "sleep",
        "infinity",
    ]);
    ready(lab, name);
}

fn ready(lab: &Lab<'_>, name: &str) {
    let pod = format!("pod/{name}");
    lab.kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=60s"]);
}

/// Process numbers of a lab's agents.
fn agents_of(lab: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let agents = processes.filter_map(|entry| {
        let pid = entry.file_name().into_string().ok()?;
        let line = text(&std::fs::read(entry.path().join("cmdline")).ok()?).replace('\0', " ");
        (line.contains("internal agent") && line.contains(lab)).then_some(pid)
    });
    agents.collect()
}

/// A child that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `kubectl proxy` on a port of its choice.
fn proxy(lab: &Lab<'_>, options: &[&str]) -> (Running, SocketAddr) {
    let mut arguments = vec!["proxy", "--port=0"];
    arguments.extend(options);
    let mut child = lab
        .kubectl_command(&arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("run kubectl");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output"))
        .read_line(&mut line)
        .expect("a line");
    // Starting to serve on 127.0.0.1:34567
    let address = line
        .trim()
        .rsplit(' ')
        .next()
        .and_then(|word| word.parse().ok());
    let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
    (Running(child), address)
}

/// A forward on a port of kubectl's choice.
struct Forward {
    kubectl: Running,
    address: SocketAddr,
}

impl Forward {
    fn to(lab: &Lab<'_>, websocket: bool, target: &str, port: &str) -> Self {
        let port = format!(":{port}");
        let arguments = ["port-forward", target, &port, "--address", "127.0.0.1"];
        let mut child = over(lab.kubectl_command(&arguments), websocket)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run kubectl");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let first = lines.next().expect("a line").expect("text");
        // Forwarding from 127.0.0.1:34567 -> 80
        let address = first
            .split_whitespace()
            .nth(2)
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no address in {first:?}"));
        // It must not stand still because nobody reads it.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            kubectl: Running(child),
            address,
        }
    }

    /// What kubectl says when it gives up.
    fn complaint(mut self) -> String {
        let mut said = String::new();
        let stderr = self.kubectl.0.stderr.as_mut().expect("its errors");
        stderr.read_to_string(&mut said).expect("text");
        said
    }
}

#[test]
fn exec_carries_input_output_errors_and_the_exit_code() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    run_shell(&lab, "shell");
    for websocket in BOTH {
        let exec = |command: &[&str], input: &[u8]| {
            let mut arguments = vec!["exec", "-i", "shell", "--"];
            arguments.extend(command);
            kubectl(&lab, websocket, &arguments, input)
        };
        let said = exec(&["sh", "-c", "cat; echo oops >&2; exit 7"], b"hello\n");
        assert_eq!(said.status.code(), Some(7), "websocket: {websocket}");
        assert_eq!(text(&said.stdout), "hello\n");
        assert!(
            text(&said.stderr).starts_with("oops\n"),
            "{}",
            text(&said.stderr)
        );
        assert_eq!(exec(&["true"], b"").status.code(), Some(0));

        // Megabytes in both directions, at once and changed by nobody.
        let input: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
        let said = exec(&["cat"], &input);
        assert_eq!(said.stdout.len(), input.len());
        assert!(said.stdout == input);

        // A command that does not read its input ends nevertheless.
        let said = exec(&["echo", "done"], &input);
        assert_eq!(text(&said.stdout), "done\n");

        let said = exec(&["no-such-program"], b"");
        assert!(!said.status.success());
        assert!(
            text(&said.stderr).contains("executable file not found in $PATH"),
            "{}",
            text(&said.stderr)
        );
        let said = kubectl(
            &lab,
            websocket,
            &["exec", "shell", "-c", "other", "--", "true"],
            b"",
        );
        assert!(
            text(&said.stderr).contains("container other is not valid for pod shell"),
            "{}",
            text(&said.stderr)
        );
    }
}

#[test]
fn a_terminal_has_the_size_of_the_clients() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    run_shell(&lab, "shell");
    for websocket in BOTH {
        let kubeconfig = lab.kubeconfig();
        let script = format!(
            "stty rows 33 cols 77; kubectl --kubeconfig {} exec -it shell -- \
             sh -c 'until [ \"$(stty size)\" = \"33 77\" ]; do sleep 0.1; done; tty; exit 4'",
            kubeconfig.display()
        );
        let mut command = over(host.command("script"), websocket);
        command
            .args(["-qec", &script, "/dev/null"])
            .env("HOME", lab.data_dir())
            .stdin(Stdio::null());
        let said = command.output().expect("run script");
        assert_eq!(said.status.code(), Some(4), "{}", text(&said.stdout));
        assert!(
            text(&said.stdout).contains("/dev/pts/"),
            "{}",
            text(&said.stdout)
        );
    }
}

#[test]
fn exec_ends_with_its_pod_and_a_process_with_its_client() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    run_shell(&lab, "keeper");
    for websocket in BOTH {
        // A client that goes takes its process with it.
        let sleeping = || {
            let found = lab.exec("keeper", &["sh", "-c", "pgrep -x -c sleep || true"]);
            found.trim().parse::<u32>().expect("a number")
        };
        let before = sleeping();
        let arguments = ["exec", "keeper", "--", "sleep", "3600"];
        let client = Running(
            over(lab.kubectl_command(&arguments), websocket)
                .spawn()
                .expect("run kubectl"),
        );
        wait("the process", || {
            let now = sleeping();
            (now == before + 1).then_some(()).ok_or(now.to_string())
        });
        drop(client);
        wait("the process to end", || {
            let now = sleeping();
            (now == before).then_some(()).ok_or(now.to_string())
        });

        // A Pod that goes ends its clients.
        run_shell(&lab, "dying");
        let arguments = ["exec", "dying", "--", "sh", "-c", "echo begun; sleep 3600"];
        let mut child = Running(
            over(lab.kubectl_command(&arguments), websocket)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("run kubectl"),
        );
        let mut output = BufReader::new(child.0.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line, "begun\n");
        lab.kubectl(&["delete", "pod", "dying", "--wait=false"]);
        wait("exec to end", || {
            let ended = child.0.try_wait().expect("wait for kubectl");
            match ended {
                Some(status) if status.success() => panic!("it was ended, and says all is well"),
                Some(_) => Ok(()),
                None => Err("it goes on".to_owned()),
            }
        });
        lab.kubectl(&["wait", "--for=delete", "pod/dying", "--timeout=60s"]);
    }
}

#[test]
fn attach_and_run_talk_to_the_first_process() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    lab.create(
        r#"{apiVersion: v1, kind: Pod, metadata: {name: parrot}, spec: {terminationGracePeriodSeconds: 1, containers: [
            {name: c, image: seaway/host, stdin: true, command: [sh, -c, 'while read line; do echo got $line; done']}]}}"#,
    );
    ready(&lab, "parrot");
    for websocket in BOTH {
        // It answers, and outlives those who talk to it.
        for word in ["one", "two"] {
            let input = format!("{word}\n");
            let said = kubectl(
                &lab,
                websocket,
                &["attach", "-i", "parrot"],
                input.as_bytes(),
            );
            assert!(said.status.success(), "{}", text(&said.stderr));
            assert_eq!(text(&said.stdout), format!("got {word}\n"));
        }
        let said = kubectl(
            &lab,
            websocket,
            &[
                "run",
                "-i",
                "--rm",
                "--restart=Never",
                "--image=seaway/host",
                "once",
                "--command",
                "--",
                "sh",
                "-c",
                "cat; exit 3",
            ],
            b"hello\n",
        );
        assert_eq!(said.status.code(), Some(3), "{}", text(&said.stderr));
        assert!(
            text(&said.stdout).contains("hello\n"),
            "{}",
            text(&said.stdout)
        );
        assert!(!lab.kubectl_output(&["get", "pod", "once"]).status.success());
    }
}

/// A WebSocket to the API server, by way of `kubectl proxy`.
struct Socket(WebSocket<TcpStream>);

impl Socket {
    fn open(host: &Host, address: SocketAddr, path: &str, protocol: &str) -> Result<Self, String> {
        let url = format!("ws://{address}/api/v1/namespaces/default/pods/{path}");
        let mut request = url.into_client_request().expect("a request");
        if !protocol.is_empty() {
            let offered = protocol.parse().expect("a header");
            request
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", offered);
        }
        let stream = host
            .run(|| TcpStream::connect(address))
            .expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let (socket, _) = client(request, stream).map_err(|error| error.to_string())?;
        Ok(Self(socket))
    }

    fn send(&mut self, message: &[u8]) {
        let message = Message::Binary(message.to_vec().into());
        self.0.send(message).expect("to be taken");
    }

    /// What comes until the server closes, put together by channel; the first byte of a message is its channel.
    fn by_channel(mut self) -> std::collections::BTreeMap<u8, Vec<u8>> {
        let mut channels = std::collections::BTreeMap::<u8, Vec<u8>>::new();
        loop {
            match self.0.read() {
                Ok(message @ (Message::Binary(_) | Message::Text(_))) => {
                    let data = message.into_data();
                    let (channel, data) = data.split_first().expect("a channel");
                    channels.entry(*channel).or_default().extend(data);
                }
                Ok(Message::Close(_)) | Err(_) => return channels,
                Ok(_) => {}
            }
        }
    }
}

#[test]
fn clients_without_kubectl_speak_the_older_protocols() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    run_shell(&lab, "shell");
    lab.kubectl(&["run", "web", "--image=seaway/whoami", "--port=80"]);
    ready(&lab, "web");
    let (_proxy, address) = proxy(&lab, &["--disable-filter=true"]);
    let open = |path: &str, protocol: &str| Socket::open(&host, address, path, protocol);
    let exec = "shell/exec?stdout=true&stderr=true&command=sh&command=-c\
                &command=echo%20out;echo%20err%3E%262;exit%203";
    let message = "command terminated with non-zero exit code: exit status 3";

    for protocol in ["v4.channel.k8s.io", "v5.channel.k8s.io"] {
        let said = open(exec, protocol).expect(protocol).by_channel();
        assert_eq!(text(&said[&1]), "out\n");
        assert_eq!(text(&said[&2]), "err\n");
        let status: serde_json::Value = serde_json::from_slice(&said[&3]).expect("a Status");
        assert_eq!(status["message"], message);
        assert_eq!(status["details"]["causes"][0]["message"], "3");
    }
    for protocol in ["channel.k8s.io", ""] {
        let said = open(exec, protocol).expect(protocol).by_channel();
        assert_eq!(text(&said[&1]), "out\n");
        assert_eq!(text(&said[&3]), message);
    }
    for protocol in ["base64.channel.k8s.io", "v4.base64.channel.k8s.io"] {
        let said = open(exec, protocol).expect(protocol).by_channel();
        assert_eq!(text(&said[&b'1']), "b3V0Cg==");
        assert_eq!(text(&said[&b'2']), "ZXJyCg==");
        assert!(said.contains_key(&b'3'));
    }
    assert!(open(exec, "v9.channel.k8s.io").is_err());

    // Input, and its end where the protocol has one.
    let cat = "shell/exec?stdin=true&stdout=true&command=cat";
    let mut socket = open(cat, "v5.channel.k8s.io").expect("v5");
    socket.send(b"\0hello\n");
    socket.send(&[255, 0]);
    assert_eq!(text(&socket.by_channel()[&1]), "hello\n");
    let read = "shell/exec?stdin=true&stdout=true&command=head&command=-n1";
    let mut socket = open(read, "v4.channel.k8s.io").expect("v4");
    socket.send(b"\0hello\n");
    assert_eq!(text(&socket.by_channel()[&1]), "hello\n");

    // Ports as channels: two for each, which begin with its number.
    let mut socket = open("web/portforward?ports=80", "v4.channel.k8s.io").expect("v4");
    socket.send(b"\0GET /x HTTP/1.0\r\n\r\n");
    let said = socket.by_channel();
    assert_eq!(said[&0][..2], [80, 0]);
    assert!(
        text(&said[&0]).contains("GET /x HTTP/1.0"),
        "{}",
        text(&said[&0])
    );
    assert_eq!(said[&1], [80, 0]);
    let said = open("web/portforward?ports=81", "v4.channel.k8s.io")
        .expect("v4")
        .by_channel();
    assert_eq!(said[&0], [81, 0]);
    assert!(
        text(&said[&1][2..]).starts_with("error forwarding port 81 to pod"),
        "{}",
        text(&said[&1])
    );
    for ports in ["", "?ports=0", "?ports=http"] {
        let path = format!("web/portforward{ports}");
        assert!(open(&path, "v4.channel.k8s.io").is_err(), "{ports}");
    }
}

#[test]
fn files_and_directories_are_copied_both_ways() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    run_shell(&lab, "shell");
    let here = tempfile::tempdir().expect("a directory");
    let at = |name: &str| here.path().join(name);
    std::fs::create_dir_all(at("tree/sub")).expect("a directory");
    std::fs::write(at("tree/a"), "a\n").expect("a file");
    std::fs::write(at("tree/sub/empty"), "").expect("a file");
    let mut big = Vec::with_capacity(100 << 20);
    let mut state = 1u64;
    while big.len() < 100 << 20 {
        // Something that no two pieces have in common.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        big.extend_from_slice(&state.to_be_bytes());
    }
    std::fs::write(at("tree/sub/big"), &big).expect("a file");
    drop(big);
    let sums = |directory: &str| {
        let script = "cd \"$1\" && find . -type f | sort | xargs sha256sum";
        ["sh", "-c", script, "sh", directory].map(str::to_owned)
    };
    let local = |directory: &std::path::Path| {
        let command = sums(directory.to_str().expect("UTF-8"));
        let output = Command::new(&command[0]).args(&command[1..]).output();
        text(&output.expect("run sha256sum").stdout)
    };
    let expected = local(&at("tree"));
    for websocket in BOTH {
        let tree = at("tree");
        let there = format!("shell:/tmp/there-{websocket}");
        let back = at(&format!("back-{websocket}"));
        let copy = |from: &str, to: &str| {
            let said = kubectl(&lab, websocket, &["cp", from, to], b"");
            assert!(said.status.success(), "{}", text(&said.stderr));
        };
        copy(tree.to_str().expect("UTF-8"), &there);
        let command = sums(&format!("/tmp/there-{websocket}"));
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        assert_eq!(lab.exec("shell", &command), expected);
        copy(&there, back.to_str().expect("UTF-8"));
        assert_eq!(local(&back), expected);
    }
}

#[test]
fn ports_are_forwarded_to_pods_and_what_stands_for_them() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "2"]);
    lab.kubectl(&[
        "create",
        "deployment",
        "web",
        "--image=seaway/whoami",
        "--port=80",
    ]);
    lab.kubectl(&[
        "expose",
        "deployment",
        "web",
        "--port=8080",
        "--target-port=80",
    ]);
    let pod = string(&lab.ready_pods("app=web", 1)[0]["metadata"]["name"]);
    for websocket in BOTH {
        for (target, port) in [
            (format!("pod/{pod}"), "80"),
            ("svc/web".to_owned(), "8080"),
            ("deploy/web".to_owned(), "80"),
        ] {
            let forward = Forward::to(&lab, websocket, &target, port);
            let answer = host.run(|| http(forward.address)).expect("an answer");
            assert!(answer.contains(&pod), "{target}: {answer}");
        }

        // Many at once through one forward, and a client that hangs is in nobody's way.
        let forward = Forward::to(&lab, websocket, "svc/web", "8080");
        let address = forward.address;
        let hanging = host.run(|| {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream
                .write_all(b"GET / HTTP/1.1\r\n")
                .expect("a beginning");
            stream
        });
        let begin = Instant::now();
        host.run(|| {
            std::thread::scope(|scope| {
                let asking: Vec<_> = (0..100).map(|_| scope.spawn(|| http(address))).collect();
                for asked in asking {
                    let answer = asked.join().expect("a thread").expect("an answer");
                    assert!(answer.contains(&pod), "{answer}");
                }
            });
        });
        assert!(begin.elapsed() < LIMIT);
        drop(hanging);

        // What is no HTTP is an echo there, and each direction ends alone.
        let echoed = host.run(|| {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream.set_read_timeout(Some(LIMIT)).expect("a limit");
            let message = b"\x01echo ".repeat(1000);
            stream.write_all(&message).expect("to be taken");
            let mut echo = vec![0; message.len()];
            stream.read_exact(&mut echo).expect("an echo");
            echo == message
        });
        assert!(echoed);

        // Where nobody listens, kubectl is told so.
        let forward = Forward::to(&lab, websocket, &format!("pod/{pod}"), "81");
        let _ = host.run(|| http(forward.address));
        let said = forward.complaint();
        assert!(
            said.contains("error forwarding port 81 to pod") && said.contains("connection refused"),
            "{said}"
        );
    }
}

#[test]
fn services_pods_and_nodes_are_reached_through_the_api_server() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "2"]);
    lab.kubectl(&[
        "create",
        "deployment",
        "web",
        "--image=seaway/whoami",
        "--port=80",
        "--replicas=2",
    ]);
    lab.kubectl(&[
        "expose",
        "deployment",
        "web",
        "--port=8080",
        "--target-port=80",
    ]);
    let pods: Vec<String> = lab
        .ready_pods("app=web", 2)
        .iter()
        .map(|pod| string(&pod["metadata"]["name"]))
        .collect();
    wait("both behind the Service", || {
        let endpoints = lab.get(&["endpoints", "web"]);
        let found = endpoints["subsets"][0]["addresses"]
            .as_array()
            .map(Vec::len);
        (found == Some(2))
            .then_some(())
            .ok_or(endpoints.to_string())
    });
    let raw = |path: &str| lab.kubectl(&["get", "--raw", path]);
    let mut seen = std::collections::BTreeSet::new();
    wait("every Pod to answer", || {
        let answer = raw("/api/v1/namespaces/default/services/web:8080/proxy/");
        seen.extend(pods.iter().filter(|pod| answer.contains(*pod)).cloned());
        (seen.len() == 2).then_some(()).ok_or(format!("{seen:?}"))
    });
    let answer = raw(&format!(
        "/api/v1/namespaces/default/pods/{}/proxy/a?b=c",
        pods[0]
    ));
    assert!(answer.contains("GET /a?b=c HTTP/1.1"), "{answer}");
    let answer = raw("/api/v1/proxy/namespaces/default/services/web:8080/old");
    assert!(answer.contains("GET /old HTTP/1.1"), "{answer}");
    assert_eq!(raw("/api/v1/nodes/node-1/proxy/healthz"), "ok");
    let listed: serde_json::Value =
        serde_json::from_str(&raw("/api/v1/nodes/node-2/proxy/pods")).expect("JSON");
    assert_eq!(listed["kind"], "PodList");

    lab.create("{apiVersion: v1, kind: Service, metadata: {name: lonely}, spec: {selector: {app: none}, ports: [{port: 80}]}}");
    wait("the answer for a Service without Pods", || {
        let path = "/api/v1/namespaces/default/services/lonely/proxy/";
        let said = text(&lab.kubectl_output(&["get", "--raw", path]).stderr);
        let expected = "no endpoints available for service \"lonely\"";
        said.contains(expected).then_some(()).ok_or(said)
    });

    // kubectl proxy, and the API server behind it as a proxy once more.
    let (_proxy, address) = proxy(&lab, &[]);
    let url = format!("http://{address}/api/v1/namespaces/default/services/web:8080/proxy/");
    let output = host
        .command("curl")
        .args(["-sS", "-d", "x=y", &url])
        .output();
    let answer = text(&output.expect("run curl").stdout);
    assert!(answer.contains("POST / HTTP/1.1"), "{answer}");
}

#[test]
fn logs_are_those_that_were_asked_for() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    lab.create(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: pair, labels: {app: pair}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: a, image: seaway/host, command: [sh, -c, "echo a1; echo a2 >&2; echo a3; sleep infinity"]}
  - {name: b, image: seaway/host, command: [sh, -c, "echo b1; sleep infinity"]}
---
apiVersion: v1
kind: Pod
metadata: {name: stuck}
spec:
  containers: [{name: c, image: "seaway/host", command: [sleep, infinity], env: [{name: A, valueFrom: {configMapKeyRef: {name: nowhere, key: a}}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: seaway/host, command: [sh, -c, "echo run; [ -e /work/once ] && exec sleep infinity; touch /work/once; exit 1"], volumeMounts: [{name: w, mountPath: /work}]}]
  volumes: [{name: w, emptyDir: {}}]
"#,
    );
    ready(&lab, "pair");
    let raw = |path: &str| lab.kubectl_output(&["get", "--raw", path]);
    let log = |query: &str| {
        let path = format!("/api/v1/namespaces/default/pods/pair/log?{query}");
        let output = raw(&path);
        if output.status.success() {
            text(&output.stdout)
        } else {
            text(&output.stderr)
        }
    };
    wait("both containers to have spoken", || {
        let said = log("container=a") + &log("container=b");
        (said.lines().count() == 4).then_some(()).ok_or(said)
    });
    let sorted = |said: String| {
        let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    for (query, lines) in [
        ("container=a", "a1 a2 a3"),
        ("container=a&stream=Stdout", "a1 a3"),
        ("container=a&stream=Stderr", "a2"),
        ("container=b&tailLines=0", ""),
        ("container=a&limitBytes=2&stream=Stdout", "a1"),
        ("container=a&sinceTime=2099-01-01T00:00:00Z", ""),
    ] {
        assert_eq!(sorted(log(query)), lines, "{query}");
    }
    let stamped = log("container=b&timestamps=true");
    let time = stamped.split(' ').next().unwrap_or_default();
    assert!(
        time.len() > 20 && time.contains('T') && time.ends_with('Z'),
        "{stamped}"
    );
    for (query, refused) in [
        (
            "",
            "a container name must be specified for pod pair, choose one of: [a b]",
        ),
        ("container=x", "container x is not valid for pod pair"),
        (
            "container=a&tailLines=-1",
            "tailLines: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "container=a&previous=true",
            "previous terminated container \"a\" in pod \"pair\" not found",
        ),
    ] {
        let said = log(query);
        assert!(said.contains(refused), "{query}: {said}");
    }
    wait("the reason of a container that does not start", || {
        let said = text(&raw("/api/v1/namespaces/default/pods/stuck/log").stderr);
        let expected =
            "container \"c\" in pod \"stuck\" is waiting to start: CreateContainerConfigError";
        said.contains(expected).then_some(()).ok_or(said)
    });
    wait("the container before", || {
        let output = lab.kubectl_output(&["logs", "again", "--previous"]);
        let said = text(&output.stdout) + &text(&output.stderr);
        (said == "run\n").then_some(()).ok_or(said)
    });
    let said = lab.kubectl(&["logs", "-l", "app=pair", "--prefix", "--all-containers"]);
    for line in ["[pod/pair/a] a1", "[pod/pair/b] b1"] {
        assert!(said.lines().any(|found| found == line), "{said}");
    }
    let said = lab.kubectl_output(&[
        "logs",
        "-f",
        "-l",
        "app=pair",
        "--all-containers",
        "--max-log-requests=1",
    ]);
    assert!(
        text(&said.stderr).contains("--max-log-requests"),
        "{}",
        text(&said.stderr)
    );
}

#[test]
fn who_follows_a_log_misses_no_line_though_its_files_are_replaced() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    // More than three files of 10 MiB, not faster than a follower reads.
    const LINES: usize = 350_000;
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i \
         ..........................................................; done"
    );
    lab.kubectl(&[
        "run",
        "talker",
        "--image=seaway/host",
        "--restart=Never",
        "--command",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    wait("the Pod's log", || {
        let output = lab.kubectl_output(&["logs", "talker", "--tail=1"]);
        let begun = output.status.success();
        begun.then_some(()).ok_or(text(&output.stderr))
    });
    let mut child = lab
        .kubectl_command(&["logs", "-f", "talker"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl logs -f");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut follow = Running(child);
    let mut expected = None;
    for line in lines {
        let line = line.expect("text");
        let number: usize = line
            .split(' ')
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("{line:?}"));
        if let Some(expected) = expected {
            assert_eq!(number, expected);
        }
        expected = Some(number + 1);
    }
    // It ends by itself when the container has ended.
    assert_eq!(expected, Some(LINES + 1));
    assert!(follow.0.wait().expect("kubectl ends").success());
}

#[test]
fn an_agent_that_dies_takes_the_processes_of_its_clients_with_it() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    run_shell(&lab, "shell");
    let arguments = [
        "exec",
        "shell",
        "--",
        "sh",
        "-c",
        "echo begun; exec sleep 4321",
    ];
    let mut client = Running(
        lab.kubectl_command(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("run kubectl"),
    );
    let mut line = String::new();
    BufReader::new(client.0.stdout.take().expect("its output"))
        .read_line(&mut line)
        .expect("a line");
    assert_eq!(line, "begun\n");
    let agents = agents_of(&lab.name);
    assert_eq!(agents.len(), 1);
    let killed = Command::new("kill").args(["-KILL", &agents[0]]).status();
    assert!(killed.expect("run kill").success());
    wait("the client to notice", || {
        let ended = client.0.try_wait().expect("wait for kubectl");
        ended.map(|_| ()).ok_or("it goes on".to_owned())
    });
    wait("the process to be gone and the Pod to be as it was", || {
        let output = lab.kubectl_output(&[
            "exec",
            "shell",
            "--",
            "sh",
            "-c",
            "pgrep -f -c 'sleep 432[1]'",
        ]);
        let said = text(&output.stdout);
        (said.trim() == "0")
            .then_some(())
            .ok_or(said + &text(&output.stderr))
    });
}
