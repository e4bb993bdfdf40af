//! Event objects: what a controller did, told to the user. Repeated Events raise the count of the first one.
//!
//! Source of the rules: `client-go/tools/record`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be written; more are dropped, because telling must never slow the doing.
const BACKLOG: usize = 1024;
/// Events that are remembered, so that a repetition raises their count.
const REMEMBERED: usize = 4096;
/// A repetition after this is a new Event: the API server forgets the old one after an hour.
const REPEATABLE: Duration = Duration::from_secs(10 * 60);

/// So many Events that differ in their message only are written one by one; all further ones are one Event.
const SIMILAR: usize = 10;
/// What such an Event begins with. Source: `EventAggregator` of client-go.
const COMBINED: &str = "(combined from similar events): ";

/// Writes Events in the name of one component.
#[derive(Clone)]
pub(crate) struct Recorder {
    component: &'static str,
    queue: mpsc::Sender<Record>,
}

/// How an Event is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Normal,
    Warning,
}

struct Record {
    component: &'static str,
    kind: Kind,
    object: ObjectReference,
    reason: &'static str,
    message: String,
}

/// The other end of all recorders.
pub(crate) struct Records(mpsc::Receiver<Record>);

/// A recorder and the end that writes what it records.
pub(crate) fn channel() -> (Recorder, Records) {
    let (queue, records) = mpsc::channel(BACKLOG);
    (
        Recorder {
            component: "seaway",
            queue,
        },
        Records(records),
    )
}

/// A reference to an object, as Events carry it.
pub(crate) fn reference<K: Resource<DynamicType = ()>>(meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl Recorder {
    /// The same, in the name of another component.
    pub(crate) fn named(&self, component: &'static str) -> Self {
        Self {
            component,
            queue: self.queue.clone(),
        }
    }

    /// Something went as it should.
    pub(crate) fn normal(&self, object: ObjectReference, reason: &'static str, message: String) {
        self.record(Kind::Normal, object, reason, message);
    }

    /// Something needs attention.
    pub(crate) fn warning(&self, object: ObjectReference, reason: &'static str, message: String) {
        self.record(Kind::Warning, object, reason, message);
    }

    fn record(&self, kind: Kind, object: ObjectReference, reason: &'static str, message: String) {
        let record = Record {
            component: self.component,
            kind,
            object,
            reason,
            message,
        };
        if self.queue.try_send(record).is_err() {
            tracing::warn!(reason, "too many Events at once, one is lost");
        }
    }
}

impl Records {
    /// Writes the Events until `shutdown`.
    pub(crate) async fn write(mut self, client: Client, shutdown: CancellationToken) {
        let mut written = Written::default();
        loop {
            let record = tokio::select! {
                () = shutdown.cancelled() => return,
                record = self.0.recv() => record,
            };
            let Some(record) = record else { return };
            let (reason, name) = (record.reason, record.object.name.clone());
            if let Err(error) = write(&client, &mut written, record, Timestamp::now()).await {
                // A namespace that ends takes no Events; nobody needs to know.
                let ending = matches!(&error, kube::Error::Api(status) if status.is_forbidden() || status.is_not_found());
                if ending {
                    tracing::debug!(reason, object = name, %error, "an Event came too late");
                } else {
                    tracing::warn!(reason, object = name, %error, "an Event could not be written");
                }
            }
        }
    }
}

async fn write(
    client: &Client,
    written: &mut Written,
    mut record: Record,
    now: Timestamp,
) -> kube::Result<()> {
    // Events about cluster-wide objects live in `default`.
    let namespace = record
        .object
        .namespace
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let mut key = Key::of(&record);
    if written.is_one_of_many(&key, now) {
        record.message.insert_str(0, COMBINED);
        key.message.clear();
    }
    if let Some(earlier) = written.repeated(&key, now) {
        let patch = serde_json::json!({ "count": earlier.count, "lastTimestamp": Time(now), "message": record.message });
        match api
            .patch(
                &earlier.name,
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
        {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            result => return result.map(drop),
        }
    }
    let name = event_name(record.object.name.as_deref().unwrap_or_default(), now);
    api.create(
        &PostParams::default(),
        &event(record, namespace, name.clone(), now),
    )
    .await?;
    written.remember(key, name, now);
    Ok(())
}

/// `<object>.<time in hexadecimal nanoseconds>`, as client-go names them.
fn event_name(object: &str, now: Timestamp) -> String {
    format!("{object}.{:x}", now.as_nanosecond())
}

fn event(record: Record, namespace: String, name: String, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: record.object,
        reason: Some(record.reason.to_owned()),
        message: Some(record.message),
        source: Some(EventSource {
            component: Some(record.component.to_owned()),
            host: None,
        }),
        reporting_component: Some(record.component.to_owned()),
        reporting_instance: Some(String::new()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        type_: Some(
            match record.kind {
                Kind::Normal => "Normal",
                Kind::Warning => "Warning",
            }
            .to_owned(),
        ),
        ..Event::default()
    }
}

/// What makes two Events the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    component: &'static str,
    kind: Kind,
    object: (Option<String>, Option<String>, Option<String>),
    reason: &'static str,
    message: String,
}

impl Key {
    fn of(record: &Record) -> Self {
        let object = &record.object;
        Self {
            component: record.component,
            kind: record.kind,
            object: (object.uid.clone(), object.kind.clone(), object.name.clone()),
            reason: record.reason,
            message: record.message.clone(),
        }
    }
}

#[derive(Debug, Clone)]
struct Earlier {
    name: String,
    count: i32,
    last: Timestamp,
}

/// The Events written of late.
#[derive(Default)]
struct Written {
    events: HashMap<Key, Earlier>,
    order: VecDeque<Key>,
    /// By what they have in common: the messages of Events of late.
    similar: HashMap<Key, (HashSet<String>, Timestamp)>,
}

impl Written {
    /// Whether there were so many like it of late, but for the message, that they are told together.
    fn is_one_of_many(&mut self, key: &Key, now: Timestamp) -> bool {
        if self.similar.len() > REMEMBERED {
            self.similar.clear();
        }
        let common = Key {
            message: String::new(),
            ..key.clone()
        };
        let (messages, last) = self
            .similar
            .entry(common)
            .or_insert_with(|| (HashSet::new(), now));
        if Duration::try_from(now.duration_since(*last)).unwrap_or_default() > REPEATABLE {
            messages.clear();
        }
        *last = now;
        if messages.len() <= SIMILAR {
            messages.insert(key.message.clone());
        }
        messages.len() > SIMILAR
    }

    fn repeated(&mut self, key: &Key, now: Timestamp) -> Option<Earlier> {
        let earlier = self.events.get_mut(key)?;
        let age = Duration::try_from(now.duration_since(earlier.last)).unwrap_or_default();
        if age > REPEATABLE {
            return None;
        }
        earlier.count = earlier.count.saturating_add(1);
        earlier.last = now;
        Some(earlier.clone())
    }

    fn remember(&mut self, key: Key, name: String, now: Timestamp) {
        if self
            .events
            .insert(
                key.clone(),
                Earlier {
                    name,
                    count: 1,
                    last: now,
                },
            )
            .is_none()
        {
            self.order.push_back(key);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.events.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(message: &str) -> Key {
        Key {
            component: "test",
            kind: Kind::Normal,
            object: (None, None, None),
            reason: "Tried",
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_repetition_raises_the_count_until_it_is_too_late() {
        let start = Timestamp::UNIX_EPOCH;
        let later = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let mut written = Written::default();
        assert!(written.repeated(&key("a"), start).is_none());
        written.remember(key("a"), "a.1".into(), start);
        assert_eq!(written.repeated(&key("a"), later(1)).unwrap().count, 2);
        assert_eq!(written.repeated(&key("a"), later(2)).unwrap().count, 3);
        assert!(written.repeated(&key("b"), later(2)).is_none());
        assert!(written.repeated(&key("a"), later(2000)).is_none());
    }

    #[test]
    fn many_that_differ_in_their_message_only_are_told_together() {
        let start = Timestamp::UNIX_EPOCH;
        let mut written = Written::default();
        for number in 0..SIMILAR {
            assert!(!written.is_one_of_many(&key(&number.to_string()), start));
        }
        assert!(
            !written.is_one_of_many(&key("0"), start),
            "a repetition is not one more"
        );
        assert!(written.is_one_of_many(&key("one more"), start));
        let later = Timestamp::from_second(2000).unwrap();
        assert!(!written.is_one_of_many(&key("much later"), later));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut written = Written::default();
        for number in 0..REMEMBERED + 10 {
            written.remember(key(&number.to_string()), "x".into(), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(written.events.len(), REMEMBERED);
        assert!(written.repeated(&key("0"), Timestamp::UNIX_EPOCH).is_none());
    }
}
