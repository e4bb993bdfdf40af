//! ResourceQuotas: nothing is stored that would take a namespace beyond what it may have.
//!
//! What is used is counted from the stored objects at each request (each is read once and then known by its version),
//! with the writes on their way added, under one lock: so two writes never take the last share together, nothing is
//! lost or counted twice after a crash, and a write that fails gives its share back at once. What was charged is
//! written to the quota's status before the object is stored, so that whoever reads the quota after the answer sees it;
//! the controllers count anew when objects go.
//!
//! Cost of a request in a namespace with quotas: one look at each object of its kind there. Elsewhere: one look-up.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/resourcequota`.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use seaway_objects::kind::Names;
use seaway_objects::quantity::Amount;
use seaway_objects::quota::{Amounts, Counted, Facts, Quota, amounts, missing, shown};
use seaway_store::{Error as StoreError, Expectation, Write};
use serde_json::{Map, Value};

use super::stored::{self, Stored};
use super::{Operation, Plugin, Request, Stage, Undo};
use crate::api::store_error;
use crate::object;
use crate::status::ApiError;

/// How often a status that somebody else writes too is tried again.
const TRIES: usize = 16;

/// See the module.
pub(super) struct ResourceQuota {
    stored: Stored,
    books: Arc<Mutex<Books>>,
    /// One write of a status at a time: those that wait for it find their share written when it is their turn.
    writing: tokio::sync::Mutex<()>,
}

/// By key: of which version, and what.
type Known = HashMap<Arc<str>, (u64, Arc<Facts>)>;

#[derive(Default)]
struct Books {
    /// By the prefix of their keys: what is known of each object, and of which version.
    known: HashMap<String, Known>,
    /// Writes that are admitted and not stored yet.
    pending: Vec<Pending>,
    last: u64,
}

struct Pending {
    number: u64,
    prefix: String,
    key: String,
    facts: Arc<Facts>,
}

/// A share that is reserved for as long as this lives.
struct Share {
    books: Arc<Mutex<Books>>,
    number: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        let number = self.number;
        self.books
            .lock()
            .pending
            .retain(|pending| pending.number != number);
    }
}

impl Books {
    /// What is known of the objects with this prefix, writes on their way included.
    fn facts(
        &mut self,
        stored: &Stored,
        prefix: &str,
        kind: Counted<'_>,
    ) -> HashMap<Arc<str>, Arc<Facts>> {
        let before = self.known.remove(prefix).unwrap_or_default();
        let (records, _) = stored.0.list(prefix);
        let known: Known = records
            .iter()
            .map(|record| {
                let facts = match before.get(&record.key) {
                    Some((revision, facts)) if *revision == record.revision => Arc::clone(facts),
                    _ => Arc::new(Facts::of(kind, &stored::read(record).unwrap_or_default())),
                };
                (Arc::clone(&record.key), (record.revision, facts))
            })
            .collect();
        let mut all: HashMap<Arc<str>, Arc<Facts>> = known
            .iter()
            .map(|(key, (_, facts))| (Arc::clone(key), Arc::clone(facts)))
            .collect();
        self.known.insert(prefix.to_owned(), known);
        for pending in self
            .pending
            .iter()
            .filter(|pending| pending.prefix == prefix)
        {
            all.insert(Arc::from(pending.key.as_str()), Arc::clone(&pending.facts));
        }
        all
    }
}

fn counted(names: &'static Names) -> Counted<'static> {
    Counted {
        group: names.group,
        plural: names.plural,
    }
}

impl ResourceQuota {
    pub(super) fn new(stored: Stored) -> Self {
        Self {
            stored,
            books: Arc::default(),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    fn quotas(&self, namespace: &str) -> Vec<Quota> {
        let quotas = self.stored.list("resourcequotas", namespace);
        quotas.iter().map(Quota::read).collect()
    }

    /// Whether quotas have anything to say to a request.
    fn applies(request: &Request<'_>) -> bool {
        let kind = counted(request.kind);
        request.subresource.is_empty()
            && !request.namespace.is_empty()
            && !kind.is_ignored()
            && match request.operation {
                Operation::Create => true,
                Operation::Update => kind.is_charged_on_update(),
                Operation::Delete => false,
            }
    }

    /// Writes what is used of the kind into the status of the namespace's quotas, where it differs.
    async fn write(&self, namespace: &str, kind: Counted<'_>) -> Result<(), ApiError> {
        let _turn = self.writing.lock().await;
        for quota in self.quotas(namespace) {
            if quota.limits(kind).next().is_none() {
                continue;
            }
            let key = format!(
                "{}{}",
                stored::prefix("", "resourcequotas", namespace),
                quota.name
            );
            for _ in 0..TRIES {
                let Some(record) = self.stored.0.get(&key) else {
                    break;
                };
                let Some(mut object) = stored::read(&record) else {
                    break;
                };
                let prefix = stored::prefix(kind.group, kind.plural, namespace);
                let facts = self.books.lock().facts(&self.stored, &prefix, kind);
                let used = quota.used(
                    kind,
                    facts.values().map(AsRef::as_ref),
                    Timestamp::now().as_second(),
                );
                if !set_used(&mut object, &used) {
                    break;
                }
                let write = Write::Put(object::encode(&object)?);
                match self
                    .stored
                    .0
                    .commit(&key, Expectation::Revision(record.revision), write)
                    .await
                {
                    Ok(_) => break,
                    // The controllers or a user changed it: look again.
                    Err(StoreError::Conflict { .. }) => {}
                    Err(e) => return Err(store_error(&e)),
                }
            }
        }
        Ok(())
    }
}

/// Sets the amounts in the status; whether that changed anything.
fn set_used(quota: &mut Value, used: &Amounts) -> bool {
    let hard = quota["spec"]["hard"].clone();
    let status = quota.as_object_mut().map(|quota| {
        quota
            .entry("status")
            .or_insert_with(|| Value::Object(Map::new()))
    });
    let Some(Value::Object(status)) = status else {
        return false;
    };
    let before = status.get("used").map(amounts).unwrap_or_default();
    if used
        .iter()
        .all(|(name, amount)| before.get(name) == Some(amount))
    {
        return false;
    }
    if status
        .get("hard")
        .is_none_or(|hard| hard.as_object().is_none_or(Map::is_empty))
    {
        status.insert("hard".to_owned(), hard);
    }
    let written = status
        .entry("used")
        .or_insert_with(|| Value::Object(Map::new()));
    for (name, amount) in used {
        written[name] = amount.to_string().into();
    }
    true
}

impl Plugin for ResourceQuota {
    fn stage(&self) -> Stage {
        Stage::Reserve
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError> {
        if !Self::applies(request) {
            return Ok(Undo::nothing());
        }
        let quotas = self.quotas(request.namespace);
        if quotas.is_empty() {
            return Ok(Undo::nothing());
        }
        let kind = counted(request.kind);
        let now = Timestamp::now().as_second();
        let refused = |why: &str| ApiError::forbidden(request.kind, request.name, why);
        let facts = Arc::new(Facts::of(kind, object));
        let old = request.old.map(|old| Facts::of(kind, old));
        let mut interested: Vec<&Quota> = Vec::new();
        for quota in &quotas {
            if quota.limits(kind).next().is_none() || !quota.covers(&facts) {
                continue;
            }
            if request.is("", "pods")
                && let Some(missing) = missing(object, quota.limits(kind))
            {
                return Err(refused(&format!(
                    "failed quota: {}: must specify {missing}",
                    quota.name
                )));
            }
            interested.push(quota);
        }
        let negative: Vec<&str> = facts
            .usage(now)
            .filter(|(_, amount)| amount.nano < 0)
            .map(|(name, _)| name.as_str())
            .collect();
        if !negative.is_empty() {
            let why = format!(
                "quota usage is negative for resource(s): {}",
                negative.join(",")
            );
            return Err(refused(&why));
        }
        let prefix = stored::prefix(kind.group, kind.plural, request.namespace);
        let mut books = self.books.lock();
        let mut charged = false;
        let mut all = None;
        for quota in interested {
            let asked = requested(quota, &facts, old.as_ref(), kind, now);
            if asked.is_empty() {
                continue;
            }
            let all = all.get_or_insert_with(|| books.facts(&self.stored, &prefix, kind));
            let used = quota.used(kind, all.values().map(AsRef::as_ref), now);
            if let Some(why) = exceeded(quota, &asked, &used) {
                return Err(refused(&why));
            }
            charged = true;
        }
        if !charged || request.dry_run {
            return Ok(Undo::nothing());
        }
        books.last += 1;
        let number = books.last;
        books.pending.push(Pending {
            number,
            key: format!("{prefix}{}", request.name),
            prefix,
            facts,
        });
        drop(books);
        let share = Share {
            books: Arc::clone(&self.books),
            number,
        };
        // Stored or not, the share is let go: what is stored is counted where it is.
        Ok(Undo::new(move || drop(share)))
    }

    fn write_through<'a>(
        &'a self,
        request: &'a Request<'_>,
    ) -> Option<BoxFuture<'a, Result<(), ApiError>>> {
        if !Self::applies(request) || request.dry_run || self.books.lock().pending.is_empty() {
            return None;
        }
        Some(self.write(request.namespace, counted(request.kind)).boxed())
    }
}

/// What the object needs of the quota beyond what it has.
fn requested(
    quota: &Quota,
    facts: &Facts,
    old: Option<&Facts>,
    kind: Counted<'_>,
    now: i64,
) -> Amounts {
    let has: Amounts = match old {
        Some(old) if quota.covers(old) => old.usage(now).map(|(n, a)| (n.clone(), a)).collect(),
        _ => Amounts::new(),
    };
    let limited: Vec<&String> = quota.limits(kind).collect();
    facts
        .usage(now)
        .filter(|(name, _)| limited.contains(name))
        .map(|(name, amount)| {
            (
                name.clone(),
                amount - has.get(name).copied().unwrap_or_default(),
            )
        })
        .filter(|(_, amount)| amount.nano > 0)
        .collect()
}

/// What is asked for beyond the quota, in Kubernetes' words.
fn exceeded(quota: &Quota, asked: &Amounts, used: &Amounts) -> Option<String> {
    let of = |amounts: &Amounts, name: &String| amounts.get(name).copied().unwrap_or_default();
    let beyond: Vec<&String> = asked
        .iter()
        .filter(|(name, amount)| of(used, name) + **amount > of(&quota.hard, name))
        .map(|(name, _)| name)
        .collect();
    if beyond.is_empty() {
        return None;
    }
    let only = |amounts: &Amounts| -> String {
        let part: Vec<(String, Amount)> = beyond
            .iter()
            .map(|name| ((*name).clone(), of(amounts, name)))
            .collect();
        shown(&part.into_iter().collect())
    };
    Some(format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        quota.name,
        only(asked),
        only(used),
        only(&quota.hard)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_names_only_what_is_exceeded() {
        let quota = Quota::read(
            &json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "3", "cpu": "2"}}}),
        );
        let amounts = |pods: &str, cpu: &str| amounts(&json!({"pods": pods, "cpu": cpu}));
        assert_eq!(
            exceeded(&quota, &amounts("1", "500m"), &amounts("3", "1")).as_deref(),
            Some("exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3")
        );
        assert_eq!(
            exceeded(&quota, &amounts("1", "1"), &amounts("3", "1500m")).as_deref(),
            Some(
                "exceeded quota: q, requested: cpu=1,pods=1, used: cpu=1500m,pods=3, limited: cpu=2,pods=3"
            )
        );
        assert_eq!(
            exceeded(&quota, &amounts("1", "1"), &amounts("2", "1")),
            None
        );
    }

    #[test]
    fn a_change_is_charged_with_what_it_adds() {
        let quota = Quota::read(
            &json!({"metadata": {"name": "q"}, "spec": {"hard": {"services": "1", "services.nodeports": "2"}}}),
        );
        let kind = Counted {
            group: "",
            plural: "services",
        };
        let facts = |spec: Value| Facts::of(kind, &json!({"spec": spec}));
        let (plain, ports) = (
            facts(json!({"type": "ClusterIP"})),
            facts(json!({"type": "NodePort", "ports": [{"port": 1}]})),
        );
        assert_eq!(
            shown(&requested(&quota, &ports, Some(&plain), kind, 0)),
            "services.nodeports=1"
        );
        assert_eq!(shown(&requested(&quota, &plain, Some(&ports), kind, 0)), "");
        assert_eq!(
            shown(&requested(&quota, &ports, None, kind, 0)),
            "services=1,services.nodeports=1"
        );
    }
}
