//! Domain names as keys. A name is looked up many times and compared even more often, so it is folded to lower
//! case once, on the stack, in wire form (RFC 1035 §3.1); a run of its labels is then a plain byte slice and can
//! be a key without being copied.

use domain::base::Name;
use domain::base::name::ToName;

/// Longest name in octets, root label included (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 255;
/// Longest label in octets (RFC 1035 §2.3.4).
const LONGEST_LABEL: usize = 63;
/// Most labels that fit into a name, root label not counted.
const MOST_LABELS: usize = 127;

/// A domain name in lower-case wire form, with the place of each label.
#[derive(Clone)]
pub struct FoldedName {
    octets: [u8; LONGEST_NAME],
    /// Where each label's length octet is; the entry after the last label is the root label's.
    starts: [u8; MOST_LABELS + 1],
    labels: usize,
}

impl std::fmt::Debug for FoldedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels =
            (0..self.labels).map(|index| String::from_utf8_lossy(self.label(index)).into_owned());
        f.write_str(&labels.collect::<Vec<_>>().join("."))
    }
}

impl FoldedName {
    /// Folds `name`.
    pub fn new(name: &impl ToName) -> Self {
        let mut folded = FoldedName {
            octets: [0; LONGEST_NAME],
            starts: [0; MOST_LABELS + 1],
            labels: 0,
        };
        let mut at = 0;
        for label in name.iter_labels() {
            // `ToName` promises at most 255 octets; a name that broke it would be cut short here, not overrun.
            if label.is_root()
                || at + 1 + label.len() >= LONGEST_NAME
                || folded.labels == MOST_LABELS
            {
                break;
            }
            folded.octets[at] = label.len() as u8;
            let text = &mut folded.octets[at + 1..at + 1 + label.len()];
            text.copy_from_slice(label.as_slice());
            text.make_ascii_lowercase();
            at += 1 + label.len();
            folded.labels += 1;
            folded.starts[folded.labels] = at as u8;
        }
        folded
    }

    /// How many labels, the root label not counted.
    pub fn labels(&self) -> usize {
        self.labels
    }

    /// The text of a label, counted from the left; empty for the root and beyond.
    pub fn label(&self, index: usize) -> &[u8] {
        match index < self.labels {
            true => &self.range(index, index + 1)[1..],
            false => &[],
        }
    }

    /// Labels `from` up to but not including `to`, in wire form. Both must not be above [`FoldedName::labels`].
    pub fn range(&self, from: usize, to: usize) -> &[u8] {
        &self.octets[self.starts[from] as usize..self.starts[to] as usize]
    }

    /// All of it in wire form, root label included.
    pub fn wire(&self) -> &[u8] {
        &self.octets[..=self.starts[self.labels] as usize]
    }

    /// How many labels are left of `suffix`; `None` if the name is not at or below it.
    pub fn below(&self, suffix: &FoldedName) -> Option<usize> {
        let left = self.labels.checked_sub(suffix.labels)?;
        (self.range(left, self.labels) == suffix.range(0, suffix.labels)).then_some(left)
    }
}

/// One label in wire form (length octet, then lower-case text).
///
/// `None` when it is empty or longer than 63 octets.
pub fn label(text: &str) -> Option<Box<[u8]>> {
    labels(&[text])
}

/// Several labels in wire form, one after the other; `None` when one of them cannot be a label.
pub fn labels(texts: &[&str]) -> Option<Box<[u8]>> {
    let mut wire = Vec::with_capacity(texts.iter().map(|text| text.len() + 1).sum());
    for text in texts {
        if text.is_empty() || text.len() > LONGEST_LABEL {
            return None;
        }
        wire.push(text.len() as u8);
        wire.extend(text.bytes().map(|octet| octet.to_ascii_lowercase()));
    }
    Some(wire.into())
}

/// Labels in wire form put in front of an absolute name in wire form.
///
/// `None` when the result would be too long for a name.
pub fn join(front: &[u8], back: &Name<Vec<u8>>) -> Option<Name<Vec<u8>>> {
    Name::from_octets([front, back.as_slice()].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> FoldedName {
        FoldedName::new(&Name::vec_from_str(text).unwrap())
    }

    #[test]
    fn labels_are_counted_from_the_left_and_folded() {
        let name = folded("Web.PROD.svc.cluster.local.");
        assert_eq!(name.labels(), 5);
        assert_eq!(name.label(0), b"web");
        assert_eq!(name.label(4), b"local");
        assert_eq!(name.label(5), b"");
        assert_eq!(name.range(0, 2), b"\x03web\x04prod");
        assert_eq!(name.range(2, 2), b"");
        assert_eq!(name.wire(), b"\x03web\x04prod\x03svc\x07cluster\x05local\0");
    }

    #[test]
    fn a_name_is_below_itself_its_parents_and_the_root() {
        let domain = folded("cluster.local.");
        assert_eq!(folded("a.b.cluster.local.").below(&domain), Some(2));
        assert_eq!(folded("CLUSTER.local.").below(&domain), Some(0));
        assert_eq!(folded("a.").below(&folded(".")), Some(1));
    }

    #[test]
    fn a_shared_ending_of_octets_is_not_a_shared_ending_of_labels() {
        assert_eq!(
            folded("mycluster.local.").below(&folded("cluster.local.")),
            None
        );
        assert_eq!(folded("local.").below(&folded("cluster.local.")), None);
        // The octets "\x01b" also end the single label "a\x01b".
        assert_eq!(folded("a\\001b.").below(&folded("b.")), None);
    }

    #[test]
    fn the_longest_name_and_the_most_labels_fit() {
        let most = "a.".repeat(127);
        assert_eq!(folded(&most).labels(), 127);
        assert_eq!(folded(&most).wire().len(), 255);
        assert_eq!(folded(&most).below(&folded(&most)), Some(0));
    }

    #[test]
    fn a_label_has_1_to_63_octets() {
        assert_eq!(label("Db-0").as_deref(), Some(&b"\x04db-0"[..]));
        assert_eq!(label(""), None);
        assert!(label(&"x".repeat(63)).is_some());
        assert_eq!(label(&"x".repeat(64)), None);
        assert_eq!(labels(&["web", ""]), None);
    }
}
