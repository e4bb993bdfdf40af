//! The `seaway` command: reads the command line and wires the crates together, nothing else.

mod cli;
mod commands;
mod demo;
mod show;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Demo(options) => demo::run(&options),
        Command::Up(options) => commands::up::run(&options),
        Command::Down(options) => commands::down::run(&options),
        Command::Status(options) => commands::status::run(&options),
        Command::Kubeconfig(options) => commands::kubeconfig::run(&options),
        Command::Logs(options) => commands::logs::run(&options),
        Command::Image(options) => commands::image::run(&options),
        Command::Completion { shell } => commands::completion::run(shell),
        Command::Internal { process } => return commands::internal::run(process),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
