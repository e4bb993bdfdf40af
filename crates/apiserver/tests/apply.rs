//! Server-side apply and `managedFields`, through a whole server.
//! Source: "Server-Side Apply" in the Kubernetes documentation, and KEP-555.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Cluster, config_map, text};
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: [(&str, &str); 1] = [("Content-Type", "application/apply-patch+yaml")];

async fn apply(cluster: &Cluster, path: &str, query: &str, config: &Value) -> (u16, Value) {
    cluster
        .call("PATCH", &format!("{path}?{query}"), &APPLY, config)
        .await
}

fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec})
}

/// The fields of a manager: operation, subresource, `fieldsV1`.
fn fields(object: &Value, manager: &str, operation: &str, subresource: &str) -> Value {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    entries
        .into_iter()
        .find(|e| {
            text(e, "/manager") == manager
                && text(e, "/operation") == operation
                && text(e, "/subresource") == subresource
        })
        .map_or(Value::Null, |e| e["fieldsV1"].clone())
}

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    entries.iter().map(|e| text(e, "/manager")).collect()
}

#[tokio::test]
async fn two_appliers_share_an_object_until_one_forces_the_other_out() {
    let cluster = Cluster::start().await;
    let path = format!("{SERVICES}/s");
    let first = service(
        json!({"ports": [{"name": "x", "port": 80, "protocol": "TCP"}], "selector": {"app": "a"}}),
    );
    let (code, made) = apply(&cluster, &path, "fieldManager=one", &first).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        fields(&made, "one", "Apply", ""),
        json!({"f:spec": {
            "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}}},
            "f:selector": {},
        }})
    );
    let second = service(json!({"ports": [{"name": "y", "port": 81, "protocol": "TCP"}]}));
    let (code, both) = apply(&cluster, &path, "fieldManager=two", &second).await;
    assert_eq!(code, 200, "{both}");
    assert_eq!(both["spec"]["ports"].as_array().map(Vec::len), Some(2));
    assert_eq!(both["spec"]["ports"][1]["targetPort"], 81);

    let stolen = service(json!({"selector": {"app": "b"}}));
    let (code, refused) = apply(&cluster, &path, "fieldManager=two", &stolen).await;
    assert_eq!(
        (code, refused),
        (
            409,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Conflict", "code": 409,
                "message": "Apply failed with 1 conflict: conflict with \"one\": .spec.selector",
                "details": {"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.selector"}]}})
        )
    );
    // Forced, and the port that `two` does not apply any more goes.
    let (code, forced) = apply(&cluster, &path, "fieldManager=two&force=true", &stolen).await;
    assert_eq!(
        (code, &forced["spec"]["selector"]),
        (200, &json!({"app": "b"}))
    );
    assert_eq!(forced["spec"]["ports"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        fields(&forced, "two", "Apply", ""),
        json!({"f:spec": {"f:selector": {}}})
    );
    assert_eq!(
        fields(&forced, "one", "Apply", "")["f:spec"].get("f:selector"),
        None
    );

    let nothing = service(json!({}));
    let (code, refused) = apply(&cluster, &path, "fieldManager=one", &nothing).await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (
            422,
            "Service \"s\" is invalid: spec.ports: Required value".into()
        )
    );
}

#[tokio::test]
async fn applying_the_same_again_changes_nothing() {
    let cluster = Cluster::start().await;
    let path = format!("{SERVICES}/s");
    let config = service(json!({"ports": [{"port": 80}]}));
    let (_, made) = apply(&cluster, &path, "fieldManager=one", &config).await;
    let (code, again) = apply(&cluster, &path, "fieldManager=one", &config).await;
    assert_eq!((code, &again), (200, &made));
    // A protocol that was left out is the one that it has by default.
    assert_eq!(
        fields(&made, "one", "Apply", ""),
        json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}})
    );
}

#[tokio::test]
async fn writers_own_what_they_write_under_their_name_or_their_agents() {
    let cluster = Cluster::start().await;
    let agent = [("User-Agent", "kubectl/v1.36.0 (linux/amd64) kubernetes/abc")];
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "nginx"}},
        "spec": {"selector": {"matchLabels": {"app": "nginx"}}, "template": {"metadata": {"labels": {"app": "nginx"}},
            "spec": {"containers": [{"name": "nginx", "image": "nginx"}]}}}});
    let (code, made) = cluster.call("POST", DEPLOYMENTS, &agent, &deployment).await;
    assert_eq!(code, 201, "{made}");
    // As the Kubernetes documentation shows it for `kubectl create deployment`.
    assert_eq!(
        fields(&made, "kubectl", "Update", ""),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {"k:{\"name\":\"nginx\"}": {".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                            "f:resources": {}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}}},
                        "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
                        "f:terminationGracePeriodSeconds": {},
                    },
                },
            },
        })
    );
    let path = format!("{DEPLOYMENTS}/d");
    // An applier is told of it.
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 3}});
    let (code, refused) = apply(&cluster, &path, "fieldManager=x", &config).await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (
            409,
            "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1: .spec.replicas"
                .into()
        )
    );
    // The status has an owner of its own.
    let mut with_status = made.clone();
    with_status["status"] =
        json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    let (code, written) = cluster
        .put(
            &format!("{path}/status?fieldManager=controller"),
            &with_status,
        )
        .await;
    assert_eq!(code, 200, "{written}");
    let status = fields(&written, "controller", "Update", "status");
    assert_eq!(status["f:status"]["f:replicas"], json!({}));
    assert_eq!(
        status["f:status"]["f:conditions"]["k:{\"type\":\"Available\"}"]["f:status"],
        json!({})
    );
    // And so has the scale.
    let (code, _) = cluster
        .patch(
            &format!("{path}/scale?fieldManager=scaler"),
            "merge",
            &json!({"spec": {"replicas": 2}}),
        )
        .await;
    assert_eq!(code, 200);
    let (_, scaled) = cluster.get(&path).await;
    assert_eq!(
        fields(&scaled, "scaler", "Update", "scale"),
        json!({"f:spec": {"f:replicas": {}}})
    );
    assert_eq!(
        fields(&scaled, "kubectl", "Update", "")["f:spec"].get("f:replicas"),
        None
    );
    let (code, refused) = apply(&cluster, &path, "fieldManager=x", &config).await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (
            409,
            "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas".into()
        )
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_no_new_version_whoever_sends_it() {
    let cluster = Cluster::start().await;
    let (_, made) = cluster
        .post(
            &format!("{MAPS}?fieldManager=a"),
            &config_map("m", json!({})),
        )
        .await;
    let (code, same) = cluster
        .put(
            &format!("{MAPS}/m?fieldManager=b"),
            &config_map("m", json!({})),
        )
        .await;
    assert_eq!((code, &same), (200, &made));
    assert_eq!(managers(&made), ["a"]);
}

#[tokio::test]
async fn managers_can_be_forgotten_but_not_by_leaving_them_out() {
    let cluster = Cluster::start().await;
    let path = format!("{MAPS}/m");
    cluster
        .post(
            &format!("{MAPS}?fieldManager=a"),
            &config_map("m", json!({})),
        )
        .await;
    let (_, kept) = cluster
        .put(
            &format!("{path}?fieldManager=b"),
            &config_map("m", json!({"l": "1"})),
        )
        .await;
    assert_eq!(managers(&kept), ["a", "b"]);
    let forget = json!({"metadata": {"managedFields": [{}]}});
    let (code, forgotten) = cluster.patch(&path, "merge", &forget).await;
    assert_eq!((code, managers(&forgotten)), (200, vec![]));
    assert_eq!(forgotten["metadata"].get("managedFields"), None);
    // From then on nobody is tracked until somebody applies.
    let (_, untracked) = cluster
        .put(
            &format!("{path}?fieldManager=b"),
            &config_map("m", json!({"l": "2"})),
        )
        .await;
    assert_eq!(managers(&untracked), Vec::<String>::new());
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"x": "y"}});
    let (code, applied) = apply(&cluster, &path, "fieldManager=c", &config).await;
    assert_eq!(
        (code, managers(&applied)),
        (200, vec!["c".to_owned(), "before-first-apply".to_owned()])
    );
    assert_eq!(
        fields(&applied, "before-first-apply", "Update", "")["f:data"],
        json!({".": {}, "f:k": {}})
    );
}

#[tokio::test]
async fn what_is_applied_must_fit_its_type() {
    let cluster = Cluster::start().await;
    let path = format!("{SERVICES}/s");
    for (config, code, message) in [
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"flavour": 1}}),
            500,
            "failed to create typed patch object (/s; v1, Kind=Service): .spec.flavour: field not declared in schema",
        ),
        (
            service(json!({"ports": [{"port": "eighty"}]})),
            500,
            "failed to create typed patch object (/s; v1, Kind=Service): .spec.ports[port=\"eighty\",protocol=\"TCP\"].port: expected numeric (int or float), got string",
        ),
        (
            service(json!({"ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}]})),
            500,
            "failed to create typed patch object (/s; v1, Kind=Service): .spec.ports: duplicate entries for key [port=80,protocol=\"TCP\"]",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "s"}}),
            400,
            "invalid object type: /v1, Kind=Pod",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "managedFields": []}}),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "other"}, "spec": {"ports": [{"port": 80}]}}),
            400,
            "the name of the object (other) does not match the name on the URL (s)",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "other"}, "spec": {"ports": [{"port": 80}]}}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "uid": "u"}, "spec": {"ports": [{"port": 80}]}}),
            409,
            "Operation cannot be fulfilled on services \"s\": uid mismatch: the provided object specified uid u, and no existing object was found",
        ),
    ] {
        let (got, refused) = apply(&cluster, &path, "fieldManager=one", &config).await;
        assert_eq!(
            (got, text(&refused, "/message")),
            (code, message.to_owned()),
            "{config}"
        );
    }
    let (code, _) = cluster.get(&path).await;
    assert_eq!(code, 404);
    let elsewhere = "/api/v1/namespaces/nowhere/services/s".to_owned();
    let (code, refused) = apply(
        &cluster,
        &elsewhere,
        "fieldManager=one",
        &service(json!({"ports": [{"port": 80}]})),
    )
    .await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (404, "namespaces \"nowhere\" not found".into())
    );
}

#[tokio::test]
async fn yaml_is_applied_and_keys_given_twice_are_told() {
    let cluster = Cluster::start().await;
    let path = format!("{MAPS}/m?fieldManager=one");
    let yaml =
        b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  a: one\n  a: two\n";
    let (code, _, answer) = cluster
        .raw(
            &cluster.client,
            "PATCH",
            &format!("{path}&fieldValidation=Strict"),
            &APPLY,
            yaml.to_vec(),
        )
        .await;
    let refused: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(
        (code, text(&refused, "/message")),
        (
            400,
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"a\" already set in map".into()
        )
    );
    let (code, headers, answer) = cluster
        .raw(&cluster.client, "PATCH", &path, &APPLY, yaml.to_vec())
        .await;
    let made: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((code, text(&made, "/data/a")), (201, "two".into()));
    assert!(headers.contains_key("warning"));
}

#[tokio::test]
async fn kubectl_takes_over_what_it_applied_on_the_clients_side() {
    let cluster = Cluster::start().await;
    let path = format!("{MAPS}/m");
    let mut client_side = config_map("m", json!({}));
    let last = client_side.to_string();
    client_side["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    cluster
        .post(
            &format!("{MAPS}?fieldManager=kubectl-client-side-apply"),
            &client_side,
        )
        .await;
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "new"}});
    // Anybody else is in conflict.
    let (code, _) = apply(&cluster, &path, "fieldManager=other", &config).await;
    assert_eq!(code, 409);
    let (code, applied) = apply(&cluster, &path, "fieldManager=kubectl", &config).await;
    assert_eq!(
        (code, text(&applied, "/data/k")),
        (200, "new".into()),
        "{applied}"
    );
    // Whoever goes back to client-side apply finds what was applied last.
    let annotation =
        applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
            .clone();
    let last: Value = serde_json::from_str(annotation.as_str().unwrap()).unwrap();
    assert_eq!(last["data"], json!({"k": "new"}));
}

#[tokio::test]
async fn a_dry_run_of_apply_leaves_nothing() {
    let cluster = Cluster::start().await;
    let path = format!("{SERVICES}/s");
    let config = service(json!({"ports": [{"port": 80}]}));
    let (code, made) = apply(&cluster, &path, "fieldManager=one&dryRun=All", &config).await;
    assert_eq!((code, managers(&made)), (201, vec!["one".to_owned()]));
    let (code, _) = cluster.get(&path).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn old_updates_are_folded_into_one_entry() {
    let cluster = Cluster::start().await;
    let path = format!("{MAPS}/m");
    cluster
        .post(
            &format!("{MAPS}?fieldManager=m00"),
            &config_map("m", json!({})),
        )
        .await;
    for i in 1..14 {
        let change = json!({"data": {format!("k{i}"): "v"}});
        cluster
            .patch(&format!("{path}?fieldManager=m{i:02}"), "merge", &change)
            .await;
    }
    let (_, object) = cluster.get(&path).await;
    let managers = managers(&object);
    assert_eq!(managers.len(), 10, "{managers:?}");
    assert!(managers.contains(&"ancient-changes".to_owned()));
    let ancient = fields(&object, "ancient-changes", "Update", "");
    assert_eq!(ancient["f:data"]["f:k1"], json!({}), "{ancient}");
}
