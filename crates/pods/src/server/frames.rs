//! The messages of exec and attach over WebSocket: `v4.channel.k8s.io` and `v5.channel.k8s.io`. Pure.
//! Source: `k8s.io/apimachinery/pkg/util/remotecommand`, KEP-4006.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::{Value, json};

use crate::runtime::TerminalSize;

/// The protocols, best first.
pub(super) const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5 only: the next byte names a channel that the client closes.
const CLOSE: u8 = 255;

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FromClient {
    /// For standard input.
    Stdin(Bytes),
    /// Standard input is over.
    StdinEnd,
    /// The terminal has a new size.
    Resize(TerminalSize),
    /// Nothing that means anything; passed over, as Kubernetes does.
    Nothing,
}

/// Reads a message. `closes` is whether the protocol knows the close signal.
pub(super) fn read(message: &Bytes, closes: bool) -> FromClient {
    let Some((channel, data)) = message.split_first() else {
        return FromClient::Nothing;
    };
    match *channel {
        STDIN if !data.is_empty() => FromClient::Stdin(message.slice(1..)),
        RESIZE => size(data).map_or(FromClient::Nothing, FromClient::Resize),
        CLOSE if closes && data == [STDIN] => FromClient::StdinEnd,
        _ => FromClient::Nothing,
    }
}

fn size(data: &[u8]) -> Option<TerminalSize> {
    let value: Value = serde_json::from_slice(data).ok()?;
    let side = |name: &str| {
        value
            .get(name)?
            .as_u64()
            .and_then(|side| u16::try_from(side).ok())
    };
    Some(TerminalSize {
        width: side("Width")?,
        height: side("Height")?,
    })
}

/// A message on a channel.
pub(super) fn frame(channel: u8, data: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(data.len() + 1);
    frame.put_u8(channel);
    frame.put_slice(data);
    frame.freeze()
}

/// The last message: how the command ended.
pub(super) fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The last message: the command could not be run.
pub(super) fn internal_error(problem: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {problem}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": problem}]},
        "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_of(bytes: &[u8], closes: bool) -> FromClient {
        read(&Bytes::copy_from_slice(bytes), closes)
    }

    #[test]
    fn messages_are_read_by_their_channel() {
        assert_eq!(
            read_of(b"\x00ls\n", true),
            FromClient::Stdin(Bytes::from_static(b"ls\n"))
        );
        assert_eq!(
            read_of(b"\x04{\"Width\":120,\"Height\":40}", true),
            FromClient::Resize(TerminalSize {
                width: 120,
                height: 40
            })
        );
        for nothing in [
            &b""[..],
            b"\x00",
            b"\x01out",
            b"\x04{}",
            b"\x04{\"Width\":99999,\"Height\":1}",
            b"\x09x",
        ] {
            assert_eq!(read_of(nothing, true), FromClient::Nothing, "{nothing:?}");
        }
    }

    #[test]
    fn only_version_five_closes_standard_input() {
        assert_eq!(read_of(b"\xff\x00", true), FromClient::StdinEnd);
        assert_eq!(read_of(b"\xff\x00", false), FromClient::Nothing);
        assert_eq!(read_of(b"\xff\x01", true), FromClient::Nothing);
        assert_eq!(read_of(b"\xff", true), FromClient::Nothing);
    }

    #[test]
    fn the_exit_code_is_where_clients_look_for_it() {
        let status = exit_status(3);
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(
            status["details"]["causes"],
            json!([{"reason": "ExitCode", "message": "3"}])
        );
        assert_eq!(exit_status(0)["status"], "Success");
    }

    proptest! {
        #[test]
        fn any_message_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..40), closes: bool) {
            let _ = read_of(&bytes, closes);
        }

        #[test]
        fn what_is_framed_for_standard_input_is_read_back(data in proptest::collection::vec(any::<u8>(), 1..40)) {
            prop_assert_eq!(read(&frame(STDIN, &data), true), FromClient::Stdin(Bytes::from(data)));
        }
    }
}
