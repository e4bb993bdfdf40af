//! DaemonSets, StatefulSets and Jobs in a lab, as kubectl shows and steers them.

mod support;

use serde_json::Value;
use support::{Host, Lab, string, text, wait};

/// The text in the lines that `kubectl describe` prints, with runs of blanks as one.
fn described(lab: &Lab<'_>, what: &[&str]) -> String {
    let mut arguments = vec!["describe"];
    arguments.extend(what);
    let said = lab.kubectl(&arguments);
    let lines = said
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    let mut names: Vec<String> = items
        .map(|item| string(&item["metadata"]["name"]))
        .collect();
    names.sort();
    names
}

/// Nothing with the label is left but Events.
fn nothing_is_left(lab: &Lab<'_>, label: &str) {
    wait("nothing to be left", || {
        let left = lab.kubectl(&[
            "get",
            "all,controllerrevisions,endpointslices",
            "-l",
            label,
            "-o",
            "name",
        ]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_daemon_set_is_on_every_node_and_rolls_forward_and_back() {
    let host = Host::new();
    let lab = Lab::up(&host);
    lab.create(
        r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, labels: {app: agent}}
spec:
  selector: {matchLabels: {app: agent}}
  updateStrategy: {rollingUpdate: {maxUnavailable: "100%"}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: seaway/host, command: [sleep, "3600"], env: [{name: VERSION, value: one}]}]
"#,
    );
    lab.kubectl(&["rollout", "status", "ds/agent", "--timeout=60s"]);
    let pods = lab.ready_pods("app=agent", 3);
    let mut nodes: Vec<String> = pods
        .iter()
        .map(|pod| string(&pod["spec"]["nodeName"]))
        .collect();
    nodes.sort();
    assert_eq!(nodes, ["node-1", "node-2", "node-3"]);
    let row = lab.kubectl(&["get", "ds", "agent", "--no-headers"]);
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        cells[..7],
        ["agent", "3", "3", "3", "3", "3", "<none>"],
        "{row}"
    );

    lab.kubectl(&["set", "env", "ds/agent", "VERSION=two"]);
    lab.kubectl(&["rollout", "status", "ds/agent", "--timeout=60s"]);
    let version = || {
        let pods = lab.ready_pods("app=agent", 3);
        let pod = string(&pods[0]["metadata"]["name"]);
        lab.exec(&pod, &["sh", "-c", "echo $VERSION"])
            .trim()
            .to_owned()
    };
    assert_eq!(version(), "two");
    let history = lab.kubectl(&["rollout", "history", "ds/agent"]);
    let revisions: Vec<&str> = history
        .lines()
        .skip(2)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(revisions, ["1", "2"], "{history}");
    lab.kubectl(&["rollout", "undo", "ds/agent"]);
    lab.kubectl(&["rollout", "status", "ds/agent", "--timeout=60s"]);
    assert_eq!(version(), "one");
    let said = described(&lab, &["ds", "agent"]);
    for line in [
        "Desired Number of Nodes Scheduled: 3",
        "Number of Nodes Misscheduled: 0",
        "Pods Status: 3 Running / 0 Waiting / 0 Succeeded / 0 Failed",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
    assert!(said.contains("Normal SuccessfulCreate"), "{said}");
    assert!(
        said.contains("daemonset-controller Created pod: agent-"),
        "{said}"
    );

    lab.kubectl(&["delete", "ds", "agent"]);
    nothing_is_left(&lab, "app=agent");
}

#[test]
fn a_stateful_set_keeps_names_through_a_restart() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "2"]);
    lab.create(
        r#"
apiVersion: v1
kind: Service
metadata: {name: db, labels: {app: db}}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, labels: {app: db}}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: seaway/host, command: [sleep, "3600"]}]
"#,
    );
    lab.kubectl(&["rollout", "status", "sts/db", "--timeout=60s"]);
    let ready =
        |count: usize| names(&serde_json::json!({ "items": lab.ready_pods("app=db", count) }));
    assert_eq!(ready(2), ["db-0", "db-1"]);
    let address = |pod: &str| string(&lab.get(&["pod", pod])["status"]["podIP"]);
    let found = |pod: &str| {
        let name = format!("{pod}.db.default.svc.cluster.local");
        let wanted = address(pod);
        wait(&format!("{name} to be {wanted}"), || {
            let said = lab.try_exec("db-0", &["getent", "hosts", &name])?;
            said.starts_with(&wanted).then_some(()).ok_or(said)
        });
    };
    found("db-0");
    found("db-1");
    assert_eq!(lab.exec("db-1", &["hostname"]).trim(), "db-1");

    let before = string(&lab.get(&["pod", "db-1"])["metadata"]["uid"]);
    lab.kubectl(&["rollout", "restart", "sts/db"]);
    lab.kubectl(&["rollout", "status", "sts/db", "--timeout=60s"]);
    assert_eq!(ready(2), ["db-0", "db-1"]);
    assert_ne!(
        string(&lab.get(&["pod", "db-1"])["metadata"]["uid"]),
        before
    );
    found("db-1");

    lab.kubectl(&["scale", "sts/db", "--replicas=3"]);
    assert_eq!(ready(3), ["db-0", "db-1", "db-2"]);
    lab.kubectl(&["scale", "sts/db", "--replicas=1"]);
    assert_eq!(ready(1), ["db-0"]);
    let row = lab.kubectl(&["get", "sts", "db", "--no-headers"]);
    assert!(row.starts_with("db"), "{row}");
    assert_eq!(row.split_whitespace().nth(1), Some("1/1"), "{row}");
    let said = described(&lab, &["sts", "db"]);
    for line in [
        "Replicas: 1 desired | 1 total",
        "Update Strategy: RollingUpdate",
        "statefulset-controller create Pod db-2 in StatefulSet db successful",
        "statefulset-controller delete Pod db-2 in StatefulSet db successful",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
    let refused = lab.kubectl_output(&[
        "patch",
        "sts",
        "db",
        "-p",
        r#"{"spec":{"serviceName":"other"}}"#,
    ]);
    let words = text(&refused.stderr);
    assert!(
        words.contains("spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template'"),
        "{words}"
    );
    lab.kubectl(&["delete", "sts,service", "db"]);
    nothing_is_left(&lab, "app=db");
}

#[test]
fn jobs_complete_and_fail_and_are_counted_exactly() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "2"]);
    lab.kubectl(&[
        "create",
        "job",
        "hello",
        "--image=seaway/host",
        "--",
        "echo",
        "hello",
    ]);
    lab.create(
        r#"
apiVersion: batch/v1
kind: Job
metadata: {name: parts}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: seaway/host, command: [sh, -c, "echo $JOB_COMPLETION_INDEX on $(hostname)"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: broken}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: seaway/host, command: [sh, -c, "exit 3"]}]
"#,
    );
    for (job, condition) in [
        ("hello", "complete"),
        ("parts", "complete"),
        ("broken", "failed"),
    ] {
        lab.kubectl(&[
            "wait",
            &format!("--for=condition={condition}"),
            &format!("job/{job}"),
            "--timeout=60s",
        ]);
    }
    assert_eq!(lab.kubectl(&["logs", "job/hello"]), "hello\n");
    let row = |job: &str| {
        let said = lab.kubectl(&["get", "job", job, "--no-headers"]);
        said.split_whitespace()
            .take(3)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(row("hello"), ["hello", "Complete", "1/1"]);
    assert_eq!(row("parts"), ["parts", "Complete", "3/3"]);
    assert_eq!(row("broken"), ["broken", "Failed", "0/1"]);

    let parts = lab.get(&["job", "parts"]);
    assert_eq!(parts["status"]["completedIndexes"], "0-2");
    assert_eq!(parts["status"]["succeeded"], 3);
    let pods = lab.get(&["pods", "-l", "batch.kubernetes.io/job-name=parts"]);
    let mut lines: Vec<String> = names(&pods)
        .iter()
        .map(|pod| lab.kubectl(&["logs", pod]))
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        ["0 on parts-0\n", "1 on parts-1\n", "2 on parts-2\n"]
    );

    let failed = lab.get(&["job", "broken"]);
    let conditions = failed["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let kinds: Vec<(String, String)> = conditions
        .iter()
        .map(|one| (string(&one["type"]), string(&one["reason"])))
        .collect();
    let reason = || "BackoffLimitExceeded".to_owned();
    assert_eq!(
        kinds,
        [
            ("FailureTarget".to_owned(), reason()),
            ("Failed".to_owned(), reason())
        ]
    );
    assert_eq!(failed["status"]["failed"], 1);
    let said = described(&lab, &["job", "broken"]);
    for line in [
        "Pods Statuses: 0 Active (0 Ready) / 0 Succeeded / 1 Failed",
        "job-controller Job has reached the specified backoff limit",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
    let said = described(&lab, &["job", "parts"]);
    for line in [
        "Completed Indexes: 0-2",
        "Normal Completed",
        "job-controller Job completed",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
    let selected = lab.get(&["jobs", "--field-selector", "status.successful=3"]);
    assert_eq!(names(&selected), ["parts"]);

    lab.kubectl(&["delete", "jobs", "--all"]);
    wait("nothing to be left", || {
        let left = lab.kubectl(&["get", "jobs,pods", "-o", "name"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
