//! The wire format of protobuf, as far as the Kubernetes API uses it.

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raw<'a> {
    /// A number.
    Varint(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
    /// A number of 32 or 64 bits: no field of the API is one.
    Fixed,
}

/// The fields of a message, in order; `None` where it is damaged, and nothing behind it.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn field(&mut self) -> Option<(u32, Raw<'a>)> {
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).ok()?;
        let raw = match tag & 7 {
            0 => Raw::Varint(varint(&mut self.rest)?),
            1 => {
                self.take(8)?;
                Raw::Fixed
            }
            2 => {
                let length = usize::try_from(varint(&mut self.rest)?).ok()?;
                Raw::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Raw::Fixed
            }
            _ => return None,
        };
        Some((number, raw))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u32, Raw<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Reads a number of variable length.
pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_are_read_and_damage_ends_it() {
        let fields: Vec<_> = Fields::new(&[0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i']).collect();
        assert_eq!(
            fields,
            [Some((1, Raw::Varint(150))), Some((2, Raw::Bytes(b"hi")))]
        );
        let damaged: Vec<_> = Fields::new(&[0x12, 0x05, b'h']).collect();
        assert_eq!(damaged, [None]);
        assert_eq!(varint(&mut [0xff; 11].as_slice()), None);
    }
}
