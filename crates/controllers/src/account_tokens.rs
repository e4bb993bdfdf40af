//! Fills Secrets of the type `kubernetes.io/service-account-token` with a token of the account that they name, and takes
//! them away when the account goes: the way to a token that lasts as long as its Secret.
//!
//! Source of the rules: `pkg/controller/serviceaccount/tokens_controller.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Preconditions};
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, Cluster};
use crate::error::{Context, Error, or_gone};
use crate::inventory::{Inventory, Sighting};
use crate::object::{self, ObjectKey};
use crate::queue::{Next, Queue};

const NAME: &str = "tokens-controller";
/// Secrets worked on at the same time.
const PARALLEL: usize = 5;
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The longest that a token can last: 136 years.
const SECONDS: i64 = 1 << 32;

/// Keeps token Secrets.
pub(crate) struct AccountTokens {
    cluster: Arc<Cluster>,
    queue: Queue<Work>,
    root_ca: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Work {
    /// A Secret that may want a token.
    Secret(ObjectKey),
    /// An account that is gone.
    Gone(ObjectKey),
}

impl AccountTokens {
    /// Listens to the inventory; [`AccountTokens::run`] does the work. `root_ca` is PEM.
    pub(crate) fn new(
        cluster: &Arc<Cluster>,
        inventory: &Arc<Inventory>,
        root_ca: String,
    ) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster: Arc::clone(cluster),
            queue: Queue::new(),
            root_ca,
        });
        let queue = this.queue.clone();
        inventory.on_object(move |sighting| {
            if let Some(work) = wanted(sighting) {
                queue.add(work);
            }
        });
        this
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.clone();
        queue
            .run(NAME, PARALLEL, shutdown, |work| {
                let this = Arc::clone(&self);
                async move { this.reconcile(work).await }
            })
            .await;
    }

    async fn reconcile(&self, work: Work) -> Result<Next, Error> {
        match work {
            Work::Secret(key) => self.fill(&key).await?,
            Work::Gone(key) => self.remove_of(&key).await?,
        }
        Ok(Next::Done)
    }

    async fn fill(&self, key: &ObjectKey) -> Result<(), Error> {
        let api = self.cluster.api::<Secret>(&key.namespace);
        let Some(mut secret) = api.get_opt(&key.name).await.during("read Secret", key)? else {
            return Ok(());
        };
        let account = object::annotation(&secret.metadata, ACCOUNT)
            .unwrap_or_default()
            .to_owned();
        if secret.type_.as_deref() != Some(TYPE)
            || account.is_empty()
            || object::is_deleting(&secret.metadata)
        {
            return Ok(());
        }
        let accounts = self.cluster.api::<ServiceAccount>(&key.namespace);
        let present = accounts
            .get_opt(&account)
            .await
            .during("read ServiceAccount", key)?;
        let uid = present.map(|account| object::uid_of(&account.metadata).to_owned());
        let named = object::annotation(&secret.metadata, ACCOUNT_UID);
        let stranger = named.is_some_and(|named| uid.as_deref() != Some(named));
        let Some(uid) = uid.filter(|_| !stranger) else {
            return self.delete(&secret.metadata).await;
        };
        let data = secret.data.clone().unwrap_or_default();
        let mut wanted = data.clone();
        wanted.insert(
            "ca.crt".to_owned(),
            ByteString(self.root_ca.clone().into_bytes()),
        );
        wanted.insert(
            "namespace".to_owned(),
            ByteString(key.namespace.clone().into_bytes()),
        );
        if data.get("token").is_none_or(|token| token.0.is_empty()) {
            let request = request(&secret.metadata);
            let answer = accounts
                .create_token_request(&account, &cluster::post(), &request)
                .await
                .during("request a token for", key)?;
            let token = answer
                .status
                .and_then(|status| status.token)
                .unwrap_or_default();
            wanted.insert("token".to_owned(), ByteString(token.into_bytes()));
        }
        if wanted == data && named == Some(uid.as_str()) {
            return Ok(());
        }
        secret.data = Some(wanted);
        let annotations = secret
            .metadata
            .annotations
            .get_or_insert_with(BTreeMap::new);
        annotations.insert(ACCOUNT_UID.to_owned(), uid);
        or_gone(
            api.replace(&key.name, &cluster::post(), &secret)
                .await
                .during("fill Secret", key),
        )?;
        Ok(())
    }

    async fn remove_of(&self, account: &ObjectKey) -> Result<(), Error> {
        let accounts = self.cluster.api::<ServiceAccount>(&account.namespace);
        if accounts
            .get_opt(&account.name)
            .await
            .during("read ServiceAccount", account)?
            .is_some()
        {
            // A successor: its Secrets are looked at one by one.
            return Ok(());
        }
        let api = self.cluster.api::<Secret>(&account.namespace);
        let tokens = ListParams::default().fields(&format!("type={TYPE}"));
        let secrets = api.list(&tokens).await.during("list Secrets of", account)?;
        for secret in secrets.items {
            if object::annotation(&secret.metadata, ACCOUNT) == Some(account.name.as_str()) {
                self.delete(&secret.metadata).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, secret: &ObjectMeta) -> Result<(), Error> {
        let key = ObjectKey::of(secret);
        let parameters = DeleteParams::default().preconditions(Preconditions {
            uid: secret.uid.clone(),
            resource_version: None,
        });
        let api = self.cluster.api::<Secret>(&key.namespace);
        or_gone(
            api.delete(&key.name, &parameters)
                .await
                .during("delete Secret", &key),
        )?;
        Ok(())
    }
}

fn wanted(sighting: &Sighting<'_>) -> Option<Work> {
    if !sighting.resource.group.is_empty() {
        return None;
    }
    match (sighting.resource.kind.as_str(), sighting.old, sighting.new) {
        ("Secret", _, Some(new)) => {
            object::annotation(new, ACCOUNT)?;
            Some(Work::Secret(ObjectKey::of(new)))
        }
        ("ServiceAccount", Some(old), None) => Some(Work::Gone(ObjectKey::of(old))),
        _ => None,
    }
}

fn request(secret: &ObjectMeta) -> TokenRequest {
    TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(Vec::new()),
            expiration_seconds: Some(SECONDS),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                name: secret.name.clone(),
                uid: secret.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    }
}
