//! What the supervisor tells the terminal while a lab comes up: one JSON object a line on its standard output.

use std::io::Write;

use serde::{Deserialize, Serialize};

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Progress {
    /// A step begins.
    Begin {
        /// What is being done.
        step: String,
    },
    /// The step is done.
    Done {
        /// As in `Begin`.
        step: String,
        /// What came out of it.
        detail: String,
        /// Milliseconds since the step began.
        millis: u64,
    },
    /// The lab is ready for use.
    Ready {
        /// Milliseconds since the supervisor started.
        millis: u64,
    },
    /// The lab could not be started, and what was made is gone again.
    Failed {
        /// One line: what failed, and what to do.
        message: String,
    },
}

/// Writes progress for the process that started this one. When nobody listens any more, silence is right.
pub fn tell(progress: &Progress) {
    if let Ok(mut line) = serde_json::to_vec(progress) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        // The reader may have gone (`up --detach` ends when the lab is ready).
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}
