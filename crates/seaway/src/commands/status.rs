//! `seaway status`

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use seaway_lab::status::{LabStatus, status};

use crate::cli::{Output, StatusOptions};

pub(crate) fn run(options: &StatusOptions) -> anyhow::Result<()> {
    seaway_lab::client::install_tls();
    let labs = super::runtime()?.block_on(status(&options.data, options.name.as_deref()))?;
    match options.output {
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(&labs)?),
        Output::Table if labs.is_empty() => {
            anstream::eprintln!("no lab is running; `seaway up` starts one");
        }
        Output::Table => labs.iter().for_each(print),
    }
    Ok(())
}

fn print(lab: &LabStatus) {
    anstream::println!("{}: {}", lab.name, lab.phase);
    let process = lab
        .pid
        .map_or_else(|| "gone".to_owned(), |pid| pid.to_string());
    for (what, value) in [
        ("supervisor", &process),
        ("API server", &lab.server),
        ("kubeconfig", &lab.kubeconfig),
        ("node range", &lab.node_cidr),
        ("Pod range", &lab.pod_cidr),
        ("Service range", &lab.service_cidr),
        ("Services", &lab.services.to_string()),
    ] {
        anstream::println!("  {what:<14}{value}");
    }
    if let Some(problem) = &lab.problem {
        anstream::println!(
            "  {:<14}{problem}; `seaway logs --name {}` may say why",
            "problem",
            lab.name
        );
    }
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_header(["  NODE", "READY", "ADDRESS", "POD RANGE", "PODS"]);
    for node in &lab.nodes {
        table.add_row([
            format!("  {}", node.name),
            if node.ready { "yes" } else { "no" }.to_owned(),
            node.address.clone(),
            node.pod_cidr.clone(),
            node.pods.to_string(),
        ]);
    }
    if !lab.nodes.is_empty() {
        anstream::println!("{table}");
    }
}
