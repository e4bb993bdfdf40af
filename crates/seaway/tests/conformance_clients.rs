//! Programs on the two client libraries that this project does not write: PyPI's `kubernetes` (`python/client.py`) and
//! kube-rs. What they do against a lab is what they do against any cluster.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config as Watching, Event, InitialListStrategy};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use support::{Host, LIMIT, Lab};

/// Runs a program on kube-rs where the lab is.
fn with_client<T: Send>(
    host: &Host,
    lab: &Lab<'_>,
    program: impl AsyncFn(Client) -> T + Send + Sync,
) -> T {
    let kubeconfig = lab.kubeconfig();
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            seaway_lab::client::install_tls();
            let client = seaway_lab::client::from_kubeconfig(&kubeconfig)
                .await
                .unwrap();
            tokio::time::timeout(LIMIT * 2, program(client))
                .await
                .unwrap()
        })
    })
}

/// A Python that has the client; it is installed if it is not there.
fn python() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let output = Command::new(here.join("install"))
        .arg(target)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "PyPI's client cannot be installed (is python3-venv there, and a way to PyPI?): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

#[test]
fn a_python_program_finds_kubernetes() {
    let python = python();
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    let parts = [
        "crud",
        "patches",
        "apply",
        "watches",
        "dynamically",
        "tables",
        "elections",
        "execs",
        "forwards",
    ];
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/client.py");
    let output = host
        .command(python.to_str().unwrap())
        .arg(program)
        .arg(lab.kubeconfig())
        .args(parts)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // How long each part took.
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    let expected: Vec<String> = parts.iter().map(|part| format!("ok {part}")).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_reflector_holds_what_is_there_over_changes_and_a_restart() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    with_client(&host, &lab, async |client| {
        let services: Api<Service> = Api::default_namespaced(client.clone());
        for strategy in [
            InitialListStrategy::ListWatch,
            InitialListStrategy::StreamingList,
        ] {
            let (store, writer) = reflector::store();
            let watching = Watching {
                initial_list_strategy: strategy.clone(),
                ..Watching::default().labels("of=reflector")
            };
            let stream = watcher(services.clone(), watching)
                .default_backoff()
                .reflect(writer)
                .applied_objects();
            let running = tokio::spawn(stream.for_each(|_| std::future::ready(())));
            store.wait_until_ready().await.unwrap();
            let names = || {
                let mut names: Vec<String> = store.state().iter().map(|s| s.name_any()).collect();
                names.sort();
                names
            };
            for name in ["a", "b", "c"] {
                let service: Service = serde_json::from_value(json!({
                    "metadata": {"name": name, "labels": {"of": "reflector"}},
                    "spec": {"ports": [{"port": 80}]},
                }))
                .unwrap();
                services
                    .create(&PostParams::default(), &service)
                    .await
                    .unwrap();
            }
            until(|| names() == ["a", "b", "c"]).await;
            services
                .delete("b", &DeleteParams::default())
                .await
                .unwrap();
            // Without its label it is no more one of these.
            let unlabel = Patch::Merge(json!({"metadata": {"labels": {"of": null}}}));
            services
                .patch("c", &PatchParams::default(), &unlabel)
                .await
                .unwrap();
            until(|| names() == ["a"]).await;
            running.abort();
            for name in ["a", "c"] {
                services
                    .delete(name, &DeleteParams::default())
                    .await
                    .unwrap();
            }
        }
    });
}

#[test]
fn a_watch_of_metadata_and_pages_of_a_list_serve_kube_rs() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    with_client(&host, &lab, async |client| {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        for n in 0..25 {
            let map: ConfigMap = serde_json::from_value(
                json!({"metadata": {"name": format!("m{n:02}"), "labels": {"of": "pages"}}, "data": {"n": n.to_string()}}),
            )
            .unwrap();
            maps.create(&PostParams::default(), &map).await.unwrap();
        }
        // Its list comes in pages, too.
        let small = Watching {
            page_size: Some(4),
            ..Watching::default().labels("of=pages")
        };
        let partial: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(client.clone());
        let events = watcher(partial, small);
        let mut names = Vec::new();
        futures::pin_mut!(events);
        while let Some(event) = events.try_next().await.unwrap() {
            match event {
                Event::InitApply(object) => names.push(object.name_any()),
                Event::InitDone => break,
                _ => {}
            }
        }
        let expected: Vec<String> = (0..25).map(|n| format!("m{n:02}")).collect();
        assert_eq!(names, expected);

        let mut page = ListParams::default().labels("of=pages").limit(10);
        let mut seen = Vec::new();
        loop {
            let list = maps.list(&page).await.unwrap();
            seen.extend(list.items.iter().map(ResourceExt::name_any));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        assert_eq!(seen, expected);
        maps.delete_collection(
            &DeleteParams::default(),
            &ListParams::default().labels("of=pages"),
        )
        .await
        .unwrap();
    });
}

#[test]
fn two_managers_apply_from_kube_rs_and_one_has_to_force() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    with_client(&host, &lab, async |client| {
        let services: Api<Service> = Api::default_namespaced(client.clone());
        let apply = async |manager: &str, force: bool, spec: serde_json::Value| {
            let mut options = PatchParams::apply(manager);
            options.force = force;
            let wanted = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "applied"}, "spec": spec});
            services
                .patch("applied", &options, &Patch::Apply(wanted))
                .await
        };
        let http = json!({"name": "http", "port": 80, "protocol": "TCP"});
        let https = json!({"name": "https", "port": 443, "protocol": "TCP"});
        apply("ports", false, json!({"ports": [http, https]}))
            .await
            .unwrap();
        let both = apply("selector", false, json!({"selector": {"app": "a"}}))
            .await
            .unwrap();
        let spec = both.spec.unwrap();
        assert_eq!(spec.ports.unwrap().len(), 2);
        assert_eq!(spec.selector.unwrap()["app"], "a");

        let other = json!({"ports": [{"name": "web", "port": 80, "protocol": "TCP"}]});
        let Err(kube::Error::Api(conflict)) = apply("other", false, other.clone()).await else {
            panic!("nobody refused");
        };
        assert_eq!((conflict.code, conflict.reason.as_str()), (409, "Conflict"));
        assert!(
            conflict.message.contains("\"ports\""),
            "{}",
            conflict.message
        );
        let forced = apply("other", true, other)
            .await
            .unwrap()
            .spec
            .unwrap()
            .ports
            .unwrap();
        let names: Vec<_> = forced
            .iter()
            .filter_map(|port| port.name.as_deref())
            .collect();
        assert_eq!(names, ["web", "https"]);

        // What its only manager applies no more goes; what others have too stays.
        let less = apply("ports", true, json!({"ports": [http]}))
            .await
            .unwrap();
        assert_eq!(less.spec.unwrap().ports.unwrap().len(), 1);
        let managers: Vec<String> = less
            .metadata
            .managed_fields
            .unwrap_or_default()
            .into_iter()
            .filter_map(|entry| entry.manager)
            .collect();
        assert!(managers.iter().any(|m| m == "ports") && managers.iter().any(|m| m == "selector"));
    });
}

/// How long a leader leads without saying so again.
const TERM: Duration = Duration::from_millis(1500);

/// Tries to lead, and tells whether it does. A write happens only on what was read, so of two who try at the same time one
/// is refused. Source: `k8s.io/client-go/tools/leaderelection`.
async fn lead(leases: &Api<Lease>, me: &str) -> bool {
    let now = Timestamp::now();
    let spec = json!({
        "holderIdentity": me,
        "leaseDurationSeconds": 2,
        "renewTime": format!("{now:.6}"),
    });
    let Some(mut lease) = leases.get_opt("leader").await.unwrap() else {
        let lease =
            serde_json::from_value(json!({"metadata": {"name": "leader"}, "spec": spec})).unwrap();
        return match leases.create(&PostParams::default(), &lease).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 409 => false,
            Err(error) => panic!("{error}"),
        };
    };
    let held = lease.spec.clone().unwrap_or_default();
    let renewed = held
        .renew_time
        .map(|time| time.0)
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let age = Duration::try_from(now.duration_since(renewed)).unwrap_or_default();
    if held.holder_identity.as_deref() != Some(me) && age < TERM {
        return false;
    }
    lease.spec = serde_json::from_value(spec).unwrap();
    match leases
        .replace("leader", &PostParams::default(), &lease)
        .await
    {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 409 => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn of_many_contenders_for_a_lease_one_leads_and_when_it_is_gone_another_does() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    with_client(&host, &lab, async |client| {
        let leases: Api<Lease> = Api::default_namespaced(client.clone());
        // All at once: exactly one of them.
        let first: Vec<String> = (0..8).map(|n| format!("contender-{n}")).collect();
        let won = futures::future::join_all(first.iter().map(|me| lead(&leases, me))).await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        let leader = &first[won.iter().position(|won| *won).unwrap()];

        // It leads for as long as it says so, whoever else tries.
        let since = std::time::Instant::now();
        while since.elapsed() < TERM * 2 {
            assert!(lead(&leases, leader).await);
            let others = first.iter().filter(|me| *me != leader);
            let won = futures::future::join_all(others.map(|me| lead(&leases, me))).await;
            assert!(won.iter().all(|won| !won));
        }

        // It is gone. The others find out and contend, and again exactly one of them leads.
        let leading = Arc::new(AtomicUsize::new(0));
        let others: Vec<&String> = first.iter().filter(|me| *me != leader).collect();
        let next = until_some(async || {
            let won = futures::future::join_all(others.iter().map(|me| lead(&leases, me))).await;
            leading.fetch_max(won.iter().filter(|won| **won).count(), Ordering::Relaxed);
            won.iter()
                .position(|won| *won)
                .map(|index| others[index].clone())
        })
        .await;
        assert_eq!(leading.load(Ordering::Relaxed), 1, "never two");
        assert!(!lead(&leases, leader).await, "who was gone does not lead");
        let holder = leases
            .get("leader")
            .await
            .unwrap()
            .spec
            .unwrap()
            .holder_identity;
        assert_eq!(holder.as_ref(), Some(&next));
    });
}

async fn until(condition: impl Fn() -> bool) {
    until_some(async || condition().then_some(())).await;
}

async fn until_some<T>(condition: impl AsyncFn() -> Option<T>) -> T {
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
