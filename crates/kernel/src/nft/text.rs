//! The canonical text of messages, in the words of `nft`: for tests, and for errors that name their object.

use std::fmt::Write as _;

use super::element::{Data, Element};
use super::message::{Change, Message, Object};
use super::set::{Set, SetData, format_value, hexadecimal};
use super::table::Family;

/// Writes messages as lines. Sets that were seen, or given, make the keys of their elements readable.
#[derive(Debug, Default)]
pub(super) struct Text {
    sets: Vec<Set>,
    pub(super) lines: Vec<String>,
}

impl Text {
    pub(super) fn with_sets(sets: &[Set]) -> Self {
        Self {
            sets: sets.to_vec(),
            lines: Vec::new(),
        }
    }

    /// Appends the lines of a message: one for each element, or one.
    pub(super) fn push(&mut self, message: &Message) {
        let verb = match message.change {
            Change::Add => "add",
            Change::Create => "create",
            Change::Delete => "delete",
        };
        let deletes = message.change == Change::Delete;
        match &message.object {
            Object::Table(table) => {
                let mut line = format!("{verb} table {} {}", table.family, table.name);
                if let Some(comment) = table.comment.as_ref().filter(|_| !deletes) {
                    let _ = write!(line, " {{ comment {comment:?} }}");
                }
                self.lines.push(line);
            }
            Object::Chain(chain) => {
                let mut line = format!(
                    "{verb} chain {} {} {}",
                    chain.family, chain.table, chain.name
                );
                if !deletes {
                    if let Some(base) = &chain.base {
                        let _ = write!(line, " {{ {base} }}");
                    }
                    if let Some(comment) = &chain.comment {
                        let _ = write!(line, " comment {comment:?}");
                    }
                }
                self.lines.push(line);
            }
            Object::Rule(rule) => {
                let mut line = format!("{verb} rule {} {} {}", rule.family, rule.table, rule.chain);
                for expression in &rule.expressions {
                    let _ = write!(line, " {expression}");
                }
                if let Some(comment) = &rule.comment {
                    let _ = write!(line, " comment {comment:?}");
                }
                self.lines.push(line);
            }
            Object::Rules {
                family,
                table,
                chain,
                handle: None,
            } => {
                self.lines
                    .push(format!("flush chain {family} {table} {chain}"));
            }
            Object::Rules {
                family,
                table,
                chain,
                handle: Some(handle),
            } => {
                self.lines.push(format!(
                    "{verb} rule {family} {table} {chain} handle {handle}"
                ));
            }
            Object::Set(set) => {
                self.lines.push(format!("{verb} {set}"));
                self.sets.push(set.clone());
            }
            Object::SetName { family, table, set } => {
                self.lines
                    .push(format!("{verb} set {family} {table} {set}"));
            }
            Object::Elements {
                family,
                table,
                set,
                elements,
            } if elements.is_empty() && deletes => {
                self.lines.push(format!("flush set {family} {table} {set}"));
            }
            Object::Elements {
                family,
                table,
                set,
                elements,
            } => {
                for element in elements {
                    let text = self.element(*family, table, set, element, deletes);
                    self.lines.push(format!(
                        "{verb} element {family} {table} {set} {{ {text} }}"
                    ));
                }
            }
        }
    }

    fn element(
        &self,
        family: Family,
        table: &str,
        set: &str,
        element: &Element<'_>,
        name_only: bool,
    ) -> String {
        let found = self
            .sets
            .iter()
            .rev()
            .find(|s| s.family == family && s.table == table && s.name == set);
        let key = |bytes: &[u8]| {
            found.map_or_else(|| hexadecimal(bytes), |set| format_value(&set.key, bytes))
        };
        let mut out = if element.ends_range {
            "< ".to_owned()
        } else {
            String::new()
        };
        out.push_str(&key(&element.key));
        if let Some(end) = &element.key_end {
            let _ = write!(out, " - {}", key(end));
        }
        if name_only {
            return out;
        }
        if let Some(timeout) = element.timeout {
            let _ = write!(out, " timeout {}ms", timeout.as_millis());
        }
        if let Some(comment) = &element.comment {
            let _ = write!(out, " comment {comment:?}");
        }
        match &element.data {
            None => {}
            Some(Data::Verdict(verdict)) => {
                let _ = write!(out, " : {verdict}");
            }
            Some(Data::Value(value)) => {
                let text = match found.and_then(|set| set.data.as_ref()) {
                    Some(SetData::Value(fields)) => format_value(fields, value),
                    Some(SetData::Verdict) | None => hexadecimal(value),
                };
                let _ = write!(out, " : {text}");
            }
        }
        out
    }
}
