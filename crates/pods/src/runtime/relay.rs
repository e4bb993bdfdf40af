//! Carries bytes between a process, its log, and whoever is connected to it.
//!
//! One loop over poll(2) in a process with one thread, used by the shim for a container's first process and by
//! the exec helper for a further one.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::Winsize;

use super::log::{LogWriter, Stream};
use super::wire::{CHUNK, Frame};

/// Above this, what fills a buffer is not read any further.
const HIGH_WATER: usize = 256 * 1024;
/// How long output is still read after the process has ended: a child of it that lives on may hold the pipe.
const DRAIN: Duration = Duration::from_secs(1);
/// How long a spectator may take to read the last of it.
const GOODBYE: Duration = Duration::from_secs(10);

/// What to do with a client that does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlowClient {
    /// Let the process wait for it: it is its only reader.
    Wait,
    /// Cut it off: the process must not depend on a spectator.
    Drop,
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The process ended and its output was read.
    Exited,
    /// The only client is gone.
    HungUp,
}

/// A process and its connections.
#[derive(Debug)]
pub(super) struct Relay {
    /// pidfd of the process.
    child: OwnedFd,
    input: Option<Input>,
    outputs: Vec<Output>,
    /// Its terminal's master side.
    terminal: Option<OwnedFd>,
    log: Option<LogWriter>,
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    slow: SlowClient,
    /// Clients end standard input; otherwise it outlives them.
    ends_input: bool,
    exited: Option<Instant>,
}

#[derive(Debug)]
struct Input {
    fd: OwnedFd,
    queue: BytesMut,
    end: bool,
}

#[derive(Debug)]
struct Output {
    fd: OwnedFd,
    stream: Stream,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    received: BytesMut,
    to_send: BytesMut,
    gone: bool,
}

/// The process's ends that we hold.
#[derive(Debug)]
pub(super) enum Channels {
    /// Pipes.
    Pipes {
        /// `None` when it reads `/dev/null`.
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The master of its terminal.
    Terminal(OwnedFd),
}

impl Relay {
    pub(super) fn new(child: OwnedFd, channels: Channels, slow: SlowClient) -> io::Result<Self> {
        let (input, outputs, terminal) = match channels {
            Channels::Pipes {
                stdin,
                stdout,
                stderr,
            } => (
                stdin,
                vec![
                    Output {
                        fd: stdout,
                        stream: Stream::Stdout,
                    },
                    Output {
                        fd: stderr,
                        stream: Stream::Stderr,
                    },
                ],
                None,
            ),
            Channels::Terminal(master) => (
                Some(master.try_clone()?),
                vec![Output {
                    fd: master.try_clone()?,
                    stream: Stream::Stdout,
                }],
                Some(master),
            ),
        };
        let input = match input {
            Some(fd) => {
                let flags = rustix::fs::fcntl_getfl(&fd)?;
                rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
                Some(Input {
                    fd,
                    queue: BytesMut::new(),
                    end: false,
                })
            }
            None => None,
        };
        Ok(Self {
            child,
            input,
            outputs,
            terminal,
            log: None,
            listener: None,
            clients: Vec::new(),
            slow,
            ends_input: true,
            exited: None,
        })
    }

    /// Keeps a log of the output.
    pub(super) fn log_to(mut self, log: LogWriter) -> Self {
        self.log = Some(log);
        self
    }

    /// Takes clients from a socket. Whether they end standard input when they say so, or leave it open for the next.
    pub(super) fn accept_from(
        mut self,
        listener: UnixListener,
        ends_input: bool,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        self.listener = Some(listener);
        self.ends_input = ends_input;
        Ok(self)
    }

    /// Serves a client that is connected already, with what it has sent so far.
    pub(super) fn serve(mut self, stream: UnixStream, received: BytesMut) -> io::Result<Self> {
        self.add_client(stream, received)?;
        Ok(self)
    }

    fn add_client(&mut self, stream: UnixStream, received: BytesMut) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let mut to_send = BytesMut::new();
        Frame::Started.encode(&mut to_send);
        self.clients.push(Client {
            stream,
            received,
            to_send,
            gone: false,
        });
        Ok(())
    }

    /// Carries until the process has ended or its only client is gone.
    pub(super) fn run(&mut self) -> io::Result<End> {
        // What a client sent before us may be complete already.
        self.obey_clients();
        loop {
            self.poll_once()?;
            self.obey_clients();
            self.feed_input();
            let hung_up = self.slow == SlowClient::Wait && self.clients.iter().all(|it| it.gone);
            if hung_up && self.exited.is_none() {
                return Ok(End::HungUp);
            }
            self.clients.retain(|client| !client.gone);
            if self.exited.is_some() && self.is_full() {
                // The time is for the process's heirs, not for the client that is slow to read.
                self.exited = Some(Instant::now());
            }
            if let Some(since) = self.exited
                && (self.outputs.is_empty() || since.elapsed() >= DRAIN)
            {
                if let Some(log) = &mut self.log {
                    log.finish(Timestamp::now())?;
                }
                return Ok(End::Exited);
            }
        }
    }

    /// Tells the clients the end and waits until they have read it; spectators only get so much time.
    pub(super) fn goodbye(&mut self, code: i32) {
        for client in &mut self.clients {
            Frame::Exit(code).encode(&mut client.to_send);
            // A client that is gone does not need to know.
            let _ = client.stream.set_nonblocking(false);
            if self.slow == SlowClient::Drop {
                let _ = client.stream.set_write_timeout(Some(GOODBYE));
            }
            let _ = client.stream.write_all(&client.to_send);
        }
        self.clients.clear();
    }

    /// Whether output has to wait for the one who reads it.
    fn is_full(&self) -> bool {
        self.slow == SlowClient::Wait
            && self
                .clients
                .iter()
                .any(|client| client.to_send.len() > HIGH_WATER)
    }

    fn poll_once(&mut self) -> io::Result<()> {
        let full = self.is_full();
        let input_full = self
            .input
            .as_ref()
            .is_some_and(|input| input.queue.len() > HIGH_WATER);
        let timeout = self.exited.map(|since| {
            let left = DRAIN.saturating_sub(since.elapsed());
            Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            })
        });
        let (child, outputs, listener, clients, input);
        {
            let read = |wanted: bool| {
                if wanted {
                    PollFlags::IN
                } else {
                    PollFlags::empty()
                }
            };
            let mut fds = vec![PollFd::new(&self.child, read(self.exited.is_none()))];
            // Without interest even an end of file is not reported, so a full buffer does not spin.
            let polled_outputs = if full { 0 } else { self.outputs.len() };
            fds.extend(
                self.outputs[..polled_outputs]
                    .iter()
                    .map(|it| PollFd::new(&it.fd, PollFlags::IN)),
            );
            fds.extend(
                self.listener
                    .iter()
                    .map(|it| PollFd::new(it, PollFlags::IN)),
            );
            fds.extend(self.clients.iter().map(|client| {
                let mut wanted = read(!input_full);
                if !client.to_send.is_empty() {
                    wanted |= PollFlags::OUT;
                }
                PollFd::new(&client.stream, wanted)
            }));
            let waiting = self.input.as_ref().filter(|input| !input.queue.is_empty());
            fds.extend(waiting.map(|input| PollFd::new(&input.fd, PollFlags::OUT)));
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut ready = fds.iter().map(PollFd::revents);
            let mut next = || ready.next().unwrap_or(PollFlags::empty());
            child = next();
            outputs = (0..polled_outputs).map(|_| next()).collect::<Vec<_>>();
            listener = self.listener.is_some().then(&mut next);
            clients = self.clients.iter().map(|_| next()).collect::<Vec<_>>();
            input = waiting.is_some().then(&mut next);
        }
        if child.contains(PollFlags::IN) && self.exited.is_none() {
            self.exited = Some(Instant::now());
        }
        self.read_outputs(&outputs)?;
        for (client, ready) in self.clients.iter_mut().zip(clients) {
            client.transfer(ready);
        }
        if listener.is_some_and(|ready| !ready.is_empty()) {
            self.accept()?;
        }
        // Written by `feed_input`, which also learns of a closed end.
        let _ = input;
        Ok(())
    }

    fn read_outputs(&mut self, ready: &[PollFlags]) -> io::Result<()> {
        let mut buffer = [0u8; CHUNK];
        let mut closed = Vec::new();
        for (index, ready) in ready.iter().enumerate() {
            if ready.is_empty() {
                continue;
            }
            let output = &self.outputs[index];
            let length = match rustix::io::read(&output.fd, &mut buffer) {
                Ok(length) => length,
                Err(Errno::INTR | Errno::AGAIN) => continue,
                // The last of the terminal's other side was closed.
                Err(Errno::IO) => 0,
                Err(errno) => return Err(errno.into()),
            };
            if length == 0 {
                closed.push(index);
                continue;
            }
            let stream = output.stream;
            if let Some(log) = &mut self.log {
                log.write(stream, &buffer[..length], Timestamp::now())?;
            }
            if self.clients.is_empty() {
                continue;
            }
            let data = Bytes::copy_from_slice(&buffer[..length]);
            let frame = match stream {
                Stream::Stdout => Frame::Stdout(data),
                Stream::Stderr => Frame::Stderr(data),
            };
            for client in &mut self.clients {
                frame.encode(&mut client.to_send);
                if self.slow == SlowClient::Drop && client.to_send.len() > 4 * HIGH_WATER {
                    client.gone = true;
                }
            }
        }
        for index in closed.into_iter().rev() {
            self.outputs.remove(index);
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        match listener.accept() {
            Ok((stream, _)) => self.add_client(stream, BytesMut::new()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            // Out of descriptors: the container matters more than a spectator.
            Err(_) => {
                self.listener = None;
                Ok(())
            }
        }
    }

    /// Acts on the frames that clients have sent.
    fn obey_clients(&mut self) {
        for client in &mut self.clients {
            loop {
                match Frame::decode(&mut client.received) {
                    Ok(Some(Frame::Stdin(data))) => {
                        if let Some(input) = &mut self.input {
                            input.queue.extend_from_slice(&data);
                        }
                    }
                    Ok(Some(Frame::StdinEnd)) => {
                        if let Some(input) = &mut self.input
                            && self.ends_input
                            && self.terminal.is_none()
                        {
                            input.end = true;
                        }
                    }
                    Ok(Some(Frame::Resize(size))) => {
                        if let Some(terminal) = &self.terminal {
                            let size = Winsize {
                                ws_row: size.height,
                                ws_col: size.width,
                                ws_xpixel: 0,
                                ws_ypixel: 0,
                            };
                            // It may be closed already.
                            let _ = rustix::termios::tcsetwinsize(terminal, size);
                        }
                    }
                    Ok(None) => break,
                    // Not for us to get, or not our protocol.
                    Ok(Some(_)) | Err(_) => {
                        client.gone = true;
                        break;
                    }
                }
            }
        }
    }

    /// Writes to the process what it takes now.
    fn feed_input(&mut self) {
        let Some(input) = &mut self.input else {
            return;
        };
        while !input.queue.is_empty() {
            match rustix::io::write(&input.fd, &input.queue) {
                Ok(length) => input.queue.advance(length),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // It has closed its end; what else comes is for nobody.
                Err(_) => {
                    self.input = None;
                    return;
                }
            }
        }
        if input.end {
            self.input = None;
        }
    }
}

impl Client {
    fn transfer(&mut self, ready: PollFlags) {
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            let mut buffer = [0u8; CHUNK];
            match self.stream.read(&mut buffer) {
                Ok(0) => self.gone = true,
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) => self.gone |= !is_transient(&error),
            }
        }
        while !self.to_send.is_empty() {
            match self.stream.write(&self.to_send) {
                Ok(length) => self.to_send.advance(length),
                Err(error) => {
                    self.gone |= !is_transient(&error);
                    break;
                }
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// A descriptor that becomes readable when a child ends.
pub(super) fn pidfd_of_child(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process id"))?;
    Ok(rustix::process::pidfd_open(
        pid,
        rustix::process::PidfdFlags::empty(),
    )?)
}

/// Reads frames off a blocking socket until one is complete, keeping what came with it.
pub(super) fn read_frame(stream: &mut UnixStream, received: &mut BytesMut) -> io::Result<Frame> {
    loop {
        match Frame::decode(received) {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        let mut buffer = [0u8; CHUNK];
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => received.extend_from_slice(&buffer[..length]),
        }
    }
}

/// Receives the master of a terminal that libcontainer sends over its console socket.
pub(super) fn receive_terminal(listener: &UnixListener) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (stream, _) = listener.accept()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0u8; 256];
    let mut parts = [io::IoSliceMut::new(&mut name)];
    recvmsg(
        stream.as_fd(),
        &mut parts,
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::other("the console socket carried no terminal"))
}
