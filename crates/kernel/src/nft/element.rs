//! Elements of sets and maps.

use std::borrow::Cow;
use std::time::Duration;

use super::userdata;
use super::verdict::{DATA_VERDICT, Verdict};
use crate::wire::{Attr, Malformed, Writer};

const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const TIMEOUT: u16 = 4;
const USERDATA: u16 = 6;
const KEY_END: u16 = 10;
/// `NFTA_DATA_VALUE`.
pub(super) const DATA_VALUE: u16 = 1;
const F_INTERVAL_END: u32 = 1;

/// What a key leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data<'a> {
    /// A value of the map's data fields.
    Value(Cow<'a, [u8]>),
    /// A verdict.
    Verdict(Verdict<'a>),
}

/// An element. Keys and values have the lengths that their set says: fields of concatenations padded to four bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element<'a> {
    /// The key, or where a range of keys begins.
    pub key: Cow<'a, [u8]>,
    /// The last key of a range, in sets of concatenated ranges.
    pub key_end: Option<Cow<'a, [u8]>>,
    /// In maps.
    pub data: Option<Data<'a>>,
    /// The first key behind a range, in sets of ranges with one field.
    pub ends_range: bool,
    /// How long it lives, where not as long as the set says.
    pub timeout: Option<Duration>,
    /// What `nft list` shows as its comment.
    pub comment: Option<Cow<'a, str>>,
}

impl<'a> Element<'a> {
    /// Comments are cut to so many bytes: `nft -f` takes no longer ones.
    pub const LONGEST_COMMENT: usize = userdata::LONGEST_COMMENT;

    /// An element of a set.
    pub fn key(key: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            key: key.into(),
            key_end: None,
            data: None,
            ends_range: false,
            timeout: None,
            comment: None,
        }
    }

    /// An element of a map to values.
    pub fn value(key: impl Into<Cow<'a, [u8]>>, value: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            data: Some(Data::Value(value.into())),
            ..Self::key(key)
        }
    }

    /// An element of a map to verdicts.
    pub fn verdict(key: impl Into<Cow<'a, [u8]>>, verdict: Verdict<'a>) -> Self {
        Self {
            data: Some(Data::Verdict(verdict)),
            ..Self::key(key)
        }
    }

    /// The end of a range in a set with one field: the first key that is no more in it.
    pub fn range_end(key: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            ends_range: true,
            ..Self::key(key)
        }
    }

    /// The same with a comment.
    #[must_use]
    pub fn with_comment(mut self, comment: impl Into<Cow<'a, str>>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// The same without borrowing.
    pub fn into_owned(self) -> Element<'static> {
        Element {
            key: self.key.into_owned().into(),
            key_end: self.key_end.map(|key| key.into_owned().into()),
            data: self.data.map(|data| match data {
                Data::Value(value) => Data::Value(value.into_owned().into()),
                Data::Verdict(verdict) => Data::Verdict(verdict.into_owned()),
            }),
            ends_range: self.ends_range,
            timeout: self.timeout,
            comment: self.comment.map(|comment| comment.into_owned().into()),
        }
    }

    /// An upper bound of the bytes that [`Element::encode`] writes.
    pub(super) fn encoded_length(&self) -> usize {
        let data = match &self.data {
            None => 0,
            Some(Data::Value(value)) => value.len() + 16,
            Some(Data::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) => chain.len() + 32,
            Some(Data::Verdict(_)) => 24,
        };
        let comment = self
            .comment
            .as_ref()
            .map_or(0, |comment| comment.len().min(128) + 12);
        self.key.len()
            + 12
            + self.key_end.as_ref().map_or(0, |key| key.len() + 12)
            + data
            + comment
            + 28
    }

    /// Writes the element; what identifies it only, if `name_only`.
    pub(super) fn encode(&self, w: &mut Writer, name_only: bool) {
        if self.ends_range {
            w.put_u32(FLAGS, F_INTERVAL_END);
        }
        w.nest(KEY, |w| w.put(DATA_VALUE, &self.key));
        if let Some(key) = &self.key_end {
            w.nest(KEY_END, |w| w.put(DATA_VALUE, key));
        }
        if name_only {
            return;
        }
        match &self.data {
            None => {}
            Some(Data::Value(value)) => w.nest(DATA, |w| w.put(DATA_VALUE, value)),
            Some(Data::Verdict(verdict)) => w.nest(DATA, |w| verdict.encode(w)),
        }
        if let Some(timeout) = self.timeout {
            w.put_u64(TIMEOUT, timeout.as_millis() as u64);
        }
        if let Some(comment) = &self.comment {
            w.put(
                USERDATA,
                &userdata::comment(userdata::ELEMENT_COMMENT, comment),
            );
        }
    }

    pub(super) fn decode(attribute: Attr<'_>) -> Result<Element<'static>, Malformed> {
        let inside = attribute.nested();
        let bytes = |attribute: Attr<'_>| {
            Ok(Cow::Owned(
                attribute
                    .nested()
                    .need(DATA_VALUE, "value of an element")?
                    .value
                    .to_vec(),
            ))
        };
        let flags = inside.find(FLAGS).map_or(Ok(0), |a| a.u32())?;
        let data = inside.find(DATA).map(|data| {
            if let Some(verdict) = data.nested().find(DATA_VERDICT) {
                Verdict::decode(verdict).map(Data::Verdict)
            } else {
                bytes(data).map(Data::Value)
            }
        });
        Ok(Element {
            key: bytes(inside.need(KEY, "key of an element")?)?,
            key_end: inside.find(KEY_END).map(bytes).transpose()?,
            data: data.transpose()?,
            ends_range: flags & F_INTERVAL_END != 0,
            timeout: inside
                .find(TIMEOUT)
                .map(|a| a.u64().map(Duration::from_millis))
                .transpose()?,
            comment: inside
                .find(USERDATA)
                .and_then(|a| userdata::read_comment(a.value, userdata::ELEMENT_COMMENT))
                .map(Cow::Owned),
        })
    }
}
