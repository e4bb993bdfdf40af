//! `seaway completion`

use clap::CommandFactory as _;

use crate::cli::Cli;

pub(crate) fn run(shell: clap_complete::Shell) -> anyhow::Result<()> {
    clap_complete::generate(shell, &mut Cli::command(), "seaway", &mut std::io::stdout());
    Ok(())
}
