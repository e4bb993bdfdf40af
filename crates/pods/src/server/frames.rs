//! The messages of exec, attach and port forwarding over WebSocket: `channel.k8s.io` in its versions, and the same
//! in base64 for clients that cannot send bytes. Pure.
//! Source: `k8s.io/apimachinery/pkg/util/httpstream/wsstream`, `k8s.io/kubelet/pkg/cri/streaming/remotecommand`,
//! KEP-4006.

use axum::extract::ws::Message;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// v5 only: the next byte names a channel that the client closes.
const CLOSE: u8 = 255;

/// How messages are written: the channel's number, then the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// A byte, and bytes.
    Binary,
    /// A digit, and base64.
    Base64,
}

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FromClient {
    /// Data for a channel.
    Data(u8, Bytes),
    /// The client closes a channel.
    Close(u8),
}

impl Coding {
    /// The coding of a protocol.
    pub(super) fn of(protocol: &str) -> Self {
        if protocol.contains("base64.") {
            Coding::Base64
        } else {
            Coding::Binary
        }
    }

    /// Reads a message; `None` if it means nothing: it is passed over, as Kubernetes does. `closes` is whether the
    /// protocol knows the close signal.
    pub(super) fn read(self, message: &Bytes, closes: bool) -> Option<FromClient> {
        let (channel, data) = message.split_first()?;
        match self {
            Coding::Base64 => {
                let channel = channel.checked_sub(b'0')?;
                let data = STANDARD.decode(data).ok()?;
                Some(FromClient::Data(channel, data.into()))
            }
            Coding::Binary if *channel == CLOSE && closes => match data {
                [channel] => Some(FromClient::Close(*channel)),
                _ => None,
            },
            Coding::Binary => Some(FromClient::Data(*channel, message.slice(1..))),
        }
    }

    /// A message on a channel.
    pub(super) fn write(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Coding::Binary => {
                let mut frame = BytesMut::with_capacity(data.len() + 1);
                frame.put_u8(channel);
                frame.put_slice(data);
                Message::Binary(frame.freeze())
            }
            Coding::Base64 => {
                let mut text = String::with_capacity(data.len() * 4 / 3 + 5);
                text.push(char::from(b'0'.saturating_add(channel)));
                STANDARD.encode_string(data, &mut text);
                Message::Text(text.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_of(coding: Coding, bytes: &[u8], closes: bool) -> Option<FromClient> {
        coding.read(&Bytes::copy_from_slice(bytes), closes)
    }

    fn data(channel: u8, data: &'static [u8]) -> Option<FromClient> {
        Some(FromClient::Data(channel, Bytes::from_static(data)))
    }

    #[test]
    fn messages_are_read_by_their_channel() {
        let read = |bytes: &[u8]| read_of(Coding::Binary, bytes, true);
        assert_eq!(read(b"\x00ls\n"), data(STDIN, b"ls\n"));
        assert_eq!(read(b"\x04{}"), data(RESIZE, b"{}"));
        assert_eq!(read(b"\xff\x00"), Some(FromClient::Close(STDIN)));
        for nothing in [&b""[..], b"\xff", b"\xff\x00\x00"] {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn only_version_5_knows_the_close_signal() {
        assert_eq!(
            read_of(Coding::Binary, b"\xff\x00", false),
            data(CLOSE, b"\x00")
        );
    }

    #[test]
    fn base64_has_digits_for_channels() {
        let read = |bytes: &[u8]| read_of(Coding::Base64, bytes, false);
        assert_eq!(read(b"0bHMK"), data(STDIN, b"ls\n"));
        for nothing in [&b""[..], b"\x00bHMK", b"0b"] {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
        assert_eq!(
            Coding::Base64.write(STDOUT, b"ls\n"),
            Message::Text("1bHMK".into())
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..100), closes: bool, base64: bool) {
            let coding = if base64 { Coding::Base64 } else { Coding::Binary };
            let _ = read_of(coding, &bytes, closes);
        }

        #[test]
        fn messages_survive_the_way(
            channel in 0u8..10, bytes in proptest::collection::vec(any::<u8>(), 0..100), base64: bool
        ) {
            let coding = if base64 { Coding::Base64 } else { Coding::Binary };
            let message = coding.write(channel, &bytes).into_data();
            prop_assert_eq!(coding.read(&message, true), Some(FromClient::Data(channel, bytes.into())));
        }
    }
}
