//! Watches Services, EndpointSlices and Namespaces, and publishes the table that follows from them. Changes that
//! arrive together become one new version.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};

use crate::model::{self, Label, SERVICE_NAME_LABEL, ServiceKey, SliceId};
use crate::name;
use crate::plan::Inventory;
use crate::server::Publisher;

/// Most events that are taken together.
const MOST_EVENTS: usize = 1024;

/// Something that a watch reported.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "an event is taken apart at once; a box for each would cost more than the space"
)]
pub enum Seen {
    /// About a Service.
    Service(watcher::Result<Event<Service>>),
    /// About a slice.
    Slice(watcher::Result<Event<EndpointSlice>>),
    /// About a namespace.
    Namespace(watcher::Result<Event<Namespace>>),
}

/// Watches the API until dropped, and keeps the server up to date. When the API server is lost, the server keeps
/// what it has, and the watches come back with growing intervals.
pub async fn follow(client: Client, publisher: Publisher) {
    let every = watcher::Config::default();
    let of_services = watcher::Config::default().labels(SERVICE_NAME_LABEL);
    let services = watch(Api::<Service>::all(client.clone()), every.clone())
        .default_backoff()
        .map(Seen::Service);
    let slices = watch(Api::<EndpointSlice>::all(client.clone()), of_services)
        .default_backoff()
        .map(Seen::Slice);
    let namespaces = watch(Api::<Namespace>::all(client), every)
        .default_backoff()
        .map(Seen::Namespace);
    let seen = stream::select(
        stream::select(services.boxed(), slices.boxed()),
        namespaces.boxed(),
    );
    publish_all(seen, publisher).await;
}

/// Publishes what follows from `seen`, until it ends.
pub async fn publish_all(seen: impl Stream<Item = Seen> + Unpin, publisher: Publisher) {
    let mut feed = Feed::default();
    let mut together = seen.ready_chunks(MOST_EVENTS);
    while let Some(events) = together.next().await {
        events.into_iter().for_each(|event| feed.step(event));
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        feed.inventory.set_serial(now as u32);
        publisher.publish(feed.inventory.table().clone());
    }
}

/// Turns events into changes of the inventory.
#[derive(Debug, Default)]
pub struct Feed {
    inventory: Inventory,
    services: Listing<ServiceKey>,
    slices: Listing<SliceId>,
    namespaces: Listing<Label>,
}

/// How far a watch is.
#[derive(Debug)]
struct Listing<K> {
    /// What the list that is under way has named so far.
    named: HashSet<K>,
    /// Whether a list has been complete before.
    done: bool,
}

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Listing {
            named: HashSet::new(),
            done: false,
        }
    }
}

impl<K: Eq + Hash> Listing<K> {
    /// The list is complete: all that it named.
    fn finish(&mut self) -> HashSet<K> {
        self.done = true;
        std::mem::take(&mut self.named)
    }
}

impl Feed {
    /// What is known.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Takes in one event.
    pub fn step(&mut self, seen: Seen) {
        match seen {
            Seen::Service(Ok(event)) => self.service(event),
            Seen::Slice(Ok(event)) => self.slice(event),
            Seen::Namespace(Ok(event)) => self.namespace(event),
            Seen::Service(Err(error)) => lost("Services", &error),
            Seen::Slice(Err(error)) => lost("EndpointSlices", &error),
            Seen::Namespace(Err(error)) => lost("Namespaces", &error),
        }
        if self.services.done && self.slices.done && self.namespaces.done {
            self.inventory.set_complete();
        }
    }

    fn service(&mut self, event: Event<Service>) {
        match event {
            Event::Init => self.services.named.clear(),
            Event::InitApply(service) => self.put_service(&service, true),
            Event::InitDone => self.inventory.retain_services(&self.services.finish()),
            Event::Apply(service) => self.put_service(&service, false),
            Event::Delete(service) => {
                if let Ok(key) = model::service_key(&service.metadata, None) {
                    self.inventory.remove_service(&key);
                }
            }
        }
    }

    fn put_service(&mut self, service: &Service, listing: bool) {
        match model::Service::try_from(service) {
            Ok(service) => {
                if listing {
                    self.services.named.insert(service.key.clone());
                }
                self.inventory.put_service(service);
            }
            // What is not understood has no records: better no answer than yesterday's.
            Err(error) => {
                tracing::warn!(object = %full_name(&service.metadata), %error, "this Service has no DNS records");
                if let Ok(key) = model::service_key(&service.metadata, None) {
                    self.inventory.remove_service(&key);
                }
            }
        }
    }

    fn slice(&mut self, event: Event<EndpointSlice>) {
        match event {
            Event::Init => self.slices.named.clear(),
            Event::InitApply(slice) => self.put_slice(&slice, true),
            Event::InitDone => self.inventory.retain_slices(&self.slices.finish()),
            Event::Apply(slice) => self.put_slice(&slice, false),
            Event::Delete(slice) => self.inventory.remove_slice(&SliceId::of(&slice.metadata)),
        }
    }

    fn put_slice(&mut self, slice: &EndpointSlice, listing: bool) {
        match model::EndpointSlice::try_from(slice) {
            Ok(slice) => {
                if listing {
                    self.slices.named.insert(slice.id.clone());
                }
                self.inventory.put_slice(slice);
            }
            Err(error) => {
                tracing::warn!(object = %full_name(&slice.metadata), %error, "this EndpointSlice has no DNS records");
                self.inventory.remove_slice(&SliceId::of(&slice.metadata));
            }
        }
    }

    fn namespace(&mut self, event: Event<Namespace>) {
        let label =
            |namespace: &Namespace| namespace.metadata.name.as_deref().and_then(name::label);
        match event {
            Event::Init => self.namespaces.named.clear(),
            Event::InitApply(namespace) => {
                if let Some(label) = label(&namespace) {
                    self.namespaces.named.insert(label.clone());
                    self.inventory.add_namespace(label);
                }
            }
            Event::InitDone => self.inventory.retain_namespaces(&self.namespaces.finish()),
            Event::Apply(namespace) => {
                if let Some(label) = label(&namespace) {
                    self.inventory.add_namespace(label);
                }
            }
            Event::Delete(namespace) => {
                if let Some(label) = label(&namespace) {
                    self.inventory.remove_namespace(&label);
                }
            }
        }
    }
}

fn lost(kind: &str, error: &watcher::Error) {
    tracing::warn!(kind, %error, "the watch broke off; going on with what is known");
}

/// `namespace/name`, for messages.
fn full_name(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ServiceSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn metadata(name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("prod".to_owned()),
            ..ObjectMeta::default()
        }
    }

    fn service(name: &str, cluster_ip: &str) -> Service {
        let spec = ServiceSpec {
            cluster_ip: Some(cluster_ip.to_owned()),
            ..ServiceSpec::default()
        };
        Service {
            metadata: metadata(name),
            spec: Some(spec),
            status: None,
        }
    }

    fn services(feed: &mut Feed, events: impl IntoIterator<Item = Event<Service>>) {
        events
            .into_iter()
            .for_each(|event| feed.step(Seen::Service(Ok(event))));
    }

    fn has(feed: &Feed, name: &str) -> bool {
        let key = ServiceKey::new("prod", name).unwrap();
        feed.inventory().table().service(key.wire()).is_some()
    }

    #[test]
    fn the_table_is_complete_when_all_three_lists_are() {
        let mut feed = Feed::default();
        services(
            &mut feed,
            [
                Event::Init,
                Event::InitApply(service("a", "10.96.0.1")),
                Event::InitDone,
            ],
        );
        assert!(!feed.inventory().table().complete);
        feed.step(Seen::Slice(Ok(Event::Init)));
        feed.step(Seen::Slice(Ok(Event::InitDone)));
        assert!(!feed.inventory().table().complete);
        feed.step(Seen::Namespace(Ok(Event::Init)));
        feed.step(Seen::Namespace(Ok(Event::InitDone)));
        assert!(feed.inventory().table().complete);
    }

    #[test]
    fn a_new_list_replaces_the_old_one_only_when_it_is_complete() {
        let mut feed = Feed::default();
        let first = [service("a", "10.96.0.1"), service("b", "10.96.0.2")].map(Event::InitApply);
        services(
            &mut feed,
            [Event::Init]
                .into_iter()
                .chain(first)
                .chain([Event::InitDone]),
        );
        services(
            &mut feed,
            [Event::Init, Event::InitApply(service("b", "10.96.0.2"))],
        );
        assert!(has(&feed, "a"), "the list may still name it");
        services(&mut feed, [Event::InitDone]);
        assert!(!has(&feed, "a") && has(&feed, "b"));
    }

    #[test]
    fn a_list_that_breaks_off_and_starts_again_forgets_what_it_had_named() {
        let mut feed = Feed::default();
        services(
            &mut feed,
            [Event::Init, Event::InitApply(service("a", "10.96.0.1"))],
        );
        services(
            &mut feed,
            [
                Event::Init,
                Event::InitApply(service("b", "10.96.0.2")),
                Event::InitDone,
            ],
        );
        assert!(!has(&feed, "a") && has(&feed, "b"));
    }

    #[test]
    fn a_service_that_cannot_be_understood_loses_its_records() {
        let mut feed = Feed::default();
        services(&mut feed, [Event::Apply(service("a", "10.96.0.1"))]);
        assert!(has(&feed, "a"));
        services(&mut feed, [Event::Apply(service("a", "10.96.0.999"))]);
        assert!(!has(&feed, "a"));
        services(
            &mut feed,
            [
                Event::Apply(service("a", "10.96.0.1")),
                Event::Delete(service("a", "")),
            ],
        );
        assert!(!has(&feed, "a"));
    }
}
