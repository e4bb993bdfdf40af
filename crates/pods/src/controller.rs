//! Follows the Pods of this node and keeps a worker for each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::apply::Node;
use crate::error::Error;
use crate::runtime::Changed;
use crate::worker::{Message, Worker};

/// Pause before a worker that failed is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

type Table = BTreeMap<(String, String), Arc<Pod>>;

/// The Pods of this node by namespace and name, for the kubelet API. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PodTable {
    pods: Arc<RwLock<Table>>,
}

impl PodTable {
    /// One Pod.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods
            .read()
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// All Pods.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        self.pods.read().values().cloned().collect()
    }

    fn put(&self, pod: &Arc<Pod>) {
        self.pods.write().insert(key(pod), pod.clone());
    }

    fn take(&self, pod: &Pod) {
        let mut pods = self.pods.write();
        if pods
            .get(&key(pod))
            .is_some_and(|there| there.metadata.uid == pod.metadata.uid)
        {
            pods.remove(&key(pod));
        }
    }
}

fn key(pod: &Pod) -> (String, String) {
    (
        pod.metadata.namespace.clone().unwrap_or_default(),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

#[derive(Debug)]
struct Entry {
    task: Id,
    pod: Arc<Pod>,
    gone: bool,
    inbox: mpsc::UnboundedSender<Message>,
}

/// Keeps the workers.
#[derive(Debug)]
pub struct Controller {
    node: Arc<Node>,
    table: PodTable,
    entries: HashMap<String, Entry>,
    tasks: JoinSet<Result<(), Error>>,
    retries: (
        mpsc::UnboundedSender<Arc<Pod>>,
        mpsc::UnboundedReceiver<Arc<Pod>>,
    ),
}

impl Controller {
    /// A controller without workers yet.
    pub fn new(node: Arc<Node>, table: PodTable) -> Self {
        Controller {
            node,
            table,
            entries: HashMap::new(),
            tasks: JoinSet::new(),
            retries: mpsc::unbounded_channel(),
        }
    }

    /// Runs until `shutdown`; the containers stay.
    pub async fn run(
        mut self,
        mut changed: mpsc::UnboundedReceiver<Changed>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let api: Api<Pod> = Api::all(self.node.client.clone());
        let ours = watcher::Config::default()
            .fields(&format!("spec.nodeName={}", self.node.config.node_name));
        let mut events = std::pin::pin!(watcher(api, ours).default_backoff());
        let mut listed = Vec::new();
        let mut first = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                event = events.try_next() => match event {
                    Ok(Some(watcher::Event::Init)) => listed = Vec::new(),
                    Ok(Some(watcher::Event::InitApply(pod))) => listed.push(Arc::new(pod)),
                    Ok(Some(watcher::Event::InitDone)) => {
                        self.resync(std::mem::take(&mut listed));
                        if std::mem::take(&mut first) {
                            self.remove_strangers();
                        }
                    }
                    Ok(Some(watcher::Event::Apply(pod))) => self.present(Arc::new(pod)),
                    Ok(Some(watcher::Event::Delete(pod))) => self.absent(&Arc::new(pod)),
                    Ok(None) => return Ok(()),
                    Err(error) => warn!(%error, "cannot watch the Pods of this node; trying again"),
                },
                change = changed.recv() => match change {
                    Some(change) => {
                        if let Some(entry) = self.entries.get(&change.pod_uid) {
                            // A worker that has just ended needs no news.
                            let _ = entry.inbox.send(Message::Look);
                        }
                    }
                    None => return Ok(()),
                },
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.ended(ended),
                Some(pod) = self.retries.1.recv() => self.retry(pod),
            }
        }
    }

    /// The list is complete: what is not in it is gone.
    fn resync(&mut self, pods: Vec<Arc<Pod>>) {
        let uids: BTreeSet<String> = pods
            .iter()
            .filter_map(|pod| pod.metadata.uid.clone())
            .collect();
        let missing: Vec<_> = self
            .entries
            .iter()
            .filter(|(uid, _)| !uids.contains(*uid))
            .map(|(_, entry)| entry.pod.clone())
            .collect();
        for pod in missing {
            self.absent(&pod);
        }
        for pod in pods {
            self.present(pod);
        }
    }

    fn present(&mut self, pod: Arc<Pod>) {
        self.table.put(&pod);
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        match self.entries.get_mut(&uid) {
            Some(entry) => {
                entry.pod = pod.clone();
                let _ = entry.inbox.send(Message::Object(pod));
            }
            None => self.start(uid, pod),
        }
    }

    fn absent(&mut self, pod: &Arc<Pod>) {
        self.table.take(pod);
        if let Some(entry) = pod
            .metadata
            .uid
            .as_ref()
            .and_then(|uid| self.entries.get_mut(uid))
        {
            entry.gone = true;
            entry.pod = pod.clone();
            let _ = entry.inbox.send(Message::Gone(pod.clone()));
        }
    }

    fn start(&mut self, uid: String, pod: Arc<Pod>) {
        match Worker::new(self.node.clone(), pod.clone()) {
            Ok((worker, inbox)) => {
                let task = self.tasks.spawn(worker.run()).id();
                self.entries.insert(
                    uid,
                    Entry {
                        task,
                        pod,
                        gone: false,
                        inbox,
                    },
                );
            }
            Err(error) => error!(%error, pod = pod.metadata.name, "not a Pod that can be run here"),
        }
    }

    fn ended(&mut self, ended: Result<(Id, Result<(), Error>), tokio::task::JoinError>) {
        let (id, failed) = match ended {
            Ok((id, Ok(()))) => (id, false),
            Ok((id, Err(error))) => {
                error!(%error, "the worker of a Pod failed; it is started again");
                (id, true)
            }
            Err(error) => {
                error!(%error, "the worker of a Pod broke off; it is started again");
                (error.id(), true)
            }
        };
        let Some(uid) = self
            .entries
            .iter()
            .find(|(_, entry)| entry.task == id)
            .map(|(uid, _)| uid.clone())
        else {
            return;
        };
        if let Some(entry) = self.entries.remove(&uid).filter(|_| failed) {
            let retries = self.retries.0.clone();
            let (pod, gone, table) = (entry.pod, entry.gone, self.table.clone());
            tokio::spawn(async move {
                tokio::time::sleep(RESTART_PAUSE).await;
                // What happened to it meanwhile is in the table, or it is gone.
                let (namespace, name) = key(&pod);
                let now = table
                    .find(&namespace, &name)
                    .filter(|now| now.metadata.uid == pod.metadata.uid);
                let _ = retries.send(if gone { pod } else { now.unwrap_or(pod) });
            });
        }
    }

    fn retry(&mut self, pod: Arc<Pod>) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        if self.entries.contains_key(&uid) {
            return;
        }
        self.start(uid, pod.clone());
        let (namespace, name) = key(&pod);
        let there = self
            .table
            .find(&namespace, &name)
            .is_some_and(|there| there.metadata.uid == pod.metadata.uid);
        if !there {
            self.absent(&pod);
        }
    }

    /// Removes what is left of Pods that were deleted while no agent was here.
    fn remove_strangers(&self) {
        let known: BTreeSet<String> = self.entries.keys().cloned().collect();
        let node = self.node.clone();
        tokio::spawn(async move {
            match node.runtime.pods() {
                Ok(pods) => {
                    for uid in pods.iter().filter(|uid| !known.contains(*uid)) {
                        node.destroy(uid).await;
                    }
                }
                Err(error) => warn!(%error, "cannot list what is left of former Pods"),
            }
            node.retain_networks(&known).await;
        });
    }
}
