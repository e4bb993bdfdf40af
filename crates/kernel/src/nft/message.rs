//! One message about one object: what a batch asks for, and what a dump answers.

use super::chain::Chain;
use super::element::Element;
use super::rule::{self, Rule};
use super::set::Set;
use super::table::{Family, Table};
use crate::wire::{Attrs, F_EXCL, Malformed, Messages, Raw, SUBSYSTEM};

/// The lower byte of a message's type (`enum nf_tables_msg_types`).
pub(super) mod kind {
    pub(crate) const NEW_TABLE: u16 = 0;
    pub(crate) const GET_TABLE: u16 = 1;
    pub(crate) const DELETE_TABLE: u16 = 2;
    pub(crate) const NEW_CHAIN: u16 = 3;
    pub(crate) const GET_CHAIN: u16 = 4;
    pub(crate) const DELETE_CHAIN: u16 = 5;
    pub(crate) const NEW_RULE: u16 = 6;
    pub(crate) const GET_RULE: u16 = 7;
    pub(crate) const DELETE_RULE: u16 = 8;
    pub(crate) const NEW_SET: u16 = 9;
    pub(crate) const GET_SET: u16 = 10;
    pub(crate) const DELETE_SET: u16 = 11;
    pub(crate) const NEW_ELEMENT: u16 = 12;
    pub(crate) const GET_ELEMENT: u16 = 13;
    pub(crate) const DELETE_ELEMENT: u16 = 14;
    pub(crate) const NEW_GENERATION: u16 = 15;
    pub(crate) const GET_GENERATION: u16 = 16;
}

/// Attributes of a message about elements (`enum nft_set_elem_list_attributes`).
pub(super) mod list {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const SET: u16 = 2;
    pub(crate) const ELEMENTS: u16 = 3;
    /// `NFTA_LIST_ELEM`.
    pub(crate) const ELEMENT: u16 = 1;
}

/// What happens to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Added, unless it is there already.
    Add,
    /// Added; an error if it is there already.
    Create,
    /// Taken away; an error if it is not there.
    Delete,
}

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A table; of a deletion, only its name counts.
    Table(Table),
    /// A chain; of a deletion, only its name counts.
    Chain(Chain),
    /// A rule to append, or one that was read back.
    Rule(Rule),
    /// Rules to take away: of this handle, or all of the chain.
    Rules {
        /// Family of the table.
        family: Family,
        /// The table.
        table: String,
        /// The chain.
        chain: String,
        /// The one rule that is meant.
        handle: Option<u64>,
    },
    /// A set or map.
    Set(Set),
    /// A set or map to take away.
    SetName {
        /// Family of the table.
        family: Family,
        /// The table.
        table: String,
        /// The set.
        set: String,
    },
    /// Elements of a set or map; in a deletion, none stands for all.
    Elements {
        /// Family of the table.
        family: Family,
        /// The table.
        table: String,
        /// The set.
        set: String,
        /// The elements.
        elements: Vec<Element<'static>>,
    },
}

/// What happens to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What happens.
    pub change: Change,
    /// To what.
    pub object: Object,
}

impl Message {
    /// Decodes netlink messages about nf_tables objects; other messages are left out.
    ///
    /// # Errors
    /// The first message that is not what its type promises. Never panics, whatever the bytes are.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        Messages::new(bytes)
            .filter_map(|raw| Self::decode(raw).transpose())
            .collect()
    }

    /// `None` if it is about something else.
    pub(super) fn decode(raw: Raw<'_>) -> Result<Option<Self>, Malformed> {
        if raw.kind >> 8 != SUBSYSTEM {
            return Ok(None);
        }
        let kind = raw.kind & 0xff;
        let object = match kind {
            kind::NEW_TABLE | kind::DELETE_TABLE => {
                let (family, attributes) = head(raw)?;
                Object::Table(Table::decode(family, attributes)?)
            }
            kind::NEW_CHAIN | kind::DELETE_CHAIN => {
                let (family, attributes) = head(raw)?;
                Object::Chain(Chain::decode(family, attributes)?)
            }
            kind::NEW_RULE => {
                let (family, attributes) = head(raw)?;
                Object::Rule(Rule::decode(family, attributes)?)
            }
            kind::DELETE_RULE => {
                let (family, attributes) = head(raw)?;
                Object::Rules {
                    family,
                    table: text(attributes, rule::TABLE)?,
                    chain: text(attributes, rule::CHAIN)?,
                    handle: attributes.find(rule::HANDLE).map(|a| a.u64()).transpose()?,
                }
            }
            kind::NEW_SET => {
                let (family, attributes) = head(raw)?;
                Object::Set(Set::decode(family, attributes)?)
            }
            kind::DELETE_SET => {
                let (family, attributes) = head(raw)?;
                Object::SetName {
                    family,
                    table: text(attributes, list::TABLE)?,
                    set: text(attributes, list::SET)?,
                }
            }
            kind::NEW_ELEMENT | kind::DELETE_ELEMENT => {
                let (family, attributes) = head(raw)?;
                Object::Elements {
                    family,
                    table: text(attributes, list::TABLE)?,
                    set: text(attributes, list::SET)?,
                    elements: attributes
                        .find(list::ELEMENTS)
                        .map_or(Ok(Vec::new()), |a| {
                            a.nested()
                                .filter(|a| a.kind == list::ELEMENT)
                                .map(Element::decode)
                                .collect()
                        })?,
                }
            }
            _ => return Ok(None),
        };
        let deletes = matches!(
            kind,
            kind::DELETE_TABLE
                | kind::DELETE_CHAIN
                | kind::DELETE_RULE
                | kind::DELETE_SET
                | kind::DELETE_ELEMENT
        );
        let change = match (deletes, raw.flags & F_EXCL != 0) {
            (true, _) => Change::Delete,
            (false, true) => Change::Create,
            (false, false) => Change::Add,
        };
        Ok(Some(Self { change, object }))
    }
}

fn head(raw: Raw<'_>) -> Result<(Family, Attrs<'_>), Malformed> {
    let (family, attributes) = raw.netfilter()?;
    Ok((Family::from_number(family)?, attributes))
}

fn text(attributes: Attrs<'_>, kind: u16) -> Result<String, Malformed> {
    Ok(attributes
        .need(kind, "name of an object")?
        .text()?
        .to_owned())
}
