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

    fn of(cidrs: &str, ports: RangeInclusive<u16>) -> Self {
        let nets: Vec<IpNet> = cidrs
            .split(',')
            .map(|c| c.parse().expect("a CIDR"))
            .collect();
        let plugin = Addresses::new(&nets, ports);
        plugin.committed(
            None,
            Some(&service_cidr("kubernetes", 1, json!(nets), json!({}))),
        );
        Self {
            plugin,
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

fn service_cidr(name: &str, revision: u64, cidrs: Value, status: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": name, "resourceVersion": revision.to_string()},
        "spec": {"cidrs": cidrs}, "status": status})
}

fn asking(ip: &str) -> Value {
    json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]})
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
    assert_eq!(service["spec"]["clusterIP"], "10.96.1.1");
    assert_eq!(service["spec"]["clusterIPs"], json!(["10.96.1.1"]));
    assert_eq!(service["spec"]["ipFamilies"], json!(["IPv4"]));
    let ports = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]});
    let service = cluster.create("b", ports).expect("created");
    assert_eq!(service["spec"]["ports"][0]["nodePort"], 30086);
}

#[test]
fn an_address_that_is_taken_or_elsewhere_is_refused() {
    let cluster = Cluster::new();
    cluster.create("a", asking("10.96.0.1")).expect("created");
    assert_eq!(
        cluster.create("b", asking("10.96.0.1")),
        Err("Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP 10.96.0.1: provided IP is already allocated".to_owned())
    );
    for outside in ["10.97.0.1", "10.96.0.0", "10.96.0.255", "9.0.0.1"] {
        let error = cluster.create("b", asking(outside)).expect_err(outside);
        assert!(
            error.ends_with("the provided network does not match the current range"),
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

#[test]
fn ranges_come_and_go_with_their_service_cidrs() {
    let cluster = Cluster::of("10.96.0.0/30", 30000..=30099);
    cluster.create("a", cluster_ip()).expect("the first");
    cluster.create("b", cluster_ip()).expect("the second");
    let full = "Internal error occurred: failed to allocate a serviceIP: range is full";
    assert_eq!(cluster.create("c", cluster_ip()), Err(full.to_owned()));

    let more = |revision, status| service_cidr("more", revision, json!(["10.97.0.0/30"]), status);
    cluster.plugin.committed(None, Some(&more(5, json!({}))));
    let c = cluster.create("c", cluster_ip()).expect("of the new range");
    assert_eq!(c["spec"]["clusterIP"], "10.97.0.1");

    let unready = more(
        6,
        json!({"conditions": [{"type": "Ready", "status": "False"}]}),
    );
    cluster
        .plugin
        .committed(Some(&more(5, json!({}))), Some(&unready));
    assert_eq!(cluster.create("d", cluster_ip()), Err(full.to_owned()));
    // News that come late change nothing.
    cluster.plugin.committed(None, Some(&more(5, json!({}))));
    assert_eq!(cluster.create("d", cluster_ip()), Err(full.to_owned()));
    cluster.plugin.committed(Some(&unready), None);
    cluster.plugin.committed(None, Some(&more(9, json!({}))));
    cluster.create("d", cluster_ip()).expect("ready again");
}

#[test]
fn overlapping_ranges_never_give_an_address_twice() {
    let cluster = Cluster::of("10.96.0.0/29", 30000..=30099);
    let inner = service_cidr("inner", 2, json!(["10.96.0.0/30"]), json!({}));
    cluster.plugin.committed(None, Some(&inner));
    let mut given = std::collections::BTreeSet::new();
    for i in 0..6 {
        let service = cluster
            .create(&format!("s{i}"), cluster_ip())
            .expect("fits");
        assert!(given.insert(service["spec"]["clusterIP"].to_string()));
    }
    cluster.create("more", cluster_ip()).expect_err("full");
}

#[test]
fn a_dual_stack_cluster_gives_an_address_of_each_family() {
    let cluster = Cluster::of("10.96.0.0/24,fd00:96::/112", 30000..=30099);
    let mut wanted = cluster_ip();
    wanted["ipFamilyPolicy"] = json!("PreferDualStack");
    let dual = cluster.create("a", wanted).expect("created");
    assert_eq!(
        dual["spec"]["clusterIPs"],
        json!(["10.96.0.17", "fd00:96::101"])
    );
    assert_eq!(dual["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));

    let mut single = dual["spec"].clone();
    single["ipFamilyPolicy"] = json!("SingleStack");
    let single = cluster.update("a", single, &dual).expect("updated");
    assert_eq!(single["spec"]["clusterIPs"], json!(["10.96.0.17"]));
    cluster
        .create("b", asking("fd00:96::101"))
        .expect("the second address is free again");

    let mut both = single["spec"].clone();
    both["ipFamilyPolicy"] = json!("RequireDualStack");
    let both = cluster.update("a", both, &single).expect("updated");
    assert_eq!(
        both["spec"]["clusterIPs"],
        json!(["10.96.0.17", "fd00:96::102"])
    );
}

#[test]
fn a_hand_made_ip_address_keeps_services_off() {
    let cluster = Cluster::new();
    static IP_ADDRESS: Names = Names {
        group: "networking.k8s.io",
        kind: "IPAddress",
        plural: "ipaddresses",
        singular: "ipaddress",
        namespaced: false,
        ..SERVICE
    };
    let make = |ip: &str| {
        let mut object = ip_address::of(ip.parse().expect(ip), "default", "x");
        object["spec"]["parentRef"]["resource"] = json!("gateways");
        let request = Request {
            operation: Operation::Create,
            kind: &IP_ADDRESS,
            namespace: "",
            name: ip,
            subresource: "",
            old: None,
            dry_run: false,
            user: &cluster.user,
        };
        let undo = cluster
            .plugin
            .admit(&request, &mut object)
            .map_err(|e| e.message)?;
        undo.commit();
        cluster.plugin.committed(None, Some(&object));
        Ok::<_, String>(object)
    };
    let object = make("10.96.0.9").expect("free");
    let error = cluster.create("a", asking("10.96.0.9")).expect_err("taken");
    assert!(
        error.ends_with("provided IP is already allocated"),
        "{error}"
    );
    cluster.plugin.committed(Some(&object), None);
    cluster
        .create("a", asking("10.96.0.9"))
        .expect("free again");
    assert_eq!(
        make("10.96.0.9"),
        Err("ipaddresses.networking.k8s.io \"10.96.0.9\" already exists".to_owned())
    );
}

#[test]
fn each_address_of_a_service_has_its_object() {
    let cluster = Cluster::new();
    let service = |ips: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "d"},
            "spec": {"type": "ClusterIP", "clusterIPs": ips}})
    };
    let (one, two) = (
        service(json!(["10.96.0.9"])),
        service(json!(["10.96.0.9", "fd00::9"])),
    );
    let names = |old: Option<&Value>, new: Option<&Value>| {
        let companions = cluster.plugin.companions(old, new).into_iter();
        companions
            .map(|c| (c.name, c.object.is_some()))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(None, Some(&one)), [("10.96.0.9".to_owned(), true)]);
    assert_eq!(names(Some(&one), Some(&one)), []);
    assert_eq!(
        names(Some(&one), Some(&two)),
        [("fd00::9".to_owned(), true)]
    );
    assert_eq!(
        names(Some(&two), Some(&one)),
        [("fd00::9".to_owned(), false)]
    );
    assert_eq!(
        names(Some(&two), None),
        [
            ("10.96.0.9".to_owned(), false),
            ("fd00::9".to_owned(), false)
        ]
    );
    assert_eq!(names(None, Some(&service(json!(["None"])))), []);
}

#[test]
fn what_nobody_has_any_more_is_free_when_it_was_seen_often_enough() {
    let cluster = Cluster::new();
    let (_, undo) = cluster
        .admit("a", node_port(30001), None, false)
        .expect("admitted");
    // As if the write were lost without anybody hearing of it.
    undo.commit();
    let look = || cluster.plugin.take_back_leaks(|_, _| false).len();
    assert_eq!((look(), look()), (0, 0), "it may be on its way");
    assert_eq!(look(), 2, "address and port");
    cluster.create("b", node_port(30001)).expect("free");
}

#[test]
fn one_node_port_cannot_be_asked_for_twice() {
    let cluster = Cluster::new();
    let spec = json!({"type": "NodePort", "ports": [
        {"name": "a", "port": 1, "protocol": "TCP", "nodePort": 30001},
        {"name": "b", "port": 2, "protocol": "UDP", "nodePort": 30001}]});
    let error = cluster.create("a", spec).expect_err("twice");
    assert!(error.contains("spec.ports[1].nodePort"), "{error}");
    assert!(
        error.ends_with("provided port is already allocated"),
        "{error}"
    );
    cluster
        .create("a", node_port(30001))
        .expect("nothing is kept");
}

#[test]
fn an_address_that_is_kept_for_a_service_can_be_had_by_that_one_only() {
    let cluster = Cluster::new();
    // What a crash of another server may leave.
    let object = ip_address::of("10.96.0.9".parse().expect("an address"), "default", "a");
    cluster.plugin.committed(None, Some(&object));
    cluster
        .create("b", asking("10.96.0.9"))
        .expect_err("not b's");
    let a = cluster.create("a", asking("10.96.0.9")).expect("a's");
    cluster.delete(&a);
    cluster.create("b", asking("10.96.0.9")).expect("free");
}
