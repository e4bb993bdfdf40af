//! Pods through the eyes of the API: defaults, refusals, changes, rows.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::kinds;

fn pods() -> Arc<dyn Kind> {
    kinds::find("", "v1", "pods").expect("pods")
}

fn created(spec: Value) -> Value {
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": spec});
    let mut object = pods().decode(object).expect("decodes");
    pods().default(&mut object);
    pods().prepare_create(&mut object);
    object
}

fn errors(spec: Value) -> Vec<String> {
    pods()
        .validate(&created(spec))
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_defaults_are_those_of_kubernetes() {
    let pod = created(
        json!({"containers": [{"name": "c", "image": "debian:latest", "command": ["sleep", "3600"]}]}),
    );
    assert_eq!(
        pod["spec"],
        json!({"containers": [{"command": ["sleep", "3600"], "image": "debian:latest", "imagePullPolicy": "Always",
                "name": "c", "resources": {}, "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"}],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30})
    );
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "BestEffort"})
    );
    assert_eq!(pod["metadata"]["generation"], 1);
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, policy) in [
        ("x", "Always"),
        ("x:latest", "Always"),
        ("x:1", "IfNotPresent"),
        ("host:5000/x", "Always"),
        ("host:5000/x:1", "IfNotPresent"),
        ("x@sha256:aa", "IfNotPresent"),
        ("x:latest@sha256:aa", "IfNotPresent"),
    ] {
        let pod = created(json!({"containers": [{"name": "c", "image": image}]}));
        assert_eq!(
            pod["spec"]["containers"][0]["imagePullPolicy"], policy,
            "{image}"
        );
    }
}

#[test]
fn probes_volumes_ports_and_limits_are_completed() {
    let pod = created(json!({"hostNetwork": true, "serviceAccountName": "sa",
        "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "m"}}, {"name": "c", "secret": {"secretName": "s"}},
            {"name": "h", "hostPath": {"path": "/x"}}],
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "100m"}},
            "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "readinessProbe": {"httpGet": {"port": 80}, "timeoutSeconds": 5}}]}));
    let spec = &pod["spec"];
    let container = &spec["containers"][0];
    assert_eq!(
        container["ports"],
        json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}])
    );
    assert_eq!(
        container["resources"],
        json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}})
    );
    assert_eq!(
        container["readinessProbe"],
        json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 5, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(
        container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"],
        "v1"
    );
    assert_eq!(
        spec["volumes"],
        json!([{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "m", "defaultMode": 420}},
            {"name": "c", "secret": {"secretName": "s", "defaultMode": 420}}, {"name": "h", "hostPath": {"path": "/x", "type": ""}}])
    );
    assert_eq!(spec["serviceAccount"], "sa");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
}

#[test]
fn the_class_of_service_follows_requests_and_limits() {
    for (resources, class) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "0"}}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1"}}), "Burstable"),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
            "Guaranteed",
        ),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
            "Guaranteed",
        ),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
            "Burstable",
        ),
    ] {
        let pod =
            created(json!({"containers": [{"name": "c", "image": "i", "resources": resources}]}));
        assert_eq!(pod["status"]["qosClass"], class, "{resources}");
    }
}

#[test]
fn each_refusal_names_its_field_and_reason() {
    let one = |container: Value| {
        let mut whole = json!({"name": "c", "image": "i"});
        json_patch::merge(&mut whole, &container);
        json!({"containers": [whole]})
    };
    for (spec, message) in [
        (json!({"containers": []}), "spec.containers: Required value"),
        (
            one(json!({"image": null})),
            "spec.containers[0].image: Required value",
        ),
        (
            one(json!({"ports": [{"containerPort": 0}]})),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            one(json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}]})),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            one(json!({"resources": {"limits": {"cpu": "100m"}, "requests": {"cpu": "200m"}}})),
            "spec.containers[0].resources.requests: Invalid value: \"200m\": must be less than or equal to cpu limit of 100m",
        ),
        (
            one(json!({"livenessProbe": {}})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            one(json!({"livenessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}})),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            one(json!({"imagePullPolicy": "Sometimes"})),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            json!({"restartPolicy": "Maybe", "containers": [{"name": "c", "image": "i"}]}),
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            json!({"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]}),
            "spec.containers[1].name: Duplicate value: \"c\"",
        ),
    ] {
        assert_eq!(errors(spec.clone()), [message], "{spec}");
    }
}

#[test]
fn only_the_image_and_a_few_others_may_change() {
    let tolerations = json!([{"key": "a", "operator": "Exists"}]);
    let old =
        created(json!({"containers": [{"name": "c", "image": "i:1"}], "tolerations": tolerations}));
    let change = |patch: Value| {
        let mut new = old.clone();
        json_patch::merge(&mut new, &patch);
        pods()
            .validate_update(&new, &old)
            .iter()
            .map(|e| e.field.clone())
            .collect::<Vec<_>>()
    };
    let mut image = old["spec"]["containers"].clone();
    image[0]["image"] = json!("i:2");
    assert_eq!(change(json!({"spec": {"containers": image}})), [""; 0]);
    assert_eq!(
        change(json!({"spec": {"activeDeadlineSeconds": 5}})),
        [""; 0]
    );
    let mut more = old["spec"]["tolerations"].clone();
    more.as_array_mut()
        .expect("a list")
        .push(json!({"operator": "Exists"}));
    assert_eq!(change(json!({"spec": {"tolerations": more}})), [""; 0]);
    assert_eq!(
        change(json!({"spec": {"tolerations": null}})),
        ["spec.tolerations"]
    );
    assert_eq!(change(json!({"spec": {"nodeName": "other"}})), ["spec"]);
    assert_eq!(
        change(json!({"spec": {"containers": [{"name": "c", "image": "i:1", "command": ["x"]}]}})),
        ["spec"]
    );
    assert_eq!(
        change(
            json!({"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "i"}]}})
        ),
        ["spec.containers"]
    );
}

#[test]
fn a_refused_change_is_shown_as_kubernetes_shows_it() {
    let old = created(json!({"nodeName": "n", "containers": [
        {"name": "c", "image": "busybox", "command": ["sleep", "3600"], "ports": [{"containerPort": 80}]}]}));
    let mut new = old.clone();
    let container = &mut new["spec"]["containers"][0];
    container["command"] = json!(["other"]);
    container
        .as_object_mut()
        .expect("a container")
        .remove("ports");
    let errors = pods().validate_update(&new, &old);
    let (words, difference) = errors[0].message.split_once('\n').expect("a difference");
    assert!(words.starts_with(
        "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    ));
    assert_eq!(
        difference,
        "@@ -6,20 +6,11 @@\n    \"Name\": \"c\",\n    \"Image\": \"busybox\",\n    \"Command\": [\n-    \"sleep\",\n-    \"3600\"\n+    \"other\"\n    ],\n    \"Args\": null,\n    \"WorkingDir\": \"\",\n-   \"Ports\": [\n-    {\n-     \"Name\": \"\",\n-     \"HostPort\": 0,\n-     \"ContainerPort\": 80,\n-     \"Protocol\": \"TCP\",\n-     \"HostIP\": \"\"\n-    }\n-   ],\n+   \"Ports\": null,\n    \"EnvFrom\": null,\n    \"Env\": null,\n    \"Resources\": {\n"
    );
}

#[test]
fn gates_only_open_and_choose_the_node_before_they_do() {
    let gated = json!({"containers": [{"name": "c", "image": "i:1"}], "schedulingGates": [{"name": "a"}], "nodeSelector": {"x": "y"}});
    let old = created(gated);
    let change = |patch: Value| {
        let mut new = old.clone();
        json_patch::merge(&mut new, &patch);
        let errors = pods().validate_update(&new, &old);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        change(json!({"spec": {"schedulingGates": null, "nodeSelector": {"z": "1"}}})),
        [""; 0]
    );
    assert_eq!(
        change(json!({"spec": {"schedulingGates": [{"name": "b"}]}})),
        [
            "spec.schedulingGates: Forbidden: only deletion is allowed, but found new scheduling gate 'b'"
        ]
    );
    assert_eq!(
        change(json!({"spec": {"nodeSelector": {"x": "z"}}})),
        [
            "spec.nodeSelector: Invalid value: {\"x\":\"z\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        ]
    );
}

fn row(spec: Value, status: Value, deleted: bool) -> [Value; 3] {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
    if deleted {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    let cells = pods().cells(&pod, 1_767_225_600 + 10);
    [cells[1].clone(), cells[2].clone(), cells[3].clone()]
}

#[test]
fn one_word_says_how_a_pod_is() {
    let spec = || json!({"containers": [{"name": "c"}]});
    let with_init =
        || json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
    let container = |state: Value, ready: bool, restarts: i32| {
        json!({"phase": "Running", "containerStatuses": [{"name": "c", "ready": ready, "restartCount": restarts,
            "image": "", "imageID": "", "state": state,
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}}}]})
    };
    let init = |state: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": state}]});
    for (spec, status, deleted, cells) in [
        (
            spec(),
            json!({"phase": "Pending"}),
            false,
            ["0/1", "Pending", "0"],
        ),
        (
            spec(),
            container(json!({"running": {}}), true, 0),
            false,
            ["1/1", "Running", "0"],
        ),
        (
            spec(),
            container(json!({"running": {}}), true, 2),
            false,
            ["1/1", "Running", "2 (10s ago)"],
        ),
        (
            spec(),
            container(json!({"running": {}}), true, 0),
            true,
            ["1/1", "Terminating", "0"],
        ),
        (
            spec(),
            container(json!({"waiting": {"reason": "CrashLoopBackOff"}}), false, 3),
            false,
            ["0/1", "CrashLoopBackOff", "3 (10s ago)"],
        ),
        (
            spec(),
            container(json!({"waiting": {"reason": "ErrImagePull"}}), false, 0),
            false,
            ["0/1", "ErrImagePull", "0"],
        ),
        (
            spec(),
            container(
                json!({"terminated": {"exitCode": 0, "reason": "Completed"}}),
                false,
                0,
            ),
            false,
            ["0/1", "Completed", "0"],
        ),
        (
            spec(),
            container(json!({"terminated": {"exitCode": 3}}), false, 0),
            false,
            ["0/1", "ExitCode:3", "0"],
        ),
        (
            spec(),
            container(
                json!({"terminated": {"exitCode": 137, "signal": 9}}),
                false,
                0,
            ),
            false,
            ["0/1", "Signal:9", "0"],
        ),
        (
            with_init(),
            init(json!({"running": {}})),
            false,
            ["0/1", "Init:0/2", "0"],
        ),
        (
            with_init(),
            init(json!({"waiting": {"reason": "ErrImagePull"}})),
            false,
            ["0/1", "Init:ErrImagePull", "0"],
        ),
        (
            with_init(),
            init(json!({"waiting": {"reason": "PodInitializing"}})),
            false,
            ["0/1", "Init:0/2", "0"],
        ),
        (
            with_init(),
            init(json!({"terminated": {"exitCode": 1, "reason": "Error"}})),
            false,
            ["0/1", "Init:Error", "0"],
        ),
        (
            spec(),
            json!({"phase": "Failed", "reason": "Evicted"}),
            false,
            ["0/1", "Evicted", "0"],
        ),
        (
            spec(),
            json!({"phase": "Running", "reason": "NodeLost"}),
            true,
            ["0/1", "Unknown", "0"],
        ),
        (
            spec(),
            json!({"phase": "Succeeded"}),
            true,
            ["0/1", "Succeeded", "0"],
        ),
    ] {
        assert_eq!(row(spec, status.clone(), deleted), cells, "{status}");
    }
}

#[test]
fn a_finished_container_beside_a_running_one_leaves_the_pod_running() {
    let spec = json!({"containers": [{"name": "c"}, {"name": "d"}]});
    let status = |ready: &str| {
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [
            {"name": "c", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
            {"name": "d", "ready": true, "state": {"running": {}}}]})
    };
    assert_eq!(
        row(spec.clone(), status("True"), false),
        ["1/2", "Running", "0"]
    );
    assert_eq!(row(spec, status("False"), false), ["1/2", "NotReady", "0"]);
}

#[test]
fn a_deleted_pod_has_the_grace_that_it_asked_for() {
    assert_eq!(pods().default_grace_seconds(&json!({"spec": {}})), Some(30));
    assert_eq!(
        pods().default_grace_seconds(&json!({"spec": {"terminationGracePeriodSeconds": 5}})),
        Some(5)
    );
}

#[test]
fn where_a_pod_may_run_and_whom_it_runs_as_is_checked() {
    let required = |term: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}});
    let at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
    let cases: Vec<(&str, Value, String)> = vec![
        (
            "affinity",
            required(json!({"matchExpressions": [{"key": "a", "operator": "In"}]})),
            format!("{at}.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
        ),
        (
            "affinity",
            required(json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})),
            format!("{at}.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator"),
        ),
        (
            "affinity",
            required(json!({"matchFields": [{"key": "metadata.uid", "operator": "In", "values": ["x"]}]})),
            format!("{at}.matchFields[0].key: Invalid value: \"metadata.uid\": not a valid field selector key"),
        ),
        (
            "affinity",
            json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": "zone"}}]}}),
            "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100".to_owned(),
        ),
        (
            "topologySpreadConstraints",
            json!([{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero".to_owned(),
        ),
        (
            "securityContext",
            json!({"runAsUser": -1}),
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive".to_owned(),
        ),
        (
            "securityContext",
            json!({"seccompProfile": {"type": "Localhost"}}),
            "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost".to_owned(),
        ),
        (
            "dnsConfig",
            json!({"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"]}),
            "spec.dnsConfig.nameservers: Invalid value: [\"1.1.1.1\",\"2.2.2.2\",\"3.3.3.3\",\"4.4.4.4\"]: must not have more than 3 nameservers".to_owned(),
        ),
        (
            "initContainers",
            json!([{"name": "i", "image": "i", "readinessProbe": {"exec": {"command": ["x"]}}}]),
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always".to_owned(),
        ),
        (
            "containers",
            json!([{"name": "c", "image": "i", "lifecycle": {"preStop": {}}}]),
            "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type".to_owned(),
        ),
        (
            "containers",
            json!([{"name": "c", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}}]),
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type".to_owned(),
        ),
    ];
    for (field, value, message) in cases {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
        spec[field] = value;
        let errors: Vec<String> = pods()
            .validate(&created(spec))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(errors, [message], "{field}");
    }
}
