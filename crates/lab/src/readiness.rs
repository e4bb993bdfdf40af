//! How a process of the lab tells its supervisor that it is ready: one line of JSON on standard output, which is
//! a pipe to the supervisor. Everything else a process has to say goes to its log (standard error).

use std::io::Write;

use serde::{Deserialize, Serialize};

/// The line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Report {
    /// The process does its work.
    Ready,
    /// It gives up; one line for the person at the terminal.
    Failed {
        /// What failed, and what to do.
        message: String,
    },
}

/// Tells the supervisor.
pub fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        // Without a supervisor (a person ran it by hand, or it is about to end us) nobody needs to know.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}
