//! What kubectl prints, command by command: the files in `transcripts/` are sessions at a terminal, and a lab has to
//! give every answer in them.
//!
//! A transcript is text that a reader can follow:
//!
//! - `# …` is a remark;
//! - `$ …` is a command for the shell, `> …` its next line; `~$ …` is one that is repeated until its output is right,
//!   because controllers take their time;
//! - what follows is its output, both streams as a terminal shows them, and `[exit N]` if it fails.
//!
//! What differs from run to run is masked (`<ip>`, `<age>`, `<x>` for the ends of generated names …), and two or more
//! blanks inside a line count as two, since kubectl pads columns to what is in them. With `SEAWAY_TRANSCRIPTS=write` in the
//! environment the tests write what they saw into the files instead, to be read before it is committed.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use regex::Regex;
use support::{Host, Lab, text};

/// One command of a transcript.
struct Step {
    /// Remarks before it, as they are written.
    remarks: Vec<String>,
    command: String,
    /// Whether it is repeated until its output is right.
    patient: bool,
    output: Vec<String>,
}

fn parse(transcript: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut remarks = Vec::new();
    for line in transcript.lines() {
        let begins = |prompt| line.strip_prefix(prompt).map(str::to_owned);
        if let Some((command, patient)) = begins("$ ")
            .map(|command| (command, false))
            .or_else(|| begins("~$ ").map(|command| (command, true)))
        {
            steps.push(Step {
                remarks: std::mem::take(&mut remarks),
                command,
                patient,
                output: Vec::new(),
            });
        } else if line.starts_with('#') {
            remarks.push(line.to_owned());
        } else if let Some(step) = steps.last_mut() {
            match line.strip_prefix("> ") {
                Some(more) if step.output.is_empty() => {
                    step.command.push('\n');
                    step.command.push_str(more);
                }
                _ => step.output.push(line.to_owned()),
            }
        }
    }
    for step in &mut steps {
        while step.output.last().is_some_and(|line| line.is_empty()) {
            step.output.pop();
        }
    }
    steps
}

fn write(steps: &[Step]) -> String {
    let mut transcript = String::new();
    for step in steps {
        for remark in &step.remarks {
            transcript.push_str(&format!("{remark}\n"));
        }
        let prompt = if step.patient { "~$" } else { "$" };
        let command = step.command.replace('\n', "\n> ");
        transcript.push_str(&format!("{prompt} {command}\n"));
        for line in &step.output {
            transcript.push_str(&format!("{line}\n"));
        }
        transcript.push('\n');
    }
    transcript
}

/// Takes out of an output what is different each time.
struct Masks(Vec<(Regex, &'static str)>);

impl Masks {
    fn new() -> Self {
        // The alphabet of generated names has no vowels. Source: `k8s.io/apimachinery/pkg/util/rand`.
        const GENERATED: &str = "[bcdfghjklmnpqrstvwxz2456789]";
        let patterns = [
            (
                "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".to_owned(),
                "<uid>",
            ),
            (
                r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z".to_owned(),
                "<time>",
            ),
            (
                r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}".to_owned(),
                "<date>",
            ),
            (r"\b10\.\d+\.\d+\.\d+".to_owned(), "<ip>"),
            (
                format!(r"-{GENERATED}{{8,10}}-{GENERATED}{{5}}\b"),
                "-<hash>-<x>",
            ),
            (format!(r"-{GENERATED}{{8,10}}\b"), "-<hash>"),
            (
                format!(r"pod-template-hash={GENERATED}{{8,10}}\b"),
                "pod-template-hash=<hash>",
            ),
            (format!(r"-{GENERATED}{{5}}\b"), "-<x>"),
            (r"\b3[0-2]\d{3}\b".to_owned(), "<port>"),
            (r"(?m)(^|\s)(\d+[smhdy]){1,2}($|\s)".to_owned(), "$1<age>$3"),
            (r"\(x\d+ over ".to_owned(), "(xN over "),
            (
                r"resourceVersion: ".to_owned() + "\"\\d+\"",
                "resourceVersion: <n>",
            ),
            (r"(?m)(\S) {2,}".to_owned(), "$1  "),
            ("(?m) +$".to_owned(), ""),
        ];
        Self(
            patterns
                .into_iter()
                .map(|(pattern, mask)| (Regex::new(&pattern).expect("a pattern"), mask))
                .collect(),
        )
    }

    fn apply(&self, output: &str) -> Vec<String> {
        let mut output = output.replace('\t', "  ");
        for (pattern, mask) in &self.0 {
            output = pattern.replace_all(&output, *mask).into_owned();
        }
        let mut lines: Vec<String> = output.lines().map(str::to_owned).collect();
        while lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        lines
    }
}

/// Runs the command at a shell whose kubectl is the lab's.
fn run(lab: &Lab<'_>, home: &Path, command: &str, masks: &Masks) -> Vec<String> {
    let mut shell: Command = lab.host.command("sh");
    let output = shell
        .args(["-c", &format!("{{ {command}\n}} 2>&1")])
        .current_dir(home)
        .env("HOME", home)
        .env("KUBECONFIG", home.join("kubeconfig"))
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .output()
        .expect("run sh");
    let mut said = text(&output.stdout);
    if !output.status.success() {
        if !said.is_empty() && !said.ends_with('\n') {
            said.push('\n');
        }
        said.push_str(&format!("[exit {}]\n", output.status.code().unwrap_or(-1)));
    }
    masks.apply(&said)
}

/// Holds the lab's answers against the transcript.
fn follow(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(name);
    let transcript = std::fs::read_to_string(&path).expect("the transcript");
    let mut steps = parse(&transcript);
    assert!(!steps.is_empty(), "{name} has no commands");
    let writing = std::env::var("SEAWAY_TRANSCRIPTS").as_deref() == Ok("write");

    let host = Host::new();
    let lab = Lab::up(&host);
    // A folder of its own, with the manifests of the documents, and a kubeconfig that commands may change.
    let home = tempfile::tempdir().expect("a temporary directory");
    std::fs::copy(lab.kubeconfig(), home.path().join("kubeconfig")).expect("copy the kubeconfig");
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    for manifest in std::fs::read_dir(manifests).expect("the manifests") {
        let manifest = manifest.expect("a manifest");
        std::fs::copy(manifest.path(), home.path().join(manifest.file_name())).expect("copy it");
    }

    let masks = Masks::new();
    let mut wrong = String::new();
    for step in &mut steps {
        let limit = if !step.patient {
            Duration::ZERO
        } else if writing {
            Duration::from_secs(6)
        } else {
            support::LIMIT
        };
        let begin = Instant::now();
        let mut output = run(&lab, home.path(), &step.command, &masks);
        while output != step.output && begin.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(100));
            output = run(&lab, home.path(), &step.command, &masks);
        }
        if output != step.output {
            wrong.push_str(&format!(
                "\n$ {}\n--- expected\n{}\n--- got\n{}\n",
                step.command,
                step.output.join("\n"),
                output.join("\n")
            ));
            step.output = output;
        }
    }
    if writing {
        std::fs::write(&path, write(&steps)).expect("write the transcript");
    } else {
        assert!(wrong.is_empty(), "{name} goes differently:\n{wrong}");
    }
}

#[test]
fn a_service_of_the_documents_is_exposed_described_and_labelled() {
    follow("services.txt");
}

#[test]
fn addresses_come_from_ranges_that_stay_while_they_are_needed() {
    follow("addresses.txt");
}

#[test]
fn endpoints_of_ones_own_are_told_of() {
    follow("endpoints.txt");
}

#[test]
fn a_namespace_with_quotas_stops_at_its_limits() {
    follow("quotas.txt");
}

#[test]
fn an_ingress_of_the_documents_is_created_and_told_of() {
    follow("ingress.txt");
}

#[test]
fn workloads_are_created_scaled_and_rolled_back() {
    follow("workloads.txt");
}

#[test]
fn contexts_files_and_outputs_are_worked_with() {
    follow("everyday.txt");
}

#[test]
fn a_transcript_is_written_as_it_was_read() {
    let transcript = "# about\n$ kubectl get a\n> b\nNAME\n\nx  y\n\n~$ kubectl c\n[exit 1]\n\n";
    assert_eq!(write(&parse(transcript)), transcript);
}

#[test]
fn masks_keep_what_is_the_same_each_time() {
    let masks = Masks::new();
    assert_eq!(
        masks.apply("web-6b7f6db9f-x2k4v   1/1   Running   0   12s   10.244.0.2\n"),
        ["web-<hash>-<x>  1/1  Running  0  <age>  <ip>"]
    );
    assert_eq!(
        masks.apply("web   LoadBalancer   192.168.1.2   80:30123/TCP   3m4s"),
        ["web  LoadBalancer  192.168.1.2  80:<port>/TCP  <age>"]
    );
}
