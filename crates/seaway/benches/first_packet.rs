//! How long until a change is in force, and what the lab costs, at 0, 1,000 and 10,000 other Services.
//!
//! `cargo bench -p seaway` as root. Everything happens in a network namespace without a way out. Prints tables;
//! it judges nothing: the ratio between the sizes is what to look at, and it should stay near 1.

#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use support::{Host, Lab, http, says, string};

/// Other Services at each step, each with one slice of three endpoints.
const SIZES: [usize; 3] = [0, 1_000, 10_000];
/// Changes measured at each size.
const CHANGES: usize = 30;
/// Times that a lab is started.
const STARTS: usize = 5;
/// Longest wait for one change.
const LIMIT: Duration = Duration::from_secs(10);

fn main() {
    // `cargo test --benches` runs benches too, with `--test`; a benchmark proves nothing there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let host = Host::new();
    starts(&host);
    changes(&host);
}

fn starts(host: &Host) {
    let mut ready = Vec::new();
    for _ in 0..STARTS {
        let lab = Lab::prepare(host);
        let since = Instant::now();
        lab.start(&[]);
        ready.push(since.elapsed());
    }
    println!(
        "\n`seaway up` with 3 nodes, from exec to every node Ready ({STARTS} times, new data each time)"
    );
    println!("{}", summary(&mut ready));
}

fn changes(host: &Host) {
    let lab = Lab::up(host);
    lab.create(
        r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec:
  replicas: 2
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: seaway/whoami, ports: [{containerPort: 80}]}]}
"#,
    );
    let pods: Vec<(String, String)> = lab
        .ready_pods("app=web", 2)
        .iter()
        .map(|pod| {
            (
                string(&pod["metadata"]["name"]),
                string(&pod["status"]["podIP"]),
            )
        })
        .collect();
    let kubeconfig = lab.kubeconfig();
    let mut rows = Vec::new();
    let mut memory = Vec::new();
    for size in SIZES {
        let (new, changed) = host.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                seaway_lab::client::install_tls();
                let client = seaway_lab::client::from_kubeconfig(&kubeconfig)
                    .await
                    .expect("a client");
                fill(&client, size).await;
                measure(&client, &pods).await
            })
        });
        rows.push((size, new, changed));
        memory.push((size, resident(&lab.name)));
    }
    println!(
        "\nFrom the API's acknowledgement to the first answer, from the host through node-1 ({CHANGES} changes each)"
    );
    println!(
        "{:>14}  {:<44} {:<44}",
        "other Services", "new Service", "endpoint replaced"
    );
    let mut first: Option<(Duration, Duration)> = None;
    for (size, mut new, mut changed) in rows {
        let line = (summary(&mut new), summary(&mut changed));
        let medians = (new[new.len() / 2], changed[changed.len() / 2]);
        let base = *first.get_or_insert(medians);
        println!(
            "{size:>14}  {:<44} {:<44} ratio to none: {:.2} and {:.2}",
            line.0,
            line.1,
            medians.0.as_secs_f64() / base.0.as_secs_f64(),
            medians.1.as_secs_f64() / base.1.as_secs_f64()
        );
    }
    println!("\nResident memory of each process in MiB");
    for (size, processes) in memory {
        let said: Vec<String> = processes
            .iter()
            .map(|(name, kib)| format!("{name} {:.1}", *kib as f64 / 1024.0))
            .collect();
        println!("{size:>14}  {}", said.join("  "));
    }
}

/// Brings the number of other Services up to `size`.
async fn fill(client: &kube::Client, size: usize) {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    futures::stream::iter(0..size)
        .for_each_concurrent(16, |n| {
            let (services, slices) = (services.clone(), slices.clone());
            async move {
                let name = format!("other-{n}");
                let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"name": "http", "port": 80}]}});
                let created = services.create(&PostParams::default(), &serde_json::from_value(service).expect("a Service")).await;
                if matches!(&created, Err(kube::Error::Api(status)) if status.code == 409) {
                    return;
                }
                created.expect("create a Service");
                // 192.0.2.0/24 is for documentation (RFC 5737); nothing is ever sent there.
                let addresses: Vec<_> = (1..=3).map(|i| json!({"addresses": [format!("192.0.2.{i}")]})).collect();
                slices.create(&PostParams::default(), &slice(&name, &name, &json!(addresses))).await.expect("create a slice");
            }
        })
        .await;
}

fn slice(name: &str, service: &str, endpoints: &serde_json::Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80}],
        "endpoints": endpoints,
    }))
    .expect("a slice")
}

/// Acknowledgement to first answer: of a new Service, and of an endpoint that replaces another.
async fn measure(
    client: &kube::Client,
    pods: &[(String, String)],
) -> (Vec<Duration>, Vec<Duration>) {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for n in 0..CHANGES {
        let name = format!("measured-{n}");
        let endpoint = |pod: usize| json!([{"addresses": [pods[pod].1]}]);
        slices
            .create(&PostParams::default(), &slice(&name, &name, &endpoint(0)))
            .await
            .expect("create a slice");
        let service =
            json!({"metadata": {"name": name}, "spec": {"ports": [{"name": "http", "port": 80}]}});
        let service = services
            .create(
                &PostParams::default(),
                &serde_json::from_value(service).expect("a Service"),
            )
            .await
            .expect("create a Service");
        let since = Instant::now();
        let address = service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .expect("an address");
        let at: SocketAddr = format!("{address}:80").parse().expect("an address");
        new.push(until_answered_by(at, &pods[0].0, since));

        let patch = json!({"endpoints": endpoint(1)});
        slices
            .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("change a slice");
        let since = Instant::now();
        changed.push(until_answered_by(at, &pods[1].0, since));
        services
            .delete(&name, &DeleteParams::default())
            .await
            .expect("delete the Service");
        slices
            .delete(&name, &DeleteParams::default())
            .await
            .expect("delete the slice");
    }
    (new, changed)
}

fn until_answered_by(at: SocketAddr, pod: &str, since: Instant) -> Duration {
    loop {
        if http(at).is_ok_and(|answer| says(&answer, "Pod") == pod) {
            return since.elapsed();
        }
        assert!(
            since.elapsed() < LIMIT,
            "{at} is not answered by {pod} within {LIMIT:?}"
        );
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Minimum, median, 9th decile and maximum; sorts.
fn summary(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 10].as_secs_f64() * 1e3;
    format!(
        "min {:.1}  median {:.1}  p90 {:.1}  max {:.1} ms",
        at(0),
        at(5),
        at(9),
        at(10)
    )
}

/// Name → resident KiB of the lab's long-lived processes.
fn resident(lab: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(line) = std::fs::read_to_string(entry.path().join("cmdline")) else {
            continue;
        };
        let words: Vec<&str> = line.split('\0').collect();
        if !line.contains(lab) || words.get(1) != Some(&"internal") {
            continue;
        }
        let name = match (words.get(2), words.get(3)) {
            (Some(&"agent"), Some(path)) => path
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .trim_end_matches(".json")
                .to_owned(),
            (Some(&"lab-init"), _) => "supervisor".to_owned(),
            (Some(&"control-plane"), _) => "control-plane".to_owned(),
            _ => continue,
        };
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        found.push((name, kib.unwrap_or_default()));
    }
    found.sort();
    found
}
