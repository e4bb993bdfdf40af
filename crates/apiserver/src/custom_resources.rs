//! CustomResourceDefinitions at work: the kinds that follow from them are served, their status says so, and a
//! definition that is deleted takes all objects of its kind with it.
//!
//! [`CustomResources::sync`] runs after every write of a definition, before the write is answered, so whoever has
//! changed a schema finds it in force. [`run`] does what takes longer: it decides about names, and deletes. Both go by
//! what is stored alone, so nothing is lost when the server dies in between.
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller` (`status`, `establish`, `finalizer`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use seaway_objects::custom::conditions::{CLEANUP, next_status, set_condition};
use seaway_objects::custom::definition::Definition;
use seaway_objects::custom::resource;
use seaway_objects::kind::{Kind, Names};
use seaway_store::{Expectation, Store, Write};

use crate::admission::{Plugin, Request, Stage, Undo, User};
use crate::api::{Api, Call, store_error};
use crate::metadata;
use crate::negotiate::Accept;
use crate::object::{self, text};
use crate::query::Query;
use crate::registry::{Registry, Resource};
use crate::status::ApiError;
use crate::verbs::delete::{self, delete_one};
use crate::verbs::update::{Part, change};

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
/// How often is looked whether the last object of a kind that is being deleted is gone.
const POLL: Duration = Duration::from_millis(250);
/// How long to wait after something went wrong.
const PAUSE: Duration = Duration::from_secs(1);

/// The kinds that follow from definitions.
pub(crate) struct CustomResources {
    store: Arc<Store>,
    registry: Arc<Registry>,
    served: Mutex<HashMap<String, Served>>,
    wake: Notify,
}

/// A definition as it was when its kinds were made.
struct Served {
    revision: u64,
    definition: Definition,
    kinds: Vec<Arc<dyn Kind>>,
}

impl CustomResources {
    /// Serves nothing yet.
    pub(crate) fn new(store: &Arc<Store>, registry: &Arc<Registry>) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            registry: Arc::clone(registry),
            served: Mutex::new(HashMap::new()),
            wake: Notify::new(),
        })
    }

    fn resource(&self) -> Option<Arc<Resource>> {
        self.registry.resource(GROUP, "v1", PLURAL)
    }

    /// All definitions as they are stored, with their revisions.
    fn stored(&self) -> Vec<(u64, Value, Definition)> {
        let Some(resource) = self.resource() else {
            return Vec::new();
        };
        let records = self.store.list(&resource.prefix("")).0;
        let read = records.iter().filter_map(|record| {
            let read = resource.decode(record).ok().and_then(|object| {
                let definition = Definition::read(&object).ok()?;
                Some((record.revision, object, definition))
            });
            if read.is_none() {
                tracing::error!(key = %record.key, "a definition cannot be read: its kind is not served");
            }
            read
        });
        read.collect()
    }

    /// Serves what the stored definitions say.
    pub(crate) fn sync(&self) {
        let mut served = self.served.lock();
        let stored = self.stored();
        let before = std::mem::take(&mut *served);
        let mut before = before;
        for (revision, _, definition) in stored {
            if !definition.is("Established") {
                continue;
            }
            let name = definition.metadata.name.clone();
            let kinds = match before.remove(&name) {
                Some(known) if known.revision == revision => known.kinds,
                Some(known) if serves_alike(&known.definition, &definition) => known.kinds,
                _ => resource::kinds_of(&definition),
            };
            let one = Served {
                revision,
                definition,
                kinds,
            };
            served.insert(name, one);
        }
        self.publish(&served);
    }

    /// Serves a definition that is about to be established, so that whoever reads that it is finds it so.
    fn serve_ahead(&self, definition: Definition) {
        let mut served = self.served.lock();
        let name = definition.metadata.name.clone();
        if served.contains_key(&name) {
            return;
        }
        let kinds = resource::kinds_of(&definition);
        let one = Served {
            revision: 0,
            definition,
            kinds,
        };
        served.insert(name, one);
        self.publish(&served);
    }

    fn publish(&self, served: &HashMap<String, Served>) {
        let mut names: Vec<&String> = served.keys().collect();
        names.sort();
        let kinds: Vec<Arc<dyn Kind>> = names
            .into_iter()
            .filter_map(|name| served.get(name))
            .flat_map(|one| one.kinds.iter().cloned())
            .collect();
        self.registry.serve(&kinds);
    }
}

/// Whether the same kinds follow from both.
fn serves_alike(a: &Definition, b: &Definition) -> bool {
    a.spec == b.spec
        && a.status.accepted_names == b.status.accepted_names
        && a.is("Terminating") == b.is("Terminating")
}

fn is_definition(object: &Value) -> bool {
    text(object, "/kind") == "CustomResourceDefinition"
        && text(object, "/apiVersion").starts_with(GROUP)
}

/// Definitions are followed where every stored write passes.
pub(crate) struct Follow(pub(crate) Arc<CustomResources>);

impl Plugin for Follow {
    fn stage(&self) -> Stage {
        Stage::Admit
    }

    fn admit(&self, _request: &Request<'_>, _object: &mut Value) -> Result<Undo, ApiError> {
        Ok(Undo::nothing())
    }

    fn committed(&self, old: Option<&Value>, new: Option<&Value>) {
        if new.or(old).is_some_and(is_definition) {
            self.0.sync();
            self.0.wake.notify_one();
        }
    }
}

/// Decides about names and deletes what deleted definitions leave, until `shutdown`.
pub(crate) async fn run(api: Arc<Api>, custom: Arc<CustomResources>, shutdown: CancellationToken) {
    loop {
        let pause = match settle(&api, &custom).await {
            Ok(true) => Some(POLL),
            Ok(false) => None,
            Err(error) => {
                tracing::warn!(%error, "a definition could not be brought forward, will try again");
                Some(PAUSE)
            }
        };
        let wait = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = custom.wake.notified() => {}
            () = wait => {}
        }
    }
}

/// Brings every definition as far as it can be. Whether something has to be waited for.
async fn settle(api: &Api, custom: &CustomResources) -> Result<bool, ApiError> {
    let worker = Worker {
        api,
        custom,
        user: User {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..User::default()
        },
        query: Query::default(),
    };
    let mut waiting = false;
    let names: Vec<String> = {
        let mut stored = custom.stored();
        // Who came first has the names.
        stored.sort_by(|a, b| {
            let key = |d: &Definition| {
                let meta = &d.metadata;
                (meta.creation_timestamp.clone(), meta.name.clone())
            };
            key(&a.2).cmp(&key(&b.2))
        });
        stored
            .into_iter()
            .map(|(_, _, d)| d.metadata.name)
            .collect()
    };
    for name in names {
        match worker.bring_forward(&name).await {
            Ok(wait) => waiting |= wait,
            Err(e) if e.reason == "NotFound" => {}
            Err(e) => return Err(e),
        }
    }
    Ok(waiting)
}

struct Worker<'a> {
    api: &'a Api,
    custom: &'a CustomResources,
    user: User,
    query: Query,
}

impl Worker<'_> {
    fn call<'b>(&'b self, resource: &'b Resource, namespace: &'b str, name: &'b str) -> Call<'b> {
        Call {
            api: self.api,
            resource,
            namespace,
            name,
            subresource: "",
            user: &self.user,
            query: &self.query,
            accept: Accept::JSON_OBJECTS,
            agent: "kube-apiserver",
        }
    }

    fn definitions(&self) -> Result<Arc<Resource>, ApiError> {
        self.custom
            .resource()
            .ok_or_else(ApiError::no_such_resource)
    }

    /// Whether something has to be waited for.
    async fn bring_forward(&self, name: &str) -> Result<bool, ApiError> {
        let definitions = self.definitions()?;
        let Some(object) = self.api.object(&definitions, "", name)? else {
            return Ok(false);
        };
        let definition = Definition::read(&object).map_err(ApiError::internal)?;
        if definition.metadata.deletion_timestamp.is_some() {
            return self.clean_up(&definitions, name, &definition).await;
        }
        let builtin: Vec<&Names> = self
            .custom
            .registry
            .builtin()
            .iter()
            .map(|kind| kind.names())
            .collect();
        let next = |object: &Value, definition: &Definition| {
            let all: Vec<Definition> = self.custom.stored().into_iter().map(|s| s.2).collect();
            next_status(
                definition,
                &object["status"],
                &all,
                &builtin,
                &metadata::now(),
            )
        };
        let status = next(&object, &definition);
        if status == object["status"] {
            return Ok(false);
        }
        let mut established = object.clone();
        established["status"] = status;
        if let Ok(ahead) = Definition::read(&established)
            && ahead.is("Established")
        {
            self.custom.serve_ahead(ahead);
        }
        change(&self.call(&definitions, "", name), Part::Exactly, |old| {
            let mut new = old.clone();
            let definition = Definition::read(old).map_err(ApiError::internal)?;
            new["status"] = next(old, &definition);
            Ok(new)
        })
        .await?;
        Ok(false)
    }

    /// Deletes all objects of the kind, and lets the definition go when there are none. Whether there are some yet.
    async fn clean_up(
        &self,
        definitions: &Resource,
        name: &str,
        definition: &Definition,
    ) -> Result<bool, ApiError> {
        if !definition.metadata.finalizers.iter().any(|f| f == CLEANUP) {
            return Ok(false);
        }
        let mut remaining = 0;
        if definition.is("Established") {
            self.set_terminating(
                definitions,
                name,
                "True",
                "InstanceDeletionInProgress",
                "CustomResource deletion is in progress",
                false,
            )
            .await?;
            if let Some(kind) = resource::storage_kind(definition) {
                remaining = self.delete_instances(&Resource::new(kind, &[])).await?;
            }
        }
        if remaining > 0 {
            return Ok(true);
        }
        let (reason, message) = if definition.is("Established") {
            ("InstanceDeletionCompleted", "removed all instances")
        } else {
            ("NeverEstablished", "resource was never established")
        };
        self.set_terminating(definitions, name, "False", reason, message, true)
            .await?;
        // What was on its way in when the last object was counted.
        if let Some(kind) = resource::storage_kind(definition) {
            let resource = Resource::new(kind, &[]);
            for record in self.api.store.list(&resource.prefix("")).0 {
                let written = self
                    .api
                    .store
                    .commit(&record.key, Expectation::Any, Write::Delete)
                    .await;
                written.map_err(|e| store_error(&e))?;
            }
        }
        Ok(false)
    }

    async fn set_terminating(
        &self,
        definitions: &Resource,
        name: &str,
        value: &str,
        reason: &str,
        message: &str,
        done: bool,
    ) -> Result<(), ApiError> {
        let call = self.call(definitions, "", name);
        change(&call, Part::Exactly, |old| {
            let mut new = old.clone();
            let mut status: Map<String, Value> =
                new["status"].as_object().cloned().unwrap_or_default();
            let now = metadata::now();
            set_condition(&mut status, "Terminating", value, reason, message, &now);
            new["status"] = Value::Object(status);
            if done && let Some(Value::Array(list)) = new.pointer_mut("/metadata/finalizers") {
                list.retain(|f| f != CLEANUP);
                if list.is_empty() {
                    object::metadata_mut(&mut new).remove("finalizers");
                }
            }
            Ok(new)
        })
        .await?;
        Ok(())
    }

    /// Deletes every object of the kind; how many are there yet, because somebody has something to do before they go.
    async fn delete_instances(&self, resource: &Resource) -> Result<usize, ApiError> {
        let options = delete::Options::default();
        for record in self.api.store.list(&resource.prefix("")).0 {
            let object = resource.decode(&record)?;
            if metadata::is_terminating(&object) {
                continue;
            }
            let (namespace, name) = (
                text(&object, "/metadata/namespace"),
                text(&object, "/metadata/name"),
            );
            match delete_one(&self.call(resource, namespace, name), &options).await {
                Err(e) if e.reason != "NotFound" => return Err(e),
                _ => {}
            }
        }
        Ok(self.api.store.list(&resource.prefix("")).0.len())
    }
}
