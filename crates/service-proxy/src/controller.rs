//! The loop: watch, take in what came, plan, apply; and after a failure, read back and try again.
//!
//! While the kernel is being changed, events gather; the next round takes all of them at once. So a burst costs
//! few transactions, and a single change waits for nothing.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::apply::{Applier, Outcome};
use crate::diff::Delta;
use crate::error::Error;
use crate::health::{Health, TAINT_TO_BE_DELETED};
use crate::health_server::HealthServer;
use crate::model::{IpFamily, ObjectName, Problem, Service, TrafficPolicy};
use crate::plan::{Forwarding, Node, RangeSet};
use crate::snapshot::{Snapshot, name_of};

/// The most events that one round takes in.
const EVENTS_AT_ONCE: usize = 10_000;
/// How long after a failure the next attempt is made, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How often the proxy asks whether someone else changed the ruleset. It asks for one number; being told of every
/// change would make the kernel describe each of the proxy's own changes too, element by element.
const GUARD: Duration = Duration::from_millis(500);

/// Of a Node: the zone that it is in. Source: well-known labels.
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

/// What the proxy must know that no Service says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node that the proxy runs on, as its Node object is named.
    pub node_name: String,
    /// The node's Pod range, where it is known: connections from it keep their source address. `None` takes it
    /// from the Node object (`spec.podCIDRs`), as soon as it is there.
    pub pod_cidr: Option<IpNet>,
    /// The ranges that Services get their addresses from: connections to addresses in them that no Service has
    /// are refused. Empty refuses nothing.
    pub service_cidrs: Vec<IpNet>,
    /// The IP families that are served.
    pub families: Vec<IpFamily>,
    /// The addresses of this node at which node ports answer.
    pub node_port_addresses: NodePortAddresses,
    /// Where the proxy tells of its health (`/healthz`, `/livez`, `/readyz`); kube-proxy does at port 10256.
    pub health_address: Option<SocketAddr>,
}

/// At which addresses of the node its node ports answer. Never at its loopback addresses.
/// Source: kube-proxy's `--nodeport-addresses`; KEP-3866 for the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodePortAddresses {
    /// At those that the Node object has as `InternalIP`.
    #[default]
    Primary,
    /// At those in these ranges.
    In(Vec<IpNet>),
}

impl Config {
    /// IPv4 on the node of this name, with what its Node object says.
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            pod_cidr: None,
            service_cidrs: Vec::new(),
            families: vec![IpFamily::V4],
            node_port_addresses: NodePortAddresses::Primary,
            health_address: None,
        }
    }
}

/// Keeps the forwarding of this node as the cluster says, until `shutdown`. Then the rules stay, so that traffic
/// goes on while the proxy is exchanged; [`crate::cleanup`] takes them away.
///
/// It works in the network namespace of the thread that polls it first. Failures of the API server or the kernel
/// are logged and tried again for ever.
///
/// # Errors
/// The configuration makes no sense, or the kernel cannot be asked at all (no nf_tables, no CAP_NET_ADMIN).
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    if config.node_name.is_empty() {
        return Err(Error::Config {
            field: "node_name",
            reason: "it is empty".to_owned(),
        });
    }
    if config.families.is_empty() {
        return Err(Error::Config {
            field: "families",
            reason: "there is none to serve".to_owned(),
        });
    }
    let planes = config
        .families
        .iter()
        .map(|&family| {
            Ok(Plane {
                forwarding: Forwarding::new(family, &config.service_cidrs),
                applier: Applier::open(family)?,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let events = events(&client, &config);
    let node = Node {
        name: config.node_name.clone(),
        zone: None,
    };
    let health = Health::new(std::time::Instant::now());
    let mut proxy = Proxy {
        snapshot: Snapshot::new(node),
        lists: Lists::default(),
        planes: Some(planes),
        in_step: false,
        retry: RETRY.0,
        servers: HealthServer::new(health.clone(), config.health_address),
        health,
        config,
    };
    if let Some(range) = proxy.config.pod_cidr {
        proxy.snapshot.ranges_seen(RangeSet::Pods, vec![range]);
    }
    if let NodePortAddresses::In(ranges) = &proxy.config.node_port_addresses {
        proxy
            .snapshot
            .ranges_seen(RangeSet::NodePorts, ranges.clone());
    }
    proxy.serve(events, shutdown).await
}

/// One IP family: what should be, and the way to the kernel.
#[derive(Debug)]
struct Plane {
    forwarding: Forwarding,
    applier: Applier,
}

/// An event of one of the watches.
enum Event {
    Service(Box<watcher::Event<core::Service>>),
    Slice(Box<watcher::Event<discovery::EndpointSlice>>),
    Node(Box<watcher::Event<core::Node>>),
    /// A watch failed; it begins anew by itself.
    Failed(&'static str, watcher::Error),
}

/// Which watches have shown all their objects once, and what a list that is under way has shown so far.
#[derive(Debug, Default)]
struct Lists {
    services: List,
    slices: List,
    node: List,
}

#[derive(Debug, Default)]
struct List {
    complete: bool,
    seen: HashSet<ObjectName>,
}

struct Proxy {
    snapshot: Snapshot,
    lists: Lists,
    /// Away while a round works with them.
    planes: Option<Vec<Plane>>,
    /// The kernel holds what `planes` say.
    in_step: bool,
    /// How long to wait after the next failure.
    retry: Duration,
    health: Health,
    servers: HealthServer,
    config: Config,
}

impl Proxy {
    async fn serve(
        mut self,
        mut events: BoxStream<'static, Event>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let mut guard = tokio::time::interval(GUARD);
        guard.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry_at: Option<Instant> = None;
        loop {
            let mut look = false;
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                event = events.next() => {
                    // The watches never end by themselves.
                    let Some(event) = event else { return Ok(()) };
                    self.take_in(event);
                    for _ in 0..EVENTS_AT_ONCE {
                        let Some(Some(event)) = events.next().now_or_never() else { break };
                        self.take_in(event);
                    }
                }
                () = tokio::time::sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                    retry_at = None;
                }
                _ = guard.tick() => look = true,
            }
            if !self.lists.complete() || retry_at.is_some() {
                continue;
            }
            if look && self.in_step {
                self.in_step = !self.is_disturbed().await?;
            }
            if self.in_step && !self.snapshot.is_touched() {
                continue;
            }
            self.health.behind(std::time::Instant::now());
            if let Err(error) = self.round().await? {
                tracing::warn!("{error}; trying again in {:?}", self.retry);
                retry_at = Some(Instant::now() + self.retry);
                self.retry = (self.retry * 2).min(RETRY.1);
            } else {
                self.retry = RETRY.0;
            }
        }
    }

    /// Takes one event into the snapshot.
    fn take_in(&mut self, event: Event) {
        match event {
            Event::Service(event) => match *event {
                watcher::Event::Init => self.lists.services.begin(),
                watcher::Event::InitApply(object) => {
                    self.lists.services.seen.extend(name_of(&object.metadata));
                    self.service_seen(&object);
                }
                watcher::Event::InitDone => {
                    for name in self.lists.services.end(self.snapshot.services()) {
                        self.snapshot.service_gone(&name);
                    }
                }
                watcher::Event::Apply(object) => self.service_seen(&object),
                watcher::Event::Delete(object) => {
                    name_of(&object.metadata)
                        .into_iter()
                        .for_each(|name| self.snapshot.service_gone(&name));
                }
            },
            Event::Slice(event) => match *event {
                watcher::Event::Init => self.lists.slices.begin(),
                watcher::Event::InitApply(object) => {
                    self.lists.slices.seen.extend(name_of(&object.metadata));
                    self.slice_seen(&object);
                }
                watcher::Event::InitDone => {
                    for name in self.lists.slices.end(self.snapshot.slices()) {
                        self.snapshot.slice_gone(&name);
                    }
                }
                watcher::Event::Apply(object) => self.slice_seen(&object),
                watcher::Event::Delete(object) => {
                    name_of(&object.metadata)
                        .into_iter()
                        .for_each(|name| self.snapshot.slice_gone(&name));
                }
            },
            Event::Node(event) => match *event {
                watcher::Event::Init => {}
                watcher::Event::InitDone => self.lists.node.complete = true,
                watcher::Event::InitApply(node) | watcher::Event::Apply(node) => {
                    self.node_seen(&node)
                }
                // Its Pods may outlive the object: the range stays until there is another.
                watcher::Event::Delete(_) => {}
            },
            Event::Failed(what, error) => tracing::warn!("watch of {what}: {error}"),
        }
    }

    fn service_seen(&mut self, object: &core::Service) {
        let problems = self.snapshot.service_seen(object);
        tell("Service", &object.metadata, &problems);
    }

    fn slice_seen(&mut self, object: &discovery::EndpointSlice) {
        let problems = self.snapshot.slice_seen(object);
        tell("EndpointSlice", &object.metadata, &problems);
    }

    fn node_seen(&mut self, node: &core::Node) {
        let mut taints = node
            .spec
            .iter()
            .flat_map(|spec| spec.taints.iter().flatten());
        let goes = node.metadata.deletion_timestamp.is_some()
            || taints.any(|taint| taint.key == TAINT_TO_BE_DELETED);
        self.health.set_eligible(!goes);
        let labels = node.metadata.labels.as_ref();
        let zone = labels.and_then(|labels| labels.get(LABEL_ZONE)).cloned();
        self.snapshot
            .zone_seen(zone.filter(|zone| !zone.is_empty()));
        let read = |field: &str, texts: Vec<String>| -> Vec<IpNet> {
            let mut ranges = Vec::with_capacity(texts.len());
            for text in texts {
                match text
                    .parse()
                    .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                {
                    Ok(range) => ranges.push(range),
                    Err(_) => tracing::warn!(
                        "Node {}: {field}: `{text}` is not an address or a range",
                        self.config.node_name
                    ),
                }
            }
            ranges
        };
        if self.config.pod_cidr.is_none()
            && let Some(spec) = node.spec.as_ref()
        {
            let texts = match spec.pod_cidrs.as_deref() {
                Some(several) if !several.is_empty() => several.to_vec(),
                _ => spec.pod_cidr.clone().into_iter().collect(),
            };
            let ranges = read("spec.podCIDRs", texts);
            self.snapshot.ranges_seen(RangeSet::Pods, ranges);
        }
        if self.config.node_port_addresses == NodePortAddresses::Primary {
            let addresses = node
                .status
                .iter()
                .flat_map(|status| status.addresses.iter().flatten());
            let internal = addresses
                .filter(|address| address.type_ == "InternalIP")
                .map(|address| address.address.clone())
                .collect();
            let ranges = read("status.addresses", internal);
            // An agent that starts anew writes its status anew: until then what was true goes on.
            if !ranges.is_empty() {
                self.snapshot.ranges_seen(RangeSet::NodePorts, ranges);
            }
        }
    }

    /// Plans what was touched and brings the kernel in step. The outer error is fatal.
    async fn round(&mut self) -> Result<Result<(), Error>, Error> {
        let (touched, ranges) = self.snapshot.take_touched();
        for name in &touched {
            let port = |service: &Service| {
                let port = service.health_check_port?;
                (service.external == TrafficPolicy::Local).then_some(port)
            };
            let port = self.snapshot.service(name).and_then(port);
            let now = port.map(|port| (port, self.snapshot.local_endpoints(name)));
            if let Some(ports) = self.health.set_service(name, now) {
                self.servers.set_ports(&ports);
            }
        }
        let Some(mut planes) = self.planes.take() else {
            return Err(Error::Worker("it is still at work".to_owned()));
        };
        let started = Instant::now();
        let mut deltas = Vec::with_capacity(planes.len());
        for plane in &mut planes {
            let family = plane.forwarding.family();
            let changes = touched
                .iter()
                .map(|name| (name.clone(), self.snapshot.compile(name, family)));
            let mut delta = plane.forwarding.update(changes);
            for (set, ranges) in &ranges {
                delta = delta.with_ranges(plane.forwarding.set_ranges(*set, ranges));
            }
            deltas.push(delta);
        }
        let in_step = self.in_step;
        let services = touched.len();
        let work = move || {
            let result = bring_in_step(&mut planes, &deltas, in_step);
            (planes, result)
        };
        let (planes, result) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::Worker(error.to_string()))?;
        self.planes = Some(planes);
        self.in_step = result.is_ok();
        if result.is_ok() {
            self.health.in_step();
            tracing::debug!(
                "{services} Services brought into the kernel in {:?}",
                started.elapsed()
            );
        }
        Ok(result)
    }

    /// Whether someone else changed the ruleset. A failure counts as yes: reading back will tell.
    async fn is_disturbed(&mut self) -> Result<bool, Error> {
        let Some(mut planes) = self.planes.take() else {
            return Ok(true);
        };
        let work = move || {
            let disturbed = planes
                .iter_mut()
                .any(|plane| plane.applier.is_disturbed().unwrap_or(true));
            (planes, disturbed)
        };
        let (planes, disturbed) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::Worker(error.to_string()))?;
        self.planes = Some(planes);
        Ok(disturbed)
    }
}

/// With the kernel in step before, the deltas suffice. Otherwise it is read back, and the difference made.
fn bring_in_step(planes: &mut [Plane], deltas: &[Delta], in_step: bool) -> Result<(), Error> {
    for (plane, delta) in planes.iter_mut().zip(deltas) {
        if in_step {
            plane.applier.apply(delta)?;
            forget_stale(plane, Some(delta))?;
            continue;
        }
        match plane.applier.synchronise(&plane.forwarding.contents())? {
            Outcome::Same => {}
            Outcome::Repaired(count) => {
                tracing::info!("the forwarding table was repaired: {count} elements")
            }
            Outcome::Replaced => tracing::info!("the forwarding table was made anew"),
        }
        forget_stale(plane, None)?;
    }
    Ok(())
}

fn forget_stale(plane: &mut Plane, delta: Option<&Delta>) -> Result<(), Error> {
    let forgotten = plane.applier.forget_stale(&plane.forwarding, delta)?;
    if forgotten > 0 {
        tracing::debug!("{forgotten} flows of datagrams go to other endpoints from now on");
    }
    Ok(())
}

impl Lists {
    fn complete(&self) -> bool {
        self.services.complete && self.slices.complete && self.node.complete
    }
}

impl List {
    fn begin(&mut self) {
        self.seen.clear();
    }

    /// The list is at its end. Returns those that are known and were not in it.
    fn end<'a>(&mut self, known: impl Iterator<Item = &'a ObjectName>) -> Vec<ObjectName> {
        self.complete = true;
        let seen = std::mem::take(&mut self.seen);
        known
            .filter(|name| !seen.contains(*name))
            .cloned()
            .collect()
    }
}

fn tell(
    kind: &str,
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    problems: &[Problem],
) {
    for problem in problems {
        tracing::warn!(
            "{kind} {}/{}: {problem}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        );
    }
}

/// All watches as one stream.
fn events(client: &Client, config: &Config) -> BoxStream<'static, Event> {
    let services = watcher(
        Api::<core::Service>::all(client.clone()),
        watcher::Config::default(),
    )
    .default_backoff();
    let slices = watcher(
        Api::<discovery::EndpointSlice>::all(client.clone()),
        watcher::Config::default(),
    )
    .default_backoff();
    let own = watcher::Config::default().fields(&format!("metadata.name={}", config.node_name));
    let node = watcher(Api::<core::Node>::all(client.clone()), own).default_backoff();
    stream::select_all([
        services
            .map(|event| {
                event.map_or_else(
                    |e| Event::Failed("Services", e),
                    |event| Event::Service(event.into()),
                )
            })
            .boxed(),
        slices
            .map(|event| {
                event.map_or_else(
                    |e| Event::Failed("EndpointSlices", e),
                    |event| Event::Slice(event.into()),
                )
            })
            .boxed(),
        node.map(|event| {
            event.map_or_else(
                |e| Event::Failed("the Node", e),
                |event| Event::Node(event.into()),
            )
        })
        .boxed(),
    ])
    .boxed()
}
