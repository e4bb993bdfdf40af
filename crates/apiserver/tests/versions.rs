//! Kinds that are served in several groups and versions over one stored form, over real HTTPS.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Cluster, text};
use http::header::WARNING;
use serde_json::{Value, json};

const V1: &str = "/apis/networking.k8s.io/v1";
const BETA: &str = "/apis/networking.k8s.io/v1beta1";
const EXTENSIONS: &str = "/apis/extensions/v1beta1";

fn ingresses(version: &str) -> String {
    format!("{version}/namespaces/default/ingresses")
}

fn old_ingress(version: &str, name: &str) -> Value {
    json!({"apiVersion": version.trim_start_matches("/apis/"), "kind": "Ingress", "metadata": {"name": name},
        "spec": {"rules": [{"host": "a.b", "http": {"paths": [
            {"path": "/", "backend": {"serviceName": "w", "servicePort": "http"}}]}}]}})
}

fn path_of(object: &Value) -> &Value {
    &object["spec"]["rules"][0]["http"]["paths"][0]
}

/// The warnings of an answer.
async fn warnings(cluster: &Cluster, method: &str, path: &str, body: &Value) -> (u16, Vec<String>) {
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let (code, headers, _) = cluster.raw(&cluster.client, method, path, &[], body).await;
    let warnings = headers.get_all(WARNING).iter();
    let texts = warnings.map(|value| value.to_str().unwrap().to_owned());
    (code, texts.collect())
}

#[tokio::test]
async fn an_object_is_read_listed_and_watched_in_every_version() {
    let cluster = Cluster::start().await;
    let (code, made) = cluster
        .post(&ingresses(EXTENSIONS), &old_ingress(EXTENSIONS, "i"))
        .await;
    assert_eq!(code, 201, "{made}");
    let old = json!({"path": "/", "pathType": "ImplementationSpecific",
        "backend": {"serviceName": "w", "servicePort": "http"}});
    let new = json!({"path": "/", "pathType": "ImplementationSpecific",
        "backend": {"service": {"name": "w", "port": {"name": "http"}}}});
    for (version, api_version, path) in [
        (V1, "networking.k8s.io/v1", &new),
        (BETA, "networking.k8s.io/v1beta1", &old),
        (EXTENSIONS, "extensions/v1beta1", &old),
    ] {
        let (_, got) = cluster.get(&format!("{}/i", ingresses(version))).await;
        assert_eq!(text(&got, "/apiVersion"), api_version);
        assert_eq!(path_of(&got), path);
        assert_eq!(got["metadata"], made["metadata"]);
        let (_, list) = cluster.get(&ingresses(version)).await;
        assert_eq!(text(&list, "/kind"), "IngressList");
        assert_eq!(text(&list, "/apiVersion"), api_version);
        assert_eq!(path_of(&list["items"][0]), path);
        assert_eq!(list["items"][0].get("kind"), None);
        let mut watch = cluster
            .watch(&format!("{}?watch=1", ingresses(version)), &[])
            .await;
        let event = watch.next().await.unwrap();
        assert_eq!(text(&event, "/object/apiVersion"), api_version);
        assert_eq!(path_of(&event["object"]), path);
    }
    // Everywhere at once, and as a table with the objects in it.
    let table = [("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let (_, rows) = cluster
        .call(
            "GET",
            &format!("{EXTENSIONS}/ingresses?includeObject=Object"),
            &table,
            &Value::Null,
        )
        .await;
    assert_eq!(rows["rows"][0]["cells"][2], "a.b");
    assert_eq!(path_of(&rows["rows"][0]["object"]), &old);
}

#[tokio::test]
async fn an_object_is_changed_in_any_version() {
    let cluster = Cluster::start().await;
    let (_, made) = cluster
        .post(&ingresses(EXTENSIONS), &old_ingress(EXTENSIONS, "i"))
        .await;
    let at = |version: &str| format!("{}/i", ingresses(version));
    // A patch is of the version that is asked.
    let patch = json!([{"op": "replace", "path": "/spec/rules/0/http/paths/0/backend/servicePort", "value": 8080}]);
    let (code, patched) = cluster.patch(&at(BETA), "json", &patch).await;
    assert_eq!(code, 200, "{patched}");
    assert_eq!(path_of(&patched)["backend"]["servicePort"], 8080);
    let (_, now) = cluster.get(&at(V1)).await;
    assert_eq!(
        path_of(&now)["backend"]["service"]["port"],
        json!({"number": 8080})
    );
    assert_eq!(now["metadata"]["generation"], 2);
    for kind in ["merge", "strategic-merge"] {
        let patch = json!({"spec": {"backend": {"serviceName": kind, "servicePort": 80}}});
        let (code, patched) = cluster.patch(&at(EXTENSIONS), kind, &patch).await;
        assert_eq!(code, 200, "{patched}");
        let (_, now) = cluster.get(&at(V1)).await;
        assert_eq!(text(&now, "/spec/defaultBackend/service/name"), kind);
    }
    // What is written back unchanged is no change, whatever the version.
    for version in [V1, BETA, EXTENSIONS] {
        let (_, now) = cluster.get(&at(version)).await;
        let (code, same) = cluster.put(&at(version), &now).await;
        assert_eq!((code, &same), (200, &now));
    }
    let mut stale = made;
    stale["spec"]["backend"] = json!({"serviceName": "x", "servicePort": 1});
    let (code, conflict) = cluster.put(&at(EXTENSIONS), &stale).await;
    assert_eq!(
        (code, text(&conflict, "/message")),
        (409, "Operation cannot be fulfilled on ingresses.networking.k8s.io \"i\": the object has been modified; please apply your changes to the latest version and try again".into())
    );
    // The status, in the oldest version.
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}});
    let (code, _) = cluster
        .patch(&format!("{}/status", at(EXTENSIONS)), "merge", &status)
        .await;
    assert_eq!(code, 200);
    let (_, now) = cluster.get(&at(V1)).await;
    assert_eq!(text(&now, "/status/loadBalancer/ingress/0/ip"), "10.0.0.1");
    let (code, gone) = cluster.delete(&at(EXTENSIONS), &Value::Null).await;
    assert_eq!((code, text(&gone, "/status")), (200, "Success".into()));
    assert_eq!(text(&gone, "/details/group"), "networking.k8s.io");
    assert_eq!(cluster.get(&at(V1)).await.0, 404);
}

#[tokio::test]
async fn a_watch_goes_on_in_its_version() {
    let cluster = Cluster::start().await;
    let mut watch = cluster
        .watch(&format!("{}?watch=1", ingresses(EXTENSIONS)), &[])
        .await;
    let new = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "n"},
        "spec": {"defaultBackend": {"service": {"name": "w", "port": {"number": 80}}}}});
    assert_eq!(cluster.post(&ingresses(V1), &new).await.0, 201);
    let event = watch.next().await.unwrap();
    assert_eq!(text(&event, "/type"), "ADDED");
    assert_eq!(
        event["object"]["spec"]["backend"],
        json!({"serviceName": "w", "servicePort": 80})
    );
    cluster
        .delete(&format!("{}/n", ingresses(BETA)), &Value::Null)
        .await;
    let event = watch.next().await.unwrap();
    assert_eq!(text(&event, "/type"), "DELETED");
    assert_eq!(text(&event, "/object/apiVersion"), "extensions/v1beta1");
}

#[tokio::test]
async fn refusals_are_about_the_stored_kind_and_the_fields_of_the_version() {
    let cluster = Cluster::start().await;
    let mut wrong = old_ingress(EXTENSIONS, "i");
    wrong["spec"]["backend"] = json!({"serviceName": "w", "servicePort": 70000});
    let (code, refused) = cluster.post(&ingresses(EXTENSIONS), &wrong).await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (422, "Ingress.networking.k8s.io \"i\" is invalid: spec.backend.servicePort: Invalid value: 70000: must be between 1 and 65535, inclusive".into())
    );
    let (_, missing) = cluster
        .get(&format!("{}/none", ingresses(EXTENSIONS)))
        .await;
    assert_eq!(
        text(&missing, "/message"),
        "ingresses.networking.k8s.io \"none\" not found"
    );
    cluster
        .post(&ingresses(BETA), &old_ingress(BETA, "i"))
        .await;
    let (code, taken) = cluster
        .post(&ingresses(EXTENSIONS), &old_ingress(EXTENSIONS, "i"))
        .await;
    assert_eq!(
        (code, text(&taken, "/message")),
        (
            409,
            "ingresses.networking.k8s.io \"i\" already exists".into()
        )
    );
    // An object of one version is not one of another.
    let (code, other) = cluster
        .post(&ingresses(V1), &old_ingress(EXTENSIONS, "x"))
        .await;
    assert_eq!(
        (code, text(&other, "/message")),
        (400, "the API version in the data (extensions/v1beta1) does not match the expected API version (networking.k8s.io/v1)".into())
    );
    // Fields of another version are unknown.
    let mut mixed = old_ingress(BETA, "y");
    mixed["spec"]["defaultBackend"] = json!({"service": {"name": "w"}});
    let (code, strict) = cluster
        .post(
            &format!("{}?fieldValidation=Strict", ingresses(BETA)),
            &mixed,
        )
        .await;
    assert_eq!(
        (code, text(&strict, "/message")),
        (400, "Ingress in version \"v1beta1\" cannot be handled as a Ingress: strict decoding error: unknown field \"spec.defaultBackend\"".into())
    );
}

#[tokio::test]
async fn who_uses_a_deprecated_version_is_warned_whatever_the_answer() {
    let cluster = Cluster::start().await;
    let old = "299 - \"extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress\"";
    let beta = "299 - \"networking.k8s.io/v1beta1 Ingress is deprecated in v1.19+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress\"";
    let endpoints =
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    let body = old_ingress(EXTENSIONS, "i");
    for (method, path, body, code, warning) in [
        ("POST", ingresses(EXTENSIONS), &body, 201, old),
        ("POST", ingresses(EXTENSIONS), &body, 409, old),
        ("GET", ingresses(BETA), &Value::Null, 200, beta),
        (
            "GET",
            format!("{}/none", ingresses(BETA)),
            &Value::Null,
            404,
            beta,
        ),
        (
            "GET",
            format!("{}/i/status", ingresses(BETA)),
            &Value::Null,
            200,
            beta,
        ),
        (
            "GET",
            "/api/v1/endpoints".to_owned(),
            &Value::Null,
            200,
            endpoints,
        ),
        (
            "DELETE",
            format!("{}/i", ingresses(EXTENSIONS)),
            &Value::Null,
            200,
            old,
        ),
    ] {
        let told = warnings(&cluster, method, &path, body).await;
        assert_eq!(told, (code, vec![warning.to_owned()]), "{method} {path}");
    }
    let none = warnings(&cluster, "GET", &ingresses(V1), &Value::Null).await;
    assert_eq!(none, (200, vec![]));
    // What is wrong with the object comes after what is wrong with the version.
    let mut more = old_ingress(EXTENSIONS, "j");
    more["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "x"});
    more["spec"]["flavour"] = json!(1);
    let (_, told) = warnings(&cluster, "POST", &ingresses(EXTENSIONS), &more).await;
    assert_eq!(
        told,
        [
            old.to_owned(),
            "299 - \"unknown field \\\"spec.flavour\\\"\"".to_owned(),
            "299 - \"annotation \\\"kubernetes.io/ingress.class\\\" is deprecated, please use 'spec.ingressClassName' instead\"".to_owned(),
        ]
    );
}

#[tokio::test]
async fn discovery_prefers_the_stable_group_and_version() {
    let cluster = Cluster::start().await;
    let (_, groups) = cluster.get("/apis").await;
    let named = groups["groups"].as_array().unwrap().iter();
    let names: Vec<String> = named.map(|g| text(g, "/name")).collect();
    let place = |name: &str| names.iter().position(|n| n == name).unwrap();
    assert!(place("apps") < place("events.k8s.io"));
    assert!(place("events.k8s.io") < place("networking.k8s.io"));
    assert!(place("networking.k8s.io") < place("extensions"));
    let (_, group) = cluster.get("/apis/networking.k8s.io").await;
    assert_eq!(
        text(&group, "/preferredVersion/groupVersion"),
        "networking.k8s.io/v1"
    );
    assert_eq!(text(&group, "/versions/1/version"), "v1beta1");
    // The same objects have the same hash, which is that of Kubernetes.
    for (version, count) in [(V1, 2), (BETA, 2), (EXTENSIONS, 2)] {
        let (_, list) = cluster.get(version).await;
        let resources = list["resources"].as_array().unwrap();
        let of = |r: &&Value| text(r, "/name").starts_with("ingresses");
        let found: Vec<&Value> = resources.iter().filter(of).collect();
        assert_eq!(found.len(), count, "{version}");
        assert_eq!(text(found[0], "/storageVersionHash"), "39NQlfNR+bo=");
        assert_eq!(text(found[0], "/shortNames/0"), "ing");
        assert_eq!(text(found[1], "/name"), "ingresses/status");
    }
    let aggregated = [(
        "Accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    )];
    let (_, all) = cluster
        .call("GET", "/apis", &aggregated, &Value::Null)
        .await;
    let items = all["items"].as_array().unwrap().iter();
    let order: Vec<String> = items.map(|g| text(g, "/metadata/name")).collect();
    assert_eq!(order, names);
}

#[tokio::test]
async fn openapi_has_every_version() {
    let cluster = Cluster::start().await;
    for (version, schema, field) in [
        (V1, "io.k8s.api.networking.v1.IngressSpec", "defaultBackend"),
        (BETA, "io.k8s.api.networking.v1beta1.IngressSpec", "backend"),
        (
            EXTENSIONS,
            "io.k8s.api.extensions.v1beta1.IngressSpec",
            "backend",
        ),
    ] {
        let (code, document) = cluster.get(&format!("/openapi/v3{version}")).await;
        assert_eq!(code, 200);
        let fields = &document["components"]["schemas"][schema]["properties"];
        assert!(fields.get(field).is_some(), "{schema}: {fields}");
        let path = format!("{version}/namespaces/{{namespace}}/ingresses/{{name}}/status");
        assert!(document["paths"].get(&path).is_some(), "{path}");
    }
    let (_, swagger) = cluster.get("/openapi/v2").await;
    for schema in [
        "io.k8s.api.networking.v1.Ingress",
        "io.k8s.api.networking.v1beta1.Ingress",
        "io.k8s.api.extensions.v1beta1.Ingress",
        "io.k8s.api.events.v1.Event",
    ] {
        assert!(swagger["definitions"].get(schema).is_some(), "{schema}");
    }
}

#[tokio::test]
async fn an_event_is_the_same_in_both_groups() {
    let cluster = Cluster::start().await;
    let events = |version: &str| format!("{version}/namespaces/default/events");
    let (core, new) = (events("/api/v1"), events("/apis/events.k8s.io/v1"));
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e.1"},
        "eventTime": "2026-01-01T00:00:00.000001Z", "reportingController": "example.com/c", "reportingInstance": "i",
        "action": "Binding", "reason": "Scheduled", "type": "Normal", "note": "hello",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let (code, made) = cluster.post(&new, &event).await;
    assert_eq!(code, 201, "{made}");
    let (_, old) = cluster.get(&format!("{core}/e.1")).await;
    assert_eq!(text(&old, "/message"), "hello");
    assert_eq!(text(&old, "/involvedObject/name"), "p");
    assert_eq!(text(&old, "/reportingComponent"), "example.com/c");
    for (path, selector, found) in [
        (&new, "regarding.name=p", 1),
        (&new, "reportingController=example.com/c,type=Normal", 1),
        (&new, "regarding.name=q", 0),
        (&core, "involvedObject.name=p,reason=Scheduled", 1),
    ] {
        let (code, list) = cluster
            .get(&format!("{path}?fieldSelector={selector}"))
            .await;
        assert_eq!(code, 200, "{list}");
        assert_eq!(list["items"].as_array().unwrap().len(), found, "{selector}");
    }
    let (code, _) = cluster
        .get(&format!("{new}?fieldSelector=involvedObject.name=p"))
        .await;
    assert_eq!(code, 400);
    // How client-go's recorder tells of a repetition, and what nobody may change.
    let at = format!("{new}/e.1");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:05.000000Z"}});
    let (code, patched) = cluster.patch(&at, "strategic-merge", &series).await;
    assert_eq!(code, 200, "{patched}");
    let (code, refused) = cluster.patch(&at, "merge", &json!({"note": "other"})).await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (
            422,
            "Event \"e.1\" is invalid: message: Invalid value: \"other\": field is immutable"
                .into()
        )
    );
    let mut bare = event.clone();
    bare["metadata"]["name"] = json!("e.2");
    bare.as_object_mut().unwrap().remove("action");
    let (code, refused) = cluster.post(&new, &bare).await;
    assert_eq!(
        (code, text(&refused, "/message")),
        (
            422,
            "Event \"e.2\" is invalid: action: Required value".into()
        )
    );
}

#[tokio::test]
async fn an_ingress_without_a_class_gets_the_newest_default_one() {
    let cluster = Cluster::start().await;
    let class = |name: &str, default: bool| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name,
            "annotations": {"ingressclass.kubernetes.io/is-default-class": default.to_string()}},
            "spec": {"controller": "example.com/c"}})
    };
    let classes = format!("{V1}/ingressclasses");
    assert_eq!(cluster.post(&classes, &class("b", true)).await.0, 201);
    assert_eq!(cluster.post(&classes, &class("a", false)).await.0, 201);
    // The classes are learned from the store, too.
    let cluster = cluster.restart().await;
    let made = |object: Value, version: &'static str| {
        let cluster = &cluster;
        async move {
            let (code, made) = cluster.post(&ingresses(version), &object).await;
            assert_eq!(code, 201, "{made}");
            made["spec"]["ingressClassName"].clone()
        }
    };
    assert_eq!(made(old_ingress(EXTENSIONS, "i"), EXTENSIONS).await, "b");
    let mut named = old_ingress(BETA, "named");
    named["spec"]["ingressClassName"] = json!("mine");
    assert_eq!(made(named, BETA).await, "mine");
    let mut annotated = old_ingress(BETA, "annotated");
    annotated["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "x"});
    assert_eq!(made(annotated, BETA).await, Value::Null);
    cluster.delete(&format!("{classes}/b"), &Value::Null).await;
    assert_eq!(made(old_ingress(BETA, "none"), BETA).await, Value::Null);
}
