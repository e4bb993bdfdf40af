//! A lab for a test: its "host" is a network namespace without a way out, its data a temporary directory, and
//! when the test ends, however it ends, the lab and its data are gone.

// Each test binary uses its own part of this, and nobody outside uses any.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use seaway_testkit::wait_until;
use serde_json::Value;

/// The program under test.
pub const SEAWAY: &str = env!("CARGO_BIN_EXE_seaway");

/// Longest wait for anything; a machine with two busy cores needs some of it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The documents' images, tagged as `seaway/whoami` before every lab.
pub const IMAGES: [&str; 3] = [
    "jonbaier/node-express-info:latest",
    "jonbaier/node-express-multi:latest",
    "jonbaier/pod-scaling:0.1",
];

/// A network namespace that stands for a machine: loopback and nothing else, so that nothing can leave it.
pub use seaway_testkit::Outer as Host;

/// A running lab.
pub struct Lab<'h> {
    pub host: &'h Host,
    pub name: String,
    data: tempfile::TempDir,
}

impl<'h> Lab<'h> {
    /// A lab of three nodes, up and ready.
    pub fn up(host: &'h Host) -> Self {
        Self::up_with(host, &[])
    }

    pub fn up_with(host: &'h Host, options: &[&str]) -> Self {
        let lab = Self::prepare(host);
        lab.start(options);
        lab
    }

    /// Data directory and name, and nothing running.
    pub fn prepare(host: &'h Host) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "t{}-{}",
            std::process::id() % 1_000_000,
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let lab = Self {
            host,
            name,
            data: tempfile::tempdir().expect("a temporary directory"),
        };
        for image in IMAGES {
            lab.seaway(&[
                "image",
                "tag",
                "seaway/whoami",
                image,
                "--data",
                lab.data_dir(),
            ]);
        }
        lab
    }

    pub fn data_dir(&self) -> &str {
        self.data.path().to_str().expect("a UTF-8 path")
    }

    pub fn start(&self, options: &[&str]) {
        let mut arguments = vec![
            "up",
            "--detach",
            "--name",
            &self.name,
            "--data",
            self.data_dir(),
        ];
        arguments.extend(options);
        self.seaway(&arguments);
    }

    pub fn kubeconfig(&self) -> PathBuf {
        Path::new(self.data_dir())
            .join("labs")
            .join(&self.name)
            .join("kubeconfig")
    }

    /// Runs `seaway` and returns its standard output.
    pub fn seaway(&self, arguments: &[&str]) -> String {
        let output = self.seaway_output(arguments);
        checked(&format!("seaway {}", arguments.join(" ")), output, &|| {
            self.logs()
        })
    }

    pub fn seaway_output(&self, arguments: &[&str]) -> Output {
        self.host
            .command(SEAWAY)
            .args(arguments)
            .output()
            .expect("run seaway")
    }

    /// Runs `kubectl` and returns its standard output.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.kubectl_output(arguments);
        checked(&format!("kubectl {}", arguments.join(" ")), output, &|| {
            self.logs()
        })
    }

    pub fn kubectl_output(&self, arguments: &[&str]) -> Output {
        self.kubectl_command(arguments)
            .output()
            .expect("run kubectl")
    }

    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .env("HOME", self.data_dir())
            .env_remove("KUBECONFIG");
        command
    }

    /// Runs `kubectl … -f -` with this object or manifest.
    pub fn kubectl_stdin(&self, arguments: &[&str], text: &str) -> Output {
        use std::io::Write as _;
        let mut child = self
            .kubectl_command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run kubectl");
        // kubectl takes what begins with a brace for JSON, unless a document marker says that it is YAML.
        let marker = if arguments.contains(&"-f") {
            "---\n"
        } else {
            ""
        };
        child
            .stdin
            .take()
            .expect("its standard input")
            .write_all(format!("{marker}{text}").as_bytes())
            .expect("write the manifest");
        child.wait_with_output().expect("wait for kubectl")
    }

    /// Creates what a manifest says.
    pub fn create(&self, manifest: &str) -> String {
        let output = self.kubectl_stdin(&["create", "-f", "-"], manifest);
        checked("kubectl create -f -", output, &|| self.logs())
    }

    /// `kubectl get … -o json`, parsed.
    pub fn get(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["get"];
        all.extend(arguments);
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.kubectl(&all)).expect("JSON from kubectl")
    }

    /// Waits until `count` Pods with the label are ready and no other is there.
    pub fn ready_pods(&self, label: &str, count: usize) -> Vec<Value> {
        wait(&format!("{count} ready Pods with {label}"), || {
            let pods = self.get(&["pods", "-l", label]);
            let items = pods["items"].as_array().cloned().unwrap_or_default();
            let ready = items.iter().filter(|pod| is_ready(pod)).count();
            if ready == count && items.len() == count {
                Ok(items)
            } else {
                Err(self.kubectl(&["get", "pods", "-o", "wide"]))
            }
        })
    }

    /// Runs a command in a Pod.
    pub fn exec(&self, pod: &str, command: &[&str]) -> String {
        let mut arguments = vec!["exec", pod, "--"];
        arguments.extend(command);
        self.kubectl(&arguments)
    }

    /// As `exec`, where failing is an answer too.
    pub fn try_exec(&self, pod: &str, command: &[&str]) -> Result<String, String> {
        let mut arguments = vec!["exec", pod, "--"];
        arguments.extend(command);
        let output = self.kubectl_output(&arguments);
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// What `seaway status` says of the lab.
    pub fn status(&self) -> Value {
        let said = self.seaway(&[
            "status",
            "-o",
            "json",
            "--name",
            &self.name,
            "--data",
            self.data_dir(),
        ]);
        serde_json::from_str::<Value>(&said).expect("JSON from seaway")[0].clone()
    }

    /// Address of a Service. Labs that run at the same time have ranges of their own.
    pub fn cluster_ip(&self, namespace: &str, service: &str) -> String {
        string(&self.get(&["service", service, "-n", namespace])["spec"]["clusterIP"])
    }

    /// The host's own address on the lab's fabric: the first of the node range.
    pub fn host_address(&self) -> String {
        let range: ipnet::Ipv4Net = string(&self.status()["nodeCidr"]).parse().expect("a range");
        range.hosts().next().expect("an address").to_string()
    }

    /// Addresses of the nodes, in order.
    pub fn nodes(&self) -> Vec<(String, String)> {
        self.get(&["nodes"])["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|node| {
                let address = node["status"]["addresses"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .find(|address| address["type"] == "InternalIP");
                (
                    string(&node["metadata"]["name"]),
                    string(&address.expect("an address")["address"]),
                )
            })
            .collect()
    }

    /// The last lines of every process's log, for a failed test.
    pub fn logs(&self) -> String {
        let dir = Path::new(self.data_dir())
            .join("labs")
            .join(&self.name)
            .join("log");
        let mut said = String::new();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            said.push_str(&format!("\n--- {}\n", entry.path().display()));
            said.push_str(&lines[lines.len().saturating_sub(15)..].join("\n"));
        }
        said
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let output = self.seaway_output(&[
            "down",
            "--purge",
            "--name",
            &self.name,
            "--data",
            self.data_dir(),
        ]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("seaway down: {}", text(&output.stderr));
        }
    }
}

/// Whether the Pod's condition `Ready` is true and it is not on its way out.
pub fn is_ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
        && pod["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The text of a JSON string.
pub fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn checked(what: &str, output: Output, logs: &dyn Fn() -> String) -> String {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr),
        logs()
    );
    text(&output.stdout)
}

/// Waits until the condition holds; fails with what it said last.
pub fn wait<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    wait_at_most(LIMIT, what, condition)
}

pub fn wait_at_most<T>(
    limit: Duration,
    what: &str,
    condition: impl FnMut() -> Result<T, String>,
) -> T {
    wait_until(what, limit, condition)
}

/// One HTTP request on a connection of its own, from the calling thread's namespace; the body of the answer.
pub fn http(address: SocketAddr) -> Result<String, String> {
    use std::io::{Read as _, Write as _};
    let limit = Duration::from_secs(3);
    let mut stream = std::net::TcpStream::connect_timeout(&address, limit)
        .map_err(|e| format!("connect {address}: {e}"))?;
    stream
        .set_read_timeout(Some(limit))
        .map_err(|e| e.to_string())?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").map_err(|e| e.to_string())?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(|e| format!("read from {address}: {e}"))?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("not an HTTP answer")?;
    Ok(body.to_owned())
}

/// What an answer of `seaway/whoami` says of a subject (`Pod`, `Node`, `Client`…).
pub fn says(answer: &str, subject: &str) -> String {
    answer
        .lines()
        .find_map(|line| line.strip_prefix(subject)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {subject} in {answer:?}"))
        .to_owned()
}
