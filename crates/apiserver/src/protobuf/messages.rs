//! The messages of the API: what `messages.txt` says, read when first asked for.

use std::collections::HashMap;
use std::sync::LazyLock;

const TABLE: &str = include_str!("messages.txt");

/// A message of the API.
#[derive(Debug)]
pub(super) struct Message {
    /// `apps/v1.Deployment`
    pub(super) name: &'static str,
    fields: Vec<(u32, Field)>,
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Name,
    pub(super) list: bool,
    pub(super) kind: Kind,
}

/// What a field is in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// A member of that name.
    Of {
        json: &'static str,
        /// Whether JSON leaves it out when it is zero.
        omitted: bool,
    },
    /// Its members are members of the message.
    Inline,
    /// It is the message.
    Whole,
}

/// The type of a field's value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bytes,
    Bool,
    Int32,
    Int64,
    /// JSON, as bytes inside.
    Json,
    IntOrString,
    Quantity,
    Time {
        /// With microseconds.
        micros: bool,
    },
    /// From text to this.
    Map(Box<Kind>),
    Message(&'static str),
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields
            .iter()
            .find(|(n, _)| *n == number)
            .map(|(_, field)| field)
    }
}

impl Kind {
    pub(super) fn is_varint(&self) -> bool {
        matches!(self, Self::Bool | Self::Int32 | Self::Int64)
    }

    fn read(text: &'static str) -> Self {
        match text {
            "string" => Self::Text,
            "bytes" => Self::Bytes,
            "bool" => Self::Bool,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "meta.RawExtension" | "meta.FieldsV1" => Self::Json,
            "meta.IntOrString" => Self::IntOrString,
            "meta.Quantity" => Self::Quantity,
            "meta.Time" => Self::Time { micros: false },
            "meta.MicroTime" => Self::Time { micros: true },
            _ => match text.strip_prefix("map:") {
                Some(value) => Self::Map(Box::new(Self::read(value))),
                None => Self::Message(text),
            },
        }
    }
}

/// The message of that name.
pub(super) fn find(name: &str) -> Option<&'static Message> {
    static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| read(TABLE));
    MESSAGES.get(name)
}

fn read(table: &'static str) -> HashMap<&'static str, Message> {
    let mut messages: HashMap<&str, Message> = HashMap::new();
    let mut current = "";
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix(' ') {
            None => {
                current = line;
                messages.insert(
                    line,
                    Message {
                        name: line,
                        fields: Vec::new(),
                    },
                );
            }
            Some(line) => {
                let mut words = line.split(' ');
                if let (Some(Ok(number)), Some(name), Some(kind)) =
                    (words.next().map(str::parse), words.next(), words.next())
                    && let Some(message) = messages.get_mut(current)
                {
                    message.fields.push((number, field(name, kind)));
                }
            }
        }
    }
    messages
}

fn field(name: &'static str, kind: &'static str) -> Field {
    let name = match name {
        "." => Name::Inline,
        "=" => Name::Whole,
        _ => match name.strip_suffix('?') {
            Some(json) => Name::Of {
                json,
                omitted: true,
            },
            None => Name::Of {
                json: name,
                omitted: false,
            },
        },
    };
    match kind.strip_prefix("[]") {
        Some(kind) => Field {
            name,
            list: true,
            kind: Kind::read(kind),
        },
        None => Field {
            name,
            list: false,
            kind: Kind::read(kind),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_of_a_type_that_is_known() {
        let messages = read(TABLE);
        assert!(messages.len() > 300);
        let lines = TABLE.lines().filter(|line| line.starts_with(' ')).count();
        assert_eq!(
            messages.values().map(|m| m.fields.len()).sum::<usize>(),
            lines
        );
        for message in messages.values() {
            for (number, field) in &message.fields {
                let kind = match &field.kind {
                    Kind::Map(value) => value,
                    other => other,
                };
                if let Kind::Message(name) = kind {
                    assert!(
                        messages.contains_key(name),
                        "{} {number} is a {name}",
                        message.name
                    );
                }
            }
        }
    }

    #[test]
    fn every_kind_that_is_served_has_a_message() {
        // Schemas in definitions are JSON within protobuf, and nobody sends them so.
        let kinds = seaway_objects::kinds::registry().into_iter();
        for kind in kinds.filter(|kind| kind.names().group != "apiextensions.k8s.io") {
            let names = kind.names();
            let name = format!("{}.{}", crate::object::api_version(names), names.kind);
            assert!(find(&name).is_some(), "{name}");
        }
    }
}
