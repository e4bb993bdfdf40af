//! The walk through the documents: their manifests, their commands, real kubectl, real requests.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::{Host, Lab, http, is_ready, says, string, wait, wait_at_most};

/// The documents' listing 2-1 and 2-7, whose manifests this chapter only mentions.
const NODE_JS: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata:
  name: node-js
  labels:
    name: node-js
spec:
  replicas: 3
  selector:
    name: node-js
  template:
    metadata:
      labels:
        name: node-js
    spec:
      containers:
      - name: node-js
        image: jonbaier/node-express-info:latest
        ports:
        - containerPort: 80
---
apiVersion: v1
kind: Pod
metadata:
  name: node-js-pod
spec:
  containers:
  - name: node-js-pod
    image: jonbaier/node-express-info:latest
    ports:
    - containerPort: 80
"#;

/// Manifests of the documents, in their order.
const MANIFESTS: [&str; 7] = [
    "004-01-service-node-js-internal.yaml",
    "004-02-service-node-js-nodeport.yaml",
    "004-03-replicationcontroller-node-js-90.yaml",
    "004-04-service-node-js-90.yaml",
    "004-05-replicationcontroller-node-js-multi.yaml",
    "004-06-service-node-js-multi.yaml",
    "004-12-service-node-js-none.yaml",
];

/// A request whose answer comes from `seaway/whoami`: the Pod that answered.
fn who(lab: &Lab<'_>, address: SocketAddr) -> Result<String, String> {
    lab.host
        .run(|| http(address))
        .map(|answer| says(&answer, "Pod"))
}

fn addresses_of(pods: &[serde_json::Value]) -> BTreeSet<String> {
    pods.iter()
        .map(|pod| string(&pod["status"]["podIP"]))
        .collect()
}

fn names_of(pods: &[serde_json::Value]) -> BTreeSet<String> {
    pods.iter()
        .map(|pod| string(&pod["metadata"]["name"]))
        .collect()
}

/// How often each Pod answers `count` requests.
fn spread(lab: &Lab<'_>, address: SocketAddr, count: u32) -> BTreeMap<String, u32> {
    lab.host.run(|| {
        let mut counts = BTreeMap::new();
        for _ in 0..count {
            let answer = http(address).expect("every request is answered");
            *counts.entry(says(&answer, "Pod")).or_default() += 1;
        }
        counts
    })
}

/// Within a second of the last change to the endpoints only `pods` answer, and each its share within 5 points.
fn follows(lab: &Lab<'_>, address: SocketAddr, pods: &BTreeSet<String>) {
    const REQUESTS: u32 = 1000;
    wait_at_most(
        Duration::from_secs(1),
        "only the Pods of the Service answer",
        || {
            let seen: BTreeSet<String> = spread(lab, address, 20).into_keys().collect();
            seen.is_subset(pods)
                .then_some(())
                .ok_or(format!("{seen:?} answer, not {pods:?}"))
        },
    );
    let counts = spread(lab, address, REQUESTS);
    let expected = 100.0 / pods.len() as f64;
    for pod in pods {
        let share = f64::from(counts.get(pod).copied().unwrap_or(0)) * 100.0 / f64::from(REQUESTS);
        assert!(
            (share - expected).abs() <= 5.0,
            "{pod} answers {share} % instead of {expected} %: {counts:?}"
        );
    }
    assert_eq!(counts.len(), pods.len(), "{counts:?}");
}

/// Ready addresses in the slices of a Service.
fn ready_in_slices(lab: &Lab<'_>, service: &str) -> BTreeSet<String> {
    let label = format!("kubernetes.io/service-name={service}");
    let slices = lab.get(&["endpointslices", "-l", &label]);
    slices["items"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
        .filter(|endpoint| endpoint["conditions"]["ready"] == true)
        .flat_map(|endpoint| {
            endpoint["addresses"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .map(|address| string(&address))
        .collect()
}

#[test]
fn the_documents_work_as_written() {
    let host = Host::new();
    let lab = Lab::up(&host);

    // create
    lab.create(NODE_JS);
    for manifest in MANIFESTS {
        let path = format!("{}/tests/manifests/{manifest}", env!("CARGO_MANIFEST_DIR"));
        let said = lab.kubectl(&["create", "-f", &path]);
        assert!(said.contains(" created"), "{manifest}: {said}");
    }

    // every Pod Running
    let node_js = lab.ready_pods("name=node-js", 3);
    let node_js_90 = lab.ready_pods("name=node-js-90", 3);
    let multi = lab.ready_pods("name=node-js-multi", 3);
    lab.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pods",
        "--all",
        "--timeout=60s",
    ]);
    for pods in [&node_js, &node_js_90, &multi] {
        let nodes: BTreeSet<String> = pods
            .iter()
            .map(|pod| string(&pod["spec"]["nodeName"]))
            .collect();
        assert_eq!(nodes.len(), 3, "one Pod on each node: {nodes:?}");
    }
    let listed = lab.kubectl(&["get", "services", "-l", "name=node-js-internal"]);
    assert!(
        listed.contains("node-js-internal") && listed.contains("80/TCP"),
        "{listed}"
    );

    // from another Pod by name and by ClusterIP, as the documents do it
    let cluster_ip = |service: &str| string(&lab.get(&["service", service])["spec"]["clusterIP"]);
    let curl = |target: &str| {
        wait(&format!("an answer from {target}"), || {
            lab.try_exec("node-js-pod", &["curl", "-sS", "--max-time", "3", target])
        })
    };
    for (service, port, pods) in [
        ("node-js-internal", "", &node_js),
        ("node-js-90", ":90", &node_js_90),
        ("node-js-multi", "", &multi),
        ("node-js-multi", ":8888", &multi),
        ("node-js-90.default", ":90", &node_js_90),
        ("node-js-90.default.svc.cluster.local", ":90", &node_js_90),
        // The documents' older form of the name.
        ("node-js-90.default.cluster.local", ":90", &node_js_90),
    ] {
        let by_name = curl(&format!("{service}{port}"));
        assert!(
            names_of(pods).contains(&says(&by_name, "Pod")),
            "{service}{port}: {by_name}"
        );
        let short = service.split('.').next().unwrap_or_default();
        let by_address = curl(&format!("{}{port}", cluster_ip(short)));
        assert!(
            names_of(pods).contains(&says(&by_address, "Pod")),
            "{service}{port}: {by_address}"
        );
    }

    // no NAT between Pods: the server sees the client Pod's own address
    let client = string(&lab.get(&["pod", "node-js-pod"])["status"]["podIP"]);
    let answer = curl(&cluster_ip("node-js-internal"));
    assert!(
        says(&answer, "Client").starts_with(&format!("{client}:")),
        "{answer}"
    );

    // from the host, through every node's port
    for (node, address) in lab.nodes() {
        let at: SocketAddr = format!("{address}:30001").parse().unwrap();
        let pod = wait(&format!("an answer from {node}"), || who(&lab, at));
        assert!(names_of(&node_js).contains(&pod), "{pod}");
    }

    // headless: the name answers with the Pods' addresses
    assert_eq!(
        lab.get(&["service", "node-js-none"])["spec"]["clusterIP"],
        "None"
    );
    let found = lab.exec("node-js-pod", &["getent", "ahostsv4", "node-js-none"]);
    let found: BTreeSet<String> = found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert_eq!(found, addresses_of(&node_js));
    let direct = lab.exec("node-js-pod", &["curl", "-sS", "node-js-none"]);
    assert!(
        names_of(&node_js).contains(&says(&direct, "Pod")),
        "{direct}"
    );

    // the environment of a Pod that started after the Services
    lab.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: late}, spec: {containers: [{name: late, image: seaway/whoami}]}}",
    );
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/late", "--timeout=60s"]);
    let environment = lab.exec("late", &["env"]);
    let address = cluster_ip("node-js-90");
    for line in [
        format!("NODE_JS_90_SERVICE_HOST={address}"),
        "NODE_JS_90_SERVICE_PORT=90".to_owned(),
        format!("NODE_JS_90_PORT=tcp://{address}:90"),
        format!("NODE_JS_90_PORT_90_TCP=tcp://{address}:90"),
        "NODE_JS_90_PORT_90_TCP_PROTO=tcp".to_owned(),
        "NODE_JS_90_PORT_90_TCP_PORT=90".to_owned(),
        format!("NODE_JS_90_PORT_90_TCP_ADDR={address}"),
    ] {
        assert!(
            environment.lines().any(|found| found == line),
            "no {line} in {environment}"
        );
    }

    // logs and describe
    let first = string(&node_js[0]["metadata"]["name"]);
    assert!(!lab.kubectl(&["logs", &first]).is_empty());
    let described = lab.kubectl(&["describe", "service", "node-js-90"]);
    let endpoints = described
        .lines()
        .find(|line| line.starts_with("Endpoints:"))
        .unwrap_or_default();
    for pod in addresses_of(&node_js_90) {
        assert!(endpoints.contains(&format!("{pod}:80")), "{described}");
    }
    let endpoints = lab.kubectl(&["get", "endpoints"]);
    for service in [
        "node-js-internal",
        "node-js-90",
        "node-js-multi",
        "kubernetes",
    ] {
        assert!(endpoints.contains(service), "{endpoints}");
    }
}

#[test]
fn the_spread_follows_the_scale() {
    let host = Host::new();
    let lab = Lab::up(&host);
    lab.create(NODE_JS);
    for manifest in &MANIFESTS[..2] {
        lab.kubectl(&[
            "create",
            "-f",
            &format!("{}/tests/manifests/{manifest}", env!("CARGO_MANIFEST_DIR")),
        ]);
    }
    lab.ready_pods("name=node-js", 3);
    let address = string(&lab.get(&["service", "node-js-internal"])["spec"]["clusterIP"]);
    let at: SocketAddr = format!("{address}:80").parse().unwrap();

    for replicas in [5, 1] {
        lab.kubectl(&["scale", "rc", "node-js", &format!("--replicas={replicas}")]);
        let pods = wait(&format!("{replicas} Pods in the slices"), || {
            let pods = lab.get(&["pods", "-l", "name=node-js"]);
            let ready: Vec<_> = pods["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|pod| is_ready(pod))
                .cloned()
                .collect();
            let in_slices = ready_in_slices(&lab, "node-js-internal");
            if ready.len() == replicas && in_slices == addresses_of(&ready) {
                Ok(ready)
            } else {
                Err(format!("{in_slices:?}"))
            }
        });
        follows(&lab, at, &names_of(&pods));
    }

    // With one Pod left, two nodes run no endpoint; their port answers all the same.
    let pods = lab.ready_pods("name=node-js", 1);
    let home = string(&pods[0]["spec"]["nodeName"]);
    for (node, address) in lab.nodes() {
        let at: SocketAddr = format!("{address}:30001").parse().unwrap();
        let answer = lab
            .host
            .run(|| http(at))
            .unwrap_or_else(|error| panic!("{node}: {error}"));
        assert_eq!(says(&answer, "Node"), home);
    }
}

#[test]
fn a_killed_process_leaves_the_slice_and_comes_back() {
    let host = Host::new();
    let lab = Lab::up(&host);
    lab.create(NODE_JS);
    lab.kubectl(&[
        "create",
        "-f",
        &format!(
            "{}/tests/manifests/{}",
            env!("CARGO_MANIFEST_DIR"),
            MANIFESTS[0]
        ),
    ]);
    let pods = lab.ready_pods("name=node-js", 3);
    let address = string(&lab.get(&["service", "node-js-internal"])["spec"]["clusterIP"]);
    let at: SocketAddr = format!("{address}:80").parse().unwrap();
    wait("three endpoints", || {
        let found = ready_in_slices(&lab, "node-js-internal");
        (found == addresses_of(&pods))
            .then_some(())
            .ok_or(format!("{found:?}"))
    });

    // Ended twice, so that the second restart waits for its back-off (10 s) and stays away long enough to be seen.
    let victim = string(&pods[0]["metadata"]["name"]);
    let gone = string(&pods[0]["status"]["podIP"]);
    for restarts in 1..=2 {
        wait("the Pod to run", || {
            lab.try_exec(&victim, &["kill", "-TERM", "1"])
        });
        if restarts == 1 {
            wait("the first restart", || {
                let pod = lab.get(&["pod", &victim]);
                let count = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
                (count == Some(1) && is_ready(&pod))
                    .then_some(())
                    .ok_or(format!("{count:?}"))
            });
        }
    }
    wait("the Pod out of the slice", || {
        let found = ready_in_slices(&lab, "node-js-internal");
        (!found.contains(&gone))
            .then_some(())
            .ok_or(format!("{found:?}"))
    });
    // The slice says so, and each node hears of it by its own watch: that is all the time there is.
    wait_at_most(Duration::from_secs(1), "only two Pods answer", || {
        let mut answered = BTreeSet::new();
        for _ in 0..30 {
            answered.insert(who(&lab, at)?);
        }
        (answered.len() == 2 && !answered.contains(&victim))
            .then_some(())
            .ok_or(format!("{answered:?}"))
    });
    let until = Instant::now() + Duration::from_secs(2);
    let mut requests = 0;
    while Instant::now() < until && requests < 1000 {
        let pod = who(&lab, at).expect("no request fails once the Pod is out of the slice");
        assert_ne!(pod, victim);
        requests += 1;
    }

    // and it comes back
    wait("the Pod back in the slice", || {
        let found = ready_in_slices(&lab, "node-js-internal");
        found
            .contains(&gone)
            .then_some(())
            .ok_or(format!("{found:?}"))
    });
    wait("the Pod to answer again", || {
        let pod = who(&lab, at)?;
        (pod == victim).then_some(()).ok_or(pod)
    });
    let pod = lab.get(&["pod", &victim]);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 2);
}
