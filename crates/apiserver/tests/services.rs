//! Services and what they are given, over HTTP: addresses of several ranges and families, the IPAddress objects that
//! tell of them, what is refused, what a crash at any point leaves, and what is put right.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use harness::{Cluster, text};
use seaway_apiserver::Tuning;
use seaway_store::{Event, Expectation, Store, Write};
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const IP_ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const SERVICE_CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{"port": 80}]);
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

async fn dual_stack(tuning: Tuning) -> Cluster {
    let ranges = vec![
        "10.96.0.0/16".parse().unwrap(),
        "fd00:96::/112".parse().unwrap(),
    ];
    Cluster::start_of(tempfile::tempdir().unwrap(), tuning, ranges).await
}

/// Creates a Service and gives back its spec.
async fn created(cluster: &Cluster, name: &str, spec: Value) -> Value {
    let (code, object) = cluster.post(SERVICES, &service(name, spec)).await;
    assert_eq!(code, 201, "{object}");
    object["spec"].clone()
}

async fn patched(cluster: &Cluster, name: &str, spec: Value) -> Value {
    let path = format!("{SERVICES}/{name}");
    let (code, object) = cluster.patch(&path, "merge", &json!({"spec": spec})).await;
    assert_eq!(code, 200, "{object}");
    object["spec"].clone()
}

/// The addresses for which there is an IPAddress, and the Service that each is for.
async fn ip_addresses(cluster: &Cluster) -> BTreeMap<String, String> {
    let (code, list) = cluster.get(IP_ADDRESSES).await;
    assert_eq!(code, 200);
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            let parent = |field: &str| text(item, &format!("/spec/parentRef/{field}"));
            (
                text(item, "/metadata/name"),
                format!("{}/{}", parent("namespace"), parent("name")),
            )
        })
        .collect()
}

/// What has to be true of every server at every time.
async fn assert_consistent(cluster: &Cluster, when: &str) {
    let (_, list) = cluster.get("/api/v1/services").await;
    let mut addresses = BTreeMap::new();
    let mut ports: BTreeSet<i64> = BTreeSet::new();
    for item in list["items"].as_array().unwrap() {
        let owner = format!(
            "{}/{}",
            text(item, "/metadata/namespace"),
            text(item, "/metadata/name")
        );
        let ips = item["spec"]["clusterIPs"].as_array().into_iter().flatten();
        for ip in ips.filter_map(Value::as_str).filter(|ip| *ip != "None") {
            let before = addresses.insert(ip.to_owned(), owner.clone());
            assert_eq!(before, None, "{when}: {ip} is given twice");
        }
        let service_ports = item["spec"]["ports"].as_array().into_iter().flatten();
        let node_ports = service_ports.filter_map(|port| port["nodePort"].as_i64());
        for port in node_ports.chain(item["spec"]["healthCheckNodePort"].as_i64()) {
            assert!(ports.insert(port), "{when}: {port} is given twice");
        }
    }
    let objects = ip_addresses(cluster).await;
    let differ: Vec<_> = objects
        .iter()
        .filter(|one| !addresses.iter().any(|other| *one == other))
        .chain(
            addresses
                .iter()
                .filter(|one| objects.get(one.0) != Some(one.1)),
        )
        .collect();
    assert!(
        differ.is_empty(),
        "{when}: only on one side of Services and IPAddresses: {differ:?}"
    );
}

#[tokio::test]
async fn every_address_of_a_service_has_its_ip_address_as_long_as_it_is_the_services() {
    let cluster = Cluster::start().await;
    let spec = created(&cluster, "a", json!({})).await;
    let ip = text(&spec, "/clusterIP");
    let (code, object) = cluster.get(&format!("{IP_ADDRESSES}/{ip}")).await;
    assert_eq!(code, 200);
    assert_eq!(
        object["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    let parent = json!({"resource": "services", "namespace": "default", "name": "a"});
    let mut shown = object["spec"]["parentRef"].clone();
    shown.as_object_mut().unwrap().remove("group");
    assert_eq!(shown, parent);
    assert_consistent(&cluster, "after a creation").await;

    patched(
        &cluster,
        "a",
        json!({"type": "ExternalName", "externalName": "a.example"}),
    )
    .await;
    assert_eq!(cluster.get(&format!("{IP_ADDRESSES}/{ip}")).await.0, 404);
    let again = patched(&cluster, "a", json!({"type": "NodePort"})).await;
    assert!(again["ports"][0]["nodePort"].is_i64());
    assert_consistent(&cluster, "after a change of the type").await;

    cluster.delete(&format!("{SERVICES}/a"), &Value::Null).await;
    assert_consistent(&cluster, "after the deletion").await;
    assert_eq!(ip_addresses(&cluster).await.len(), 1, "that of kubernetes");
}

#[tokio::test]
async fn a_service_gets_and_releases_its_second_family() {
    let cluster = dual_stack(Tuning::default()).await;
    let single = created(&cluster, "a", json!({})).await;
    assert_eq!(single["ipFamilies"], json!(["IPv4"]));
    assert_eq!(single["ipFamilyPolicy"], "SingleStack");

    let dual = patched(&cluster, "a", json!({"ipFamilyPolicy": "PreferDualStack"})).await;
    assert_eq!(dual["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(dual["clusterIPs"][0], single["clusterIP"]);
    assert!(text(&dual, "/clusterIPs/1").starts_with("fd00:96::"));
    assert_consistent(&cluster, "with two families").await;

    let path = format!("{SERVICES}/a");
    let fewer = json!({"spec": {"clusterIPs": [single["clusterIP"]]}});
    let (code, refusal) = cluster.patch(&path, "merge", &fewer).await;
    assert_eq!(code, 422);
    assert_eq!(
        refusal["details"]["causes"][0]["message"],
        "Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary cluster IP"
    );
    let single = patched(&cluster, "a", json!({"ipFamilyPolicy": "SingleStack"})).await;
    assert_eq!(single["clusterIPs"].as_array().unwrap().len(), 1);
    assert_eq!(single["ipFamilies"], json!(["IPv4"]));
    assert_consistent(&cluster, "with one family again").await;

    let six = created(&cluster, "six", json!({"ipFamilies": ["IPv6"]})).await;
    assert!(text(&six, "/clusterIP").starts_with("fd00:96::"));
    let asked = json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "10.96.7.7",
        "clusterIPs": ["10.96.7.7", "fd00:96::77"]});
    let both = created(&cluster, "both", asked).await;
    assert_eq!(both["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_consistent(&cluster, "with chosen addresses").await;
}

#[tokio::test]
async fn a_single_stack_cluster_grows_a_second_family_when_it_is_started_so() {
    let cluster = Cluster::start().await;
    created(&cluster, "a", json!({"ipFamilyPolicy": "PreferDualStack"})).await;
    let directory = cluster.stop().await;
    let ranges = vec![
        "10.96.0.0/16".parse().unwrap(),
        "fd00:96::/112".parse().unwrap(),
    ];
    let cluster = Cluster::start_of(directory, Tuning::default(), ranges).await;
    let (_, default) = cluster.get(&format!("{SERVICE_CIDRS}/kubernetes")).await;
    assert_eq!(
        default["spec"]["cidrs"],
        json!(["10.96.0.0/16", "fd00:96::/112"])
    );
    let (_, old) = cluster.get(&format!("{SERVICES}/a")).await;
    assert_eq!(
        old["spec"]["ipFamilies"],
        json!(["IPv4"]),
        "nobody asked for more"
    );
    let new = created(&cluster, "b", json!({"ipFamilyPolicy": "PreferDualStack"})).await;
    assert_eq!(new["ipFamilies"], json!(["IPv4", "IPv6"]));
}

#[tokio::test]
async fn another_service_cidr_extends_the_ranges_at_once() {
    let ranges = vec!["10.96.0.0/30".parse().unwrap()];
    let cluster = Cluster::start_of(tempfile::tempdir().unwrap(), Tuning::default(), ranges).await;
    created(&cluster, "a", json!({})).await;
    let (code, full) = cluster.post(SERVICES, &service("b", json!({}))).await;
    assert_eq!(code, 500);
    assert_eq!(
        full["message"],
        "Internal error occurred: failed to allocate a serviceIP: range is full"
    );
    let more = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/28"]}});
    assert_eq!(cluster.post(SERVICE_CIDRS, &more).await.0, 201);
    let spec = created(&cluster, "b", json!({})).await;
    assert!(text(&spec, "/clusterIP").starts_with("10.97.0."));
    assert_consistent(&cluster, "with two ranges").await;

    cluster
        .delete(&format!("{SERVICE_CIDRS}/more"), &Value::Null)
        .await;
    let (code, _) = cluster.post(SERVICES, &service("c", json!({}))).await;
    assert_eq!(code, 500, "the range is gone");
    let asked = service("c", json!({"clusterIP": "10.97.0.9"}));
    let (code, refusal) = cluster.post(SERVICES, &asked).await;
    assert_eq!(code, 422);
    assert_eq!(
        refusal["message"],
        "Service \"c\" is invalid: spec.clusterIPs: Invalid value: [\"10.97.0.9\"]: failed to allocate IP 10.97.0.9: the provided network does not match the current range"
    );
}

#[tokio::test]
async fn an_ip_address_made_by_hand_keeps_services_off() {
    let cluster = Cluster::start().await;
    let by_hand = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": "10.96.9.9"},
        "spec": {"parentRef": {"group": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "default", "name": "g"}}});
    assert_eq!(cluster.post(IP_ADDRESSES, &by_hand).await.0, 201);
    assert_eq!(cluster.post(IP_ADDRESSES, &by_hand).await.0, 409);
    let asking = service("a", json!({"clusterIP": "10.96.9.9"}));
    let cluster = cluster.restart().await;
    let (code, refusal) = cluster.post(SERVICES, &asking).await;
    assert_eq!(code, 422);
    assert!(
        text(&refusal, "/message").ends_with("provided IP is already allocated"),
        "{refusal}"
    );
    let path = format!("{IP_ADDRESSES}/10.96.9.9");
    assert_eq!(cluster.delete(&path, &Value::Null).await.0, 200);
    assert_eq!(cluster.post(SERVICES, &asking).await.0, 201);
    let mut theirs = by_hand.clone();
    theirs["metadata"]["name"] = json!("10.96.9.9");
    assert_eq!(cluster.post(IP_ADDRESSES, &theirs).await.0, 409);
}

#[tokio::test]
async fn a_removed_ip_address_comes_back_and_an_event_tells_of_it() {
    let cluster = Cluster::start().await;
    let spec = created(&cluster, "a", json!({})).await;
    let ip = text(&spec, "/clusterIP");
    let path = format!("{IP_ADDRESSES}/{ip}");
    assert_eq!(cluster.delete(&path, &Value::Null).await.0, 200);
    let asking = service("b", json!({"clusterIP": ip}));
    let (code, _) = cluster.post(SERVICES, &asking).await;
    assert_eq!(code, 422, "the address is a's all the same");
    eventually("the IPAddress is back", || async {
        cluster.get(&path).await.0 == 200
    })
    .await;
    eventually("an Event tells of it", || async {
        let (_, events) = cluster.get("/api/v1/namespaces/default/events").await;
        let message = format!("Cluster IP [IPv4]: {ip} is not allocated; repairing");
        events["items"].as_array().unwrap().iter().any(|event| {
            event["reason"] == "ClusterIPNotAllocated"
                && event["message"] == message.as_str()
                && event["involvedObject"]["name"] == "a"
        })
    })
    .await;
}

/// Waits for the answer yes.
async fn eventually<F: Future<Output = bool>>(what: &str, question: impl Fn() -> F) {
    let end = tokio::time::Instant::now() + harness::PATIENCE;
    while !question().await {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_creations_at_once_give_nothing_twice() {
    let cluster = Arc::new(dual_stack(Tuning::default()).await);
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let cluster = Arc::clone(&cluster);
            tokio::spawn(async move {
                for number in 0..12 {
                    let name = format!("s{task}-{number}");
                    let spec = json!({"type": "NodePort", "ipFamilyPolicy": "PreferDualStack"});
                    let (code, object) = cluster.post(SERVICES, &service(&name, spec)).await;
                    assert_eq!(code, 201, "{object}");
                    // All ask for the same; one gets it.
                    let asked = service(
                        &format!("one{task}-{number}"),
                        json!({"clusterIP": format!("10.96.200.{}", number + 1)}),
                    );
                    let (code, object) = cluster.post(SERVICES, &asked).await;
                    assert!(matches!(code, 201 | 422), "{object}");
                    if number % 3 == 0 {
                        cluster
                            .delete(&format!("{SERVICES}/{name}"), &Value::Null)
                            .await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_consistent(&cluster, "after it all").await;
    let (_, list) = cluster.get(SERVICES).await;
    let asked = list["items"].as_array().unwrap().iter();
    let winners = asked
        .filter(|item| text(item, "/metadata/name").starts_with("one"))
        .count();
    assert_eq!(winners, 12);
}

/// What a server writes while Services of all sorts come, change and go.
async fn history() -> Vec<Arc<Event>> {
    let cluster = dual_stack(Tuning::default()).await;
    created(&cluster, "a", json!({"ipFamilyPolicy": "RequireDualStack"})).await;
    created(
        &cluster,
        "b",
        json!({"type": "NodePort", "clusterIP": "10.96.0.50"}),
    )
    .await;
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    created(&cluster, "c", local).await;
    patched(&cluster, "a", json!({"ipFamilyPolicy": "SingleStack"})).await;
    patched(
        &cluster,
        "b",
        json!({"type": "ExternalName", "externalName": "b.example"}),
    )
    .await;
    patched(&cluster, "a", json!({"ipFamilyPolicy": "RequireDualStack"})).await;
    cluster.delete(&format!("{SERVICES}/c"), &Value::Null).await;
    patched(&cluster, "b", json!({"type": "ClusterIP"})).await;
    cluster.delete(&format!("{SERVICES}/a"), &Value::Null).await;
    let directory = cluster.stop().await;
    let store = Store::open(&directory.path().join("store.db")).unwrap();
    let mut watch = store.watch("", 0).unwrap();
    let mut all = Vec::new();
    loop {
        let events = watch.ready().unwrap();
        if events.is_empty() {
            return all;
        }
        all.extend(events);
    }
}

/// The server never leaves off between a Service and its IPAddresses, because it writes them in one transaction; here
/// even the states in between are built, which only a broken disk or another program could leave.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_point_a_crash_cuts_the_writes_at_the_next_server_puts_it_right() {
    let history = history().await;
    let touched = |event: &Event| {
        event.key.contains("/services/") || event.key.starts_with("networking.k8s.io/")
    };
    let cuts: Vec<usize> = (1..=history.len())
        .filter(|&cut| cut == history.len() || touched(&history[cut - 1]))
        .collect();
    assert!(cuts.len() > 15, "{} places to cut at", cuts.len());
    for cut in cuts {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).unwrap();
        for event in &history[..cut] {
            let write = match &event.new {
                Some(record) => Write::Put(record.value.clone()),
                None => Write::Delete,
            };
            store
                .commit(&event.key, Expectation::Any, write)
                .await
                .unwrap();
        }
        drop(store);
        let tuning = Tuning {
            leak_grace: Duration::ZERO,
            ..Tuning::default()
        };
        let ranges = vec![
            "10.96.0.0/16".parse().unwrap(),
            "fd00:96::/112".parse().unwrap(),
        ];
        let cluster = Cluster::start_of(directory, tuning, ranges).await;
        let when = format!("after {cut} of {} writes", history.len());
        assert_consistent(&cluster, &when).await;
        created(
            &cluster,
            "new",
            json!({"type": "NodePort", "ipFamilyPolicy": "RequireDualStack"}),
        )
        .await;
        assert_consistent(&cluster, &format!("{when}, with a new Service")).await;
        cluster.stop().await;
    }
}

#[tokio::test]
async fn what_is_odd_about_a_service_is_told_as_a_warning() {
    let cluster = Cluster::start().await;
    let object = service(
        "a",
        json!({"externalIPs": ["198.51.100.7"], "externalName": "a.example", "trafficDistribution": "PreferClose"}),
    );
    let body = object.to_string().into_bytes();
    let (code, headers, _) = cluster
        .raw(&cluster.client, "POST", SERVICES, &[], body)
        .await;
    assert_eq!(code, 201);
    let warnings: Vec<&str> = headers
        .get_all("warning")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(
        warnings,
        [
            "299 - \"spec.externalIPs is deprecated and may no longer be implemented in some clusters\"",
            "299 - \"spec.externalName is ignored when spec.type is not \\\"ExternalName\\\"\"",
            "299 - \"spec.trafficDistribution: \\\"PreferClose\\\" is deprecated; use \\\"PreferSameZone\\\"\"",
        ]
    );
}

#[tokio::test]
async fn a_load_balancers_status_has_a_mode_for_each_address() {
    let cluster = Cluster::start().await;
    created(&cluster, "a", json!({"type": "LoadBalancer"})).await;
    let status = |ingress: Value| json!({"status": {"loadBalancer": {"ingress": [ingress]}}});
    let path = format!("{SERVICES}/a/status");
    let (code, object) = cluster
        .patch(&path, "merge", &status(json!({"ip": "198.51.100.7"})))
        .await;
    assert_eq!(code, 200, "{object}");
    assert_eq!(
        object["status"]["loadBalancer"]["ingress"],
        json!([{"ip": "198.51.100.7", "ipMode": "VIP"}])
    );
    let bad = status(json!({"ip": "198.51.100.7", "ipMode": "Magic"}));
    let (code, refusal) = cluster.patch(&path, "merge", &bad).await;
    assert_eq!(code, 422);
    assert_eq!(
        refusal["message"],
        "Service \"a\" is invalid: status.loadBalancer.ingress[0].ipMode: Unsupported value: \"Magic\": supported values: \"Proxy\", \"VIP\""
    );
}
