//! Definitions that are taken, completed and refused.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::kinds;

fn kind() -> Arc<dyn Kind> {
    kinds::find("apiextensions.k8s.io", "v1", "customresourcedefinitions").expect("the kind")
}

fn widgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "size": {"type": "integer", "minimum": 0, "default": 1}, "note": {"type": "string", "default": ""}}}}}}}]},
    })
}

fn made(object: Value) -> Value {
    let kind = kind();
    let mut object = kind.decode(object).expect("a definition");
    kind.default(&mut object);
    kind.prepare_create(&mut object);
    object
}

fn errors(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut object = widgets();
    change(&mut object);
    let kind = kind();
    let errors = kind.validate_created(&made(object));
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_definition_gets_its_defaults_and_keeps_what_is_empty_in_schemas() {
    let object = made(widgets());
    assert_eq!(object["spec"]["names"]["singular"], "widget");
    assert_eq!(object["spec"]["names"]["listKind"], "WidgetList");
    assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(
        object["status"],
        json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": null, "storedVersions": ["v1"]})
    );
    let version = &object["spec"]["versions"][0];
    assert_eq!(version["subresources"], json!({"status": {}}));
    let fields = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    assert_eq!(
        fields["size"].to_string(),
        r#"{"default":1,"minimum":0,"type":"integer"}"#
    );
    assert_eq!(fields["note"]["default"], "");
    assert_eq!(kind().validate_created(&object), []);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    type Change = fn(&mut Value);
    let cases: &[(Change, &str)] = &[
        (
            |o| o["metadata"]["name"] = json!("w.example.com"),
            r#"metadata.name: Invalid value: "w.example.com": must be spec.names.plural+"."+spec.group"#,
        ),
        (
            |o| {
                o["spec"]["group"] = json!("example");
                o["metadata"]["name"] = json!("widgets.example");
            },
            r#"spec.group: Invalid value: "example": should be a domain with at least one dot"#,
        ),
        (
            |o| o["spec"]["scope"] = json!("Universe"),
            r#"spec.scope: Unsupported value: "Universe": supported values: "Cluster", "Namespaced""#,
        ),
        (
            |o| o["spec"]["versions"][0]["schema"] = Value::Null,
            "spec.versions[0].schema.openAPIV3Schema: Required value",
        ),
        (
            |o| o["spec"]["names"]["shortNames"] = json!(["UPPER"]),
            "spec.names.shortNames[0]: Invalid value: \"UPPER\": a DNS-1035 label must",
        ),
        (
            |o| o["spec"]["names"]["listKind"] = json!("Widget"),
            r#"spec.names.listKind: Invalid value: "Widget": kind and listKind may not be the same"#,
        ),
        (
            |o| {
                o["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
                    ["size"]["type"] = Value::Null
            },
            "spec.validation.openAPIV3Schema.properties[spec].properties[size].type: Required value: must not be empty for specified object fields",
        ),
        (
            |o| {
                o["spec"]["versions"][0]["additionalPrinterColumns"] =
                    json!([{"name": "A", "type": "any", "jsonPath": ".a"}])
            },
            r#"spec.additionalPrinterColumns[0].type: Invalid value: "any": must be one of boolean,date,integer,number,string"#,
        ),
        (
            |o| o["spec"]["versions"][0]["subresources"]["scale"] = json!({"specReplicasPath": ".foo.replicas", "statusReplicasPath": ".status.replicas"}),
            r#"spec.subresources.scale.specReplicasPath: Invalid value: ".foo.replicas": should be a json path under .spec"#,
        ),
        (
            |o| {
                o["spec"]["versions"][0]["selectableFields"] =
                    json!([{"jsonPath": ".spec.nothing"}])
            },
            r#"spec.selectableFields[0].jsonPath: Invalid value: ".spec.nothing": is an invalid path: does not refer to a valid field: nothing"#,
        ),
        (
            |o| o["spec"]["preserveUnknownFields"] = json!(true),
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ),
        (
            |o| {
                o["spec"]["group"] = json!("widgets.k8s.io");
                o["metadata"]["name"] = json!("widgets.widgets.k8s.io");
            },
            r#"metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation "api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111"#,
        ),
        (
            |o| o["spec"]["versions"][0]["deprecationWarning"] = json!("old"),
            r#"spec.versions[0].deprecationWarning: Invalid value: "old": can only be set for deprecated versions"#,
        ),
        (
            |o| o["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://x"}}}),
            "spec.conversion.strategy: Forbidden: conversion webhooks are not called by this server",
        ),
    ];
    for (change, expected) in cases {
        let found = errors(change);
        assert_eq!(found.len(), 1, "{expected}: {found:?}");
        assert!(found[0].starts_with(expected), "{found:?}\n{expected}");
    }
}

#[test]
fn there_is_one_version_to_store_in_and_names_are_unique() {
    let found = errors(|o| o["spec"]["versions"][0]["storage"] = json!(false));
    assert!(
        found
            .iter()
            .any(|e| e.ends_with("must have exactly one version marked as storage version")),
        "{found:?}"
    );
    let found = errors(|o| {
        let mut second = o["spec"]["versions"][0].clone();
        second["storage"] = json!(false);
        o["spec"]["versions"]
            .as_array_mut()
            .expect("a list")
            .push(second);
    });
    assert!(
        found[0].ends_with("must contain unique version names"),
        "{found:?}"
    );
}

#[test]
fn what_decides_how_objects_are_stored_does_not_change() {
    let kind = kind();
    let mut old = made(widgets());
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let mut new = old.clone();
    new["spec"]["scope"] = json!("Cluster");
    new["spec"]["names"]["kind"] = json!("Gadget");
    let found: Vec<String> = kind
        .validate_update(&new, &old)
        .iter()
        .map(|e| e.field.clone())
        .collect();
    assert_eq!(found, ["spec.scope", "spec.names.kind"]);
    let mut new = old.clone();
    new["spec"]["versions"][0]["name"] = json!("v2");
    kind.prepare_update(&mut new, &old);
    assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
    let found: Vec<String> = kind
        .validate_changed(&new, &old)
        .iter()
        .map(|e| e.field.clone())
        .collect();
    assert_eq!(found, ["status.storedVersions[0]"]);
}
