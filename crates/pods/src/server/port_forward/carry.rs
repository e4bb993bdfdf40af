//! Carries one connection, both ways, each until its own end.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::spdy::{Input, Output};

const CHUNK: usize = 32 * 1024;
/// When one side has ended, the other may be silent for so long: a program that never ends its side would keep the
/// connection for good otherwise.
const HALF_OPEN: Duration = Duration::from_secs(300);

/// Carries until both sides have ended, or one is gone.
pub(super) async fn carry(pod: TcpStream, mut input: Input, output: &mut Output) {
    let (mut from_pod, mut to_pod) = pod.into_split();
    let upwards = async {
        while let Some(received) = input.next().await.map_err(|_| gone())? {
            to_pod.write_all(&received.data).await?;
        }
        // Dropped it would be shut as well; this tells of errors.
        to_pod.shutdown().await
    };
    let downwards = async {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        while let Some(data) = read(&mut from_pod, &mut buffer).await? {
            output.write(data).await.map_err(|_| gone())?;
        }
        output.finish().await.map_err(|_| gone())
    };
    if both(upwards, downwards).await.is_err() {
        // The client is told that the connection broke, not that it ended.
        output.reset().await;
    }
}

/// The next bytes from the Pod; `None` at the end.
pub(super) async fn read(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    buffer: &mut BytesMut,
) -> io::Result<Option<Bytes>> {
    buffer.reserve(CHUNK);
    let read = from.read_buf(buffer).await?;
    Ok((read > 0).then(|| buffer.split().freeze()))
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

/// Runs both directions. When one has ended the other gets a limited time; when one has failed, none.
pub(super) async fn both(
    upwards: impl Future<Output = io::Result<()>>,
    downwards: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    tokio::pin!(upwards, downwards);
    tokio::select! {
        ended = &mut upwards => {
            ended?;
            tokio::time::timeout(HALF_OPEN, downwards).await?
        }
        ended = &mut downwards => {
            ended?;
            tokio::time::timeout(HALF_OPEN, upwards).await?
        }
    }
}
