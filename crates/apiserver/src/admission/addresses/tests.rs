//! Services that come, change and go, and what they get and give back.

use super::*;
use crate::admission::User;
use seaway_objects::kind::Names;

static SERVICE: Names = Names {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &[],
    categories: &[],
    namespaced: true,
};

/// The plugin and the Services that were stored, as the server does it.
struct Cluster {
    plugin: Addresses,
    user: User,
}

impl Cluster {
    fn new() -> Self {
        Self::of("10.96.0.0/24", 30000..=30099)
    }

    fn of(cidr: &str, ports: RangeInclusive<u16>) -> Self {
        Self {
            plugin: Addresses::new(cidr.parse().expect("a CIDR"), ports),
            user: User {
                name: "me".to_owned(),
                groups: vec![],
                ..User::default()
            },
        }
    }

    fn admit(
        &self,
        name: &str,
        spec: Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<(Value, Undo), ApiError> {
        let mut object = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let request = Request {
            operation: if old.is_some() {
                Operation::Update
            } else {
                Operation::Create
            },
            kind: &SERVICE,
            namespace: "default",
            name,
            subresource: "",
            old,
            dry_run,
            user: &self.user,
        };
        let undo = self.plugin.admit(&request, &mut object)?;
        Ok((object, undo))
    }

    fn create(&self, name: &str, spec: Value) -> Result<Value, String> {
        let (object, undo) = self.admit(name, spec, None, false).map_err(|e| e.message)?;
        undo.commit();
        self.plugin.committed(None, Some(&object));
        Ok(object)
    }

    fn update(&self, name: &str, spec: Value, old: &Value) -> Result<Value, String> {
        let (object, undo) = self
            .admit(name, spec, Some(old), false)
            .map_err(|e| e.message)?;
        undo.commit();
        self.plugin.committed(Some(old), Some(&object));
        Ok(object)
    }

    fn delete(&self, service: &Value) {
        self.plugin.committed(Some(service), None);
    }
}

fn cluster_ip() -> Value {
    json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]})
}

fn node_port(number: i64) -> Value {
    json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": number}]})
}

#[test]
fn a_service_gets_an_address_of_the_dynamic_band() {
    let cluster = Cluster::of("10.96.0.0/12", 30000..=32767);
    let service = cluster.create("a", cluster_ip()).expect("created");
    assert_eq!(service["spec"]["clusterIP"], "10.96.1.0");
    assert_eq!(service["spec"]["clusterIPs"], json!(["10.96.1.0"]));
    assert_eq!(service["spec"]["ipFamilies"], json!(["IPv4"]));
    let ports = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]});
    let service = cluster.create("b", ports).expect("created");
    assert_eq!(service["spec"]["ports"][0]["nodePort"], 30086);
}

#[test]
fn an_address_that_is_taken_or_elsewhere_is_refused() {
    let cluster = Cluster::new();
    let asking = |ip: &str| json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]});
    cluster.create("a", asking("10.96.0.1")).expect("created");
    assert_eq!(
        cluster.create("b", asking("10.96.0.1")),
        Err("Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP 10.96.0.1: provided IP is already allocated".to_owned())
    );
    for outside in ["10.97.0.1", "10.96.0.0", "10.96.0.255", "9.0.0.1"] {
        let error = cluster.create("b", asking(outside)).expect_err(outside);
        assert!(
            error.contains("The range of valid IPs is 10.96.0.0/24"),
            "{error}"
        );
    }
}

#[test]
fn a_node_port_that_is_taken_or_elsewhere_is_refused() {
    let cluster = Cluster::new();
    cluster.create("a", node_port(30001)).expect("created");
    assert_eq!(
        cluster.create("b", node_port(30001)),
        Err("Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated".to_owned())
    );
    assert_eq!(
        cluster.create("b", node_port(80)),
        Err("Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-30099".to_owned())
    );
}

#[test]
fn protocols_of_the_same_port_share_their_node_port() {
    let cluster = Cluster::new();
    let spec = json!({"type": "NodePort", "ports": [{"port": 53, "protocol": "UDP", "name": "u"},
        {"port": 53, "protocol": "TCP", "name": "t"}, {"port": 54, "protocol": "TCP", "name": "o"}]});
    let service = cluster.create("dns", spec).expect("created");
    let ports = &service["spec"]["ports"];
    assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"]);
    assert_ne!(ports[0]["nodePort"], ports[2]["nodePort"]);
    let named = json!({"type": "NodePort", "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30005},
        {"port": 53, "protocol": "TCP", "nodePort": 30005}]});
    let service = cluster.create("named", named).expect("created");
    cluster.delete(&service);
    cluster
        .create("other", node_port(30005))
        .expect("released once, wholly");
}

#[test]
fn a_refused_or_abandoned_write_keeps_nothing() {
    let cluster = Cluster::of("10.96.0.0/30", 30000..=30099);
    cluster.create("a", node_port(30001)).expect("created");
    // Gets the last address, then fails on the port.
    cluster
        .create("b", node_port(30001))
        .expect_err("port taken");
    let (_, undo) = cluster
        .admit("c", cluster_ip(), None, false)
        .expect("admitted");
    let full = cluster
        .create("d", cluster_ip())
        .expect_err("no address left");
    assert_eq!(
        full,
        "Internal error occurred: failed to allocate a serviceIP: range is full"
    );
    drop(undo);
    cluster
        .create("d", cluster_ip())
        .expect("the abandoned write gave its address back");
}

#[test]
fn a_dry_run_shows_what_would_be_given_and_reserves_nothing() {
    let cluster = Cluster::of("10.96.0.0/30", 30000..=30000);
    for _ in 0..5 {
        let (object, undo) = cluster
            .admit(
                "a",
                json!({"type": "NodePort", "ports": [{"port": 80}]}),
                None,
                true,
            )
            .expect("fits");
        undo.commit();
        assert!(object["spec"]["clusterIP"].is_string());
        assert_eq!(object["spec"]["ports"][0]["nodePort"], 30000);
    }
    cluster.create("a", node_port(30000)).expect("still free");
}

#[test]
fn what_a_service_lets_go_others_can_have() {
    let cluster = Cluster::new();
    let a = cluster.create("a", node_port(30001)).expect("created");
    let mut plain = a["spec"].clone();
    plain["type"] = json!("ClusterIP");
    plain["ports"] = json!([{"port": 80, "protocol": "TCP"}]);
    let a = cluster.update("a", plain, &a).expect("updated");
    let b = cluster
        .create("b", node_port(30001))
        .expect("the port is free again");
    let ip = a["spec"]["clusterIP"].clone();
    cluster.delete(&a);
    cluster.delete(&b);
    let asking = json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]});
    cluster
        .create("c", asking)
        .expect("the address is free again");
}

#[test]
fn an_external_name_gives_its_address_back_and_gets_another() {
    let cluster = Cluster::new();
    let a = cluster.create("a", cluster_ip()).expect("created");
    let ip = a["spec"]["clusterIP"].clone();
    let external = cluster
        .update(
            "a",
            json!({"type": "ExternalName", "externalName": "x.y"}),
            &a,
        )
        .expect("updated");
    assert_eq!(external["spec"].get("clusterIP"), None);
    cluster
        .create(
            "b",
            json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]}),
        )
        .expect("free");
    let back = cluster
        .update("a", cluster_ip(), &external)
        .expect("updated");
    assert!(back["spec"]["clusterIP"].is_string());
    assert_ne!(back["spec"]["clusterIP"], ip);
}

#[test]
fn a_headless_service_has_no_address() {
    let cluster = Cluster::of("10.96.0.0/30", 30000..=30099);
    for i in 0..10 {
        let spec = json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}});
        let service = cluster
            .create(&format!("h{i}"), spec)
            .expect("needs no address");
        assert_eq!(service["spec"]["clusterIPs"], json!(["None"]));
    }
}

#[test]
fn a_local_load_balancer_has_a_health_check_port() {
    let cluster = Cluster::new();
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": false,
        "ports": [{"port": 80, "protocol": "TCP"}]});
    let service = cluster.create("lb", spec).expect("created");
    assert!(service["spec"]["healthCheckNodePort"].is_i64());
    assert_eq!(service["spec"]["ports"][0].get("nodePort"), None);
    let again = cluster
        .update("lb", service["spec"].clone(), &service)
        .expect("unchanged");
    assert_eq!(again, service);
}

#[test]
fn what_is_stored_is_taken_after_a_restart() {
    let before = Cluster::new();
    let stored = before.create("a", node_port(30001)).expect("created");
    let after = Cluster::new();
    after.plugin.committed(None, Some(&stored));
    after.create("b", node_port(30001)).expect_err("taken");
    let ip = stored["spec"]["clusterIP"].clone();
    after
        .create(
            "c",
            json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]}),
        )
        .expect_err("taken");
    after.delete(&stored);
    after.create("b", node_port(30001)).expect("free");
}

#[test]
fn news_that_come_late_take_nothing_away() {
    let cluster = Cluster::new();
    let with = cluster.create("a", node_port(30001)).expect("created");
    let mut without = with["spec"].clone();
    without["ports"][0]["nodePort"] = json!(30002);
    // The first update is stored, but before the server hears of it, a second one takes the old port again.
    let (second_state, undo) = cluster
        .admit("a", without, Some(&with), false)
        .expect("admitted");
    undo.commit();
    let mut again = second_state["spec"].clone();
    again["ports"][0]["nodePort"] = json!(30001);
    let third_state = cluster.update("a", again, &second_state).expect("updated");
    cluster.plugin.committed(Some(&with), Some(&second_state));
    assert_eq!(third_state["spec"]["ports"][0]["nodePort"], 30001);
    cluster
        .create("b", node_port(30001))
        .expect_err("still taken");
    cluster.create("b", node_port(30002)).expect("let go");
}
