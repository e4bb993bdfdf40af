//! The binary that the runtime starts in tests: the subcommands of `seaway` that belong to this crate.

use std::process::ExitCode;

use seaway_pods::{runtime, whoami};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["internal", "sandbox", ..] => runtime::sandbox_main(&args[2..]),
        ["internal", "shim", ..] => runtime::shim_main(&args[2..]),
        ["internal", "exec-helper", ..] => runtime::exec_main(&args[2..]),
        ["internal", "whoami", ..] => whoami::main(&args[2..]),
        _ => {
            eprintln!("usage: harness internal sandbox|shim|exec-helper|whoami …");
            ExitCode::FAILURE
        }
    }
}
