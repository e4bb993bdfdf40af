//! Tokens of a Pod's ServiceAccount in its volumes: asked for when the volumes are made, and again well before they
//! expire.
//! Source: `pkg/kubelet/token/token_manager.go`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, PodSpec, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::env::{SourceData, SourceKind, SourceName, Sources};
use crate::sources::SourceChange;

/// The key under which [`Sources`] hold a token.
pub const KEY: &str = "token";
/// How long a token lasts where the Pod does not say, in seconds.
const DEFAULT_SECONDS: i64 = 3600;
/// No token gets older than this, however long it lasts.
const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// The pause after a token that could not be had.
const RETRY: Duration = Duration::from_secs(10);

/// A token that a volume wants. Two that want the same share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wish {
    seconds: i64,
    /// Empty: the API server.
    audience: String,
}

impl Wish {
    /// What a projection wants.
    pub fn of(projection: &ServiceAccountTokenProjection) -> Self {
        Wish {
            seconds: projection.expiration_seconds.unwrap_or(DEFAULT_SECONDS),
            audience: projection.audience.clone().unwrap_or_default(),
        }
    }

    /// Its name among the sources of a Pod.
    pub fn source(&self) -> SourceName {
        (
            SourceKind::Token,
            format!("{} {}", self.seconds, self.audience),
        )
    }

    /// How old a token gets before it is replaced: four fifths of its life.
    fn renewal(&self) -> Duration {
        let seconds = u64::try_from(self.seconds).unwrap_or(0);
        Duration::from_secs(seconds / 5 * 4).clamp(RETRY, OLDEST)
    }

    fn request(&self, pod: &Pod) -> TokenRequest {
        let audiences = Some(self.audience.clone()).filter(|a| !a.is_empty());
        TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audiences.into_iter().collect()),
                expiration_seconds: Some(self.seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            ..TokenRequest::default()
        }
    }
}

/// All tokens that the Pod's volumes want.
pub fn wishes(spec: &PodSpec) -> BTreeSet<Wish> {
    let projected = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|v| v.projected.as_ref());
    projected
        .flat_map(|volume| volume.sources.iter().flatten())
        .filter_map(|source| source.service_account_token.as_ref())
        .map(Wish::of)
        .collect()
}

/// Asks for all of them.
///
/// # Errors
/// Why one could not be had, as the kubelet tells it.
pub async fn read(client: &Client, pod: &Pod, wishes: BTreeSet<Wish>) -> Result<Sources, String> {
    let mut sources = Sources::new();
    for wish in wishes {
        let data = ask(client, pod, &wish).await?;
        sources.insert(wish.source(), data);
    }
    Ok(sources)
}

async fn ask(client: &Client, pod: &Pod, wish: &Wish) -> Result<SourceData, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.as_deref())
        .filter(|name| !name.is_empty())
        .unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = api
        .create_token_request(account, &PostParams::default(), &wish.request(pod))
        .await
        .map_err(|error| match error {
            kube::Error::Api(status) => format!("failed to fetch token: {}", status.message),
            other => format!("failed to fetch token: {other}"),
        })?;
    let token = answer
        .status
        .and_then(|status| status.token)
        .unwrap_or_default();
    Ok(SourceData::from([(KEY.to_owned(), token.into_bytes())]))
}

/// Renews the tokens of a Pod until the handle is dropped.
pub fn renew(
    client: Client,
    pod: Arc<Pod>,
    wishes: BTreeSet<Wish>,
    changes: mpsc::UnboundedSender<SourceChange>,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut renewals = JoinSet::new();
        for wish in wishes {
            renewals.spawn(renew_one(
                client.clone(),
                Arc::clone(&pod),
                wish,
                changes.clone(),
            ));
        }
        while renewals.join_next().await.is_some() {}
    }))
}

async fn renew_one(
    client: Client,
    pod: Arc<Pod>,
    wish: Wish,
    changes: mpsc::UnboundedSender<SourceChange>,
) {
    let mut pause = wish.renewal();
    loop {
        tokio::time::sleep(pause).await;
        pause = match ask(&client, &pod, &wish).await {
            Ok(data) => {
                if changes.send((wish.source(), Some(data))).is_err() {
                    return;
                }
                wish.renewal()
            }
            Err(error) => {
                warn!(
                    error,
                    pod = pod.metadata.name,
                    "a token could not be renewed; trying again"
                );
                RETRY
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_wants_the_same_shares_a_token() {
        let token = |seconds: i64, audience: &str| json!({"serviceAccountToken": {"path": "t", "expirationSeconds": seconds, "audience": audience}});
        let spec = serde_json::from_value(json!({"containers": [], "volumes": [
            {"name": "a", "projected": {"sources": [token(3607, ""), token(3607, "")]}},
            {"name": "b", "projected": {"sources": [token(3607, "vault")]}},
            {"name": "c", "emptyDir": {}},
        ]}))
        .unwrap();
        assert_eq!(wishes(&spec).len(), 2);
    }

    #[test]
    fn a_token_is_replaced_after_four_fifths_of_its_life_and_every_day() {
        let wish = |seconds| Wish {
            seconds,
            audience: String::new(),
        };
        assert_eq!(wish(3600).renewal(), Duration::from_secs(2880));
        assert_eq!(wish(600).renewal(), Duration::from_secs(480));
        assert_eq!(wish(1 << 32).renewal(), OLDEST);
    }
}
