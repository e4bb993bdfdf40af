//! An open conversation with a process in a container: exec and attach.

use bytes::Bytes;

use super::RuntimeError;

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Something that came from the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// Written to standard output, or to its terminal.
    Stdout(Bytes),
    /// Written to standard error.
    Stderr(Bytes),
    /// It ended with this code, 128 + n for signal n. Nothing comes after it.
    Exit(i32),
}

/// Both directions. Dropping either half ends an exec.
#[derive(Debug)]
pub struct Session {
    /// Towards the process.
    pub input: SessionInput,
    /// From the process.
    pub output: SessionOutput,
}

/// Towards the process.
#[derive(Debug)]
pub struct SessionInput {}

/// From the process.
#[derive(Debug)]
pub struct SessionOutput {}

impl SessionInput {
    /// Feeds standard input; waits while the process does not read.
    pub async fn write(&mut self, _data: &[u8]) -> Result<(), RuntimeError> {
        todo!()
    }

    /// End of standard input.
    pub async fn close(&mut self) -> Result<(), RuntimeError> {
        todo!()
    }

    /// Changes the size of its terminal; without one nothing happens.
    pub async fn resize(&mut self, _size: TerminalSize) -> Result<(), RuntimeError> {
        todo!()
    }
}

impl SessionOutput {
    /// The next event; `None` after [`SessionEvent::Exit`], and for an attach when the container is gone.
    /// Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<SessionEvent>, RuntimeError> {
        todo!()
    }
}
