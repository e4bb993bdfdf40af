//! The whole proxy: a Kubernetes API that the test plays, the kernel of a namespace, and real connections.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use seaway_service_proxy::{Config, cleanup, run};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use world::{World, tcp};

const PATIENCE: Duration = Duration::from_secs(20);

type AnyBody = UnsyncBoxBody<Bytes, Infallible>;
type Watch = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

/// An API server with three kinds: lists, and watches that show what the test puts.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<Objects>>);

#[derive(Default)]
struct Objects {
    /// By plural and name.
    objects: BTreeMap<(String, String), Value>,
    watches: HashMap<String, Vec<Watch>>,
    revision: u64,
}

impl Api {
    fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.0.lock().unwrap();
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let old = state
            .objects
            .insert((plural.to_owned(), name), object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        state.tell(plural, &json!({"type": kind, "object": object}));
    }

    fn delete(&self, plural: &str, name: &str) {
        let mut state = self.0.lock().unwrap();
        state.revision += 1;
        let object = state
            .objects
            .remove(&(plural.to_owned(), name.to_owned()))
            .unwrap();
        state.tell(plural, &json!({"type": "DELETED", "object": object}));
    }

    /// Deletes an object without telling, and says that the watch lost history: as after a long disconnection.
    fn delete_unseen(&self, plural: &str, name: &str) {
        let mut state = self.0.lock().unwrap();
        state.revision += 1;
        state
            .objects
            .remove(&(plural.to_owned(), name.to_owned()))
            .unwrap();
        let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired",
            "message": "too old resource version", "code": 410});
        state.tell(plural, &json!({"type": "ERROR", "object": gone}));
        state.watches.remove(plural);
    }

    fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: hyper::Request<Body>| {
            let response = api.answer(request.uri());
            async move { Ok::<_, Infallible>(response) }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, uri: &hyper::Uri) -> hyper::Response<AnyBody> {
        let mut state = self.0.lock().unwrap();
        let plural = uri.path().rsplit('/').next().unwrap().to_owned();
        if uri.query().unwrap_or_default().contains("watch=true") {
            let (sender, receiver) = mpsc::unbounded();
            // What was put since the list that the watch goes on from.
            let from = uri.query().unwrap_or_default().split('&');
            let from: u64 = from
                .filter_map(|part| part.strip_prefix("resourceVersion="))
                .find_map(|revision| revision.parse().ok())
                .unwrap_or(0);
            let newer = |object: &&Value| {
                let revision = object["metadata"]["resourceVersion"].as_str();
                revision.and_then(|text| text.parse().ok()) > Some(from)
            };
            for ((of, _), object) in &state.objects {
                if *of == plural && newer(&object) {
                    let line = json!({"type": "MODIFIED", "object": object}).to_string() + "\n";
                    let _ = sender.unbounded_send(Ok(Frame::data(line.into())));
                }
            }
            state.watches.entry(plural).or_default().push(sender);
            return hyper::Response::new(StreamBody::new(receiver).boxed_unsync());
        }
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|((of, _), _)| *of == plural)
            .map(|(_, object)| object)
            .collect();
        let list =
            json!({"metadata": {"resourceVersion": state.revision.to_string()}, "items": items});
        hyper::Response::new(Full::from(list.to_string()).boxed_unsync())
    }
}

impl Objects {
    fn tell(&mut self, plural: &str, event: &Value) {
        let line = Bytes::from(event.to_string() + "\n");
        for watch in self.watches.get_mut(plural).into_iter().flatten() {
            let _ = watch.unbounded_send(Ok(Frame::data(line.clone())));
        }
    }
}

fn service(address: &str) -> Value {
    json!({
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"clusterIP": address, "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
    })
}

fn slice(endpoints: &[&str]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|ip| json!({"addresses": [ip]}))
        .collect();
    json!({
        "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
    })
}

fn node(range: &str) -> Value {
    let addresses =
        ["192.0.2.1", "10.87.0.1"].map(|ip| json!({"type": "InternalIP", "address": ip}));
    json!({"metadata": {"name": "node-1"}, "spec": {"podCIDRs": [range]}, "status": {"addresses": addresses}})
}

/// Waits until a new connection has this answer: the Pod's name and the source that it saw, or an error.
fn wait_for(world: &World, from: &str, target: &str, expected: Result<(&str, &str), ErrorKind>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = world
            .run(from, || tcp(target))
            .map_err(|error| error.kind());
        let found = answer
            .as_ref()
            .map(|(who, source)| (who.as_str(), source.as_str()));
        if found.map_err(|kind| *kind) == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{from} to {target}: {answer:?}, not {expected:?}"
        );
        std::thread::yield_now();
    }
}

/// Runs the proxy on the node while `play` changes the cluster.
fn with_proxy(world: &World, api: &Api, play: impl FnOnce()) {
    let shutdown = CancellationToken::new();
    let config = Config {
        service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
        health_address: Some("0.0.0.0:10256".parse().unwrap()),
        ..Config::new("node-1")
    };
    std::thread::scope(|scope| {
        let proxy = scope.spawn(|| {
            world.run("node", || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async { run(api.client(), config, shutdown.clone()).await })
            })
        });
        let stop = shutdown.clone().drop_guard();
        play();
        drop(stop);
        proxy.join().unwrap().unwrap();
    });
}

#[test]
fn the_forwarding_follows_the_cluster() {
    let world = World::new();
    world.serve_all();
    let api = Api::default();
    api.put("services", service("10.96.0.7"));
    api.put("endpointslices", slice(&["10.244.0.3"]));
    with_proxy(&world, &api, || {
        // No Node object yet: nobody's address is known to be a Pod's.
        wait_for(&world, "pod-a", "10.96.0.7:80", Ok(("pod-b", "10.244.0.1")));
        // Nor is it known at which addresses node ports answer.
        wait_for(
            &world,
            "client",
            "192.0.2.1:30080",
            Err(ErrorKind::ConnectionRefused),
        );
        api.put("nodes", node("10.244.0.0/24"));
        wait_for(
            &world,
            "client",
            "192.0.2.1:30080",
            Ok(("pod-b", "10.244.0.1")),
        );
        wait_for(&world, "pod-a", "10.96.0.7:80", Ok(("pod-b", "10.244.0.2")));
        api.put("endpointslices", slice(&["10.244.1.2"]));
        wait_for(
            &world,
            "pod-a",
            "10.96.0.7:80",
            Ok(("remote", "10.244.0.2")),
        );
        api.put("endpointslices", slice(&[]));
        wait_for(
            &world,
            "pod-a",
            "10.96.0.7:80",
            Err(ErrorKind::ConnectionRefused),
        );
        api.put("endpointslices", slice(&["10.244.0.3"]));
        api.put("services", service("10.96.0.8"));
        wait_for(&world, "pod-a", "10.96.0.8:80", Ok(("pod-b", "10.244.0.2")));
        wait_for(
            &world,
            "pod-a",
            "10.96.0.7:80",
            Err(ErrorKind::ConnectionRefused),
        );
        api.delete("services", "web");
        wait_for(
            &world,
            "pod-a",
            "10.96.0.8:80",
            Err(ErrorKind::ConnectionRefused),
        );
    });
    // The rules stay when the proxy ends, so that it can be exchanged.
    assert!(world.nft(&["list", "tables"]).contains("seaway-proxy"));
    world.run("node", cleanup).unwrap();
    assert_eq!(world.nft(&["list", "ruleset"]), "");
}

#[test]
fn what_was_deleted_while_the_proxy_was_cut_off_or_away_is_gone_afterwards() {
    let world = World::new();
    world.serve_all();
    let api = Api::default();
    api.put("nodes", node("10.244.0.0/24"));
    api.put("services", service("10.96.0.7"));
    api.put("endpointslices", slice(&["10.244.0.3"]));
    with_proxy(&world, &api, || {
        wait_for(&world, "pod-a", "10.96.0.7:80", Ok(("pod-b", "10.244.0.2")));
        api.delete_unseen("services", "web");
        wait_for(
            &world,
            "pod-a",
            "10.96.0.7:80",
            Err(ErrorKind::ConnectionRefused),
        );
        api.put("services", service("10.96.0.7"));
        wait_for(&world, "pod-a", "10.96.0.7:80", Ok(("pod-b", "10.244.0.2")));
    });
    wait_for(&world, "pod-a", "10.96.0.7:80", Ok(("pod-b", "10.244.0.2")));
    api.delete("services", "web");
    with_proxy(&world, &api, || {
        wait_for(
            &world,
            "pod-a",
            "10.96.0.7:80",
            Err(ErrorKind::ConnectionRefused),
        );
    });
}

#[test]
fn damage_by_others_is_repaired() {
    let world = World::new();
    world.serve_all();
    let api = Api::default();
    api.put("nodes", node("10.244.0.0/24"));
    api.put("services", service("10.96.0.7"));
    api.put("endpointslices", slice(&["10.244.0.3"]));
    with_proxy(&world, &api, || {
        wait_for(&world, "pod-a", "10.96.0.7:80", Ok(("pod-b", "10.244.0.2")));
        // Noticed by looking.
        world.nft(&["flush ruleset"]);
        wait_for(&world, "pod-a", "10.96.0.7:80", Ok(("pod-b", "10.244.0.2")));
        // Noticed because the next change cannot be made.
        world.nft(&["flush ruleset"]);
        api.put("endpointslices", slice(&["10.244.1.2"]));
        wait_for(
            &world,
            "pod-a",
            "10.96.0.7:80",
            Ok(("remote", "10.244.0.2")),
        );
    });
}

/// The answer's code and body.
fn http(world: &World, target: &str, path: &str) -> Option<(u16, String)> {
    use std::io::{Read as _, Write as _};
    world.run("client", || {
        let mut stream = std::net::TcpStream::connect(target).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let code = text.split(' ').nth(1)?.parse().ok()?;
        let (_, body) = text.split_once("\r\n\r\n")?;
        Some((code, body.to_owned()))
    })
}

#[test]
fn load_balancers_are_told_where_the_endpoints_are() {
    let world = World::new();
    world.serve_all();
    let api = Api::default();
    api.put("nodes", node("10.244.0.0/24"));
    let mut service = service("10.96.0.7");
    service["spec"]["externalTrafficPolicy"] = json!("Local");
    service["spec"]["healthCheckNodePort"] = json!(31999);
    let slice = |node: &str| {
        let mut slice = slice(&["10.244.0.3"]);
        slice["endpoints"][0]["nodeName"] = json!(node);
        slice
    };
    let is = |what: &str, target: &str, path: &str, code: Option<u16>, body: &str| {
        seaway_testkit::wait_until(what, PATIENCE, || {
            let answer = http(&world, target, path);
            let right = answer.as_ref().map(|(code, _)| *code) == code
                && answer.as_ref().is_none_or(|(_, text)| text.contains(body));
            right.then_some(()).ok_or(format!("{answer:?}"))
        });
    };
    let port = "192.0.2.1:31999";
    with_proxy(&world, &api, || {
        is(
            "the proxy is ready",
            "192.0.2.1:10256",
            "/healthz",
            Some(200),
            "true",
        );
        api.put("services", service.clone());
        api.put("endpointslices", slice("node-1"));
        is(
            "an endpoint here",
            port,
            "/",
            Some(200),
            "\"localEndpoints\": 1",
        );
        api.put("endpointslices", slice("node-2"));
        is("none here", port, "/", Some(503), "\"localEndpoints\": 0");
        api.delete("services", "web");
        is("no Service", port, "/", None, "");
        // A node that is about to go takes no new traffic from outside.
        let mut going = node("10.244.0.0/24");
        going["spec"]["taints"] =
            json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
        api.put("nodes", going);
        let own = "192.0.2.1:10256";
        is(
            "the node goes",
            own,
            "/healthz",
            Some(503),
            "\"nodeEligible\": false",
        );
        is("and the proxy works", own, "/livez", Some(200), "true");
    });
}
