//! What all controllers share: the client, one cache for each kind, the Event recorder.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::api::{PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Index};
use crate::events::Recorder;
use crate::object;
use crate::pod;
use seaway_objects::selector::{LabelSelector, Operator};

/// The name under which the controllers write, as `metadata.managedFields` shows it.
const FIELD_MANAGER: &str = "seaway-controllers";

/// Objects by the UID of their controller.
pub(crate) fn by_controller<K: Resource>() -> Index<K> {
    Index {
        name: "controller",
        terms: |object| {
            object::controller_of(object.meta())
                .map(|owner| owner.uid.clone())
                .into_iter()
                .collect()
        },
    }
}

/// Objects without a controller, by namespace.
pub(crate) fn orphans<K: Resource>() -> Index<K> {
    Index {
        name: "orphan",
        terms: |object| match object::controller_of(object.meta()) {
            Some(_) => Vec::new(),
            None => object.meta().namespace.clone().into_iter().collect(),
        },
    }
}

/// Objects by namespace.
pub(crate) fn by_namespace<K: Resource>() -> Index<K> {
    Index {
        name: "namespace",
        terms: |object| object.meta().namespace.clone().into_iter().collect(),
    }
}

/// Pods by each of their labels; see [`label_term`].
pub(crate) const PODS_BY_LABEL: Index<Pod> = Index {
    name: "label",
    terms: |pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        object::labels_of(&pod.metadata)
            .iter()
            .map(|(key, value)| label_term(namespace, key, value))
            .collect()
    },
};

/// Pods by the node they are bound to.
pub(crate) const PODS_BY_NODE: Index<Pod> = Index {
    name: "node",
    terms: |pod| pod::node_name(pod).map(str::to_owned).into_iter().collect(),
};

/// Services with a selector, by its first label: a Pod that the Service selects has that label.
pub(crate) const SERVICES_BY_SELECTOR: Index<Service> = Index {
    name: "selector",
    terms: |service| {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let selector = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        let first = selector.and_then(|labels| labels.first_key_value());
        first
            .map(|(key, value)| label_term(namespace, key, value))
            .into_iter()
            .collect()
    },
};

/// EndpointSlices by the Service they belong to, as `namespace/name`.
pub(crate) const SLICES_BY_SERVICE: Index<EndpointSlice> = Index {
    name: "service",
    terms: |slice| {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        let service = object::labels_of(&slice.metadata).get("kubernetes.io/service-name");
        service
            .map(|name| format!("{namespace}/{name}"))
            .into_iter()
            .collect()
    },
};

/// The term under which objects with a label in a namespace are filed.
pub(crate) fn label_term(namespace: &str, key: &str, value: &str) -> String {
    format!("{namespace}/{key}={value}")
}

/// Client, caches and recorder.
pub(crate) struct Cluster {
    /// For writes, and for reads that must not be old.
    pub(crate) client: Client,
    /// Tells the user.
    pub(crate) events: Recorder,
    /// Pods.
    pub(crate) pods: Arc<Cache<Pod>>,
    /// Nodes.
    pub(crate) nodes: Arc<Cache<Node>>,
    /// Namespaces.
    pub(crate) namespaces: Arc<Cache<Namespace>>,
    /// Services.
    pub(crate) services: Arc<Cache<Service>>,
    /// Endpoints.
    pub(crate) endpoints: Arc<Cache<Endpoints>>,
    /// EndpointSlices.
    pub(crate) endpoint_slices: Arc<Cache<EndpointSlice>>,
    /// ServiceCIDRs.
    pub(crate) service_cidrs: Arc<Cache<ServiceCIDR>>,
    /// IPAddresses.
    pub(crate) ip_addresses: Arc<Cache<IPAddress>>,
    /// ReplicationControllers.
    pub(crate) replication_controllers: Arc<Cache<ReplicationController>>,
    /// ReplicaSets.
    pub(crate) replica_sets: Arc<Cache<ReplicaSet>>,
    /// Deployments.
    pub(crate) deployments: Arc<Cache<Deployment>>,
    /// DaemonSets.
    pub(crate) daemon_sets: Arc<Cache<DaemonSet>>,
    /// StatefulSets.
    pub(crate) stateful_sets: Arc<Cache<StatefulSet>>,
    /// The revisions of both.
    pub(crate) controller_revisions: Arc<Cache<ControllerRevision>>,
    /// Jobs.
    pub(crate) jobs: Arc<Cache<Job>>,
    /// CronJobs.
    pub(crate) cron_jobs: Arc<Cache<CronJob>>,
    /// Leases; the nodes' heartbeats are among them.
    pub(crate) leases: Arc<Cache<Lease>>,
}

impl Cluster {
    /// Empty caches; [`Cluster::follow`] fills them.
    pub(crate) fn new(client: Client, events: Recorder) -> Arc<Self> {
        Arc::new(Self {
            client,
            events,
            pods: Cache::new(vec![
                by_controller(),
                orphans(),
                by_namespace(),
                PODS_BY_LABEL,
                PODS_BY_NODE,
            ]),
            nodes: Cache::new(vec![]),
            namespaces: Cache::new(vec![]),
            services: Cache::new(vec![SERVICES_BY_SELECTOR]),
            endpoints: Cache::new(vec![]),
            endpoint_slices: Cache::new(vec![SLICES_BY_SERVICE]),
            service_cidrs: Cache::new(vec![]),
            ip_addresses: Cache::new(vec![]),
            replication_controllers: Cache::new(vec![by_namespace()]),
            replica_sets: Cache::new(vec![by_controller(), orphans(), by_namespace()]),
            deployments: Cache::new(vec![by_namespace()]),
            daemon_sets: Cache::new(vec![by_namespace()]),
            stateful_sets: Cache::new(vec![by_namespace()]),
            controller_revisions: Cache::new(vec![by_controller(), orphans()]),
            jobs: Cache::new(vec![by_controller(), by_namespace()]),
            cron_jobs: Cache::new(vec![]),
            leases: Cache::new(vec![]),
        })
    }

    /// Starts one watch for each kind.
    pub(crate) fn follow(&self, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        self.follow_one(&self.pods, tasks, shutdown);
        self.follow_one(&self.nodes, tasks, shutdown);
        self.follow_one(&self.namespaces, tasks, shutdown);
        self.follow_one(&self.services, tasks, shutdown);
        self.follow_one(&self.endpoints, tasks, shutdown);
        self.follow_one(&self.endpoint_slices, tasks, shutdown);
        self.follow_one(&self.service_cidrs, tasks, shutdown);
        self.follow_one(&self.ip_addresses, tasks, shutdown);
        self.follow_one(&self.replication_controllers, tasks, shutdown);
        self.follow_one(&self.replica_sets, tasks, shutdown);
        self.follow_one(&self.deployments, tasks, shutdown);
        self.follow_one(&self.daemon_sets, tasks, shutdown);
        self.follow_one(&self.stateful_sets, tasks, shutdown);
        self.follow_one(&self.controller_revisions, tasks, shutdown);
        self.follow_one(&self.jobs, tasks, shutdown);
        self.follow_one(&self.cron_jobs, tasks, shutdown);
        self.follow_one(&self.leases, tasks, shutdown);
    }

    /// Waits until every cache has its first list.
    pub(crate) async fn wait_synced(&self) {
        self.pods.wait_synced().await;
        self.nodes.wait_synced().await;
        self.namespaces.wait_synced().await;
        self.services.wait_synced().await;
        self.endpoints.wait_synced().await;
        self.endpoint_slices.wait_synced().await;
        self.service_cidrs.wait_synced().await;
        self.ip_addresses.wait_synced().await;
        self.replication_controllers.wait_synced().await;
        self.replica_sets.wait_synced().await;
        self.deployments.wait_synced().await;
        self.daemon_sets.wait_synced().await;
        self.stateful_sets.wait_synced().await;
        self.controller_revisions.wait_synced().await;
        self.jobs.wait_synced().await;
        self.cron_jobs.wait_synced().await;
        self.leases.wait_synced().await;
    }

    fn follow_one<K>(
        &self,
        cache: &Arc<Cache<K>>,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) where
        K: Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let (cache, shutdown) = (Arc::clone(cache), shutdown.clone());
        let events = watcher(
            Api::<K>::all(self.client.clone()),
            watcher::Config::default(),
        )
        .default_backoff();
        tasks.spawn(async move { cache.follow(&K::kind(&()), events, &shutdown).await });
    }

    /// The API of a namespaced kind.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The Pods of a namespace that a selector means. Costs what the rarest of its labels costs.
    pub(crate) fn pods_matching(&self, namespace: &str, selector: &LabelSelector) -> Vec<Arc<Pod>> {
        let terms = certain_labels(selector).map(|(key, value)| label_term(namespace, key, value));
        let rarest = terms.min_by_key(|term| self.pods.count(&PODS_BY_LABEL, term));
        let mut candidates = match rarest {
            Some(term) => self.pods.find(&PODS_BY_LABEL, &term),
            None => self.pods.find(&by_namespace(), namespace),
        };
        candidates.retain(|pod| selector.matches(object::labels_of(&pod.metadata)));
        candidates
    }

    /// The Services that select a Pod with these labels.
    pub(crate) fn services_selecting(&self, pod: &Pod) -> Vec<Arc<Service>> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let labels = object::labels_of(&pod.metadata);
        let mut found = Vec::new();
        for (key, value) in labels {
            for service in self
                .services
                .find(&SERVICES_BY_SELECTOR, &label_term(namespace, key, value))
            {
                let selector = service
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.selector.as_ref());
                if selector
                    .is_some_and(|selector| LabelSelector::from_map(selector).matches(labels))
                {
                    found.push(service);
                }
            }
        }
        found
    }
}

/// The labels that an object which matches has for certain; an index by labels can start from any of them.
fn certain_labels(selector: &LabelSelector) -> impl Iterator<Item = (&str, &str)> {
    let requirements = selector.requirements().unwrap_or_default();
    requirements
        .iter()
        .filter_map(|requirement| match &requirement.operator {
            Operator::In(values) if values.len() == 1 => {
                Some((requirement.key.as_str(), values.first()?.as_str()))
            }
            _ => None,
        })
}

/// Parameters of a create or replace.
pub(crate) fn post() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// Parameters of a patch.
pub(crate) fn patch() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
