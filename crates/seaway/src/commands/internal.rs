//! `seaway internal`: the processes that Seaway starts by itself. Standard error is their log, standard output
//! (where there is one) speaks to whoever started them.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use seaway_lab::error::Error;
use seaway_lab::readiness::{Report, report};
use seaway_lab::{agent, control_plane, supervisor};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::Internal;

pub(crate) fn run(process: Internal) -> ExitCode {
    match process {
        Internal::LabInit { request } => {
            log();
            finish(
                serde_json::from_str(&request)
                    .context("not a request")
                    .and_then(|request| Ok(supervisor::main(&request)?)),
            )
        }
        Internal::ControlPlane { config } => {
            log();
            finish(serve(&config, control_plane::run))
        }
        Internal::Agent { config } => {
            log();
            finish(serve(&config, agent::run))
        }
        Internal::Sandbox(raw) => seaway_pods::runtime::sandbox_main(&raw.arguments),
        Internal::Shim(raw) => seaway_pods::runtime::shim_main(&raw.arguments),
        Internal::ExecHelper(raw) => seaway_pods::runtime::exec_main(&raw.arguments),
        Internal::Whoami(raw) => seaway_pods::whoami::main(&raw.arguments),
        Internal::Get { url } => match get(&url) {
            Ok(body) => {
                anstream::print!("{body}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                anstream::eprintln!("{url}: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SEAWAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube_client=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // A log on a full disk must not end the process: complaining about it would write to the same disk, and panic.
        .log_internal_errors(false)
        .init();
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a process of the lab until SIGTERM, and tells the supervisor when it gives up.
fn serve<C, F>(config: &Path, run: impl FnOnce(C, CancellationToken) -> F) -> anyhow::Result<()>
where
    C: serde::de::DeserializeOwned,
    F: Future<Output = Result<(), Error>>,
{
    let text =
        std::fs::read(config).with_context(|| format!("cannot read {}", config.display()))?;
    let config = serde_json::from_slice(&text)
        .with_context(|| format!("{} is damaged", config.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())
            .map_err(|error| Error::step("listening for signals", error))?;
        let asked = shutdown.clone();
        tokio::spawn(async move {
            terminate.recv().await;
            asked.cancel();
        });
        run(config, shutdown).await
    });
    // What hangs on a connection must not keep the process from ending.
    runtime.shutdown_timeout(Duration::from_millis(200));
    if let Err(error) = &result {
        report(&Report::Failed {
            message: error.to_string(),
        });
    }
    Ok(result?)
}

/// One HTTP/1.0 request: the body of the answer.
fn get(url: &str) -> anyhow::Result<String> {
    const LIMIT: Duration = Duration::from_secs(5);
    let rest = url
        .strip_prefix("http://")
        .context("only http:// is understood")?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let address = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let mut stream =
        TcpStream::connect(&address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("no whole answer")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("not an HTTP answer")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    anyhow::ensure!(status.starts_with('2'), "answered {status}");
    Ok(body.to_owned())
}
