//! Runs a command in a container to its end, for probes and hooks.

use std::time::Duration;

use crate::runtime::{ExecRequest, Runtime, RuntimeError, SessionEvent};

/// What of the output is kept (10 KiB, as the kubelet keeps of a probe's).
const KEPT: usize = 10 * 1024;

/// The command did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// It took too long, and was ended.
    #[error("timed out after {seconds}s")]
    Timeout {
        /// What it had.
        seconds: u64,
    },
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandEnd {
    /// Its exit code.
    pub code: i32,
    /// The beginning of what it wrote, to both outputs.
    pub output: Vec<u8>,
}

/// Runs `command` in the container `id`.
pub async fn run(
    runtime: &Runtime,
    id: &str,
    command: &[String],
    limit: Duration,
) -> Result<CommandEnd, ExecError> {
    let request = ExecRequest {
        command: command.to_vec(),
        ..ExecRequest::default()
    };
    let work = async {
        let mut session = match runtime.exec(id, request).await {
            // A program that is not there has failed, as in a shell.
            Err(RuntimeError::Exec { message, code }) => {
                return Ok(CommandEnd {
                    code,
                    output: message.into_bytes(),
                });
            }
            other => other?,
        };
        let mut output = Vec::new();
        let mut code = None;
        while let Some(event) = session.output.next().await? {
            match event {
                SessionEvent::Stdout(data) | SessionEvent::Stderr(data) => {
                    let room = KEPT.saturating_sub(output.len()).min(data.len());
                    output.extend_from_slice(&data[..room]);
                }
                SessionEvent::Exit(ended) => code = Some(ended),
            }
        }
        match code {
            Some(code) => Ok(CommandEnd { code, output }),
            None => Err(ExecError::Runtime(RuntimeError::NotRunning {
                id: id.to_owned(),
            })),
        }
    };
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(ExecError::Timeout {
            seconds: limit.as_secs(),
        }),
    }
}
