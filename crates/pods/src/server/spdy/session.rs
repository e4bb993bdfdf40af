//! A connection that speaks SPDY: one task reads it and one writes it, and every stream is a queue in each direction.
//!
//! Since SPDY as Kubernetes speaks it has no flow control for streams, what was received and not taken yet is bounded
//! for the whole connection: when that much waits, the connection is not read any further. What is to be sent is bounded
//! by the number of frames that wait.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::frame::{Decoder, Encoder, Frame, FrameError, Reset};
use super::headers::Headers;
use crate::server::IDLE;

/// Bytes that are read at once, and that a frame with data has.
const CHUNK: usize = 32 * 1024;
/// Bytes that were received and not taken yet.
const ROOM: usize = 4 * 1024 * 1024;
/// Frames that wait to be sent.
const QUEUE: usize = 32;
/// Streams that are open at the same time; those of a forwarded connection are two.
const MAX_STREAMS: usize = 4096;
/// How long the peer may take to hang up after it was told that the end has come.
const LINGER: Duration = Duration::from_secs(5);

/// The connection, or the stream, is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is gone")]
pub(in crate::server) struct Gone;

/// The server's side of a connection. It ends when this is dropped.
#[derive(Debug)]
pub(in crate::server) struct Session {
    requests: mpsc::Receiver<Request>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    streams: Mutex<HashMap<u32, Entry>>,
    out: mpsc::Sender<Frame>,
    closed: CancellationToken,
    /// Counts what was written, for the idle limit.
    written: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    /// `None` after the peer's end.
    input: Option<mpsc::UnboundedSender<Item>>,
    /// Until our end.
    output: bool,
}

#[derive(Debug)]
enum Item {
    Data(Received),
    End,
}

/// Data of a stream. Until it is dropped it takes some of the connection's room.
#[derive(Debug)]
pub(in crate::server) struct Received {
    pub(in crate::server) data: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// A stream that the peer wants.
#[derive(Debug)]
pub(in crate::server) struct Request {
    stream: Stream,
}

/// A stream.
#[derive(Debug)]
pub(in crate::server) struct Stream {
    pub(in crate::server) id: u32,
    pub(in crate::server) headers: Headers,
    pub(in crate::server) input: Input,
    pub(in crate::server) output: Output,
}

/// What the peer sends on a stream.
#[derive(Debug)]
pub(in crate::server) struct Input {
    items: mpsc::UnboundedReceiver<Item>,
    over: bool,
}

/// What is sent to the peer on a stream. Dropping it before its end resets the stream.
#[derive(Debug)]
pub(in crate::server) struct Output {
    id: u32,
    shared: Arc<Shared>,
    over: bool,
}

impl Session {
    /// Serves a connection.
    pub(in crate::server) fn start(
        connection: impl AsyncRead + AsyncWrite + Send + 'static,
    ) -> Self {
        let (reader, writer) = tokio::io::split(connection);
        let (out, to_send) = mpsc::channel(QUEUE);
        let (asks, requests) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            streams: Mutex::default(),
            out,
            closed: CancellationToken::new(),
            written: AtomicU64::new(0),
        });
        let reading = Reading {
            shared: shared.clone(),
            asks,
            room: Arc::new(Semaphore::new(ROOM)),
            last: 0,
        };
        tokio::spawn(reading.run(reader));
        tokio::spawn(write(writer, to_send, shared.clone()));
        Self { requests, shared }
    }

    /// The next stream that the peer wants; `None` when the connection is gone.
    pub(in crate::server) async fn next(&mut self) -> Option<Request> {
        self.requests.recv().await
    }

    /// Refuses all further streams.
    pub(in crate::server) fn take_no_more(&mut self) {
        self.requests.close();
    }

    /// Cancelled when the connection is gone.
    pub(in crate::server) fn closed(&self) -> CancellationToken {
        self.shared.closed.clone()
    }

    /// Sends what waits and says goodbye; returns when the peer has hung up, or did not in time.
    pub(in crate::server) async fn close(self) {
        let last = self.shared.streams.lock().keys().max().copied();
        let leaving = async {
            let goodbye = Frame::GoAway {
                last: last.unwrap_or_default(),
            };
            // A peer that is gone needs no goodbye.
            let _ = self.shared.out.send(goodbye).await;
            self.shared.closed.cancelled().await;
        };
        let _ = tokio::time::timeout(LINGER, leaving).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

impl Request {
    /// What it is for.
    pub(in crate::server) fn headers(&self) -> &Headers {
        &self.stream.headers
    }

    /// Number of the stream.
    pub(in crate::server) fn id(&self) -> u32 {
        self.stream.id
    }

    /// Opens the stream.
    pub(in crate::server) async fn accept(self) -> Result<Stream, Gone> {
        let reply = Frame::Reply {
            stream: self.stream.id,
            headers: Headers::default(),
        };
        self.stream.output.shared.send(reply).await?;
        Ok(self.stream)
    }

    /// Does not.
    pub(in crate::server) async fn refuse(self) {
        let mut stream = self.stream;
        stream.output.reset().await;
    }
}

impl Input {
    /// The next data; `None` after the peer's end of the stream.
    ///
    /// # Errors
    /// The stream was reset, or the connection is gone.
    pub(in crate::server) async fn next(&mut self) -> Result<Option<Received>, Gone> {
        if self.over {
            return Ok(None);
        }
        match self.items.recv().await {
            Some(Item::Data(received)) => Ok(Some(received)),
            Some(Item::End) => {
                self.over = true;
                Ok(None)
            }
            None => Err(Gone),
        }
    }
}

impl Output {
    /// Sends data; waits while too much waits already.
    ///
    /// # Errors
    /// The stream was reset, or the connection is gone.
    pub(in crate::server) async fn write(&mut self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            if self.over || !self.shared.streams.lock().contains_key(&self.id) {
                return Err(Gone);
            }
            let piece = data.split_to(data.len().min(CHUNK));
            self.shared.send(self.frame(piece, false)).await?;
        }
        Ok(())
    }

    /// Ends this direction.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub(in crate::server) async fn finish(&mut self) -> Result<(), Gone> {
        if self.over {
            return Ok(());
        }
        self.over = true;
        let open = self.shared.end_output(self.id);
        if open {
            self.shared.send(self.frame(Bytes::new(), true)).await
        } else {
            Err(Gone)
        }
    }

    /// Ends both directions at once.
    pub(in crate::server) async fn reset(&mut self) {
        if let Some(frame) = self.abandon() {
            // A peer that is gone has forgotten it.
            let _ = self.shared.send(frame).await;
        }
    }

    fn abandon(&mut self) -> Option<Frame> {
        if self.over {
            return None;
        }
        self.over = true;
        self.shared.streams.lock().remove(&self.id)?;
        Some(reset(self.id, Reset::Cancel))
    }

    fn frame(&self, data: Bytes, fin: bool) -> Frame {
        Frame::Data {
            stream: self.id,
            data,
            fin,
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(frame) = self.abandon() {
            // With a full queue the peer learns it when it sends the next.
            let _ = self.shared.out.try_send(frame);
        }
    }
}

impl Shared {
    async fn send(&self, frame: Frame) -> Result<(), Gone> {
        tokio::select! {
            sent = self.out.send(frame) => sent.map_err(|_| Gone),
            () = self.closed.cancelled() => Err(Gone),
        }
    }

    /// Our end of a stream; whether it was open.
    fn end_output(&self, id: u32) -> bool {
        let mut streams = self.streams.lock();
        let Some(entry) = streams.get_mut(&id) else {
            return false;
        };
        entry.output = false;
        if entry.input.is_none() {
            streams.remove(&id);
        }
        true
    }

    /// The peer's end of a stream.
    fn end_input(&self, id: u32) {
        let mut streams = self.streams.lock();
        let Some(entry) = streams.get_mut(&id) else {
            return;
        };
        if let Some(input) = entry.input.take() {
            // Nobody may listen any more.
            let _ = input.send(Item::End);
        }
        if !entry.output {
            streams.remove(&id);
        }
    }
}

fn reset(stream: u32, why: Reset) -> Frame {
    Frame::Reset {
        stream,
        status: why as u32,
    }
}

/// What the reading task has.
struct Reading {
    shared: Arc<Shared>,
    asks: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    /// The peer's newest stream.
    last: u32,
}

/// Why reading ends.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("nothing happened for too long")]
    Idle,
    #[error("the peer hung up")]
    HungUp,
    #[error("the connection was given up")]
    Closed,
}

impl From<Gone> for Ending {
    fn from(Gone: Gone) -> Self {
        Ending::Closed
    }
}

impl Reading {
    async fn run(mut self, connection: impl AsyncRead + Unpin) {
        let closed = self.shared.closed.clone();
        let ending = tokio::select! {
            ended = self.read(connection) => ended.err(),
            () = closed.cancelled() => None,
        };
        if let Some(error) = ending {
            debug!(%error, "a SPDY connection ends");
        }
        closed.cancel();
        // Whoever reads a stream learns that no more comes.
        self.shared.streams.lock().clear();
    }

    async fn read(&mut self, mut connection: impl AsyncRead + Unpin) -> Result<(), Ending> {
        let mut decoder = Decoder::new();
        loop {
            while let Some(frame) = decoder.next()? {
                self.obey(frame).await?;
            }
            let written = self.shared.written.load(Ordering::Relaxed);
            decoder.buffer().reserve(CHUNK);
            let reading = connection.read_buf(decoder.buffer());
            match tokio::time::timeout(IDLE, reading).await {
                Ok(Ok(0)) => return Err(Ending::HungUp),
                Ok(read) => drop(read?),
                Err(_) if self.shared.written.load(Ordering::Relaxed) == written => {
                    return Err(Ending::Idle);
                }
                Err(_) => {}
            }
        }
    }

    async fn obey(&mut self, frame: Frame) -> Result<(), Ending> {
        match frame {
            Frame::Open {
                stream,
                headers,
                fin,
            } => self.open(stream, headers, fin).await?,
            Frame::Data { stream, data, fin } => self.data(stream, data, fin).await,
            Frame::Headers { stream, fin } if fin => self.shared.end_input(stream),
            Frame::Reset { stream, .. } => drop(self.shared.streams.lock().remove(&stream)),
            // Ours would have even numbers, and there are none.
            Frame::Ping(id) => self.shared.send(Frame::Ping(id)).await?,
            Frame::Headers { .. } | Frame::Reply { .. } | Frame::GoAway { .. } | Frame::Nothing => {
            }
        }
        Ok(())
    }

    async fn open(&mut self, id: u32, headers: Headers, fin: bool) -> Result<(), Gone> {
        if id.is_multiple_of(2) || id <= self.last {
            return self.shared.send(reset(id, Reset::Protocol)).await;
        }
        self.last = id;
        let (sender, items) = mpsc::unbounded_channel();
        {
            let mut streams = self.shared.streams.lock();
            if streams.len() < MAX_STREAMS {
                let entry = Entry {
                    input: Some(sender),
                    output: true,
                };
                streams.insert(id, entry);
            } else {
                drop(sender);
            }
        }
        if !self.shared.streams.lock().contains_key(&id) {
            return self.shared.send(reset(id, Reset::Refused)).await;
        }
        if fin {
            self.shared.end_input(id);
        }
        let stream = Stream {
            id,
            headers,
            input: Input { items, over: false },
            output: Output {
                id,
                shared: self.shared.clone(),
                over: false,
            },
        };
        if let Err(mpsc::error::SendError(request)) = self.asks.send(Request { stream }).await {
            request.refuse().await;
        }
        Ok(())
    }

    async fn data(&mut self, id: u32, data: Bytes, fin: bool) {
        let input = self
            .shared
            .streams
            .lock()
            .get(&id)
            .and_then(|entry| entry.input.clone());
        // Data for a stream that is over crossed its end on the way.
        if let Some(input) = input.filter(|input| !input.is_closed())
            && !data.is_empty()
        {
            let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
            // The semaphore is never closed, and no data is larger than what is read at once.
            let room = self.room.clone().acquire_many_owned(size).await.ok();
            let _ = input.send(Item::Data(Received { data, _room: room }));
        }
        if fin {
            self.shared.end_input(id);
        }
    }
}

async fn write(
    connection: impl AsyncWrite + Unpin,
    frames: mpsc::Receiver<Frame>,
    shared: Arc<Shared>,
) {
    let closed = shared.closed.clone();
    let written = tokio::select! {
        written = write_all(connection, frames, &shared) => written,
        () = closed.cancelled() => return,
    };
    if let Err(error) = written {
        debug!(%error, "cannot write to a SPDY connection");
        closed.cancel();
    }
}

async fn write_all(
    mut connection: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Frame>,
    shared: &Shared,
) -> io::Result<()> {
    let (mut encoder, mut buffer) = (Encoder::default(), BytesMut::new());
    while let Some(frame) = frames.recv().await {
        let mut last = matches!(frame, Frame::GoAway { .. });
        encoder.write(&frame, &mut buffer);
        while !last
            && buffer.len() < 2 * CHUNK
            && let Ok(frame) = frames.try_recv()
        {
            last = matches!(frame, Frame::GoAway { .. });
            encoder.write(&frame, &mut buffer);
        }
        shared.written.fetch_add(1, Ordering::Relaxed);
        connection.write_all(&buffer).await?;
        connection.flush().await?;
        buffer.clear();
        if last {
            return connection.shutdown().await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    /// The client of a session.
    struct Peer {
        connection: DuplexStream,
        decoder: Decoder,
        encoder: Encoder,
    }

    impl Peer {
        fn connect() -> (Session, Self) {
            let (ours, theirs) = tokio::io::duplex(CHUNK);
            let peer = Self {
                connection: theirs,
                decoder: Decoder::new(),
                encoder: Encoder::default(),
            };
            (Session::start(ours), peer)
        }

        async fn send(&mut self, frame: Frame) {
            let mut bytes = BytesMut::new();
            self.encoder.write(&frame, &mut bytes);
            self.connection.write_all(&bytes).await.unwrap();
        }

        async fn open(&mut self, stream: u32) {
            let headers = Headers(vec![("streamtype".into(), "data".into())]);
            self.send(Frame::Open {
                stream,
                headers,
                fin: false,
            })
            .await;
        }

        async fn data(&mut self, stream: u32, data: &[u8], fin: bool) {
            let data = Bytes::copy_from_slice(data);
            self.send(Frame::Data { stream, data, fin }).await;
        }

        async fn next(&mut self) -> Option<Frame> {
            loop {
                if let Some(frame) = self.decoder.next().unwrap() {
                    return Some(frame);
                }
                let read = self.connection.read_buf(self.decoder.buffer());
                if read.await.unwrap() == 0 {
                    return None;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_stream_carries_data_both_ways_and_each_direction_ends_alone() {
        let (mut session, mut peer) = Peer::connect();
        peer.open(1).await;
        peer.data(1, b"ping", true).await;
        let request = session.next().await.unwrap();
        assert_eq!(request.headers().first("streamType"), Some("data"));
        let mut stream = request.accept().await.unwrap();
        assert_eq!(
            stream.input.next().await.unwrap().unwrap().data,
            &b"ping"[..]
        );
        assert!(stream.input.next().await.unwrap().is_none());
        stream
            .output
            .write(Bytes::from_static(b"pong"))
            .await
            .unwrap();
        stream.output.finish().await.unwrap();
        assert!(session.shared.streams.lock().is_empty());
        let closing = tokio::spawn(session.close());
        assert!(matches!(
            peer.next().await,
            Some(Frame::Reply { stream: 1, .. })
        ));
        let data = |data: &'static [u8], fin| Frame::Data {
            stream: 1,
            data: Bytes::from_static(data),
            fin,
        };
        assert_eq!(peer.next().await, Some(data(b"pong", false)));
        assert_eq!(peer.next().await, Some(data(b"", true)));
        assert!(matches!(peer.next().await, Some(Frame::GoAway { .. })));
        assert_eq!(peer.next().await, None);
        drop(peer);
        closing.await.unwrap();
    }

    #[tokio::test]
    async fn pings_come_back() {
        let (_session, mut peer) = Peer::connect();
        peer.send(Frame::Ping(7)).await;
        assert_eq!(peer.next().await, Some(Frame::Ping(7)));
    }

    #[tokio::test]
    async fn numbers_that_a_client_may_not_use_are_refused() {
        let (_session, mut peer) = Peer::connect();
        for stream in [2, 0] {
            peer.open(stream).await;
            assert_eq!(peer.next().await, Some(reset(stream, Reset::Protocol)));
        }
        peer.open(5).await;
        peer.open(3).await;
        assert_eq!(peer.next().await, Some(reset(3, Reset::Protocol)));
    }

    #[tokio::test]
    async fn a_reset_ends_both_directions() {
        let (mut session, mut peer) = Peer::connect();
        peer.open(1).await;
        let mut stream = session.next().await.unwrap().accept().await.unwrap();
        peer.send(reset(1, Reset::Cancel)).await;
        assert_eq!(stream.input.next().await.unwrap_err(), Gone);
        assert_eq!(
            stream.output.write(Bytes::from_static(b"x")).await,
            Err(Gone)
        );
    }

    #[tokio::test]
    async fn a_stream_that_is_refused_or_dropped_is_reset() {
        let (mut session, mut peer) = Peer::connect();
        peer.open(1).await;
        session.next().await.unwrap().refuse().await;
        assert_eq!(peer.next().await, Some(reset(1, Reset::Cancel)));
        peer.open(3).await;
        drop(session.next().await.unwrap());
        assert_eq!(peer.next().await, Some(reset(3, Reset::Cancel)));
        session.take_no_more();
        peer.open(5).await;
        assert_eq!(peer.next().await, Some(reset(5, Reset::Cancel)));
    }

    #[tokio::test]
    async fn what_nobody_takes_stops_the_reading_and_not_the_memory() {
        let (mut session, mut peer) = Peer::connect();
        peer.open(1).await;
        let mut stream = session.next().await.unwrap().accept().await.unwrap();
        let sending = tokio::spawn(async move {
            let data = vec![0; CHUNK];
            for _ in 0..2 * ROOM / CHUNK {
                peer.data(1, &data, false).await;
            }
            peer
        });
        seaway_wait(|| stream.input.items.len() * CHUNK >= ROOM / 2).await;
        assert!(!sending.is_finished());
        let mut taken = 0;
        while taken < 2 * ROOM {
            taken += stream.input.next().await.unwrap().unwrap().data.len();
        }
        sending.await.unwrap();
    }

    /// Waits for a condition that another task makes true.
    async fn seaway_wait(condition: impl Fn() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_broken_peer_ends_its_connection() {
        let (mut session, mut peer) = Peer::connect();
        peer.open(1).await;
        let mut stream = session.next().await.unwrap().accept().await.unwrap();
        peer.connection
            .write_all(b"\x80\x09GET / HTTP")
            .await
            .unwrap();
        assert_eq!(stream.input.next().await.unwrap_err(), Gone);
        assert!(session.next().await.is_none());
        session.close().await;
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_session_panic_or_stay(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
            opened in proptest::prelude::any::<bool>(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (mut session, mut peer) = Peer::connect();
                if opened {
                    peer.open(1).await;
                }
                // A session that has ended does not take them.
                let _ = peer.connection.write_all(&bytes).await;
                drop(peer);
                while let Some(request) = session.next().await {
                    let _ = request.accept().await;
                }
                assert!(session.closed().is_cancelled());
            });
        }
    }
}
