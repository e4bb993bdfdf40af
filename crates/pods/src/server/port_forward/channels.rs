//! Forwarding over the channels of a WebSocket: two for each port, and one connection for each port.
//! Source: `k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go`.

use std::collections::VecDeque;
use std::io;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{Bytes, BytesMut};
use futures::stream::SplitStream;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::carry;
use super::target::Target;
use crate::server::IDLE;
use crate::server::attachment::pairs;
use crate::server::frames::{Coding, FromClient};

/// A channel's number is one byte, or one digit, and every port has two.
const MAX_PORTS: usize = 64;
/// Messages that wait for a connection in the Pod, or for the client.
const QUEUE: usize = 8;

/// The ports that a client asks for.
///
/// # Errors
/// What is wrong with the query.
pub(super) fn ports(query: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for (name, value) in pairs(query) {
        if name != "port" && name != "ports" {
            continue;
        }
        if value.is_empty() {
            return Err("query parameter \"port\" cannot be empty".to_owned());
        }
        for text in value.split(',') {
            match text.parse() {
                Ok(0) => return Err(format!("port {text:?} must be > 0")),
                Ok(port) => ports.push(port),
                Err(error) => {
                    return Err(format!("unable to parse {text:?} as a port: {error}"));
                }
            }
        }
    }
    if ports.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    if ports.len() > MAX_PORTS {
        return Err(format!("no more than {MAX_PORTS} ports can be forwarded"));
    }
    Ok(ports)
}

/// Serves a client until it is gone, or every connection has ended.
pub(super) async fn serve(
    socket: WebSocket,
    protocol: &'static str,
    ports: Vec<u16>,
    target: Target,
) {
    let coding = Coding::of(protocol);
    let (mut sink, stream) = socket.split();
    let (say, mut said) = mpsc::channel::<Message>(QUEUE);
    let mut inputs = Vec::new();
    let connections = TaskTracker::new();
    let target = std::sync::Arc::new(target);
    for (index, port) in ports.into_iter().enumerate() {
        let (input, received) = mpsc::channel(QUEUE);
        inputs.push(input);
        let channel = u8::try_from(index * 2).unwrap_or(u8::MAX - 1);
        let voice = Voice {
            say: say.clone(),
            coding,
            data: channel,
            error: channel + 1,
        };
        let target = target.clone();
        connections.spawn(async move { forward(&target, port, received, voice).await });
    }
    connections.close();
    drop(say);
    let telling = async {
        while let Some(message) = said.recv().await {
            sink.send(message).await.ok()?;
        }
        let goodbye = CloseFrame {
            code: close_code::NORMAL,
            reason: "".into(),
        };
        sink.send(Message::Close(Some(goodbye))).await.ok()
    };
    // Whoever is not waited for any more is dropped, and its connection with it.
    tokio::select! {
        _ = telling => {}
        () = listen(stream, inputs, coding) => {}
    }
}

/// What a connection tells the client with.
struct Voice {
    say: mpsc::Sender<Message>,
    coding: Coding,
    data: u8,
    error: u8,
}

impl Voice {
    async fn say(&self, channel: u8, data: &[u8]) -> io::Result<()> {
        let message = self.coding.write(channel, data);
        let said = self.say.send(message).await;
        said.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

async fn forward(target: &Target, port: u16, mut input: mpsc::Receiver<Bytes>, voice: Voice) {
    // Both channels begin with the port, so that the client knows which is which.
    for channel in [voice.data, voice.error] {
        if voice.say(channel, &port.to_le_bytes()).await.is_err() {
            return;
        }
    }
    let pod = match target.connect(port).await {
        Ok(pod) => pod,
        Err(problem) => {
            debug!(problem);
            let _ = voice.say(voice.error, problem.as_bytes()).await;
            return;
        }
    };
    let (mut from_pod, mut to_pod) = pod.into_split();
    let upwards = async {
        while let Some(data) = input.recv().await {
            to_pod.write_all(&data).await?;
        }
        to_pod.shutdown().await
    };
    let downwards = async {
        let mut buffer = BytesMut::new();
        while let Some(data) = carry::read(&mut from_pod, &mut buffer).await? {
            voice.say(voice.data, &data).await?;
        }
        io::Result::Ok(())
    };
    // A client has no way to end its side, so the Pod's end is the end; without it the client's going is.
    tokio::select! {
        ended = downwards => if let Err(error) = ended {
            let problem = format!("error forwarding port {port}: {error}");
            let _ = voice.say(voice.error, problem.as_bytes()).await;
        },
        Err(error) = upwards => debug!(%error, "a Pod does not take what is forwarded"),
    }
}

/// Passes on what the client sends until it is gone.
async fn listen(
    mut stream: SplitStream<WebSocket>,
    inputs: Vec<mpsc::Sender<Bytes>>,
    coding: Coding,
) {
    let mut inputs: VecDeque<Option<mpsc::Sender<Bytes>>> = inputs.into_iter().map(Some).collect();
    loop {
        let message: Bytes = match tokio::time::timeout(IDLE, stream.next()).await {
            Ok(Some(Ok(Message::Binary(data)))) => data,
            Ok(Some(Ok(Message::Text(text)))) => text.into(),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return,
        };
        let Some(FromClient::Data(channel, data)) = coding.read(&message, false) else {
            continue;
        };
        // The second channel of a port is the server's only.
        if !channel.is_multiple_of(2) {
            continue;
        }
        let Some(input) = inputs.get_mut(usize::from(channel / 2)) else {
            continue;
        };
        if let Some(open) = input
            && !data.is_empty()
            && open.send(data).await.is_err()
        {
            *input = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_one_by_one_or_in_a_list() {
        assert_eq!(ports("port=80&ports=443,8080&x=y"), Ok(vec![80, 443, 8080]));
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (query, problem) in [
            ("", "is required"),
            ("port=", "cannot be empty"),
            ("port=x", "unable to parse"),
            ("port=80,", "unable to parse"),
            ("port=70000", "unable to parse"),
            ("port=0", "must be > 0"),
        ] {
            let error = ports(query).unwrap_err();
            assert!(error.contains(problem), "{query}: {error}");
        }
        let many = vec!["1"; MAX_PORTS + 1].join(",");
        assert!(ports(&format!("port={many}")).is_err());
    }
}
