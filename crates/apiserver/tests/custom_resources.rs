//! Kinds that come as CustomResourceDefinitions, over real HTTPS.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Cluster, text};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["toys"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "string", "jsonPath": ".spec.size"},
                    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "selectableFields": [{"jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["size"], "properties": {
                        "size": {"type": "string", "enum": ["small", "large"], "description": "How large it is."},
                        "replicas": {"type": "integer", "minimum": 0, "maximum": 10, "default": 1},
                        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "required": ["name"], "properties": {
                                "name": {"type": "string"}, "weight": {"x-kubernetes-int-or-string": true}}}},
                    }},
                    "status": {"type": "object", "properties": {
                        "replicas": {"type": "integer"}, "selector": {"type": "string"},
                        "conditions": {"type": "array", "items": {"type": "object", "properties": {
                            "type": {"type": "string"}, "status": {"type": "string"}}}}}},
                }}},
            }]},
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

/// Creates the definition and waits until it says that it is served.
async fn establish(cluster: &Cluster, definition: &Value) {
    let (code, created) = cluster.post(DEFINITIONS, definition).await;
    assert_eq!(code, 201, "{created}");
    established(cluster, &text(definition, "/metadata/name")).await;
}

async fn established(cluster: &Cluster, name: &str) {
    let mut watch = cluster
        .watch(
            &format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}"),
            &[],
        )
        .await;
    loop {
        let event = watch.next().await.unwrap();
        let conditions = event["object"]["status"]["conditions"].clone();
        let conditions = conditions.as_array().cloned().unwrap_or_default();
        if conditions
            .iter()
            .any(|c| c["type"] == "Established" && c["status"] == "True")
        {
            return;
        }
    }
}

async fn gone(cluster: &Cluster, name: &str) {
    let mut watch = cluster
        .watch(
            &format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}"),
            &[],
        )
        .await;
    // It may be gone before the watch begins.
    if cluster.get(&format!("{DEFINITIONS}/{name}")).await.0 == 404 {
        return;
    }
    while watch.next().await.unwrap()["type"] != "DELETED" {}
}

#[tokio::test]
async fn a_definition_becomes_a_kind() {
    let cluster = Cluster::start().await;
    let (code, created) = cluster.post(DEFINITIONS, &definition()).await;
    assert_eq!(code, 201, "{created}");
    assert_eq!(created["spec"]["names"]["listKind"], "WidgetList");
    assert_eq!(created["status"]["storedVersions"], json!(["v1"]));
    established(&cluster, "widgets.example.com").await;
    let (_, found) = cluster.get("/apis/example.com/v1").await;
    assert_eq!(
        found["resources"][0],
        json!({"name": "widgets", "singularName": "widget", "namespaced": true, "kind": "Widget",
            "storageVersionHash": "gIwvi5rymmg=",
            "verbs": ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"],
            "shortNames": ["wd"], "categories": ["toys"]})
    );
    let names: Vec<&Value> = found["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["name"])
        .collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    let (_, groups) = cluster.get("/apis").await;
    let groups = groups["groups"].as_array().unwrap();
    assert!(groups.iter().any(|g| g["name"] == "example.com"));

    let (_, document) = cluster.get("/openapi/v3/apis/example.com/v1").await;
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(
        schema["properties"]["spec"]["properties"]["size"]["description"],
        "How large it is."
    );
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{"group": "example.com", "kind": "Widget", "version": "v1"}])
    );
    let reference = &schema["properties"]["metadata"]["allOf"][0]["$ref"];
    let pointer = reference.as_str().unwrap().trim_start_matches('#');
    assert!(document.pointer(pointer).is_some(), "{reference}");
    let (code, v2) = cluster.get("/openapi/v2").await;
    assert_eq!(code, 200);
    assert!(v2["definitions"]["com.example.v1.Widget"].is_object());
}

#[tokio::test]
async fn objects_are_defaulted_pruned_and_checked() {
    let cluster = Cluster::start().await;
    establish(&cluster, &definition()).await;
    let mut object = widget("a", json!({"size": "small", "colour": "red"}));
    object["status"] = json!({"replicas": 5});
    let (code, headers, body) = cluster
        .raw(
            &cluster.client,
            "POST",
            WIDGETS,
            &[],
            object.to_string().into_bytes(),
        )
        .await;
    let created: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(code, 201, "{created}");
    assert_eq!(created["spec"], json!({"size": "small", "replicas": 1}));
    assert_eq!(created.get("status"), None);
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(
        headers["warning"],
        "299 - \"unknown field \\\"spec.colour\\\"\""
    );
    let (code, refused) = cluster
        .post(&format!("{WIDGETS}?fieldValidation=Strict"), &object)
        .await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (400, r#"Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.colour""#.to_owned())
    );

    for (spec, message) in [
        (
            json!({"size": "huge"}),
            r#"Widget.example.com "b" is invalid: spec.size: Unsupported value: "huge": supported values: "small", "large""#,
        ),
        (
            json!({}),
            r#"Widget.example.com "b" is invalid: spec.size: Required value"#,
        ),
        (
            json!({"size": "small", "replicas": "three"}),
            r#"Widget.example.com "b" is invalid: [spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string", .spec.replicas: Invalid value: 0: .spec.replicas accessor error: three is of the type string, expected int64]"#,
        ),
        (
            json!({"size": "small", "replicas": 11}),
            r#"Widget.example.com "b" is invalid: spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10"#,
        ),
        (
            json!({"size": "small", "parts": [{"name": "x"}, {"name": "x"}]}),
            r#"Widget.example.com "b" is invalid: spec.parts[1]: Duplicate value: {"name":"x"}"#,
        ),
    ] {
        let (code, refused) = cluster.post(WIDGETS, &widget("b", spec)).await;
        assert_eq!(
            (code, text(&refused, "/message")),
            (422, message.to_owned())
        );
    }
    let (_, refused) = cluster
        .post(
            WIDGETS,
            &widget("b", json!({"size": "small", "replicas": "x"})),
        )
        .await;
    assert_eq!(
        refused["details"]["causes"][0]["reason"],
        "FieldValueTypeInvalid"
    );
    let (code, _) = cluster.get(&format!("{WIDGETS}/b")).await;
    assert_eq!(code, 404);
    let (code, _) = cluster
        .post(
            &format!("{WIDGETS}?dryRun=All"),
            &widget("b", json!({"size": "large"})),
        )
        .await;
    assert_eq!(code, 201);
    let (code, _) = cluster.get(&format!("{WIDGETS}/b")).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn objects_are_changed_listed_and_watched() {
    let cluster = Cluster::start().await;
    establish(&cluster, &definition()).await;
    for (name, size) in [("a", "small"), ("b", "large")] {
        cluster
            .post(WIDGETS, &widget(name, json!({"size": size})))
            .await;
    }
    let path = format!("{WIDGETS}/a");
    let (code, patched) = cluster
        .patch(&path, "merge", &json!({"spec": {"replicas": 3}}))
        .await;
    assert_eq!((code, &patched["spec"]["replicas"]), (200, &json!(3)));
    assert_eq!(patched["metadata"]["generation"], 2);
    let (code, patched) = cluster
        .patch(
            &path,
            "json",
            &json!([{"op": "replace", "path": "/spec/replicas", "value": 4}]),
        )
        .await;
    assert_eq!((code, &patched["spec"]["replicas"]), (200, &json!(4)));
    let (code, refused) = cluster
        .patch(&path, "strategic-merge", &json!({"spec": {"replicas": 5}}))
        .await;
    assert_eq!(
        (code, text(&refused, "/reason")),
        (415, "UnsupportedMediaType".to_owned())
    );
    let mut blind = patched.clone();
    blind["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    let (code, refused) = cluster.put(&path, &blind).await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (422, r#"widgets.example.com "a" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"#.to_owned())
    );

    // The status has a door of its own, and does not count as a change of what is wanted.
    let status = json!({"status": {"replicas": 2, "selector": "app=a", "conditions": [{"type": "Ready", "status": "True"}]},
        "spec": {"size": "large"}});
    let (code, patched) = cluster
        .patch(&format!("{path}/status"), "merge", &status)
        .await;
    assert_eq!((code, &patched["spec"]["size"]), (200, &json!("small")));
    assert_eq!(patched["status"]["replicas"], 2);
    assert_eq!(patched["metadata"]["generation"], 3);
    let (code, refused) = cluster
        .patch(
            &format!("{path}/status"),
            "merge",
            &json!({"status": {"replicas": "two"}}),
        )
        .await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (422, r#"Widget.example.com "a" is invalid: [status.replicas: Invalid value: "string": replicas in body must be of type integer: "string", .status.replicas: Invalid value: 0: .status.replicas accessor error: two is of the type string, expected int64]"#.to_owned())
    );
    let (_, scale) = cluster.get(&format!("{path}/scale")).await;
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (
            &json!({"replicas": 4}),
            &json!({"replicas": 2, "selector": "app=a"})
        )
    );
    let (code, scale) = cluster
        .patch(
            &format!("{path}/scale"),
            "merge",
            &json!({"spec": {"replicas": 7}}),
        )
        .await;
    assert_eq!((code, &scale["spec"]["replicas"]), (200, &json!(7)));

    let (_, list) = cluster.get(WIDGETS).await;
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("WidgetList"), &json!("example.com/v1"))
    );
    assert_eq!(list["items"][0]["kind"], "Widget");
    let (_, small) = cluster
        .get(&format!("{WIDGETS}?fieldSelector=spec.size%3Dlarge"))
        .await;
    let names: Vec<&Value> = small["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["metadata"]["name"])
        .collect();
    assert_eq!(names, ["b"]);
    let (code, refused) = cluster
        .get(&format!("{WIDGETS}?fieldSelector=spec.colour%3Dred"))
        .await;
    assert_eq!(code, 400, "{refused}");
    let table = [("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let (_, table) = cluster.call("GET", WIDGETS, &table, &Value::Null).await;
    let names: Vec<&Value> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(names, ["Name", "Size", "Ready", "Replicas", "Age"]);
    let cells = |row: usize| {
        let cells = table["rows"][row]["cells"].as_array().unwrap();
        cells[..4].to_vec()
    };
    assert_eq!(json!(cells(0)), json!(["a", "small", "True", 7]));
    assert_eq!(json!(cells(1)), json!(["b", "large", null, 1]));

    let mut watch = cluster.watch(&format!("{WIDGETS}?watch=1"), &[]).await;
    assert_eq!(watch.next_name().await, ("ADDED".into(), "a".into()));
    assert_eq!(watch.next_name().await, ("ADDED".into(), "b".into()));
    let (code, _) = cluster.delete(WIDGETS, &Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(watch.next_name().await, ("DELETED".into(), "a".into()));
    assert_eq!(watch.next_name().await, ("DELETED".into(), "b".into()));
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    let cluster = Cluster::start().await;
    establish(&cluster, &definition()).await;
    let mut held = widget("held", json!({"size": "small"}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.post(WIDGETS, &held).await;
    cluster
        .post(WIDGETS, &widget("free", json!({"size": "small"})))
        .await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let (code, deleted) = cluster.delete(&path, &Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(
        deleted["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    let (code, refused) = cluster
        .post(WIDGETS, &widget("late", json!({"size": "small"})))
        .await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (
            405,
            "create not allowed while custom resource definition is terminating".to_owned()
        )
    );
    // Somebody has something to do before the object goes, and the definition waits for it, over a restart too.
    let cluster = cluster.restart().await;
    let (code, _) = cluster.get(&format!("{WIDGETS}/held")).await;
    assert_eq!(code, 200);
    let (code, patched) = cluster
        .patch(
            &format!("{WIDGETS}/held"),
            "merge",
            &json!({"metadata": {"finalizers": null}}),
        )
        .await;
    assert_eq!(code, 200, "{patched}");
    gone(&cluster, "widgets.example.com").await;
    // The kind goes with the definition, a moment after it.
    let served = async {
        while cluster.get(WIDGETS).await.0 != 404 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), served)
        .await
        .expect("the kind is served no more");
    establish(&cluster, &definition()).await;
    let (_, list) = cluster.get(WIDGETS).await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let cluster = Cluster::start().await;
    establish(&cluster, &definition()).await;
    let (_, created) = cluster
        .post(WIDGETS, &widget("a", json!({"size": "small"})))
        .await;
    let (_, before) = cluster
        .get(&format!("{DEFINITIONS}/widgets.example.com"))
        .await;
    let cluster = cluster.restart().await;
    // Served from the first request on.
    assert_eq!(cluster.get(&format!("{WIDGETS}/a")).await, (200, created));
    let (_, after) = cluster
        .get(&format!("{DEFINITIONS}/widgets.example.com"))
        .await;
    assert_eq!(before, after);
}

#[tokio::test]
async fn versions_show_the_same_objects() {
    let cluster = Cluster::start().await;
    let mut two = definition();
    let mut old = two["spec"]["versions"][0].clone();
    old["name"] = json!("v1beta1");
    old["storage"] = json!(false);
    old["deprecated"] = json!(true);
    two["spec"]["versions"].as_array_mut().unwrap().push(old);
    establish(&cluster, &two).await;
    cluster
        .post(WIDGETS, &widget("a", json!({"size": "small"})))
        .await;
    let beta = "/apis/example.com/v1beta1/namespaces/default/widgets";
    let (code, headers, body) = cluster
        .raw(
            &cluster.client,
            "GET",
            &format!("{beta}/a"),
            &[],
            Vec::new(),
        )
        .await;
    let shown: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (code, &shown["apiVersion"]),
        (200, &json!("example.com/v1beta1"))
    );
    assert_eq!(
        headers["warning"],
        "299 - \"example.com/v1beta1 Widget is deprecated\""
    );
    let (_, groups) = cluster.get("/apis/example.com").await;
    assert_eq!(groups["preferredVersion"]["version"], "v1");

    // A default that comes later is there for objects that were stored before.
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let later = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/colour",
        "value": {"type": "string", "default": "grey"}}]);
    let (code, changed) = cluster.patch(&path, "json", &later).await;
    assert_eq!(code, 200, "{changed}");
    let (_, shown) = cluster.get(&format!("{WIDGETS}/a")).await;
    assert_eq!(shown["spec"]["colour"], "grey");
    let (_, shown) = cluster.get(&format!("{beta}/a")).await;
    assert_eq!(shown["spec"].get("colour"), None);
    // A version in which objects may be stored stays.
    let (code, refused) = cluster
        .patch(
            &path,
            "json",
            &json!([
                {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
                {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
                {"op": "remove", "path": "/spec/versions/0"},
            ]),
        )
        .await;
    assert_eq!(code, 422, "{refused}");
    assert!(
        text(&refused, "/message").contains("status.storedVersions[0]"),
        "{refused}"
    );
}

#[tokio::test]
async fn two_definitions_cannot_have_the_same_name() {
    let cluster = Cluster::start().await;
    establish(&cluster, &definition()).await;
    let mut other = definition();
    other["metadata"]["name"] = json!("gadgets.example.com");
    other["spec"]["names"] = json!({"plural": "gadgets", "kind": "Widget"});
    let mut watch = cluster.watch(&format!("{DEFINITIONS}?watch=1"), &[]).await;
    cluster.post(DEFINITIONS, &other).await;
    let conditions = loop {
        let event = watch.next().await.unwrap();
        let object = &event["object"];
        let conditions = object["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if object["metadata"]["name"] == "gadgets.example.com" && !conditions.is_empty() {
            break conditions;
        }
    };
    let told: Vec<String> = conditions
        .iter()
        .map(|c| {
            format!(
                "{}={} {}",
                text(c, "/type"),
                text(c, "/status"),
                text(c, "/reason")
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "NamesAccepted=False ListKindConflict",
            "Established=False NotAccepted"
        ]
    );
    let (code, _) = cluster
        .get("/apis/example.com/v1/namespaces/default/gadgets")
        .await;
    assert_eq!(code, 404);
    // The name is free when whoever had it is gone.
    cluster
        .delete(&format!("{DEFINITIONS}/widgets.example.com"), &Value::Null)
        .await;
    established(&cluster, "gadgets.example.com").await;
    let (code, _) = cluster
        .get("/apis/example.com/v1/namespaces/default/gadgets")
        .await;
    assert_eq!(code, 200);
}
