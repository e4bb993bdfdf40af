//! `seaway demo`: the documents' example, shown with real requests. Everything printed is read from the cluster
//! or comes from a request that was really made.

mod cluster;
mod story;

use seaway_lab::up::{UpRequest, start};

use crate::cli::DemoOptions;
use crate::commands::runtime;
use crate::show::Steps;

/// Name of the demo's lab.
const LAB: &str = "demo";

pub(crate) fn run(options: &DemoOptions) -> anyhow::Result<()> {
    let mut request = UpRequest::new(LAB, std::path::absolute(&options.data)?);
    request.nodes = Some(3);
    // Only a lab that was left running on purpose must outlive this process.
    request.detach = options.keep;
    anstream::println!(
        "A cluster of three nodes, each a network namespace with an agent of its own:"
    );
    let mut steps = Steps::new();
    let mut started = start(&request, |progress| steps.show(progress))?;
    drop(steps);

    seaway_lab::client::install_tls();
    let told = runtime()?.block_on(async {
        let client = seaway_lab::client::from_kubeconfig(&request.paths().kubeconfig()).await?;
        story::tell(&cluster::Cluster::new(client)).await
    });
    anyhow::ensure!(
        started.ended()?.is_none(),
        "the lab ended by itself; `seaway logs --name {LAB}` says why"
    );
    if options.keep && told.is_ok() {
        let kubeconfig = request.paths().kubeconfig();
        anstream::println!("\nThe lab goes on running. Go on with:");
        anstream::println!(
            "  kubectl --kubeconfig {} get pods,services -o wide",
            kubeconfig.display()
        );
        anstream::println!("  seaway down --name {LAB} --purge");
        started.leave();
        return Ok(());
    }
    seaway_lab::down::down(&request.data, LAB, true)?;
    drop(started);
    told?;
    anstream::println!(
        "\nThe lab and all it made are gone again. `seaway demo --keep` leaves it running."
    );
    Ok(())
}
