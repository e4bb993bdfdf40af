//! From the API server to an answer: `run` with a client whose API server is a function. The right things are asked for,
//! what a watch brings is followed, the loss of it is survived, and all ends when told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::base::iana::Rcode;
use domain::base::{Message, Rtype};
use domain::rdata::A;
use futures::channel::mpsc::{self, UnboundedSender};
use futures::{StreamExt, future};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cluster::{config, query, service};

/// Longest wait for something that must come; a lost watch comes back after a pause of a second or so.
const PATIENCE: Duration = Duration::from_secs(30);

/// An API server of three lists. Dropping the sender of a watch breaks it off.
#[derive(Clone, Default)]
struct ApiServer {
    lists: Arc<Mutex<HashMap<&'static str, Vec<Value>>>>,
    watches: Arc<Mutex<HashMap<String, UnboundedSender<Value>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ApiServer {
    fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request: Request<Body>| {
            future::ready(Ok::<_, Infallible>(server.answer(&request)))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    fn answer(&self, request: &Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let (path, parameters) = (
            request.uri().path().to_owned(),
            request.uri().query().unwrap_or_default(),
        );
        self.asked
            .lock()
            .unwrap()
            .push(format!("{path}?{parameters}"));
        if parameters.contains("watch=true") {
            let (sender, events) = mpsc::unbounded::<Value>();
            self.watches.lock().unwrap().insert(path, sender);
            let frames = events
                .map(|event| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))));
            return Response::new(StreamBody::new(frames).boxed_unsync());
        }
        let items = self
            .lists
            .lock()
            .unwrap()
            .get(path.as_str())
            .cloned()
            .unwrap_or_default();
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
        Response::new(Full::from(list.to_string()).boxed_unsync())
    }

    fn set(&self, path: &'static str, items: &[Value]) {
        self.lists.lock().unwrap().insert(path, items.to_vec());
    }

    fn send(&self, path: &str, event: &Value) {
        wait_until(|| self.watches.lock().unwrap().contains_key(path));
        self.watches.lock().unwrap()[path]
            .unbounded_send(event.clone())
            .unwrap();
    }

    fn break_off(&self, path: &str) {
        wait_until(|| self.watches.lock().unwrap().remove(path).is_some());
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "the condition never came");
        std::thread::yield_now();
    }
}

fn ask(server: SocketAddr, name: &str) -> (Rcode, Vec<String>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server).unwrap();
    let mut reply = vec![0; 2048];
    // Until the server has its sockets, the kernel says that nobody is there.
    let length = (0..100_000)
        .find_map(|_| {
            socket.send(&query(name, Rtype::A)).ok()?;
            socket.recv(&mut reply).ok()
        })
        .expect("a reply comes");
    let reply = Message::from_octets(&reply[..length]).unwrap();
    let records = reply.answer().unwrap().limit_to_in::<A>();
    (
        reply.header().rcode(),
        records
            .map(|record| record.unwrap().data().addr().to_string())
            .collect(),
    )
}

fn with_meta(mut object: Value, kind: &str) -> Value {
    object["apiVersion"] = "v1".into();
    object["kind"] = kind.into();
    object["metadata"]["resourceVersion"] = "2".into();
    object
}

fn cart(address: &str) -> Value {
    with_meta(
        service("shop", "cart", json!({"clusterIP": address})),
        "Service",
    )
}

#[test]
fn what_the_api_says_is_what_clients_hear() {
    let api = ApiServer::default();
    api.set("/api/v1/services", &[cart("10.96.0.1")]);
    api.set(
        "/api/v1/namespaces",
        &[with_meta(
            json!({"metadata": {"name": "shop"}}),
            "Namespace",
        )],
    );
    // A port that is free for TCP and, as nobody else looks there, for UDP.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let shutdown = CancellationToken::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = seaway_dns::Config {
        listen: vec![address],
        ..config()
    };
    let client = {
        let _inside = runtime.enter();
        api.client()
    };
    let running = runtime.spawn(seaway_dns::run(client, config, shutdown.clone()));

    let name = "cart.shop.svc.cluster.local.";
    let told = || ask(address, name).1;
    wait_until(|| told() == ["10.96.0.1"]);
    assert_eq!(ask(address, "shop.svc.cluster.local.").0, Rcode::NOERROR);

    api.send(
        "/api/v1/services",
        &json!({"type": "MODIFIED", "object": cart("10.96.0.2")}),
    );
    wait_until(|| told() == ["10.96.0.2"]);

    // While the watch is lost the answer stays; what changed meanwhile comes with the new list.
    api.set("/api/v1/services", &[cart("10.96.0.3")]);
    api.send("/api/v1/services", &json!({"type": "ERROR", "object": {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}}));
    api.break_off("/api/v1/services");
    assert_eq!(told(), ["10.96.0.2"]);
    wait_until(|| told() == ["10.96.0.3"]);

    api.send(
        "/api/v1/services",
        &json!({"type": "DELETED", "object": cart("10.96.0.3")}),
    );
    wait_until(|| ask(address, name).0 == Rcode::NXDOMAIN);

    let asked = api.asked.lock().unwrap().clone();
    let slices = asked
        .iter()
        .find(|asked| asked.starts_with("/apis/discovery.k8s.io/v1/endpointslices?"));
    assert!(
        slices.is_some_and(|asked| asked.contains("labelSelector=kubernetes.io%2Fservice-name")),
        "{asked:?}"
    );

    shutdown.cancel();
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, running).await });
    assert!(matches!(ended, Ok(Ok(Ok(())))), "{ended:?}");
}
