//! Looks after addresses and node ports: that every address of a Service has its IPAddress, that no IPAddress is left
//! without its Service, and that nothing belongs to two. What can be put right is put right, and Events tell of it.
//!
//! The server writes Services and IPAddresses together, so this finds something only where a person, a backup or a
//! store of another version is behind it. Everything is looked at before the server takes its first request and then
//! now and again; in between, what somebody changes is looked at when it changes.
//!
//! Source: `ipallocator/controller/repairip.go` and `portallocator/controller/repair.go`.

mod judge;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use seaway_store::{Error as StoreError, Event, Expectation, Watch, Write};

use self::judge::{Complaint, Remedy, Verdict};
use crate::admission::User;
use crate::admission::addresses::pools::Share;
use crate::admission::addresses::{Addresses, ip_address, ips, owner, ranges, shares};
use crate::api::{Api, Call};
use crate::companions::tell;
use crate::metadata;
use crate::negotiate::Accept;
use crate::object::{self, text};
use crate::query::Query;
use crate::registry::Resource;
use crate::server::Tuning;
use crate::status::ApiError;
use crate::verbs::create::store_new;

const IP_REPAIR: &str = "ipallocator-repair-controller";
const PORT_REPAIR: &str = "portallocator-repair-controller";
/// Complaints that are remembered, so that nobody is told twice; after so many it starts anew.
const REMEMBERED: usize = 10_000;

/// See the module.
pub(crate) struct Repair {
    api: Arc<Api>,
    addresses: Addresses,
    interval: Duration,
    leak_grace: Duration,
    /// Who was told what already.
    told: HashSet<(String, Complaint)>,
    /// When an IPAddress without a Service has to be looked at again.
    young: HashMap<String, Instant>,
}

/// Where the kinds are that this is about.
struct Places {
    services: Arc<Resource>,
    ip_addresses: Arc<Resource>,
    service_cidrs: Arc<Resource>,
}

impl Repair {
    pub(crate) fn new(api: Arc<Api>, addresses: Addresses, tuning: &Tuning) -> Self {
        Self {
            api,
            addresses,
            interval: tuning.repair_interval,
            leak_grace: tuning.leak_grace,
            told: HashSet::new(),
            young: HashMap::new(),
        }
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut first = true;
        while !shutdown.is_cancelled() {
            // The server did the first look before it began to serve.
            if !std::mem::take(&mut first) {
                self.look_at_everything().await;
            }
            let until = Instant::now() + self.interval;
            tokio::select! {
                () = shutdown.cancelled() => return,
                result = self.follow(until) => if let Err(error) = result {
                    tracing::warn!(%error, "changes of Services cannot be followed, all are looked at again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                },
            }
        }
    }

    /// Looks at what changes, until it is time to look at everything again.
    async fn follow(&mut self, until: Instant) -> Result<(), StoreError> {
        let api = Arc::clone(&self.api);
        let Some(places) = Places::of(&api) else {
            tokio::time::sleep_until(until).await;
            return Ok(());
        };
        let revision = api.store.revision();
        let watch = |resource: &Resource| api.store.watch(&resource.prefix(""), revision);
        let mut services: Watch = watch(&places.services)?;
        let mut ip_addresses: Watch = watch(&places.ip_addresses)?;
        loop {
            let due = self.young.values().min().copied().unwrap_or(until);
            tokio::select! {
                events = services.next() => for event in events? {
                    // As it is now: what the event shows may be gone, and its address with it.
                    let now = event.new.as_ref().and_then(|_| api.store.get(&event.key));
                    if let Some(service) = read(&places.services, now.as_ref()) {
                        self.look_at_service(&places, &service).await;
                    }
                },
                events = ip_addresses.next() => for event in events? {
                    self.look_at_ip_event(&places, &event).await;
                },
                () = tokio::time::sleep_until(due.min(until)) => {
                    if Instant::now() >= until {
                        return Ok(());
                    }
                    self.look_at_the_young(&places).await;
                }
            }
        }
    }

    /// Looks at all Services, IPAddresses and node ports.
    pub(crate) async fn look_at_everything(&mut self) {
        let api = Arc::clone(&self.api);
        let Some(places) = Places::of(&api) else {
            return;
        };
        if self.told.len() > REMEMBERED {
            self.told.clear();
        }
        let services = list(&api, &places.services);
        for service in &services {
            self.look_at_service(&places, service).await;
        }
        for object in list(&api, &places.ip_addresses) {
            self.look_at_ip_address(&places, &object).await;
        }
        self.look_at_ports(&services).await;
    }

    async fn look_at_service(&mut self, places: &Places, service: &Value) {
        let api = Arc::clone(&self.api);
        let found = ips(service);
        if found.is_empty() {
            return;
        }
        let all: Vec<IpNet> = list(&api, &places.service_cidrs)
            .iter()
            .flat_map(ranges)
            .collect();
        for ip in found {
            let object = get(&api, &places.ip_addresses, "", &ip.to_string());
            let other = |ns: &str, name: &str| get(&api, &places.services, ns, name);
            let complaint = match judge::address(service, ip, &all, object.as_ref(), other) {
                Remedy::Nothing => continue,
                Remedy::Tell(complaint) => Some(complaint),
                Remedy::Write(complaint) => {
                    if self.write(places, service, ip).await {
                        complaint
                    } else {
                        None
                    }
                }
            };
            if let Some(complaint) = complaint {
                self.complain(IP_REPAIR, service, complaint).await;
            }
        }
    }

    async fn look_at_ip_event(&mut self, places: &Places, event: &Event) {
        if let Some(object) = read(&places.ip_addresses, event.new.as_ref()) {
            self.look_at_ip_address(places, &object).await;
        } else if let Some(gone) = read(&places.ip_addresses, event.old.as_ref())
            && let Some((namespace, name)) = ip_address::service(&gone)
            && let Some(service) = get(&self.api, &places.services, namespace, name)
        {
            self.look_at_service(places, &service).await;
        }
    }

    async fn look_at_ip_address(&mut self, places: &Places, object: &Value) {
        let name = text(object, "/metadata/name").to_owned();
        self.young.remove(&name);
        let service = ip_address::service(object)
            .and_then(|(namespace, name)| get(&self.api, &places.services, namespace, name));
        let age = age(object);
        match judge::ip_object(object, service.as_ref(), age >= self.leak_grace) {
            Verdict::Stays => {}
            Verdict::Young => {
                let left = self.leak_grace.saturating_sub(age);
                self.young.insert(name, Instant::now() + left);
            }
            Verdict::Goes(complaint) => {
                let revision = object::version(object).parse().unwrap_or(0);
                let key = places.ip_addresses.key("", &name);
                self.commit(&key, Expectation::Revision(revision), Write::Delete)
                    .await;
                self.complain(IP_REPAIR, object, complaint).await;
            }
        }
    }

    async fn look_at_the_young(&mut self, places: &Places) {
        let now = Instant::now();
        let due: Vec<String> = self
            .young
            .iter()
            .filter(|(_, due)| **due <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.young.remove(&name);
            if let Some(object) = get(&self.api, &places.ip_addresses, "", &name) {
                self.look_at_ip_address(places, &object).await;
            }
        }
    }

    async fn look_at_ports(&mut self, services: &[Value]) {
        let range = self.addresses.node_ports();
        for (service, complaint) in judge::ports(services, &range) {
            self.complain(PORT_REPAIR, service, complaint).await;
        }
        let mut has: HashSet<(Share, String)> = HashSet::new();
        for service in services {
            let owner = owner(service);
            for share in shares(service) {
                if self.addresses.holder(share).is_none()
                    && still_has(&self.api, service, share)
                    && self.addresses.learn(share, &owner)
                    && let Share::Port(port) = share
                {
                    self.complain(PORT_REPAIR, service, judge::unknown_port(port))
                        .await;
                }
                has.insert((share, owner.clone()));
            }
        }
        let leaks = self
            .addresses
            .take_back_leaks(|share, owner| has.contains(&(share, owner.to_owned())));
        for (share, owner) in leaks {
            tracing::warn!(?share, owner, "what no Service has any more is free again");
        }
    }

    /// Writes the IPAddress of a Service as it should be; `false` if the Service has gone in the meantime.
    async fn write(&self, places: &Places, service: &Value, ip: IpAddr) -> bool {
        let (namespace, name) = (
            text(service, "/metadata/namespace"),
            text(service, "/metadata/name"),
        );
        let mut object = ip_address::of(ip, namespace, name);
        metadata::prepare_create(&mut object, "");
        let key = places.ip_addresses.key("", &ip.to_string());
        let value = match places.ip_addresses.encode(&object) {
            Ok(value) => value,
            Err(error) => {
                tracing::warn!(%ip, %error, "an IPAddress cannot be written");
                return true;
            }
        };
        if !still_has(&self.api, service, Share::Ip(ip)) {
            return false;
        }
        let written = self.commit(&key, Expectation::Any, Write::Put(value)).await;
        // Whoever removed the Service in between did not know of this.
        let has = still_has(&self.api, service, Share::Ip(ip));
        if let Some(revision) = written.filter(|_| !has) {
            self.commit(&key, Expectation::Revision(revision), Write::Delete)
                .await;
        }
        has
    }

    /// The revision of what was written, if it was.
    async fn commit(&self, key: &str, expect: Expectation, write: Write) -> Option<u64> {
        match self.api.store.commit(key, expect, write).await {
            Ok(event) => {
                tell(&self.api, &event);
                Some(event.revision)
            }
            // Somebody else was quicker; what they did is looked at too.
            Err(StoreError::Conflict { .. }) => None,
            Err(error) => {
                tracing::warn!(key, %error, "an IPAddress cannot be put right");
                None
            }
        }
    }

    /// Tells of an object in an Event, once.
    async fn complain(&mut self, component: &'static str, object: &Value, complaint: Complaint) {
        let uid = text(object, "/metadata/uid").to_owned();
        if !self.told.insert((uid, complaint.clone())) {
            return;
        }
        tracing::warn!(
            object = owner(object),
            reason = complaint.reason,
            "{}",
            complaint.message
        );
        if let Err(error) = record(&self.api, component, object, &complaint).await {
            tracing::warn!(%error, reason = complaint.reason, "an Event cannot be written");
        }
    }
}

impl Places {
    fn of(api: &Api) -> Option<Self> {
        let networking = |plural| api.registry.resource("networking.k8s.io", "v1", plural);
        Some(Self {
            services: api.registry.resource("", "v1", "services")?,
            ip_addresses: networking("ipaddresses")?,
            service_cidrs: networking("servicecidrs")?,
        })
    }
}

fn read(resource: &Resource, record: Option<&seaway_store::Record>) -> Option<Value> {
    resource.decode(record?).ok()
}

fn get(api: &Api, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
    read(
        resource,
        api.store.get(&resource.key(namespace, name)).as_ref(),
    )
}

fn list(api: &Api, resource: &Resource) -> Vec<Value> {
    let records = api.store.list(&resource.prefix("")).0;
    let objects = records.iter();
    objects
        .filter_map(|record| read(resource, Some(record)))
        .collect()
}

/// Whether the Service has a share still: what was listed may be old.
fn still_has(api: &Api, service: &Value, share: Share) -> bool {
    let Some(resource) = api.registry.resource("", "v1", "services") else {
        return false;
    };
    let namespace = text(service, "/metadata/namespace");
    let now = get(api, &resource, namespace, text(service, "/metadata/name"));
    now.is_some_and(|service| shares(&service).contains(&share))
}

fn age(object: &Value) -> Duration {
    let created = text(object, "/metadata/creationTimestamp").parse::<Timestamp>();
    let age = created.map(|created| Timestamp::now().duration_since(created));
    Duration::try_from(age.unwrap_or(SignedDuration::ZERO)).unwrap_or_default()
}

async fn record(
    api: &Api,
    component: &'static str,
    object: &Value,
    complaint: &Complaint,
) -> Result<(), ApiError> {
    let namespace = match text(object, "/metadata/namespace") {
        "" => "default",
        namespace => namespace,
    };
    let name = text(object, "/metadata/name");
    let now = metadata::now();
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{name}.{:x}", Timestamp::now().as_nanosecond()),
            "namespace": namespace,
        },
        "involvedObject": {
            "apiVersion": object["apiVersion"], "kind": object["kind"], "name": name,
            "namespace": object["metadata"]["namespace"], "uid": object["metadata"]["uid"],
            "resourceVersion": object["metadata"]["resourceVersion"],
        },
        "type": "Warning",
        "reason": complaint.reason,
        "message": complaint.message,
        "source": {"component": component},
        "reportingComponent": component,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    });
    let user = User {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..User::default()
    };
    let query = Query::default();
    let resource = api.registry.resource("", "v1", "events");
    let resource = resource.ok_or_else(ApiError::no_such_resource)?;
    let call = Call {
        api,
        resource: &resource,
        namespace,
        name: "",
        subresource: "",
        user: &user,
        agent: "kube-apiserver",
        query: &query,
        accept: Accept::JSON_OBJECTS,
    };
    store_new(&call, event).await.map(|_| ())
}
