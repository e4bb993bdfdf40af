//! Events as the kubelet writes them: repeated ones are counted, floods are dropped, and nobody waits for them.
//! Source: `k8s.io/client-go/tools/record` (correlation by count, at most 25 and then one in 5 minutes per object).

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tracing::debug;

/// Events that wait to be written; more are dropped.
const QUEUE: usize = 1024;
/// What one object may have written in a burst.
const BURST: f64 = 25.0;
/// Events per second after the burst: one in five minutes.
const REFILL: f64 = 1.0 / 300.0;
/// Repetitions within this time are counted in one Event.
const COUNTED_FOR: SignedDuration = SignedDuration::from_secs(600);
/// Objects and Events that are remembered; beyond it the older half is forgotten.
const REMEMBERED: usize = 4096;

/// `type` of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Someone should look.
    Warning,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        }
    }
}

/// Something to tell of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    /// Of which object, or part of it.
    pub about: ObjectReference,
    /// `type`
    pub severity: Severity,
    /// `Pulled`, for example.
    pub reason: String,
    /// In words.
    pub message: String,
}

/// Takes events and writes them when it can. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
}

impl Recorder {
    /// Starts the task that writes; it ends when the last clone is dropped.
    pub fn start(client: kube::Client, node: String) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(client, node, receiver));
        Recorder { queue }
    }

    /// Tells of an object. Never waits: when too much is to be written the event is dropped.
    pub fn record(&self, occurrence: Occurrence) {
        if let Err(error) = self.queue.try_send(occurrence) {
            debug!(%error, "event dropped");
        }
    }

    /// Tells of a Pod, or of one of its containers.
    pub fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        severity: Severity,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.record(Occurrence {
            about: reference(pod, container),
            severity,
            reason: reason.to_owned(),
            message: message.into(),
        });
    }
}

/// `involvedObject` of an Event about a Pod, or about one of its containers.
pub fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let field_path = container.map(|name| {
        let init = pod
            .spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten())
            .any(|c| c.name == name);
        format!(
            "spec.{}{{{name}}}",
            if init { "initContainers" } else { "containers" }
        )
    });
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}

/// What to write for one occurrence.
#[derive(Debug, Clone, PartialEq)]
enum Write {
    /// A new Event.
    Create(Box<Event>),
    /// It happened again.
    Count {
        namespace: String,
        name: String,
        count: i32,
        event: Box<Event>,
    },
}

/// What was written lately. Pure: it is told the time.
#[derive(Debug, Default)]
struct Correlator {
    written: HashMap<Key, Written>,
    budgets: HashMap<String, Budget>,
    node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    field_path: String,
    severity: Severity,
    reason: String,
    message: String,
}

#[derive(Debug, Clone)]
struct Written {
    name: String,
    first: Timestamp,
    last: Timestamp,
    count: i32,
}

#[derive(Debug, Clone, Copy)]
struct Budget {
    tokens: f64,
    at: Timestamp,
}

impl Correlator {
    fn new(node: String) -> Self {
        Correlator {
            node,
            ..Correlator::default()
        }
    }

    /// `None` when the object has had too many.
    fn observe(&mut self, occurrence: &Occurrence, now: Timestamp) -> Option<Write> {
        self.forget_old();
        let uid = occurrence.about.uid.clone().unwrap_or_default();
        let budget = self.budgets.entry(uid.clone()).or_insert(Budget {
            tokens: BURST,
            at: now,
        });
        let elapsed = now.duration_since(budget.at).as_secs_f64().max(0.0);
        budget.tokens = (budget.tokens + elapsed * REFILL).min(BURST);
        budget.at = now;
        if budget.tokens < 1.0 {
            return None;
        }
        budget.tokens -= 1.0;
        let key = Key {
            uid,
            field_path: occurrence.about.field_path.clone().unwrap_or_default(),
            severity: occurrence.severity,
            reason: occurrence.reason.clone(),
            message: occurrence.message.clone(),
        };
        let namespace = occurrence
            .about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        if let Some(written) = self.written.get_mut(&key)
            && now.duration_since(written.last) <= COUNTED_FOR
        {
            written.count = written.count.saturating_add(1);
            written.last = now;
            let written = written.clone();
            let event = Box::new(self.event(occurrence, &namespace, &written));
            return Some(Write::Count {
                namespace,
                name: written.name,
                count: written.count,
                event,
            });
        }
        let about = occurrence.about.name.as_deref().unwrap_or("unknown");
        let name = format!("{about}.{:x}", now.as_nanosecond());
        let written = Written {
            name,
            first: now,
            last: now,
            count: 1,
        };
        let event = self.event(occurrence, &namespace, &written);
        self.written.insert(key, written);
        Some(Write::Create(Box::new(event)))
    }

    fn event(&self, occurrence: &Occurrence, namespace: &str, written: &Written) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(written.name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: occurrence.about.clone(),
            type_: Some(occurrence.severity.name().to_owned()),
            reason: Some(occurrence.reason.clone()),
            message: Some(occurrence.message.clone()),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.clone()),
            first_timestamp: Some(Time(written.first)),
            last_timestamp: Some(Time(written.last)),
            count: Some(written.count),
            ..Event::default()
        }
    }

    fn forget_old(&mut self) {
        if self.written.len() > REMEMBERED {
            let mut times: Vec<_> = self.written.values().map(|written| written.last).collect();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            self.written.retain(|_, written| written.last > middle);
        }
        if self.budgets.len() > REMEMBERED {
            let mut times: Vec<_> = self.budgets.values().map(|budget| budget.at).collect();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            self.budgets.retain(|_, budget| budget.at > middle);
        }
    }
}

async fn write_all(client: kube::Client, node: String, mut queue: mpsc::Receiver<Occurrence>) {
    let mut correlator = Correlator::new(node);
    while let Some(occurrence) = queue.recv().await {
        let Some(write) = correlator.observe(&occurrence, Timestamp::now()) else {
            continue;
        };
        // An Event that cannot be written is lost, as with the kubelet: it is only a message.
        if let Err(error) = write_one(&client, write).await {
            debug!(%error, reason = occurrence.reason, "event not written");
        }
    }
}

async fn write_one(client: &kube::Client, write: Write) -> Result<(), kube::Error> {
    match write {
        Write::Create(event) => create(client, &event).await,
        Write::Count {
            namespace,
            name,
            count,
            mut event,
        } => {
            let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
            let patch = serde_json::json!({"count": count, "lastTimestamp": event.last_timestamp});
            match api
                .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
            {
                // It was removed meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    event.metadata.resource_version = None;
                    create(client, &event).await
                }
                other => other.map(drop),
            }
        }
    }
}

async fn create(client: &kube::Client, event: &Event) -> Result<(), kube::Error> {
    let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), event).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(message: &str) -> Occurrence {
        let about = ObjectReference {
            uid: Some("u".into()),
            name: Some("web".into()),
            namespace: Some("shop".into()),
            ..ObjectReference::default()
        };
        Occurrence {
            about,
            severity: Severity::Normal,
            reason: "Started".into(),
            message: message.into(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn repetitions_are_counted_in_one_event() {
        let mut correlator = Correlator::new("node-1".into());
        let Some(Write::Create(event)) = correlator.observe(&occurrence("a"), at(0)) else {
            panic!("not created")
        };
        assert_eq!(
            event.source.as_ref().unwrap().host.as_deref(),
            Some("node-1")
        );
        let Some(Write::Count {
            name,
            count,
            event: again,
            ..
        }) = correlator.observe(&occurrence("a"), at(5))
        else {
            panic!("not counted")
        };
        assert_eq!((Some(name), count), (event.metadata.name, 2));
        assert_eq!(
            (again.first_timestamp, again.last_timestamp),
            (Some(Time(at(0))), Some(Time(at(5))))
        );
        assert!(matches!(
            correlator.observe(&occurrence("b"), at(6)),
            Some(Write::Create(_))
        ));
    }

    #[test]
    fn after_ten_minutes_it_is_a_new_event() {
        let mut correlator = Correlator::new("node-1".into());
        correlator.observe(&occurrence("a"), at(0));
        assert!(matches!(
            correlator.observe(&occurrence("a"), at(601)),
            Some(Write::Create(_))
        ));
    }

    #[test]
    fn a_flood_is_cut_to_its_burst_and_then_trickles() {
        let mut correlator = Correlator::new("node-1".into());
        let written = (0..100)
            .filter(|i| {
                correlator
                    .observe(&occurrence(&i.to_string()), at(0))
                    .is_some()
            })
            .count();
        assert_eq!(written, 25);
        assert!(correlator.observe(&occurrence("late"), at(299)).is_none());
        assert!(correlator.observe(&occurrence("later"), at(601)).is_some());
    }
}
