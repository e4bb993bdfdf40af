//! Jobs that are completed, refused and shown.

use serde_json::{Value, json};
use std::sync::Arc;

use crate::kind::Kind;
use crate::kinds;

fn kind() -> Arc<dyn Kind> {
    kinds::find("batch", "v1", "jobs").expect("jobs")
}

fn object(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "pi", "namespace": "default", "uid": "u-1"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:1"}]}}}});
    change(&mut object);
    let mut object = kind().decode(object).expect("decodes");
    kind().default(&mut object);
    kind().prepare_create(&mut object);
    object
}

fn texts(errors: &crate::field::FieldErrors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn errors(object: &Value) -> Vec<String> {
    texts(&kind().validate(object))
}

#[test]
fn the_defaults_the_selector_and_the_labels_are_those_of_kubernetes() {
    let object = object(|_| {});
    let spec = &object["spec"];
    for (field, value) in [
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("completions", json!(1)),
        ("manualSelector", json!(false)),
        ("parallelism", json!(1)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
        ("suspend", json!(false)),
        (
            "selector",
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}),
        ),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    let labels = json!({"batch.kubernetes.io/controller-uid": "u-1", "batch.kubernetes.io/job-name": "pi",
        "controller-uid": "u-1", "job-name": "pi"});
    assert_eq!(spec["template"]["metadata"]["labels"], labels);
    assert_eq!(object["metadata"]["labels"], labels);
    assert_eq!(object["status"], json!({}));
    assert_eq!(errors(&object), [""; 0]);
}

#[test]
fn only_one_of_completions_and_parallelism_is_made_up() {
    let only_parallelism = object(|object| object["spec"]["parallelism"] = json!(3));
    assert_eq!(only_parallelism["spec"]["completions"], Value::Null);
    let only_completions = object(|object| object["spec"]["completions"] = json!(3));
    assert_eq!(only_completions["spec"]["parallelism"], 1);
}

#[test]
fn own_labels_stay() {
    let object = object(|object| object["metadata"]["labels"] = json!({"team": "a"}));
    assert_eq!(object["metadata"]["labels"], json!({"team": "a"}));
}

#[test]
fn what_is_wrong_is_said_in_kubernetes_words() {
    let cases: &[(Value, &[&str])] = &[
        (
            json!({"parallelism": -1}),
            &["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            json!({"backoffLimit": -1}),
            &["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            json!({"completionMode": "Any"}),
            &[
                "spec.completionMode: Unsupported value: \"Any\": supported values: \"NonIndexed\", \"Indexed\"",
            ],
        ),
        (
            json!({"completionMode": "Indexed", "parallelism": 2}),
            &["spec.completions: Required value: when completion mode is Indexed"],
        ),
        (
            json!({"backoffLimitPerIndex": 1}),
            &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        ),
        (
            json!({"podReplacementPolicy": "Never"}),
            &[
                "spec.podReplacementPolicy: Unsupported value: \"Never\": supported values: \"Failed\", \"TerminatingOrFailed\"",
            ],
        ),
        (
            json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}),
            &[
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ],
        ),
        (
            json!({"successPolicy": {"rules": [{"succeededCount": 1}]}}),
            &[
                "spec.successPolicy: Invalid value: {\"Rules\":[{\"SucceededIndexes\":null,\"SucceededCount\":1}]}: requires indexed completion mode",
            ],
        ),
        (
            json!({"completionMode": "Indexed", "completions": 2, "successPolicy": {"rules": [{"succeededIndexes": "0,5"}, {}]}}),
            &[
                "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0,5\": error parsing succeededIndexes: too large index: \"5\"",
                "spec.successPolicy.rules[1]: Required value: at least one of succeededCount or succeededIndexes must be specified",
            ],
        ),
        (
            json!({"podFailurePolicy": {"rules": [{"action": "Ignore"}, {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [2, 0]}}]}}),
            &[
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
                "spec.podFailurePolicy.rules[1].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                "spec.podFailurePolicy.rules[1].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[1].onExitCodes.values: Invalid value: [2,0]: must be ordered",
            ],
        ),
        (
            json!({"manualSelector": true}),
            &[
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
            ],
        ),
        (
            json!({"selector": {"matchLabels": {"app": "a"}}}),
            &[
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"batch.kubernetes.io/controller-uid\":\"u-1\"}}: `selector` not auto-generated",
                "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u-1\",\"batch.kubernetes.io/job-name\":\"pi\",\"controller-uid\":\"u-1\",\"job-name\":\"pi\"}: `selector` does not match template `labels`",
            ],
        ),
    ];
    for (fields, messages) in cases {
        let object = object(|object| {
            for (field, value) in fields.as_object().expect("fields") {
                object["spec"][field] = value.clone();
            }
        });
        assert_eq!(errors(&object), *messages, "{fields}");
    }
    let long = object(|object| {
        object["metadata"]["name"] = json!("a".repeat(62));
        object["spec"]["completionMode"] = json!("Indexed");
        object["spec"]["completions"] = json!(3);
    });
    assert!(
        errors(&long)[0].starts_with("metadata.name: Invalid value: "),
        "{:?}",
        errors(&long)
    );
}

#[test]
fn what_a_job_does_never_changes() {
    let old = object(|_| {});
    for (path, value, message) in [
        (
            "/spec/completions",
            json!(2),
            "spec.completions: Invalid value: 2: field is immutable",
        ),
        (
            "/spec/completionMode",
            json!("Indexed"),
            "spec.completionMode: Invalid value: \"Indexed\": field is immutable",
        ),
        ("/spec/parallelism", json!(5), ""),
        ("/spec/suspend", json!(true), ""),
        ("/spec/ttlSecondsAfterFinished", json!(5), ""),
    ] {
        let mut new = old.clone();
        let (parent, field) = path.rsplit_once('/').expect("a path");
        new.pointer_mut(parent).expect(path)[field] = value;
        let said = texts(&kind().validate_update(&new, &old)).join("; ");
        assert_eq!(said, message, "{path}");
    }
    let mut new = old.clone();
    new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("x:2");
    let said = texts(&kind().validate_update(&new, &old));
    assert!(
        said[0].starts_with("spec.template: Invalid value: {\"labels\":{\"batch.kubernetes.io/controller-uid\":\"u-1\",")
            && said[0].contains("\"Spec\":{\"Volumes\":null,\"InitContainers\":null,\"Containers\":[{\"Name\":\"c\",\"Image\":\"x:2\"")
            && said[0].ends_with(": field is immutable"),
        "{said:?}"
    );
    // While it waits for its start, where its Pods go is open.
    let waiting = object(|object| object["spec"]["suspend"] = json!(true));
    let mut placed = waiting.clone();
    placed["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "fast"});
    assert_eq!(texts(&kind().validate_update(&placed, &waiting)), [""; 0]);
    let mut placed = old.clone();
    placed["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "fast"});
    assert_eq!(kind().validate_update(&placed, &old).len(), 1);
}

#[test]
fn a_finished_job_is_finished_for_good() {
    let mut old = object(|_| {});
    let done = |kind: &str| json!({"type": kind, "status": "True"});
    let time = "2030-01-01T00:00:00Z";
    let mut new = old.clone();
    new["status"] = json!({"startTime": time, "completionTime": time, "succeeded": 1,
        "conditions": [done("SuccessCriteriaMet"), done("Complete")]});
    assert_eq!(texts(&kind().validate_status(&new, &old)), [""; 0]);
    new["status"]["active"] = json!(1);
    new["status"]["conditions"] = json!([done("Complete")]);
    assert_eq!(
        texts(&kind().validate_status(&new, &old)),
        [
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            "status.active: Invalid value: 1: active>0 is invalid for finished job"
        ]
    );
    old["status"] = json!({"succeeded": 2, "startTime": time, "conditions": [done("Failed"), done("FailureTarget")]});
    new["status"] = json!({"succeeded": 1, "startTime": time});
    assert_eq!(
        texts(&kind().validate_status(&new, &old)),
        [
            "status.conditions: Invalid value: cannot disable the terminal Failed=True condition",
            "status.conditions: Invalid value: cannot disable the terminal FailureTarget=True condition",
            "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter"
        ]
    );
}

#[test]
fn a_row_says_how_far_a_job_is() {
    let start = "2030-01-01T00:00:00Z";
    let at = 1_893_456_000;
    let mut object = object(|object| object["spec"]["parallelism"] = json!(2));
    object["status"] = json!({"succeeded": 1, "startTime": start});
    let cells = kind().cells(&object, at + 90);
    assert_eq!(
        cells[1..4],
        [json!("Running"), json!("1/1 of 2"), json!("90s")]
    );
    object["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
    object["status"]["completionTime"] = json!("2030-01-01T00:00:05Z");
    object["spec"]["completions"] = json!(4);
    let cells = kind().cells(&object, at + 90);
    assert_eq!(cells[1..4], [json!("Complete"), json!("1/4"), json!("5s")]);
    assert_eq!(
        kind().fields(&object),
        [("status.successful", "1".to_owned())]
    );
}
