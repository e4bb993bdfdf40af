//! Counts anew what is used of each namespace's quotas: when something there comes or goes, when a quota changes, and
//! from time to time. The API server charges what it stores; this gives back what is gone.
//!
//! Source of the rules: `pkg/controller/resourcequota`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ListParams;
use parking_lot::Mutex;
use seaway_objects::quantity::Amount;
use seaway_objects::quota::{Amounts, Counted, Facts, Quota};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::inventory::{Inventory, Known, Sighting};
use crate::object;
use crate::queue::{Next, Queue};

const NAME: &str = "resourcequota-controller";
/// Namespaces counted at the same time.
const PARALLEL: usize = 5;
/// How often everything is counted though nothing is seen to change: a Pod that does not end in time stops counting.
const RECOUNT: Duration = Duration::from_secs(5 * 60);

/// Keeps the status of all quotas.
pub(crate) struct Quotas {
    cluster: Arc<Cluster>,
    inventory: Arc<Inventory>,
    queue: Queue<String>,
    /// Namespace → its quotas: what happens elsewhere does not matter.
    limited: Mutex<HashMap<String, HashSet<String>>>,
}

impl Quotas {
    /// Listens to the inventory; [`Quotas::run`] does the work.
    pub(crate) fn new(cluster: &Arc<Cluster>, inventory: &Arc<Inventory>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            inventory: Arc::clone(inventory),
            queue: Queue::new(),
            limited: Mutex::new(HashMap::new()),
        });
        let listener = Arc::clone(&this);
        inventory.on_object(move |sighting| listener.seen(sighting));
        this
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.clone();
        queue
            .run(NAME, PARALLEL, shutdown, |namespace| {
                let this = Arc::clone(&self);
                async move { this.reconcile(&namespace).await }
            })
            .await;
    }

    fn seen(&self, sighting: &Sighting<'_>) {
        let Some(meta) = sighting.new.or(sighting.old) else {
            return;
        };
        let Some(namespace) = &meta.namespace else {
            return;
        };
        let kind = (
            sighting.resource.group.as_str(),
            sighting.resource.kind.as_str(),
        );
        if kind == ("", "ResourceQuota") {
            let name = meta.name.clone().unwrap_or_default();
            let mut limited = self.limited.lock();
            if sighting.new.is_some() {
                limited.entry(namespace.clone()).or_default().insert(name);
            } else if let Some(quotas) = limited.get_mut(namespace) {
                quotas.remove(&name);
                if quotas.is_empty() {
                    limited.remove(namespace);
                }
            }
        }
        // What an object uses changes when it comes or goes, and for a few kinds also in between.
        let counts = sighting.old.is_none()
            || sighting.new.is_none()
            || matches!(kind, ("", "Pod" | "Service" | "ResourceQuota"));
        if counts && self.limited.lock().contains_key(namespace) {
            self.queue.add(namespace.clone());
        }
    }

    async fn reconcile(&self, namespace: &str) -> Result<Next, Error> {
        let api = self.cluster.api::<ResourceQuota>(namespace);
        // Read before everything that is counted: whatever is charged meanwhile makes the write below a conflict.
        let quotas = api
            .list(&ListParams::default())
            .await
            .during("list ResourceQuotas in", namespace)?;
        if quotas.items.is_empty() {
            return Ok(Next::Done);
        }
        let kinds = self.inventory.namespaced();
        let now = Timestamp::now().as_second();
        let mut counted: HashMap<(String, String), Vec<Facts>> = HashMap::new();
        for object in quotas.items {
            if object::is_deleting(&object.metadata) {
                continue;
            }
            let quota = Quota::read(&value(&object)?);
            let mut used = Amounts::new();
            for known in &kinds {
                let kind = counted_kind(known);
                if quota.limits(kind).next().is_none() {
                    continue;
                }
                let key = (kind.group.to_owned(), kind.plural.to_owned());
                if !counted.contains_key(&key) {
                    let facts = self.facts(namespace, known).await?;
                    counted.insert(key.clone(), facts);
                }
                used.extend(quota.used(kind, counted[&key].iter(), now));
            }
            self.write(namespace, object, &used).await?;
        }
        Ok(Next::After(RECOUNT))
    }

    /// What there is of a kind in a namespace.
    async fn facts(&self, namespace: &str, known: &Known) -> Result<Vec<Facts>, Error> {
        let kind = counted_kind(known);
        let everything = ListParams::default();
        let operation = "count objects in";
        match (kind.group, kind.plural) {
            ("", "pods") => {
                let pods = self.cluster.api::<Pod>(namespace).list(&everything).await;
                read_all(kind, pods.during(operation, namespace)?.items)
            }
            ("", "services") => {
                let services = self
                    .cluster
                    .api::<Service>(namespace)
                    .list(&everything)
                    .await;
                read_all(kind, services.during(operation, namespace)?.items)
            }
            _ => {
                let objects = known.api(&self.cluster, namespace).list(&everything).await;
                let objects = objects.during(operation, namespace)?.items;
                let one = Facts::of(kind, &Value::Null);
                Ok(vec![one; objects.len()])
            }
        }
    }

    async fn write(
        &self,
        namespace: &str,
        mut quota: ResourceQuota,
        used: &Amounts,
    ) -> Result<(), Error> {
        let hard = quota
            .spec
            .as_ref()
            .and_then(|spec| spec.hard.clone())
            .unwrap_or_default();
        let before = quota.status.clone().unwrap_or_default();
        let was = before.used.clone().unwrap_or_default();
        // What cannot be counted (a kind that is not served) keeps what it had.
        let mut now: BTreeMap<String, Quantity> = was
            .iter()
            .filter(|(name, _)| hard.contains_key(*name))
            .map(|(name, amount)| (name.clone(), amount.clone()))
            .collect();
        for (name, amount) in used {
            let same = now.get(name).and_then(|was| Amount::parse(&was.0)) == Some(*amount);
            if !same {
                now.insert(name.clone(), Quantity(amount.to_string()));
            }
        }
        if before.hard.clone().unwrap_or_default() == hard && was == now {
            return Ok(());
        }
        let name = quota.metadata.name.clone().unwrap_or_default();
        let status = quota.status.get_or_insert_default();
        status.hard = Some(hard);
        status.used = Some(now);
        let api = self.cluster.api::<ResourceQuota>(namespace);
        let answer = api.replace_status(&name, &cluster::post(), &quota).await;
        or_gone(answer.during(
            "write status of ResourceQuota",
            format!("{namespace}/{name}"),
        ))?;
        Ok(())
    }
}

fn counted_kind(known: &Known) -> Counted<'_> {
    Counted {
        group: &known.resource.group,
        plural: &known.resource.plural,
    }
}

fn value(object: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(object).map_err(|error| Error::Object {
        object: "a counted object".to_owned(),
        problem: error.to_string(),
    })
}

fn read_all<K: Serialize>(kind: Counted<'_>, objects: Vec<K>) -> Result<Vec<Facts>, Error> {
    objects
        .iter()
        .map(|object| Ok(Facts::of(kind, &value(object)?)))
        .collect()
}
