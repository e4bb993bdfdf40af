//! A batch: changes that the kernel makes all together, or not at all.
//!
//! Objects are encoded at once into the one buffer that is sent, so that tens of thousands of elements cost
//! little more than their bytes.

use super::chain::Chain;
use super::element::Element;
use super::message::{Message, kind, list};
use super::rule::{self, Rule};
use super::set::Set;
use super::table::{Family, Table};
use super::text::Text;
use crate::wire::{
    F_ACK, F_APPEND, F_CREATE, F_EXCL, LONGEST, Mark, Messages, Raw, SUBSYSTEM, Writer,
};

/// Changes to make in one transaction, in this order.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    writer: Writer,
    /// Where each message begins. Its sequence number is its place here and one: the batch's begin has 0.
    starts: Vec<usize>,
    /// The number of sets that are added, which numbers them.
    sets: u32,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Adds a table, unless there is one of this name.
    pub fn add_table(&mut self, table: &Table) {
        self.message(kind::NEW_TABLE, F_CREATE, table.family, |w| table.encode(w));
    }

    /// Takes a table away with all that is in it.
    pub fn delete_table(&mut self, family: Family, name: &str) {
        self.message(kind::DELETE_TABLE, 0, family, |w| {
            Table::new(family, name).encode_name(w)
        });
    }

    /// Adds a chain, unless there is one of this name.
    pub fn add_chain(&mut self, chain: &Chain) {
        self.message(kind::NEW_CHAIN, F_CREATE, chain.family, |w| chain.encode(w));
    }

    /// Takes a chain away with its rules; nothing may lead to it any more.
    pub fn delete_chain(&mut self, family: Family, table: &str, chain: &str) {
        self.message(kind::DELETE_CHAIN, 0, family, |w| {
            Chain::regular(family, table, chain).encode_name(w)
        });
    }

    /// Takes all rules of a chain away.
    pub fn flush_chain(&mut self, family: Family, table: &str, chain: &str) {
        self.message(kind::DELETE_RULE, 0, family, |w| {
            w.put_str(rule::TABLE, table);
            w.put_str(rule::CHAIN, chain);
        });
    }

    /// Appends a rule to its chain.
    pub fn add_rule(&mut self, rule: &Rule) {
        self.message(kind::NEW_RULE, F_CREATE | F_APPEND, rule.family, |w| {
            rule.encode(w)
        });
    }

    /// Takes a rule away.
    pub fn delete_rule(&mut self, family: Family, table: &str, chain: &str, handle: u64) {
        self.message(kind::DELETE_RULE, 0, family, |w| {
            w.put_str(rule::TABLE, table);
            w.put_str(rule::CHAIN, chain);
            w.put_u64(rule::HANDLE, handle);
        });
    }

    /// Adds a set or map, unless there is one of this name.
    pub fn add_set(&mut self, set: &Set) {
        self.sets += 1;
        let id = self.sets;
        self.message(kind::NEW_SET, F_CREATE, set.family, |w| set.encode(w, id));
    }

    /// Takes a set or map away; no rule may use it any more.
    pub fn delete_set(&mut self, family: Family, table: &str, set: &str) {
        self.message(kind::DELETE_SET, 0, family, |w| {
            w.put_str(list::TABLE, table);
            w.put_str(list::SET, set);
        });
    }

    /// Takes all elements of a set or map away.
    pub fn flush_set(&mut self, family: Family, table: &str, set: &str) {
        self.message(kind::DELETE_ELEMENT, 0, family, |w| {
            w.put_str(list::TABLE, table);
            w.put_str(list::SET, set);
        });
    }

    /// Adds elements to a set or map. One that is there already with the same data is left as it is; with other
    /// data it is an error.
    pub fn add_elements<'a>(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        elements: impl IntoIterator<Item = Element<'a>>,
    ) {
        self.elements(
            kind::NEW_ELEMENT,
            F_CREATE,
            family,
            (table, set),
            elements,
            false,
        );
    }

    /// Adds elements to a set or map, none of which may be there.
    pub fn create_elements<'a>(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        elements: impl IntoIterator<Item = Element<'a>>,
    ) {
        self.elements(
            kind::NEW_ELEMENT,
            F_CREATE | F_EXCL,
            family,
            (table, set),
            elements,
            false,
        );
    }

    /// Takes elements away, all of which must be there. Only their keys count.
    pub fn delete_elements<'a>(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        elements: impl IntoIterator<Item = Element<'a>>,
    ) {
        self.elements(
            kind::DELETE_ELEMENT,
            0,
            family,
            (table, set),
            elements,
            true,
        );
    }

    /// The netlink messages so far, without the batch's begin and end.
    pub fn encoded(&self) -> &[u8] {
        &self.writer.bytes
    }

    /// The batch as text, a line for each object and element. `sets` are those that are in the kernel already:
    /// elements are printed by the types of their sets.
    pub fn text(&self, sets: &[Set]) -> String {
        let mut text = Text::with_sets(sets);
        // What this batch wrote, it can read.
        for message in Message::decode_all(&self.writer.bytes).unwrap_or_default() {
            text.push(&message);
        }
        text.lines.into_iter().map(|line| line + "\n").collect()
    }

    /// Asks for the one answer, with the last message, and hands out the bytes between the batch's begin and end.
    /// `None` if an object was too large to be encoded.
    pub(super) fn seal(&mut self) -> Option<&[u8]> {
        if let Some(&last) = self.starts.last() {
            self.writer.add_flags(last, F_ACK);
        }
        (!self.writer.overflow).then_some(&self.writer.bytes)
    }

    /// The sequence number of the last message.
    pub(super) fn last_sequence(&self) -> u32 {
        self.starts.len() as u32
    }

    /// What the message of this sequence number is about: its first line, or if the byte `at` of it is known to
    /// be at fault, the element there.
    pub(super) fn describe(&self, sequence: u32, at: Option<usize>) -> Option<String> {
        let start = *self.starts.get(sequence.checked_sub(1)? as usize)?;
        let raw = Messages::new(self.writer.bytes.get(start..)?).next()?;
        let mut text = Text::default();
        self.remember_sets(&mut text);
        let before = text.lines.len();
        text.push(&Message::decode(raw).ok()??);
        let element = at.and_then(|at| element_at(raw, at)).unwrap_or(0);
        text.lines.into_iter().nth(before + element)
    }

    fn remember_sets(&self, text: &mut Text) {
        for raw in Messages::new(&self.writer.bytes) {
            if raw.kind == (SUBSYSTEM << 8) | kind::NEW_SET
                && let Ok(Some(message)) = Message::decode(raw)
            {
                text.push(&message);
            }
        }
    }

    fn message(&mut self, kind: u16, flags: u16, family: Family, body: impl FnOnce(&mut Writer)) {
        let mark = self.begin(kind, flags, family);
        body(&mut self.writer);
        self.writer.end(mark);
    }

    fn begin(&mut self, kind: u16, flags: u16, family: Family) -> Mark {
        self.starts.push(self.writer.bytes.len());
        let sequence = self.starts.len() as u32;
        self.writer
            .begin((SUBSYSTEM << 8) | kind, flags, sequence, family.number(), 0)
    }

    /// As many messages as the list of elements needs: an attribute holds less than 64 KiB.
    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        family: Family,
        (table, set): (&str, &str),
        elements: impl IntoIterator<Item = Element<'a>>,
        name_only: bool,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let message = self.begin(kind, flags, family);
            self.writer.put_str(list::TABLE, table);
            self.writer.put_str(list::SET, set);
            let all = self.writer.open(list::ELEMENTS);
            let from = self.writer.bytes.len();
            while let Some(element) = elements.next_if(|element| {
                let length = self.writer.bytes.len() - from;
                length == 0 || length + element.encoded_length() < LONGEST - 8
            }) {
                let one = self.writer.open(list::ELEMENT);
                element.encode(&mut self.writer, name_only);
                self.writer.close(one);
            }
            self.writer.close(all);
            self.writer.end(message);
        }
    }
}

/// The number of the element in which the byte `at` of a message (counted from its `nlmsghdr`) lies.
fn element_at(raw: Raw<'_>, at: usize) -> Option<usize> {
    let (_, attributes) = raw.netfilter().ok()?;
    let all = attributes.find(list::ELEMENTS)?;
    // nlmsghdr, nfgenmsg, the attributes before, the header of the list.
    let inside = at.checked_sub(crate::wire::PREAMBLE + all.at + 4)?;
    all.nested()
        .take_while(|element| element.at <= inside)
        .count()
        .checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::DataType;

    fn set() -> Set {
        Set::new(Family::Ip, "t", "s", [DataType::Ipv4Addr])
    }

    fn numbered(count: u32) -> impl Iterator<Item = Element<'static>> {
        (0..count).map(|n| Element::key(n.to_be_bytes().to_vec()))
    }

    #[test]
    fn long_lists_are_split_and_lose_nothing() {
        let mut batch = Batch::new();
        batch.add_set(&set());
        batch.add_elements(Family::Ip, "t", "s", numbered(10_000));
        assert!(batch.seal().is_some());
        assert!(
            batch.last_sequence() > 2,
            "one attribute cannot hold 10,000 elements"
        );
        let text = batch.text(&[]);
        assert_eq!(text.lines().count(), 10_001);
        assert_eq!(
            text.lines().last(),
            Some("add element ip t s { 0.0.39.15 }")
        );
    }

    #[test]
    fn an_error_names_the_element_at_fault() {
        let mut batch = Batch::new();
        batch.add_set(&set());
        batch.add_elements(Family::Ip, "t", "s", numbered(3));
        let raw = Messages::new(&batch.writer.bytes[batch.starts[1]..])
            .next()
            .unwrap();
        let all = raw.netfilter().unwrap().1.find(list::ELEMENTS).unwrap();
        let second = all.nested().nth(1).unwrap().at + all.at + 4 + crate::wire::PREAMBLE;
        assert_eq!(
            batch.describe(2, Some(second)).as_deref(),
            Some("add element ip t s { 0.0.0.1 }")
        );
        assert_eq!(
            batch.describe(1, None).as_deref(),
            Some("add set ip t s { key ipv4_addr }")
        );
        assert_eq!(batch.describe(9, None), None);
    }

    #[test]
    fn what_does_not_fit_is_refused_not_cut() {
        let mut batch = Batch::new();
        batch.add_table(&Table::new(Family::Ip, "x".repeat(70_000)));
        assert!(batch.seal().is_none());
    }
}
