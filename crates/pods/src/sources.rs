//! ConfigMaps and Secrets that Pods of this node use: read when a container starts, watched while a volume shows them.

use std::collections::BTreeSet;

use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::env::{SourceData, SourceKind, SourceName, Sources};

/// A ConfigMap or Secret as it is now; `None` when it does not exist.
pub type SourceChange = (SourceName, Option<SourceData>);

/// Reads the named objects; those that do not exist are left out.
pub async fn read(
    client: &Client,
    namespace: &str,
    names: impl IntoIterator<Item = SourceName>,
) -> Result<Sources, kube::Error> {
    let mut sources = Sources::new();
    for name in names {
        let data = match name.0 {
            SourceKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
                api.get_opt(&name.1)
                    .await?
                    .map(|object| config_map_data(&object))
            }
            SourceKind::Secret => {
                let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
                api.get_opt(&name.1)
                    .await?
                    .map(|object| secret_data(&object))
            }
            // Asked for, not read.
            SourceKind::Token => None,
        };
        if let Some(data) = data {
            sources.insert(name, data);
        }
    }
    Ok(sources)
}

/// Watches the named objects, one watch each, until the handle is dropped.
pub fn follow(
    client: Client,
    namespace: String,
    names: BTreeSet<SourceName>,
    changes: mpsc::UnboundedSender<SourceChange>,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut all: SelectAll<BoxStream<'static, Result<SourceChange, watcher::Error>>> =
            SelectAll::new();
        for name in names {
            all.push(match name.0 {
                SourceKind::ConfigMap => {
                    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
                    object(api, name, config_map_data)
                }
                SourceKind::Secret => {
                    let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
                    object(api, name, secret_data)
                }
                // Renewed, not watched.
                SourceKind::Token => continue,
            });
        }
        while let Some(change) = all.next().await {
            match change {
                Ok(change) => {
                    if changes.send(change).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    warn!(%error, namespace, "cannot watch a ConfigMap or Secret; trying again")
                }
            }
        }
    }))
}

fn object<K>(
    api: Api<K>,
    name: SourceName,
    data: fn(&K) -> SourceData,
) -> BoxStream<'static, Result<SourceChange, watcher::Error>>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={}", name.1));
    watcher(api, config)
        .default_backoff()
        .try_filter_map(move |event| {
            let change = match event {
                watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                    Some(Some(data(&object)))
                }
                watcher::Event::Delete(_) => Some(None),
                watcher::Event::Init | watcher::Event::InitDone => None,
            };
            futures::future::ready(Ok(change.map(|data| (name.clone(), data))))
        })
        .boxed()
}

fn config_map_data(object: &ConfigMap) -> SourceData {
    let text = object
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = object
        .binary_data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

fn secret_data(object: &Secret) -> SourceData {
    object
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}
