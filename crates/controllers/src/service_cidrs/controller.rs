//! The loop that keeps ServiceCIDRs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Api;
use kube::api::Patch;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Action, FINALIZER, READY};
use crate::cache::Change;
use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::events::{self, Recorder};
use crate::object::{self, ObjectKey};
use crate::queue::{Next, Queue};

const NAME: &str = "service-cidr-controller";
/// Label of IPAddresses: who made them.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`] of those that are Services'.
const ALLOCATOR: &str = "ipallocator.k8s.io";

/// Keeps ServiceCIDRs.
pub(crate) struct ServiceCidrs {
    cluster: Arc<Cluster>,
    queue: Queue<ObjectKey>,
    events: Recorder,
    grace: Duration,
}

impl ServiceCidrs {
    /// Listens to the caches; [`ServiceCidrs::run`] does the work. An API server may give out addresses for `grace`
    /// after it was told not to.
    pub(crate) fn new(cluster: &Arc<Cluster>, grace: Duration) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            events: cluster.events.named(NAME),
            grace,
        });
        let listener = Arc::clone(&this);
        cluster.service_cidrs.on_change(move |change| {
            // What comes or goes may cover what others have.
            let ranges: Vec<IpNet> = change.states().flat_map(|one| plan::ranges(one)).collect();
            listener.add_where(|range| {
                let overlaps = |other: &IpNet| other.contains(range) || range.contains(other);
                ranges.iter().any(overlaps)
            });
            listener.queue.add(ObjectKey::of(&change.latest().metadata));
        });
        let listener = Arc::clone(&this);
        cluster.ip_addresses.on_change(move |change| {
            let came_or_went = !matches!(change, Change::Modified { .. });
            if let Some(ip) = address(change.latest()).filter(|_| came_or_went) {
                listener.add_where(|range| plan::is_usable(range, ip));
            }
        });
        this
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.clone();
        queue
            .run(NAME, 1, shutdown, |key| {
                let this = Arc::clone(&self);
                async move { this.reconcile(&key).await }
            })
            .await;
    }

    /// Only those that are going can be concerned by what others do.
    fn add_where(&self, concerned: impl Fn(&IpNet) -> bool) {
        let all = self.cluster.service_cidrs.all().into_iter();
        for cidr in all.filter(|cidr| object::is_deleting(&cidr.metadata)) {
            if plan::ranges(&cidr).iter().any(&concerned) {
                self.queue.add(ObjectKey::of(&cidr.metadata));
            }
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(cidr) = self.cluster.service_cidrs.get(key) else {
            return Ok(Next::Done);
        };
        let deleted = cidr.metadata.deletion_timestamp.as_ref();
        let (others, in_use) = match deleted {
            Some(_) => (self.other_ranges(key), self.addresses()),
            None => (Vec::new(), Vec::new()),
        };
        let action = plan::plan(&cidr, &others, &in_use);
        match &action {
            Action::Nothing => {}
            Action::AddFinalizer => self.set_finalizer(&cidr, true).await?,
            Action::LetGo => {
                let age = deleted.map(|time| Timestamp::now().duration_since(time.0));
                let age = age.and_then(|age| Duration::try_from(age).ok());
                let left = self.grace.saturating_sub(age.unwrap_or_default());
                if !left.is_zero() {
                    return Ok(Next::After(left));
                }
                self.set_finalizer(&cidr, false).await?;
            }
            Action::Ready | Action::Blocked => {
                let answer = self.set_condition(&cidr, &action).await;
                if answer.is_err() && action == Action::Ready {
                    self.events.warning(
                        events::reference::<ServiceCIDR>(&cidr.metadata),
                        "KubernetesServiceCIDRError",
                        "The ServiceCIDR Status can not be set to Ready=True".to_owned(),
                    );
                }
                answer?;
            }
        }
        Ok(Next::Done)
    }

    /// The ranges of all others that stay.
    fn other_ranges(&self, key: &ObjectKey) -> Vec<IpNet> {
        let all = self.cluster.service_cidrs.all().into_iter();
        all.filter(|other| !object::is_deleting(&other.metadata))
            .filter(|other| ObjectKey::of(&other.metadata) != *key)
            .flat_map(|other| plan::ranges(&other))
            .collect()
    }

    /// All addresses that Services have.
    fn addresses(&self) -> Vec<IpAddr> {
        let all = self.cluster.ip_addresses.all();
        all.iter().filter_map(|one| address(one)).collect()
    }

    async fn set_finalizer(&self, cidr: &ServiceCIDR, wanted: bool) -> Result<(), Error> {
        let mut finalizers = cidr.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|one| one != FINALIZER);
        if wanted {
            finalizers.push(FINALIZER.to_owned());
        }
        let patch = json!({ "metadata": {
            "uid": cidr.metadata.uid,
            "resourceVersion": cidr.metadata.resource_version,
            "finalizers": finalizers,
        }});
        let name = cidr.metadata.name.as_deref().unwrap_or_default();
        let answer = self
            .api()
            .patch(name, &cluster::patch(), &Patch::Merge(&patch))
            .await;
        or_gone(answer.during("set the finalizer of ServiceCIDR", name))?;
        Ok(())
    }

    async fn set_condition(&self, cidr: &ServiceCIDR, action: &Action) -> Result<(), Error> {
        let Some((status, reason, message)) = plan::condition(action) else {
            return Ok(());
        };
        let mut conditions = plan::conditions(cidr).to_vec();
        conditions.retain(|one| one.type_ != READY);
        conditions.push(Condition {
            type_: READY.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: Time(Timestamp::now()),
            observed_generation: None,
        });
        let patch = json!({
            "metadata": { "resourceVersion": cidr.metadata.resource_version },
            "status": { "conditions": conditions },
        });
        let name = cidr.metadata.name.as_deref().unwrap_or_default();
        let answer = self
            .api()
            .patch_status(name, &cluster::patch(), &Patch::Merge(&patch))
            .await;
        or_gone(answer.during("set the condition of ServiceCIDR", name))?;
        Ok(())
    }

    fn api(&self) -> Api<ServiceCIDR> {
        Api::all(self.cluster.client.clone())
    }
}

/// The address of a Service; `None` if it is somebody else's.
fn address(object: &IPAddress) -> Option<IpAddr> {
    let managed = object::labels_of(&object.metadata)
        .get(MANAGED_BY)
        .is_some_and(|manager| manager == ALLOCATOR);
    let name = object.metadata.name.as_deref().filter(|_| managed)?;
    name.parse().ok()
}
