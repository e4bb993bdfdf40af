//! What becomes of Ingresses in each of their versions.

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::kinds;
use std::sync::Arc;

const VERSIONS: [(&str, &str); 3] = [
    ("networking.k8s.io", "v1"),
    ("networking.k8s.io", "v1beta1"),
    ("extensions", "v1beta1"),
];

fn kind(group: &str, version: &str) -> Arc<dyn Kind> {
    kinds::find(group, version, "ingresses").expect(group)
}

fn v1() -> Arc<dyn Kind> {
    kind("networking.k8s.io", "v1")
}

fn old() -> Arc<dyn Kind> {
    kind("extensions", "v1beta1")
}

fn object(kind: &dyn Kind, spec: Value) -> Value {
    let names = kind.names();
    json!({"apiVersion": format!("{}/{}", names.group, names.version), "kind": "Ingress",
        "metadata": {"name": "i", "namespace": "d"}, "spec": spec})
}

fn created(kind: &dyn Kind, spec: Value) -> Value {
    let mut object = kind.decode(object(kind, spec)).expect("an Ingress");
    kind.default(&mut object);
    kind.prepare_create(&mut object);
    object
}

fn wrong(kind: &dyn Kind, spec: Value) -> Vec<String> {
    let errors = kind.validate(&created(kind, spec));
    errors.iter().map(ToString::to_string).collect()
}

fn backend() -> Value {
    json!({"service": {"name": "w", "port": {"number": 80}}})
}

/// A rule of `v1` with one path.
fn rule(host: &str, path: Value) -> Value {
    let mut path = path;
    if path.get("backend").is_none() {
        path["backend"] = backend();
    }
    json!({"rules": [{"host": host, "http": {"paths": [path]}}]})
}

#[test]
fn an_old_backend_becomes_a_new_one_and_comes_back() {
    for (old_backend, new_backend) in [
        (
            json!({"serviceName": "w", "servicePort": 80}),
            json!({"service": {"name": "w", "port": {"number": 80}}}),
        ),
        (
            json!({"serviceName": "w", "servicePort": "http"}),
            json!({"service": {"name": "w", "port": {"name": "http"}}}),
        ),
        (
            json!({"resource": {"apiGroup": "x.io", "kind": "B", "name": "b"}, "servicePort": 0}),
            json!({"resource": {"apiGroup": "x.io", "kind": "B", "name": "b"}}),
        ),
    ] {
        let (old, new) = (old(), v1());
        let spec = json!({"backend": old_backend, "rules": [{"host": "a.b", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": old_backend}]}}]});
        let shown = created(&*old, spec);
        assert_eq!(old.validate(&shown), vec![]);
        let mut stored = shown.clone();
        old.make_stored(&mut stored);
        assert_eq!(stored["apiVersion"], "networking.k8s.io/v1");
        assert_eq!(stored["spec"]["defaultBackend"], new_backend);
        assert_eq!(stored["spec"].get("backend"), None);
        assert_eq!(
            stored["spec"]["rules"][0]["http"]["paths"][0]["backend"],
            new_backend
        );
        assert_eq!(new.decode(stored.clone()).expect("an Ingress"), stored);
        assert_eq!(new.validate(&stored), vec![]);
        old.show_stored(&mut stored);
        assert_eq!(stored, shown);
        assert_eq!(stored["spec"]["backend"], old_backend);
    }
}

#[test]
fn old_versions_give_paths_a_type() {
    for (group, version) in &VERSIONS[1..] {
        let kind = kind(group, version);
        let path = json!({"backend": {"serviceName": "w", "servicePort": 80}});
        let made = created(&*kind, json!({"rules": [{"http": {"paths": [path]}}]}));
        let path = &made["spec"]["rules"][0]["http"]["paths"][0];
        assert_eq!(path["pathType"], "ImplementationSpecific");
        assert_eq!(made["status"], json!({"loadBalancer": {}}));
        assert_eq!(made["metadata"]["generation"], 1);
        assert_eq!(kind.validate(&made), vec![]);
    }
    assert_eq!(
        wrong(&*v1(), rule("a.b", json!({"path": "/"}))),
        ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]
    );
}

#[test]
fn fields_of_another_version_are_unknown_and_not_taken() {
    let old = old();
    let sent = object(
        &*old,
        json!({"defaultBackend": backend(), "backend": {"service": {"name": "x"}, "serviceName": "w", "servicePort": 80}}),
    );
    assert_eq!(
        crate::schema::unknown_fields(&*old, &sent),
        [
            "unknown field \"spec.backend.service\"",
            "unknown field \"spec.defaultBackend\""
        ]
    );
    let read = old.decode(sent).expect("an Ingress");
    assert_eq!(
        read["spec"],
        json!({"backend": {"serviceName": "w", "servicePort": 80}})
    );
    let sent = object(&*v1(), json!({"backend": {"serviceName": "w"}}));
    assert_eq!(
        crate::schema::unknown_fields(&*v1(), &sent),
        ["unknown field \"spec.backend\""]
    );
}

#[test]
fn wrong_types_are_named_as_the_version_has_them() {
    let old = old();
    let sent = |spec| {
        old.decode(object(&*old, spec))
            .expect_err("refused")
            .message
    };
    assert_eq!(
        sent(json!({"backend": {"serviceName": 1}})),
        "json: cannot unmarshal number into Go struct field IngressBackend.spec.backend.serviceName of type string"
    );
    assert_eq!(
        sent(json!({"rules": "x"})),
        "json: cannot unmarshal string into Go struct field IngressSpec.spec.rules of type []v1beta1.IngressRule"
    );
}

#[test]
fn errors_name_the_fields_of_the_version_that_was_asked() {
    let new = |spec| wrong(&*v1(), spec);
    let old = |spec| wrong(&*old(), spec);
    assert_eq!(
        new(json!({})),
        ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
    );
    assert_eq!(
        old(json!({})),
        ["spec: Invalid value: null: either `backend` or `rules` must be specified"]
    );
    assert_eq!(
        new(json!({"defaultBackend": {"service": {"name": "w"}}})),
        ["spec.defaultBackend: Required value: port name or number is required"]
    );
    assert_eq!(
        old(json!({"backend": {"serviceName": "W", "servicePort": 70000}}))[1],
        "spec.backend.servicePort: Invalid value: 70000: must be between 1 and 65535, inclusive"
    );
    assert!(
        old(json!({"backend": {"serviceName": "W", "servicePort": 80}}))[0].starts_with(
            "spec.backend.serviceName: Invalid value: \"W\": a lowercase RFC 1123 label"
        )
    );
    assert_eq!(
        old(json!({"backend": {"servicePort": "http"}})),
        ["spec.backend.serviceName: Required value"]
    );
    assert_eq!(
        old(json!({"backend": {}})),
        ["spec.backend: Invalid value: \"\": resource or service backend is required"]
    );
}

#[test]
fn hosts_are_names_or_wildcards_but_no_addresses() {
    let host = |name: &str| {
        wrong(
            &*v1(),
            rule(name, json!({"path": "/", "pathType": "Exact"})),
        )
    };
    for good in ["", "a.b", "*.a.b", "x"] {
        assert_eq!(host(good), [""; 0], "{good}");
    }
    for bad in ["*", "a.*.b", "*.*.b", "*b.c", "A.b", "a_b"] {
        let errors = host(bad);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("spec.rules[0].host: Invalid value"));
    }
    assert_eq!(
        host("1.2.3.4"),
        ["spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"]
    );
}

#[test]
fn paths_are_absolute_and_lead_nowhere_else() {
    let path = |kind: &str, path: &str| {
        wrong(&*v1(), rule("a.b", json!({"path": path, "pathType": kind})))
    };
    let at = "spec.rules[0].http.paths[0].path: Invalid value:";
    assert_eq!(path("ImplementationSpecific", ""), [""; 0]);
    assert_eq!(path("ImplementationSpecific", "/a/../b"), [""; 0]);
    assert_eq!(
        path("Prefix", ""),
        [format!("{at} \"\": must be an absolute path")]
    );
    assert_eq!(
        path("Exact", "/a//b/.."),
        [
            format!("{at} \"/a//b/..\": must not contain '//'"),
            format!("{at} \"/a//b/..\": cannot end with '/..'"),
        ]
    );
    assert_eq!(
        path("Prefix", "/a%2Fb"),
        [format!("{at} \"/a%2Fb\": must not contain '%2F'")]
    );
    assert_eq!(
        wrong(&*v1(), json!({"rules": [{"http": {"paths": []}}]})),
        ["spec.rules[0].http.paths: Required value"]
    );
}

#[test]
fn a_backend_is_a_service_or_an_object_and_not_both() {
    let with = |backend: Value| wrong(&*v1(), json!({ "defaultBackend": backend }));
    let at = "spec.defaultBackend";
    let mut both = backend();
    both["resource"] = json!({"kind": "B", "name": "b"});
    assert_eq!(
        with(both),
        [format!(
            "{at}: Invalid value: \"\": cannot set both resource and service backends"
        )]
    );
    assert_eq!(
        with(json!({"service": {"name": "w", "port": {"name": "http", "number": 80}}})),
        [format!(
            "{at}: Invalid value: \"\": cannot set both port name & port number"
        )]
    );
    assert_eq!(
        with(json!({"resource": {"apiGroup": "X", "kind": "", "name": "a/b"}}))[1..],
        [
            format!("{at}.resource.kind: Required value: kind is required"),
            format!("{at}.resource.name: Invalid value: \"a/b\": may not contain '/'"),
        ]
    );
}

#[test]
fn only_old_versions_take_any_secret_name_and_any_rule_of_a_wildcard_host() {
    let spec = |path: Value| {
        json!({"rules": [{"host": "*.b.c", "http": {"paths": [path]}}],
            "tls": [{"hosts": ["*.b.c"], "secretName": "No_Name"}]})
    };
    let bad = json!({"path": "x", "pathType": "ImplementationSpecific"});
    assert_eq!(wrong(&*old(), spec(bad.clone())), [""; 0]);
    let errors = wrong(&*v1(), spec(bad));
    let fields: Vec<_> = errors.iter().map(|e| e.split(": ").next()).collect();
    assert_eq!(
        fields,
        [
            Some("spec.rules[0].http.paths[0].path"),
            Some("spec.rules[0].http.paths[0].backend"),
            Some("spec.tls[0].secretName"),
        ]
    );
    // What is stored already may stay when it is changed with the newest version.
    let kind = v1();
    let stored = created(&*kind, spec(json!({"path": "x", "pathType": "Exact"})));
    let mut changed = stored.clone();
    changed["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(kind.validate_changed(&changed, &stored), vec![]);
    assert_ne!(kind.validate(&changed), vec![]);
}

#[test]
fn the_class_in_the_annotation_is_the_one_in_the_spec() {
    let kind = v1();
    let mut object = created(
        &*kind,
        json!({"defaultBackend": backend(), "ingressClassName": "a"}),
    );
    object["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "a"});
    assert_eq!(kind.validate(&object), vec![]);
    object["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "b"});
    let errors = kind.validate(&object);
    assert_eq!(
        errors[0].to_string(),
        "annotations.kubernetes.io/ingress.class: Invalid value: \"b\": must match `ingressClassName` when both are specified"
    );
    // Only creation looks at it.
    assert_eq!(kind.validate_changed(&object, &object), vec![]);
    let mut annotated = object.clone();
    annotated["spec"]
        .as_object_mut()
        .expect("a spec")
        .remove("ingressClassName");
    assert_eq!(
        kind.warnings(&annotated, None),
        [
            "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"
        ]
    );
    assert_eq!(kind.warnings(&object, None), [""; 0]);
    assert_eq!(kind.warnings(&annotated, Some(&annotated)), [""; 0]);
}

#[test]
fn a_status_has_addresses_and_names_that_can_be() {
    for (group, version) in VERSIONS {
        let kind = kind(group, version);
        let old = object(&*kind, json!({}));
        let mut new = old.clone();
        new["status"] = json!({"loadBalancer": {"ingress": [
            {"ip": "10.0.0.300"}, {"hostname": "10.0.0.1"}, {"hostname": "a.b"}, {"ip": "fd00::1"}]}});
        let errors = kind.validate_status(&new, &old);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "status.loadBalancer.ingress[0].ip: Invalid value: \"10.0.0.300\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "status.loadBalancer.ingress[1].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ]
        );
    }
}

#[test]
fn only_a_changed_spec_raises_the_generation() {
    for (group, version) in VERSIONS {
        let kind = kind(group, version);
        let stored = created(&*kind, json!({"ingressClassName": "a"}));
        let mut same = stored.clone();
        same["metadata"]["labels"] = json!({"a": "b"});
        same["status"] = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}});
        kind.prepare_update(&mut same, &stored);
        assert_eq!(same["metadata"]["generation"], 1);
        assert_eq!(same["status"], json!({"loadBalancer": {}}));
        let mut other = stored.clone();
        other["spec"]["ingressClassName"] = json!("b");
        kind.prepare_update(&mut other, &stored);
        assert_eq!(other["metadata"]["generation"], 2);
    }
}

#[test]
fn a_row_is_the_same_in_every_version() {
    let rules = |hosts: &[&str]| -> Value { hosts.iter().map(|h| json!({ "host": h })).collect() };
    for (group, version) in VERSIONS {
        let kind = kind(group, version);
        let row = |spec: Value, ingress: Value| {
            let mut object = object(&*kind, spec);
            object["status"] = json!({"loadBalancer": {"ingress": ingress}});
            Value::Array(kind.cells(&object, 0)[..5].to_vec())
        };
        assert_eq!(
            row(
                json!({"rules": rules(&["a", "b", "c"])}),
                json!([{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}])
            ),
            json!(["i", "<none>", "a,b,c", "10.0.0.1,10.0.0.2", "80"])
        );
        assert_eq!(
            row(
                json!({"ingressClassName": "x", "rules": rules(&["a", "b", "c", "d", "e"]), "tls": [{}]}),
                json!([{"hostname": "h"}])
            ),
            json!(["i", "x", "a,b,c + 2 more...", "h", "80, 443"])
        );
        assert_eq!(row(json!({}), json!([]))[2], "*");
    }
}

#[test]
fn the_schemas_of_old_versions_have_the_old_fields() {
    for (group, version) in &VERSIONS[1..] {
        let kind = kind(group, version);
        let definitions = crate::schema::definitions(&*kind);
        let package = kind.schema_name().replace(".Ingress", "");
        let properties = |name: &str| -> Vec<String> {
            let schema = &definitions.schemas()[&format!("{package}.{name}")];
            let fields = schema["properties"].as_object().expect(name);
            fields.keys().cloned().collect()
        };
        assert_eq!(
            properties("IngressSpec"),
            ["backend", "ingressClassName", "rules", "tls"]
        );
        assert_eq!(
            properties("IngressBackend"),
            ["resource", "serviceName", "servicePort"]
        );
        assert!(
            !definitions
                .schemas()
                .keys()
                .any(|n| n.starts_with("io.k8s.api.networking.v1."))
        );
    }
}
