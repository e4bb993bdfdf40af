//! An open conversation with a process in a container: exec and attach.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::RuntimeError;
use super::wire::{CHUNK, Frame};

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

/// Both directions. Dropping the input half ends an exec; dropping both ends an attach and leaves the container.
#[derive(Debug)]
pub struct Session {
    /// Towards the process.
    pub input: SessionInput,
    /// From the process.
    pub output: SessionOutput,
}

/// Towards the process.
#[derive(Debug)]
pub struct SessionInput {
    stream: OwnedWriteHalf,
}

/// From the process. Read it to the end: a process whose output nobody takes stands still.
#[derive(Debug)]
pub struct SessionOutput {
    stream: OwnedReadHalf,
    received: BytesMut,
    ended: bool,
}

impl Session {
    /// Speaks first (`request`, where there is one) and waits for the answer that it runs.
    pub(super) async fn begin(
        stream: UnixStream,
        request: Option<Frame>,
    ) -> Result<Self, RuntimeError> {
        let (read, write) = stream.into_split();
        let mut session = Self {
            input: SessionInput { stream: write },
            output: SessionOutput {
                stream: read,
                received: BytesMut::new(),
                ended: false,
            },
        };
        if let Some(request) = request {
            session.input.send(request).await?;
        }
        match session.output.frame().await? {
            Some(Frame::Started) => Ok(session),
            Some(Frame::Failed(code, message)) => Err(RuntimeError::Exec { message, code }),
            Some(_) => Err(RuntimeError::Session {
                source: io::ErrorKind::InvalidData.into(),
            }),
            None => Err(RuntimeError::Session {
                source: io::ErrorKind::UnexpectedEof.into(),
            }),
        }
    }
}

impl SessionInput {
    /// Feeds standard input; waits while the process does not read.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), RuntimeError> {
        for piece in data.chunks(CHUNK) {
            self.send(Frame::Stdin(Bytes::copy_from_slice(piece)))
                .await?;
        }
        Ok(())
    }

    /// End of standard input. A terminal has no such end: there, write the character 4.
    pub async fn close(&mut self) -> Result<(), RuntimeError> {
        self.send(Frame::StdinEnd).await
    }

    /// Changes the size of its terminal; without one nothing happens.
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), RuntimeError> {
        self.send(Frame::Resize(size)).await
    }

    async fn send(&mut self, frame: Frame) -> Result<(), RuntimeError> {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.stream
            .write_all(&bytes)
            .await
            .map_err(|source| RuntimeError::Session { source })
    }
}

impl SessionOutput {
    /// The next event; `None` after [`SessionEvent::Exit`], and when the other side is gone without one.
    /// Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<SessionEvent>, RuntimeError> {
        if self.ended {
            return Ok(None);
        }
        let event = match self.frame().await? {
            Some(Frame::Stdout(data)) => SessionEvent::Stdout(data),
            Some(Frame::Stderr(data)) => SessionEvent::Stderr(data),
            Some(Frame::Exit(code)) => {
                self.ended = true;
                SessionEvent::Exit(code)
            }
            Some(_) => {
                return Err(RuntimeError::Session {
                    source: io::ErrorKind::InvalidData.into(),
                });
            }
            None => {
                self.ended = true;
                return Ok(None);
            }
        };
        Ok(Some(event))
    }

    async fn frame(&mut self) -> Result<Option<Frame>, RuntimeError> {
        let failed = |source| RuntimeError::Session { source };
        loop {
            match Frame::decode(&mut self.received) {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {}
                Err(error) => {
                    return Err(failed(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            }
            // What was read is in `received` before anything is awaited again.
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // A helper that died with something of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
        }
    }
}
