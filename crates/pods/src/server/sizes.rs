//! Sizes of a terminal, as clients send them: JSON objects one after the other, cut anywhere. Pure.
//! Source: `k8s.io/client-go/tools/remotecommand`, `TerminalSize`.

use serde_json::Value;

use crate::runtime::TerminalSize;

/// No object is longer; what is longer is none.
const LONGEST: usize = 1024;

/// Reads sizes.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    rest: Vec<u8>,
}

impl Sizes {
    /// Takes bytes, and returns the last size that is complete: those before it are out of date.
    pub(super) fn feed(&mut self, data: &[u8]) -> Option<TerminalSize> {
        self.rest.extend_from_slice(data);
        let mut newest = None;
        let mut values = serde_json::Deserializer::from_slice(&self.rest).into_iter::<Value>();
        let mut broken = false;
        for value in values.by_ref() {
            match value {
                Ok(value) => newest = size(&value).or(newest),
                Err(error) => {
                    broken = !error.is_eof();
                    break;
                }
            }
        }
        let read = values.byte_offset();
        self.rest.drain(..read);
        if broken || self.rest.len() > LONGEST {
            self.rest.clear();
        }
        newest
    }
}

fn size(value: &Value) -> Option<TerminalSize> {
    let side = |name: &str| {
        let side = value.get(name)?.as_u64()?;
        u16::try_from(side).ok()
    };
    Some(TerminalSize {
        width: side("Width")?,
        height: side("Height")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: &[u8] = b"{\"Width\":80,\"Height\":24}\n{\"Width\":120,\"Height\":40}\n";
    const NEWER: TerminalSize = TerminalSize {
        width: 120,
        height: 40,
    };

    #[test]
    fn the_newest_size_counts() {
        assert_eq!(Sizes::default().feed(TWO), Some(NEWER));
    }

    #[test]
    fn what_is_no_size_is_passed_over_and_what_follows_is_read() {
        for nothing in [
            &b"{}"[..],
            b"{\"Width\":99999,\"Height\":1}",
            b"{\"Width\":-1,\"Height\":1}",
            b"nonsense",
            b"[1, 2]",
        ] {
            let mut sizes = Sizes::default();
            assert_eq!(sizes.feed(nothing), None, "{nothing:?}");
            assert_eq!(sizes.feed(TWO), Some(NEWER), "{nothing:?}");
        }
    }

    proptest! {
        #[test]
        fn sizes_survive_any_cutting(cut in 1usize..30) {
            let mut sizes = Sizes::default();
            let newest = TWO.chunks(cut).filter_map(|piece| sizes.feed(piece)).last();
            prop_assert_eq!(newest, Some(NEWER));
        }

        #[test]
        fn any_bytes_are_read_and_few_are_kept(pieces in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..700), 0..8)) {
            let mut sizes = Sizes::default();
            for piece in pieces {
                let _ = sizes.feed(&piece);
                prop_assert!(sizes.rest.len() <= LONGEST);
            }
        }
    }
}
