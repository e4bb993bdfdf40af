//! Tables: the names under which chains and sets live, one per address family.

use std::fmt;

use super::userdata;
use crate::wire::{Attrs, Malformed, Writer};

const NAME: u16 = 1;
const FLAGS: u16 = 2;
const USERDATA: u16 = 6;

/// The address family of a table (`enum nfproto`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6 in one table.
    Inet,
    /// IPv4.
    Ip,
    /// ARP.
    Arp,
    /// Packets of one device, before routing.
    Netdev,
    /// Frames that cross a bridge.
    Bridge,
    /// IPv6.
    Ip6,
}

impl Family {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }

    pub(super) const fn from_number(number: u8) -> Result<Self, Malformed> {
        Ok(match number {
            1 => Self::Inet,
            2 => Self::Ip,
            3 => Self::Arp,
            5 => Self::Netdev,
            7 => Self::Bridge,
            10 => Self::Ip6,
            _ => return Err(Malformed("family")),
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ip6 => "ip6",
        })
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name, unique in the family.
    pub name: String,
    /// `enum nft_table_flags`; 1 is dormant.
    pub flags: u32,
    /// What `nft list` shows as its comment.
    pub comment: Option<String>,
}

impl Table {
    /// A table without flags and comment.
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self {
            family,
            name: name.into(),
            flags: 0,
            comment: None,
        }
    }

    /// The same with a comment.
    #[must_use]
    pub fn with_comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.put_str(NAME, &self.name);
        w.put_u32(FLAGS, self.flags);
        if let Some(comment) = &self.comment {
            w.put(
                USERDATA,
                &userdata::comment(userdata::TABLE_COMMENT, comment),
            );
        }
    }

    pub(super) fn encode_name(&self, w: &mut Writer) {
        w.put_str(NAME, &self.name);
    }

    pub(super) fn decode(family: Family, attributes: Attrs<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            family,
            name: attributes.need(NAME, "table name")?.text()?.to_owned(),
            flags: attributes.find(FLAGS).map_or(Ok(0), |a| a.u32())?,
            comment: attributes
                .find(USERDATA)
                .and_then(|a| userdata::read_comment(a.value, userdata::TABLE_COMMENT)),
        })
    }
}
