//! Services through the eyes of the API: defaults, refusals, changes, rows.

use crate::kind::Kind;
use crate::kinds;
use serde_json::{Value, json};
use std::sync::Arc;

fn services() -> Arc<dyn Kind> {
    kinds::find("", "v1", "services").expect("services")
}

fn created(spec: Value) -> Value {
    let object = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "a", "namespace": "default"}, "spec": spec});
    let mut object = services().decode(object).expect("decodes");
    services().default(&mut object);
    services().prepare_create(&mut object);
    object
}

fn errors(spec: Value) -> Vec<String> {
    let found = services().validate(&created(spec));
    found.iter().map(ToString::to_string).collect()
}

fn updated(old: &Value, patch: &Value) -> Value {
    let mut new = crate::patch::merge(old, patch).expect("an object");
    services().default(&mut new);
    services().prepare_update(&mut new, old);
    new
}

#[test]
fn the_defaults_depend_on_the_type() {
    let spec = created(json!({"ports": [{"port": 80}], "selector": {"app": "a"}}))["spec"].clone();
    assert_eq!(
        spec,
        json!({"internalTrafficPolicy": "Cluster", "selector": {"app": "a"}, "sessionAffinity": "None",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "type": "ClusterIP"})
    );
    let external = created(json!({"type": "ExternalName", "externalName": "a.example.com"}));
    assert_eq!(
        external["spec"],
        json!({"externalName": "a.example.com", "sessionAffinity": "None", "type": "ExternalName"})
    );
    let balancer = created(
        json!({"type": "LoadBalancer", "ports": [{"port": 80}], "sessionAffinity": "ClientIP"}),
    );
    assert_eq!(balancer["spec"]["allocateLoadBalancerNodePorts"], true);
    assert_eq!(balancer["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(
        balancer["spec"]["sessionAffinityConfig"],
        json!({"clientIP": {"timeoutSeconds": 10800}})
    );
    assert_eq!(balancer["status"], json!({"loadBalancer": {}}));
}

#[test]
fn each_refusal_names_its_field_and_reason() {
    let port = || json!([{"port": 80}]);
    for (spec, message) in [
        (json!({}), "spec.ports: Required value"),
        (
            json!({"ports": [{"port": 80, "protocol": "ICMP"}]}),
            "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            json!({"ports": [{"name": "x", "port": 80}, {"name": "y", "port": 80}]}),
            "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
        ),
        (
            json!({"ports": port(), "type": "Balancer"}),
            "spec.type: Unsupported value: \"Balancer\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        (
            json!({"type": "ExternalName"}),
            "spec.externalName: Required value",
        ),
        (
            json!({"ports": port(), "clusterIP": "10.96.0"}),
            "spec.clusterIPs[0]: Invalid value: \"10.96.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            json!({"ports": port(), "externalTrafficPolicy": "Local"}),
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            json!({"ports": port(), "clusterIP": "None", "type": "NodePort"}),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        (
            json!({"ports": port(), "clusterIPs": ["10.96.0.9"]}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: must be empty when `clusterIP` is not specified",
        ),
    ] {
        assert_eq!(errors(spec.clone()), [message], "{spec}");
    }
    assert_eq!(
        errors(json!({"clusterIP": "None"})),
        [""; 0],
        "headless needs no port"
    );
    let zero = errors(json!({"ports": [{"port": 0}]}));
    assert_eq!(zero.len(), 2, "port and target port: {zero:?}");
}

#[test]
fn an_update_that_leaves_out_what_was_given_out_keeps_it() {
    let mut old = created(json!({"type": "NodePort", "ports": [{"port": 80}]}));
    old["spec"]["clusterIP"] = json!("10.96.0.7");
    old["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
    old["spec"]["ports"][0]["nodePort"] = json!(30001);
    let mut new =
        created(json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "name": "b"}]}));
    services().prepare_update(&mut new, &old);
    assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.7"]));
    assert_eq!(new["spec"]["clusterIP"], "10.96.0.7");
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
    assert_eq!(new["spec"]["ports"][1].get("nodePort"), None);
}

#[test]
fn another_type_drops_what_only_the_old_one_had() {
    let mut old = created(
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
    );
    old["spec"]["clusterIP"] = json!("10.96.0.7");
    old["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
    old["spec"]["ports"][0]["nodePort"] = json!(30001);
    old["spec"]["healthCheckNodePort"] = json!(30002);
    let plain = updated(&old, &json!({"spec": {"type": "ClusterIP"}}));
    assert_eq!(
        plain["spec"],
        json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "sessionAffinity": "None", "type": "ClusterIP"})
    );
    let external = updated(
        &old,
        &json!({"spec": {"type": "ExternalName", "externalName": "x.y"}}),
    );
    assert_eq!(external["spec"].get("clusterIP"), None);
    assert_eq!(services().validate(&external), vec![]);
}

#[test]
fn the_address_never_changes() {
    let old = created(json!({"clusterIP": "10.96.77.1", "ports": [{"port": 80}]}));
    let new = updated(&old, &json!({"spec": {"clusterIP": "10.96.77.2"}}));
    let errors = services().validate_update(&new, &old);
    assert_eq!(
        errors[0].to_string(),
        "spec.clusterIPs[0]: Invalid value: [\"10.96.77.2\"]: may not change once set"
    );
}

#[test]
fn only_a_load_balancer_has_an_outside_address() {
    let old = created(json!({"ports": [{"port": 80}]}));
    let mut new = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}});
    services().prepare_status(&mut new, &old);
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(
        services().validate_status(&new, &old)[0].to_string(),
        "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"
    );
}

#[test]
fn a_row_shows_addresses_and_ports() {
    let row = |spec: Value, status: Value| {
        let cells = services().cells(
            &json!({"metadata": {"name": "a"}, "spec": spec, "status": status}),
            0,
        );
        [
            cells[1].clone(),
            cells[2].clone(),
            cells[3].clone(),
            cells[4].clone(),
            cells[6].clone(),
        ]
    };
    assert_eq!(
        row(
            json!({"type": "NodePort", "clusterIPs": ["10.96.0.7"], "selector": {"a": "b"},
                "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}, {"port": 53, "protocol": "UDP"}]}),
            json!({})
        ),
        [
            json!("NodePort"),
            json!("10.96.0.7"),
            json!("<none>"),
            json!("80:30001/TCP,53/UDP"),
            json!("a=b")
        ]
    );
    assert_eq!(
        row(json!({"type": "LoadBalancer", "ports": []}), json!({})),
        [
            json!("LoadBalancer"),
            json!("<none>"),
            json!("<pending>"),
            json!("<none>"),
            json!("<none>")
        ]
    );
    let given = json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}});
    assert_eq!(
        row(
            json!({"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]}),
            given
        )[2],
        "1.2.3.4,9.9.9.9"
    );
}
