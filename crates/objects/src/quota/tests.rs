//! What counts, and against what.

use serde_json::{Value, json};

use super::*;

const PODS: Counted<'_> = Counted {
    group: "",
    plural: "pods",
};
const SERVICES: Counted<'_> = Counted {
    group: "",
    plural: "services",
};

fn quota(spec: Value) -> Quota {
    Quota::read(&json!({"metadata": {"name": "q"}, "spec": spec}))
}

fn used(quota: &Quota, kind: Counted<'_>, objects: &[Value], now: i64) -> String {
    let facts: Vec<Facts> = objects.iter().map(|o| Facts::of(kind, o)).collect();
    shown(&quota.used(kind, facts.iter(), now))
}

fn pod(requests: Value, limits: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}})
}

#[test]
fn pods_use_what_their_containers_ask_for() {
    let hard = json!({"pods": "9", "cpu": "9", "limits.memory": "1Gi", "requests.example.com/gpu": "9", "count/pods": "9"});
    let quota = quota(json!({"hard": hard}));
    let mut two = pod(
        json!({"cpu": "250m", "example.com/gpu": "1"}),
        json!({"memory": "64Mi"}),
    );
    let first = two["spec"]["containers"][0].clone();
    two["spec"]["containers"] = json!([first, first]);
    two["spec"]["initContainers"] = json!([{"name": "i", "resources": {"requests": {"cpu": "2"}}}]);
    assert_eq!(
        used(&quota, PODS, &[two.clone(), two], 0),
        "count/pods=2,cpu=4,limits.memory=256Mi,pods=2,requests.example.com/gpu=4"
    );
}

#[test]
fn a_pod_that_is_over_only_counts_as_an_object() {
    let quota = quota(json!({"hard": {"pods": "9", "count/pods": "9"}}));
    let mut done = pod(json!({}), json!({}));
    done["status"]["phase"] = json!("Succeeded");
    let mut stuck = pod(json!({}), json!({}));
    stuck["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:01:00Z");
    stuck["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    assert_eq!(
        used(&quota, PODS, &[done.clone(), stuck.clone()], 80),
        "count/pods=2,pods=1"
    );
    assert_eq!(
        used(&quota, PODS, &[done, stuck], 100),
        "count/pods=2,pods=0"
    );
}

#[test]
fn node_ports_are_counted_by_what_is_wanted() {
    let quota = quota(
        json!({"hard": {"services": "9", "services.nodeports": "9", "services.loadbalancers": "9"}}),
    );
    let service = |spec: Value| json!({"spec": spec});
    let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
    for (spec, text) in [
        (
            json!({"type": "ClusterIP", "ports": ports}),
            "services=1,services.loadbalancers=0,services.nodeports=0",
        ),
        (
            json!({"type": "NodePort", "ports": ports}),
            "services=1,services.loadbalancers=0,services.nodeports=2",
        ),
        (
            json!({"type": "LoadBalancer", "ports": ports}),
            "services=1,services.loadbalancers=1,services.nodeports=2",
        ),
        (
            json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false}),
            "services=1,services.loadbalancers=1,services.nodeports=1",
        ),
    ] {
        assert_eq!(used(&quota, SERVICES, &[service(spec)], 0), text);
    }
}

#[test]
fn scopes_pick_pods_and_nothing_else() {
    let plain = pod(json!({}), json!({}));
    let mut job = pod(json!({"cpu": "1"}), json!({}));
    job["spec"]["activeDeadlineSeconds"] = json!(5);
    job["spec"]["priorityClassName"] = json!("high");
    let counts = |scopes: Value| {
        let quota = quota(json!({"hard": {"pods": "9"}, "scopes": scopes}));
        used(&quota, PODS, &[plain.clone(), job.clone(), job.clone()], 0)
    };
    assert_eq!(counts(json!(["Terminating"])), "pods=2");
    assert_eq!(counts(json!(["NotTerminating"])), "pods=1");
    assert_eq!(counts(json!(["BestEffort"])), "pods=1");
    assert_eq!(counts(json!(["NotBestEffort", "PriorityClass"])), "pods=2");
    let chosen = |operator: &str| {
        let selector = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]});
        let quota = quota(json!({"hard": {"pods": "9"}, "scopeSelector": selector}));
        used(&quota, PODS, &[plain.clone(), job.clone()], 0)
    };
    assert_eq!(chosen("In"), "pods=1");
    assert_eq!(chosen("NotIn"), "pods=1");
    assert_eq!(chosen("DoesNotExist"), "pods=1");
    let of_services = quota(json!({"hard": {"services": "9"}, "scopes": ["NotTerminating"]}));
    assert_eq!(
        used(&of_services, SERVICES, &[json!({"spec": {}})], 0),
        "services=0"
    );
}

#[test]
fn a_quota_of_cpu_wants_every_container_to_say_how_much() {
    let quota = quota(json!({"hard": {"limits.cpu": "1", "memory": "1Gi", "pods": "3"}}));
    let mut object = pod(json!({"memory": "1Mi"}), json!({}));
    let first = object["spec"]["containers"][0].clone();
    object["spec"]["containers"] = json!([first, {"name": "b"}]);
    assert_eq!(
        missing(&object, quota.limits(PODS)).as_deref(),
        Some("limits.cpu for: b,c; memory for: b")
    );
    assert_eq!(
        missing(
            &pod(json!({"memory": "1"}), json!({"cpu": "1"})),
            quota.limits(PODS)
        ),
        None
    );
}

#[test]
fn every_kind_can_be_counted_and_some_by_their_name_alone() {
    let quota = quota(
        json!({"hard": {"count/deployments.apps": "1", "configmaps": "1", "count/configmaps": "2", "deployments": "1"}}),
    );
    let deployments = Counted {
        group: "apps",
        plural: "deployments",
    };
    let maps = Counted {
        group: "",
        plural: "configmaps",
    };
    assert_eq!(
        used(&quota, deployments, &[json!({})], 0),
        "count/deployments.apps=1"
    );
    assert_eq!(
        used(&quota, maps, &[json!({})], 0),
        "configmaps=1,count/configmaps=1"
    );
    assert!(
        Counted {
            group: "",
            plural: "events"
        }
        .is_ignored()
    );
}
