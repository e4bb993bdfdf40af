//! Starting everything and stopping it.

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::account_tokens::AccountTokens;
use crate::aggregation::Aggregation;
use crate::cluster::Cluster;
use crate::config::{Config, Tuning};
use crate::cron::CronJobs;
use crate::daemon::Daemons;
use crate::deployment::Deployments;
use crate::endpoints::{LegacyEndpoints, Mirrors, Slices};
use crate::error::Error;
use crate::events;
use crate::garbage::Collector;
use crate::inventory::Inventory;
use crate::job::Jobs;
use crate::namespaces::{Defaults, Deletion};
use crate::nodes::{Evictions, Lifecycle, PodCollector, Ranger, Ranges};
use crate::quotas::Quotas;
use crate::replicas::Replicas;
use crate::scheduler::Scheduler;
use crate::service_cidrs::ServiceCidrs;
use crate::stateful::Stateful;

/// Runs all controllers until `shutdown` is cancelled. An API server that is away is waited for.
///
/// # Errors
/// [`Error::Config`] at once, when the settings cannot work; [`Error::Stopped`] when a part ended that must not.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    run_with(client, config, &Tuning::default(), shutdown).await
}

/// [`run`] with settings of one's own.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    client: Client,
    config: Config,
    tuning: &Tuning,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let ranges = Ranges::new(config.cluster_cidr, config.node_cidr_mask).map_err(|problem| {
        Error::Config {
            field: "node_cidr_mask",
            problem,
            hint: "take a prefix length between that of cluster_cidr and that of one address",
        }
    })?;
    // Whatever way this function ends, everything it started ends.
    let shutdown = shutdown.child_token();
    let _stop = shutdown.clone().drop_guard();
    let mut tasks = JoinSet::new();

    let (recorder, records) = events::channel();
    tasks.spawn(records.write(client.clone(), shutdown.clone()));
    let cluster = Cluster::new(client, recorder);
    // All listen before the first object comes, so that none misses one.
    let inventory = Inventory::new(&cluster);
    let scheduler = config.scheduler.then(|| Scheduler::new(&cluster));
    let replication_controllers = Replicas::new(&cluster, &cluster.replication_controllers);
    let replica_sets = Replicas::new(&cluster, &cluster.replica_sets);
    let deployments = Deployments::new(&cluster);
    let daemons = Daemons::new(&cluster);
    let stateful = Stateful::new(&cluster);
    let jobs = Jobs::new(&cluster, tuning.job_backoff);
    let cron_jobs = CronJobs::new(&cluster);
    let slices = Slices::new(&cluster);
    let legacy_endpoints = LegacyEndpoints::new(&cluster);
    let mirrors = Mirrors::new(&cluster);
    let service_cidrs = ServiceCidrs::new(&cluster, tuning.service_cidr_grace);
    let ranger = Ranger::new(&cluster, ranges);
    let lifecycle = Lifecycle::new(&cluster, tuning.node_grace);
    let evictions = Evictions::new(&cluster);
    let pod_collector = PodCollector::new(&cluster, tuning.removed_node_grace);
    let collector = Collector::new(&cluster, &inventory);
    let deletion = Deletion::new(&cluster, &inventory);
    let quotas = Quotas::new(&cluster, &inventory);
    let account_tokens = AccountTokens::new(&cluster, &inventory, config.root_ca.clone());
    let aggregation = Aggregation::new(&cluster, &inventory);
    let defaults = Defaults::new(&cluster, &inventory, config.root_ca);

    cluster.follow(&mut tasks, &shutdown);
    tasks.spawn(inventory.run(shutdown.clone()));
    tokio::select! {
        () = shutdown.cancelled() => return stop(tasks, &shutdown).await,
        () = cluster.wait_synced() => {}
    }
    tracing::debug!("all caches are filled, the controllers begin");
    if let Some(scheduler) = scheduler {
        tasks.spawn(scheduler.run(shutdown.clone()));
    }
    tasks.spawn(replication_controllers.run(shutdown.clone()));
    tasks.spawn(replica_sets.run(shutdown.clone()));
    tasks.spawn(deployments.run(shutdown.clone()));
    tasks.spawn(daemons.run(shutdown.clone()));
    tasks.spawn(stateful.run(shutdown.clone()));
    tasks.spawn(jobs.run(shutdown.clone()));
    tasks.spawn(cron_jobs.run(shutdown.clone()));
    tasks.spawn(slices.run(shutdown.clone()));
    tasks.spawn(legacy_endpoints.run(shutdown.clone()));
    tasks.spawn(mirrors.run(shutdown.clone()));
    tasks.spawn(service_cidrs.run(shutdown.clone()));
    tasks.spawn(ranger.run(shutdown.clone()));
    tasks.spawn(lifecycle.run(shutdown.clone()));
    tasks.spawn(evictions.run(shutdown.clone()));
    tasks.spawn(pod_collector.run(shutdown.clone()));
    tasks.spawn(collector.run(shutdown.clone()));
    tasks.spawn(deletion.run(shutdown.clone()));
    tasks.spawn(defaults.run(shutdown.clone()));
    tasks.spawn(quotas.run(shutdown.clone()));
    tasks.spawn(account_tokens.run(shutdown.clone()));
    tasks.spawn(aggregation.run(shutdown.clone()));
    stop(tasks, &shutdown).await
}

/// Waits for the end of all tasks. One that ends before it should takes the others with it.
async fn stop(mut tasks: JoinSet<()>, shutdown: &CancellationToken) -> Result<(), Error> {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        if !shutdown.is_cancelled() {
            let reason = ended.err().map_or_else(
                || "it ended by itself".to_owned(),
                |error| error.to_string(),
            );
            outcome = Err(Error::Stopped { reason });
            shutdown.cancel();
        }
    }
    outcome
}
