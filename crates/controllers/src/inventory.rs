//! Every object of every kind the API server has, by its metadata: what the garbage collector and the deletion of
//! namespaces go by. Kinds that have a cache of their own are taken from there; all others get one watch each.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::error::{Context, Error};

/// How often new kinds are looked for. Source: the garbage collector of Kubernetes.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);

/// `apiVersion` and `kind`.
type KindId = (String, String);

/// A kind that is watched here.
struct Watched {
    stop: CancellationToken,
    cache: Arc<Cache<Metadata>>,
}

/// The metadata of an object whose kind is known only at run time.
pub(crate) type Metadata = PartialObjectMeta<DynamicObject>;

/// A kind of the API server.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Its names.
    pub(crate) resource: ApiResource,
    /// Whether its objects live in namespaces, and what can be done with them.
    pub(crate) capabilities: ApiCapabilities,
}

impl Known {
    /// Whether its objects live in namespaces.
    pub(crate) fn is_namespaced(&self) -> bool {
        self.capabilities.scope == Scope::Namespaced
    }

    /// The metadata of its objects.
    pub(crate) fn api(&self, cluster: &Cluster, namespace: &str) -> Api<Metadata> {
        if self.is_namespaced() {
            Api::namespaced_with(cluster.client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(cluster.client.clone(), &self.resource)
        }
    }
}

/// An object of some kind came, changed or went.
pub(crate) struct Sighting<'a> {
    /// Its kind.
    pub(crate) resource: &'a ApiResource,
    /// Its metadata as it was.
    pub(crate) old: Option<&'a ObjectMeta>,
    /// Its metadata as it is.
    pub(crate) new: Option<&'a ObjectMeta>,
}

type Listener = Box<dyn Fn(&Sighting<'_>) + Send + Sync>;

/// All kinds, and the watches of those without a cache of their own.
pub(crate) struct Inventory {
    cluster: Arc<Cluster>,
    kinds: RwLock<HashMap<KindId, Known>>,
    cached: RwLock<HashSet<KindId>>,
    listeners: Arc<RwLock<Vec<Listener>>>,
    synced: watch::Sender<bool>,
}

impl Inventory {
    /// Listens to the cluster's caches; [`Inventory::run`] adds the rest.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            kinds: RwLock::new(HashMap::new()),
            cached: RwLock::new(HashSet::new()),
            listeners: Arc::new(RwLock::new(Vec::new())),
            synced: watch::Sender::new(false),
        });
        this.listen_to(&cluster.pods);
        this.listen_to(&cluster.nodes);
        this.listen_to(&cluster.namespaces);
        this.listen_to(&cluster.services);
        this.listen_to(&cluster.endpoints);
        this.listen_to(&cluster.endpoint_slices);
        this.listen_to(&cluster.replication_controllers);
        this.listen_to(&cluster.replica_sets);
        this.listen_to(&cluster.deployments);
        this.listen_to(&cluster.leases);
        this
    }

    fn listen_to<K: Resource<DynamicType = ()> + 'static>(&self, cache: &Arc<Cache<K>>) {
        let resource = ApiResource::erase::<K>(&());
        self.cached.write().insert(id(&resource));
        self.relay(cache, resource);
    }

    fn relay<K: Resource + 'static>(&self, cache: &Arc<Cache<K>>, resource: ApiResource) {
        let listeners = Arc::clone(&self.listeners);
        cache.on_change(move |change| {
            let sighting = Sighting {
                resource: &resource,
                old: change.before().map(|object| object.meta()),
                new: change.after().map(|object| object.meta()),
            };
            for listener in listeners.read().iter() {
                listener(&sighting);
            }
        });
    }

    /// Calls `listener` for every object that comes, changes or goes, whatever its kind.
    pub(crate) fn on_object(&self, listener: impl Fn(&Sighting<'_>) + Send + Sync + 'static) {
        self.listeners.write().push(Box::new(listener));
    }

    /// A kind by `apiVersion` and `kind`, as owner references name it. Another version of the same group will do.
    pub(crate) fn kind(&self, api_version: &str, kind: &str) -> Option<Known> {
        let kinds = self.kinds.read();
        if let Some(known) = kinds.get(&(api_version.to_owned(), kind.to_owned())) {
            return Some(known.clone());
        }
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        kinds
            .values()
            .find(|known| known.resource.group == group && known.resource.kind == kind)
            .cloned()
    }

    /// All kinds whose objects live in namespaces and can be deleted.
    pub(crate) fn namespaced(&self) -> Vec<Known> {
        let kinds = self.kinds.read();
        let deletable = kinds.values().filter(|known| {
            known.is_namespaced()
                && known.capabilities.supports_operation(verbs::LIST)
                && known.capabilities.supports_operation(verbs::DELETE)
        });
        deletable.cloned().collect()
    }

    /// Waits until every kind that was found first has been listed.
    pub(crate) async fn wait_synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = synced.wait_for(|done| *done).await;
    }

    /// Asks the API server which kinds it has.
    pub(crate) async fn discover(&self) -> Result<(), Error> {
        let client = || self.cluster.client.clone();
        // Two requests where the server can bundle them, one for each group where it cannot.
        let found = match Discovery::new(client()).run_aggregated().await {
            Ok(found) => found,
            Err(_) => Discovery::new(client())
                .run()
                .await
                .during("discover", "the kinds of the API server")?,
        };
        let all = found
            .groups()
            .flat_map(kube::discovery::ApiGroup::recommended_resources);
        let kinds = all.map(|(resource, capabilities)| {
            (
                id(&resource),
                Known {
                    resource,
                    capabilities,
                },
            )
        });
        *self.kinds.write() = kinds.collect();
        Ok(())
    }

    /// Watches every kind that has no cache of its own, until `shutdown`; looks for new kinds now and then.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut watched: HashMap<KindId, Watched> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let mut pause = DISCOVERY_PERIOD;
            match self.discover().await {
                Ok(()) => {
                    self.watch_new(&mut watched, &mut tasks, &shutdown);
                    let listed = async {
                        for one in watched.values() {
                            one.cache.wait_synced().await;
                        }
                    };
                    // A kind that cannot be listed must not keep the others waiting for ever: what is deleted is
                    // asked for once more anyway.
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(DISCOVERY_PERIOD) => tracing::warn!("some kinds cannot be listed"),
                        () = listed => {}
                    }
                    self.synced.send_replace(true);
                }
                Err(error) => {
                    tracing::warn!(%error, "kinds could not be discovered, will try again");
                    pause = Duration::from_secs(1);
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    fn watch_new(
        &self,
        watched: &mut HashMap<KindId, Watched>,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        let kinds = self.kinds.read();
        watched.retain(|id, one| {
            let remains = kinds.contains_key(id);
            if !remains {
                one.stop.cancel();
            }
            remains
        });
        for (id, known) in kinds.iter() {
            let can = |verb| known.capabilities.supports_operation(verb);
            if watched.contains_key(id)
                || self.cached.read().contains(id)
                || !is_tracked(&known.resource)
                || !(can(verbs::LIST) && can(verbs::WATCH) && can(verbs::DELETE))
            {
                continue;
            }
            let cache: Arc<Cache<Metadata>> = Cache::new(Vec::new());
            self.relay(&cache, known.resource.clone());
            let stop = shutdown.child_token();
            let one = Watched {
                stop: stop.clone(),
                cache: Arc::clone(&cache),
            };
            watched.insert(id.clone(), one);
            let api: Api<Metadata> = Api::all_with(self.cluster.client.clone(), &known.resource);
            let events = watcher(api, watcher::Config::default()).default_backoff();
            let kind = known.resource.kind.clone();
            tasks.spawn(async move { cache.follow(&kind, events, &stop).await });
        }
    }
}

/// Events are many, own nothing and are forgotten by themselves.
fn is_tracked(resource: &ApiResource) -> bool {
    !(resource.kind == "Event" && matches!(resource.group.as_str(), "" | "events.k8s.io"))
}

fn id(resource: &ApiResource) -> KindId {
    (resource.api_version.clone(), resource.kind.clone())
}

impl Debug for Sighting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let meta = self.new.or(self.old);
        write!(
            f,
            "{} {:?}",
            self.resource.kind,
            meta.and_then(|meta| meta.name.as_deref())
        )
    }
}
