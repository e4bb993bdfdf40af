//! What a namespace may have, and who its Pods are: quotas, limits, accounts and their tokens, as kubectl and curl see
//! them.

mod support;

use serde_json::Value;
use support::{Host, Lab, string, text, wait};

/// The documents' manifest: a quota of three Pods, a controller that wants four.
const FOUR_UNDER_THREE: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: test}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: test-quotas, namespace: test}
spec: {hard: {pods: 3, services: 1, replicationcontrollers: 1}}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: busybox-ns, namespace: test, labels: {app: busybox-ns}}
spec:
  replicas: 4
  selector: {app: busybox-ns}
  template:
    metadata: {labels: {app: busybox-ns}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: seaway/host, command: [sleep, '3600']}]
";

fn in_test(lab: &Lab<'_>, what: &[&str]) -> Value {
    lab.get(&[what, &["-n", "test"]].concat())
}

fn pods(lab: &Lab<'_>) -> usize {
    let list = in_test(lab, &["pods"]);
    list["items"].as_array().map_or(0, Vec::len)
}

#[test]
fn four_replicas_under_a_quota_of_three_are_three_and_an_event_says_why() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    lab.create(FOUR_UNDER_THREE);
    wait(
        "the status to tell of three Pods and of the refusal",
        || {
            let controller = in_test(&lab, &["rc", "busybox-ns"]);
            let status = &controller["status"];
            let failed = status["conditions"][0]["type"] == "ReplicaFailure";
            (status["replicas"] == 3 && failed)
                .then_some(())
                .ok_or(status.to_string())
        },
    );
    assert_eq!(pods(&lab), 3);
    let words = wait("an Event on the controller", || {
        let events = in_test(&lab, &["events"]);
        let mut found = events["items"].as_array().into_iter().flatten();
        let event = found.find(|e| e["reason"] == "FailedCreate");
        event
            .filter(|e| e["involvedObject"]["kind"] == "ReplicationController")
            .map(|e| string(&e["message"]))
            .ok_or(events.to_string())
    });
    assert!(
        words.starts_with("Error creating: pods \"busybox-ns-")
            && words.ends_with(
                "\" is forbidden: exceeded quota: test-quotas, requested: pods=1, used: pods=3, limited: pods=3"
            ),
        "{words}"
    );
    let described = lab.kubectl(&["describe", "namespace", "test"]);
    for line in [
        "Resource Quotas",
        "Name:                   test-quotas",
        "pods                    3     3",
        "No LimitRange resource.",
    ] {
        assert!(described.contains(line), "{line:?} in {described}");
    }

    // One Pod less makes room for one more, and a larger quota for the fourth.
    let first = string(&in_test(&lab, &["pods"])["items"][0]["metadata"]["name"]);
    lab.kubectl(&["-n", "test", "delete", "pod", &first]);
    wait("three Pods again", || {
        let list = in_test(&lab, &["pods"]);
        let names: Vec<String> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| string(&p["metadata"]["name"]))
            .collect();
        (names.len() == 3 && !names.contains(&first))
            .then_some(())
            .ok_or(format!("{names:?}"))
    });
    let larger = r#"{"spec":{"hard":{"pods":"5"}}}"#;
    lab.kubectl(&["-n", "test", "patch", "quota", "test-quotas", "-p", larger]);
    wait("four Pods, counted", || {
        let status = in_test(&lab, &["quota", "test-quotas"])["status"].clone();
        (pods(&lab) == 4 && status["used"]["pods"] == "4" && status["hard"]["pods"] == "5")
            .then_some(())
            .ok_or(status.to_string())
    });
    lab.kubectl(&["-n", "test", "scale", "rc", "busybox-ns", "--replicas=0"]);
    wait("what is gone to be given back", || {
        let status = in_test(&lab, &["quota", "test-quotas"])["status"].clone();
        (status["used"]["pods"] == "0")
            .then_some(())
            .ok_or(status.to_string())
    });
}

#[test]
fn a_pod_speaks_to_the_api_server_as_its_account() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    lab.create(
        r"
apiVersion: v1
kind: Pod
metadata: {name: robot, labels: {app: robot}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: seaway/host, command: [sleep, '3600']}]
",
    );
    lab.ready_pods("app=robot", 1);
    let directory = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(
        lab.exec("robot", &["cat", &format!("{directory}/namespace")]),
        "default"
    );
    let ask = |path: &str, body: &str| {
        let script = format!(
            "curl -sS --max-time 20 --cacert {directory}/ca.crt -H \"Authorization: Bearer $(cat {directory}/token)\" \
             {body} https://kubernetes.default.svc{path}"
        );
        let answer = lab.exec("robot", &["sh", "-c", &script]);
        serde_json::from_str::<Value>(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"))
    };
    assert_eq!(ask("/api", "")["kind"], "APIVersions");
    let question = r#"-H 'Content-Type: application/json' -d '{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}'"#;
    let user = ask(
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        question,
    )["status"]["userInfo"]
        .clone();
    assert_eq!(user["username"], "system:serviceaccount:default:default");
    assert_eq!(
        user["extra"]["authentication.kubernetes.io/pod-name"][0],
        "robot"
    );
    assert_eq!(
        user["extra"]["authentication.kubernetes.io/node-name"][0],
        "node-1"
    );

    // A Secret that asks for a token gets one, which ends with it.
    lab.create(
        r"
apiVersion: v1
kind: Secret
metadata: {name: lasting, annotations: {kubernetes.io/service-account.name: default}}
type: kubernetes.io/service-account-token
",
    );
    let secret = wait("a token in the Secret", || {
        let secret = lab.get(&["secret", "lasting"]);
        let there = secret["data"]["token"].is_string() && secret["data"]["ca.crt"].is_string();
        there.then_some(secret.clone()).ok_or(secret.to_string())
    });
    assert!(secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"].is_string());
}

#[test]
fn kubectl_asks_for_tokens_and_access_and_makes_roles() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    assert_eq!(
        lab.kubectl(&["create", "token", "default"])
            .trim()
            .split('.')
            .count(),
        3
    );
    let refused = lab.kubectl_output(&["create", "token", "default", "--duration=5s"]);
    assert!(
        text(&refused.stderr).contains("may not specify a duration less than 10 minutes"),
        "{refused:?}"
    );
    let who = lab.kubectl(&["auth", "whoami"]);
    assert!(
        who.contains("kubernetes-admin") && who.contains("[system:masters system:authenticated]"),
        "{who}"
    );
    assert_eq!(
        lab.kubectl(&["auth", "can-i", "delete", "nodes"]).trim(),
        "yes"
    );
    let rules = lab.kubectl(&["auth", "can-i", "--list"]);
    assert!(rules.contains("*.*"), "{rules}");

    lab.kubectl(&[
        "create",
        "role",
        "reader",
        "--verb=get,list",
        "--resource=pods",
    ]);
    lab.kubectl(&[
        "create",
        "rolebinding",
        "read",
        "--role=reader",
        "--serviceaccount=default:default",
        "--user=ann",
    ]);
    lab.kubectl(&[
        "create",
        "clusterrole",
        "part",
        "--verb=get",
        "--resource=nodes",
    ]);
    lab.kubectl(&["label", "clusterrole", "part", "sum=yes"]);
    lab.kubectl(&["create", "clusterrole", "sum", "--aggregation-rule=sum=yes"]);
    lab.kubectl(&[
        "create",
        "clusterrolebinding",
        "all",
        "--clusterrole=sum",
        "--group=team",
    ]);
    wait("the sum to have the rules of its part", || {
        let sum = lab.get(&["clusterrole", "sum"]);
        (sum["rules"][0]["resources"][0] == "nodes")
            .then_some(())
            .ok_or(sum.to_string())
    });
    let bindings = lab.kubectl(&["get", "rolebindings", "-o", "wide"]);
    for word in ["Role/reader", "ann", "default/default"] {
        assert!(bindings.contains(word), "{word} in {bindings}");
    }
    let described = lab.kubectl(&["describe", "role", "reader"]);
    assert!(described.contains("[get list]"), "{described}");
    let reconciled = lab.kubectl_stdin(
        &["auth", "reconcile", "-f", "-"],
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader, namespace: default}\nrules: [{apiGroups: [''], resources: [services], verbs: [get]}]\n",
    );
    assert!(
        text(&reconciled.stdout).contains("role.rbac.authorization.k8s.io/reader reconciled"),
        "{reconciled:?}"
    );
    let role = lab.get(&["role", "reader"]);
    assert!(role["rules"].to_string().contains("services"), "{role}");
    let changed = lab.kubectl_output(&[
        "patch",
        "rolebinding",
        "read",
        "--type=merge",
        "-p",
        r#"{"roleRef":{"name":"other"}}"#,
    ]);
    assert!(
        text(&changed.stderr).contains("cannot change roleRef"),
        "{changed:?}"
    );
}
