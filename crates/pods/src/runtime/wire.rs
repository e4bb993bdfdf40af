//! What the agent and its helpers say to each other about a process's input and output.
//!
//! A frame is a kind (one byte), a length (four bytes, big endian) and so many bytes. The agent sends `Request`
//! once, then `Stdin`, `StdinEnd` and `Resize`; the helper answers `Started` or `Failed`, then sends `Stdout`,
//! `Stderr` and at the end `Exit`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::TerminalSize;

/// No frame is longer; a longer one is a broken peer.
const MAX_PAYLOAD: usize = 1 << 20;
/// Data is cut into pieces of this size.
pub(super) const CHUNK: usize = 32 * 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// JSON of what to do.
    Request(Bytes),
    /// Towards the process.
    Stdin(Bytes),
    /// No more of it.
    StdinEnd,
    /// New size of the terminal.
    Resize(TerminalSize),
    /// The process runs.
    Started,
    /// It cannot: exit code and reason.
    Failed(i32, String),
    /// From the process.
    Stdout(Bytes),
    /// From the process.
    Stderr(Bytes),
    /// The process ended.
    Exit(i32),
}

/// The peer does not speak this protocol.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum WireError {
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    #[error("frame of {0} bytes")]
    TooLong(usize),
    #[error("frame of kind {0} is malformed")]
    Payload(u8),
}

impl Frame {
    /// Appends the frame to a buffer.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let (kind, head, data): (u8, Option<i32>, &[u8]) = match self {
            Frame::Request(json) => (0, None, json),
            Frame::Stdin(data) => (1, None, data),
            Frame::StdinEnd => (2, None, &[]),
            Frame::Resize(size) => (3, None, &encode_size(*size)),
            Frame::Started => (4, None, &[]),
            Frame::Failed(code, message) => (5, Some(*code), message.as_bytes()),
            Frame::Stdout(data) => (6, None, data),
            Frame::Stderr(data) => (7, None, data),
            Frame::Exit(code) => (8, Some(*code), &[]),
        };
        // Payloads are ours and bounded: data by CHUNK, messages by what an error says.
        let data = &data[..data.len().min(MAX_PAYLOAD - 4)];
        let length = data.len() + if head.is_some() { 4 } else { 0 };
        out.put_u8(kind);
        out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        if let Some(head) = head {
            out.put_i32(head);
        }
        out.put_slice(data);
    }

    /// Takes the first complete frame out of a buffer.
    pub(super) fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, WireError> {
        if buffer.len() < 5 {
            return Ok(None);
        }
        let kind = buffer[0];
        let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
        if length > MAX_PAYLOAD {
            return Err(WireError::TooLong(length));
        }
        if buffer.len() < 5 + length {
            return Ok(None);
        }
        buffer.advance(5);
        let mut payload = buffer.split_to(length).freeze();
        let number = |payload: &mut Bytes| {
            if payload.len() < 4 {
                Err(WireError::Payload(kind))
            } else {
                Ok(payload.get_i32())
            }
        };
        Ok(Some(match kind {
            0 => Frame::Request(payload),
            1 => Frame::Stdin(payload),
            2 => Frame::StdinEnd,
            3 if payload.len() == 4 => Frame::Resize(TerminalSize {
                width: payload.get_u16(),
                height: payload.get_u16(),
            }),
            3 => return Err(WireError::Payload(kind)),
            4 => Frame::Started,
            5 => {
                let code = number(&mut payload)?;
                Frame::Failed(code, String::from_utf8_lossy(&payload).into_owned())
            }
            6 => Frame::Stdout(payload),
            7 => Frame::Stderr(payload),
            8 => Frame::Exit(number(&mut payload)?),
            other => return Err(WireError::Kind(other)),
        }))
    }
}

fn encode_size(size: TerminalSize) -> [u8; 4] {
    let (w, h) = (size.width.to_be_bytes(), size.height.to_be_bytes());
    [w[0], w[1], h[0], h[1]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let data = || proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        prop_oneof![
            data().prop_map(Frame::Request),
            data().prop_map(Frame::Stdin),
            Just(Frame::StdinEnd),
            (any::<u16>(), any::<u16>())
                .prop_map(|(width, height)| Frame::Resize(TerminalSize { width, height })),
            Just(Frame::Started),
            (any::<i32>(), ".{0,40}").prop_map(|(code, text)| Frame::Failed(code, text)),
            data().prop_map(Frame::Stdout),
            data().prop_map(Frame::Stderr),
            any::<i32>().prop_map(Frame::Exit),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(sent in proptest::collection::vec(frames(), 0..8), cut in 1usize..50) {
            let mut bytes = BytesMut::new();
            for frame in &sent {
                frame.encode(&mut bytes);
            }
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = Frame::decode(&mut buffer).unwrap() {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, sent);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Frame::decode(&mut buffer) {}
        }
    }

    #[test]
    fn a_frame_that_never_ends_is_refused_at_its_head() {
        let mut buffer = BytesMut::from(&[1, 0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(
            Frame::decode(&mut buffer),
            Err(WireError::TooLong(0xffff_ffff))
        );
    }
}
