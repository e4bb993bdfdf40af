//! Rules: expressions that a packet passes from left to right until one does not match.

use super::expr::Expr;
use super::table::Family;
use super::userdata;
use crate::wire::{Attrs, Malformed, Writer};

pub(super) const TABLE: u16 = 1;
pub(super) const CHAIN: u16 = 2;
pub(super) const HANDLE: u16 = 3;
const EXPRESSIONS: u16 = 4;
const USERDATA: u16 = 7;
const LIST_ELEMENT: u16 = 1;

/// A rule at the end of its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The kernel's number for it; `None` until it is read back.
    pub handle: Option<u64>,
    /// From left to right. A register that one reads must have been written by one before it.
    pub expressions: Vec<Expr>,
    /// What `nft list` shows as its comment.
    pub comment: Option<String>,
}

impl Rule {
    /// A rule to append.
    pub fn new(
        family: Family,
        table: impl Into<String>,
        chain: impl Into<String>,
        expressions: impl IntoIterator<Item = Expr>,
    ) -> Self {
        Self {
            family,
            table: table.into(),
            chain: chain.into(),
            handle: None,
            expressions: expressions.into_iter().collect(),
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
        w.put_str(TABLE, &self.table);
        w.put_str(CHAIN, &self.chain);
        w.nest(EXPRESSIONS, |w| {
            for expression in &self.expressions {
                w.nest(LIST_ELEMENT, |w| expression.encode(w));
            }
        });
        if let Some(comment) = &self.comment {
            w.put(
                USERDATA,
                &userdata::comment(userdata::RULE_COMMENT, comment),
            );
        }
    }

    pub(super) fn decode(family: Family, attributes: Attrs<'_>) -> Result<Self, Malformed> {
        let expressions = attributes
            .find(EXPRESSIONS)
            .map_or(Ok(Vec::new()), |list| {
                list.nested()
                    .filter(|a| a.kind == LIST_ELEMENT)
                    .map(Expr::decode)
                    .collect()
            })?;
        Ok(Self {
            family,
            table: attributes
                .need(TABLE, "table of a rule")?
                .text()?
                .to_owned(),
            chain: attributes
                .need(CHAIN, "chain of a rule")?
                .text()?
                .to_owned(),
            handle: attributes.find(HANDLE).map(|a| a.u64()).transpose()?,
            expressions,
            comment: attributes
                .find(USERDATA)
                .and_then(|a| userdata::read_comment(a.value, userdata::RULE_COMMENT)),
        })
    }
}
