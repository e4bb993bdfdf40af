//! What may change or refuse a write before it is stored: one file for each plugin, and the chain that runs them.
//!
//! A plugin that reserves something (an address, a port, a share of a quota) returns an [`Undo`]: if the write does
//! not reach the store, for whatever reason, the guard is dropped and gives the reservation back.

pub(crate) mod addresses;
mod default_tolerations;
mod ingress_class;
mod limit_ranger;
mod namespace_lifecycle;
mod priority;
mod resource_quota;
mod service_account;
mod stored;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use seaway_objects::kind::Names;
use seaway_store::Store;

use crate::status::ApiError;

/// What is being done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It replaces `Request::old`.
    Update,
    /// It goes away.
    Delete,
}

/// Who asks, from the client certificate or the token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Common name, `kubernetes-admin` for example.
    pub name: String,
    /// What tells it from others of the same name over time; empty for users of certificates.
    pub uid: String,
    /// Organisations, `system:masters` for example.
    pub groups: Vec<String>,
    /// What else is known: of which Pod a token is, for example.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// A write on its way to the store.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What is being done.
    pub operation: Operation,
    /// To an object of which kind.
    pub kind: &'static Names,
    /// In which namespace; empty for kinds without.
    pub namespace: &'a str,
    /// Its name (already generated when the client gave `generateName`).
    pub name: &'a str,
    /// Through which subresource (`status`, `scale`, `binding`…); empty for the object itself.
    pub subresource: &'a str,
    /// The object as it is stored now; `None` on creation.
    pub old: Option<&'a Value>,
    /// Whether nothing is stored in the end: reserve nothing that others can see.
    pub dry_run: bool,
    /// Who asks.
    pub user: &'a User,
}

impl Request<'_> {
    /// Whether it is about objects of this kind (the core group is the empty one).
    pub fn is(&self, group: &str, plural: &str) -> bool {
        (self.kind.group, self.kind.plural) == (group, plural)
    }

    /// Whether this is done to a Pod as such, not through a subresource.
    pub fn is_pod(&self, operation: Operation) -> bool {
        self.is("", "pods") && self.subresource.is_empty() && self.operation == operation
    }

    /// A refusal before the object has its name, as Kubernetes sees it: what will be called `web-x7k2p` is `web-` then.
    pub fn forbidden(&self, object: &Value, why: &str) -> ApiError {
        let base = object["metadata"]["generateName"]
            .as_str()
            .unwrap_or_default();
        let name = if self.operation == Operation::Create
            && !base.is_empty()
            && self.name.starts_with(base)
        {
            base
        } else {
            self.name
        };
        ApiError::forbidden(self.kind, name, why)
    }
}

/// When a plugin is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before the object is validated: to fill in what the client left open, or to refuse.
    Admit,
    /// After all of those: to give it what it needs. What comes of it is then validated.
    Allocate,
    /// After it was found valid: to reserve what it needs.
    Reserve,
}

/// Gives back a reservation when it is dropped without [`Undo::commit`].
#[must_use = "dropping it gives the reservation back"]
#[derive(Default)]
pub struct Undo(Option<Box<dyn FnOnce() + Send>>);

impl Undo {
    /// Nothing was reserved.
    pub fn nothing() -> Self {
        Self(None)
    }

    /// `give_back` runs if the write does not reach the store.
    pub fn new(give_back: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(give_back)))
    }

    /// The write is stored: keep the reservation.
    pub fn commit(mut self) {
        self.0 = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.take() {
            give_back();
        }
    }
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Undo").field(&self.0.is_some()).finish()
    }
}

/// An object that is written, or removed if it is there, in one transaction with another.
#[derive(Debug, Clone, PartialEq)]
pub struct Companion {
    /// Group, version and plural of its kind, which has no namespaces.
    pub resource: (&'static str, &'static str, &'static str),
    /// Its name.
    pub name: String,
    /// What is written, without what the server fills in; `None`: it goes.
    pub object: Option<Value>,
}

/// One admission plugin.
pub trait Plugin: Send + Sync {
    /// When it wants to be asked.
    fn stage(&self) -> Stage;

    /// May change the object and may refuse the write. On deletion the object is the one that goes.
    ///
    /// # Errors
    /// The refusal, sent to the client as it is.
    fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<Undo, ApiError>;

    /// What has to be written together with this change, so that no crash can come between.
    fn companions(&self, _old: Option<&Value>, _new: Option<&Value>) -> Vec<Companion> {
        Vec::new()
    }

    /// The store changed from `old` to `new` (both with `apiVersion` and `kind`). Called after every write that was
    /// stored, and at start for every stored object with `old` being `None`, so that a plugin can learn what is taken.
    fn committed(&self, _old: Option<&Value>, _new: Option<&Value>) {}

    /// Waits, before anything else, for what others are about to make and the plugin needs; a while at most.
    fn wait<'a>(
        &'a self,
        _request: &'a Request<'_>,
        _object: &'a Value,
    ) -> Option<BoxFuture<'a, ()>> {
        None
    }

    /// Writes down what was reserved for a request, before its object is stored. If it is not stored in the end, others
    /// put right what was written.
    ///
    /// The future fails if the store does.
    fn write_through<'a>(
        &'a self,
        _request: &'a Request<'_>,
    ) -> Option<BoxFuture<'a, Result<(), ApiError>>> {
        None
    }
}

/// The names of the plugins that can be switched off, as Kubernetes calls them.
pub const NAMES: [&str; 7] = [
    "DefaultIngressClass",
    "DefaultTolerationSeconds",
    "LimitRanger",
    "NamespaceLifecycle",
    "Priority",
    "ResourceQuota",
    "ServiceAccount",
];

/// The plugins in the order in which they are asked, which is Kubernetes'. Those named in `disabled` are left out.
pub(crate) fn plugins(
    services: addresses::Addresses,
    store: &Arc<Store>,
    disabled: &[String],
) -> Vec<Box<dyn Plugin>> {
    let stored = || stored::Stored(Arc::clone(store));
    let all: Vec<(&str, Box<dyn Plugin>)> = vec![
        (
            "NamespaceLifecycle",
            Box::new(namespace_lifecycle::NamespaceLifecycle { stored: stored() }),
        ),
        (
            "LimitRanger",
            Box::new(limit_ranger::Defaults { stored: stored() }),
        ),
        (
            "ServiceAccount",
            Box::new(service_account::ServiceAccount {
                stored: stored(),
                mounts: true,
            }),
        ),
        ("Priority", Box::new(priority::Priority)),
        (
            "DefaultTolerationSeconds",
            Box::new(default_tolerations::DefaultTolerations),
        ),
        (
            "DefaultIngressClass",
            Box::new(ingress_class::DefaultIngressClass::default()),
        ),
        // Kubernetes has no name for it: there it is part of storing a Service.
        ("", Box::new(services)),
        (
            "LimitRanger",
            Box::new(limit_ranger::Bounds { stored: stored() }),
        ),
        (
            "ResourceQuota",
            Box::new(resource_quota::ResourceQuota::new(stored())),
        ),
    ];
    all.into_iter()
        .filter(|(name, _)| !disabled.iter().any(|off| off == name))
        .map(|(_, plugin)| plugin)
        .collect()
}

/// The plugins in the order in which they are asked.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Chain {
    /// A chain of these plugins.
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self { plugins }
    }

    /// Asks every plugin of the stage; the first refusal gives back what earlier plugins reserved.
    ///
    /// # Errors
    /// The first refusal.
    pub fn admit(
        &self,
        stage: Stage,
        request: &Request<'_>,
        object: &mut Value,
    ) -> Result<Vec<Undo>, ApiError> {
        self.plugins
            .iter()
            .filter(|p| p.stage() == stage)
            .map(|p| p.admit(request, object))
            .collect()
    }

    /// Waits for what plugins need and others are about to make.
    pub async fn wait(&self, request: &Request<'_>, object: &Value) {
        for plugin in &self.plugins {
            if let Some(wait) = plugin.wait(request, object) {
                wait.await;
            }
        }
    }

    /// Lets every plugin write down what it reserved, before the object is stored.
    ///
    /// # Errors
    /// The store failed.
    pub async fn write_through(&self, request: &Request<'_>) -> Result<(), ApiError> {
        for plugin in &self.plugins {
            if let Some(write) = plugin.write_through(request) {
                write.await?;
            }
        }
        Ok(())
    }

    /// What has to be written together with this change.
    pub fn companions(&self, old: Option<&Value>, new: Option<&Value>) -> Vec<Companion> {
        let all = self.plugins.iter();
        all.flat_map(|plugin| plugin.companions(old, new)).collect()
    }

    /// Tells every plugin of a write that was stored.
    pub fn committed(&self, old: Option<&Value>, new: Option<&Value>) {
        for plugin in &self.plugins {
            plugin.committed(old, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_reservation_is_given_back_unless_the_write_was_stored() {
        let given_back = Arc::new(AtomicU32::new(0));
        let reserve = || {
            let given_back = Arc::clone(&given_back);
            Undo::new(move || {
                given_back.fetch_add(1, Ordering::Relaxed);
            })
        };
        reserve().commit();
        assert_eq!(given_back.load(Ordering::Relaxed), 0);
        drop(reserve());
        assert_eq!(given_back.load(Ordering::Relaxed), 1);
    }
}
