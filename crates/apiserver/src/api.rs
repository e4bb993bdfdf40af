//! What every request works on, and one request on its way.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use seaway_objects::field::FieldErrors;
use seaway_store::{Error as StoreError, Record, Store};

use crate::admission::{Chain, Operation, Request, User};
use crate::event::Lines;
use crate::negotiate::Accept;
use crate::node::Nodes;
use crate::query::Query;
use crate::registry::{Registry, Resource};
use crate::status::ApiError;
use crate::tokens::Issuer;

/// The server behind the connections.
pub(crate) struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) admission: Chain,
    /// Of the tokens of ServiceAccounts.
    pub(crate) issuer: Issuer,
    /// Where Pods reach the server.
    pub(crate) advertise: String,
    pub(crate) nodes: Nodes,
    /// What watchers of the latest events are sent.
    pub(crate) lines: Lines,
    /// How the servers in Pods are reached that speak TLS.
    pub(crate) backends: tokio_rustls::TlsConnector,
    /// How often watches that want bookmarks get one.
    pub(crate) bookmarks: Duration,
    /// Ends what would not end by itself.
    pub(crate) shutdown: CancellationToken,
}

impl Api {
    /// A stored object, by the names of its kind.
    pub(crate) fn object(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, ApiError> {
        self.store
            .get(&resource.key(namespace, name))
            .map(|record| resource.decode(&record))
            .transpose()
    }

    /// The resource of a kind that is known to be served; its absence is an error of the server.
    pub(crate) fn core(&self, plural: &str) -> Result<Arc<Resource>, ApiError> {
        let resource = self.registry.resource("", "v1", plural);
        resource.ok_or_else(|| ApiError::internal(format!("{plural} are not served")))
    }
}

/// One request for objects.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) api: &'a Api,
    pub(crate) resource: &'a Resource,
    /// Empty: all, or the kind has none.
    pub(crate) namespace: &'a str,
    /// Empty: all.
    pub(crate) name: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) user: &'a User,
    /// What the client calls itself (`User-Agent`).
    pub(crate) agent: &'a str,
    pub(crate) query: &'a Query,
    pub(crate) accept: Accept,
}

impl<'a> Call<'a> {
    /// The key of the object.
    pub(crate) fn key(&self) -> String {
        self.resource.key(self.namespace, self.name)
    }

    /// The object as it is stored.
    pub(crate) fn record(&self) -> Result<Record, ApiError> {
        self.api
            .store
            .get(&self.key())
            .ok_or_else(|| self.not_found())
    }

    /// The record as an object.
    pub(crate) fn decode(&self, record: &Record) -> Result<Value, ApiError> {
        self.resource.decode(record)
    }

    /// The same for another name.
    pub(crate) fn named<'b>(&self, namespace: &'b str, name: &'b str) -> Call<'b>
    where
        'a: 'b,
    {
        Call {
            namespace,
            name,
            ..*self
        }
    }

    /// What admission is told.
    pub(crate) fn request<'b>(
        &'b self,
        operation: Operation,
        old: Option<&'b Value>,
        dry_run: bool,
    ) -> Request<'b> {
        Request {
            operation,
            kind: self.resource.stored,
            namespace: self.namespace,
            name: self.name,
            subresource: self.subresource,
            old,
            dry_run,
            user: self.user,
        }
    }

    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found(self.resource.stored, self.name)
    }

    pub(crate) fn modified(&self) -> ApiError {
        ApiError::modified(self.resource.stored, self.name)
    }

    /// Refuses if there are errors.
    pub(crate) fn valid(&self, errors: &FieldErrors) -> Result<(), ApiError> {
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid(self.resource.stored, self.name, errors))
        }
    }
}

/// What a client is told of a failing store.
pub(crate) fn store_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::Compacted { asked, oldest } => {
            ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        StoreError::Future { asked, current } => ApiError::too_large_version(*asked, *current, 0),
        StoreError::Closed => ApiError::service_unavailable("the server is shutting down"),
        other => ApiError::internal(other),
    }
}
