//! Names and values at the beginning of a stream, and their compression. Pure.
//!
//! All header blocks of one direction are one zlib stream that begins with the dictionary. What is sent is stored and
//! not compressed: it is a handful of bytes for each stream, and a zlib stream all the same.
//! Source: SPDY Protocol - Draft 3, section 2.6.10; RFC 1950, RFC 1951.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::dictionary;

/// A block is not longer than this once it is unpacked.
const MAX_BLOCK: usize = 64 * 1024;
/// A block has no more headers than this.
const MAX_HEADERS: usize = 256;
/// What a zlib stream can refer back to.
const WINDOW: usize = 32 * 1024;
/// The head of a zlib stream: deflate with a window of 32 KiB and a dictionary.
const HEAD: [u8; 2] = [0x78, 0x20];
/// Bit of the second byte that says that there is a dictionary.
const HAS_DICTIONARY: u8 = 0x20;
/// An empty stored block, which makes the reader hand out what is before it.
const FLUSH: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// Names in small letters, and values. A name may be there more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::server) struct Headers(pub(super) Vec<(String, String)>);

impl Headers {
    /// The first value of a name; `None` also when it is empty.
    pub(in crate::server) fn first(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
impl Headers {
    pub(in crate::server) fn of(pairs: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Headers(pairs.iter().map(own).collect())
    }
}

/// A block cannot be read, and neither can any after it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum HeaderError {
    #[error("a header block is no zlib stream with the dictionary of SPDY/3")]
    Zlib,
    #[error(
        "a header block is longer than {MAX_BLOCK} bytes or has more than {MAX_HEADERS} headers"
    )]
    TooLong,
    #[error("a header block is malformed")]
    Malformed,
}

/// Unpacks what a peer sends.
pub(super) struct Inflater {
    core: Box<DecompressorOxide>,
    window: Box<[u8]>,
    at: usize,
    begun: bool,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Inflater {
    pub(super) fn new() -> Self {
        let dictionary = dictionary::dictionary();
        let mut window = vec![0; WINDOW].into_boxed_slice();
        window[..dictionary.len()].copy_from_slice(&dictionary);
        Self {
            core: Box::default(),
            window,
            at: dictionary.len(),
            begun: false,
        }
    }

    /// Unpacks a block.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        parse(self.inflate(block)?.into())
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, HeaderError> {
        if !self.begun {
            input = self.begin(input)?;
        }
        let mut unpacked = Vec::new();
        loop {
            let flags = TINFL_FLAG_HAS_MORE_INPUT;
            let (status, read, wrote) =
                decompress(&mut self.core, input, &mut self.window, self.at, flags);
            input = &input[read..];
            unpacked.extend_from_slice(&self.window[self.at..self.at + wrote]);
            self.at = (self.at + wrote) % WINDOW;
            if unpacked.len() > MAX_BLOCK {
                return Err(HeaderError::TooLong);
            }
            match status {
                TINFLStatus::NeedsMoreInput => return Ok(unpacked),
                TINFLStatus::HasMoreOutput => {}
                // The stream goes on as long as the connection.
                _ => return Err(HeaderError::Zlib),
            }
        }
    }

    /// Reads the head of the stream. Who compresses puts it in front of the first block.
    fn begin<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], HeaderError> {
        let (head, rest) = input.split_at_checked(2).ok_or(HeaderError::Zlib)?;
        let deflate = head[0] & 0x0f == 8 && head[0] >> 4 <= 7;
        let sound = u16::from_be_bytes([head[0], head[1]]) % 31 == 0;
        if !deflate || !sound || head[1] & HAS_DICTIONARY == 0 {
            return Err(HeaderError::Zlib);
        }
        let (named, rest) = rest.split_at_checked(4).ok_or(HeaderError::Zlib)?;
        if named != dictionary::CHECKSUM.to_be_bytes() {
            return Err(HeaderError::Zlib);
        }
        self.begun = true;
        Ok(rest)
    }
}

/// Packs what is sent.
#[derive(Debug, Default)]
pub(super) struct Deflater {
    begun: bool,
}

impl Deflater {
    /// Appends a block.
    pub(super) fn write(&mut self, headers: &Headers, out: &mut BytesMut) {
        if !self.begun {
            self.begun = true;
            out.put_slice(&HEAD);
            out.put_u32(dictionary::CHECKSUM);
        }
        let mut block = BytesMut::new();
        put_length(&mut block, headers.0.len());
        for (name, value) in &headers.0 {
            for text in [name.to_ascii_lowercase().as_str(), value] {
                put_length(&mut block, text.len());
                block.put_slice(text.as_bytes());
            }
        }
        for piece in block.chunks(usize::from(u16::MAX)) {
            // A piece is no longer than what two bytes can say.
            let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
            out.put_u8(0);
            out.put_u16_le(length);
            out.put_u16_le(!length);
            out.put_slice(piece);
        }
        out.put_slice(&FLUSH);
    }
}

fn put_length(block: &mut BytesMut, length: usize) {
    block.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

fn parse(mut block: Bytes) -> Result<Headers, HeaderError> {
    let mut headers = Vec::new();
    for _ in 0..number(&mut block)? {
        // Every header takes bytes of the block, so this ends with it whatever the number was.
        let name = text(&mut block)?.to_ascii_lowercase();
        let values = text(&mut block)?;
        for value in values.split('\0') {
            // A long name with many values would become much more than was sent.
            if headers.len() == MAX_HEADERS {
                return Err(HeaderError::TooLong);
            }
            headers.push((name.clone(), value.to_owned()));
        }
    }
    if block.has_remaining() {
        return Err(HeaderError::Malformed);
    }
    Ok(Headers(headers))
}

fn number(block: &mut Bytes) -> Result<u32, HeaderError> {
    block.try_get_u32().map_err(|_| HeaderError::Malformed)
}

fn text(block: &mut Bytes) -> Result<String, HeaderError> {
    let length = usize::try_from(number(block)?).map_err(|_| HeaderError::Malformed)?;
    if length > block.len() {
        return Err(HeaderError::Malformed);
    }
    Ok(String::from_utf8_lossy(&block.split_to(length)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(pairs: &[(&str, &str)]) -> Headers {
        Headers::of(pairs)
    }

    /// Blocks that Python's zlib made with the dictionary: `streamtype: error` and, in the same stream,
    /// `streamtype: data`, `port: 80` and `requestid: 0`.
    const FIRST: &str = "78f9e3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff";
    const SECOND: &str = "02a5470c295029930829b08b40899bc9c20048721641a2371394ec190d00000000ffff";

    #[test]
    fn blocks_of_another_compressor_are_read_in_their_order() {
        let mut inflater = Inflater::new();
        let first = inflater.read(&hex::decode(FIRST).unwrap()).unwrap();
        assert_eq!(first, of(&[("streamtype", "error")]));
        let second = inflater.read(&hex::decode(SECOND).unwrap()).unwrap();
        assert_eq!(
            second,
            of(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")])
        );
    }

    #[test]
    fn a_block_without_the_dictionary_is_refused() {
        for block in [
            &b""[..],
            b"\x78",
            b"\x78\x9c\x00",
            b"\x78\x20\x01\x02\x03\x04",
        ] {
            assert_eq!(Inflater::new().read(block), Err(HeaderError::Zlib));
        }
    }

    #[test]
    fn a_block_that_grows_without_end_is_refused() {
        // A megabyte of zeros, compressed by the same library.
        let mut block = HEAD.to_vec();
        block.extend(dictionary::CHECKSUM.to_be_bytes());
        block.extend(miniz_oxide::deflate::compress_to_vec(&vec![0; 1 << 20], 6));
        assert_eq!(Inflater::new().read(&block), Err(HeaderError::TooLong));
    }

    #[test]
    fn several_values_of_a_name_are_several_headers() {
        let mut packed = BytesMut::new();
        Deflater::default().write(&of(&[("A", "x\0y")]), &mut packed);
        let read = Inflater::new().read(&packed).unwrap();
        assert_eq!(read, of(&[("a", "x"), ("a", "y")]));
        assert_eq!(read.first("A"), Some("x"));
    }

    proptest! {
        #[test]
        fn blocks_survive_the_way(
            blocks in proptest::collection::vec(
                proptest::collection::vec(("[a-z-]{1,20}", "[ -~é]{0,300}"), 0..10), 1..30)
        ) {
            let (mut deflater, mut inflater) = (Deflater::default(), Inflater::new());
            for block in blocks {
                let headers = Headers(block);
                let mut packed = BytesMut::new();
                deflater.write(&headers, &mut packed);
                prop_assert_eq!(inflater.read(&packed).unwrap(), headers);
            }
        }

        #[test]
        fn no_block_makes_it_panic(blocks in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..300), 1..5), headed in any::<bool>()) {
            let mut inflater = Inflater::new();
            inflater.begun = headed;
            for block in blocks {
                let _ = inflater.read(&block);
            }
        }

        #[test]
        fn no_unpacked_block_makes_it_panic(block in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(block.into());
        }
    }
}
