//! Writes the status of one Pod: in order, only what is new, and never over another Pod of the same name.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

/// Conditions that the kubelet owns; all others are left as they are.
const OWN_CONDITIONS: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The newest status that is to be written, and its number.
#[derive(Debug, Clone, Default)]
struct Desired {
    number: u64,
    status: Option<Arc<PodStatus>>,
}

/// Writes one Pod's status. Dropping it ends the writing.
#[derive(Debug)]
pub struct StatusWriter {
    desired: watch::Sender<Desired>,
    written: watch::Receiver<u64>,
    known: Arc<Mutex<Arc<Pod>>>,
    _task: AbortOnDropHandle<()>,
}

impl StatusWriter {
    /// Starts the writer for a Pod.
    pub fn start(api: Api<Pod>, pod: Arc<Pod>) -> Self {
        let (desired, wanted) = watch::channel(Desired::default());
        let (done, written) = watch::channel(0);
        let known = Arc::new(Mutex::new(pod));
        let task = tokio::spawn(write_all(api, known.clone(), wanted, done));
        StatusWriter {
            desired,
            written,
            known,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Takes note of a newer version of the object.
    pub fn saw(&self, pod: &Arc<Pod>) {
        let mut known = self.known.lock();
        if newer(pod, &known) {
            *known = pod.clone();
        }
    }

    /// The status shall be this one. Does not wait; a status that was not written yet is passed over.
    pub fn publish(&self, status: PodStatus) {
        self.desired.send_modify(|desired| {
            desired.number += 1;
            desired.status = Some(Arc::new(status));
        });
    }

    /// A future that ends when all that was published so far is written, or can never be.
    pub fn flushed(&self) -> impl Future<Output = ()> + Send + 'static {
        let number = self.desired.borrow().number;
        let mut written = self.written.clone();
        async move {
            // The writer ends only when the object is gone.
            let _ = written.wait_for(|written| *written >= number).await;
        }
    }
}

/// Resource versions are compared as numbers (KEP-5504); what is not a number counts as newer.
fn newer(pod: &Pod, than: &Pod) -> bool {
    let version = |pod: &Pod| {
        pod.metadata
            .resource_version
            .as_ref()
            .and_then(|version| version.parse::<u64>().ok())
    };
    match (version(pod), version(than)) {
        (Some(new), Some(old)) => new > old,
        _ => true,
    }
}

async fn write_all(
    api: Api<Pod>,
    known: Arc<Mutex<Arc<Pod>>>,
    mut wanted: watch::Receiver<Desired>,
    done: watch::Sender<u64>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let desired = wanted.borrow_and_update().clone();
        if let Some(status) = desired.status.as_deref() {
            let pod = known.lock().clone();
            match write(&api, &pod, status).await {
                Ok(Some(written)) => {
                    pause = FIRST_PAUSE;
                    let written = Arc::new(written);
                    let mut known = known.lock();
                    if newer(&written, &known) {
                        *known = written;
                    }
                }
                Ok(None) => pause = FIRST_PAUSE,
                Err(error) => match status_code(&error) {
                    Some(404) => return,
                    Some(409) => match fresh(&api, &pod).await {
                        Ok(Some(object)) => {
                            *known.lock() = Arc::new(object);
                            wanted.mark_changed();
                            continue;
                        }
                        Ok(None) => return,
                        Err(error) => {
                            debug!(%error, "cannot read a Pod; trying again");
                            tokio::time::sleep(pause).await;
                            continue;
                        }
                    },
                    _ => {
                        warn!(%error, pod = pod.metadata.name, "cannot write the status of a Pod; trying again");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                },
            }
            done.send_replace(desired.number);
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// The object as it is now, if it is still the same Pod.
async fn fresh(api: &Api<Pod>, pod: &Pod) -> Result<Option<Pod>, kube::Error> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let object = api.get_opt(name).await?;
    Ok(object.filter(|object| object.metadata.uid == pod.metadata.uid))
}

/// `None` when there is nothing to write.
async fn write(api: &Api<Pod>, pod: &Pod, status: &PodStatus) -> Result<Option<Pod>, kube::Error> {
    let merged = merged(status, pod.status.as_ref());
    if pod.status.as_ref() == Some(&merged) {
        return Ok(None);
    }
    // The resource version makes it fail when anyone else wrote meanwhile, the uid when it is another Pod.
    let object = Pod {
        metadata: pod.metadata.clone(),
        spec: pod.spec.clone(),
        status: Some(merged),
    };
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    api.replace_status(name, &PostParams::default(), &object)
        .await
        .map(Some)
}

/// Our status with what others keep in it.
fn merged(status: &PodStatus, current: Option<&PodStatus>) -> PodStatus {
    let mut merged = status.clone();
    let Some(current) = current else {
        return merged;
    };
    let foreign = current
        .conditions
        .iter()
        .flatten()
        .filter(|c| !OWN_CONDITIONS.contains(&c.type_.as_str()));
    let mut conditions = merged.conditions.take().unwrap_or_default();
    conditions.retain(|condition| OWN_CONDITIONS.contains(&condition.type_.as_str()));
    conditions.extend(foreign.cloned());
    merged.conditions = Some(conditions);
    merged.nominated_node_name = current.nominated_node_name.clone();
    merged.resource_claim_statuses = current.resource_claim_statuses.clone();
    merged.ephemeral_container_statuses = current.ephemeral_container_statuses.clone();
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(conditions: serde_json::Value) -> PodStatus {
        serde_json::from_value(json!({"conditions": conditions})).unwrap()
    }

    #[test]
    fn conditions_of_others_stay() {
        let ours = status(
            json!([{"type": "Ready", "status": "True"}, {"type": "Foreign", "status": "False"}]),
        );
        let current = status(
            json!([{"type": "Ready", "status": "False"}, {"type": "Foreign", "status": "True"}]),
        );
        let merged = merged(&ours, Some(&current)).conditions.unwrap();
        let seen: Vec<_> = merged
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str()))
            .collect();
        assert_eq!(seen, [("Ready", "True"), ("Foreign", "True")]);
    }

    #[test]
    fn an_older_version_does_not_replace_a_newer_one() {
        let version = |version: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"resourceVersion": version}})).unwrap()
        };
        assert!(newer(&version("10"), &version("9")));
        assert!(!newer(&version("9"), &version("10")));
        assert!(newer(&version("x"), &version("10")));
    }
}
