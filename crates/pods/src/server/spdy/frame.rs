//! Frames of SPDY/3.1. Pure, and bounded: a control frame that is too long is refused at its head, and the data of
//! a stream is handed on as it comes, however long its frame is.
//! Source: SPDY Protocol - Draft 3, section 2.6.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Deflater, HeaderError, Headers, Inflater};

/// No control frame is longer; a longer one is a broken peer.
const MAX_CONTROL: usize = 64 * 1024;
const HEAD: usize = 8;
const VERSION: u16 = 3;
const FIN: u8 = 1;
const ID: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Why a stream is reset (section 2.6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    Protocol = 1,
    Refused = 3,
    Cancel = 5,
}

/// A frame, or a piece of one with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// A stream begins.
    Open {
        stream: u32,
        headers: Headers,
        fin: bool,
    },
    /// A stream is accepted.
    Reply { stream: u32, headers: Headers },
    /// More headers of a stream.
    Headers { stream: u32, fin: bool },
    /// Data; after `fin` no more comes from there.
    Data { stream: u32, data: Bytes, fin: bool },
    /// A stream is over, both ways.
    Reset { stream: u32, status: u32 },
    /// Wants to come back as it is.
    Ping(u32),
    /// No stream after this one is taken any more.
    GoAway { last: u32 },
    /// Nothing that has a meaning here.
    Nothing,
}

/// The peer does not speak SPDY/3.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum FrameError {
    #[error("a control frame of {0} bytes")]
    TooLong(usize),
    #[error("a frame of version {0}")]
    Version(u16),
    #[error("a control frame of type {0} is malformed")]
    Malformed(u16),
    #[error(transparent)]
    Headers(#[from] HeaderError),
}

/// Turns bytes into frames.
#[derive(Debug)]
pub(super) struct Decoder {
    buffer: BytesMut,
    inflater: Inflater,
    data: Option<Data>,
}

/// A data frame that is being received.
#[derive(Debug)]
struct Data {
    stream: u32,
    left: usize,
    fin: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            inflater: Inflater::new(),
            data: None,
        }
    }

    /// Where to put what was received. Take all frames out before putting in more.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next frame; `None` when more has to be received.
    ///
    /// # Errors
    /// The peer is broken. Nothing after that can be read.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(data) = self.data.take() {
            return Ok(self.data(data));
        }
        let Some(head) = self.buffer.get(..HEAD) else {
            return Ok(None);
        };
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        // Three bytes always fit.
        let length = usize::try_from(u32::from_be_bytes([0, head[5], head[6], head[7]]))
            .unwrap_or(usize::MAX);
        if first & !ID == 0 {
            self.buffer.advance(HEAD);
            let data = Data {
                stream: first,
                left: length,
                fin: flags & FIN != 0,
            };
            return Ok(self.data(data));
        }
        let version = u16::from_be_bytes([head[0] & 0x7f, head[1]]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > MAX_CONTROL {
            return Err(FrameError::TooLong(length));
        }
        let kind = u16::from_be_bytes([head[2], head[3]]);
        if self.buffer.len() < HEAD + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let payload = self.buffer.split_to(length).freeze();
        self.control(kind, flags & FIN != 0, payload).map(Some)
    }

    fn data(&mut self, mut frame: Data) -> Option<Frame> {
        if frame.left > 0 && self.buffer.is_empty() {
            self.data = Some(frame);
            return None;
        }
        let data = self
            .buffer
            .split_to(frame.left.min(self.buffer.len()))
            .freeze();
        frame.left -= data.len();
        let piece = Frame::Data {
            stream: frame.stream,
            data,
            fin: frame.fin && frame.left == 0,
        };
        if frame.left > 0 {
            self.data = Some(frame);
        }
        Some(piece)
    }

    fn control(&mut self, kind: u16, fin: bool, mut payload: Bytes) -> Result<Frame, FrameError> {
        let malformed = |_| FrameError::Malformed(kind);
        let mut number = || payload.try_get_u32().map_err(malformed);
        Ok(match kind {
            SYN_STREAM => {
                let stream = number()? & ID;
                // The stream that it belongs to; priority and credential slot.
                number()?;
                payload.try_get_u16().map_err(malformed)?;
                let headers = self.inflater.read(&payload)?;
                Frame::Open {
                    stream,
                    headers,
                    fin,
                }
            }
            SYN_REPLY => {
                let stream = number()? & ID;
                let headers = self.inflater.read(&payload)?;
                Frame::Reply { stream, headers }
            }
            HEADERS => {
                let stream = number()? & ID;
                // They have to be read, or those after them could not be.
                self.inflater.read(&payload)?;
                Frame::Headers { stream, fin }
            }
            RST_STREAM => Frame::Reset {
                stream: number()? & ID,
                status: number()?,
            },
            PING => Frame::Ping(number()?),
            GOAWAY => Frame::GoAway {
                last: number()? & ID,
            },
            // SETTINGS, WINDOW_UPDATE, CREDENTIAL, and what is not known has to be passed over (section 2.2.1).
            _ => Frame::Nothing,
        })
    }
}

/// Turns frames into bytes.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    /// Appends a frame. Data is no longer than three bytes can say.
    pub(super) fn write(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::Open {
                stream,
                headers,
                fin,
            } => {
                let mut payload = BytesMut::new();
                payload.put_u32(*stream);
                payload.put_u32(0);
                payload.put_u16(0);
                self.deflater.write(headers, &mut payload);
                control(out, SYN_STREAM, *fin, &payload);
            }
            Frame::Reply { stream, headers } => {
                let mut payload = BytesMut::new();
                payload.put_u32(*stream);
                self.deflater.write(headers, &mut payload);
                control(out, SYN_REPLY, false, &payload);
            }
            Frame::Headers { stream, fin } => {
                let mut payload = BytesMut::new();
                payload.put_u32(*stream);
                self.deflater.write(&Headers::default(), &mut payload);
                control(out, HEADERS, *fin, &payload);
            }
            Frame::Reset { stream, status } => {
                let mut payload = BytesMut::new();
                payload.put_u32(*stream);
                payload.put_u32(*status);
                control(out, RST_STREAM, false, &payload);
            }
            Frame::Ping(id) => control(out, PING, false, &id.to_be_bytes()),
            Frame::GoAway { last } => {
                let mut payload = BytesMut::new();
                payload.put_u32(*last);
                payload.put_u32(0);
                control(out, GOAWAY, false, &payload);
            }
            Frame::Data { stream, data, fin } => {
                out.put_u32(*stream & ID);
                length_and_flags(out, *fin, data.len());
                out.put_slice(data);
            }
            Frame::Nothing => {}
        }
    }
}

fn control(out: &mut BytesMut, kind: u16, fin: bool, payload: &[u8]) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    length_and_flags(out, fin, payload.len());
    out.put_slice(payload);
}

fn length_and_flags(out: &mut BytesMut, fin: bool, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX) & 0x00ff_ffff;
    out.put_u32(if fin { u32::from(FIN) << 24 } else { 0 } | length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let headers =
            || proptest::collection::vec(("[a-z]{1,9}", "[ -~]{0,20}"), 0..4).prop_map(Headers);
        let id = || 0u32..=ID;
        prop_oneof![
            (id(), headers(), any::<bool>()).prop_map(|(stream, headers, fin)| Frame::Open {
                stream,
                headers,
                fin
            }),
            (id(), headers()).prop_map(|(stream, headers)| Frame::Reply { stream, headers }),
            (id(), any::<bool>()).prop_map(|(stream, fin)| Frame::Headers { stream, fin }),
            (id(), any::<u32>()).prop_map(|(stream, status)| Frame::Reset { stream, status }),
            any::<u32>().prop_map(Frame::Ping),
            id().prop_map(|last| Frame::GoAway { last }),
            (
                id(),
                proptest::collection::vec(any::<u8>(), 0..200),
                any::<bool>()
            )
                .prop_map(|(stream, data, fin)| Frame::Data {
                    stream,
                    data: data.into(),
                    fin
                }),
        ]
    }

    /// All frames of the bytes, those with data put together again.
    fn decode(pieces: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::new();
        let mut got: Vec<Frame> = Vec::new();
        let mut goes_on = false;
        for piece in pieces {
            decoder.buffer().extend_from_slice(piece);
            while let Some(frame) = decoder.next()? {
                let unfinished = decoder.data.is_some();
                if goes_on
                    && let Frame::Data { data, fin, .. } = &frame
                    && let Some(Frame::Data {
                        data: before,
                        fin: over,
                        ..
                    }) = got.last_mut()
                {
                    *before = [&before[..], &data[..]].concat().into();
                    *over = *fin;
                } else {
                    got.push(frame);
                }
                goes_on = unfinished;
            }
        }
        Ok(got)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(sent in proptest::collection::vec(frames(), 0..8), cut in 1usize..50) {
            let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
            for frame in &sent {
                encoder.write(frame, &mut bytes);
            }
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(decode(&pieces).unwrap(), sent);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&[&bytes]);
        }

        #[test]
        fn no_control_frame_makes_it_panic(
            kind in 0u16..12, flags in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 0..100)
        ) {
            let mut bytes = BytesMut::new();
            control(&mut bytes, kind, flags & 1 == 1, &payload);
            let _ = decode(&[&bytes]);
        }
    }

    #[test]
    fn a_control_frame_that_is_too_long_is_refused_at_its_head() {
        let head = [0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff];
        assert_eq!(decode(&[&head]), Err(FrameError::TooLong(0xff_ffff)));
    }

    #[test]
    fn a_long_data_frame_is_handed_on_as_it_comes() {
        let mut decoder = Decoder::new();
        decoder
            .buffer()
            .extend_from_slice(&[0, 0, 0, 5, 1, 0xff, 0xff, 0xff, b'a', b'b']);
        let piece = |data: &'static [u8]| Frame::Data {
            stream: 5,
            data: Bytes::from_static(data),
            fin: false,
        };
        assert_eq!(decoder.next(), Ok(Some(piece(b"ab"))));
        assert_eq!(decoder.next(), Ok(None));
        decoder.buffer().extend_from_slice(b"c");
        assert_eq!(decoder.next(), Ok(Some(piece(b"c"))));
    }

    #[test]
    fn another_version_is_refused() {
        assert_eq!(
            decode(&[&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]]),
            Err(FrameError::Version(2))
        );
    }

    #[test]
    fn what_has_no_meaning_is_passed_over() {
        for kind in [4u16, 9, 10, 77] {
            let mut bytes = BytesMut::new();
            control(&mut bytes, kind, false, &[0; 12]);
            assert_eq!(decode(&[&bytes]), Ok(vec![Frame::Nothing]), "{kind}");
        }
    }
}
