//! `seaway up`

use seaway_kernel::pidfd::PidFd;
use seaway_lab::up::{Started, UpRequest, start};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::UpOptions;
use crate::show::Steps;

pub(crate) fn run(options: &UpOptions) -> anyhow::Result<()> {
    let request = UpRequest {
        name: options.lab.name.clone(),
        data: std::path::absolute(&options.lab.data)?,
        nodes: options.nodes,
        api_port: options.api_port,
        node_cidr: options.node_cidr,
        pod_cidr: options.pod_cidr,
        service_cidr: options.service_cidr,
        internet: options.internet,
        disabled_admission_plugins: options.disable_admission_plugins.clone(),
        without_scheduler: options.without_scheduler,
        node_ports: options.service_node_port_range,
        detach: options.detach,
    };
    let mut steps = Steps::new();
    let started = start(&request, |progress| steps.show(progress))?;
    drop(steps);
    let kubeconfig = request.paths().kubeconfig();
    anstream::eprintln!("\n  export KUBECONFIG={}", kubeconfig.display());
    anstream::eprintln!("  kubectl get nodes");
    if options.detach {
        anstream::eprintln!("  seaway down --name {}", request.name);
        started.leave();
        return Ok(());
    }
    anstream::eprintln!("\nThe lab runs until Ctrl-C.");
    until_ended(started)
}

/// Waits for Ctrl-C (or another request to end), or for the lab to end by itself.
pub(crate) fn until_ended(started: Started) -> anyhow::Result<()> {
    super::runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let supervisor = PidFd::open(started.pid())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted?,
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            ended = supervisor.ended() => ended?,
        }
        anyhow::Ok(())
    })?;
    let status = started.stop()?;
    anyhow::ensure!(
        status.success(),
        "the lab did not end cleanly ({status}); `seaway logs supervisor` says why, `seaway down` cleans up"
    );
    Ok(())
}
