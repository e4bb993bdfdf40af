//! The bytes of netfilter's netlink: message headers and attributes, written into one buffer and read from a slice.
//!
//! Attribute values are big-endian; headers and attribute lengths are in host order.

use std::fmt;

/// `NFNL_SUBSYS_NFTABLES`: the upper byte of the type of each nf_tables message.
pub(crate) const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`.
pub(crate) const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
pub(crate) const BATCH_END: u16 = 0x11;
/// `NFNL_BATCH_GENID`: the generation that the ruleset must still have when the batch begins.
pub(crate) const BATCH_GENID: u16 = 1;

/// `NLMSG_ERROR`: an error, or with error number 0 an acknowledgement.
pub(crate) const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(crate) const DONE: u16 = 3;

pub(crate) const F_REQUEST: u16 = 0x1;
pub(crate) const F_ACK: u16 = 0x4;
/// The dump is not of one moment: the ruleset changed meanwhile.
pub(crate) const F_DUMP_INTR: u16 = 0x10;
pub(crate) const F_EXCL: u16 = 0x200;
pub(crate) const F_CREATE: u16 = 0x400;
pub(crate) const F_APPEND: u16 = 0x800;
pub(crate) const F_DUMP: u16 = 0x300;

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// Length of `struct nlmsghdr` and `struct nfgenmsg`.
pub(crate) const PREAMBLE: usize = HEADER + 4;
/// `NLA_F_NESTED`: the attribute holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its number.
const TYPE_MASK: u16 = 0x3fff;
/// The longest attribute: its length field has 16 bits.
pub(crate) const LONGEST: usize = u16::MAX as usize;

/// Where a message or a nested attribute began; closing it writes its length there.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Mark(usize);

/// Writes messages and attributes into one buffer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
    /// An attribute did not fit into 64 KiB; what was written must not be sent.
    pub(crate) overflow: bool,
}

impl Writer {
    /// Begins a message: `nlmsghdr` and `nfgenmsg`.
    pub(crate) fn begin(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        family: u8,
        resource: u16,
    ) -> Mark {
        let mark = Mark(self.bytes.len());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        mark
    }

    /// Ends a message.
    pub(crate) fn end(&mut self, mark: Mark) {
        let length = (self.bytes.len() - mark.0) as u32;
        self.bytes[mark.0..mark.0 + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Adds flags to a message that is in the buffer already.
    pub(crate) fn add_flags(&mut self, message: usize, flags: u16) {
        let at = message + 6;
        let old = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]);
        self.bytes[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    /// Opens an attribute that holds attributes.
    pub(crate) fn open(&mut self, kind: u16) -> Mark {
        let mark = Mark(self.bytes.len());
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        mark
    }

    /// Closes what [`Writer::open`] opened.
    pub(crate) fn close(&mut self, mark: Mark) {
        let length = self.bytes.len() - mark.0;
        match u16::try_from(length) {
            Ok(length) => self.bytes[mark.0..mark.0 + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.overflow = true,
        }
    }

    /// Writes an attribute with attributes in it.
    pub(crate) fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let mark = self.open(kind);
        inside(self);
        self.close(mark);
    }

    /// Writes an attribute, padded to four bytes.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = match u16::try_from(value.len() + 4) {
            Ok(length) => length,
            Err(_) => {
                self.overflow = true;
                return;
            }
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    pub(crate) fn put_u8(&mut self, kind: u16, value: u8) {
        self.put(kind, &[value]);
    }

    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    pub(crate) fn put_u64(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Writes a string with its closing zero byte.
    pub(crate) fn put_str(&mut self, kind: u16, value: &str) {
        let length = match u16::try_from(value.len() + 5) {
            Ok(length) => length,
            Err(_) => {
                self.overflow = true;
                return;
            }
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// The bytes are not what the type at hand looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(
    /// What could not be read.
    pub &'static str,
);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// An attribute in received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attr<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
    /// Where the attribute begins, counted from the first attribute of its parent.
    pub(crate) at: usize,
}

impl<'a> Attr<'a> {
    pub(crate) fn u8(&self) -> Result<u8, Malformed> {
        self.value
            .first()
            .copied()
            .ok_or(Malformed("8-bit attribute"))
    }

    pub(crate) fn u32(&self) -> Result<u32, Malformed> {
        let bytes = self
            .value
            .first_chunk()
            .ok_or(Malformed("32-bit attribute"))?;
        Ok(u32::from_be_bytes(*bytes))
    }

    pub(crate) fn u64(&self) -> Result<u64, Malformed> {
        let bytes = self
            .value
            .first_chunk()
            .ok_or(Malformed("64-bit attribute"))?;
        Ok(u64::from_be_bytes(*bytes))
    }

    /// The string up to its closing zero byte.
    pub(crate) fn text(&self) -> Result<&'a str, Malformed> {
        let end = self
            .value
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(self.value.len());
        std::str::from_utf8(&self.value[..end]).map_err(|_| Malformed("string attribute"))
    }

    pub(crate) fn nested(&self) -> Attrs<'a> {
        Attrs {
            bytes: self.value,
            at: 0,
        }
    }
}

/// Attributes one after another; ends at the first that does not fit into the rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attrs<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Attrs<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The first attribute of this number.
    pub(crate) fn find(mut self, kind: u16) -> Option<Attr<'a>> {
        Iterator::find(&mut self, |attr| attr.kind == kind)
    }

    /// The first attribute of this number, which must be there.
    pub(crate) fn need(self, kind: u16, what: &'static str) -> Result<Attr<'a>, Malformed> {
        self.find(kind).ok_or(Malformed(what))
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Attr<'a>> {
        let rest = self.bytes.get(self.at..)?;
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & TYPE_MASK;
        let value = rest.get(4..length)?;
        let attr = Attr {
            kind,
            value,
            at: self.at,
        };
        self.at += length.next_multiple_of(4);
        Some(attr)
    }
}

/// A message in received bytes, or in a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// What follows `nlmsghdr`.
    pub(crate) payload: &'a [u8],
}

impl<'a> Raw<'a> {
    /// The family of `nfgenmsg` and the attributes after it.
    pub(crate) fn netfilter(&self) -> Result<(u8, Attrs<'a>), Malformed> {
        let family = *self.payload.first().ok_or(Malformed("nfgenmsg"))?;
        let attributes = self.payload.get(4..).ok_or(Malformed("nfgenmsg"))?;
        Ok((family, Attrs::new(attributes)))
    }
}

/// Messages one after another; ends at the first that does not fit into the rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Messages<'a> {
    bytes: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        let header: &[u8; HEADER] = self.bytes.first_chunk()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let raw = Raw {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload: self.bytes.get(HEADER..length)?,
        };
        self.bytes = self
            .bytes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_were_written() {
        let mut writer = Writer::default();
        writer.put_str(1, "ab");
        writer.nest(2, |w| w.put_u32(7, 0x0102_0304));
        writer.put_u64(3, 9);
        let attributes = Attrs::new(&writer.bytes);
        assert_eq!(attributes.find(1).and_then(|a| a.text().ok()), Some("ab"));
        let inner = attributes
            .find(2)
            .and_then(|a| a.nested().find(7))
            .and_then(|a| a.u32().ok());
        assert_eq!(inner, Some(0x0102_0304));
        assert_eq!(attributes.find(3).and_then(|a| a.u64().ok()), Some(9));
    }

    #[test]
    fn an_attribute_that_is_too_long_is_never_sent_cut() {
        let mut writer = Writer::default();
        writer.put(1, &vec![0; LONGEST]);
        assert!(writer.overflow);
    }

    #[test]
    fn a_length_of_zero_ends_the_reading() {
        assert_eq!(Attrs::new(&[0; 64]).count(), 0);
        assert_eq!(Messages::new(&[0; 64]).count(), 0);
    }
}
