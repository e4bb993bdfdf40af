//! `kill -9` in the middle of writes, two hundred times: what was acknowledged is there, nothing is torn, and a watch that
//! goes on where it was has no gap and nothing twice. The test runs itself as the API server that is killed.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use rand::Rng;
use seaway_apiserver::pki::{Pki, kubeconfig};
use seaway_apiserver::{Config, Server, Tuning};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const DIRECTORY: &str = "SEAWAY_KILL_TEST_DIRECTORY";
const PORT: &str = "SEAWAY_KILL_TEST_PORT";
const NAME: &str = "two_hundred_kills_lose_tear_and_repeat_nothing";

const KILLS: usize = 200;
const WRITERS: usize = 4;
/// Objects of each writer.
const OBJECTS: usize = 4;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn two_hundred_kills_lose_tear_and_repeat_nothing() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        serve(Path::new(&directory));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(rounds());
}

async fn rounds() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let place = Place::new(directory.path());
    let client = place.client().await;
    let writers: Vec<Arc<Mutex<Writer>>> = (0..WRITERS)
        .map(|n| Arc::new(Mutex::new(Writer::new(n))))
        .collect();
    let watcher = Arc::new(Mutex::new(Watcher::default()));
    let (mut acknowledged, mut in_flight) = (0, 0);
    for round in 0..KILLS {
        let mut server = place.start();
        let (there, version) = check(&client, &writers).await;
        if round == 0 {
            watcher.lock().unwrap().version = version;
        }
        let watching = tokio::spawn(watch(client.clone(), Arc::clone(&watcher)));
        // What the watcher missed it hears now.
        wait_for(&watcher, &there, round).await;
        let stop = CancellationToken::new();
        let writing: Vec<_> = writers
            .iter()
            .map(|writer| tokio::spawn(write(client.clone(), Arc::clone(writer), stop.clone())))
            .collect();
        // The kill comes after another number of writes each time, and anywhere within a write.
        let enough = total(&writers) + rand::rng().random_range(4..40);
        let since = std::time::Instant::now();
        while total(&writers) < enough {
            assert!(
                since.elapsed() < PATIENCE,
                "round {round}: the writers are stuck"
            );
            tokio::time::sleep(Duration::from_micros(rand::rng().random_range(100..2000))).await;
        }
        server.kill().unwrap();
        server.wait().unwrap();
        stop.cancel();
        for task in writing {
            tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
        }
        tokio::time::timeout(PATIENCE, watching)
            .await
            .unwrap()
            .unwrap();
        in_flight += writers
            .iter()
            .filter(|w| w.lock().unwrap().in_flight.is_some())
            .count();
        acknowledged = total(&writers);
    }
    // The last word: a server that is not killed tells the same as the watcher has heard.
    let mut server = place.start();
    let (there, _) = check(&client, &writers).await;
    let watching = tokio::spawn(watch(client.clone(), Arc::clone(&watcher)));
    wait_for(&watcher, &there, KILLS).await;
    let heard = watcher.lock().unwrap();
    for writer in &writers {
        for version in &writer.lock().unwrap().versions {
            assert!(
                heard.versions.contains(version),
                "the watch never told of version {version}"
            );
        }
    }
    drop(heard);
    server.kill().unwrap();
    server.wait().unwrap();
    watching.abort();
    println!("{KILLS} kills, {acknowledged} acknowledged writes, {in_flight} of them were cut off");
    assert!(
        acknowledged > KILLS * 4 && in_flight > KILLS / 4,
        "too little happened to mean anything"
    );
}

/// Where the server is and how it is reached.
struct Place {
    directory: PathBuf,
    address: SocketAddr,
    pki: Pki,
}

impl Place {
    fn new(directory: &Path) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        let names = ["127.0.0.1".parse().unwrap()];
        let pki = Pki::ensure(&directory.join("pki"), &names, &[]).unwrap();
        Self {
            directory: directory.to_owned(),
            address,
            pki,
        }
    }

    /// Starts the server and waits until it can be reached.
    fn start(&self) -> Child {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(DIRECTORY, &self.directory)
            .env(PORT, self.address.port().to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let ready = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .any(|line| line == "ready");
        assert!(ready, "the server does not start");
        child
    }

    async fn client(&self) -> Client {
        let (certificate, key) = self.pki.admin.read().unwrap();
        let text = kubeconfig(
            &format!("https://{}", self.address),
            &self.pki.authority_pem().unwrap(),
            &certificate,
            &key,
            "test",
        );
        let config = Kubeconfig::from_yaml(&text).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }
}

/// The process that is killed.
fn serve(directory: &Path) -> ! {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    let names = ["127.0.0.1".parse().unwrap()];
    let config = Config {
        listen: vec![([127, 0, 0, 1], port).into()],
        store: directory.join("store.db"),
        pki: Pki::ensure(&directory.join("pki"), &names, &[]).unwrap(),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_port_range: 30000..=32767,
        advertise: "10.87.0.1:6443".parse().unwrap(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::start(config, &Tuning::default(), CancellationToken::new())
            .await
            .unwrap();
        println!("\nready");
        server.run().await.unwrap();
    });
    std::process::exit(0);
}

/// Version and number of an object, if it is there.
type State = Option<(u64, u64)>;

/// Writes objects of its own and remembers what was acknowledged.
struct Writer {
    objects: BTreeMap<String, State>,
    /// Versions of all acknowledged writes. A deletion's is not told to who deletes.
    versions: BTreeSet<u64>,
    /// The write that may or may not have happened: the name, and the number that it writes, if it writes one.
    in_flight: Option<(String, Option<u64>)>,
    acknowledged: usize,
    next: u64,
}

impl Writer {
    fn new(number: usize) -> Self {
        Self {
            objects: (0..OBJECTS)
                .map(|n| (format!("w{number}-{n}"), None))
                .collect(),
            versions: BTreeSet::new(),
            in_flight: None,
            acknowledged: 0,
            next: 1,
        }
    }
}

fn total(writers: &[Arc<Mutex<Writer>>]) -> usize {
    writers.iter().map(|w| w.lock().unwrap().acknowledged).sum()
}

/// An object whose parts all tell its number: if they do not agree it is torn.
fn object(name: &str, number: u64, version: Option<u64>) -> ConfigMap {
    let size = usize::try_from(number % 97).unwrap() * 64;
    serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {"number": number.to_string()},
            "resourceVersion": version.map(|v| v.to_string()),
        },
        "data": {"first": number.to_string(), "padding": "x".repeat(size), "last": number.to_string()},
    }))
    .unwrap()
}

/// The number of an object that is whole.
fn number(object: &Value) -> u64 {
    let text = object["data"]["first"].as_str().unwrap();
    let number: u64 = text.parse().unwrap();
    let size = usize::try_from(number % 97).unwrap() * 64;
    let whole = object["data"]["last"] == text
        && object["metadata"]["labels"]["number"] == text
        && object["data"]["padding"].as_str().unwrap().len() == size;
    assert!(whole, "torn: {object}");
    number
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// Creates, changes and deletes until the server is gone.
async fn write(client: Client, writer: Arc<Mutex<Writer>>, stop: CancellationToken) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut turn = 0_usize;
    while !stop.is_cancelled() {
        turn += 1;
        let (name, state, number) = {
            let mut writer = writer.lock().unwrap();
            let (name, state) = writer.objects.iter().nth(turn % OBJECTS).unwrap();
            let (name, state) = (name.clone(), *state);
            let number = writer.next;
            writer.next += 1;
            let deletes = state.is_some() && number.is_multiple_of(5);
            writer.in_flight = Some((name.clone(), (!deletes).then_some(number)));
            (name, state, number)
        };
        let done = match state {
            None => maps
                .create(&PostParams::default(), &object(&name, number, None))
                .await
                .map(Some),
            Some(_) if number.is_multiple_of(5) => maps
                .delete(&name, &DeleteParams::default())
                .await
                .map(|_| None),
            Some((version, _)) => maps
                .replace(
                    &name,
                    &PostParams::default(),
                    &object(&name, number, Some(version)),
                )
                .await
                .map(Some),
        };
        let mut writer = writer.lock().unwrap();
        match done {
            Ok(stored) => {
                let state = stored.map(|object| {
                    let version = object.resource_version().unwrap().parse().unwrap();
                    writer.versions.insert(version);
                    (version, number)
                });
                writer.objects.insert(name, state);
                writer.in_flight = None;
                writer.acknowledged += 1;
            }
            // The server answered, so it is not the kill.
            Err(kube::Error::Api(status)) => panic!("a write of {name} was refused: {status:?}"),
            Err(_) => return,
        }
    }
}

/// Holds what is stored against what was acknowledged. What was in flight may have happened or not; from now on it is
/// known. Returns what is there, and the version of that.
async fn check(
    client: &Client,
    writers: &[Arc<Mutex<Writer>>],
) -> (BTreeMap<String, (u64, u64)>, u64) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    // The connection of before is dead, which the client finds out by using it.
    let list = loop {
        match maps.list(&ListParams::default()).await {
            Ok(list) => break list,
            Err(kube::Error::Api(status)) => panic!("{status:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    };
    let there: BTreeMap<String, (u64, u64)> = list
        .items
        .iter()
        .filter(|map| map.name_any() != "kube-root-ca.crt")
        .map(|map| {
            let value = serde_json::to_value(map).unwrap();
            (map.name_any(), (version(&value), number(&value)))
        })
        .collect();
    let mut rest = there.clone();
    for writer in writers {
        let mut writer = writer.lock().unwrap();
        let in_flight = writer.in_flight.take();
        for (name, state) in &mut writer.objects {
            let found = rest.remove(name);
            if found == *state {
                continue;
            }
            let happened = match &in_flight {
                Some((flying, number)) if flying == name => found.map(|(_, n)| n) == *number,
                _ => false,
            };
            assert!(
                happened,
                "{name}: acknowledged was {state:?}, found {found:?}, in flight {in_flight:?}"
            );
            *state = found;
        }
    }
    assert!(rest.is_empty(), "nobody wrote {rest:?}");
    let version = list.metadata.resource_version.unwrap().parse().unwrap();
    (there, version)
}

/// What a watch has told.
#[derive(Default)]
struct Watcher {
    /// The version of the last event.
    version: u64,
    /// Versions of all events.
    versions: BTreeSet<u64>,
    objects: BTreeMap<String, (u64, u64)>,
}

impl Watcher {
    fn hear(&mut self, event: &Value) {
        let (what, object) = (event["type"].as_str().unwrap(), &event["object"]);
        assert_ne!(what, "ERROR", "the watch cannot go on: {event}");
        let version = version(object);
        if what == "BOOKMARK" {
            self.version = self.version.max(version);
            return;
        }
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if name == "kube-root-ca.crt" {
            return;
        }
        let number = number(object);
        assert!(
            version > self.version,
            "told twice, or out of order: {event}"
        );
        self.version = version;
        self.versions.insert(version);
        let before = match what {
            "DELETED" => self.objects.remove(&name),
            _ => self.objects.insert(name, (version, number)),
        };
        // Something in between was not told otherwise.
        assert_eq!(before.is_some(), what != "ADDED", "a gap before {event}");
    }
}

/// Watches from where it was until the server is gone.
async fn watch(client: Client, watcher: Arc<Mutex<Watcher>>) {
    let version = watcher.lock().unwrap().version;
    let path = format!(
        "/api/v1/namespaces/default/configmaps?watch=1&allowWatchBookmarks=true&resourceVersion={version}"
    );
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let Ok(stream) = client.request_stream(request).await else {
        return;
    };
    let mut lines = stream.lines();
    while let Some(Ok(line)) = lines.next().await {
        // The last line may have been cut off by the kill.
        if let Ok(event) = serde_json::from_str::<Value>(&line) {
            watcher.lock().unwrap().hear(&event);
        }
    }
}

/// Waits until what the watch told is what is there.
async fn wait_for(watcher: &Mutex<Watcher>, there: &BTreeMap<String, (u64, u64)>, round: usize) {
    let since = std::time::Instant::now();
    while watcher.lock().unwrap().objects != *there {
        assert!(
            since.elapsed() < PATIENCE,
            "round {round}: the watch told {:?}, there is {there:?}",
            watcher.lock().unwrap().objects
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
