//! Services beyond the documents' walk: UDP, named ports, hairpin, refusals, who needs masquerade, names.

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use support::{Host, Lab, http, says, string, text, wait};

const WEB: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec:
  replicas: 1
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: seaway/whoami
        ports: [{name: http, containerPort: 8080}, {name: echo, containerPort: 5353, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http, nodePort: 30080}
  - {name: echo, port: 53, targetPort: echo, protocol: UDP, nodePort: 30053}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: seaway/host, command: [sleep, "3600"]}]
"#;

fn with_web(host: &Host) -> (Lab<'_>, serde_json::Value, String) {
    let lab = Lab::up(host);
    lab.create(WEB);
    let pod = lab.ready_pods("app=web", 1).remove(0);
    lab.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/client",
        "--timeout=60s",
    ]);
    let address = string(&lab.get(&["service", "web"])["spec"]["clusterIP"]);
    (lab, pod, address)
}

/// One datagram there and back, from the calling thread's namespace.
fn echo(address: SocketAddr) -> Result<(), String> {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .map_err(|error| error.to_string())?;
    socket.connect(address).map_err(|error| error.to_string())?;
    socket
        .send(b"over the sea")
        .map_err(|error| error.to_string())?;
    let mut buffer = [0; 64];
    let length = socket
        .recv(&mut buffer)
        .map_err(|error| error.to_string())?;
    (&buffer[..length] == b"over the sea")
        .then_some(())
        .ok_or("another answer".to_owned())
}

#[test]
fn every_frontend_answers_over_tcp_and_udp() {
    let host = Host::new();
    let (lab, pod, address) = with_web(&host);
    let name = string(&pod["metadata"]["name"]);
    let mut frontends = vec![(format!("{address}:80"), format!("{address}:53"))];
    for (_, node) in lab.nodes() {
        frontends.push((format!("{node}:30080"), format!("{node}:30053")));
    }
    for (tcp, udp) in frontends {
        let answer = wait(&tcp, || host.run(|| http(tcp.parse().expect("an address"))));
        assert_eq!(says(&answer, "Pod"), name);
        wait(&udp, || host.run(|| echo(udp.parse().expect("an address"))));
    }
    // From a node itself, too.
    let said = lab.exec("client", &["curl", "-sS", &format!("http://{address}/")]);
    assert_eq!(says(&said, "Pod"), name);
}

#[test]
fn addresses_are_kept_where_they_can_be() {
    let host = Host::new();
    let (lab, pod, address) = with_web(&host);
    let client = string(&lab.get(&["pod", "client"])["status"]["podIP"]);
    let from_client = |target: &str| {
        let answer = wait(target, || {
            lab.try_exec("client", &["curl", "-sS", "--max-time", "3", target])
        });
        says(&answer, "Client")
            .rsplit_once(':')
            .expect("address:port")
            .0
            .to_owned()
    };
    let pod_address = string(&pod["status"]["podIP"]);
    assert_eq!(
        from_client(&format!("http://{pod_address}:8080/")),
        client,
        "Pod to Pod"
    );
    assert_eq!(
        from_client(&format!("http://{address}/")),
        client,
        "Pod to ClusterIP"
    );

    // Hairpin: a Pod that reaches itself through its Service sees its own request come back.
    let name = string(&pod["metadata"]["name"]);
    let answer = lab.exec(
        &name,
        &[
            "curl",
            "-sS",
            "--max-time",
            "3",
            &format!("http://{address}/"),
        ],
    );
    assert_eq!(says(&answer, "Pod"), name);
    // It must not see its own address as the client's, or it would answer itself past the translation.
    let home = string(&pod["spec"]["nodeName"]);
    let home_address = lab
        .nodes()
        .into_iter()
        .find_map(|(node, address)| (node == home).then_some(address))
        .expect("its node");
    let from_home = format!("{home_address}:");
    assert!(says(&answer, "Client").starts_with(&from_home), "{answer}");

    // Through the port of the Pod's own node, too: that node's address, and no other that it may have.
    let at: SocketAddr = format!("{home_address}:30080").parse().expect("an address");
    let answer = host.run(|| http(at)).expect("an answer");
    assert!(says(&answer, "Client").starts_with(&from_home), "{answer}");

    // From outside through a node without the endpoint: the answer must come back the same way, so that node's
    // address is what the Pod sees.
    let (_, other) = lab
        .nodes()
        .into_iter()
        .find(|(node, _)| *node != home)
        .expect("another node");
    let at: SocketAddr = format!("{other}:30080").parse().expect("an address");
    let answer = host.run(|| http(at)).expect("an answer");
    let seen = says(&answer, "Client");
    assert!(seen.starts_with(&format!("{other}:")), "{seen}");

    // Node to Pod, without NAT: the host stands for a machine beside the cluster.
    let at: SocketAddr = format!("{pod_address}:8080").parse().expect("an address");
    let answer = host.run(|| http(at)).expect("an answer");
    assert!(
        says(&answer, "Client").starts_with(&format!("{}:", lab.host_address())),
        "{answer}"
    );
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let host = Host::new();
    let (lab, _, address) = with_web(&host);
    let (_, node) = lab.nodes().remove(0);
    wait("the Service to answer", || {
        host.run(|| http(format!("{address}:80").parse().expect("an address")))
    });
    lab.kubectl(&["scale", "rc", "web", "--replicas=0"]);
    for target in [format!("{address}:80"), format!("{node}:30080")] {
        wait("a refusal", || {
            match host.run(|| http(target.parse().expect("an address"))) {
                Err(error) if error.contains("refused") => Ok(()),
                other => Err(format!("{target}: {other:?}")),
            }
        });
        let said = lab.try_exec(
            "client",
            &[
                "curl",
                "-sS",
                "--max-time",
                "3",
                &format!("http://{target}/"),
            ],
        );
        let error = said.expect_err("no endpoint");
        assert!(
            error.contains("refused")
                || error.contains("Could not connect")
                || error.contains("Couldn't connect"),
            "{error}"
        );
    }
    lab.kubectl(&["scale", "rc", "web", "--replicas=1"]);
    wait("the Service to answer again", || {
        host.run(|| http(format!("{address}:80").parse().expect("an address")))
    });
    lab.kubectl(&["delete", "service", "web"]);
    wait("the node port to be closed", || {
        match host.run(|| http(format!("{node}:30080").parse().expect("an address"))) {
            Err(_) => Ok(()),
            Ok(answer) => Err(answer),
        }
    });
}

#[test]
fn ones_own_endpoints_serve_a_service_without_selector() {
    let host = Host::new();
    let (lab, pod, _) = with_web(&host);
    let pod_address = string(&pod["status"]["podIP"]);
    lab.create(&format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: by-slice}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: by-slice-1, labels: {{kubernetes.io/service-name: by-slice}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [{pod_address}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: by-endpoints}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: v1
kind: Endpoints
metadata: {{name: by-endpoints}}
subsets: [{{addresses: [{{ip: {pod_address}}}], ports: [{{name: http, port: 8080}}]}}]
"#
    ));
    for service in ["by-slice", "by-endpoints"] {
        let answer = wait(service, || {
            lab.try_exec(
                "client",
                &[
                    "curl",
                    "-sS",
                    "--max-time",
                    "3",
                    &format!("http://{service}/"),
                ],
            )
        });
        assert_eq!(says(&answer, "Pod"), string(&pod["metadata"]["name"]));
    }
}

#[test]
fn names_are_answered_as_kubernetes_names_them() {
    let host = Host::new();
    let (lab, pod, address) = with_web(&host);
    lab.create("{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}}");
    let server = format!("@{}", lab.cluster_ip("kube-system", "kube-dns"));
    let dig = |arguments: &[&str]| {
        let output = host
            .command("dig")
            .args([server.as_str(), "+tries=1", "+time=2"])
            .args(arguments)
            .output()
            .expect("dig");
        text(&output.stdout)
    };
    let short = |name: &str, kind: &str| dig(&["+short", name, kind]);
    wait("the Service's name", || {
        let found = short("web.default.svc.cluster.local", "A");
        (found.trim() == address).then_some(()).ok_or(found)
    });
    let pod_address = string(&pod["status"]["podIP"]);
    wait("the headless Service's name", || {
        let found = short("headless.default.svc.cluster.local", "A");
        (found.trim() == pod_address).then_some(()).ok_or(found)
    });
    let srv = short("_http._tcp.web.default.svc.cluster.local", "SRV");
    assert!(srv.contains(" 80 web.default.svc.cluster.local."), "{srv}");
    assert!(dig(&["nothing.default.svc.cluster.local"]).contains("status: NXDOMAIN"));
    assert!(
        dig(&["www.example.org"]).contains("status: NXDOMAIN"),
        "without --internet nothing else has a name"
    );
    let nodata = dig(&["web.default.svc.cluster.local", "AAAA"]);
    assert!(
        nodata.contains("status: NOERROR") && nodata.contains("ANSWER: 0"),
        "{nodata}"
    );
    // Over TCP, and on every node by the same address: from Pods on each.
    assert_eq!(
        dig(&["+short", "+tcp", "web.default.svc.cluster.local"]).trim(),
        address
    );
    lab.kubectl(&["scale", "rc", "web", "--replicas=3"]);
    for pod in lab.ready_pods("app=web", 3) {
        let name = string(&pod["metadata"]["name"]);
        let found = lab.exec(&name, &["getent", "ahostsv4", "web"]);
        assert!(found.starts_with(&address), "{name}: {found}");
    }
}

#[test]
fn the_ruleset_reads_well_and_leaves_others_alone() {
    let host = Host::new();
    let (lab, _, address) = with_web(&host);
    let status = lab.status();
    assert_eq!(
        status["nodes"].as_array().map(Vec::len),
        Some(3),
        "{status}"
    );
    // A node's ruleset, as an operator on that node sees it: from a Pod on the node's own network.
    lab.create("{apiVersion: v1, kind: Pod, metadata: {name: operator}, spec: {terminationGracePeriodSeconds: 1, hostNetwork: true, containers: [{name: c, image: seaway/host, command: [sleep, '3600'], securityContext: {privileged: true}}]}}");
    lab.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/operator",
        "--timeout=60s",
    ]);
    lab.exec("operator", &["nft", "add table ip others; add chain ip others c { type filter hook input priority 0; }; add rule ip others c meta mark 7 counter"]);
    let before = lab.exec("operator", &["nft", "list", "table", "ip", "others"]);
    let ruleset = lab.exec("operator", &["nft", "list", "ruleset"]);
    assert!(
        ruleset.contains(&address) && ruleset.contains("default/web:http"),
        "{ruleset}"
    );
    lab.kubectl(&["scale", "rc", "web", "--replicas=2"]);
    lab.ready_pods("app=web", 2);
    assert_eq!(
        lab.exec("operator", &["nft", "list", "table", "ip", "others"]),
        before
    );
}
